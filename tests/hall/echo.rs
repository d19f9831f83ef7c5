//! `/echo` sends everything back, for testing proxies and for conformance suites; opened in a browser it is a page.

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{CloseCode, Data, OpCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::harness::{Json, Node, get, patiently};
use crate::wire::Request;

/// What `--max-frame` is by default.
const MAX_FRAME: usize = 64 * 1024;

struct Echo {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Echo {
    async fn connect(node: &Node) -> Echo {
        let connected = patiently("a handshake with /echo", connect_async(node.ws("/echo"))).await;
        let (socket, _) = connected.unwrap_or_else(|error| panic!("/echo refused: {error}"));
        Echo { socket }
    }

    async fn send(&mut self, message: Message) {
        self.try_send(message).await.unwrap_or_else(|error| panic!("cannot send: {error}"));
    }

    async fn try_send(&mut self, message: Message) -> Result<(), Error> {
        patiently("/echo to take a message", self.socket.send(message)).await
    }

    /// One frame of a message that has several.
    async fn send_fragment(&mut self, kind: Data, bytes: impl Into<Vec<u8>>, last: bool) {
        let frame = Frame::message(bytes.into(), OpCode::Data(kind), last);
        self.send(Message::Frame(frame)).await;
    }

    /// The next message, control frames too.
    async fn next(&mut self) -> Message {
        let next = patiently("an echo", self.socket.next()).await;
        next.expect("/echo closed").unwrap_or_else(|error| panic!("no echo: {error}"))
    }

    async fn expect(&mut self, message: Message) {
        let echo = self.next().await;
        let lengths = (echo.len(), message.len());
        assert!(echo == message, "not what was sent, lengths {lengths:?}");
    }

    /// Reads until the server closes; the code and the reason.
    async fn until_closed(&mut self) -> (u16, String) {
        loop {
            if let Message::Close(frame) = self.next().await {
                let frame = frame.expect("a close without a code");
                return (frame.code.into(), frame.reason.as_str().into());
            }
        }
    }
}

/// Bytes in which nothing repeats at a frame's or a buffer's distance.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index % 251) as u8).collect()
}

fn text(length: usize) -> String {
    bytes(length).into_iter().map(|byte| char::from(b'a' + byte % 26)).collect()
}

#[tokio::test]
async fn text_and_binary_of_every_length_come_back_as_they_are() {
    let node = Node::start(&[]).await;
    let mut echo = Echo::connect(&node).await;
    for length in [0, 1, 125, 126, 127, 4096, 65_535, MAX_FRAME] {
        for message in [Message::text(text(length)), Message::binary(bytes(length))] {
            echo.send(message.clone()).await;
            echo.expect(message).await;
        }
    }
    let lines = Message::text("大厅\r\n\u{0}\u{7}\u{1f600} kept\n");
    echo.send(lines.clone()).await;
    echo.expect(lines).await;
}

#[tokio::test]
async fn fragments_come_back_as_one_message_and_pings_between_them_are_answered() {
    let node = Node::start(&[]).await;
    let mut echo = Echo::connect(&node).await;
    let whole = "一 hall, 多 doors";
    let (first, rest) = whole.as_bytes().split_at(1); // in the middle of a character
    echo.send_fragment(Data::Text, first, false).await;
    echo.send(Message::Ping("one".into())).await;
    echo.expect(Message::Pong("one".into())).await;
    for byte in rest {
        echo.send_fragment(Data::Continue, [*byte], false).await;
    }
    echo.send(Message::Ping("two".into())).await;
    echo.send_fragment(Data::Continue, [], true).await;
    echo.expect(Message::Pong("two".into())).await;
    echo.expect(Message::text(whole)).await;

    let half = bytes(MAX_FRAME / 2);
    echo.send_fragment(Data::Binary, half.clone(), false).await;
    echo.send_fragment(Data::Continue, half, true).await;
    assert_eq!(echo.next().await.len(), MAX_FRAME);
}

#[tokio::test]
async fn what_comes_in_one_piece_with_the_handshake_is_not_lost() {
    let node = Node::start(&[]).await;
    for length in [126, 5_000, 60_000] {
        let payload = bytes(length);
        let [high, low] = (length as u16).to_be_bytes();
        let frame = [&[0x82, 0xfe, high, low, 0, 0, 0, 0], payload.as_slice()].concat();
        let (answer, mut stream) = Request::handshake("/echo").followed_by(&frame).upgrade(node.http()).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        let mut echo = vec![0; 4 + length];
        patiently("an echo", stream.read_exact(&mut echo)).await.expect("an echo");
        assert!(echo[..4] == [0x82, 126, high, low] && echo[4..] == payload, "not what was sent: {length} bytes");
    }
    let hello = b"\x81\x85\0\0\0\0hello";
    let (_, mut stream) = Request::handshake("/ws?name=ada").followed_by(hello).upgrade(node.http()).await;
    let mut heard = [0; 11];
    patiently("what was said", stream.read_exact(&mut heard)).await.expect("a frame");
    assert_eq!(&heard, b"\x81\x09ada:hello");
}

#[tokio::test]
async fn echoes_are_outside_the_limits_of_talking() {
    let node = Node::start(&["--max-text", "10", "--rate", "1", "--burst", "1"]).await;
    let mut echo = Echo::connect(&node).await;
    let messages: Vec<Message> = (0..200).map(|n| Message::text(format!("number {n} of many"))).collect();
    for message in &messages {
        echo.send(message.clone()).await;
    }
    for message in messages {
        echo.expect(message).await;
    }
}

#[tokio::test]
async fn what_is_said_to_the_echo_is_not_said_in_the_hall() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut echo = Echo::connect(&node).await;
    echo.send(Message::text("only an echo")).await;
    echo.expect(Message::text("only an echo")).await;
    ada.expect_silence().await;
}

