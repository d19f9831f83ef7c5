//! The verdict: what the server promised, held against what every single receiver got.
//!
//! A [`Receiver`] is one client's view of the room, a [`Ledger`] what all of them saw in it; [`judge`] puts both together.
//! Silence is the fault. What a server admits (`gap`, `recovered:false`) is counted apart, as told.

use serde::{Deserialize, Serialize};

use crate::ledger::Ledger;
use crate::place::{IdHash, Spot};
use crate::receiver::Receiver;

/// What a publisher was told about a message of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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
    pub const MAX_EXAMPLES: usize = 10;

    pub fn example(&mut self, words: impl FnOnce() -> String) {
        if self.examples.len() < Self::MAX_EXAMPLES {
            self.examples.push(words());
        }
    }
}

/// Holds every receiver of a room, with its client's number, against `goal`, the head of the log when the run ended, and every
/// acceptance against what was seen. Several rooms are judged one after another, and added up.
pub fn judge(
    receivers: &[(usize, &Receiver)],
    acceptances: &[Acceptance],
    ledger: &Ledger,
    goal: Option<Spot>,
    verdict: &mut Verdict,
) {
    let breaks_before = verdict.breaks;
    for (number, receiver) in receivers {
        verdict.told += receiver.told;
        verdict.breaks += receiver.breaks;
        add_faults(verdict, *number, receiver, receiver.lost(ledger, goal));
    }
    let began_anew = verdict.breaks > breaks_before;
    let mut mismatched = ledger.mismatched.clone();
    for acceptance in acceptances {
        let spot = acceptance.spot;
        if ledger.id(spot).is_some_and(|id| id != acceptance.id) {
            mismatched.insert(spot);
        } else if !ledger.saw(spot, acceptance.id) && !excused(began_anew, ledger, goal, spot) {
            verdict.accepted_unseen += 1;
            verdict.example(|| format!("offset {} was accepted and never seen", spot.offset));
        }
    }
    verdict.mismatched += mismatched.len() as u64;
    for spot in mismatched.iter().take(Verdict::MAX_EXAMPLES) {
        verdict.example(|| format!("offset {} was given to different messages", spot.offset));
    }
    let twice = ledger.stored_twice();
    verdict.doubled += twice.len() as u64;
    for spot in twice.iter().take(Verdict::MAX_EXAMPLES) {
        verdict.example(|| format!("offset {} is a message that has an earlier one", spot.offset));
    }
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
fn excused(began_anew: bool, ledger: &Ledger, goal: Option<Spot>, spot: Spot) -> bool {
    let epoch_ended = goal.is_some_and(|goal| goal.epoch != spot.epoch);
    ledger.was_announced(spot) || (epoch_ended && began_anew)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::place::EpochKey;
    use crate::receiver::Entrance;

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
            let receivers: Vec<_> = self.receivers.iter().enumerate().collect();
            let mut verdict = Verdict::default();
            judge(&receivers, &self.acceptances, &self.ledger, goal, &mut verdict);
            verdict
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
