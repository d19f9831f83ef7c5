//! The embedded broker: one node is the whole hall, and its history lives as long as the process.
//!
//! Everything happens under one lock that is held for a few microseconds and never across anything that waits, so the
//! order of the calls is the order of the log, and deliveries reach the feed in that order, too.
//!
//! Memory is bounded three ways: a room keeps so many messages, a room in which nobody speaks is forgotten, and all rooms
//! together stay within one budget. Over budget the room that has been silent longest gives first: its oldest messages, then
//! the room itself. The room that was just written to gives last, and never the message it was written for. Who is in a room
//! is kept apart (`memory/roll.rs`), and bounded by the connections there are.

mod roll;

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::future::{self, BoxFuture};
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use self::roll::Roll;
use super::{
    Broker, BrokerError, Delivery, Entry, Feed, Head, History, Members, MembersAnswers, MembersCall, Publication,
    Range, Status, Whisper,
};
use crate::config::HistorySettings;
use crate::metrics::METRICS;
use crate::names::{RoomName, UserId};
use crate::position::{Epoch, Fork, Lineage, Offset, Position};

/// What a room costs besides its messages, roughly: its name, its maps, its place in the order of silence.
const ROOM_BYTES: usize = 640;
/// What a stored message costs besides its event.
const ENTRY_BYTES: usize = std::mem::size_of::<Entry>() + 16;
/// What a remembered message id costs besides the user's id, which is shared with nothing.
const SEEN_BYTES: usize = 96;

/// See the module documentation.
pub struct MemoryBroker {
    hall: Arc<Mutex<Hall>>,
    status: watch::Sender<Status>,
}

impl MemoryBroker {
    pub fn new(history: &HistorySettings, feed: Feed) -> Self {
        METRICS.broker_up.set(1.0);
        MemoryBroker {
            hall: Arc::new(Mutex::new(Hall::new(history.clone(), feed))),
            status: watch::Sender::new(Status::Up),
        }
    }

    fn hall(&self) -> MutexGuard<'_, Hall> {
        lock(&self.hall)
    }
}

/// Nothing under the lock leaves the hall half-changed, so a panic elsewhere is no reason to stop.
fn lock(hall: &Mutex<Hall>) -> MutexGuard<'_, Hall> {
    hall.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Broker for MemoryBroker {
    fn publish(&self, publication: Publication) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let position = self.hall().publish(publication, Instant::now());
        Box::pin(future::ready(Ok(position)))
    }

    fn history(&self, room: &RoomName, range: Range) -> BoxFuture<'static, Result<History, BrokerError>> {
        METRICS.history_reads.increment(1);
        let history = self.hall().history(room, range, Instant::now());
        Box::pin(future::ready(Ok(history)))
    }

    fn heads(&self, rooms: Vec<RoomName>) -> BoxFuture<'static, Result<Vec<Result<Head, BrokerError>>, BrokerError>> {
        let mut hall = self.hall();
        hall.forget_silent_rooms(Instant::now());
        METRICS.history_bytes.set(hall.bytes as f64);
        let heads = rooms.iter().map(|room| Ok(hall.head(room))).collect();
        Box::pin(future::ready(Ok(heads)))
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        let hall = self.hall.clone();
        let room = room.clone();
        Box::pin(async move {
            lock(&hall).wanted.insert(room);
            Ok(())
        })
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.hall().wanted.remove(room);
    }

    fn announce(&self, room: &RoomName, event: Bytes) -> BoxFuture<'static, ()> {
        let whisper = Whisper::Announced { room: room.clone(), event };
        self.hall().whisper(room, whisper);
        Box::pin(future::ready(()))
    }

    fn members(&self, calls: Vec<MembersCall>) -> BoxFuture<'static, MembersAnswers> {
        let mut hall = self.hall();
        let now = Instant::now();
        let answers = calls.iter().map(|call| Ok(hall.members(call, now))).collect();
        Box::pin(future::ready(Ok(answers)))
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }
}

/// Everything under the lock.
struct Hall {
    settings: HistorySettings,
    feed: Feed,
    rooms: HashMap<RoomName, Room>,
    /// Rooms by their last message, the longest silent first. The key is [`Room::turn`].
    silence: BTreeMap<u64, RoomName>,
    /// How many messages were stored in all rooms since the start.
    turns: u64,
    wanted: HashSet<RoomName>,
    /// Who is in the rooms in which somebody is.
    rolls: HashMap<RoomName, Roll>,
    /// What all rooms take.
    bytes: usize,
}

