//! The servers that a hall is compared with, but for those in Go: see peers_in_go.rs.

mod peer;

use peer::{Server, judged, load, node, one_node_delivers, passed, rust, two_nodes_deliver};

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

/// Nobody reads as fast as a loop that does nothing but send: what was measured is the generator.
#[test]
fn a_saturated_generator_voids_its_run() {
    let options = ["--clients", "50", "--seconds", "3", "--frames-per-write", "50"];
    let peer = Server::peer(&rust("peer-epoll-loop"), &options);
    let readers = ["--connections", "50", "--workers", "1", "--publishers", "0", "--seconds", "5"];
    let result = passed(load(&[peer], &[&readers[..], &["--settle", "60s"]].concat()));
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
