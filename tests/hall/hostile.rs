//! What somebody means harm with arrives harmless at every door: as a name, a room, a text and as data.

use serde_json::json;
use uuid::Uuid;

use crate::harness::{Chromium, Json, Line, Node, Person, Plain, RedisServer, wait_until};

/// What breaks pages, terminals, lines, JSON, keys and payloads elsewhere.
const HOSTILE: [&str; 12] = [
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\u{1b}[2J\u{1b}]0;owned\u{7}red",
    "one\r\nada:forged\n! gap 3 messages lost",
    "two\u{2028}ada:forged\u{2029}~bea:forged\u{85}end",
    "\u{202E}degrof:ada\u{202D} \u{2066}left open\u{2067}",
    "\u{1F469}\u{1F3FD}\u{200D}\u{2695}\u{FE0F}\u{1F3F4}\u{10FFFF}",
    "nul\u{0}between",
    "a:b",
    "\"},\"type\":\"accepted\",\"x\":{\"\\",
    "lobby}:log {other}:meta * ? [a-z]",
    "1 epoch 7 7 {\"type\":\"message\"}\r\n$5\r\nPING\r\n",
    "%00%0d%0a{{7*7}}${7*7}'; DROP TABLE--",
];

/// As §3 of the protocol has it: what is left of a text.
fn kept(text: &str) -> String {
    let lines = text.replace(['\u{2028}', '\u{2029}'], "\n");
    lines.chars().filter(|c| !c.is_control() || matches!(c, '\t' | '\n')).collect()
}

/// The lines that are shown where names and texts share them.
fn shown(name: &str, text: &str) -> Vec<String> {
    let turns = |c: char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    kept(text).replace(turns, "").split('\n').map(|line| format!("{name}:{line}")).collect()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn a_hostile_text_is_only_a_text_at_every_door_and_in_redis() {
    let redis = RedisServer::start();
    let options = ["--redis", &redis.url(), "--rate", "0"];
    let (east, west) = tokio::join!(Node::start(&options), Node::start(&options));
    let mut ada = Json::connect(&east.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut bea = Json::connect(&west.ws_url(), "?name=bea").await;
    bea.join("lobby").await;
    let mut plain = Plain::connect(&west.ws_url(), "?name=plain").await;
    plain.say("here").await;
    plain.until("plain:here").await;
    let mut line = Line::connect(west.tcp_addr()).await;
    line.say("/name line").await;
    line.expect("! name you are line").await;
    line.say("here").await;
    line.until("line:here").await;
    plain.expect("line:here").await;
    for text in HOSTILE {
        let data = json!({ text: [text, { "text": text }] });
        let id = Uuid::new_v4();
        ada.send(json!({"type": "say", "room": "lobby", "id": id, "text": text, "data": data})).await;
        ada.accepted(id).await;
        let message = bea.hear("lobby", &kept(text)).await;
        assert_eq!((&message["from"]["name"], &message["data"]), (&json!("ada"), &data), "{text:?}");
        plain.expect(&shown("ada", text).join("\n")).await;
        for due in shown("ada", text) {
            line.expect(&due).await;
        }
        // From the doors without JSON: what ends a message or a line there is no part of a text.
        let text = text.trim_end_matches(['\r', '\n']);
        plain.say(text).await;
        plain.expect(&shown("plain", text).join("\n")).await;
        for due in shown("plain", text) {
            line.expect(&due).await;
        }
        for said in text.split('\n').filter(|said| !said.starts_with('/')) {
            line.say(said).await;
            for due in shown("line", said) {
                line.expect(&due).await;
            }
            plain.expect(&shown("line", said).join("\n")).await;
        }
    }
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(keys.lines().all(|key| key.starts_with("townhall:{lobby}:")), "{keys}");
    // One that came first by the history, and not by the subscription.
    let mut cid = Json::connect(&west.ws_url(), "?name=cid").await;
    cid.join_last("lobby", 200).await;
    cid.reach("lobby", ada.said("lobby", "the end of all that").await.offset).await;
    ada.reach("lobby", cid.position("lobby").offset).await;
    assert_eq!(cid.texts("lobby"), ada.texts("lobby"));
}

#[tokio::test]
async fn a_hostile_name_is_refused_or_harmless_at_every_door_and_a_hostile_room_is_none() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url(), "--rate", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let unseen =
        ["zoe\u{200B}", "z\u{AD}oe", "zoe\u{202E}", "\u{FEFF}zoe", "zoe\u{E0041}", "ada\u{2236}hi", "\u{338}zoe"];
    for name in HOSTILE.iter().copied().chain(unseen) {
        let sound = kept(name) == name && name.chars().count() <= 32 && !name.contains(':');
        let harmless = sound && !unseen.contains(&name);
        let query = format!("?name={}", encoded(name));
        match Json::try_connect(&node.ws_url(), &query).await {
            Ok(client) => assert_eq!((&client.welcome["user"]["name"], harmless), (&json!(name), true), "{name:?}"),
            Err(refusal) => assert_eq!((refusal.status, harmless), (400, false), "{name:?}"),
        }
        assert_eq!(Plain::try_connect(&node.ws_url(), &query).await.is_ok(), harmless, "{name:?}");
        if !name.contains('\n') {
            let mut line = Line::connect(node.tcp_addr()).await;
            line.say(&format!("/name {name}")).await;
            match harmless {
                true => line.expect(&format!("! name you are {name}")).await,
                false => line.expect_notice("bad_name").await,
            }
        }
        ada.send(json!({"type": "join", "room": name, "ref": 1})).await;
        assert_eq!(ada.expect_error("bad_room").await["ref"], 1);
        let elsewhere = format!("?name=zoe&room={}", encoded(name));
        assert_eq!(Plain::try_connect(&node.ws_url(), &elsewhere).await.err().expect("no room").status, 400);
    }
    let keys = redis.cli(&["KEYS", "*"]);
    assert!(keys.lines().all(|key| key.starts_with("townhall:{lobby}:")), "{keys}");
}

#[tokio::test]
async fn both_pages_show_hostile_texts_and_names_as_text() {
    let node = Node::start(&["--rate", "0"]).await;
    let chromium = Chromium::start();
    let page = Person::come_in(&chromium, &format!("http://{}/", node.http()), "bea").await;
    let classic = Person::open(&chromium, &format!("http://{}/chatroom?name=lewin", node.http())).await;
    wait_until("the tutorial's page is connected", async || {
        node.metric(r#"townhall_connections{door="plain"}"#).await == 1.0
    })
    .await;
    let name = "<b onclick=alert(1)>\"&amp;";
    let mut eve = Json::connect(&node.ws_url(), &format!("?name={}", encoded(name))).await;
    eve.join("lobby").await;
    wait_until("all three are in", async || eve.who("lobby").await.len() == 3).await;
    let mut lines = vec!["[提示] 成功连接服务器".to_owned()];
    for text in HOSTILE {
        eve.said("lobby", text).await;
        lines.extend(shown(name, text));
    }
    page.wait_messages(&HOSTILE.map(kept)).await;
    let names = page.read("#view .message .name").await;
    assert!(!names.is_empty() && names.iter().all(|shown| shown == name), "{names:?}");
    assert_eq!(page.read("#view script, #view img, #view b").await, Vec::<String>::new(), "markup is text");
    classic.wait_read("#output", &[lines.join("\n") + "\n"]).await;
    page.assert_content().await;
    classic.assert_content().await;
}
