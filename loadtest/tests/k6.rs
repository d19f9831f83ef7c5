//! The scripts in `k6/`, run by the real k6: against halls, which they have to pass, and against what breaks the protocol on
//! purpose, which they have to find out.

mod mock;
mod peer;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use mock::{Faults, Mock};
use peer::Server;
use serde_json::Value;

/// As `k6/setup` installs it.
const K6: &str = "k6-v1.8.1/k6";
/// What k6 ends with when a threshold does not hold, and when a script throws before it begins.
const CROSSED: i32 = 99;
const REFUSED: i32 = 107;

static TARGET: LazyLock<PathBuf> =
    LazyLock::new(|| Path::new(env!("CARGO_BIN_EXE_townhall-load")).ancestors().nth(2).unwrap().to_path_buf());

/// The hall, which is a package of its own.
static HALL: LazyLock<PathBuf> = LazyLock::new(|| {
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "townhall", "--target-dir"]).arg(&*TARGET);
    assert!(build.status().unwrap().success());
    TARGET.join("debug/townhall")
});

fn hall(options: &[&str]) -> Server {
    Server::start(|address| {
        let mut hall = Command::new(&*HALL);
        hall.args(["serve", "--ops", "127.0.0.1:0", "--listen", &address.to_string()]).args(options);
        hall.env_clear().stderr(Stdio::null());
        hall
    })
}

fn url(hall: &Server) -> String {
    format!("ws://{}", hall.address)
}

/// A script under way.
struct Script {
    k6: Child,
    summary: PathBuf,
}

/// What a script ended with.
struct Run {
    code: Option<i32>,
    metrics: Value,
    said: String,
}

impl Script {
    /// `test` names it among those that run at the same time. No test depends on how quick this machine is.
    fn start(test: &str, script: &str, urls: &[String], settings: &[&str]) -> Self {
        let summary = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("k6-{test}.json"));
        let _ = std::fs::remove_file(&summary);
        let mut k6 = Command::new(TARGET.join(K6));
        k6.args(["run", "--quiet", "--no-color", "--no-usage-report", "--address", "127.0.0.1:0", "--summary-export"]);
        k6.arg(&summary).args(["-e", &format!("URL={}", urls.join(",")), "-e", "P99=60000"]);
        k6.args(settings.iter().flat_map(|setting| ["-e", setting]));
        k6.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("k6").join(script));
        let k6 = k6.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        Script { k6: k6.expect("k6 is missing: run loadtest/k6/setup"), summary }
    }

    fn end(self) -> Run {
        let output = self.k6.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
        let summary = std::fs::read(&self.summary).map_or(Value::Null, |json| serde_json::from_slice(&json).unwrap());
        Run { code: output.status.code(), metrics: summary["metrics"].clone(), said }
    }
}

impl Run {
    #[track_caller]
    fn count(&self, metric: &str) -> u64 {
        self.metrics[metric]["count"].as_u64().unwrap_or_else(|| panic!("no {metric}: {}", self.said))
    }

    /// Nothing was wrong, and this is what was said and heard.
    #[track_caller]
    fn passed(&self, accepted: u64, heard: u64) {
        assert_eq!(self.code, Some(0), "{}", self.said);
        assert_eq!((self.count("messages_accepted"), self.count("messages_heard")), (accepted, heard), "{}", self.said);
    }

    /// It failed, and these were counted: lost, doubled, swapped.
    #[track_caller]
    fn failed_with(&self, counts: [u64; 3]) {
        assert_eq!(self.code, Some(CROSSED), "{}", self.said);
        let counted = ["messages_lost", "messages_doubled", "messages_swapped"].map(|metric| self.count(metric));
        assert_eq!(counted, counts, "{}", self.said);
    }
}

/// Forty messages for ten receivers.
const SHORT: [&str; 6] = ["RECEIVERS=10", "SPEAKERS=2", "RATE=40", "SECONDS=1", "GATHER=1", "SETTLE=1"];

/// Against a hall with this fault.
fn faulty(test: &str, faults: Faults) -> Run {
    let mock = Mock::start(1, Faults { whom: Some("k6-3"), ..faults });
    Script::start(test, "fanout.js", &mock.urls, &SHORT).end()
}

#[test]
fn fanout_passes_a_hall() {
    let hall = hall(&[]);
    let settings = ["RECEIVERS=30", "SPEAKERS=4", "RATE=20", "SECONDS=3", "SETTLE=30"];
    let run = Script::start("fanout", "fanout.js", &[url(&hall)], &settings).end();
    run.passed(60, 60 * 30);
    assert_eq!(run.count("connects"), 30);
}

