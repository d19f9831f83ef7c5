//! The hot path: one delivery loop per worker.
//!
//! Waking a task per connection costs more than writing to its socket, so the loop writes to the members of a room in turn.
//! It serves only those who are up to date: at a room's bell it takes one snapshot of what is new, and tries to write it to
//! every member whose writing it owns. Whoever is behind, or whose socket is full, is handed to the connection's own task,
//! and comes back when it has caught up (see `outgoing.rs`, which says who owns what).

use std::collections::HashMap;
use std::io::IoSlice;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use indexmap::IndexMap;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::encoding::Encoding;
use crate::log::Seq;
use crate::metrics::{METRICS, Sent};
use crate::outgoing::{ConnectionId, Outgoing};
use crate::room::Room;

/// After as many members the loop lets others have its thread.
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
        let mut delivery = Loop { index, changes: receiver, rung: rung.clone(), audiences: HashMap::new() };
        tokio::spawn(async move {
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
    /// Whoever is up to date has all records before this one.
    served: Seq,
}

impl Loop {
    async fn run(&mut self) {
        let rung = self.rung.clone();
        loop {
            tokio::select! {
                change = self.changes.recv() => match change {
                    Some(change) => self.take(change),
                    None => return,
                },
                () = rung.bell.notified() => {}
            }
            let rooms = std::mem::take(&mut *rung.rooms.lock().unwrap_or_else(PoisonError::into_inner));
            for room in rooms {
                while let Ok(change) = self.changes.try_recv() {
                    self.take(change);
                }
                room.heard(self.index);
                if let Some(audience) = self.audiences.get_mut(&key(&room)) {
                    audience.serve().await;
                }
            }
        }
    }

    fn take(&mut self, change: Change) {
        match change {
            Change::Came(room, member) => {
                let audience = self.audiences.entry(key(&room)).or_insert_with(|| Audience {
                    served: room.with_log(|log| log.end()),
                    room,
                    members: Default::default(),
                });
                audience.members[member.encoding as usize].insert(member.id, member.clone());
                // Whatever was served before this moment passed it by.
                member.nudge();
            }
            Change::Went(room, member) => {
                let Some(audience) = self.audiences.get_mut(&key(&room)) else { return };
                for members in &mut audience.members {
                    members.swap_remove(&member);
                }
                if audience.members.iter().all(IndexMap::is_empty) {
                    self.audiences.remove(&key(&room));
                }
            }
        }
    }
}

impl Audience {
    /// Writes what is new to everybody who is up to date.
    async fn serve(&mut self) {
        let news = self.room.with_log(|log| log.snapshot(self.served));
        let now = Instant::now();
        for encoding in Encoding::ALL {
            let members = &self.members[encoding as usize];
            if members.is_empty() {
                continue;
            }
            let slices = news.slices(encoding, news.from);
            let vector: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            let mut sent = Sent::default();
            for (i, member) in members.values().enumerate() {
                sent.add(member.serve(&self.room, &news, &vector, now));
                if i % TURN == TURN - 1 {
                    tokio::task::yield_now().await;
                }
            }
            if sent.writes > 0 {
                METRICS.sent(encoding, sent);
                METRICS.sent_bytes.increment(sent.bytes);
                METRICS.delivery_seconds.record(seconds_since(news.newest_ms));
            }
        }
        self.served = news.to;
    }
}

/// How long ago it was `at_ms` by the broker's clock, which is Unix time.
fn seconds_since(at_ms: u64) -> f64 {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
    now_ms.saturating_sub(at_ms) as f64 / 1000.0
}
