//! The hot path: one delivery loop per worker.
//!
//! Waking a task per connection costs more than writing to its socket, so the loop writes to the members of a room in turn.
//! It serves only those who are up to date: at a room's bell it takes one snapshot of what is new, and tries to write it to
//! every member whose writing it owns, some members at a time, rooms in turn. Whoever is behind, or whose socket is full, is handed to the connection's own task,
//! and comes back when it has caught up (see `outgoing.rs`, which says who owns what).

use std::collections::{HashMap, VecDeque};
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use indexmap::IndexMap;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::encoding::Encoding;
use crate::log::Seq;
use crate::metrics::{METRICS, Sent};
use crate::outgoing::{ConnectionId, Outgoing};
use crate::room::{News, Room};
use crate::vital::vital;

/// After as many members the loop lets others have its thread, and another room its turn.
const TURN: usize = 128;
/// As many comings and goings may wait.
const CHANGES: usize = 4096;

/// The handle of a delivery loop.
#[derive(Debug, Clone)]
pub struct Worker {
    changes: mpsc::Sender<Change>,
    rung: Arc<Rung>,
}

/// The rooms that have something new for a loop, each at most once.
#[derive(Debug, Default)]
struct Rung {
    rooms: Mutex<Vec<Arc<Room>>>,
    bell: Notify,
}

#[derive(Debug)]
enum Change {
    Came(Arc<Room>, Arc<Outgoing>),
    Went(Arc<Room>, ConnectionId),
}

impl Worker {
    /// Starts a loop; it is the `index`th of this node, and ends with `stop`.
    pub fn start(index: usize, stop: CancellationToken) -> Self {
        let (changes, receiver) = mpsc::channel(CHANGES);
        let rung = Arc::new(Rung::default());
        let mut delivery =
            Loop { index, changes: receiver, rung: rung.clone(), audiences: HashMap::new(), passing: VecDeque::new() };
        vital("a delivery loop", async move {
            tokio::select! {
                () = delivery.run() => {}
                () = stop.cancelled() => {}
            }
        });
        Worker { changes, rung }
    }

    /// `room` has something new.
    pub fn ring(&self, room: Arc<Room>) {
        self.rung.rooms.lock().unwrap_or_else(PoisonError::into_inner).push(room);
        self.rung.bell.notify_one();
    }

    /// From now on the loop serves this member.
    pub async fn came(&self, room: Arc<Room>, member: Arc<Outgoing>) {
        let _ = self.changes.send(Change::Came(room, member)).await;
    }

    /// And from now on no longer.
    pub async fn went(&self, room: Arc<Room>, member: ConnectionId) {
        let _ = self.changes.send(Change::Went(room, member)).await;
    }
}

struct Loop {
    index: usize,
    changes: mpsc::Receiver<Change>,
    rung: Arc<Rung>,
    audiences: HashMap<RoomKey, Audience>,
    /// The rooms with a pass under way, in turn: a hall of ten thousand keeps no room of five waiting.
    passing: VecDeque<RoomKey>,
}

/// The address of a room, which lives as long as its entry.
type RoomKey = usize;

fn key(room: &Arc<Room>) -> RoomKey {
    Arc::as_ptr(room) as RoomKey
}

/// A room's members whom this loop serves.
struct Audience {
    room: Arc<Room>,
    /// By encoding.
    members: [IndexMap<ConnectionId, Arc<Outgoing>>; Encoding::COUNT],
    /// Whoever is up to date has all records before this one, and was told all whispers before that.
    served: Seq,
    whispered: Seq,
    pass: Option<Pass>,
    /// The bell rang during the pass; it is not heard before the next one.
    again: bool,
}

/// What is new, on its way to everybody who is up to date.
struct Pass {
    news: News,
    /// Which members are next: those of this encoding, from this index on.
    encoding: Encoding,
    next: usize,
    /// The news in that encoding.
    slices: Vec<Bytes>,
    sent: Sent,
}

impl Loop {
    async fn run(&mut self) {
        let rung = self.rung.clone();
        loop {
            if self.passing.is_empty() {
                tokio::select! {
                    change = self.changes.recv() => match change {
                        Some(change) => self.take(change),
                        None => return,
                    },
                    () = rung.bell.notified() => {}
                }
            } else {
                tokio::task::yield_now().await;
            }
            while let Ok(change) = self.changes.try_recv() {
                self.take(change);
            }
            let rooms = std::mem::take(&mut *rung.rooms.lock().unwrap_or_else(PoisonError::into_inner));
            for room in rooms {
                self.hear(&room);
            }
            self.serve();
        }
    }

