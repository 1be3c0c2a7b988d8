//! Key objects: the repository's secrets, sealed under a key that scrypt derives from a password.
//!
//! Keys are read before anything is proven, so whoever can write to the store can name any cost. The bounds here keep a
//! planted key from eating memory or hours: at most 1 GiB and about twenty seconds on a machine of 2026.

use super::blob::SEAL_BYTES;
use super::serde_forms::{base64_bytes, null_as_default};
use crate::crypto::{KdfCost, MasterKey};
use lastgood_model::{Context, Error, ErrorKind, Result, Time};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Bytes of the salt; restic takes no other length.
pub const SALT_BYTES: usize = 64;
/// A key object is refused unread beyond this size; real ones take about 450 bytes.
pub const KEY_FILE_BYTES_MAX: usize = 64 << 10;
/// The greatest block size `r` that is tried.
pub const R_MAX: u32 = 32;
/// The greatest parallelism `p` that is tried.
pub const P_MAX: u32 = 64;
/// The greatest `N · r · p` that is tried. restic's usual 2^15 · 8 · 1 takes a 256th of it.
pub const WORK_MAX: u64 = 1 << 26;

/// More than a master key's JSON ever takes.
const MASTER_JSON_BYTES_MAX: usize = 256;

/// What a key object holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFile {
    /// When it was added; 1970 when whoever added it did not say, as rustic does not.
    pub created: Time,
    /// Who added it; for people.
    pub username: String,
    /// Where it was added; for people.
    pub hostname: String,
    /// scrypt's parameters, within the bounds of this module.
    pub cost: KdfCost,
    /// scrypt's salt.
    pub salt: [u8; SALT_BYTES],
    /// The sealed JSON of the master key.
    pub data: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
struct Json {
    #[serde(default, deserialize_with = "null_as_default")]
    created: Time,
    #[serde(default, deserialize_with = "null_as_default")]
    username: String,
    #[serde(default, deserialize_with = "null_as_default")]
    hostname: String,
    kdf: String,
    #[serde(rename = "N")]
    n: u64,
    r: u32,
    p: u32,
    #[serde(with = "base64_bytes")]
    salt: Vec<u8>,
    #[serde(with = "base64_bytes")]
    data: Vec<u8>,
}

impl KeyFile {
    /// The object's bytes; keys are stored as plain JSON.
    ///
    /// # Errors
    /// [`ErrorKind::Bug`] for a key that [`KeyFile::decode`] would refuse.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let broken = |e| Error::new(ErrorKind::Bug, "encode key").with_source(e);
        let KdfCost { log_n, r, p } = self.cost;
        let n = 1u64.checked_shl(u32::from(log_n)).unwrap_or(0);
        check_cost(n, r, p).and_then(|_| check_data(&self.data)).map_err(broken)?;
        let json = Json {
            created: self.created,
            username: self.username.clone(),
            hostname: self.hostname.clone(),
            kdf: "scrypt".to_owned(),
            n,
            r,
            p,
            salt: self.salt.to_vec(),
            data: self.data.clone(),
        };
        serde_json::to_vec(&json).map_err(|e| Error::new(ErrorKind::Bug, "encode key").with_source(e))
    }

    /// Reads a key object.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] for another function than scrypt or a cost beyond the bounds, [`ErrorKind::Corrupt`]
    /// for anything that is no key.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > KEY_FILE_BYTES_MAX {
            return Err(Error::corrupt(format!("a key object of {} bytes is none", bytes.len())));
        }
        let json: Json = serde_json::from_slice(bytes).context("decode key")?;
        if json.kdf != "scrypt" {
            return Err(Error::new(ErrorKind::Unsupported, format!("the key uses {:?} instead of scrypt", json.kdf)));
        }
        let cost = check_cost(json.n, json.r, json.p)?;
        let salt = <[u8; SALT_BYTES]>::try_from(&json.salt[..])
            .map_err(|_| Error::corrupt(format!("the key has a salt of {} bytes", json.salt.len())))?;
        check_data(&json.data)?;
        let Json { created, username, hostname, data, .. } = json;
        Ok(Self { created, username, hostname, cost, salt, data })
    }
}

fn check_data(data: &[u8]) -> Result<()> {
    if data.len() <= SEAL_BYTES as usize {
        return Err(Error::corrupt("the key holds no sealed data"));
    }
    Ok(())
}

