//! Lines that break, nodes that die, a Redis that forgets: what is on screen is what was said, once, or says that it is not.

use serde_json::{Value, json};

use crate::harness::{Chromium, Cut, Json, Node, Person, RedisServer, wait_until};

use super::{Hall, logins, numbered, page, say_all, texts};

#[tokio::test]
async fn a_node_dies_and_both_go_on() {
    let mut hall = Hall::open().await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &hall.url("/"), "ada").await;
    let bea = Person::come_in(&chromium, &hall.url("/"), "bea").await;
    hall.spread("json", &bea).await;
    ada.say("before").await;
    bea.wait_messages(&texts(&["before"])).await;

    hall.nodes[0].kill();
    // Said at once, whether connected or not: what is not accepted is resent.
    let mut all = texts(&["before"]);
    for number in 1..=3 {
        for (person, name) in [(&ada, "ada"), (&bea, "bea")] {
            let text = format!("{name} after {number}");
            person.say(&text).await;
            all.push(text);
        }
    }
    let of = |all: &[String], name: &str| all.iter().filter(|text| text.starts_with(name)).cloned().collect::<Vec<_>>();
    for person in [&ada, &bea] {
        person.wait_count("#view .message", all.len()).await;
        person.wait_count("#view .pending, #view .failed, #unsent .message", 0).await;
        person.wait_connected().await;
        let seen = person.read("#view .message .text").await;
        for name in ["ada", "bea"] {
            assert_eq!(of(&seen, name), of(&all, name), "each one's words are in their order, once");
        }
        assert_eq!(person.count("#view .break").await, 0, "nothing was lost");
        person.assert_content_but_for_handshakes().await;
    }
    assert_eq!(ada.read("#view .message .text").await, bea.read("#view .message .text").await, "there is one order");
}

/// Whoever is offline gets nowhere, and the line that they had is gone.
async fn pull_the_plug(person: &Person, wire: &Cut) {
    person.set_offline(true).await;
    wire.cut();
}

#[tokio::test]
async fn who_is_offline_is_told_so_and_misses_nothing_afterwards() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &format!("http://{}/", wire.address()), "ada").await;
    let bea = Person::come_in(&chromium, &page(&node, ""), "bea").await;
    let before = ada.states().await.len();
    pull_the_plug(&ada, &wire).await;
    ada.say("said into the void").await;
    ada.wait_read("#unsent .message.pending .text", &texts(&["said into the void"])).await;
    bea.say("meanwhile").await;
    wait_until("the page says that it is offline", async || ada.state().await == "offline").await;
    let words = ada.read("#state").await;
    assert!(words[0].contains("Offline"), "{words:?}");
    assert_eq!(ada.read("#unsent .message.pending .text").await, ["said into the void"], "it waits");

    ada.set_offline(false).await;
    for person in [&ada, &bea] {
        person.wait_messages(&texts(&["meanwhile", "said into the void"])).await;
        person.wait_connected().await;
    }
    assert_eq!(ada.states().await[before..], ["offline", "open"]);
    assert_eq!(ada.count("#view .pending, #view .failed, #view .break").await, 0);
}

#[tokio::test]
async fn a_short_interruption_is_not_worth_a_word() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &format!("http://{}/", wire.address()), "ada").await;
    let before = ada.states().await;
    for number in 1..=3 {
        wire.cut();
        ada.say(&format!("number {number}")).await;
        ada.wait_messages(&numbered("number", number)).await;
        ada.wait_connected().await;
    }
    assert_eq!(ada.states().await, before, "nothing was shown");
    assert_eq!(node.metric("townhall_connections_opened_total{door=\"json\"}").await, 5.0, "the line was really cut");
}

/// Whose page is reloaded while two messages are on their way: the hall has the one, and its answer was lost; the other was
/// lost itself.
#[tokio::test]
async fn what_was_on_its_way_when_the_page_is_reloaded_is_said_exactly_once() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &format!("http://{}/", wire.address()), "ada").await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    // A new name is a new connection: this one is told of both by those names.
    ada.wait_read("#people .member .name", &texts(&["ada", "script"])).await;

    wire.swallow_all(true);
    ada.say("heard by others").await;
    script.hear("lobby", "heard by others").await;
    wire.kill_silently();
    wire.swallow_all(false);
    ada.say("heard by nobody").await;
    let both = texts(&["heard by others", "heard by nobody"]);
    ada.wait_read("#unsent .message.pending .text", &both).await;

    ada.reload().await;
    ada.wait_messages(&both).await;
    script.hear("lobby", "heard by nobody").await;
    assert_eq!(ada.read("#view .message.own .text").await, both);
    ada.say("and on").await;
    script.hear("lobby", "and on").await;
    assert_eq!(script.texts("lobby"), ["heard by others", "heard by nobody", "and on"]);
    ada.reload().await;
    ada.wait_messages(&texts(&["heard by others", "heard by nobody", "and on"])).await;
}

/// The ids of what a page said, in order.
async fn said_ids(person: &Person) -> Vec<Value> {
    person.sent().await.iter().filter(|sent| sent["type"] == "say").map(|sent| sent["id"].clone()).collect()
}

