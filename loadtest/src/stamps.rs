//! What a client sees of a room at a door without offsets: by the stamps of this run's own messages, which every publisher
//! numbers. Nothing is resumed there, so what is said while it is away it need not get; what it is told is lost (`! gap`), neither.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::receiver::{Receiver, Sight};
use crate::verdict::Verdict;
use crate::wire::Stamp;

#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Stamps {
    /// By publisher: its messages are offsets from 1.
    of: BTreeMap<u32, Receiver>,
    /// Whose next message may be any: since it heard of them it was away, or was told of a loss.
    adrift: BTreeSet<u32>,
    /// The same of all whom it never heard.
    others_are_adrift: bool,
}

impl Stamps {
    /// A message of this run.
    pub fn hear(&mut self, stamp: &Stamp) -> Sight {
        let is_adrift = self.is_adrift(stamp.publisher);
        self.adrift.remove(&stamp.publisher);
        let receiver = self.of.entry(stamp.publisher).or_insert_with(|| {
            let mut receiver = Receiver::default();
            receiver.joined("", 0, 0, None);
            receiver
        });
        if is_adrift && stamp.number > receiver.last {
            receiver.gap(receiver.last + 1, stamp.number);
        }
        receiver.event(stamp.number + 1).map_or(Sight::Doubled, |(_, sight)| sight)
    }

    /// It was away, or was told that something is lost.
    pub fn drifts(&mut self) {
        self.adrift = self.of.keys().copied().collect();
        self.others_are_adrift = true;
    }

    fn is_adrift(&self, publisher: u32) -> bool {
        self.adrift.contains(&publisher) || self.others_are_adrift && !self.of.contains_key(&publisher)
    }

    /// Whether it may never have what was said by some.
    pub fn has_drifted(&self) -> bool {
        self.others_are_adrift
    }

    /// How far it is, over all publishers whom it heard: messages that it has, or that came before those.
    pub fn count(&self) -> u64 {
        self.of.values().map(|receiver| receiver.last).sum()
    }

    /// Holds it against what each publisher of the room said: how many, and which of them are in doubt, so that nobody need
    /// have them.
    pub fn judge(&self, client: usize, said: &[(u32, u64, &[u64])], verdict: &mut Verdict) {
        let nothing = Receiver::default();
        let (mut lost, mut doubled, mut swapped) = (0, 0, 0);
        for (publisher, count, in_doubt) in said {
            let receiver = self.of.get(publisher).unwrap_or(&nothing);
            let behind = count.saturating_sub(receiver.last);
            let is_adrift = self.is_adrift(*publisher);
            verdict.told += receiver.told + if is_adrift { behind } else { 0 };
            let missing = receiver.missing() + if is_adrift { 0 } else { behind };
            let excused = in_doubt.iter().filter(|number| receiver.misses(*number + 1)).count() as u64;
            lost += missing.saturating_sub(excused);
            verdict.mismatched += receiver.last.saturating_sub(*count); // nobody said so many
            doubled += receiver.doubled;
            swapped += receiver.swapped;
        }
        verdict.lost += lost;
        verdict.doubled += doubled;
        verdict.swapped += swapped;
        if lost + doubled + swapped > 0 {
            verdict.example(|| format!("client {client}: lost {lost}, doubled {doubled}, swapped {swapped}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stamps(numbers: &[u64]) -> Stamps {
        let mut stamps = Stamps::default();
        says(&mut stamps, numbers);
        stamps
    }

    fn says(stamps: &mut Stamps, numbers: &[u64]) {
        for &number in numbers {
            stamps.hear(&Stamp { run: 1, publisher: 7, number, scheduled: Duration::ZERO });
        }
    }

    /// Of ten messages: lost, doubled, swapped, told.
    fn judged(stamps: &Stamps) -> [u64; 4] {
        let mut verdict = Verdict::default();
        stamps.judge(0, &[(7, 10, &[])], &mut verdict);
        [verdict.lost, verdict.doubled, verdict.swapped, verdict.told]
    }

    #[test]
    fn each_publishers_messages_come_once_and_in_order() {
        assert_eq!(judged(&stamps(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])), [0; 4]);
        assert_eq!(judged(&stamps(&[0, 1, 2, 2, 5, 4, 6, 7])), [1 + 2, 1, 1, 0]);
        assert_eq!(judged(&Stamps::default()), [10, 0, 0, 0]);
    }

    #[test]
    fn what_is_in_doubt_may_be_missing_and_what_nobody_said_may_not_be_there() {
        let judged = |numbers: &[u64], in_doubt: &[u64]| {
            let mut verdict = Verdict::default();
            stamps(numbers).judge(0, &[(7, 5, in_doubt)], &mut verdict);
            [verdict.lost, verdict.mismatched]
        };
        assert_eq!(judged(&[0, 1, 3], &[2, 4]), [0, 0]);
        assert_eq!(judged(&[0, 1, 2, 3, 4], &[2, 4]), [0, 0]);
        assert_eq!(judged(&[0, 1, 3], &[2]), [1, 0]);
        assert_eq!(judged(&[0, 1, 2, 3, 4, 5], &[]), [0, 1]);
    }

    #[test]
    fn what_is_said_while_it_is_away_is_not_lost() {
        let mut away = stamps(&[0, 1]);
        away.drifts();
        says(&mut away, &[5, 6, 8, 9]);
        assert_eq!(judged(&away), [1, 0, 0, 3], "7 is lost, 2 to 4 were said meanwhile");
        away.drifts();
        assert_eq!(judged(&away), [1, 0, 0, 3]);
        let mut late = Stamps::default();
        late.drifts();
        assert_eq!(judged(&late), [0, 0, 0, 10]);
        says(&mut late, &[9]);
        assert_eq!(judged(&late), [0, 0, 0, 9]);
    }
}
