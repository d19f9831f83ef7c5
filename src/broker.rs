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

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::names::{RoomName, UserId};
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

/// What a node knows of its broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not heard yet since the start.
    Never,
    /// Commands and the subscription work.
    Up,
    /// It was there once and is away now.
    Away,
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

    /// Follows whether the broker is there.
    fn status(&self) -> watch::Receiver<Status>;
}

/// What a node hears of its broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    Delivery(Delivery),
    /// Deliveries may have been lost (a new subscription, an overflow): compare every room with its head.
    Gapped,
}

/// The broker's end of the way to the hub. Never waits: what does not fit is dropped and reported as [`Notice::Gapped`].
#[derive(Debug, Clone)]
pub struct Feed {
    queue: mpsc::Sender<Delivery>,
    /// Of the events that wait.
    bytes: Arc<AtomicUsize>,
    gap: Arc<Gap>,
}

/// The hub's end.
#[derive(Debug)]
pub struct FeedReceiver {
    queue: mpsc::Receiver<Delivery>,
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
    let (bytes, gap) = (Arc::new(AtomicUsize::new(0)), Arc::new(Gap::default()));
    (Feed { queue: sender, bytes: bytes.clone(), gap: gap.clone() }, FeedReceiver { queue: receiver, bytes, gap })
}

impl Feed {
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
