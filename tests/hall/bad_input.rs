//! Whatever comes in at whichever door is answered by its code, and disturbs nobody who is in the same room.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Bystanders, Json, Line, Node, Plain, patiently};
use crate::wire::{Request, frame, next_frame, open, until_close};

const JSON: Option<&str> = Some("townhall.v1");

/// What no client may send, and how the connection is closed for it.
fn broken_frames() -> Vec<(&'static str, Vec<u8>, u16)> {
    let close = |code: u16| frame(0x88, &code.to_be_bytes());
    let parts = |first: &[u8], second: &[u8]| [frame(0x01, first), frame(0x80, second)].concat();
    let mut all = vec![
        ("unmasked", b"\x81\x02hi".to_vec(), 1002),
        ("an unmasked ping", b"\x89\x00".to_vec(), 1002),
        ("reserved bit 1, that is, compressed", frame(0xc1, b"hi"), 1002),
        ("reserved bit 2", frame(0xa1, b"hi"), 1002),
        ("reserved bit 3", frame(0x91, b"hi"), 1002),
        ("a data opcode that is not there", frame(0x83, b"hi"), 1002),
        ("a control opcode that is not there", frame(0x8b, b""), 1002),
        ("a continuation of nothing", frame(0x80, b"hi"), 1002),
        ("a message inside another", [frame(0x01, b"hi"), frame(0x81, b"ho")].concat(), 1002),
        ("a ping in parts", frame(0x09, b""), 1002),
        ("a close in parts", frame(0x08, b""), 1002),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        ("a short length in two bytes", b"\x81\xfe\0\x02\0\0\0\0hi".to_vec(), 1002),
        ("a length in eight bytes with the highest bit", [&b"\x81\xff\x80"[..], &[0; 11]].concat(), 1002),
        ("a close of one byte", frame(0x88, b"\x03"), 1002),
        ("a close whose reason is no UTF-8", frame(0x88, b"\x03\xe8\xff"), 1007),
        ("a text that is no UTF-8", frame(0x81, b"\xff"), 1007),
        ("half a character", frame(0x81, b"\xe5\xa4"), 1007),
        ("a surrogate", frame(0x81, b"\xed\xa0\x80"), 1007),
        ("an overlong slash", frame(0x81, b"\xc0\xaf"), 1007),
        ("no UTF-8 in the second part", parts(b"\xe5", b"hi"), 1007),
        ("no UTF-8 in a part that has not ended", frame(0x01, b"\xff"), 1007),
        ("a message that is too long", frame(0x81, &[b'x'; 64 * 1024 + 1]), 1009),
        ("one that is announced only", b"\x81\xff\0\0\0\x7f\xff\xff\xff\xff\0\0\0\0".to_vec(), 1009),
        ("one that is too long in parts", parts(&[b'x'; 64 * 1024], b"x"), 1009),
    ];
    for code in [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535] {
        all.push(("a code that nobody may send", close(code), 1002));
    }
    all
}

