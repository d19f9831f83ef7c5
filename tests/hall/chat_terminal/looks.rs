//! Colours, small windows and hostile texts.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{Visitor, at_noon};
use crate::chat_troubles::hostile;
use crate::harness::{Json, Node};

#[tokio::test]
async fn colours_unless_they_are_not_wanted() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "hello").await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    zoe.enters("hello ada");
    zoe.ends_with(&["12:00 ada: hello", "12:00 zoe: hello ada", "#lobby · 2 here", ">"], 2).await;
    let shown = zoe.0.coloured();
    assert!(shown.contains("\x1b[1mzoe\x1b[0m"), "oneself is bold: {shown:?}");
    assert!(shown.contains("\x1b[7m#lobby"), "the status is a bar: {shown:?}");
    zoe.enters("quit");
    zoe.ended(&["(0)"]).await;
    zoe.starts("NO_COLOR=1", "--name zoe").await;
    zoe.ends_with(&["12:00 ada: hello", "12:00 zoe: hello ada", "#lobby · 2 here", ">"], 2).await;
    assert!(!zoe.0.coloured().contains('\x1b'), "{:?}", zoe.0.coloured());
}

#[tokio::test]
async fn who_is_spoken_to_sees_it() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    ada.said("lobby", "the zoey zone is not for you").await;
    ada.said("lobby", "or is it, Zoe?").await;
    zoe.ends_with(&["12:00 ada: or is it, Zoe?", "#lobby · 2 here", ">"], 2).await;
    let shown = zoe.0.coloured();
    let rows: Vec<&str> = shown.lines().collect();
    assert!(rows[3].contains("\x1b[7m"), "{:?}", rows[3]);
    assert!(!rows[2].contains("\x1b[7m"), "{:?}", rows[2]);
    zoe.enters("quit");
    zoe.ended(&["(0)"]).await;
    zoe.starts("NO_COLOR=1", "--name zoe").await;
    let rows = ["12:00 ada: the zoey zone is not for you", "12:00 » ada: or is it, Zoe?", "#lobby · 2 here", ">"];
    zoe.ends_with(&rows, 2).await;
}

#[tokio::test]
async fn a_dumb_terminal_gets_plain_lines() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(60, 16, &node.ws_url());
    zoe.0.types("clear\r");
    zoe.shows(&["$"], 2).await;
    zoe.0.types("TERM=dumb $T --name zoe\r");
    ada.until_presence("of zoe", |presence| presence["count"] == 2).await;
    ada.said("lobby", "hello").await;
    zoe.0.until("plain lines", |seen| seen.text() == ["$ TERM=dumb $T --name zoe", "ada:hello"]).await;
    assert!(!zoe.0.coloured().contains('\x1b'));
    zoe.press(&["C-c"]);
    zoe.ends_with(&["^C$"], 4).await;
}

#[tokio::test]
async fn a_hall_that_nobody_should_trust_does_nothing_to_the_screen() {
    let refusal = json!({"type": "error", "code": "\u{1b}c", "message": "\u{1b}[2J\u{9b}2J\n12:00 zoe: no"});
    let message = json!({"type": "message", "room": "lobby", "offset": 1, "at": 1, "id": "51fd57b2-04fc-47fb-9a88-924d25cc52d9",
        "from": {"id": "i", "name": "ada"}, "text": "old"});
    let history =
        json!({"type": "history", "room": "\u{1b}[2Jlob\nby", "messages": [message], "more": false, "before": 9});
    let frames = [refusal, history].map(|frame| Message::text(frame.to_string()));
    let zoe = Visitor::at(60, 16, &format!("http://{}", hostile(frames.into()).await));
    zoe.runs("", "");
    zoe.0
        .until("everything is harmless", |seen| {
            let rows = at_noon(seen.text());
            let has = |row: &str| rows.iter().any(|seen| seen == row);
            has("connected!") && has("! [2J2J 12:00 zoe: no (c)") && has("— #[2Jlob by: 1 older messages")
        })
        .await;
}

