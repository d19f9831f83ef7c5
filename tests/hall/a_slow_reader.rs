//! Who does not read costs nobody anything, and gets everything when it reads again.

use crate::harness::{Json, Node, Plain, Position, RedisServer, wait_until};

/// More than all the buffers between two sockets hold.
const MESSAGES: u64 = 3_000;
const TEXT_BYTES: usize = 4_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_gets_everything_afterwards_and_nobody_waits_for_it() {
    let redis = RedisServer::start();
    let small = ["--rate", "0", "--room-window-messages", "50"];
    let alone = Node::start(&small).await;
    let shared = Node::start(&[small.as_slice(), &["--redis", &redis.url()]].concat()).await;
    for node in [&alone, &shared] {
        let mut slow = Json::connect_narrow(&node.ws_url(), "?name=slow").await;
        slow.join("lobby").await;
        talk(node, MESSAGES).await; // heard by who talks, while the slow one reads nothing
        assert!(node.metric("townhall_slow_readers").await >= 1.0);
        let held = node.metric("townhall_log_bytes").await;
        assert!(held < 1024.0 * 1024.0, "the window holds {held} bytes");
        slow.reach("lobby", MESSAGES).await;
        assert!(slow.view("lobby").gaps.is_empty());
        assert_eq!(slow.view("lobby").messages.len() as u64, MESSAGES);
        let mut late = Json::connect(&node.ws_url(), "?name=late").await;
        late.join("lobby").await;
        late.said("lobby", "and live again").await;
        slow.hear("lobby", "and live again").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_again_is_closed_and_can_resume() {
    let options = ["--rate", "0", "--room-window-messages", "50", "--write-timeout", "1s"];
    let node = Node::start(&options).await;
    let mut slow = Json::connect_narrow(&node.ws_url(), "?name=slow").await;
    slow.join("lobby").await;
    talk(&node, MESSAGES).await;
    wait_until("it is closed", async || node.metric(r#"townhall_connections{door="json"}"#).await == 0.0).await;
    slow.until_closed().await;
    let position = slow.position("lobby");
    assert!(position.offset < MESSAGES, "it had read everything");
    let mut back = Json::connect(&node.ws_url(), "?name=slow").await;
    let joined = back.resume("lobby", &position).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    back.reach("lobby", MESSAGES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_slower_than_the_history_is_told_what_it_lost() {
    let redis = RedisServer::start();
    let small = ["--rate", "0", "--room-window-messages", "20", "--history", "20"];
    let alone = Node::start(&small).await;
    let shared = Node::start(&[small.as_slice(), &["--redis", &redis.url()]].concat()).await;
    for node in [&alone, &shared] {
        let mut slow = Json::connect_narrow(&node.ws_url(), "?name=slow").await;
        slow.join("lobby").await;
        let mut lewin = Plain::connect_narrow(&node.ws_url(), "?name=lewin").await;
        lewin.say("here").await;
        lewin.until("lewin:here").await;
        talk(node, MESSAGES).await;

        slow.reach("lobby", 1 + MESSAGES).await;
        let view = slow.view("lobby");
        let lost = view.gaps.iter().map(|gap| {
            assert_eq!(gap["epoch"], view.position.epoch);
            gap["to"].as_u64().expect("a to") - gap["from"].as_u64().expect("a from") + 1
        });
        let lost: u64 = lost.sum();
        assert!(lost > 0, "nothing was lost");
        assert_eq!(view.messages.len() as u64 + lost, 1 + MESSAGES);

        let (mut heard, mut lost) = (0, 0);
        while heard + lost < MESSAGES {
            let line = lewin.next().await;
            match line.strip_prefix("! gap ") {
                Some(words) => lost += number_before(words, " messages lost"),
                None => heard += u64::from(line.starts_with("ada:")),
            }
        }
        assert!(lost > 0, "nothing was lost");
        assert_eq!(heard + lost, MESSAGES);
    }
}

fn number_before(words: &str, end: &str) -> u64 {
    let number = words.strip_suffix(end).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {end:?} in {words:?}"))
}

/// Says long texts, as fast as they are accepted and heard.
async fn talk(node: &Node, messages: u64) {
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let before = Position::of(&ada.join("lobby").await).offset;
    for number in 1..=messages {
        ada.say("lobby", &format!("{number} {}", "x".repeat(TEXT_BYTES))).await;
        ada.reach("lobby", (before + number).saturating_sub(10)).await;
    }
    ada.reach("lobby", before + messages).await;
}
