//! What Enter means, above all to those who write by an input method.

use crate::harness::{Chromium, Json, Node, Person};

use super::{page, texts};

/// Whoever said something else before that has heard everything that was said before.
async fn assert_said(person: &Person, script: &mut Json, all: &[&str]) {
    person.fill("#text", "a full stop").await;
    person.press("#text", "Enter").await;
    script.hear("lobby", "a full stop").await;
    let mut said = script.texts("lobby");
    said.retain(|text| text != "a full stop");
    assert_eq!(said, all);
}

async fn a_writer() -> (Node, Person, Json) {
    let node = Node::start(&[]).await;
    let ada = Person::come_in(&Chromium::start(), &page(&node, ""), "ada").await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    ada.click("#text").await;
    (node, ada, script)
}

#[tokio::test]
async fn the_enter_that_confirms_a_composition_sends_nothing_and_the_next_one_sends_once() {
    let (_node, ada, mut script) = a_writer().await;
    ada.compose("ni").await;
    ada.compose("nihao").await;
    ada.confirm("你好").await;
    ada.wait_read("#text", &texts(&["你好"])).await;
    assert_said_after_enter(&ada, &mut script, &["你好"]).await;
}

/// Safari ends the composition before the key goes down. Chromium cannot be made to, so these events are made by hand.
#[tokio::test]
async fn nor_does_it_where_the_composition_ends_before_the_key_comes() {
    let (_node, ada, mut script) = a_writer().await;
    ada.compose("nihao").await;
    let safari = "(() => {
        const text = document.querySelector('#text');
        text.value = '你好';
        text.dispatchEvent(new CompositionEvent('compositionend', { data: '你好', bubbles: true }));
        const enter = { key: 'Enter', code: 'Enter', keyCode: 229, which: 229, isComposing: false };
        text.dispatchEvent(new KeyboardEvent('keydown', { ...enter, bubbles: true, cancelable: true }));
        text.dispatchEvent(new KeyboardEvent('keyup', { ...enter, keyCode: 13, which: 13, bubbles: true }));
    })()";
    ada.evaluate(safari).await;
    ada.wait_read("#text", &texts(&["你好"])).await;
    assert_said_after_enter(&ada, &mut script, &["你好"]).await;
}

/// Presses Enter, which says what was composed; it was not said before.
async fn assert_said_after_enter(ada: &Person, script: &mut Json, all: &[&str]) {
    assert!(ada.sent().await.iter().all(|sent| sent["type"] != "say"), "nothing was sent by choosing words");
    ada.keys(&["Enter"]).await;
    script.hear("lobby", all[0]).await;
    ada.wait_read("#text", &texts(&[""])).await;
    assert_said(ada, script, all).await;
    ada.assert_content().await;
}

#[tokio::test]
async fn shift_and_enter_make_a_line_and_enter_alone_sends_it() {
    let (_node, ada, mut script) = a_writer().await;
    ada.keys(&["Enter"]).await; // nothing to say
    ada.type_in("  ").await;
    ada.keys(&["Enter"]).await; // still nothing
    ada.fill("#text", "").await;
    ada.type_in("one").await;
    ada.keys(&["Shift+Enter"]).await;
    ada.type_in("two").await;
    ada.wait_read("#text", &texts(&["one\ntwo"])).await;
    ada.keys(&["Enter"]).await;
    script.hear("lobby", "one\ntwo").await;
    ada.wait_messages(&texts(&["one\ntwo"])).await;
    ada.click("#send").await; // nothing to say again
    assert_said(&ada, &mut script, &["one\ntwo"]).await;
}

#[tokio::test]
async fn what_is_too_long_is_not_sent_and_not_lost() {
    let (_node, ada, mut script) = a_writer().await;
    let long = "长".repeat(1_366); // 4,098 bytes
    ada.fill("#text", &long).await;
    ada.keys(&["Enter"]).await;
    ada.wait_sees("#notice").await;
    let notice = ada.read("#notice").await;
    assert!(notice[0].contains("4098") && notice[0].contains("4096"), "{notice:?}");
    assert_eq!(ada.read("#text").await, [long], "it can be shortened");
    ada.keys(&["Backspace", "Enter"]).await;
    script.hear("lobby", &"长".repeat(1_365)).await;
    ada.wait_sees_no("#notice").await;
}

#[tokio::test]
async fn an_emoji_is_chosen_from_those_that_are_offered() {
    let (_node, ada, mut script) = a_writer().await;
    ada.fill("#text", "well done ").await;
    ada.keys(&["End"]).await;
    ada.click("#emoji").await;
    ada.wait_sees("#picker").await;
    ada.click("#picker button >> text=🎉").await;
    ada.wait_sees_no("#picker").await;
    ada.keys(&["Enter"]).await; // the focus is where one writes
    script.hear("lobby", "well done 🎉").await;
    ada.assert_content().await;
}
