//! Which server has which room: one for all of them, or, in a cluster, by slot.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

use super::shard::Shard;
use crate::names::RoomName;

/// Slots of a cluster.
pub(super) const SLOTS: usize = 16384;

/// A shard for each slot; or one for all.
pub(super) type Owners = Vec<Option<Arc<Shard>>>;

/// See the module's documentation.
pub(super) struct Routes {
    owners: RwLock<Owners>,
    /// Held for reading while messages are under way to a server, so that a room that moves takes its messages along: none
    /// of them is overtaken.
    pub rounds: tokio::sync::RwLock<()>,
    /// Somebody waits to change them: whoever is under way should come to an end.
    changing: AtomicBool,
    /// Rung when a server said that a room is elsewhere.
    pub stale: Notify,
}

impl Routes {
    pub fn new() -> Self {
        Routes {
            owners: RwLock::new(vec![None]),
            rounds: tokio::sync::RwLock::default(),
            changing: AtomicBool::new(false),
            stale: Notify::new(),
        }
    }

    fn owners(&self) -> RwLockReadGuard<'_, Owners> {
        self.owners.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn owner(&self, room: &RoomName) -> Option<Arc<Shard>> {
        self.with_owner(room, |owner| owner.cloned())
    }

    /// Does something with the room's server while it stays that; must not wait.
    pub fn with_owner<T>(&self, room: &RoomName, act: impl FnOnce(Option<&Arc<Shard>>) -> T) -> T {
        let owners = self.owners();
        act(owners.get(slot(room.as_str()) % owners.len().max(1)).and_then(Option::as_ref))
    }

    pub fn are_changing(&self) -> bool {
        self.changing.load(Ordering::Acquire)
    }

    /// Every server once.
    pub fn shards(&self) -> Vec<Arc<Shard>> {
        let mut shards: Vec<Arc<Shard>> = Vec::new();
        for shard in self.owners().iter().flatten() {
            if !shards.iter().any(|known| Arc::ptr_eq(known, shard)) {
                shards.push(shard.clone());
            }
        }
        shards
    }

    /// Whether `shard` has this slot.
    pub fn has(&self, shard: &Shard, slot: usize) -> bool {
        let owners = self.owners();
        owners.get(slot % owners.len().max(1)).and_then(Option::as_ref).is_some_and(|owner| owner.id == shard.id)
    }

    /// Changes who has what. What waits for a server that a room is no longer at goes along with the room.
    pub async fn change(&self, to: Owners) {
        let before = self.shards();
        self.changing.store(true, Ordering::Release);
        let _quiet = self.rounds.write().await;
        self.changing.store(false, Ordering::Release);
        let mut owners = self.owners.write().unwrap_or_else(PoisonError::into_inner);
        *owners = to;
        let owner = |room: &RoomName| owners.get(slot(room.as_str()) % owners.len().max(1))?.clone();
        for shard in before {
            for call in shard.queue.take_all(|room| owner(room).is_none_or(|owner| owner.id != shard.id)) {
                if let Some(owner) = owner(call.room()) {
                    owner.queue.take_over(call);
                }
            }
        }
    }
}

/// The slot of a key whose hash tag is `tag`. Source: the Redis Cluster specification, "Key distribution model".
pub(super) fn slot(tag: &str) -> usize {
    crc16::State::<crc16::XMODEM>::calculate(tag.as_bytes()) as usize % SLOTS
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `CLUSTER KEYSLOT` has them.
    #[test]
    fn slots_are_those_of_redis() {
        for (tag, expected) in [("lobby", 10294), ("a", 15495), ("123456789", 12739), ("foo", 12182)] {
            assert_eq!(slot(tag), expected, "{tag}");
        }
    }
}
