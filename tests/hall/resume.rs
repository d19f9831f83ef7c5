//! A client that comes back with a position gets exactly what it missed, or is told that this is impossible.

use serde_json::json;

use crate::harness::{Cut, Json, Node, Position, RedisServer, wait_until};

/// Says `first..=last` as one client and leaves again; the position afterwards.
async fn talk(node: &Node, room: &str, first: u64, last: u64) -> Position {
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join_last(room, 0).await;
    let mut position = ada.position(room);
    let all: Vec<String> = numbers(first, last);
    for some in all.chunks(50) {
        for text in some {
            ada.say(room, text).await;
        }
        for _ in some {
            position = Position::of(&ada.until_type("accepted").await);
        }
    }
    assert_eq!(position.offset, last);
    ada.hear(room, &last.to_string()).await;
    position
}

fn numbers(first: u64, last: u64) -> Vec<String> {
    (first..=last).map(|number| number.to_string()).collect()
}

/// The same promises with either broker: said at the first node, resumed at the second.
async fn with_either_broker(options: &[&str], test: impl AsyncFn(&Node, &Node)) {
    let alone = Node::start(options).await;
    test(&alone, &alone).await;
    let redis = RedisServer::start();
    let url = redis.url();
    let mut shared = vec!["--redis", url.as_str()];
    shared.extend(options);
    let nodes = Node::start_many(2, &shared).await;
    test(&nodes[0], &nodes[1]).await;
}

#[tokio::test]
async fn a_client_gets_what_it_missed_and_then_what_is_said() {
    with_either_broker(&["--rate", "0"], async |east, west| {
        let mut epoch = talk(east, "lobby", 1, 3).await;
        talk(east, "lobby", 4, 303).await;
        epoch.offset = 3;
        let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
        let joined = ben.resume("lobby", &epoch).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        assert_eq!(joined["offset"], 303);
        assert_eq!(joined["backlog"], 300, "however much");
        talk(east, "lobby", 304, 305).await;
        ben.reach("lobby", 305).await;
        assert_eq!(ben.texts("lobby"), numbers(4, 305));
    })
    .await;
}

#[tokio::test]
async fn a_position_at_the_head_brings_only_what_is_new() {
    with_either_broker(&[], async |east, west| {
        let head = talk(east, "lobby", 1, 3).await;
        let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
        let joined = ben.resume("lobby", &head).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        assert_eq!(joined["backlog"], 0);
        talk(east, "lobby", 4, 4).await;
        ben.reach("lobby", 4).await;
        assert_eq!(ben.texts("lobby"), ["4"]);
    })
    .await;
}

#[tokio::test]
async fn the_position_of_a_silent_room_brings_everything_since_its_first_message() {
    with_either_broker(&[], async |east, west| {
        let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
        let joined = ben.resume("lobby", &Position::new("", 0)).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        talk(east, "lobby", 1, 3).await;
        ben.reach("lobby", 3).await;
        drop(ben);
        let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
        let joined = ben.resume("lobby", &Position::new("", 0)).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        ben.reach("lobby", 3).await;
        assert_eq!(ben.texts("lobby"), numbers(1, 3));
    })
    .await;
}

#[tokio::test]
async fn unknown_and_too_far_positions_say_so_and_bring_the_last_messages() {
    with_either_broker(&["--rate", "0"], async |east, west| {
        let head = talk(east, "lobby", 1, 70).await;
        let too_far = Position::new(&head.epoch, 71);
        let far_too_far = Position::new(&head.epoch, u64::MAX >> 11);
        let unknown = Position::new("00000000000000000000000000000000", 3);
        let unknown_at_zero = Position::new("nobody's", 0);
        let silent_with_offset = Position::new("", 3);
        for after in [too_far, far_too_far, unknown, unknown_at_zero, silent_with_offset] {
            let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
            let joined = ben.resume("lobby", &after).await;
            assert_eq!(joined["recovered"], false, "{after:?}: {joined}");
            assert_eq!((&joined["offset"], &joined["backlog"]), (&70.into(), &50.into()));
            ben.reach("lobby", 70).await;
            assert_eq!(ben.texts("lobby"), numbers(21, 70));

            let again = ben.join_with(json!({"type": "join", "room": "lobby", "after": after.json(), "last": 2})).await;
            assert_eq!(again["recovered"], false, "{after:?}: {again}");
            ben.reach("lobby", 70).await;
            assert_eq!(ben.texts("lobby"), ["69", "70"]);
        }
    })
    .await;
}

#[tokio::test]
async fn a_trimmed_position_says_so_and_brings_the_last_messages() {
    let small = ["--rate", "0", "--history", "10", "--room-window-messages", "10"];
    with_either_broker(&small, async |east, west| {
        let mut head = talk(east, "lobby", 1, 600).await;
        head.offset = 1;
        let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
        let joined = ben.join_with(json!({"type": "join", "room": "lobby", "after": head.json(), "last": 5})).await;
        assert_eq!(joined["recovered"], false, "{joined}");
        assert_eq!((&joined["offset"], &joined["backlog"]), (&600.into(), &5.into()));
        ben.reach("lobby", 600).await;
        assert_eq!(ben.texts("lobby"), numbers(596, 600));
        // At least `--history` messages are kept.
        head.offset = 590;
        let joined = ben.resume("lobby", &head).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        ben.reach("lobby", 600).await;
        assert_eq!(ben.texts("lobby"), numbers(591, 600));
        // The silent position is as trimmed as any other.
        let joined = ben.resume("lobby", &Position::new("", 0)).await;
        assert_eq!(joined["recovered"], false, "{joined}");
    })
    .await;
}

