//! Nodes of this version and of a later one share rooms: what is new is passed on or left out, and never mistaken for
//! something else.

use serde_json::json;
use uuid::Uuid;

use crate::harness::{Faithful, Json, Line, Node, Plain, RedisServer, wait_until};

const CHANNEL: &str = "townhall:0:{lobby}";

/// An event of a type that this version does not know.
fn poll(question: &str) -> String {
    json!({"type": "poll", "id": Uuid::new_v4(), "question": question, "options": [{"a": 1}, null], "offsets": [9]})
        .to_string()
}

#[tokio::test]
async fn an_event_of_an_unknown_type_reaches_json_clients_as_it_is_and_nobody_else() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(3, &["--redis", &redis.url()]).await;
    let urls: Vec<String> = nodes.iter().map(Node::ws_url).collect();
    let crowd = Faithful::join_many(3, &urls, "lobby").await;
    let mut ada = Json::connect(&urls[0], "?name=ada").await;
    ada.join("lobby").await;
    let mut lewin = Plain::connect(&urls[1], "?name=lewin").await;
    lewin.say("before").await;
    lewin.until("lewin:before").await;
    let mut nc = Line::connect(nodes[2].tcp_addr()).await;
    nc.say("/name nc").await;
    nc.say("here").await;
    nc.until("nc:here").await;
    lewin.until("nc:here").await;
    let before = ada.position("lobby");

    let stored = poll("what now?");
    let offset = redis.store_event("lobby", &stored);
    ada.said("lobby", "after").await;
    // The next line of those who know no polls is what was said after it.
    lewin.expect("ada:after").await;
    nc.expect("ada:after").await;
    let mut expected: serde_json::Value = serde_json::from_str(&stored).expect("JSON");
    let heard = ada.until_poll().await;
    expected["room"] = "lobby".into();
    expected["offset"] = offset.into();
    expected["at"] = heard["at"].clone();
    assert!(heard["at"].is_u64());
    assert_eq!(heard, expected);

    // Whoever resumes, from a window or from the broker, and whoever reads back gets it, too.
    let newcomer = Node::start(&["--redis", &redis.url()]).await;
    for url in [&urls[1], &newcomer.ws_url()] {
        let mut ben = Json::connect(url, "?name=ben").await;
        let joined = ben.resume("lobby", &before).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        assert_eq!(ben.until_poll().await, expected);
        ben.send(json!({"type": "history", "room": "lobby"})).await;
        let history = ben.until_type("history").await;
        let polls = history["messages"].as_array().expect("a list").iter().filter(|event| event["type"] == "poll");
        assert_eq!(polls.collect::<Vec<_>>(), [&expected]);
    }
    for client in &crowd {
        client.wait_reached(offset + 1).await;
    }
    Faithful::assert_one_room(&crowd, offset as usize + 1);
}

impl Json {
    async fn until_poll(&mut self) -> serde_json::Value {
        if let Some(poll) =
            self.rooms.get("lobby").and_then(|view| view.messages.iter().find(|it| it["type"] == "poll"))
        {
            return poll.clone();
        }
        self.until_type("poll").await
    }
}

#[tokio::test]
async fn lines_of_a_newer_format_are_left_out_and_said_once() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let mut ada = Json::connect(&nodes[0].ws_url(), "?name=ada").await;
    let mut ben = Json::connect(&nodes[1].ws_url(), "?name=ben").await;
    ada.join("lobby").await;
    ben.join("lobby").await;
    ada.said("lobby", "before").await;
    let epoch = ada.position("lobby").epoch;
    for line in [
        format!("2 {epoch} 2 1700000000000 {}", json!({"type": "message", "text": "not for us"})),
        format!("2 {{\"epoch\":\"{epoch}\",\"offset\":2}}"),
        "2".to_owned(),
        format!("17 {epoch} 2 1700000000000 {{}}"),
    ] {
        assert_eq!(redis.cli(&["PUBLISH", CHANNEL, &line]), "2", "both nodes got it");
    }
    ada.said("lobby", "after").await;
    for client in [&mut ada, &mut ben] {
        client.hear("lobby", "after").await;
        assert_eq!(client.texts("lobby"), ["before", "after"]);
        client.expect_silence().await;
    }
    for node in &nodes {
        let said = || node.log().matches("a newer townhall writes to this room").count();
        wait_until("the node says so", async || said() > 0).await;
        assert_eq!(said(), 1);
    }
}

#[tokio::test]
async fn a_room_in_a_newer_format_is_refused_and_others_go_on() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let mut ada = Json::connect(&nodes[0].ws_url(), "?name=ada").await;
    for room in ["lobby", "kitchen"] {
        ada.join(room).await;
        ada.said(room, "before").await;
    }
    redis.cli(&["HSET", "townhall:{lobby}:meta", "format", "2"]);

    let id = ada.say("lobby", "lost on them").await;
    let refused = ada.until_type("error").await;
    assert_eq!((&refused["room"], &refused["id"]), (&"lobby".into(), &id.to_string().into()), "{refused}");
    ada.said("kitchen", "after").await;
    ada.hear("kitchen", "after").await;
    assert_eq!(ada.texts("lobby"), ["before"]);

    // Where it is not open yet, nobody comes in.
    let mut ben = Json::connect(&nodes[1].ws_url(), "?name=ben").await;
    ben.send(json!({"type": "join", "room": "lobby", "ref": 1})).await;
    let refused = ben.until_type("error").await;
    assert_eq!((&refused["room"], &refused["ref"]), (&"lobby".into(), &1.into()), "{refused}");
    ben.join("kitchen").await;
    ben.hear("kitchen", "after").await;
    // And nothing of it was touched.
    assert_eq!(redis.cli(&["HGET", "townhall:{lobby}:meta", "format"]), "2");
    assert_eq!(redis.cli(&["XLEN", "townhall:{lobby}:log"]), "1");
}
