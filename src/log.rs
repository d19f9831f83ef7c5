//! The heart: one append-only log of already-encoded bytes, many cursors.
//!
//! A room's log on this node is a sequence of records. Each record has a sequence number of this node's own, moves whoever
//! receives it to an offset, and exists as bytes in wire form, once per [`Encoding`] in use. A connection is a cursor: a
//! sequence number, always at a boundary between records.
//!
//! The log is a list of immutable chunks. A chunk is what one call to [`Log::append`] brought; small chunks are merged from
//! time to time, so a reader that lags is sent a few large slices and not thousands of small ones. [`Log::since`] is the
//! snapshot that everybody's bytes are written from: it shares the chunks and copies nothing.
//!
//! The log forgets its oldest records beyond the window; cursors that are outside of it catch up from the broker's history
//! (see `pages.rs`). After a fork the generation is another one, and a cursor of the old one has to be placed anew.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::encoding::{Encoding, Record};
use crate::names::RoomName;
use crate::position::{Epoch, Offset};

/// Counts the records of a room on this node; means nothing elsewhere.
pub type Seq = u64;

/// As many chunks at the log's end are left as they came; one more merges them.
const TAIL: usize = 32;
/// A merged chunk is at most this part of the window, so that forgetting is smooth.
const GRAIN: usize = 16;

/// How much a log remembers.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub bytes: usize,
    pub records: usize,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Log {
    window: Window,
    chunks: VecDeque<Arc<Chunk>>,
    /// How many of the newest chunks are not merged yet.
    tail: usize,
    /// The sequence number of the oldest record that is remembered, and the offset before it.
    first: Seq,
    base: Offset,
    /// The sequence number that the next record will get, and the offset after the last.
    end: Seq,
    head: Offset,
    /// The broker's clock at the newest event, in Unix milliseconds.
    newest_ms: u64,
    generation: u32,
    /// From which record on each encoding exists; `None`: nobody listens to it.
    lanes: [Option<Seq>; Encoding::COUNT],
    bytes: usize,
}

/// Some consecutive records.
#[derive(Debug)]
struct Chunk {
    first: Seq,
    /// The offset after each record.
    offsets: Vec<Offset>,
    /// Whether one of them names the epoch under which it was written: a gap.
    names_epoch: bool,
    lanes: [Option<Lane>; Encoding::COUNT],
}

/// A chunk's records in one encoding.
#[derive(Debug)]
struct Lane {
    bytes: Bytes,
    /// Where each record ends in `bytes`.
    ends: Vec<u32>,
}

impl Log {
    /// An empty log that follows offset `head`.
    pub fn new(window: Window, head: Offset) -> Self {
        Log {
            window,
            chunks: VecDeque::new(),
            tail: 0,
            first: 0,
            base: head,
            end: 0,
            head,
            newest_ms: 0,
            generation: 0,
            lanes: [None; Encoding::COUNT],
            bytes: 0,
        }
    }

    /// How much it remembers.
    pub fn window(&self) -> Window {
        self.window
    }

    /// The newest offset.
    pub fn head(&self) -> Offset {
        self.head
    }

    /// The sequence number after the newest record.
    pub fn end(&self) -> Seq {
        self.end
    }

    /// Changes with every fork.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The memory it takes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// From now on records are kept in `encoding`, too.
    pub fn listen(&mut self, encoding: Encoding) {
        self.lanes[encoding as usize].get_or_insert(self.end);
    }

    /// Appends records, in order and dense: the offsets continue at [`Log::head`].
    pub fn append(&mut self, records: &[Record], room: &RoomName, epoch: &Epoch) {
        for part in records.chunks(self.grain().records) {
            self.push(Chunk {
                first: self.end,
                offsets: part.iter().map(Record::offset).collect(),
                names_epoch: part.iter().any(|record| matches!(record, Record::Gap { .. })),
                lanes: Encoding::ALL
                    .map(|encoding| self.lanes[encoding as usize].map(|_| Lane::of(part, encoding, room, epoch))),
            });
        }
        if let Some(Record::Event { at_ms, .. }) = records.last() {
            self.newest_ms = *at_ms;
        }
        self.trim(self.window);
    }

