//! Who is here, at whatever node; who came and went; who is typing.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use crate::harness::{Cut, Json, Line, Node, Plain, RedisServer, wait_until};

/// The names in a list of members.
fn names(list: &Value) -> Vec<&str> {
    let members = list.as_array().unwrap_or_else(|| panic!("no list: {list}"));
    members.iter().map(|member| member["name"].as_str().expect("a name")).collect()
}

/// Somebody who is in the lobby.
async fn in_lobby(node: &Node, name: &str) -> Json {
    let mut client = Json::connect(&node.ws_url(), &format!("?name={name}")).await;
    client.join("lobby").await;
    client
}

#[tokio::test]
async fn members_of_every_door_and_node_are_counted_once_and_told_to_all() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url(), "--presence-grace", "0"]).await;
    let mut ada = Json::connect(&nodes[0].ws_url(), "?name=ada").await;
    let joined = ada.join("lobby").await;
    assert_eq!(joined["members"], 1, "{joined}");
    assert_eq!(ada.who("lobby").await, ["ada"]);

    let key = Uuid::new_v4();
    let mut ben = Json::connect(&nodes[1].ws_url(), &format!("?name=ben&key={key}")).await;
    let joined = ben.join("lobby").await;
    assert_eq!(joined["members"], 2, "{joined}");
    let told = ada.until_presence("of ben", |event| event["count"] == 2).await;
    assert_eq!((names(&told["joined"]), names(&told["left"])), (vec!["ben"], vec![]));
    assert_eq!(told["joined"][0]["id"], ben.welcome["user"]["id"]);
    assert_eq!(told["room"], "lobby");
    assert!(told.get("offset").is_none() && told.get("at").is_none(), "it moves no position: {told}");

    // The same person once more, at the other node: nobody new.
    let mut again = Json::connect(&nodes[0].ws_url(), &format!("?name=ben&key={key}")).await;
    assert_eq!(again.join("lobby").await["members"], 2);

    let mut lewin = Plain::connect(&nodes[1].ws_url(), "?name=lewin").await;
    let told = ada.until_presence("of lewin", |event| event["count"] == 3).await;
    assert_eq!(names(&told["joined"]), ["lewin"]);
    let mut nc = Line::connect(nodes[0].tcp_addr()).await;
    nc.say("/name zoe").await;
    ben.until_presence("of zoe", |event| event["count"] == 4 && names(&event["joined"]) == ["zoe"]).await;
    assert_eq!(ben.who("lobby").await, ["ada", "ben", "lewin", "zoe"]);
    nc.expect("! name you are zoe").await;
    nc.say("/who").await;
    nc.expect("! who 4 here: ada, ben, lewin, zoe").await;

    // One of two connections of the same person ends: nobody has left.
    drop(again);
    drop(nc);
    let told = ada.until_presence("of zoe's end", |event| event["count"] == 3).await;
    assert_eq!((names(&told["joined"]), names(&told["left"])), (vec![], vec!["zoe"]));
    ben.send(json!({"type": "leave", "room": "lobby"})).await;
    ben.until_type("left").await;
    let told = ada.until_presence("of ben's leaving", |event| event["count"] == 2).await;
    assert_eq!(names(&told["left"]), ["ben"]);
    lewin.say("bye").await;
    ada.hear("lobby", "bye").await;
    assert_eq!(ada.who("lobby").await, ["ada", "lewin"]);
}

