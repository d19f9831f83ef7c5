//! Who is here, at whatever node; who came and went; who is typing.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::harness::{Cut, Json, Line, Node, Plain, RedisServer, wait_until};

/// The names in a list of members.
fn names(list: &Value) -> Vec<&str> {
    let members = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    members.iter().map(|member| member["name"].as_str().expect("a name")).collect()
}

/// Somebody who is in the lobby.
async fn in_lobby(node: &Node, name: &str) -> Json {
    let mut client = Json::connect(&node.ws_url(), &format!("?name={name}")).await;
    client.join("lobby").await;
    client
}

#[tokio::test]
async fn members_of_every_door_and_node_are_counted_once_and_told_to_all() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url(), "--presence-grace", "0"]).await;
    let mut ada = Json::connect(&nodes[0].ws_url(), "?name=ada").await;
    let joined = ada.join("lobby").await;
    assert_eq!(joined["members"], 1, "{joined}");
    assert_eq!(ada.who("lobby").await, ["ada"]);

    let key = Uuid::new_v4();
    let mut ben = Json::connect(&nodes[1].ws_url(), &format!("?name=ben&key={key}")).await;
    let joined = ben.join("lobby").await;
    assert_eq!(joined["members"], 2, "{joined}");
    let told = ada.until_presence("of ben", |event| event["count"] == 2).await;
    assert_eq!((names(&told["joined"]), names(&told["left"])), (vec!["ben"], vec![]));
    assert_eq!(told["joined"][0]["id"], ben.welcome["user"]["id"]);
    assert_eq!(told["room"], "lobby");
    assert!(told.get("offset").is_none() && told.get("at").is_none(), "it moves no position: {told}");

    // The same person once more, at the other node: nobody new.
    let mut again = Json::connect(&nodes[0].ws_url(), &format!("?name=ben&key={key}")).await;
    assert_eq!(again.join("lobby").await["members"], 2);

    let mut lewin = Plain::connect(&nodes[1].ws_url(), "?name=lewin").await;
    let told = ada.until_presence("of lewin", |event| event["count"] == 3).await;
    assert_eq!(names(&told["joined"]), ["lewin"]);
    let mut nc = Line::connect(nodes[0].tcp_addr()).await;
    nc.say("/name zoe").await;
    ben.until_presence("of zoe", |event| event["count"] == 4 && names(&event["joined"]) == ["zoe"]).await;
    assert_eq!(ben.who("lobby").await, ["ada", "ben", "lewin", "zoe"]);
    nc.expect("! name you are zoe").await;
    nc.say("/who").await;
    nc.expect("! who 4 here: ada, ben, lewin, zoe").await;

    // One of two connections of the same person ends: nobody has left.
    drop(again);
    drop(nc);
    let told = ada.until_presence("of zoe's end", |event| event["count"] == 3).await;
    assert_eq!((names(&told["joined"]), names(&told["left"])), (vec![], vec!["zoe"]));
    ben.send(json!({"type": "leave", "room": "lobby"})).await;
    ben.until_type("left").await;
    let told = ada.until_presence("of ben's leaving", |event| event["count"] == 2).await;
    assert_eq!(names(&told["left"]), ["ben"]);
    lewin.say("bye").await;
    ada.hear("lobby", "bye").await;
    assert_eq!(ada.who("lobby").await, ["ada", "lewin"]);
}
