//! What this machine allows and what we take of it.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde::Serialize;

/// Files besides the clients' sockets: pollers, pipes, the terminal.
const OTHER_FILES: u64 = 64;

/// More clients than that on one loopback address come too near to the number of its ports.
const CLIENTS_PER_SOURCE: usize = 20_000;

/// The addresses that clients come from; empty: whatever the system chooses.
pub type Sources = Vec<IpAddr>;

/// Raises `nofile` to the hard limit: how many clients that holds in a process.
pub fn clients_a_process() -> anyhow::Result<usize> {
    let allowed = rlimit::increase_nofile_limit(u64::MAX).context("cannot raise nofile")?;
    let holds = allowed.saturating_sub(OTHER_FILES);
    ensure!(holds > 0, "a process may open {allowed} files (nofile's hard limit), which holds no clients");
    Ok(usize::try_from(holds).unwrap_or(usize::MAX))
}

/// Refuses more clients than one process holds.
pub fn make_room_for(connections: usize) -> anyhow::Result<()> {
    let holds = clients_a_process()?;
    let more = "than nofile's hard limit has room for in a process";
    ensure!(connections <= holds, "{connections} clients: more {more}, which is {holds}");
    Ok(())
}

/// Processors that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Where to connect from, or why there are not ports enough. `given`: by the user; `targets`: the addresses that are
/// connected to.
pub fn sources(clients: usize, given: &[IpAddr], targets: &[IpAddr], ports: usize) -> anyhow::Result<Sources> {
    if !given.is_empty() {
        let each = clients.div_ceil(given.len());
        ensure!(each <= ports, "{clients} clients: {each} from each --source, {}", these_ports(ports));
        let alike = |source: &IpAddr| targets.iter().all(|target| target.is_ipv4() == source.is_ipv4());
        for source in given {
            ensure!(alike(source), "--source {source}: not of the same family as every server's address");
            let there = std::net::UdpSocket::bind((*source, 0));
            there.with_context(|| format!("--source {source}: no address of this machine"))?;
        }
        return Ok(given.to_vec());
    }
    let all_loopback = targets.iter().all(|target| match target {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(_) => false,
    });
    if all_loopback && clients > CLIENTS_PER_SOURCE {
        let count = clients.div_ceil(CLIENTS_PER_SOURCE.min(ports));
        ensure!(count <= 250, "{clients} clients: more than 127.0.0.1 to 127.0.0.250 have ports for");
        return Ok((1..=count as u8).map(loopback).collect());
    }
    let each = clients.div_ceil(targets.len().max(1));
    ensure!(each <= ports, "{clients} clients: {each} to one address, {}; give more with --source", these_ports(ports));
    Ok(Vec::new())
}

fn these_ports(ports: usize) -> String {
    format!("and there are {ports} local ports for it (net.ipv4.ip_local_port_range)")
}

