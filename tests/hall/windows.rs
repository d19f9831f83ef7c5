//! What a node keeps of its rooms in memory is bounded, for each and for all; what does not fit is in the history.

use crate::harness::{Json, Node, RedisServer, wait_until};

const KIB: f64 = 1024.0;
const TEXT_BYTES: usize = 4_000;

/// Says that many long texts in a room that nobody else is in.
async fn fill(node: &Node, room: &str, messages: u64) {
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join(room).await;
    for number in 1..=messages {
        ada.say(room, &format!("{number} {}", "x".repeat(TEXT_BYTES))).await;
        ada.reach(room, number.saturating_sub(10)).await;
    }
    ada.reach(room, messages).await;
}

async fn log_bytes(node: &Node) -> f64 {
    node.metric("townhall_log_bytes").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_keeps_as_much_in_memory_as_its_window_holds_and_the_rest_is_in_its_history() {
    let redis = RedisServer::start();
    let node = Node::start(&["--rate", "0", "--room-window", "64KiB", "--redis", &redis.url()]).await;
    fill(&node, "lobby", 100).await;
    // The newest chunk stays, however large it is: what came at once.
    wait_until("the window is measured", async || log_bytes(&node).await > 0.0).await;
    let kept = log_bytes(&node).await;
    assert!(kept < 128.0 * KIB, "{kept} bytes");
    let mut late = Json::connect(&node.ws_url(), "?name=late").await;
    late.join_last("lobby", 100).await;
    late.reach("lobby", 100).await;
    assert_eq!(late.view("lobby").messages.len(), 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_rooms_together_keep_as_much_in_memory_as_the_budget_and_the_rest_is_in_their_histories() {
    const ROOMS: usize = 20;
    const BUDGET: f64 = 256.0 * KIB;
    let options = ["--rate", "0", "--room-window", "128KiB", "--window-budget", "256KiB"];
    let node = Node::start(&options).await;
    for number in 0..ROOMS {
        fill(&node, &format!("room-{number}"), 25).await;
    }
    wait_until("they are measured, and fit", async || (1.0..=BUDGET).contains(&log_bytes(&node).await)).await;
    let mut late = Json::connect(&node.ws_url(), "?name=late").await;
    for number in 0..ROOMS {
        let room = format!("room-{number}");
        late.join_last(&room, 25).await;
        late.reach(&room, 25).await;
        assert_eq!(late.view(&room).messages.len(), 25, "{room}");
    }
    wait_until("they fit still", async || (1.0..=BUDGET).contains(&log_bytes(&node).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_whose_history_cannot_be_read_keeps_nobody_from_catching_up_in_another() {
    let redis = RedisServer::start();
    let node = Node::start(&["--rate", "0", "--room-window", "64KiB", "--redis", &redis.url()]).await;
    let mut stays = Json::connect(&node.ws_url(), "?name=stays").await;
    for room in ["kitchen", "lobby"] {
        fill(&node, room, 100).await;
        stays.join_last(room, 0).await;
    }
    // A newer version has taken the kitchen over.
    redis.cli(&["HSET", "townhall:{kitchen}:meta", "format", "2"]);
    let mut late = Json::connect(&node.ws_url(), "?name=late").await;
    late.join_last("kitchen", 100).await;
    late.join_last("lobby", 100).await;
    late.reach("lobby", 100).await;
    assert!(late.view("kitchen").messages.len() < 100, "it could be read");
    redis.cli(&["HSET", "townhall:{kitchen}:meta", "format", "1"]);
    late.reach("kitchen", 100).await;
}
