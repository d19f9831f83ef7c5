//! What somebody has not read yet: in the other rooms, where they left, and while they look elsewhere.

use serde_json::json;

use crate::harness::{Chromium, Json, Node, Person, wait_until};

use super::{numbered, page, say_all, texts};

/// The number that stands at a room; `None` where there is none to be seen.
async fn count(person: &Person, room: &str) -> Option<String> {
    let at = format!("#rooms a[href='#{room}'] .count");
    if !person.sees(&at).await {
        return None;
    }
    let text: String = person.read(&at).await.into_iter().next()?;
    let number: String = text.chars().filter(char::is_ascii_digit).collect();
    (!number.is_empty()).then_some(number)
}

async fn wait_count(person: &Person, room: &str, expected: Option<&str>) {
    let mut seen = None;
    wait_until(&format!("{expected:?} is counted at #{room}"), async || {
        seen = count(person, room).await;
        seen.as_deref() == expected
    })
    .await;
}

#[tokio::test]
async fn other_rooms_count_what_is_unread_and_a_mark_stands_where_one_left_until_it_is_read() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &page(&node, "#garden"), "ada").await;
    let mut bea = Json::connect(&node.ws_url(), "?name=bea").await;
    bea.join("garden").await;
    bea.join("lobby").await;
    say_all(&mut bea, "garden", &numbered("old", 2)).await;
    ada.wait_messages(&numbered("old", 2)).await;
    wait_count(&ada, "garden", None).await;

    ada.click("#rooms a[href='#lobby']").await;
    ada.wait_read("#room", &texts(&["lobby"])).await;
    say_all(&mut bea, "garden", &numbered("new", 3)).await;
    wait_count(&ada, "garden", Some("3")).await;
    bea.said("lobby", "read at once").await;
    ada.wait_messages(&texts(&["read at once"])).await;
    wait_count(&ada, "lobby", None).await;

    // It is kept over the night.
    ada.reload().await;
    wait_count(&ada, "garden", Some("3")).await;
    ada.click("#rooms a[href='#garden']").await;
    ada.wait_messages(&[numbered("old", 2), numbered("new", 3)].concat()).await;
    ada.wait_count("#view .unread", 1).await;
    let mark = "(() => { const mark = document.querySelector('#view .unread');
        return [mark.previousElementSibling.dataset.offset, mark.nextElementSibling.dataset.offset]; })()";
    assert_eq!(ada.evaluate(mark).await, json!(["2", "3"]));
    wait_count(&ada, "garden", None).await;

    ada.click("#rooms a[href='#lobby']").await;
    ada.wait_messages(&texts(&["read at once"])).await;
    assert_eq!(ada.count("#view .unread").await, 0);
    ada.click("#rooms a[href='#garden']").await;
    ada.wait_messages(&[numbered("old", 2), numbered("new", 3)].concat()).await;
    assert_eq!(ada.count("#view .unread").await, 0, "what was read is not marked again");
    ada.assert_content().await;
}

#[tokio::test]
async fn what_is_read_in_one_tab_is_read_in_the_other() {
    let node = Node::start(&[]).await;
    let ada = Person::come_in(&Chromium::start(), &page(&node, "#garden"), "ada").await;
    ada.click("#rooms a[href='#lobby']").await;
    ada.wait_read("#room", &texts(&["lobby"])).await;
    let other = ada.tab(&page(&node, "#lobby")).await;
    other.wait_connected().await;
    let mut bea = Json::connect(&node.ws_url(), "?name=bea").await;
    bea.join("garden").await;
    say_all(&mut bea, "garden", &numbered("new", 2)).await;
    for tab in [&ada, &other] {
        wait_count(tab, "garden", Some("2")).await;
    }
    other.click("#rooms a[href='#garden']").await;
    other.wait_messages(&numbered("new", 2)).await;
    for tab in [&ada, &other] {
        wait_count(tab, "garden", None).await;
    }
    assert_eq!(ada.read("#room").await, ["lobby"]);
    ada.assert_content().await;
}