fn loopback(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// How many local ports the system gives out by itself; Linux' default where it does not say.
pub fn ephemeral_ports() -> usize {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    range
        .ok()
        .and_then(|range| {
            let (low, high) = range.trim().split_once(char::is_whitespace)?;
            let (low, high): (usize, usize) = (low.parse().ok()?, high.trim().parse().ok()?);
            (high >= low).then(|| high - low + 1)
        })
        .unwrap_or(28_232)
}

/// The processor's name.
pub fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or("unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

/// The kernel's version.
pub fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

/// What the processes of a run took of their processors while there was something to do.
#[derive(Debug)]
pub struct Load {
    /// Of all processors that they may use, 0 to 1.
    pub own: f64,
    pub busiest: Worker,
    /// What anything at all took of the same processors; `None` where the system does not say.
    pub cores_busy: Option<f64>,
}

/// A process of the run.
#[derive(Debug, Clone, Serialize)]
pub struct Worker {
    pub name: String,
    /// Of one processor, 0 to 1.
    pub share: f64,
}

/// Measures from the first look at which something had come of it to the last one that saw more: a generator that has nothing
/// to do before and after is not therefore at leisure. What is over between two looks is measured from the look before it.
#[derive(Debug, Default)]
pub struct LoadMeter {
    processes: Vec<(u32, String)>,
    done: u64,
    before: Option<Reading>,
    first: Option<Reading>,
    last: Option<Reading>,
}

impl LoadMeter {
    /// Of these processes, which may use the same processors as this one.
    pub fn of(processes: Vec<(u32, String)>) -> Self {
        LoadMeter { processes, ..LoadMeter::default() }
    }

    /// To be called now and then, with how many messages were delivered so far, or clients let in.
    pub fn look(&mut self, done: u64) {
        let processes = std::mem::take(&mut self.processes);
        self.note(done, || Reading::now(&processes));
        self.processes = processes;
    }

    fn note(&mut self, done: u64, read: impl FnOnce() -> Option<Reading>) {
        let more = done > self.done && self.before.is_some();
        self.done = done;
        match (more, &self.first) {
            (false, None) => self.before = read(),
            (false, Some(_)) => {}
            (true, None) => self.first = read(),
            (true, Some(_)) => self.last = read(),
        }
    }

    /// `None`: nothing came, or the system does not say.
    pub fn load(&self) -> Option<Load> {
        let (from, to) = match (&self.before, &self.first, &self.last) {
            (_, Some(first), Some(last)) => (first, last),
            (Some(before), Some(first), None) => (before, first),
            _ => return None,
        };
        let seconds = (to.at - from.at).as_secs_f64();
        let used: Vec<f64> =
            to.used.iter().zip(&from.used).map(|(to, from)| to.saturating_sub(*from).as_secs_f64()).collect();
        let busiest = used.iter().zip(&self.processes).max_by(|a, b| a.0.total_cmp(b.0))?;
        Some(Load {
            own: used.iter().sum::<f64>() / seconds / to.cores as f64,
            busiest: Worker { name: busiest.1.1.clone(), share: busiest.0 / seconds },
            cores_busy: busy_share(from.all?, to.all?),
        })
    }
}

/// Processor times at some moment.
#[derive(Debug)]
struct Reading {
    at: Instant,
    /// Of each process.
    used: Vec<Duration>,
    /// How many processors they may use.
    cores: usize,
    /// What these processors spent, in ticks: busy, and in all.
    all: Option<(u64, u64)>,
}

impl Reading {
    fn now(processes: &[(u32, String)]) -> Option<Self> {
        let cores = allowed_cores()?;
        Some(Reading {
            at: Instant::now(),
            used: processes.iter().map(|(pid, _)| cpu_time_of(*pid).unwrap_or_default()).collect(),
            cores: cores.len().max(1),
            all: fs::read_to_string("/proc/stat").ok().map(|stat| spent(&stat, &cores)),
        })
    }
}

/// User and system time of all threads of a process so far; `None` where there is none, or the system does not say.
pub fn cpu_time_of(pid: u32) -> Option<Duration> {
    cpu_time(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn cpu_time(stat: &str) -> Option<Duration> {
    ticks(stat).map(|ticks| Duration::from_millis(10 * ticks))
}

/// Memory of its own, in bytes: no pages of the program, none of the kernel's for sockets.
pub fn memory_of(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kib| 1024 * kib)
}

fn allowed_cores() -> Option<Vec<usize>> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    core_list(status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?)
}

/// `0-3,8`, as the kernel writes it.
fn core_list(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse().ok()?..=last.parse::<usize>().ok()?);
    }
    Some(cores)
}

/// The ticks of some cores in `/proc/stat`: busy, and in all. The fourth and the fifth field are idleness and waiting for disks.
fn spent(stat: &str, cores: &[usize]) -> (u64, u64) {
    let mut sums = (0, 0);
    for line in stat.lines() {
        let mut fields = line.split_whitespace();
        let core = fields.next().and_then(|name| name.strip_prefix("cpu")?.parse().ok());
        if core.is_some_and(|core: usize| cores.contains(&core)) {
            let ticks: Vec<u64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
            let all: u64 = ticks.iter().sum();
            let idle: u64 = ticks.iter().skip(3).take(2).sum();
            sums = (sums.0 + all - idle, sums.1 + all);
        }
    }
    sums
}

fn busy_share(from: (u64, u64), to: (u64, u64)) -> Option<f64> {
    let all = to.1.checked_sub(from.1).filter(|ticks| *ticks > 0)?;
    Some(to.0.saturating_sub(from.0) as f64 / all as f64)
}

