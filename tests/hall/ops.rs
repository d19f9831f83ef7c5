//! What the operations listener says: whether the node lives, whether it should get clients, and what it has done.

use std::collections::{HashMap, HashSet};

use crate::harness::{Json, Line, Node, Plain, RedisServer, wait_until};
use crate::wire::Request;

#[tokio::test]
async fn a_hall_that_is_open_lives_and_is_ready() {
    let node = Node::start(&[]).await;
    for path in ["/healthz", "/readyz"] {
        let answer = node.ops(path).await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}");
        assert!(!answer.body.trim().is_empty(), "{path} says nothing");
    }
    for path in ["/", "/ws", "/client.js"] {
        assert_eq!(node.ops(path).await.expect("an answer").status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_hall_is_not_ready_before_its_broker_was_heard() {
    let mut redis = RedisServer::start();
    redis.kill();
    let node = Node::start_unready(&["--redis", &redis.url()]).await;
    assert_eq!(node.ops("/healthz").await.expect("an answer").status, 200);
    let readiness = node.ops("/readyz").await.expect("an answer");
    assert_eq!(readiness.status, 503);
    assert!(!readiness.body.trim().is_empty(), "it says why");
    assert_eq!(node.metric("townhall_broker_up").await, 0.0);

    for path in ["/ws?name=ada", "/chatroom/ws"] {
        let refusal = Request::handshake(path).send(node.http()).await;
        assert_eq!(refusal.status, 503, "{refusal:?}");
        let seconds = refusal.header("Retry-After").and_then(|value| value.parse().ok());
        assert!(seconds.is_some_and(|seconds: u32| seconds > 0), "{refusal:?}");
        assert!(!refusal.body.trim().is_empty(), "refused without a word");
    }

    redis.restart();
    node.wait_ready().await;
    assert_eq!(node.metric("townhall_broker_up").await, 1.0);
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "at last").await;
}

#[tokio::test]
async fn a_hall_whose_broker_went_away_stays_ready_and_says_so() {
    let mut redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    let well = node.ops("/readyz").await.expect("an answer").body;
    redis.kill();
    wait_until("the node notices", async || node.metric("townhall_broker_up").await == 0.0).await;
    let readiness = node.ops("/readyz").await.expect("an answer");
    assert_eq!(readiness.status, 200, "{readiness:?}");
    assert_ne!(readiness.body, well, "it says that the broker is away");

    redis.restart();
    wait_until("the broker is heard again", async || node.metric("townhall_broker_up").await == 1.0).await;
    assert!(node.metric("townhall_broker_reconnects_total").await >= 1.0);
    wait_until("it says so", async || node.ops("/readyz").await.expect("an answer").body == well).await;
}

/// Every metric that there is by now.
const COUNTERS: [&str; 14] = [
    "townhall_connections_opened_total",
    "townhall_connections_closed_total",
    "townhall_handshakes_refused_total",
    "townhall_messages_published_total",
    "townhall_messages_received_total",
    "townhall_deliveries_total",
    "townhall_sent_bytes_total",
    "townhall_received_bytes_total",
    "townhall_resumes_total",
    "townhall_gaps_repaired_total",
    "townhall_messages_lost_total",
    "townhall_broker_reconnects_total",
    "townhall_errors_total",
    "process_cpu_seconds_total",
];
const GAUGES: [&str; 9] = [
    "townhall_build_info",
    "townhall_connections",
    "townhall_rooms",
    "townhall_log_bytes",
    "townhall_broker_up",
    "townhall_slow_readers",
    "townhall_draining",
    "process_resident_memory_bytes",
    "process_open_fds",
];
const HISTOGRAMS: [&str; 2] = ["townhall_publish_seconds", "townhall_delivery_seconds"];

#[tokio::test]
async fn every_metric_is_there_with_its_kind_and_its_words() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    Request::new("GET", "/ws").send(node.http()).await; // refused
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "counted").await;
    drop(ada);
    wait_until("the close is counted", async || {
        let page = node.ops("/metrics").await.expect("metrics").body;
        page.contains("townhall_connections_closed_total{")
    })
    .await;

    let answer = node.ops("/metrics").await.expect("metrics");
    let kind = answer.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let page = Page::read(&answer.body);
    for (kind, names) in [("counter", &COUNTERS[..]), ("gauge", &GAUGES), ("histogram", &HISTOGRAMS)] {
        for name in names {
            assert_eq!(page.kinds.get(*name).map(String::as_str), Some(kind), "{name}");
            assert!(page.described.contains(*name), "{name} has no HELP");
            assert!(page.families.contains(*name), "{name} has no sample");
        }
    }
    let version = format!("townhall_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(page.samples.get(&version), Some(&1.0));
}

