//! Every metric there is. What `/metrics` says of each, the README's table and the test that holds `/metrics` against it are
//! made of this list.
//!
//! No label is anything that users choose: neither rooms nor names.

use std::fmt::Write as _;

use metrics::Unit;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As Prometheus writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    /// `None`: it is a number of things, which the help names.
    pub unit: Option<Unit>,
    pub help: &'static str,
}

const NONE: &[&str] = &[];
const DOOR: &[&str] = &["door"];
const REASON: &[&str] = &["reason"];

pub const ALL: &[Metric] = &[
    gauge("townhall_build_info", &["version"], "1, with the version as a label"),
    gauge("townhall_draining", NONE, "1 while this node is leaving"),
    gauge("townhall_connections", DOOR, "Clients that are connected; door: json, plain or tcp; /echo is not counted"),
    gauge("townhall_connections_max", NONE, "Connections that there may be at the same time (--max-connections)"),
    counter("townhall_connections_opened_total", DOOR, "Clients that came in"),
    counter("townhall_connections_closed_total", &["door", "reason"], "Clients that left, and why"),
    counter("townhall_handshakes_refused_total", REASON, "Clients that were not let in, and why"),
    counter(
        "townhall_accepts_failed_total",
        NONE,
        "Times that no connection could be accepted, as when no file is left",
    ),
    gauge("townhall_slow_readers", NONE, "Clients whose socket takes no more at the moment"),
    counter("townhall_messages_published_total", NONE, "Messages accepted from this node's clients"),
    counter("townhall_messages_received_total", NONE, "Messages that the subscription delivered"),
    counter("townhall_deliveries_total", DOOR, "Messages handed to sockets"),
    counter(
        "townhall_writes_total",
        DOOR,
        "Writes that handed messages to sockets; deliveries / writes are the messages a write",
    ),
    counter("townhall_sent_bytes_total", NONE, "Handed to sockets").of(Unit::Bytes),
    counter("townhall_received_bytes_total", NONE, "Read from sockets").of(Unit::Bytes),
    histogram("townhall_publish_seconds", "From say to accepted"),
    histogram(
        "townhall_delivery_seconds",
        "From the broker's clock to the sockets: the newest message of each pass over a room",
    ),
    counter("townhall_errors_total", &["code"], "Refused commands by code"),
    counter("townhall_resumes_total", &["source"], "Rooms that clients resumed; source: window, broker or lost"),
    gauge("townhall_broker_up", NONE, "1 while commands and the subscription work and messages are stored"),
    gauge(
        "townhall_broker_trouble",
        REASON,
        "Servers of the broker with which something is wrong, by what; with --redis",
    ),
    counter("townhall_broker_reconnects_total", NONE, "New connections to the broker after the first"),
    gauge("townhall_broker_waiting", NONE, "Messages that wait for Redis to store them"),
    histogram("townhall_broker_round_seconds", "From sending messages to Redis, many at once, to its answer"),
    histogram("townhall_broker_probe_seconds", "From a probe to its echo in the subscription; one server every 5 s"),
    counter("townhall_history_reads_total", NONE, "Reads of rooms' history from the broker"),
    counter(
        "townhall_feed_gaps_total",
        NONE,
        "Times that messages may not have been heard, so that all rooms are compared",
    ),
    counter("townhall_gaps_repaired_total", NONE, "Messages that the subscription lost and history had"),
    counter("townhall_messages_lost_total", NONE, "Messages that nobody has any more"),
    gauge("townhall_rooms", NONE, "Rooms open on this node"),
    gauge("townhall_members", NONE, "Users in this node's rooms, once a room; a grace counts as being there"),
    counter("townhall_presence_changes_total", NONE, "Times that a room's clients were told who came and who went"),
    gauge("townhall_log_bytes", NONE, "Memory of all rooms' windows").of(Unit::Bytes),
    gauge("townhall_log_budget_bytes", NONE, "What that may be (--window-budget)").of(Unit::Bytes),
    gauge("townhall_history_bytes", NONE, "Memory of history without --redis (--history-budget)").of(Unit::Bytes),
    counter("process_cpu_seconds_total", NONE, "Processor time of the process").of(Unit::Seconds),
    gauge("process_resident_memory_bytes", NONE, "Memory that is in use").of(Unit::Bytes),
    gauge("process_virtual_memory_bytes", NONE, "Memory that is mapped").of(Unit::Bytes),
    gauge("process_open_fds", NONE, "Open files, sockets included"),
    gauge("process_max_fds", NONE, "Files that may be open (nofile)"),
    gauge("process_threads", NONE, "Threads"),
    gauge("process_start_time_seconds", NONE, "When the process began, as Unix time").of(Unit::Seconds),
];

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Counter, labels, unit: None, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, labels, unit: None, help }
}

const fn histogram(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, labels: NONE, unit: Some(Unit::Seconds), help }
}

impl Metric {
    const fn of(self, unit: Unit) -> Metric {
        Metric { unit: Some(unit), ..self }
    }
}

/// The README's table.
pub fn table() -> String {
    let mut table = String::from("| metric | kind | labels | unit | |\n|---|---|---|---|---|\n");
    for Metric { name, kind, labels, unit, help } in ALL {
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let (labels, kind, unit) = (labels.join(", "), kind.as_str(), unit.map_or("", |unit| unit.as_str()));
        let _ = writeln!(table, "| `{name}` | {kind} | {labels} | {unit} | {help} |");
    }
    table
}
