//! What this process takes, under the names that every Prometheus client has for it, read from `/proc` at each scrape.
//!
//! Written as text, since a counter of the `metrics` crate holds whole numbers, and a node may take minutes for a second of
//! processor time. Since Linux 6.2 the size of the directory of open files is their number; ten thousand take long to list.

use std::fmt::Write as _;
use std::fs;
use std::sync::LazyLock;

use rustix::param::{clock_ticks_per_second, page_size};
use rustix::process::{Resource, getrlimit};

use super::list;

/// When the process began, as Unix time.
static STARTED: LazyLock<Option<f64>> = LazyLock::new(|| {
    let kernel = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = kernel.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + seconds(Stat::read()?.started))
});

/// What is used of `/proc/self/stat`.
struct Stat {
    /// In ticks; `started`: since the machine did.
    busy: u64,
    started: u64,
    threads: u64,
    mapped_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        let line = fs::read_to_string("/proc/self/stat").ok()?;
        // The name of the process, in brackets, may hold anything; the third field follows it.
        let (_, fields) = line.rsplit_once(") ")?;
        let fields: Vec<&str> = fields.split(' ').collect();
        let field = |number: usize| fields.get(number - 3)?.trim().parse::<u64>().ok();
        Some(Stat {
            busy: field(14)? + field(15)?,
            threads: field(20)?,
            started: field(22)?,
            mapped_bytes: field(23)?,
            resident_pages: field(24)?,
        })
    }
}

fn seconds(ticks: u64) -> f64 {
    ticks as f64 / clock_ticks_per_second() as f64
}

fn open_files() -> Option<u64> {
    const FILES: &str = "/proc/self/fd";
    match fs::metadata(FILES).ok()?.len() {
        0 => Some(fs::read_dir(FILES).ok()?.count() as u64), // before Linux 6.2
        files => Some(files),
    }
}

/// Appends what is known; nothing where there is no `/proc`.
pub fn write(page: &mut String) {
    let stat = Stat::read();
    let stat = stat.as_ref();
    for (name, value) in [
        ("process_cpu_seconds_total", stat.map(|stat| seconds(stat.busy))),
        ("process_resident_memory_bytes", stat.map(|stat| (stat.resident_pages * page_size() as u64) as f64)),
        ("process_virtual_memory_bytes", stat.map(|stat| stat.mapped_bytes as f64)),
        ("process_open_fds", open_files().map(|files| files as f64)),
        ("process_max_fds", getrlimit(Resource::Nofile).current.map(|files| files as f64)),
        ("process_threads", stat.map(|stat| stat.threads as f64)),
        ("process_start_time_seconds", *STARTED),
    ] {
        let (Some(metric), Some(value)) = (list::ALL.iter().find(|metric| metric.name == name), value) else {
            continue;
        };
        let (help, kind) = (metric.help, metric.kind.as_str());
        let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_memory_are_those_of_this_process() {
        let counted = || fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        // Other tests of this process open and close files meanwhile.
        let agree = (0..1000).any(|_| open_files().is_some_and(|files| files.abs_diff(counted()) <= 1));
        assert!(agree, "{:?} and {}", open_files(), counted());

        let status = fs::read_to_string("/proc/self/status").unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let resident_kib: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let ours_kib = Stat::read().unwrap().resident_pages * page_size() as u64 / 1024;
        assert!(ours_kib.abs_diff(resident_kib) < resident_kib / 4 + 8192, "{ours_kib} and {resident_kib} KiB");
    }

    #[test]
    fn the_process_began_a_moment_ago() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let age = now - STARTED.unwrap();
        assert!((-2.0..3600.0).contains(&age), "{age} s");
    }

    #[test]
    fn every_figure_is_one_of_the_list() {
        let mut page = String::new();
        write(&mut page);
        let listed = list::ALL.iter().filter(|metric| metric.name.starts_with("process_"));
        for metric in listed {
            assert!(page.contains(&format!("\n{} ", metric.name)), "{} is not written", metric.name);
        }
    }
}
