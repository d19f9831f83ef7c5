//! Joining, leaving, talking and looking back, word by word.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::harness::{Json, Node, Plain, Position, RedisServer, wait_until};

/// Ada in the lobby, after having said `1` to `count`.
async fn ada_after(node: &Node, count: usize) -> Json {
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for number in 1..=count {
        ada.said("lobby", &number.to_string()).await;
    }
    ada.reach("lobby", count as u64).await;
    ada
}

fn texts(history: &Value) -> Vec<&str> {
    let messages = history["messages"].as_array().expect("a list of messages");
    let texts = messages.iter().map(|message| message["text"].as_str());
    texts.map(|text| text.expect("a text")).collect()
}

fn numbers(first: u64, last: u64) -> Vec<String> {
    (first..=last).map(|number| number.to_string()).collect()
}

#[tokio::test]
async fn the_welcome_says_who_one_is_and_what_is_allowed() {
    let node = Node::start(&[
        "--max-text",
        "1KiB",
        "--max-rooms",
        "3",
        "--rate",
        "7",
        "--burst",
        "9",
        "--dedupe",
        "5m",
        "--history",
        "123",
        "--beat",
        "11s",
    ])
    .await;
    let ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let welcome = &ada.welcome;
    assert_eq!(welcome["user"]["name"], "ada");
    assert!(welcome["user"]["id"].as_str().is_some_and(|id| id.starts_with("guest-")));
    assert!(welcome["node"].is_string(), "{welcome}");
    assert!(welcome["session"].is_string(), "{welcome}");
    assert_eq!(welcome["beat"], 11);
    assert_eq!(welcome["rooms"], json!(["lobby"]));
    let limits = json!({
        "text_bytes": 1024, "data_bytes": 4096, "rooms": 3, "rate": 7, "burst": 9, "dedupe_s": 300,
        "history": 123,
    });
    for (name, value) in limits.as_object().expect("an object") {
        assert_eq!(welcome["limits"][name], *value, "{name}");
    }
}

#[tokio::test]
async fn a_guest_is_the_same_person_with_the_same_key_on_every_node_and_nobody_else_is() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let key = Uuid::new_v4();
    let mut ids = Vec::new();
    for node in &nodes {
        let ada = Json::connect(&node.ws_url(), &format!("?name=ada&key={key}")).await;
        ids.push(ada.welcome["user"]["id"].clone());
        let other = Json::connect(&node.ws_url(), &format!("?name=ada&key={}", Uuid::new_v4())).await;
        assert_ne!(other.welcome["user"]["id"], ids[0]);
        let keyless = Json::connect(&node.ws_url(), "?name=ada").await;
        assert_ne!(keyless.welcome["user"]["id"], ids[0]);
    }
    assert_eq!(ids[0], ids[1]);
}

#[tokio::test]
async fn who_gives_no_name_is_called_by_its_address() {
    let node = Node::start(&[]).await;
    let somebody = Json::connect(&node.ws_url(), "").await;
    let name = somebody.welcome["user"]["name"].as_str().expect("a name");
    let address: std::net::SocketAddr = name.parse().expect("an ip:port");
    assert!(address.ip().is_loopback());
}

#[tokio::test]
async fn a_message_carries_who_when_what_and_where() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let id = Uuid::new_v4();
    let data = json!({"mood": "fine", "nested": [1, {"two": null}], "breaks": "a\nb"});
    ada.send(json!({
        "type": "say", "room": "lobby", "id": id, "text": "h\u{e9}llo \"you\"\n\u{1f600}",
        "data": data, "ref": 5, "unknown": "ignored",
    }))
    .await;
    let accepted = ada.until_type("accepted").await;
    assert_eq!(accepted["ref"], 5);
    assert_eq!(accepted["offset"], 1);
    let message = ada.hear("lobby", "h\u{e9}llo \"you\"\n\u{1f600}").await;
    assert_eq!(message["type"], "message");
    assert_eq!(message["room"], "lobby");
    assert_eq!(message["id"], id.to_string());
    assert_eq!(message["from"]["id"], ada.welcome["user"]["id"]);
    assert_eq!(message["from"]["name"], "ada");
    assert_eq!(message["data"], data);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().expect("after 1970").as_millis();
    let age = now as i128 - i128::from(message["at"].as_u64().expect("a time"));
    assert!(age.abs() < 60_000, "off by {age} ms: {message}");
    assert_eq!(accepted["epoch"], ada.position("lobby").epoch);
    ada.said("lobby", "no data").await;
    assert!(ada.hear("lobby", "no data").await.get("data").is_none());
}

#[tokio::test]
async fn a_message_of_data_alone_needs_no_text() {
    let node = Node::start(&[]).await;
    let mut ada = ada_after(&node, 0).await;
    let id = Uuid::new_v4();
    ada.send(json!({"type": "say", "room": "lobby", "id": id, "text": "", "data": {"wave": true}})).await;
    ada.accepted(id).await;
    assert_eq!(ada.hear("lobby", "").await["data"], json!({"wave": true}));
}

