//! What this machine allows and what we take of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;

/// Files besides the clients' sockets: pollers, pipes, the terminal.
const OTHER_FILES: u64 = 64;

/// More clients than that on one loopback address come too near to the number of its ports.
const CLIENTS_PER_SOURCE: usize = 20_000;

/// The addresses that clients come from; empty: whatever the system chooses.
pub type Sources = Vec<IpAddr>;

/// Raises `nofile` to the hard limit, and refuses what it does not hold.
pub fn make_room_for(connections: usize) -> anyhow::Result<()> {
    let allowed = rlimit::increase_nofile_limit(u64::MAX).context("cannot raise nofile")?;
    let holds = allowed.saturating_sub(OTHER_FILES);
    ensure!(
        connections as u64 <= holds,
        "{connections} clients: this process may open {allowed} files (nofile's hard limit), which holds {holds}"
    );
    Ok(())
}

/// Where to connect from, or why there are not ports enough. `targets`: the addresses that are connected to.
pub fn sources(connections: usize, targets: &[IpAddr], ports: usize) -> anyhow::Result<Sources> {
    let all_loopback = targets.iter().all(|target| match target {
        IpAddr::V4(address) => address.is_loopback(),
        IpAddr::V6(_) => false,
    });
    if all_loopback && connections > CLIENTS_PER_SOURCE {
        let count = connections.div_ceil(CLIENTS_PER_SOURCE.min(ports));
        ensure!(count <= 250, "{connections} clients: more than 127.0.0.1 to 127.0.0.250 have ports for");
        return Ok((1..=count as u8).map(loopback).collect());
    }
    let each = connections.div_ceil(targets.len().max(1));
    if each > ports {
        bail!(
            "{connections} clients: {each} to one address, and there are {ports} local ports for it (net.ipv4.ip_local_port_range)"
        );
    }
    Ok(Vec::new())
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

/// What this process took of its processors while messages came.
#[derive(Debug)]
pub struct Load {
    /// Of all processors that it may use, 0 to 1.
    pub own: f64,
    pub busiest: Thread,
    /// What anything at all took of the same processors; `None` where the system does not say.
    pub cores_busy: Option<f64>,
}

/// A thread of this process.
#[derive(Debug, Serialize)]
pub struct Thread {
    pub name: String,
    /// Of one processor, 0 to 1.
    pub share: f64,
}

/// Measures from the last look before deliveries began to the last one that saw more of them: a generator that has nothing
/// to do before and after is not therefore at leisure.
#[derive(Debug, Default)]
pub struct LoadMeter {
    deliveries: u64,
    from: Option<Reading>,
    to: Option<Reading>,
}

impl LoadMeter {
    /// To be called now and then, with how many deliveries there were so far.
    pub fn look(&mut self, deliveries: u64) {
        self.note(deliveries, Reading::now);
    }

    fn note(&mut self, deliveries: u64, read: impl FnOnce() -> Option<Reading>) {
        let more = deliveries > self.deliveries && self.from.is_some();
        self.deliveries = deliveries;
        if more {
            self.to = read();
        } else if self.to.is_none() {
            self.from = read();
        }
    }

    /// `None`: nothing was delivered, or the system does not say.
    pub fn load(&self) -> Option<Load> {
        let (from, to) = (self.from.as_ref()?, self.to.as_ref()?);
        let seconds = (to.at - from.at).as_secs_f64();
        let busiest = to.threads.iter().map(|(id, (name, used))| {
            let before = from.threads.get(id).map_or(Duration::ZERO, |(_, used)| *used);
            Thread { name: name.clone(), share: (*used - before).as_secs_f64() / seconds }
        });
        Some(Load {
            own: (to.own - from.own).as_secs_f64() / seconds / to.cores as f64,
            busiest: busiest.max_by(|a, b| a.share.total_cmp(&b.share))?,
            cores_busy: busy_share(from.all?, to.all?),
        })
    }
}

/// Processor times at some moment.
#[derive(Debug)]
struct Reading {
    at: Instant,
    own: Duration,
    /// By the system's number for it.
    threads: BTreeMap<OsString, (String, Duration)>,
    /// How many processors this process may use.
    cores: usize,
    /// What these processors spent, in ticks: busy, and in all.
    all: Option<(u64, u64)>,
}

impl Reading {
    fn now() -> Option<Self> {
        let cores = allowed_cores()?;
        Some(Reading {
            at: Instant::now(),
            own: cpu_time_of(std::process::id())?,
            threads: threads(),
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

fn threads() -> BTreeMap<OsString, (String, Duration)> {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let thread = |task: fs::DirEntry| {
        let name = fs::read_to_string(task.path().join("comm")).ok()?;
        let used = cpu_time(&fs::read_to_string(task.path().join("stat")).ok()?)?;
        Some((task.file_name(), (name.trim().to_owned(), used)))
    };
    tasks.filter_map(thread).collect()
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
        assert_eq!(sources(20_000, &targets, 28_232).unwrap(), Sources::new());
        let two = sources(20_001, &targets, 28_232).unwrap();
        assert_eq!(two, addresses(&["127.0.0.1", "127.0.0.2"]));
        assert!(sources(9_000_000, &targets, 28_232).is_err());
    }

    #[test]
    fn more_than_the_ports_of_one_address_is_refused() {
        let far = addresses(&["10.0.0.1"]);
        let refusal = sources(30_000, &far, 28_232).unwrap_err().to_string();
        assert!(refusal.contains("28232 local ports"), "{refusal}");
        assert!(sources(30_000, &addresses(&["10.0.0.1", "10.0.0.2"]), 28_232).is_ok());
    }

    #[test]
    fn more_than_nofile_holds_is_refused() {
        assert!(make_room_for(10).is_ok());
        let refusal = make_room_for(usize::MAX).unwrap_err().to_string();
        assert!(refusal.contains("nofile"), "{refusal}");
    }

    /// After so many seconds, of which the crowd's thread worked so many, on two processors that others kept half busy.
    fn reading(began: Instant, seconds: u64, worked: u64) -> Option<Reading> {
        let worked = Duration::from_secs(worked);
        let threads = [("1", "main", Duration::ZERO), ("2", "crowd", worked)];
        Some(Reading {
            at: began + Duration::from_secs(seconds),
            own: worked,
            threads: threads.into_iter().map(|(id, name, used)| (id.into(), (name.to_owned(), used))).collect(),
            cores: 2,
            all: Some((100 * seconds, 200 * seconds)),
        })
    }

    #[test]
    fn only_the_time_in_which_messages_came_counts() {
        let began = Instant::now();
        let mut meter = LoadMeter::default();
        meter.note(5, || reading(began, 0, 0)); // of an earlier time
        meter.note(5, || reading(began, 10, 1));
        assert!(meter.load().is_none());
        meter.note(6, || reading(began, 11, 2));
        meter.note(9, || reading(began, 14, 4));
        meter.note(9, || reading(began, 99, 4));
        let load = meter.load().unwrap();
        assert_eq!(load.own, 0.375);
        assert_eq!((&*load.busiest.name, load.busiest.share), ("crowd", 0.75));
        assert_eq!(load.cores_busy, Some(0.5));
    }

    #[test]
    fn the_system_says_what_threads_and_processors_do() {
        let reading = Reading::now().unwrap();
        assert!(reading.threads.len() > 1 && reading.cores > 0, "{reading:?}");
        assert!(reading.all.is_some_and(|(busy, all)| 0 < busy && busy <= all), "{reading:?}");
        assert!(cpu_time_of(u32::MAX).is_none());
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
