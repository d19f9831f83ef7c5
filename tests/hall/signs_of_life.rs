//! Who is there and silent stays; who is gone is found out.

use serde_json::json;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Cut, Json, Line, Node, Plain, patiently, wait_until};
use crate::wire::{frame, next_frame, open, until_close};

/// Every WebSocket door.
const DOORS: [(&str, Option<&str>); 3] = [("/ws", Some("townhall.v1")), ("/ws?name=lewin", None), ("/echo", None)];

#[tokio::test]
async fn a_quiet_connection_gets_beats_and_stays() {
    let node = Node::start(&["--beat", "1s"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    assert_eq!(ada.welcome["beat"], 1);
    ada.join("lobby").await;
    // A listener at the line door is silent all the time.
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("here").await;
    nc.until(&format!("{}:here", nc.address)).await;
    ada.hear("lobby", "here").await;
    for _ in 0..5 {
        assert_eq!(ada.next_with_beats().await, json!({"type": "beat"}));
    }
    ada.said("lobby", "still here").await;
    let name = ada.welcome["user"]["name"].as_str().expect("a name");
    nc.expect(&format!("{name}:still here")).await;
}

#[tokio::test]
async fn without_a_beat_there_are_none() {
    let node = Node::start(&["--beat", "0"]).await;
    let ada = Json::connect(&node.ws_url(), "?name=ada").await;
    assert_eq!(ada.welcome["beat"], 0);
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_closed_4102() {
    let node = Node::start(&["--beat", "1s"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    // Neither reads, so neither answers.
    for door in ["json", "plain"] {
        wait_until("it is closed", async || {
            let open = format!("townhall_connections{{door=\"{door}\"}}");
            node.metric(&open).await == 0.0
        })
        .await;
    }
    assert_eq!(ada.unanswered_close().await, Some(4102));
    assert_eq!(lewin.unanswered_close().await, Some(4102));
}

#[tokio::test]
async fn a_client_behind_a_dead_wire_is_let_go() {
    let node = Node::start(&["--beat", "1s"]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let mut ada = Json::connect(&wire.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    wire.swallow_all(true);
    // It reads and would answer, but no ping comes through.
    assert_eq!(ada.until_closed().await.0, 1006);
    wait_until("it is let go", async || node.metric(r#"townhall_connections{door="json"}"#).await == 0.0).await;
}

#[tokio::test]
async fn a_client_that_shakes_hands_and_is_never_heard_again_is_pinged_twice_and_closed_at_every_door() {
    let node = Node::start(&["--beat", "1s"]).await;
    for (path, subprotocol) in DOORS {
        let mut silent = open(node.http(), path, subprotocol).await;
        let (code, before) = until_close(&mut silent).await;
        assert_eq!(code, 4102, "{path}");
        let pings = before.iter().filter(|(first, _)| *first == 0x89).count();
        assert_eq!(pings, 2, "{path}: at the third beat it is over");
    }
}

#[tokio::test]
async fn a_client_that_only_answers_pings_stays_at_every_door() {
    let node = Node::start(&["--beat", "1s"]).await;
    for (path, subprotocol) in DOORS {
        let mut quiet = open(node.http(), path, subprotocol).await;
        let mut pings = 0;
        while pings < 5 {
            match next_frame(&mut quiet).await {
                Some((0x89, payload)) => {
                    pings += 1;
                    quiet.write_all(&frame(0x8a, &payload)).await.expect("sent");
                }
                Some((0x81, _)) => {} // a welcome, a beat
                other => panic!("{path}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn half_a_frame_is_a_sign_of_life_but_not_for_ever() {
    let node = Node::start(&["--beat", "1s"]).await;
    for (path, subprotocol) in DOORS {
        let mut stuck = open(node.http(), path, subprotocol).await;
        stuck.write_all(&frame(0x81, b"hello")[..7]).await.expect("sent");
        assert_eq!(until_close(&mut stuck).await.0, 4102, "{path}");
    }
}

#[tokio::test]
async fn a_silent_listener_at_the_line_door_stays_and_the_kernel_asks_for_it() {
    let node = Node::start(&["--beat", "1s"]).await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for _ in 0..4 {
        assert_eq!(ada.next_with_beats().await["type"], "beat");
    }
    // The sixth column of /proc/net/tcp: which timer runs; 2 is keepalive.
    let ports = (format!(":{:04X}", node.tcp_addr().port()), format!(":{:04X}", nc.address.port()));
    wait_until("keepalive runs", async || {
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the system's connections");
        let mut sockets = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let ours = sockets.find(|socket| socket[1].ends_with(&ports.0) && socket[2].ends_with(&ports.1));
        ours.expect("it is connected")[5].starts_with("02:")
    })
    .await;
    ada.said("lobby", "hello, silent one").await;
    nc.expect("ada:hello, silent one").await;
}

/// Sends a byte at a time, without end, until the server ends the connection; what it said.
async fn dribble(mut stream: TcpStream, first: &[u8], then: &[u8]) -> String {
    stream.write_all(first).await.expect("sent");
    let (mut reader, mut writer) = stream.into_split();
    let dribbling = tokio::spawn({
        let then = then.to_vec();
        async move {
            for byte in then.iter().cycle() {
                if writer.write_all(&[*byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    });
    let mut said = Vec::new();
    let _ = patiently("the end of a connection", reader.read_to_end(&mut said)).await; // a reset is an end
    dribbling.abort();
    String::from_utf8_lossy(&said).into()
}

#[tokio::test]
async fn a_request_that_never_ends_is_ended_though_its_bytes_keep_coming() {
    let node = Node::start(&["--handshake-timeout", "1s", "--max-connections", "1"]).await;
    let whole = "GET /healthz HTTP/1.1\r\nHost: hall\r\n\r\n";
    for (what, first, then, answer) in [
        ("from the start", "", "GET /ws HTTP/1.1\r\nX: ", ""),
        ("within its head", "GET /ws HTTP/1.1\r\nHost: hall\r\n", "X-Slow: and slow\r\n", ""),
        ("a second one of the same connection", whole, "GET / HTTP/1.1\r\nHost: ", "HTTP/1.1 200"),
        ("within its body", "POST / HTTP/1.1\r\nHost: hall\r\nContent-Length: 9999999\r\n\r\n", "x", "HTTP/1.1 405"),
        ("within a chunk", "POST / HTTP/1.1\r\nHost: hall\r\nTransfer-Encoding: chunked\r\n\r\n", "f", "HTTP/1.1 405"),
        (
            "within the body of a page",
            "GET / HTTP/1.1\r\nHost: hall\r\nContent-Length: 9999999\r\n\r\n",
            "x",
            "HTTP/1.1 200",
        ),
    ] {
        let stream = TcpStream::connect(node.http()).await.expect("the node listens");
        let said = dribble(stream, first.as_bytes(), then.as_bytes()).await;
        assert!(said.starts_with(answer), "{what}: {said}");
        assert!(!answer.is_empty() || said.is_empty() || said.starts_with("HTTP/1.1 408"), "{what}: {said}");
        wait_until("its seat is free", async || Json::try_connect(&node.ws_url(), "").await.is_ok()).await;
        wait_until("nobody is in", async || node.metric(r#"townhall_connections{door="json"}"#).await == 0.0).await;
    }
}

#[tokio::test]
async fn a_handshake_with_a_body_that_never_comes_takes_no_seat_for_ever() {
    let node = Node::start(&["--handshake-timeout", "1s", "--max-connections", "1", "--beat", "1s"]).await;
    for body in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        for path in ["/ws", "/echo"] {
            let (name, value) = body.split_once(": ").expect("a header");
            let handshake = crate::wire::Request::handshake(path).with(name, value);
            let (_, _stream) = handshake.upgrade(node.http()).await;
            wait_until("its seat is free", async || Json::try_connect(&node.ws_url(), "").await.is_ok()).await;
        }
    }
}

#[tokio::test]
async fn a_connection_that_asks_for_nothing_more_is_let_go() {
    let node = Node::start(&["--handshake-timeout", "1s"]).await;
    let mut stream = TcpStream::connect(node.http()).await.expect("the node listens");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: hall\r\n\r\n").await.expect("sent");
    let mut said = String::new();
    patiently("the end", stream.read_to_string(&mut said)).await.expect("closed");
    assert!(said.starts_with("HTTP/1.1 200"), "{said}");
}

#[tokio::test]
async fn who_asks_for_pages_and_takes_none_is_let_go() {
    let node = Node::start(&["--write-timeout", "1s", "--max-connections", "1"]).await;
    let mut stream = crate::wire::connect_narrow(node.http()).await;
    let request = b"GET /client.js HTTP/1.1\r\nHost: hall\r\n\r\n".repeat(100);
    // Until neither side takes any more, or it is over.
    let asking = async { while stream.write_all(&request).await.is_ok() {} };
    patiently("the end of a connection", asking).await;
    wait_until("its seat is free", async || Json::try_connect(&node.ws_url(), "").await.is_ok()).await;
}