#[tokio::test]
async fn a_position_from_outside_the_window_is_recovered_from_history() {
    let small = ["--rate", "0", "--room-window-messages", "10"];
    with_either_broker(&small, async |east, west| {
        let mut head = talk(east, "lobby", 1, 1000).await;
        head.offset = 7;
        let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
        let joined = ben.resume("lobby", &head).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        ben.reach("lobby", 1000).await;
        assert_eq!(ben.texts("lobby"), numbers(8, 1000));
    })
    .await;
}

#[tokio::test]
async fn a_position_of_another_node_that_is_ahead_is_waited_for_and_not_refused() {
    let redis = RedisServer::start();
    let wire = Cut::in_front_of(([127, 0, 0, 1], redis.port()).into()).await;
    let ahead = Node::start(&["--redis", &redis.url()]).await;
    let behind = Node::start(&["--redis", &format!("redis://{}", wire.address())]).await;
    let mut member = Json::connect(&behind.ws_url(), "?name=member").await;
    member.join("lobby").await;
    let mut ada = Json::connect(&ahead.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "one").await;
    member.hear("lobby", "one").await;

    wire.swallow_next_with("two");
    let position = ada.said("lobby", "two").await;
    wait_until("the other node did not hear it", async || wire.has_swallowed()).await;
    let mut ben = Json::connect(&behind.ws_url(), "?name=ben").await;
    let joined = ben.resume("lobby", &position).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    assert!(ben.texts("lobby").is_empty(), "it has that message");
    ada.said("lobby", "three").await;
    ben.hear("lobby", "three").await;
    assert_eq!(ben.texts("lobby"), ["three"]);
    member.hear("lobby", "three").await;
    assert_eq!(member.texts("lobby"), ["one", "two", "three"]);
}

#[tokio::test]
async fn a_position_that_nobody_can_judge_is_answered_with_unavailable_and_later_recovered() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    let position = talk(&node, "lobby", 1, 3).await;
    let other = Node::start(&["--redis", &redis.url()]).await;
    let mut ben = Json::connect(&other.ws_url(), "?name=ben").await;
    redis.pause();
    ben.send(json!({"type": "join", "room": "lobby", "after": position.json(), "ref": "back"})).await;
    let refused = ben.expect_error("unavailable").await;
    assert_eq!((&refused["ref"], &refused["room"]), (&"back".into(), &"lobby".into()));
    assert!(refused["retry_after_ms"].is_u64(), "{refused}");
    redis.resume();
    wait_until("Redis is heard again", async || other.metric("townhall_broker_up").await == 1.0).await;
    let joined = ben.resume("lobby", &position).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    assert_eq!(joined["backlog"], 0);
}

#[tokio::test]
async fn joining_again_moves_the_cursor() {
    with_either_broker(&[], async |east, west| {
        let head = talk(east, "lobby", 1, 10).await;
        let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
        let joined = ben.join_last("lobby", 3).await;
        assert_eq!(joined["backlog"], 3);
        ben.reach("lobby", 10).await;
        let joined = ben.resume("lobby", &Position::new(&head.epoch, 4)).await;
        assert_eq!(joined["recovered"], true, "{joined}");
        assert_eq!(joined["backlog"], 6);
        ben.reach("lobby", 10).await;
        assert_eq!(ben.texts("lobby"), numbers(5, 10));
        let joined = ben.join_last("lobby", 1).await;
        assert_eq!(joined["backlog"], 1);
        talk(east, "lobby", 11, 11).await;
        ben.reach("lobby", 11).await;
        assert_eq!(ben.texts("lobby"), ["10", "11"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_a_room_that_cannot_be_read_catches_up_in_others() {
    const MESSAGES: u64 = 620;
    let redis = RedisServer::start();
    let options = ["--redis", &redis.url(), "--rate", "0", "--beat", "0", "--room-window-messages", "16"];
    let east = Node::start(&options).await;
    let west = Node::start(&options).await;
    let mut ada = Json::connect(&east.ws_url(), "?name=ada").await;
    let mut host = Json::connect(&west.ws_url(), "?name=host").await;
    for room in ["attic", "lobby"] {
        ada.join(room).await;
        for number in 1..=MESSAGES {
            ada.say(room, &number.to_string()).await;
        }
        ada.reach(room, MESSAGES).await;
        host.join_last(room, 0).await;
    }
    // Somebody of a newer version has been in the attic: its history cannot be read here any more.
    redis.cli(&["HSET", "townhall:{attic}:meta", "format", "2"]);
    let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
    let behind = |room: &str| Position { offset: MESSAGES - 30, ..host.position(room) };
    let joined = ben.resume("attic", &behind("attic")).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    ben.send(json!({"type": "leave", "room": "attic"})).await;
    ben.expect_type("left").await;
    let joined = ben.resume("lobby", &behind("lobby")).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    ben.reach("lobby", MESSAGES).await;
}
