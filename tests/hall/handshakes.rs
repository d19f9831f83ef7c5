//! Who comes in and who does not, and that the answer says why: a refused handshake is all that somebody gets to see.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Answer, Json, Line, Node, Plain, patiently, wait_until};
use crate::wire::{EXAMPLE_ACCEPT, Request};

const KEY: &str = "5f0b6c6e-8c2c-4a53-a3a5-0123456789ab";
const OTHER_KEY: &str = "00000000-8c2c-4a53-a3a5-0123456789ab";

/// The status and, in any case of letters, all of these words.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, words: &[&str]) {
    assert_eq!(answer.status, status, "{answer:?}");
    let body = answer.body.to_lowercase();
    assert!(!body.trim().is_empty(), "refused without a word: {answer:?}");
    for word in words {
        assert!(body.contains(&word.to_lowercase()), "no {word:?} in {answer:?}");
    }
}

async fn refusal_of(node: &Node, path: &str) -> Answer {
    Request::handshake(path).send(node.http()).await
}

/// The name under which a plain client is heard.
async fn name_at(url: &str) -> String {
    let mut client = Plain::connect(url, "").await;
    client.say("who am I").await;
    let line = client.next().await;
    let name = line.strip_suffix(":who am I");
    name.unwrap_or_else(|| panic!("not our own line: {line}")).into()
}

async fn id_of(node: &Node, query: &str) -> String {
    let client = Json::connect(&node.ws_url(), query).await;
    let id = client.welcome["user"]["id"].as_str();
    id.unwrap_or_else(|| panic!("no id in {}", client.welcome)).into()
}

#[tokio::test]
async fn the_accept_key_is_the_one_of_the_rfc() {
    let node = Node::start(&[]).await;
    for path in ["/ws", "/chatroom/ws", "/chatroom/ws/lewin/token", "/echo"] {
        let answer = Request::handshake(path).send(node.http()).await;
        assert_eq!(answer.status, 101, "{path}: {answer:?}");
        let header = |name| answer.header(name).map(str::to_lowercase);
        assert_eq!(answer.header("Sec-WebSocket-Accept"), Some(EXAMPLE_ACCEPT));
        assert_eq!(header("Upgrade").as_deref(), Some("websocket"));
        assert_eq!(header("Connection").as_deref(), Some("upgrade"));
        assert_eq!(header("Sec-WebSocket-Protocol"), None, "{path}: none was offered");
        assert_eq!(header("Sec-WebSocket-Extensions"), None);
    }
}

#[tokio::test]
async fn the_subprotocol_that_is_spoken_is_named() {
    let node = Node::start(&[]).await;
    for offered in ["townhall.v1", "chat, townhall.v1", "townhall.v1,superchat"] {
        let offering = Request::handshake("/ws").with("Sec-WebSocket-Protocol", offered);
        let answer = offering.send(node.http()).await;
        assert_eq!(answer.status, 101, "{offered}: {answer:?}");
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("townhall.v1"));
    }
}

#[tokio::test]
async fn headers_are_read_in_any_case_and_in_lists() {
    let node = Node::start(&[]).await;
    let as_firefox_sends_it = Request::handshake("/ws")
        .with("connection", "keep-alive, Upgrade")
        .with("UPGRADE", "WebSocket")
        .with("Sec-WebSocket-Extensions", "permessage-deflate");
    let answer = as_firefox_sends_it.send(node.http()).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.header("Sec-WebSocket-Extensions"), None, "not spoken");
}

#[tokio::test]
async fn another_version_is_refused_and_ours_is_named() {
    let node = Node::start(&[]).await;
    for version in ["8", "14", "x"] {
        let outdated = Request::handshake("/ws").with("Sec-WebSocket-Version", version);
        let answer = outdated.send(node.http()).await;
        assert_refused(&answer, 400, &["13"]);
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    }
    let without = Request::handshake("/ws").without("Sec-WebSocket-Version");
    assert_refused(&without.send(node.http()).await, 400, &["version"]);
}

