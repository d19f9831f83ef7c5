//! A room on this node: its log, kept dense whatever the subscription delivers, and where a client belongs in it.
//!
//! Everything here is decided under one short lock and never waits; asking the broker is the hub's part. The rules:
//! - the offset after the head is appended, a lower one dropped as a duplicate, a higher one held until the hub has fetched
//!   what is missing;
//! - an event of another epoch is not understood until the broker has told the room's lineage;
//! - after a fork what is not valid any more is dropped, and every member is placed anew by the same rule as a client that
//!   resumes: [`Room::place`] is the one way into a room.

mod held;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tracing::{info, warn};

use self::held::Held;
use crate::broker::{Delivery, Entry, Head, History};
use crate::deliver::Worker;
use crate::encoding::{Encoding, Event, Record};
use crate::log::{Batch, Log, Seq, Window};
use crate::metrics::METRICS;
use crate::names::RoomName;
use crate::position::{Epoch, Fork, Lineage, Offset, Position};
use crate::protocol::Joined;
use crate::whispers::{Whispered, Whispers};

/// For so long the oldest stored offset is reckoned with; heads are compared more often.
const OLDEST_IS_FRESH: Duration = Duration::from_secs(20);
/// A broker trims in steps: as many events more than have come since may have gone.
const TRIM_STEP: Offset = 512;

/// The memory of all windows of a node, counted as they change.
#[derive(Debug)]
pub struct Budget {
    bytes: usize,
    used: AtomicUsize,
    exceeded: Notify,
}

impl Budget {
    /// All windows together may take so many bytes.
    pub fn new(bytes: usize) -> Self {
        Budget { bytes, used: AtomicUsize::new(0), exceeded: Notify::new() }
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    /// How many bytes must go, if the budget was exceeded: a little more than that, so that it is not exceeded again at once.
    pub fn excess(&self) -> usize {
        if self.used() <= self.bytes { 0 } else { self.used() - self.bytes / 16 * 15 }
    }

    /// Waits until it is exceeded.
    pub async fn exceeded(&self) {
        self.exceeded.notified().await;
    }

    fn change(&self, from: usize, to: usize) {
        let used = self.used.fetch_add(to.wrapping_sub(from), Ordering::AcqRel).wrapping_add(to).wrapping_sub(from);
        if to > from && used > self.bytes {
            self.exceeded.notify_one();
        }
    }
}

/// A room that this node has open.
#[derive(Debug)]
pub struct Room {
    pub name: RoomName,
    state: Mutex<State>,
    budget: Arc<Budget>,
    /// Members on this node, those on their way in included.
    members: AtomicUsize,
    /// The delivery loops of this node, and whether each was already told that there is something new.
    bells: Vec<Bell>,
}

#[derive(Debug)]
struct Bell {
    worker: Worker,
    rung: AtomicBool,
}

#[derive(Debug)]
struct State {
    /// False until the broker's head was seen once.
    open: bool,
    log: Log,
    /// What of the log the budget knows.
    counted: usize,
    lineage: Lineage,
    /// The oldest offset that the broker still had when it was asked last.
    oldest: Offset,
    oldest_seen: Instant,
    /// The head when it was asked: what came since may have pushed older events out.
    oldest_head: Offset,
    held: Held,
    /// Something was delivered that could not be kept; a read that began before may not have seen it.
    missed: bool,
    whispers: Whispers,
    /// Since when nothing was said here.
    quiet_since: Instant,
    /// When the last member of this node left.
    left_at: Instant,
}

/// What is new in a room, for those who are up to date.
#[derive(Debug)]
pub struct News {
    pub batch: Batch,
    /// For JSON clients alone, after the batch.
    pub whispers: Whispered,
}

/// What a room wants after it was given something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Wants {
    Nothing,
    /// Offsets are missing, or an epoch is unknown: read on from the head.
    Repair,
}

/// A read of the broker's history that is under way.
#[derive(Debug, Clone, Copy)]
pub struct Read {
    /// The first offset asked for.
    pub first: Offset,
    /// How many offsets were asked for.
    pub limit: usize,
    /// The room's head when it was asked.
    head: Offset,
    /// Nobody had spoken in it then.
    silent: bool,
}

impl Read {
    /// As many offsets are read at a time to repair what is missing.
    const LIMIT: usize = 512;

