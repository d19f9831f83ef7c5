//! Who does not get in is told in one line what to do, and has the terminal as it was.

use super::Visitor;
use crate::harness::{Json, Node, get};

/// One line that ends like this, without what precedes, and the exit code.
async fn told(visitor: &Visitor, variables: &str, options: &str, rows: &[&str]) {
    visitor.runs(variables, options);
    visitor.ended(rows).await;
}

#[tokio::test]
async fn a_wrong_address_is_told_in_one_line() {
    let node = Node::start(&[]).await;
    let zoe = Visitor::at(200, 16, &node.ws_url());
    let url = node.ws_url();
    told(&zoe, "", "ftp://example.org", &["TODO", "(2)"]).await;
    let other = url.replace("/ws", "/nowhere/ws");
    told(&zoe, "", &other, &[&format!("townhall: there is no hall at {other}; its page has the address"), "(1)"]).await;
    told(&zoe, "", "http://127.0.0.1:1", &["TODO", "(1)"]).await;
    told(&zoe, "LC_ALL=zh_CN.UTF-8", "http://127.0.0.1:1", &["TODO", "(1)"]).await;
    told(&zoe, "", "http://nobody.invalid", &["TODO", "(1)"]).await;
    let ops = format!("http://{}", node.ops_addr());
    told(&zoe, "", &ops, &["TODO", "(1)"]).await;
    let tcp = format!("http://{}", node.tcp_addr());
    told(&zoe, "", &tcp, &["TODO", "(1)"]).await;
    let web = format!("tcp://{}", node.http());
    told(&zoe, "", &web, &["TODO", "(1)"]).await;
    assert_eq!(get(node.http(), "/healthz", "").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn who_has_no_token_or_a_wrong_one_is_told_in_one_line() {
    let node = Node::start(&["--auth", "jwt", "--jwt-secret", "a secret of the issuer, and long enough for it"]).await;
    let zoe = Visitor::at(200, 16, &node.ws_url());
    told(&zoe, "", "", &["TODO", "(1)"]).await;
    told(&zoe, "", "--token wrong", &["TODO", "(1)"]).await;
    told(&zoe, "LC_ALL=zh_CN.UTF-8", "--token wrong", &["TODO", "(1)"]).await;
    told(&zoe, "", "--token-file /nowhere/at/all", &["TODO", "(1)"]).await;
}

#[tokio::test]
async fn a_full_hall_and_a_closed_room_are_told_in_one_line() {
    let node = Node::start(&["--max-connections", "1", "--rooms", "lobby"]).await;
    let ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let zoe = Visitor::at(200, 16, &node.ws_url());
    told(&zoe, "", "", &["TODO", "(1)"]).await;
    told(&zoe, "LC_ALL=zh", "", &["TODO", "(1)"]).await;
    drop(ada);
    let node = Node::start(&["--rooms", "lobby"]).await;
    let zoe = Visitor::at(200, 16, &node.ws_url());
    told(&zoe, "", "--room kitchen", &["TODO", "(1)"]).await;
}
