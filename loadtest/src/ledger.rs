//! What all receivers of one worker saw in a room, once: an id's hash per (epoch, offset). Workers keep ledgers of their own,
//! so that a delivery takes no lock, and these are merged at the end.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::place::{EpochKey, IdHash, Spot};

/// An epoch, as the receivers of a worker met it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct EpochNote {
    first_seen: Duration,
    head: u64,
}

/// What all receivers of a worker saw: an id per place.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Ledger {
    pages: Vec<Box<[u64]>>,
    /// By epoch and the number of the page.
    index: HashMap<(EpochKey, u64), usize>,
    /// The page that was used last: receivers are all at about the same place.
    recent: Option<((EpochKey, u64), usize)>,
    epochs: HashMap<EpochKey, EpochNote>,
    /// Places under which two ids were seen.
    pub mismatched: BTreeSet<Spot>,
    /// What some receiver was told is lost: the last place, and the first offset.
    announced: BTreeSet<(Spot, u64)>,
    /// Up to which offset the first epoch is the beginning of the second, as receivers were told that resumed.
    shared: HashMap<(EpochKey, EpochKey), u64>,
}

impl Ledger {
    /// Small, since a run may have ten thousand rooms in which little is said.
    const PAGE: u64 = 128;
    /// What is seen beyond that is kept nowhere: a hundred million places, unless a server spreads them on purpose.
    const MAX_PAGES: usize = 1 << 20;
    /// Epochs beyond that are not told apart: a log that begins anew so often has long failed.
    const MAX_EPOCHS: usize = 10_000;
    /// Announcements beyond that are not kept: a server that loses so much has long failed.
    const MAX_ANNOUNCED: usize = 10_000;

    /// A receiver saw this id in this place.
    pub fn see(&mut self, spot: Spot, id: IdHash, now: Duration) {
        let Some(slot) = self.slot(spot) else { return };
        if *slot == id.number() {
            return;
        }
        if *slot == 0 {
            *slot = id.number();
            self.reach(spot, now);
        } else {
            self.mismatched.insert(spot);
        }
    }

    /// `None`: there is no room for more.
    fn slot(&mut self, spot: Spot) -> Option<&mut u64> {
        let key = (spot.epoch, spot.offset / Self::PAGE);
        let page = match self.recent {
            Some((recent, page)) if recent == key => page,
            _ => self.page(key)?,
        };
        self.recent = Some((key, page));
        Some(&mut self.pages[page][(spot.offset % Self::PAGE) as usize])
    }

    fn page(&mut self, key: (EpochKey, u64)) -> Option<usize> {
        if self.pages.len() == Self::MAX_PAGES && !self.index.contains_key(&key) {
            return None;
        }
        Some(*self.index.entry(key).or_insert_with(|| {
            self.pages.push(vec![0; Self::PAGE as usize].into_boxed_slice());
            self.pages.len() - 1
        }))
    }

    /// Somebody was told that the log reaches to here.
    pub fn reach(&mut self, spot: Spot, now: Duration) {
        if self.epochs.len() == Self::MAX_EPOCHS && !self.epochs.contains_key(&spot.epoch) {
            return;
        }
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

    pub fn id(&self, spot: Spot) -> Option<IdHash> {
        let page = self.index.get(&(spot.epoch, spot.offset / Self::PAGE))?;
        let id = self.pages[*page][(spot.offset % Self::PAGE) as usize];
        IdHash::from_number(id)
    }

    /// What was seen under an epoch, in no order.
    pub fn events(&self, epoch: EpochKey) -> impl Iterator<Item = (u64, IdHash)> {
        self.all().filter(move |(spot, _)| spot.epoch == epoch).map(|(spot, id)| (spot.offset, id))
    }

    fn all(&self) -> impl Iterator<Item = (Spot, IdHash)> {
        self.index.iter().flat_map(|(&(epoch, number), &page)| {
            let spot = move |within: usize| Spot { epoch, offset: number * Self::PAGE + within as u64 };
            self.pages[page]
                .iter()
                .enumerate()
                .filter_map(move |(within, id)| Some((spot(within), IdHash::from_number(*id)?)))
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
    pub fn saw(&self, spot: Spot, id: IdHash) -> bool {
        self.epochs.keys().any(|&epoch| {
            let spot = Spot { epoch, ..spot };
            self.id(spot) == Some(id)
        })
    }

    pub fn was_announced(&self, spot: Spot) -> bool {
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
    pub fn stored_twice(&self) -> Vec<Spot> {
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
