//! Events that came too early: held while the missing ones before them are fetched.

use std::collections::BTreeMap;

use crate::encoding::Record;
use crate::position::Offset;

/// What is held at most; more is dropped, and fetched, too.
pub(super) const MOST_RECORDS: usize = 1024;
pub(super) const MOST_BYTES: usize = 1024 * 1024;

#[derive(Debug, Default)]
pub(super) struct Held {
    /// With the bytes of the event.
    records: BTreeMap<Offset, (Record, usize)>,
    bytes: usize,
}

impl Held {
    /// Whether the event is held now.
    pub fn hold(&mut self, offset: Offset, record: Record, bytes: usize) -> bool {
        if self.records.contains_key(&offset) {
            return true;
        }
        let fits = self.records.len() < MOST_RECORDS && self.bytes + bytes <= MOST_BYTES;
        if fits {
            self.records.insert(offset, (record, bytes));
            self.bytes += bytes;
        }
        fits
    }

    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub fn clear(&mut self) {
        *self = Held::default();
    }

    /// Takes what follows `head` without a gap, and lets go of what does not come after it.
    pub fn take_after(&mut self, head: Offset) -> Vec<Record> {
        let mut records = Vec::new();
        while let Some(first) = self.records.first_entry()
            && *first.key() <= head + 1 + records.len() as Offset
        {
            let follows = *first.key() > head;
            let (record, bytes) = first.remove();
            self.bytes -= bytes;
            if follows {
                records.push(record);
            }
        }
        records
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(offset: Offset) -> Record {
        Record::Gap { from: offset, to: offset }
    }

    #[test]
    fn what_is_held_is_bounded_in_number_and_in_bytes() {
        let mut held = Held::default();
        let many = (1..).take_while(|offset| held.hold(*offset, gap(*offset), 1)).count();
        assert_eq!(many, MOST_RECORDS);
        assert!(held.hold(1, gap(1), 1), "it is held already");

        let mut held = Held::default();
        let large = (1..).take_while(|offset| held.hold(*offset, gap(*offset), MOST_BYTES / 4)).count();
        assert_eq!(large, 4);
        // What was taken makes room.
        assert_eq!(held.take_after(0), [1, 2, 3, 4].map(gap));
        assert!(held.hold(9, gap(9), MOST_BYTES));
        held.clear();
        assert!(held.hold(10, gap(10), MOST_BYTES));
    }

    #[test]
    fn only_what_follows_is_taken_and_what_is_behind_is_let_go() {
        let mut held = Held::default();
        for offset in [2, 3, 5, 6, 8] {
            assert!(held.hold(offset, gap(offset), 1));
        }
        assert_eq!(held.take_after(3), []);
        assert_eq!(held.take_after(4), [5, 6].map(gap));
        assert!(!held.is_empty());
        assert_eq!(held.take_after(9), []);
        assert!(held.is_empty());
        assert_eq!(held.bytes, 0);
    }
}