#[test]
fn mixed_passes_two_halls_that_a_redis_joins() {
    let redis = Server::redis();
    let halls = [0, 1].map(|_| hall(&["--redis", &format!("redis://{}", redis.address)]));
    let settings = ["ROOMS=12,5,3", "RATE=5", "SECONDS=4", "STAY=1", "AWAY=0.5", "SETTLE=30"];
    let run = Script::start("mixed", "mixed.js", &halls.each_ref().map(url), &settings).end();
    run.passed(3 * 20, 20 * (12 + 5 + 3));
    for metric in ["resumed", "typing_heard", "members_told"] {
        assert!(run.count(metric) > 0, "no {metric}: {}", run.said);
    }
}

/// Its clients take up at the other one what they missed, and say again what was not accepted.
#[test]
fn mixed_passes_when_a_hall_is_killed() {
    let redis = Server::redis();
    let mut halls = Vec::from([0, 1].map(|_| hall(&["--redis", &format!("redis://{}", redis.address)])));
    let urls: Vec<String> = halls.iter().map(url).collect();
    let settings = ["ROOMS=12,5,3", "RATE=10", "SECONDS=5", "LEAVERS=0", "SETTLE=30"];
    let script = Script::start("killed", "mixed.js", &urls, &settings);
    thread::sleep(Duration::from_millis(4500)); // in the middle of what is said
    halls.pop();
    let run = script.end();
    run.passed(3 * 50, 50 * (12 + 5 + 3));
    assert_eq!(run.count("resumed"), 10, "half of them: {}", run.said);
}

#[test]
fn an_honest_mock_passes() {
    faulty("honest", Faults::default()).passed(40, 400);
}

#[test]
fn what_is_lost_is_counted() {
    faulty("lost", Faults { loses: Some(20), ..Faults::default() }).failed_with([1, 0, 0]);
}

#[test]
fn the_last_one_that_is_lost_is_counted() {
    faulty("lost-last", Faults { loses: Some(40), ..Faults::default() }).failed_with([1, 0, 0]);
}

#[test]
fn what_comes_twice_is_counted() {
    faulty("doubled", Faults { doubles: Some(20), ..Faults::default() }).failed_with([0, 1, 0]);
}

#[test]
fn what_comes_too_late_is_counted() {
    faulty("swapped", Faults { swaps: Some(20), ..Faults::default() }).failed_with([0, 0, 1]);
}

#[test]
fn what_is_never_accepted_fails() {
    let run = faulty("unaccepted", Faults { never_accepts: Some(20), ..Faults::default() });
    run.failed_with([0, 0, 0]);
    assert_eq!(run.count("messages_accepted"), 39);
}

/// That keeps the protocol.
#[test]
fn what_the_hall_says_is_lost_is_told_and_not_lost() {
    let run = faulty("told", Faults { gap: Some(20), ..Faults::default() });
    run.passed(40, 399);
    assert_eq!(run.count("messages_told_lost"), 1);
}

#[test]
fn a_threshold_that_cannot_hold_fails_an_honest_mock() {
    let mock = Mock::start(1, Faults::default());
    let run = Script::start("p99", "fanout.js", &mock.urls, &[&SHORT[..], &["P99=0"]].concat()).end();
    run.failed_with([0, 0, 0]);
}

#[test]
fn where_nobody_answers_it_fails() {
    let run = Script::start("nobody", "fanout.js", &["ws://127.0.0.1:1".into()], &SHORT).end();
    assert_eq!(run.code, Some(CROSSED), "{}", run.said);
}

#[test]
fn nonsense_is_refused_before_anything_begins() {
    for (script, setting) in [
        ("fanout.js", "RECEIVERS=many"),
        ("fanout.js", "SPEAKERS=51"),
        ("fanout.js", "RATE=0"),
        ("fanout.js", "ROOM=No Room"),
        ("fanout.js", "URL=http://127.0.0.1"),
        ("mixed.js", "ROOMS=3,none"),
        ("mixed.js", "SPEAKERS=1.5"),
    ] {
        let run = Script::start("nonsense", script, &["ws://127.0.0.1:1".into()], &[setting]).end();
        assert_eq!(run.code, Some(REFUSED), "{setting}: {}", run.said);
        assert!(run.said.contains(setting), "{setting}: {}", run.said);
    }
}
