//! The line door has no ids: whatever is said there is said where it was meant to be heard, or told not to be.

use super::Visitor;
use crate::harness::{Cut, Json, Node, wait_until};

#[tokio::test]
async fn what_waits_for_a_line_is_said_in_the_room_that_it_was_meant_for() {
    let node = Node::start(&[]).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port");
    let wire = Cut::in_front_of(node.tcp_addr()).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("here").await;
    ada.join("there").await;
    let zoe = Visitor::at(80, 16, &format!("tcp://{}", wire.address()));
    zoe.runs("", "--name zoe --room here");
    zoe.ends_with(&["12:00 ! name you are zoe", "12:00 ! room you are in here", "#here", ">"], 2).await;
    wire.lead_to(nobody);
    wire.cut();
    zoe.0.until("it is offline", |seen| seen.text().iter().any(|row| row.contains("offline"))).await;
    zoe.enters("for here");
    zoe.enters("/join there");
    zoe.enters("for there");
    wire.lead_to(node.tcp_addr());
    ada.reach("there", 1).await;
    ada.reach("here", 1).await;
    assert_eq!((ada.texts("here"), ada.texts("there")), (vec!["for here".into()], vec!["for there".into()]));
}

#[tokio::test]
async fn what_follows_a_line_that_is_refused_is_told_with_it() {
    let node = Node::start(&["--max-text", "100"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(80, 24, &format!("tcp://{}", node.tcp_addr()));
    zoe.runs("", "--name zoe");
    zoe.ends_with(&["12:00 ! name you are zoe", "", ">"], 2).await;
    zoe.0.paste(&format!("one\n{}\nthree\nfour", "x".repeat(200)));
    zoe.press(&["Enter"]);
    wait_until("all of it is told", async || zoe.0.everything().join("").ends_with("x three four>")).await;
    zoe.enters("five");
    ada.hear("lobby", "five").await;
    assert_eq!(ada.texts("lobby"), ["one", "five"]);
}
