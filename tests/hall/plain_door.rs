//! The plain door: what the tutorial's page speaks.

use crate::harness::{Json, Node, Plain, wait_until};

/// Somebody who has joined: who hears itself hears the room.
async fn lewin_at(url: &str, query: &str) -> Plain {
    let mut lewin = Plain::connect(url, query).await;
    lewin.say("here").await;
    lewin.until("lewin:here").await;
    lewin
}

#[tokio::test]
async fn a_text_of_several_lines_has_the_name_before_each() {
    let node = Node::start(&[]).await;
    let mut lewin = lewin_at(&node.ws_url(), "?name=lewin").await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.say("lobby", "one\ntwo\n\nthree").await;
    lewin.expect("ada:one\nada:two\nada:\nada:three").await;
    lewin.say("eins\nada:forged").await;
    lewin.expect("lewin:eins\nlewin:ada:forged").await;
    ada.hear("lobby", "eins\nada:forged").await;
}

#[tokio::test]
async fn trailing_line_breaks_are_dropped_and_empty_messages_ignored() {
    let node = Node::start(&[]).await;
    let mut lewin = lewin_at(&node.ws_url(), "?name=lewin").await;
    for text in ["", "\n", "\r\n\r\n", "hi\n", "hi\r\n\r\n", "hi"] {
        lewin.say(text).await;
    }
    for _ in 0..3 {
        lewin.expect("lewin:hi").await;
    }
    lewin.say("last").await;
    lewin.expect("lewin:last").await;
}

#[tokio::test]
async fn nothing_is_replayed_unless_asked_for() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for number in 1..=5 {
        ada.said("lobby", &number.to_string()).await;
    }
    ada.hear("lobby", "5").await;
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin&last=2").await;
    lewin.expect("ada:4").await;
    lewin.expect("ada:5").await;
    let mut gin = Plain::connect(&node.ws_url(), "?name=gin").await;
    gin.say("here").await;
    gin.expect("gin:here").await;
    lewin.expect("gin:here").await;
}

#[tokio::test]
async fn the_room_is_the_lobby_unless_another_is_named() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.join("kitchen").await;
    lewin_at(&node.ws_url(), "?name=lewin").await;
    ada.hear("lobby", "here").await;
    let mut lewin = lewin_at(&node.ws_url(), "?room=kitchen&name=lewin").await;
    ada.hear("kitchen", "here").await;
    ada.said("lobby", "for the lobby").await;
    ada.said("kitchen", "for the kitchen").await;
    lewin.expect("ada:for the kitchen").await;
}

#[tokio::test]
async fn the_tutorials_addresses_work_and_names_are_percent_decoded() {
    let node = Node::start(&[]).await;
    let mut big = Plain::connect(&node.ws("/chatroom/ws/%E5%A4%A7%20name/any-token"), "").await;
    big.say("hello").await;
    big.expect("\u{5927} name:hello").await;
    let mut nameless = Plain::connect(&node.ws("/chatroom/ws"), "").await;
    nameless.say("here").await;
    let line = nameless.next().await;
    let name = line.strip_suffix(":here").expect("its own line");
    assert!(name.parse::<std::net::SocketAddr>().is_ok(), "{line:?}");
    big.expect(&line).await;
}

#[tokio::test]
async fn a_refusal_is_a_notice_to_that_client_alone() {
    let node = Node::start(&["--max-text", "1KiB"]).await;
    let mut lewin = lewin_at(&node.ws_url(), "?name=lewin").await;
    let mut gin = Plain::connect(&node.ws_url(), "?name=gin").await;
    gin.say("here").await;
    gin.until("gin:here").await;
    lewin.expect("gin:here").await;
    lewin.say(&"x".repeat(1025)).await;
    lewin.expect_notice("too_long").await;
    lewin.say("short").await;
    lewin.expect("lewin:short").await;
    gin.expect("lewin:short").await;
}

#[tokio::test]
async fn a_name_nobody_may_have_is_refused_before_the_upgrade() {
    let node = Node::start(&[]).await;
    for query in ["?name=a:b", "?name=!a", "?name=/a", "?name=~a", "?room=Bad", "?name=%00"] {
        let refused = Plain::try_connect(&node.ws_url(), query).await.err();
        assert_eq!(refused.map(|refused| refused.status), Some(400), "{query}");
    }
}

#[tokio::test]
async fn who_leaves_is_let_go() {
    let node = Node::start(&[]).await;
    let lewin = lewin_at(&node.ws_url(), "?name=lewin").await;
    let open = async || node.metric(r#"townhall_connections{door="plain"}"#).await;
    assert_eq!(open().await, 1.0);
    drop(lewin);
    wait_until("nobody is left", async || open().await == 0.0).await;
}
