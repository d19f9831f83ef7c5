//! Halls that run, and the generator set upon them.

#![allow(dead_code, reason = "each suite takes what it needs")]

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

pub const LOAD: &str = env!("CARGO_BIN_EXE_townhall-load");

/// Another package's program, as the workspace's tests have built it: a plain build has other features of some libraries, and
/// would build the hall once more. With one of its tests comes the program.
static HALL: LazyLock<PathBuf> = LazyLock::new(|| {
    let target = Path::new(LOAD).ancestors().nth(2).unwrap();
    let mut build = Command::new(env!("CARGO"));
    build.args(["test", "--quiet", "--no-run", "--workspace", "--test", "command_line", "--target-dir"]).arg(target);
    assert!(build.status().unwrap().success());
    target.join("debug/townhall")
});

/// An address that nobody has. Not one of those that the system gives out: hundreds of clients draw on them meanwhile.
pub fn free() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 10_000) as u16;
    let ports = std::iter::repeat_with(|| 20_000 + (own + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000);
    let mut addresses = ports.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).unwrap()
}

/// A process that listens, and ends with this value.
pub struct Server {
    process: Child,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(mut command: Command, address: SocketAddr) -> Self {
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; run tests/setup"));
        let mut server = Server { process, address };
        while TcpStream::connect(address).is_err() {
            assert!(server.process.try_wait().unwrap().is_none(), "it ended early");
            thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub fn hall(options: &[&str]) -> Self {
        let address = free();
        let mut hall = Command::new(&*HALL);
        hall.args(["serve", "--ops", "127.0.0.1:0", "--rate", "0", "--listen", &address.to_string()]);
        hall.args(options).stderr(Stdio::null());
        Self::start(hall, address)
    }

    pub fn redis() -> Self {
        let address = free();
        let mut redis = Command::new("redis-server");
        redis.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--port"]);
        redis.arg(address.port().to_string()).args(["--dir", env!("CARGO_TARGET_TMPDIR")]).stdout(Stdio::null());
        Self::start(redis, address)
    }

    pub fn pid(&self) -> String {
        self.process.id().to_string()
    }

    pub fn ws(&self) -> String {
        format!("ws://{}", self.address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the generator: a scenario and its options.
pub fn load(arguments: &[&str]) -> Output {
    Command::new(LOAD).args(arguments).args(["--json", "--quiet"]).output().unwrap()
}

/// What it said.
#[track_caller]
pub fn result(output: &Output) -> Value {
    let words = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no result: {words}"))
}

#[track_caller]
pub fn passes(arguments: &[&str]) -> Value {
    let output = load(arguments);
    let result = result(&output);
    assert_eq!((output.status.code(), &result["pass"]), (Some(0), &true.into()), "{result}");
    result
}

#[track_caller]
pub fn number(result: &Value, field: &str) -> u64 {
    result[field].as_u64().unwrap_or_else(|| panic!("no {field} in {result}"))
}
