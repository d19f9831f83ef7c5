//! A Redis Cluster of real servers: [`Cluster::start`].

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{FREE_PORT, RedisServer, wait_for};

const SLOTS: u32 = 16384;

/// A master is taken for dead after so long without an answer; a busy machine must not look like that.
const NODE_TIMEOUT_MS: &str = "2000";

pub struct Cluster {
    /// First the masters of the beginning, then their replicas in the same order.
    servers: Vec<RedisServer>,
    masters: usize,
}

impl Cluster {
    /// So many masters, each with so many replicas, all without persistence.
    pub fn start(masters: usize, replicas: usize) -> Self {
        Self::start_with(masters, replicas, &[])
    }

    /// The same with options for every server. Returns when everybody takes the cluster for whole.
    pub fn start_with(masters: usize, replicas: usize, options: &[&str]) -> Self {
        let own = ["--cluster-enabled", "yes", "--cluster-port", FREE_PORT, "--cluster-node-timeout", NODE_TIMEOUT_MS];
        let quick = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let options = [&own[..], &quick[..], options].concat();
        let count = masters * (1 + replicas);
        let servers = (0..count).map(|_| RedisServer::start_with(&options)).collect();
        let cluster = Cluster { servers, masters };
        cluster.deal_out();
        cluster.meet();
        cluster.follow();
        cluster
    }

    /// `redis-cluster://…` with every server in it.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// The same with `user:password@` in front of the hosts.
    pub fn url_with(&self, login: &str) -> String {
        let hosts: Vec<String> = self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis-cluster://{login}{}", hosts.join(","))
    }

    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    pub fn server(&mut self, index: usize) -> &mut RedisServer {
        &mut self.servers[index]
    }

    /// What `redis-cli` prints for a command, wherever its key lives.
    pub fn cli(&self, arguments: &[&str]) -> String {
        let alive = self.servers.iter().find(|server| server.answers());
        alive.expect("somebody is alive").cli_with(&["-c"], arguments)
    }

    /// The slot in which a room's keys are.
    pub fn slot(&self, room: &str) -> u32 {
        self.cli(&["CLUSTER", "KEYSLOT", &format!("{{{room}}}")]).parse().expect("a slot")
    }

    /// Which of [`Cluster::servers`] is the master of a slot, as `asked` sees it.
    fn owner_seen_by(&self, asked: &RedisServer, slot: u32) -> Option<usize> {
        let nodes = asked.cli(&["CLUSTER", "NODES"]);
        let owner = nodes.lines().find(|line| {
            let mut fields = line.split(' ').skip(8);
            !failed(line) && fields.any(|range| holds(range, slot))
        })?;
        let address = owner.split(' ').nth(1)?;
        let port: u16 = address.split(['@', ','].as_slice()).next()?.rsplit(':').next()?.parse().ok()?;
        self.servers.iter().position(|server| server.port() == port)
    }

    pub fn index_of(&self, server: &RedisServer) -> usize {
        let index = self.servers.iter().position(|other| other.port() == server.port());
        index.expect("one of ours")
    }

    /// Waits until somebody follows this server, and has what it has.
    pub fn wait_followed(&self, master: usize) {
        wait_for("it is followed", || {
            let up =
                |replica: &&RedisServer| replica.info("replication", "master_link_status").as_deref() == Some("up");
            let replicas = self.replicas_of(master);
            !replicas.is_empty() && replicas.iter().all(up)
        });
    }

    /// Those who follow a server.
    pub fn replicas_of(&self, master: usize) -> Vec<&RedisServer> {
        let port = self.servers[master].port().to_string();
        let follows = |server: &&RedisServer| server.info("replication", "master_port").as_ref() == Some(&port);
        self.servers.iter().filter(|server| server.answers()).filter(follows).collect()
    }

    /// Which of [`Cluster::servers`] has a room.
    pub fn owner(&self, room: &str) -> usize {
        self.owner_of_slot(self.slot(room))
    }

    fn owner_of_slot(&self, slot: u32) -> usize {
        let answering = self.servers.iter().filter(|server| server.answers());
        let owner = answering.filter_map(|server| self.owner_seen_by(server, slot)).next();
        owner.expect("somebody has the slot")
    }

    /// So many names of rooms in as many slots, all of which `server` has.
    pub fn rooms_of(&self, server: usize, count: usize) -> Vec<String> {
        let mut slots = Vec::new();
        let names = (0..).map(|number| format!("room-{number}")).filter(|name| {
            let slot = self.slot(name);
            let fits = self.owner_of_slot(slot) == server && !slots.contains(&slot);
            slots.push(slot);
            fits
        });
        names.take(count).collect()
    }

