//! Catching up from the broker's history, for cursors that are before a room's window.
//!
//! History is read in pages whose borders are the same for everybody, so that thousands of clients that missed the same
//! part read it once: a page is shared while it is fetched, and kept for a while after.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::sync::Semaphore;

use crate::broker::{Broker, BrokerError, Entry, Range};
use crate::encoding::{Encoding, Record};
use crate::names::RoomName;
use crate::position::{Epoch, Offset};
use crate::room::{Room, dense};

/// Offsets in a page.
const PAGE: u64 = 256;
/// As many bytes of a page are written at a time, so that replies and other rooms get their turn. A socket that takes no
/// more keeps them.
const SLICE_BYTES: usize = 16 * 1024;
/// Pages kept, all rooms together, and the memory that they may take. Nobody else keeps one for long: whoever's socket is
/// full lets go of it.
const KEPT: usize = 256;
const KEPT_BYTES: usize = 32 * 1024 * 1024;
/// Pages read at the same time: live messages and their repair come first.
const IN_FLIGHT: usize = 4;

/// A part of a room's log, to be written to whoever is in it.
#[derive(Debug)]
pub struct Page {
    room: RoomName,
    /// The epoch that the room was in when this was read.
    pub epoch: Epoch,
    records: Vec<Record>,
    /// The memory that the records take, more or less.
    record_bytes: usize,
    /// Made for each encoding when somebody asks.
    encoded: [OnceLock<Encoded>; Encoding::COUNT],
}

#[derive(Debug)]
struct Encoded {
    bytes: Bytes,
    /// Where each record ends.
    ends: Vec<usize>,
}

/// A part of a page, for somebody who is in the middle of it.
#[derive(Debug)]
pub struct Part {
    pub bytes: Bytes,
    /// The offset that it takes them to.
    pub through: Offset,
    pub records: u64,
}

impl Page {
    /// What somebody gets who has everything up to `offset`; `None` where this page does not go on from there.
    pub fn after(&self, offset: Offset, encoding: Encoding) -> Option<Part> {
        let index = self.records.partition_point(|record| record.offset() <= offset);
        match self.records.get(index)? {
            Record::Gap { to, .. } => {
                // Some of it may be what they have: they lost only the rest.
                let mut bytes = Vec::new();
                Record::Gap { from: offset + 1, to: *to }.encode(encoding, &self.room, &self.epoch, &mut bytes);
                Some(Part { bytes: bytes.into(), through: *to, records: 0 })
            }
            Record::Event { offset: next, .. } if *next != offset + 1 => None,
            Record::Event { .. } => {
                let encoded = self.encoded[encoding as usize].get_or_init(|| self.encode(encoding));
                let start = if index == 0 { 0 } else { encoded.ends[index - 1] };
                let last = encoded.ends.partition_point(|end| *end <= start + SLICE_BYTES).max(index + 1) - 1;
                Some(Part {
                    bytes: encoded.bytes.slice(start..encoded.ends[last]),
                    through: self.records[last].offset(),
                    records: (last + 1 - index) as u64,
                })
            }
        }
    }

    /// False where it was read when the room had not come so far, or in an epoch from before the room was opened anew.
    fn serves(&self, room: &Room, offset: Offset) -> bool {
        self.after(offset, Encoding::Json).is_some() && self.epoch == room.lineage().epoch
    }

    fn bytes(&self) -> usize {
        let encoded = self.encoded.iter().filter_map(OnceLock::get).map(|encoded| encoded.bytes.len());
        self.record_bytes + encoded.sum::<usize>()
    }

    fn encode(&self, encoding: Encoding) -> Encoded {
        let mut bytes = Vec::new();
        let mut ends = Vec::with_capacity(self.records.len());
        for record in &self.records {
            record.encode(encoding, &self.room, &self.epoch, &mut bytes);
            ends.push(bytes.len());
        }
        Encoded { bytes: bytes.into(), ends }
    }
}

