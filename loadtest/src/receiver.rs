//! One client's view of a room: which offsets it saw, in which order, and what it was told it would never see. It keeps no
//! list of what it saw, since offsets are dense: the newest one and the holes below it say it all.

use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::place::{EpochKey, Place, Spot};

/// What a receiver made of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Newer than all before it.
    New,
    /// Older than one before it, and not seen yet.
    Swapped,
    /// Seen before.
    Doubled,
}

/// What a receiver made of `joined`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entrance {
    /// The first one: its view begins here.
    First,
    /// It goes on where it was: `at` is shared by both epochs.
    Continued { old: EpochKey, at: u64 },
    /// It was told that what it missed is not to be had; its view begins anew.
    Broken,
}

/// A part of a view that was read under one epoch: what comes after `after`, up to where the next span begins.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Span {
    epoch: EpochKey,
    after: u64,
}

/// One client's view of the room.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Receiver {
    /// Where it would resume: the protocol's position, moved by the protocol's rules.
    place: Option<Place>,
    /// Since its view began.
    spans: Vec<Span>,
    /// The greatest offset of its view that it saw or was told of.
    pub last: u64,
    /// Missing below `last`: first and last offset, ascending.
    pub holes: Vec<(u64, u64)>,
    /// Missing in views that ended, and in holes that were too many to keep.
    lost_before: u64,
    pub doubled: u64,
    pub swapped: u64,
    /// Offsets that it was told it would not see.
    pub told: u64,
    /// How often it was told that its view ended.
    pub breaks: u64,
}

impl Receiver {
    /// More holes than that are not kept apart: the oldest counts as lost, even should it be filled later.
    pub const MAX_HOLES: usize = 4096;

    /// Where to resume; `None` before the first `joined`.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// The greatest offset it got to, and under which epoch.
    pub fn spot(&self) -> Option<Spot> {
        self.spans.last().map(|span| Spot { epoch: span.epoch, offset: self.last })
    }

    /// `joined`, asked for or not: the position moves at once to where the backlog begins. Without a word about recovery
    /// it claims what `recovered:true` says aloud: that nothing is missing.
    pub fn joined(&mut self, epoch: &str, offset: u64, backlog: u64, recovered: Option<bool>) -> Entrance {
        let start = offset.saturating_sub(backlog);
        let key = EpochKey::of(epoch);
        self.place = Some(Place { epoch: epoch.to_owned(), offset: start });
        let Some(current) = self.spans.last().copied() else {
            self.begin(key, start);
            return Entrance::First;
        };
        if recovered == Some(false) {
            self.breaks += 1;
            self.told += start.saturating_sub(self.last);
            self.lost_before += self.missing();
            self.holes.clear();
            self.begin(key, start);
            return Entrance::Broken;
        }
        self.advance(start, start);
        let at = start.min(self.last);
        if current.epoch != key {
            self.spans.push(Span { epoch: key, after: at });
        }
        Entrance::Continued { old: current.epoch, at }
    }

    fn begin(&mut self, epoch: EpochKey, after: u64) {
        self.spans.clear();
        self.spans.push(Span { epoch, after });
        self.last = after;
    }

    /// An event of the log; `None` before the first `joined`, when there is no view that it could be part of.
    pub fn event(&mut self, offset: u64) -> Option<(Spot, Sight)> {
        let place = self.place.as_mut()?;
        place.offset = place.offset.max(offset); // a swapped event must not be asked for twice
        let epoch = self.spans.last()?.epoch;
        let sight = if offset > self.last {
            self.advance(offset - 1, offset);
            Sight::New
        } else if self.fill(offset, offset) > 0 || offset <= self.spans[0].after {
            self.swapped += 1;
            Sight::Swapped
        } else {
            self.doubled += 1;
            Sight::Doubled
        };
        Some((Spot { epoch, offset }, sight))
    }

    /// `gap`: these offsets are lost for good, and that was said. `false` where it says nothing.
    pub fn gap(&mut self, from: u64, to: u64) -> bool {
        let Some(place) = self.place.as_mut() else {
            return false;
        };
        if from == 0 || from > to {
            return false;
        }
        place.offset = place.offset.max(to);
        self.told += self.fill(from, to);
        if to > self.last {
            self.told += to - self.last.max(from - 1);
            self.advance(from - 1, to);
        }
        true
    }

    /// Moves to `last`, with everything up to `missing_to` that was not there yet as a hole.
    fn advance(&mut self, missing_to: u64, last: u64) {
        if missing_to > self.last {
            if self.holes.len() == Self::MAX_HOLES {
                let (from, to) = self.holes.remove(0);
                self.lost_before += to - from + 1;
            }
            self.holes.push((self.last + 1, missing_to));
        }
        self.last = self.last.max(last);
    }

    /// Takes `from..=to` out of the holes; how many of these offsets were in one.
    fn fill(&mut self, from: u64, to: u64) -> u64 {
        let first = self.holes.partition_point(|hole| hole.1 < from);
        let end = self.holes.partition_point(|hole| hole.0 <= to);
        if first >= end {
            return 0;
        }
        let mut filled = 0;
        let mut rest = Vec::new();
        for &(hole_from, hole_to) in &self.holes[first..end] {
            filled += hole_to.min(to) - hole_from.max(from) + 1;
            if hole_from < from {
                rest.push((hole_from, from - 1));
            }
            if hole_to > to {
                rest.push((to + 1, hole_to));
            }
        }
        self.holes.splice(first..end, rest);
        filled
    }

    pub fn missing(&self) -> u64 {
        self.holes.iter().map(|(from, to)| to - from + 1).sum()
    }

    pub fn misses(&self, offset: u64) -> bool {
        let hole = self.holes.partition_point(|hole| hole.1 < offset);
        offset > self.last || self.holes.get(hole).is_some_and(|&(from, _)| from <= offset)
    }

    /// Under which epoch it read an offset.
    fn epoch_at(&self, offset: u64) -> Option<EpochKey> {
        self.spans.iter().rev().find(|span| span.after < offset).map(|span| span.epoch)
    }

    /// What it did not get and was not told of, of all up to `goal`.
    pub fn lost(&self, ledger: &Ledger, goal: Option<Spot>) -> u64 {
        let within = self.lost_before + self.missing();
        let (Some(goal), Some(spot)) = (goal, self.spot()) else {
            return within;
        };
        let tail = goal.offset.saturating_sub(spot.offset);
        if spot.epoch == goal.epoch {
            return within + tail;
        }
        // It was left behind in an epoch that ended: only the ids tell what it has of the one that followed.
        let unseen = ledger
            .events(goal.epoch)
            .filter(|(offset, _)| (self.spans[0].after + 1..=goal.offset).contains(offset))
            .filter(|&(offset, id)| {
                let seen = self.epoch_at(offset).and_then(|epoch| ledger.id(Spot { epoch, offset }));
                seen != Some(id) || self.misses(offset)
            })
            .count() as u64;
        self.lost_before + unseen.max(self.missing() + tail)
    }
}
