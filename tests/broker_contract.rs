//! The contract of `broker.rs`, held up to every broker: memory, one Redis, a master with Sentinels, a cluster. What only
//! Redis can do to us comes after.

use std::collections::HashSet;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::future::join_all;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use townhall::broker::memory::MemoryBroker;
use townhall::broker::redis::RedisBroker;
use townhall::broker::{
    Broker, BrokerError, DEADLINE, Delivery, Entry, FeedReceiver, Head, History, MAX_EVENT_BYTES, MAX_LISTED, Members,
    MembersCall, NodeId, Notice, Publication, Range, Registration, RollVersion, Status, Step, Whisper, feed,
};
use townhall::config::{HistorySettings, RedisSettings};
use townhall::names::{DisplayName, RoomName, UserId};
use townhall::position::{Lineage, Offset, Position};
use uuid::Uuid;

#[path = "harness/redis.rs"]
mod redis;
use redis::{Cluster, RedisServer, Sentinel};

/// How long anything is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(20);

macro_rules! on_every_broker {
    ($($sentence:ident)*) => {
        on_every_broker! { @on memory Memory: $($sentence)* }
        on_every_broker! { @on redis_server Redis: $($sentence)* }
        on_every_broker! { @on redis_sentinel Sentinel: $($sentence)* }
        on_every_broker! { @on redis_cluster Cluster: $($sentence)* }
    };
    (@on $module:ident $kind:ident: $($sentence:ident)*) => {
        mod $module {
            $(#[tokio::test]
            async fn $sentence() {
                super::$sentence(super::Kind::$kind).await;
            })*
        }
    };
}

on_every_broker! {
    offsets_are_dense_from_one_in_the_order_of_the_calls
    the_same_id_is_stored_once_with_its_first_text
    the_same_id_of_another_user_or_in_another_room_is_another_message
    history_is_oldest_first_from_either_end
    at_least_as_many_messages_are_kept_as_asked_and_older_ones_go
    a_silent_room_is_at_the_beginning_of_everything
    the_first_message_forks_from_silence
    what_is_published_after_subscribing_is_heard_and_nothing_after_unsubscribing
    a_message_that_was_stored_before_is_not_delivered_again
    what_was_seen_and_what_is_new_come_together
    a_burst_of_long_messages_is_heard_whole_and_in_order
    a_room_lives_while_somebody_speaks_and_is_forgotten_after
    heads_come_in_the_order_asked
    the_clock_of_a_room_never_goes_back
    it_becomes_up
    who_is_at_two_nodes_is_one_member_until_neither_names_it
    a_call_may_be_made_twice_and_one_that_comes_too_late_does_nothing
    a_node_that_begins_anew_takes_back_whom_it_does_not_name_again
    a_node_whose_words_are_not_known_any_more_is_told_so_and_nothing_else_is_done
    whoever_is_left_by_a_node_that_died_is_removed_by_the_others
    nobody_is_removed_while_the_leases_of_all_have_lapsed
    a_room_that_all_nodes_have_abandoned_is_empty_for_the_next_one
    changes_of_members_are_announced_and_renewals_are_not
    many_members_are_counted_and_some_are_listed_for_who_asks
    members_of_many_rooms_come_in_the_order_asked
    another_name_is_another_version_and_the_last_one_counts
    what_is_announced_is_heard_by_those_who_listen_and_stored_nowhere
}

// --- every broker

async fn offsets_are_dense_from_one_in_the_order_of_the_calls(kind: Kind) {
    let hall = Hall::open(kind).await;
    let calls = (1..=1000).map(|n| hall.broker.publish(message("lobby", n)));
    for (n, position) in (1..).zip(join_all(calls).await) {
        assert_eq!(position.unwrap().offset, n);
    }
    let log = hall.whole("lobby").await;
    assert_eq!(texts(&log.entries), (1..=1000).collect::<Vec<_>>());
    let offsets: Vec<Offset> = log.entries.iter().map(|entry| entry.offset).collect();
    assert_eq!(offsets, (1..=1000).collect::<Vec<_>>());
}

async fn the_same_id_is_stored_once_with_its_first_text(kind: Kind) {
    let hall = Hall::open(kind).await;
    let first = message("lobby", 1);
    let position = hall.publish(first.clone()).await;
    hall.say("lobby", 2).await;
    let again = Publication { event: event(99), ..first };
    // Two at once: they may well travel together.
    let twice = [again.clone(), again].map(|again| hall.broker.publish(again));
    for answer in join_all(twice).await {
        assert_eq!(answer, Ok(position.clone()));
    }
    assert_eq!(texts(&hall.whole("lobby").await.entries), [1, 2]);
}

async fn the_same_id_of_another_user_or_in_another_room_is_another_message(kind: Kind) {
    let hall = Hall::open(kind).await;
    let mine = message("lobby", 1);
    let others = [
        Publication { user: UserId::new("somebody else".into()), ..mine.clone() },
        Publication { room: room("kitchen"), ..mine.clone() },
    ];
    assert_eq!(hall.publish(mine).await.offset, 1);
    let [elsewho, elsewhere] = others.map(|other| hall.publish(other));
    assert_eq!(elsewho.await.offset, 2);
    assert_eq!(elsewhere.await.offset, 1);
}

async fn history_is_oldest_first_from_either_end(kind: Kind) {
    let hall = Hall::open(kind).await;
    hall.fill("lobby", 10).await;
    let before = |before, limit| Range::Before { before, limit };
    let from = |first, limit| Range::From { first, limit };
    for (range, expected) in [
        (before(Offset::MAX, 3), vec![8, 9, 10]),
        (before(11, 3), vec![8, 9, 10]),
        (before(8, 3), vec![5, 6, 7]),
        (before(3, 50), vec![1, 2]),
        (before(1, 50), vec![]),
        (before(0, 50), vec![]),
        (before(8, 0), vec![]),
        (from(1, 3), vec![1, 2, 3]),
        (from(0, 2), vec![1, 2]),
        (from(9, 50), vec![9, 10]),
        (from(11, 50), vec![]),
        (from(Offset::MAX, 50), vec![]),
        (from(5, 0), vec![]),
    ] {
        let history = hall.history("lobby", range).await;
        assert_eq!(texts(&history.entries), expected, "{range:?}");
        assert_eq!((history.head.offset, history.head.oldest), (10, 1));
        assert_eq!(history.head, hall.head("lobby").await);
    }
}

async fn at_least_as_many_messages_are_kept_as_asked_and_older_ones_go(kind: Kind) {
    let settings = HistorySettings { messages: 10, ..settings() };
    let hall = Hall::open_with(kind, settings).await;
    hall.fill("lobby", 500).await;
    let log = hall.whole("lobby").await;
    assert_eq!(log.head.offset, 500);
    assert!((2..=491).contains(&log.head.oldest), "{:?}", log.head);
    let kept: Vec<u64> = (log.head.oldest..=500).collect();
    assert_eq!(texts(&log.entries), kept);
}

async fn a_silent_room_is_at_the_beginning_of_everything(kind: Kind) {
    let hall = Hall::open(kind).await;
    let silence = Head { lineage: Lineage::silent(), offset: 0, oldest: 1 };
    assert_eq!(hall.head("lobby").await, silence);
    let history = hall.whole("lobby").await;
    assert_eq!((history.head, history.entries), (silence, vec![]));
    if let Some(redis) = &hall.redis {
        assert_eq!(redis.keys(&hall.prefix), "", "looking leaves no trace");
    }
}

async fn the_first_message_forks_from_silence(kind: Kind) {
    let hall = Hall::open(kind).await;
    let position = hall.say("lobby", 1).await;
    let Head { lineage, offset, .. } = hall.head("lobby").await;
    assert!(!position.epoch.is_silent());
    assert_eq!(lineage.epoch, position.epoch);
    assert_eq!(lineage.forks.len(), 1);
    let silence = Lineage::silent().epoch;
    assert_eq!(lineage.shared_until(&silence, offset), Some(0));
    assert_ne!(hall.say("kitchen", 1).await.epoch, position.epoch);
}

