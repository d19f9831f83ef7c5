//! Who is there and silent stays; who is gone is found out.

use serde_json::json;

use crate::harness::{Cut, Json, Line, Node, Plain, wait_until};

#[tokio::test]
async fn a_quiet_connection_gets_beats_and_stays() {
    let node = Node::start(&["--beat", "1s"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    assert_eq!(ada.welcome["beat"], 1);
    ada.join("lobby").await;
    // A listener at the line door is silent all the time.
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("here").await;
    nc.until(&format!("{}:here", nc.address)).await;
    ada.hear("lobby", "here").await;
    for _ in 0..5 {
        assert_eq!(ada.next_with_beats().await, json!({"type": "beat"}));
    }
    ada.said("lobby", "still here").await;
    let name = ada.welcome["user"]["name"].as_str().expect("a name");
    nc.expect(&format!("{name}:still here")).await;
}

#[tokio::test]
async fn without_a_beat_there_are_none() {
    let node = Node::start(&["--beat", "0"]).await;
    let ada = Json::connect(&node.ws_url(), "?name=ada").await;
    assert_eq!(ada.welcome["beat"], 0);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_4102() {
    let node = Node::start(&["--beat", "1s"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    // Neither reads, so neither answers.
    for door in ["json", "plain"] {
        wait_until("it is closed", async || {
            let open = format!("townhall_connections{{door=\"{door}\"}}");
            node.metric(&open).await == 0.0
        })
        .await;
    }
    assert_eq!(ada.unanswered_close().await, Some(4102));
    assert_eq!(lewin.unanswered_close().await, Some(4102));
}

#[tokio::test]
async fn a_client_behind_a_dead_wire_is_let_go() {
    let node = Node::start(&["--beat", "1s"]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let mut ada = Json::connect(&wire.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    wire.swallow_all(true);
    // It reads and would answer, but no ping comes through.
    assert_eq!(ada.until_closed().await.0, 1006);
    wait_until("it is let go", async || node.metric(r#"townhall_connections{door="json"}"#).await == 0.0).await;
}
