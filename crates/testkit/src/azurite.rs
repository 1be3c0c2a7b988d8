//! Azurite, the emulator of Azure Blob Storage by its makers.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

/// A running emulator with one empty container named `container`. It ends when this is dropped.
#[derive(Debug)]
pub struct Azurite {
    address: SocketAddr,
    child: Child,
    _folder: tempfile::TempDir,
}

impl Azurite {
    /// The account that every such emulator has.
    pub const ACCOUNT: &'static str = "devstoreaccount1";
    /// Its key, which is the same everywhere and no secret.
    pub const KEY: &'static str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut child = Command::new(crate::tools::azurite())
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--silent", "--disableTelemetry"])
            .arg("--skipApiVersionCheck")
            .arg("--location")
            .arg(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start Azurite");
        let said = BufReader::new(child.stdout.take().expect("its output"));
        let address = said.lines().map_while(Result::ok).find_map(|line| {
            line.contains("listens on").then(|| line.rsplit("//").next()?.trim().parse().ok()).flatten()
        });
        let Some(address) = address else {
            let _ = child.kill();
            panic!("Azurite ended before it listened: {:?}", child.wait());
        };
        let azurite = Self { address, child, _folder: folder };
        azurite.make_container("container");
        azurite
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The location of a repository below `prefix` in the container.
    pub fn url(&self, prefix: &str) -> String {
        let (address, account) = (self.address, Self::ACCOUNT);
        format!("az://container/{prefix}?account={account}&endpoint=http://{address}/{account}")
    }

    fn make_container(&self, name: &str) {
        let account = Self::ACCOUNT;
        let date = jiff::Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
        let to_sign = format!(
            "PUT{}x-ms-date:{date}\nx-ms-version:2021-08-06\n/{account}/{account}/{name}\nrestype:container",
            "\n".repeat(12)
        );
        let key = BASE64_STANDARD.decode(Self::KEY).expect("a key in base64");
        let signature = BASE64_STANDARD.encode(hmac_sha256(&key, to_sign.as_bytes()));
        let request = format!(
            "PUT /{account}/{name}?restype=container HTTP/1.1\r\nhost: {}\r\nx-ms-date: {date}\r\n\
             x-ms-version: 2021-08-06\r\nauthorization: SharedKey {account}:{signature}\r\ncontent-length: 0\r\n\
             connection: close\r\n\r\n",
            self.address
        );
        let mut stream = TcpStream::connect(self.address).expect("connect to Azurite");
        stream.write_all(request.as_bytes()).expect("ask for a container");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("read the answer");
        assert!(answer.starts_with("HTTP/1.1 201"), "no container was made: {answer}");
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// RFC 2104 for a key no longer than a block.
fn hmac_sha256(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let padded = |with: u8| block.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}
