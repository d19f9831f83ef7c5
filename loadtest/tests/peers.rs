//! The servers that a hall is compared with, each in a small run in which every receiver is judged: a peer that loses, or
//! that says something else than the generator understands, is no peer to compare with.

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
    let packages = ["--package", "peer-epoll-loop", "--package", "peer-axum-broadcast"];
    let build =
        Command::new(env!("CARGO")).args(["build", "--quiet", "--target-dir"]).arg(target).args(packages).status();
    assert!(build.unwrap().success());
    target.join("debug")
});

/// A running peer; it ends with this value.
struct Peer {
    process: Child,
    url: String,
}

impl Peer {
    fn start(name: &str, options: &[&str]) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let process = Command::new(PEERS.join(name)).arg(address.to_string()).args(options).spawn().unwrap();
        let mut peer = Peer { process, url: format!("ws://{address}") };
        peer.wait_until_it_listens(address);
        peer
    }

    fn wait_until_it_listens(&mut self, address: SocketAddr) {
        while TcpStream::connect(address).is_err() {
            assert!(self.process.try_wait().unwrap().is_none(), "it ended early");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Five who read and twenty who count: what they got.
    fn judged(&self, options: &[&str]) -> Value {
        let crowd = ["fanout", "--connections", "5", "--listeners", "20", "--json", "--quiet"];
        let load =
            Command::new(LOAD).args(crowd).args(options).arg(&self.url).stderr(Stdio::inherit()).output().unwrap();
        let result: Value = serde_json::from_slice(&load.stdout).unwrap();
        assert_eq!(result["pass"], true, "{result}");
        result
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn the_broadcast_channel_delivers_what_is_said() {
    let peer = Peer::start("peer-axum-broadcast", &[]);
    let result = peer.judged(&["--publishers", "5", "--messages", "200", "--rate", "0", "--until-heard"]);
    assert_eq!(result["deliveries"], 200 * 25);
}

/// Batches of six megabytes, which no socket takes at once.
#[test]
fn the_bare_loop_sends_whole_batches_to_all() {
    let peer = Peer::start("peer-epoll-loop", &["--clients", "25", "--seconds", "0.1", "--frames-per-write", "20000"]);
    let result = peer.judged(&["--publishers", "0", "--seconds", "2"]);
    let deliveries = result["deliveries"].as_u64().unwrap();
    assert!(deliveries > 0 && deliveries.is_multiple_of(20_000 * 25), "{result}");
}

#[test]
fn the_bare_loop_keeps_its_pace() {
    let peer = Peer::start("peer-epoll-loop", &["--clients", "25", "--seconds", "1", "--rate", "20", "--size", "50"]);
    let result = peer.judged(&["--publishers", "0", "--seconds", "2.5"]);
    let deliveries = result["deliveries"].as_u64().unwrap();
    assert!(deliveries > 0 && deliveries <= 20 * 25, "{result}");
}