/// A room, the generation of its log, and the page's number.
type Key = (RoomName, u32, u64);
type Fetch = Shared<BoxFuture<'static, Result<Arc<Page>, BrokerError>>>;

/// The pages of a node.
pub struct Pages {
    broker: Arc<dyn Broker>,
    fetches: Mutex<HashMap<Key, Kept>>,
    in_flight: Arc<Semaphore>,
}

struct Kept {
    fetch: Fetch,
    used: u64,
}

impl Kept {
    /// Nothing while it is read; few are at a time.
    fn bytes(&self) -> usize {
        self.fetch.peek().and_then(|read| read.as_ref().ok()).map_or(0, |page| page.bytes())
    }
}

impl Pages {
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Pages { broker, fetches: Mutex::default(), in_flight: Arc::new(Semaphore::new(IN_FLIGHT)) }
    }

    /// The page that goes on after `offset`.
    ///
    /// # Errors
    /// When the broker cannot tell now.
    pub async fn after(&self, room: &Arc<Room>, offset: Offset) -> Result<Arc<Page>, BrokerError> {
        let key = (room.name.clone(), room.with_log(|log| log.generation()), offset / PAGE);
        let mut again = true;
        loop {
            let fetch = self.get(&key, room);
            let result = fetch.clone().await;
            let fits = result.as_ref().is_ok_and(|page| page.serves(room, offset));
            if !fits {
                self.forget(&key, &fetch);
            }
            if fits || result.is_err() || !std::mem::take(&mut again) {
                return result;
            }
        }
    }

    /// Forgets this very fetch; the one that somebody else has begun since serves us all.
    fn forget(&self, key: &Key, fetch: &Fetch) {
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        if fetches.get(key).is_some_and(|kept| kept.fetch.ptr_eq(fetch)) {
            fetches.remove(key);
        }
    }

    fn get(&self, key: &Key, room: &Arc<Room>) -> Fetch {
        let mut fetches = self.fetches.lock().unwrap_or_else(PoisonError::into_inner);
        let used = fetches.values().map(|kept| kept.used).max().unwrap_or_default() + 1;
        if let Some(kept) = fetches.get_mut(key) {
            kept.used = used;
            return kept.fetch.clone();
        }
        while fetches.len() >= KEPT || fetches.values().map(Kept::bytes).sum::<usize>() > KEPT_BYTES {
            let oldest = fetches.iter().min_by_key(|(_, kept)| kept.used).map(|(key, _)| key.clone());
            oldest.and_then(|key| fetches.remove(&key));
        }
        let fetch = self.fetch(key.2, room.clone());
        fetches.insert(key.clone(), Kept { fetch: fetch.clone(), used });
        fetch
    }

    fn fetch(&self, number: u64, room: Arc<Room>) -> Fetch {
        let (broker, in_flight) = (self.broker.clone(), self.in_flight.clone());
        let first = number * PAGE + 1;
        // In a task of its own: whoever asked may go away, and a read that nobody drives any more would keep its permit.
        let read = tokio::spawn(async move {
            let _permit = in_flight.acquire().await;
            let range = Range::From { first, limit: PAGE as usize };
            let history = broker.history(&room.name, range).await?;
            let head = &history.head;
            let through = (first + PAGE - 1).max(head.oldest.saturating_sub(1)).min(head.offset);
            let records = dense(&history.entries, first - 1, through, &room.name);
            let epoch = head.lineage.epoch.clone();
            // An event is kept as it is stored and, taken apart, for those who do not speak JSON.
            let bytes = |entry: &Entry| size_of::<Record>() + 2 * entry.event.len();
            let record_bytes = history.entries.iter().map(bytes).sum();
            let encoded = Default::default();
            Ok(Arc::new(Page { room: room.name.clone(), epoch, records, record_bytes, encoded }))
        });
        let ended = || BrokerError::Unavailable("reading ended early".into());
        async move { read.await.unwrap_or_else(|_| Err(ended())) }.boxed().shared()
    }
}