#[tokio::test]
async fn the_first_message_of_a_silent_room_brings_every_member_a_joined_before_it() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let alone = Node::start(&[]).await;
    for [here, there] in [[&alone, &alone], [&nodes[0], &nodes[1]]] {
        let mut ada = Json::connect(&here.ws_url(), "?name=ada").await;
        let mut ben = Json::connect(&there.ws_url(), "?name=ben").await;
        for client in [&mut ada, &mut ben] {
            let joined = client.join("lobby").await;
            assert_eq!(Position::of(&joined), Position::new("", 0));
            assert_eq!(joined["backlog"], 0);
            assert!(joined.get("recovered").is_none(), "{joined}");
        }
        let accepted = ada.said("lobby", "first").await;
        ada.hear("lobby", "first").await;
        let joined = ben.expect_type("joined").await;
        assert_eq!(joined["recovered"], true, "{joined}");
        assert_eq!(joined["epoch"], accepted.epoch);
        assert!(!accepted.epoch.is_empty());
        let message = ben.expect_type("message").await;
        assert_eq!((&message["offset"], &message["text"]), (&1.into(), &"first".into()));
        assert_eq!(ada.view("lobby").joined.len(), 2);
        // Only the first.
        ada.said("lobby", "second").await;
        assert_eq!(ben.expect_type("message").await["text"], "second");
    }
}

#[tokio::test]
async fn joining_brings_the_last_messages_as_many_as_asked() {
    let node = Node::start(&["--rate", "0"]).await;
    let ada = ada_after(&node, 250).await;
    let epoch = ada.position("lobby").epoch;
    for (last, backlog) in [(None, 50), (Some(0), 0), (Some(7), 7), (Some(200), 200), (Some(9999), 200)] {
        let mut ben = Json::connect(&node.ws_url(), "?name=ben").await;
        let mut command = json!({"type": "join", "room": "lobby", "ref": "r"});
        if let Some(last) = last {
            command["last"] = last.into();
        }
        let joined = ben.join_with(command).await;
        assert_eq!(joined["backlog"], backlog, "{last:?}: {joined}");
        assert_eq!(Position::of(&joined), Position::new(&epoch, 250));
        assert_eq!(joined["ref"], "r");
        assert!(joined.get("recovered").is_none(), "{joined}");
        ben.reach("lobby", 250).await;
        assert_eq!(ben.texts("lobby"), numbers(251 - backlog, 250));
        ben.expect_silence().await;
    }
}

#[tokio::test]
async fn joining_a_room_that_holds_less_brings_all_there_is() {
    let node = Node::start(&[]).await;
    let _ada = ada_after(&node, 3).await;
    let mut ben = Json::connect(&node.ws_url(), "?name=ben").await;
    let joined = ben.join("lobby").await;
    assert_eq!((&joined["offset"], &joined["backlog"]), (&3.into(), &3.into()));
    ben.reach("lobby", 3).await;
    assert_eq!(ben.texts("lobby"), numbers(1, 3));
}

#[tokio::test]
async fn nothing_of_a_room_follows_after_it_was_left() {
    let node = Node::start(&[]).await;
    let mut ada = ada_after(&node, 1).await;
    let mut ben = Json::connect(&node.ws_url(), "?name=ben").await;
    ben.join("lobby").await;
    ben.join("elsewhere").await;
    ben.hear("lobby", "1").await;
    ben.send(json!({"type": "leave", "room": "lobby", "ref": 3})).await;
    let left = ben.expect_type("left").await;
    assert_eq!((&left["room"], &left["ref"]), (&"lobby".into(), &3.into()));
    ada.said("lobby", "not for ben").await;
    ada.hear("lobby", "not for ben").await;
    ben.expect_silence().await;
    // He may come back, and finds what was said meanwhile.
    let joined = ben.join("lobby").await;
    assert_eq!(joined["backlog"], 2);
    ben.hear("lobby", "not for ben").await;
}

#[tokio::test]
async fn a_client_in_many_rooms_hears_each_in_its_order() {
    let node = Node::start(&["--rate", "0"]).await;
    let rooms = ["a", "b.c", "d_e", "0-1"];
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let mut ben = Json::connect(&node.ws_url(), "?name=ben").await;
    for room in rooms {
        ada.join(room).await;
        ben.join(room).await;
    }
    for number in 1..=50 {
        for room in rooms {
            ada.say(room, &number.to_string()).await;
        }
    }
    for room in rooms {
        ben.reach(room, 50).await;
        assert_eq!(ben.texts(room), numbers(1, 50), "in the order of saying");
    }
}

