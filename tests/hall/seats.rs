//! There are so many seats, in all and for each address; who finds none is told so, and nobody who is in notices.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, Json, Line, Node, Plain, patiently, wait_until};
use crate::wire::{Request, connect_from};

#[track_caller]
fn assert_told_to_come_again(answer: &Answer, status: u16, word: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(word), "no {word:?} in {answer:?}");
    let seconds = answer.header("Retry-After").and_then(|value| value.parse().ok());
    assert!(seconds.is_some_and(|seconds: u32| seconds > 0), "{answer:?}");
}

#[tokio::test]
async fn an_address_with_as_many_as_it_may_have_is_told_so_at_every_door_and_others_come_in() {
    let node = Node::start(&["--max-per-address", "3"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("here").await;
    ada.hear("lobby", "here").await;

    for path in ["/ws", "/chatroom/ws", "/chatroom/ws/lewin/token", "/chatroom/ws/lewin/healthz", "/echo"] {
        let answer = Request::handshake(path).send(node.http()).await;
        assert_told_to_come_again(&answer, 429, "address");
    }
    assert_told_to_come_again(&Request::new("GET", "/").send(node.http()).await, 429, "address");
    let mut another = Line::connect(node.tcp_addr()).await;
    another.expect_notice("unavailable").await;
    assert_eq!(another.next_or_end().await, None, "it is closed");
    let refused = node.metric(r#"townhall_handshakes_refused_total{reason="address"}"#).await; // and this is not limited
    assert_eq!(refused, 7.0);
    assert_eq!(Request::new("GET", "/healthz").send(node.http()).await.status, 200, "the process lives");

    let neighbour = connect_from("127.0.0.2", node.http()).await;
    let greeting = b"\x81\x85\0\0\0\0hello";
    let neighbour = Request::handshake("/ws?name=bea").followed_by(greeting).upgrade_over(neighbour).await;
    assert_eq!(neighbour.0.status, 101, "{neighbour:?}");
    assert_eq!(ada.hear("lobby", "hello").await["from"]["name"], "bea");

    drop(lewin);
    wait_until("there is a seat again", async || Plain::try_connect(&node.ws_url(), "?name=lewin").await.is_ok()).await;
}

#[tokio::test]
async fn who_has_connected_and_said_nothing_has_a_seat_too() {
    let node = Node::start(&["--max-per-address", "2"]).await;
    let line = TcpStream::connect(node.tcp_addr()).await;
    wait_until("the line is in", async || node.metric(r#"townhall_connections{door="tcp"}"#).await == 1.0).await;
    let silent = [line, TcpStream::connect(node.http()).await];
    wait_until("there is no seat", async || Request::new("GET", "/").send(node.http()).await.status == 429).await;
    drop(silent);
    let mut both = Vec::new();
    wait_until("both are free", async || {
        both.extend(Json::try_connect(&node.ws_url(), "").await);
        both.len() == 2
    })
    .await;
    assert_eq!(Request::new("GET", "/").send(node.http()).await.status, 429);
}

#[tokio::test]
async fn ipv4_clients_of_a_listener_for_both_are_told_apart() {
    let node = Node::start(&["--listen", "[::]:0", "--max-per-address", "1"]).await;
    let v4 = |source| connect_from(source, ([127, 0, 0, 1], node.port()).into());
    let (answer, _first) = Request::handshake("/ws").upgrade_over(v4("127.0.0.1").await).await;
    assert_eq!(answer.status, 101);
    let (answer, _second) = Request::handshake("/ws").upgrade_over(v4("127.0.0.2").await).await;
    assert_eq!(answer.status, 101);
    let (answer, _) = Request::handshake("/ws").upgrade_over(v4("127.0.0.1").await).await;
    assert_told_to_come_again(&answer, 429, "address");
    let v6 = TcpStream::connect(("::1", node.port())).await.expect("the node listens");
    assert_eq!(Request::handshake("/ws").upgrade_over(v6).await.0.status, 101);
}

#[tokio::test]
async fn those_who_say_nothing_do_not_keep_others_from_being_told_that_there_is_no_seat() {
    let options = ["--max-connections", "2", "--max-per-address", "1", "--handshake-timeout", "5m"];
    let node = Node::start(&options).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let neighbour = connect_from("127.0.0.2", node.http()).await;
    let (answer, _neighbour) = Request::handshake("/ws").upgrade_over(neighbour).await;
    assert_eq!(answer.status, 101);
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(connect_from("127.0.0.1", node.http()).await); // one too many of this address
        silent.push(connect_from("127.0.0.3", node.http()).await); // and one too many in all
    }
    for _ in 0..3 {
        let answer = Request::handshake("/ws").send(node.http()).await;
        assert_told_to_come_again(&answer, 429, "address");
        let stranger = connect_from("127.0.0.4", node.http()).await;
        let (answer, _) = Request::handshake("/ws").upgrade_over(stranger).await;
        assert_told_to_come_again(&answer, 503, "full");
    }
    assert!(node.files() < 150, "{} files are open for {} silent ones", node.files(), silent.len());
    ada.said("lobby", "still here").await;
}

#[tokio::test]
async fn what_was_said_before_one_is_turned_away_does_not_swallow_the_words() {
    let node = Node::start(&["--max-connections", "1"]).await;
    let _ada = Json::connect(&node.ws_url(), "?name=ada").await;
    for _ in 0..20 {
        let mut nc = TcpStream::connect(node.tcp_addr()).await.expect("the node listens");
        nc.write_all(b"printf was quick\n").await.expect("sent");
        let mut heard = String::new();
        patiently("the end", nc.read_to_string(&mut heard)).await.expect("closed, not reset");
        assert!(heard.starts_with("! unavailable the hall is full"), "{heard:?}");
    }
    let refused = r#"townhall_handshakes_refused_total{reason="full"}"#;
    assert_eq!(node.metric(refused).await, 20.0);
}

#[tokio::test]
async fn a_node_that_may_open_no_more_files_says_so_once_serves_those_who_are_in_and_accepts_when_it_can() {
    const COMPLAINT: &str = "none could be accepted";
    let node = Node::start(&["--beat", "1s"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    ada.join("lobby").await;
    nc.say("here").await;
    ada.hear("lobby", "here").await;
    node.allow_files(node.files() + 2);
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(TcpStream::connect(node.http()).await.expect("the system takes it"));
    }
    wait_until("it says so", async || node.log().contains(COMPLAINT)).await;

    // Three seconds, in which it tries thirty times.
    for _ in 0..3 {
        assert_eq!(ada.next_with_beats().await["type"], "beat");
    }
    assert_eq!(node.log().matches(COMPLAINT).count(), 1, "{}", node.log());
    ada.said("lobby", "among ourselves").await;
    nc.until(&format!("{}:among ourselves", ada.welcome["user"]["name"].as_str().expect("a name"))).await;

    let last = clients.pop().expect("a client");
    clients.clear();
    let (answer, _last) = Request::handshake("/ws").upgrade_over(last).await;
    assert_eq!(answer.status, 101, "the last in the queue came in");
    let mut bea = Json::connect(&node.ws_url(), "?name=bea").await;
    bea.join("lobby").await;
    bea.said("lobby", "at last").await;
    ada.hear("lobby", "at last").await;
}
