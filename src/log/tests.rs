//! The log: its window, its lanes, forks; and whatever may happen to it, beside the simplest model.

use proptest::prelude::*;

use super::*;
use crate::encoding::Event;

/// The log beside a list of records; the fuzzers use it, too.
#[path = "../../fuzz/checks/log.rs"]
#[allow(dead_code)] // `check` is theirs
mod model;

fn message(offset: Offset, size: usize) -> Record {
    let json = format!(r#"{{"type":"message","from":{{"id":"u","name":"n{offset}"}},"text":"{}"}}"#, "x".repeat(size));
    Record::Event { offset, at_ms: offset, event: Event::parse(json.into()).unwrap() }
}

fn bytes_of(records: &[Record], encoding: Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    for record in records {
        record.encode(encoding, &RoomName::lobby(), &"e".into(), &mut bytes);
    }
    bytes
}

fn append(log: &mut Log, records: &[Record]) {
    log.append(records, &RoomName::lobby(), &"e".into());
}

fn log(records: usize) -> Log {
    let mut log = Log::new(Window { bytes: 1 << 20, records }, 0);
    log.listen(Encoding::Json);
    log
}

fn concat(slices: &[Bytes]) -> Vec<u8> {
    slices.iter().flat_map(|slice| slice.to_vec()).collect()
}

#[test]
fn a_cursor_outside_of_the_window_is_told_so() {
    let mut log = log(4);
    for offset in 1..=10 {
        append(&mut log, &[message(offset, 10)]);
    }
    assert_eq!(log.place(2, Encoding::Json), None);
    assert!(log.since(0, Encoding::Json).is_none());
    let seq = log.place(8, Encoding::Json).unwrap();
    let news = log.since(seq, Encoding::Json).unwrap();
    assert_eq!(news.count_since(seq), 2);
    assert_eq!(log.place(11, Encoding::Json), None);
}

#[test]
fn an_encoding_begins_where_somebody_began_to_listen() {
    let mut log = log(100);
    append(&mut log, &[message(1, 10)]);
    log.listen(Encoding::Line);
    append(&mut log, &[message(2, 3)]);
    assert_eq!(log.place(0, Encoding::Line), None);
    let seq = log.place(1, Encoding::Line).unwrap();
    let news = log.since(seq, Encoding::Line).unwrap();
    assert_eq!(concat(&news.slices(Encoding::Line, seq)), b"n2:xxx\n");
    assert_eq!(log.place(1, Encoding::Plain), None);
}

#[test]
fn after_a_fork_the_lost_branch_is_gone_and_the_generation_another_one() {
    let mut log = log(100);
    append(&mut log, &(1..=5).map(|offset| message(offset, 10)).collect::<Vec<_>>());
    let before = log.generation();
    log.fork(3);
    assert_eq!(log.head(), 3);
    assert_ne!(log.generation(), before);
    append(&mut log, &[message(4, 20)]);
    let seq = log.place(3, Encoding::Json).unwrap();
    let news = log.since(seq, Encoding::Json).unwrap();
    assert_eq!(concat(&news.slices(Encoding::Json, seq)), bytes_of(&[message(4, 20)], Encoding::Json));
}

#[test]
fn who_came_during_a_lost_branch_is_served_from_its_beginning() {
    let mut log = log(100);
    append(&mut log, &(1..=5).map(|offset| message(offset, 10)).collect::<Vec<_>>());
    log.listen(Encoding::Line);
    log.fork(3);
    let seq = log.place(3, Encoding::Line).expect("the end of the log is in the window");
    append(&mut log, &[message(4, 3)]);
    assert_eq!(concat(&log.since(seq, Encoding::Line).unwrap().slices(Encoding::Line, seq)), b"n4:xxx\n");
}

#[test]
fn a_window_of_many_small_chunks_is_written_in_few_slices() {
    let mut log = log(2000);
    for offset in 1..=2000 {
        append(&mut log, &[message(offset, 100)]);
    }
    let from = log.covered_from(Encoding::Json);
    let mut seq = log.place(from, Encoding::Json).unwrap();
    let slices = log.since(seq, Encoding::Json).unwrap().slices(Encoding::Json, seq);
    assert!(slices.len() < 128, "{} slices", slices.len());
    // And however little is taken at a time, the records in them are found.
    let due: Vec<_> = (from + 1..=2000).map(|offset| message(offset, 100)).collect();
    let mut got = Vec::new();
    while seq < log.end() {
        let news = log.since(seq, Encoding::Json).unwrap();
        let sent: Vec<u8> = concat(&news.slices(Encoding::Json, seq)).into_iter().take(1234).collect();
        let written = news.written(Encoding::Json, seq, sent.len());
        got.extend(sent);
        got.extend(&written.rest);
        seq = written.seq;
    }
    assert_eq!(got, bytes_of(&due, Encoding::Json));
}

#[test]
fn the_window_is_kept_in_bytes_too() {
    let window = Window { bytes: 64 * 1024, records: usize::MAX };
    let mut log = Log::new(window, 0);
    log.listen(Encoding::Json);
    for offset in 1..=1000 {
        append(&mut log, &[message(offset, 1000)]);
        assert!(log.bytes() <= window.bytes);
    }
    let kept = log.head() - log.covered_from(Encoding::Json);
    assert!(kept > 40, "only {kept} records in the window");
}

proptest! {
    #[test]
    fn every_reader_gets_whole_records_in_order_and_the_books_are_right(
        data in prop::collection::vec(any::<u8>(), 0..1500),
    ) {
        model::walk(&data, |log| {
            let cost: usize = log.chunks.iter().map(|chunk| chunk.cost()).sum();
            assert_eq!(log.bytes(), cost);
            let records: usize = log.chunks.iter().map(|chunk| chunk.offsets.len()).sum();
            assert_eq!(log.end - log.first, records as Seq);
            assert!(log.tail <= log.chunks.len());
        });
    }
}
