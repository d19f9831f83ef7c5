//! Whatever is refused says why by its code, and the connection stays.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use crate::harness::{Json, Node};

/// A client in the lobby.
async fn ada_in_the_lobby(node: &Node) -> Json {
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada
}

/// Sends a command with a `ref`, which must be refused with `code`; then everything still works.
async fn assert_refused(ada: &mut Json, mut command: Value, code: &str) -> Value {
    let reference = Uuid::new_v4().to_string();
    command["ref"] = reference.clone().into();
    ada.send(command.clone()).await;
    let error = ada.expect_error(code).await;
    assert_eq!(error["ref"], reference, "{command} was answered with {error}");
    for field in ["id", "room"] {
        if command[field].is_string() {
            assert_eq!(error[field], command[field], "{command} was answered with {error}");
        }
    }
    assert_still_works(ada).await;
    error
}

async fn assert_still_works(ada: &mut Json) {
    let text = Uuid::new_v4().to_string();
    ada.said("lobby", &text).await;
    ada.hear("lobby", &text).await;
}

fn say(text: &str) -> Value {
    json!({"type": "say", "room": "lobby", "id": Uuid::new_v4(), "text": text})
}

#[tokio::test]
async fn what_is_no_command_is_a_bad_frame() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    for text in ["", "hello", "{", "[]", "null", "7", "{\"type\":7}", "{}", "{\"type\":\"say\"} x", &deep] {
        ada.send_text(text).await;
        ada.expect_error("bad_frame").await;
        assert_still_works(&mut ada).await;
    }
    ada.send_frame(Message::binary(say("binary").to_string().into_bytes())).await;
    ada.expect_error("bad_frame").await;
    assert_still_works(&mut ada).await;
}

#[tokio::test]
async fn a_missing_or_wrong_field_is_a_bad_frame() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    let id = Uuid::new_v4();
    for command in [
        json!({"type": "join"}),
        json!({"type": "join", "room": 7}),
        json!({"type": "join", "room": "lobby", "last": -1}),
        json!({"type": "join", "room": "lobby", "last": "many"}),
        json!({"type": "join", "room": "lobby", "after": 7}),
        json!({"type": "join", "room": "lobby", "after": {"epoch": "x"}}),
        json!({"type": "join", "room": "lobby", "after": {"epoch": "x", "offset": -1}}),
        json!({"type": "join", "room": "lobby", "after": {"epoch": 7, "offset": 1}}),
        json!({"type": "leave"}),
        json!({"type": "say", "room": "lobby", "text": "no id"}),
        json!({"type": "say", "room": "lobby", "id": 7, "text": "x"}),
        json!({"type": "say", "room": "lobby", "id": "7", "text": "no uuid"}),
        json!({"type": "say", "room": "lobby", "id": id}),
        json!({"type": "say", "room": "lobby", "id": id, "text": 7}),
        json!({"type": "say", "room": "lobby", "id": id, "text": "x", "data": 7}),
        json!({"type": "say", "room": "lobby", "id": id, "text": "x", "data": []}),
        json!({"type": "say", "id": id, "text": "no room"}),
        json!({"type": "history", "room": "lobby", "before": "x"}),
        json!({"type": "history", "room": "lobby", "limit": -1}),
        json!({"type": "history"}),
        say(""),
    ] {
        let reference = Uuid::new_v4().to_string();
        let mut sent = command.clone();
        sent["ref"] = reference.clone().into();
        ada.send(sent).await;
        let answer = ada.next().await;
        assert_eq!(answer["code"], "bad_frame", "{command} was answered with {answer}");
        assert_eq!(answer["ref"], reference, "{command} was answered with {answer}");
        assert_still_works(&mut ada).await;
    }
}

#[tokio::test]
async fn an_unknown_type_is_named_and_an_unknown_field_is_ignored() {
    let node = Node::start(&[]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    assert_refused(&mut ada, json!({"type": "dance"}), "unknown_type").await;
    ada.send(json!({"type": "dance", "ref": 12})).await;
    assert_eq!(ada.expect_error("unknown_type").await["ref"], 12);
}

#[tokio::test]
async fn a_room_with_a_bad_name_is_refused() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    for room in ["", "Lobby", ".a", "a b", "a{b}", "a/b", "\u{e4}", &"x".repeat(65)] {
        assert_refused(&mut ada, json!({"type": "join", "room": room}), "bad_room").await;
    }
    ada.join(&"x".repeat(64)).await;
}

