//! A subscription may lose messages; nobody notices.

use crate::harness::{Cut, Faithful, Json, Node, Plain, RedisServer, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_that_is_cut_under_load_is_repaired_and_nobody_notices() {
    const EACH: usize = 300;
    const CUTS: usize = 3;
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url(), "--rate", "0"]).await;
    let urls: Vec<String> = nodes.iter().map(Node::ws_url).collect();
    let clients = Faithful::join_many(10, &urls, "lobby").await;
    let wave = EACH * clients.len();
    for cut in 1..=CUTS {
        wait_until("both nodes have a subscription", async || {
            redis.cli(&["CLIENT", "LIST", "TYPE", "pubsub"]).lines().count() == nodes.len()
        })
        .await;
        for number in 0..EACH {
            for client in &clients {
                client.say(&format!("message {cut}.{number}"));
            }
        }
        clients[0].wait_reached((wave * (cut - 1) + wave / 4) as u64).await;
        assert_eq!(redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]), "2");
        assert!(clients.iter().any(|client| client.record().accepted.len() < cut * EACH), "it was not under load");
    }
    for client in &clients {
        client.wait_accepted(CUTS * EACH).await;
        client.wait_reached((CUTS * wave) as u64).await;
    }
    Faithful::assert_one_room(&clients, CUTS * wave);
    for client in &clients {
        assert_eq!(client.record().connections, 1);
        assert_eq!(client.record().unasked, 1, "only the first message's");
    }
}

#[tokio::test]
async fn a_message_that_the_subscription_never_brought_is_repaired_when_the_next_one_comes() {
    let mut scene = Scene::new().await;
    scene.lose("lost").await;
    scene.ada.said("lobby", "next").await;
    scene.assert_heard_everywhere(&["first", "lost", "next"]).await;
}

#[tokio::test]
async fn a_last_message_that_the_subscription_never_brought_is_found_by_comparing_heads() {
    let mut scene = Scene::new().await;
    scene.lose("lost").await;
    scene.assert_heard_everywhere(&["first", "lost"]).await;
}

#[tokio::test]
async fn a_node_that_does_not_hear_its_own_publish_repairs_itself() {
    let mut scene = Scene::new().await;
    scene.wire.swallow_next_with("lost");
    scene.ben.said("lobby", "lost").await;
    scene.assert_heard_everywhere(&["first", "lost"]).await;
    assert!(scene.wire.has_swallowed());
}

/// Ada at a node of her own; Ben and a plain client at a node whose wire to Redis can lose things.
struct Scene {
    _redis: RedisServer,
    _east: Node,
    west: Node,
    wire: Cut,
    ada: Json,
    ben: Json,
    lewin: Plain,
}

impl Scene {
    async fn new() -> Scene {
        let redis = RedisServer::start();
        let wire = Cut::in_front_of(([127, 0, 0, 1], redis.port()).into()).await;
        let east = Node::start(&["--redis", &redis.url()]).await;
        let west = Node::start(&["--redis", &format!("redis://{}", wire.address())]).await;
        let mut ada = Json::connect(&east.ws_url(), "?name=ada").await;
        let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
        let mut lewin = Plain::connect(&west.ws_url(), "?name=lewin").await;
        ada.join("lobby").await;
        ben.join("lobby").await;
        lewin.say("first").await;
        lewin.until("lewin:first").await;
        ada.hear("lobby", "first").await;
        ben.hear("lobby", "first").await;
        Scene { _redis: redis, _east: east, west, wire, ada, ben, lewin }
    }

    /// Ada says something that the other node's subscription does not bring.
    async fn lose(&mut self, text: &str) {
        self.wire.swallow_next_with(text);
        self.ada.said("lobby", text).await;
        let wire = &self.wire;
        wait_until("the message is lost on its way", async || wire.has_swallowed()).await;
    }

    async fn assert_heard_everywhere(&mut self, texts: &[&str]) {
        let last = texts.last().expect("something was said");
        for client in [&mut self.ada, &mut self.ben] {
            client.hear("lobby", last).await;
            assert_eq!(client.texts("lobby"), texts);
            assert!(client.view("lobby").gaps.is_empty());
        }
        for text in &texts[1..] {
            let line = self.lewin.next().await;
            assert_eq!(line.split_once(':').map(|(_, text)| text), Some(*text));
        }
        assert!(self.west.metric("townhall_gaps_repaired_total").await >= 1.0);
        let unasked = self.ben.view("lobby").joined.len() - 1;
        assert!(unasked <= 1, "only the room's first message brings one");
    }
}
