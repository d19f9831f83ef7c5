//! The program as it is run, against a hall whose faults are known: each must be found, and nothing else.

mod mock;

use std::process::{Command, Output};

use mock::{Faults, Mock};
use serde_json::Value;

/// What a run ended with.
struct Run {
    code: Option<i32>,
    result: Value,
}

impl Run {
    /// Twenty clients, four of whom say a hundred messages at 500 a second.
    fn of(faults: Faults) -> Self {
        Self::with(faults, &["--messages", "100", "--rate", "500", "--settle", "700ms"])
    }

    fn with(faults: Faults, options: &[&str]) -> Self {
        let mock = Mock::start(2, faults);
        let crowd = ["--connections", "20", "--publishers", "4", "--json", "--quiet"];
        let output = fanout(&[&crowd, options].concat(), &mock.urls);
        let json = String::from_utf8(output.stdout).unwrap();
        Run {
            code: output.status.code(),
            result: serde_json::from_str(&json)
                .unwrap_or_else(|_| panic!("no result: {}", String::from_utf8_lossy(&output.stderr))),
        }
    }

    fn number(&self, field: &str) -> u64 {
        self.result[field].as_u64().unwrap_or_else(|| panic!("no {field}"))
    }

    /// The run failed for exactly these faults.
    #[track_caller]
    fn failed_with(&self, faults: &[(&str, u64)]) {
        assert_eq!(self.code, Some(1), "{}", self.result);
        for field in [
            "lost",
            "doubled",
            "swapped",
            "mismatched",
            "accepted_unseen",
            "unaccepted",
            "accepted_twice_differently",
            "breaches",
        ] {
            let expected = faults.iter().find(|fault| fault.0 == field).map_or(0, |fault| fault.1);
            assert_eq!(self.number(field), expected, "{field} of {}", self.result);
        }
    }

    #[track_caller]
    fn passed(&self) {
        assert_eq!(self.code, Some(0), "{}", self.result);
        assert_eq!(self.result["pass"], true);
        assert_eq!(self.number("connected"), 20);
        assert_eq!(self.number("accepted"), 100);
    }
}

fn fanout(options: &[&str], urls: &[String]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_townhall-load")).arg("fanout").args(options).args(urls).output().unwrap()
}

#[test]
fn a_threshold_that_does_not_hold_fails_an_honest_server() {
    let options = ["--messages", "100", "--rate", "500"];
    let with = |thresholds: &[&str]| {
        let thresholds: Vec<&str> = thresholds.iter().flat_map(|threshold| ["--threshold", threshold]).collect();
        Run::with(Faults::default(), &[&options[..], &thresholds].concat())
    };
    // No times: where others take the processors the run is void, and they cannot be told.
    let well = with(&["deliveries==2000", "lost==0", "accepted>=100"]);
    well.passed();
    let broken = with(&["deliveries<2000", "lost==0"]);
    assert_eq!(broken.code, Some(1), "{}", broken.result);
    assert_eq!(broken.result["reasons"], serde_json::json!(["deliveries<2000 does not hold: it is 2000"]));
}

