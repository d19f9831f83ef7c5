//! Much that comes at once, windows that change and nodes that die, while somebody types.

use super::Visitor;
use crate::harness::{Cut, Json, Line, Node, RedisServer, wait_until};

fn numbered(who: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{who}: message {number}")).collect()
}

async fn says(json: &mut Json, count: usize) {
    for number in 1..=count {
        json.said("lobby", &format!("message {number}")).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_types_while_two_hundred_messages_arrive_keeps_the_line_and_misses_none() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    let saying = tokio::spawn(async move {
        says(&mut ada, 200).await;
        ada
    });
    let line = "what I type while all of you talk, 你们都在说话";
    for (number, c) in line.chars().enumerate() {
        zoe.types(&c.to_string());
        if number == 20 {
            zoe.press(&["Left", "Left"]);
            zoe.types("xx");
            zoe.press(&["BSpace", "BSpace", "Right", "Right"]);
        }
    }
    zoe.press(&["Left", "Left"]);
    let mut ada = saying.await.expect("all is said");
    let last = ["12:00 ada: message 199", "12:00 ada: message 200", "#lobby · 2 here", &format!("> {line}")];
    zoe.ends_with(&last, 45).await;
    assert_eq!(zoe.said(), numbered("ada", 200));
    zoe.press(&["Enter"]);
    ada.hear("lobby", line).await;
}

#[tokio::test]
async fn a_node_dies_in_mid_typing_and_the_other_one_goes_on() {
    let redis = RedisServer::start();
    let mut nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let wire = Cut::in_front_of(nodes[0].http()).await;
    let mut ada = Json::connect(&nodes[1].ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(60, 16, &wire.ws_url());
    zoe.starts("", "--name zoe").await;
    ada.said("lobby", "before").await;
    zoe.types("half a sen");
    zoe.ends_with(&["12:00 ada: before", "#lobby · 2 here", "> half a sen"], 12).await;
    nodes[0].kill();
    let gone = "— the connection was lost; reconnecting…";
    zoe.ends_with(&["12:00 ada: before", gone, "#lobby · offline", "> half a sen"], 12).await;
    ada.said("lobby", "meanwhile").await;
    zoe.enters("tence");
    zoe.enters("and another");
    zoe.types("and a th");
    let waiting = ["… half a sentence", "… and another", "#lobby · offline · 2 unsent", "> and a th"];
    zoe.ends_with(&waiting, 10).await;

    wire.lead_to(nodes[1].http());
    ada.hear("lobby", "half a sentence").await;
    ada.hear("lobby", "and another").await;
    let rows = [
        "connected!",
        "— #lobby as zoe",
        "12:00 ada: before",
        gone,
        "… half a sentence",
        "… and another",
        "12:00 ada: meanwhile",
        "— reconnected",
        "12:00 zoe: half a sentence",
        "12:00 zoe: and another",
        "#lobby · 2 here",
        "> and a th",
    ];
    zoe.shows(&rows, 10).await;
    zoe.enters("ird");
    ada.hear("lobby", "and a third").await;
    zoe.ends_with(&["12:00 zoe: and a third", "#lobby · 2 here", ">"], 2).await;
    let history = ["ada: before", "ada: meanwhile", "zoe: half a sentence", "zoe: and another", "zoe: and a third"];
    assert_eq!(zoe.said(), history);
    assert_eq!(ada.texts("lobby"), history.map(|said| said.split_once(": ").expect("a text").1));
}

#[tokio::test]
async fn a_node_that_leaves_politely_sends_its_clients_on_without_a_word() {
    let redis = RedisServer::start();
    let mut nodes = Node::start_many(2, &["--redis", &redis.url(), "--drain", "2s", "--rate", "0"]).await;
    let wire = Cut::in_front_of(nodes[0].http()).await;
    let mut ada = Json::connect(&nodes[1].ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(60, 32, &wire.ws_url());
    zoe.starts("", "--name zoe").await;
    zoe.types("half a line");
    wire.lead_to(nodes[1].http());
    nodes[0].terminate();
    let mut count = 0;
    while nodes[0].readiness().await != 0 {
        count += 1;
        ada.said("lobby", &format!("message {count}")).await;
    }
    assert!(nodes[0].wait_exit().await.success());
    let said = numbered("ada", count);
    wait_until("all is on the screen", async || zoe.said().len() >= count).await;
    assert_eq!(zoe.said(), said);
    zoe.ends_with(&["#lobby · 2 here", "> half a line"], 13).await;
    let others: Vec<String> = zoe.0.everything().into_iter().filter(|row| row.starts_with('—')).collect();
    assert_eq!(others, ["— #lobby as zoe"]);
}

#[tokio::test]
async fn a_window_becomes_narrow_and_wide_while_a_long_line_is_typed_and_messages_come() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    let line = "a long line that goes on and on until it needs a second row";
    zoe.types(line);
    zoe.0.resize(30, 16);
    ada.said("lobby", "narrow").await;
    let rows = [
        "12:00 ada: narrow",
        "#lobby · 2 here",
        "> a long line that goes on and",
        " on until it needs a second ro",
        "w",
    ];
    zoe.ends_with(&rows, 1).await;
    zoe.0.resize(70, 16);
    ada.said("lobby", "wide").await;
    let rows = ["12:00 ada: narrow", "12:00 ada: wide", "#lobby · 2 here", &format!("> {line}")];
    zoe.ends_with(&rows, 61).await;
    zoe.0.resize(50, 16);
    zoe.types("!");
    ada.said("lobby", "between").await;
    let rows = ["12:00 ada: between", "#lobby · 2 here", &format!("> {}", &line[..48]), &format!("{}!", &line[48..])];
    zoe.ends_with(&rows, 12).await;
    zoe.press(&["Enter"]);
    ada.hear("lobby", &format!("{line}!")).await;
}

#[tokio::test]
async fn through_the_line_door_one_is_called_hears_goes_elsewhere_and_comes_back() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.tcp_addr()).await;
    let mut nc = Line::connect(node.tcp_addr()).await;
    nc.say("/name nc").await;
    nc.say("first").await;
    nc.until("nc:first").await;
    let zoe = Visitor::at(60, 24, &format!("tcp://{}", wire.address()));
    zoe.runs("", "--name zoe");
    zoe.shows(&["connected!", "12:00 ! name you are zoe", "", ">"], 2).await;
    zoe.enters("hello");
    nc.until("zoe:hello").await;
    nc.say("hello zoe").await;
    zoe.ends_with(&["12:00 zoe:hello", "12:00 nc:hello zoe", "", ">"], 2).await;
    zoe.enters("/who");
    zoe.ends_with(&["12:00 ! who 2 here: nc, zoe", "", ">"], 2).await;
    zoe.enters("/nick Zoë");
    zoe.enters("renamed");
    nc.until("Zoë:renamed").await;
    wire.cut();
    zoe.ends_with(
        &["— reconnected; what was said meanwhile is not known here", "12:00 ! name you are Zoë", "", ">"],
        2,
    )
    .await;
    zoe.enters("/join tea");
    zoe.enters("tea?");
    zoe.ends_with(&["12:00 Zoë:tea?", "#tea", ">"], 2).await;
    zoe.enters("/leave");
    zoe.enters("/history");
    let rows = [
        "— at this door one is always in a room; /join another",
        "— this door keeps no history; come in by http:// for that",
        "#tea",
        ">",
    ];
    zoe.ends_with(&rows, 2).await;
    zoe.enters("quit");
    zoe.ended(&["(0)"]).await;
}