#[tokio::test]
async fn a_handshake_key_that_is_missing_or_wrong_is_refused() {
    let node = Node::start(&[]).await;
    let without = Request::handshake("/ws").without("Sec-WebSocket-Key");
    assert_refused(&without.send(node.http()).await, 400, &["Sec-WebSocket-Key"]);
    for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "bm90IHNpeHRlZW4gYnl0ZXM="] {
        let wrong = Request::handshake("/ws").with("Sec-WebSocket-Key", key);
        assert_refused(&wrong.send(node.http()).await, 400, &["Sec-WebSocket-Key"]);
    }
}

#[tokio::test]
async fn a_subprotocol_that_nobody_speaks_is_refused_and_ours_is_named() {
    let node = Node::start(&[]).await;
    for offered in ["chat", "townhall.v2, graphql-ws", "TOWNHALL.V1"] {
        let offering = Request::handshake("/ws").with("Sec-WebSocket-Protocol", offered);
        assert_refused(&offering.send(node.http()).await, 400, &["townhall.v1"]);
    }
}

#[tokio::test]
async fn a_name_that_breaks_the_rule_is_refused_with_the_rule() {
    let node = Node::start(&[]).await;
    let too_long = "x".repeat(33);
    let names = ["%21x", "%2Fx", "~x", "a%3Ab", "a%0Ab", "a%E2%80%A8b", "%20%20", &too_long];
    for name in names {
        let paths =
            [format!("/ws?name={name}"), format!("/chatroom/ws?name={name}"), format!("/chatroom/ws/{name}/token")];
        for path in paths {
            let answer = refusal_of(&node, &path).await;
            assert_refused(&answer, 400, &["name", "32"]);
        }
        let json = Request::handshake(&format!("/ws?name={name}")).with("Sec-WebSocket-Protocol", "townhall.v1");
        assert_refused(&json.send(node.http()).await, 400, &["name", "32"]);
    }
}

#[tokio::test]
async fn a_name_that_is_no_text_is_refused() {
    let node = Node::start(&[]).await;
    let answer = refusal_of(&node, "/chatroom/ws/%FF%FE/token").await;
    assert_refused(&answer, 400, &[]);
}

#[tokio::test]
async fn a_room_that_breaks_the_rule_is_refused_with_the_rule() {
    let node = Node::start(&[]).await;
    let too_long = "x".repeat(65);
    for room in ["Lobby", "-a", "a%20b", "%E5%A4%A7", "a%7Bb%7D", &too_long] {
        let answer = refusal_of(&node, &format!("/ws?room={room}")).await;
        assert_refused(&answer, 400, &["room", "64"]);
    }
}

#[tokio::test]
async fn a_key_that_is_no_uuid_is_refused() {
    let node = Node::start(&[]).await;
    for path in ["/ws?name=ada&key=secret", "/chatroom/ws?key=1234"] {
        let answer = refusal_of(&node, path).await;
        assert_refused(&answer, 400, &["key", "UUID"]);
        assert!(!answer.body.contains("secret"), "a key is a secret: {answer:?}");
    }
}

#[tokio::test]
async fn a_room_that_is_not_among_the_rooms_is_forbidden() {
    let node = Node::start(&["--rooms", "lobby,help"]).await;
    assert_refused(&refusal_of(&node, "/ws?room=secret").await, 403, &["room"]);
    for room in ["lobby", "help"] {
        let mut client = Plain::connect(&node.ws_url(), &format!("?room={room}&name=ada")).await;
        client.say(room).await;
        client.expect(&format!("ada:{room}")).await;
    }
}

