//! The log beside the simplest model of it: a list of records that forgets nothing.
//!
//! `src/log/tests.rs` includes this file, too, and looks at the log's bookkeeping after each step.

use std::io::IoSlice;

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use townhall::encoding::{Encoding, Event, Record};
use townhall::log::{Batch, Log, Seq, Window};
use townhall::names::RoomName;
use townhall::position::{Epoch, Offset};

/// The longest text, and the most bytes that a socket takes.
const TEXT_BYTES: usize = 300;
const ROOM_BYTES: usize = 20_000;
/// As many snapshots are held by slow loops.
const SNAPSHOTS: usize = 4;

/// `data`: the size of the window, then what happens to the log.
pub fn check(data: &[u8]) {
    walk(data, |_| {});
}

/// The same; `look` sees the log after each step.
pub fn walk(data: &[u8], mut look: impl FnMut(&Log)) {
    let mut data = Unstructured::new(data);
    let Ok(window) = window(&mut data) else { return };
    let mut beside = Beside::new(window);
    while !data.is_empty() {
        let Ok(happening) = Happening::choose(&mut data) else { break };
        beside.take(happening);
        look(&beside.log);
    }
    beside.conclude();
}

fn window(data: &mut Unstructured) -> Result<Window> {
    Ok(Window { bytes: 1000 * data.int_in_range(1..=200)?, records: data.int_in_range(1..=2000)? })
}

/// What happens to a log.
#[derive(Debug, Clone)]
enum Happening {
    /// So many messages of such a size at once.
    Append(Offset, usize),
    Gap(Offset),
    /// Back to this part of the head, in 255ths.
    Fork(u8),
    /// Nothing of what is here is true; so much is.
    Restart(Offset),
    Trim(usize),
    Shrink,
    Listen(Encoding),
    /// A reader's socket takes so many bytes.
    Read(usize, usize),
    /// A delivery loop takes a snapshot, and writes it later.
    Snapshot,
    /// The oldest snapshot is written to a reader, whose socket takes so many bytes.
    Serve(usize, usize),
}

impl Happening {
    /// Mostly messages and reading.
    fn choose(data: &mut Unstructured) -> Result<Self> {
        Ok(match data.int_in_range(0..=31)? {
            0..=9 => Happening::Append(data.int_in_range(1..=2)?, data.int_in_range(0..=TEXT_BYTES)?),
            10 => Happening::Append(data.int_in_range(3..=40)?, data.int_in_range(0..=TEXT_BYTES)?),
            11 | 12 => Happening::Gap(data.int_in_range(1..=5)?),
            13 => Happening::Fork(data.int_in_range(0..=255)?),
            14 => Happening::Fork(data.int_in_range(200..=255)?),
            15 => Happening::Restart(data.int_in_range(0..=3000)?),
            16 if data.arbitrary()? => Happening::Shrink,
            16 => Happening::Trim(data.int_in_range(0..=20_000)?),
            17 => Happening::Listen(*data.choose(&Encoding::ALL)?),
            18..=20 => Happening::Snapshot,
            21..=24 => Happening::Serve(data.int_in_range(0..=2)?, data.int_in_range(0..=ROOM_BYTES)?),
            _ => Happening::Read(data.int_in_range(0..=2)?, data.int_in_range(0..=ROOM_BYTES)?),
        })
    }
}

/// A snapshot, and what it had in each encoding when it was taken.
type Snapshot = (Batch, [Vec<Bytes>; Encoding::COUNT]);

/// A log, and what it should be.
struct Beside {
    log: Log,
    /// All records since offset `base`, whatever the log forgot.
    model: Vec<Record>,
    base: Offset,
    readers: Vec<Reader>,
    snapshots: Vec<Snapshot>,
}

impl Beside {
    fn new(window: Window) -> Self {
        let mut log = Log::new(window, 0);
        log.listen(Encoding::Json);
        let readers = Encoding::ALL.into_iter().map(Reader::new).collect();
        Beside { log, model: Vec::new(), base: 0, readers, snapshots: Vec::new() }
    }

    fn take(&mut self, happening: Happening) {
        let head = self.log.head();
        match happening {
            Happening::Append(count, size) => {
                self.append((1..=count).map(|n| message(head + n, size)).collect());
            }
            Happening::Gap(count) => self.append(vec![Record::Gap { from: head + 1, to: head + count }]),
            Happening::Fork(part) => {
                let until = self.base + (head - self.base) * Offset::from(part) / 255;
                // A fork is never within a gap: what is lost has no end of its own.
                let ends = self.model.iter().rev().map(Record::offset);
                let until = ends.into_iter().find(|end| *end <= until).unwrap_or(self.base);
                self.log.fork(until);
                self.model.retain(|record| record.offset() <= until);
            }
            Happening::Restart(base) => {
                self.log.restart(base);
                self.model.clear();
                self.base = base;
            }
            Happening::Trim(0) => self.log.shrink(),
            Happening::Trim(bytes) => self.log.trim(Window { bytes, records: usize::MAX }),
            Happening::Shrink => {
                let before = self.log.bytes();
                self.log.shrink();
                assert!(self.log.bytes() <= before / 2, "{} of {before} bytes", self.log.bytes());
            }
            Happening::Listen(encoding) => self.log.listen(encoding),
            Happening::Read(reader, room) => self.readers[reader].read(&self.log, &self.model, room),
            Happening::Snapshot => self.snapshot(),
            Happening::Serve(reader, room) => {
                if let Some((news, _)) = self.snapshots.first() {
                    self.readers[reader].serve(news, &self.log, &self.model, room);
                }
            }
        }
        self.agree();
    }

