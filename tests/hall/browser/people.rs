//! Who is here, and who types.

use crate::harness::{Chromium, Node, Person, wait_until};

use super::{page, texts};

async fn wait_here(person: &Person, names: &[&str]) {
    let mut seen = Vec::new();
    let shown = async || {
        seen = person.read("#people .member .name").await;
        seen == names
    };
    wait_until(&format!("{names:?} are here"), shown).await;
    wait_until("as many are counted", async || person.read("#here").await[0].contains(&names.len().to_string())).await;
}

#[tokio::test]
async fn who_comes_goes_and_takes_another_name_is_seen_by_the_others() {
    let node = Node::start(&["--presence-grace", "1s"]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &page(&node, "#garden"), "ada").await;
    wait_here(&ada, &["ada"]).await;
    let bea = Person::come_in(&chromium, &page(&node, "#garden"), "bea").await;
    let elsewhere = Person::come_in(&chromium, &page(&node, "#kitchen"), "cleo").await;
    wait_here(&ada, &["ada", "bea"]).await;
    wait_here(&bea, &["ada", "bea"]).await;
    wait_here(&elsewhere, &["cleo"]).await;
    bea.call_oneself("zoe").await;
    wait_here(&ada, &["ada", "zoe"]).await;
    elsewhere.enter("#other", "garden").await;
    wait_here(&ada, &["ada", "cleo", "zoe"]).await;
    bea.visit("about:blank").await;
    wait_here(&ada, &["ada", "cleo"]).await;
    ada.assert_content().await;
}

#[tokio::test]
async fn who_types_is_seen_until_they_have_said_it() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &page(&node, "#garden"), "ada").await;
    let bea = Person::come_in(&chromium, &page(&node, "#garden"), "bea").await;
    let cleo = Person::come_in(&chromium, &page(&node, "#kitchen"), "cleo").await;
    bea.act(serde_json::json!({"action": "click", "at": "#text"})).await;
    bea.type_in("hel").await;
    wait_until("bea types", async || ada.read("#typing").await[0].contains("bea")).await;
    assert_eq!(cleo.read("#typing").await, [""], "not in other rooms");
    assert_eq!(bea.read("#typing").await, [""], "one knows of oneself");
    bea.type_in("lo").await;
    bea.keys(&["Enter"]).await;
    ada.wait_messages(&texts(&["hello"])).await;
    assert_eq!(ada.read("#typing").await, [""], "it was said");

    // Who stops without a word is forgotten after a while.
    cleo.enter("#other", "garden").await;
    cleo.wait_messages(&texts(&["hello"])).await;
    cleo.click("#text").await;
    cleo.type_in("ne").await;
    wait_until("cleo types", async || ada.read("#typing").await[0].contains("cleo")).await;
    wait_until("nobody types", async || ada.read("#typing").await[0].is_empty()).await;
    assert_eq!(ada.count("#view .message").await, 1);
    ada.assert_content().await;
}
