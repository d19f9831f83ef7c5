//! What a publisher says, and when: pure, with times since the run began.
//!
//! Open loop: when a message is due follows from its number and from nothing the server does. One that is sent late, because
//! the connection was away or the server answered slowly, keeps its time, and its latency counts from there.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::place::{IdHash, Spot};
use crate::verdict::Acceptance;
use crate::wire::Stamp;

/// What all publishers together say.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Script {
    pub publishers: u32,
    pub pace: Pace,
    pub until: Until,
    /// Whether a message is under way until its publisher has heard it in the room, and not only until it is accepted.
    pub until_heard: bool,
}

/// How messages follow one another.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Pace {
    /// Messages a second of all publishers together, whatever the server does.
    Open(f64),
    /// As fast as they are accepted, with so many of each publisher under way.
    Window(usize),
}

/// When the last message is due.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Until {
    /// So many of all publishers together.
    Messages(u64),
    After(Duration),
}

impl Script {
    /// How many of one publisher's messages may be under way at an open pace; beyond that a late server makes them later
    /// still, which the latencies show.
    const MAX_OPEN: usize = 10_000;

    fn window(&self) -> usize {
        match self.pace {
            Pace::Open(_) => Self::MAX_OPEN,
            Pace::Window(size) => size,
        }
    }

    /// When a message of a publisher is due, after the speaking began; `None` past the last.
    fn due(&self, publisher: u32, number: u64) -> Option<Duration> {
        let place = number * u64::from(self.publishers) + u64::from(publisher);
        let due = match self.pace {
            Pace::Open(rate) => Duration::try_from_secs_f64(place as f64 / rate).ok()?,
            Pace::Window(_) => Duration::ZERO,
        };
        let within = match self.until {
            Until::Messages(count) => place < count,
            Until::After(end) => due < end,
        };
        within.then_some(due)
    }

    /// How long the schedule is; `None` where it depends on the server.
    pub fn length(&self) -> Option<Duration> {
        match (self.until, self.pace) {
            (Until::After(length), _) => Some(length),
            (Until::Messages(count), Pace::Open(rate)) => Duration::try_from_secs_f64(count as f64 / rate).ok(),
            (Until::Messages(_), Pace::Window(_)) => None,
        }
    }
}

/// A message to be sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Say {
    pub id: Uuid,
    /// What its text begins with.
    pub stamp: Stamp,
}

#[derive(Debug)]
struct Pending {
    say: Say,
    first_sent: Duration,
    /// Sent on this connection and not answered; otherwise it waits to be sent again.
    under_way: bool,
    /// Where it was seen among the room's events, which says as much as `accepted`.
    seen: Option<Spot>,
}

/// One publisher's messages.
#[derive(Debug)]
pub struct Speaker {
    script: Script,
    run: u32,
    publisher: u32,
    /// When the speaking began.
    start: Option<Duration>,
    next: u64,
    /// In the order in which they were first sent.
    pending: VecDeque<Pending>,
    /// How many of `pending` are not under way.
    waiting: usize,
    /// Accepted and not heard yet, where that counts.
    unheard: Vec<Uuid>,
    /// The server asked for a pause until then.
    hold_until: Duration,
    /// Since when nothing but our own clock decides when a message is sent; `None` while something else does.
    free_since: Option<Duration>,
    pub accepted: Vec<Acceptance>,
    /// Accepted by coming back, where nothing else says so.
    pub by_ear: u64,
    /// Numbers of messages that were said when the line broke, where nothing is said again.
    pub in_doubt: Vec<u64>,
    /// The run was interrupted: nothing is due from then on.
    stopped: Option<Duration>,
    pub sent: u64,
    pub resent: u64,
    /// Given up: refused for good, or too old to be sent again.
    pub failed: u64,
    pub accepted_twice_differently: u64,
}

