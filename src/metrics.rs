//! What the hall tells about itself: the handles of all metrics. [`list`] says what each of them is, [`process`] has those of
//! the process.
//!
//! A macro of the `metrics` crate hashes and locks at each call, so handles are made once, and a fan-out is counted once. All
//! series of a label that has a closed set of values are there from the start, so that the first event is seen as a change.

pub mod list;
mod process;

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use self::list::{Kind, Metric};
use crate::encoding::{Encoding, Record};
use crate::protocol::{CloseReason, ErrorCode, NotIn};

/// Bounds in seconds, of all histograms.
const SECONDS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

const UPKEEP: Duration = Duration::from_secs(1);

/// The handles. Install the recorder first: handles made before count nothing.
pub static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);

/// By kind of door.
pub struct ByDoor<T>([T; Encoding::COUNT]);

impl<T> ByDoor<T> {
    fn new(make: impl Fn(&'static str) -> T) -> Self {
        ByDoor(Encoding::ALL.map(|encoding| make(encoding.door())))
    }

    pub fn at(&self, encoding: Encoding) -> &T {
        &self.0[encoding as usize]
    }
}

/// Messages that were handed to sockets, counted together.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    pub writes: u64,
    pub records: u64,
    pub bytes: u64,
}

impl Sent {
    pub fn add(&mut self, other: Sent) {
        self.writes += other.writes;
        self.records += other.records;
        self.bytes += other.bytes;
    }
}

/// What each of them is, [`list::ALL`] says.
pub struct Metrics {
    pub draining: Gauge,
    pub connections: ByDoor<Gauge>,
    pub connections_max: Gauge,
    pub connections_opened: ByDoor<Counter>,
    connections_closed: ByDoor<[Counter; CloseReason::LABELS.len()]>,
    handshakes_refused: [Counter; NotIn::ALL.len()],
    pub accepts_failed: Counter,
    pub slow_readers: Gauge,
    pub messages_published: Counter,
    pub messages_received: Counter,
    deliveries: ByDoor<Counter>,
    writes: ByDoor<Counter>,
    pub sent_bytes: Counter,
    pub received_bytes: Counter,
    pub publish_seconds: Histogram,
    pub delivery_seconds: Histogram,
    errors: [Counter; ErrorCode::ALL.len()],
    pub resumes_window: Counter,
    pub resumes_broker: Counter,
    pub resumes_lost: Counter,
    pub broker_up: Gauge,
    pub broker_reconnects: Counter,
    pub broker_waiting: Gauge,
    pub broker_round_seconds: Histogram,
    pub broker_probe_seconds: Histogram,
    pub history_reads: Counter,
    pub feed_gaps: Counter,
    pub gaps_repaired: Counter,
    pub messages_lost: Counter,
    pub rooms: Gauge,
    pub members: Gauge,
    pub presence_changes: Counter,
    pub log_bytes: Gauge,
    pub log_budget_bytes: Gauge,
    pub history_bytes: Gauge,
}

