//! Connections and nodes that end in the middle of something.

use serde_json::Value;

use crate::harness::{Cut, Faithful, Json, Node, RedisServer, wait_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_node_that_is_killed_resume_elsewhere_and_every_accepted_message_is_there_once() {
    const EACH: usize = 150;
    let redis = RedisServer::start();
    let mut nodes = Node::start_many(3, &["--redis", &redis.url(), "--rate", "0"]).await;
    let urls: Vec<String> = nodes.iter().map(Node::ws_url).collect();
    let clients = Faithful::join_many(30, &urls, "lobby").await;
    for number in 0..EACH {
        for client in &clients {
            client.say(&format!("message {number}"));
        }
    }
    let total = EACH * clients.len();
    clients[0].wait_reached(total as u64 / 4).await;
    nodes[0].kill();
    assert!(clients.iter().any(|client| client.record().accepted.len() < EACH), "it was not under load");
    for client in &clients {
        client.wait_accepted(EACH).await;
        client.wait_reached(total as u64).await;
    }
    Faithful::assert_one_room(&clients, total);
    for (number, client) in clients.iter().enumerate() {
        let connections = client.record().connections;
        assert_eq!(connections, if number % 3 == 0 { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_client_cut_in_the_middle_of_a_frame_resumes_and_misses_nothing() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let wires = [Cut::in_front_of(nodes[0].http()).await, Cut::in_front_of(nodes[1].http()).await];
    let mut talker = Json::connect(&nodes[0].ws_url(), "?name=talker").await;
    talker.join("lobby").await;
    talker.said("lobby", "before").await;

    let mut listener = Json::connect(&wires[0].ws_url(), "?name=listener").await;
    listener.join("lobby").await;
    listener.hear("lobby", "before").await;
    let mut heard = listener.texts("lobby");
    let mut said = vec!["before".to_string()];
    // In the frame's head, right behind it, in its text, and in the frame after it.
    for (round, bytes) in [1, 2, 3, 4, 5, 60, 100, 260].into_iter().enumerate() {
        wires[round % 2].cut_after(bytes);
        for number in 0..3 {
            let text = format!("message {round}.{number}");
            talker.said("lobby", &text).await;
            said.push(text);
        }
        let (code, _) = listener.until_closed().await;
        assert_eq!(code, 1006, "cut, not closed");
        heard.extend(new_since(&listener, heard.len()));

        let position = listener.position("lobby");
        assert_eq!(position.offset as usize, heard.len());
        listener = Json::connect(&wires[(round + 1) % 2].ws_url(), "?name=listener").await;
        let joined = listener.resume("lobby", &position).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        listener.hear("lobby", said.last().expect("something was said")).await;
        heard.extend(listener.texts("lobby"));
        assert_eq!(heard, said);
    }
}

/// The texts with offsets above `offset`.
fn new_since(client: &Json, offset: usize) -> Vec<String> {
    let messages = client.view("lobby").messages.iter();
    let new = messages.filter(|message| message["offset"].as_u64() > Some(offset as u64));
    new.map(|message: &Value| message["text"].as_str().expect("a text").into()).collect()
}

#[tokio::test]
async fn a_member_whose_connection_was_cut_is_let_go() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let mut ada = Json::connect(&wire.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let open = async || node.metric(r#"townhall_connections{door="json"}"#).await;
    wait_until("one connection is counted", async || open().await == 1.0).await;
    wire.cut();
    wait_until("no connection is counted", async || open().await == 0.0).await;
}
