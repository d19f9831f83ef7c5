//! How messages look: under which day and heading, with links and code, and what is copied.

use serde_json::json;

use crate::harness::{Chromium, Json, Node, Person, RedisServer, wait_until};

use super::{age, page};

#[tokio::test]
async fn messages_stand_under_their_day_and_under_one_heading_a_person_and_while() {
    let redis = RedisServer::start();
    let options = ["--redis", &redis.url()];
    let node = Node::start(&options).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada&key=0d1f3c1e-9f5e-4a52-9d51-3e5d0c5a7a01").await;
    let mut bea = Json::connect(&node.ws_url(), "?name=bea&key=0d1f3c1e-9f5e-4a52-9d51-3e5d0c5a7a02").await;
    ada.join("lobby").await;
    bea.join("lobby").await;
    let said = [
        ("ada", 3 * 1440 + 3),  // three days ago
        ("ada", 3 * 1440 + 1),  // goes on
        ("bea", 3 * 1440 + 1),  // somebody else
        ("ada", 3 * 1440),      // the first again, after another
        ("ada", 2 * 1440),      // a day later
        ("ada", 2 * 1440 - 30), // too late to go on
    ];
    for (number, (name, _)) in said.iter().enumerate() {
        let client = if *name == "ada" { &mut ada } else { &mut bea };
        client.said("lobby", &format!("number {number}")).await;
    }
    drop((ada, bea, node));
    age(&redis, "lobby", &said.map(|(_, minutes)| minutes));

    let node = Node::start(&options).await;
    // Noon is far from any midnight within these minutes only where the browser's clock agrees, so it gets a zone that does.
    let noon = zone_at_noon();
    let like = json!({"timezoneId": noon});
    let eve = Person::come_in_like(&Chromium::start(), &page(&node, ""), "eve", &like).await;
    eve.wait_count("#view .message", said.len()).await;
    let rows = "[...document.querySelectorAll('#view .message, #view .day')].map((row) => row.matches('.day') ? 'day'
        : row.matches('.continued') ? 'continued' : row.querySelector('.name').textContent)";
    let expected = json!(["day", "ada", "continued", "bea", "ada", "day", "ada", "ada"]);
    assert_eq!(eve.evaluate(rows).await, expected);
    eve.say("and today").await;
    eve.wait_count("#view .message", said.len() + 1).await;
    let days = eve.read("#view .day").await;
    assert_eq!(days.len(), 3, "{days:?}");
    assert_eq!(days[2].trim(), "Today");
    assert!(days[0].contains("day,") && days[0] != days[1], "{days:?}");
    // Who continues is named to those who listen, and not to those who see.
    let named = "document.querySelector('#view .continued .name').checkVisibility({ opacityProperty: true })
        && document.querySelector('#view .continued .name').getBoundingClientRect().height > 1";
    assert_eq!(eve.evaluate(named).await, false, "who continues is not named again");
    eve.assert_content().await;
}

/// A time zone without summer in which it is about noon now.
fn zone_at_noon() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let hour = now.as_secs() / 3600 % 24;
    match hour as i64 - 12 {
        0 => "Etc/UTC".into(),
        west if west > 0 => format!("Etc/GMT+{west}"), // POSIX counts to the west
        east => format!("Etc/GMT-{}", -east),
    }
}

#[tokio::test]
async fn links_code_and_emoji_are_shown_as_what_they_are_and_copied_as_they_were_written() {
    let node = Node::start(&[]).await;
    let like = json!({"permissions": ["clipboard-read", "clipboard-write"]});
    let ada = Person::come_in_like(&Chromium::start(), &page(&node, ""), "ada", &like).await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    let link = "see https://example.org/a_(b)?q=1&r=\"x\", or javascript:alert(1)";
    let code = "first\n```rust\nlet hall = \"<b>\";\n    hall();\n```\nthen `inline <i>` and `https://example.org`";
    let emoji = "🎉👩‍👩‍👧‍👦";
    for text in [link, code, emoji] {
        script.said("lobby", text).await;
    }
    ada.wait_count("#view .message", 3).await;

    let links = "[...document.querySelectorAll('#view a')].map((a) => [a.textContent, a.href, a.target, a.rel])";
    let links = ada.evaluate(links).await;
    assert_eq!(links.as_array().map(Vec::len), Some(1), "one link, and none in code: {links}");
    assert!(links[0][1].as_str().is_some_and(|href| href.starts_with("https://example.org/a_(b)?q=1&r=")), "{links}");
    assert_eq!(links[0][2], "_blank");
    assert!(links[0][3].as_str().is_some_and(|rel| rel.contains("noopener") && rel.contains("noreferrer")), "{links}");

    assert_eq!(ada.read("#view pre code").await[0].trim_end(), "let hall = \"<b>\";\n    hall();");
    assert_eq!(ada.read("#view .text code:not(pre code)").await, ["inline <i>", "https://example.org"]);
    let size = |at: &str| format!("parseFloat(getComputedStyle(document.querySelector('{at}')).fontSize)");
    let [big, usual] = [":nth-last-child(1 of .message)", ":nth-child(1 of .message)"]
        .map(|which| size(&format!("#view .messages:not(:empty) > .message{which} .text")));
    assert_eq!(ada.evaluate(&format!("{big} > {usual}")).await, true, "emoji alone are big");

    for (index, text) in [link, code, emoji].into_iter().enumerate() {
        let row = format!("#view .message >> nth={index}");
        ada.hover(&row).await;
        ada.click(&format!("{row} >> .copy")).await;
        let mut copied = json!(null);
        wait_until("the text is on the clipboard", async || {
            copied = ada.evaluate("navigator.clipboard.readText()").await;
            copied == text
        })
        .await;
    }
    assert_eq!(ada.hosts().await, [node.http().to_string()], "nothing is fetched of what is talked about");
    ada.assert_content().await;
}