/// The answer to a handshake from a page of `origin`.
async fn from_origin(node: &Node, path: &str, origin: &str) -> Answer {
    let page = Request::handshake(path).with("Origin", origin);
    page.send(node.http()).await
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_and_told_what_would_let_it_in() {
    let node = Node::start(&[]).await;
    for path in ["/ws", "/chatroom/ws", "/chatroom/ws/lewin/token"] {
        let answer = from_origin(&node, path, "https://evil.example").await;
        let host = node.http().to_string();
        assert_refused(&answer, 403, &["https://evil.example", &host, "--allow-origin"]);
    }
}

#[tokio::test]
async fn a_page_without_an_origin_of_its_own_is_refused() {
    let node = Node::start(&["--allow-origin", "https://chat.example"]).await;
    for origin in ["null", "file://", "chat.example", "https://"] {
        let answer = from_origin(&node, "/ws", origin).await;
        assert_refused(&answer, 403, &[origin, "--allow-origin"]);
        let advice = format!("--allow-origin {origin}");
        assert!(!answer.body.contains(&advice), "the option refuses that: {answer:?}");
    }
}

#[tokio::test]
async fn a_page_of_the_same_origin_comes_in() {
    let node = Node::start(&["--listen", "0.0.0.0:0"]).await;
    for (host, origin) in [
        ("chat.example", "https://chat.example"),
        ("chat.example:8443", "https://chat.example:8443"),
        ("Chat.Example", "https://chat.example"),
        ("[2001:db8::1]:80", "http://[2001:db8::1]"),
    ] {
        let page = Request::handshake("/ws").with("Host", host).with("Origin", origin);
        let answer = page.send(node.http()).await;
        assert_eq!(answer.status, 101, "{origin} at {host}: {answer:?}");
    }
    for (host, origin) in [
        ("chat.example", "https://chat.example:8443"),
        ("chat.example", "https://chat.example.evil.example"),
        ("chat.example", "https://evil.example#chat.example"),
    ] {
        let page = Request::handshake("/ws").with("Host", host).with("Origin", origin);
        assert_refused(&page.send(node.http()).await, 403, &[origin, host, "--allow-origin"]);
    }
}

#[tokio::test]
async fn pages_of_allowed_origins_come_in() {
    let allowed = "https://chat.example,http://intranet:8000";
    let options = ["--allow-origin", allowed, "--allow-origin", "https://more.example"];
    let node = Node::start(&options).await;
    for origin in ["https://chat.example", "https://CHAT.example:443", "http://intranet:8000", "https://more.example"] {
        let answer = from_origin(&node, "/ws", origin).await;
        assert_eq!(answer.status, 101, "{origin}: {answer:?}");
    }
    for origin in ["https://chat.example:444", "http://intranet", "https://x.chat.example"] {
        assert_refused(&from_origin(&node, "/ws", origin).await, 403, &[origin]);
    }

    let open = Node::start(&["--allow-origin", "*"]).await;
    let answer = from_origin(&open, "/ws", "https://anybody.example").await;
    assert_eq!(answer.status, 101, "{answer:?}");
}

#[tokio::test]
async fn pages_of_this_machine_come_in_while_the_hall_is_of_this_machine_only() {
    let at_home = ["http://localhost:3000", "http://127.0.0.1:5173", "http://[::1]:8000"];
    let here = Node::start(&[]).await;
    for origin in at_home {
        let answer = from_origin(&here, "/ws", origin).await;
        assert_eq!(answer.status, 101, "{origin}: {answer:?}");
    }
    let disguised = from_origin(&here, "/ws", "http://localhost.evil.example").await;
    assert_refused(&disguised, 403, &["localhost.evil.example"]);

    let everywhere = Node::start(&["--listen", "0.0.0.0:0"]).await;
    for origin in at_home {
        let answer = from_origin(&everywhere, "/ws", origin).await;
        assert_refused(&answer, 403, &[origin, "--allow-origin"]);
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_told_to_become_one() {
    let node = Node::start(&[]).await;
    for path in ["/ws", "/ws?name=ada", "/chatroom/ws", "/chatroom/ws/lewin/token"] {
        let answer = Request::new("GET", path).send(node.http()).await;
        assert_refused(&answer, 426, &["websocket"]);
        let upgrade = answer.header("Upgrade").map(str::to_lowercase);
        assert_eq!(upgrade.as_deref(), Some("websocket"), "{answer:?}");
    }
    let elsewhere = Request::handshake("/ws").with("Upgrade", "h2c");
    assert_eq!(elsewhere.send(node.http()).await.status, 426);
}

#[tokio::test]
async fn there_is_nothing_at_other_addresses_and_for_other_methods() {
    let node = Node::start(&[]).await;
    for path in ["/nothing", "/ws/x", "/chatroom/ws/lewin", "/chatroom/ws/a/b/c", "/metrics", "/readyz"] {
        let plain = Request::new("GET", path).send(node.http()).await;
        assert_eq!(plain.status, 404, "{path}: {plain:?}");
        let handshake = refusal_of(&node, path).await;
        assert_eq!(handshake.status, 404, "{path}: {handshake:?}");
    }
    for path in ["/", "/ws", "/chatroom", "/echo", "/client.js"] {
        let posted = Request::new("POST", path).with("Content-Length", "0");
        let answer = posted.send(node.http()).await;
        assert_eq!(answer.status, 405, "{path}: {answer:?}");
    }
}

#[tokio::test]
async fn a_full_hall_says_when_to_come_back_and_lets_in_again_when_somebody_left() {
    let node = Node::start(&["--max-connections", "3"]).await;
    let mut inside = Vec::new();
    for name in ["ada", "bea", "cleo"] {
        let mut client = Json::connect(&node.ws_url(), &format!("?name={name}")).await;
        client.join("lobby").await;
        inside.push(client);
    }
    for _ in 0..3 {
        let answer = refusal_of(&node, "/ws?name=dora").await;
        assert_refused(&answer, 503, &["full"]);
        let seconds = answer.header("Retry-After").and_then(|value| value.parse().ok());
        assert!(seconds.is_some_and(|seconds: u32| seconds > 0), "{answer:?}");
    }
    inside[0].said("lobby", "we are still here").await;
    inside[1].hear("lobby", "we are still here").await;

    inside.pop();
    wait_until("there is room for one more", async || Json::try_connect(&node.ws_url(), "?name=dora").await.is_ok())
        .await;
}

#[tokio::test]
async fn who_never_finishes_asking_is_let_go_and_who_is_in_stays() {
    let options = ["--handshake-timeout", "500ms", "--max-connections", "2", "--beat", "0"];
    let node = Node::start(&options).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for begun in ["", "GET /ws HTTP/1.1\r\nHost: hall\r\nUpgrade:"] {
        let started = Instant::now();
        let mut stream = TcpStream::connect(node.http()).await.expect("the node listens");
        stream.write_all(begun.as_bytes()).await.expect("sent");
        let mut answer = Vec::new();
        let ended = patiently("the server to let go", stream.read_to_end(&mut answer)).await;
        let waited = started.elapsed();
        assert!(ended.is_ok() || answer.is_empty(), "{ended:?}");
        assert!(waited >= Duration::from_millis(500) && waited < Duration::from_secs(8), "{waited:?}");
    }
    ada.said("lobby", "still here").await;
    Json::connect(&node.ws_url(), "?name=bea").await; // the seat is free again
}

#[tokio::test]
async fn what_is_no_http_or_too_much_of_it_is_refused_and_harms_nobody() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let endless = Request::handshake("/ws").with("X-Endless", &"x".repeat(100_000));
    let many = (0..1_000).fold(Request::handshake("/ws"), |request, n| request.with(&format!("X-{n}"), "x"));
    let long_path = Request::handshake(&format!("/ws?name={}", "x".repeat(100_000)));
    for request in [endless, many, long_path] {
        let mut stream = TcpStream::connect(node.http()).await.expect("the node listens");
        let _ = stream.write_all(request.text().as_bytes()).await; // refused before it is all sent, perhaps
        let mut answer = Vec::new();
        let _ = patiently("a refusal", stream.read_to_end(&mut answer)).await; // or reset, for the same reason
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    for nonsense in [&b"\x16\x03\x01\x02\0\x01\0"[..], b"hello\r\n\r\n", b"GET  / HTTP/9.9\r\n\r\n", &[0; 64]] {
        let mut stream = TcpStream::connect(node.http()).await.expect("the node listens");
        stream.write_all(nonsense).await.expect("sent");
        stream.shutdown().await.expect("sent");
        let mut answer = Vec::new();
        let _ = patiently("a refusal", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    }
    ada.said("lobby", "still here").await;
}

#[tokio::test]
async fn a_query_that_says_two_things_or_nonsense_is_refused() {
    let node = Node::start(&[]).await;
    for path in ["/ws?name=ada&name=bea", "/ws?room=lobby&room=help", "/ws?last=many", "/ws?last=-1"] {
        assert_refused(&refusal_of(&node, path).await, 400, &[]);
    }
}

#[tokio::test]
async fn every_address_is_below_the_base_path_too() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    let mut clients: Vec<Plain> = Vec::new();
    for path in ["/gin/ws?name=ada", "/gin/chatroom/ws?name=ada", "/gin/chatroom/ws/ada/token", "/ws?name=ada"] {
        let mut newest = Plain::connect(&node.ws(path), "").await;
        newest.say(path).await; // who hears itself has joined
        clients.push(newest);
        for client in &mut clients {
            client.expect(&format!("ada:{path}")).await;
        }
    }
    for path in ["/gin/echo", "/echo"] {
        let mut echo = Plain::connect(&node.ws(path), "").await;
        echo.say("ho").await;
        echo.expect("ho").await;
    }
    for path in ["/gin/gin/ws", "/ginws", "/gi/ws"] {
        assert_eq!(refusal_of(&node, path).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn names_in_the_tutorials_addresses_are_decoded() {
    let node = Node::start(&[]).await;
    for (segment, name) in [
        ("lewin", "lewin"),
        ("%E5%BC%A0%E4%B8%89", "张三"),
        ("a%20b", "a b"),
        ("a%2Fb", "a/b"),
        ("a%25b", "a%b"),
        ("a+b", "a+b"),
        ("Zoe%CC%88", "Zo\u{eb}"),
    ] {
        let url = node.ws(&format!("/chatroom/ws/{segment}/token"));
        assert_eq!(name_at(&url).await, name);
    }
    assert_eq!(name_at(&node.ws("/ws?name=a+b%26c")).await, "a b&c");
}

#[tokio::test]
async fn a_guest_with_a_key_is_the_same_person_at_every_node_and_nobody_else_is() {
    let node = Node::start(&[]).await;
    let elsewhere = Node::start(&[]).await;
    let id = id_of(&node, &format!("?name=ada&key={KEY}")).await;
    assert!(id.starts_with("guest-"), "{id}");
    assert_eq!(id_of(&node, &format!("?name=ada&key={KEY}")).await, id);
    assert_eq!(id_of(&node, &format!("?name=lady&key={}", KEY.to_uppercase())).await, id);
    assert_eq!(id_of(&elsewhere, &format!("?key={KEY}")).await, id);
    assert_ne!(id_of(&node, &format!("?name=ada&key={OTHER_KEY}")).await, id);
    for part in KEY.split('-') {
        assert!(!id.contains(part), "the key shows in {id}");
    }
}

#[tokio::test]
async fn a_guest_without_a_key_is_somebody_new_each_time() {
    let node = Node::start(&[]).await;
    let mut ids = HashSet::new();
    for query in ["?name=ada", "?name=ada", "", "?name=ada&key="] {
        let id = id_of(&node, query).await;
        assert!(id.starts_with("guest-"), "{id}");
        assert!(ids.insert(id), "{ids:?}");
    }
}

#[tokio::test]
async fn a_guest_without_a_name_is_called_by_the_address() {
    let node = Node::start(&[]).await;
    for path in ["/ws", "/ws?name=", "/chatroom/ws"] {
        let stream = TcpStream::connect(node.http()).await.expect("the node listens");
        let address = stream.local_addr().expect("connected");
        let (mut socket, _) = client_async(node.ws(path), stream).await.expect(path);
        socket.send(Message::text("hello")).await.expect("sent");
        let line = socket.next().await.expect("a message").expect("a frame");
        assert_eq!(line.into_text().expect("text").as_str(), format!("{address}:hello"));
    }
    let mut line = Line::connect(node.tcp_addr()).await;
    line.say("hello").await;
    line.expect(&format!("{}:hello", line.address)).await;

    let json = Json::connect(&node.ws_url(), "").await;
    let name = json.welcome["user"]["name"].as_str().expect("a name");
    let address: SocketAddr = name.parse().expect("the name is an address");
    assert!(address.ip().is_loopback(), "{address}");
}
