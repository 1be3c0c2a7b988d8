//! How Go's `encoding/json` writes what serde would write otherwise.

/// For `#[serde(default, deserialize_with)]`: Go writes empty lists and absent values as `null` and reads `null` as the
/// neutral value.
pub(super) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Default,
{
    <Option<T> as serde::Deserialize>::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// For `#[serde(skip_serializing_if)]`: Go's `omitempty` on numbers.
pub(super) fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// For `#[serde(with)]`: byte slices as standard base64 with padding. What is read is wiped when dropped if the field's
/// type does so.
pub(super) mod base64_bytes {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::{Deserialize, Deserializer, Error, Unexpected};
    use std::borrow::Cow;
    use zeroize::Zeroizing;

    pub(crate) fn serialize<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        let text = Zeroizing::new(STANDARD.encode(bytes));
        serializer.serialize_str(&text)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map_err(|_| D::Error::invalid_value(Unexpected::Other("other text"), &"standard base64"))
    }
}
