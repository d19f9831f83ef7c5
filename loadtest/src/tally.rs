//! What the clients of one worker count together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::latency::Recorded;
use crate::ledger::Ledger;

/// How many kinds of errors are told apart; the server makes up their names.
const MAX_KINDS: usize = 32;
/// What is left of a name, in characters.
const LONGEST_KIND: usize = 100;

#[derive(Debug, Serialize, Deserialize)]
pub struct Tally {
    /// By room.
    pub ledgers: Vec<Ledger>,
    /// From when a client was due to its being in the room.
    pub entered: Recorded,
    /// From the loss of a line to having everything that was missed.
    pub back: Recorded,
    /// From when a message was due to its `accepted`.
    pub accepted: Recorded,
    /// From when a message was due to its delivery, at every receiver; but for this second's.
    delivered: Recorded,
    this_second: Recorded,
    /// How late our own clock made a message…
    pub lag: Recorded,
    /// …or a client's coming in.
    pub entry_lag: Recorded,
    pub last_entered: Duration,
    pub last_back: Duration,
    pub deliveries: u64,
    /// What those read who only count.
    pub listeners_bytes: u64,
    pub first_delivery: Option<Duration>,
    pub last_delivery: Duration,
    pub reconnects: u64,
    /// Joins with a position that were `recovered`.
    pub resumes: u64,
    /// Frames that the protocol does not allow.
    pub breaches: u64,
    /// Attempts to connect that failed.
    pub refusals: u64,
    /// By code.
    pub errors: BTreeMap<String, u64>,
    /// By close code, or by what went wrong.
    pub ends: BTreeMap<String, u64>,
}

impl Tally {
    pub fn new(rooms: usize) -> Self {
        Tally {
            ledgers: (0..rooms).map(|_| Ledger::default()).collect(),
            entered: Recorded::new(),
            back: Recorded::new(),
            accepted: Recorded::new(),
            delivered: Recorded::new(),
            this_second: Recorded::new(),
            lag: Recorded::new(),
            entry_lag: Recorded::new(),
            last_entered: Duration::ZERO,
            last_back: Duration::ZERO,
            deliveries: 0,
            listeners_bytes: 0,
            first_delivery: None,
            last_delivery: Duration::ZERO,
            reconnects: 0,
            resumes: 0,
            breaches: 0,
            refusals: 0,
            errors: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    pub fn error(&mut self, code: &str) {
        count(&mut self.errors, code, 1);
    }

    pub fn end(&mut self, why: &str) {
        count(&mut self.ends, why, 1);
    }

    /// A client is in the room for the first time.
    pub fn has_entered(&mut self, due: Duration, now: Duration) {
        self.entered.record(now.saturating_sub(due));
        self.last_entered = self.last_entered.max(now);
    }

    /// A client has everything again that it missed since its line was lost.
    pub fn is_back(&mut self, lost: Duration, now: Duration) {
        self.back.record(now.saturating_sub(lost));
        self.last_back = self.last_back.max(now);
    }

    /// Something was delivered now.
    pub fn delivered_at(&mut self, now: Duration) {
        self.first_delivery.get_or_insert(now);
        self.last_delivery = now;
    }

    /// A message of this run was delivered so long after it was due.
    pub fn delivered_after(&mut self, latency: Duration) {
        self.this_second.record(latency);
    }

    /// What was delivered since it was asked last; a second's worth, where it is asked every second.
    pub fn end_second(&mut self) -> Option<Recorded> {
        if self.this_second.count() == 0 {
            return None;
        }
        self.delivered.add(&self.this_second);
        let second = self.this_second.clone();
        self.this_second.clear();
        Some(second)
    }

    /// From when a message was due to its delivery, at every receiver.
    pub fn delivered(&mut self) -> &Recorded {
        self.end_second();
        &self.delivered
    }

    /// Adds what another worker's clients counted.
    pub fn merge(&mut self, mut other: Tally) {
        other.end_second();
        for (ours, theirs) in self.ledgers.iter_mut().zip(other.ledgers) {
            ours.merge(theirs);
        }
        for (ours, theirs) in [
            (&mut self.entered, &other.entered),
            (&mut self.back, &other.back),
            (&mut self.accepted, &other.accepted),
            (&mut self.delivered, &other.delivered),
            (&mut self.lag, &other.lag),
            (&mut self.entry_lag, &other.entry_lag),
        ] {
            ours.add(theirs);
        }
        self.last_entered = self.last_entered.max(other.last_entered);
        self.last_back = self.last_back.max(other.last_back);
        self.deliveries += other.deliveries;
        self.listeners_bytes += other.listeners_bytes;
        self.first_delivery = [self.first_delivery, other.first_delivery].into_iter().flatten().min();
        self.last_delivery = self.last_delivery.max(other.last_delivery);
        self.reconnects += other.reconnects;
        self.resumes += other.resumes;
        self.breaches += other.breaches;
        self.refusals += other.refusals;
        for (code, times) in &other.errors {
            count(&mut self.errors, code, *times);
        }
        for (why, times) in &other.ends {
            count(&mut self.ends, why, *times);
        }
    }
}

fn count(kinds: &mut BTreeMap<String, u64>, kind: &str, times: u64) {
    let kind: &str = &kind.chars().filter(|char| !char.is_control()).take(LONGEST_KIND).collect::<String>();
    if let Some(so_far) = kinds.get_mut(kind) {
        *so_far += times;
    } else if kinds.len() < MAX_KINDS {
        kinds.insert(kind.to_owned(), times);
    } else {
        *kinds.entry("others".to_owned()).or_default() += times;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_cannot_make_up_kinds_of_errors_without_end() {
        let mut tally = Tally::new(1);
        for code in 0..1000 {
            tally.error(&code.to_string());
        }
        assert_eq!(tally.errors.len(), MAX_KINDS + 1);
        assert_eq!(tally.errors.values().sum::<u64>(), 1000);
        let mut tally = Tally::new(1);
        tally.error(&format!("\x1b]0;title\x07\npass {}", "x".repeat(1000)));
        let kind = tally.errors.keys().next().unwrap();
        assert!(kind.starts_with("]0;titlepass") && kind.len() == LONGEST_KIND, "{kind}");
    }

    #[test]
    fn seconds_add_up_to_the_whole() {
        let mut tally = Tally::new(1);
        tally.delivered_after(Duration::from_millis(3));
        assert_eq!(tally.end_second().map(|second| second.count()), Some(1));
        assert!(tally.end_second().is_none());
        tally.delivered_after(Duration::from_millis(4));
        let mut all = Tally::new(1);
        all.merge(tally);
        assert_eq!(all.delivered().count(), 2);
    }
}
