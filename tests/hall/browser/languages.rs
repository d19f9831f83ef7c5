//! The page speaks English and Chinese: what the browser prefers, until the reader chooses.

use serde_json::{Value, json};

use crate::harness::{Chromium, Json, Node, Person, wait_until};

use super::{logins, page, texts};

/// Whatever the page itself says, seen or only read out: texts, labels, titles, placeholders. What people said, what they and
/// rooms are called, and the button to the other language are not its words.
const WORDS: &str = r##"(() => {
    const theirs = ".text, .name, .title, .avatar, .room-name, #room, #language, #picker, .brand, script, style, input, textarea";
    const names = /Townhall|Reader|speaker|garden|lobby|#\S+|@\S+/g;
    const words = new Set();
    const take = (text) => text && /\p{L}/u.test(text.replace(names, "")) && words.add(text.replace(names, "").trim());
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        if (!walker.currentNode.parentElement.closest(theirs)) take(walker.currentNode.data);
    }
    for (const element of document.body.querySelectorAll("*")) {
        if (element.closest("#language, #picker, .text")) continue;
        for (const name of ["aria-label", "title", "placeholder", "alt"]) take(element.getAttribute(name));
    }
    return [...words];
})()"##;

async fn words(person: &Person) -> Vec<String> {
    serde_json::from_value(person.evaluate(WORDS).await).expect("texts")
}

fn is_chinese(word: &str) -> bool {
    word.chars().any(|c| ('\u{4e00}'..='\u{9fff}').contains(&c))
}

fn has_latin_words(word: &str) -> bool {
    word.split(|c: char| !c.is_ascii_alphabetic()).any(|word| word.len() > 1)
}

#[tokio::test]
async fn the_page_begins_in_the_language_of_the_browser() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    for (locale, lang) in [("en-GB", "en"), ("zh-CN", "zh-CN"), ("zh-TW", "zh-CN"), ("fr-FR", "en")] {
        // In rooms of their own, where nobody is listed whose name is in the language of another's page.
        let address = page(&node, &format!("#{}", locale.to_lowercase()));
        let person = Person::open_like(&chromium, &address, &json!({"locale": locale})).await;
        person.wait_connected().await;
        person.wait_count("#members li", 1).await;
        assert_eq!(person.attribute("html", "lang").await, lang, "{locale}");
        let words = words(&person).await;
        assert!(words.len() > 15, "{words:?}");
        let foreign = words.iter().filter(|word| is_chinese(word) != (lang == "zh-CN"));
        assert_eq!(foreign.collect::<Vec<_>>(), Vec::<&String>::new(), "{locale}");
        person.close().await;
    }
}

/// A reader who sees as much as can be seen at once: a day, a mark, a break, somebody who types, a message that failed.
async fn a_full_page(node: &Node, locale: &str) -> (Person, Json) {
    let token = |sub: &str, name: &str, role: &str| {
        logins::token(logins::SECRET, &json!({"sub": sub, "name": name, "role": role}))
    };
    let speaker = token("1", "speaker", "member");
    let mut speaker = Json::connect(&node.ws_url(), &format!("?token={speaker}")).await;
    speaker.join("lobby").await;
    speaker.join("garden").await;
    speaker.said("lobby", "Some English, 还有中文").await;
    let address = page(node, &format!("?token={}#lobby", token("2", "Reader", "reader")));
    let person = Person::open_like(&Chromium::start(), &address, &json!({"locale": locale})).await;
    person.wait_count("#view .message", 1).await;
    person.enter("#other", "garden").await;
    person.wait_read("#room", &texts(&["garden"])).await;
    speaker.said("lobby", "unread").await;
    speaker.said("lobby", "unread too").await;
    person.click("#rooms a[href='#lobby']").await;
    person.wait_count("#view .unread", 1).await;
    speaker.said("garden", "unread there").await;
    wait_until("it is counted", async || person.count("#rooms .count").await > 0).await;
    person.say("may I?").await;
    person.wait_count("#view .failed", 1).await;
    person.hover("#view .message >> nth=0").await;
    person.wait_count("#view .actions .copy", 1).await;
    speaker.send(json!({"type": "typing", "room": "lobby"})).await;
    wait_until("somebody types", async || !person.read("#typing").await[0].is_empty()).await;
    (person, speaker)
}

#[tokio::test]
async fn the_switch_changes_every_word_on_screen_at_once_and_is_remembered() {
    let node = logins::hall(&[]).await;
    let (person, _speaker) = a_full_page(&node, "en-US").await;
    let english = words(&person).await;
    assert!(english.iter().all(|word| !is_chinese(word)), "{english:?}");
    let before = json!(person.read("#view .text").await);

    person.click("#language").await;
    wait_until("it is a Chinese page", async || person.attribute("html", "lang").await == "zh-CN").await;
    let mut chinese = Vec::new();
    wait_until("every word is Chinese", async || {
        chinese = words(&person).await;
        !chinese.iter().any(|word| !is_chinese(word) || has_latin_words(word))
    })
    .await;
    // But for times of day, which have no words in Chinese, what the mouse has left, and what is over after some seconds.
    let passing = |word: &str| word.ends_with(" AM") || word.ends_with(" PM") || ["Copy", "is typing…"].contains(&word);
    let lasting = english.iter().filter(|word| !passing(word)).count();
    assert!(chinese.len() >= lasting, "words are missing: {english:?} are {chinese:?}");
    assert_eq!(json!(person.read("#view .text").await), before, "what people said is as they said it");

    person.reload().await;
    person.wait_connected().await;
    assert_eq!(person.attribute("html", "lang").await, "zh-CN");
    person.click("#language").await;
    wait_until("it is an English page", async || person.attribute("html", "lang").await == "en").await;
    wait_until("every word is English", async || words(&person).await.iter().all(|word| !is_chinese(word))).await;
    assert_ne!(person.evaluate("document.title").await, Value::Null);
    person.assert_content().await;
}
