//! Redis goes away and comes back: with everything, with less, with nothing.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::harness::{Cut, Faithful, Json, Line, Node, Plain, RedisServer, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_stopped_for_ten_seconds_disconnects_nobody_and_loses_nothing() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let urls: Vec<String> = nodes.iter().map(Node::ws_url).collect();
    let crowd = Faithful::join_many(6, &urls, "lobby").await;
    let mut ada = Json::connect(&nodes[0].ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut lewin = Plain::connect(&nodes[1].ws_url(), "?name=lewin").await;
    lewin.say("before").await;
    lewin.expect("lewin:before").await;
    let mut nc = Line::connect(nodes[1].tcp_addr()).await;
    let nc_name = nc.address.to_string();
    nc.say("before").await;
    nc.until(&format!("{nc_name}:before")).await;
    lewin.expect(&format!("{nc_name}:before")).await;
    ada.reach("lobby", 2).await;

    redis.pause();
    let back = Instant::now() + Duration::from_secs(10);
    let id = ada.say("lobby", "ada, meanwhile").await;
    let refused = ada.expect_error("unavailable").await;
    assert!(Instant::now() < back, "refused only when Redis was back");
    assert_eq!(refused["id"], id.to_string());
    assert_eq!(refused["room"], "lobby");
    assert!(refused["retry_after_ms"].is_u64(), "{refused}");
    ada.send(serde_json::json!({"type": "join", "room": "elsewhere", "ref": 7})).await;
    let refused = ada.expect_error("unavailable").await;
    assert_eq!(refused["ref"], 7);
    assert!(refused["retry_after_ms"].is_u64(), "{refused}");
    lewin.say("lewin, meanwhile").await;
    nc.say("nc, meanwhile").await;
    for client in &crowd {
        client.say("a faithful one, meanwhile");
    }
    for node in &nodes {
        wait_until("the node knows", async || node.metric("townhall_broker_up").await == 0.0).await;
        assert_eq!(node.readiness().await, 200, "it was ready once");
    }
    sleep_until(back).await; // how long it is away is what is tested
    redis.resume();

    let total = 2 + 1 + 2 + crowd.len() as u64;
    ada.insist("lobby", id, "ada, meanwhile").await;
    for client in &crowd {
        client.wait_accepted(1).await;
        client.wait_reached(total).await;
    }
    ada.reach("lobby", total).await;
    Faithful::assert_one_room(&crowd, total as usize);
    for client in &crowd {
        assert_eq!(client.record().connections, 1, "nobody was disconnected");
    }
    let lines: Vec<String> = ada.texts("lobby").split_off(2);
    for text in ["ada, meanwhile", "lewin, meanwhile", "nc, meanwhile"] {
        assert_eq!(lines.iter().filter(|line| *line == text).count(), 1, "{lines:?}");
    }
    for text in &lines {
        for heard in [next_line(lewin.next().await), next_line(nc.next().await)] {
            assert_eq!(heard, *text);
        }
    }
    // And on it goes.
    ada.said("lobby", "after").await;
    lewin.expect("ada:after").await;
    nc.expect("ada:after").await;
}

