//! Behind nginx: any node for any client, the tutorial's own location to the letter, and no line cut for being idle.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::harness::{Json, Nginx, NginxKind, Node, Plain, RedisServer, get, wait_until};
use crate::wire::Request;

/// How many clients came in by a door of this node.
async fn opened(node: &Node, door: &str) -> f64 {
    node.metric(&format!("townhall_connections_opened_total{{door=\"{door}\"}}")).await
}

#[tokio::test]
async fn clients_of_every_kind_at_three_nodes_hear_one_another() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(3, &["--redis", &redis.url()]).await;
    let ports: Vec<u16> = nodes.iter().map(Node::port).collect();
    let front = Nginx::start(&ports, NginxKind::RoundRobin).await;

    let mut ada = Json::connect(&front.ws_url(), "?name=ada").await;
    let mut bea = Plain::connect(&front.ws_url(), "?name=bea").await;
    let mut lewin = Plain::connect(&front.ws("/chatroom/ws/lewin/token"), "").await;
    for node in &nodes {
        wait_until("every node has one of them", async || {
            opened(node, "json").await + opened(node, "plain").await == 1.0
        })
        .await;
    }

    ada.join("lobby").await;
    bea.say("bea is here").await;
    bea.until("bea:bea is here").await;
    lewin.say("lewin is here").await;
    lewin.until("lewin:lewin is here").await;
    for turn in 0..5 {
        ada.say("lobby", &format!("ada {turn}")).await;
        for client in [&mut bea, &mut lewin] {
            client.until(&format!("ada:ada {turn}")).await;
        }
        bea.say(&format!("bea {turn}")).await;
        bea.expect(&format!("bea:bea {turn}")).await;
        lewin.expect(&format!("bea:bea {turn}")).await;
        lewin.say(&format!("lewin {turn}")).await;
        bea.expect(&format!("lewin:lewin {turn}")).await;
        lewin.expect(&format!("lewin:lewin {turn}")).await;
    }
    ada.hear("lobby", "lewin 4").await;
    let said = (0..5).flat_map(|turn| ["ada", "bea", "lewin"].map(|name| format!("{name} {turn}")));
    let greeted = ["bea is here", "lewin is here"].map(String::from);
    assert_eq!(ada.texts("lobby"), greeted.into_iter().chain(said).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_tutorials_location_works_to_the_letter() {
    let page = "https://blog.example";
    let node = Node::start(&["--base-path", "/gin", "--allow-origin", page]).await;
    let front = Nginx::start(&[node.port()], NginxKind::TutorialGin).await;

    let redirect = get(front.http(), "/gin", "").await.expect("an answer");
    assert_eq!(redirect.header("Location"), Some("gin/"), "{redirect:?}");
    for path in ["/gin/", "/gin/chatroom", "/gin/echo"] {
        let answer = get(front.http(), path, "").await.expect("an answer");
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert!(answer.body.contains("<script"), "{path} is no page: {answer:?}");
    }

    // This nginx passes `Host: bloggin:9999`, so the page's origin is nobody's own and has to be allowed.
    let handshake = |origin| Request::handshake("/gin/chatroom/ws").with("Origin", origin);
    let answer = handshake(page).send(front.http()).await;
    assert_eq!(answer.status, 101, "{answer:?}");
    let refusal = handshake("https://evil.example").send(front.http()).await;
    assert_eq!(refusal.status, 403, "{refusal:?}");
    for word in ["https://evil.example", "bloggin:9999", "--allow-origin"] {
        assert!(refusal.body.contains(word), "no {word} in {refusal:?}");
    }

    let mut ada = Json::connect(&front.ws("/gin/ws"), "?name=ada").await;
    ada.join("lobby").await;
    let mut lewin = Plain::connect(&front.ws("/gin/chatroom/ws/lewin/token"), "").await;
    lewin.say("through the tutorial's nginx").await;
    lewin.expect("lewin:through the tutorial's nginx").await;
    ada.hear("lobby", "through the tutorial's nginx").await;
    ada.say("lobby", "and back").await;
    lewin.expect("ada:and back").await;
}

/// Longer than nginx waits for a word in these tests, and than it takes to let go of who does not answer three pings.
const IDLE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn idle_clients_outlive_nginxs_patience() {
    let node = Node::start(&["--beat", "1s"]).await;
    let front = Nginx::start_with(&[node.port()], NginxKind::RoundRobin, "proxy_read_timeout 2s;").await;
    let mut ada = Json::connect(&front.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut lewin = Plain::connect(&front.ws("/chatroom/ws/lewin/token"), "").await;
    lewin.say("here").await;
    lewin.until("lewin:here").await;
    ada.hear("lobby", "here").await;

    let (ada_heard, lewin_heard) =
        tokio::join!(timeout(IDLE, ada.next_or_close()), timeout(IDLE, lewin.next_or_close()));
    assert!(ada_heard.is_err(), "not idle: {ada_heard:?}");
    assert!(lewin_heard.is_err(), "not idle: {lewin_heard:?}");
    ada.said("lobby", "still here").await;
    lewin.expect("ada:still here").await;
}

#[tokio::test]
async fn without_beats_nginx_cuts_who_is_idle() {
    let node = Node::start(&["--beat", "0"]).await;
    let front = Nginx::start_with(&[node.port()], NginxKind::RoundRobin, "proxy_read_timeout 1s;").await;
    let mut ada = Json::connect(&front.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.until_closed().await;
}

#[tokio::test]
async fn nginx_sends_new_clients_past_a_node_that_stops() {
    let redis = RedisServer::start();
    let options = ["--redis", &redis.url(), "--drain", "20s"];
    let mut nodes = Node::start_many(3, &options).await;
    let ports: Vec<u16> = nodes.iter().map(Node::port).collect();
    let front = Nginx::start(&ports, NginxKind::RoundRobin).await;
    let mut inside = Vec::new();
    for name in ["ada", "bea", "cleo"] {
        let mut client = Json::connect(&front.ws_url(), &format!("?name={name}")).await;
        client.join("lobby").await;
        inside.push(client);
    }
    assert_eq!(opened(&nodes[0], "json").await, 1.0);

    // While its clients are still being served, it takes no new ones; nobody notices but nginx.
    nodes[0].terminate();
    let leaving = nodes[0].http();
    wait_until("the listener is closed", async || TcpStream::connect(leaving).await.is_err()).await;
    for number in 0..6 {
        let mut client = Json::connect(&front.ws_url(), &format!("?name=new{number}")).await;
        client.join("lobby").await;
        client.said("lobby", &format!("new {number}")).await;
        inside.push(client);
    }
    assert_eq!(opened(&nodes[0], "json").await, 1.0, "it took a new one");
    inside[0].hear("lobby", "new 5").await;

    // A node that dies is skipped as well.
    nodes[0].kill();
    nodes[1].kill();
    for number in 0..4 {
        let mut client = Json::connect(&front.ws_url(), &format!("?name=late{number}")).await;
        client.join("lobby").await;
        client.said("lobby", &format!("late {number}")).await;
    }
}
