//! A master, two replicas and three Sentinels under three nodes whose clients never stop talking: whoever is master, there is
//! one room; what a failover loses is told, and one that loses nothing is noticed by nobody.

use std::time::Duration;

use crate::harness::{Crowd, Json, Node, Sentinel, wait_until};

/// Between two messages of each of nine clients.
const PACE: Duration = Duration::from_millis(50);

struct Scene {
    redis: Sentinel,
    nodes: Vec<Node>,
    crowd: Crowd,
}

impl Scene {
    async fn begin(options: &[&str]) -> Scene {
        let redis = Sentinel::start(2);
        let url = redis.url();
        let options = [&["--redis", &url, "--rate", "0"], options].concat();
        let nodes = Node::start_many(3, &options).await;
        let mut crowd = Crowd::gather(9, &nodes, "lobby").await;
        crowd.talk(PACE);
        crowd.hear_more(50).await;
        Scene { redis, nodes, crowd }
    }

    /// Kills the master; the new one's index.
    fn kill_master(&mut self) -> usize {
        let old = self.redis.master_index();
        self.redis.server(old).kill();
        self.redis.wait_for_another_than(old)
    }

    fn assert_nobody_was_disconnected(&self) {
        assert_eq!(self.crowd.connections(), self.crowd.clients.len());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_nothing_is_noticed_by_nobody() {
    let mut scene = Scene::begin(&[]).await;
    scene.redis.master().stop_writing(&scene.redis.replicas());
    scene.kill_master();
    scene.crowd.hear_more(50).await;
    scene.crowd.assert_one_room().await;
    scene.assert_nobody_was_disconnected();
    for client in &scene.crowd.clients {
        assert_eq!(client.record().unasked, 2, "the first message's and the new master's");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_that_loses_messages_is_told_to_everyone() {
    let mut scene = Scene::begin(&[]).await;
    scene.redis.master().cut_off(&scene.redis.replicas());
    scene.crowd.hear_more(50).await;
    let new = scene.kill_master();
    scene.redis.servers()[new].let_back();
    scene.crowd.hear_more(50).await;
    let (lost, broken) = scene.crowd.assert_all_told().await;
    assert!(lost >= 50, "only {lost} were lost");
    assert_eq!(broken, scene.crowd.clients.len());
    scene.assert_nobody_was_disconnected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failovers_that_are_asked_for_under_load_lose_nothing_silently() {
    // The old master takes messages until it hears that it is none any more: some are lost, or none.
    let mut scene = Scene::begin(&[]).await;
    for _ in 0..3 {
        scene.redis.fail_over();
        scene.redis.wait_followed();
        scene.crowd.hear_more(50).await;
    }
    scene.crowd.assert_all_told().await;
    scene.assert_nobody_was_disconnected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_hangs_and_comes_back_as_a_replica_is_no_second_room() {
    let mut scene = Scene::begin(&[]).await;
    let old = scene.redis.master_index();
    scene.redis.servers()[old].pause();
    scene.redis.wait_for_another_than(old);
    scene.crowd.hear_more(50).await;
    scene.redis.servers()[old].resume();
    scene.crowd.hear_more(50).await;
    scene.redis.wait_followed();
    scene.crowd.hear_more(50).await;
    scene.crowd.assert_all_told().await;
    scene.assert_nobody_was_disconnected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waited_for_a_replica_before_it_was_accepted_survives_the_master() {
    let mut scene = Scene::begin(&["--redis-wait", "1"]).await;
    scene.redis.master().cut_off(&scene.redis.replicas());
    scene.crowd.notice("unavailable").await;
    for node in &scene.nodes {
        let said = async || node.ops("/readyz").await.expect("an answer").body;
        wait_until("the node says what is missing", async || said().await.contains("replica")).await;
        assert_eq!(node.metric(r#"townhall_broker_trouble{reason="replicas"}"#).await, 1.0);
    }
    let new = scene.kill_master();
    scene.redis.servers().iter().filter(|server| server.answers()).for_each(|server| server.let_back());
    assert!(scene.redis.servers()[new].answers());
    scene.crowd.hear_more(50).await;
    let (lost, _) = scene.crowd.assert_all_told().await;
    assert_eq!(lost, 0, "accepted, and lost");
    scene.assert_nobody_was_disconnected();
}

#[tokio::test]
async fn a_hall_whose_sentinels_know_no_such_master_or_are_gone_says_so() {
    let redis = Sentinel::start(1);
    let url = redis.url().replace("/hall", "/cellar");
    let said = Node::refused(&["--redis", &url]).await;
    assert!(said.contains("no master called \"cellar\""), "{said}");

    let url = redis.url();
    drop(redis);
    let node = Node::start_unready(&["--redis", &url]).await;
    wait_until("the node says what it waits for", async || node.log().contains("no Sentinel answers")).await;
    let refused = Json::try_connect(&node.ws_url(), "?name=ada").await;
    assert_eq!(refused.err().map(|refused| refused.status), Some(503));
}
