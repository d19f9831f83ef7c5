//! The broker: where a room's messages are stored, ordered and handed on to every node.
//!
//! Two real implementors, [`memory`] (embedded, one node) and [`redis`] (any number of nodes), keep one contract, which
//! `tests/broker_contract.rs` holds both to:
//!
//! - **Publishing is one atomic step**: look the message up by (room, user, id), give it the next offset, store it, hand it
//!   to the subscribers. What was stored before answers with its old offset; the first text wins.
//! - **Publishes of one room are stored in the order of the calls** to [`Broker::publish`] on one node, retries included.
//! - **Everything that is awaited ends**: within [`DEADLINE`] there is an answer or [`BrokerError::Unavailable`].
//! - **A subscription may lose messages**, repeat them or swap them. Nothing here promises otherwise: whoever listens keeps
//!   offsets dense by asking [`Broker::history`]. After [`Notice::Gapped`] anything may be missing.
//! - [`Broker::subscribe`] returns when deliveries flow: what is published after that is heard, or a `Gapped` follows.
//! - **Whatever comes from the broker's server is checked** before it becomes one of the types below: events are one JSON
//!   object of bounded size on one line.
//! - **Who is here is a lease** ([`MembersCall`]): a node says which users it has in a room, and says so again before its
//!   lease lapses. Announcements are best effort, and have a queue of their own: no number of them costs a message.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use serde::Serialize;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::names::{DisplayName, RoomName, UserId};
use crate::position::{Lineage, Offset, Position};

pub mod memory;
pub mod redis;

/// How long anything asked of a broker may take before it is reported as unavailable.
pub const DEADLINE: Duration = Duration::from_secs(2);

/// The longest event that is taken from a broker's server. Whoever publishes must stay below: a longer one would be stored,
/// and dropped by everyone who reads it. The largest `--max-text`, every byte of it escaped, and `data` fit in.
pub const MAX_EVENT_BYTES: usize = 256 * 1024;

/// How many deliveries may wait between the broker and the hub, and how many bytes; more are dropped, and repaired from
/// history.
const FEED_CAPACITY: usize = 16 * 1024;
const FEED_BYTES: usize = 32 * 1024 * 1024;

/// The same for what is only announced; more is forgotten, and members are looked at again.
const WHISPERS_CAPACITY: usize = 1024;

/// The longest event that is announced. A user's `info` fits in.
pub const MAX_ANNOUNCED_BYTES: usize = 4 * 1024;

/// In a room with more members than this nobody is told who they are, only how many.
pub const MAX_LISTED: usize = 200;

/// A message on its way to the broker.
#[derive(Debug, Clone)]
pub struct Publication {
    pub room: RoomName,
    /// Who said it; part of the key under which it is stored only once.
    pub user: UserId,
    /// The message's id, made by the client and kept over retries.
    pub id: Uuid,
    /// The wire JSON of the event without `room`, `offset` and `at`: one object on one line.
    pub event: Bytes,
}

/// A stored event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub offset: Offset,
    /// The broker's clock when it was stored, in Unix milliseconds.
    pub at_ms: u64,
    /// As in [`Publication::event`].
    pub event: Bytes,
}

/// A stored event, as a subscription delivers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    pub room: RoomName,
    /// The position under which it was stored.
    pub position: Position,
    pub at_ms: u64,
    pub event: Bytes,
}

/// The state of a room's log at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub lineage: Lineage,
    /// The newest offset; 0 in a room in which nobody has spoken.
    pub offset: Offset,
    /// The oldest offset that is still stored; `offset + 1` when none is.
    pub oldest: Offset,
}

/// Which part of a room's log to read. Answers are oldest first, whichever end was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// The newest `limit` events below `before` (exclusive; `Offset::MAX`: from the head).
    Before { before: Offset, limit: usize },
    /// The oldest `limit` events from `first` on (inclusive).
    From { first: Offset, limit: usize },
}

/// A part of a room's log with the head at the same instant. Offsets that are missing in between are lost for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    pub head: Head,
    pub entries: Vec<Entry>,
}

/// Somebody who is in a room, at whatever node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Member {
    pub id: UserId,
    pub name: DisplayName,
}

