//! Tickets: tokens that a site puts into Redis for a name, as the tutorial's Django does.
//!
//! A ticket is good until its key expires, or once (`--ticket-once`). What is in that Redis was written by others: only so much
//! of a value is read as a ticket can have, and it is compared in constant time. Redis is asked when somebody comes and not
//! before; where it does not answer, that is said to whoever runs the hall, seldom, and once when it is over.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::redis::cmd;
use subtle::ConstantTimeEq;

use super::{Identity, Kind, NotAdmitted};
use crate::broker::redis::asking::{Asking, NoAnswer};
use crate::config::{TicketKey, TicketSettings};
use crate::logging::Seldom;
use crate::names::{DisplayName, UserId};
use crate::protocol::User;

/// A longer token is no ticket, and neither is a longer value.
pub const MAX_TICKET_BYTES: usize = 1024;

/// Between two warnings of the same kind.
const WARN_EVERY: Duration = Duration::from_secs(60);

const NAME_NEEDED: &str = "a ticket comes with the name that it is for";
const NO_TICKET: &str = "the ticket is not this name's, or no longer valid";
const NOT_NOW: &str = "the tickets cannot be read now; come again in a moment";

/// Removes the ticket if it still is this one, and says whether it did: of several who bring it at once, one is let in.
const USE_UP: &str = "\
if redis.call('GETRANGE', KEYS[1], 0, ARGV[2]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

pub struct Tickets {
    redis: Asking,
    /// As the log may have it.
    place: String,
    key: TicketKey,
    once: bool,
    said: Mutex<Said>,
}

/// What the log has of Redis' troubles.
#[derive(Default)]
struct Said {
    warned: Vec<(&'static str, Seldom)>,
    /// A trouble was said, and not that it is over.
    ill: bool,
}

impl Tickets {
    /// # Errors
    /// In words, where that Redis can never be asked.
    pub fn new(settings: &TicketSettings) -> Result<Self, String> {
        Ok(Tickets {
            redis: Asking::new(&settings.redis)?,
            place: settings.redis.url.to_string(),
            key: settings.key.clone(),
            once: settings.once,
            said: Mutex::default(),
        })
    }

    /// Whether `token` is the ticket of `name`.
    ///
    /// # Errors
    /// See [`NotAdmitted`].
    pub async fn check(&self, name: Option<&str>, token: &str) -> Result<Identity, NotAdmitted> {
        let name = name.filter(|name| !name.is_empty()).ok_or_else(|| NotAdmitted::unauthorized(NAME_NEEDED))?;
        let name = DisplayName::parse(name).ok_or_else(|| NotAdmitted::Malformed(DisplayName::RULE.into()))?;
        let refused = || NotAdmitted::unauthorized(NO_TICKET);
        let id = UserId::given(name.as_str()).ok_or_else(refused)?;
        if !(1..=MAX_TICKET_BYTES).contains(&token.len()) {
            return Err(refused());
        }
        let key = self.key.of(name.as_str());
        if !is_ticket(&self.kept(&key).await?, token) || self.once && !self.use_up(&key, token).await? {
            return Err(refused());
        }
        Ok(Identity::of(User { id, name, info: None }, Kind::Known))
    }

    /// What is kept for a name, up to one byte more than a ticket has.
    async fn kept(&self, key: &str) -> Result<Vec<u8>, NotAdmitted> {
        let question = cmd("GETRANGE").arg(key).arg(0).arg(MAX_TICKET_BYTES).clone();
        self.heard(self.redis.ask(&question).await)
    }

    async fn use_up(&self, key: &str, token: &str) -> Result<bool, NotAdmitted> {
        let question = cmd("EVAL").arg(USE_UP).arg(1).arg(key).arg(token).arg(MAX_TICKET_BYTES).clone();
        // Asked twice, it would find that the ticket is used up, and its bearer would be sent away for good.
        self.heard(self.redis.ask_once(&question).await)
    }

    fn heard<T>(&self, answer: Result<T, NoAnswer>) -> Result<T, NotAdmitted> {
        self.say(answer.as_ref().err());
        answer.map_err(|_| NotAdmitted::Unavailable(NOT_NOW.into()))
    }

    fn say(&self, trouble: Option<&NoAnswer>) {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).learn(trouble, Instant::now());
        match (said, trouble) {
            (true, Some(NoAnswer { words, .. })) => tracing::warn!("no tickets from Redis at {}: {words}", self.place),
            (true, None) => tracing::info!("tickets from Redis at {} again", self.place),
            (false, _) => {}
        }
    }
}

impl Said {
    /// Whether it is to be said now.
    fn learn(&mut self, trouble: Option<&NoAnswer>, now: Instant) -> bool {
        let Some(NoAnswer { kind, .. }) = trouble else { return std::mem::take(&mut self.ill) };
        let at = self.warned.iter().position(|(warned, _)| warned == kind).unwrap_or_else(|| {
            self.warned.push((kind, Seldom::new(WARN_EVERY)));
            self.warned.len() - 1
        });
        let due = self.warned[at].1.pass(now).is_some();
        self.ill |= due;
        due
    }
}

fn is_ticket(kept: &[u8], token: &str) -> bool {
    (1..=MAX_TICKET_BYTES).contains(&kept.len()) && bool::from(kept.ct_eq(token.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_ticket_is_it_and_nothing_is_none() {
        assert!(is_ticket(b"token", "token"));
        for (kept, token) in [(&b"token"[..], "Token"), (b"token", "toke"), (b"toke", "token"), (b"", ""), (b"", "x")] {
            assert!(!is_ticket(kept, token), "{token}");
        }
        let [longest, longer] = [MAX_TICKET_BYTES, MAX_TICKET_BYTES + 1].map(|bytes| "x".repeat(bytes));
        assert!(is_ticket(longest.as_bytes(), &longest));
        assert!(!is_ticket(longer.as_bytes(), &longer));
    }

    #[test]
    fn each_trouble_is_said_once_in_a_while_and_its_end_once() {
        let trouble = |kind| NoAnswer { kind, words: "words".into() };
        let (silent, login) = (trouble("silent"), trouble("login"));
        let start = Instant::now();
        let mut said = Said::default();
        let mut learn = |trouble, seconds| said.learn(trouble, start + Duration::from_secs(seconds));
        assert!(!learn(None, 0));
        assert!(learn(Some(&silent), 0) && !learn(Some(&silent), 1));
        assert!(learn(Some(&login), 2) && !learn(Some(&login), 3) && !learn(Some(&silent), 4));
        assert!(learn(None, 5) && !learn(None, 6));
        // What was not said does not end.
        assert!(!learn(Some(&silent), 7) && !learn(None, 8));
        assert!(learn(Some(&silent), 60) && learn(None, 61));
    }
}
