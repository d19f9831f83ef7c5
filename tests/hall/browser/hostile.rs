//! Whatever people say, are called, or have others visit, it is only ever text.

use std::collections::HashSet;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::{Chromium, Json, Node, Person, wait_until};

use super::{page, texts};

/// Texts, names and fragments of addresses that would like to be more than that; what runs sets `window.__xss`.
#[derive(Deserialize)]
struct Corpus {
    texts: Vec<String>,
    names: Vec<String>,
    rooms: Vec<String>,
}

fn corpus() -> Corpus {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/web/test/xss.json");
    let read = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_slice(&read).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Nothing ran, nothing was asked of anybody, nothing is on the page that does not belong there, and it works.
async fn assert_unharmed(person: &Person, node: &Node) {
    let harm = person
        .evaluate(
            r##"(() => {
            const usual = new Set("A ARTICLE BDI BUTTON CODE DIV LI P PRE SPAN TIME UL BR".split(" "));
            const within = [...document.querySelectorAll("#view *, #rooms *, #people li, #people li *, #typing *, #notice *, #room *")];
            const strange = within.filter(({ tagName }) => !usual.has(tagName)).map(({ outerHTML }) => outerHTML);
            const attributed = within.filter((element) => [...element.attributes].some(({ name }) => name.startsWith("on")));
            const links = [...document.querySelectorAll("a")].filter(({ protocol }) => !/^https?:$/.test(protocol));
            const clobbered = within.filter(({ id }) => id && !["more", "older", "log", "unsent", "empty"].includes(id));
            const all = [strange, ...[attributed, links, clobbered].map((some) => some.map(({ outerHTML }) => outerHTML))].flat();
            return { ran: globalThis.__xss ?? null, all, title: document.title, base: document.baseURI.split("#")[0] };
        })()"##,
        )
        .await;
    assert_eq!((&harm["ran"], &harm["all"]), (&Value::Null, &json!([])), "{harm}");
    assert!(harm["title"].as_str().is_some_and(|title| title.ends_with(" · Townhall")), "{harm}");
    assert_eq!(harm["base"], page(node, ""), "{harm}");
    assert_eq!(person.hosts().await, [node.http().to_string()], "nobody else was asked for anything");
    person.assert_content().await;
}

/// What stands between the fences and backticks of a text: those are drawn, and not written.
fn bare(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace() && *c != '`').collect()
}

#[tokio::test]
async fn hostile_texts_are_shown_as_they_were_written() {
    let node = Node::start(&["--rate", "0", "--max-text", "32KiB", "--max-frame", "128KiB"]).await;
    let person = Person::come_in(&Chromium::start(), &page(&node, ""), "ada").await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    let texts = corpus().texts;
    assert!(texts.len() >= 100, "{} texts", texts.len());
    let mut last = 0;
    for text in &texts {
        last = script.said("lobby", text).await.offset;
    }
    script.reach("lobby", last).await;
    person.wait_count("#view .message", texts.len()).await;
    let (said, shown) = (script.texts("lobby"), person.read("#view .message .text").await);
    for (said, shown) in said.iter().zip(&shown) {
        if said.contains('`') {
            // The language of a block is drawn otherwise, too.
            let (said, shown) = (bare(said), bare(shown));
            assert!(
                said == shown || said.len() > shown.len() && subsequence(&shown, &said),
                "{said:?} became {shown:?}"
            );
        } else {
            assert_eq!(said, shown);
        }
    }
    // Each can be copied, mentioned, and hung over.
    for index in [0, texts.len() / 2, texts.len() - 1] {
        person.hover(&format!("#view .message >> nth={index}")).await;
        person.click("#view .actions .copy").await;
    }
    assert_unharmed(&person, &node).await;
    // They come from the history in the same way.
    person.reload().await;
    wait_until("the last are there again", async || person.read("#view .message .text").await.last() == shown.last())
        .await;
    assert_unharmed(&person, &node).await;
    person.say("and the page still works").await;
    script.hear("lobby", "and the page still works").await;
}

fn subsequence(part: &str, whole: &str) -> bool {
    let mut rest = whole.chars();
    part.chars().all(|c| rest.any(|other| other == c))
}

#[tokio::test]
async fn hostile_names_are_shown_as_names() {
    let node = Node::start(&["--rate", "0"]).await;
    let person = Person::come_in(&Chromium::start(), &page(&node, ""), "ada").await;
    let names = corpus().names;
    assert!(names.len() >= 30, "{} names", names.len());
    let mut here = Vec::new();
    for name in &names {
        let encoded: String = name.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let Ok(mut client) = Json::try_connect(&node.ws_url(), &format!("?name={encoded}")).await else {
            continue; // no name at all, the hall says
        };
        client.join("lobby").await;
        client.send(json!({"type": "typing", "room": "lobby"})).await;
        client.said("lobby", &format!("@{name} is what I am called")).await;
        here.push(client);
    }
    assert!(here.len() >= 20, "the hall lets {} of {} in", here.len(), names.len());
    let expected: Vec<String> =
        here.iter().map(|client| client.welcome["user"]["name"].as_str().expect("a name").into()).collect();
    person.wait_read("#view .message .name", &expected).await;
    let everybody: HashSet<String> = expected.iter().cloned().chain(["ada".into()]).collect();
    wait_until("everybody is listed", async || {
        person.read("#people .member .name").await.into_iter().collect::<HashSet<_>>() == everybody
    })
    .await;
    assert_unharmed(&person, &node).await;
    // Whoever takes such a name oneself.
    for name in expected.iter().take(3) {
        person.call_oneself(name).await;
        person.say("and so am I").await;
        wait_until("it is said", async || person.read("#view .message.own .name").await.contains(name)).await;
    }
    assert_unharmed(&person, &node).await;
}

#[tokio::test]
async fn hostile_addresses_lead_to_no_room_or_to_one_of_that_name() {
    let node = Node::start(&["--rate", "0"]).await;
    let person = Person::come_in(&Chromium::start(), &page(&node, ""), "ada").await;
    let mut rooms = corpus().rooms;
    assert!(rooms.len() >= 15, "{} rooms", rooms.len());
    rooms.extend(texts(&["constructor", "tostring", "hasownproperty", "read.lobby", "0", "..", "__proto__"]));
    for room in &rooms {
        let script = format!("location.hash = {}", json!(room));
        person.evaluate(&script).await;
        let shown = "document.querySelector('#room').textContent";
        let named = person.evaluate(&format!("{shown} + {shown}.length")).await;
        assert!(named.is_string());
        assert_unharmed(&person, &node).await;
    }
    // By a link from elsewhere, too.
    for room in rooms.iter().take(5) {
        let fragment = room.strip_prefix('#').unwrap_or(room);
        person.visit("about:blank").await;
        person.visit(&page(&node, &format!("#{fragment}"))).await;
        person.wait_connected().await;
        assert_unharmed_but_for_room(&person).await;
    }
    person.visit("about:blank").await;
    person.visit(&page(&node, "#constructor")).await;
    person.wait_connected().await;
    person.say("a room like any other").await;
    person.wait_messages(&texts(&["a room like any other"])).await;
    person.click("#rooms a[href='#lobby']").await;
    person.wait_messages(&[]).await;
    assert_unharmed(&person, &node).await;
}

async fn assert_unharmed_but_for_room(person: &Person) {
    assert_eq!(person.evaluate("globalThis.__xss ?? null").await, Value::Null);
    person.assert_content().await;
}
