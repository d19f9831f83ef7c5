//! What one connection owes to time: it asks silent clients for a sign of life, gives one of its own, and gives up on a
//! socket that takes nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::{Sleep, sleep};

use crate::encoding::Encoding;
use crate::metrics::METRICS;
use crate::protocol::CloseReason;

/// As many beats without a sign of life end a connection.
const BEATS_MISSED: u32 = 3;
/// This part of a beat is not worth a write of its own.
const TOGETHER: u32 = 32;
/// A clock that waits for nothing looks again after so long.
const FAR: Duration = Duration::from_secs(3600);

/// The lengths of time; zero: off.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub beat: Duration,
    pub write_timeout: Duration,
}

/// See the module's documentation.
pub struct Clock {
    sleep: Pin<Box<Sleep>>,
    times: Times,
    encoding: Encoding,
    /// When the client was heard last.
    heard_at: Instant,
    /// How often it was asked since.
    pings: u32,
    /// The socket takes no more, since when.
    full_since: Option<Instant>,
}

/// What is to be sent since nothing else was for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    pub ping: bool,
    pub beat: bool,
}

impl Due {
    fn any(self) -> bool {
        self.ping || self.beat
    }
}

impl Clock {
    pub fn new(times: Times, encoding: Encoding) -> Self {
        let sleep = Box::pin(sleep(FAR));
        Clock { sleep, times, encoding, heard_at: Instant::now(), pings: 0, full_since: None }
    }

