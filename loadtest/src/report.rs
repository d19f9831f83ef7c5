//! The result of a run: for people, and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::client::{Client, Tally};
use crate::fanout::Course;
use crate::listener::Listener;
use crate::machine::{Load, Thread};
use crate::threshold::{Figure, Figures};
use crate::verdict::{Acceptance, Receiver, Verdict, judge};

/// A run whose publishers were later than that by our own fault, in one case of a hundred, measured ourselves.
const MOST_LAG: Duration = Duration::from_millis(100);
/// So did one that took more of the processors than that.
const MOST_CPU: f64 = 0.9;
/// So did one whose processors had nothing left, whoever took it.
const FULL: f64 = 0.97;

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    pub room: String,
    /// Whether messages had a schedule.
    pub open_loop: bool,
    /// Whether the server promises that all get the messages in one order.
    pub is_ordered: bool,
    pub course: Course,
    pub tally: Tally,
    pub clients: Vec<Client>,
    pub listeners: Vec<Listener>,
}

/// Latencies in milliseconds.
#[derive(Debug, Default, Serialize)]
pub struct Latencies {
    pub count: u64,
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

impl Latencies {
    pub fn of(histogram_us: &Histogram<u64>) -> Self {
        let ms = |quantile| histogram_us.value_at_quantile(quantile) as f64 / 1000.0;
        Latencies {
            count: histogram_us.len(),
            p50: ms(0.5),
            p99: ms(0.99),
            p999: ms(0.999),
            max: histogram_us.max() as f64 / 1000.0,
        }
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.count == 0 {
            return f.write_str("none");
        }
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms", self.p50, self.p99, self.p999, self.max)
    }
}

/// Everything that is said about a run. Its fields are the JSON object's.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub pass: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// The generator itself was the bottleneck: its latencies say nothing.
    pub void: bool,
    pub void_reason: Option<String>,
    pub room: String,
    /// Clients asked for, who read what they get.
    pub connections: u64,
    /// Of those, who were in the room at least once.
    pub connected: u64,
    /// Of those, who were not in the room at the end.
    pub away: u64,
    /// Clients asked for, who count what they get.
    pub listeners: u64,
    /// Of those, who were in the room.
    pub listeners_in: u64,
    /// What listeners read after the handshake, headers and all.
    pub listeners_bytes: u64,
    pub reconnects: u64,
    pub resumes: u64,
    /// Messages, each counted once.
    pub sent: u64,
    pub resent: u64,
    pub accepted: u64,
    /// Due, and not accepted when the run ended.
    pub unaccepted: u64,
    pub accepted_twice_differently: u64,
    pub deliveries: u64,
    pub deliveries_per_s: f64,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Frames that the protocol does not allow.
    pub breaches: u64,
    /// From when a message was due to its `accepted`.
    pub accepted_ms: Latencies,
    /// From when a message was due to its delivery, over all receivers.
    pub delivered_ms: Latencies,
    /// How late the generator's own clock was.
    pub lag_ms: Latencies,
    /// Of the processors that the generator could use, while messages came, 0 to 1.
    pub cpu_share: Option<f64>,
    /// What was taken of the same processors by anything at all.
    pub cores_busy: Option<f64>,
    /// The generator's busiest thread, and what it took of one processor.
    pub busiest_thread: Option<Thread>,
    /// Processor time of the process of --watch, seconds.
    pub watched_cpu_s: Option<f64>,
    /// From the first message to the end.
    pub seconds: f64,
    /// What the server refused, by code.
    pub errors: BTreeMap<String, u64>,
    /// Why connections ended, or did not come about.
    pub ends: BTreeMap<String, u64>,
}

impl Report {
    pub fn of(outcome: Outcome) -> Self {
        let verdict = judged(&outcome);
        let Outcome { room, open_loop, is_ordered, course, tally, clients, listeners } = outcome;
        let speakers = || clients.iter().filter_map(|client| client.speaker.as_ref());
        let count = |which: fn(&Client) -> bool| clients.iter().filter(|one| which(one)).count() as u64;
        let begin = match speakers().next() {
            Some(_) => course.from,
            None => tally.first_delivery.unwrap_or(course.from), // somebody else spoke, and began when it suited them
        };
        let spoken = tally.last_delivery.saturating_sub(begin).as_secs_f64();
        let void_reason = void_reason(&tally, course.load.as_ref(), open_loop);
        let mut report = Report {
            pass: false,
            reasons: Vec::new(),
            void: void_reason.is_some(),
            void_reason,
            room,
            connections: clients.len() as u64,
            connected: count(Client::has_joined),
            away: count(|client| !client.is_live()),
            listeners: listeners.len() as u64,
            listeners_in: listeners.iter().filter(|listener| listener.spot().is_some()).count() as u64,
            listeners_bytes: tally.listeners_bytes,
            reconnects: tally.reconnects,
            resumes: tally.resumes,
            sent: speakers().map(|speaker| speaker.sent).sum(),
            resent: speakers().map(|speaker| speaker.resent).sum(),
            accepted: speakers().map(|speaker| speaker.accepted.len() as u64).sum(),
            unaccepted: speakers().map(|speaker| speaker.unaccepted(course.until)).sum(),
            accepted_twice_differently: speakers().map(|speaker| speaker.accepted_twice_differently).sum(),
            deliveries: tally.deliveries,
            deliveries_per_s: if spoken > 0.0 { tally.deliveries as f64 / spoken } else { 0.0 },
            verdict,
            breaches: tally.breaches,
            accepted_ms: Latencies::of(&tally.accepted_us),
            delivered_ms: Latencies::of(&tally.delivered_us),
            lag_ms: Latencies::of(&tally.lag_us),
            cpu_share: course.load.as_ref().map(|load| load.own),
            cores_busy: course.load.as_ref().and_then(|load| load.cores_busy),
            busiest_thread: course.load.map(|load| load.busiest),
            watched_cpu_s: course.watched_cpu.map(|cpu| cpu.as_secs_f64()),
            seconds: course.until.saturating_sub(course.from).as_secs_f64(),
            errors: tally.errors,
            ends: tally.ends,
        };
        report.reasons = report.faults(is_ordered);
        report.pass = report.reasons.is_empty();
        report
    }

