//! Who is here, who types, and what is said in any script.

use serde_json::json;

use super::Visitor;
use crate::harness::{Json, Node, wait_until};

#[tokio::test]
async fn who_comes_in_sees_what_was_said_before_who_is_here_and_who_types() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for text in ["one", "two", "three"] {
        ada.said("lobby", text).await;
    }
    let zoe = Visitor::come(&node, "--name zoe --last 2").await;
    let before = ["connected!", "— #lobby as zoe", "12:00 ada: two", "12:00 ada: three"];
    zoe.shows(&[&before[..], &["#lobby · 2 here", ">"]].concat(), 2).await;

    ada.send(json!({"type": "typing", "room": "lobby"})).await;
    zoe.shows(&[&before[..], &["#lobby · 2 here · ada is typing…", ">"]].concat(), 2).await;
    ada.said("lobby", "four").await;
    let before = [&before[..], &["12:00 ada: four"]].concat();
    zoe.shows(&[&before[..], &["#lobby · 2 here", ">"]].concat(), 2).await;

    zoe.types("hello ");
    ada.until_type("typing").await;
    zoe.types("ad");
    // Who is here is known a moment after one has come in; until then there is nothing to complete.
    wait_until("the name is completed", async || {
        zoe.press(&["Tab"]);
        zoe.0.seen().text().last().is_some_and(|row| row == "> hello ada")
    })
    .await;
    zoe.shows(&[&before[..], &["#lobby · 2 here", "> hello ada"]].concat(), 12).await;
    zoe.press(&["Enter"]);
    ada.hear("lobby", "hello ada ").await;
    let before = [&before[..], &["12:00 zoe: hello ada"]].concat();
    zoe.shows(&[&before[..], &["#lobby · 2 here", ">"]].concat(), 2).await;

    zoe.enters("/who");
    let before = [&before[..], &["— #lobby: 2 here: ada, zoe"]].concat();
    zoe.shows(&[&before[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    zoe.press(&["Up", "Up"]);
    zoe.shows(&[&before[..], &["#lobby · 2 here", "> hello ada"]].concat(), 12).await;
    zoe.press(&["C-u"]);
    drop(ada);
    zoe.shows(&[&before[..], &["#lobby · 1 here", ">"]].concat(), 2).await;
}

#[tokio::test]
async fn who_stops_typing_without_a_word_is_forgotten() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut bob = Json::connect(&node.ws_url(), "?name=bob").await;
    bob.join("lobby").await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    ada.send(json!({"type": "typing", "room": "lobby"})).await;
    zoe.ends_with(&["#lobby · 3 here · ada is typing…", ">"], 2).await;
    bob.send(json!({"type": "typing", "room": "lobby"})).await;
    zoe.ends_with(&["#lobby · 3 here · ada and bob are typing…", ">"], 2).await;
    zoe.ends_with(&["#lobby · 3 here", ">"], 2).await;
}

#[tokio::test]
async fn chinese_and_combining_characters_are_typed_edited_and_heard_byte_for_byte() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::come(&node, "--name 左伊").await;
    let before = ["connected!", "— #lobby as 左伊"];
    let line = async |typed: &str, column: usize| {
        zoe.shows(&[&before[..], &["#lobby · 2 here", &format!("> {typed}")]].concat(), column).await;
    };
    zoe.types("大家好");
    line("大家好", 8).await;
    zoe.press(&["Left"]);
    line("大家好", 6).await;
    zoe.types("都很");
    line("大家都很好", 10).await;
    zoe.press(&["Left", "BSpace"]);
    line("大家很好", 6).await;
    zoe.press(&["End"]);
    zoe.types("，e\u{301}x");
    line("大家很好，e\u{301}x", 14).await;
    zoe.press(&["Left", "Left"]);
    line("大家很好，e\u{301}x", 12).await;
    zoe.press(&["Right", "BSpace"]);
    line("大家很好，x", 12).await;
    zoe.types("e\u{301}");
    line("大家很好，e\u{301}x", 13).await;
    zoe.press(&["Enter"]);
    ada.hear("lobby", "大家很好，e\u{301}x").await;
    zoe.shows(&[&before[..], &["12:00 左伊: 大家很好，e\u{301}x", "#lobby · 2 here", ">"]].concat(), 2).await;
}

#[tokio::test]
async fn a_whole_visit_in_chinese() {
    let node = Node::start(&["--rooms", "lobby,help"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=小明").await;
    ada.join("lobby").await;
    ada.said("lobby", "你好").await;
    let zoe = Visitor::at(60, 24, &node.ws_url());
    zoe.starts("LC_ALL=zh_CN.UTF-8", "--name 左伊").await;
    let mut rows = vec!["connected!", "— #lobby，你是 左伊", "12:00 小明: 你好"];
    zoe.shows(&[&rows[..], &["#lobby · 2 人在此", ">"]].concat(), 2).await;
    ada.send(json!({"type": "typing", "room": "lobby"})).await;
    zoe.shows(&[&rows[..], &["#lobby · 2 人在此 · 小明 正在输入……", ">"]].concat(), 2).await;
    ada.said("lobby", "在吗").await;
    zoe.enters("/who");
    rows.extend(["12:00 小明: 在吗", "— #lobby：2 人在此：小明、左伊"]);
    zoe.shows(&[&rows[..], &["#lobby · 2 人在此", ">"]].concat(), 2).await;
    zoe.enters("/history");
    rows.push("— 没有更早的消息了");
    zoe.enters("/nope");
    rows.push("— 没有 /nope 命令；/help 列出全部命令，//nope 则原样发出");
    zoe.enters("/join kitchen");
    rows.push("! 无法进入 #kitchen：该房间不对你开放；请换一个");
    zoe.enters("/join help");
    rows.push("— #help，你是 左伊");
    zoe.shows(&[&rows[..], &["#help · 1 人在此 · (#lobby)", ">"]].concat(), 2).await;
    zoe.enters("/leave");
    rows.push("— 已离开 #help");
    zoe.enters("/nick 左 伊");
    rows.push("— 你现在叫 左 伊");
    zoe.shows(&[&rows[..], &["#lobby · 2 人在此", ">"]].concat(), 2).await;
    zoe.press(&["C-c"]);
    rows.push("再按一次 Ctrl-C，或输入 quit，即可离开");
    zoe.enters("再见");
    ada.hear("lobby", "再见").await;
    rows.push("12:00 左 伊: 再见");
    zoe.shows(&[&rows[..], &["#lobby · 2 人在此", ">"]].concat(), 2).await;
    zoe.enters("quit");
    zoe.ended(&[&rows[..], &["(0)"]].concat()).await;
}
