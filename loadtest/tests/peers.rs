//! The servers that a hall is compared with, but for those in Go: see peers_in_go.rs.

mod peer;

use std::path::Path;
use std::process::Command;

use peer::{Server, judged, node, one_node_delivers, rust, two_nodes_deliver};
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

/// Three loops that do nothing but send leave nothing of the processor that they share with the generator, which cannot read
/// as fast: what was measured is the generator.
#[test]
fn a_saturated_generator_voids_its_run() {
    let core = first_core();
    let on_that_core = |program: &Path| {
        let mut command = Command::new("taskset");
        command.arg("-c").arg(&core).arg(program);
        command
    };
    let peers = [0, 1, 2].map(|_| {
        Server::start(|address| {
            let mut peer = on_that_core(&rust("peer-epoll-loop"));
            peer.args(["--clients", "20", "--seconds", "8", "--frames-per-write", "50"]).arg(address.to_string());
            peer
        })
    });
    let urls = peers.iter().map(|peer| format!("ws://{}", peer.address));
    let mut generator = on_that_core(Path::new(env!("CARGO_BIN_EXE_townhall-load")));
    generator.args(["fanout", "--json", "--quiet", "--connections", "60", "--workers", "1", "--publishers", "0"]);
    // Three servers are three logs, so the verdict says nothing here.
    let output = generator.args(["--seconds", "11", "--settle", "1s"]).args(urls).output().unwrap();
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["void"], true, "{result}");
    let reason = result["void_reason"].as_str().unwrap();
    assert!(reason.contains("processor"), "{reason}");
}

/// Of those that this process may use.
fn first_core() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let cores = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    cores.trim().split([',', '-']).next().unwrap().to_owned()
}

#[test]
fn the_bare_loop_keeps_its_pace() {
    let options = ["--clients", "25", "--seconds", "1", "--rate", "20", "--size", "50"];
    let peer = Server::peer(&rust("peer-epoll-loop"), &options);
    let result = judged(&[peer], &["--publishers", "0", "--seconds", "2.5"]);
    let deliveries = result["deliveries"].as_u64().unwrap();
    assert!(deliveries > 0 && deliveries <= 20 * 25, "{result}");
}