async fn what_is_published_after_subscribing_is_heard_and_nothing_after_unsubscribing(kind: Kind) {
    let mut hall = Hall::open(kind).await;
    hall.say("lobby", 1).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    hall.broker.subscribe(&room("kitchen")).await.unwrap();
    for n in 2..=200 {
        let position = hall.say("lobby", n).await;
        let heard = hall.hear().await;
        assert_eq!(heard.room, room("lobby"));
        assert_eq!(heard.position, position);
        assert_eq!(heard.event, event(n));
    }
    let stored = hall.whole("lobby").await.entries;
    let last = stored.last().unwrap();
    hall.broker.unsubscribe(&room("lobby"));
    hall.say("lobby", 201).await;
    hall.say("kitchen", 1).await;
    let heard = hall.hear().await;
    assert_eq!((heard.room, heard.event), (room("kitchen"), event(1)));
    assert_eq!(last.event, event(200));

    hall.broker.subscribe(&room("lobby")).await.unwrap();
    hall.say("lobby", 202).await;
    assert_eq!(hall.hear().await.event, event(202));
}

async fn a_message_that_was_stored_before_is_not_delivered_again(kind: Kind) {
    let mut hall = Hall::open(kind).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    let first = message("lobby", 1);
    for _ in 0..3 {
        hall.publish(first.clone()).await;
    }
    hall.say("lobby", 2).await;
    assert_eq!(hall.hear().await.position.offset, 1);
    assert_eq!(hall.hear().await.position.offset, 2);
}

async fn what_was_seen_and_what_is_new_come_together(kind: Kind) {
    let mut hall = Hall::open(kind).await;
    let [one, two, three] = [1, 2, 3].map(|n| message("lobby", n));
    hall.publish(one.clone()).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    let burst = [&one, &two, &one, &three, &three, &two].map(|message| hall.publish(message.clone()));
    let offsets: Vec<Offset> = join_all(burst).await.into_iter().map(|position| position.offset).collect();
    assert_eq!(offsets, [1, 2, 1, 3, 3, 2]);
    assert_eq!(hall.publish(two).await.offset, 2);
    assert_eq!(texts(&hall.whole("lobby").await.entries), [1, 2, 3]);
    for n in [2, 3] {
        let heard = hall.hear().await;
        assert_eq!((heard.position.offset, heard.event), (n, event(n)));
    }
}

/// From a few bytes to more than any buffer on the way holds.
async fn a_burst_of_long_messages_is_heard_whole_and_in_order(kind: Kind) {
    let mut hall = Hall::open(kind).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    let long =
        |n: usize| Bytes::from(format!("{{\"n\":{n},\"text\":\"{}\"}}", "x".repeat([7, 7_900, 900, 40_000][n % 4])));
    let burst = (1..=200).map(|n| hall.publish(Publication { event: long(n), ..message("lobby", 0) }));
    let positions = join_all(burst).await;
    for (n, position) in (1..).zip(positions) {
        let heard = hall.hear().await;
        assert_eq!((heard.position, heard.event), (position, long(n)));
    }
}

async fn a_room_lives_while_somebody_speaks_and_is_forgotten_after(kind: Kind) {
    let settings = HistorySettings { room_ttl: Duration::from_millis(1000), ..settings() };
    let hall = Hall::open_with(kind, settings).await;
    let first = hall.say("lobby", 1).await;
    // Three times as long as silence may last, said at a pace that keeps it alive.
    let mut pace = tokio::time::interval(Duration::from_millis(100));
    for n in 2..=30 {
        pace.tick().await;
        assert_eq!(hall.say("lobby", n).await.offset, n);
    }
    let silence = Instant::now();
    eventually("the room is forgotten", async || hall.head("lobby").await.lineage == Lineage::silent()).await;
    assert!(silence.elapsed() >= Duration::from_millis(900));
    let again = hall.say("lobby", 1).await;
    assert_eq!(again.offset, 1);
    assert_ne!(again.epoch, first.epoch);
    if let Some(redis) = &hall.redis {
        for key in ["log", "meta", "seen"] {
            let ttl = redis.cli(&["PTTL", &hall.key(key)]);
            assert!(ttl.parse::<i64>().unwrap() > 0, "{key} expires: {ttl}");
        }
    }
}

async fn heads_come_in_the_order_asked(kind: Kind) {
    let hall = Hall::open(kind).await;
    hall.fill("a", 3).await;
    hall.fill("c", 5).await;
    let rooms = ["c", "b", "a", "c"].map(room).to_vec();
    let heads = hall.broker.heads(rooms).await.unwrap();
    let offsets: Vec<Offset> = heads.into_iter().map(|head| head.unwrap().offset).collect();
    assert_eq!(offsets, [5, 0, 3, 5]);
    assert_eq!(hall.broker.heads(vec![]).await, Ok(vec![]));
}

async fn the_clock_of_a_room_never_goes_back(kind: Kind) {
    let hall = Hall::open(kind).await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap().as_millis() as u64;
    hall.fill("lobby", 200).await;
    if let Some(redis) = &hall.redis {
        // As if the server's clock had been an hour ahead until now.
        let future = (now + 3_600_000).to_string();
        redis.cli(&["HSET", &hall.key("meta"), "at", &future]);
        hall.say("lobby", 201).await;
    }
    let entries = hall.whole("lobby").await.entries;
    assert!(entries.is_sorted_by_key(|entry| entry.at_ms));
    assert!(now.abs_diff(entries[0].at_ms) < 60_000, "Unix milliseconds");
    if hall.redis.is_some() {
        assert!(entries[200].at_ms >= now + 3_600_000);
    }
}

async fn it_becomes_up(kind: Kind) {
    let hall = Hall::open(kind).await;
    assert_eq!(*hall.broker.status().borrow(), Status::Up);
}

async fn who_is_at_two_nodes_is_one_member_until_neither_names_it(kind: Kind) {
    let hall = Hall::open(kind).await;
    let (mut one, mut other) = (Speaker::new("lobby"), Speaker::new("lobby"));
    assert_eq!(hall.members(one.says(&["+ada", "+ben"])).await.listed(), ["ada", "ben"]);
    let both = hall.members(other.says(&["+ben", "+zoe"])).await;
    let after = hall.members(one.says(&["-ben"])).await;
    assert_eq!((after.count, after.version), (3, both.version), "nothing has changed for the room");
    assert_eq!(both.listed(), ["ada", "ben", "zoe"]);
    assert_eq!(hall.members(other.says(&["-ben", "-nobody"])).await.listed(), ["ada", "zoe"]);
    assert_eq!(hall.members(one.says(&["-ada"])).await.listed(), ["zoe"]);
    assert_eq!(hall.members(other.says(&["-zoe"])).await.listed(), [""; 0]);
    if let Some(redis) = &hall.redis {
        assert_eq!(redis.keys(&hall.prefix), "", "an empty room leaves no trace");
    }
}

async fn a_call_may_be_made_twice_and_one_that_comes_too_late_does_nothing(kind: Kind) {
    let hall = Hall::open(kind).await;
    let mut one = Speaker::new("lobby");
    hall.members(one.says(&["+ada"])).await;
    let unanswered = one.says(&["+ben", "-ada"]);
    hall.members(unanswered.clone()).await;
    // The answer was lost: it is said again, with what has changed since.
    let again = MembersCall { base: unanswered.base, ..one.says(&["+ben", "-ada", "+zoe"]) };
    assert_eq!(hall.members(again.clone()).await.listed(), ["ben", "zoe"]);
    assert_eq!(hall.members(again).await.registration, Registration::Kept);
    hall.members(one.says(&["-ben"])).await;
    hall.members(unanswered).await;
    let mut other = Speaker::new("lobby");
    assert_eq!(hall.members(other.says(&["+eve"])).await.listed(), ["eve", "zoe"]);
}

async fn a_node_that_begins_anew_takes_back_whom_it_does_not_name_again(kind: Kind) {
    let hall = Hall::open(kind).await;
    let mut one = Speaker::new("lobby");
    hall.members(one.says(&["+ada", "+ben"])).await;
    // In two parts: nobody is missing in between.
    let first = MembersCall { base: None, ..one.says(&["+ada"]) };
    let begun = first.step;
    assert_eq!(hall.members(first).await.count, 2);
    let second = MembersCall { purge: Some(begun), ..one.says(&["+zoe"]) };
    assert_eq!(hall.members(second).await.listed(), ["ada", "zoe"]);
}