    /// `is_ordered`: whether what came after a later message is one.
    fn faults(&self, is_ordered: bool) -> Vec<String> {
        let faults = [
            (self.verdict.lost, "lost"),
            (self.verdict.doubled, "doubled"),
            (if is_ordered { self.verdict.swapped } else { 0 }, "swapped"),
            (self.verdict.mismatched, "mismatched"),
            (self.verdict.accepted_unseen, "accepted and seen by nobody"),
            (self.unaccepted, "unaccepted"),
            (self.accepted_twice_differently, "accepted twice, differently"),
            (self.breaches, "frames against the protocol"),
            (self.connections - self.connected, "clients never got into the room"),
            (self.listeners - self.listeners_in, "listeners never got into the room"),
        ];
        let counted = faults.iter().filter(|(count, _)| *count > 0);
        let nothing = (self.deliveries == 0).then(|| "nothing was received".to_owned());
        counted.map(|(count, what)| format!("{count} {what}")).chain(nothing).collect()
    }
}

impl crate::Outcome for Report {
    fn verdict(&mut self) -> (&mut bool, &mut Vec<String>) {
        (&mut self.pass, &mut self.reasons)
    }
}

impl Figures for Report {
    fn figures(&self) -> Vec<Figure> {
        let times = [("delivery", &self.delivered_ms), ("accept", &self.accepted_ms), ("lag", &self.lag_ms)];
        let counts = [
            ("lost", self.verdict.lost),
            ("doubled", self.verdict.doubled),
            ("swapped", self.verdict.swapped),
            ("told", self.verdict.told),
            ("breaks", self.verdict.breaks),
            ("sent", self.sent),
            ("accepted", self.accepted),
            ("unaccepted", self.unaccepted),
            ("deliveries", self.deliveries),
            ("connected", self.connected),
            ("away", self.away),
            ("reconnects", self.reconnects),
            ("resumes", self.resumes),
        ];
        let others = [
            Figure::number("deliveries_per_s", self.deliveries_per_s),
            Figure::number("cpu_share", self.cpu_share),
            Figure::number("watched_cpu_s", self.watched_cpu_s),
        ];
        let times = times.into_iter().flat_map(|(name, latencies)| Figure::latencies(name, latencies));
        times.chain(counts.map(|(name, count)| Figure::count(name, count))).chain(others).collect()
    }

    fn is_void(&self) -> bool {
        self.void
    }
}

fn judged(outcome: &Outcome) -> Verdict {
    let receivers: Vec<&Receiver> = outcome.clients.iter().map(|client| &client.receiver).collect();
    let acceptances: Vec<Acceptance> = outcome
        .clients
        .iter()
        .filter_map(|client| client.speaker.as_ref())
        .flat_map(|speaker| speaker.accepted.iter().copied())
        .collect();
    let mut verdict = judge(&receivers, &acceptances, &outcome.tally.ledger, outcome.course.goal);
    for listener in &outcome.listeners {
        listener.judge(outcome.course.goal, &mut verdict);
    }
    verdict
}

