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

    /// Every node says what is wrong, wherever one may look; who was ready stays ready.
    async fn assert_said(&self, reason: &str, words: &str) {
        let said = if reason == "permission" { "may not do what townhall needs" } else { words };
        let trouble = format!("townhall_broker_trouble{{reason=\"{reason}\"}}");
        for node in &self.nodes {
            wait_until(&format!("{reason} is counted"), async || node.metric(&trouble).await == 1.0).await;
            assert_eq!(node.metric("townhall_broker_up").await, 0.0);
            // The first words may be vaguer, and the log has the first ones of each kind.
            let ready = async || node.ops("/readyz").await.expect("an answer");
            wait_until(&format!("/readyz says {words}"), async || ready().await.body.contains(words)).await;
            assert_eq!(ready().await.status, 200, "it was ready once");
            assert!(node.log().contains(said), "{}", node.log());
        }
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
    // More at a time than what a connection holds besides.
    for burst in 1..=5 {
        for number in 1..=20 {
            talker.say("kitchen", &format!("{burst} {number} {}", "long ".repeat(700))).await;
        }
        listener.reach("kitchen", 20 * burst).await;
        talker.reach("kitchen", 20 * burst).await;
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

/// While nothing is stored one can come in, at a node that begins only now, too, and is refused what one says.
async fn assert_open_to_listeners(nodes: &[Node], redis: &RedisServer) {
    let begun_now = Node::start(&["--redis", &redis.url()]).await;
    for node in nodes.iter().chain([&begun_now]) {
        let mut late = Json::connect(&node.ws_url(), "?name=late").await;
        late.join("lobby").await;
        late.join("elsewhere").await;
        let id = late.say("elsewhere", "nobody keeps that").await;
        let refused = late.until_type("error").await;
        assert_eq!((&refused["code"], &refused["id"]), (&"unavailable".into(), &id.to_string().into()), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_out_of_memory_refuses_what_is_said_and_still_lets_people_in() {
    let scene = Scene::begin().await;
    scene.redis.must(&["CONFIG", "SET", "maxmemory", "1mb"]);
    scene.crowd.notice("unavailable").await;
    scene.assert_said("memory", "its memory is full (maxmemory)").await;
    assert_open_to_listeners(&scene.nodes, &scene.redis).await;
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
    scene.assert_said("disk", "it cannot write to its disk").await;
    assert_open_to_listeners(&scene.nodes, &scene.redis).await;
    std::fs::remove_dir_all(scene.redis.directory().join("dump.rdb")).expect("the directory is removed");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_whose_disk_is_full_refuses_what_is_said_and_still_lets_people_in() {
    let redis = RedisServer::start_on_disk(512, &["--appendonly", "yes"]);
    let url = redis.url();
    let scene = Scene::at(redis, &url).await;
    scene.crowd.notice("unavailable").await;
    assert_eq!(scene.redis.info("persistence", "aof_last_write_status").as_deref(), Some("err"));
    scene.assert_said("disk", "it cannot write to its disk").await;
    assert_open_to_listeners(&scene.nodes, &scene.redis).await;
    scene.redis.free_disk();
    scene.redis.wait_for_info("persistence", "aof_last_write_status", "ok");
    // What was freed is enough to prove that all goes on, and not for a rewrite.
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_reads_a_long_file_at_its_start_is_waited_for() {
    let options = ["--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "local"];
    // While it loads it looks at its connections every so many bytes, which by itself would be every two seconds here.
    let slowly = ["--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"];
    let mut scene = Scene::begin_with(&[&options[..], &slowly].concat()).await;
    // 4,000 keys more, each of which takes a millisecond to load.
    scene.redis.must(&["DEBUG", "POPULATE", "4000"]);
    scene.redis.cli(&["BGREWRITEAOF"]);
    scene.redis.wait_for_info("persistence", "aof_rewrites", "1");
    scene.redis.wait_for_info("persistence", "aof_rewrite_in_progress", "0");
    scene.redis.restart_loading();
    scene.assert_said("loading", "it is reading its data from disk").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_made_a_replica_and_a_master_again_is_waited_for() {
    let scene = Scene::begin().await;
    let other = RedisServer::start_replica_of(&scene.redis, &[]);
    scene.redis.stop_writing(&[&other]);
    other.must(&["REPLICAOF", "NO", "ONE"]);
    scene.redis.must(&["REPLICAOF", "127.0.0.1", &other.port().to_string()]);
    scene.redis.must(&["CLIENT", "UNPAUSE"]);
    scene.assert_said("read_only", "it is a replica, which takes no messages").await;
    scene.redis.must(&["REPLICAOF", "NO", "ONE"]);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_changed_is_said_and_asked_for_again() {
    let redis = RedisServer::start_with(&["--requirepass", "old"]);
    let url = format!("redis://:old@127.0.0.1:{}", redis.port());
    let scene = Scene::at(redis, &url).await;
    let cli = |password, arguments: &[&str]| scene.redis.cli_with(&["-a", password], arguments);
    // Who is in stays in, as long as its connection lives.
    assert_eq!(cli("old", &["CONFIG", "SET", "requirepass", "new"]), "OK");
    scene.crowd.hear_more(20).await;
    cli("new", &["CLIENT", "KILL", "TYPE", "pubsub"]);
    cli("new", &["CLIENT", "KILL", "TYPE", "normal"]);
    scene.assert_said("login", "wrong user or password").await;
    assert!(scene.nodes.iter().all(|node| !node.log().contains(":old@")), "the password is in the log");
    assert_eq!(cli("new", &["CONFIG", "SET", "requirepass", "old"]), "OK");
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_that_are_taken_away_are_named_and_waited_for() {
    let redis = RedisServer::start();
    grant(&redis);
    let url = format!("redis://hall:PASSWORD@127.0.0.1:{}", redis.port());
    let scene = Scene::at(redis, &url).await;
    for (right, words) in [("fcall", "fcall"), ("xadd", "XADD"), ("publish", "PUBLISH")] {
        scene.redis.must(&["ACL", "SETUSER", "hall", &format!("-{right}")]);
        scene.crowd.notice("unavailable").await;
        scene.assert_said("permission", words).await;
        scene.redis.must(&["ACL", "SETUSER", "hall", &format!("+{right}")]);
        scene.wait_up(true).await;
        scene.crowd.hear_more(20).await;
    }
    scene.end().await;
}

/// The user `hall`, made exactly as docs/redis.md says.
fn grant(redis: &RedisServer) {
    let page = include_str!("../../docs/redis.md");
    let (_, rest) = page.split_once("ACL SETUSER hall ").expect("how the user is made");
    let (rules, _) = rest.split_once("```").expect("the end of that");
    let command: Vec<&str> = ["ACL", "SETUSER", "hall"].into_iter().chain(rules.split_whitespace()).collect();
    redis.must(&command);
}

#[tokio::test]
async fn a_user_without_one_of_the_rights_is_refused_and_told_which() {
    let redis = RedisServer::start();
    let url = format!("redis://hall:PASSWORD@127.0.0.1:{}", redis.port());
    for (rule, named) in [
        ("-fcall", "fcall"),
        ("-function", "function"),
        ("-info", "info"),
        ("-publish", "PUBLISH"),
        ("-subscribe", "SUBSCRIBE"),
        ("-xadd", "XADD"),
        ("-xinfo", "XINFO"),
        ("-hset", "HSET"),
        ("-rename", "RENAME"),
        ("resetkeys", "the keys ~townhall:*"),
        ("resetchannels", "SUBSCRIBE on townhall:0:*"),
    ] {
        grant(&redis);
        redis.must(&["ACL", "SETUSER", "hall", rule]);
        let said = Node::refused(&["--redis", &url]).await;
        assert!(said.contains("may not do what townhall needs") && said.contains(named), "{rule}: {said}");
        assert!(!said.contains("PASSWORD"), "{said}");
    }
    // And with all of them it is let in.
    grant(&redis);
    Node::start(&["--redis", &url]).await;
}

#[tokio::test]
async fn a_node_that_is_given_a_replica_waits_until_that_is_a_master() {
    let redis = RedisServer::start();
    let replica = RedisServer::start_replica_of(&redis, &[]);
    let node = Node::start_unready(&["--redis", &replica.url()]).await;
    let ready = node.ops("/readyz").await.expect("an answer");
    assert!(ready.status == 503 && ready.body.contains("it is a replica"), "{ready:?}");
    replica.must(&["REPLICAOF", "NO", "ONE"]);
    node.wait_ready().await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "hello").await;
}

#[tokio::test]
async fn a_redis_that_may_drop_history_when_memory_is_short_is_warned_of() {
    let redis = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let node = Node::start(&["--redis", &redis.url()]).await;
    assert!(node.log().contains("maxmemory-policy is allkeys-lru"), "{}", node.log());
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    assert!(!node.log().contains("maxmemory-policy"), "{}", node.log());
}
