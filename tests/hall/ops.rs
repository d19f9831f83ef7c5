//! What the operations listener says: whether the node lives, whether it should get clients, and what it has done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use futures::future::join_all;
use townhall::metrics::list;
use townhall::protocol::{CloseReason, ErrorCode, NotIn};

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

#[tokio::test]
async fn what_is_documented_is_served_and_what_is_served_is_documented() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    with_traffic_at_all_doors(&node).await;

    let answer = node.ops("/metrics").await.expect("metrics");
    let kind = answer.header("Content-Type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{kind}");
    let page = Page::read(&answer.body);
    let served: BTreeMap<&str, &str> = page.kinds.iter().map(|(name, kind)| (name.as_str(), kind.as_str())).collect();
    let documented: BTreeMap<&str, &str> = list::ALL.iter().map(|it| (it.name, it.kind.as_str())).collect();
    assert_eq!(served, documented, "with their kinds: left what is served, right what is documented");
    for metric in list::ALL {
        let name = metric.name;
        assert_eq!(page.help.get(name).map(String::as_str), Some(metric.help), "the HELP of {name}");
        let labels = page.labels.get(name).unwrap_or_else(|| panic!("{name} has no sample"));
        assert_eq!(*labels, BTreeSet::from([metric.labels.join(",")]), "the labels of {name}");
        let unit = metric.unit.map_or("", |unit| unit.as_str());
        assert!(name.trim_end_matches("_total").ends_with(unit), "{name} is in {unit}");
    }
    let version = format!("townhall_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(page.samples.get(&version), Some(&1.0));
    promtool_finds_nothing(&answer.body);
}

/// Somebody speaks at every door, somebody is refused, and somebody has left.
async fn with_traffic_at_all_doors(node: &Node) {
    Request::new("GET", "/ws").send(node.http()).await; // refused
    let mut plain = Plain::connect(&node.ws_url(), "?name=bea").await;
    let mut line = Line::connect(node.tcp_addr()).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    plain.say("plain").await;
    plain.until("bea:plain").await;
    line.say("line").await;
    line.until(&format!("{}:line", line.address)).await;
    ada.said("lobby", "json").await;
    drop(ada);
    let left = "townhall_connections_closed_total{door=\"json\"";
    wait_until("the close is counted", async || sum(node, left).await == 1.0).await;
}

/// `promtool check metrics` reads the page as Prometheus does, and knows what names and units ought to be like.
fn promtool_finds_nothing(page: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the tests need `promtool` (Debian's package prometheus)");
    promtool.stdin.take().expect("piped").write_all(page.as_bytes()).expect("it reads");
    let output = promtool.wait_with_output().expect("promtool ends");
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test]
async fn a_closed_set_of_labels_is_there_from_the_start() {
    let node = Node::start(&[]).await;
    let page = Page::read(&node.ops("/metrics").await.expect("metrics").body);
    let series = |name: &str| page.samples.keys().filter(|key| key.starts_with(&format!("{name}{{"))).count();
    assert_eq!(series("townhall_connections_closed_total"), 3 * CloseReason::LABELS.len());
    assert_eq!(series("townhall_handshakes_refused_total"), NotIn::ALL.len());
    assert_eq!(series("townhall_errors_total"), ErrorCode::ALL.len());
    assert_eq!(page.samples.get("townhall_messages_lost_total"), Some(&0.0));
}

#[tokio::test]
async fn open_files_and_processor_time_are_those_of_the_process() {
    let node = Node::start(&[]).await;
    let lines = join_all((0..20).map(|_| Line::connect(node.tcp_addr()))).await;
    wait_metric(&node, "townhall_connections{door=\"tcp\"}", 20.0).await;
    // Whoever asks for the page has one, too.
    let said = async || node.metric("process_open_fds").await as usize;
    wait_until("the open files are counted", async || said().await == node.files() + 1).await;
    drop(lines);
    // A page costs less than a tick of the kernel's clock, and many cost several.
    wait_until("it has taken a part of a second", async || {
        let cpu = node.metric("process_cpu_seconds_total").await;
        cpu > 0.0 && cpu.fract() != 0.0
    })
    .await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let began = node.metric("process_start_time_seconds").await;
    assert!(began <= now + 2.0 && began > now - 3600.0, "{began} and {now}");
}

#[tokio::test]
async fn what_waits_and_what_is_read_is_counted() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url(), "--max-connections", "50"]).await;
    assert_eq!(node.metric("townhall_connections_max").await, 50.0);
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "one").await;
    wait_metric(&node, "townhall_members", 1.0).await;
    assert!(node.metric("townhall_history_reads_total").await >= 1.0);
    assert!(node.metric("townhall_broker_round_seconds_count").await >= 1.0);
    wait_until("a probe is heard", async || node.metric("townhall_broker_probe_seconds_count").await >= 1.0).await;
    wait_metric(&node, "townhall_broker_waiting", 0.0).await;

    redis.pause();
    ada.say("lobby", "two").await;
    wait_metric(&node, "townhall_broker_waiting", 1.0).await;
    redis.resume();
    wait_metric(&node, "townhall_broker_waiting", 0.0).await;
}

/// A metrics page in Prometheus' text format, every line of it understood.
struct Page {
    kinds: HashMap<String, String>,
    help: HashMap<String, String>,
    /// Of each metric that has a sample, the labels of its samples; a histogram's parts are its own.
    labels: HashMap<String, BTreeSet<String>>,
    samples: HashMap<String, f64>,
}

impl Page {
    /// Panics at the first line that is not as the format wants it.
    fn read(text: &str) -> Page {
        let mut page =
            Page { kinds: HashMap::new(), help: HashMap::new(), labels: HashMap::new(), samples: HashMap::new() };
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
            Some("HELP") => self.help.insert(name.into(), rest.into()).is_none(),
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
        let mut names = Vec::new();
        for label in labels.split_terminator(',') {
            let (label, text) = label.split_once('=').unwrap_or_else(|| panic!("no label: {line}"));
            let quoted = text.len() >= 2 && text.starts_with('"') && text.ends_with('"');
            assert!(is_name(label) && quoted, "no label: {line}");
            names.extend(Some(label).filter(|label| *label != "le"));
        }
        let family = self.family(name);
        let kind = self.kinds.get(&family).unwrap_or_else(|| panic!("no TYPE before: {line}"));
        assert_eq!(kind == "counter", name.ends_with("_total"), "{kind}: {line}");
        assert_ne!(kind, "summary", "cannot be added up over nodes: {line}");
        self.labels.entry(family).or_default().insert(names.join(","));
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