fn check_cost(n: u64, r: u32, p: u32) -> Result<KdfCost> {
    let parameters = format!("scrypt parameters N={n}, r={r}, p={p}");
    if n < 2 || !n.is_power_of_two() || r == 0 || p == 0 {
        return Err(Error::corrupt(format!("the key has the {parameters}, which cannot be")));
    }
    let memory = n.saturating_mul(128).saturating_mul(u64::from(r));
    let work = n.saturating_mul(u64::from(r)).saturating_mul(u64::from(p));
    if r > R_MAX || p > P_MAX || memory > KdfCost::MEMORY_BYTES_MAX || work > WORK_MAX {
        return Err(Error::new(ErrorKind::Unsupported, format!("the key has the {parameters}, beyond what is tried"))
            .with_hint("if nobody planted this key, add one of usual cost with `restic key add` and remove it"));
    }
    Ok(KdfCost { log_n: n.ilog2() as u8, r, p })
}

#[derive(Serialize, Deserialize)]
struct MasterJson {
    mac: MacJson,
    #[serde(with = "secret")]
    encrypt: Zeroizing<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
struct MacJson {
    #[serde(with = "secret")]
    k: Zeroizing<Vec<u8>>,
    #[serde(with = "secret")]
    r: Zeroizing<Vec<u8>>,
}

/// The JSON of a master key, to be sealed under a derived key.
pub fn encode_master_key(key: &MasterKey) -> Result<Zeroizing<Vec<u8>>> {
    let secret = |bytes: &[u8]| Zeroizing::new(bytes.to_vec());
    let json =
        MasterJson { mac: MacJson { k: secret(&key.mac_k), r: secret(&key.mac_r) }, encrypt: secret(&key.encrypt) };
    // Never grown while it is written, so that no copy stays behind in memory that was given back.
    let mut out = Zeroizing::new(Vec::with_capacity(MASTER_JSON_BYTES_MAX));
    serde_json::to_writer(&mut *out, &json)
        .map_err(|e| Error::new(ErrorKind::Bug, "encode master key").with_source(e))?;
    Ok(out)
}

/// Reads an unsealed master key.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for keys of the wrong length and for keys of zeros, which restic refuses too.
pub fn decode_master_key(json: &[u8]) -> Result<MasterKey> {
    // The cause is left out: serde's messages may quote what they could not read.
    let json: MasterJson = serde_json::from_slice(json).map_err(|_| Error::corrupt("decode master key"))?;
    let mut key = MasterKey { encrypt: [0; 32], mac_k: [0; 16], mac_r: [0; 16] };
    take(&json.encrypt, &mut key.encrypt)?;
    take(&json.mac.k, &mut key.mac_k)?;
    take(&json.mac.r, &mut key.mac_r)?;
    Ok(key)
}

fn take(from: &[u8], to: &mut [u8]) -> Result<()> {
    if from.len() != to.len() || from.iter().all(|&b| b == 0) {
        return Err(Error::corrupt("the master key has a part of wrong length or without content"));
    }
    to.copy_from_slice(from);
    Ok(())
}

/// [`base64_bytes`] for what is wiped when dropped.
mod secret {
    use super::base64_bytes;
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        base64_bytes::serialize(bytes, serializer)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        base64_bytes::deserialize(from).map(Zeroizing::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;

    fn json(kdf: &str, cost: &str, salt: usize, data: usize) -> String {
        let (salt, data) = (STANDARD.encode(vec![7; salt]), STANDARD.encode(vec![9; data]));
        format!(
            r#"{{"created":"2026-01-02T03:04:05.6Z","username":"u","hostname":"h","kdf":"{kdf}",{cost},"salt":"{salt}","data":"{data}"}}"#
        )
    }

    const USUAL: &str = r#""N":32768,"r":8,"p":6"#;

    #[test]
    fn a_key_is_written_as_restic_writes_it() {
        let text = json("scrypt", USUAL, 64, 180);
        let key = KeyFile::decode(text.as_bytes()).unwrap();
        assert_eq!(key.cost, KdfCost { log_n: 15, r: 8, p: 6 });
        assert_eq!((&key.salt[..], key.data.len()), (&[7; 64][..], 180));
        assert_eq!(key.encode().unwrap(), text.as_bytes());
    }

    #[test]
    fn a_key_that_does_not_say_who_made_it_when_is_read_as_rustic_leaves_it() {
        let text = json("scrypt", USUAL, 64, 180);
        for bare in [
            text.replace(r#""created":"2026-01-02T03:04:05.6Z","username":"u","hostname":"h","#, ""),
            text.replace(r#""2026-01-02T03:04:05.6Z""#, "null").replace(r#""u""#, "null").replace(r#""h""#, "null"),
        ] {
            let key = KeyFile::decode(bare.as_bytes()).unwrap();
            assert_eq!((key.created, &*key.username, &*key.hostname), (Time::default(), "", ""));
        }
    }

    #[test]
    fn costs_are_bounded() {
        let kind = |cost: &str| {
            KeyFile::decode(json("scrypt", cost, 64, 180).as_bytes()).map(|k| k.cost).map_err(|e| e.kind())
        };
        assert_eq!(kind(r#""N":1048576,"r":8,"p":8"#), Ok(KdfCost { log_n: 20, r: 8, p: 8 }));
        assert_eq!(kind(r#""N":2,"r":1,"p":1"#), Ok(KdfCost { log_n: 1, r: 1, p: 1 }));
        for cost in [
            r#""N":0,"r":8,"p":1"#,
            r#""N":1,"r":8,"p":1"#,
            r#""N":32769,"r":8,"p":1"#,
            r#""N":2,"r":0,"p":1"#,
            r#""N":2,"r":1,"p":0"#,
            r#""N":-2,"r":1,"p":1"#,
        ] {
            assert_eq!(kind(cost), Err(ErrorKind::Corrupt), "{cost}");
        }
        for cost in [
            r#""N":2097152,"r":8,"p":1"#,
            r#""N":9223372036854775808,"r":32,"p":64"#,
            r#""N":2,"r":33,"p":1"#,
            r#""N":2,"r":1,"p":65"#,
            r#""N":1048576,"r":8,"p":9"#,
        ] {
            assert_eq!(kind(cost), Err(ErrorKind::Unsupported), "{cost}");
        }
    }

    #[test]
    fn a_key_that_could_not_be_read_is_not_made() {
        let make = |log_n, data| {
            let (username, hostname) = (String::new(), String::new());
            let cost = KdfCost { log_n, r: 8, p: 1 };
            let key =
                KeyFile { created: Time::default(), username, hostname, cost, salt: [1; 64], data: vec![1; data] };
            key.encode().map_err(|e| e.kind())
        };
        assert!(make(15, 33).is_ok());
        for (log_n, data) in [(0, 33), (21, 33), (64, 33), (255, 33), (15, 32)] {
            assert_eq!(make(log_n, data), Err(ErrorKind::Bug));
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let kind = |text: String| KeyFile::decode(text.as_bytes()).unwrap_err().kind();
        assert_eq!(kind(json("argon2", USUAL, 64, 180)), ErrorKind::Unsupported);
        for text in [
            json("scrypt", USUAL, 63, 180),
            json("scrypt", USUAL, 65, 180),
            json("scrypt", USUAL, 64, 32),
            json("scrypt", USUAL, 64, KEY_FILE_BYTES_MAX),
            json("scrypt", USUAL, 64, 180).replace("CQkJ", "!!!!"),
            "{}".into(),
            String::new(),
        ] {
            assert_eq!(kind(text), ErrorKind::Corrupt);
        }
    }

    #[test]
    fn master_keys_read_back_and_weak_ones_are_refused() {
        let key = MasterKey { encrypt: [1; 32], mac_k: [2; 16], mac_r: [3; 16] };
        let b64 = |byte: u8, length: usize| STANDARD.encode(vec![byte; length]);
        let want = format!(r#"{{"mac":{{"k":"{}","r":"{}"}},"encrypt":"{}"}}"#, b64(2, 16), b64(3, 16), b64(1, 32));
        assert_eq!(&encode_master_key(&key).unwrap()[..], want.as_bytes());
        assert!(decode_master_key(want.as_bytes()).unwrap() == key);
        for (from, to) in [
            (b64(2, 16), b64(0, 16)),
            (b64(3, 16), b64(3, 15)),
            (b64(1, 32), b64(1, 33)),
            (b64(1, 32), "?????????".into()),
        ] {
            let error = decode_master_key(want.replace(&from, &to).as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(!error.chain().contains(&to[..to.len().min(8)]), "an error must not quote a key");
        }
    }
}
