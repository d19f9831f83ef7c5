//! Three thousand at once: a thousand who read, a thousand who stop for a while, and a thousand who never read.

use futures::future::join_all;

use crate::harness::{Faithful, Json, Node, Still, wait_until};

const EACH: usize = 1_000;
const MESSAGES: u64 = 300;
const TEXT_BYTES: usize = 1_000;
/// What a node may need beyond what it needs for three thousand who are up to date: the window and the pages that all share,
/// and for each slow one the rest of a frame or a part of a page. Queues of its own would be three times as much.
const MIB: u64 = 1024 * 1024;
const SHARED: u64 = 64 * MIB;
const FOR_EACH: u64 = 16 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_slow_readers_and_a_thousand_dead_ones_cost_a_thousand_honest_ones_nothing_and_little_memory() {
    let options = ["--rate", "0", "--room-window-messages", "50", "--write-timeout", "20s"];
    let node = Node::start(&options).await;
    let urls = [node.ws_url()];
    let honest = Faithful::join_many(EACH, &urls, "lobby").await;
    let mut pausing = still(&node).await;
    let dead = still(&node).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    wait_until("all are in", async || node.metric("townhall_slow_readers").await == 0.0).await;
    let before = node.memory("VmRSS");

    for number in 1..=MESSAGES {
        ada.say("lobby", &"x".repeat(TEXT_BYTES)).await;
        ada.reach("lobby", number.saturating_sub(20)).await;
    }
    let slow = 2.0 * EACH as f64;
    wait_until("they are slow", async || node.metric("townhall_slow_readers").await == slow).await;
    for client in &honest {
        client.wait_reached(MESSAGES).await;
    }
    join_all(pausing.iter_mut().map(|client| client.reach(MESSAGES))).await;
    let grown = node.memory("VmHWM").saturating_sub(before);
    let bound = SHARED + 2 * EACH as u64 * FOR_EACH;
    println!("{} MiB more at most, {} allowed", grown / MIB, bound / MIB);
    assert!(grown < bound);

    // Whoever never reads is closed; everybody else stays.
    let closed = r#"townhall_connections_closed_total{door="json",reason="too_slow"}"#;
    wait_until("the dead are given up", async || node.metric(closed).await == EACH as f64).await;
    drop(dead);
    assert_eq!(node.metric(r#"townhall_connections{door="json"}"#).await, (2 * EACH + 1) as f64);
    ada.said("lobby", "the last").await;
    join_all(pausing.iter_mut().map(|client| client.reach(MESSAGES + 1))).await;
    for client in &honest {
        client.wait_reached(MESSAGES + 1).await;
    }
    Faithful::assert_one_room(&honest, MESSAGES as usize + 1);
    for client in &honest {
        assert_eq!(client.record().connections, 1, "nobody had to come back");
    }
}

async fn still(node: &Node) -> Vec<Still> {
    let mut all = Vec::new();
    while all.len() < EACH {
        let url = node.ws_url();
        all.extend(join_all((0..50).map(|_| Still::join(&url, "lobby", None))).await);
    }
    all
}