#[tokio::test]
async fn a_frame_that_breaks_the_protocol_ends_its_connection_with_the_code_and_nobody_elses() {
    let node = Node::start(&[]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    for (what, bytes, code) in broken_frames() {
        for (path, subprotocol) in [("/ws", JSON), ("/ws?name=lewin", None), ("/echo", None)] {
            let mut stream = open(node.http(), path, subprotocol).await;
            stream.write_all(&bytes).await.expect("sent");
            let closed = until_close(&mut stream).await;
            assert_eq!(closed.0, code, "{what} at {path} {subprotocol:?}");
        }
        others.talk().await;
    }
    let heard = others.texts();
    assert!(heard.iter().all(|text| text.starts_with("question") || text.starts_with("answer") || text == "here"));
}

#[tokio::test]
async fn a_close_with_a_code_that_clients_may_send_is_answered() {
    let node = Node::start(&[]).await;
    for (path, subprotocol) in [("/ws", JSON), ("/ws", None)] {
        for code in [1000_u16, 1001, 1003, 1011, 1014, 3000, 4999] {
            let mut stream = open(node.http(), path, subprotocol).await;
            stream.write_all(&frame(0x88, &code.to_be_bytes())).await.expect("sent");
            assert_eq!(until_close(&mut stream).await.0, 1000, "{code}");
        }
        let mut stream = open(node.http(), path, subprotocol).await;
        stream.write_all(&frame(0x88, b"")).await.expect("sent");
        assert_eq!(until_close(&mut stream).await.0, 1000);
    }
}

#[tokio::test]
async fn binary_where_text_is_due_is_refused_and_the_connection_stays() {
    let node = Node::start(&[]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let mut plain = open(node.http(), "/ws?name=lewin", None).await;
    plain.write_all(&[frame(0x82, b"binary"), frame(0x81, b"text")].concat()).await.expect("sent");
    let (_, notice) = next_frame(&mut plain).await.expect("a notice");
    assert!(notice.starts_with(b"! bad_frame "), "{}", String::from_utf8_lossy(&notice));
    assert_eq!(next_frame(&mut plain).await, Some((0x81, b"lewin:text".to_vec())));
    others.until_line("lewin:text").await;
    others.talk().await;
}

/// What could move a cursor, begin a line, or ring a bell; and what is left of it.
const TRICKS: &str =
    "one\u{1b}[2J\u{1b}[31m\r\u{7}\u{8}\u{0}\u{9b}31m\u{85}two\u{2028}nc:three\r\n! gap\u{2029}ada:\tfour\u{7f}";
const LEFT: &str = "one[2J[31m31mtwo\nnc:three\n! gap\nada:\tfour";

#[tokio::test]
async fn nobody_can_forge_a_line_or_a_terminals_commands_by_any_door() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    lewin.say("here").await;
    lewin.until("lewin:here").await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("/name nc").await;
    nc.say("here").await;
    nc.until("nc:here").await;
    lewin.expect("nc:here").await;
    ada.hear("lobby", "here").await;

    let lines = |name: &str| LEFT.split('\n').map(|line| format!("{name}:{line}")).collect::<Vec<_>>();
    for name in ["ada", "lewin"] {
        match name {
            "ada" => _ = ada.say("lobby", TRICKS).await,
            _ => lewin.say(TRICKS).await,
        }
        lewin.expect(&lines(name).join("\n")).await;
        for line in lines(name) {
            nc.expect(&line).await;
        }
        assert_eq!(ada.hear("lobby", LEFT).await["text"], LEFT);
    }
    // A line ends at its line feed and nowhere else, whatever the sender wanted.
    let one_line = TRICKS.replace("\r\n", "");
    nc.say(&one_line).await;
    let left = LEFT.replace("three\n! gap", "three! gap");
    let heard = left.split('\n').map(|line| format!("nc:{line}")).collect::<Vec<_>>();
    lewin.expect(&heard.join("\n")).await;
    for line in heard {
        nc.expect(&line).await;
    }
    ada.hear("lobby", &left).await;
}

#[tokio::test]
async fn a_name_that_could_forge_a_line_is_nobodys_at_any_door() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("/name nc").await;
    nc.expect("! name you are nc").await;
    for bad in
        ["a\u{1b}[31m", "a\rb", "a\u{2028}b", "a\u{2029}b", "a\u{85}b", "a\u{9b}b", "a\u{0}b", "a\tb", "a:b", "!a"]
    {
        nc.say(&format!("/name {bad}")).await;
        nc.expect_notice("bad_name").await;
        let encoded: String = bad.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let paths = [format!("/ws?name={encoded}"), format!("/chatroom/ws/{encoded}/token")];
        for path in paths {
            let answer = Request::handshake(&path).send(node.http()).await;
            assert_eq!(answer.status, 400, "{bad:?} at {path}: {answer:?}");
        }
        let json = Request::handshake(&format!("/ws?name={encoded}")).with("Sec-WebSocket-Protocol", "townhall.v1");
        assert_eq!(json.send(node.http()).await.status, 400, "{bad:?}");
    }
    // And what is shown of a command that does not exist shows nothing of it either.
    nc.say("/\u{1b}[31mred\u{2028}ada:forged").await;
    let notice = nc.next().await;
    assert!(notice.starts_with("! unknown_type ") && !notice.contains(['\u{1b}', '\u{2028}']), "{notice:?}");
    nc.say("still nc").await;
    nc.until("nc:still nc").await;
}

#[tokio::test]
async fn what_is_no_utf_8_or_too_long_at_the_line_door_disturbs_nobody() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    for (bytes, code) in [
        (b"\xff\xfe\n".to_vec(), "bad_frame"),
        (b"\xed\xa0\x80\n".to_vec(), "bad_frame"),
        (b"half \xe5\xa4\n".to_vec(), "bad_frame"),
        ([vec![b'x'; 9_000], b"\n".to_vec()].concat(), "too_long"),
        ([vec![0xff; 2_000_000], b"\n".to_vec()].concat(), "too_long"),
        (b"/room ../etc\n".to_vec(), "bad_room"),
        (b"/login a b\n".to_vec(), "unknown_type"),
    ] {
        nc.send(&bytes).await;
        nc.expect_notice(code).await;
    }
    // A stream of zeros has no line at all.
    nc.send(vec![0; 1_000_000]).await;
    nc.say("").await;
    nc.expect_notice("too_long").await;
    others.talk().await;
    assert_eq!(others.texts().iter().filter(|text| text.contains("half")).count(), 0);
}

