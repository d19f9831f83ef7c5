//! A Redis Cluster under three nodes whose clients never stop talking in rooms of several slots: slots and masters change, and
//! a room stays one room.

use std::time::Duration;

use futures::future::join_all;

use crate::harness::{Cluster, Crowd, Json, Node, wait_until};

/// Between two messages of each client.
const PACE: Duration = Duration::from_millis(60);

/// Clients of a room.
const EACH: usize = 3;

struct Scene {
    redis: Cluster,
    nodes: Vec<Node>,
    /// One for each of [`Scene::begin`]'s rooms, in that order.
    crowds: Vec<Crowd>,
}

impl Scene {
    /// Three rooms in as many slots of the first server, and one of each other.
    async fn begin(replicas: usize, options: &[&str]) -> Scene {
        let redis = Cluster::start_with(3, replicas, options);
        let mut rooms = redis.rooms_of(0, 3);
        rooms.extend([redis.rooms_of(1, 1), redis.rooms_of(2, 1)].concat());
        let nodes = Node::start_many(3, &["--redis", &redis.url(), "--rate", "0"]).await;
        let mut crowds = join_all(rooms.iter().map(|room| Crowd::gather(EACH, &nodes, room))).await;
        crowds.iter_mut().for_each(|crowd| crowd.talk(PACE));
        let scene = Scene { redis, nodes, crowds };
        scene.hear_more(20).await;
        scene
    }

    async fn hear_more(&self, count: u64) {
        join_all(self.crowds.iter().map(|crowd| crowd.hear_more(count))).await;
    }

    /// In every room all that was said is there once, and nobody was disconnected.
    async fn end(mut self) {
        self.hear_more(20).await;
        for crowd in &mut self.crowds {
            crowd.assert_one_room().await;
        }
        self.assert_nobody_was_disconnected();
    }

