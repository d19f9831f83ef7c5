//! The hall's limit on commands, kept on this side too: a queue that is emptied after an outage must not run into refusals, a
//! hundred of which in a row end the connection.

use std::time::Duration;

use tokio::time::Instant;

/// Two clocks are never the same: we go so much slower than the hall allows.
const CAUTION: f64 = 0.98;

/// A bucket of commands. What is not answered yet may not be read yet, and be read all at once; so it counts as if it had just
/// been sent, and no delay on the way can make the hall see more than it allows.
#[derive(Debug)]
pub struct Pace {
    /// Commands a second; 0: no limit.
    rate: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl Pace {
    pub fn new(rate: f64, burst: f64, now: Instant) -> Self {
        let rate = if rate.is_finite() && rate > 0.0 { rate * CAUTION } else { 0.0 };
        let burst = if burst.is_finite() { burst.max(1.0) } else { 1.0 };
        Pace { rate, burst, left: burst, at: now }
    }

    /// When a command may go; `None`: after an answer.
    pub fn free_at(&self, unanswered: usize, now: Instant) -> Option<Instant> {
        if self.rate == 0.0 {
            return Some(now);
        }
        let most = self.burst - unanswered as f64;
        if most < 1.0 {
            return None;
        }
        let left = (self.left + self.gained(now)).min(most);
        let wait = (1.0 - left).max(0.0) / self.rate;
        Some(now + Duration::from_secs_f64(wait.min(3600.0)))
    }

    /// A command goes, `unanswered` being those before it.
    pub fn take(&mut self, unanswered: usize, now: Instant) {
        let most = self.burst - unanswered as f64;
        self.left = (self.left + self.gained(now)).min(most) - 1.0;
        self.at = now;
    }

    /// An answer came, to one of so many. Until a moment ago the hall may have read none of them.
    pub fn answered(&mut self, unanswered: usize, now: Instant) {
        self.left = (self.left + self.gained(now)).min(self.burst - unanswered as f64);
        self.at = now;
    }

    fn gained(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.at).as_secs_f64() * self.rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_goes_at_once_and_then_what_the_hall_allows() {
        let start = Instant::now();
        let mut pace = Pace::new(10.0, 3.0, start);
        let mut at = start;
        let mut sent = Vec::new();
        for _ in 0..5 {
            at = pace.free_at(0, at).unwrap();
            pace.take(0, at);
            sent.push((at - start).as_secs_f64());
        }
        assert_eq!(sent[..3], [0.0; 3]);
        assert!((sent[3] - 0.102).abs() < 0.001 && (sent[4] - 0.204).abs() < 0.001, "{sent:?}");
    }

    #[tokio::test]
    async fn what_is_not_answered_counts_as_just_sent() {
        let now = Instant::now();
        let pace = Pace::new(10.0, 3.0, now);
        assert_eq!(pace.free_at(2, now), Some(now));
        assert_eq!(pace.free_at(3, now), None);
        assert_eq!(Pace::new(0.0, 1.0, now).free_at(1000, now), Some(now), "no limit");
    }
}
