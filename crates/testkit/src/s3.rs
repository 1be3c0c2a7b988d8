//! A server of S3 within the test's own process: s3s-fs, by others, over a temporary folder, with authentication on.

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Mutex;

/// How a server differs from S3.
#[derive(Clone, Copy, Default)]
struct Manner {
    ignores_conditions: bool,
    takes_unsigned: bool,
}

/// A running server. It ends when this is dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    folder: tempfile::TempDir,
    runtime: Option<Runtime>,
}

impl S3Server {
    /// The id of the only key.
    pub const KEY_ID: &'static str = "AKTESTKIT";
    /// Its secret.
    pub const SECRET: &'static str = "testkit-secret";

    /// Starts one on a free port, with one empty bucket named `bucket`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start() -> Self {
        Self::start_with(Manner::default())
    }

    /// One that takes conditions on what may be written and ignores them, as some servers do.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_ignoring_conditions() -> Self {
        Self::start_with(Manner { ignores_conditions: true, ..Manner::default() })
    }

    /// One that takes the requests of Google's XML protocol, which is that of S3 but for the name of the condition and
    /// for who signs. No emulator at hand speaks it: those there are know Google's JSON protocol alone.
    ///
    /// # Panics
    /// As [`Self::start`].
    pub fn start_like_google() -> Self {
        Self::start_with(Manner { takes_unsigned: true, ..Manner::default() })
    }

    /// The location of a repository below `prefix` in the bucket of one that takes Google's requests.
    pub fn google_url(&self, prefix: &str) -> String {
        format!("gs://bucket/{prefix}?endpoint=http://{}&auth=none", self.address)
    }

    fn start_with(manner: Manner) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs_err::create_dir(folder.path().join("bucket")).expect("make the bucket");
        let files = s3s_fs::FileSystem::new(folder.path()).expect("serve the folder");
        let mut builder = S3ServiceBuilder::new(files);
        if !manner.takes_unsigned {
            builder.set_auth(SimpleAuth::from_single(Self::KEY_ID, Self::SECRET));
        }
        let service = builder.build();
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("start a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("listen");
        let address = listener.local_addr().expect("the address that is listened at");
        let ignoring = manner.ignores_conditions.then(|| folder.path().to_owned());
        runtime.spawn(serve(listener, service, ignoring, manner.takes_unsigned));
        Self { address, folder, runtime: Some(runtime) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The location of a repository below `prefix` in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        url_at(self.address, prefix)
    }

    /// The folder in which the bucket's objects lie.
    pub fn bucket(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    /// Lays an object behind everybody's back.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        let path = self.bucket().join(name);
        fs_err::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("make the object's folder");
        fs_err::write(path, bytes).expect("write the object");
    }
}

/// The location of a repository below `prefix` in the bucket of a server that is reached at `address`.
pub fn url_at(address: SocketAddr, prefix: &str) -> String {
    format!("s3://bucket/{prefix}?endpoint=http://{address}&region=us-east-1")
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// `ignoring` is the folder of the buckets when conditions are to be ignored.
async fn serve(listener: TcpListener, service: S3Service, ignoring: Option<PathBuf>, takes_unsigned: bool) {
    // s3s-fs looks whether a name is taken and then writes: in between another could. A real server does both as one,
    // and so does this one, by letting one conditional request through at a time.
    let turn = Arc::new(Mutex::new(()));
    while let Ok((socket, _)) = listener.accept().await {
        let (service, turn, ignoring) = (service.clone(), turn.clone(), ignoring.clone());
        let one = service_fn(move |mut request: hyper::Request<Incoming>| {
            let (service, turn, ignoring) = (service.clone(), turn.clone(), ignoring.clone());
            async move {
                if request.headers().get("x-goog-if-generation-match").is_some_and(|generation| generation == "0") {
                    request.headers_mut().insert("if-none-match", hyper::header::HeaderValue::from_static("*"));
                }
                if takes_unsigned {
                    // Signed in another way than S3's.
                    request.headers_mut().remove("authorization");
                }
                let is_conditional = request.headers().contains_key("if-none-match");
                if let (true, Some(buckets)) = (is_conditional, &ignoring) {
                    // The header is signed and cannot be taken away; what it asks about can.
                    let _ = fs_err::remove_file(buckets.join(request.uri().path().trim_start_matches('/')));
                }
                let _turn = if is_conditional { Some(turn.lock().await) } else { None };
                Service::call(&service, request).await
            }
        });
        tokio::spawn(async move {
            let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), one).await;
        });
    }
}
