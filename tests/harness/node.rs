//! One `townhall serve`: the binary that is shipped, as a process of its own.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::future::join_all;

use super::{Answer, LOOK_AGAIN, PATIENCE, get, secrets, wait_until};

/// A node on free ports of 127.0.0.1; killed when dropped.
pub struct Node {
    child: Child,
    log: Arc<Mutex<String>>,
    bound: Bound,
}

/// Where a node listens, as its start log says.
#[derive(Debug, Clone, Copy)]
struct Bound {
    listen: SocketAddr,
    ops: SocketAddr,
    tcp: SocketAddr,
}

impl Node {
    /// Starts a node with more options (`&["--redis", &redis.url()]`) and waits until it is ready.
    pub async fn start(options: &[&str]) -> Node {
        let node = Node::start_unready(options).await;
        node.wait_ready().await;
        node
    }

    /// Starts so many nodes with the same options.
    pub async fn start_many(count: usize, options: &[&str]) -> Vec<Node> {
        join_all((0..count).map(|_| Node::start(options))).await
    }

    /// Starts a node and waits only until it listens: its broker may be away.
    pub async fn start_unready(options: &[&str]) -> Node {
        let mut child = command(options).spawn().expect("the townhall binary cannot be started");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        std::thread::spawn({
            let log = log.clone();
            move || keep(stderr, &log)
        });
        let bound = where_it_listens(&mut child, &log).await;
        Node { child, log, bound }
    }

    /// Starts a node that must end by itself, refused before it listens; what it said.
    pub async fn refused(options: &[&str]) -> String {
        let mut child = command(options).spawn().expect("the townhall binary cannot be started");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = child.stderr.take().expect("stderr is piped");
        let reading = std::thread::spawn({
            let log = log.clone();
            move || keep(stderr, &log)
        });
        let give_up = Instant::now() + PATIENCE;
        while child.try_wait().expect("cannot wait for the node").is_none() {
            if Instant::now() > give_up {
                let _ = (child.kill(), child.wait());
                panic!("the node was not refused: {}", log.lock().expect("a reader panicked"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        reading.join().expect("the reader panicked");
        let status = child.wait().expect("cannot wait for the node");
        let log = log.lock().expect("a reader panicked").clone();
        assert!(!status.success(), "it ended well: {log}");
        log
    }

    pub async fn wait_ready(&self) {
        wait_until("the node is ready", async || self.readiness().await == 200).await;
    }

    /// The status of `/readyz`; 0 when nobody answers.
    pub async fn readiness(&self) -> u16 {
        self.ops("/readyz").await.map_or(0, |answer| answer.status)
    }

    /// Asks the operations listener.
    pub async fn ops(&self, path: &str) -> std::io::Result<Answer> {
        get(self.bound.ops, path, "").await
    }

    /// A sample of `/metrics`, `townhall_broker_up` or `townhall_connections{door="json"}`; 0 when there is none yet.
    pub async fn metric(&self, sample: &str) -> f64 {
        let metrics = self.ops("/metrics").await.expect("no metrics").body;
        metrics
            .lines()
            .filter_map(|line| line.rsplit_once(' '))
            .find(|(name, _)| *name == sample)
            .map_or(0.0, |(_, value)| value.parse().expect("not a number"))
    }

    /// The address of the public listener.
    pub fn http(&self) -> SocketAddr {
        self.bound.listen
    }

    pub fn port(&self) -> u16 {
        self.bound.listen.port()
    }

    pub fn ops_addr(&self) -> SocketAddr {
        self.bound.ops
    }

    /// The address of the line door.
    pub fn tcp_addr(&self) -> SocketAddr {
        self.bound.tcp
    }

    /// `ws://…/ws`.
    pub fn ws_url(&self) -> String {
        self.ws("/ws")
    }

    /// A WebSocket address of this node.
    pub fn ws(&self, path: &str) -> String {
        format!("ws://{}{path}", self.bound.listen)
    }

    /// A field of `/proc/PID/status` in bytes, such as `VmRSS`.
    pub fn memory(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        1024 * kib.unwrap_or_else(|| panic!("no {field} in {status}"))
    }

    /// The processor time that it has taken, in seconds; the kernel counts hundredths.
    pub fn cpu(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let (_, fields) = stat.rsplit_once(") ").expect("fields after the name");
        // What it took itself and what the kernel took for it are the 14th and 15th of all.
        let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().expect("ticks"));
        ticks.sum::<f64>() / 100.0
    }

    /// How many files it has open.
    pub fn files(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).expect("its files").count()
    }

    /// From now on it may open no file with a number above that, however many are open already.
    pub fn allow_files(&self, most: usize) {
        let allowed = Command::new("prlimit")
            .args(["--pid", &self.child.id().to_string(), &format!("--nofile={most}:")])
            .status()
            .expect("the tests need `prlimit` (Debian's package util-linux)");
        assert!(allowed.success(), "the limit was not set");
    }

    /// SIGKILL: gone at once, with everything it held.
    pub fn kill(&mut self) {
        self.child.kill().expect("cannot kill the node");
        self.child.wait().expect("the node does not end");
    }

    /// SIGTERM: asked to leave.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    /// Any signal by its name; `STOP` and `CONT` freeze and thaw a node.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .args([&format!("-{name}"), &self.child.id().to_string()])
            .status()
            .expect("cannot run kill");
        assert!(sent.success(), "SIG{name} did not reach the node");
    }

    /// Waits until the process has ended.
    pub async fn wait_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until("the node has ended", async || {
            status = self.child.try_wait().expect("cannot wait for the node");
            status.is_some()
        })
        .await;
        status.expect("the node has ended")
    }

    /// What it wrote to stderr so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("a reader panicked").clone()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the node at {}\n{}", self.bound.listen, self.log());
        }
        secrets::assert_unread(&self.log(), &format!("the node at {}", self.bound.listen));
    }
}

/// The command line of a node on free ports, with nothing of our own environment.
fn command(options: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_townhall"));
    // Whatever the hall can be made to log must hold no secret.
    command.env_clear().env("RUST_LOG", "trace").arg("serve");
    for listener in ["--listen", "--ops", "--tcp"] {
        if !options.contains(&listener) {
            command.args([listener, "127.0.0.1:0"]);
        }
    }
    command.args(options).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

/// Collects a node's log until it ends.
fn keep(stderr: ChildStderr, log: &Mutex<String>) {
    for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
        let mut log = log.lock().expect("a reader panicked");
        log.push_str(&String::from_utf8_lossy(&line));
        log.push('\n');
    }
}

/// The addresses of the start line: `{"fields": {"listen": "127.0.0.1:40001", "ops": …, "tcp": …}}`.
async fn where_it_listens(child: &mut Child, log: &Mutex<String>) -> Bound {
    let mut bound = None;
    wait_until("the node says where it listens", async || {
        let text = log.lock().expect("a reader panicked").clone();
        bound = text.lines().find_map(bound_addresses);
        if bound.is_none()
            && let Some(status) = child.try_wait().expect("cannot wait for the node")
        {
            panic!("the node ended at its start: {status}\n{text}");
        }
        bound.is_some()
    })
    .await;
    bound.expect("the node listens")
}

fn bound_addresses(line: &str) -> Option<Bound> {
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    let address = |name: &str| {
        let field = entry["fields"].get(name).or_else(|| entry.get(name))?;
        field.as_str()?.parse().ok()
    };
    Some(Bound { listen: address("listen")?, ops: address("ops")?, tcp: address("tcp")? })
}