    fn push(&mut self, chunk: Chunk) {
        self.end = chunk.end();
        self.head = chunk.last_offset();
        self.bytes += chunk.cost();
        self.chunks.push_back(Arc::new(chunk));
        self.tail += 1;
        if self.tail > TAIL {
            self.merge_tail();
        }
    }

    fn grain(&self) -> Window {
        Window { bytes: self.window.bytes / GRAIN, records: (self.window.records / GRAIN).max(1) }
    }

    /// Makes few large chunks of the many small ones at the end.
    fn merge_tail(&mut self) {
        let grain = self.grain();
        let mut parts = self.chunks.split_off(self.chunks.len() - self.tail).into_iter().peekable();
        while let Some(part) = parts.next() {
            self.bytes -= part.cost();
            let mut group = vec![part];
            let (mut bytes, mut records) = (group[0].cost(), group[0].offsets.len());
            while let Some(part) = parts.next_if(|part| {
                bytes += part.cost();
                records += part.offsets.len();
                bytes <= grain.bytes && records <= grain.records
            }) {
                self.bytes -= part.cost();
                group.push(part);
            }
            let merged = if group.len() == 1 { group.swap_remove(0) } else { Arc::new(Chunk::merge(&group)) };
            self.bytes += merged.cost();
            self.chunks.push_back(merged);
        }
        self.tail = 0;
    }

    /// Forgets the oldest records beyond `window`, in whole chunks; the newest chunk stays.
    pub fn trim(&mut self, window: Window) {
        let over = |log: &Log| log.bytes > window.bytes || (log.end - log.first) as usize > window.records;
        while self.chunks.len() > 1 && over(self) {
            self.forget_oldest();
        }
    }