impl Hall {
    fn new(settings: HistorySettings, feed: Feed) -> Self {
        Hall {
            settings,
            feed,
            rooms: HashMap::new(),
            silence: BTreeMap::new(),
            turns: 0,
            wanted: HashSet::new(),
            rolls: HashMap::new(),
            bytes: 0,
        }
    }

    fn publish(&mut self, publication: Publication, now: Instant) -> Position {
        self.forget_silent_rooms(now);
        let name = publication.room.clone();
        let bytes = &mut self.bytes;
        let room = self.rooms.entry(name.clone()).or_insert_with(|| {
            *bytes += ROOM_BYTES;
            Room::new(now)
        });
        let before = room.bytes;
        let key = (publication.user, publication.id);
        room.seen.rotate(self.settings.dedupe, now, &mut room.bytes);
        if let Some(offset) = room.seen.offset_of(&key) {
            self.bytes = self.bytes + room.bytes - before;
            return room.position(offset);
        }

        let entry = room.append(publication.event, self.settings.messages);
        let position = room.position(entry.offset);
        if !self.settings.dedupe.is_zero() {
            room.seen.remember(key, entry.offset, &mut room.bytes);
        }
        room.spoken_at = now;
        self.turns += 1;
        self.silence.remove(&room.turn);
        room.turn = self.turns;
        self.silence.insert(self.turns, name.clone());
        self.bytes = self.bytes + room.bytes - before;

        if self.wanted.contains(&name) {
            self.feed.deliver(Delivery {
                room: name,
                position: position.clone(),
                at_ms: entry.at_ms,
                event: entry.event,
            });
        }
        self.keep_within_budget();
        METRICS.history_bytes.set(self.bytes as f64);
        position
    }

    fn whisper(&self, room: &RoomName, whisper: Whisper) {
        if self.wanted.contains(room) {
            self.feed.whisper(whisper);
        }
    }

    fn members(&mut self, call: &MembersCall, now: Instant) -> Members {
        let roll = self.rolls.entry(call.room.clone()).or_default();
        let (members, changed) = roll.call(call, now);
        if roll.is_empty() {
            self.rolls.remove(&call.room);
        }
        if changed {
            let whisper = Whisper::Members { room: call.room.clone(), version: members.version };
            self.whisper(&call.room, whisper);
        }
        members
    }

    fn history(&mut self, room: &RoomName, range: Range, now: Instant) -> History {
        self.forget_silent_rooms(now);
        let entries = self.rooms.get(room).map(|room| room.read(range));
        History { head: self.head(room), entries: entries.unwrap_or_default() }
    }

    fn head(&self, room: &RoomName) -> Head {
        match self.rooms.get(room) {
            Some(room) => Head { lineage: room.lineage.clone(), offset: room.head, oldest: room.oldest() },
            None => Head { lineage: Lineage::silent(), offset: 0, oldest: 1 },
        }
    }

    /// Done at every call that looks at rooms: what has expired is first in the order of silence, so this looks at one room
    /// more than it forgets.
    fn forget_silent_rooms(&mut self, now: Instant) {
        let ttl = self.settings.room_ttl;
        if ttl.is_zero() {
            return;
        }
        while let Some((_, name)) = self.silence.first_key_value() {
            let expired = self.rooms.get(name).is_none_or(|room| now.duration_since(room.spoken_at) >= ttl);
            if !expired {
                return;
            }
            self.forget_longest_silent();
        }
    }

    fn forget_longest_silent(&mut self) {
        if let Some((_, name)) = self.silence.pop_first()
            && let Some(room) = self.rooms.remove(&name)
        {
            self.bytes -= room.bytes + ROOM_BYTES;
        }
    }