/// Names a node, for leases: 128 random bits, new at every start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct NodeId(u128);

/// Names a state of a room's members: another one has another number. Chance makes them, so that no state that Redis lost
/// is taken for the one that came instead. Zero is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct RollVersion(pub u128);

impl NodeId {
    pub fn random() -> Self {
        NodeId(rand::random())
    }
}

impl RollVersion {
    pub fn random() -> Self {
        RollVersion(rand::random_range(1..=u128::MAX))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for RollVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Counts the calls of one node; never goes back.
pub type Step = u64;

/// What a node says about who is in a room there, and asks about who is there at all. It may be said twice: whoever makes a
/// call that was not answered makes it again, with everything that it said, and perhaps more.
#[derive(Debug, Clone)]
pub struct MembersCall {
    pub room: RoomName,
    pub node: NodeId,
    /// What the node said is forgotten when it says nothing for so long.
    pub lease: Duration,
    /// The last step that was answered: what was said up to there must still be known, else the answer is
    /// [`Registration::Lost`] and nothing else is done. `None`: the node begins anew.
    pub base: Option<Step>,
    /// The number of this call. One that comes after a later one is ignored.
    pub step: Step,
    /// Whoever the node named in an earlier step than this one and not since is not there any more: the end of a new beginning.
    pub purge: Option<Step>,
    /// Who is at the node under which name, and who is not (any more).
    pub changes: Vec<(UserId, Option<DisplayName>)>,
    /// What the node has seen already.
    pub seen: RollVersion,
    /// It wants to see members in any case.
    pub list: bool,
}

/// What became of a [`MembersCall`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registration {
    Kept,
    /// It is kept, and another call would go on with what there is to do about nodes that have died.
    Unfinished,
    /// What the node said before is not known (for sure) any more: it has to begin anew, and others may have to as well.
    Lost,
}

/// Who is in a room, all nodes counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    pub registration: Registration,
    pub version: RollVersion,
    pub count: usize,
    /// All of them, or some of a room with more than [`MAX_LISTED`]. `None`: as when the node saw this version, or too many.
    pub list: Option<Vec<Member>>,
}

/// The broker's answer about each of several rooms.
pub type MembersAnswers = Result<Vec<Result<Members, BrokerError>>, BrokerError>;

/// Why a broker did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// It cannot be reached or did not answer in time: try again. A publish may or may not have been stored; the same id
    /// finds out.
    #[error("the broker is not available: {0}")]
    Unavailable(String),
    /// The room was written in a format that this version does not know; trying again does not help.
    #[error("the room is stored in a format that this version cannot read: {0}")]
    Format(String),
}

impl BrokerError {
    /// What anybody may know: addresses and rights are for those who run the hall.
    pub fn for_clients(&self) -> &'static str {
        match self {
            BrokerError::Unavailable(_) => "that cannot be done now; try again in a moment",
            BrokerError::Format(_) => "this room cannot be read here; another replica may be able to",
        }
    }
}

/// What a node knows of its broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not heard yet since the start; why, in words.
    Never(Arc<str>),
    /// Commands and the subscription work, and messages are stored.
    Up,
    /// It was there once, and something of that does not work now; what, in words.
    Away(Arc<str>),
}

/// See the module documentation for the contract.
pub trait Broker: Send + Sync + 'static {
    /// Takes its place in the room's order at the call, not at the first poll. An error is retryable with the same id.
    fn publish(&self, publication: Publication) -> BoxFuture<'static, Result<Position, BrokerError>>;

    /// Reads a part of a room's log and its head in one atomic step.
    fn history(&self, room: &RoomName, range: Range) -> BoxFuture<'static, Result<History, BrokerError>>;

    /// The heads of many rooms in one round trip, in the order asked. A room that cannot be read is an error of its own.
    fn heads(&self, rooms: Vec<RoomName>) -> BoxFuture<'static, Result<Vec<Result<Head, BrokerError>>, BrokerError>>;

    /// From its return on, what is published in the room is delivered to this node's [`Feed`].
    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>>;

    /// No more deliveries of that room; some may still be on their way.
    fn unsubscribe(&self, room: &RoomName);

    /// Tells all nodes that listen to the room something that is not stored: one JSON object on one line. Best effort; neither
    /// waits for long nor tries again.
    fn announce(&self, room: &RoomName, event: Bytes) -> BoxFuture<'static, ()>;

    /// Renews leases, says who came and went, and asks who is there, for many rooms in one round trip, in the order asked. Where
    /// that changed who is in a room, all nodes that listen to it hear [`Whisper::Members`].
    ///
    /// Whoever is named by a node whose lease has lapsed is removed by the calls of others, but only of those whose own lease has
    /// been valid for a while: when the broker was away, everybody's has lapsed, and all shall have the time to renew theirs.
    /// Where nobody has renewed one for a whole lease more, a node that begins finds an empty room.
    fn members(&self, calls: Vec<MembersCall>) -> BoxFuture<'static, MembersAnswers>;

    /// Follows whether the broker is there.
    fn status(&self) -> watch::Receiver<Status>;
}

