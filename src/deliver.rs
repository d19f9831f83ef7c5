//! The hot path: one delivery loop per worker.
//!
//! Waking a task per connection costs more than writing to its socket, so the loop writes to the members of a room in turn.
//! It serves only those who are up to date: at a room's bell it goes from row to row of the room's members, takes a snapshot of
//! what is new for the row, and tries to write it to every member whose writing it owns; rooms in turn. Whoever is behind, or
//! whose socket is full, is handed to the connection's own task, and comes back when it has caught up (see `outgoing.rs`, which
//! says who owns what).

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

/// After as many members, which are a row, the loop lets others have its thread, and another room its turn.
const TURN: usize = 64;
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

/// A room's members whom this loop serves, in rows of [`TURN`].
struct Audience {
    room: Arc<Room>,
    /// By encoding.
    members: [IndexMap<ConnectionId, Arc<Outgoing>>; Encoding::COUNT],
    /// How far each row of them is.
    marks: [Vec<Mark>; Encoding::COUNT],
    /// The next row of the pass that is under way.
    next: Option<(Encoding, usize)>,
    /// The bell rang during the pass; rows that it had been at have not heard.
    again: bool,
}

/// How far those of a row are who are up to date: they have all records before one, and were told all whispers before one. What
/// is said while a pass is at the first rows goes out to the last ones with that pass.
struct Mark {
    served: Seq,
    whispered: Seq,
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
            Some(audience) if audience.next.is_some() => audience.again = true,
            Some(audience) => {
                audience.begin(self.index);
                self.passing.push_back(key(room));
            }
        }
    }

    /// Serves about so many members, row by row, of the rooms in turn.
    fn serve(&mut self) {
        let now = Instant::now();
        let mut left = TURN;
        while left > 0
            && let Some(room) = self.passing.pop_front()
        {
            let Some(audience) = self.audiences.get_mut(&room) else { continue };
            left = left.saturating_sub(audience.serve(now).max(1));
            if audience.next.is_none() && std::mem::take(&mut audience.again) {
                audience.begin(self.index);
            }
            if audience.next.is_some() {
                self.passing.push_back(room);
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Came(room, member) => {
                let audience = self.audiences.entry(key(&room)).or_insert_with(|| Audience::of(room));
                audience.seat(member.clone());
                // Whatever was served before this moment passed it by.
                member.nudge();
            }
            Change::Went(room, member) => {
                let Some(audience) = self.audiences.get_mut(&key(&room)) else { return };
                audience.forget(member);
                if audience.is_empty() {
                    self.audiences.remove(&key(&room));
                    room.heard(self.index);
                }
            }
        }
    }
}

impl Audience {
    fn of(room: Arc<Room>) -> Self {
        Audience { room, members: Default::default(), marks: Default::default(), next: None, again: false }
    }

    fn seat(&mut self, member: Arc<Outgoing>) {
        let (members, marks) = (&mut self.members[member.encoding as usize], &mut self.marks[member.encoding as usize]);
        members.insert(member.id, member);
        if marks.len() * TURN < members.len() {
            marks.push(Mark::of(&self.room));
        }
    }

    fn forget(&mut self, member: ConnectionId) {
        for (members, marks) in self.members.iter_mut().zip(&mut self.marks) {
            let Some((index, ..)) = members.swap_remove_full(&member) else { continue };
            marks.truncate(members.len().div_ceil(TURN));
            // Whoever takes the seat may have been before the pass and be behind it now.
            if let Some((_, moved)) = members.get_index(index)
                && self.next.is_some()
            {
                moved.nudge();
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.members.iter().all(IndexMap::is_empty)
    }

    fn begin(&mut self, index: usize) {
        self.room.heard(index);
        self.next = self.first_of(&Encoding::ALL);
    }

    fn first_of(&self, encodings: &[Encoding]) -> Option<(Encoding, usize)> {
        let has_members = |encoding: &&Encoding| !self.members[**encoding as usize].is_empty();
        encodings.iter().find(has_members).map(|encoding| (*encoding, 0))
    }

    /// Serves the next row; to how many members.
    fn serve(&mut self, now: Instant) -> usize {
        let Some((encoding, row)) = self.next else { return 0 };
        let members = &self.members[encoding as usize];
        let (from, to) = (row * TURN, members.len().min((row + 1) * TURN));
        let part = members.as_slice().get_range(from..to).unwrap_or_default();
        if let Some(mark) = self.marks[encoding as usize].get_mut(row) {
            mark.serve(&self.room, encoding, part.values(), now);
        }
        let is_last = to == members.len();
        let served = part.len();
        self.next =
            if is_last { self.first_of(&Encoding::ALL[encoding as usize + 1..]) } else { Some((encoding, row + 1)) };
        served
    }
}

impl Mark {
    fn of(room: &Room) -> Self {
        let (served, whispered) = room.with_whispers(|log, whispers| (log.end(), whispers.end()));
        Mark { served, whispered }
    }

    /// Writes what is new to all of the row who are up to date.
    fn serve<'a>(
        &mut self,
        room: &Arc<Room>,
        encoding: Encoding,
        members: impl Iterator<Item = &'a Arc<Outgoing>>,
        now: Instant,
    ) {
        let news = room.news(self.served, self.whispered);
        (self.served, self.whispered) = (news.batch.to, news.whispers.to);
        let slices = slices(&news, encoding);
        let vector: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let mut sent = Sent::default();
        for member in members {
            sent.add(member.serve(room, &news, &vector, now));
        }
        count(encoding, sent, news.batch.newest_ms);
    }
}

/// Once a row, however many members and messages it was.
fn count(encoding: Encoding, sent: Sent, newest_ms: u64) {
    if sent.bytes > 0 {
        METRICS.sent_bytes.increment(sent.bytes);
    }
    if sent.writes > 0 {
        METRICS.sent(encoding, sent);
        METRICS.delivery_seconds.record(seconds_since(newest_ms));
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
