//! The log beside the simplest model of it: a list of records that forgets nothing.

use std::io::IoSlice;

use proptest::prelude::*;

use super::*;
use crate::encoding::Event;

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
    let seq = log.place(from, Encoding::Json).unwrap();
    let slices = log.since(seq, Encoding::Json).unwrap().slices(Encoding::Json, seq);
    assert!(slices.len() < 128, "{} slices", slices.len());
    // And however little is taken at a time, the records in them are found.
    let model: Vec<_> = (1..=2000).map(|offset| message(offset, 100)).collect();
    let mut reader = Reader::at(from, Encoding::Json);
    while reader.offset < log.head() || !reader.unfinished.is_empty() {
        reader.read(&log, &model, 1234);
    }
    assert_eq!(reader.got, concat(&slices));
    assert_eq!(reader.got, reader.due);
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

/// What happens to a log.
#[derive(Debug, Clone)]
enum Happening {
    /// So many messages of such a size at once.
    Append(u8, u16),
    Gap(u8),
    /// Back to this part of the head.
    Fork(f64),
    Trim(u16),
    Listen(bool),
    /// A reader's socket takes so many bytes.
    Read(u16),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (1..3u8, 0..300u16).prop_map(|(count, size)| Happening::Append(count, size)),
        1 => (3..40u8, 0..300u16).prop_map(|(count, size)| Happening::Append(count, size)),
        1 => (1..5u8).prop_map(Happening::Gap),
        1 => (0.7..1.0f64).prop_map(Happening::Fork),
        1 => (0..20_000u16).prop_map(Happening::Trim),
        1 => any::<bool>().prop_map(Happening::Listen),
        8 => (0..20_000u16).prop_map(Happening::Read),
    ]
}

/// A client that reads through short writes, as a connection does it, and a list of what it should have got.
struct Reader {
    encoding: Encoding,
    offset: Offset,
    generation: u32,
    unfinished: Bytes,
    got: Vec<u8>,
    due: Vec<u8>,
}

impl Reader {
    fn at(offset: Offset, encoding: Encoding) -> Self {
        Reader { encoding, offset, generation: 0, unfinished: Bytes::new(), got: Vec::new(), due: Vec::new() }
    }

    fn read(&mut self, log: &Log, model: &[Record], mut room: usize) {
        let count = self.unfinished.len().min(room);
        self.got.extend(self.unfinished.split_to(count));
        room -= count;
        if !self.unfinished.is_empty() {
            return;
        }
        if self.generation != log.generation() || log.place(self.offset, self.encoding).is_none() {
            // It would be placed anew, or read pages; here it starts again at the head.
            (self.generation, self.offset) = (log.generation(), log.head());
            return;
        }
        let seq = log.place(self.offset, self.encoding).unwrap();
        let news = log.since(seq, self.encoding).unwrap();
        let slices = news.slices(self.encoding, seq);
        let sent: Vec<u8> = concat(&slices).into_iter().take(room).collect();
        let vectors: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        assert!(vectors.iter().all(|slice| !slice.is_empty()));
        let written = news.written(self.encoding, seq, sent.len());
        let next = written.offset.unwrap_or(self.offset);
        let due = model.iter().filter(|record| record.offset() > self.offset && record.offset() <= next);
        self.due.extend(bytes_of(&due.cloned().collect::<Vec<_>>(), self.encoding));
        self.got.extend(sent);
        self.unfinished = written.rest;
        self.offset = next;
        // The boundary by number is the boundary by offset.
        assert_eq!(log.place(next, self.encoding), Some(written.seq.max(seq)));
    }
}

proptest! {
    #[test]
    fn every_reader_gets_whole_records_in_order_however_little_its_socket_takes(
        window in 1..2000usize,
        happenings in prop::collection::vec(happening(), 1..300),
    ) {
        let mut log = Log::new(Window { bytes: 200_000, records: window }, 0);
        log.listen(Encoding::Json);
        let mut model: Vec<Record> = Vec::new();
        let mut readers = [Reader::at(0, Encoding::Json), Reader::at(0, Encoding::Line)];
        for happening in happenings {
            let head = log.head();
            match happening {
                Happening::Append(count, size) => {
                    let records: Vec<_> =
                        (1..=Offset::from(count)).map(|n| message(head + n, size.into())).collect();
                    append(&mut log, &records);
                    model.extend(records);
                }
                Happening::Gap(count) => {
                    let gap = Record::Gap { from: head + 1, to: head + Offset::from(count) };
                    append(&mut log, std::slice::from_ref(&gap));
                    model.push(gap);
                }
                Happening::Fork(part) => {
                    let until = (head as f64 * part) as Offset;
                    // A fork is never within a gap: what is lost has no end of its own.
                    let until = model.iter().rev().map(Record::offset).find(|end| *end <= until).unwrap_or(0);
                    log.fork(until);
                    model.retain(|record| record.offset() <= until);
                }
                Happening::Trim(bytes) => log.trim(Window { bytes: bytes.into(), records: usize::MAX }),
                Happening::Listen(line) => log.listen(if line { Encoding::Line } else { Encoding::Json }),
                Happening::Read(room) => {
                    for reader in &mut readers {
                        reader.read(&log, &model, room.into());
                    }
                }
            }
            prop_assert_eq!(log.head(), model.last().map_or(0, Record::offset));
            let cost: usize = log.chunks.iter().map(|chunk| chunk.cost()).sum();
            prop_assert_eq!(log.bytes(), cost);
        }
        for reader in &readers {
            let due = &reader.due[..];
            let whole = [&reader.got[..], &reader.unfinished[..]].concat();
            prop_assert_eq!(&whole[..], due);
        }
    }
}
