//! The verdict: what the server promised, held against what every single receiver got.
//!
//! A [`Receiver`] is one client's view of the room: which offsets it saw, in which order, and what it was told it would never
//! see. It keeps no list of what it saw, since offsets are dense: the newest one and the holes below it say it all. A
//! [`Ledger`] is what all receivers of one worker saw, once: an id's hash per (epoch, offset). Workers keep a ledger each, so
//! that a delivery takes no lock, and the ledgers are merged at the end. [`judge`] puts both together.
//!
//! Silence is the fault. What a server admits (`gap`, `recovered:false`) is counted apart, as told.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use serde::Serialize;

/// An epoch and an offset, as a client sends them to resume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    pub epoch: String,
    pub offset: u64,
}

/// An epoch's name, hashed: names are long, and only ever compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EpochKey(u64);

impl EpochKey {
    pub fn of(epoch: &str) -> Self {
        EpochKey(hash(epoch))
    }
}

/// A message's id, hashed. Never 0, which stands for "not seen".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct IdHash(u64);

impl IdHash {
    pub fn of(id: &str) -> Self {
        IdHash(hash(id).max(1))
    }
}

/// The same in every worker, since the keys are fixed.
fn hash(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

/// A place in the log, small enough to be kept a million times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spot {
    pub epoch: EpochKey,
    pub offset: u64,
}

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
#[derive(Debug, Clone, Copy)]
struct Span {
    epoch: EpochKey,
    after: u64,
}

/// One client's view of the room.
#[derive(Debug, Default)]
pub struct Receiver {
    /// Where it would resume: the protocol's position, moved by the protocol's rules.
    place: Option<Place>,
    /// Since its view began.
    spans: Vec<Span>,
    /// The greatest offset of its view that it saw or was told of.
    last: u64,
    /// Missing below `last`: first and last offset, ascending.
    holes: Vec<(u64, u64)>,
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
    const MAX_HOLES: usize = 4096;

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

    fn missing(&self) -> u64 {
        self.holes.iter().map(|(from, to)| to - from + 1).sum()
    }

    fn misses(&self, offset: u64) -> bool {
        let hole = self.holes.partition_point(|hole| hole.1 < offset);
        offset > self.last || self.holes.get(hole).is_some_and(|&(from, _)| from <= offset)
    }

    /// Under which epoch it read an offset.
    fn epoch_at(&self, offset: u64) -> Option<EpochKey> {
        self.spans.iter().rev().find(|span| span.after < offset).map(|span| span.epoch)
    }

