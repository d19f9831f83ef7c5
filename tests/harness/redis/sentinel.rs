//! A master, its replicas, and three real Sentinels that watch them: [`Sentinel::start`].

use std::fs;
use std::process::{Child, Command};

use tempfile::TempDir;

use super::{LOG, PortInUse, RedisServer, free_port, spawn, wait_for};

/// What the Sentinels call the master.
pub const NAME: &str = "hall";

const WATCHERS: usize = 3;

/// A master is taken for dead after so long without an answer; a busy machine must not look like that.
const DOWN_AFTER_MS: u32 = 1500;

/// So often everybody looks, which by itself is every one to ten seconds; `tilt` is what a Sentinel does that was itself
/// held up for long: nothing, for half a minute.
const PACE: [&str; 14] = [
    "info-period",
    "300",
    "ping-period",
    "200",
    "ask-period",
    "200",
    "publish-period",
    "300",
    "min-link-reconnect-period",
    "500",
    "tilt-period",
    "1000",
    "election-timeout",
    "2000",
];

pub struct Sentinel {
    servers: Vec<RedisServer>,
    watchers: Vec<Watcher>,
}

/// One `redis-server --sentinel`; killed when dropped.
struct Watcher {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Sentinel {
    /// One master and so many replicas, all without persistence.
    pub fn start(replicas: usize) -> Self {
        Self::start_with(replicas, &[])
    }

    /// The same with options for every server. Returns when everybody knows everybody.
    pub fn start_with(replicas: usize, options: &[&str]) -> Self {
        // A new master may be asked for all data: from memory and at once that is quick.
        let quick = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let options = [&quick[..], options].concat();
        let master = RedisServer::start_with(&options);
        let followers: Vec<_> = (0..replicas).map(|_| RedisServer::start_replica_of(&master, &options)).collect();
        let watchers: Vec<Watcher> = (0..WATCHERS).map(|_| Watcher::start(&master)).collect();
        let mut servers = vec![master];
        servers.extend(followers);
        let sentinel = Sentinel { servers, watchers };
        sentinel.wait_complete();
        sentinel
    }

    /// `redis-sentinel://…` with every Sentinel in it.
    pub fn url(&self) -> String {
        self.url_with("", "")
    }

    /// The same with `user:password@` in front of the hosts, and more behind the name.
    pub fn url_with(&self, login: &str, rest: &str) -> String {
        let hosts: Vec<String> = self.watchers.iter().map(|watcher| format!("127.0.0.1:{}", watcher.port)).collect();
        format!("redis-sentinel://{login}{}/{NAME}{rest}", hosts.join(","))
    }

    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    pub fn server(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    /// Which of [`Sentinel::servers`] most Sentinels take for the master.
    pub fn master_index(&self) -> usize {
        let mut votes = vec![0; self.servers.len()];
        for watcher in &self.watchers {
            let port = watcher.master_port();
            if let Some(index) = self.servers.iter().position(|server| Some(server.port()) == port) {
                votes[index] += 1;
            }
        }
        (0..votes.len()).max_by_key(|index| votes[*index]).expect("there is a server")
    }

    pub fn master(&self) -> &RedisServer {
        &self.servers[self.master_index()]
    }

    /// Those who follow the master.
    pub fn replicas(&self) -> Vec<&RedisServer> {
        let master = self.master_index();
        let others = self.servers.iter().enumerate().filter(|(index, _)| *index != master);
        others.map(|(_, server)| server).collect()
    }

    /// What `redis-cli` prints for a command at the master.
    pub fn cli(&self, arguments: &[&str]) -> String {
        self.master().cli(arguments)
    }

    /// Waits until all Sentinels name another master than `old`, and it is one; its index.
    pub fn wait_for_another_than(&self, old: usize) -> usize {
        let old_port = Some(self.servers[old].port());
        wait_for("another server is the master", || {
            let named: Vec<_> = self.watchers.iter().map(Watcher::master_port).collect();
            let agreed = named.iter().all(|port| port.is_some() && *port != old_port && *port == named[0]);
            agreed && self.master().info("replication", "role").as_deref() == Some("master")
        });
        self.master_index()
    }

    /// Asks for a failover while everybody is well, and waits for it; the new master's index.
    pub fn fail_over(&self) -> usize {
        let old = self.master_index();
        wait_for("a Sentinel begins a failover", || self.watchers[0].cli(&["SENTINEL", "FAILOVER", NAME]) == "OK");
        self.wait_for_another_than(old)
    }

    /// Waits until every server but the master follows it.
    pub fn wait_followed(&self) {
        let others = self.servers.len() - 1;
        let master_port = self.master().port().to_string();
        wait_for("everybody follows the master", || {
            let following = self.servers.iter().filter(|server| {
                server.info("replication", "master_port").as_ref() == Some(&master_port)
                    && server.info("replication", "master_link_status").as_deref() == Some("up")
            });
            following.count() == others
        });
    }

    /// Every Sentinel knows the other Sentinels and all replicas, and takes nobody for dead.
    fn wait_complete(&self) {
        let replicas = self.servers.len() - 1;
        let known =
            format!("status=ok,address=127.0.0.1:{},slaves={replicas},sentinels={WATCHERS}", self.servers[0].port());
        for watcher in &self.watchers {
            wait_for("the Sentinels know everybody", || watcher.cli(&["INFO", "sentinel"]).contains(&known));
        }
    }
}

impl Watcher {
    fn start(master: &RedisServer) -> Self {
        let master_port = master.port();
        let password = master.option("--requirepass");
        let login = password.map(|password| format!("sentinel auth-pass {NAME} {password}\n")).unwrap_or_default();
        let directory = TempDir::new().expect("a temporary directory for a Sentinel");
        loop {
            // A Sentinel writes what it learns into its configuration: begin with a fresh one.
            let port = free_port();
            let place = directory.path().display();
            let file = directory.path().join("sentinel.conf");
            let text = format!(
                "port {port}\nbind 127.0.0.1\ndir {place}\nlogfile {place}/{LOG}\n\
                 sentinel monitor {NAME} 127.0.0.1 {master_port} 2\n\
                 {login}sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n\
                 sentinel failover-timeout {NAME} 4000\n"
            );
            fs::write(&file, text).expect("a Sentinel's configuration");
            let mut command = Command::new("redis-server");
            command.arg(&file).arg("--sentinel");
            match spawn(command, &directory.path().join(LOG), "+monitor master") {
                Ok(child) => {
                    let watcher = Watcher { child, port, _directory: directory };
                    let answer = watcher.cli(&[&["SENTINEL", "DEBUG"], &PACE[..]].concat());
                    assert_eq!(answer, "OK");
                    return watcher;
                }
                Err(PortInUse) => continue,
            }
        }
    }

    fn cli(&self, arguments: &[&str]) -> String {
        let port = self.port.to_string();
        let output = Command::new("redis-cli").args(["-h", "127.0.0.1", "-p", &port]).args(arguments).output();
        String::from_utf8_lossy(&output.expect("redis-cli").stdout).trim().to_owned()
    }

    /// The port of whom it takes for the master.
    fn master_port(&self) -> Option<u16> {
        let answer = self.cli(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME]);
        answer.lines().nth(1)?.trim().parse().ok()
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