#[tokio::test]
async fn what_waited_too_long_is_shown_as_failed_and_said_when_the_reader_wants_it() {
    // It is offline for five seconds before the page says so, and the hall remembers what was said for two.
    let node = Node::start(&["--dedupe", "2s"]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &format!("http://{}/", wire.address()), "ada").await;
    let bea = Person::come_in(&chromium, &page(&node, ""), "bea").await;
    ada.say("warm").await;
    ada.wait_messages(&texts(&["warm"])).await;
    pull_the_plug(&ada, &wire).await;
    ada.say("wanted").await;
    ada.say("not wanted").await;
    wait_until("the page says that it is offline", async || ada.state().await == "offline").await;
    ada.set_offline(false).await;
    ada.wait_read("#unsent .message.failed .text", &texts(&["wanted", "not wanted"])).await;
    ada.wait_connected().await;
    let id = ada.attribute("#unsent .message >> nth=0", "data-id").await;

    ada.click("#unsent .message:nth-child(1 of .message) .retry").await;
    ada.wait_read("#view .message .text", &texts(&["warm", "wanted", "not wanted"])).await;
    bea.wait_messages(&texts(&["warm", "wanted"])).await;
    assert_eq!(said_ids(&ada).await.last(), Some(&id), "it goes under the same id");
    let said = bea.attribute("#view .message >> nth=1", "data-id").await;
    assert_eq!(said, id);

    ada.wait_read("#unsent .message.failed .text", &texts(&["not wanted"])).await;
    ada.click("#unsent .message .discard").await;
    ada.wait_messages(&texts(&["warm", "wanted"])).await;
    ada.reload().await;
    ada.wait_messages(&texts(&["warm", "wanted"])).await;
    bea.say("the end").await;
    ada.wait_messages(&texts(&["warm", "wanted", "the end"])).await;
}

#[tokio::test]
async fn what_the_hall_refuses_stays_where_it_was_written_and_is_retried_under_the_same_id() {
    let node = logins::hall(&[]).await;
    let reader = logins::token(logins::SECRET, &json!({"sub": "7", "name": "Reader", "role": "reader"}));
    let chromium = Chromium::start();
    let person = Person::open(&chromium, &page(&node, &format!("?token={reader}"))).await;
    person.wait_connected().await;
    person.say("may I?").await;
    person.wait_read("#unsent .message.failed .text", &texts(&["may I?"])).await;
    let fate = person.read("#unsent .fate").await;
    assert!(fate[0].contains("read"), "it says why: {fate:?}");
    person.click("#unsent .retry").await;
    wait_until("it was said again", async || said_ids(&person).await.len() == 2).await;
    person.wait_read("#unsent .message.failed .text", &texts(&["may I?"])).await;
    let ids = said_ids(&person).await;
    assert_eq!(ids[0], ids[1]);

    person.reload().await;
    person.wait_connected().await;
    person.wait_read("#unsent .message.failed .text", &texts(&["may I?"])).await;
    person.click("#unsent .discard").await;
    person.wait_count("#view .message", 0).await;
    person.reload().await;
    person.wait_connected().await;
    assert_eq!(person.count("#view .message").await, 0, "what was discarded does not come back");
    person.assert_content().await;
}

#[tokio::test]
async fn a_fork_that_lost_messages_shows_where() {
    let mut redis = RedisServer::start();
    let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &page(&nodes[0], ""), "ada").await;
    let bea = Person::come_in(&chromium, &page(&nodes[1], ""), "bea").await;
    ada.say("kept").await;
    ada.wait_messages(&texts(&["kept"])).await;
    assert_eq!(redis.cli(&["SAVE"]), "OK");
    ada.say("lost").await;
    for person in [&ada, &bea] {
        person.wait_messages(&texts(&["kept", "lost"])).await;
        assert_eq!(person.count("#view .break").await, 0);
    }
    redis.kill();
    redis.restart();
    for person in [&ada, &bea] {
        person.wait_count("#view .break", 1).await;
        person.wait_read("#view .message .text", &texts(&["kept"])).await;
    }
    bea.say("after").await;
    for person in [&ada, &bea] {
        person.wait_messages(&texts(&["kept", "after"])).await;
        assert_eq!(person.count("#view .break").await, 1);
        person.assert_content().await;
    }
}

#[tokio::test]
async fn a_hole_in_the_log_is_shown_between_its_neighbours() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url(), "--rate", "0"]).await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("hole").await;
    say_all(&mut script, "hole", &numbered("number", 70)).await;
    drop(script);
    drop(node);
    // One that comes with the room, and one further up.
    for offset in ["60-0", "61-0", "10-0"] {
        assert_eq!(redis.cli(&["XDEL", "townhall:{hole}:log", offset]), "1");
    }
    let node = Node::start(&["--redis", &redis.url()]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &page(&node, "#hole"), "ada").await;
    let left = |from: usize| -> Vec<String> {
        let numbers = (from..=70).filter(|number| ![60, 61, 10].contains(number));
        numbers.map(|number| format!("number {number}")).collect()
    };
    ada.wait_messages(&left(21)).await;
    let around = "[...document.querySelectorAll('#view .break')].map((at) => [at.previousElementSibling.dataset.offset,
        at.textContent.trim(), at.nextElementSibling.dataset.offset].join(': '))";
    assert_eq!(ada.evaluate(around).await, json!(["59: 2 messages are lost here: 62"]));
    ada.wheel("#view", -100_000).await;
    ada.wait_messages(&left(1)).await;
    let both = json!(["9: 1 message is lost here: 11", "59: 2 messages are lost here: 62"]);
    assert_eq!(ada.evaluate(around).await, both);
    ada.assert_content().await;
}
