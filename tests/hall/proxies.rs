//! Behind proxies: those of `--trusted-proxy` are believed, nobody else is, and the shipped configuration of nginx keeps
//! tokens out of its logs.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{Answer, Json, Nginx, NginxKind, Node, wait_until};
use crate::wire::{Request, connect_from};

const TRUSTING: [&str; 2] = ["--trusted-proxy", "127.0.0.1"];

/// A handshake from this address of the machine.
async fn shake(request: Request, server: SocketAddr, source: &str) -> (Answer, TcpStream) {
    request.upgrade_over(connect_from(source, server).await).await
}

/// The address in the name of a guest who gives none and brings this header, as it is heard in the lobby.
async fn called(listener: &mut Json, server: SocketAddr, source: &str, header: (&str, &str)) -> String {
    let words = format!("{source} to {server} with {header:?}");
    let frame = [&[0x81, 0x80 | words.len() as u8, 0, 0, 0, 0], words.as_bytes()].concat();
    let request = Request::handshake("/ws").with(header.0, header.1).followed_by(&frame);
    let (answer, _guest) = shake(request, server, source).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    let heard = listener.hear("lobby", &words).await;
    let name = heard["from"]["name"].as_str().expect("a name");
    let (ip, port) = name.rsplit_once(':').expect("an address and a port");
    assert!(port.parse::<u16>().is_ok(), "{name}");
    ip.into()
}

#[tokio::test]
async fn guests_are_called_by_their_own_address_and_making_one_up_changes_nothing() {
    let node = Node::start(&TRUSTING).await;
    let front = Nginx::start(&[node.port()], NginxKind::OwnHost).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let nothing = ("X-Nothing", "");
    assert_eq!(called(&mut ada, front.http(), "127.0.0.2", nothing).await, "127.0.0.2");
    for made_up in ["6.6.6.6", "127.0.0.1", "6.6.6.6, 127.0.0.1", "nobody", ""] {
        let header = ("X-Forwarded-For", made_up);
        assert_eq!(called(&mut ada, front.http(), "127.0.0.2", header).await, "127.0.0.2", "{header:?}");
        assert_eq!(called(&mut ada, node.http(), "127.0.0.3", header).await, "127.0.0.3", "{header:?}");
    }
    // This nginx passes the other header on as it comes, so the hall knows that somebody lies and not who.
    let header = ("X-Real-IP", "6.6.6.6");
    assert_eq!(called(&mut ada, front.http(), "127.0.0.2", header).await, "127.0.0.1");
    assert_eq!(called(&mut ada, node.http(), "127.0.0.3", header).await, "127.0.0.3");
}

#[tokio::test]
async fn clients_of_a_trusted_proxy_have_each_the_seats_of_their_own_address() {
    let node = Node::start(&["--max-per-address", "2", "--trusted-proxy", "127.0.0.1"]).await;
    let front = Nginx::start(&[node.port()], NginxKind::OwnHost).await;
    let come = |source| shake(Request::handshake("/ws"), front.http(), source);
    let mut inside = Vec::new();
    for source in ["127.0.0.2", "127.0.0.3", "127.0.0.2", "127.0.0.3"] {
        let (answer, guest) = come(source).await;
        assert_eq!(answer.status, 101, "{source}: {answer:?}");
        inside.push(guest);
    }
    for request in [
        Request::handshake("/ws"),
        Request::handshake("/echo"),
        Request::handshake("/chatroom/ws/lewin/token").with("X-Forwarded-For", "6.6.6.6"),
        Request::new("GET", "/"),
    ] {
        let (answer, _) = shake(request.clone(), front.http(), "127.0.0.2").await;
        assert_eq!(answer.status, 429, "{request:?}: {answer:?}");
        assert!(answer.body.contains("address") && answer.header("Retry-After").is_some(), "{answer:?}");
    }
    let (answer, _) = shake(Request::new("GET", "/"), front.http(), "127.0.0.4").await;
    assert_eq!(answer.status, 200, "{answer:?}");
    inside.remove(0);
    wait_until("there is a seat again", async || come("127.0.0.2").await.0.status == 101).await;
    assert_eq!(come("127.0.0.3").await.0.status, 429);
    assert!(!node.log().contains("--trusted-proxy"), "{}", node.log());
}

#[tokio::test]
async fn one_connection_of_a_proxy_carries_the_requests_of_many() {
    let node = Node::start(&["--max-per-address", "1", "--trusted-proxy", "127.0.0.1"]).await;
    let of = |client: &str, request: Request| request.with("X-Forwarded-For", client);
    let (answer, _guest) = of("10.0.0.1", Request::handshake("/ws")).upgrade(node.http()).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    let mut line = connect_from("127.0.0.1", node.http()).await;
    for client in ["10.0.0.2", "10.0.0.3", "10.0.0.2", "10.0.0.2"] {
        let answer;
        (answer, line) = of(client, Request::new("GET", "/")).upgrade_over(line).await;
        assert_eq!(answer.status, 200, "{client}: {answer:?}");
    }
    let (answer, _) = of("10.0.0.1", Request::new("GET", "/")).upgrade_over(line).await;
    assert_eq!(answer.status, 429, "{answer:?}");
}

