//! `townhall-load slow` as it is run, against a hall whose faults are known. What takes how long is not judged here.

mod mock;

use std::process::Command;

use mock::{Faults, Mock};
use serde_json::Value;

fn slow(faults: Faults) -> (Option<i32>, Value) {
    let mock = Mock::start(1, faults);
    let crowd = ["--connections", "4", "--pausing", "3", "--dead", "2", "--pause", "100ms", "--seconds", "1s"];
    let rest = ["--rate", "30", "--size", "20000", "--settle", "2s", "--json", "--quiet"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_townhall-load"));
    let output = command.arg("slow").args(crowd).args(rest).args(&mock.urls).output().unwrap();
    let json = String::from_utf8(output.stdout).unwrap();
    let result = serde_json::from_str(&json);
    (output.status.code(), result.unwrap_or_else(|_| panic!("no result: {}", String::from_utf8_lossy(&output.stderr))))
}

#[test]
fn honest_readers_of_an_honest_server_get_everything_beside_slow_ones_who_catch_up() {
    let (_, result) = slow(Faults::default());
    for (field, expected) in [("lost", 0), ("misplaced", 0), ("caught_up", 3), ("honest", 4), ("dead", 2)] {
        assert_eq!(result[field], expected, "{field} of {result}");
    }
    assert_eq!(result["ended"], serde_json::json!({}));
    let count = |part: &str| result[part]["count"].as_u64().unwrap();
    assert_eq!((count("alone_ms"), count("beside_slow_ms")), (120, 120), "30 messages to each of 4");
    let reasons: Vec<_> = result["reasons"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(reasons.iter().all(|reason| reason.contains("p99")), "{reasons:?}");
}

#[test]
fn a_server_that_loses_or_swaps_is_found_out() {
    for (faults, lost) in [
        (Faults { loses: Some(40), ..Faults::default() }, 1),
        (Faults { swaps: Some(40), ..Faults::default() }, 0),
    ] {
        let (code, result) = slow(faults);
        assert_eq!(code, Some(1), "{result}");
        assert_eq!(result["lost"], lost, "{result}");
        assert!(result["misplaced"].as_u64() > Some(0), "{result}");
    }
}
