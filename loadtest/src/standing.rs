//! Where the clients of a worker stand, as it says ten times a second: by that the run is led.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guest::Guest;
use crate::listener::Listener;
use crate::place::Spot;
use crate::speaker::Speaker;

/// How often that is said, and how often it is looked at.
pub const TICK: Duration = Duration::from_millis(100);

/// Where the clients of a worker stand.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Standing {
    pub clients: usize,
    pub joined: usize,
    pub live: usize,
    /// Clients that will never come back.
    pub gone: usize,
    /// Failed attempts to connect.
    pub refusals: u64,
    pub sent: u64,
    pub accepted: u64,
    pub deliveries: u64,
    /// Publishers that have something to say or to be answered.
    pub speaking: usize,
    /// Clients of which nobody can tell whether they have everything, since they were away where nothing is resumed.
    pub adrift: usize,
    /// The run settles, and where they stand is told by room.
    pub by_room: bool,
    pub rooms: Vec<RoomStanding>,
}

/// Where they stand in one room.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct RoomStanding {
    /// When the epoch that was met last was met, and its head.
    pub head: Option<(Duration, Spot)>,
    /// The last client's place, if all are in one epoch.
    pub lowest: Option<Spot>,
    /// Not all are in one epoch.
    pub torn: bool,
    /// What its publishers said that was accepted.
    pub said: u64,
    /// How much of it the last one has heard, or is past, of those who have no offsets.
    pub heard: Option<u64>,
}

impl Standing {
    /// `by_room`: its room, while that counts.
    pub fn add_guest(
        &mut self,
        guest: &dyn Guest,
        speaker: Option<&Speaker>,
        is_speaking: bool,
        by_room: Option<usize>,
    ) {
        self.clients += 1;
        self.joined += usize::from(guest.has_joined());
        self.live += usize::from(guest.is_live());
        self.speaking += usize::from(is_speaking);
        if let Some(speaker) = speaker {
            self.sent += speaker.sent;
            self.accepted += speaker.accepted_count();
            if let Some(room) = by_room {
                self.rooms[room].said += speaker.accepted_count();
            }
        }
    }

    /// `room`: the one that all listeners are in, if it counts.
    pub fn add_listener(&mut self, listener: &Listener, is_live: bool, room: Option<usize>) {
        self.clients += 1;
        self.joined += usize::from(listener.spot().is_some());
        self.live += usize::from(is_live);
        if let Some(room) = room {
            self.rooms[room].lower(listener.spot());
        }
    }

    pub fn add(&mut self, other: &Standing) {
        self.clients += other.clients;
        self.joined += other.joined;
        self.live += other.live;
        self.gone += other.gone;
        self.refusals += other.refusals;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.deliveries += other.deliveries;
        self.speaking += other.speaking;
        self.adrift += other.adrift;
        self.rooms.resize_with(self.rooms.len().max(other.rooms.len()), RoomStanding::default);
        for (ours, theirs) in self.rooms.iter_mut().zip(&other.rooms) {
            ours.add(theirs);
        }
    }
}

impl RoomStanding {
    /// Somebody is there.
    pub fn lower(&mut self, spot: Option<Spot>) {
        if let (Some(a), Some(b)) = (self.lowest, spot) {
            self.torn |= a.epoch != b.epoch;
        }
        self.lowest = match (self.lowest, spot) {
            (Some(a), Some(b)) => Some(if a.offset <= b.offset { a } else { b }),
            (a, b) => a.or(b),
        };
    }

    /// Somebody without offsets has heard, or is past, so many messages of this run.
    pub fn has_heard(&mut self, messages: u64) {
        self.heard = Some(self.heard.map_or(messages, |heard| heard.min(messages)));
    }

    /// Of one epoch, the furthest head; of two, that of the later one.
    fn add(&mut self, other: &RoomStanding) {
        self.head = match (self.head, other.head) {
            (Some(a), Some(b)) if a.1.epoch == b.1.epoch => Some((a.0.max(b.0), a.1.max(b.1))),
            (a, b) => a.max(b),
        };
        self.torn |= other.torn;
        self.lower(other.lowest);
        self.said += other.said;
        if let Some(heard) = other.heard {
            self.has_heard(heard);
        }
    }

    pub fn head(&self) -> Option<Spot> {
        self.head.map(|(_, spot)| spot)
    }

    /// Whether every client that is in the room has everything up to `goal`; who is in no room has.
    pub fn reached(&self, goal: Option<Spot>) -> bool {
        self.heard.is_none_or(|heard| heard >= self.said) && self.log_reached(goal)
    }

