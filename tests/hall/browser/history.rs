//! Long rooms: whoever scrolls sees all of it, in order, and the browser never carries more than a part.

use serde_json::json;

use crate::harness::{Chromium, Json, Node, Person, wait_until};

use super::{numbered, page, say_all};

/// Keeps what scrolling shows, as the page does it: the most messages that the document ever had, the offsets that were
/// seen, whether they were ever out of order, and how far rows ever jumped from one frame to the next.
const WATCH: &str = r##"(() => {
    const view = document.querySelector("#view");
    const kept = { most: 0, seen: new Set(), disordered: [], jump_px: 0, tops: new Map() };
    const look = () => {
        const rows = [...view.querySelectorAll(".message")];
        const offsets = rows.map((row) => Number(row.dataset.offset));
        kept.most = Math.max(kept.most, rows.length);
        for (const offset of offsets) kept.seen.add(offset);
        if (offsets.some((offset, index) => index && offset !== offsets[index - 1] + 1)) kept.disordered = offsets;
    };
    new MutationObserver(look).observe(view, { childList: true, subtree: true });
    look();
    const frame = () => {
        const { top, bottom } = view.getBoundingClientRect();
        const tops = new Map();
        for (const row of view.querySelectorAll(".message")) {
            const at = row.getBoundingClientRect();
            if (at.bottom > top && at.top < bottom) tops.set(row.dataset.offset, at.top);
        }
        for (const [offset, at] of tops) {
            const before = kept.tops.get(offset);
            if (before !== undefined) kept.jump_px = Math.max(kept.jump_px, Math.abs(at - before));
        }
        const stayed = kept.tops.size === 0 || [...tops.keys()].some((offset) => kept.tops.has(offset));
        if (!stayed) kept.jump_px = Infinity;
        kept.tops = tops;
        requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
    globalThis.watched = kept;
})()"##;

/// Somebody who reads a room in which so many messages were said.
async fn a_long_room(count: usize) -> (Node, Person) {
    let node = Node::start(&["--rate", "0", "--history", "20000"]).await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join_last("long", 0).await;
    say_all(&mut script, "long", &numbered("number", count)).await;
    let ada = Person::come_in(&Chromium::start(), &page(&node, "#long"), "ada").await;
    ada.wait(
        "the newest message is on screen",
        &format!("document.querySelector('#view .message[data-offset=\"{count}\"]') !== null"),
    )
    .await;
    (node, ada)
}

/// Turns the wheel until a message is in the document, a frame of its own for every turn: so what moves is told from what
/// jumps.
async fn scroll_to(ada: &Person, offset: usize, by: i32) {
    let frame = format!(
        "new Promise((done) => requestAnimationFrame(() => done([
            document.querySelector('#view .message[data-offset=\"{offset}\"]') !== null,
            document.querySelector('#view').scrollTop, watched.seen.size])))"
    );
    let mut at = ada.evaluate(&frame).await;
    for _ in 0..5_000 {
        if at[0] == true {
            return;
        }
        ada.wheel("#view", by).await;
        at = ada.evaluate(&frame).await;
    }
    panic!("it leads nowhere: {at}");
}

#[tokio::test]
async fn ten_thousand_messages_are_read_to_the_first_and_back_with_five_hundred_in_the_document() {
    const COUNT: usize = 10_000;
    let (_node, ada) = a_long_room(COUNT).await;
    ada.evaluate(WATCH).await;
    scroll_to(&ada, 1, -20_000).await;
    ada.wait("the beginning is there", "document.querySelector('#more').hidden").await;
    assert!(ada.sees("#newest").await, "the way back is offered");
    let way = json!([COUNT, []]);
    assert_eq!(ada.evaluate("[watched.seen.size, watched.disordered]").await, way, "every one was there, in order");

    ada.evaluate("watched.seen.clear()").await;
    scroll_to(&ada, COUNT, 20_000).await;
    assert_eq!(ada.evaluate("[watched.seen.size, watched.disordered]").await, way, "and on the way back");
    let most = ada.evaluate("watched.most").await.as_u64().expect("a number");
    assert!((100..=500).contains(&most), "{most} messages were in the document at once");
    ada.wheel("#view", 100_000).await;
    ada.wait_sees_no("#newest").await;
    ada.say("and on").await;
    ada.wait(
        "the end is live again",
        "document.querySelector('#log .message:last-child .text')?.textContent === 'and on'",
    )
    .await;
    ada.assert_content().await;
}