/// Fields 14 and 15 of a `/proc/…/stat`, in hundredths of a second on every Linux. The program's name, the second field,
/// may hold anything, so counting begins after its last parenthesis.
fn ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(list: &[&str]) -> Vec<IpAddr> {
        list.iter().map(|one| one.parse().unwrap()).collect()
    }

    #[test]
    fn a_crowd_on_loopback_comes_from_many_addresses() {
        let targets = addresses(&["127.0.0.1"]);
        assert_eq!(sources(20_000, &[], &targets, 28_232).unwrap(), Sources::new());
        let two = sources(20_001, &[], &targets, 28_232).unwrap();
        assert_eq!(two, addresses(&["127.0.0.1", "127.0.0.2"]));
        assert!(sources(9_000_000, &[], &targets, 28_232).is_err());
    }

    #[test]
    fn more_than_the_ports_of_one_address_is_refused() {
        let far = addresses(&["10.0.0.1"]);
        let refusal = sources(30_000, &[], &far, 28_232).unwrap_err().to_string();
        assert!(refusal.contains("28232 local ports"), "{refusal}");
        assert!(sources(30_000, &[], &addresses(&["10.0.0.1", "10.0.0.2"]), 28_232).is_ok());
    }

    #[test]
    fn given_addresses_are_used_if_they_are_ours_and_have_the_ports() {
        let (ours, target) = (addresses(&["127.0.0.7", "127.0.0.8"]), addresses(&["127.0.0.1"]));
        assert_eq!(sources(50_000, &ours, &target, 28_232).unwrap(), ours);
        let few = sources(60_000, &ours, &target, 28_232).unwrap_err().to_string();
        assert!(few.contains("30000 from each --source"), "{few}");
        let foreign = sources(5, &addresses(&["192.0.2.1"]), &target, 28_232).unwrap_err().to_string();
        assert!(foreign.contains("192.0.2.1: no address of this machine"), "{foreign}");
    }

    #[test]
    fn more_than_nofile_holds_is_refused() {
        assert!(make_room_for(10).is_ok());
        let refusal = make_room_for(usize::MAX).unwrap_err().to_string();
        assert!(refusal.contains("nofile"), "{refusal}");
    }

    /// After so many seconds, of which the crowd worked so many, on two processors that others kept half busy.
    fn reading(began: Instant, seconds: u64, worked: u64) -> Option<Reading> {
        Some(Reading {
            at: began + Duration::from_secs(seconds),
            used: vec![Duration::ZERO, Duration::from_secs(worked)],
            cores: 2,
            all: Some((100 * seconds, 200 * seconds)),
        })
    }

    #[test]
    fn only_the_time_in_which_messages_came_counts() {
        let began = Instant::now();
        let mut meter = LoadMeter::of(vec![(1, "leader".into()), (2, "crowd".into())]);
        meter.note(5, || reading(began, 0, 0)); // of an earlier time
        meter.note(5, || reading(began, 10, 1));
        assert!(meter.load().is_none());
        meter.note(6, || reading(began, 11, 2));
        assert_eq!(meter.load().map(|load| load.own), Some(0.5), "there was only one such look");
        meter.note(9, || reading(began, 14, 4));
        meter.note(9, || reading(began, 99, 4));
        let load = meter.load().unwrap();
        assert_eq!(load.own, 1.0 / 3.0);
        assert_eq!((&*load.busiest.name, load.busiest.share), ("crowd", 2.0 / 3.0));
        assert_eq!(load.cores_busy, Some(0.5));
    }

    #[test]
    fn the_system_says_what_processes_and_processors_do() {
        let own = std::process::id();
        let reading = Reading::now(&[(own, "this".into())]).unwrap();
        assert!(reading.used.len() == 1 && reading.cores > 0, "{reading:?}");
        assert!(reading.all.is_some_and(|(busy, all)| 0 < busy && busy <= all), "{reading:?}");
        assert!(cpu_time_of(u32::MAX).is_none() && memory_of(u32::MAX).is_none());
        assert!(memory_of(own).is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn cores_are_told_apart() {
        assert_eq!(core_list("\t0-2,7\n"), Some(vec![0, 1, 2, 7]));
        assert_eq!(core_list("all"), None);
        let stat = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 2 3 100 50 4 5 6 7 8\ncpu1 9 9 9 9 9 9 9 9 9 9\nintr 5";
        assert_eq!(spent(stat, &[0]), (21, 171));
        assert_eq!(busy_share((10, 100), (60, 200)), Some(0.5));
        assert_eq!(busy_share((10, 100), (10, 100)), None);
    }

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("nonsense"), None);
        assert!(ephemeral_ports() > 0);
    }
}
