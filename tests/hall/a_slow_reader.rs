//! Who does not read costs nobody anything, and gets everything when it reads again.

use futures::future::join_all;

use crate::harness::{Json, Node, Plain, Position, RedisServer, Still, wait_until};
use crate::wire::{connect_narrow, open_narrow};

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stops_for_a_while_catches_up_from_the_window_and_the_broker_is_not_asked() {
    let redis = RedisServer::start();
    let node = Node::start(&["--rate", "0", "--redis", &redis.url()]).await;
    let mut slow = Still::join(&node.ws_url(), "lobby", None).await;
    talk(&node, 200).await; // less than a window, more than the sockets hold
    assert_eq!(node.metric("townhall_slow_readers").await, 1.0);
    let before = histories(&redis);
    slow.reach(200).await;
    assert_eq!(histories(&redis), before);
    wait_until("it is slow no more", async || node.metric("townhall_slow_readers").await == 0.0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_for_longer_share_the_pages_in_which_they_catch_up() {
    const SAID: u64 = 700;
    const PAGES: u64 = 4; // of 256 offsets, one of which is half full at first
    let redis = RedisServer::start();
    let node = Node::start(&["--rate", "0", "--room-window-messages", "20", "--redis", &redis.url()]).await;
    for (room, readers) in [("alone", 1), ("crowd", 100)] {
        let joining = (0..readers).map(|_| async { Still::join(&node.ws_url(), room, None).await });
        let mut slow = join_all(joining).await;
        talk_in(room, &node, SAID).await;
        wait_until("all are full", async || node.metric("townhall_slow_readers").await == f64::from(readers)).await;
        let before = histories(&redis);
        join_all(slow.iter_mut().map(|reader| reader.reach(SAID))).await;
        let read = histories(&redis) - before;
        assert!((1..=PAGES).contains(&read), "{readers} readers read {read} pages");
        wait_until("none is slow", async || node.metric("townhall_slow_readers").await == 0.0).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_never_reads_is_too_slow_at_every_door_and_closed_4108_where_there_are_codes() {
    let node = Node::start(&["--rate", "0", "--write-timeout", "2s"]).await;
    let slow = async |count: f64| {
        let what = format!("{count} are slow");
        wait_until(&what, async || node.metric("townhall_slow_readers").await == count).await;
    };
    let closed = async |door: &str| {
        let sample = format!("townhall_connections_closed_total{{door=\"{door}\",reason=\"too_slow\"}}");
        wait_until("it is counted", async || node.metric(&sample).await >= 1.0).await;
    };
    let plain = open_narrow(node.http(), "/ws?name=lewin", None).await;
    talk(&node, 300).await;
    slow(1.0).await;
    closed("plain").await;
    let lines = connect_narrow(node.tcp_addr()).await;
    wait_until("it is in", async || node.metric(r#"townhall_connections{door="tcp"}"#).await == 1.0).await;
    talk(&node, 300).await;
    slow(1.0).await;
    closed("tcp").await;
    drop((plain, lines));

    // The last words are tried for two seconds; who reads in that time hears them.
    let mut codes = Vec::new();
    while codes.last() != Some(&4108) && codes.len() < 5 {
        let mut reader = Still::join(&node.ws_url(), "lobby", None).await;
        talk(&node, 300).await;
        slow(1.0).await;
        slow(0.0).await;
        codes.push(reader.until_closed().await);
    }
    assert_eq!(codes.last(), Some(&4108), "{codes:?}");
    closed("json").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_is_what_is_missing_a_reader_waits_and_is_not_too_slow() {
    const SAID: u64 = 700;
    let redis = RedisServer::start();
    let small = ["--rate", "0", "--room-window-messages", "20", "--write-timeout", "5s"];
    let node = Node::start(&[&small[..], &["--redis", &redis.url()]].concat()).await;
    let mut reader = Still::join(&node.ws_url(), "lobby", None).await;
    talk(&node, SAID).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("kitchen").await;
    redis.pause();
    let reading = tokio::spawn(async move { reader.reach(SAID).await });
    // Each is refused after two seconds: together that is longer than a socket may take nothing.
    for number in 0..4 {
        ada.say("kitchen", &format!("while it is away {number}")).await;
        ada.expect_error("unavailable").await;
    }
    assert!(!reading.is_finished(), "everything was there without the broker");
    assert_eq!(node.metric("townhall_slow_readers").await, 0.0, "its socket takes everything there is");
    redis.resume();
    reading.await.expect("everything arrives in order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_slow_reader_does_not_take_stays_in_the_window_and_not_in_the_kernel() {
    let node = Node::start(&["--rate", "0", "--write-timeout", "0"]).await;
    let json = Still::join(&node.ws_url(), "lobby", None).await;
    let plain = open_narrow(node.http(), "/ws?name=lewin", None).await;
    let lines = connect_narrow(node.tcp_addr()).await;
    wait_until("it is in", async || node.metric(r#"townhall_connections{door="tcp"}"#).await == 1.0).await;
    talk(&node, 500).await; // two megabytes
    wait_until("all are full", async || node.metric("townhall_slow_readers").await == 3.0).await;
    let unsent = unsent_by([node.port(), node.tcp_addr().port()]);
    assert!(unsent.iter().max() > Some(&0) && unsent.iter().max() < Some(&(300 * 1024)), "{unsent:?}");
    drop((json, plain, lines));
}

/// The bytes that wait in the kernel for each client of these ports: the third column of `/proc/net/tcp`.
fn unsent_by(ports: [u16; 2]) -> Vec<u64> {
    let hex = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("the system's connections");
    let sockets = table.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let ours = sockets.filter(|socket| {
        let port = socket[1].split_once(':').map(|(_, port)| hex(port) as u16);
        port.is_some_and(|port| ports.contains(&port)) && socket[3] == "01" // established
    });
    ours.map(|socket| socket[4].split_once(':').map_or(0, |(unsent, _)| hex(unsent))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_stop_at_a_hundred_places_of_a_long_history_do_not_keep_a_hundred_pages() {
    const EVERY: u64 = 256;
    const PLACES: u64 = 100;
    const TEXT: usize = 1_000;
    let redis = RedisServer::start();
    let redis_url = redis.url();
    let options = ["--rate", "0", "--room-window-messages", "20", "--history", "30000", "--write-timeout", "0"];
    let node = Node::start(&[&options[..], &["--redis", &redis_url]].concat()).await;
    let mut talker = Json::connect(&node.ws_url(), "?name=ada").await;
    talker.join("archive").await;
    let text = "x".repeat(TEXT);
    for number in 1..=EVERY * PLACES {
        talker.say("archive", &text).await;
        talker.reach("archive", number.saturating_sub(60)).await;
    }
    talker.reach("archive", EVERY * PLACES).await;
    let epoch = talker.position("archive").epoch;
    let before = node.memory("VmRSS");
    let mut readers = Vec::new();
    for number in 0..3 * PLACES {
        let after = Position::new(&epoch, (number % PLACES) * EVERY);
        if after.offset + 300 < EVERY * PLACES {
            readers.push((after.clone(), Still::join(&node.ws_url(), "archive", Some(&after)).await));
        }
    }
    let full = readers.len() as f64;
    wait_until("all are full", async || node.metric("townhall_slow_readers").await == full).await;
    // A page is half a megabyte, and kept for all; what is kept for each is less than 64 KiB.
    let grown = node.memory("VmRSS").saturating_sub(before);
    assert!(grown < 64 * 1024 * 1024 + readers.len() as u64 * 64 * 1024, "{grown} bytes for {full} readers");
    let (after, mut last) = readers.pop().expect("a reader");
    last.reach(after.offset + 300).await;
}

fn number_before(words: &str, end: &str) -> u64 {
    let number = words.strip_suffix(end).and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no number before {end:?} in {words:?}"))
}

/// Says long texts, as fast as they are accepted and heard.
async fn talk(node: &Node, messages: u64) {
    talk_in("lobby", node, messages).await;
}

async fn talk_in(room: &str, node: &Node, messages: u64) {
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    let before = Position::of(&ada.join(room).await).offset;
    for number in 1..=messages {
        ada.say(room, &format!("{number} {}", "x".repeat(TEXT_BYTES))).await;
        ada.reach(room, (before + number).saturating_sub(10)).await;
    }
    ada.reach(room, before + messages).await;
}

/// How often this Redis was asked for a part of a history.
fn histories(redis: &RedisServer) -> u64 {
    let stats = redis.cli(&["INFO", "commandstats"]);
    let range = stats.lines().find(|line| line.starts_with("cmdstat_xrange:"));
    let calls = range.and_then(|line| line.split("calls=").nth(1)?.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}
