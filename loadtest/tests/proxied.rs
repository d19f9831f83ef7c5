//! The verdicts, proven right by a proxy in front of a real hall that loses, doubles, swaps and delays on purpose.

mod hall;
mod proxy;

use std::time::Duration;

use hall::{Server, load, passes, result};
use proxy::{Proxy, Wrong};
use serde_json::Value;

/// Twenty clients, four of whom say a hundred messages.
const CROWD: [&str; 9] =
    ["--connections", "20", "--publishers", "4", "--messages", "100", "--rate", "400", "--settle=2s"];

fn fanout(wrong: Wrong, options: &[&str]) -> (Option<i32>, Value) {
    let hall = Server::hall(&[]);
    let proxy = Proxy::before(hall.address, wrong);
    let output = load(&[&["fanout", &proxy.url], &CROWD[..], options].concat());
    (output.status.code(), result(&output))
}

/// It fails for this and nothing else.
#[track_caller]
fn fails_with(wrong: Wrong, fault: &str) {
    let (code, result) = fanout(wrong, &[]);
    assert_eq!(code, Some(1), "{result}");
    assert_eq!(result["reasons"], serde_json::json!([format!("1 {fault}")]), "{result}");
}

#[test]
fn through_a_proxy_that_does_no_wrong_a_hall_passes() {
    let (code, result) = fanout(Wrong::default(), &[]);
    assert_eq!((code, &result["deliveries"]), (Some(0), &2000.into()), "{result}");
}

#[test]
fn a_message_that_is_lost_on_the_way_is_lost() {
    for number in [1, 40, 100] {
        fails_with(Wrong { loses: Some(number), ..Wrong::default() }, "lost");
    }
}

#[test]
fn a_message_that_is_doubled_on_the_way_is_doubled() {
    fails_with(Wrong { doubles: Some(40), ..Wrong::default() }, "doubled");
    fails_with(Wrong { doubles: Some(100), ..Wrong::default() }, "doubled");
}

#[test]
fn messages_that_are_swapped_on_the_way_are_swapped() {
    fails_with(Wrong { swaps: Some(40), ..Wrong::default() }, "swapped");
}

/// The delay is in every latency, so that no machine is too fast for this.
#[test]
fn a_delay_on_the_way_is_measured() {
    let delayed = Wrong { delays: Duration::from_millis(100), ..Wrong::default() };
    let hall = Server::hall(&[]);
    let proxy = Proxy::before(hall.address, delayed);
    // One frame at a time takes the way: a few messages, or they queue up behind one another.
    let slowly = ["--connections", "4", "--publishers", "1", "--messages", "5", "--rate", "1"];
    let result = passes(&[&["fanout", &proxy.url], &slowly[..]].concat());
    let p50 = result["delivered_ms"]["p50"].as_f64().unwrap();
    assert!(p50 >= 100.0, "{result}");
}
