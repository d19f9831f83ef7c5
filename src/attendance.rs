//! Who is in this node's rooms: the rolls of `presence.rs` with everything around them that waits.
//!
//! An [`Attendance`] is a connection's being in a room. One task talks to the broker: it takes the rolls that are due, makes one
//! call for all of them, and hands the answers back to them. So presence is never in anybody's way: who joins, leaves or speaks
//! takes one short lock, and a broker that is slow delays the next call and nothing else.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};
use tokio::time::{sleep_until, timeout};
use tracing::debug;

use crate::broker::{Broker, BrokerError, DEADLINE, Member, MembersAnswers, MembersCall, NodeId, RollVersion};
use crate::names::{RoomName, UserId};
use crate::presence::{CHANGES, Change, Present, Roll};

/// Rooms in one call.
const ROOMS: usize = 64;
/// Who comes first into a room waits so long for its members, to be told how many there are.
const FIRST_LOOK: Duration = Duration::from_millis(250);

/// The rolls of all rooms that somebody of this node is in.
#[derive(Debug)]
pub struct Register {
    node: NodeId,
    grace: Duration,
    steps: AtomicU64,
    rolls: Mutex<Rolls>,
    /// Rung when something is due earlier than it was.
    sooner: Notify,
}

#[derive(Debug, Default)]
struct Rolls {
    by_room: HashMap<RoomName, Entry>,
    /// When each is due.
    agenda: BTreeSet<(Instant, RoomName)>,
}

#[derive(Debug)]
struct Entry {
    roll: Roll,
    due: Instant,
    /// The last round that was answered.
    done: watch::Sender<u64>,
}

/// A connection is in a room. Dropped, it has lost it, and the user is still there for the grace.
#[derive(Debug)]
pub struct Attendance {
    register: Arc<Register>,
    room: RoomName,
    user: UserId,
    left: bool,
}

impl Attendance {
    /// It leaves, and the user with it, unless there is another connection.
    pub fn leave(mut self) {
        self.left = true;
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        let now = Instant::now();
        self.register.with(&self.room, now, |roll| roll.went(&self.user, self.left, now));
    }
}

impl Register {
    /// Who loses the connection is kept for `grace`.
    pub fn new(grace: Duration) -> Arc<Self> {
        Arc::new(Register {
            node: NodeId::random(),
            grace,
            steps: AtomicU64::new(0),
            rolls: Mutex::default(),
            sooner: Notify::new(),
        })
    }

    fn rolls(&self) -> MutexGuard<'_, Rolls> {
        self.rolls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to a room's roll, if there is one, and sees to it that it is looked at in time.
    fn with<T>(&self, room: &RoomName, now: Instant, change: impl FnOnce(&mut Roll) -> T) -> Option<T> {
        let mut rolls = self.rolls();
        let entry = rolls.by_room.get_mut(room)?;
        let result = change(&mut entry.roll);
        self.plan(&mut rolls, room, now);
        Some(result)
    }

    fn plan(&self, rolls: &mut Rolls, room: &RoomName, now: Instant) {
        let Rolls { by_room, agenda } = rolls;
        let Some(entry) = by_room.get_mut(room) else { return };
        let due = entry.roll.due(now);
        if due != entry.due {
            let first = agenda.first().map(|(first, _)| *first);
            agenda.remove(&(entry.due, room.clone()));
            agenda.insert((due, room.clone()));
            entry.due = due;
            if first.is_none_or(|first| due < first) {
                self.sooner.notify_one();
            }
        }
    }

    // --- for connections --------------------------------------------------------------------------------------------

    /// `member` is in the room. The room is listened to by now, so nothing that follows the first look is missed.
    pub fn came(self: &Arc<Self>, room: &RoomName, member: Member) -> Attendance {
        let (now, user) = (Instant::now(), member.id.clone());
        let mut rolls = self.rolls();
        if !rolls.by_room.contains_key(room) {
            let entry = Entry { roll: Roll::new(self.grace), due: now, done: watch::Sender::new(0) };
            rolls.by_room.insert(room.clone(), entry);
            rolls.agenda.insert((now, room.clone()));
            self.sooner.notify_one();
        }
        if let Some(entry) = rolls.by_room.get_mut(room) {
            entry.roll.came(member);
        }
        self.plan(&mut rolls, room, now);
        drop(rolls);
        Attendance { register: self.clone(), room: room.clone(), user, left: false }
    }

    /// Waits until it is known who is in the room, but not for long.
    pub async fn first_look(&self, room: &RoomName) {
        let (round, mut done) = match self.rolls().by_room.get(room) {
            Some(entry) if !entry.roll.is_seen() => (entry.roll.rounds_done() + 1, entry.done.subscribe()),
            _ => return,
        };
        let _ = timeout(FIRST_LOOK, done.wait_for(|done| *done >= round)).await;
    }

    /// A member of these rooms is called otherwise.
    pub fn renamed(&self, rooms: &[RoomName], member: &Member) {
        for room in rooms {
            self.with(room, Instant::now(), |roll| roll.renamed(member.clone()));
        }
    }

    /// How many are in the room, as far as is known here.
    pub fn count(&self, room: &RoomName) -> usize {
        let now = Instant::now();
        self.rolls().by_room.get(room).map_or(0, |entry| entry.roll.count(now))
    }

    /// How many users are in the rooms of this node, here on this node, once a room.
    pub fn here(&self) -> usize {
        self.rolls().by_room.values().map(|entry| entry.roll.here()).sum()
    }