    fn hear(&mut self, room: &Arc<Room>) {
        match self.audiences.get_mut(&key(room)) {
            None => room.heard(self.index),
            Some(audience) if audience.pass.is_some() => audience.again = true,
            Some(audience) => {
                audience.begin(self.index);
                self.passing.push_back(key(room));
            }
        }
    }

    /// Serves so many members, of the rooms in turn.
    fn serve(&mut self) {
        let now = Instant::now();
        let mut left = TURN;
        while left > 0
            && let Some(room) = self.passing.pop_front()
        {
            let Some(audience) = self.audiences.get_mut(&room) else { continue };
            left -= audience.serve(left, now);
            if audience.pass.is_none() && std::mem::take(&mut audience.again) {
                audience.begin(self.index);
            }
            if audience.pass.is_some() {
                self.passing.push_back(room);
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Came(room, member) => {
                let audience = self.audiences.entry(key(&room)).or_insert_with(|| Audience::of(room));
                audience.members[member.encoding as usize].insert(member.id, member.clone());
                // Whatever was served before this moment passed it by.
                member.nudge();
            }
            Change::Went(room, member) => {
                let Some(audience) = self.audiences.get_mut(&key(&room)) else { return };
                audience.forget(member);
                if audience.members.iter().all(IndexMap::is_empty) {
                    self.audiences.remove(&key(&room));
                    room.heard(self.index);
                }
            }
        }
    }
}

impl Audience {
    fn of(room: Arc<Room>) -> Self {
        let (served, whispered) = room.with_whispers(|log, whispers| (log.end(), whispers.end()));
        Audience { room, members: Default::default(), served, whispered, pass: None, again: false }
    }

    fn begin(&mut self, index: usize) {
        self.room.heard(index);
        let news = self.room.news(self.served, self.whispered);
        (self.served, self.whispered) = (news.batch.to, news.whispers.to);
        self.pass = Some(Pass::new(news));
    }

    /// Writes what is new to the next `most` members that are up to date; to how many.
    fn serve(&mut self, most: usize, now: Instant) -> usize {
        let mut served = 0;
        while let Some(pass) = &mut self.pass {
            let members = &self.members[pass.encoding as usize];
            let part = members.as_slice().get_range(pass.next..members.len().min(pass.next + most - served));
            let part = part.unwrap_or_default();
            pass.write(&self.room, part.values(), now);
            served += part.len();
            if pass.next < members.len() {
                break;
            }
            if !pass.turn_to_next_encoding() {
                self.pass = None;
            }
        }
        served
    }

    fn forget(&mut self, member: ConnectionId) {
        for members in &mut self.members {
            if let Some((index, ..)) = members.swap_remove_full(&member)
                && let Some((_, moved)) = members.get_index(index)
                && self.pass.is_some()
            {
                // A pass that has been here does not come again.
                moved.nudge();
            }
        }
    }
}

impl Pass {
    fn new(news: News) -> Self {
        let [first, ..] = Encoding::ALL;
        Pass { encoding: first, next: 0, slices: slices(&news, first), sent: Sent::default(), news }
    }

    fn write<'a>(&mut self, room: &Arc<Room>, members: impl Iterator<Item = &'a Arc<Outgoing>>, now: Instant) {
        let vector: Vec<_> = self.slices.iter().map(|slice| IoSlice::new(slice)).collect();
        for member in members {
            self.sent.add(member.serve(room, &self.news, &vector, now));
            self.next += 1;
        }
    }

    /// False: there is none.
    fn turn_to_next_encoding(&mut self) -> bool {
        let sent = std::mem::take(&mut self.sent);
        if sent.bytes > 0 {
            METRICS.sent_bytes.increment(sent.bytes);
        }
        if sent.writes > 0 {
            METRICS.sent(self.encoding, sent);
            METRICS.delivery_seconds.record(seconds_since(self.news.batch.newest_ms));
        }
        let Some(next) = Encoding::ALL.get(self.encoding as usize + 1) else { return false };
        self.encoding = *next;
        self.next = 0;
        self.slices = slices(&self.news, self.encoding);
        true
    }
}

/// All that is new for whoever is up to date.
fn slices(news: &News, encoding: Encoding) -> Vec<Bytes> {
    let mut slices = news.batch.slices(encoding, news.batch.from);
    if encoding.hears_whispers() {
        slices.extend_from_slice(&news.whispers.frames);
    }
    slices
}

/// How long ago it was `at_ms` by the broker's clock, which is Unix time.
fn seconds_since(at_ms: u64) -> f64 {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    now_ms.saturating_sub(at_ms) as f64 / 1000.0
}

#[cfg(test)]
mod tests;