#[tokio::test]
async fn history_goes_back_page_by_page_and_moves_no_position() {
    let redis = RedisServer::start();
    let alone = Node::start(&["--rate", "0"]).await;
    let shared = Node::start(&["--rate", "0", "--redis", &redis.url()]).await;
    for node in [&alone, &shared] {
        let mut ada = ada_after(node, 250).await;
        let mut page = async |query: Value| {
            let mut command = json!({"type": "history", "room": "lobby", "ref": "h"});
            for (name, value) in query.as_object().expect("an object") {
                command[name] = value.clone();
            }
            ada.send(command).await;
            let history = ada.expect_type("history").await;
            assert_eq!((&history["room"], &history["ref"]), (&"lobby".into(), &"h".into()));
            assert_eq!(history["epoch"], ada.position("lobby").epoch);
            assert_eq!(ada.position("lobby").offset, 250, "it moved");
            history
        };
        let newest = page(json!({})).await;
        assert_eq!(texts(&newest), numbers(201, 250));
        assert_eq!(newest["more"], true);
        let message = &newest["messages"][0];
        assert_eq!((&message["offset"], &message["type"]), (&201.into(), &"message".into()));
        assert!(message["at"].is_u64() && message["id"].is_string(), "{message}");
        assert_eq!(message["from"]["name"], "ada");

        assert_eq!(texts(&page(json!({"before": 201, "limit": 3})).await), numbers(198, 200));
        assert_eq!(texts(&page(json!({"before": 9999, "limit": 1})).await), ["250"]);
        assert_eq!(texts(&page(json!({"limit": 9999})).await), numbers(51, 250));
        let oldest = page(json!({"before": 4, "limit": 3})).await;
        assert_eq!(texts(&oldest), numbers(1, 3));
        assert_eq!(oldest["more"], false);
        let rest = page(json!({"before": 4, "limit": 2})).await;
        assert_eq!(texts(&rest), numbers(2, 3));
        assert_eq!(rest["more"], true);
        for below in [0, 1] {
            let nothing = page(json!({"before": below})).await;
            assert!(texts(&nothing).is_empty(), "{nothing}");
            assert_eq!(nothing["more"], false);
        }
    }
}

#[tokio::test]
async fn history_of_a_silent_room_is_empty() {
    let node = Node::start(&[]).await;
    let mut ada = ada_after(&node, 0).await;
    ada.send(json!({"type": "history", "room": "lobby"})).await;
    let history = ada.expect_type("history").await;
    assert_eq!((&history["messages"], &history["more"]), (&json!([]), &false.into()));
    assert!(history.get("ref").is_none(), "{history}");
}

#[tokio::test]
async fn control_characters_are_dropped_at_every_door() {
    let node = Node::start(&[]).await;
    let mut ada = ada_after(&node, 0).await;
    ada.say("lobby", "a\u{0}b\u{7}c\td\ne\u{1b}[31m\u{7f}\u{85}").await;
    let message = ada.until_type("message").await;
    assert_eq!(message["text"], "abc\td\ne[31m");
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    lewin.say("x\u{8}y\tz").await;
    lewin.until("lewin:xy\tz").await;
    ada.hear("lobby", "xy\tz").await;
}

#[tokio::test]
async fn who_leaves_a_room_and_the_hall_in_one_breath_leaves_nothing_behind() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let before = node.metric("process_open_fds").await;
    for _ in 0..20 {
        let mut ben = Json::connect(&node.ws_url(), "?name=ben").await;
        ben.join("lobby").await;
        let leave = json!({"type": "leave", "room": "lobby"}).to_string();
        ben.send_together(vec![Message::text(leave), Message::Close(None)]).await;
        ben.until_closed().await;
    }
    wait_until("their sockets are closed", async || node.metric("process_open_fds").await < before + 10.0).await;
}

#[tokio::test]
async fn what_was_sent_in_one_go_is_answered_to_the_end_however_much_the_answers_are() {
    // Without a beat, nothing but the client's own socket makes the hall look after it.
    let node = Node::start(&["--rate", "0", "--beat", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for _ in 0..40 {
        ada.said("lobby", &"x".repeat(4000)).await;
    }
    ada.reach("lobby", 40).await;
    let history = json!({"type": "history", "room": "lobby", "limit": 200}).to_string();
    let leave = json!({"type": "leave", "room": "lobby"}).to_string();
    let mut commands = vec![Message::text(history); 12];
    commands.push(Message::text(leave));
    ada.send_together(commands).await;
    for _ in 0..12 {
        ada.expect_type("history").await;
    }
    ada.expect_type("left").await;
}

#[tokio::test]
async fn nothing_of_a_room_follows_left_not_even_history_that_was_asked_for_before() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    redis.pause();
    let history = json!({"type": "history", "room": "lobby", "ref": 1}).to_string();
    let leave = json!({"type": "leave", "room": "lobby"}).to_string();
    ada.send_together(vec![Message::text(history), Message::text(leave)]).await;
    let refused = ada.expect_error("unavailable").await;
    assert_eq!(refused["ref"], 1, "{refused}");
    ada.expect_type("left").await;
    redis.resume();
}
