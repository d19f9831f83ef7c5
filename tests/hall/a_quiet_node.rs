//! A node on which nobody is in a busy room has no part in it.

use std::time::Duration;

use crate::harness::{Crowd, Json, Node, RedisServer, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_members_of_a_busy_room_spends_nothing_on_it() {
    const MESSAGES: u64 = 10_000;
    let redis = RedisServer::start();
    let mut nodes = Node::start_many(2, &["--redis", &redis.url(), "--rate", "0"]).await;
    let quiet = nodes.remove(1);
    let mut ada = Json::connect(&quiet.ws_url(), "?name=ada").await;
    ada.join("kitchen").await;
    ada.said("kitchen", "nobody here").await;
    let mut crowd = Crowd::gather(20, &nodes, "lobby").await;

    let before = (nodes[0].cpu(), quiet.cpu());
    crowd.talk(Duration::from_millis(20));
    crowd.hear_more(MESSAGES).await;
    let total = crowd.assert_one_room().await;

    let listening = redis.cli(&["PUBSUB", "NUMSUB", "townhall:0:{lobby}"]);
    assert_eq!(listening.lines().last(), Some("1"), "{listening}");
    let received = async |node: &Node| node.metric("townhall_messages_received_total").await;
    wait_until("the busy node has counted all", async || received(&nodes[0]).await == total as f64).await;
    assert_eq!(received(&quiet).await, 1.0, "its own");
    let spent = (nodes[0].cpu() - before.0, quiet.cpu() - before.1);
    println!("{total} messages: the busy node took {:.2} s, the quiet one {:.2} s", spent.0, spent.1);
    assert!(spent.1 < spent.0 / 5.0, "{spent:?}");
}
