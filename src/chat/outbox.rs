//! What was said and is not accepted yet, in the order in which it was said.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::frames::Refused;

#[derive(Debug)]
pub struct Say {
    pub tag: u64,
    pub room: String,
    pub id: Uuid,
    pub text: String,
    /// On this connection, and not answered.
    sent: bool,
    /// On any connection, for the first time.
    first_sent: Option<Instant>,
}

#[derive(Debug, Default)]
pub struct Outbox(VecDeque<Say>);

impl Outbox {
    pub fn push(&mut self, tag: u64, room: &str, text: String) {
        self.0.push_back(Say { tag, room: room.into(), id: Uuid::new_v4(), text, sent: false, first_sent: None });
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The place of a room's oldest message, if none of that room is under way.
    pub fn next(&self, room: &str) -> Option<usize> {
        let oldest = self.0.iter().position(|say| say.room == room)?;
        let under_way = self.0.iter().any(|say| say.sent && say.room == room);
        (!under_way).then_some(oldest)
    }

    /// The message at this place goes out.
    pub fn send(&mut self, place: usize, now: Instant) -> Option<&Say> {
        let say = self.0.get_mut(place)?;
        say.sent = true;
        say.first_sent.get_or_insert(now);
        Some(say)
    }

    /// What was under way is not any more: the connection is gone.
    pub fn disconnected(&mut self) {
        self.0.iter_mut().for_each(|say| say.sent = false);
    }

    /// The message with this id is to be sent again; its room.
    pub fn again(&mut self, id: Uuid) -> Option<&str> {
        let say = self.0.iter_mut().find(|say| say.id == id)?;
        say.sent = false;
        Some(&say.room)
    }

    pub fn take(&mut self, id: Uuid) -> Option<Say> {
        let place = self.0.iter().position(|say| say.id == id)?;
        self.0.remove(place)
    }

    pub fn take_room(&mut self, room: &str) -> Vec<Say> {
        let (taken, kept): (VecDeque<Say>, _) =
            std::mem::take(&mut self.0).into_iter().partition(|say| say.room == room);
        self.0 = kept;
        taken.into()
    }

    pub fn take_all(&mut self) -> Vec<Say> {
        std::mem::take(&mut self.0).into()
    }

    /// What can no longer be sent safely, being older than `dedupe` when a hall may have it already; and what is longer than
    /// `most` bytes, to which a hall might hang up.
    /// A message that a hall may have is judged only where `known` says that the room's backlog was read.
    pub fn take_unfit(
        &mut self,
        dedupe: Option<Duration>,
        most: usize,
        known: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Vec<(Say, Refused)> {
        let mut unfit = Vec::new();
        let mut kept = VecDeque::new();
        for say in self.0.drain(..) {
            match say.why_unfit(dedupe, most, now).filter(|_| !say.sent && (known(&say.room) || !say.may_be_stored())) {
                Some(why) => unfit.push((say, why)),
                None => kept.push_back(say),
            }
        }
        self.0 = kept;
        unfit
    }
}

impl Say {
    /// Whether a hall may have it.
    pub fn may_be_stored(&self) -> bool {
        self.first_sent.is_some()
    }

    fn why_unfit(&self, dedupe: Option<Duration>, most: usize, now: Instant) -> Option<Refused> {
        let late = dedupe.zip(self.first_sent).is_some_and(|(dedupe, sent)| now > sent + dedupe);
        if late {
            return Some(Refused::ours("expired", "it waited too long to be sent again safely"));
        }
        let length = self.text.len();
        let words = || format!("a text has at most {most} bytes, this one {length}");
        (length > most).then(|| Refused { code: "too_long".into(), words: words() })
    }
}