#[tokio::test]
async fn who_looks_elsewhere_finds_a_number_in_the_title_and_is_notified_if_they_asked_for_it() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let ada = Person::open_in_window(&chromium, &page(&node, ""), &["notifications"]).await;
    ada.wait_connected().await;
    ada.call_oneself("ada").await;
    // Every notification is made as it was going to be, and noted down.
    ada.evaluate(
        "globalThis.notified = []; globalThis.Notification = new Proxy(Notification, { construct: (made, words) => {
            notified.push([words[0], words[1].body]); return Reflect.construct(made, words); } }); 0",
    )
    .await;
    let mut bea = Json::connect(&node.ws_url(), "?name=bea").await;
    bea.join("lobby").await;
    bea.said("lobby", "seen").await;
    ada.wait_messages(&texts(&["seen"])).await;
    let title = async || ada.evaluate("document.title").await.as_str().expect("a title").to_owned();
    let plain = title().await;
    assert!(!plain.contains('('), "{plain}");

    let elsewhere = ada.tab("about:blank").await;
    elsewhere.front().await;
    ada.wait("the page is hidden", "document.hidden").await;
    bea.said("lobby", "unseen").await;
    wait_until("one is in the title", async || title().await == format!("(1) {plain}")).await;
    bea.said("lobby", "unseen too").await;
    wait_until("two are in the title", async || title().await == format!("(2) {plain}")).await;
    assert_eq!(ada.evaluate("notified").await, json!([]), "nobody asked for notifications");

    ada.front().await;
    wait_until("the title is as before", async || title().await == plain).await;
    ada.wait_count("#view .unread", 1).await;
    ada.click("#bell").await;
    wait_until("the bell is on", async || ada.attribute("#bell", "aria-pressed").await == "true").await;
    bea.said("lobby", "read at once").await;
    ada.wait_messages(&texts(&["seen", "unseen", "unseen too", "read at once"])).await;

    elsewhere.front().await;
    ada.wait("the page is hidden", "document.hidden").await;
    bea.said("lobby", "hello, @ada").await;
    wait_until("she is notified", async || ada.evaluate("notified.length").await == 1).await;
    let notified = ada.evaluate("notified").await;
    let words = notified.to_string();
    assert!(words.contains("bea") && words.contains("hello, @ada") && words.contains("lobby"), "{words}");
    ada.front().await;
    wait_until("the title is as before", async || title().await == plain).await;
    ada.assert_content().await;
}

#[tokio::test]
async fn a_hundred_messages_that_came_meanwhile_are_unread_from_the_first_on() {
    let node = Node::start(&["--rate", "0"]).await;
    let url = format!("http://{}/#lobby", node.http());
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    script.said("lobby", "read before").await;
    let ada = Person::come_in(&Chromium::start(), &url, "ada").await;
    ada.wait_messages(&["read before".to_owned()]).await;
    wait_until("what was read is remembered", async || {
        ada.evaluate("localStorage['townhall.read.lobby'] ?? ''")
            .await
            .as_str()
            .is_some_and(|kept| kept.starts_with("1 "))
    })
    .await;
    ada.visit("about:blank").await;
    for number in 1..=100 {
        script.said("lobby", &format!("missed {number}")).await;
    }
    ada.visit(&url).await;
    let first = "document.querySelector('.unread')?.nextElementSibling?.querySelector('.text')?.textContent ?? ''";
    wait_until("the mark is above the first", async || ada.evaluate(first).await == "missed 1").await;
    let in_sight = "(() => {
        const [view, mark] = ['#view', '.unread'].map((at) => document.querySelector(at).getBoundingClientRect());
        return view.top <= mark.top && mark.bottom <= view.bottom;
    })()";
    wait_until("and in sight", async || ada.evaluate(in_sight).await == true).await;
    assert_eq!(ada.read("#newest").await, ["100 new messages"]);
    ada.assert_content().await;
}