#[test]
fn a_threshold_that_makes_no_sense_is_refused_before_anything_is_done() {
    for (threshold, why) in [("delivery.p98<1ms", "delivery.p99"), ("delivery.p99<200", "200ms"), ("fast", "lost==0")] {
        let output = fanout(&["--threshold", threshold], &["ws://127.0.0.1:1".into()]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{error}");
        assert!(error.contains(threshold) && error.contains(why), "{error}");
    }
}

#[test]
fn an_honest_server_passes() {
    let run = Run::of(Faults::default());
    run.passed();
    assert_eq!(run.number("deliveries"), 2000);
    assert_eq!(run.number("reconnects"), 0);
    assert_eq!(run.result["delivered_ms"]["count"], 2000);
    assert_eq!(run.result["accepted_ms"]["count"], 100);
}

#[test]
fn as_fast_as_they_are_accepted_passes_too() {
    let run = Run::with(Faults::default(), &["--messages", "100", "--rate", "0", "--window", "3"]);
    run.passed();
}

#[test]
fn a_server_that_loses_is_found_out() {
    let run = Run::of(Faults { loses: Some(40), ..Faults::default() });
    run.failed_with(&[("lost", 1)]);
    assert_eq!(run.result["reasons"][0], "1 lost");
}

#[test]
fn a_server_that_loses_the_last_one_is_found_out() {
    let run = Run::of(Faults { loses: Some(100), ..Faults::default() });
    run.failed_with(&[("lost", 1)]);
}

#[test]
fn a_server_that_accepts_and_delivers_to_nobody_is_found_out() {
    let run = Run::of(Faults { never_delivers: Some(100), ..Faults::default() });
    run.failed_with(&[("lost", 20), ("accepted_unseen", 1)]);
}

#[test]
fn a_server_that_doubles_is_found_out() {
    let run = Run::of(Faults { doubles: Some(100), ..Faults::default() });
    run.failed_with(&[("doubled", 1)]);
}

#[test]
fn a_server_that_swaps_is_found_out() {
    let run = Run::of(Faults { swaps: Some(40), ..Faults::default() });
    run.failed_with(&[("swapped", 1)]);
}

#[test]
fn a_server_that_tells_two_stories_is_found_out() {
    let run = Run::of(Faults { renames: Some(40), ..Faults::default() });
    run.failed_with(&[("mismatched", 1)]);
}

#[test]
fn a_server_that_never_accepts_is_found_out() {
    let run = Run::of(Faults { never_accepts: Some(40), ..Faults::default() });
    run.failed_with(&[("unaccepted", 1)]);
}

#[test]
fn a_server_that_stores_a_repeated_message_twice_is_found_out() {
    let run = Run::of(Faults { doubts: Some(40), forgets_ids: true, ..Faults::default() });
    run.failed_with(&[("doubled", 1), ("accepted_twice_differently", 1)]);
}

#[test]
fn a_message_in_doubt_is_sent_again_and_stored_once() {
    let run = Run::of(Faults { doubts: Some(40), ..Faults::default() });
    run.passed();
    assert_eq!(run.number("deliveries"), 2000);
    assert_eq!(run.number("resent"), 1);
}

#[test]
fn a_server_that_resumes_too_late_is_found_out() {
    let run = Run::of(Faults { cuts_listener: Some(40), resumes_too_late: true, ..Faults::default() });
    run.failed_with(&[("lost", 1)]);
    assert_eq!(run.number("resumes"), 1);
}

#[test]
fn a_server_that_admits_a_loss_is_not_blamed() {
    let run = Run::of(Faults { gap: Some(40), ..Faults::default() });
    run.passed();
    assert_eq!(run.number("told"), 1);
}

#[test]
fn clients_that_are_cut_come_back_and_miss_nothing() {
    let run = Run::of(Faults { cuts_every: Some(30), ..Faults::default() });
    run.passed();
    assert_eq!(run.number("deliveries"), 2000);
    assert!(run.number("resumes") >= 40, "{}", run.result);
}

#[test]
fn clients_that_may_not_come_back_lost_the_rest() {
    let run = Run::with(
        Faults { cuts_every: Some(30), ..Faults::default() },
        &["--messages", "100", "--rate", "500", "--settle", "90s", "--resume", "false"],
    );
    assert!(run.result["seconds"].as_f64().unwrap() < 90.0, "nobody is waited for who will not come back");
    assert_eq!(run.code, Some(1), "{}", run.result);
    assert_eq!((run.number("reconnects"), run.number("away")), (0, 20));
    assert!(run.number("unaccepted") > 0, "{}", run.result);
}

#[test]
fn a_message_whose_acceptance_was_cut_off_is_stored_once() {
    let run = Run::of(Faults { cuts_publisher: Some(40), ..Faults::default() });
    run.passed();
    assert_eq!(run.number("deliveries"), 2000);
}

#[test]
fn a_message_that_was_refused_for_now_is_sent_again() {
    let run = Run::of(Faults { limits: Some(40), ..Faults::default() });
    run.passed();
    assert_eq!(run.result["errors"]["rate_limited"], 1);
    assert_eq!(run.number("resent"), 1);
}

#[test]
fn an_epoch_that_loses_messages_and_says_so_is_not_blamed() {
    let run = Run::of(Faults { forks: Some(40), ..Faults::default() });
    assert_eq!(run.code, Some(0), "{}", run.result);
    assert!(run.number("breaks") > 0, "{}", run.result);
}

#[test]
fn clients_that_are_asked_to_move_do() {
    let run = Run::of(Faults { asks_to_move: Some(40), ..Faults::default() });
    run.passed();
    assert_eq!(run.number("reconnects"), 20);
    assert_eq!(run.result["ends"]["asked to reconnect"], 20);
}

/// Twenty who read, and ten who count: `load-20` to `load-29`.
fn with_listeners(faults: Faults) -> Run {
    let pace = ["--messages", "100", "--rate", "500", "--settle", "700ms"];
    Run::with(faults, &[&["--listeners", "10"], &pace[..]].concat())
}

#[test]
fn listeners_count_what_they_get() {
    let run = with_listeners(Faults::default());
    run.passed();
    assert_eq!((run.number("listeners"), run.number("listeners_in")), (10, 10));
    assert_eq!(run.number("deliveries"), 3000);
    assert_eq!(run.result["delivered_ms"]["count"], 2000);
    assert!(run.number("listeners_bytes") > 100 * 10 * 120, "{}", run.result);
}

#[test]
fn a_server_that_swallows_a_message_to_a_listener_is_found_out() {
    for offset in [1, 40, 100] {
        let run = with_listeners(Faults { whom: Some("load-25"), loses: Some(offset), ..Faults::default() });
        run.failed_with(&[("lost", 1)]);
    }
}

#[test]
fn a_server_that_doubles_to_a_listener_is_found_out() {
    let run = with_listeners(Faults { whom: Some("load-29"), doubles: Some(100), ..Faults::default() });
    run.failed_with(&[("doubled", 1)]);
}

#[test]
fn a_loss_that_a_listener_is_told_of_is_not_blamed() {
    let run = with_listeners(Faults { whom: Some("load-20"), gap: Some(40), ..Faults::default() });
    run.passed();
    assert_eq!(run.number("told"), 1);
}

#[test]
fn listeners_follow_a_new_epoch() {
    let run = with_listeners(Faults { forks: Some(40), ..Faults::default() });
    assert_eq!(run.code, Some(0), "{}", run.result);
    assert!(run.number("breaks") > 20, "{}", run.result);
}

#[test]
fn a_listener_that_is_cut_off_lost_the_rest() {
    let run = with_listeners(Faults { cuts_every: Some(30), ..Faults::default() });
    run.failed_with(&[("lost", 10 * 70)]);
    assert_eq!(run.number("listeners_in"), 10);
}

#[test]
fn several_messages_in_a_frame_are_a_breach_unless_that_was_said() {
    let pairs = Faults { pairs: true, ..Faults::default() };
    let pace = ["--messages", "100", "--rate", "500", "--settle", "700ms", "--listeners", "10"];
    let run = Run::with(pairs.clone(), &[&pace[..], &["--lines"]].concat());
    run.passed();
    assert_eq!(run.number("deliveries"), 3000);
    let run = Run::with(pairs, &pace);
    assert_eq!(run.code, Some(1));
    assert!(run.number("breaches") >= 20, "{}", run.result);
}

#[test]
fn what_is_under_way_until_it_is_heard_passes_too() {
    let run = Run::with(Faults::default(), &["--messages", "100", "--rate", "0", "--window", "3", "--until-heard"]);
    run.passed();
}

#[test]
fn the_time_that_the_server_took_is_told() {
    let pid = std::process::id().to_string(); // the mock is a thread of this process
    let run = Run::with(Faults::default(), &["--messages", "100", "--rate", "500", "--watch", &pid]);
    run.passed();
    assert!(run.result["watched_cpu_s"].as_f64().is_some(), "{}", run.result);
    assert!(run.result["busiest_worker"]["name"].is_string(), "{}", run.result);
}

#[test]
fn a_server_that_is_not_there_or_lets_nobody_in_is_exit_code_2() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let output = fanout(&["--connections", "3", "--publishers", "1"], &[url]);
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("connection refused"), "{words}");

    let mock = Mock::start(1, Faults { forbids: true, ..Faults::default() });
    let output = fanout(&["--connections", "3", "--publishers", "1"], &mock.urls);
    assert_eq!(output.status.code(), Some(2));
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(words.contains("forbidden"), "{words}");
}

#[test]
fn wrong_usage_is_exit_code_2_and_one_clear_line() {
    for (options, url, expected) in [
        (&["--publishers", "2", "--connections", "1"][..], "ws://127.0.0.1:1", "--publishers 2"),
        (&["--connections", "99999999"], "ws://127.0.0.1:1", "have ports for"),
        (&[], "ftp://127.0.0.1:1", "wss://"),
        (&["--listeners", "5"], "wss://127.0.0.1:1", "--listeners"),
        (&["--size", "1"], "ws://127.0.0.1:1", "--size 1"),
    ] {
        let output = fanout(options, &[url.to_owned()]);
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(words.contains(expected), "{words}");
        assert_eq!(words.lines().count(), 1, "{words}");
    }
}