#[tokio::test]
async fn clients_of_a_proxy_that_is_not_trusted_share_its_seats_and_the_log_names_the_option() {
    let node = Node::start(&["--max-per-address", "1"]).await;
    let front = Nginx::start(&[node.port()], NginxKind::OwnHost).await;
    assert!(!node.log().contains("--trusted-proxy"), "{}", node.log());
    let (answer, _guest) = shake(Request::handshake("/ws"), front.http(), "127.0.0.2").await;
    assert_eq!(answer.status, 101, "{answer:?}");
    for _ in 0..3 {
        let (answer, _) = shake(Request::handshake("/ws"), front.http(), "127.0.0.3").await;
        assert_eq!(answer.status, 429, "{answer:?}");
    }
    assert_eq!(node.log().matches("--trusted-proxy").count(), 1, "{}", node.log());
}

#[tokio::test]
async fn a_page_is_of_the_host_that_a_trusted_proxy_was_asked_for() {
    let (trusting, other) = (Node::start(&TRUSTING).await, Node::start(&[]).await);
    let page = |origin| Request::handshake("/ws").with("Host", "hall.example").with("Origin", origin);
    for (node, status) in [(&trusting, 101), (&other, 403)] {
        let front = Nginx::start(&[node.port()], NginxKind::OwnHost).await;
        let answer = page("https://hall.example").send(front.http()).await;
        assert_eq!(answer.status, status, "{answer:?}");
        // What a client says of it is replaced, or is not its to say.
        let evil = page("https://evil.example").with("X-Forwarded-Host", "evil.example");
        assert_eq!(evil.clone().send(front.http()).await.status, 403);
        let (answer, _) = shake(evil, node.http(), "127.0.0.2").await;
        assert_eq!(answer.status, 403, "{answer:?}");
    }
}

/// Every way in which secrets come to the hall, and one in which they should not.
fn with_secrets() -> [Request; 7] {
    [
        Request::handshake("/chatroom/ws/lewin/S3CRET-path"),
        Request::handshake("/chatroom/ws/lewin/S3CRET-path?last=5"),
        Request::handshake("/ws?token=S3CRET-query"),
        Request::handshake("/chatroom/ws?name=zoe&key=5ec7e75e-c7e7-45ec-97e7-5ec7e75ec7e7"),
        Request::handshake("/ws").with("Authorization", "Bearer S3CRET-header"),
        Request::handshake("/ws").with("Sec-WebSocket-Protocol", "townhall.v1, bearer.S3CRET-subprotocol"),
        Request::handshake("/ws").with("Referer", "http://hall.example/?token=S3CRET-referrer"),
    ]
}

#[tokio::test]
async fn the_shipped_nginx_has_no_secret_in_its_logs_whatever_becomes_of_the_nodes() {
    let mut nodes = Node::start_many(2, &TRUSTING).await;
    let ports: Vec<u16> = nodes.iter().map(Node::port).collect();
    let front = Nginx::start(&ports, NginxKind::Shipped).await;
    let send = async |request: Request, status: u16| {
        let (answer, guest) = request.clone().upgrade(front.http()).await;
        assert_eq!(answer.status, status, "{request:?}: {answer:?}");
        guest
    };
    let before = front.access_log().lines().count();
    let (mut sent, mut inside) = (0, Vec::new());
    for request in with_secrets() {
        inside.push(send(request.clone(), 101).await);
        send(request.clone().with("Origin", "https://evil.example"), 403).await;
        send(request.without("Upgrade"), 426).await;
        sent += 3;
    }
    send(Request::new("GET", "/chatroon/ws/mistyped/S3CRET-elsewhere"), 404).await;
    // One dies, and everybody is served by the other one; then there is none.
    nodes[0].kill();
    for request in with_secrets() {
        inside.push(send(request, 101).await);
    }
    nodes[1].kill();
    for request in with_secrets() {
        send(request, 502).await;
    }
    sent += 1 + 2 * with_secrets().len();
    wait_until("all is logged", async || front.access_log().lines().count() == before + sent).await;

    // What nginx cannot read is not logged by another server of the port, either.
    let long = "x".repeat(9000);
    for head in [
        "GET /chatroom/ws/lewin/S3CRET-without-host HTTP/1.1\r\n\r\n".to_string(),
        "GET /chatroom/ws/lewin/S3CRET-at-an-ip HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_string(),
        format!("GET /chatroom/ws/lewin/S3CRET-{long} HTTP/1.1\r\nHost: chat.example\r\n\r\n"),
    ] {
        let mut stream = TcpStream::connect(front.http()).await.expect("nginx listens");
        stream.write_all(head.as_bytes()).await.expect("nginx reads");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("nginx answers");
        sent += 1;
    }
    wait_until("all is logged", async || front.access_log().lines().count() == before + sent).await;
    assert_eq!(front.elsewhere_log(), "");

    let log = front.access_log();
    for seen in [" /chatroom/ws/lewin/... 101 ", " /ws 403 ", " /ws 426 ", " ... 404 ", " /ws 502 ", " 502, 101\n"] {
        assert!(log.contains(seen), "no {seen:?} in {log}");
    }
    assert!(front.log().contains("start") || front.log().contains("epoll"), "this is no log: {}", front.log());
    for secret in ["S3CRET", "5ec7e75e"] {
        assert!(!log.contains(secret), "{log}");
        assert!(!front.log().contains(secret), "{}", front.log());
    }
}
