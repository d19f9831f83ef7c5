//! What the line door takes for an answer, and how patient one is with it.

use std::time::Duration;

use super::*;

const SECRET: &str = "a secret of the issuer, and long enough for it";
const BOTH: [&str; 4] = ["--auth", "guest,jwt", "--jwt-secret", SECRET];

#[tokio::test]
async fn where_a_login_leads_is_no_answer_to_where_one_wants_to_be() {
    let node = Node::start(&[&BOTH[..], &["--rooms", "lobby,ops"]].concat()).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut token = Command::new(env!("CARGO_BIN_EXE_townhall"));
    token.args(["token", "zoe", "--jwt-secret", SECRET]).env_clear();
    let token = String::from_utf8(token.output().expect("it runs").stdout).expect("a token");
    for _ in 0..10 {
        let words = [&line_url(&node), "--token", token.trim(), "--room", "nosuch"];
        let ended = Chat::run(&words, "for nosuch alone\n").await;
        assert_names(ended.complaint(1), &["no way into nosuch"]);
    }
    Chat::run(&[&line_url(&node), "--token", token.trim(), "--room", "lobby"], "for the lobby\n").await.printed();
    ada.hear("lobby", "for the lobby").await;
    assert_eq!(ada.texts("lobby"), ["for the lobby"]);
}

#[tokio::test]
async fn a_guest_without_a_name_is_known_by_its_address_marked_or_not() {
    for options in [&[][..], &BOTH] {
        let node = Node::start(options).await;
        Chat::run(&[&line_url(&node)], "hi\nthere\n").await.printed();
    }
}

#[tokio::test]
async fn a_token_where_there_are_no_logins_keeps_nobody_waiting() {
    let node = Node::start(&[]).await;
    Chat::run(&[&line_url(&node), "--name", "zoe", "--token", "hush"], "hi\n").await.printed();
}

#[tokio::test]
async fn a_line_that_breaks_after_a_pause_is_tried_again() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.tcp_addr()).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut chat = Chat::start(&[&format!("tcp://{}", wire.address()), "--retry-for", "5s"]);
    chat.say("before");
    ada.hear("lobby", "before").await;
    tokio::time::sleep(Duration::from_secs(7)).await; // longer than its patience
    wire.cut();
    wait_until("it is told", async || chat.stderr().contains("trying again")).await;
    chat.say("after");
    ada.hear("lobby", "after").await;
    chat.end_input();
    let ended = chat.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}