    /// The last offset that the answer tells about: what is not in it up to here is lost. Nothing before the oldest stored
    /// one needs a read of its own.
    fn through(&self, head: &Head) -> Offset {
        (self.first + self.limit as Offset - 1).max(head.oldest.saturating_sub(1)).min(head.offset)
    }
}

/// Whether a room is as the broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// There is more to read.
    More,
}

/// A place in a room: what a cursor starts from.
#[derive(Debug, Clone)]
pub struct Place {
    /// What the client is told.
    pub joined: Joined,
    /// Where its next record is; `None`: before the window, to be read in pages.
    pub seq: Option<Seq>,
    pub generation: u32,
    /// How many messages that the client had are not in the room any more.
    pub lost: u64,
    /// The next whisper that it is told; the ones before are in what it is told at the door.
    pub whispers: Seq,
}

impl Place {
    /// Counts the resume that this is, if it is one.
    pub fn count(&self) {
        match (self.joined.recovered, self.seq) {
            (None, _) => {}
            (Some(false), _) => METRICS.resumes_lost.increment(1),
            (Some(true), Some(_)) => METRICS.resumes_window.increment(1),
            (Some(true), None) => METRICS.resumes_broker.increment(1),
        }
    }
}

/// How a client comes into a room.
#[derive(Debug, Clone)]
pub struct Entrance {
    pub encoding: Encoding,
    /// To resume.
    pub after: Option<Position>,
    /// How many events to replay otherwise.
    pub last: u64,
}

/// Being in a room; the room is kept open as long as one of these exists.
#[derive(Debug)]
pub struct Membership(Arc<Room>);

impl Membership {
    pub fn room(&self) -> &Arc<Room> {
        &self.0
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        self.0.members.fetch_sub(1, Ordering::AcqRel);
        self.0.state().left_at = Instant::now();
    }
}