    fn assert_nobody_was_disconnected(&self) {
        for crowd in &self.crowds {
            assert_eq!(crowd.connections(), EACH);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_a_cluster_killed_again_and_again_cost_nothing() {
    let scene = Scene::begin(0, &[]).await;
    for round in 0..6 {
        for server in scene.redis.servers() {
            // Several channels in as many slots are listened to again at each of them.
            let kinds = if round % 2 == 0 { ["pubsub", "normal"] } else { ["normal", "pubsub"] };
            for kind in kinds {
                server.cli(&["CLIENT", "KILL", "TYPE", kind]);
            }
        }
        scene.hear_more(10).await;
    }
    for node in &scene.nodes {
        assert!(node.metric("townhall_broker_reconnects_total").await >= 3.0);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_that_moves_and_comes_back_takes_its_room_along() {
    let scene = Scene::begin(0, &[]).await;
    let slot = scene.redis.slot(&scene.crowds[0].room);
    for to in [1, 2, 0] {
        scene.redis.move_slot(slot, to);
        scene.hear_more(20).await;
        assert_eq!(scene.redis.owner(&scene.crowds[0].room), to);
    }
    for client in &scene.crowds[0].clients {
        assert_eq!(client.record().unasked, 4, "the first message's and every move's");
    }
    for crowd in &scene.crowds[1..] {
        assert!(crowd.clients.iter().all(|client| client.record().unasked == 1), "{} did not move", crowd.room);
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_with_everything_is_noticed_by_nobody() {
    let mut scene = Scene::begin(1, &[]).await;
    let slot = scene.redis.slot(&scene.crowds[0].room);
    // Once as an operator does it, once by a death.
    let second = scene.redis.index_of(scene.redis.replicas_of(0)[0]);
    assert_eq!(scene.redis.servers()[second].cli(&["CLUSTER", "FAILOVER"]), "OK");
    assert_eq!(scene.redis.wait_for_another_than(0, slot), second);
    scene.hear_more(20).await;
    scene.redis.wait_followed(second);
    scene.redis.servers()[second].stop_writing(&scene.redis.replicas_of(second));
    scene.redis.server(second).kill();
    assert_eq!(scene.redis.wait_for_another_than(second, slot), 0);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_takes_over_with_less_is_told_to_those_it_concerns() {
    let mut scene = Scene::begin(1, &[]).await;
    let slot = scene.redis.slot(&scene.crowds[0].room);
    let replica = scene.redis.index_of(scene.redis.replicas_of(0)[0]);
    scene.redis.servers()[0].cut_off(&scene.redis.replicas_of(0));
    scene.hear_more(20).await;
    scene.redis.server(0).kill();
    assert_eq!(scene.redis.wait_for_another_than(0, slot), replica);
    scene.hear_more(20).await;
    for crowd in &mut scene.crowds[..3] {
        let (lost, broken) = crowd.assert_all_told().await;
        assert!(lost >= 20, "only {lost} were lost in {}", crowd.room);
        assert_eq!(broken, EACH);
    }
    for crowd in &mut scene.crowds[3..] {
        crowd.assert_one_room().await;
    }
    scene.assert_nobody_was_disconnected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_of_a_server_that_is_gone_wait_for_it_and_others_do_not() {
    let kept = ["--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no"];
    let mut scene = Scene::begin(0, &kept).await;
    scene.redis.server(0).kill();
    for crowd in &scene.crowds[..3] {
        crowd.notice("unavailable").await;
    }
    join_all(scene.crowds[3..].iter().map(|crowd| crowd.hear_more(50))).await;
    for crowd in &scene.crowds[3..] {
        assert!(crowd.clients.iter().all(|client| client.record().errors.is_empty()), "{} was disturbed", crowd.room);
    }
    let [gone, there] = [&scene.crowds[0].room, &scene.crowds[3].room];
    for node in &scene.nodes {
        let ready = node.ops("/readyz").await.expect("an answer");
        assert_eq!(ready.status, 200, "{}", ready.body);
        assert!(ready.body.contains("the broker is away"), "{}", ready.body);
        let mut late = Json::connect(&node.ws_url(), "?name=late").await;
        late.join(there).await;
        late.say(there, "here it goes on").await;
        late.join(gone).await; // from the window
        late.say(gone, "here it does not").await;
        late.until("a refusal", |event| event["type"] == "error" && event["room"] == **gone).await;
    }
    scene.redis.server(0).restart();
    for node in &scene.nodes {
        wait_until("all is well", async || node.metric("townhall_broker_up").await == 1.0).await;
    }
    scene.hear_more(20).await;
    // The visitors have said something, too, which the verdict would not know.
    for crowd in &mut scene.crowds {
        assert_eq!(crowd.assert_all_told().await, (0, 0), "in {}", crowd.room);
    }
    scene.assert_nobody_was_disconnected();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_whose_server_does_not_know_that_it_has_it_is_listened_to_as_soon_as_it_does() {
    let redis = Cluster::start_with(3, 0, &["--cluster-require-full-coverage", "no"]);
    let room = &redis.rooms_of(0, 1)[0];
    let (server, slot) = (&redis.servers()[0], redis.slot(room).to_string());
    let nodes = Node::start_many(4, &["--redis", &redis.url()]).await;
    let mut clients = Vec::new();
    for node in &nodes {
        let mut client = Json::connect(&node.ws_url(), "").await;
        client.join(room).await;
        clients.push(client);
    }
    let listeners = || server.cli(&["PUBSUB", "SHARDNUMSUB", &format!("townhall:0:{{{room}}}")]);
    let all_listen = || listeners().ends_with(&format!("\n{}", nodes.len()));
    assert!(all_listen(), "{}", listeners());
    // Everybody else goes on saying that it has the slot, and nodes ask whom they will.
    let refused = || {
        let stats = server.info("commandstats", "cmdstat_ssubscribe").unwrap_or_default();
        let mut fields = stats.split(',').filter_map(|field| field.strip_prefix("rejected_calls="));
        fields.next().and_then(|count| count.parse().ok()).unwrap_or(0)
    };
    server.must(&["CLUSTER", "DELSLOTS", &slot]);
    wait_until("all nodes were refused", async || refused() >= nodes.len()).await;
    server.must(&["CLUSTER", "ADDSLOTS", &slot]);
    wait_until("all nodes listen again", async || all_listen()).await;
    let [first, others @ ..] = &mut clients[..] else { unreachable!("four") };
    first.insist(room, uuid::Uuid::new_v4(), "here we are").await;
    for other in others {
        other.hear(room, "here we are").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_slots_are_on_their_way_is_not_let_go_of() {
    let redis = Cluster::start(3, 0);
    let room = &redis.rooms_of(0, 1)[0];
    let node = Node::start(&["--redis", &redis.url()]).await;
    let mut client = Json::connect(&node.ws_url(), "").await;
    client.join(room).await;
    client.insist(room, uuid::Uuid::new_v4(), "before").await;
    let listening = || {
        let listed = redis.servers()[0].cli(&["CLIENT", "LIST", "TYPE", "pubsub"]);
        listed.split(' ').next().map(str::to_owned)
    };
    let connection = listening();
    assert!(connection.as_ref().is_some_and(|id| id.starts_with("id=")), "{connection:?}");
    redis.set_moving(0, Some(1));
    let trouble = r#"townhall_broker_trouble{reason="topology"}"#;
    wait_until("it is noticed", async || node.metric(trouble).await == 1.0).await;
    let ready = node.ops("/readyz").await.expect("an answer");
    assert!(ready.body.contains("on their way"), "{}", ready.body);
    redis.set_moving(0, None);
    wait_until("all is well", async || node.metric("townhall_broker_up").await == 1.0).await;
    client.insist(room, uuid::Uuid::new_v4(), "after").await;
    assert_eq!(listening(), connection, "it is the same connection");
}
