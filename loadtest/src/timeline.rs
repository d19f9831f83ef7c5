//! What happened when: a moment for each second of a run.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::latency::{Latencies, Recorded};
use crate::machine;
use crate::standing::Standing;

/// Workers have said what a second's latencies were when so many more have passed.
const COMPLETE_AFTER: u64 = 5;

/// A second of the run, or several that were drawn together.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Moment {
    /// Since the run began, in seconds: its end.
    pub at_s: f64,
    /// Clients in the room, at the end.
    pub clients: u64,
    pub deliveries_per_s: f64,
    pub accepted_per_s: f64,
    /// Of messages that were delivered then: since they were due.
    pub delivered_ms: Latencies,
    /// What the watched process took of one processor, and its memory at the end.
    pub watched_cpu: Option<f64>,
    pub watched_mib: Option<f64>,
}

/// What has added up so far.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    at: Duration,
    deliveries: u64,
    accepted: u64,
    watched_cpu: Option<Duration>,
}

#[derive(Debug)]
pub struct Timeline {
    watch: Option<u32>,
    sums: Sums,
    moments: BTreeMap<u64, Moment>,
    /// Of seconds whose latencies may not be complete.
    latencies: BTreeMap<u64, Recorded>,
}

impl Timeline {
    pub fn new(watch: Option<u32>) -> Self {
        Timeline { watch, sums: Sums::default(), moments: BTreeMap::new(), latencies: BTreeMap::new() }
    }

    /// A worker's clients had this delivered in a second of the run.
    pub fn delivered(&mut self, second: u64, recorded: &Recorded) {
        self.latencies.entry(second).or_insert_with(Recorded::new).add(recorded);
    }

    /// So they stand now; to be told often.
    pub fn look(&mut self, now: Duration, standing: &Standing) {
        if now.as_secs() > self.sums.at.as_secs() {
            self.take(now, standing);
        }
    }

    /// So they stand at the end, in the middle of a second. Less than half of one is a part of the one before.
    pub fn end(&mut self, now: Duration, standing: &Standing) {
        if now >= self.sums.at + Duration::from_millis(500) {
            self.take(now, standing);
        }
    }

    fn take(&mut self, now: Duration, standing: &Standing) {
        let second = self.sums.at.as_secs();
        let watched_cpu = self.watch.and_then(machine::cpu_time_of);
        let seconds = (now - self.sums.at).as_secs_f64();
        let a_second = |after: u64, before: u64| after.saturating_sub(before) as f64 / seconds;
        let moment = Moment {
            at_s: now.as_secs_f64(),
            clients: standing.live as u64,
            deliveries_per_s: a_second(standing.deliveries, self.sums.deliveries),
            accepted_per_s: a_second(standing.accepted, self.sums.accepted),
            delivered_ms: Latencies::default(),
            watched_cpu: watched_cpu
                .zip(self.sums.watched_cpu)
                .map(|(after, before)| after.saturating_sub(before).as_secs_f64() / seconds),
            watched_mib: self.watch.and_then(machine::memory_of).map(|bytes| bytes as f64 / 1_048_576.0),
        };
        let (deliveries, accepted) = (standing.deliveries, standing.accepted);
        self.moments.insert(second, moment);
        self.sums = Sums { at: now, deliveries, accepted, watched_cpu };
        self.complete(second.saturating_sub(COMPLETE_AFTER));
    }

    /// Nothing more comes of seconds before this one: their histograms are not kept.
    fn complete(&mut self, until: u64) {
        let later = self.latencies.split_off(&until);
        for (second, recorded) in std::mem::replace(&mut self.latencies, later) {
            // Where nobody looked for longer than a second, several are in one moment.
            if let Some((_, moment)) = self.moments.range_mut(..=second).next_back() {
                moment.delivered_ms = worst(&[moment.delivered_ms, recorded.summary()]);
            }
        }
    }

    pub fn moments(&mut self) -> Vec<Moment> {
        self.complete(u64::MAX);
        self.moments.values().copied().collect()
    }
}

/// At most so many moments: neighbours are drawn together, rates as their mean, latencies as the worst of each.
pub fn drawn_together(moments: &[Moment], most: usize) -> Vec<Moment> {
    let each = moments.len().div_ceil(most.max(1)).max(1);
    moments.chunks(each).map(together).collect()
}