    /// Who is in the room, by a look that begins now; all who ask meanwhile share it.
    ///
    /// # Errors
    /// When the broker cannot tell.
    pub async fn who(&self, room: &RoomName) -> Result<Present, BrokerError> {
        let unknown = || BrokerError::Unavailable("it is not known who is here".into());
        let asked = self.with(room, Instant::now(), Roll::ask);
        let done = self.rolls().by_room.get(room).map(|entry| entry.done.subscribe());
        let (Some(round), Some(mut done)) = (asked, done) else { return Err(unknown()) };
        match timeout(DEADLINE, done.wait_for(|done| *done >= round)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return Err(unknown()),
        }
        let now = Instant::now();
        self.rolls().by_room.get(room).map(|entry| entry.roll.present(now)).ok_or_else(unknown)
    }

    /// Whether it is to be announced that `user` is typing.
    pub fn may_say_typing(&self, room: &RoomName, user: &UserId) -> bool {
        let now = Instant::now();
        self.with(room, now, |roll| roll.may_say_typing(user, now)).unwrap_or(false)
    }

    // --- what is heard ----------------------------------------------------------------------------------------------

    /// Whether it is to be shown that `user` is typing.
    pub fn may_show_typing(&self, room: &RoomName, user: &UserId) -> bool {
        let now = Instant::now();
        self.with(room, now, |roll| roll.may_show_typing(user, now)).unwrap_or(false)
    }

    /// The room's members are others than before.
    pub fn heard(&self, room: &RoomName, version: RollVersion) {
        self.with(room, Instant::now(), |roll| roll.heard(version));
    }

    /// Anything may have been missed, in every room.
    pub fn look_again(&self) {
        let rooms: Vec<RoomName> = self.rolls().by_room.keys().cloned().collect();
        let now = Instant::now();
        for room in &rooms {
            self.with(room, now, Roll::look_again);
        }
    }

    /// The room is listened to from now on. Somebody may be in its grace here since before.
    pub fn listens_again(&self, room: &RoomName) {
        self.with(room, Instant::now(), Roll::was_deaf);
    }

    // --- the one task -----------------------------------------------------------------------------------------------

    /// Keeps all rolls as the broker has them. `tell`: what the room's clients are to be told; must not wait.
    pub async fn keep(self: Arc<Self>, broker: Arc<dyn Broker>, tell: impl Fn(&RoomName, &Change)) {
        loop {
            self.wait().await;
            let calls = self.collect(&tell);
            if calls.is_empty() {
                continue;
            }
            let rooms: Vec<RoomName> = calls.iter().map(|call| call.room.clone()).collect();
            let answers = broker.members(calls).await;
            self.take(&rooms, answers, &tell);
            // Rolls may be due without end.
            tokio::task::yield_now().await;
        }
    }

    /// Until something is due.
    async fn wait(&self) {
        loop {
            let first = self.rolls().agenda.first().map(|(first, _)| *first);
            match first {
                Some(first) if first <= Instant::now() => return,
                Some(first) => tokio::select! {
                    () = sleep_until(first.into()) => return,
                    () = self.sooner.notified() => {}
                },
                None => self.sooner.notified().await,
            }
        }
    }

    /// Does what is due, up to so many rooms; the calls to make.
    fn collect(&self, tell: &impl Fn(&RoomName, &Change)) -> Vec<MembersCall> {
        let mut calls = Vec::new();
        let mut changes = CHANGES;
        let now = Instant::now();
        while calls.len() < ROOMS && changes > 0 {
            let mut rolls = self.rolls();
            let Some(room) = rolls.agenda.first().filter(|(due, _)| *due <= now).map(|(_, room)| room.clone()) else {
                break;
            };
            let Some(entry) = rolls.by_room.get_mut(&room) else { break };
            entry.roll.expire(now);
            let change = entry.roll.tell(now);
            let step = self.steps.fetch_add(1, Ordering::Relaxed) + 1;
            let call = entry.roll.call(&room, self.node, step, changes, now);
            let is_over = call.is_none() && entry.roll.is_over(now);
            if is_over {
                let due = entry.due;
                rolls.agenda.remove(&(due, room.clone()));
                rolls.by_room.remove(&room);
            }
            self.plan(&mut rolls, &room, now);
            drop(rolls);
            if let Some(change) = change {
                tell(&room, &change);
            }
            changes -= call.as_ref().map_or(0, |call| call.changes.len().min(changes));
            calls.extend(call);
        }
        calls
    }

    fn take(&self, rooms: &[RoomName], answers: MembersAnswers, tell: &impl Fn(&RoomName, &Change)) {
        let mut answers = answers.unwrap_or_else(|error| vec![Err(error); rooms.len()]).into_iter();
        for room in rooms {
            let answer = match answers.next() {
                Some(Ok(members)) => Some(members),
                Some(Err(error)) => {
                    debug!(%room, %error, "its members are not known now");
                    None
                }
                None => None,
            };
            let now = Instant::now();
            let change = self.with(room, now, |roll| {
                match answer {
                    Some(members) => roll.answered(members, now),
                    None => roll.failed(),
                }
                roll.tell(now)
            });
            if let Some(Some(change)) = change {
                tell(room, &change);
            }
            // Only now: who waits for the first look comes in after what is told of it.
            let waiting = self.rolls().by_room.get(room).map(|entry| (entry.done.clone(), entry.roll.rounds_done()));
            if let Some((done, round)) = waiting {
                done.send_replace(round);
            }
        }
    }
}
