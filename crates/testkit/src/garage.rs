//! Garage, an object store of several machines that speaks S3: a cluster of three nodes, of which any one may die.

use crate::server::Server;
use std::ffi::OsString;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

const NODES: usize = 3;
/// What lets nodes of one cluster talk to each other.
const RPC_SECRET: &str = "c3ea8cb80333d04e208d136698b1a01ae370d463f0d435ab2177510b3478bf44";
/// How long the nodes may take to find each other.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster with one empty bucket named `bucket`, every object on all three nodes. It ends when this is dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Vec<Node>,
    _folder: tempfile::TempDir,
}

#[derive(Debug)]
struct Node {
    folder: PathBuf,
    rpc_port: u16,
    s3_port: u16,
    server: Option<Server>,
}

impl Cluster {
    /// The key of the bucket; in the form that Garage wants, and no secret.
    pub const KEY_ID: &'static str = "GK31c2f218a2e44f485b94239e";
    /// Its other half.
    pub const SECRET: &'static str = "b892c0665f0ada8a4755dae98baa3b133590e11dae3bcc1f9d769d67f16c3835";

    /// Starts one on free ports.
    ///
    /// # Panics
    /// When Garage is not installed, does not start, or its nodes do not find each other.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let nodes = (0..NODES).map(|number| Node::start(&folder.path().join(number.to_string()))).collect();
        let cluster = Self { nodes, _folder: folder };
        let first = &cluster.nodes[0];
        let ids: Vec<String> = cluster.nodes.iter().map(Node::id).collect();
        for (node, id) in cluster.nodes.iter().zip(&ids).skip(1) {
            first.must(&["node", "connect", &format!("{id}@127.0.0.1:{}", node.rpc_port)]);
        }
        for id in &ids {
            first.must(&["layout", "assign", id, "-z", "here", "-c", "1G"]);
        }
        first.must(&["layout", "apply", "--version", "1"]);
        first.must(&["key", "import", "--yes", "-n", "test", Self::KEY_ID, Self::SECRET]);
        first.must(&["bucket", "create", "bucket"]);
        first.must(&["bucket", "allow", "--read", "--write", "--owner", "bucket", "--key", Self::KEY_ID]);
        cluster
    }

    /// The location of a repository below `prefix` in the bucket, through one of the nodes.
    pub fn url(&self, prefix: &str, node: usize) -> String {
        let port = self.nodes[node].s3_port;
        format!("s3://bucket/{prefix}?endpoint=http://127.0.0.1:{port}&region=garage&style=path")
    }

    /// Where a node takes requests.
    pub fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.nodes[node].s3_port))
    }

    /// Kills a node at once, as a power cut does.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].server = None;
    }

    /// Starts a node again with what it had, and waits until the others see it.
    ///
    /// # Panics
    /// When it does not come back.
    #[track_caller]
    pub fn revive(&mut self, node: usize) {
        let again = &mut self.nodes[node];
        again.server = Some(Server::start_at(
            &crate::tools::garage(),
            &again.folder.join("log"),
            &[],
            &again.arguments(),
            again.s3_port,
        ));
        let begun = Instant::now();
        while self.alive() < NODES {
            assert!(begun.elapsed() < PATIENCE, "the node does not come back: {:?}", self.nodes[0].ask(&["status"]));
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// How many nodes the first one can reach, with itself.
    fn alive(&self) -> usize {
        let said = String::from_utf8(self.nodes[0].must(&["json-api", "GetClusterHealth"]).stdout).expect("text");
        let health: serde_json::Value = serde_json::from_str(&said).expect("JSON");
        health["connectedNodes"].as_u64().unwrap_or_default() as usize
    }
}

impl Node {
    #[track_caller]
    fn start(folder: &Path) -> Self {
        fs_err::create_dir_all(folder).expect("a folder for the node");
        let rpc_port = free_port();
        let mut node = Self { folder: folder.to_owned(), rpc_port, s3_port: 0, server: None };
        let server = Server::start(&crate::tools::garage(), &folder.join("log"), &[], |port| {
            node.s3_port = port;
            node.write_config();
            node.arguments()
        });
        node.server = Some(server);
        node
    }

    fn write_config(&self) {
        let Self { folder, rpc_port, s3_port, .. } = self;
        let folder = folder.display();
        let config = format!(
            "metadata_dir = \"{folder}/meta\"\ndata_dir = \"{folder}/data\"\ndb_engine = \"sqlite\"\n\
             replication_factor = 3\nrpc_bind_addr = \"127.0.0.1:{rpc_port}\"\nrpc_public_addr = \"127.0.0.1:{rpc_port}\"\n\
             rpc_secret = \"{RPC_SECRET}\"\n[s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"127.0.0.1:{s3_port}\"\n"
        );
        fs_err::write(self.config(), config).expect("write the node's config");
    }

    fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    fn arguments(&self) -> Vec<OsString> {
        vec!["-c".into(), self.config().into(), "server".into()]
    }

    fn ask(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(crate::tools::garage());
        command.arg("-c").arg(self.config()).args(arguments).output().expect("ask Garage")
    }

    /// Asks until the answer is one: a node that has just been started knows nobody yet.
    #[track_caller]
    fn must(&self, arguments: &[&str]) -> Output {
        let begun = Instant::now();
        loop {
            let output = self.ask(arguments);
            if output.status.success() {
                return output;
            }
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(begun.elapsed() < PATIENCE, "garage {arguments:?}: {said}");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Its name among the nodes.
    fn id(&self) -> String {
        let said = String::from_utf8(self.must(&["node", "id", "-q"]).stdout).expect("text");
        said.trim().split('@').next().unwrap_or_default().to_owned()
    }
}

#[track_caller]
fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr()).expect("a free port").port()
}
