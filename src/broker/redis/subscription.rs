//! Which rooms this node listens to, and what it hears.
//!
//! The hub says which rooms it wants; the link's task, alone, brings the connection in line with that: it takes the
//! [`Changes`], sends them, and says which rooms are heard. So a room that is let go and wanted again at once, or wanted while
//! the connection is replaced, ends as it was wanted last.
//!
//! What arrives is parsed inside the connection's reader and goes into the feed, which is bounded and never waits.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::{PushInfo, PushKind, Value};
use bytes::Bytes;
use tokio::sync::{Notify, watch};

use super::functions::{self, BadLine, Library};
use crate::broker::Feed;
use crate::names::RoomName;

/// How many rooms one `SUBSCRIBE` names.
const AT_ONCE: usize = 512;

pub(super) struct Rooms {
    library: Arc<Library>,
    feed: Feed,
    state: Mutex<State>,
    /// Rung when there are changes to make.
    changed: Notify,
    /// Rung when rooms have come to be heard.
    heard: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    rooms: HashMap<RoomName, Ear>,
    /// Rooms whose `wanted` and `heard` may differ.
    dirty: HashSet<RoomName>,
}

#[derive(Default)]
struct Ear {
    wanted: bool,
    /// Redis confirmed that this connection gets the room's messages.
    heard: bool,
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

impl Rooms {
    pub fn new(library: Arc<Library>, feed: Feed) -> Self {
        Rooms { library, feed, state: Mutex::default(), changed: Notify::new(), heard: watch::Sender::new(()) }
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
        let ear = state.rooms.entry(room.clone()).or_default();
        ear.wanted = wanted;
        let heard = ear.heard;
        if heard != wanted {
            state.dirty.insert(room.clone());
            drop(state);
            self.changed.notify_one();
        } else if !wanted {
            // Neither wanted nor heard: the next look at the changes removes it.
            state.dirty.insert(room.clone());
        }
        heard
    }

    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Takes some of the changes; to be asked again until there are none.
    pub fn next_changes(&self) -> Changes {
        let mut state = self.state();
        let state = &mut *state;
        let mut changes = Changes::default();
        let taken: Vec<RoomName> = state.dirty.iter().take(AT_ONCE).cloned().collect();
        for room in taken {
            state.dirty.remove(&room);
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

    /// Redis confirmed these rooms.
    pub fn confirm(&self, opened: &[RoomName]) {
        let mut state = self.state();
        for room in opened {
            let ear = state.rooms.entry(room.clone()).or_default();
            ear.heard = true;
            if !ear.wanted {
                // It was let go meanwhile.
                state.dirty.insert(room.clone());
                self.changed.notify_one();
            }
        }
        drop(state);
        self.heard.send_replace(());
    }

    /// The connection is gone: nothing is heard.
    pub fn deaf(&self) {
        let mut state = self.state();
        state.rooms.retain(|_, ear| ear.wanted);
        state.rooms.values_mut().for_each(|ear| ear.heard = false);
        state.dirty = state.rooms.keys().cloned().collect();
    }

    /// Deliveries may have been lost.
    pub fn gapped(&self) {
        self.feed.gapped();
    }

    pub fn channel(&self, room: &RoomName) -> String {
        self.library.channel(room)
    }

    /// Hands what was published on to the hub. The answer is what came on a channel that is no room's.
    pub fn hear(&self, push: PushInfo) -> Option<(Bytes, Bytes)> {
        if push.kind != PushKind::Message {
            return None;
        }
        let [channel, payload] = <[Value; 2]>::try_from(push.data).ok()?;
        let (Value::BulkString(channel), Value::BulkString(payload)) = (channel, payload) else {
            return None;
        };
        let Some(room) = self.library.room_of(&channel) else {
            return Some((channel.into(), payload.into()));
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