#[tokio::test]
async fn rows_do_not_jump_when_older_ones_come() {
    const STEP: i32 = 90;
    let (_node, ada) = a_long_room(400).await;
    ada.evaluate(WATCH).await;
    scroll_to(&ada, 200, -STEP).await;
    let jump_px = ada.evaluate("watched.jump_px").await.as_f64();
    // A frame may show two turns of the wheel, or three; a page of older messages is far higher than that.
    assert!(jump_px.is_some_and(|jump_px| jump_px > 0.0 && jump_px <= 3.0 * f64::from(STEP)), "{jump_px:?}");
    ada.evaluate("watched.jump_px = 0").await;
    ada.click("#newest").await;
    ada.wait("a jump is told from that", "watched.jump_px === Infinity").await;
}

#[tokio::test]
async fn who_reads_older_messages_is_left_there_and_told_of_new_ones() {
    let (node, ada) = a_long_room(120).await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("long").await;
    ada.wheel("#view", -600).await;
    ada.wait_sees("#newest").await;
    let row = "(() => { const view = document.querySelector('#view').getBoundingClientRect();
        const row = [...document.querySelectorAll('#view .message')].find((row) => row.getBoundingClientRect().top > view.top);
        return [row.dataset.offset, Math.round(row.getBoundingClientRect().top)]; })()";
    let mut before = json!(null);
    ada.wait("the wheel has come to rest", "document.querySelector('#view').scrollTop > 0").await;
    wait_until("the wheel has come to rest", async || {
        let now = ada.evaluate(row).await;
        std::mem::replace(&mut before, now.clone()) == now
    })
    .await;
    say_all(&mut script, "long", &numbered("new", 3)).await;
    wait_until("three are told of", async || ada.read("#newest").await[0].contains('3')).await;
    assert_eq!(ada.evaluate(row).await, before, "the reader stays");
    ada.click("#newest").await;
    ada.wait(
        "the newest is in sight",
        "(() => {
        const view = document.querySelector('#view').getBoundingClientRect();
        const row = [...document.querySelectorAll('#view .message')].at(-1);
        return row.textContent.includes('new 3') && row.getBoundingClientRect().bottom <= view.bottom + 1; })()",
    )
    .await;
    ada.wait_sees_no("#newest").await;
    script.said("long", "one more").await;
    ada.wait(
        "who is at the end follows it",
        "(() => {
        const view = document.querySelector('#view').getBoundingClientRect();
        const row = [...document.querySelectorAll('#view .message')].at(-1);
        return row.textContent.includes('one more') && row.getBoundingClientRect().bottom <= view.bottom + 1; })()",
    )
    .await;
    ada.assert_content().await;
}

#[tokio::test]
async fn who_scrolls_a_little_away_is_not_pulled_back_by_what_pours_in() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    say_all(&mut script, "lobby", &numbered("before", 60)).await;
    let ada = Person::come_in(&Chromium::start(), &page(&node, "#lobby"), "ada").await;
    wait_until("the newest is there", async || ada.read("#newest").await.len() == 1 && !ada.sees("#newest").await)
        .await;
    let top = async || ada.evaluate("document.querySelector('#view').scrollTop").await;
    let end = top().await;
    ada.wheel("#view", -40).await;
    wait_until("she is not at the end any more", async || top().await != end).await;
    ada.evaluate("new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))").await;
    let place = top().await;
    say_all(&mut script, "lobby", &numbered("poured", 30)).await;
    wait_until("what came is counted", async || ada.read("#newest").await == ["30 new messages"]).await;
    assert_eq!(top().await, place, "and nothing has moved");
    ada.click("#newest").await;
    wait_until("she is at the end again", async || !ada.sees("#newest").await).await;
}
