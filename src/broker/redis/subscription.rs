//! Which rooms this node listens to, and what it hears.
//!
//! The hub says which rooms it wants; the link to a room's server, alone, brings its connection in line with that: it takes
//! the [`Changes`], sends them, and says which rooms are heard. So a room that is let go and wanted again at once, or wanted
//! while the connection is replaced or the room moves to another server, ends as it was wanted last.
//!
//! What arrives is parsed inside the connection's reader and goes into the feed, which is bounded and never waits.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::{PushInfo, PushKind, Value};
use bytes::Bytes;
use tokio::sync::watch;

use super::functions::{self, BadLine, Library};
use super::routes::Routes;
use super::shard::{Shard, ShardId};
use crate::broker::Feed;
use crate::names::RoomName;

/// How many rooms are taken care of in one round trip.
const AT_ONCE: usize = 512;

pub(super) struct Rooms {
    library: Arc<Library>,
    routes: Arc<Routes>,
    feed: Feed,
    state: Mutex<State>,
    /// Rung when rooms have come to be heard.
    heard: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    rooms: HashMap<RoomName, Ear>,
    /// Rooms whose `wanted` and `heard` may differ, by the server that has them.
    dirty: HashMap<Option<ShardId>, HashSet<RoomName>>,
}

#[derive(Default)]
struct Ear {
    wanted: bool,
    /// The server that has the room.
    shard: Option<ShardId>,
    /// It confirmed that our connection gets the room's messages.
    heard: bool,
    /// It was heard before, maybe elsewhere: what came in between is missing.
    again: bool,
    /// It was said in the log that the room has messages which cannot be read; once is enough.
    complained: bool,
}

/// What is to be sent next.
#[derive(Default)]
pub(super) struct Changes {
    pub open: Vec<RoomName>,
    pub close: Vec<RoomName>,
}

impl Changes {
    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.close.is_empty()
    }
}

impl State {
    fn doubt(&mut self, room: &RoomName, shard: Option<ShardId>) {
        self.dirty.entry(shard).or_default().insert(room.clone());
    }

    fn remove(&mut self, room: &RoomName, shard: Option<ShardId>) {
        self.rooms.remove(room);
        if let Some(dirty) = self.dirty.get_mut(&shard) {
            dirty.remove(room);
        }
    }
}