    /// What it did not get and was not told of, of all up to `goal`.
    fn lost(&self, ledger: &Ledger, goal: Option<Spot>) -> u64 {
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

/// An epoch, as the receivers of a worker met it.
#[derive(Debug, Clone, Copy)]
struct EpochNote {
    first_seen: Duration,
    head: u64,
}

/// What all receivers of a worker saw: an id per place.
#[derive(Debug, Default)]
pub struct Ledger {
    pages: Vec<Box<[u64]>>,
    /// By epoch and the number of the page.
    index: HashMap<(EpochKey, u64), usize>,
    /// The page that was used last: receivers are all at about the same place.
    recent: Option<((EpochKey, u64), usize)>,
    epochs: HashMap<EpochKey, EpochNote>,
    /// Places under which two ids were seen.
    mismatched: BTreeSet<Spot>,
    /// What some receiver was told is lost: the last place, and the first offset.
    announced: BTreeSet<(Spot, u64)>,
    /// Up to which offset the first epoch is the beginning of the second, as receivers were told that resumed.
    shared: HashMap<(EpochKey, EpochKey), u64>,
}

impl Ledger {
    const PAGE: u64 = 1024;
    /// Announcements beyond that are not kept: a server that loses so much has long failed.
    const MAX_ANNOUNCED: usize = 10_000;

    /// A receiver saw this id in this place.
    pub fn see(&mut self, spot: Spot, id: IdHash, now: Duration) {
        let slot = self.slot(spot);
        if *slot == id.0 {
            return;
        }
        if *slot == 0 {
            *slot = id.0;
            self.reach(spot, now);
        } else {
            self.mismatched.insert(spot);
        }
    }

    fn slot(&mut self, spot: Spot) -> &mut u64 {
        let key = (spot.epoch, spot.offset / Self::PAGE);
        let page = match self.recent {
            Some((recent, page)) if recent == key => page,
            _ => self.page(key),
        };
        self.recent = Some((key, page));
        &mut self.pages[page][(spot.offset % Self::PAGE) as usize]
    }

    fn page(&mut self, key: (EpochKey, u64)) -> usize {
        *self.index.entry(key).or_insert_with(|| {
            self.pages.push(vec![0; Self::PAGE as usize].into_boxed_slice());
            self.pages.len() - 1
        })
    }

    /// Somebody was told that the log reaches to here.
    pub fn reach(&mut self, spot: Spot, now: Duration) {
        let note = self.epochs.entry(spot.epoch).or_insert(EpochNote { first_seen: now, head: spot.offset });
        note.head = note.head.max(spot.offset);
    }

    /// Somebody was told that these offsets are lost.
    pub fn announce(&mut self, from: u64, to: Spot) {
        if self.announced.len() < Self::MAX_ANNOUNCED {
            self.announced.insert((to, from));
        }
    }

    /// Somebody went on from one epoch to the other at this offset.
    pub fn share(&mut self, old: EpochKey, new: EpochKey, at: u64) {
        let until = self.shared.entry((old, new)).or_insert(at);
        *until = (*until).max(at);
    }

    /// The head of the epoch that was met last, and when that was.
    pub fn head(&self) -> Option<(Duration, Spot)> {
        self.epochs
            .iter()
            .map(|(&epoch, note)| {
                let offset = note.head;
                (note.first_seen, Spot { epoch, offset })
            })
            .max()
    }

    fn id(&self, spot: Spot) -> Option<IdHash> {
        let page = self.index.get(&(spot.epoch, spot.offset / Self::PAGE))?;
        let id = self.pages[*page][(spot.offset % Self::PAGE) as usize];
        (id != 0).then_some(IdHash(id))
    }

    /// What was seen under an epoch, in no order.
    fn events(&self, epoch: EpochKey) -> impl Iterator<Item = (u64, IdHash)> {
        self.all().filter(move |(spot, _)| spot.epoch == epoch).map(|(spot, id)| (spot.offset, id))
    }

    fn all(&self) -> impl Iterator<Item = (Spot, IdHash)> {
        self.index.iter().flat_map(|(&(epoch, number), &page)| {
            let spot = move |within: usize| Spot { epoch, offset: number * Self::PAGE + within as u64 };
            self.pages[page]
                .iter()
                .enumerate()
                .filter(|(_, id)| **id != 0)
                .map(move |(within, id)| (spot(within), IdHash(*id)))
        })
    }

    /// Adds what another worker's receivers saw.
    pub fn merge(&mut self, other: Ledger) {
        for (spot, id) in other.all() {
            self.see(spot, id, Duration::MAX);
        }
        for (epoch, note) in other.epochs {
            match self.epochs.entry(epoch) {
                Entry::Vacant(free) => {
                    free.insert(note);
                }
                Entry::Occupied(mut ours) => {
                    let ours = ours.get_mut();
                    ours.first_seen = ours.first_seen.min(note.first_seen);
                    ours.head = ours.head.max(note.head);
                }
            }
        }
        self.mismatched.extend(other.mismatched);
        self.announced.extend(other.announced);
        for ((old, new), at) in other.shared {
            self.share(old, new, at);
        }
    }

    /// Whether an event was seen in this place, or under another epoch that has it in common.
    fn saw(&self, spot: Spot, id: IdHash) -> bool {
        self.epochs.keys().any(|&epoch| {
            let spot = Spot { epoch, ..spot };
            self.id(spot) == Some(id)
        })
    }

    fn was_announced(&self, spot: Spot) -> bool {
        self.announced
            .range((spot, 0)..)
            .take_while(|(to, _)| to.epoch == spot.epoch)
            .any(|(_, from)| *from <= spot.offset)
    }

    /// Whether both places are in one lineage, so that one receiver gets both.
    fn related(&self, a: Spot, b: Spot) -> bool {
        let leads =
            |old: Spot, new: Spot| self.shared.get(&(old.epoch, new.epoch)).is_some_and(|until| old.offset <= *until);
        a.epoch == b.epoch || leads(a, b) || leads(b, a)
    }

    /// Places of messages that have an earlier place in the same lineage: stored twice.
    fn stored_twice(&self) -> Vec<Spot> {
        let mut all: Vec<(IdHash, u64, EpochKey)> =
            self.all().map(|(spot, id)| (id, spot.offset, spot.epoch)).collect();
        all.sort_unstable();
        let spot = |&(_, offset, epoch): &(IdHash, u64, EpochKey)| Spot { epoch, offset };
        all.chunk_by(|a, b| a.0 == b.0)
            .flat_map(|places| {
                let again = |(n, place): (usize, &(IdHash, u64, EpochKey))| {
                    places[..n]
                        .iter()
                        .any(|earlier| earlier.1 != place.1 && self.related(spot(earlier), spot(place)))
                        .then(|| spot(place))
                };
                places.iter().enumerate().filter_map(again)
            })
            .collect()
    }
}

/// What a publisher was told about a message of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acceptance {
    pub spot: Spot,
    pub id: IdHash,
}

/// All faults of a run, added up over all receivers.
#[derive(Debug, Default, Serialize)]
pub struct Verdict {
    /// Events that others saw, or that were accepted, and that a receiver neither got nor was told it would not get.
    pub lost: u64,
    /// Events that a receiver got again, and messages that have two offsets.
    pub doubled: u64,
    /// Events that came after a later one.
    pub swapped: u64,
    /// Places under which two receivers, or a receiver and the publisher, were given different messages.
    pub mismatched: u64,
    /// Accepted, and never seen by anyone.
    pub accepted_unseen: u64,
    /// Offsets that receivers were told they would not see.
    pub told: u64,
    /// How often a receiver was told to begin anew.
    pub breaks: u64,
    /// The first faults in words.
    pub examples: Vec<String>,
}

impl Verdict {
    const MAX_EXAMPLES: usize = 10;