impl Metrics {
    fn new() -> Self {
        use metrics::{counter, gauge, histogram};
        describe();
        Metrics {
            draining: gauge!("townhall_draining"),
            connections: ByDoor::new(|door| gauge!("townhall_connections", "door" => door)),
            connections_max: gauge!("townhall_connections_max"),
            connections_opened: ByDoor::new(|door| counter!("townhall_connections_opened_total", "door" => door)),
            connections_closed: ByDoor::new(|door| {
                CloseReason::LABELS
                    .map(|reason| counter!("townhall_connections_closed_total", "door" => door, "reason" => reason))
            }),
            handshakes_refused: NotIn::ALL
                .map(|why| counter!("townhall_handshakes_refused_total", "reason" => why.label())),
            accepts_failed: counter!("townhall_accepts_failed_total"),
            slow_readers: gauge!("townhall_slow_readers"),
            messages_published: counter!("townhall_messages_published_total"),
            messages_received: counter!("townhall_messages_received_total"),
            deliveries: ByDoor::new(|door| counter!("townhall_deliveries_total", "door" => door)),
            writes: ByDoor::new(|door| counter!("townhall_writes_total", "door" => door)),
            sent_bytes: counter!("townhall_sent_bytes_total"),
            received_bytes: counter!("townhall_received_bytes_total"),
            publish_seconds: histogram!("townhall_publish_seconds"),
            delivery_seconds: histogram!("townhall_delivery_seconds"),
            errors: ErrorCode::ALL.map(|code| counter!("townhall_errors_total", "code" => code.as_str())),
            resumes_window: counter!("townhall_resumes_total", "source" => "window"),
            resumes_broker: counter!("townhall_resumes_total", "source" => "broker"),
            resumes_lost: counter!("townhall_resumes_total", "source" => "lost"),
            broker_up: gauge!("townhall_broker_up"),
            broker_reconnects: counter!("townhall_broker_reconnects_total"),
            broker_waiting: gauge!("townhall_broker_waiting"),
            broker_round_seconds: histogram!("townhall_broker_round_seconds"),
            broker_probe_seconds: histogram!("townhall_broker_probe_seconds"),
            history_reads: counter!("townhall_history_reads_total"),
            feed_gaps: counter!("townhall_feed_gaps_total"),
            gaps_repaired: counter!("townhall_gaps_repaired_total"),
            messages_lost: counter!("townhall_messages_lost_total"),
            rooms: gauge!("townhall_rooms"),
            members: gauge!("townhall_members"),
            presence_changes: counter!("townhall_presence_changes_total"),
            log_bytes: gauge!("townhall_log_bytes"),
            log_budget_bytes: gauge!("townhall_log_budget_bytes"),
            history_bytes: gauge!("townhall_history_bytes"),
        }
    }

    pub fn error(&self, code: ErrorCode) {
        self.errors[code as usize].increment(1);
    }

    /// Messages went out at a door; bytes are counted where all of them are.
    pub fn sent(&self, encoding: Encoding, sent: Sent) {
        self.deliveries.at(encoding).increment(sent.records);
        self.writes.at(encoding).increment(sent.writes);
    }

    /// A client is gone.
    pub fn closed(&self, encoding: Encoding, reason: CloseReason) {
        self.connections.at(encoding).decrement(1.0);
        self.connections_closed.at(encoding)[reason.number()].increment(1);
    }

    /// Somebody was not let in.
    pub fn refused(&self, why: NotIn) {
        self.handshakes_refused[why as usize].increment(1);
    }

    /// Records that came from history and not from the subscription.
    pub fn repaired(&self, records: &[Record]) {
        for record in records {
            match record {
                Record::Event { .. } => self.gaps_repaired.increment(1),
                Record::Gap { from, to } => self.messages_lost.increment(to - from + 1),
            }
        }
    }
}

/// Installs the recorder of this process.
///
/// # Errors
/// When there is one already.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let handle = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
        .install_recorder()?;
    metrics::gauge!("townhall_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    LazyLock::force(&METRICS);
    Ok(handle)
}

/// Folds what was measured into its buckets from time to time: whether or not anybody reads the page, samples must not
/// pile up.
pub async fn keep_up(handle: PrometheusHandle) {
    let mut clock = tokio::time::interval(UPKEEP);
    loop {
        clock.tick().await;
        handle.run_upkeep();
    }
}

/// The page that Prometheus reads.
pub fn render(handle: &PrometheusHandle) -> String {
    let mut page = handle.render();
    process::write(&mut page);
    page
}

/// Gives every metric of the list its words; those of the process bring theirs along.
fn describe() {
    let listed = list::ALL.iter().filter(|metric| !metric.name.starts_with("process_"));
    for &Metric { name, kind, unit, help, .. } in listed {
        let unit = unit.unwrap_or(metrics::Unit::Count);
        match kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram => metrics::describe_histogram!(name, unit, help),
        }
    }
}
