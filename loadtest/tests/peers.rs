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

/// The peer of that name that is written in Rust.
fn rust(name: &str) -> PathBuf {
    PEERS.join(name)
}

/// The peer in that directory, which is written in Go, built beside the others.
fn go(directory: &str) -> PathBuf {
    let program = PEERS.join(format!("peer-{directory}"));
    let mut build = Command::new("go");
    build.args(["build", "-o"]).arg(&program).arg(".").current_dir(sources(directory));
    let built = build.status().expect("peers are written in Go, and there is no `go` here (https://go.dev/dl)");
    assert!(built.success());
    program
}

/// Two tests need it, and a program that runs must not be built anew.
static CENTRIFUGE: LazyLock<PathBuf> = LazyLock::new(|| go("centrifuge-server"));

/// The peer in that directory, which is written for Node.
fn node(directory: &str) -> PathBuf {
    let version = Command::new("node").arg("--version").output();
    version.expect("a peer is written for Node, and there is no `node` here: run tests/setup");
    assert!(sources(directory).join("node_modules").is_dir(), "its packages are missing: run tests/setup");
    sources(directory).join("server.mjs")
}

fn sources(directory: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(directory)
}

/// A server that runs, and ends with this value.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    /// `command` makes the command for an address.
    fn start(command: impl FnOnce(SocketAddr) -> Command) -> Self {
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

    fn peer(program: &Path, options: &[&str]) -> Self {
        Self::start(|address| {
            let mut peer = Command::new(program);
            peer.args(options).arg(address.to_string());
            peer
        })
    }

    fn redis() -> Self {
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
fn load(peers: &[Server], options: &[&str]) -> Child {
    let urls = peers.iter().map(|peer| format!("ws://{}", peer.address));
    let mut load = Command::new(LOAD);
    load.args(["fanout", "--json", "--quiet"]).args(options).args(urls).stdout(Stdio::piped()).spawn().unwrap()
}

#[track_caller]
fn passed(load: Child) -> Value {
    let result: Value = serde_json::from_slice(&load.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!(result["pass"], true, "{result}");
    result
}

/// Five who read and twenty who count: what they got.
#[track_caller]
fn judged(peers: &[Server], options: &[&str]) -> Value {
    passed(load(peers, &[&["--connections", "5", "--listeners", "20"], options].concat()))
}

/// Who speaks, speaks without a pause.
const FLAT_OUT: [&str; 7] = ["--publishers", "5", "--messages", "200", "--rate", "0", "--until-heard"];

#[track_caller]
fn one_node_delivers(program: &Path, options: &[&str]) {
    let result = judged(&[Server::peer(program, &[])], &[&FLAT_OUT, options].concat());
    assert_eq!(result["deliveries"], 200 * 25);
}

/// Speakers and listeners are at both nodes. Nodes that a real Redis did not join would lose what is said at the other one.
#[track_caller]
fn two_nodes_deliver(program: &Path, options: &[&str]) {
    let redis = Server::redis();
    let url = format!("redis://{}", redis.address);
    let nodes = [0, 1].map(|_| Server::peer(program, &["--redis", &url]));
    let result = judged(&nodes, &[&FLAT_OUT, options].concat());
    assert_eq!(result["deliveries"], 200 * 25);
}

#[test]
fn the_broadcast_channel_delivers_what_is_said() {
    one_node_delivers(&rust("peer-axum-broadcast"), &[]);
    two_nodes_deliver(&rust("peer-axum-broadcast"), &[]);
}

#[test]
fn the_tutorials_broadcaster_delivers_what_is_said() {
    let program = go("gin-gorilla");
    one_node_delivers(&program, &[]);
    two_nodes_deliver(&program, &[]);
}

#[test]
fn the_hub_of_gorillas_example_delivers_what_is_said() {
    let program = go("gorilla-hub");
    one_node_delivers(&program, &["--lines"]);
    two_nodes_deliver(&program, &["--lines"]);
}

#[test]
fn centrifuge_delivers_what_is_said() {
    one_node_delivers(&CENTRIFUGE, &["--dialect", "centrifuge"]);
    two_nodes_deliver(&CENTRIFUGE, &["--dialect", "centrifuge"]);
}

/// Its clients take up at the other node what they missed, and what was said twice is stored once.
#[test]
fn centrifuge_resumes_when_a_node_dies() {
    let redis = Server::redis();
    let url = format!("redis://{}", redis.address);
    let mut nodes = Vec::from([0, 1].map(|_| Server::peer(&CENTRIFUGE, &["--redis", &url])));
    let options = ["--connections", "10", "--publishers", "5", "--rate", "200", "--seconds", "3"];
    let load = load(&nodes, &[&options[..], &["--dialect", "centrifuge"]].concat());
    thread::sleep(Duration::from_millis(1500));
    nodes.pop();
    let result = passed(load);
    assert_eq!((&result["resumes"], &result["deliveries"]), (&5.into(), &(600 * 10).into()), "{result}");
}

/// Between nodes it has no order; nothing is lost all the same.
#[test]
fn socket_io_delivers_what_is_said() {
    let program = node("socketio");
    one_node_delivers(&program, &["--dialect", "socketio"]);
    two_nodes_deliver(&program, &["--dialect", "socketio"]);
}

/// Batches of six megabytes, which no socket takes at once.
#[test]
fn the_bare_loop_sends_whole_batches_to_all() {
    let options = ["--clients", "25", "--seconds", "0.1", "--frames-per-write", "20000"];
    let peer = Server::peer(&rust("peer-epoll-loop"), &options);
    let result = judged(&[peer], &["--publishers", "0", "--seconds", "2"]);
    let deliveries = result["deliveries"].as_u64().unwrap();
    assert!(deliveries > 0 && deliveries.is_multiple_of(20_000 * 25), "{result}");
}

#[test]
fn the_bare_loop_keeps_its_pace() {
    let options = ["--clients", "25", "--seconds", "1", "--rate", "20", "--size", "50"];
    let peer = Server::peer(&rust("peer-epoll-loop"), &options);
    let result = judged(&[peer], &["--publishers", "0", "--seconds", "2.5"]);
    let deliveries = result["deliveries"].as_u64().unwrap();
    assert!(deliveries > 0 && deliveries <= 20 * 25, "{result}");
}
