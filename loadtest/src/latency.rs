//! Latencies: recorded in microseconds, merged exactly, told in milliseconds.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A histogram of three digits. What takes longer than an hour counts as an hour.
#[derive(Debug, Clone, PartialEq)]
pub struct Recorded(Histogram<u64>);

impl Recorded {
    const LONGEST_US: u64 = 3_600_000_000;

    pub fn new() -> Self {
        Recorded(Histogram::new_with_bounds(1, Self::LONGEST_US, 3).expect("these bounds are valid"))
    }

    pub fn record(&mut self, time: Duration) {
        self.0.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
    }

    /// Adds what others recorded: the same as if all had been recorded here.
    pub fn add(&mut self, other: &Recorded) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub fn clear(&mut self) {
        self.0.reset();
    }

    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The values that occur, and how often.
    fn values(&self) -> Vec<(u64, u64)> {
        self.0.iter_recorded().map(|value| (value.value_iterated_to(), value.count_at_value())).collect()
    }

    pub fn at_quantile(&self, quantile: f64) -> Duration {
        Duration::from_micros(self.0.value_at_quantile(quantile))
    }

    pub fn summary(&self) -> Latencies {
        let ms = |quantile| self.0.value_at_quantile(quantile) as f64 / 1000.0;
        Latencies {
            count: self.0.len(),
            p50: ms(0.5),
            p99: ms(0.99),
            p999: ms(0.999),
            max: self.0.max() as f64 / 1000.0,
        }
    }
}

/// By its values: a histogram of one second has a few hundred of them.
impl Serialize for Recorded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.values().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Recorded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut recorded = Recorded::new();
        for (value, count) in Vec::<(u64, u64)>::deserialize(deserializer)? {
            recorded.0.saturating_record_n(value, count);
        }
        Ok(recorded)
    }
}

/// Latencies in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Latencies {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms", self.p50, self.p99, self.p999, self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_workers_recorded_adds_up_to_what_one_would_have_recorded(
            all in proptest::collection::vec((0..3usize, 0..5_000_000_000u64), 0..500),
        ) {
            let mut alone = Recorded::new();
            let mut workers = [Recorded::new(), Recorded::new(), Recorded::new()];
            for (worker, us) in all {
                alone.record(Duration::from_micros(us));
                workers[worker].record(Duration::from_micros(us));
            }
            let mut merged = Recorded::new();
            for worker in workers {
                let sent = postcard::to_allocvec(&worker).unwrap();
                merged.add(&postcard::from_bytes(&sent).unwrap());
            }
            prop_assert_eq!(merged.values(), alone.values());
            let (ours, theirs) = (merged.summary(), alone.summary());
            prop_assert_eq!((ours.count, ours.p50, ours.p99), (theirs.count, theirs.p50, theirs.p99));
        }
    }

    #[test]
    fn nothing_is_none() {
        assert_eq!(Recorded::new().summary().to_string(), "none");
    }
}
