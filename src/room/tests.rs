//! What a room makes of deliveries and answers, in whatever order they come.

use std::iter;

use bytes::Bytes;

use super::*;

const WINDOW: Window = Window { bytes: 1 << 20, records: 100 };

fn lineage(epoch: &str, forks: &[(&str, Offset)]) -> Lineage {
    let fork = |&(epoch, until): &(&str, Offset)| Fork { epoch: epoch.into(), until };
    Lineage { epoch: epoch.into(), forks: forks.iter().map(fork).collect() }
}

fn event(offset: Offset) -> Bytes {
    format!(r#"{{"type":"message","from":{{"name":"zoe"}},"text":"{offset}"}}"#).into()
}

fn delivery(epoch: &str, offset: Offset) -> Delivery {
    let position = Position { epoch: epoch.into(), offset };
    Delivery { room: RoomName::lobby(), position, at_ms: offset, event: event(offset) }
}

fn history(lineage: Lineage, oldest: Offset, offset: Offset, stored: impl Iterator<Item = Offset>) -> History {
    let entries = stored.map(|offset| Entry { offset, at_ms: offset, event: event(offset) }).collect();
    History { head: Head { lineage, offset, oldest }, entries }
}

/// A room that is open at offset `head` of epoch `a`.
fn open(head: Offset) -> Arc<Room> {
    let room = Arc::new(Room::new(RoomName::lobby(), WINDOW, Arc::new(Budget::new(usize::MAX)), &[]));
    let limit = room.first_read().unwrap();
    let progress = room.begin(&history(lineage("a", &[("", 0)]), 1, head, 1..=head), limit, Encoding::Json);
    assert_eq!((progress, room.head()), (Progress::Done, head));
    room
}

/// Everything in the window, as offsets and gaps.
fn contents(room: &Room) -> String {
    let bytes = room.with_log(|log| {
        let seq = log.place(log.covered_from(Encoding::Json), Encoding::Json).unwrap();
        log.since(seq, Encoding::Json).unwrap().slices(Encoding::Json, seq).concat()
    });
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let mut found = Vec::new();
    for part in text.split("{\"").skip(1) {
        let number = |key: &str| {
            let rest = &part[part.find(key)? + key.len()..];
            rest[..rest.find(|c: char| !c.is_ascii_digit())?].parse::<u64>().ok()
        };
        match (number("\"from\":"), number("\"to\":"), number("\"offset\":")) {
            (Some(from), Some(to), _) => found.push(format!("gap {from}-{to}")),
            (_, _, Some(offset)) => found.push(offset.to_string()),
            _ => {}
        }
    }
    found.join(" ")
}

fn resume(room: &Room, epoch: &str, offset: Offset, asked: bool) -> Option<(Option<bool>, Offset, Offset)> {
    let after = Some(Position { epoch: epoch.into(), offset });
    let place = room.place(&Entrance { encoding: Encoding::Json, after, last: 2 }, asked)?;
    Some((place.joined.recovered, place.joined.from(), place.joined.offset))
}

#[test]
fn what_is_too_much_to_be_held_is_fetched() {
    let room = open(2);
    let large = |offset| {
        let text = "x".repeat(held::MOST_BYTES / 2 - 100);
        let event = format!(r#"{{"type":"message","from":{{"name":"zoe"}},"text":"{text}"}}"#);
        Delivery { event: event.into(), ..delivery("a", offset) }
    };
    let read = room.next_read();
    assert_eq!(room.deliver(vec![large(5), large(6), large(7)]), Wants::Repair);
    let answer = history(lineage("a", &[("", 0)]), 1, 4, 3..=4);
    assert_eq!(room.repair(&read, &answer), Progress::More);
    assert_eq!(room.head(), 6);
    let read = room.next_read();
    let answer = history(lineage("a", &[("", 0)]), 1, 7, 7..=7);
    assert_eq!(room.repair(&read, &answer), Progress::Done);
    assert_eq!(room.head(), 7);
    assert!(!room.is_behind());
}

#[test]
fn an_answer_from_before_the_first_word_takes_no_word_away() {
    let room = Arc::new(Room::new(RoomName::lobby(), WINDOW, Arc::new(Budget::new(usize::MAX)), &[]));
    let silent = || history(Lineage::silent(), 1, 0, iter::empty());
    let limit = room.first_read().unwrap();
    assert_eq!(room.begin(&silent(), limit, Encoding::Json), Progress::Done);
    // Somebody asks, the first message is heard, and only then the answer comes.
    let read = room.next_read();
    assert_eq!(room.deliver(vec![delivery("a", 1), delivery("a", 2)]), Wants::Nothing);
    assert_eq!(room.repair(&read, &silent()), Progress::Done);
    assert_eq!(contents(&room), "1 2");
    assert_eq!(resume(&room, "a", 2, false), Some((Some(true), 2, 2)));
    // One that was asked for afterwards is the truth, even so.
    let read = room.next_read();
    assert_eq!(room.repair(&read, &silent()), Progress::Done);
    assert_eq!((contents(&room), room.lineage()), (String::new(), Lineage::silent()));
}

#[test]
fn deliveries_are_put_in_order_and_duplicates_dropped() {
    let room = open(2);
    assert_eq!(room.deliver(vec![delivery("a", 3), delivery("a", 2), delivery("a", 3)]), Wants::Nothing);
    assert_eq!(room.deliver(vec![delivery("a", 6), delivery("a", 5)]), Wants::Repair);
    assert_eq!(contents(&room), "1 2 3");
    assert!(room.is_behind());
    let read = room.next_read();
    assert_eq!(read.first, 4);
    let answer = history(lineage("a", &[("", 0)]), 1, 5, 4..=5);
    assert_eq!(room.repair(&read, &answer), Progress::Done);
    assert_eq!(contents(&room), "1 2 3 4 5 6");
    assert!(!room.is_behind());
}

#[test]
fn what_is_missing_in_history_is_a_gap() {
    let room = open(2);
    assert_eq!(room.deliver(vec![delivery("a", 9)]), Wants::Repair);
    let read = room.next_read();
    let stored = [5, 7, 8, 9].into_iter();
    assert_eq!(room.repair(&read, &history(lineage("a", &[]), 5, 9, stored)), Progress::Done);
    assert_eq!(contents(&room), "1 2 gap 3-4 5 gap 6-6 7 8 9");
}

#[test]
fn the_first_message_of_a_silent_room_needs_no_question() {
    let room = Arc::new(Room::new(RoomName::lobby(), WINDOW, Arc::new(Budget::new(usize::MAX)), &[]));
    let limit = room.first_read().unwrap();
    room.begin(&history(Lineage::silent(), 1, 0, 0..0), limit, Encoding::Json);
    assert_eq!(resume(&room, "", 0, false), Some((Some(true), 0, 0)));
    let generation = room.with_log(|log| log.generation());
    assert_eq!(room.deliver(vec![delivery("a", 1), delivery("a", 2)]), Wants::Nothing);
    assert_ne!(room.with_log(|log| log.generation()), generation);
    assert_eq!(contents(&room), "1 2");
    assert_eq!(resume(&room, "", 0, false), Some((Some(true), 0, 2)));
}

#[test]
fn an_unknown_epoch_is_not_believed_until_the_broker_was_asked() {
    let room = open(3);
    assert_eq!(room.deliver(vec![delivery("b", 4)]), Wants::Repair);
    assert_eq!(room.head(), 3);
    let read = room.next_read();
    let answer = history(lineage("b", &[("", 0), ("a", 3)]), 1, 4, 4..=4);
    assert_eq!(room.repair(&read, &answer), Progress::Done);
    assert_eq!(contents(&room), "1 2 3 4");
    assert_eq!(resume(&room, "a", 3, false), Some((Some(true), 3, 4)));
}

#[test]
fn phantoms_are_dropped_and_whoever_has_them_is_told() {
    let room = open(5);
    let read = room.next_read();
    let answer = history(lineage("b", &[("", 0), ("a", 3)]), 1, 4, 4..=4);
    assert_eq!(room.repair(&read, &answer), Progress::More);
    let read = room.next_read();
    assert_eq!(read.first, 4);
    assert_eq!(room.repair(&read, &answer), Progress::Done);
    assert_eq!(contents(&room), "1 2 3 4");
    assert_eq!(resume(&room, "a", 3, true), Some((Some(true), 3, 4)));
    assert_eq!(resume(&room, "a", 5, true), Some((Some(false), 2, 4)));
}

#[test]
fn an_answer_that_is_older_than_what_is_here_judges_nothing() {
    let room = open(3);
    let read = room.next_read();
    assert_eq!(room.deliver(vec![delivery("a", 4)]), Wants::Nothing);
    let generation = room.with_log(|log| log.generation());
    room.repair(&read, &history(lineage("a", &[("", 0)]), 1, 3, 0..0));
    assert_eq!(contents(&room), "1 2 3 4");
    assert_eq!(room.with_log(|log| log.generation()), generation);
}

#[test]
fn a_broker_that_begins_anew_is_followed() {
    let room = open(5);
    let read = room.next_read();
    assert_eq!(room.repair(&read, &history(Lineage::silent(), 1, 0, 0..0)), Progress::Done);
    assert_eq!(room.head(), 0);
    assert_eq!(resume(&room, "a", 5, true), Some((Some(false), 0, 0)));
    assert_eq!(room.deliver(vec![delivery("b", 1)]), Wants::Nothing);
    assert_eq!(contents(&room), "1");
}

#[test]
fn what_comes_while_the_room_is_opened_is_read_again() {
    let room = Arc::new(Room::new(RoomName::lobby(), WINDOW, Arc::new(Budget::new(usize::MAX)), &[]));
    let limit = room.first_read().unwrap();
    assert_eq!(room.deliver(vec![delivery("a", 3)]), Wants::Nothing);
    let answer = history(lineage("a", &[]), 1, 2, 1..=2);
    assert_eq!(room.begin(&answer, limit, Encoding::Json), Progress::More);
    let read = room.next_read();
    assert_eq!(room.repair(&read, &history(lineage("a", &[]), 1, 3, 3..=3)), Progress::Done);
    assert_eq!(contents(&room), "1 2 3");
}

#[test]
fn a_position_that_only_the_broker_can_judge_is_not_guessed() {
    let room = open(5);
    assert_eq!(resume(&room, "a", 6, false), None);
    assert_eq!(resume(&room, "x", 1, false), None);
    assert_eq!(resume(&room, "a", 6, true), Some((Some(false), 3, 5)));
    assert_eq!(resume(&room, "", 0, false), Some((Some(true), 0, 5)));
    assert_eq!(resume(&room, "", 1, true), Some((Some(false), 3, 5)));
}

#[test]
fn a_delivery_that_leads_nowhere_is_not_asked_for_for_ever() {
    let room = open(2);
    assert_eq!(room.deliver(vec![delivery("a", 1000)]), Wants::Repair);
    let read = room.next_read();
    let answer = history(lineage("a", &[("", 0)]), 1, 2, 0..0);
    assert_eq!(room.repair(&read, &answer), Progress::Done);
    assert!(!room.is_behind());
}

#[test]
fn an_event_that_nobody_can_read_is_lost_in_its_place() {
    let room = open(1);
    let broken = Delivery { event: Bytes::from_static(b"[]"), ..delivery("a", 2) };
    assert_eq!(room.deliver(vec![broken, delivery("a", 3)]), Wants::Nothing);
    assert_eq!(contents(&room), "1 gap 2-2 3");
}

#[test]
fn the_budget_knows_what_rooms_hold_and_forgets_those_that_are_gone() {
    let budget = Arc::new(Budget::new(1));
    let room = Arc::new(Room::new(RoomName::lobby(), WINDOW, budget.clone(), &[]));
    let _ = room.begin(&history(lineage("a", &[("", 0)]), 1, 9, 1..=9), 9, Encoding::Json);
    assert_eq!(budget.used(), room.bytes());
    assert!(budget.excess() > 0);
    let _ = room.deliver((10..=40).map(|offset| delivery("a", offset)).collect());
    assert_eq!(budget.used(), room.bytes());
    let before = budget.used();
    room.shrink();
    assert!(budget.used() < before);
    assert_eq!(budget.used(), room.bytes());
    drop(room);
    assert_eq!((budget.used(), budget.excess()), (0, 0));
}

#[test]
fn a_room_without_members_is_empty_however_much_is_said_in_it() {
    let room = open(2);
    let later = Instant::now() + Duration::from_secs(60);
    let member = room.enter();
    assert_eq!(room.empty_for(later), None);
    drop(member);
    assert!(room.empty_for(later) >= Some(Duration::from_secs(59)));
    let _ = room.deliver(vec![delivery("a", 3)]);
    assert!(room.empty_for(later) >= Some(Duration::from_secs(59)));
}

#[test]
fn who_has_a_part_of_a_gap_is_told_only_of_the_rest() {
    let room = open(2);
    assert_eq!(room.deliver(vec![delivery("a", 9)]), Wants::Repair);
    let answer = history(lineage("a", &[("", 0)]), 1, 9, [6, 7, 8, 9].into_iter());
    assert_eq!(room.repair(&room.next_read(), &answer), Progress::Done);
    assert_eq!(contents(&room), "1 2 gap 3-5 6 7 8 9");
    let seq = |offset| {
        let after = Some(Position { epoch: "a".into(), offset });
        room.place(&Entrance { encoding: Encoding::Json, after, last: 0 }, true).unwrap().seq
    };
    // The window has the gap as a whole; a page of history cuts it for whoever is in the middle.
    assert_eq!([2, 3, 4, 5].map(|offset| seq(offset).is_some()), [true, false, false, true]);
}

#[test]
fn no_gap_is_told_under_an_epoch_that_has_ended() {
    let room = open(2);
    assert_eq!(room.deliver(vec![delivery("a", 4)]), Wants::Repair);
    let answer = history(lineage("a", &[("", 0)]), 1, 5, [4, 5].into_iter());
    assert_eq!(room.repair(&room.next_read(), &answer), Progress::Done);
    assert_eq!(contents(&room), "1 2 gap 3-3 4 5");
    let answer = history(lineage("b", &[("", 0), ("a", 5)]), 1, 6, [6].into_iter());
    assert_eq!(room.repair(&room.next_read(), &answer), Progress::Done);
    // Who lacks the gap, or what came with it, reads on in pages, which are written under the new epoch.
    assert_eq!(contents(&room), "6");
    let place = |offset| {
        let after = Some(Position { epoch: "a".into(), offset });
        room.place(&Entrance { encoding: Encoding::Json, after, last: 0 }, true).unwrap()
    };
    assert_eq!((place(2).joined.recovered, place(2).seq), (Some(true), None));
    assert!(place(5).seq.is_some());
}
