//! The line door: `nc HOST 9999`.

use crate::harness::{Json, Line, Node};

/// A client that hears the room, under its own name.
async fn named(node: &Node, name: &str) -> Line {
    let mut client = Line::connect(node.tcp_addr()).await;
    client.say(&format!("/name {name}")).await;
    client.say("here").await;
    client.until(&format!("{name}:here")).await;
    client
}

#[tokio::test]
async fn a_guest_is_called_by_its_address_until_it_gives_a_name() {
    let node = Node::start(&[]).await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("hello").await;
    nc.until(&format!("{}:hello", nc.address)).await;
    nc.say("/name lewin").await;
    nc.say("hello again").await;
    nc.until("lewin:hello again").await;
}

#[tokio::test]
async fn a_bad_name_is_refused_and_the_old_one_stays() {
    let node = Node::start(&[]).await;
    let mut nc = named(&node, "lewin").await;
    for bad in ["a:b", "!a", "/a", "~a", &"x".repeat(33)] {
        nc.say(&format!("/name {bad}")).await;
        nc.expect_notice("bad_name").await;
    }
    nc.say("still me").await;
    nc.expect("lewin:still me").await;
}

#[tokio::test]
async fn lines_end_with_lf_or_cr_lf_and_empty_ones_are_ignored() {
    let node = Node::start(&[]).await;
    let mut nc = named(&node, "nc").await;
    nc.send("one\r\ntwo\n\r\n\n\nth").await;
    nc.send("ree\n").await;
    for text in ["one", "two", "three"] {
        nc.expect(&format!("nc:{text}")).await;
    }
}

#[tokio::test]
async fn another_room_is_another_room() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.join("kitchen").await;
    let mut nc = named(&node, "nc").await;
    ada.hear("lobby", "here").await;
    nc.say("/room kitchen").await;
    nc.say("cooking").await;
    nc.until("nc:cooking").await;
    ada.hear("kitchen", "cooking").await;
    ada.said("lobby", "nobody's listening").await;
    ada.said("kitchen", "smells good").await;
    nc.expect("ada:smells good").await;
    nc.say("/room Bad!").await;
    nc.expect_notice("bad_room").await;
    nc.say("still cooking").await;
    nc.expect("nc:still cooking").await;
}

#[tokio::test]
async fn a_room_that_is_not_among_the_configured_ones_is_forbidden() {
    let node = Node::start(&["--rooms", "lobby,kitchen"]).await;
    let mut nc = named(&node, "nc").await;
    nc.say("/room cellar").await;
    nc.expect_notice("forbidden").await;
    nc.say("still here").await;
    nc.expect("nc:still here").await;
}

#[tokio::test]
async fn two_slashes_say_one() {
    let node = Node::start(&[]).await;
    let mut nc = named(&node, "nc").await;
    nc.say("//quit").await;
    nc.expect("nc:/quit").await;
}

#[tokio::test]
async fn help_names_the_commands_and_an_unknown_one_is_refused() {
    let node = Node::start(&[]).await;
    let mut nc = named(&node, "nc").await;
    nc.say("/help").await;
    nc.say("helped").await;
    let help = nc.until("nc:helped").await.join("\n");
    for command in ["/name", "/room", "/quit"] {
        assert!(help.contains(command), "no {command} in {help:?}");
    }
    nc.say("/dance").await;
    nc.expect_notice("unknown_type").await;
    nc.say("still here").await;
    nc.expect("nc:still here").await;
}

#[tokio::test]
async fn quit_ends_the_connection() {
    let node = Node::start(&[]).await;
    let mut nc = named(&node, "nc").await;
    nc.say("/quit").await;
    while nc.next_or_end().await.is_some() {}
}

#[tokio::test]
async fn a_line_that_is_too_long_is_skipped_and_said_so() {
    let node = Node::start(&[]).await;
    let mut nc = named(&node, "nc").await;
    // Longer than a text, than a line, and than anything that is kept while its end is waited for.
    for length in [4097, 8193, 300_000] {
        nc.say(&"x".repeat(length)).await;
        nc.expect_notice("too_long").await;
        nc.say("short").await;
        nc.expect("nc:short").await;
    }
    let longest = "x".repeat(4096);
    nc.say(&longest).await;
    nc.expect(&format!("nc:{longest}")).await;
}

#[tokio::test]
async fn what_is_no_utf_8_is_refused_and_the_connection_stays() {
    let node = Node::start(&[]).await;
    let mut nc = named(&node, "nc").await;
    nc.send(b"\xff\xfe\n").await;
    nc.expect_notice("bad_frame").await;
    nc.say("fine").await;
    nc.expect("nc:fine").await;
}

#[tokio::test]
async fn a_text_of_several_lines_has_the_name_before_each() {
    let node = Node::start(&[]).await;
    let mut nc = named(&node, "nc").await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.say("lobby", "one\nnc:forged\n! forged too").await;
    nc.expect("ada:one").await;
    nc.expect("ada:nc:forged").await;
    nc.expect("ada:! forged too").await;
}

#[tokio::test]
async fn a_browser_that_is_led_here_says_nothing() {
    let node = Node::start(&[]).await;
    let mut hears = named(&node, "hears").await;
    let mut browser = Line::connect(node.tcp_addr()).await;
    browser.send("POST / HTTP/1.1\r\nCookie: session=of-somebody\r\n\r\nI am said by another page\n").await;
    while let Some(line) = browser.next_or_end().await {
        assert!(line.starts_with("! "), "{line}");
    }
    hears.say("only this").await;
    hears.expect("hears:only this").await;
}