impl Speaker {
    pub fn new(script: Script, run: u32, publisher: u32) -> Self {
        Speaker {
            script,
            run,
            publisher,
            start: None,
            next: 0,
            pending: VecDeque::new(),
            waiting: 0,
            unheard: Vec::new(),
            hold_until: Duration::ZERO,
            free_since: None,
            accepted: Vec::new(),
            by_ear: 0,
            in_doubt: Vec::new(),
            stopped: None,
            sent: 0,
            resent: 0,
            failed: 0,
            accepted_twice_differently: 0,
        }
    }

    pub fn publisher(&self) -> u32 {
        self.publisher
    }

    pub fn start(&mut self, now: Duration) {
        self.start = Some(now);
    }

    /// When the next new message is due; at a window's pace never earlier than it could be sent.
    fn next_due(&self) -> Option<Duration> {
        let due = self.start? + self.script.due(self.publisher, self.next)?;
        self.stopped.is_none_or(|stopped| due < stopped).then_some(due)
    }

    /// The run was interrupted.
    pub fn stop(&mut self, at: Duration) {
        self.stopped.get_or_insert(at);
    }

    /// The next message to send, if one may be sent now, and how late that is where only our own clock decides.
    /// `dedupe`: older ones must not be sent again, since the server would not know them.
    pub fn next(&mut self, now: Duration, dedupe: Option<Duration>) -> Option<(Say, Option<Duration>)> {
        if now < self.hold_until || self.is_full() && self.waiting == 0 {
            self.stalled();
            return None;
        }
        if self.waiting > 0 {
            self.stalled();
            if let Some(say) = self.again(now, dedupe) {
                return Some((say, None));
            }
        }
        self.fresh(now)
    }

    fn is_full(&self) -> bool {
        self.pending.len() + self.unheard.len() >= self.script.window()
    }

    fn again(&mut self, now: Duration, dedupe: Option<Duration>) -> Option<Say> {
        let too_old =
            |pending: &Pending| !pending.under_way && dedupe.is_some_and(|kept| now - pending.first_sent > kept);
        let before = self.pending.len();
        self.pending.retain(|pending| !too_old(pending));
        let dropped = before - self.pending.len();
        self.failed += dropped as u64;
        self.waiting -= dropped;
        let pending = self.pending.iter_mut().find(|pending| !pending.under_way)?;
        pending.under_way = true;
        self.waiting -= 1;
        self.resent += 1;
        Some(pending.say)
    }

    fn fresh(&mut self, now: Duration) -> Option<(Say, Option<Duration>)> {
        let due = self.next_due()?;
        let scheduled = match self.script.pace {
            Pace::Open(_) => due,
            Pace::Window(_) => now,
        };
        if self.time_is_up(scheduled) {
            return None;
        }
        let free_since = *self.free_since.get_or_insert(now);
        if scheduled > now {
            return None;
        }
        let stamp = Stamp { run: self.run, publisher: self.publisher, number: self.next, scheduled };
        let say = Say { id: stamp.id(), stamp };
        self.pending.push_back(Pending { say, first_sent: now, under_way: true, seen: None });
        self.next += 1;
        self.sent += 1;
        Some((say, (scheduled >= free_since).then(|| now - scheduled)))
    }