#[tokio::test]
async fn only_members_may_talk_look_back_and_leave() {
    let node = Node::start(&[]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    for command in [
        json!({"type": "say", "room": "elsewhere", "id": Uuid::new_v4(), "text": "x"}),
        json!({"type": "history", "room": "elsewhere"}),
        json!({"type": "leave", "room": "elsewhere"}),
    ] {
        assert_refused(&mut ada, command, "not_joined").await;
    }
}

#[tokio::test]
async fn a_text_over_the_limit_is_too_long_and_one_at_the_limit_is_not() {
    let node = Node::start(&["--max-text", "1KiB"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    assert_refused(&mut ada, say(&"x".repeat(1025)), "too_long").await;
    assert_refused(&mut ada, say(&"\u{e9}".repeat(513)), "too_long").await;
    for text in ["x".repeat(1024), "\u{e9}".repeat(512)] {
        ada.said("lobby", &text).await;
        ada.hear("lobby", &text).await;
    }
}

#[tokio::test]
async fn data_over_its_limit_is_too_long() {
    let node = Node::start(&[]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    let mut long = say("x");
    long["data"] = json!({"x": "x".repeat(4096)});
    assert_refused(&mut ada, long, "too_long").await;
    let mut short = say("x");
    short["data"] = json!({"x": "x".repeat(4000)});
    ada.send(short.clone()).await;
    assert_eq!(ada.until_type("accepted").await["id"], short["id"]);
}

#[tokio::test]
async fn who_talks_too_fast_is_told_when_to_try_again_and_is_accepted_then() {
    let node = Node::start(&["--rate", "5", "--burst", "3"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    let mut ids = Vec::new();
    for number in 0..6 {
        ids.push(ada.say("lobby", &number.to_string()).await);
    }
    let refused = ada.until_type("error").await;
    assert_eq!(refused["code"], "rate_limited", "{refused}");
    assert!(refused["retry_after_ms"].as_u64() > Some(0), "{refused}");
    assert!(ids.iter().any(|id| refused["id"] == id.to_string()), "{refused}");
    for (number, id) in ids.into_iter().enumerate() {
        ada.insist("lobby", id, &number.to_string()).await;
    }
    ada.reach("lobby", 6).await;
    assert_eq!(ada.view("lobby").messages.len(), 6, "each is there once");
}

#[tokio::test]
async fn who_does_not_stop_is_closed_after_a_hundred_refusals() {
    let node = Node::start(&["--rate", "1", "--burst", "1"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    let mut in_a_row = 0;
    let (code, reason) = loop {
        ada.send(say("again")).await;
        match ada.next_or_close().await {
            Ok(event) if event["code"] == "rate_limited" => in_a_row += 1,
            Ok(_) => in_a_row = 0, // a second has passed
            Err(closed) => break closed,
        }
        assert!(in_a_row <= 100, "it may go on for ever");
    };
    assert_eq!(code, 4129, "{reason}");
    assert!((99..=100).contains(&in_a_row), "after {in_a_row}");
}

#[tokio::test]
async fn more_rooms_than_allowed_are_refused_until_one_is_left() {
    let node = Node::start(&["--max-rooms", "2"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    ada.join("second").await;
    assert_refused(&mut ada, json!({"type": "join", "room": "third"}), "too_many_rooms").await;
    ada.join("second").await; // again is not more
    ada.send(json!({"type": "leave", "room": "second"})).await;
    ada.until_type("left").await;
    ada.join("third").await;
}

#[tokio::test]
async fn a_room_that_is_not_among_the_configured_ones_is_forbidden() {
    let node = Node::start(&["--rooms", "lobby,help"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    assert_eq!(ada.welcome["rooms"], json!(["lobby", "help"]));
    assert_refused(&mut ada, json!({"type": "join", "room": "elsewhere"}), "forbidden").await;
    ada.join("help").await;
}

#[tokio::test]
async fn a_message_over_the_frame_limit_closes_with_1009() {
    let node = Node::start(&["--max-frame", "20KiB"]).await;
    let mut ada = ada_in_the_lobby(&node).await;
    ada.send(json!({"type": "dance", "pad": "x".repeat(20_000)})).await;
    ada.expect_error("unknown_type").await;
    let _ = ada.try_send_frame(Message::text("x".repeat(20 * 1024 + 1))).await;
    assert_eq!(ada.until_closed().await.0, 1009);
}