impl Room {
    pub fn new(name: RoomName, window: Window, budget: Arc<Budget>, workers: &[Worker]) -> Self {
        let now = Instant::now();
        let state = State {
            open: false,
            log: Log::new(window, 0),
            counted: 0,
            lineage: Lineage::silent(),
            oldest: 1,
            oldest_seen: now,
            oldest_head: 0,
            held: Held::default(),
            missed: false,
            whispers: Whispers::default(),
            quiet_since: now,
            left_at: now,
        };
        let bell = |worker: &Worker| Bell { worker: worker.clone(), rung: AtomicBool::new(false) };
        let bells = workers.iter().map(bell).collect();
        Room { name, state: Mutex::new(state), budget, members: AtomicUsize::new(0), bells }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the room open.
    pub fn enter(self: &Arc<Self>) -> Membership {
        self.members.fetch_add(1, Ordering::AcqRel);
        Membership(self.clone())
    }

    pub fn has_members(&self) -> bool {
        self.members.load(Ordering::Acquire) > 0
    }

    /// For how long nobody was here, whatever was said meanwhile; `None` while somebody is here.
    pub fn empty_for(&self, now: Instant) -> Option<Duration> {
        (!self.has_members()).then(|| now.saturating_duration_since(self.state().left_at))
    }

    /// Since when nothing was said here.
    pub fn quiet_since(&self) -> Instant {
        self.state().quiet_since
    }

    pub fn head(&self) -> Offset {
        self.state().log.head()
    }

    pub fn lineage(&self) -> Lineage {
        self.state().lineage.clone()
    }

    /// The memory its window takes.
    pub fn bytes(&self) -> usize {
        self.state().log.bytes()
    }

    /// Looks at the log under the room's lock; must not wait.
    pub fn with_log<T>(&self, look: impl FnOnce(&Log) -> T) -> T {
        look(&self.state().log)
    }

    /// The same with the whispers.
    pub fn with_whispers<T>(&self, look: impl FnOnce(&Log, &Whispers) -> T) -> T {
        let state = self.state();
        look(&state.log, &state.whispers)
    }

    /// What came since, in the log and as whispers.
    pub fn news(&self, since: Seq, whispers: Seq) -> News {
        self.with_whispers(|log, all| News {
            batch: log.snapshot(since),
            whispers: all.since(whispers, Instant::now()),
        })
    }

    /// Tells the JSON clients who are up to date something that is not kept. `count`: what those are told who skip it.
    pub fn whisper(self: &Arc<Self>, frame: Bytes, count: Option<Bytes>) {
        self.state().whispers.push(frame, count, Instant::now());
        self.ring();
    }

    /// Forgets the whispers that nobody is told any more.
    pub fn forget_stale(&self, now: Instant) {
        self.state().whispers.forget_stale(now);
    }

    /// Forgets the older half of the window, or all of it where that is little.
    pub fn shrink(&self) {
        let mut state = self.state();
        state.log.shrink();
        state.account(&self.budget);
    }

    // --- what comes from the broker -------------------------------------------------------------------------------

    /// Takes what the subscription delivered, in any order, with holes and duplicates.
    pub fn deliver(self: &Arc<Self>, deliveries: Vec<Delivery>) -> Wants {
        let mut state = self.state();
        if !state.open {
            state.missed = true;
            return Wants::Nothing; // whoever opens the room reads on
        }
        let mut fresh = Vec::with_capacity(deliveries.len());
        let mut wants = Wants::Nothing;
        for delivery in deliveries {
            wants = match state.offer(delivery, &mut fresh) {
                Wants::Repair => Wants::Repair,
                Wants::Nothing => wants,
            };
        }
        state.append(&fresh, &self.name);
        state.account(&self.budget);
        drop(state);
        if !fresh.is_empty() {
            self.ring();
        }
        wants
    }

    /// Takes what a read brought: the truth about the offsets that it asked for.
    pub fn repair(self: &Arc<Self>, read: &Read, history: &History) -> Progress {
        let mut state = self.state();
        let before = (state.log.end(), state.log.generation());
        state.adopt(read, &history.head, &self.name);
        let head = state.log.head();
        if head + 1 >= read.first {
            let records = dense(&history.entries, head, read.through(&history.head), &self.name);
            if state.open {
                METRICS.repaired(&records);
            }
            state.append(&records, &self.name);
        }
        state.release_held(&self.name);
        state.account(&self.budget);
        state.open = true;
        let changed = before != (state.log.end(), state.log.generation());
        let progress = state.progress(changed, history.head.offset);
        drop(state);
        if changed {
            self.ring();
        }
        progress
    }

    /// What to read next to be as the broker is.
    pub fn next_read(&self) -> Read {
        let mut state = self.state();
        state.missed = false;
        let head = state.log.head();
        Read { first: head + 1, limit: Read::LIMIT, head, silent: state.lineage.epoch.is_silent() }
    }

    /// How many events to read for [`Room::begin`]; `None` when the room is open.
    pub fn first_read(&self) -> Option<usize> {
        let mut state = self.state();
        state.missed = false;
        (!state.open).then(|| state.log.window().records)
    }

    /// Begins the log with the newest events, as many as [`Room::first_read`] asked for.
    pub fn begin(self: &Arc<Self>, history: &History, limit: usize, encoding: Encoding) -> Progress {
        let mut state = self.state();
        let base = history.head.offset.saturating_sub(limit as Offset).max(history.head.oldest.saturating_sub(1));
        let base = base.min(history.head.offset);
        state.lineage = history.head.lineage.clone();
        state.log.restart(base);
        state.log.listen(encoding);
        let silent = state.lineage.epoch.is_silent();
        drop(state);
        self.repair(&Read { first: base + 1, limit, head: base, silent }, history)
    }

    /// Compares with the broker's head. `asked`: ours when it was asked; what came since is newer than the answer.
    pub fn check(&self, asked: Offset, head: &Head) -> Wants {
        let mut state = self.state();
        state.note_oldest(head.oldest, head.offset);
        let same_epoch = state.lineage.epoch == head.lineage.epoch;
        let same = same_epoch && (asked..=state.log.head()).contains(&head.offset);
        if same || !state.open { Wants::Nothing } else { Wants::Repair }
    }

    /// Whether something was delivered that does not follow what is here.
    pub fn is_behind(&self) -> bool {
        let state = self.state();
        state.open && (state.missed || !state.held.is_empty())
    }

    /// Whether what was published at `position` has arrived.
    pub fn has_reached(&self, position: &Position) -> bool {
        let state = self.state();
        state.lineage.holds(position, state.log.head())
    }

    // --- members ----------------------------------------------------------------------------------------------------

    /// Where a client belongs; `None` where only the broker can tell. `asked`: the broker was asked since the client came,
    /// so what the room knows now is the truth.
    pub fn place(&self, entrance: &Entrance, asked: bool) -> Option<Place> {
        let mut state = self.state();
        if !state.open {
            return None;
        }
        state.log.listen(entrance.encoding);
        let recovered = match &entrance.after {
            None => None,
            Some(after) => Some(state.continues(after, entrance.encoding, asked)?),
        };
        let head = state.log.head();
        let newest = head.saturating_sub(entrance.last).max(state.oldest.saturating_sub(1)).min(head);
        let (from, lost) = match (&entrance.after, recovered) {
            (Some(after), Some(true)) => (after.offset, 0),
            (Some(after), Some(false)) => state.after_loss(after, entrance.encoding, newest),
            _ => (newest, 0),
        };
        let epoch = state.lineage.epoch.clone();
        let joined = Joined { epoch, offset: head, backlog: head - from, recovered };
        let seq = state.log.place(from, entrance.encoding);
        let whispers = state.whispers.end();
        Some(Place { seq, generation: state.log.generation(), lost, joined, whispers })
    }

    // --- bells ------------------------------------------------------------------------------------------------------

    /// Tells the delivery loops that there is something new.
    fn ring(self: &Arc<Self>) {
        for bell in &self.bells {
            if !bell.rung.swap(true, Ordering::AcqRel) {
                bell.worker.ring(self.clone());
            }
        }
    }

    /// The loop `index` is about to look: what comes from now on rings again.
    pub fn heard(&self, index: usize) {
        if let Some(bell) = self.bells.get(index) {
            bell.rung.store(false, Ordering::Release);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let counted = self.state().counted;
        self.budget.change(counted, 0);
    }
}

impl State {
    fn account(&mut self, budget: &Budget) {
        let bytes = self.log.bytes();
        budget.change(self.counted, bytes);
        self.counted = bytes;
    }

    fn note_oldest(&mut self, oldest: Offset, head: Offset) {
        self.oldest = oldest;
        self.oldest_seen = Instant::now();
        self.oldest_head = head;
    }

    fn append(&mut self, records: &[Record], room: &RoomName) {
        if records.is_empty() {
            return;
        }
        let State { log, lineage, quiet_since, .. } = self;
        log.append(records, room, &lineage.epoch);
        *quiet_since = Instant::now();
    }

    fn offer(&mut self, delivery: Delivery, fresh: &mut Vec<Record>) -> Wants {
        let Position { epoch, offset } = delivery.position;
        let head = fresh.last().map_or(self.log.head(), Record::offset);
        if epoch != self.lineage.epoch && !self.is_first_word(offset, head, &epoch) {
            self.missed = true;
            return Wants::Repair;
        }
        if offset <= head {
            return Wants::Nothing;
        }
        let bytes = delivery.event.len();
        let record = readable(offset, delivery.at_ms, delivery.event);
        if offset > head + 1 {
            self.missed |= !self.held.hold(offset, record, bytes);
            return Wants::Repair;
        }
        fresh.push(record);
        Wants::Nothing
    }

    /// The first message of a silent room forks from ("", 0); no other lineage has an offset 1 that follows it.
    fn is_first_word(&mut self, offset: Offset, head: Offset, epoch: &Epoch) -> bool {
        let first = self.lineage.epoch.is_silent() && head == 0 && offset == 1;
        if first {
            let forks = vec![Fork { epoch: Epoch::silent(), until: 0 }];
            self.lineage = Lineage { epoch: epoch.clone(), forks };
            self.log.fork(0);
        }
        first
    }

    /// Takes over the broker's lineage, and drops what is not valid in it. What was appended in the same epoch since the
    /// broker was asked is newer than the answer; so is the first word, if the answer knows of none.
    fn adopt(&mut self, read: &Read, head: &Head, room: &RoomName) {
        self.note_oldest(head.oldest, head.offset);
        let ours = self.log.head();
        if self.lineage.epoch == head.lineage.epoch {
            if head.offset >= read.head {
                return;
            }
            self.drop_lost(head.offset, room);
        } else if read.silent && head.lineage.epoch.is_silent() {
            return;
        } else {
            match head.lineage.shared_until(&self.lineage.epoch, head.offset) {
                Some(until) if until >= ours => {
                    info!(room = room.as_str(), offset = ours, "another epoch; nothing was lost");
                    self.log.fork(ours);
                }
                Some(until) => self.drop_lost(until, room),
                None => {
                    warn!(room = room.as_str(), dropped = ours, "the broker knows nothing of what was here");
                    METRICS.messages_lost.increment(ours);
                    self.log.restart(head.offset.saturating_sub(self.log.window().records as Offset));
                }
            }
        }
        self.lineage = head.lineage.clone();
        self.held.clear();
    }

    /// What follows `until` is not the broker's any more.
    fn drop_lost(&mut self, until: Offset, room: &RoomName) {
        let dropped = self.log.head() - until;
        warn!(room = room.as_str(), dropped, "the broker lost messages that were here");
        METRICS.messages_lost.increment(dropped);
        self.log.fork(until);
    }

    fn progress(&mut self, changed: bool, head: Offset) -> Progress {
        if self.log.head() < head || self.missed {
            return Progress::More;
        }
        if !self.held.is_empty() && changed {
            return Progress::More;
        }
        self.held.clear(); // the broker knows of nothing that leads there
        Progress::Done
    }

    /// Appends what was held and now follows.
    fn release_held(&mut self, room: &RoomName) {
        let records = self.held.take_after(self.log.head());
        self.append(&records, room);
    }

    /// Where somebody goes on whose place is no more, and how many messages that they had are gone. A JSON client replaces
    /// its view by the newest events; the other doors only add to theirs, so they get what is new since their branch ended.
    fn after_loss(&self, after: &Position, encoding: Encoding, newest: Offset) -> (Offset, u64) {
        let shared = self.lineage.shared_until(&after.epoch, self.log.head());
        let lost = after.offset.saturating_sub(shared.unwrap_or(0));
        match (encoding, shared) {
            (Encoding::Json, _) | (_, None) => (newest, lost),
            (_, Some(shared)) => {
                (shared.min(after.offset).max(self.oldest.saturating_sub(1)).min(self.log.head()), lost)
            }
        }
    }

    /// Whether a client at `after` can go on from there; `None` where only the broker can tell.
    fn continues(&self, after: &Position, encoding: Encoding, asked: bool) -> Option<bool> {
        if !self.lineage.holds(after, self.log.head()) {
            return asked.then_some(false);
        }
        if self.log.place(after.offset, encoding).is_some() {
            return Some(true);
        }
        let next = after.offset + 1;
        if asked || next < self.oldest {
            return Some(next >= self.oldest);
        }
        let pushed_out = self.log.head().saturating_sub(self.oldest_head) + TRIM_STEP;
        let unchanged = self.oldest_head == self.log.head() && self.oldest_seen.elapsed() < Duration::from_secs(1);
        let sure = self.oldest_seen.elapsed() < OLDEST_IS_FRESH && (unchanged || next >= self.oldest + pushed_out);
        sure.then_some(true)
    }
}

/// An event, or the loss of one that nobody can read.
fn readable(offset: Offset, at_ms: u64, event: Bytes) -> Record {
    match Event::parse(event) {
        Some(event) => Record::Event { offset, at_ms, event },
        None => {
            METRICS.messages_lost.increment(1);
            Record::Gap { from: offset, to: offset }
        }
    }
}

/// The records after `head` up to `through`: what is stored, and in between gaps for what is lost for good.
pub fn dense(entries: &[Entry], head: Offset, through: Offset, room: &RoomName) -> Vec<Record> {
    let mut records = Vec::with_capacity(entries.len());
    let mut next = head + 1;
    for entry in entries.iter().filter(|entry| entry.offset <= through) {
        if entry.offset < next {
            continue;
        }
        if entry.offset > next {
            records.push(Record::Gap { from: next, to: entry.offset - 1 });
        }
        records.push(readable(entry.offset, entry.at_ms, entry.event.clone()));
        next = entry.offset + 1;
    }
    if next <= through {
        records.push(Record::Gap { from: next, to: through });
    }
    for record in &records {
        if let Record::Gap { from, to } = record {
            warn!(room = room.as_str(), from, to, "lost for good");
        }
    }
    records
}

#[cfg(test)]
mod tests;