/// None of them is hidden by another.
fn worst(all: &[Latencies]) -> Latencies {
    let worst = |of: fn(&Latencies) -> f64| all.iter().map(of).fold(0.0, f64::max);
    Latencies {
        count: all.iter().map(|latencies| latencies.count).sum(),
        p50: worst(|latencies| latencies.p50),
        p99: worst(|latencies| latencies.p99),
        p999: worst(|latencies| latencies.p999),
        max: worst(|latencies| latencies.max),
    }
}

fn together(moments: &[Moment]) -> Moment {
    let last = moments.last().copied().unwrap_or_default();
    let mean = |of: fn(&Moment) -> f64| moments.iter().map(of).sum::<f64>() / moments.len() as f64;
    let latencies: Vec<Latencies> = moments.iter().map(|moment| moment.delivered_ms).collect();
    let cpu: Vec<f64> = moments.iter().filter_map(|moment| moment.watched_cpu).collect();
    Moment {
        deliveries_per_s: mean(|moment| moment.deliveries_per_s),
        accepted_per_s: mean(|moment| moment.accepted_per_s),
        delivered_ms: worst(&latencies),
        watched_cpu: (!cpu.is_empty()).then(|| cpu.iter().sum::<f64>() / cpu.len() as f64),
        ..last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(ms: u64) -> Recorded {
        let mut recorded = Recorded::new();
        recorded.record(Duration::from_millis(ms));
        recorded
    }

    #[test]
    fn a_second_has_what_all_workers_had_in_it() {
        let mut timeline = Timeline::new(None);
        let standing = |tenth: u64| Standing { deliveries: 5 * tenth, live: 3, ..Standing::default() };
        for tenth in 1..=24 {
            timeline.look(Duration::from_millis(100 * tenth), &standing(tenth));
        }
        timeline.end(Duration::from_millis(2500), &standing(25));
        timeline.delivered(1, &recorded(10));
        timeline.delivered(1, &recorded(30));
        let moments = timeline.moments();
        assert_eq!(moments.len(), 3);
        assert_eq!((moments[1].deliveries_per_s, moments[1].clients, moments[1].at_s), (50.0, 3, 2.0));
        assert_eq!((moments[1].delivered_ms.count, moments[1].delivered_ms.max.round()), (2, 30.0));
        assert_eq!((moments[0].delivered_ms.count, moments[2].delivered_ms.count), (0, 0));
        assert_eq!((moments[2].deliveries_per_s, moments[2].at_s), (50.0, 2.5));
    }

    #[test]
    fn a_second_in_which_nobody_looked_is_a_part_of_the_one_before() {
        let mut timeline = Timeline::new(None);
        let standing = Standing { deliveries: 10, ..Standing::default() };
        timeline.look(Duration::from_millis(1000), &standing);
        timeline.look(Duration::from_millis(3000), &standing);
        timeline.delivered(1, &recorded(10));
        timeline.delivered(2, &recorded(30));
        let moments = timeline.moments();
        assert_eq!(moments.len(), 2);
        assert_eq!((moments[1].delivered_ms.count, moments[1].delivered_ms.max.round()), (2, 30.0));
    }

    #[test]
    fn many_seconds_are_drawn_together_and_none_of_their_worst_is_hidden() {
        let moment = |second: u32| Moment {
            at_s: f64::from(second),
            deliveries_per_s: 10.0,
            delivered_ms: Latencies { count: 1, max: if second == 13 { 99.0 } else { 1.0 }, ..Latencies::default() },
            ..Moment::default()
        };
        let moments: Vec<Moment> = (1..=1000).map(moment).collect();
        let few = drawn_together(&moments, 300);
        assert_eq!((few.len(), few[0].at_s, few[249].at_s), (250, 4.0, 1000.0));
        assert_eq!((few[3].delivered_ms.max, few[3].delivered_ms.count, few[3].deliveries_per_s), (99.0, 4, 10.0));
        assert_eq!(drawn_together(&moments, 5000).len(), 1000);
        assert!(drawn_together(&[], 10).is_empty());
    }
}
