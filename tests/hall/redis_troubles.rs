//! One Redis in trouble, under three nodes whose clients never stop talking: nobody is disconnected, nothing is lost.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::harness::{Crowd, Cut, Json, Node, RedisServer, wait_until};

/// Between two messages of each of nine clients.
const PACE: Duration = Duration::from_millis(50);

/// Three nodes at one Redis, and nine clients who talk.
struct Scene {
    redis: RedisServer,
    nodes: Vec<Node>,
    crowd: Crowd,
}

impl Scene {
    async fn begin() -> Scene {
        Scene::begin_with(&[]).await
    }

    async fn begin_with(options: &[&str]) -> Scene {
        let redis = RedisServer::start_with(options);
        let url = redis.url();
        Scene::at(redis, &url).await
    }

    async fn at(redis: RedisServer, url: &str) -> Scene {
        let nodes = Node::start_many(3, &["--redis", url, "--rate", "0"]).await;
        let mut crowd = Crowd::gather(9, &nodes, "lobby").await;
        crowd.talk(PACE);
        crowd.hear_more(50).await;
        Scene { redis, nodes, crowd }
    }

    /// All is as it was, and all that was said is there once.
    async fn end(mut self) {
        self.crowd.hear_more(50).await;
        self.crowd.assert_one_room().await;
        assert_eq!(self.crowd.connections(), self.crowd.clients.len(), "nobody was disconnected");
    }

    async fn wait_up(&self, up: bool) {
        for node in &self.nodes {
            let wanted = f64::from(u8::from(up));
            let broker_up = async || node.metric("townhall_broker_up").await == wanted;
            wait_until(&format!("the node has its broker: {up}"), broker_up).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_connection_to_redis_killed_again_and_again_costs_nothing() {
    let scene = Scene::begin().await;
    for _ in 0..8 {
        // In both orders: what is cut first is noticed first.
        scene.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        scene.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        scene.crowd.hear_more(10).await;
        scene.redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        scene.redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
        scene.crowd.hear_more(10).await;
    }
    for node in &scene.nodes {
        assert!(node.metric("townhall_broker_reconnects_total").await >= 8.0);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stopped_for_fifteen_seconds_under_load_loses_nothing() {
    let scene = Scene::begin().await;
    scene.redis.pause();
    let back = Instant::now() + Duration::from_secs(15);
    scene.wait_up(false).await;
    scene.crowd.notice("unavailable").await;
    for node in &scene.nodes {
        assert_eq!(node.readiness().await, 200, "it was ready once");
    }
    sleep_until(back).await; // how long it is away is what is tested
    scene.redis.resume();
    scene.wait_up(true).await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribers_whom_redis_cuts_for_being_slow_miss_nothing() {
    let scene = Scene::begin().await;
    // What is published at once when many speak at once is more than that: whoever listens is cut.
    let limit = "normal 0 0 0 replica 0 0 0 pubsub 2kb 0 0";
    scene.redis.must(&["CONFIG", "SET", "client-output-buffer-limit", limit]);
    let mut talker = Json::connect(&scene.nodes[0].ws_url(), "?name=talker").await;
    talker.join("kitchen").await;
    let mut listener = Json::connect(&scene.nodes[1].ws_url(), "?name=listener").await;
    listener.join("kitchen").await;
    for number in 1..=5 {
        talker.said("kitchen", &format!("{number} {}", "long ".repeat(700))).await;
        listener.reach("kitchen", number).await;
    }
    for node in &scene.nodes[..2] {
        assert!(node.metric("townhall_broker_reconnects_total").await >= 1.0, "it was not cut");
        assert!(node.metric("townhall_gaps_repaired_total").await >= 1.0);
    }
    scene.redis.must(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 8mb 60"]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_whose_answer_is_lost_is_stored_once() {
    let redis = RedisServer::start();
    let wire = Cut::in_front_of(([127, 0, 0, 1], redis.port()).into()).await;
    let scene = Scene::at(redis, &format!("redis://{}", wire.address())).await;
    let epoch = scene.crowd.clients[0].record().position.clone().expect("it has joined").epoch;
    for _ in 0..5 {
        // Answers, unlike what the subscription brings, have a line for the epoch and one for the offset.
        wire.mute_from(&format!("{epoch}\r\n:"));
        wait_until("an answer is lost", async || wire.has_muted()).await;
        scene.crowd.hear_more(20).await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_out_of_memory_refuses_what_is_said_and_still_lets_people_in() {
    let scene = Scene::begin().await;
    scene.redis.must(&["CONFIG", "SET", "maxmemory", "1mb"]);
    scene.crowd.notice("unavailable").await;
    for node in &scene.nodes {
        let mut late = Json::connect(&node.ws_url(), "?name=late").await;
        late.join("lobby").await;
        late.join("elsewhere").await;
        late.say("elsewhere", "no room for that").await;
        late.expect_error("unavailable").await;
    }
    scene.redis.must(&["CONFIG", "SET", "maxmemory", "0"]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_save_refuses_what_is_said_and_still_lets_people_in() {
    let scene = Scene::begin().await;
    // Redis renames what it saved to this name, which a directory with something in it does not let happen.
    std::fs::create_dir_all(scene.redis.directory().join("dump.rdb/in the way")).expect("a directory");
    scene.redis.must(&["CONFIG", "SET", "save", "1 1"]);
    scene.crowd.notice("unavailable").await;
    assert_eq!(scene.redis.info("persistence", "rdb_last_bgsave_status").as_deref(), Some("err"));
    for node in &scene.nodes {
        let mut late = Json::connect(&node.ws_url(), "?name=late").await;
        late.join("lobby").await;
        late.join("elsewhere").await;
        late.say("elsewhere", "who would keep that").await;
        late.expect_error("unavailable").await;
    }
    std::fs::remove_dir_all(scene.redis.directory().join("dump.rdb")).expect("the directory is removed");
    scene.end().await;
}
