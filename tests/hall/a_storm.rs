//! A node dies, and everybody comes to the others at once.

use std::time::Instant;

use futures::future::join_all;
use serde_json::json;
use uuid::Uuid;

use crate::harness::{Faithful, Node, RedisServer, wait_until};

const ROOMS: [&str; 3] = ["east", "north", "west"];
const CLIENTS: usize = 3_000;
const BEFORE: u64 = 100;
const MISSED: u64 = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_thousand_clients_of_a_node_that_dies_are_back_with_one_read_of_history_a_room_and_node() {
    let redis = RedisServer::start();
    let mut nodes = Node::start_many(3, &["--redis", &redis.url(), "--rate", "0"]).await;
    let clients = gather(&nodes).await;
    for room in ROOMS {
        say(&redis, room, BEFORE);
    }
    for client in &clients {
        client.wait_reached(BEFORE).await;
    }
    // What is said while the node hangs, none of its clients has.
    nodes[0].signal("STOP");
    for room in ROOMS {
        say(&redis, room, MISSED);
    }
    redis.must(&["CONFIG", "RESETSTAT"]);

    nodes[0].kill();
    let start = Instant::now();
    for client in &clients {
        client.wait_reached(BEFORE + MISSED).await;
    }
    let took = start.elapsed();
    let reads = redis.calls("xrange") + redis.calls("xrevrange");
    println!("back after {took:?}; {reads} reads of history, {} calls of functions", redis.calls("fcall"));
    assert_eq!(reads, (ROOMS.len() * 2) as u64);

    for room in ROOMS {
        say(&redis, room, 1);
    }
    let total = BEFORE + MISSED + 1;
    for client in &clients {
        client.wait_reached(total).await;
    }
    for client in &clients {
        let record = client.record();
        assert_eq!((record.connections, record.breaks), (2, 0));
        assert_eq!(record.heard.len() as u64, total);
    }
    let resumed = async |node: &Node| node.metric(r#"townhall_resumes_total{source="window"}"#).await;
    for node in &nodes[1..] {
        wait_until("all of them came from the window", async || resumed(node).await == CLIENTS as f64 / 2.0).await;
    }
}

/// All of them at the first node, a third in each room; half of them go to either of the others next.
async fn gather(nodes: &[Node]) -> Vec<Faithful> {
    let mut clients = Vec::with_capacity(CLIENTS);
    for first in (0..CLIENTS).step_by(100) {
        let some = (first..first + 100).map(|number| async move {
            let urls = [nodes[0].ws_url(), nodes[1 + number / 3 % 2].ws_url()];
            Faithful::join(&urls, ROOMS[number % 3], &format!("faithful-{number}")).await
        });
        clients.extend(join_all(some).await);
    }
    clients
}

fn say(redis: &RedisServer, room: &str, count: u64) {
    for number in 0..count {
        let text = format!("message {number}");
        let event = json!({"type": "message", "id": Uuid::new_v4(), "from": {"id": "x", "name": "x"}, "text": text});
        redis.store_event(room, &event.to_string());
    }
}