/// A metrics page in Prometheus' text format, every line of it understood.
struct Page {
    kinds: HashMap<String, String>,
    described: HashSet<String>,
    /// Names of metrics that have a sample; a histogram's parts are its own.
    families: HashSet<String>,
    samples: HashMap<String, f64>,
}

impl Page {
    /// Panics at the first line that is not as the format wants it.
    fn read(text: &str) -> Page {
        let mut page = Page {
            kinds: HashMap::new(),
            described: HashSet::new(),
            families: HashSet::new(),
            samples: HashMap::new(),
        };
        assert!(text.ends_with('\n'), "the last line ends");
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some(comment) = line.strip_prefix("# ") {
                page.read_comment(comment);
            } else {
                page.read_sample(line);
            }
        }
        page.check_histograms();
        page
    }

    fn read_comment(&mut self, comment: &str) {
        let mut words = comment.splitn(3, ' ');
        let (keyword, name, rest) = (words.next(), words.next(), words.next());
        let (Some(name), Some(rest)) = (name, rest) else { panic!("half a comment: {comment}") };
        let fresh = match keyword {
            Some("HELP") => self.described.insert(name.into()),
            Some("TYPE") => self.kinds.insert(name.into(), rest.into()).is_none(),
            _ => panic!("neither HELP nor TYPE: {comment}"),
        };
        assert!(fresh, "twice: {comment}");
    }

    fn read_sample(&mut self, line: &str) {
        let (key, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value = value.parse().unwrap_or_else(|error| panic!("{error}: {line}"));
        let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
        assert!(is_name(name), "no name: {line}");
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("open labels: {line}"));
        for label in labels.split_terminator(',') {
            let (label, text) = label.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
            let quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
            assert!(is_name(label) && quoted, "no label: {line}");
        }
        let family = self.family(name);
        let kind = self.kinds.get(&family).unwrap_or_else(|| panic!("no TYPE before: {line}"));
        assert_eq!(kind == "counter", name.ends_with("_total"), "{kind}: {line}");
        assert_ne!(kind, "summary", "cannot be added up over nodes: {line}");
        self.families.insert(family);
        assert!(self.samples.insert(key.into(), value).is_none(), "twice: {line}");
    }

    fn family(&self, sample: &str) -> String {
        let histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|part| sample.strip_suffix(part))
            .find(|name| self.kinds.get(*name).is_some_and(|kind| kind == "histogram"));
        histogram.unwrap_or(sample).into()
    }

    fn check_histograms(&self) {
        for (name, _) in self.kinds.iter().filter(|(_, kind)| *kind == "histogram") {
            let all = self.samples.get(&format!("{name}_bucket{{le=\"+Inf\"}}"));
            let count = self.samples.get(&format!("{name}_count"));
            assert!(all.is_some() && all == count, "{name}: {all:?} and {count:?}");
        }
    }
}

fn is_name(text: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(letters)
}

async fn wait_metric(node: &Node, sample: &str, value: f64) {
    let mut last = f64::NAN;
    wait_until(&format!("{sample} is {value}"), async || {
        last = node.metric(sample).await;
        last == value
    })
    .await;
}

