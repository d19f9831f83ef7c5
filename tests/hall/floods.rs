//! Whoever sends too much, of whatever, keeps nobody else waiting, and the node's memory does not grow with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::harness::{Bystanders, Json, Line, Node, Plain, wait_until};
use crate::wire::{Request, frame, open};

/// What a flood may cost a node, all its buffers counted: far less than what it sends.
const GROWTH: u64 = 48 * 1024 * 1024;

/// Sends the same bytes again and again, and throws away what comes back, until it is dropped.
struct Flood {
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Flood {
    async fn start(server: SocketAddr, path: &str, subprotocol: Option<&str>, first: &[u8], unit: &[u8]) -> Flood {
        let mut stream = open(server, path, subprotocol).await;
        stream.write_all(first).await.expect("sent");
        let (mut reader, mut writer) = stream.into_split();
        let unit = unit.repeat(1 + 16 * 1024 / unit.len());
        let sent = Arc::new(AtomicU64::new(0));
        let counter = sent.clone();
        let task = tokio::spawn(async move {
            let sending = async {
                while writer.write_all(&unit).await.is_ok() {
                    counter.fetch_add(unit.len() as u64, Ordering::Relaxed);
                }
            };
            let mut nothing = tokio::io::sink();
            tokio::select! { () = sending => {} _ = tokio::io::copy(&mut reader, &mut nothing) => {} }
        });
        Flood { sent, task }
    }

    fn sent(&self) -> u64 {
        assert!(!self.task.is_finished(), "it was closed after {} bytes", self.sent.load(Ordering::Relaxed));
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.task.abort();
    }
}

const JSON: Option<&str> = Some("townhall.v1");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pings_pongs_and_fragments_without_end_keep_nobody_waiting() {
    const ENOUGH: u64 = 8 * 1024 * 1024;
    let node = Node::start(&["--rate", "0"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    others.talk().await;
    let before = node.memory("VmRSS");
    let (ping, pong) = (frame(0x89, &[b'x'; 125]), frame(0x8a, b""));
    let (begun, nothing) = (frame(0x01, b""), frame(0x00, b""));
    let floods = [
        Flood::start(node.http(), "/ws", JSON, b"", &ping).await,
        Flood::start(node.http(), "/ws", None, b"", &pong).await,
        Flood::start(node.http(), "/ws", JSON, &begun, &nothing).await,
        Flood::start(node.http(), "/echo", None, b"", &ping).await,
        Flood::start(node.http(), "/echo", None, &begun, &nothing).await,
    ];
    while floods.iter().any(|flood| flood.sent() < ENOUGH) {
        others.talk().await;
    }
    let grown = node.memory("VmRSS").saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_pings_and_does_not_read_is_not_read_either_and_closed() {
    let node = Node::start(&["--write-timeout", "1s"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let before = node.memory("VmRSS");
    let pings = frame(0x89, &[b'x'; 125]).repeat(1000);
    let mut deaf = open(node.http(), "/ws", JSON).await;
    let mut deaf_echo = open(node.http(), "/echo", None).await;
    for stream in [&mut deaf, &mut deaf_echo] {
        while stream.write_all(&pings).await.is_ok() {}
    }
    wait_until("it was too slow", async || {
        node.metric(r#"townhall_connections_closed_total{door="json",reason="too_slow"}"#).await == 1.0
    })
    .await;
    let grown = node.memory("VmRSS").saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    others.talk().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_too_fast_at_the_doors_without_json_is_held_back_and_nothing_of_it_is_lost() {
    const SAYS: usize = 200;
    let node = Node::start(&["--rate", "100", "--burst", "5"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.send((0..SAYS).map(|number| format!("line {number}\n")).collect::<String>()).await;
    for number in 0..SAYS {
        lewin.say(&format!("plain {number}")).await;
        if number % 50 == 0 {
            others.talk().await;
        }
    }
    others.until_text(&format!("plain {}", SAYS - 1)).await;
    others.until_text(&format!("line {}", SAYS - 1)).await;
    for door in ["plain", "line"] {
        let texts: Vec<String> = others.texts().into_iter().filter(|text| text.starts_with(door)).collect();
        let said: Vec<String> = (0..SAYS).map(|number| format!("{door} {number}")).collect();
        assert_eq!(texts, said);
    }
    assert_eq!(node.metric(r#"townhall_errors_total{code="rate_limited"}"#).await, 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_at_a_door_without_json_waits_outside() {
    let node = Node::start(&["--rate", "10"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let before = node.memory("VmRSS");
    let mut nc = TcpStream::connect(node.tcp_addr()).await.expect("the node listens");
    let mut plain = open(node.http(), "/ws", None).await;
    let lines = "and on and on and on\n".repeat(10_000);
    let frames = frame(0x81, b"and on and on and on").repeat(10_000);
    // Until nothing more fits into what lies between two sockets.
    for (stream, bytes) in [(&mut nc, lines.as_bytes()), (&mut plain, &frames)] {
        let stuck = async {
            loop {
                stream.write_all(bytes).await.expect("it is not closed");
            }
        };
        let mut talking = std::pin::pin!(async {
            for _ in 0..10 {
                others.talk().await;
            }
        });
        tokio::select! { () = stuck => {} () = talking.as_mut() => {} }
    }
    let grown = node.memory("VmRSS").saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more");
    // Who has flooded is not closed, only slow.
    for door in ["plain", "tcp"] {
        assert!(node.metric(&format!("townhall_connections{{door=\"{door}\"}}")).await >= 1.0, "{door}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_without_end_are_refused_and_then_closed_whatever_they_are() {
    let node = Node::start(&["--rate", "5", "--burst", "5"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let binary = frame(0x82, b"xy");
    let empty = frame(0x81, b"");
    let unknown = frame(0x81, br#"{"type":"dance"}"#);
    let join = frame(0x81, br#"{"type":"join","room":"lobby"}"#);
    for command in [binary, empty, unknown, join] {
        let mut stream = open(node.http(), "/ws", JSON).await;
        stream.write_all(&command.repeat(300)).await.expect("sent");
        let (code, before) = crate::wire::until_close(&mut stream).await;
        assert_eq!(code, 4129);
        let refused = before.iter().filter(|(_, text)| String::from_utf8_lossy(text).contains("rate_limited"));
        assert!(refused.count() >= 99, "it was told before");
        others.talk().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_come_and_go_and_those_who_never_finish_coming_leave_nothing_behind() {
    let node = Node::start(&["--handshake-timeout", "1s", "--beat", "0"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let files = node.files();
    let hello = Request::handshake("/ws").text();
    let mut half_open = Vec::new();
    for number in 0..1_000 {
        let door = if number % 2 == 0 { node.http() } else { node.tcp_addr() };
        let mut stream = TcpStream::connect(door).await.expect("the node listens");
        match number % 8 {
            // Gone at once; gone with half a request, or half a line, on the way; gone with a whole one.
            0..=1 => {}
            2..=3 => stream.write_all(b"GET /ws HT").await.expect("sent"),
            4 => stream.write_all(hello.as_bytes()).await.expect("sent"),
            6 => {
                stream.write_all(b"GET /ws HTTP/1.1\r\nHost:").await.expect("sent");
                half_open.push(stream);
            }
            _ => stream.write_all(b"/name x\n/room kitchen\n").await.expect("sent"),
        }
        if number % 100 == 0 {
            others.talk().await;
        }
    }
    let mut late = Json::connect(&node.ws_url(), "?name=late").await;
    late.join("lobby").await;
    drop(late);
    wait_until("all of them are gone", async || node.files() <= files).await;
    assert_eq!(half_open.len(), 125, "they were there to the end");
    for (door, open) in [("json", 1.0), ("plain", 0.0), ("tcp", 1.0)] {
        let sample = format!("townhall_connections{{door=\"{door}\"}}");
        wait_until("nobody else is in", async || node.metric(&sample).await == open).await;
    }
    others.talk().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_for_much_and_takes_nothing_is_not_asked_for_more() {
    const TEXT: usize = 4_000;
    let node = Node::start(&["--rate", "0", "--write-timeout", "0"]).await;
    let mut others = Bystanders::meet(&node.ws_url(), node.tcp_addr()).await;
    let mut talker = Json::connect(&node.ws_url(), "?name=talker").await;
    talker.join("archive").await;
    for _ in 0..200 {
        talker.said("archive", &"x".repeat(TEXT)).await;
    }
    let before = node.memory("VmRSS");
    let ask = frame(0x81, br#"{"type":"history","room":"archive","limit":200}"#);
    let join = frame(0x81, br#"{"type":"join","room":"archive","last":0}"#);
    let mut deaf = Vec::new();
    for _ in 0..50 {
        let mut stream = open(node.http(), "/ws", JSON).await;
        stream.write_all(&[join.clone(), ask.repeat(1_000)].concat()).await.expect("sent");
        deaf.push(stream);
    }
    wait_until("all are full", async || node.metric("townhall_slow_readers").await == deaf.len() as f64).await;
    others.talk().await;
    let each = node.memory("VmRSS").saturating_sub(before) / deaf.len() as u64;
    assert!(each < 1024 * 1024, "{each} bytes each");
}