impl Rooms {
    pub fn new(library: Arc<Library>, routes: Arc<Routes>, feed: Feed) -> Self {
        Rooms { library, routes, feed, state: Mutex::default(), heard: watch::Sender::new(()) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when the room is heard. Whoever stops waiting no longer wants it.
    pub async fn want(&self, room: &RoomName) {
        let mut heard = self.heard.subscribe();
        if self.mark(room, true) {
            return;
        }
        let mut unless_heard = Forget { rooms: self, room: Some(room) };
        loop {
            // The sender lives as long as `self`.
            let _ = heard.changed().await;
            if self.state().rooms.get(room).is_some_and(|ear| ear.heard) {
                unless_heard.room = None;
                return;
            }
        }
    }

    pub fn forget(&self, room: &RoomName) {
        self.mark(room, false);
    }

    /// Whether the room is heard already.
    fn mark(&self, room: &RoomName, wanted: bool) -> bool {
        let mut state = self.state();
        // Looked up under the lock, so that `moved` comes before all of this or after it.
        let owner = self.routes.owner(room);
        let ear = state
            .rooms
            .entry(room.clone())
            .or_insert_with(|| Ear { shard: owner.as_ref().map(|owner| owner.id), ..Ear::default() });
        ear.wanted = wanted;
        let (heard, shard) = (ear.heard, ear.shard);
        if heard != wanted {
            state.doubt(room, shard);
            drop(state);
            if let Some(owner) = owner {
                owner.rooms_changed.notify_one();
            }
        } else if !wanted {
            // There may be no server that would ever look at it. If one is about to confirm it, it is closed again.
            state.remove(room, shard);
        }
        heard
    }

    /// Takes some of the changes at one server; to be asked again until there are none.
    pub fn next_changes(&self, shard: &Shard) -> Changes {
        let mut state = self.state();
        let state = &mut *state;
        let mut changes = Changes::default();
        let Some(dirty) = state.dirty.get_mut(&Some(shard.id)) else { return changes };
        let taken: Vec<RoomName> = dirty.iter().take(AT_ONCE).cloned().collect();
        for room in taken {
            dirty.remove(&room);
            let Some(ear) = state.rooms.get_mut(&room) else {
                continue;
            };
            match (ear.wanted, ear.heard) {
                (true, false) => changes.open.push(room),
                (false, true) => {
                    state.rooms.remove(&room);
                    changes.close.push(room);
                }
                (false, false) => drop(state.rooms.remove(&room)),
                (true, true) => {}
            }
        }
        changes
    }

    /// The server confirmed these rooms.
    pub fn confirm<'a>(&self, opened: impl Iterator<Item = &'a RoomName>, shard: &Shard) {
        let mut state = self.state();
        let mut missed = false;
        for room in opened {
            let Some(ear) = state.rooms.get_mut(room).filter(|ear| ear.shard == Some(shard.id)) else {
                // It was let go meanwhile, or is elsewhere by now: close it again, if it is still here.
                let ear = Ear { shard: Some(shard.id), heard: true, ..Ear::default() };
                if !state.rooms.contains_key(room) {
                    state.rooms.insert(room.clone(), ear);
                    state.doubt(room, Some(shard.id));
                    shard.rooms_changed.notify_one();
                }
                continue;
            };
            ear.heard = true;
            missed |= std::mem::replace(&mut ear.again, true);
            if !ear.wanted {
                state.doubt(room, Some(shard.id));
                shard.rooms_changed.notify_one();
            }
        }
        drop(state);
        if missed {
            self.gapped();
        }
        self.heard.send_replace(());
    }

    /// The server would not have these rooms, though it has them as far as we know: to be tried again.
    pub fn refused(&self, rooms: &[RoomName], shard: &Shard) {
        let mut state = self.state();
        for room in rooms {
            if state.rooms.get(room).is_some_and(|ear| ear.wanted && ear.shard == Some(shard.id)) {
                state.doubt(room, Some(shard.id));
            }
        }
    }

    /// The connection to a server is gone: nothing is heard of its rooms. When there is another one with all of them, its link
    /// says that something may be missing.
    pub fn deaf(&self, shard: &Shard) {
        let mut state = self.state();
        let state = &mut *state;
        state.rooms.retain(|_, ear| ear.wanted || ear.shard != Some(shard.id));
        let here = state.rooms.iter_mut().filter(|(_, ear)| ear.shard == Some(shard.id));
        let dirty = here.map(|(room, ear)| {
            (ear.heard, ear.again) = (false, false);
            room.clone()
        });
        let dirty = dirty.collect();
        state.dirty.insert(Some(shard.id), dirty);
    }

    /// Rooms may be at other servers now.
    pub fn moved(&self) {
        let mut state = self.state();
        let State { rooms, dirty } = &mut *state;
        rooms.retain(|room, ear| {
            let owner = self.routes.owner(room);
            let shard = owner.as_ref().map(|owner| owner.id);
            if ear.shard == shard {
                return true;
            }
            if let Some(dirty) = dirty.get_mut(&ear.shard) {
                dirty.remove(room);
            }
            (ear.shard, ear.heard, ear.again) = (shard, false, true);
            // One that is not wanted was closed by the server that had it.
            if ear.wanted {
                dirty.entry(shard).or_default().insert(room.clone());
            }
            if let Some(owner) = owner.filter(|_| ear.wanted) {
                owner.rooms_changed.notify_one();
            }
            ear.wanted
        });
        let shards = self.routes.shards();
        let is_ours = |id: &Option<ShardId>| id.is_none_or(|id| shards.iter().any(|shard| shard.id == id));
        dirty.retain(|id, _| is_ours(id));
    }

    /// A server has stopped listening for us: the room's slot is elsewhere, unless we wanted that.
    fn dropped(&self, room: &RoomName) {
        let mut state = self.state();
        let Some(ear) = state.rooms.get_mut(room) else { return };
        if ear.wanted && std::mem::take(&mut ear.heard) {
            let shard = ear.shard;
            state.doubt(room, shard);
            drop(state);
            self.routes.stale.notify_one();
            if let Some(owner) = self.routes.owner(room) {
                owner.rooms_changed.notify_one();
            }
        }
    }

    /// Deliveries may have been lost.
    pub fn gapped(&self) {
        self.feed.gapped();
    }

    /// Hands what was published on to the hub. The answer is what came on a channel that is no room's.
    pub fn hear(&self, push: PushInfo) -> Option<Bytes> {
        match push.kind {
            PushKind::Message | PushKind::SMessage => {}
            PushKind::SUnsubscribe => {
                if let Some(Value::BulkString(channel)) = push.data.first()
                    && let Some(room) = self.library.room_of(channel)
                {
                    self.dropped(&room);
                }
                return None;
            }
            _ => return None,
        }
        let [channel, payload] = <[Value; 2]>::try_from(push.data).ok()?;
        let (Value::BulkString(channel), Value::BulkString(payload)) = (channel, payload) else {
            return None;
        };
        let Some(room) = self.library.room_of(&channel) else {
            return Some(payload.into());
        };
        if self.state().rooms.get(&room).is_some_and(|ear| ear.wanted) {
            self.deliver(&room, payload.into());
        }
        None
    }

    fn deliver(&self, room: &RoomName, payload: Bytes) {
        for heard in functions::deliveries(room, &payload) {
            match heard {
                Ok(heard) => self.feed.hear(heard),
                Err(bad) => self.complain(room, bad),
            }
        }
    }

    fn complain(&self, room: &RoomName, bad: BadLine) {
        let mut state = self.state();
        let Some(ear) = state.rooms.get_mut(room) else {
            return;
        };
        if std::mem::replace(&mut ear.complained, true) {
            return;
        }
        drop(state);
        match bad {
            BadLine::Format => tracing::error!(
                %room, "a newer townhall writes to this room in a format that this version cannot read"
            ),
            BadLine::Garbage => tracing::warn!(
                %room, "something that is not townhall publishes on this room's channel in Redis; it is dropped"
            ),
        }
    }
}

/// Takes a wish back, unless it came true.
struct Forget<'a> {
    rooms: &'a Rooms,
    room: Option<&'a RoomName>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(room) = self.room {
            self.rooms.forget(room);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::{hint, thread};