    /// When [`Speaker::next`] may have something again, unless an answer comes first.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        let due = if self.waiting > 0 {
            Some(Duration::ZERO)
        } else if self.is_full() || self.time_is_up(now) {
            None
        } else {
            self.next_due()
        };
        Some(due?.max(self.hold_until))
    }

    /// Something else than our own clock keeps messages from being sent.
    pub fn stalled(&mut self) {
        self.free_since = None;
    }

    fn take(&mut self, place: usize) -> Option<Pending> {
        let pending = self.pending.remove(place)?;
        self.waiting -= usize::from(!pending.under_way);
        Some(pending)
    }

    fn find(&self, id: &str) -> Option<usize> {
        let id = Uuid::try_parse(id).ok()?;
        self.pending.iter().position(|pending| pending.say.id == id)
    }

    /// `accepted`: how long that took since the message was due, the first time. `Err`: not a message of ours.
    pub fn accepted(&mut self, id: &str, spot: Spot, now: Duration) -> Result<Option<Duration>, ()> {
        let acceptance = Acceptance { spot, id: IdHash::of(id) };
        let differs = |other: Spot| other.epoch == spot.epoch && other.offset != spot.offset;
        let Some(place) = self.find(id) else {
            let earlier = self.accepted.iter().find(|one| one.id == acceptance.id);
            let earlier = earlier.ok_or(())?.spot;
            self.accepted_twice_differently += u64::from(differs(earlier));
            return Ok(None);
        };
        let pending = self.take(place).ok_or(())?;
        if pending.seen.is_some_and(differs) {
            self.accepted_twice_differently += 1;
        }
        if self.script.until_heard && pending.seen.is_none() {
            self.unheard.push(pending.say.id);
        }
        self.accepted.push(acceptance);
        Ok(Some(now.saturating_sub(pending.say.stamp.scheduled)))
    }

    /// One of ours came among the room's events. One that waits to be sent again need not be.
    pub fn seen(&mut self, id: &str, spot: Spot) {
        let Some(place) = self.find(id) else {
            if let Ok(id) = Uuid::try_parse(id) {
                self.unheard.retain(|unheard| *unheard != id);
            }
            return;
        };
        self.pending[place].seen = Some(spot);
        if !self.pending[place].under_way {
            self.accept_by_sight(place);
        }
    }

    fn accept_by_sight(&mut self, place: usize) {
        if let Some(pending) = self.take(place)
            && let Some(spot) = pending.seen
        {
            let id = IdHash::of(pending.say.id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            self.accepted.push(Acceptance { spot, id });
        }
    }

    /// The server refused a message: for `retry_after`, or for good. `false`: not a message of ours.
    pub fn refused(&mut self, id: &str, retry_after: Option<Duration>, now: Duration) -> bool {
        let Some(place) = self.find(id) else {
            return false;
        };
        match retry_after {
            Some(_) if self.pending[place].seen.is_some() => self.accept_by_sight(place),
            Some(pause) => {
                let pending = &mut self.pending[place];
                self.waiting += usize::from(pending.under_way);
                pending.under_way = false;
                self.hold_until = self.hold_until.max(now + pause);
            }
            None => {
                self.take(place);
                self.failed += 1;
            }
        }
        true
    }

    /// A message came back at a door where that is all that tells: how long that took since it was due.
    pub fn came_back(&mut self, number: u64, now: Duration) -> Option<Duration> {
        let place = self.pending.iter().position(|pending| pending.say.stamp.number == number)?;
        let pending = self.take(place)?;
        self.by_ear += 1;
        Some(now.saturating_sub(pending.say.stamp.scheduled))
    }

    /// The connection ended at such a door: nobody would know again what was said.
    pub fn leave_in_doubt(&mut self) {
        self.in_doubt.extend(self.pending.iter().map(|pending| pending.say.stamp.number));
        self.pending.clear();
        self.waiting = 0;
        self.stalled();
    }

    /// Messages that were accepted, in whatever way.
    pub fn accepted_count(&self) -> u64 {
        self.accepted.len() as u64 + self.by_ear
    }

    /// The connection ended: what was not answered is to be sent again, unless it was seen.
    pub fn cut(&mut self) {
        while let Some(place) = self.pending.iter().position(|one| one.seen.is_some()) {
            self.accept_by_sight(place);
        }
        for pending in &mut self.pending {
            pending.under_way = false;
        }
        self.waiting = self.pending.len();
        self.unheard.clear(); // they come with the backlog, or never
        self.hold_until = Duration::ZERO;
        self.stalled();
    }

    /// What was due and is not accepted: under way, given up, or never sent.
    pub fn unaccepted(&self, now: Duration) -> u64 {
        self.pending.len() as u64 + self.failed + self.unsent(now)
    }

    /// How many messages are due and were never sent. At a window's pace only those of a counted script are owed.
    pub fn unsent(&self, now: Duration) -> u64 {
        let now = self.stopped.map_or(now, |stopped| now.min(stopped));
        let Some(elapsed) = self.start.and_then(|start| now.checked_sub(start)) else {
            return 0;
        };
        let publishers = u64::from(self.script.publishers);
        // Of all publishers together, and not too few of them: what is too much is taken off again.
        let places = match (self.script.pace, self.script.until) {
            (Pace::Window(_), _) if self.stopped.is_some() => return 0,
            (Pace::Window(_), Until::After(_)) => return 0,
            (Pace::Window(_), Until::Messages(count)) => count,
            (Pace::Open(rate), Until::Messages(count)) => count.min((elapsed.as_secs_f64() * rate) as u64 + 1),
            (Pace::Open(rate), Until::After(length)) => (elapsed.min(length).as_secs_f64() * rate) as u64 + 1,
        };
        let is_due = |number: u64| self.script.due(self.publisher, number).is_some_and(|due| due <= elapsed);
        let mut until = places / publishers + 2;
        while until > self.next && !is_due(until - 1) {
            until -= 1;
        }
        until.saturating_sub(self.next)
    }

    /// Whether everything that will ever be due was sent and answered.
    pub fn is_done(&self, now: Duration) -> bool {
        let over = self.start.is_some() && (self.time_is_up(now) || self.next_due().is_none());
        over && self.pending.is_empty()
    }

    /// Whether nothing new may be scheduled: at a window's pace the clock ends it, at an open one the schedule does.
    fn time_is_up(&self, now: Duration) -> bool {
        match (self.script.pace, self.script.until, self.start) {
            (Pace::Window(_), ..) if self.stopped.is_some_and(|stopped| now >= stopped) => true,
            (Pace::Window(_), Until::After(length), Some(start)) => now >= start + length,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::EpochKey;

    const DEDUPE: Option<Duration> = Some(Duration::from_secs(600));

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn spot(offset: u64) -> Spot {
        Spot { epoch: EpochKey::of("e"), offset }
    }

    /// The second of two publishers, who say ten messages a second.
    fn open(until: Until) -> Speaker {
        let script = Script { publishers: 2, pace: Pace::Open(10.0), until, until_heard: false };
        let mut speaker = Speaker::new(script, 1, 1);
        speaker.start(ms(0));
        speaker
    }

    fn window(size: usize, until: Until) -> Speaker {
        let script = Script { publishers: 1, pace: Pace::Window(size), until, until_heard: false };
        let mut speaker = Speaker::new(script, 1, 0);
        speaker.start(ms(0));
        speaker
    }

    fn say(speaker: &mut Speaker, now: Duration) -> Option<Say> {
        speaker.next(now, DEDUPE).map(|(say, _)| say)
    }

    fn accept(speaker: &mut Speaker, say: Say, offset: u64, now: Duration) -> Option<Duration> {
        speaker.accepted(&say.id.to_string(), spot(offset), now).unwrap()
    }

    #[test]
    fn the_schedule_is_shared_by_all_and_waits_for_nobody() {
        let mut speaker = open(Until::Messages(6));
        assert_eq!(speaker.wake(ms(0)), Some(ms(100)));
        assert_eq!(say(&mut speaker, ms(99)), None);
        let times: Vec<Duration> =
            std::iter::from_fn(|| say(&mut speaker, ms(5000))).map(|say| say.stamp.scheduled).collect();
        assert_eq!(times, [ms(100), ms(300), ms(500)]);
        assert_eq!(open(Until::After(ms(301))).unsent(ms(9000)), 2);
    }

    #[test]
    fn what_is_owed_is_reckoned_and_not_counted() {
        let script = Script { publishers: 3, pace: Pace::Open(7.0), until: Until::After(ms(900)), until_heard: false };
        for publisher in 0..3 {
            let mut speaker = Speaker::new(script.clone(), 1, publisher);
            speaker.start(ms(100));
            for now in (0..2000).step_by(13) {
                let due = |number: u64| script.due(publisher, number).is_some_and(|due| ms(100) + due <= ms(now));
                let counted = (0..).take_while(|&number| due(number)).count() as u64;
                assert_eq!(speaker.unsent(ms(now)), counted, "{publisher} at {now}");
            }
        }
        let fast = Script { publishers: 1, pace: Pace::Open(1e9), until: Until::After(ms(20_000)), until_heard: false };
        let mut speaker = Speaker::new(fast, 1, 0);
        speaker.start(ms(0));
        assert!(speaker.unsent(ms(60_000)).abs_diff(20_000_000_000) <= 1);
    }

    #[test]
    fn an_interrupted_run_owes_nothing_that_was_due_later() {
        let mut speaker = open(Until::After(ms(60_000)));
        assert!(say(&mut speaker, ms(100)).is_some());
        speaker.stop(ms(250));
        assert_eq!((speaker.wake(ms(250)), say(&mut speaker, ms(400)), speaker.unsent(ms(9000))), (None, None, 0));
        assert!(!speaker.is_done(ms(9000)), "the one that was said has no answer");
    }

    #[test]
    fn our_own_lateness_is_told_from_that_of_the_server() {
        let mut speaker = open(Until::Messages(100));
        assert_eq!(speaker.next(ms(0), DEDUPE), None);
        let (first, late) = speaker.next(ms(130), DEDUPE).unwrap();
        assert_eq!(late, Some(ms(30)));
        speaker.refused(&first.id.to_string(), Some(ms(300)), ms(140));
        assert_eq!(say(&mut speaker, ms(310)), None);
        assert_eq!(speaker.next(ms(450), DEDUPE), Some((first, None)));
        let (_, late) = speaker.next(ms(450), DEDUPE).unwrap();
        assert_eq!(late, None, "it was due while the server asked for a pause");
    }

    #[test]
    fn a_window_is_not_exceeded() {
        let mut speaker = window(2, Until::Messages(3));
        let first = say(&mut speaker, ms(1)).unwrap();
        assert!(say(&mut speaker, ms(2)).is_some());
        assert_eq!((say(&mut speaker, ms(3)), speaker.wake(ms(3))), (None, None));
        assert_eq!(accept(&mut speaker, first, 1, ms(9)), Some(ms(8)));
        assert_eq!(say(&mut speaker, ms(9)).unwrap().stamp.scheduled, ms(9));
        assert!(!speaker.is_done(ms(9)));
        assert_eq!(speaker.unaccepted(ms(9)), 2);
    }

    #[test]
    fn a_message_that_must_be_heard_is_under_way_until_then() {
        let mut speaker = window(1, Until::Messages(9));
        speaker.script.until_heard = true;
        let first = say(&mut speaker, ms(1)).unwrap();
        accept(&mut speaker, first, 1, ms(2));
        assert_eq!((say(&mut speaker, ms(2)), speaker.wake(ms(2))), (None, None));
        speaker.seen(&first.id.to_string(), spot(1));
        let second = say(&mut speaker, ms(3)).unwrap();
        speaker.seen(&second.id.to_string(), spot(2));
        assert_eq!(say(&mut speaker, ms(3)), None, "it is not accepted");
        accept(&mut speaker, second, 2, ms(4));
        let third = say(&mut speaker, ms(4)).unwrap();
        accept(&mut speaker, third, 3, ms(5));
        speaker.cut();
        assert!(say(&mut speaker, ms(6)).is_some(), "what was cut off is not waited for");
    }

    #[test]
    fn a_window_closes_when_time_is_up() {
        let mut speaker = window(2, Until::After(ms(50)));
        let last = say(&mut speaker, ms(49)).unwrap();
        assert_eq!(say(&mut speaker, ms(50)), None);
        assert!(!speaker.is_done(ms(60)));
        assert_eq!(speaker.wake(ms(60)), None, "or it would wake for ever");
        accept(&mut speaker, last, 1, ms(60));
        assert!(speaker.is_done(ms(60)));
        assert_eq!(speaker.unaccepted(ms(60)), 0);
    }

    #[test]
    fn what_a_cut_left_open_is_sent_again_in_order_under_the_same_id() {
        let mut speaker = window(4, Until::Messages(4));
        let says: Vec<Say> = (0..3).filter_map(|_| say(&mut speaker, ms(1))).collect();
        speaker.cut();
        speaker.seen(&says[1].id.to_string(), spot(1));
        assert_eq!(say(&mut speaker, ms(5)), Some(says[0]));
        assert_eq!(say(&mut speaker, ms(5)), Some(says[2]));
        assert_eq!(speaker.accepted.len(), 1);
        assert_eq!(speaker.resent, 2);
        assert_eq!(accept(&mut speaker, says[0], 2, ms(6)), Some(ms(5)));
    }

    #[test]
    fn what_was_seen_before_the_cut_is_not_sent_again() {
        let mut speaker = window(4, Until::Messages(1));
        let only = say(&mut speaker, ms(1)).unwrap();
        speaker.seen(&only.id.to_string(), spot(1));
        assert!(!speaker.is_done(ms(2)), "the acceptance may still come");
        speaker.cut();
        assert_eq!(say(&mut speaker, ms(2)), None);
        assert!(speaker.is_done(ms(2)));
    }

    #[test]
    fn a_refusal_of_what_was_seen_is_no_refusal() {
        let mut speaker = window(4, Until::Messages(1));
        let only = say(&mut speaker, ms(1)).unwrap();
        speaker.seen(&only.id.to_string(), spot(1));
        assert!(speaker.refused(&only.id.to_string(), Some(ms(5)), ms(2)));
        assert_eq!(say(&mut speaker, ms(9)), None);
        assert!(speaker.is_done(ms(9)));
    }

    #[test]
    fn what_the_server_no_longer_knows_is_given_up() {
        let mut speaker = window(4, Until::Messages(1));
        say(&mut speaker, ms(1)).unwrap();
        speaker.cut();
        assert_eq!(say(&mut speaker, Duration::from_secs(601)), None);
        assert_eq!(speaker.unaccepted(Duration::from_secs(601)), 1);
        assert_eq!(speaker.failed, 1);
    }

    #[test]
    fn a_refusal_for_good_is_not_repeated() {
        let mut speaker = window(4, Until::Messages(1));
        let only = say(&mut speaker, ms(1)).unwrap();
        assert!(speaker.refused(&only.id.to_string(), None, ms(2)));
        assert!(!speaker.refused(&only.id.to_string(), None, ms(2)));
        assert_eq!((say(&mut speaker, ms(3)), speaker.failed), (None, 1));
    }

    #[test]
    fn a_second_offset_for_one_message_is_found() {
        let mut speaker = window(4, Until::Messages(3));
        let first = say(&mut speaker, ms(1)).unwrap();
        accept(&mut speaker, first, 1, ms(2));
        accept(&mut speaker, first, 1, ms(2));
        assert_eq!(speaker.accepted_twice_differently, 0);
        accept(&mut speaker, first, 2, ms(2));
        assert_eq!(speaker.accepted_twice_differently, 1);

        let second = say(&mut speaker, ms(3)).unwrap();
        speaker.seen(&second.id.to_string(), spot(7));
        accept(&mut speaker, second, 8, ms(4));
        assert_eq!(speaker.accepted_twice_differently, 2);
        assert_eq!(speaker.accepted(&Uuid::nil().to_string(), spot(1), ms(1)), Err(()));
    }
}
