//! A node that is asked to leave does it politely.

use serde_json::json;

use crate::harness::{Faithful, Json, Line, Node, Plain, RedisServer, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_loses_nothing_that_was_accepted() {
    const EACH: usize = 200;
    let redis = RedisServer::start();
    let options = ["--redis", &redis.url(), "--rate", "0", "--drain", "3s"];
    let mut nodes = Node::start_many(3, &options).await;
    let urls: Vec<String> = nodes.iter().map(Node::ws_url).collect();
    let clients = Faithful::join_many(30, &urls, "lobby").await;
    let total = EACH * clients.len();
    for number in 0..EACH {
        for client in &clients {
            client.say(&format!("message {number}"));
        }
    }
    clients[0].wait_reached(total as u64 / 5).await;
    nodes[0].terminate();
    assert!(clients.iter().any(|client| client.record().accepted.len() < EACH), "it was not under load");
    for client in &clients {
        client.wait_accepted(EACH).await;
        client.wait_reached(total as u64).await;
    }
    let status = nodes[0].wait_exit().await;
    assert!(status.success(), "{status}");
    for (number, client) in clients.iter().enumerate() {
        let moved = if number % 3 == 0 { 2 } else { 1 };
        wait_until("those of the node have moved, and only they", async || client.record().connections == moved).await;
        assert_eq!(client.record().closes.len(), 0, "they left by themselves");
    }
    Faithful::assert_one_room(&clients, total);
}

#[tokio::test]
async fn a_leaving_node_fails_readyz_serves_until_the_slot_and_then_closes_1012() {
    let mut node = Node::start(&["--drain", "4s"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "before").await;
    ada.hear("lobby", "before").await;
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin&last=1").await;
    lewin.expect("ada:before").await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("here").await;
    let here = format!("{}:here", nc.address);
    nc.until(&here).await;
    lewin.expect(&here).await;
    ada.hear("lobby", "here").await;

    node.terminate();
    let slot = ada.expect_type("reconnect").await;
    let after_ms = slot["after_ms"].as_u64().expect("a reconnect has an after_ms");
    assert!(after_ms <= 3200, "within 0.8 of --drain: {slot}");
    assert_ne!(node.readiness().await, 200);
    ada.said("lobby", "still here").await;
    ada.hear("lobby", "still here").await;

    let (code, reason) = ada.until_closed().await;
    assert_eq!(code, 1012, "{reason}");
    assert!(!reason.is_empty());
    let closed = loop {
        if let Err(closed) = lewin.next_or_close().await {
            break closed;
        }
    };
    assert_eq!(closed.0, 1012, "{}", closed.1);
    while nc.next_or_end().await.is_some() {}
    let status = node.wait_exit().await;
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn a_node_with_nobody_leaves_at_once() {
    let mut node = Node::start(&["--drain", "10m"]).await;
    node.terminate();
    assert!(node.wait_exit().await.success());
}

#[tokio::test]
async fn a_leaving_node_whose_last_client_has_left_does_not_wait_for_the_rest_of_its_time() {
    let mut node = Node::start(&["--drain", "10m"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    node.terminate();
    ada.expect_type("reconnect").await;
    drop(ada);
    assert!(node.wait_exit().await.success());
}

#[tokio::test]
async fn a_second_signal_ends_a_leaving_node_at_once() {
    let mut node = Node::start(&["--drain", "10m"]).await;
    let mut clients = Vec::new();
    for number in 0..5 {
        let mut client = Json::connect(&node.ws_url(), &format!("?name=client-{number}")).await;
        client.join("lobby").await;
        clients.push(client);
    }
    node.signal("INT");
    for client in &mut clients {
        client.expect_type("reconnect").await;
    }
    node.terminate();
    node.wait_exit().await; // with five clients in slots over eight minutes, it would not end by itself
}

#[tokio::test]
async fn a_leaving_node_takes_no_new_clients() {
    let node = Node::start(&["--drain", "10m"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    node.terminate();
    ada.expect_type("reconnect").await;
    wait_until("the listener is closed", async || {
        match Json::try_connect(&node.ws_url(), "").await {
            Ok(_) => panic!("let in while leaving"),
            // What was queued at the listener is sent on with a word.
            Err(refused) if refused.status == 503 => {
                assert!(refused.retry_after.is_some());
                false
            }
            Err(refused) => refused.status == 0,
        }
    })
    .await;
    ada.send(json!({"type": "leave", "room": "lobby"})).await;
    ada.expect_type("left").await;
}