fn void_reason(tally: &Tally, load: Option<&Load>, open_loop: bool) -> Option<String> {
    let lag = Duration::from_micros(tally.lag_us.value_at_quantile(0.99));
    if open_loop && lag > MOST_LAG {
        return Some(format!("the generator was late: p99 {} ms", lag.as_millis()));
    }
    let Load { own, busiest, cores_busy } = load?;
    let percent = |share: f64| format!("{:.0}%", 100.0 * share);
    if *own > MOST_CPU {
        return Some(format!("the generator took {} of its processors", percent(*own)));
    }
    if busiest.share > MOST_CPU {
        return Some(format!(
            "the generator's thread {} took {} of one processor",
            busiest.name,
            percent(busiest.share)
        ));
    }
    let busy = cores_busy.filter(|busy| *busy > FULL)?;
    Some(format!("the generator's processors were busy to {}, of which it had {}", percent(busy), percent(*own)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        writeln!(f, "{}{}", if self.pass { "pass" } else { "fail: " }, self.reasons.join(", "))?;
        if let Some(reason) = &self.void_reason {
            writeln!(f, "void: {reason}; the latencies say nothing")?;
        }
        writeln!(
            f,
            "room {}: {} of {} clients in, {} away at the end, {} reconnects, {} resumes",
            self.room, self.connected, self.connections, self.away, self.reconnects, self.resumes
        )?;
        if self.listeners > 0 {
            writeln!(f, "besides, {} of {} listeners in, who count", self.listeners_in, self.listeners)?;
        }
        writeln!(
            f,
            "{} sent ({} again), {} accepted, {} not; {} deliveries, {:.0} a second, in {:.1} s",
            self.sent,
            self.resent,
            self.accepted,
            self.unaccepted,
            self.deliveries,
            self.deliveries_per_s,
            self.seconds
        )?;
        writeln!(
            f,
            "lost {}, doubled {}, swapped {}, mismatched {}; told of {} lost, {} views broken",
            verdict.lost, verdict.doubled, verdict.swapped, verdict.mismatched, verdict.told, verdict.breaks
        )?;
        writeln!(f, "due → accepted:  {}", self.accepted_ms)?;
        writeln!(f, "due → delivered: {}", self.delivered_ms)?;
        writeln!(f, "own lag:         {}", self.lag_ms)?;
        if let Some(share) = self.cpu_share {
            writeln!(f, "own CPU:         {:.0}%", 100.0 * share)?;
        }
        if let Some(seconds) = self.watched_cpu_s {
            let each_us = 1e6 * seconds / self.deliveries.max(1) as f64;
            writeln!(f, "server's CPU:    {seconds:.2} s, {each_us:.2} µs a delivery")?;
        }
        for (what, kinds) in [("error", &self.errors), ("end", &self.ends)] {
            for (kind, times) in kinds {
                writeln!(f, "{what}: {kind}, {times} times")?;
            }
        }
        for example in &verdict.examples {
            writeln!(f, "e.g. {example}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(own: f64, busiest: f64, cores_busy: f64) -> Load {
        Load { own, busiest: Thread { name: "crowd".into(), share: busiest }, cores_busy: Some(cores_busy) }
    }

    fn outcome() -> Outcome {
        Outcome {
            room: "r".into(),
            open_loop: true,
            is_ordered: true,
            course: Course {
                from: Duration::ZERO,
                until: Duration::from_secs(10),
                goal: None,
                load: Some(load(0.1, 0.1, 0.2)),
                watched_cpu: None,
            },
            tally: Tally::new(),
            clients: Vec::new(),
            listeners: Vec::new(),
        }
    }

    #[test]
    fn a_run_in_which_nothing_was_received_has_not_passed() {
        let report = Report::of(outcome());
        assert_eq!(report.reasons, ["nothing was received"]);
        assert!(!report.pass && !report.void);
        let mut heard = outcome();
        heard.tally.deliveries = 1;
        assert!(Report::of(heard).pass);
    }

    #[test]
    fn what_came_too_late_is_a_fault_where_an_order_is_promised() {
        let swapped = |is_ordered| {
            let mut outcome = outcome();
            let mut client = Client::new(0, None);
            client.receiver.joined("e", 0, 0, None);
            assert!(client.receiver.event(2).is_some() && client.receiver.event(1).is_some());
            outcome.clients.push(client);
            outcome.tally.deliveries = 2;
            Report::of(Outcome { is_ordered, ..outcome })
        };
        assert_eq!(swapped(true).reasons, ["1 swapped"]);
        assert!(swapped(false).pass && swapped(false).verdict.swapped == 1);
    }

    #[test]
    fn a_late_or_busy_generator_voids_the_run() {
        let mut late = outcome();
        for _ in 0..100 {
            late.tally.lag_us.saturating_record(200_000);
        }
        late.open_loop = false;
        assert!(!Report::of(late).void, "without a schedule nothing is late");

        let mut late = outcome();
        late.tally.lag_us.saturating_record(200_000);
        assert!(Report::of(late).void_reason.unwrap().contains("200 ms"));

        for (load, why) in [
            (load(0.95, 0.5, 0.95), "took 95% of its processors"),
            (load(0.49, 0.96, 0.5), "thread crowd took 96%"),
            (load(0.4, 0.4, 0.99), "busy to 99%, of which it had 40%"),
        ] {
            let mut busy = outcome();
            busy.course.load = Some(load);
            let reason = Report::of(busy).void_reason.unwrap();
            assert!(reason.contains(why), "{reason}");
        }
    }

    #[test]
    fn the_json_is_one_flat_object() {
        let json = serde_json::to_value(Report::of(outcome())).unwrap();
        for field in ["pass", "void", "lost", "doubled", "swapped", "mismatched", "told", "deliveries"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert!(json["delivered_ms"].get("p99").is_some());
    }
}
