//! Where somebody is in a room's log, and whether that place still exists.
//!
//! A room is one log. Its durable events have dense offsets that start at 1; offset 0 is "before the first". An epoch names
//! one history of those offsets: when the broker's server restarts or is replaced, what it holds may differ from what was
//! told to clients under the same offsets, so the old epoch is closed as a [`Fork`] and a new one begins. The rule for what
//! is still valid is that of Redis' partial resynchronisation (PSYNC2), with a list of forks instead of one secondary id.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// A place in a room's log: 0 is before the first event, the first event has 1.
pub type Offset = u64;

/// Names one history of a room. Opaque; empty while nobody has ever spoken in the room.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Epoch(Arc<str>);

impl Epoch {
    /// Longer names are not ours, whoever sends them.
    pub const MAX_BYTES: usize = 64;

    /// The epoch of a room in which nobody has spoken.
    pub fn silent() -> Self {
        Epoch("".into())
    }

    /// A new epoch: 128 random bits in hexadecimal.
    pub fn random() -> Self {
        Epoch(format!("{:032x}", rand::random::<u128>()).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn is_silent(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Epoch {
    fn from(text: &str) -> Self {
        Epoch(text.into())
    }
}

/// An epoch and an offset: all that a client needs to resume on any node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    pub epoch: Epoch,
    pub offset: Offset,
}

/// An epoch that ended, and the last of its offsets that its successors share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fork {
    pub epoch: Epoch,
    pub until: Offset,
}

/// The epoch a room is in, and those it came from, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lineage {
    pub epoch: Epoch,
    pub forks: Vec<Fork>,
}

impl Lineage {
    /// How many forks a log remembers; positions of older epochs are refused.
    pub const MAX_FORKS: usize = 16;

    /// The lineage of a room in which nobody has spoken.
    pub fn silent() -> Self {
        Lineage { epoch: Epoch::silent(), forks: Vec::new() }
    }

    /// Whether `position` lies on this lineage, whose newest offset is `head`. That the events after it were not trimmed is
    /// for the caller to see.
    pub fn holds(&self, position: &Position, head: Offset) -> bool {
        if position.epoch.is_silent() {
            return position.offset == 0;
        }
        self.shared_until(&position.epoch, head).is_some_and(|until| position.offset <= until)
    }

    /// The last offset that `epoch` shares with this lineage; `None` where the two have nothing known in common.
    pub fn shared_until(&self, epoch: &Epoch, head: Offset) -> Option<Offset> {
        if *epoch == self.epoch {
            return Some(head);
        }
        if epoch.is_silent() {
            return Some(0);
        }
        self.forks.iter().rev().find(|fork| fork.epoch == *epoch).map(|fork| fork.until.min(head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: &str, offset: Offset) -> Position {
        Position { epoch: epoch.into(), offset }
    }

    fn lineage() -> Lineage {
        let fork = |epoch: &str, until| Fork { epoch: epoch.into(), until };
        Lineage { epoch: "c".into(), forks: vec![fork("", 0), fork("a", 10), fork("b", 20)] }
    }

    #[test]
    fn a_position_of_the_epoch_is_valid_up_to_the_head() {
        assert!(lineage().holds(&at("c", 30), 30));
        assert!(!lineage().holds(&at("c", 31), 30));
    }

    #[test]
    fn a_position_of_a_fork_is_valid_up_to_where_it_ended() {
        assert!(lineage().holds(&at("a", 10), 30));
        assert!(!lineage().holds(&at("a", 11), 30));
        assert!(lineage().holds(&at("b", 20), 30));
        assert!(!lineage().holds(&at("b", 21), 30));
    }

    #[test]
    fn a_fork_that_claims_more_than_there_is_is_not_believed() {
        let boastful = Fork { epoch: "a".into(), until: Offset::MAX };
        let lineage = Lineage { epoch: "c".into(), forks: vec![boastful] };
        assert!(lineage.holds(&at("a", 30), 30));
        assert!(!lineage.holds(&at("a", 31), 30));
    }

    #[test]
    fn an_unknown_epoch_is_never_valid() {
        assert!(!lineage().holds(&at("x", 1), 30));
        assert!(!lineage().holds(&at("x", 0), 30));
    }

    #[test]
    fn the_silent_position_is_valid_at_zero_only_even_when_its_fork_is_forgotten() {
        let forgetful = Lineage { epoch: "c".into(), forks: Vec::new() };
        assert!(forgetful.holds(&at("", 0), 30));
        assert!(!lineage().holds(&at("", 1), 30));
        assert!(Lineage::silent().holds(&at("", 0), 0));
    }
}
