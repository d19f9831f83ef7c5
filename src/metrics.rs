//! What the hall tells about itself: every metric, its name, its handle and its help in one place.
//!
//! A macro of the `metrics` crate hashes and locks at each call, so handles are made once, and a fan-out is counted once.

use std::sync::LazyLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Unit};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::encoding::{Encoding, Record};
use crate::protocol::{CloseReason, ErrorCode};

/// Bounds in seconds; publishing and delivery share them.
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

/// See DESIGN's list; `describe` has the words.
pub struct Metrics {
    pub connections: ByDoor<Gauge>,
    pub connections_opened: ByDoor<Counter>,
    pub rooms: Gauge,
    pub log_bytes: Gauge,
    pub messages_published: Counter,
    pub messages_received: Counter,
    deliveries: ByDoor<Counter>,
    writes: ByDoor<Counter>,
    pub sent_bytes: Counter,
    pub received_bytes: Counter,
    pub publish_seconds: Histogram,
    pub delivery_seconds: Histogram,
    pub resumes_window: Counter,
    pub resumes_broker: Counter,
    pub resumes_lost: Counter,
    pub gaps_repaired: Counter,
    pub messages_lost: Counter,
    pub slow_readers: Gauge,
    pub draining: Gauge,
    errors: [Counter; ErrorCode::ALL.len()],
}

impl Metrics {
    fn new() -> Self {
        describe();
        Metrics {
            connections: ByDoor::new(|door| metrics::gauge!("townhall_connections", "door" => door)),
            connections_opened: ByDoor::new(
                |door| metrics::counter!("townhall_connections_opened_total", "door" => door),
            ),
            rooms: metrics::gauge!("townhall_rooms"),
            log_bytes: metrics::gauge!("townhall_log_bytes"),
            messages_published: metrics::counter!("townhall_messages_published_total"),
            messages_received: metrics::counter!("townhall_messages_received_total"),
            deliveries: ByDoor::new(|door| metrics::counter!("townhall_deliveries_total", "door" => door)),
            writes: ByDoor::new(|door| metrics::counter!("townhall_writes_total", "door" => door)),
            sent_bytes: metrics::counter!("townhall_sent_bytes_total"),
            received_bytes: metrics::counter!("townhall_received_bytes_total"),
            publish_seconds: metrics::histogram!("townhall_publish_seconds"),
            delivery_seconds: metrics::histogram!("townhall_delivery_seconds"),
            resumes_window: metrics::counter!("townhall_resumes_total", "source" => "window"),
            resumes_broker: metrics::counter!("townhall_resumes_total", "source" => "broker"),
            resumes_lost: metrics::counter!("townhall_resumes_total", "source" => "lost"),
            gaps_repaired: metrics::counter!("townhall_gaps_repaired_total"),
            messages_lost: metrics::counter!("townhall_messages_lost_total"),
            slow_readers: metrics::gauge!("townhall_slow_readers"),
            draining: metrics::gauge!("townhall_draining"),
            errors: ErrorCode::ALL.map(|code| metrics::counter!("townhall_errors_total", "code" => code.as_str())),
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
        let (door, reason) = (encoding.door(), reason.label());
        metrics::counter!("townhall_connections_closed_total", "door" => door, "reason" => reason).increment(1);
    }

    /// Somebody was not let in.
    pub fn refused(&self, reason: &'static str) {
        metrics::counter!("townhall_handshakes_refused_total", "reason" => reason).increment(1);
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
    metrics_process::Collector::default().describe();
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
    metrics_process::Collector::default().collect();
    handle.run_upkeep();
    handle.render()
}

fn describe() {
    use metrics::{describe_counter as counter, describe_gauge as gauge, describe_histogram as histogram};
    gauge!("townhall_build_info", "1, with the version as a label");
    gauge!("townhall_connections", "Clients that are connected");
    counter!("townhall_connections_opened_total", "Clients that came in");
    counter!("townhall_connections_closed_total", "Clients that left, and why");
    counter!("townhall_handshakes_refused_total", "Clients that were not let in, and why");
    gauge!("townhall_rooms", "Rooms open on this node");
    gauge!("townhall_log_bytes", Unit::Bytes, "Memory of all rooms' windows");
    counter!("townhall_messages_published_total", "Messages accepted from this node's clients");
    counter!("townhall_messages_received_total", "Messages that the subscription delivered");
    counter!("townhall_deliveries_total", "Messages handed to sockets");
    counter!(
        "townhall_writes_total",
        "Writes that handed messages to sockets; deliveries / writes are the messages a write"
    );
    counter!("townhall_sent_bytes_total", Unit::Bytes, "Bytes handed to sockets");
    counter!("townhall_received_bytes_total", Unit::Bytes, "Bytes read from sockets");
    histogram!("townhall_publish_seconds", Unit::Seconds, "From say to accepted");
    histogram!("townhall_delivery_seconds", Unit::Seconds, "From the broker's clock to the sockets");
    counter!("townhall_resumes_total", "Clients that resumed, and where from");
    counter!("townhall_gaps_repaired_total", "Messages that the subscription lost and history had");
    counter!("townhall_messages_lost_total", "Messages that nobody has any more");
    gauge!("townhall_broker_up", "1 while commands and the subscription work and messages are stored");
    gauge!("townhall_broker_trouble", "Servers of the broker with which something is wrong, by what");
    counter!("townhall_broker_reconnects_total", "New connections to the broker after the first");
    gauge!("townhall_slow_readers", "Clients whose socket takes no more at the moment");
    counter!("townhall_errors_total", "Refused commands by code");
    gauge!("townhall_draining", "1 while this node is leaving");
}