#[tokio::test]
async fn at_a_dumb_terminal_one_talks_until_the_end_of_the_input() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(60, 16, &node.ws_url());
    zoe.0.types("clear; TERM=dumb $T --name zoe; echo \"($?)\"\r");
    ada.until_presence("of zoe", |presence| presence["count"] == 2).await;
    zoe.0.types("hi\r");
    ada.hear("lobby", "hi").await;
    zoe.0.until("it is heard", |seen| seen.text().ends_with(&["hi".into(), "zoe:hi".into()])).await;
    zoe.press(&["C-d"]);
    zoe.ends_with(&["zoe:hi", "(0)", "$"], 2).await;
}

#[tokio::test]
async fn a_narrow_and_a_low_window_hold() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let narrow = Visitor::at(20, 12, &node.ws_url());
    narrow.runs("", "--name zoe");
    let hello = ["connected!", "— #lobby as zoe"];
    narrow.shows(&[&hello[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    narrow.types("a line of more than one row");
    ada.said("lobby", "and I say even more").await;
    let rows = ["12:00 ada: and I say", " even more", "#lobby · 2 here", "> a line of more tha", "n one row"];
    narrow.shows(&[&hello[..], &rows].concat(), 9).await;
    narrow.press(&["Enter"]);
    ada.hear("lobby", "a line of more than one row").await;
    drop(narrow);

    let low = Visitor::at(60, 3, &node.ws_url());
    low.runs("", "--name bob");
    ada.until_presence("of bob", |presence| presence.to_string().contains("bob")).await;
    ada.said("lobby", "down there").await;
    low.0
        .until("the last message", |seen| seen.text().first().is_some_and(|row| row.ends_with("ada: down there")))
        .await;
    low.types("yes");
    low.0.until("what is typed", |seen| seen.text().last().is_some_and(|row| row == "> yes")).await;
    low.press(&["Enter"]);
    ada.hear("lobby", "yes").await;
    low.0.until("what is said", |seen| seen.text().first().is_some_and(|row| row.ends_with("bob: yes"))).await;
}

#[tokio::test]
async fn no_text_and_no_name_passes_for_another_ones_line_or_obeys_the_terminal() {
    let node = Node::start(&["--max-text", "8KiB"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(60, 40, &node.ws_url());
    zoe.starts("", "--name zoe").await;
    let mut rows: Vec<String> = ["connected!", "— #lobby as zoe"].map(String::from).to_vec();
    let status = ["#lobby · 2 here", "> typed"];
    zoe.types("typed");
    for (text, shown) in [
        ("a\x1b[2J\x1b]0;title\x07\x08b", vec!["12:00 ada: a[2J]0;titleb"]),
        ("\u{202e}desrever\u{2066}", vec!["12:00 ada: desrever"]),
        (
            "one\n12:00 zoe: two\n— left #lobby\n! three",
            vec!["12:00 ada: one", "      12:00 zoe: two", "      — left #lobby", "      ! three"],
        ),
    ] {
        ada.said("lobby", text).await;
        rows.extend(shown.into_iter().map(String::from));
        let wanted: Vec<&str> = rows.iter().map(String::as_str).chain(status).collect();
        zoe.shows(&wanted, 7).await;
    }
    ada.said("lobby", &"x".repeat(600)).await;
    let all = format!("ada: {}", "x".repeat(600));
    zoe.ends_with(&[&"x".repeat((11 + 600) % 60), status[0], status[1]], 7).await;
    assert_eq!(zoe.said().last(), Some(&all));
    ada.said("lobby", &format!("e{}", "\u{301}".repeat(1000))).await;
    ada.said("lobby", "the end").await;
    zoe.ends_with(&["12:00 ada: the end", status[0], status[1]], 7).await;
    assert_eq!(at_noon(&zoe.0.everything()).iter().filter(|row| row.starts_with("12:00 ada: e")).count(), 1);
    assert_eq!(zoe.0.seen().rows.iter().filter(|row| row.starts_with('>')).count(), 1);

    let mut evil = Json::connect(&node.ws_url(), "?name=%F0%9F%98%80e%CC%81%E4%BC%8A").await;
    evil.join("lobby").await;
    evil.said("lobby", "it is I").await;
    zoe.ends_with(&["12:00 😀é伊: it is I", "#lobby · 3 here", status[1]], 7).await;
}