    /// Rings when something is due.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.sleep.as_mut().poll(context)
    }

    /// The client was heard.
    pub fn heard(&mut self, now: Instant) {
        self.heard_at = now;
        self.pings = 0;
    }

    pub fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// The socket takes no more.
    pub fn full(&mut self, now: Instant) {
        if self.full_since.is_none() {
            METRICS.slow_readers.increment(1.0);
            self.full_since = Some(now);
            if !self.times.write_timeout.is_zero() {
                self.wake_by(now + self.times.write_timeout);
            }
        }
    }

    /// The socket has taken something, or there is nothing for it.
    pub fn takes_again(&mut self) {
        if self.full_since.take().is_some() {
            METRICS.slow_readers.decrement(1.0);
        }
    }

    /// What is due at `now`. `reads`: whether the client is listened to; while it is not, it cannot be found silent.
    /// `spoke_at`: when it was last sent something that a page can see.
    ///
    /// # Errors
    /// When the client has to be given up: the third ping would be due, or its socket took nothing for too long.
    pub fn look(&mut self, now: Instant, reads: bool, spoke_at: Instant) -> Result<Due, CloseReason> {
        let Times { beat, write_timeout } = self.times;
        if !write_timeout.is_zero() && self.full_since.is_some_and(|since| now >= since + write_timeout) {
            return Err(CloseReason::TooSlow);
        }
        if !reads {
            self.heard(now);
        }
        let silent = now.saturating_duration_since(self.heard_at);
        if self.asks() && silent >= beat * BEATS_MISSED {
            return Err(CloseReason::NoSignOfLife);
        }
        let quiet = now.saturating_duration_since(spoke_at);
        let due = |early: Duration| Due {
            ping: self.asks() && silent + early >= beat * (self.pings + 1),
            beat: self.beats() && quiet + early >= beat,
        };
        // One write instead of two: what is nearly due goes along with what is.
        let due = if due(Duration::ZERO).any() { due(beat / TOGETHER) } else { due(Duration::ZERO) };
        self.pings += u32::from(due.ping);
        Ok(due)
    }

    /// Whether silent clients are pinged: TCP has its own means.
    fn asks(&self) -> bool {
        !self.times.beat.is_zero() && self.encoding != Encoding::Line
    }

    /// Whether the client is told that its line is alive.
    fn beats(&self) -> bool {
        !self.times.beat.is_zero() && self.encoding == Encoding::Json && !self.is_full()
    }

    /// Rings at whatever is due first, `others` among it.
    pub fn arm(&mut self, now: Instant, spoke_at: Instant, others: impl IntoIterator<Item = Instant>) {
        let Times { beat, write_timeout } = self.times;
        let ping = self.asks().then(|| self.heard_at + beat * (self.pings + 1));
        let beat = self.beats().then(|| spoke_at + beat);
        let too_slow = self.full_since.filter(|_| !write_timeout.is_zero()).map(|since| since + write_timeout);
        let due = [ping, beat, too_slow].into_iter().flatten().chain(others).min();
        let at = due.map_or(now + FAR, |at| at.max(now + Duration::from_millis(1)));
        self.sleep.as_mut().reset(at.into());
    }

    /// Rings at `at` at the latest.
    pub fn wake_by(&mut self, at: Instant) {
        if at < self.sleep.deadline().into_std() {
            self.sleep.as_mut().reset(at.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEAT: Duration = Duration::from_secs(10);
    const NOTHING: Due = Due { ping: false, beat: false };

    fn clock(encoding: Encoding) -> Clock {
        Clock::new(Times { beat: BEAT, write_timeout: BEAT / 2 }, encoding)
    }

    #[tokio::test]
    async fn a_silent_client_is_asked_twice_and_then_given_up() {
        let mut clock = clock(Encoding::Plain);
        let start = clock.heard_at;
        let ping = Due { ping: true, beat: false };
        assert_eq!(clock.look(start + BEAT / 2, true, start), Ok(NOTHING));
        assert_eq!(clock.look(start + BEAT, true, start), Ok(ping));
        assert_eq!(clock.look(start + BEAT, true, start), Ok(NOTHING));
        assert_eq!(clock.look(start + BEAT * 2, true, start), Ok(ping));
        assert_eq!(clock.look(start + BEAT * 3, true, start), Err(CloseReason::NoSignOfLife));
    }

    #[tokio::test]
    async fn who_answers_or_is_not_listened_to_stays() {
        let mut clock = clock(Encoding::Plain);
        let start = clock.heard_at;
        for beats in 1..10 {
            assert!(clock.look(start + BEAT * beats, true, start).is_ok());
            clock.heard(start + BEAT * beats);
        }
        assert_eq!(clock.look(start + BEAT * 100, false, start), Ok(NOTHING));
    }

    #[tokio::test]
    async fn a_page_is_told_that_its_line_lives_and_a_line_is_not() {
        let start = Instant::now();
        let due = clock(Encoding::Json).look(start + BEAT, false, start);
        assert_eq!(due, Ok(Due { ping: false, beat: true }));
        assert_eq!(clock(Encoding::Line).look(start + BEAT * 100, true, start), Ok(NOTHING));
    }

    #[tokio::test]
    async fn what_is_nearly_due_goes_along_with_what_is_due_but_not_alone() {
        let mut clock = clock(Encoding::Json);
        let start = clock.heard_at;
        let spoke_at = start + BEAT / 50;
        assert_eq!(clock.look(start + BEAT * 49 / 50, true, spoke_at), Ok(NOTHING));
        assert_eq!(clock.look(start + BEAT, true, spoke_at), Ok(Due { ping: true, beat: true }));
        assert_eq!(clock.look(start + BEAT * 3 / 2, true, start + BEAT / 2), Ok(Due { ping: false, beat: true }));
    }

    #[tokio::test]
    async fn a_socket_that_takes_nothing_is_given_up_and_one_that_takes_something_is_not() {
        let mut clock = clock(Encoding::Line);
        let start = Instant::now();
        clock.full(start);
        assert!(clock.look(start + BEAT / 3, true, start).is_ok());
        assert_eq!(clock.look(start + BEAT / 2, true, start), Err(CloseReason::TooSlow));
        clock.takes_again();
        assert!(clock.look(start + BEAT, true, start).is_ok());
    }

    #[tokio::test]
    async fn it_rings_at_whatever_comes_first() {
        let mut clock = clock(Encoding::Json);
        let now = clock.heard_at;
        let rings = |clock: &Clock| clock.sleep.deadline().into_std() - now;
        clock.arm(now, now + BEAT, []);
        assert_eq!(rings(&clock), BEAT);
        clock.arm(now, now - BEAT / 2, []);
        assert_eq!(rings(&clock), BEAT / 2);
        clock.arm(now, now, [now + BEAT / 4]);
        assert_eq!(rings(&clock), BEAT / 4);
        clock.wake_by(now + BEAT);
        assert_eq!(rings(&clock), BEAT / 4);
        clock.wake_by(now);
        assert_eq!(rings(&clock), Duration::ZERO);
    }
}
