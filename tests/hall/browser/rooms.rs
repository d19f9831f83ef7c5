//! One page, many rooms: by links, by the address, back and forward, and what becomes of a text that was not sent.

use crate::harness::{Chromium, Node, Person, wait_until};

use super::{page, texts};

async fn wait_room(person: &Person, room: &str) {
    person.wait_read("#room", &texts(&[room])).await;
    wait_until("its link says so, too", async || {
        person.read("#rooms a[aria-current='page'] .room-name").await == [room]
    })
    .await;
}

#[tokio::test]
async fn an_address_names_a_room_and_back_and_forward_go_through_those_that_were_visited() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &page(&node, "#garden"), "ada").await;
    wait_room(&ada, "garden").await;
    ada.say("in the garden").await;
    ada.wait_messages(&texts(&["in the garden"])).await;
    ada.enter("#other", "kitchen").await;
    wait_room(&ada, "kitchen").await;
    assert!(ada.address().await.ends_with("/#kitchen"));
    ada.wait_messages(&[]).await;
    ada.say("in the kitchen").await;
    ada.wait_messages(&texts(&["in the kitchen"])).await;
    ada.click("#rooms a[href='#lobby']").await;
    wait_room(&ada, "lobby").await;

    ada.back().await;
    wait_room(&ada, "kitchen").await;
    ada.wait_messages(&texts(&["in the kitchen"])).await;
    ada.back().await;
    wait_room(&ada, "garden").await;
    ada.wait_messages(&texts(&["in the garden"])).await;
    ada.forward().await;
    wait_room(&ada, "kitchen").await;
    ada.wait_messages(&texts(&["in the kitchen"])).await;

    // A link that somebody was given.
    let bea = Person::come_in(&chromium, &page(&node, "#garden"), "bea").await;
    bea.wait_messages(&texts(&["in the garden"])).await;
    // The rooms that were visited are there tomorrow, until one forgets them.
    ada.reload().await;
    wait_room(&ada, "kitchen").await;
    ada.wait_read("#rooms .room-name", &texts(&["lobby", "kitchen", "garden"])).await;
    ada.hover("#rooms li:has(a[href='#garden'])").await;
    ada.click("#rooms li:has(a[href='#garden']) .forget").await;
    ada.wait_read("#rooms .room-name", &texts(&["lobby", "kitchen"])).await;
    ada.reload().await;
    ada.wait_read("#rooms .room-name", &texts(&["lobby", "kitchen"])).await;
    ada.assert_content().await;
}

#[tokio::test]
async fn a_room_that_cannot_be_says_so_and_the_way_out_is_open() {
    let node = Node::start(&["--rooms", "lobby,help"]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &page(&node, ""), "ada").await;
    ada.wait_read("#rooms .room-name", &texts(&["lobby", "help"])).await;
    for (fragment, word) in [("Not%20a%20room!", "A room is"), ("cellar", "#cellar"), ("%E0%A4%A", "A room is")] {
        ada.evaluate(&format!("location.hash = '#{fragment}'")).await;
        wait_until("it says why not", async || {
            let notice = ada.read("#notice").await;
            notice.len() == 1 && notice[0].contains(word) && ada.sees("#notice").await
        })
        .await;
        assert_eq!(ada.attribute("#text", "disabled").await, "", "there is nothing to write in");
        ada.evaluate("location.hash = '#help'").await;
        wait_room(&ada, "help").await;
        ada.wait_sees_no("#notice").await;
        ada.wait_read("#rooms .room-name", &texts(&["lobby", "help"])).await;
    }
    ada.say("it still works").await;
    ada.wait_messages(&texts(&["it still works"])).await;

    // Whoever comes by such a link from elsewhere is told the same.
    let bea = Person::open(&chromium, &page(&node, "#cellar")).await;
    bea.wait_connected().await;
    wait_until("it says why not", async || bea.read("#notice").await[0].contains("#cellar")).await;
    bea.click("#rooms a[href='#help']").await;
    bea.wait_messages(&texts(&["it still works"])).await;
    bea.wait_sees_no("#notice").await;
    bea.assert_content().await;
}

#[tokio::test]
async fn a_draft_stays_in_its_room_and_over_a_reload() {
    let node = Node::start(&[]).await;
    let ada = Person::come_in(&Chromium::start(), &page(&node, "#garden"), "ada").await;
    ada.fill("#text", "half a sentence\nand a line").await;
    ada.click("#rooms a[href='#lobby']").await;
    wait_room(&ada, "lobby").await;
    ada.wait_read("#text", &texts(&[""])).await;
    ada.fill("#text", "another").await;
    ada.back().await;
    ada.wait_read("#text", &texts(&["half a sentence\nand a line"])).await;
    ada.reload().await;
    ada.wait_read("#text", &texts(&["half a sentence\nand a line"])).await;
    ada.wait_connected().await;
    ada.press("#text", "Enter").await;
    ada.wait_messages(&texts(&["half a sentence\nand a line"])).await;
    ada.click("#rooms a[href='#lobby']").await;
    ada.wait_read("#text", &texts(&["another"])).await;
    ada.reload().await;
    ada.wait_read("#text", &texts(&["another"])).await;
    ada.back().await;
    ada.wait_read("#text", &texts(&[""])).await;
    ada.assert_content().await;
}