    fn log_reached(&self, goal: Option<Spot>) -> bool {
        match (goal, self.lowest) {
            (Some(goal), Some(lowest)) => !self.torn && lowest.epoch == goal.epoch && lowest.offset >= goal.offset,
            (_, None) => true,
            (None, Some(_)) => false,
        }
    }
}

/// The head of a room's log that everybody has to reach. It is fixed once everything is accepted (and nothing more came for
/// `silence`), since others may go on speaking in the room; a new epoch moves it.
#[derive(Debug, Clone, Copy)]
pub struct Goal {
    pub spot: Option<Spot>,
    pub is_fixed: bool,
    silence: Duration,
    moved: Duration,
}

impl Goal {
    pub fn new(silence: Duration) -> Self {
        Goal { spot: None, is_fixed: false, silence, moved: Duration::ZERO }
    }

    /// The log reaches to `head` now.
    pub fn look(&mut self, head: Option<Spot>, is_spoken: bool, now: Duration) {
        let same_epoch = self.spot.map(|spot| spot.epoch) == head.map(|head| head.epoch);
        if self.is_fixed && same_epoch {
            return;
        }
        if head != self.spot {
            self.moved = now;
        }
        self.spot = head;
        self.is_fixed = !is_spoken && now >= self.moved + self.silence;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::EpochKey;

    fn spot(epoch: &str, offset: u64) -> Spot {
        Spot { epoch: EpochKey::of(epoch), offset }
    }

    fn standing(head: Spot, since: u64, lowest: Spot) -> RoomStanding {
        RoomStanding { head: Some((Duration::from_secs(since), head)), lowest: Some(lowest), ..RoomStanding::default() }
    }

    #[test]
    fn the_goal_is_the_furthest_head_of_the_latest_epoch() {
        let old = standing(spot("a", 90), 1, spot("a", 90));
        let new = standing(spot("b", 20), 2, spot("b", 20));
        let further = standing(spot("b", 25), 3, spot("b", 20));
        for order in [[old, new, further], [further, old, new], [new, further, old]] {
            let mut all = RoomStanding::default();
            order.iter().for_each(|one| all.add(one));
            assert_eq!(all.head(), Some(spot("b", 25)));
        }
        assert_eq!(RoomStanding::default().head(), None);
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_goal_moves_until_everything_is_accepted_and_with_a_new_epoch() {
        let mut goal = Goal::new(Duration::ZERO);
        goal.look(Some(spot("a", 5)), true, ms(100));
        assert!(!goal.is_fixed);
        goal.look(Some(spot("a", 9)), false, ms(200));
        assert_eq!((goal.spot, goal.is_fixed), (Some(spot("a", 9)), true), "the last acceptances came meanwhile");
        goal.look(Some(spot("a", 11)), false, ms(300));
        assert_eq!(goal.spot, Some(spot("a", 9)), "others go on");
        goal.look(Some(spot("b", 4)), false, ms(400));
        assert_eq!(goal.spot, Some(spot("b", 4)));
    }

    #[test]
    fn where_silence_is_asked_for_the_goal_waits_for_it() {
        let mut goal = Goal::new(ms(1000));
        goal.look(Some(spot("a", 5)), false, ms(100));
        goal.look(Some(spot("a", 8)), false, ms(900));
        goal.look(Some(spot("a", 8)), false, ms(1800));
        assert!(!goal.is_fixed);
        goal.look(Some(spot("a", 8)), false, ms(1900));
        assert_eq!((goal.spot, goal.is_fixed), (Some(spot("a", 8)), true));
    }

    #[test]
    fn who_has_no_offsets_is_waited_for_by_what_was_said() {
        let mut all = RoomStanding { said: 7, ..RoomStanding::default() };
        all.has_heard(9);
        assert!(all.reached(None));
        all.add(&RoomStanding { said: 1, heard: Some(7), ..RoomStanding::default() });
        assert!(!all.reached(None), "the last one has 7 of 8");
    }

    #[test]
    fn the_goal_is_reached_by_all_or_not_at_all() {
        let mut all = standing(spot("a", 9), 1, spot("a", 9));
        all.add(&standing(spot("a", 9), 1, spot("a", 8)));
        assert!(all.reached(Some(spot("a", 8))));
        assert!(!all.reached(Some(spot("a", 9))));
        all.add(&standing(spot("b", 9), 2, spot("b", 9)));
        assert!(!all.reached(Some(spot("a", 8))));
        assert!(RoomStanding::default().reached(None), "nobody is in that room");
    }
}
