//! What this machine allows and what we take of it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

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
        "--connections {connections}: this process may open {allowed} files (nofile's hard limit), which holds {holds} connections"
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
        ensure!(count <= 250, "--connections {connections}: more than 127.0.0.1 to 127.0.0.250 have ports for");
        return Ok((1..=count as u8).map(loopback).collect());
    }
    let each = connections.div_ceil(targets.len().max(1));
    if each > ports {
        bail!(
            "--connections {connections}: {each} to one address, and there are {ports} local ports for it (net.ipv4.ip_local_port_range)"
        );
    }
    Ok(Vec::new())
}

fn loopback(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

/// How many local ports the system gives out by itself; Linux' default where it does not say.
pub fn ephemeral_ports() -> usize {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    range
        .ok()
        .and_then(|range| {
            let (low, high) = range.trim().split_once(char::is_whitespace)?;
            let (low, high): (usize, usize) = (low.parse().ok()?, high.trim().parse().ok()?);
            (high >= low).then(|| high - low + 1)
        })
        .unwrap_or(28_232)
}

/// How much of its processors this process takes.
#[derive(Debug)]
pub struct CpuMeter {
    since: Instant,
    used: Option<Duration>,
}

impl CpuMeter {
    pub fn start() -> Self {
        CpuMeter { since: Instant::now(), used: cpu_time() }
    }

    /// The share of `cores` that was used since the start, 0 to 1; `None` where the system does not say.
    pub fn share_of(&self, cores: usize) -> Option<f64> {
        let used = cpu_time()?.saturating_sub(self.used?);
        let available = self.since.elapsed().as_secs_f64() * cores as f64;
        (available > 0.0).then(|| used.as_secs_f64() / available)
    }
}

/// User and system time of all threads so far.
fn cpu_time() -> Option<Duration> {
    ticks(&std::fs::read_to_string("/proc/self/stat").ok()?).map(|ticks| Duration::from_millis(10 * ticks))
}

/// Fields 14 and 15 of `/proc/self/stat`, in hundredths of a second on every Linux. The program's name, the second field,
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

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("nonsense"), None);
        assert!(ephemeral_ports() > 0);
    }
}