    fn append(&mut self, records: Vec<Record>) {
        self.log.append(&records, &RoomName::lobby(), &epoch());
        self.model.extend(records);
    }

    /// Taken as the delivery loop does it: from the end of the one before.
    fn snapshot(&mut self) {
        let from = self.snapshots.last().map_or(self.log.end(), |(news, _)| news.to);
        let news = self.log.snapshot(from);
        let bytes = Encoding::ALL.map(|encoding| news.slices(encoding, news.from));
        self.snapshots.push((news, bytes));
        if self.snapshots.len() > SNAPSHOTS {
            assert_unchanged(self.snapshots.remove(0));
        }
    }

    fn agree(&self) {
        let log = &self.log;
        assert_eq!(log.head(), self.model.last().map_or(self.base, Record::offset));
        assert_eq!(log.place(log.head() + 1, Encoding::Json), None);
        for encoding in Encoding::ALL {
            let from = log.covered_from(encoding);
            assert!(from <= log.head());
            if encoding == Encoding::Json {
                assert!(log.place(from, encoding).is_some(), "whoever is told to begin at {from} can");
                assert_eq!(log.place(log.head(), encoding), Some(log.end()));
            }
        }
    }

    fn conclude(mut self) {
        self.snapshots.drain(..).for_each(assert_unchanged);
        for reader in &mut self.readers {
            reader.read(&self.log, &self.model, usize::MAX);
            assert!(reader.unfinished.is_empty());
            assert!(reader.got == reader.due, "{:?} got something else", reader.encoding);
        }
    }
}

fn assert_unchanged((news, bytes): Snapshot) {
    for encoding in Encoding::ALL {
        assert_eq!(news.slices(encoding, news.from), bytes[encoding as usize], "a snapshot changed");
    }
}

fn epoch() -> Epoch {
    "e".into()
}

fn message(offset: Offset, size: usize) -> Record {
    let text = "x".repeat(size);
    let json = format!(r#"{{"type":"message","from":{{"id":"u","name":"n{offset}"}},"text":"{text}"}}"#);
    let event = Event::parse(json.into()).expect("an event");
    Record::Event { offset, at_ms: offset, event }
}

fn bytes_of(records: &[Record], encoding: Encoding) -> Vec<u8> {
    let mut bytes = Vec::new();
    records.iter().for_each(|record| record.encode(encoding, &RoomName::lobby(), &epoch(), &mut bytes));
    bytes
}

/// A client that reads through short writes, as a connection does it, and a list of what it should have got.
struct Reader {
    encoding: Encoding,
    /// `None`: nobody listens yet.
    place: Option<Place>,
    unfinished: Bytes,
    got: Vec<u8>,
    due: Vec<u8>,
}

#[derive(Clone, Copy)]
struct Place {
    offset: Offset,
    seq: Seq,
    generation: u32,
}

impl Reader {
    fn new(encoding: Encoding) -> Self {
        Reader { encoding, place: None, unfinished: Bytes::new(), got: Vec::new(), due: Vec::new() }
    }

    /// Writes what is unfinished; false where the socket takes no more.
    fn finish(&mut self, room: &mut usize) -> bool {
        let count = self.unfinished.len().min(*room);
        self.got.extend(self.unfinished.split_to(count));
        *room -= count;
        self.unfinished.is_empty()
    }

    fn read(&mut self, log: &Log, model: &[Record], mut room: usize) {
        if !self.finish(&mut room) {
            return;
        }
        let here = self.place.filter(|place| place.generation == log.generation());
        let news = here.and_then(|place| Some((place, log.since(place.seq, self.encoding)?)));
        let Some((place, news)) = news else {
            // It would be placed anew, or read pages; here it goes on from the end.
            let seq = log.place(log.head(), self.encoding);
            let (offset, generation) = (log.head(), log.generation());
            self.place = seq.map(|seq| Place { offset, seq, generation });
            return;
        };
        assert_eq!(log.place(place.offset, self.encoding), Some(place.seq), "the boundary by number is that by offset");
        assert_eq!(news.to, log.end());
        self.write(place, &news, model, room);
    }

    /// What a delivery loop writes to whoever is up to date.
    fn serve(&mut self, news: &Batch, log: &Log, model: &[Record], room: usize) {
        let Some(place) = self.place else { return };
        let served = place.seq >= news.from && place.seq < news.to;
        // The model is the log's as it is now, so only what is still true can be compared.
        let current = place.generation == news.generation && news.generation == log.generation();
        if served && current && self.unfinished.is_empty() {
            self.write(place, news, model, room);
        }
    }

    fn write(&mut self, place: Place, news: &Batch, model: &[Record], room: usize) {
        let slices = news.slices(self.encoding, place.seq);
        let vectors: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        assert!(vectors.iter().all(|slice| !slice.is_empty()));
        let sent: Vec<u8> = slices.iter().flatten().copied().take(room).collect();
        let written = news.written(self.encoding, place.seq, sent.len());
        assert!(written.seq >= place.seq && written.seq <= news.to);
        let next = written.offset.unwrap_or(place.offset);
        let index = |offset| model.partition_point(|record| record.offset() <= offset);
        let due = &model[index(place.offset)..index(next)];
        self.due.extend(bytes_of(due, self.encoding));
        self.got.extend(sent);
        self.unfinished = written.rest;
        self.place = Some(Place { offset: next, seq: written.seq, ..place });
    }
}
