//! How much one client may ask for.

use std::time::{Duration, Instant};

/// A token bucket that allows `rate` commands a second, and `burst` at once after a pause. Source: the classic algorithm,
/// with time kept as the moment at which the bucket would be full (GCRA, ITU-T I.371).
#[derive(Debug)]
pub struct Rate {
    /// Time between two commands; zero: no limit.
    interval: Duration,
    /// How far ahead of the steady pace a client may be.
    tolerance: Duration,
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Rate {
    /// `rate` in commands a second; 0: no limit.
    pub fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let interval = if rate == 0 { Duration::ZERO } else { Duration::from_secs(1) / rate };
        Rate { interval, tolerance: interval * burst.max(1), full_at: now }
    }

    /// Takes one command.
    ///
    /// # Errors
    /// How long to wait, when there were too many.
    pub fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let after = self.full_at.max(now) + self.interval;
        let ahead = after - now;
        if ahead > self.tolerance {
            return Err(ahead - self.tolerance);
        }
        self.full_at = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_the_steady_pace() {
        let start = Instant::now();
        let mut rate = Rate::new(10, 3, start);
        assert!((0..3).all(|_| rate.take(start).is_ok()));
        let wait = rate.take(start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert!(rate.take(start + wait).is_ok());
        assert!(rate.take(start + wait).is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let start = Instant::now();
        let mut rate = Rate::new(0, 1, start);
        assert!((0..1000).all(|_| rate.take(start).is_ok()));
    }
}