async fn a_node_whose_words_are_not_known_any_more_is_told_so_and_nothing_else_is_done(kind: Kind) {
    let hall = Hall::open(kind).await;
    let (mut one, mut other) = (Speaker::new("lobby"), Speaker::new("lobby"));
    hall.members(other.says(&["+zoe"])).await;
    one.said = Some(7);
    let answer = hall.members(one.says(&["+ada"])).await;
    assert_eq!((answer.registration, answer.count), (Registration::Lost, 1));
    hall.members(MembersCall { base: None, ..one.says(&["+ada"]) }).await;
    // Something that it said since then has been lost.
    let later = MembersCall { base: Some(one.step + 1), step: one.step + 2, ..one.says(&["+ben"]) };
    let answer = hall.members(later).await;
    assert_eq!((answer.registration, answer.count), (Registration::Lost, 2));
}

async fn whoever_is_left_by_a_node_that_died_is_removed_by_the_others(kind: Kind) {
    let hall = Hall::open(kind).await;
    let (mut dead, mut alive) = (Speaker::new("lobby"), Speaker::new("lobby"));
    for speaker in [&mut dead, &mut alive] {
        speaker.lease = Duration::from_millis(500);
    }
    hall.members(alive.says(&["+zoe", "+ben"])).await;
    // More than are removed in one call.
    let many: Vec<String> = (0..1500).map(|n| format!("+guest{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).chain(["+ben"]).collect();
    assert_eq!(hall.members(dead.says(&many)).await.count, 1502);
    let mut unfinished = 0;
    eventually("they are gone", async || {
        let answer = hall.members(alive.says(&[])).await;
        assert_ne!(answer.registration, Registration::Lost);
        unfinished += usize::from(answer.registration == Registration::Unfinished);
        answer.count == 2
    })
    .await;
    assert_eq!(unfinished, 1, "the rest by another call");
    assert_eq!(hall.members(MembersCall { list: true, ..alive.says(&[]) }).await.listed(), ["ben", "zoe"]);
    let back = hall.members(dead.says(&["+guest1"])).await;
    assert_eq!((back.registration, back.count), (Registration::Lost, 2));
}

async fn nobody_is_removed_while_the_leases_of_all_have_lapsed(kind: Kind) {
    let hall = Hall::open(kind).await;
    let (mut one, mut other) = (Speaker::new("lobby"), Speaker::new("lobby"));
    for (speaker, name) in [(&mut one, "+ada"), (&mut other, "+ben")] {
        speaker.lease = Duration::from_millis(100);
        hall.members(speaker.says(&[name])).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await; // both leases lapse, as they do when the broker is away
    one.lease = Duration::from_secs(60);
    other.lease = Duration::from_secs(60);
    for _ in 0..3 {
        let answer = hall.members(one.says(&[])).await;
        assert_eq!((answer.registration, answer.count), (Registration::Kept, 2));
    }
    let answer = hall.members(other.says(&[])).await;
    assert_eq!((answer.registration, answer.count), (Registration::Kept, 2));
}

async fn a_room_that_all_nodes_have_abandoned_is_empty_for_the_next_one(kind: Kind) {
    let hall = Hall::open(kind).await;
    let (mut one, mut other) = (Speaker::new("lobby"), Speaker::new("lobby"));
    for (speaker, name) in [(&mut one, "+ada"), (&mut other, "+ben")] {
        speaker.lease = Duration::from_millis(50);
        hall.members(speaker.says(&[name])).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await; // as if they had died that long ago
    let mut early = Speaker::new("lobby");
    assert_eq!(hall.members(early.says(&["+eve"])).await.count, 3, "that is not long for so long a lease");
    assert_eq!(hall.members(early.says(&["-eve"])).await.count, 2);
    let mut next = Speaker { lease: Duration::from_millis(50), ..Speaker::new("lobby") };
    assert_eq!(hall.members(next.says(&["+zoe"])).await.listed(), ["zoe"]);
    let answer = hall.members(one.says(&[])).await;
    assert_eq!((answer.registration, answer.count), (Registration::Lost, 1), "it is not dead after all");
}

async fn changes_of_members_are_announced_and_renewals_are_not(kind: Kind) {
    let mut hall = Hall::open(kind).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    let mut one = Speaker::new("lobby");
    let first = hall.members(one.says(&["+ada"])).await.version;
    for _ in 0..3 {
        assert_eq!(hall.members(one.says(&["+ada"])).await.version, first);
    }
    let second = hall.members(one.says(&["+ben"])).await.version;
    assert_ne!(second, first);
    for version in [first, second] {
        assert_eq!(hall.whisper().await, Whisper::Members { room: room("lobby"), version });
    }
    // A node that has seen it is not told who they are again, another one is.
    let seen = hall.members(MembersCall { seen: second, ..one.says(&[]) }).await;
    assert_eq!((seen.version, seen.list), (second, None));
    assert_eq!(hall.members(MembersCall { seen: first, ..one.says(&[]) }).await.listed(), ["ada", "ben"]);
}

async fn many_members_are_counted_and_some_are_listed_for_who_asks(kind: Kind) {
    let hall = Hall::open(kind).await;
    let mut one = Speaker::new("lobby");
    let many: Vec<String> = (0..MAX_LISTED + 1).map(|n| format!("+guest{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(hall.members(one.says(&many[1..])).await.listed().len(), MAX_LISTED);
    let answer = hall.members(one.says(&many)).await;
    assert_eq!((answer.count, answer.list), (MAX_LISTED + 1, None));
    let asked = hall.members(MembersCall { list: true, ..one.says(&[]) }).await;
    assert_eq!(asked.count, MAX_LISTED + 1);
    let listed: HashSet<String> = asked.listed().into_iter().collect();
    assert_eq!(listed.len(), MAX_LISTED, "each of them once");
}

async fn members_of_many_rooms_come_in_the_order_asked(kind: Kind) {
    let hall = Hall::open(kind).await;
    let node = NodeId::random();
    let calls = (0..20).map(|n| {
        let mut speaker = Speaker { node, ..Speaker::new(&format!("room-{n}")) };
        let names: Vec<String> = (0..n).map(|n| format!("+guest{n}")).collect();
        speaker.says(&names.iter().map(String::as_str).collect::<Vec<_>>())
    });
    let answers = hall.broker.members(calls.collect()).await.unwrap();
    let counts: Vec<usize> = answers.into_iter().map(|answer| answer.unwrap().count).collect();
    assert_eq!(counts, (0..20).collect::<Vec<_>>());
    assert_eq!(hall.broker.members(vec![]).await.unwrap(), []);
}

async fn another_name_is_another_version_and_the_last_one_counts(kind: Kind) {
    let hall = Hall::open(kind).await;
    let (mut one, mut other) = (Speaker::new("lobby"), Speaker::new("lobby"));
    let call = |speaker: &mut Speaker, name: &str| {
        let name = DisplayName::parse(name).unwrap();
        MembersCall { changes: vec![(UserId::new("u".into()), Some(name))], ..speaker.says(&[]) }
    };
    let before = hall.members(call(&mut one, "ada")).await;
    let after = hall.members(call(&mut other, "<b>Lovelace & co</b>")).await;
    assert_ne!(before.version, after.version);
    assert_eq!((after.count, after.listed()), (1, vec!["<b>Lovelace & co</b>".to_owned()]));
}

async fn what_is_announced_is_heard_by_those_who_listen_and_stored_nowhere(kind: Kind) {
    let mut hall = Hall::open(kind).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    hall.broker.announce(&room("kitchen"), event(1)).await;
    hall.broker.announce(&room("lobby"), event(2)).await;
    assert_eq!(hall.whisper().await, Whisper::Announced { room: room("lobby"), event: event(2) });
    assert_eq!(hall.whole("lobby").await.head.offset, 0);
}

// --- Redis: several nodes, restarts, cuts

#[tokio::test]
async fn the_same_id_sent_to_two_nodes_at_once_is_stored_once() {
    let server = RedisServer::start();
    let (one, _) = open(&server.url()).await;
    let (other, _) = open(&server.url()).await;
    for n in 1..=50 {
        let publication = message("lobby", n);
        let [a, b] = [&one, &other].map(|node| node.publish(publication.clone()));
        let (a, b) = tokio::join!(a, b);
        assert_eq!(a.as_ref().map(|position| position.offset), Ok(n));
        assert_eq!(a, b);
    }
    let log = one.history(&room("lobby"), ALL).await.unwrap();
    assert_eq!(texts(&log.entries), (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_node_hears_what_another_one_publishes() {
    let server = RedisServer::start();
    let (speaker, _) = open(&server.url()).await;
    let (listener, mut feed) = open(&server.url()).await;
    listener.subscribe(&room("lobby")).await.unwrap();
    let calls = (1..=500).map(|n| speaker.publish(message("lobby", n)));
    let stored = join_all(calls).await;
    for (n, position) in (1..).zip(stored) {
        let heard = hear(&mut feed).await;
        assert_eq!((Ok(heard.position), heard.event), (position, event(n)));
    }
}

#[tokio::test]
async fn after_a_restart_that_kept_everything_old_positions_stay_valid() {
    let mut hall = Hall::on(RedisServer::start_with(&AOF)).await;
    hall.fill("lobby", 5).await;
    let old = hall.head("lobby").await;
    hall.server().restart();
    let new = hall.head("lobby").await;
    assert_ne!(new.lineage.epoch, old.lineage.epoch);
    assert_eq!((new.offset, new.oldest), (5, 1));
    let position = |offset| Position { epoch: old.lineage.epoch.clone(), offset };
    assert!(new.lineage.holds(&position(5), new.offset));
    assert_eq!(hall.say("lobby", 6).await.offset, 6);
    let head = hall.head("lobby").await;
    assert_eq!(head.lineage, new.lineage, "one restart is one fork");
    assert!(!head.lineage.holds(&position(6), head.offset));
}

#[tokio::test]
async fn a_log_remembers_its_last_sixteen_forks() {
    let hall = Hall::on(RedisServer::start()).await;
    let mut epochs = vec![hall.say("lobby", 1).await.epoch];
    for n in 2..=20 {
        hall.cli(&["HSET", META, "replid", "another server"]);
        epochs.push(hall.say("lobby", n).await.epoch);
    }
    let lineage = hall.head("lobby").await.lineage;
    assert_eq!(lineage.epoch, epochs[19]);
    let forks: Vec<_> = lineage.forks.iter().map(|fork| (&fork.epoch, fork.until)).collect();
    let expected: Vec<_> = (4..=19).map(|n| (&epochs[n - 1], n as Offset)).collect();
    assert_eq!(forks.len(), Lineage::MAX_FORKS.min(19));
    assert_eq!(forks, expected);
}

#[tokio::test]
async fn after_a_restart_that_lost_everything_no_old_position_is_valid() {
    let mut hall = Hall::on(RedisServer::start()).await;
    hall.fill("lobby", 5).await;
    let old = hall.head("lobby").await.lineage.epoch;
    hall.server().restart_empty();
    assert_eq!(hall.head("lobby").await.lineage, Lineage::silent());
    assert_eq!(hall.say("lobby", 6).await.offset, 1);
    let head = hall.head("lobby").await;
    for offset in 0..=6 {
        let position = Position { epoch: old.clone(), offset };
        assert!(!head.lineage.holds(&position, head.offset));
    }
}

#[tokio::test]
async fn a_room_that_lost_its_meta_goes_on_under_an_epoch_without_a_past() {
    let hall = Hall::on(RedisServer::start()).await;
    hall.fill("lobby", 5).await;
    let old = hall.head("lobby").await.lineage.epoch;
    hall.cli(&["DEL", META]);
    // One room is found by a reader, the other one by a writer.
    let head = hall.head("lobby").await;
    assert_ne!(head.lineage.epoch, old);
    assert_eq!((head.offset, head.lineage.forks.len()), (5, 0));
    hall.cli(&["HSET", META, "offset", "3"]);
    let position = hall.say("lobby", 6).await;
    assert_eq!(position.offset, 6);
    assert_ne!(position.epoch, head.lineage.epoch);
    assert_eq!(hall.head("lobby").await.lineage.forks, []);
    hall.cli(&["HSET", META, "offset", "3"]);
    let again = hall.head("lobby").await;
    assert_eq!((again.offset, again.lineage.forks.len()), (6, 0));
    assert_ne!(again.lineage.epoch, position.epoch);
    assert!(hall.cli(&["PTTL", META]).parse::<i64>().unwrap() > 0);
}

#[tokio::test]
async fn what_is_stored_where_the_log_was_ahead_of_meta_is_remembered() {
    let hall = Hall::on(RedisServer::start()).await;
    hall.fill("lobby", 5).await;
    for (burst, last) in [(1, 6), (3, 9)] {
        hall.cli(&["HSET", META, "offset", "3"]);
        let messages: Vec<Publication> = (0..burst).map(|n| message("lobby", n)).collect();
        let publish = || join_all(messages.iter().map(|message| hall.publish(message.clone())));
        let stored = publish().await;
        assert_eq!(stored.last().unwrap().offset, last);
        assert_eq!(publish().await, stored);
        assert_eq!(hall.head("lobby").await.offset, last);
    }
}

/// Who answers for a message by `WAIT` has to have written something.
#[tokio::test]
async fn a_publish_that_stores_nothing_writes_all_the_same() {
    let hall = Hall::on(RedisServer::start()).await;
    let [one, two] = [1, 2].map(|n| message("lobby", n));
    let both = || join_all([&one, &two].map(|message| hall.publish(message.clone())));
    both().await;
    hall.publish(one.clone()).await;
    let writes = || {
        let info = hall.cli(&["INFO", "persistence"]);
        let count = info.lines().find_map(|line| line.strip_prefix("rdb_changes_since_last_save:"));
        count.unwrap().trim().parse::<u64>().unwrap()
    };
    let (log, before) = (hall.whole("lobby").await, writes());
    hall.publish(one.clone()).await;
    let between = writes();
    both().await;
    assert!(before < between && between < writes());
    assert_eq!(hall.whole("lobby").await, log);
}

#[tokio::test]
async fn a_cut_subscription_says_gapped_and_flows_again() {
    let mut hall = Hall::on(RedisServer::start()).await;
    let rooms: Vec<String> = (0..1200).map(|n| format!("room-{n}")).collect();
    let subscriptions = rooms.iter().map(|name| hall.broker.subscribe(&room(name)));
    assert!(join_all(subscriptions).await.iter().all(Result::is_ok));
    hall.say("room-7", 1).await;
    assert_eq!(hall.hear().await.event, event(1));

    assert_eq!(hall.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]), "1");
    hall.wait_for_gap().await;
    for name in &rooms {
        hall.say(name, 2).await;
    }
    let mut heard = HashSet::new();
    while heard.len() < rooms.len() {
        heard.insert(hall.hear().await.room);
    }
    assert_eq!(*hall.broker.status().borrow(), Status::Up);
}

#[tokio::test]
async fn a_subscription_that_hears_nothing_is_found_out_by_its_probe() {
    let server = RedisServer::start();
    let (port, mute) = proxy_of(server.port()).await;
    let (broker, mut feed) = open(&format!("redis://127.0.0.1:{port}")).await;
    broker.subscribe(&room("lobby")).await.unwrap();
    // From now on nothing comes through the node's second connection, which stays open.
    mute.send_replace(2);
    wait_for(&broker, is_away).await;
    mute.send_replace(0);
    wait_for(&broker, is_up).await;
    assert_eq!(within(feed.next()).await, Some(Notice::Gapped));
    broker.publish(message("lobby", 1)).await.unwrap();
    assert_eq!(hear(&mut feed).await.event, event(1));
}

#[tokio::test]
async fn ids_are_remembered_over_one_change_of_generations_and_not_over_two() {
    let hall = Hall::on(RedisServer::start()).await;
    let first = message("lobby", 1);
    assert_eq!(hall.publish(first.clone()).await.offset, 1);
    for n in 2..=3 {
        assert_eq!(hall.publish(first.clone()).await.offset, 1);
        // As if the time that ids are remembered for had passed.
        hall.cli(&["HSET", META, "since", "1"]);
        assert_eq!(hall.say("lobby", n).await.offset, n);
    }
    assert_eq!(hall.publish(first).await.offset, 4);
}

#[tokio::test]
async fn a_room_that_was_to_expire_stays_when_that_is_switched_off() {
    let server = RedisServer::start();
    let (expiring, _) = open(&server.url()).await;
    let forever = HistorySettings { room_ttl: Duration::ZERO, ..settings() };
    let (keeping, _) = open_with(&server.url(), &forever).await.unwrap();
    let expiry = |key| server.cli(&["PTTL", &format!("townhall:{{lobby}}:{key}")]);
    expiring.publish(message("lobby", 1)).await.unwrap();
    for key in ["log", "meta"] {
        let left: u64 = expiry(key).parse().unwrap();
        assert!((3_590_000..=3_600_000 * 17 / 16).contains(&left), "{left}");
    }
    keeping.publish(message("lobby", 2)).await.unwrap();
    assert_eq!((expiry("log").as_str(), expiry("meta").as_str()), ("-1", "-1"));
    expiring.publish(message("lobby", 3)).await.unwrap();
    assert_ne!((expiry("log").as_str(), expiry("meta").as_str()), ("-1", "-1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn order_and_uniqueness_survive_cuts_and_a_lost_library_in_mid_run() {
    let hall = Hall::on(RedisServer::start()).await;
    let mut answers = Vec::new();
    for n in 1..=3000 {
        answers.push(hall.broker.publish(message("lobby", n)));
        match n {
            500 | 1500 => drop(hall.cli(&["FUNCTION", "FLUSH", "SYNC"])),
            1000 | 2000 => drop(hall.cli(&["CLIENT", "KILL", "TYPE", "normal"])),
            _ => {}
        }
        if n % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    let offsets: Vec<Offset> = join_all(answers).await.into_iter().map(|position| position.unwrap().offset).collect();
    assert_eq!(offsets, (1..=3000).collect::<Vec<_>>());
    let log = hall.whole("lobby").await;
    assert_eq!(texts(&log.entries), (1..=3000).collect::<Vec<_>>());
}

/// So many messages that a round is made ready behind the one that fails.
#[tokio::test]
async fn what_was_made_ready_ahead_keeps_its_place_when_the_round_before_it_fails() {
    let hall = Hall::on(RedisServer::start()).await;
    hall.say("lobby", 1).await;
    hall.cli(&["FUNCTION", "FLUSH", "SYNC"]);
    let answers = join_all((2..=1000).map(|n| hall.publish(message("lobby", n)))).await;
    let offsets: Vec<Offset> = answers.into_iter().map(|position| position.offset).collect();
    assert_eq!(offsets, (2..=1000).collect::<Vec<_>>());
    assert_eq!(texts(&hall.whole("lobby").await.entries), (1..=1000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_reader_brings_a_lost_library_back() {
    let hall = Hall::on(RedisServer::start()).await;
    hall.say("lobby", 1).await;
    hall.cli(&["FUNCTION", "FLUSH", "SYNC"]);
    assert_eq!(hall.head("lobby").await.offset, 1);
    hall.cli(&["FUNCTION", "FLUSH", "SYNC"]);
    assert_eq!(hall.whole("lobby").await.entries.len(), 1);
}

#[tokio::test]
async fn while_redis_hangs_everything_fails_within_the_deadline_and_a_retry_is_stored_once() {
    let mut hall = Hall::on(RedisServer::start()).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    hall.say("lobby", 1).await;
    let second = message("lobby", 2);

    hall.server().pause();
    let start = Instant::now();
    let (stored, read, heads, subscribed) = tokio::join!(
        hall.broker.publish(second.clone()),
        hall.broker.history(&room("lobby"), ALL),
        hall.broker.heads(vec![room("lobby")]),
        hall.broker.subscribe(&room("kitchen")),
    );
    let took = start.elapsed();
    assert!(matches!(stored, Err(BrokerError::Unavailable(_))), "{stored:?}");
    assert!(matches!(read, Err(BrokerError::Unavailable(_))), "{read:?}");
    assert!(matches!(heads, Err(BrokerError::Unavailable(_))), "{heads:?}");
    assert!(matches!(subscribed, Err(BrokerError::Unavailable(_))), "{subscribed:?}");
    assert!(took < DEADLINE + Duration::from_millis(500), "{took:?}");
    hall.wait_for(is_away).await;
    hall.server().resume();

    hall.wait_for(is_up).await;
    let mut position = hall.broker.publish(second.clone()).await;
    while position.is_err() {
        position = hall.broker.publish(second.clone()).await;
    }
    assert_eq!(position.unwrap().offset, 2);
    assert_eq!(texts(&hall.whole("lobby").await.entries), [1, 2]);
    // The room is still subscribed; the one that was refused is not.
    hall.say("kitchen", 1).await;
    hall.say("lobby", 3).await;
    while hall.hear_in("lobby").await.event != event(3) {}
}

#[tokio::test]
async fn what_waits_for_redis_is_bounded_and_refused_at_once_beyond() {
    let mut hall = Hall::on(RedisServer::start()).await;
    hall.server().pause();
    let start = Instant::now();
    let answers: Vec<_> = (1..=20_000).map(|n| hall.broker.publish(message("lobby", n))).collect();
    let refused =
        answers.into_iter().rev().take(100).map(|answer| tokio::time::timeout(Duration::from_millis(1), answer));
    for answer in join_all(refused).await {
        let answer = answer.expect("refused at once");
        assert!(matches!(answer, Err(BrokerError::Unavailable(_))));
    }
    assert!(start.elapsed() < DEADLINE);
    hall.server().resume();
    eventually("there is room again", async || hall.broker.publish(message("lobby", 1)).await.is_ok()).await;
}

#[tokio::test]
async fn redis_may_come_after_the_node() {
    let mut server = RedisServer::start();
    server.kill();
    let (broker, mut feed) = open(&server.url()).await;
    assert!(matches!(&*broker.status().borrow(), Status::Never(_)));
    let early = broker.publish(message("lobby", 1)).await;
    assert!(matches!(early, Err(BrokerError::Unavailable(_))));
    server.restart();
    wait_for(&broker, is_up).await;
    broker.subscribe(&room("lobby")).await.unwrap();
    broker.publish(message("lobby", 2)).await.unwrap();
    assert_eq!(hear(&mut feed).await.event, event(2));
}

#[tokio::test]
async fn two_databases_of_one_redis_never_hear_each_other() {
    let server = RedisServer::start();
    let (one, mut hears_one) = open(&server.url_of_db(0)).await;
    let (two, mut hears_two) = open(&server.url_of_db(7)).await;
    for node in [&one, &two] {
        node.subscribe(&room("lobby")).await.unwrap();
    }
    for n in 1..=10 {
        one.publish(message("lobby", n)).await.unwrap();
        two.publish(message("lobby", 100 + n)).await.unwrap();
    }
    for n in 1..=10 {
        assert_eq!(hear(&mut hears_one).await.event, event(n));
        assert_eq!(hear(&mut hears_two).await.event, event(100 + n));
    }
}

// --- Redis: who is here, and what of it may be lost

#[tokio::test]
async fn a_node_says_again_who_is_there_after_a_restart_and_nobody_is_missing_meanwhile() {
    let mut hall = Hall::on(RedisServer::start_with(&AOF)).await;
    let (mut one, mut other) = (Speaker::new("lobby"), Speaker::new("lobby"));
    hall.members(one.says(&["+ada"])).await;
    hall.members(other.says(&["+ben"])).await;
    hall.server().restart();
    for speaker in [&mut one, &mut other] {
        let answer = hall.members(speaker.says(&[])).await;
        assert_eq!((answer.registration, answer.count), (Registration::Lost, 2));
        let again = MembersCall { base: None, ..speaker.says(&[]) };
        assert_eq!(hall.members(again).await.registration, Registration::Kept);
        let answer = hall.members(speaker.says(&[])).await;
        assert_eq!((answer.registration, answer.count), (Registration::Kept, 2));
    }
}

#[tokio::test]
async fn after_a_restart_with_nothing_all_nodes_say_again_who_is_there() {
    let mut hall = Hall::on(RedisServer::start()).await;
    let (mut one, mut other) = (Speaker::new("lobby"), Speaker::new("lobby"));
    hall.members(one.says(&["+ada"])).await;
    hall.members(other.says(&["+ben"])).await;
    hall.server().restart_empty();
    assert_eq!(hall.members(one.says(&[])).await.registration, Registration::Lost);
    assert_eq!(hall.members(MembersCall { base: None, ..one.says(&["+ada"]) }).await.listed(), ["ada"]);
    assert_eq!(hall.members(other.says(&[])).await.registration, Registration::Lost);
    assert_eq!(hall.members(MembersCall { base: None, ..other.says(&["+ben"]) }).await.listed(), ["ada", "ben"]);
}

#[tokio::test]
async fn a_key_that_is_lost_alone_is_found_out_and_all_is_said_again() {
    let hall = Hall::on(RedisServer::start()).await;
    let (mut one, mut other) = (Speaker::new("lobby"), Speaker::new("lobby"));
    let keys = [MEMBERS.to_owned(), format!("{MEMBERS}:nodes"), format!("{MEMBERS}:{}", one.node)];
    for key in &keys {
        for (speaker, name) in [(&mut one, "+ada"), (&mut other, "+ben")] {
            hall.members(MembersCall { base: None, ..speaker.says(&[name]) }).await;
        }
        assert_eq!(hall.cli(&["DEL", key]), "1");
        for (speaker, name) in [(&mut one, "+ada"), (&mut other, "+ben")] {
            assert_eq!(hall.members(speaker.says(&[])).await.registration, Registration::Lost, "{key}");
            hall.members(MembersCall { base: None, ..speaker.says(&[name]) }).await;
        }
        let whole = hall.members(MembersCall { list: true, ..one.says(&[]) }).await;
        assert_eq!((whole.count, whole.listed()), (2, vec!["ada".to_owned(), "ben".to_owned()]), "{key}");
        assert_eq!(hall.members(other.says(&["-ben"])).await.listed(), ["ada"], "{key}");
    }
    // Of a node that has died: what it left is not known any more, and goes with everything.
    let mut dead = Speaker { lease: Duration::from_millis(1), ..Speaker::new("lobby") };
    one.lease = Duration::from_millis(500);
    hall.members(dead.says(&["+eve"])).await;
    hall.cli(&["DEL", &format!("{MEMBERS}:{}", dead.node)]);
    eventually("it is found out", async || {
        let answer = hall.members(one.says(&["+ada"])).await;
        answer.registration == Registration::Lost
    })
    .await;
    assert_eq!(hall.members(MembersCall { base: None, ..one.says(&["+ada"]) }).await.listed(), ["ada"]);
}

#[tokio::test]
async fn who_is_here_is_forgotten_by_itself_when_nobody_says_so_any_more() {
    let hall = Hall::on(RedisServer::start()).await;
    let mut one = Speaker::new("lobby");
    hall.members(one.says(&["+ada"])).await;
    for key in [MEMBERS.to_owned(), format!("{MEMBERS}:nodes"), format!("{MEMBERS}:{}", one.node)] {
        let left: u64 = hall.cli(&["PTTL", &key]).parse().expect("it expires");
        assert!((3_600_000..=3_680_000).contains(&left), "{key} expires in {left} ms");
    }
    assert_eq!(hall.cli(&["DBSIZE"]), "3");
}

#[tokio::test]
async fn members_keys_that_are_something_else_refuse_their_room_and_no_other() {
    let hall = Hall::on(RedisServer::start()).await;
    hall.cli(&["SET", MEMBERS, "x"]);
    let calls = ["lobby", "kitchen"].map(|room| Speaker::new(room).says(&["+ada"]));
    let answers = hall.broker.members(calls.to_vec()).await.unwrap();
    assert!(matches!(answers[0], Err(BrokerError::Format(_))), "{answers:?}");
    assert_eq!(answers[1].as_ref().map(|members| members.count), Ok(1));
    hall.cli(&["HSET", "townhall:{kitchen}:members", "eve", "1 a\u{1b}[1m", "x", "garbage"]);
    let mut other = Speaker::new("kitchen");
    assert_eq!(hall.members(other.says(&["+zoe"])).await.listed(), ["ada", "zoe"], "what is no name is left out");
}

// --- Redis: who will not have us

#[tokio::test]
async fn a_wrong_password_is_one_clear_line_that_does_not_show_it() {
    let server = RedisServer::start_with(&["--requirepass", "right"]);
    let port = server.port();
    let right = format!("redis://:right@127.0.0.1:{port}");
    assert_eq!(*open(&right).await.0.status().borrow(), Status::Up);
    for (url, shown, advice) in [
        (
            format!("redis://:wr0ng@127.0.0.1:{port}"),
            format!("redis://:***@127.0.0.1:{port}"),
            "wrong user or password",
        ),
        (format!("redis://127.0.0.1:{port}"), format!("redis://127.0.0.1:{port}"), "Redis wants a password"),
    ] {
        let said = refusal(&url).await;
        assert!(said.contains("--redis") && said.contains(&shown), "{said}");
        assert!(said.contains(advice), "{said}");
        assert!(!said.contains("wr0ng") && !said.contains('\n'), "{said}");
    }
}

#[tokio::test]
async fn a_database_that_is_not_there_is_one_clear_line() {
    let server = RedisServer::start();
    let said = refusal(&server.url_of_db(99)).await;
    assert!(said.contains("DB index is out of range"), "{said}");
}

#[tokio::test]
async fn a_user_who_may_not_use_functions_is_told_what_is_needed() {
    let server = RedisServer::start();
    server.cli(&["ACL", "SETUSER", "weak", "on", ">pw", "~*", "&*", "+@all", "-function"]);
    let url = format!("redis://weak:pw@127.0.0.1:{}", server.port());
    let said = refusal(&url).await;
    assert!(said.contains("may not do what townhall needs"), "{said}");
}

#[tokio::test]
async fn a_server_older_than_seven_is_refused_by_its_version() {
    let info = "redis_version:6.2.14\r\nrole:master\r\n";
    let info = format!("${}\r\n{info}\r\n", info.len());
    let port = impostor(move |command| match command {
        "HELLO" => Some("%1\r\n$6\r\nserver\r\n$5\r\nredis\r\n".to_owned()),
        "CLIENT" => Some("+OK\r\n".to_owned()),
        "INFO" => Some(info.clone()),
        _ => None,
    })
    .await;
    let said = refusal(&format!("redis://127.0.0.1:{port}")).await;
    assert!(said.contains("6.2.14 is too old"), "{said}");
}

#[tokio::test]
async fn something_else_on_the_port_is_refused() {
    let port = impostor(|_| Some("HTTP/1.1 400 Bad Request\r\n\r\n".to_owned())).await;
    let said = refusal(&format!("redis://127.0.0.1:{port}")).await;
    assert!(said.contains("does not speak Redis"), "{said}");
}

// --- Redis: what others write there

#[tokio::test]
async fn a_newer_format_refuses_its_room_and_no_other() {
    let mut hall = Hall::on(RedisServer::start()).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    hall.say("lobby", 1).await;
    assert_eq!(hall.hear().await.event, event(1));
    hall.cli(&["HSET", META, "format", "2"]);
    let lobby = room("lobby");
    let refused = |answer: &BrokerError| matches!(answer, BrokerError::Format(_));
    let published = hall.broker.publish(message("lobby", 2)).await;
    assert!(published.as_ref().is_err_and(refused), "{published:?}");
    let read = hall.broker.history(&lobby, ALL).await;
    assert!(read.as_ref().is_err_and(refused), "{read:?}");
    let heads = hall.broker.heads(vec![lobby, room("kitchen")]).await.unwrap();
    assert!(heads[0].as_ref().is_err_and(refused), "{heads:?}");
    assert!(heads[1].is_ok());

    let line = "2 abc 2 1 {}\n1 abc 3 1 {\"n\":3}";
    hall.cli(&["PUBLISH", "townhall:0:{lobby}", line]);
    assert_eq!(hall.hear().await.position.offset, 3);
    // Another room in the same round is stored all the same.
    let (bad, good) =
        tokio::join!(hall.broker.publish(message("lobby", 4)), hall.broker.publish(message("kitchen", 1)),);
    assert!(bad.as_ref().is_err_and(refused));
    assert_eq!(good.unwrap().offset, 1);
}

#[tokio::test]
async fn entries_that_nobody_of_ours_wrote_are_left_out() {
    let hall = Hall::on(RedisServer::start()).await;
    hall.say("lobby", 1).await;
    for (id, fields) in [
        ("2-0", vec!["at", "1", "e", "not json"]),
        ("3-0", vec!["at", "1", "e", "[1]"]),
        ("4-0", vec!["at", "soon", "e", "{}"]),
        ("5-0", vec!["e", "{}"]),
        ("6-0", vec!["at", "1", "e", "{\n}"]),
        ("8-3", vec!["at", "1", "e", "{}"]),
        ("9-0", vec!["at", "1", "e", "{\"n\":9}"]),
    ] {
        let log = "townhall:{lobby}:log";
        let added = hall.cli(&[&["XADD", log, id][..], &fields].concat());
        assert_eq!(added, id);
        if id == "6-0" {
            // Too long for a command line, and for us.
            let huge = "return redis.call('XADD', KEYS[1], '7-0', 'at', '1', 'e', '{\"n\":\"' .. string.rep('x', ARGV[1]) .. '\"}')";
            let added = hall.cli(&["EVAL", huge, "1", log, &MAX_EVENT_BYTES.to_string()]);
            assert_eq!(added, "7-0");
        }
    }
    assert_eq!(hall.say("lobby", 10).await.offset, 10);
    assert_eq!(texts(&hall.whole("lobby").await.entries), [1, 9, 10]);
}

#[tokio::test]
async fn a_room_whose_keys_are_something_else_is_refused_and_comes_to_no_harm() {
    let hall = Hall::on(RedisServer::start()).await;
    for (name, command) in [
        ("a", vec!["SET", "townhall:{a}:log", "x"]),
        ("b", vec!["SET", "townhall:{b}:meta", "x"]),
        ("c", vec!["XADD", "townhall:{c}:log", "18446744073709551615-1", "a", "b"]),
        ("d", vec!["HSET", "townhall:{d}:meta", "format", "1", "epoch", "e\u{301}", "offset", "0"]),
    ] {
        hall.cli(&command);
        let read = hall.broker.history(&room(name), ALL).await;
        assert!(matches!(read, Err(BrokerError::Format(_))), "{name}: {read:?}");
        let head = &hall.broker.heads(vec![room(name)]).await.unwrap()[0];
        assert!(matches!(head, Err(BrokerError::Format(_))), "{name}: {head:?}");
        let stored = hall.broker.publish(message(name, 1)).await;
        assert!(matches!(stored, Err(BrokerError::Format(_))), "{name}: {stored:?}");
    }
    assert_eq!(hall.say("lobby", 1).await.offset, 1);
}

#[tokio::test]
async fn every_line_that_is_published_is_a_message_and_no_publish_grows_long() {
    let mut hall = Hall::on(RedisServer::start()).await;
    let client = ::redis::Client::open(hall.server().url()).unwrap();
    let mut subscription = client.get_async_pubsub().await.unwrap();
    subscription.subscribe("townhall:0:{lobby}").await.unwrap();
    let text = "x".repeat(200);
    let event = |n| Bytes::from(format!("{{\"n\":{n},\"text\":\"{text}\"}}"));
    join_all((1..=100).map(|n| hall.publish(Publication { event: event(n), ..message("lobby", 0) }))).await;
    let mut published = subscription.into_on_message();
    let mut offset = 0;
    while offset < 100 {
        let payload: String = within(published.next()).await.unwrap().get_payload().unwrap();
        assert!(payload.len() <= 8192, "{} bytes", payload.len());
        for line in payload.split('\n') {
            offset += 1;
            let [format, _epoch, position, _at, event] = line.splitn(5, ' ').collect::<Vec<_>>()[..] else {
                panic!("{line:?} is no line of ours");
            };
            assert_eq!((format, position.parse()), ("1", Ok(offset)));
            assert!(event.starts_with(&format!("{{\"n\":{offset},")), "{event}");
        }
    }
}

#[tokio::test]
async fn lines_that_nobody_of_ours_published_are_dropped() {
    let mut hall = Hall::on(RedisServer::start()).await;
    hall.broker.subscribe(&room("lobby")).await.unwrap();
    for line in ["", "hello", "1 a b c d", "1 abc 1 1 {]", "\n\n", "1 abc 1 1 {}\r"] {
        assert_eq!(hall.cli(&["PUBLISH", "townhall:0:{lobby}", line]), "1");
    }
    hall.say("lobby", 1).await;
    let heard = hall.hear().await;
    assert_eq!((heard.position.offset, heard.event), (1, event(1)));
}

// --- what the sentences are made of

#[derive(Clone, Copy)]
enum Kind {
    Memory,
    Redis,
    Sentinel,
    Cluster,
}

/// What is behind the broker.
enum Redis {
    One(RedisServer),
    Sentinel(Arc<Sentinel>),
    Cluster(Arc<Cluster>),
}

impl Redis {
    fn url(&self) -> String {
        match self {
            Redis::One(server) => server.url(),
            Redis::Sentinel(sentinel) => sentinel.url(),
            Redis::Cluster(cluster) => cluster.url(),
        }
    }

    /// What `redis-cli` prints for a command, wherever its key is.
    fn cli(&self, arguments: &[&str]) -> String {
        match self {
            Redis::One(server) => server.cli(arguments),
            Redis::Sentinel(sentinel) => sentinel.cli(arguments),
            Redis::Cluster(cluster) => cluster.cli(arguments),
        }
    }

    /// All keys that begin so, wherever they are, a line each.
    fn keys(&self, prefix: &str) -> String {
        let keys = ["KEYS", &format!("{prefix}:*")];
        match self {
            Redis::Cluster(cluster) => {
                let found = cluster.servers().iter().map(|server| server.cli(&keys));
                found.filter(|keys| !keys.is_empty()).collect::<Vec<_>>().join("\n")
            }
            _ => self.cli(&keys),
        }
    }
}

static SENTINEL: Mutex<Weak<Sentinel>> = Mutex::new(Weak::new());
static CLUSTER: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());

/// The one that other tests use at this moment, or a new one: they take a second to start, and tests have their own prefixes.
fn shared<T>(slot: &Mutex<Weak<T>>, start: impl FnOnce() -> T) -> Arc<T> {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    slot.upgrade().unwrap_or_else(|| {
        let new = Arc::new(start());
        *slot = Arc::downgrade(&new);
        new
    })
}

const PREFIX: &str = "townhall";
const META: &str = "townhall:{lobby}:meta";
const MEMBERS: &str = "townhall:{lobby}:members";
const AOF: [&str; 4] = ["--appendonly", "yes", "--appendfsync", "always"];
const ALL: Range = Range::From { first: 1, limit: 100_000 };

/// A broker with the ears of its node.
struct Hall {
    broker: Box<dyn Broker>,
    feed: FeedReceiver,
    redis: Option<Redis>,
    prefix: String,
}

impl Hall {
    async fn open(kind: Kind) -> Self {
        Self::open_with(kind, settings()).await
    }

    async fn open_with(kind: Kind, settings: HistorySettings) -> Self {
        let redis = match kind {
            Kind::Memory => {
                let (sender, feed) = feed();
                let broker = Box::new(MemoryBroker::new(&settings, sender));
                return Hall { broker, feed, redis: None, prefix: PREFIX.to_owned() };
            }
            Kind::Redis => Redis::One(RedisServer::start()),
            Kind::Sentinel => Redis::Sentinel(shared(&SENTINEL, || Sentinel::start(1))),
            Kind::Cluster => Redis::Cluster(shared(&CLUSTER, || Cluster::start(3, 0))),
        };
        let prefix = format!("test-{}", Uuid::new_v4());
        let (broker, feed) = open_as(&redis.url(), &prefix, &settings).await.unwrap();
        Hall { broker: Box::new(broker), feed, redis: Some(redis), prefix }
    }

    async fn on(server: RedisServer) -> Self {
        let (broker, feed) = open(&server.url()).await;
        Hall { broker: Box::new(broker), feed, redis: Some(Redis::One(server)), prefix: PREFIX.to_owned() }
    }

    fn server(&mut self) -> &mut RedisServer {
        match &mut self.redis {
            Some(Redis::One(server)) => server,
            _ => panic!("no Redis of its own"),
        }
    }

    fn cli(&self, arguments: &[&str]) -> String {
        self.redis.as_ref().expect("a Redis").cli(arguments)
    }

    /// One of the lobby's keys.
    fn key(&self, name: &str) -> String {
        format!("{}:{{lobby}}:{name}", self.prefix)
    }

    fn publish(&self, publication: Publication) -> impl Future<Output = Position> + use<> {
        let stored = self.broker.publish(publication);
        async { stored.await.expect("stored") }
    }

    async fn say(&self, room: &str, n: u64) -> Position {
        self.publish(message(room, n)).await
    }

    async fn fill(&self, room: &str, count: u64) {
        let calls = (1..=count).map(|n| self.publish(message(room, n)));
        join_all(calls).await;
    }

    async fn history(&self, name: &str, range: Range) -> History {
        self.broker.history(&room(name), range).await.expect("read")
    }

    async fn whole(&self, name: &str) -> History {
        self.history(name, ALL).await
    }

    async fn head(&self, name: &str) -> Head {
        let heads = self.broker.heads(vec![room(name)]).await;
        heads.expect("heads").remove(0).expect("a head")
    }

    async fn hear(&mut self) -> Delivery {
        hear(&mut self.feed).await
    }

    /// The next delivery, which must be of that room.
    async fn hear_in(&mut self, name: &str) -> Delivery {
        let heard = self.hear().await;
        assert_eq!(heard.room, room(name));
        heard
    }

    /// The next thing heard that is not stored.
    async fn whisper(&mut self) -> Whisper {
        loop {
            if let Some(Notice::Whisper(whisper)) = within(self.feed.next()).await {
                return whisper;
            }
        }
    }

    /// One call, however long Redis takes to be back.
    async fn members(&self, call: MembersCall) -> Members {
        let answered = async {
            loop {
                match self.broker.members(vec![call.clone()]).await {
                    Ok(mut answers) => return answers.remove(0).expect("an answer"),
                    Err(error) => assert!(matches!(error, BrokerError::Unavailable(_)), "{error}"),
                }
            }
        };
        within(answered).await
    }

    async fn wait_for_gap(&mut self) {
        while within(self.feed.next()).await != Some(Notice::Gapped) {}
    }

    async fn wait_for(&self, wanted: fn(&Status) -> bool) {
        wait_for(&*self.broker, wanted).await;
    }
}

/// What a node says about who is there.
#[derive(Clone)]
struct Speaker {
    room: RoomName,
    node: NodeId,
    lease: Duration,
    step: Step,
    /// The last step, whose answer it got.
    said: Option<Step>,
}

impl Speaker {
    fn new(name: &str) -> Self {
        let lease = Duration::from_secs(60);
        Speaker { room: room(name), node: NodeId::random(), lease, step: 10, said: None }
    }

    /// The next call: `+NAME` is there, `-NAME` is not.
    fn says(&mut self, changes: &[&str]) -> MembersCall {
        self.step += 1;
        let changes = changes.iter().map(|change| {
            let name = &change[1..];
            let is_there = change.starts_with('+');
            (UserId::new(format!("id-{name}")), is_there.then(|| DisplayName::parse(name).expect("a name")))
        });
        MembersCall {
            room: self.room.clone(),
            node: self.node,
            lease: self.lease,
            base: self.said.replace(self.step),
            step: self.step,
            purge: None,
            changes: changes.collect(),
            seen: RollVersion::default(),
            list: false,
        }
    }
}

/// The names in an answer, in their order.
trait Listed {
    fn listed(self) -> Vec<String>;
}

impl Listed for Members {
    fn listed(self) -> Vec<String> {
        let list = self.list.expect("a list");
        let mut names: Vec<String> = list.into_iter().map(|member| member.name.as_str().to_owned()).collect();
        names.sort();
        names
    }
}

fn settings() -> HistorySettings {
    HistorySettings {
        messages: 10_000,
        room_ttl: Duration::from_secs(3600),
        dedupe: Duration::from_secs(600),
        budget: 0,
    }
}

async fn open(url: &str) -> (RedisBroker, FeedReceiver) {
    open_with(url, &settings()).await.expect("a broker")
}

async fn open_with(url: &str, settings: &HistorySettings) -> Result<(RedisBroker, FeedReceiver), String> {
    open_as(url, PREFIX, settings).await
}

async fn open_as(url: &str, prefix: &str, settings: &HistorySettings) -> Result<(RedisBroker, FeedReceiver), String> {
    let (sender, mut feed) = feed();
    let redis = RedisSettings { prefix: prefix.to_owned(), ..RedisSettings::new(url.parse().expect("a URL")) };
    let broker = RedisBroker::open(&redis, settings, sender).await;
    let broker = broker.map_err(|error| error.to_string())?;
    if *broker.status().borrow() == Status::Up {
        assert_eq!(within(feed.next()).await, Some(Notice::Gapped));
    }
    Ok((broker, feed))
}

async fn refusal(url: &str) -> String {
    match open_with(url, &settings()).await {
        Ok(_) => panic!("{url} was taken"),
        Err(said) => said,
    }
}

/// Answers commands as told, by their first word; hangs where told nothing.
async fn impostor(answer: impl Fn(&str) -> Option<String> + Send + 'static) -> u16 {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let mut socket = BufReader::new(socket);
            let mut line = String::new();
            let mut words_to_come = 0;
            let mut first = true;
            while let Ok(1..) = socket.read_line(&mut line).await {
                let word = line.trim().to_owned();
                line.clear();
                if let Some(count) = word.strip_prefix('*') {
                    words_to_come = count.parse().unwrap_or(0);
                    first = true;
                } else if !word.starts_with('$') && words_to_come > 0 {
                    words_to_come -= 1;
                    if std::mem::take(&mut first)
                        && let Some(reply) = answer(&word)
                    {
                        let _ = socket.get_mut().write_all(reply.as_bytes()).await;
                    }
                }
            }
        }
    });
    port
}

/// A way to a port that, while told so, brings nothing back over one of its connections, counted from 1.
async fn proxy_of(server: u16) -> (u16, tokio::sync::watch::Sender<usize>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (mute, muted) = tokio::sync::watch::channel(0);
    tokio::spawn(async move {
        let mut count = 0;
        while let Ok((client, _)) = listener.accept().await {
            count += 1;
            let (number, muted) = (count, muted.clone());
            let server = tokio::net::TcpStream::connect(("127.0.0.1", server)).await;
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.unwrap().into_split();
            tokio::spawn(async move {
                let _ = tokio::io::copy(&mut from_client, &mut to_server).await;
            });
            tokio::spawn(async move {
                let mut buffer = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
                    if *muted.borrow() != number && to_client.write_all(&buffer[..length]).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (port, mute)
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).expect("a room")
}

fn message(name: &str, n: u64) -> Publication {
    Publication { room: room(name), user: UserId::new("guest-1".into()), id: Uuid::new_v4(), event: event(n) }
}

fn event(n: u64) -> Bytes {
    Bytes::from(format!("{{\"n\":{n}}}"))
}

/// The numbers that [`event`] put in.
fn texts(entries: &[Entry]) -> Vec<u64> {
    let number = |entry: &Entry| {
        let event: serde_json::Value = serde_json::from_slice(&entry.event).expect("JSON");
        event["n"].as_u64().expect("a number")
    };
    entries.iter().map(number).collect()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    let answer = tokio::time::timeout(PATIENCE, future).await;
    answer.expect("in time")
}

/// The next delivery, whatever else is heard.
async fn hear(feed: &mut FeedReceiver) -> Delivery {
    loop {
        match within(feed.next()).await.expect("the broker is there") {
            Notice::Delivery(delivery) => return delivery,
            Notice::Gapped | Notice::Whisper(_) => {}
        }
    }
}

fn is_up(status: &Status) -> bool {
    *status == Status::Up
}

fn is_away(status: &Status) -> bool {
    matches!(status, Status::Away(_))
}

async fn wait_for(broker: &dyn Broker, wanted: fn(&Status) -> bool) {
    let mut statuses = broker.status();
    let _ = within(statuses.wait_for(wanted)).await;
}

async fn eventually(what: &str, mut check: impl AsyncFnMut() -> bool) {
    let give_up = Instant::now() + PATIENCE;
    while !check().await {
        assert!(Instant::now() < give_up, "never: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