/// Sends bytes to the HTTP door and ends one's own half; everything that comes back.
async fn answer_to(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.http()).await.expect("the node listens");
    stream.write_all(bytes).await.expect("sent");
    let mut answer = Vec::new();
    let _ = patiently("the end of a connection", stream.read_to_end(&mut answer)).await; // a reset is an end
    String::from_utf8_lossy(&answer).into()
}

fn statuses(answer: &str) -> Vec<&str> {
    answer.split("HTTP/1.1 ").skip(1).map(|rest| &rest[..3]).collect()
}

#[tokio::test]
async fn what_is_no_http_is_refused_and_ends() {
    let node = Node::start(&["--handshake-timeout", "2s"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let hello = Request::handshake("/ws").with("Host", "hall").text();
    let twice = |one: &str, two: &str| format!("POST / HTTP/1.1\r\nHost: hall\r\n{one}\r\n{two}\r\n\r\n");
    for (what, bytes) in [
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec()),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03".repeat(30)),
        ("a WebSocket without a handshake", frame(0x81, b"hello").repeat(100)),
        ("a line of chat", b"hello everybody\r\n\r\n".to_vec()),
        ("SSH", b"SSH-2.0-OpenSSH_9.2\r\n\r\n".to_vec()),
        ("zeros", vec![0; 64]),
        ("a header without a colon", b"GET / HTTP/1.1\r\nHost hall\r\n\r\n".to_vec()),
        ("a header's name with a space", b"GET / HTTP/1.1\r\nHost : hall\r\n\r\n".to_vec()),
        ("a zero in a header", b"GET / HTTP/1.1\r\nHost: ha\0ll\r\n\r\n".to_vec()),
        ("two different lengths", twice("Content-Length: 5", "Content-Length: 0").into_bytes()),
        ("a length that is no number", twice("Content-Length: +5", "X: y").into_bytes()),
        ("a transfer that nobody knows", twice("Transfer-Encoding: gzip", "X: y").into_bytes()),
        ("a handshake with garbage before it", format!("garbage\r\n{hello}").into_bytes()),
    ] {
        let answer = answer_to(&node, &bytes).await;
        assert!(statuses(&answer).iter().all(|status| status.starts_with('4')), "{what}: {answer}");
        assert!(statuses(&answer).len() <= 1, "{what}: {answer}");
    }
    others.talk().await;
}

#[tokio::test]
async fn a_request_hidden_in_anothers_body_is_not_answered() {
    let node = Node::start(&["--handshake-timeout", "2s"]).await;
    let hidden = "GET /healthz HTTP/1.1\r\nHost: hall\r\n\r\n";
    for (what, head) in [
        ("two lengths", "Content-Length: 0\r\nContent-Length: 45"),
        ("a length in a list", "Content-Length: 0, 45"),
        ("a length and chunks", "Content-Length: 45\r\nTransfer-Encoding: chunked"),
        ("chunks and a length", "Transfer-Encoding: chunked\r\nContent-Length: 5"),
        ("chunks behind a space", "Content-Length: 45\r\nTransfer-Encoding : chunked"),
        ("chunks that are not the last", "Transfer-Encoding: chunked, identity"),
    ] {
        for body in [hidden.to_owned(), format!("0\r\n\r\n{hidden}")] {
            let request = format!("POST / HTTP/1.1\r\nHost: hall\r\n{head}\r\n\r\n{body}");
            let answer = answer_to(&node, request.as_bytes()).await;
            assert!(!answer.contains("alive"), "{what}: {answer}");
            assert!(statuses(&answer).iter().all(|status| status.starts_with('4')), "{what}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_said_to_be() {
    let node = Node::start(&[]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let long = Request::handshake("/ws").with("Host", "hall").with("X-Long", &"x".repeat(16 * 1024));
    let many = (0..200)
        .fold(Request::handshake("/ws").with("Host", "hall"), |request, n| request.with(&format!("X-{n}"), "x"));
    for request in [long, many] {
        let answer = answer_to(&node, request.text().as_bytes()).await;
        assert_eq!(statuses(&answer), ["431"], "{answer}");
    }
    others.talk().await;
}

#[tokio::test]
async fn garbage_behind_a_good_request_does_not_spoil_its_answer() {
    let node = Node::start(&[]).await;
    let good = "GET /healthz HTTP/1.1\r\nHost: hall\r\n\r\n";
    let answer = answer_to(&node, format!("{good}{good}garbage\r\n\r\n{good}").as_bytes()).await;
    assert_eq!(statuses(&answer), ["200", "200", "400"], "{answer}");
    // Behind a handshake there are frames, and these are none.
    let hello = Request::handshake("/ws").with("Host", "hall").text();
    let answer = answer_to(&node, format!("{hello}{good}").as_bytes()).await;
    assert_eq!(statuses(&answer), ["101"], "{answer}");
    assert!(!answer.contains("alive"), "{answer}");
}