/// What a node hears of its broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Delivery(Delivery),
    Whisper(Whisper),
    /// Deliveries may have been lost (a new subscription, an overflow): compare every room with its head.
    Gapped,
}

/// What is heard of a room and stored nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whisper {
    /// As in [`Broker::announce`].
    Announced { room: RoomName, event: Bytes },
    /// Other members are there than before; look again.
    Members { room: RoomName, version: RollVersion },
}

/// Anything that is heard of a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    Delivery(Delivery),
    Whisper(Whisper),
}

/// The broker's end of the way to the hub. Never waits: what does not fit is dropped and reported as [`Notice::Gapped`].
#[derive(Debug, Clone)]
pub struct Feed {
    queue: mpsc::Sender<Delivery>,
    /// Apart, so that whispers never take a message's place.
    whispers: mpsc::Sender<Whisper>,
    /// Of the events that wait.
    bytes: Arc<AtomicUsize>,
    gap: Arc<Gap>,
}

/// The hub's end.
#[derive(Debug)]
pub struct FeedReceiver {
    queue: mpsc::Receiver<Delivery>,
    whispers: mpsc::Receiver<Whisper>,
    bytes: Arc<AtomicUsize>,
    gap: Arc<Gap>,
}

#[derive(Debug, Default)]
struct Gap {
    open: AtomicBool,
    bell: tokio::sync::Notify,
}

/// The way from a broker's subscription to the hub.
pub fn feed() -> (Feed, FeedReceiver) {
    let (sender, receiver) = mpsc::channel(FEED_CAPACITY);
    let (whisperer, whispers) = mpsc::channel(WHISPERS_CAPACITY);
    let (bytes, gap) = (Arc::new(AtomicUsize::new(0)), Arc::new(Gap::default()));
    (
        Feed { queue: sender, bytes: bytes.clone(), whispers: whisperer, gap: gap.clone() },
        FeedReceiver { queue: receiver, bytes, whispers, gap },
    )
}

impl Feed {
    pub fn hear(&self, heard: Heard) {
        match heard {
            Heard::Delivery(delivery) => self.deliver(delivery),
            Heard::Whisper(whisper) => self.whisper(whisper),
        }
    }

    /// One that does not fit is forgotten: who is here is looked at from time to time anyway.
    pub fn whisper(&self, whisper: Whisper) {
        let _ = self.whispers.try_send(whisper);
    }

    pub fn deliver(&self, delivery: Delivery) {
        let bytes = delivery.event.len();
        // Counted before it waits: it may be taken at once.
        let waiting = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if waiting > FEED_BYTES || self.queue.try_send(delivery).is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.gapped();
        }
    }

    /// Says that deliveries may have been lost.
    pub fn gapped(&self) {
        self.gap.open.store(true, Ordering::Release);
        self.gap.bell.notify_one();
    }
}

