//! A Redis of a test's own: `RedisServer::start()`, on a free port, in a directory of its own, gone with the value.
//!
//! [`Sentinel`] and [`Cluster`] are several of them that belong together; [`Certificates`] are for those who speak TLS.
#![allow(dead_code, unused_imports)] // every test file uses another part

// The paths are spelled out since a test file may include this one under a path of its own.
#[path = "redis/certificates.rs"]
mod certificates;
#[path = "redis/cluster.rs"]
mod cluster;
#[path = "redis/sentinel.rs"]
mod sentinel;

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

pub use certificates::Certificates;
pub use cluster::Cluster;
pub use sentinel::Sentinel;

/// How long a server may take to start, and several of them to find together. Generous: it is waited for, not slept for.
const START: Duration = Duration::from_secs(30);

/// As an option's value: a port that nobody has.
pub const FREE_PORT: &str = "a free port";

/// What a server's log says when it takes commands, and when it takes connections but is still reading its files.
const READY: &str = "Ready to accept connections";
const LOADING: &str = "Loading ";

pub struct RedisServer {
    child: Child,
    port: u16,
    directory: TempDir,
    options: Vec<String>,
    /// The size of a disk of its own.
    disk_kib: Option<u32>,
}

impl RedisServer {
    /// Without persistence: what is killed is forgotten.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// With options as on `redis-server`'s command line, such as `["--appendonly", "yes"]`.
    pub fn start_with(options: &[&str]) -> Self {
        Self::start_on(None, options)
    }

    /// With a disk of its own that holds so much, and where `filler` takes half of it; see [`RedisServer::free_disk`].
    pub fn start_on_disk(kib: u32, options: &[&str]) -> Self {
        Self::start_on(Some(kib), options)
    }

    fn start_on(disk_kib: Option<u32>, options: &[&str]) -> Self {
        let directory = TempDir::new().expect("a temporary directory for Redis");
        loop {
            // Somebody else may take a port before Redis does; then it is tried with others.
            let port = free_port();
            let filled = |option: &&str| if *option == FREE_PORT { free_port().to_string() } else { (*option).into() };
            let options: Vec<String> = options.iter().map(filled).collect();
            match launch(port, directory.path(), disk_kib, &options, READY) {
                Ok(child) => {
                    return RedisServer { child, port, directory, options, disk_kib };
                }
                Err(PortInUse) => continue,
            }
        }
    }

    /// One that speaks TLS, too; see [`RedisServer::tls_port`].
    pub fn start_with_tls(certificates: &Certificates, options: &[&str]) -> Self {
        let [certificate, key, authority] = [&certificates.certificate, &certificates.key, &certificates.authority]
            .map(|path| path.to_str().expect("a path in UTF-8"));
        let mut all = vec!["--tls-port", FREE_PORT, "--tls-auth-clients", "no"];
        all.extend(["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", authority]);
        all.extend(options);
        Self::start_with(&all)
    }

