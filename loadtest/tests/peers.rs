//! The servers that a hall is compared with, but for those in Go: see peers_in_go.rs.

mod peer;

use peer::{Server, judged, load, node, one_node_delivers, rust, two_nodes_deliver};
use serde_json::Value;

#[test]
fn the_broadcast_channel_delivers_what_is_said() {
    one_node_delivers(&rust("peer-axum-broadcast"), &[]);
    two_nodes_deliver(&rust("peer-axum-broadcast"), &[]);
}

/// Between nodes it has no order; nothing is lost all the same.
#[test]
fn socket_io_delivers_what_is_said() {
    let program = node("socketio");
    one_node_delivers(&program, &["--dialect", "socketio"]);
    two_nodes_deliver(&program, &["--dialect", "socketio"]);
}

/// Batches of six megabytes, which no socket takes at once.
#[test]
fn the_bare_loop_sends_whole_batches_to_all() {
    let options = ["--clients", "25", "--seconds", "0.1", "--frames-per-write", "20000"];
    let peer = Server::peer(&rust("peer-epoll-loop"), &options);
    let result = judged(&[peer], &["--publishers", "0", "--seconds", "2"]);
    let deliveries = result["deliveries"].as_u64().unwrap();
    assert!(deliveries > 0 && deliveries.is_multiple_of(20_000 * 25), "{result}");
}

/// Nobody reads as fast as three loops that do nothing but send: what was measured is the generator.
#[test]
fn a_saturated_generator_voids_its_run() {
    let options = ["--clients", "20", "--seconds", "3", "--frames-per-write", "50"];
    let peers = [0, 1, 2].map(|_| Server::peer(&rust("peer-epoll-loop"), &options));
    let readers = ["--connections", "60", "--workers", "1", "--publishers", "0", "--seconds", "6"];
    // Three servers are three logs, so the verdict says nothing here.
    let output = load(&peers, &[&readers[..], &["--settle", "1s"]].concat()).wait_with_output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["void"], true, "{result}");
    let reason = result["void_reason"].as_str().unwrap();
    assert!(reason.contains("processor"), "{reason}");
}

#[test]
fn the_bare_loop_keeps_its_pace() {
    let options = ["--clients", "25", "--seconds", "1", "--rate", "20", "--size", "50"];
    let peer = Server::peer(&rust("peer-epoll-loop"), &options);
    let result = judged(&[peer], &["--publishers", "0", "--seconds", "2.5"]);
    let deliveries = result["deliveries"].as_u64().unwrap();
    assert!(deliveries > 0 && deliveries <= 20 * 25, "{result}");
}
