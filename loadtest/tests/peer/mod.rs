//! Peers that run, and the generator set upon them: each peer in a small run in which every receiver is judged. A peer that
//! loses, or that says something else than the generator understands, is no peer to compare with.

#![allow(dead_code, reason = "each suite takes what it needs")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use serde_json::Value;

const LOAD: &str = env!("CARGO_BIN_EXE_townhall-load");

/// Where the peers are: they are packages of their own, and built when they are first needed.
static PEERS: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(LOAD).ancestors().nth(2).unwrap();
    // With the features of the whole workspace, as its tests are built: otherwise all they depend on is built once more.
    let programs = ["--workspace", "--bin", "peer-epoll-loop", "--bin", "peer-axum-broadcast"];
    let build =
        Command::new(env!("CARGO")).args(["build", "--quiet", "--target-dir"]).arg(target).args(programs).status();
    assert!(build.unwrap().success());
    target.join("debug")
});

/// The peer of that name that is written in Rust.
pub fn rust(name: &str) -> PathBuf {
    PEERS.join(name)
}

/// The peer in that directory, which is written in Go, built beside the others.
pub fn go(directory: &str) -> PathBuf {
    let program = PEERS.join(format!("peer-{directory}"));
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(".").current_dir(sources(directory));
    let built = build.status().expect("peers are written in Go, and there is no `go` here (https://go.dev/dl)");
    assert!(built.success());
    program
}

/// The peer in that directory, which is written for Node.
pub fn node(directory: &str) -> PathBuf {
    let version = Command::new("node").arg("--version").output();
    version.expect("a peer is written for Node, and there is no `node` here: run tests/setup");
    assert!(sources(directory).join("node_modules").is_dir(), "its packages are missing: run tests/setup");
    sources(directory).join("server.mjs")
}

fn sources(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(directory)
}

/// A server that runs, and ends with this value.
pub struct Server {
    process: Child,
    pub address: SocketAddr,
}

impl Server {
    /// `command` makes the command for an address.
    pub fn start(command: impl FnOnce(SocketAddr) -> Command) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut command = command(address);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; is it installed?"));
        let mut server = Server { process, address };
        while TcpStream::connect(address).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "it ended early");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub fn peer(program: &Path, options: &[&str]) -> Self {
        Self::start(|address| {
            let mut peer = Command::new(program);
            peer.args(options).arg(address.to_string());
            peer
        })
    }

    pub fn redis() -> Self {
        Self::start(|address| {
            let mut redis = Command::new("redis-server");
            redis.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
            redis.arg(address.port().to_string()).args(["--dir", env!("CARGO_TARGET_TMPDIR")]).stdout(Stdio::null());
            redis
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The generator, set upon these servers.
pub fn load(peers: &[Server], options: &[&str]) -> Child {
    let urls = peers.iter().map(|peer| format!("ws://{}", peer.address));
    let mut load = Command::new(LOAD);
    load.args(["fanout", "--json", "--quiet"]).args(options).args(urls).stdout(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
pub fn passed(load: Child) -> Value {
    let result: Value = serde_json::from_slice(&load.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(result["pass"], true, "{result}");
    result
}

/// Five who read and twenty who count: what they got.
#[track_caller]
pub fn judged(peers: &[Server], options: &[&str]) -> Value {
    passed(load(peers, &[&["--connections", "5", "--listeners", "20"], options].concat()))
}

/// Who speaks, speaks without a pause.
pub const FLAT_OUT: [&str; 7] = ["--publishers", "5", "--messages", "200", "--rate", "0", "--until-heard"];

#[track_caller]
pub fn one_node_delivers(program: &Path, options: &[&str]) {
    let result = judged(&[Server::peer(program, &[])], &[&FLAT_OUT, options].concat());
    assert_eq!(result["deliveries"], 200 * 25);
}

/// Speakers and listeners are at both nodes. Nodes that a real Redis did not join would lose what is said at the other one.
#[track_caller]
pub fn two_nodes_deliver(program: &Path, options: &[&str]) {
    let redis = Server::redis();
    let url = format!("redis://{}", redis.address);
    let nodes = [0, 1].map(|_| Server::peer(program, &["--redis", &url]));
    let result = judged(&nodes, &[&FLAT_OUT, options].concat());
    assert_eq!(result["deliveries"], 200 * 25);
}