    /// A replica of `master` that has everything the master has.
    pub fn start_replica_of(master: &RedisServer, options: &[&str]) -> Self {
        let master_port = master.port.to_string();
        let replica = Self::start_with(&[&["--replicaof", "127.0.0.1", &master_port][..], options].concat());
        replica.wait_for_info("replication", "master_link_status", "up");
        replica
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where it speaks TLS.
    pub fn tls_port(&self) -> u16 {
        self.option("--tls-port").expect("it was started with TLS").parse().expect("a port")
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn url_of_db(&self, database: u32) -> String {
        format!("{}/{database}", self.url())
    }

    fn option(&self, name: &str) -> Option<&str> {
        let at = self.options.iter().position(|option| option == name)?;
        self.options.get(at + 1).map(String::as_str)
    }

    /// As a power cut: `SIGKILL`.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Kills it if it runs, and starts it again with the same port and directory.
    pub fn restart(&mut self) {
        self.restart_until(READY);
    }

    /// As [`RedisServer::restart`], but waits only until it reads its files: commands are answered with `LOADING`.
    pub fn restart_loading(&mut self) {
        self.restart_until(LOADING);
    }

    fn restart_until(&mut self, state: &str) {
        self.kill();
        let give_up = Instant::now() + START;
        self.child = loop {
            match launch(self.port, self.directory.path(), self.disk_kib, &self.options, state) {
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

    /// Removes what takes half of its disk.
    pub fn free_disk(&self) {
        // Only the server itself sees that disk.
        let root = PathBuf::from(format!("/proc/{}/root", self.child.id()));
        let directory = self.directory.path().strip_prefix("/").expect("an absolute path");
        fs::remove_file(root.join(directory).join(DISK).join("filler")).expect("the filler is removed");
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

    /// Stores an event (the wire JSON without `room`, `offset`, `at`) as a node would that is not there; its offset.
    pub fn store_event(&self, room: &str, event: &str) -> u64 {
        let random = || uuid::Uuid::new_v4().simple().to_string();
        let mut call: Vec<String> = ["FCALL", "townhall_1_publish", "4"].map(String::from).into();
        call.extend(["log", "meta", "seen", "seen:old"].map(|key| format!("townhall:{{{room}}}:{key}")));
        call.push(format!("townhall:0:{{{room}}}"));
        call.push(random());
        call.extend(["10000", "3600000", "600000"].map(String::from)); // messages kept, room's and ids' life in ms
        call.extend([random(), event.to_owned()]);
        let answer = self.cli(&call);
        let offset = answer.lines().nth(1).and_then(|offset| offset.parse().ok());
        offset.unwrap_or_else(|| panic!("{event} was not stored: {answer}"))
    }

    /// What `redis-cli` prints for a command.
    pub fn cli<A: AsRef<OsStr>>(&self, arguments: &[A]) -> String {
        match self.option("--requirepass") {
            Some(password) => self.cli_with(&["-a", password], arguments),
            None => self.cli_with(&[], arguments),
        }
    }

    /// The same with options of `redis-cli`, such as `["-a", "password"]`.
    pub fn cli_with<A: AsRef<OsStr>>(&self, options: &[&str], arguments: &[A]) -> String {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "--no-auth-warning"])
            .args(options)
            .args(arguments)
            .output()
            .unwrap_or_else(|error| missing("redis-cli", "redis-tools", &error));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Whether it runs and is not held up.
    pub fn answers(&self) -> bool {
        let port = self.port.to_string();
        let output = Command::new("timeout").args(["1", "redis-cli", "-h", "127.0.0.1", "-p", &port, "PING"]).output();
        output.expect("the command `timeout`").stdout.starts_with(b"PONG")
    }

    /// A command that must be answered with `OK`.
    pub fn must<A: AsRef<OsStr> + std::fmt::Debug>(&self, arguments: &[A]) {
        let answer = self.cli(arguments);
        assert_eq!(answer, "OK", "to {arguments:?}");
    }

    /// A field of `INFO section`.
    pub fn info(&self, section: &str, field: &str) -> Option<String> {
        let info = self.cli(&["INFO", section]);
        let mut fields = info.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| *name == field).map(|(_, value)| value.trim().to_owned())
    }

    pub fn wait_for_info(&self, section: &str, field: &str, value: &str) {
        wait_for(&format!("{field} is {value}"), || self.info(section, field).as_deref() == Some(value));
    }

    /// Its replicas lose it, and cannot come back before [`RedisServer::let_back`]: what is stored now is stored here alone.
    pub fn cut_off(&self, replicas: &[&RedisServer]) {
        for replica in replicas {
            // Nobody has such a password, so the greeting fails.
            replica.must(&["CONFIG", "SET", "masterauth", "nobody's"]);
        }
        self.cli(&["CLIENT", "KILL", "TYPE", "replica"]);
        for replica in replicas {
            replica.wait_for_info("replication", "master_link_status", "down");
        }
    }

    /// To a replica that was cut off: it may follow a master again.
    pub fn let_back(&self) {
        self.must(&["CONFIG", "SET", "masterauth", ""]);
    }

    /// Holds up whatever writes until its replicas have all that was written: if it dies now, nothing is lost. Nobody
    /// is told of anything, so it must die at once.
    pub fn stop_writing(&self, replicas: &[&RedisServer]) {
        self.must(&["CLIENT", "PAUSE", "20000", "WRITE"]);
        let written = || self.info("replication", "master_repl_offset");
        for replica in replicas {
            let read = || replica.info("replication", "slave_repl_offset");
            wait_for("a replica has everything", || read().is_some() && read() == written());
        }
    }

    /// How often a command was called, by clients and by functions; `xrange`, `xinfo|stream`.
    pub fn calls(&self, command: &str) -> u64 {
        let stats = self.info("commandstats", &format!("cmdstat_{command}"));
        let calls = stats.as_deref().and_then(|stats| stats.strip_prefix("calls=")?.split(',').next()?.parse().ok());
        calls.unwrap_or(0)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
    }
}

const SOCKET: &str = "redis.sock";

struct PortInUse;

/// Where a disk of its own is, if it has one.
const DISK: &str = "disk";

fn launch(
    port: u16,
    directory: &Path,
    disk_kib: Option<u32>,
    options: &[String],
    state: &str,
) -> Result<Child, PortInUse> {
    let log = directory.join(LOG);
    let mut command = match disk_kib {
        None => Command::new("redis-server"),
        Some(kib) => on_disk(kib, &directory.join(DISK)),
    };
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--unixsocket"]).arg(directory.join(SOCKET));
    command.arg("--dir").arg(if disk_kib.is_some() { directory.join(DISK) } else { directory.into() });
    command.arg("--logfile").arg(&log);
    command.args(["--daemonize", "no", "--save", "", "--appendonly", "no"]).args(options);
    spawn(command, &log, state)
}

/// The server in a namespace of its own, in which `place` is a little disk.
fn on_disk(kib: u32, place: &Path) -> Command {
    let _ = fs::create_dir(place);
    let script = r#"mount -t tmpfs -o size="$0"k tmpfs "$1" && head -c "$(($0 * 512))" /dev/zero >"$1/filler" &&
        shift && exec redis-server "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", script, &kib.to_string()]).arg(place);
    command
}

const LOG: &str = "redis.log";

/// Starts a server; returns when its log says that it has come to this state.
fn spawn(mut command: Command, log: &Path, state: &str) -> Result<Child, PortInUse> {
    let _ = fs::remove_file(log);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| missing("redis-server", "redis-server", &error));
    let give_up = Instant::now() + START;
    // The log of this very process says that it listens: whoever else may answer on the port is not mistaken for it.
    while Instant::now() < give_up {
        let said = fs::read_to_string(log).unwrap_or_default();
        if said.contains(state) {
            return Ok(child);
        }
        if child.try_wait().expect("Redis' state").is_some() {
            let said = fs::read_to_string(log).unwrap_or_default();
            assert!(said.contains("in use"), "redis-server does not start: {said}");
            return Err(PortInUse);
        }
        sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    let said = fs::read_to_string(log).unwrap_or_default();
    panic!("redis-server does not get ready: {said}");
}

/// Waits for a state of servers.
fn wait_for(what: &str, state: impl Fn() -> bool) {
    let give_up = Instant::now() + START;
    while !state() {
        assert!(Instant::now() < give_up, "waited in vain until {what}");
        sleep(Duration::from_millis(30));
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}

fn missing(program: &str, package: &str, error: &std::io::Error) -> ! {
    panic!("the tests need `{program}` (Debian's package {package}): {error}");
}