impl FeedReceiver {
    /// The next notice; `None` when the broker is gone.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            if self.gap.open.swap(false, Ordering::AcqRel) {
                return Some(Notice::Gapped);
            }
            tokio::select! {
                biased;
                delivery = self.queue.recv() => return Some(Notice::Delivery(self.taken(delivery?))),
                Some(whisper) = self.whispers.recv() => return Some(Notice::Whisper(whisper)),
                // The bell may ring for a gap that was reported already; whether there is one, the flag says.
                () = self.gap.bell.notified() => {}
            }
        }
    }

    /// The next delivery if one is waiting: more for the batch at hand.
    pub fn try_next(&mut self) -> Option<Delivery> {
        let delivery = self.queue.try_recv().ok()?;
        Some(self.taken(delivery))
    }

    fn taken(&self, delivery: Delivery) -> Delivery {
        self.bytes.fetch_sub(delivery.event.len(), Ordering::Relaxed);
        delivery
    }

    /// The next whisper if one is waiting: messages, which go first, may leave none of [`FeedReceiver::next`]'s turns to it.
    pub fn try_whisper(&mut self) -> Option<Whisper> {
        self.whispers.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    #[tokio::test]
    async fn a_gap_is_reported_once_and_before_what_came_after_it() {
        let (feed, mut receiver) = feed();
        let delivery = Delivery {
            room: RoomName::lobby(),
            position: Position { epoch: "e".into(), offset: 1 },
            at_ms: 0,
            event: Bytes::from_static(b"{}"),
        };
        feed.gapped();
        feed.gapped();
        feed.deliver(delivery.clone());
        assert_eq!(receiver.next().await, Some(Notice::Gapped));
        assert_eq!(receiver.next().await, Some(Notice::Delivery(delivery)));
        assert_eq!(receiver.next().now_or_never(), None);
        drop(feed);
        assert_eq!(receiver.next().await, None);
    }

    #[tokio::test]
    async fn whispers_take_no_messages_place_and_wait_for_none() {
        let (feed, mut receiver) = feed();
        let whisper = Whisper::Members { room: RoomName::lobby(), version: RollVersion(1) };
        let delivery = Delivery {
            room: RoomName::lobby(),
            position: Position { epoch: "e".into(), offset: 1 },
            at_ms: 0,
            event: Bytes::from_static(b"{}"),
        };
        for _ in 0..FEED_CAPACITY + WHISPERS_CAPACITY {
            feed.hear(Heard::Whisper(whisper.clone()));
        }
        (0..FEED_CAPACITY).for_each(|_| feed.hear(Heard::Delivery(delivery.clone())));
        assert_eq!(receiver.next().await, Some(Notice::Delivery(delivery.clone())), "no gap, and it goes first");
        assert_eq!(receiver.try_whisper(), Some(whisper.clone()));
        while let Some(next) = receiver.try_next() {
            assert_eq!(next, delivery);
        }
        for _ in 1..WHISPERS_CAPACITY {
            assert_eq!(receiver.next().await, Some(Notice::Whisper(whisper.clone())));
        }
        assert_eq!(receiver.next().now_or_never(), None);
    }

    #[tokio::test]
    async fn bytes_that_do_not_fit_are_a_gap_and_what_was_taken_makes_room() {
        let (feed, mut receiver) = feed();
        let large = |offset| Delivery {
            room: RoomName::lobby(),
            position: Position { epoch: "e".into(), offset },
            at_ms: 0,
            event: Bytes::from(vec![b'x'; FEED_BYTES / 4]),
        };
        for round in [0, 10] {
            (1..=5).for_each(|n| feed.deliver(large(round + n)));
            assert_eq!(receiver.next().await, Some(Notice::Gapped));
            assert_eq!(receiver.next().await, Some(Notice::Delivery(large(round + 1))));
            for n in 2..=4 {
                assert_eq!(receiver.try_next(), Some(large(round + n)));
            }
            assert_eq!(receiver.try_next(), None);
        }
    }

    #[tokio::test]
    async fn what_does_not_fit_is_a_gap() {
        let (feed, mut receiver) = feed();
        let delivery = |offset| Delivery {
            room: RoomName::lobby(),
            position: Position { epoch: "e".into(), offset },
            at_ms: 0,
            event: Bytes::new(),
        };
        let capacity = FEED_CAPACITY as Offset;
        (1..=capacity + 1).for_each(|offset| feed.deliver(delivery(offset)));
        assert_eq!(receiver.next().await, Some(Notice::Gapped));
        for offset in 1..=capacity {
            assert_eq!(receiver.try_next(), Some(delivery(offset)));
        }
        assert_eq!(receiver.try_next(), None);
    }
}