#[tokio::test]
async fn a_reload_on_another_node_within_the_grace_is_neither_a_leave_nor_a_join() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let mut ada = in_lobby(&nodes[0], "ada").await;
    let key = Uuid::new_v4();
    let ben = |node: &Node| format!("{}?name=ben&key={key}", node.ws_url());
    let mut tab = Json::connect(&ben(&nodes[0]), "").await;
    tab.join("lobby").await;
    ada.until_presence("of ben", |event| event["count"] == 2).await;
    let told = ada.presence.len();
    for round in 1..=6 {
        drop(tab);
        tab = Json::connect(&ben(&nodes[round % 2]), "").await;
        assert_eq!(tab.join("lobby").await["members"], 2);
        assert_eq!(ada.who("lobby").await, ["ada", "ben"]);
    }
    assert_eq!(ada.presence[told..], [Value::Null; 0]);
    // A node tells in the order in which it learns: whatever it had to tell of ben came before this.
    let zoe = in_lobby(&nodes[1], "zoe").await;
    let told = ada.until_presence("of anybody", |_| true).await;
    assert_eq!((&told["count"], names(&told["joined"]), names(&told["left"])), (&json!(3), vec!["zoe"], vec![]));
    drop(zoe);
}

#[tokio::test]
async fn who_loses_the_connection_is_a_member_for_the_grace() {
    let node = Node::start(&["--presence-grace", "1s"]).await;
    let mut ada = in_lobby(&node, "ada").await;
    let ben = in_lobby(&node, "ben").await;
    ada.until_presence("of ben", |event| event["count"] == 2).await;
    let lost = Instant::now();
    drop(ben);
    ada.until_presence("of ben's end", |event| names(&event["left"]) == ["ben"]).await;
    assert!(lost.elapsed() >= Duration::from_secs(1), "{:?}", lost.elapsed());
}

#[tokio::test]
async fn members_of_a_node_that_is_killed_are_gone_within_thirty_seconds_and_not_at_once() {
    let redis = RedisServer::start();
    let mut nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let mut ada = in_lobby(&nodes[0], "ada").await;
    let key = Uuid::new_v4();
    let mut ben = Json::connect(&nodes[1].ws_url(), &format!("?name=ben&key={key}")).await;
    ben.join("lobby").await;
    let eve = in_lobby(&nodes[1], "eve").await;
    ada.until_presence("of eve", |event| event["count"] == 3).await;

    let killed = Instant::now();
    nodes[1].kill();
    // Ben comes back elsewhere; eve does not.
    let mut ben = Json::connect(&nodes[0].ws_url(), &format!("?name=ben&key={key}")).await;
    assert_eq!(ben.join("lobby").await["members"], 3);
    let told = ada.until_presence("of anybody", |_| true).await;
    let took = killed.elapsed();
    assert_eq!((names(&told["joined"]), names(&told["left"])), (vec![], vec!["eve"]), "{told}");
    assert!((Duration::from_secs(10)..Duration::from_secs(30)).contains(&took), "{took:?}");
    assert_eq!(ada.who("lobby").await, ["ada", "ben"]);
    drop(eve);
}

#[tokio::test]
async fn redis_stopped_for_longer_than_the_leases_makes_nobody_leave() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(3, &["--redis", &redis.url()]).await;
    let mut ada = in_lobby(&nodes[0], "ada").await;
    let mut ben = in_lobby(&nodes[1], "ben").await;
    let _eve = in_lobby(&nodes[2], "eve").await;
    for client in [&mut ada, &mut ben] {
        client.until_presence("of eve", |event| event["count"] == 3).await;
    }
    let told = (ada.presence.len(), ben.presence.len());
    // Eve's node is the last to be back: by then the others have renewed their leases, and hers has lapsed.
    nodes[2].signal("STOP");
    redis.pause();
    let back = Instant::now() + Duration::from_secs(25);
    ada.send(json!({"type": "who", "room": "lobby", "ref": "w"})).await;
    let refused = ada.expect_error("unavailable").await;
    assert_eq!((&refused["ref"], &refused["room"]), (&json!("w"), &json!("lobby")));
    assert!(refused["retry_after_ms"].is_u64(), "{refused}");
    assert!(Instant::now() < back, "refused only when Redis was back");
    tokio::time::sleep_until(back).await; // how long it is away is what is tested
    redis.resume();
    for node in &nodes[..2] {
        wait_until("the node is linked again", async || node.metric("townhall_broker_up").await == 1.0).await;
    }
    for client in [&mut ada, &mut ben] {
        while ask_for_members(client).await["type"] == "error" {}
    }
    nodes[2].signal("CONT");
    wait_until("the node is linked again", async || nodes[2].metric("townhall_broker_up").await == 1.0).await;
    // Beyond the time after which dead nodes' members are removed again.
    let settled = Instant::now() + Duration::from_secs(20);
    while Instant::now() < settled {
        let asked = ask_for_members(&mut ada).await;
        assert!(asked["type"] == "error" || asked["count"] == 3, "{asked}");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    ben.expect_silence().await;
    assert_eq!((&ada.presence[told.0..], &ben.presence[told.1..]), (&[][..], &[][..]));
    let _zoe = in_lobby(&nodes[1], "zoe").await;
    for client in [&mut ada, &mut ben] {
        let told = client.until_presence("of anybody", |_| true).await;
        assert_eq!((names(&told["joined"]), names(&told["left"])), (vec!["zoe"], vec![]), "{told}");
    }
}

