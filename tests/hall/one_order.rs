//! Whoever comes in by whichever door hears the same messages in the same order.

use crate::harness::{Json, Line, Node, Plain, RedisServer};

/// Says of each client.
const SAYS: usize = 20;

#[tokio::test]
async fn a_json_a_plain_a_tutorial_and_a_tcp_client_hear_one_another_in_one_order_on_one_node() {
    let node = Node::start(&[]).await;
    hear_one_another([&node; 4]).await;
}

#[tokio::test]
async fn a_json_a_plain_a_tutorial_and_a_tcp_client_hear_one_another_in_one_order_on_three_nodes() {
    let redis = RedisServer::start();
    let nodes = Node::start_many(3, &["--redis", &redis.url()]).await;
    hear_one_another([&nodes[0], &nodes[1], &nodes[2], &nodes[0]]).await;
}

#[tokio::test]
async fn two_databases_of_one_redis_never_hear_each_other() {
    let redis = RedisServer::start();
    let east = Node::start(&["--redis", &redis.url_of_db(1)]).await;
    let west = Node::start(&["--redis", &redis.url_of_db(2)]).await;
    let mut ada = Json::connect(&east.ws_url(), "?name=ada").await;
    let mut ben = Json::connect(&west.ws_url(), "?name=ben").await;
    ada.join("lobby").await;
    ben.join("lobby").await;
    for number in 1..=20 {
        ada.said("lobby", &format!("east {number}")).await;
        ben.said("lobby", &format!("west {number}")).await;
    }
    ada.hear("lobby", "east 20").await;
    ben.hear("lobby", "west 20").await;
    // Offsets are dense (every client here checks that), so nothing of the other database can have come in between.
    assert_eq!(ada.view("lobby").messages.len(), 20);
    assert_eq!(ben.view("lobby").messages.len(), 20);
    assert_eq!(ada.position("lobby").offset, 20);
    assert_eq!(ben.position("lobby").offset, 20);
    // And nothing was even sent to the wrong node.
    for node in [&east, &west] {
        assert_eq!(node.metric("townhall_messages_received_total").await, 20.0);
    }
}

/// Four doors at four places: all talk at the same time, and all hear the same.
async fn hear_one_another(places: [&Node; 4]) {
    let [json, plain, tutorial, tcp] = places;
    let mut ada = Json::connect(&json.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut lewin = Plain::connect(&plain.ws_url(), "?room=lobby&name=lewin").await;
    let mut gin = Plain::connect(&tutorial.ws("/chatroom/ws/gin/a-token"), "").await;
    let mut nc = Line::connect(tcp.tcp_addr()).await;
    let nc_name = nc.address.to_string();

    // Who hears itself has joined: from there on it hears everything.
    for (here, name) in [(&mut lewin, "lewin"), (&mut gin, "gin")] {
        here.say("here").await;
        here.until(&format!("{name}:here")).await;
    }
    nc.say("here").await;
    nc.until(&format!("{nc_name}:here")).await;
    ada.hear("lobby", "here").await;

    let last = |name: &str| format!("{name}:{SAYS}");
    let talk_ada = async {
        for number in 1..=SAYS {
            ada.say("lobby", &number.to_string()).await;
        }
        ada.reach("lobby", (3 + 4 * SAYS) as u64).await;
    };
    let talk_lewin = talk_plain(&mut lewin);
    let talk_gin = talk_plain(&mut gin);
    let talk_nc = async {
        for number in 1..=SAYS {
            nc.say(&number.to_string()).await;
        }
        let mut heard = Vec::new();
        while heard.len() < 4 * SAYS {
            heard.extend(spoken(nc.next().await));
        }
        heard
    };
    let (_, by_lewin, by_gin, by_nc) = tokio::join!(talk_ada, talk_lewin, talk_gin, talk_nc);

    let messages = &ada.view("lobby").messages;
    let by_ada: Vec<String> = messages
        .iter()
        .map(|message| {
            let [name, text] = [&message["from"]["name"], &message["text"]].map(|it| it.as_str());
            format!("{}:{}", name.expect("a name"), text.expect("a text"))
        })
        .filter_map(spoken)
        .collect();
    for name in ["ada", "lewin", "gin", &nc_name] {
        let said = by_ada.iter().filter(|line| line.starts_with(name));
        assert_eq!(said.count(), SAYS, "of {name} in {by_ada:?}");
        assert!(by_ada.contains(&last(name)));
    }
    for heard in [by_lewin, by_gin, by_nc] {
        assert_eq!(heard, by_ada);
    }
}

/// Says its numbers and listens until everybody's have come.
async fn talk_plain(client: &mut Plain) -> Vec<String> {
    for number in 1..=SAYS {
        client.say(&number.to_string()).await;
    }
    let mut heard = Vec::new();
    while heard.len() < 4 * SAYS {
        heard.extend(spoken(client.next().await));
    }
    heard
}

/// What was said once everybody was here.
fn spoken(line: String) -> Option<String> {
    (!line.ends_with(":here")).then_some(line)
}