/// What was said, without who said it.
fn next_line(line: String) -> String {
    match line.rsplit_once(':') {
        Some((_, text)) => text.into(),
        None => panic!("nobody said {line:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_killed_and_restarted_with_its_append_only_file_loses_nothing_that_was_accepted() {
    const EACH: usize = 100;
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let nodes = Node::start_many(2, &["--redis", &redis.url(), "--rate", "0"]).await;
    let urls: Vec<String> = nodes.iter().map(Node::ws_url).collect();
    let clients = Faithful::join_many(10, &urls, "lobby").await;
    let mut visitor = Json::connect(&urls[0], "?name=visitor").await;
    visitor.join("lobby").await;
    let total = EACH * clients.len();
    for number in 0..EACH {
        for client in &clients {
            client.say(&format!("message {number}"));
        }
    }
    clients[0].wait_reached(total as u64 / 4).await;
    visitor.reach("lobby", 10).await;
    let before = visitor.position("lobby");
    drop(visitor);

    redis.kill();
    assert!(clients.iter().any(|client| client.record().accepted.len() < EACH), "it was not under load");
    redis.restart();
    for client in &clients {
        client.wait_accepted(EACH).await;
        client.wait_reached(total as u64).await;
        wait_until("the fork is told", async || client.record().unasked >= 2).await;
    }
    Faithful::assert_one_room(&clients, total);
    for client in &clients {
        assert_eq!(client.record().connections, 1, "nobody was disconnected");
    }
    // A position from before the restart is on the same branch, at every node.
    for url in &urls {
        let mut visitor = Json::connect(url, "?name=visitor").await;
        let joined = visitor.resume("lobby", &before).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        assert_ne!(joined["epoch"], before.epoch, "{joined}");
        visitor.reach("lobby", total as u64).await;
    }
}

#[tokio::test]
async fn redis_restarted_with_nothing_is_told_to_everyone_and_they_talk_on() {
    let mut redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let mut ada = Json::connect(&nodes[0].ws_url(), "?name=ada").await;
    let mut ben = Json::connect(&nodes[1].ws_url(), "?name=ben").await;
    ada.join("lobby").await;
    ben.join("lobby").await;
    for number in 1..=5 {
        ada.said("lobby", &format!("before {number}")).await;
    }
    ben.hear("lobby", "before 5").await;
    let before = ben.position("lobby");

    redis.kill();
    redis.restart_empty();
    for client in [&mut ada, &mut ben] {
        let told =
            client.until("told of a loss", |event| event["type"] == "joined" && event["recovered"] == false).await;
        assert_eq!(told["room"], "lobby");
        assert!(client.texts("lobby").is_empty());
    }
    let id = Uuid::new_v4();
    ada.insist("lobby", id, "after").await;
    for client in [&mut ada, &mut ben] {
        let message = client.hear("lobby", "after").await;
        assert_eq!(message["offset"], 1);
        assert_ne!(client.position("lobby").epoch, before.epoch);
        assert_eq!(client.texts("lobby"), ["after"]);
    }
    ben.said("lobby", "and on").await;
    ada.hear("lobby", "and on").await;

    let mut late = Json::connect(&nodes[0].ws_url(), "?name=late").await;
    let joined = late.resume("lobby", &before).await;
    assert_eq!(joined["recovered"], false, "{joined}");
    late.hear("lobby", "and on").await;
    assert_eq!(late.texts("lobby"), ["after", "and on"]);
}

#[tokio::test]
async fn redis_that_comes_back_with_less_is_told_to_those_who_saw_more() {
    let mut redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let mut ada = Json::connect(&nodes[0].ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for number in 1..=3 {
        ada.said("lobby", &format!("kept {number}")).await;
    }
    ada.hear("lobby", "kept 3").await;
    let kept = ada.position("lobby");
    assert_eq!(redis.cli(&["SAVE"]).trim(), "OK");
    for number in 1..=2 {
        ada.said("lobby", &format!("lost {number}")).await;
    }
    ada.hear("lobby", "lost 2").await;
    let lost = ada.position("lobby");

    redis.kill();
    redis.restart();
    let told = ada.until("told of a loss", |event| event["type"] == "joined" && event["recovered"] == false).await;
    assert_eq!((&told["offset"], &told["backlog"]), (&3.into(), &3.into()));
    ada.hear("lobby", "kept 3").await;
    ada.insist("lobby", Uuid::new_v4(), "new 1").await;
    ada.hear("lobby", "new 1").await;
    assert_eq!(ada.texts("lobby"), ["kept 1", "kept 2", "kept 3", "new 1"]);

    for node in &nodes {
        let mut ben = Json::connect(&node.ws_url(), "?name=ben").await;
        let joined = ben.resume("lobby", &kept).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        ben.hear("lobby", "new 1").await;
        assert_eq!(ben.texts("lobby"), ["new 1"]);

        // Offset 4 exists again, but it is another message.
        let mut eve = Json::connect(&node.ws_url(), "?name=eve").await;
        let mut seen = lost.clone();
        seen.offset = 4;
        let joined = eve.resume("lobby", &seen).await;
        assert_eq!(joined["recovered"], false, "{joined}");
        eve.hear("lobby", "new 1").await;
        assert_eq!(eve.texts("lobby"), ["kept 1", "kept 2", "kept 3", "new 1"]);
    }
}

#[tokio::test]
async fn whoever_was_told_that_a_message_is_stored_is_told_that_it_is_lost_though_it_was_never_heard() {
    let mut redis = RedisServer::start();
    let wire = Cut::in_front_of(([127, 0, 0, 1], redis.port()).into()).await;
    let node = Node::start(&["--redis", &format!("redis://{}", wire.address())]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    ada.join("lobby").await;
    ada.said("lobby", "kept").await;
    ada.hear("lobby", "kept").await;
    lewin.expect("ada:kept").await;
    assert_eq!(redis.cli(&["SAVE"]).trim(), "OK");
    // Nobody ever hears it: only its speaker knows of it.
    wire.mute_from("never heard");
    ada.said("lobby", "never heard").await;
    redis.kill();
    redis.restart();
    let told = ada.until("told of a loss", |event| event["type"] == "joined" && event["recovered"] == false).await;
    assert_eq!((&told["offset"], &told["backlog"]), (&1.into(), &1.into()));
    ada.insist("lobby", Uuid::new_v4(), "after").await;
    ada.hear("lobby", "after").await;
    assert_eq!(ada.texts("lobby"), ["kept", "after"]);
    // Who had nothing to lose is told nothing.
    lewin.expect("ada:after").await;
}

#[tokio::test]
async fn a_node_whose_redis_is_away_at_the_start_waits_and_then_works() {
    let mut redis = RedisServer::start();
    redis.kill();
    let node = Node::start_unready(&["--redis", &redis.url()]).await;
    assert_eq!(node.readiness().await, 503);
    let refused = Json::try_connect(&node.ws_url(), "?name=ada").await;
    let refused = refused.err().expect("let in before Redis was heard");
    assert_eq!(refused.status, 503, "{refused:?}");
    let seconds: Option<u64> = refused.retry_after.as_deref().and_then(|s| s.parse().ok());
    assert!(seconds.is_some(), "no Retry-After: {refused:?}");
    let refused = Plain::try_connect(&node.ws_url(), "?name=lewin").await;
    assert_eq!(refused.err().map(|refused| refused.status), Some(503));
    wait_until("the node says what it waits for", async || node.log().to_lowercase().contains("redis")).await;
    assert_eq!(node.ops("/healthz").await.expect("an answer").status, 200);

    redis.restart();
    node.wait_ready().await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "hello").await;
    ada.hear("lobby", "hello").await;
}

#[tokio::test]
async fn what_plain_and_tcp_clients_say_while_redis_is_away_is_repeated_for_them() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::start(&["--redis", &redis.url()]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    lewin.say("before").await;
    lewin.expect("lewin:before").await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    let nc_name = nc.address.to_string();
    nc.say("before").await;
    nc.until(&format!("{nc_name}:before")).await;
    ada.reach("lobby", 2).await;

    redis.kill();
    lewin.say("lewin, meanwhile").await;
    lewin.say("lewin, a little later").await;
    nc.say("nc, meanwhile").await;
    // Twice in a row: by then their first attempts have failed, too.
    for _ in 0..2 {
        ada.say("lobby", "lost on purpose").await;
        ada.expect_error("unavailable").await;
    }
    redis.restart();
    ada.reach("lobby", 5).await;
    let mut texts = ada.texts("lobby").split_off(2);
    let order = |text| texts.iter().position(|other| other == text);
    assert!(order("lewin, meanwhile") < order("lewin, a little later"), "{texts:?}");
    texts.sort();
    assert_eq!(texts, ["lewin, a little later", "lewin, meanwhile", "nc, meanwhile"]);
}

#[tokio::test]
async fn who_hangs_up_before_the_broker_let_them_in_gives_their_seat_back_and_what_they_said_is_said() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url(), "--beat", "1s"]).await;
    redis.pause();
    let here = r#"townhall_connections{door="plain"}"#;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(Plain::connect(&node.ws_url(), "?name=lewin").await);
    }
    let mut speaker = Plain::connect(&node.ws_url(), "?name=zoe").await;
    speaker.say("the last words of somebody").await;
    wait_until("they are here and on their way in", async || node.metric(here).await == 6.0).await;
    drop((clients, speaker));
    wait_until("who has nothing to say is gone", async || node.metric(here).await == 1.0).await;
    redis.resume();
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.hear("lobby", "the last words of somebody").await;
}
