//! Many clients, many nodes, many messages.

use crate::harness::{Faithful, Node, RedisServer};

const CLIENTS: usize = 200;
const PUBLISHERS: usize = 60;
const MESSAGES: usize = 20_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_on_three_nodes_hear_twenty_thousand_messages_in_one_order() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(3, &["--redis", &redis.url(), "--rate", "0", "--history", "30000"]).await;
    let urls: Vec<String> = nodes.iter().map(Node::ws_url).collect();
    let crowd = Faithful::join_many(CLIENTS, &urls, "lobby").await;
    for number in 0..MESSAGES {
        crowd[number % PUBLISHERS].say(&format!("message {number}"));
    }
    for client in &crowd {
        client.wait_reached(MESSAGES as u64).await;
    }
    for publisher in &crowd[..PUBLISHERS] {
        publisher.wait_accepted(MESSAGES / PUBLISHERS).await;
    }
    Faithful::assert_one_room(&crowd, MESSAGES);
    for client in &crowd {
        assert_eq!(client.record().connections, 1, "nobody had to come back");
        assert_eq!(client.record().errors.len(), 0);
    }
}
