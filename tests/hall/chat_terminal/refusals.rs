//! Who does not get in is told in one line what to do, and has the terminal as it was.

use super::Visitor;
use crate::harness::{Json, Node};

/// That is all there is on the screen, with the exit code.
async fn told(visitor: &Visitor, variables: &str, options: &str, line: &str, code: u8) {
    visitor.runs(variables, options);
    let (line, code) = (format!("townhall: {line}"), format!("({code})"));
    visitor.shows(&[&line, &code, "$"], 2).await;
    visitor.ended(&[&line, &code]).await;
}

#[tokio::test]
async fn a_wrong_address_is_told_in_one_line() {
    let node = Node::start(&[]).await;
    let zoe = Visitor::at(200, 16, &node.ws_url());
    let allowed = "allowed is an address like https://example.org, ws://127.0.0.1:8080/ws or tcp://127.0.0.1:9999";
    told(&zoe, "", "ftp://example.org", &format!("URL \"ftp://example.org\": {allowed}"), 2).await;
    for address in [node.ws("/nowhere/ws"), format!("ws://{}/ws", node.ops_addr())] {
        let line = format!("there is no hall at {address}; check what follows the host in the address");
        told(&zoe, "", &address, &line, 1).await;
    }
    let door = format!("ws://{}/ws", node.tcp_addr());
    let line =
        format!("{door} is no hall (it hangs up); a line door's address begins with tcp://, any other with http://");
    told(&zoe, "", &door, &line, 1).await;
    told(&zoe, "", "http://nobody.invalid", "no host is called nobody.invalid; check the address", 1).await;
}

#[tokio::test]
async fn where_nobody_listens_is_told_in_one_line() {
    let mut node = Node::start(&[]).await;
    let (web, door) = (node.ws_url(), format!("tcp://{}", node.tcp_addr()));
    node.kill();
    let zoe = Visitor::at(200, 16, &web);
    for address in [&web, &door] {
        let line =
            format!("{address} cannot be reached (Connection refused); is the hall running there, on that port?");
        told(&zoe, "", address, &line, 1).await;
    }
    let line = format!("无法连接 {web}（Connection refused）；大厅在该地址和端口上运行吗？");
    told(&zoe, "LC_ALL=zh_CN.UTF-8", "", &line, 1).await;
}

#[tokio::test]
async fn who_has_no_token_or_a_wrong_one_is_told_in_one_line() {
    let node = Node::start(&["--auth", "jwt", "--jwt-secret", "a secret of the issuer, and long enough for it"]).await;
    let zoe = Visitor::at(200, 16, &node.ws_url());
    let line = "the hall lets in only those with a token (a token is needed to come in here); \
                give one with --token or --token-file";
    told(&zoe, "", "", line, 1).await;
    let why = "that is no token that is signed in a way known here";
    let line = format!(
        "the hall does not accept this token ({why}); get a fresh one, or see --token, --token-file and --name"
    );
    told(&zoe, "", "--token wrong", &line, 1).await;
    let line = format!("大厅不接受此令牌（{why}）；请获取新的令牌，见 --token、--token-file 和 --name");
    told(&zoe, "LC_MESSAGES=zh_CN.UTF-8 LC_ALL=", "--token wrong", &line, 1).await;
    let line = "the token cannot be read from /nowhere/at/all (No such file or directory); \
                --token-file names a file that holds it";
    told(&zoe, "", "--token-file /nowhere/at/all", line, 1).await;
}

#[tokio::test]
async fn a_full_hall_is_told_in_one_line() {
    let node = Node::start(&["--max-connections", "1"]).await;
    let _ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let zoe = Visitor::at(200, 16, &node.ws_url());
    let line = "the hall takes nobody in just now: the hall is full; come again in a moment; \
                try again in 2s, or wait for it with --retry-for 5m";
    told(&zoe, "", "", line, 1).await;
    let line =
        "大厅暂时不接受新连接：the hall is full; come again in a moment；请在 2s 后重试，或用 --retry-for 5m 等待";
    told(&zoe, "LC_ALL=zh", "", line, 1).await;
}

#[tokio::test]
async fn a_room_that_is_not_open_is_told_in_one_line() {
    let node = Node::start(&["--rooms", "lobby"]).await;
    let zoe = Visitor::at(200, 16, &node.ws_url());
    zoe.runs("", "--room kitchen");
    zoe.ended(&["connected!", "townhall: no way into #kitchen: that room is not open to you; try another", "(1)"])
        .await;
    zoe.runs("LC_ALL=zh", "--room kitchen");
    zoe.ended(&["connected!", "townhall: 无法进入 #kitchen：该房间不对你开放；请换一个", "(1)"]).await;
}
