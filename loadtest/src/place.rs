//! Places in a room's log, small enough to be kept a million times.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

/// An epoch and an offset, as a client sends them to resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub epoch: String,
    pub offset: u64,
}

/// An epoch's name, hashed: names are long, and only ever compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EpochKey(u64);

impl EpochKey {
    pub fn of(epoch: &str) -> Self {
        EpochKey(hash(epoch))
    }
}

/// A message's id, hashed. Never 0, which stands for "not seen".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IdHash(u64);

impl IdHash {
    pub fn of(id: &str) -> Self {
        IdHash(hash(id).max(1))
    }

    /// As a number that is never 0, and back.
    pub fn number(self) -> u64 {
        self.0
    }

    pub fn from_number(number: u64) -> Option<Self> {
        (number != 0).then_some(IdHash(number))
    }
}

/// The same in every worker, since the keys are fixed.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A place in the log, small enough to be kept a million times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Spot {
    pub epoch: EpochKey,
    pub offset: u64,
}