#[tokio::test]
async fn the_counts_are_true() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    let elsewhere = Node::start(&["--redis", &redis.url()]).await;
    let mut json = Json::connect(&node.ws_url(), "?name=ada").await;
    json.join("lobby").await;
    let mut plain = Plain::connect(&node.ws_url(), "?name=bea").await;
    let mut far = Json::connect(&elsewhere.ws_url(), "?name=dora").await;
    far.join("lobby").await;
    // Who hears itself has joined, and is counted from there on.
    plain.say("one").await;
    plain.expect("bea:one").await;
    let mut line = Line::connect(node.tcp_addr()).await;
    line.say("two").await;
    line.expect(&format!("{}:two", line.address)).await;
    json.said("lobby", "three").await;
    line.expect("ada:three").await;
    plain.until("ada:three").await;
    json.hear("lobby", "three").await;
    far.hear("lobby", "three").await;

    for (door, heard) in [("json", 3.0), ("plain", 3.0), ("tcp", 2.0)] {
        wait_metric(&node, &format!("townhall_connections{{door=\"{door}\"}}"), 1.0).await;
        wait_metric(&node, &format!("townhall_connections_opened_total{{door=\"{door}\"}}"), 1.0).await;
        wait_metric(&node, &format!("townhall_deliveries_total{{door=\"{door}\"}}"), heard).await;
    }
    wait_metric(&node, "townhall_rooms", 1.0).await;
    wait_metric(&node, "townhall_messages_published_total", 3.0).await;
    wait_metric(&node, "townhall_messages_received_total", 3.0).await;
    wait_metric(&node, "townhall_publish_seconds_count", 3.0).await;
    assert!(node.metric("townhall_delivery_seconds_count").await >= 3.0);
    assert!(node.metric("townhall_log_bytes").await > 0.0);
    assert!(node.metric("townhall_sent_bytes_total").await > 0.0);
    assert!(node.metric("townhall_received_bytes_total").await > 0.0);
    // The other node has delivered the same messages and published none.
    wait_metric(&elsewhere, "townhall_messages_received_total", 3.0).await;
    wait_metric(&elsewhere, "townhall_deliveries_total{door=\"json\"}", 3.0).await;
    assert_eq!(elsewhere.metric("townhall_messages_published_total").await, 0.0);

    json.expect_silence().await; // by an unknown command
    wait_metric(&node, "townhall_errors_total{code=\"unknown_type\"}", 1.0).await;
    Request::new("GET", "/ws").send(node.http()).await;
    let refused = async || sum(&node, "townhall_handshakes_refused_total{").await;
    wait_until("the refusal is counted", async || refused().await == 1.0).await;

    drop((json, plain, line));
    for door in ["json", "plain", "tcp"] {
        wait_metric(&node, &format!("townhall_connections{{door=\"{door}\"}}"), 0.0).await;
        let closed = format!("townhall_connections_closed_total{{door=\"{door}\"");
        wait_until("the close is counted", async || sum(&node, &closed).await == 1.0).await;
    }
}

/// Samples that begin alike, added up.
async fn sum(node: &Node, beginning: &str) -> f64 {
    let page = node.ops("/metrics").await.expect("metrics").body;
    let samples = page.lines().filter(|line| line.starts_with(beginning));
    let values = samples.filter_map(|line| line.rsplit_once(' ')).map(|(_, value)| value.parse::<f64>());
    values.map(|value| value.expect("a number")).sum()
}

#[tokio::test]
async fn resumes_are_counted_by_where_they_came_from() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let after = ada.said("lobby", "one").await;
    ada.said("lobby", "two").await;
    let mut bea = Json::connect(&node.ws_url(), "?name=bea").await;
    assert_eq!(bea.resume("lobby", &after).await["recovered"], true);
    wait_metric(&node, "townhall_resumes_total{source=\"window\"}", 1.0).await;
    let lost = crate::harness::Position::new("no-such-epoch", 1);
    assert_eq!(bea.resume("lobby", &lost).await["recovered"], false);
    wait_metric(&node, "townhall_resumes_total{source=\"lost\"}", 1.0).await;
}