/// `members`, or the error instead.
async fn ask_for_members(client: &mut Json) -> Value {
    client.send(json!({"type": "who", "room": "lobby"})).await;
    client.until("an answer", |event| event["type"] == "members" || event["type"] == "error").await
}

#[tokio::test]
async fn redis_restarted_with_nothing_makes_nobody_leave_but_those_who_left_meanwhile() {
    let mut redis = RedisServer::start();
    let nodes = Node::start_many(3, &["--redis", &redis.url(), "--presence-grace", "0"]).await;
    let mut ada = in_lobby(&nodes[0], "ada").await;
    let ben = in_lobby(&nodes[1], "ben").await;
    let eve = in_lobby(&nodes[2], "eve").await;
    ada.until_presence("of eve", |event| event["count"] == 3).await;
    redis.kill();
    drop(eve);
    wait_until("eve is gone", async || nodes[2].metric("townhall_connections{door=\"json\"}").await == 0.0).await;
    // Ben's node is slow: for a while nobody says that he is there.
    nodes[1].signal("STOP");
    redis.restart_empty();
    wait_until("ada's node has said it again", async || {
        redis.cli(&["HLEN", "townhall:{lobby}:members"]) == "2" // and a field that is no member
    })
    .await;
    assert_eq!(ada.who("lobby").await, ["ada", "ben", "eve"]);
    nodes[1].signal("CONT");
    let told = ada.until_presence("of anybody", |_| true).await;
    assert_eq!((names(&told["joined"]), names(&told["left"])), (vec![], vec!["eve"]), "{told}");
    assert_eq!(told["count"], 2);
    assert_eq!(ada.who("lobby").await, ["ada", "ben"]);
    drop(ben);
    let told = ada.until_presence("of ben's end", |event| event["count"] == 1).await;
    assert_eq!(names(&told["left"]), ["ben"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_of_more_than_two_hundred_is_counted_at_most_once_a_second_and_listed_in_part() {
    const MANY: usize = 300;
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let mut ada = in_lobby(&nodes[0], "ada").await;
    let began = Instant::now();
    let mut crowd = Vec::new();
    for number in 1..MANY {
        crowd.push(in_lobby(&nodes[number % 2], &format!("guest{number}")).await);
    }
    ada.until_presence("of all", |event| event["count"] == MANY).await;
    let seconds = began.elapsed().as_secs() as usize;
    let counts: Vec<&Value> = ada.presence.iter().filter(|event| event["count"].as_u64() > Some(200)).collect();
    assert!(counts.len() <= seconds + 2, "{} counts in {seconds} s", counts.len());
    for event in counts {
        assert!(event.get("joined").is_none() && event.get("left").is_none(), "{event}");
    }
    ada.send(json!({"type": "who", "room": "lobby"})).await;
    let members = ada.until_type("members").await;
    assert_eq!((&members["count"], names(&members["members"]).len()), (&json!(MANY), 200));
    let mut nc = Line::connect(nodes[1].tcp_addr()).await;
    nc.say("/who").await;
    let who = nc.next().await;
    assert!(who.starts_with("! who 301 here: ") && who.ends_with(" more") && who.len() < 1200, "{who}");

    // Nobody types in such a room.
    ada.send(json!({"type": "typing", "room": "lobby"})).await;
    ada.said("lobby", "typed").await;
    let last = crowd.last_mut().expect("a crowd");
    last.hear("lobby", "typed").await;
    last.expect_silence().await;
    assert_eq!((last.typing.len(), ada.typing.len()), (0, 0));
}

#[tokio::test]
async fn typing_is_shown_to_all_nodes_at_most_once_in_three_seconds_a_member() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let key = Uuid::new_v4();
    let mut tabs = Vec::new();
    for node in &nodes {
        let mut tab = Json::connect(&node.ws_url(), &format!("?name=ada&key={key}")).await;
        tab.join("lobby").await;
        tabs.push(tab);
    }
    let mut ben = in_lobby(&nodes[1], "ben").await;
    let mut lewin = Plain::connect(&nodes[1].ws_url(), "?name=lewin").await;
    let typing = json!({"type": "typing", "room": "lobby"});
    let began = Instant::now();
    for _ in 0..5 {
        for tab in &mut tabs {
            tab.send(typing.clone()).await;
        }
    }
    let shown = ben.until_type("typing").await;
    let from = json!({"id": tabs[0].welcome["user"]["id"], "name": "ada"});
    assert_eq!(shown, json!({"type": "typing", "room": "lobby", "from": from}));
    tabs[0].said("lobby", "one").await;
    tabs[1].said("lobby", "two").await;
    ben.hear("lobby", "two").await;
    ben.expect_silence().await;
    assert_eq!(ben.typing.len(), 1, "{:?}", ben.typing);
    lewin.expect("ada:one").await;
    lewin.expect("ada:two").await;
    // Again and again, until another one passes.
    let mut again = None;
    while again.is_none() {
        tabs[0].send(typing.clone()).await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        tabs[0].send(json!({"type": "no-such-command"})).await;
        let next = tabs[0].until("an answer", |event| event["type"] == "typing" || event["type"] == "error").await;
        again = (next["type"] == "typing" && began.elapsed() > Duration::from_secs(1)).then_some(began.elapsed());
    }
    assert!(again >= Some(Duration::from_millis(2900)), "{again:?}");
    ben.send(json!({"type": "typing", "room": "elsewhere", "ref": 1})).await;
    let refused = ben.until_type("error").await;
    assert_eq!((&refused["code"], &refused["ref"]), (&json!("not_joined"), &json!(1)));
}

#[tokio::test]
async fn names_with_markup_are_names() {
    let node = Node::start(&[]).await;
    let mut ada = in_lobby(&node, "ada").await;
    let _eve = in_lobby(&node, "%3Cb%3E%22%5C%26%D7%90").await;
    let told = ada.until_presence("of eve", |event| event["count"] == 2).await;
    assert_eq!(names(&told["joined"]), ["<b>\"\\&\u{5d0}"]);
    assert_eq!(ada.who("lobby").await, ["<b>\"\\&\u{5d0}", "ada"]);
}

#[tokio::test]
async fn an_announcement_that_is_lost_is_made_up_for() {
    let redis = RedisServer::start();
    let wire = Cut::in_front_of(([127, 0, 0, 1], redis.port()).into()).await;
    let deaf = Node::start(&["--redis", &format!("redis://{}", wire.address())]).await;
    let other = Node::start(&["--redis", &redis.url()]).await;
    let mut ada = in_lobby(&deaf, "ada").await;
    let _zoe = in_lobby(&other, "zoe").await;
    ada.until_presence("of zoe", |event| event["count"] == 2).await;
    wire.swallow_next_with("1 @ ");
    let _ben = in_lobby(&other, "ben").await;
    wait_until("the announcement is lost", async || wire.has_swallowed()).await;
    ada.until_presence("of ben", |event| names(&event["joined"]) == ["ben"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_reads_in_fits_and_starts_gets_whole_frames_and_every_message_whoever_comes_and_goes() {
    const MESSAGES: u64 = 300;
    let node = Node::start(&["--rate", "0", "--presence-grace", "0"]).await;
    let mut readers = vec![
        Json::connect_fitful(&node.ws_url(), "?name=fitful", 7).await,
        Json::connect_narrow(&node.ws_url(), "?name=narrow").await,
    ];
    for reader in &mut readers {
        reader.join("lobby").await;
    }
    let mut reading = Vec::new();
    for mut reader in readers {
        reading.push(tokio::spawn(async move {
            reader.reach("lobby", MESSAGES).await;
            reader.until_presence("of the end", |event| event["count"] == 3).await;
            reader
        }));
    }
    let mut ada = in_lobby(&node, "ada").await;
    for number in 1..=MESSAGES {
        ada.send(json!({"type": "typing", "room": "lobby"})).await;
        ada.said("lobby", &format!("{number} {}", "x".repeat(3000))).await;
        if number % 30 == 0 {
            let visitor = in_lobby(&node, &format!("visitor{number}")).await;
            ada.until_presence("of a visitor", |event| event["count"] == 4).await;
            drop(visitor);
            ada.until_presence("of the visitor's end", |event| event["count"] == 3).await;
        }
    }
    let mut readers = Vec::new();
    for reader in reading {
        readers.push(reader.await.expect("it reads"));
    }
    for reader in &mut readers {
        assert_eq!(reader.who("lobby").await, ["ada", "fitful", "narrow"]);
    }
}

#[tokio::test]
async fn who_comes_back_to_a_room_that_nobody_listened_to_is_told_how_many_there_are_by_now() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url(), "--presence-grace", "30s"]).await;
    let ada = format!("{}?name=ada&key={}", nodes[0].ws_url(), Uuid::new_v4());
    let mut tab = Json::connect(&ada, "").await;
    tab.join("lobby").await;
    wait_until("her node counts the room", async || nodes[0].metric("townhall_rooms").await == 1.0).await;
    drop(tab);
    wait_until("her node has closed the room", async || nodes[0].metric("townhall_rooms").await == 0.0).await;
    let mut ben = in_lobby(&nodes[1], "ben").await;
    assert_eq!(ben.who("lobby").await, ["ada", "ben"]);
    let mut tab = Json::connect(&ada, "").await;
    assert_eq!(tab.join("lobby").await["members"], 2);
}

#[tokio::test]
async fn a_replica_that_is_replaced_makes_nobody_leave() {
    let redis = RedisServer::start();
    let mut nodes = Node::start_many(2, &["--redis", &redis.url(), "--drain", "0"]).await;
    let mut ada = in_lobby(&nodes[0], "ada").await;
    let key = Uuid::new_v4();
    let mut ben = Json::connect(&nodes[1].ws_url(), &format!("?name=ben&key={key}")).await;
    ben.join("lobby").await;
    ada.until_presence("of ben", |event| event["count"] == 2).await;
    nodes[1].terminate();
    assert_eq!(ben.until_closed().await.0, 1012);
    let mut ben = Json::connect(&nodes[0].ws_url(), &format!("?name=ben&key={key}")).await;
    assert_eq!(ben.join("lobby").await["members"], 2);
    nodes[1].wait_exit().await;
    let _zoe = in_lobby(&nodes[0], "zoe").await;
    let told = ada.until_presence("of anybody", |_| true).await;
    assert_eq!((names(&told["joined"]), names(&told["left"])), (vec!["zoe"], vec![]), "{told}");
}

#[tokio::test]
async fn the_line_door_says_when_it_is_not_known_who_is_here_and_goes_on() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("/name zoe").await;
    nc.expect("! name you are zoe").await;
    redis.pause();
    nc.say("/who").await;
    nc.expect_notice("unavailable").await;
    redis.resume();
    nc.say("hello").await;
    nc.expect("zoe:hello").await;
}