#[tokio::test]
async fn a_message_that_is_too_long_closes_with_1009() {
    let node = Node::start(&["--max-frame", "32KiB"]).await;
    let most = 32 * 1024;
    let mut echo = Echo::connect(&node).await;
    let fits = Message::binary(bytes(most));
    echo.send(fits.clone()).await;
    echo.expect(fits).await;
    let _ = echo.try_send(Message::binary(bytes(most + 1))).await; // closed before it is all sent, perhaps
    assert_eq!(echo.until_closed().await.0, 1009);

    let mut in_parts = Echo::connect(&node).await;
    in_parts.send_fragment(Data::Binary, bytes(most), false).await;
    in_parts.send_fragment(Data::Continue, [1], true).await;
    let (code, reason) = in_parts.until_closed().await;
    assert_eq!(code, 1009, "{reason}");
    assert!(!reason.is_empty(), "a close says why");
}

#[tokio::test]
async fn a_text_that_is_no_text_closes_with_1007() {
    let node = Node::start(&[]).await;
    for broken in [&b"\xff"[..], b"half a character \xe5\xa4", b"\xed\xa0\x80 surrogate"] {
        let mut echo = Echo::connect(&node).await;
        echo.send_fragment(Data::Text, broken, true).await;
        assert_eq!(echo.until_closed().await.0, 1007);
    }
}

#[tokio::test]
async fn a_frame_that_breaks_the_protocol_closes_with_1002() {
    let node = Node::start(&[]).await;
    for (what, frame) in [
        ("unmasked", &b"\x81\x02hi"[..]),
        ("a reserved bit", b"\xc1\x80\0\0\0\0"),
        ("an unknown opcode", b"\x83\x80\0\0\0\0"),
        ("a continuation of nothing", b"\x80\x80\0\0\0\0"),
        ("a ping in parts", b"\x09\x80\0\0\0\0"),
        ("a ping that is too long", b"\x89\xfe\x00\x7e\0\0\0\0"),
        ("a close of one byte", b"\x88\x81\0\0\0\0\x03"),
    ] {
        let (answer, mut stream) = Request::handshake("/echo").upgrade(node.http()).await;
        assert_eq!(answer.status, 101, "{answer:?}");
        stream.write_all(frame).await.expect("sent");
        let mut heard = Vec::new();
        patiently(what, stream.read_to_end(&mut heard)).await.expect(what);
        assert!(heard.len() >= 4 && heard[0] == 0x88, "{what}: {heard:02x?}");
        assert_eq!(u16::from_be_bytes([heard[2], heard[3]]), 1002, "{what}");
    }
}

#[tokio::test]
async fn a_close_is_answered_with_its_own_code() {
    let node = Node::start(&[]).await;
    let mut echo = Echo::connect(&node).await;
    echo.send(Message::text("last words")).await;
    let bye = CloseFrame { code: CloseCode::Library(4321), reason: "bye".into() };
    echo.send(Message::Close(Some(bye))).await;
    echo.expect(Message::text("last words")).await;
    assert_eq!(echo.until_closed().await.0, 4321);
}

#[tokio::test]
async fn opened_in_a_browser_it_is_the_page() {
    let node = Node::start(&[]).await;
    let page = get(node.http(), "/echo", "Accept: text/html\r\n").await.expect("an answer");
    assert_eq!(page.status, 200);
    let kind = page.header("Content-Type");
    assert_eq!(kind.map(str::to_lowercase).as_deref(), Some("text/html; charset=utf-8"));
    assert!(page.body.contains("<title>Test WebSocket</title>"), "{}", page.body);
}