    /// Forgets the older half of what it remembers, or all of it where that is one chunk.
    pub fn shrink(&mut self) {
        let half = Window { bytes: self.bytes / 2, records: usize::MAX };
        self.trim(half);
        if self.bytes > half.bytes {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some(chunk) = self.chunks.pop_front() {
            self.bytes -= chunk.cost();
            self.first = chunk.end();
            self.base = chunk.last_offset();
            self.tail = self.tail.min(self.chunks.len());
        }
    }

    /// Begins another generation with nothing, after offset `head`.
    pub fn restart(&mut self, head: Offset) {
        self.generation += 1;
        self.chunks.clear();
        (self.bytes, self.tail, self.first) = (0, 0, self.end);
        (self.base, self.head) = (head, head);
    }

    /// Begins another generation, of another epoch, in which nothing after offset `until` is true any more.
    pub fn fork(&mut self, until: Offset) {
        if until < self.base {
            return self.restart(until);
        }
        self.generation += 1;
        while let Some(chunk) = self.chunks.pop_back_if(|chunk| chunk.last_offset() > until) {
            self.bytes -= chunk.cost();
            self.tail = self.tail.saturating_sub(1);
            self.end = chunk.first;
            let kept = chunk.offsets.partition_point(|offset| *offset <= until);
            if kept > 0 {
                self.push(chunk.until(kept));
            }
        }
        self.head = self.chunks.back().map_or(self.base, |chunk| chunk.last_offset());
        // What names the epoch is not true any more: whoever lacks it reads on in pages.
        if let Some(last) = self.chunks.iter().rposition(|chunk| chunk.names_epoch) {
            (0..=last).for_each(|_| self.forget_oldest());
        }
        // Whoever came during what is dropped now listens from its beginning.
        for since in self.lanes.iter_mut().flatten() {
            *since = (*since).min(self.end);
        }
    }

    /// Where a cursor belongs that has received everything up to `offset`; `None` when that is before the window or in the
    /// middle of a gap, of which the client lacks only a part, or what follows was not kept in `encoding`.
    pub fn place(&self, offset: Offset, encoding: Encoding) -> Option<Seq> {
        if offset < self.base || offset > self.head {
            return None;
        }
        let index = self.chunks.partition_point(|chunk| chunk.last_offset() <= offset);
        let seq = match self.chunks.get(index) {
            None => self.end,
            Some(chunk) => chunk.first + chunk.offsets.partition_point(|after| *after <= offset) as Seq,
        };
        (self.covers(seq, encoding) && self.offset_before(seq) == offset).then_some(seq)
    }

    fn covers(&self, seq: Seq, encoding: Encoding) -> bool {
        seq >= self.first && self.lanes[encoding as usize].is_some_and(|since| seq >= since)
    }

    /// What follows `seq`; `None` when the window no longer has all of it in `encoding`.
    pub fn since(&self, seq: Seq, encoding: Encoding) -> Option<Batch> {
        self.covers(seq, encoding).then(|| self.snapshot(seq))
    }

    /// All records from `seq` on that are remembered.
    pub fn snapshot(&self, seq: Seq) -> Batch {
        let index = self.chunks.partition_point(|chunk| chunk.end() <= seq);
        Batch {
            chunks: self.chunks.range(index..).cloned().collect(),
            from: seq.max(self.first),
            to: self.end,
            head: self.head,
            newest_ms: self.newest_ms,
            generation: self.generation,
        }
    }

    /// The offset from which on a new cursor of `encoding` is served by the window.
    pub fn covered_from(&self, encoding: Encoding) -> Offset {
        match self.lanes[encoding as usize] {
            Some(since) if since > self.first => self.offset_before(since),
            Some(_) => self.base,
            None => self.head,
        }
    }

    fn offset_before(&self, seq: Seq) -> Offset {
        let index = self.chunks.partition_point(|chunk| chunk.end() < seq);
        match self.chunks.get(index) {
            Some(chunk) if seq > chunk.first => chunk.offsets[(seq - chunk.first) as usize - 1],
            _ => self.base,
        }
    }
}

impl Chunk {
    fn end(&self) -> Seq {
        self.first + self.offsets.len() as Seq
    }

    fn last_offset(&self) -> Offset {
        self.offsets.last().copied().unwrap_or_default()
    }

    /// What the chunk costs, bookkeeping included.
    fn cost(&self) -> usize {
        let lanes = self.lanes.iter().flatten().map(|lane| lane.bytes.len() + size_of_val(&lane.ends[..]));
        lanes.sum::<usize>() + size_of_val(&self.offsets[..]) + size_of::<Chunk>()
    }

    /// Its first `keep` records.
    fn until(&self, keep: usize) -> Chunk {
        let lanes = self.lanes.each_ref().map(|lane| lane.as_ref().map(|lane| lane.until(keep)));
        Chunk { first: self.first, offsets: self.offsets[..keep].to_vec(), names_epoch: self.names_epoch, lanes }
    }

    /// One chunk of several that follow each other. A lane that begins in the middle has empty records before, where no
    /// cursor of that encoding ever is.
    fn merge(parts: &[Arc<Chunk>]) -> Chunk {
        let lanes = Encoding::ALL.map(|encoding| {
            let used = parts.iter().any(|part| part.lanes[encoding as usize].is_some());
            used.then(|| Lane::merge(parts, encoding))
        });
        let offsets = parts.iter().flat_map(|part| &part.offsets).copied().collect();
        let names_epoch = parts.iter().any(|part| part.names_epoch);
        Chunk { first: parts[0].first, offsets, names_epoch, lanes }
    }
}

impl Lane {
    fn of(records: &[Record], encoding: Encoding, room: &RoomName, epoch: &Epoch) -> Lane {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(records.len());
        for record in records {
            record.encode(encoding, room, epoch, &mut bytes);
            ends.push(bytes.len() as u32);
        }
        bytes.shrink_to_fit();
        Lane { bytes: bytes.into(), ends }
    }