    pub fn example(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < Self::MAX_EXAMPLES {
            self.examples.push(words());
        }
    }
}

/// Holds every receiver against `goal`, the head of the log when the run ended, and every acceptance against what was seen.
pub fn judge(receivers: &[&Receiver], acceptances: &[Acceptance], ledger: &Ledger, goal: Option<Spot>) -> Verdict {
    let mut verdict = Verdict::default();
    for (number, receiver) in receivers.iter().enumerate() {
        verdict.told += receiver.told;
        verdict.breaks += receiver.breaks;
        add_faults(&mut verdict, number, receiver, receiver.lost(ledger, goal));
    }
    let mut mismatched = ledger.mismatched.clone();
    for acceptance in acceptances {
        let spot = acceptance.spot;
        if ledger.id(spot).is_some_and(|id| id != acceptance.id) {
            mismatched.insert(spot);
        } else if !ledger.saw(spot, acceptance.id) && !excused(&verdict, ledger, goal, spot) {
            verdict.accepted_unseen += 1;
            verdict.example(|| format!("offset {} was accepted and never seen", spot.offset));
        }
    }
    verdict.mismatched = mismatched.len() as u64;
    for spot in mismatched.iter().take(Verdict::MAX_EXAMPLES) {
        verdict.example(|| format!("offset {} was given to different messages", spot.offset));
    }
    let twice = ledger.stored_twice();
    verdict.doubled += twice.len() as u64;
    for spot in twice.iter().take(Verdict::MAX_EXAMPLES) {
        verdict.example(|| format!("offset {} is a message that has an earlier one", spot.offset));
    }
    verdict
}

fn add_faults(verdict: &mut Verdict, number: usize, receiver: &Receiver, lost: u64) {
    verdict.lost += lost;
    verdict.doubled += receiver.doubled;
    verdict.swapped += receiver.swapped;
    if lost + receiver.doubled + receiver.swapped > 0 {
        verdict.example(|| {
            let holes: Vec<String> =
                receiver.holes.iter().take(3).map(|(from, to)| format!(" {from}..={to}")).collect();
            format!(
                "client {number} got to {}: lost {lost}{}, doubled {}, swapped {}",
                receiver.last,
                holes.concat(),
                receiver.doubled,
                receiver.swapped
            )
        });
    }
}

/// Whether it was said that an accepted event is gone: by `gap`, or by telling receivers to begin anew in a later epoch.
fn excused(verdict: &Verdict, ledger: &Ledger, goal: Option<Spot>, spot: Spot) -> bool {
    let epoch_ended = goal.is_some_and(|goal| goal.epoch != spot.epoch);
    ledger.was_announced(spot) || (epoch_ended && verdict.breaks > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::ZERO;

    fn spot(epoch: &str, offset: u64) -> Spot {
        Spot { epoch: EpochKey::of(epoch), offset }
    }

    /// Receivers of one worker, as a test moves them.
    #[derive(Default)]
    struct Hall {
        ledger: Ledger,
        receivers: Vec<Receiver>,
        acceptances: Vec<Acceptance>,
    }

    impl Hall {
        /// With `clients` that joined the epoch `a` at 0.
        fn with(clients: usize) -> Self {
            let mut hall = Hall::default();
            for client in 0..clients {
                hall.receivers.push(Receiver::default());
                hall.joins(client, "a", 0, 0, None);
            }
            hall
        }

        fn joins(&mut self, client: usize, epoch: &str, offset: u64, backlog: u64, recovered: Option<bool>) {
            let entrance = self.receivers[client].joined(epoch, offset, backlog, recovered);
            if let Entrance::Continued { old, at } = entrance {
                self.ledger.share(old, EpochKey::of(epoch), at);
            }
            let since = Duration::from_secs(epoch.len() as u64); // a later epoch has a longer name
            self.ledger.reach(spot(epoch, offset), since);
        }

        /// Messages are called after their offsets.
        fn sees(&mut self, client: usize, offsets: impl IntoIterator<Item = u64>) {
            for offset in offsets {
                self.sees_as(client, offset, &format!("id{offset}"));
            }
        }

        fn sees_as(&mut self, client: usize, offset: u64, id: &str) {
            let (spot, _) = self.receivers[client].event(offset).unwrap();
            self.ledger.see(spot, IdHash::of(id), NOW);
        }

        fn accepts(&mut self, epoch: &str, offset: u64, id: &str) {
            let spot = spot(epoch, offset);
            let id = IdHash::of(id);
            self.ledger.reach(spot, NOW);
            self.acceptances.push(Acceptance { spot, id });
        }

        fn judged(&self) -> Verdict {
            let goal = self.ledger.head().map(|(_, spot)| spot);
            let receivers: Vec<&Receiver> = self.receivers.iter().collect();
            judge(&receivers, &self.acceptances, &self.ledger, goal)
        }
    }

    fn faults(verdict: &Verdict) -> [u64; 6] {
        [verdict.lost, verdict.doubled, verdict.swapped, verdict.mismatched, verdict.accepted_unseen, verdict.told]
    }

    #[test]
    fn everything_once_and_in_order_is_no_fault() {
        let mut hall = Hall::with(2);
        hall.sees(0, 1..=3000);
        hall.sees(1, 1..=3000);
        hall.accepts("a", 3000, "id3000");
        assert_eq!(faults(&hall.judged()), [0; 6]);
        assert!(hall.judged().examples.is_empty());
    }

    #[test]
    fn a_loss_in_the_middle_and_at_the_end_is_found() {
        let mut hall = Hall::with(2);
        hall.sees(0, 1..=10);
        hall.sees(1, [1, 2, 5, 6, 7]);
        assert_eq!(faults(&hall.judged()), [2 + 3, 0, 0, 0, 0, 0]);
        assert_eq!(hall.judged().examples, ["client 1 got to 7: lost 5 3..=4, doubled 0, swapped 0"]);
    }

    #[test]
    fn what_was_accepted_and_seen_by_none_is_lost_to_all() {
        let mut hall = Hall::with(2);
        hall.accepts("a", 1, "id1");
        assert_eq!(faults(&hall.judged()), [2, 0, 0, 0, 1, 0]);
    }

    #[test]
    fn a_double_is_found() {
        let mut hall = Hall::with(1);
        hall.sees(0, [1, 2, 2, 3, 1]);
        assert_eq!(faults(&hall.judged()), [0, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn a_message_with_two_offsets_is_a_double() {
        let mut hall = Hall::with(2);
        for client in 0..2 {
            hall.sees(client, 1..=2);
            hall.sees_as(client, 3, "id1");
        }
        assert_eq!(faults(&hall.judged()), [0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_swap_is_found_and_is_no_loss() {
        let mut hall = Hall::with(1);
        hall.sees(0, [1, 5, 3, 2, 4, 6]);
        assert_eq!(faults(&hall.judged()), [0, 0, 3, 0, 0, 0]);
    }

    #[test]
    fn two_messages_under_one_offset_are_found_in_a_worker_and_across_workers() {
        let mut hall = Hall::with(2);
        hall.sees(0, 1..=2);
        hall.sees(1, [1]);
        hall.sees_as(1, 2, "other");
        assert_eq!(faults(&hall.judged()), [0, 0, 0, 1, 0, 0]);

        let (mut here, mut there) = (Hall::with(1), Hall::with(1));
        here.sees(0, 1..=2);
        there.sees(0, [1]);
        there.sees_as(0, 2, "other");
        here.ledger.merge(there.ledger);
        assert_eq!(faults(&here.judged()), [0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn an_acceptance_that_others_saw_as_another_message_is_a_mismatch() {
        let mut hall = Hall::with(1);
        hall.sees(0, 1..=2);
        hall.accepts("a", 2, "mine");
        assert_eq!(faults(&hall.judged()), [0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_gap_is_told_and_what_lies_before_it_is_not() {
        let mut hall = Hall::with(1);
        hall.sees(0, [1]);
        assert!(hall.receivers[0].gap(3, 5));
        assert_eq!(hall.receivers[0].place().unwrap().offset, 5);
        hall.sees(0, [6]);
        assert_eq!(faults(&hall.judged()), [1, 0, 0, 0, 0, 3]);
        assert!(hall.receivers[0].gap(2, 2));
        assert_eq!(faults(&hall.judged()), [0, 0, 0, 0, 0, 4]);
    }

    #[test]
    fn an_accepted_message_in_a_gap_is_told() {
        let mut hall = Hall::with(1);
        hall.accepts("a", 2, "id2");
        hall.receivers[0].gap(1, 3);
        hall.ledger.announce(1, spot("a", 3));
        assert_eq!(faults(&hall.judged()), [0, 0, 0, 0, 0, 3]);
        hall.accepts("a", 4, "id4");
        assert_eq!(faults(&hall.judged()), [1, 0, 0, 0, 1, 3]);
    }

    #[test]
    fn a_resume_that_claims_to_be_complete_is_held_to_it() {
        let mut hall = Hall::with(3);
        for client in 0..3 {
            hall.sees(client, 1..=4);
        }
        hall.joins(0, "a", 8, 4, Some(true));
        hall.sees(0, 5..=8);
        assert_eq!(faults(&hall.judged())[..2], [8, 0]); // the two others were not served yet
        hall.joins(1, "a", 8, 2, Some(true));
        hall.sees(1, 7..=8);
        hall.joins(2, "a", 8, 5, None);
        hall.sees(2, 4..=8);
        assert_eq!(faults(&hall.judged()), [2, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn a_view_that_ends_is_told_and_its_holes_are_not() {
        let mut hall = Hall::with(1);
        hall.sees(0, [1, 3]);
        hall.joins(0, "a", 60, 50, Some(false));
        assert_eq!(hall.receivers[0].place().unwrap().offset, 10);
        hall.sees(0, 11..=60);
        assert_eq!(faults(&hall.judged()), [1, 0, 0, 0, 0, 7]);
        assert_eq!(hall.judged().breaks, 1);
    }

    #[test]
    fn an_epoch_that_begins_while_all_go_on_is_no_fault() {
        let mut hall = Hall::with(2);
        hall.sees(0, 1..=5);
        hall.sees(1, 1..=3);
        hall.joins(0, "aa", 5, 0, Some(true));
        hall.joins(1, "aa", 5, 2, Some(true));
        hall.sees(0, 6..=7);
        hall.sees(1, 4..=7);
        hall.accepts("a", 5, "id5");
        assert_eq!(faults(&hall.judged()), [0; 6]);
    }

    #[test]
    fn a_branch_that_was_lost_is_told_and_its_messages_may_come_again() {
        let mut hall = Hall::with(2);
        hall.sees(0, 1..=5);
        hall.sees(1, 1..=3);
        hall.accepts("a", 6, "id6");
        hall.joins(0, "aa", 3, 3, Some(false));
        hall.sees(0, 1..=3);
        hall.joins(1, "aa", 3, 0, Some(true));
        for client in 0..2 {
            hall.sees_as(client, 4, "new");
            hall.sees_as(client, 5, "id4");
        }
        assert_eq!(faults(&hall.judged()), [0; 6]);
        assert_eq!(hall.judged().breaks, 1);
    }

    #[test]
    fn a_message_stored_again_after_a_fork_that_kept_it_is_a_double() {
        let mut hall = Hall::with(1);
        hall.sees(0, 1..=5);
        hall.joins(0, "aa", 5, 0, Some(true));
        hall.sees_as(0, 6, "id5");
        assert_eq!(faults(&hall.judged()), [0, 1, 0, 0, 0, 0]);
    }

    #[test]
    fn who_is_left_behind_in_an_old_epoch_lost_what_came_after() {
        let mut hall = Hall::with(2);
        hall.sees(0, 1..=5);
        hall.sees(1, 1..=5);
        hall.joins(0, "aa", 2, 2, Some(false)); // the log began anew
        hall.sees_as(0, 1, "x");
        hall.sees_as(0, 2, "y");
        assert_eq!(hall.judged().lost, 2);
    }

    #[test]
    fn a_position_moves_at_once_and_by_events_only_forwards() {
        let mut receiver = Receiver::default();
        assert_eq!(receiver.event(1), None);
        assert!(!receiver.gap(1, 2));
        receiver.joined("a", 10, 4, None);
        assert_eq!(receiver.place().unwrap().offset, 6);
        receiver.event(8);
        receiver.event(7);
        assert_eq!(receiver.place().unwrap().offset, 8);
        assert!(!receiver.gap(0, 9) && !receiver.gap(9, 8));
    }

    #[test]
    fn holes_beyond_all_measure_are_counted_and_not_kept() {
        let mut receiver = Receiver::default();
        receiver.joined("a", 0, 0, None);
        for n in 1..=10_000 {
            receiver.event(2 * n);
        }
        assert_eq!(receiver.holes.len(), Receiver::MAX_HOLES);
        assert_eq!(receiver.lost(&Ledger::default(), None), 10_000);
        receiver.event(u64::MAX);
    }
}
