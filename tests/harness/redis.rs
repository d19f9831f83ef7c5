//! A Redis of a test's own: `RedisServer::start()`, on a free port, in a directory of its own, gone with the value.
#![allow(dead_code)] // every test file uses another part

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a server may take to start. Generous: it is waited for, not slept for.
const START: Duration = Duration::from_secs(20);

pub struct RedisServer {
    child: Child,
    port: u16,
    directory: TempDir,
    options: Vec<String>,
}

impl RedisServer {
    /// Without persistence: what is killed is forgotten.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With options as on `redis-server`'s command line, such as `["--appendonly", "yes"]`.
    pub fn start_with(options: &[&str]) -> Self {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        let directory = TempDir::new().expect("a temporary directory for Redis");
        loop {
            // Somebody else may take the port before Redis does; then it is tried with another one.
            let port = free_port();
            match launch(port, directory.path(), &options) {
                Ok(child) => {
                    return RedisServer { child, port, directory, options };
                }
                Err(PortInUse) => continue,
            }
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn url_of_db(&self, database: u32) -> String {
        format!("{}/{database}", self.url())
    }

    /// As a power cut: `SIGKILL`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it if it runs, and starts it again with the same port and directory.
    pub fn restart(&mut self) {
        self.kill();
        let give_up = Instant::now() + START;
        self.child = loop {
            match launch(self.port, self.directory.path(), &self.options) {
                Ok(child) => break child,
                Err(PortInUse) if Instant::now() < give_up => sleep(Duration::from_millis(20)),
                Err(PortInUse) => panic!("port {} was taken by somebody else", self.port),
            }
        };
    }

    /// As [`RedisServer::restart`], but everything it stored is gone.
    pub fn restart_empty(&mut self) {
        self.kill();
        for entry in fs::read_dir(self.directory.path()).expect("Redis' directory") {
            let path = entry.expect("an entry of Redis' directory").path();
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
            removed.expect("Redis' files can be removed");
        }
        self.restart();
    }

    /// The server keeps its connections and answers nothing: `SIGSTOP`.
    pub fn pause(&self) {
        self.signal("-STOP");
    }

    pub fn resume(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args([signal, &pid]).status();
        assert!(status.expect("the command `kill`").success());
    }

    /// What `redis-cli` prints for a command.
    pub fn cli<A: AsRef<std::ffi::OsStr>>(&self, arguments: &[A]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(arguments)
            .output()
            .unwrap_or_else(|error| missing("redis-cli", "redis-tools", &error));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

struct PortInUse;

fn launch(port: u16, directory: &Path, options: &[String]) -> Result<Child, PortInUse> {
    let log = directory.join("redis.log");
    let _ = fs::remove_file(&log);
    let mut child = Command::new("redis-server")
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
        .arg("--dir")
        .arg(directory)
        .args(["--logfile", "redis.log", "--daemonize", "no"])
        .args(["--save", "", "--appendonly", "no"])
        .args(options)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| missing("redis-server", "redis-server", &error));
    let give_up = Instant::now() + START;
    // The log of this very process says that it listens: whoever else may answer on the port is not mistaken for it.
    while Instant::now() < give_up {
        let said = fs::read_to_string(&log).unwrap_or_default();
        if said.contains("Ready to accept connections") {
            return Ok(child);
        }
        if child.try_wait().expect("Redis' state").is_some() {
            let said = fs::read_to_string(&log).unwrap_or_default();
            assert!(said.contains("in use"), "redis-server does not start: {said}");
            return Err(PortInUse);
        }
        sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(&log).unwrap_or_default();
    panic!("redis-server does not get ready: {said}");
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn missing(program: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("the tests need `{program}` (Debian's package {package}): {error}");
}