    fn merge(parts: &[Arc<Chunk>], encoding: Encoding) -> Lane {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for part in parts {
            let start = bytes.len() as u32;
            match &part.lanes[encoding as usize] {
                Some(lane) => {
                    bytes.extend_from_slice(&lane.bytes);
                    ends.extend(lane.ends.iter().map(|end| start + end));
                }
                None => ends.extend(part.offsets.iter().map(|_| start)),
            }
        }
        bytes.shrink_to_fit();
        Lane { bytes: bytes.into(), ends }
    }

    /// Where record `index` begins.
    fn start_of(&self, index: usize) -> usize {
        if index == 0 { 0 } else { self.ends[index - 1] as usize }
    }

    fn until(&self, keep: usize) -> Lane {
        Lane { bytes: self.bytes.slice(..self.start_of(keep)), ends: self.ends[..keep].to_vec() }
    }
}

/// A snapshot: consecutive records of a log, to be written to any number of sockets.
#[derive(Debug, Clone)]
pub struct Batch {
    chunks: Vec<Arc<Chunk>>,
    /// The sequence number of the first record, and that after the last.
    pub from: Seq,
    pub to: Seq,
    /// The offset after the last record.
    pub head: Offset,
    /// The broker's clock at the newest event, in Unix milliseconds.
    pub newest_ms: u64,
    pub generation: u32,
}

/// Where a write ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// The record after the last one of which anything was written.
    pub seq: Seq,
    /// The offset of that last one; `None` when nothing was written.
    pub offset: Option<Offset>,
    /// What is left of it.
    pub rest: Bytes,
}

impl Batch {
    /// The bytes of the records from `seq` on, in as few slices as there are.
    pub fn slices(&self, encoding: Encoding, seq: Seq) -> Vec<Bytes> {
        let lanes = self.chunks.iter().filter(|chunk| chunk.end() > seq).filter_map(|chunk| {
            let lane = chunk.lanes[encoding as usize].as_ref()?;
            let start = lane.start_of(seq.saturating_sub(chunk.first) as usize);
            (start < lane.bytes.len()).then(|| lane.bytes.slice(start..))
        });
        lanes.collect()
    }

    /// Finds the boundary after `count` bytes were written of what [`Batch::slices`] gave.
    pub fn written(&self, encoding: Encoding, seq: Seq, count: usize) -> Written {
        let mut left = count;
        let mut reached = Written { seq, offset: None, rest: Bytes::new() };
        for chunk in self.chunks.iter().filter(|chunk| chunk.end() > seq) {
            let skip = seq.saturating_sub(chunk.first) as usize;
            let Some(lane) = &chunk.lanes[encoding as usize] else { continue };
            let start = lane.start_of(skip);
            let length = lane.bytes.len() - start;
            if left >= length {
                left -= length;
                reached.seq = chunk.end();
                reached.offset = Some(chunk.last_offset());
                continue;
            }
            let stop = start + left;
            // The first record that ends after the last byte written: unfinished, unless not even begun.
            let index = lane.ends.partition_point(|end| (*end as usize) <= stop);
            let begun = lane.start_of(index) < stop;
            let done = if begun { index + 1 } else { index };
            if done > skip {
                reached.seq = chunk.first + done as Seq;
                reached.offset = Some(chunk.offsets[done - 1]);
            }
            if begun {
                // A copy, so that a slow socket does not keep the whole chunk alive.
                reached.rest = Bytes::copy_from_slice(&lane.bytes[stop..lane.ends[index] as usize]);
            }
            break;
        }
        reached
    }

    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// How many records follow `seq`.
    pub fn count_since(&self, seq: Seq) -> u64 {
        self.to.saturating_sub(seq)
    }
}

#[cfg(test)]
mod tests;
