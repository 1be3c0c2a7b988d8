//! Ids as hex digits. Most bytes of trees and indexes are ids, so both directions are written without branches, for the
//! compiler to turn into vector code.

use lastgood_model::Id;

/// The 64 lower-case digits of an id.
#[inline]
pub(super) fn encode(id: &Id) -> [u8; 64] {
    let mut text = [0; 64];
    for (pair, &byte) in text.chunks_exact_mut(2).zip(&id.0) {
        pair[0] = digit(byte >> 4);
        pair[1] = digit(byte & 15);
    }
    text
}

#[inline]
fn digit(nibble: u8) -> u8 {
    nibble + b'0' + if nibble > 9 { b'a' - b'9' - 1 } else { 0 }
}

/// The id written as 64 lower-case digits.
#[inline]
pub(super) fn decode(text: &[u8; 64]) -> Option<Id> {
    let mut nibbles = [0u8; 64];
    let mut bad = 0;
    for (nibble, &c) in nibbles.iter_mut().zip(text) {
        let (number, letter) = (c.wrapping_sub(b'0'), c.wrapping_sub(b'a'));
        *nibble = if number < 10 {
            number
        } else if letter < 6 {
            letter + 10
        } else {
            0xff
        };
        bad |= *nibble;
    }
    if bad > 15 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(nibbles.chunks_exact(2)) {
        *byte = pair[0] << 4 | pair[1];
    }
    Some(Id(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_ids_own_text_for_every_byte_and_refuses_every_other_digit() {
        for start in 0..=u8::MAX {
            let id = Id(std::array::from_fn(|i| start.wrapping_add(i as u8 * 7)));
            assert_eq!(encode(&id)[..], *id.to_string().as_bytes());
            assert_eq!(decode(&encode(&id)), Some(id));
        }
        for c in 0..=u8::MAX {
            for place in [0, 31, 63] {
                let mut text = [b'5'; 64];
                text[place] = c;
                assert_eq!(decode(&text), Id::from_hex(&text), "{c}");
            }
        }
    }
}