    /// Moves a slot with everything in it to another server while all goes on: as `redis-cli --cluster reshard` does it.
    pub fn move_slot(&self, slot: u32, to: usize) {
        let from = self.owner_of_slot(slot);
        assert_ne!(from, to, "it is there already");
        let (source, target) = (&self.servers[from], &self.servers[to]);
        let (source_id, target_id) = (id(source), id(target));
        let number = slot.to_string();
        target.must(&["CLUSTER", "SETSLOT", &number, "IMPORTING", &source_id]);
        source.must(&["CLUSTER", "SETSLOT", &number, "MIGRATING", &target_id]);
        loop {
            let keys = source.cli(&["CLUSTER", "GETKEYSINSLOT", &number, "10"]);
            if keys.is_empty() {
                break;
            }
            let port = target.port().to_string();
            for key in keys.lines() {
                // A key at a time, so that what asks for several of them meets a half that is gone.
                let moved = source.cli(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
                assert!(moved == "OK" || moved == "NOKEY", "{key}: {moved}");
            }
        }
        // First who gets it, so that nobody is ever sent to one who does not have it.
        target.must(&["CLUSTER", "SETSLOT", &number, "NODE", &target_id]);
        source.must(&["CLUSTER", "SETSLOT", &number, "NODE", &target_id]);
        for server in &self.servers {
            wait_for("everybody knows where the slot is", || self.owner_seen_by(server, slot) == Some(to));
        }
    }

    /// Tells a server that all its slots are on their way to another one, or that they stay.
    pub fn set_moving(&self, from: usize, to: Option<usize>) {
        let share = SLOTS.div_ceil(self.masters as u32);
        let slots = from as u32 * share..((from as u32 + 1) * share).min(SLOTS);
        let state = match to {
            Some(to) => format!("MIGRATING {}", id(&self.servers[to])),
            None => "STABLE".to_owned(),
        };
        let commands: String = slots.clone().map(|slot| format!("CLUSTER SETSLOT {slot} {state}\r\n")).collect();
        let mut redis = TcpStream::connect(("127.0.0.1", self.servers[from].port())).expect("a server");
        redis.write_all(commands.as_bytes()).expect("it takes commands");
        for _ in slots {
            let mut answer = [0; 5];
            redis.read_exact(&mut answer).expect("an answer");
            assert_eq!(&answer, b"+OK\r\n");
        }
    }

    /// Waits until a slot's master is another than `old`, for everybody who is alive; its index.
    pub fn wait_for_another_than(&self, old: usize, slot: u32) -> usize {
        for (index, server) in self.servers.iter().enumerate().filter(|(index, _)| *index != old) {
            wait_for(&format!("server {index} knows another master"), || {
                !server.answers() || self.owner_seen_by(server, slot).is_some_and(|owner| owner != old) && whole(server)
            });
        }
        self.owner_of_slot(slot)
    }

    /// Every master gets its share of the slots, as `redis-cli --cluster create` deals them out.
    fn deal_out(&self) {
        let share = SLOTS.div_ceil(self.masters as u32);
        for (index, master) in (0..).zip(&self.servers[..self.masters]) {
            let last = ((index + 1) * share).min(SLOTS) - 1;
            master.must(&["CLUSTER", "ADDSLOTSRANGE", &(index * share).to_string(), &last.to_string()]);
            master.must(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        }
    }

    fn meet(&self) {
        let first = &self.servers[0];
        for other in &self.servers[1..] {
            let bus = other.option("--cluster-port").expect("its bus");
            first.must(&["CLUSTER", "MEET", "127.0.0.1", &other.port().to_string(), bus]);
        }
        let count = self.servers.len().to_string();
        for server in &self.servers {
            wait_for("everybody has met", || info(server, "cluster_known_nodes").as_deref() == Some(&*count));
        }
    }

    fn follow(&self) {
        for (number, replica) in self.servers[self.masters..].iter().enumerate() {
            replica.must(&["CLUSTER", "REPLICATE", &id(&self.servers[number % self.masters])]);
        }
        for replica in &self.servers[self.masters..] {
            replica.wait_for_info("replication", "master_link_status", "up");
        }
        let replicas = self.servers.len() - self.masters;
        for server in &self.servers {
            wait_for("the cluster is whole", || {
                let known = server.cli(&["CLUSTER", "NODES"]);
                whole(server) && known.lines().filter(|line| line.contains("slave")).count() == replicas
            });
        }
    }
}

fn id(server: &RedisServer) -> String {
    server.cli(&["CLUSTER", "MYID"])
}

fn info(server: &RedisServer, field: &str) -> Option<String> {
    let info = server.cli(&["CLUSTER", "INFO"]);
    let mut fields = info.lines().filter_map(|line| line.trim().split_once(':'));
    fields.find(|(name, _)| *name == field).map(|(_, value)| value.to_owned())
}

fn whole(server: &RedisServer) -> bool {
    info(server, "cluster_state").as_deref() == Some("ok")
}

/// Whether a line of `CLUSTER NODES` is about somebody who is gone, or is no master.
fn failed(line: &str) -> bool {
    let flags = line.split(' ').nth(2).unwrap_or_default();
    flags.split(',').any(|flag| flag == "fail" || flag == "slave")
}

/// Whether `0-5460`, or `7`, of such a line holds the slot; `[7->-ID]` is one on its way.
fn holds(range: &str, slot: u32) -> bool {
    let (first, last) = range.split_once('-').unwrap_or((range, range));
    matches!((first.parse::<u32>(), last.parse::<u32>()), (Ok(first), Ok(last)) if first <= slot && slot <= last)
}