    fn keep_within_budget(&mut self) {
        let budget = self.settings.budget;
        while budget > 0 && self.bytes > budget {
            let last_room = self.silence.len() == 1;
            let Some((_, name)) = self.silence.first_key_value() else {
                return;
            };
            let Some(room) = self.rooms.get_mut(name) else {
                return;
            };
            let before = room.bytes;
            if room.log.len() > usize::from(last_room) {
                room.drop_oldest();
            } else if !last_room {
                self.forget_longest_silent();
                continue;
            } else if !room.seen.forget_older(&mut room.bytes) {
                return;
            }
            self.bytes = self.bytes + room.bytes - before;
        }
    }
}

struct Room {
    lineage: Lineage,
    log: VecDeque<Entry>,
    head: Offset,
    /// When the newest message was stored; never goes back, whatever the clock does.
    at_ms: u64,
    seen: Seen,
    spoken_at: Instant,
    turn: u64,
    /// Messages and remembered ids.
    bytes: usize,
}

impl Room {
    /// A room whose first message is about to be stored.
    fn new(now: Instant) -> Self {
        Room {
            lineage: Lineage { epoch: Epoch::random(), forks: vec![Fork { epoch: Epoch::silent(), until: 0 }] },
            log: VecDeque::new(),
            head: 0,
            at_ms: 0,
            seen: Seen::new(now),
            spoken_at: now,
            turn: 0,
            bytes: 0,
        }
    }

    fn position(&self, offset: Offset) -> Position {
        Position { epoch: self.lineage.epoch.clone(), offset }
    }

    fn oldest(&self) -> Offset {
        self.head + 1 - self.log.len() as Offset
    }

    fn append(&mut self, event: bytes::Bytes, keep: usize) -> Entry {
        self.head += 1;
        self.at_ms = self.at_ms.max(unix_ms());
        let entry = Entry { offset: self.head, at_ms: self.at_ms, event };
        self.bytes += cost(&entry);
        self.log.push_back(entry.clone());
        while self.log.len() > keep.max(1) {
            self.drop_oldest();
        }
        entry
    }

    fn drop_oldest(&mut self) {
        if let Some(entry) = self.log.pop_front() {
            self.bytes -= cost(&entry);
        }
    }

    fn read(&self, range: Range) -> Vec<Entry> {
        let oldest = self.oldest();
        let index = |offset: Offset| {
            let index = offset.saturating_sub(oldest);
            usize::try_from(index).map_or(self.log.len(), |index| index.min(self.log.len()))
        };
        let (first, end) = match range {
            Range::Before { before, limit } => {
                let end = index(before);
                (end.saturating_sub(limit), end)
            }
            Range::From { first, limit } => {
                let first = index(first);
                (first, first.saturating_add(limit).min(self.log.len()))
            }
        };
        self.log.range(first..end).cloned().collect()
    }
}

fn cost(entry: &Entry) -> usize {
    ENTRY_BYTES + entry.event.len()
}

type MessageKey = (UserId, Uuid);

/// Which messages were stored, in two generations: an id is remembered for one to two times as long as asked, and forgetting
/// costs nothing a message.
struct Seen {
    newer: HashMap<MessageKey, Offset>,
    older: HashMap<MessageKey, Offset>,
    /// When `newer` was begun.
    since: Instant,
}

impl Seen {
    fn new(now: Instant) -> Self {
        Seen { newer: HashMap::new(), older: HashMap::new(), since: now }
    }

    fn offset_of(&self, key: &MessageKey) -> Option<Offset> {
        self.newer.get(key).or_else(|| self.older.get(key)).copied()
    }

    fn remember(&mut self, key: MessageKey, offset: Offset, bytes: &mut usize) {
        *bytes += seen_cost(&key);
        self.newer.insert(key, offset);
    }

    fn rotate(&mut self, dedupe: Duration, now: Instant, bytes: &mut usize) {
        let age = now.duration_since(self.since);
        if age < dedupe {
            return;
        }
        self.since = now;
        self.forget_older(bytes);
        self.older = std::mem::take(&mut self.newer);
        if age >= dedupe.saturating_mul(2) {
            self.forget_older(bytes);
        }
    }

    /// Whether there was anything to forget.
    fn forget_older(&mut self, bytes: &mut usize) -> bool {
        *bytes -= self.older.keys().map(seen_cost).sum::<usize>();
        !std::mem::take(&mut self.older).is_empty()
    }
}

fn seen_cost((user, _): &MessageKey) -> usize {
    SEEN_BYTES + user.as_str().len()
}

fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::feed;
    use bytes::Bytes;

    fn hall(settings: HistorySettings) -> Hall {
        Hall::new(settings, feed().0)
    }

    fn settings() -> HistorySettings {
        HistorySettings { messages: 1_000_000, room_ttl: Duration::ZERO, dedupe: Duration::from_secs(600), budget: 0 }
    }

    fn room(name: &str) -> RoomName {
        RoomName::parse(name).unwrap()
    }

    fn publication(name: &str, id: Uuid) -> Publication {
        Publication {
            room: room(name),
            user: UserId::new("u".into()),
            id,
            event: Bytes::from(format!("{{\"text\":\"{}\"}}", "x".repeat(1000))),
        }
    }

    fn say(hall: &mut Hall, name: &str, now: Instant) -> Position {
        hall.publish(publication(name, Uuid::new_v4()), now)
    }

    /// The sum that the budget is compared with is kept by hand; it must never drift from what is there.
    fn assert_books(hall: &Hall) {
        let room_bytes = |room: &Room| {
            let seen = room.seen.newer.keys().chain(room.seen.older.keys());
            room.log.iter().map(cost).sum::<usize>() + seen.map(seen_cost).sum::<usize>()
        };
        for room in hall.rooms.values() {
            assert_eq!(room.bytes, room_bytes(room));
        }
        let all = hall.rooms.values().map(|room| room.bytes + ROOM_BYTES);
        assert_eq!(hall.bytes, all.sum::<usize>());
        assert_eq!(hall.silence.len(), hall.rooms.len());
    }

    #[test]
    fn over_budget_the_longest_silent_room_gives_first() {
        let budget = 100_000;
        let mut hall = hall(HistorySettings { budget, ..settings() });
        let now = Instant::now();
        for _ in 0..20 {
            say(&mut hall, "old", now);
        }
        for _ in 0..20 {
            say(&mut hall, "middle", now);
        }
        for _ in 0..70 {
            say(&mut hall, "new", now);
            assert!(hall.bytes <= budget, "{} of {budget}", hall.bytes);
            assert_books(&hall);
        }
        assert!(!hall.rooms.contains_key(&room("old")));
        assert!(hall.rooms[&room("middle")].log.len() < 20);
        assert_eq!(hall.rooms[&room("new")].log.len(), 70);
    }

    #[test]
    fn the_last_room_is_trimmed_but_keeps_its_newest_message() {
        let mut hall = hall(HistorySettings { budget: 3_000, ..settings() });
        let now = Instant::now();
        for n in 1..=50 {
            assert_eq!(say(&mut hall, "only", now).offset, n);
            assert_books(&hall);
        }
        let head = hall.head(&room("only"));
        assert_eq!((head.offset, head.oldest), (50, 50));
    }

    #[test]
    fn an_id_is_remembered_for_the_time_asked_and_at_most_twice_that() {
        let mut hall = hall(settings());
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let ids: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
        let mut publish = |id: usize, after: u32| {
            let offset = hall.publish(publication("lobby", ids[id]), start + second * after).offset;
            assert_books(&hall);
            offset
        };
        assert_eq!(publish(0, 0), 1);
        assert_eq!(publish(1, 599), 2);
        assert_eq!(publish(0, 600), 1);
        assert_eq!(publish(1, 1198), 2);
        assert_eq!(publish(0, 1200), 3);
        assert_eq!(publish(2, 5000), 4);
        assert_eq!(publish(0, 5001), 5);
    }

    #[test]
    fn a_silent_room_is_forgotten_and_begins_a_new_epoch() {
        let ttl = Duration::from_secs(60);
        let mut hall = hall(HistorySettings { room_ttl: ttl, ..settings() });
        let start = Instant::now();
        let first = say(&mut hall, "quiet", start);
        say(&mut hall, "loud", start + ttl / 2);
        say(&mut hall, "loud", start + ttl);
        assert_books(&hall);
        assert_eq!(hall.head(&room("quiet")).lineage, Lineage::silent());
        assert_eq!(hall.head(&room("loud")).offset, 2);
        let second = say(&mut hall, "quiet", start + ttl);
        assert_eq!(second.offset, 1);
        assert_ne!(first.epoch, second.epoch);
    }
}