    use ::redis::Client;
    use futures::FutureExt;

    use super::super::servers::Place;
    use super::*;
    use crate::broker::feed;
    use crate::config::HistorySettings;

    /// Enough for two threads to meet within a few instructions.
    const ROUNDS: usize = 200;

    /// Rooms of a cluster in which nobody has anything yet.
    fn rooms() -> (Rooms, Arc<Routes>) {
        let library = Arc::new(Library::new("townhall", 0, true, &HistorySettings::default()));
        let routes = Arc::new(Routes::new());
        (Rooms::new(library, routes.clone(), feed().0), routes)
    }

    /// One that nobody connects to.
    fn shard(name: &str) -> Arc<Shard> {
        Arc::new(Shard::new(name.into(), Place::Fixed(Client::open("redis://127.0.0.1:1").unwrap())))
    }

    fn move_to(rooms: &Rooms, routes: &Routes, shard: Option<&Arc<Shard>>) {
        routes.change(vec![shard.cloned()]).now_or_never().expect("nothing is under way");
        rooms.moved();
    }

    fn takes_no_memory(rooms: &Rooms) -> bool {
        let state = rooms.state();
        state.rooms.is_empty() && state.dirty.values().all(HashSet::is_empty)
    }

    #[test]
    fn a_room_that_nobody_wants_any_more_takes_no_memory_though_it_has_no_server() {
        let (rooms, routes) = rooms();
        let lobby = RoomName::lobby();
        assert_eq!(rooms.want(&lobby).now_or_never(), None);
        assert!(takes_no_memory(&rooms), "it was given up");

        let one = shard("one");
        rooms.mark(&lobby, true);
        move_to(&rooms, &routes, Some(&one));
        assert_eq!(rooms.next_changes(&one).open, std::slice::from_ref(&lobby));
        rooms.confirm([&lobby].into_iter(), &one);
        rooms.forget(&lobby);
        move_to(&rooms, &routes, None);
        assert!(takes_no_memory(&rooms), "its server closes it by itself");
    }

    #[test]
    fn a_room_that_is_wanted_while_rooms_move_is_asked_for_where_it_is_then() {
        let (rooms, routes) = rooms();
        let lobby = RoomName::lobby();
        for _ in 0..ROUNDS {
            let (one, other) = (shard("one"), shard("other"));
            move_to(&rooms, &routes, Some(&one));
            let wanting = AtomicBool::new(false);
            thread::scope(|scope| {
                let state = rooms.state();
                let wanted = scope.spawn(|| {
                    wanting.store(true, Ordering::Release);
                    rooms.mark(&lobby, true)
                });
                while !wanting.load(Ordering::Acquire) {
                    thread::yield_now();
                }
                // It has looked by now where the room is, if it looks without the lock that is held here.
                (0..1000).for_each(|_| hint::spin_loop());
                routes.change(vec![Some(other.clone())]).now_or_never().expect("nothing is under way");
                drop(state);
                rooms.moved();
                assert_eq!(wanted.join().ok(), Some(false));
            });
            assert_eq!(rooms.next_changes(&other).open, std::slice::from_ref(&lobby));
            rooms.forget(&lobby);
        }
    }
}
