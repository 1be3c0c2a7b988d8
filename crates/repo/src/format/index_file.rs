//! Index files: which blobs lie where in which packs. Read and written by the million, so both directions are by hand.
//!
//! A pack is listed as a whole in one file. Unknown keys are passed over: `supersedes` of early restic, which nothing
//! obeys any more, and `packs_to_delete` of rustic, whose blobs must not be found.

use super::blob::BlobKind;
pub use super::blob::IndexBlob;
use super::json_read::JsonReader;
use super::json_write::{push_id, push_u64};
use lastgood_model::{Error, Id, PackId, Result};
use std::num::NonZeroU32;

/// The JSON of an index file over `packs`, with the newline that restic ends it with.
pub fn encode_index<'a>(packs: impl IntoIterator<Item = (PackId, &'a [IndexBlob])>) -> Vec<u8> {
    let mut out = br#"{"packs":["#.to_vec();
    for (i, (pack, blobs)) in packs.into_iter().enumerate() {
        out.reserve(100 + blobs.len() * 170);
        out.extend_from_slice(if i == 0 { br#"{"id":"# } else { br#",{"id":"# });
        push_id(&mut out, &pack.0);
        out.extend_from_slice(br#","blobs":["#);
        for (i, blob) in blobs.iter().enumerate() {
            out.extend_from_slice(if i == 0 { br#"{"id":"# } else { br#",{"id":"# });
            push_blob(&mut out, blob);
        }
        out.extend_from_slice(b"]}");
    }
    out.extend_from_slice(b"]}\n");
    out
}

fn push_blob(out: &mut Vec<u8>, blob: &IndexBlob) {
    push_id(out, &blob.id);
    out.extend_from_slice(match blob.kind {
        BlobKind::Data => br#","type":"data","offset":"#,
        BlobKind::Tree => br#","type":"tree","offset":"#,
    });
    push_u64(out, u64::from(blob.offset));
    out.extend_from_slice(br#","length":"#);
    push_u64(out, u64::from(blob.length));
    if let Some(length) = blob.uncompressed {
        out.extend_from_slice(br#","uncompressed_length":"#);
        push_u64(out, u64::from(length.get()));
    }
    out.push(b'}');
}

/// Reads an index file, handing each pack with its blobs to `on_pack`, whose error ends it.
///
/// Blobs come in the order written, each within bounds by itself; whether they fit together and fill their pack is for
/// [`super::pack::check_layout`] to say.
///
/// # Errors
/// [`lastgood_model::ErrorKind::Corrupt`]; packs before the damage have been handed over by then.
pub fn decode_index(json: &[u8], mut on_pack: impl FnMut(PackId, &[IndexBlob]) -> Result<()>) -> Result<()> {
    let mut json = JsonReader::new(json, "index")?;
    let mut blobs = Vec::new();
    json.expect(b'{')?;
    let mut first = true;
    while let Some(key) = json.next_key(&mut first)? {
        if key != "packs" {
            json.skip_value()?;
            continue;
        }
        if json.null()? {
            continue;
        }
        json.expect(b'[')?;
        let mut first = true;
        while json.next_item(&mut first)? {
            blobs.clear();
            let pack = read_pack(&mut json, &mut blobs)?;
            on_pack(pack, &blobs)?;
        }
    }
    json.expect_end()
}

fn read_pack(json: &mut JsonReader<'_>, blobs: &mut Vec<IndexBlob>) -> Result<PackId> {
    let mut pack = None;
    json.expect(b'{')?;
    let mut first = true;
    while let Some(key) = json.next_key(&mut first)? {
        match &*key {
            "id" => pack = Some(PackId(json.id()?)),
            "blobs" if json.null()? => {}
            "blobs" => {
                json.expect(b'[')?;
                let mut first = true;
                while json.next_item(&mut first)? {
                    blobs.push(read_blob(json)?);
                }
            }
            _ => json.skip_value()?,
        }
    }
    match pack {
        Some(pack) if pack != PackId::default() => Ok(pack),
        _ => Err(json.damage("a pack without id")),
    }
}

#[inline]
fn read_blob(json: &mut JsonReader<'_>) -> Result<IndexBlob> {
    let mut id: Option<Id> = None;
    let mut kind = None;
    let (mut offset, mut length, mut uncompressed) = (0, 0, 0);
    json.expect(b'{')?;
    let mut first = true;
    while let Some(key) = json.next_key(&mut first)? {
        match key.as_bytes() {
            b"id" => id = Some(json.id()?),
            b"type" => {
                kind = match &*json.string()? {
                    "data" => Some(BlobKind::Data),
                    "tree" => Some(BlobKind::Tree),
                    _ => return Err(json.damage("an unknown type of blob")),
                }
            }
            b"offset" => offset = json.u32()?,
            b"length" => length = json.u32()?,
            b"uncompressed_length" => uncompressed = json.u32()?,
            _ => json.skip_value()?,
        }
    }
    let (Some(id), Some(kind)) = (id, kind) else { return Err(json.damage("a blob without id or type")) };
    let blob = IndexBlob { id, kind, offset, length, uncompressed: NonZeroU32::new(uncompressed) };
    blob.check_bounds().map_err(|e| Error::corrupt("decode index").with_source(e))?;
    Ok(blob)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Packs = Vec<(PackId, Vec<IndexBlob>)>;

    fn decode(json: &[u8]) -> Result<Packs> {
        let mut packs = Packs::new();
        decode_index(json, |pack, blobs| {
            packs.push((pack, blobs.to_vec()));
            Ok(())
        })?;
        Ok(packs)
    }

    fn encode(packs: &Packs) -> Vec<u8> {
        encode_index(packs.iter().map(|(pack, blobs)| (*pack, &blobs[..])))
    }

    fn blob() -> impl Strategy<Value = IndexBlob> {
        (any::<[u8; 32]>(), any::<bool>(), any::<u32>(), 32u32.., any::<u32>()).prop_map(
            |(id, tree, offset, length, uncompressed)| IndexBlob {
                id: Id(id),
                kind: if tree { BlobKind::Tree } else { BlobKind::Data },
                offset: offset.min(u32::MAX - length),
                length,
                uncompressed: NonZeroU32::new(uncompressed),
            },
        )
    }

    #[test]
    fn an_index_is_written_as_restic_writes_it() {
        let packs = vec![
            (
                PackId(Id([1; 32])),
                vec![
                    IndexBlob { id: Id([2; 32]), kind: BlobKind::Data, offset: 0, length: 38, uncompressed: None },
                    IndexBlob {
                        id: Id([3; 32]),
                        kind: BlobKind::Data,
                        offset: 38,
                        length: 112,
                        uncompressed: NonZeroU32::new(511),
                    },
                ],
            ),
            (
                PackId(Id([4; 32])),
                vec![IndexBlob { id: Id([5; 32]), kind: BlobKind::Tree, offset: 0, length: 32, uncompressed: None }],
            ),
        ];
        let [one, two, three, four, five] = [1u8, 2, 3, 4, 5].map(|n| Id([n; 32]).to_string());
        let want = format!(
            concat!(
                r#"{{"packs":[{{"id":"{}","blobs":[{{"id":"{}","type":"data","offset":0,"length":38}},"#,
                r#"{{"id":"{}","type":"data","offset":38,"length":112,"uncompressed_length":511}}]}},"#,
                r#"{{"id":"{}","blobs":[{{"id":"{}","type":"tree","offset":0,"length":32}}]}}]}}{}"#
            ),
            one, two, three, four, five, "\n"
        );
        assert_eq!(String::from_utf8(encode(&packs)).unwrap(), want);
        assert_eq!(encode_index([]), b"{\"packs\":[]}\n");
    }

    #[test]
    fn other_spacing_order_and_keys_are_read() {
        let (pack, id) = (Id([9; 32]), Id([8; 32]));
        let json = format!(
            r#" {{ "supersedes" : ["{id}"], "packs_to_delete":[{{"id":"{pack}","blobs":[]}}], "packs" : [
                {{ "time": null, "blobs" : [ {{ "uncompressed_length":0,"length":40 ,"offset":7,"type":"tree","x":[{{}}],"id":"{id}"}} ],
                   "id" : "{pack}" }}, {{"id":"{id}","blobs":null}} ], "more":1.5 }} "#
        );
        let want = IndexBlob { id, kind: BlobKind::Tree, offset: 7, length: 40, uncompressed: None };
        assert_eq!(decode(json.as_bytes()).unwrap(), [(PackId(pack), vec![want]), (PackId(id), vec![])]);
        assert_eq!(decode(b"{}").unwrap(), []);
        assert_eq!(decode(br#"{"packs":null}"#).unwrap(), []);
    }

    #[test]
    fn impossible_blobs_and_broken_json_are_damage() {
        let id = Id([8; 32]);
        let blob =
            |fields: &str| format!(r#"{{"packs":[{{"id":"{id}","blobs":[{{"id":"{id}","type":"data",{fields}}}]}}]}}"#);
        assert!(decode(blob(r#""offset":0,"length":4294967295"#).as_bytes()).is_ok());
        for json in [
            blob(r#""offset":1,"length":4294967295"#),
            blob(r#""offset":4294967296,"length":40"#),
            blob(r#""offset":0,"length":31"#),
            blob(r#""offset":0"#),
            blob(r#""offset":-1,"length":40"#),
            blob(r#""offset":0,"length":40,"uncompressed_length":4294967296"#),
            blob(r#""offset":0,"length":40,"type":"key""#),
            blob(r#""offset":0,"length":40,"id":null"#),
            format!(r#"{{"packs":[{{"id":"{id}","blobs":[{{"offset":0,"length":40}}]}}]}}"#),
            r#"{"packs":[{"blobs":[]}]}"#.into(),
            format!(r#"{{"packs":[{{"id":"{}","blobs":[]}}]}}"#, Id::default()),
            r#"{"packs":[}"#.into(),
            r#"{"packs":[]} {}"#.into(),
            r#"[]"#.into(),
            String::new(),
        ] {
            let error = decode(json.as_bytes()).expect_err(&json);
            assert_eq!(error.kind(), lastgood_model::ErrorKind::Corrupt, "{json}");
        }
    }

    #[test]
    fn the_callers_error_ends_the_reading() {
        let packs = vec![(PackId(Id([1; 32])), vec![]), (PackId(Id([2; 32])), vec![])];
        let mut seen = 0;
        let stopped = decode_index(&encode(&packs), |_, _| {
            seen += 1;
            Err(Error::invalid("enough"))
        });
        assert_eq!((stopped.unwrap_err().message(), seen), ("enough", 1));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(packs in prop::collection::vec((any::<[u8; 32]>(), prop::collection::vec(blob(), 0..20)), 0..5)) {
            let packs: Packs = packs.into_iter().map(|(id, blobs)| (PackId(Id(id)), blobs)).collect();
            let json = encode(&packs);
            prop_assert_eq!(decode(&json).unwrap(), packs);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        }

        #[test]
        fn cut_or_changed_bytes_never_panic(at: prop::sample::Index, byte: u8) {
            let blobs = [IndexBlob { id: Id([2; 32]), kind: BlobKind::Data, offset: 0, length: 38, uncompressed: NonZeroU32::new(9) }; 2];
            let mut json = encode(&vec![(PackId(Id([1; 32])), blobs.to_vec())]);
            let at = at.index(json.len());
            prop_assert!(at + 1 >= json.len() || decode(&json[..at]).is_err());
            json[at] = byte;
            let _ = decode(&json);
        }
    }
}
