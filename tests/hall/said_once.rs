//! A message that is sent again under the same id is stored once.

use uuid::Uuid;

use crate::harness::{Json, Node, RedisServer, patiently};

#[tokio::test]
async fn the_same_id_sent_three_times_to_different_nodes_is_stored_once_and_accepted_three_times_with_one_offset() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(3, &["--redis", &redis.url()]).await;
    let mut listener = Json::connect(&nodes[0].ws_url(), "?name=listener").await;
    listener.join("lobby").await;
    let key = Uuid::new_v4();
    let id = Uuid::new_v4();
    let mut positions = Vec::new();
    for (number, node) in nodes.iter().enumerate() {
        let mut ada = Json::connect(&node.ws_url(), &format!("?name=ada&key={key}")).await;
        ada.join("lobby").await;
        ada.say_as("lobby", id, &format!("attempt {number}")).await;
        positions.push(ada.accepted(id).await);
        ada.said("lobby", &format!("after attempt {number}")).await;
    }
    assert!(positions.iter().all(|position| *position == positions[0]));
    listener.hear("lobby", "after attempt 2").await;
    let expected = ["attempt 0", "after attempt 0", "after attempt 1", "after attempt 2"];
    assert_eq!(listener.texts("lobby"), expected);
}

#[tokio::test]
async fn the_same_id_sent_three_times_to_one_node_at_once_is_stored_once() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let id = Uuid::new_v4();
    for number in 0..3 {
        ada.say_as("lobby", id, &format!("attempt {number}")).await;
    }
    let first = ada.accepted(id).await;
    assert_eq!(ada.accepted(id).await, first);
    assert_eq!(ada.accepted(id).await, first);
    ada.said("lobby", "after").await;
    ada.hear("lobby", "after").await;
    assert_eq!(ada.texts("lobby"), ["attempt 0", "after"]);
}

#[tokio::test]
async fn the_same_id_of_another_person_is_another_message() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let mut eve = Json::connect(&node.ws_url(), "?name=ada").await;
    let id = Uuid::new_v4();
    ada.join("lobby").await;
    eve.join("lobby").await;
    eve.say_as("lobby", id, "eve's").await;
    eve.accepted(id).await;
    ada.say_as("lobby", id, "ada's").await;
    ada.accepted(id).await;
    ada.hear("lobby", "ada's").await;
    assert_eq!(ada.texts("lobby"), ["eve's", "ada's"]);
}

#[tokio::test]
async fn the_same_id_in_another_room_is_another_message() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let id = Uuid::new_v4();
    for room in ["east", "west"] {
        ada.join(room).await;
        ada.say_as(room, id, room).await;
        ada.accepted(id).await;
        ada.hear(room, room).await;
    }
}

#[tokio::test]
async fn an_id_is_forgotten_after_dedupe() {
    let redis = RedisServer::start();
    let east = Node::start(&["--redis", &redis.url(), "--dedupe", "1s"]).await;
    let west = Node::start(&["--dedupe", "1s"]).await;
    for node in [&east, &west] {
        let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
        ada.join("lobby").await;
        let id = Uuid::new_v4();
        ada.say_as("lobby", id, "again").await;
        let first = ada.accepted(id).await;
        assert_eq!(first.offset, 1);
        let pause = std::time::Duration::from_millis(100); // below --rate
        patiently("the id to be forgotten", async {
            loop {
                tokio::time::sleep(pause).await;
                ada.say_as("lobby", id, "again").await;
                match ada.accepted(id).await.offset {
                    1 => continue,
                    offset => return assert_eq!(offset, 2),
                }
            }
        })
        .await;
    }
}
