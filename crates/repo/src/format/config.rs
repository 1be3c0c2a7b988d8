//! The `config` object: what makes a folder a repository. Sealed, but never compressed.

use crate::chunk::Polynomial;
use lastgood_model::{Context, Error, ErrorKind, Id, Result};
use serde::Deserialize;

/// The one version that is read and written.
pub const VERSION: u32 = 2;

/// What a repository's config tells.
///
/// Foreign programs keep more keys in it (rustic its pack sizes, for instance), so an existing config is never rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigFile {
    /// Random; tells repositories apart, wherever they lie.
    pub id: Id,
    /// Where files are cut into chunks; irreducible.
    pub chunker_polynomial: Polynomial,
}

#[derive(Deserialize)]
struct Json {
    version: u32,
    #[serde(default)]
    id: String,
    #[serde(default)]
    chunker_polynomial: String,
}

impl ConfigFile {
    /// The JSON to be sealed.
    pub fn encode(&self) -> Vec<u8> {
        let (id, polynomial) = (self.id, self.chunker_polynomial.0);
        format!(r#"{{"version":{VERSION},"id":"{id}","chunker_polynomial":"{polynomial:x}"}}"#).into_bytes()
    }

    /// Reads an unsealed config.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for any other version than 2, [`ErrorKind::Corrupt`] for an unusable id or polynomial.
    pub fn decode(json: &[u8]) -> Result<Self> {
        let json: Json = serde_json::from_slice(json).context("decode repository config")?;
        if json.version != VERSION {
            let error =
                Error::new(ErrorKind::Unsupported, format!("the repository has format version {}", json.version));
            return Err(match json.version {
                1 => error
                    .with_hint("`restic migrate upgrade_repo_v2` brings it to version 2, which is what lastgood reads"),
                _ => error.with_hint("a newer version of lastgood may know it"),
            });
        }
        let id = json.id.parse::<Id>().context("decode repository config")?;
        // Neither a sign nor capitals, which from_str_radix would take.
        let plain = json.chunker_polynomial.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let polynomial = u64::from_str_radix(&json.chunker_polynomial, 16).ok().filter(|_| plain).map(Polynomial);
        let chunker_polynomial = polynomial
            .filter(|p| p.is_irreducible())
            .ok_or_else(|| Error::corrupt("the chunker polynomial in the repository config is not irreducible"))?;
        Ok(Self { id, chunker_polynomial })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0";

    fn json(version: &str, id: &str, polynomial: &str) -> String {
        format!(r#"{{"version":{version},"id":"{id}","chunker_polynomial":"{polynomial}"}}"#)
    }

    #[test]
    fn a_config_is_written_as_restic_writes_it_and_foreign_keys_are_passed_over() {
        let text = json("2", ID, "3da3358b4dc173");
        let config = ConfigFile::decode(text.as_bytes()).unwrap();
        assert_eq!(config.chunker_polynomial, Polynomial(0x3d_a335_8b4d_c173));
        assert_eq!(config.encode(), text.as_bytes());
        let more = text.replace('}', r#","compression":3,"chunker":"rabin","extra_verify":null}"#);
        assert_eq!(ConfigFile::decode(more.as_bytes()).unwrap(), config);
    }

    #[test]
    fn other_versions_are_named_and_version_1_comes_with_a_way_out() {
        for version in ["0", "1", "3"] {
            let error = ConfigFile::decode(json(version, ID, "3da3358b4dc173").as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert_eq!(error.hint().unwrap().contains("migrate upgrade_repo_v2"), version == "1");
        }
        let old = ConfigFile::decode(br#"{"version":1,"other":true}"#).unwrap_err();
        assert_eq!(old.kind(), ErrorKind::Unsupported);
    }

    #[test]
    fn an_unusable_config_is_damage() {
        for text in [
            json("2", "", "3da3358b4dc173"),
            json("2", "12", "3da3358b4dc173"),
            json("2", ID, ""),
            json("2", ID, "0"),
            json("2", ID, "3da3358b4dc174"),
            json("2", ID, "+3da3358b4dc173"),
            json("2", ID, "xyz"),
            json("2", ID, "13da3358b4dc1733da3358b4dc173"),
            json("\"2\"", ID, "3da3358b4dc173"),
            "{}".into(),
            String::new(),
        ] {
            assert_eq!(ConfigFile::decode(text.as_bytes()).unwrap_err().kind(), ErrorKind::Corrupt, "{text}");
        }
    }
}
