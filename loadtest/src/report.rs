//! The result of a run: for people, and as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::connection::LEFT;
use crate::environment::Environment;
use crate::guest::{Gone, View};
use crate::latency::Latencies;
use crate::leader::Outcome;
use crate::machine::{Load, Worker};
use crate::plan::Plan;
use crate::scenario::Promise;
use crate::speaker::Pace;
use crate::tally::Tally;
use crate::threshold::{Figure, Figures};
use crate::timeline::Moment;
use crate::verdict::{Verdict, judge};

/// A run whose publishers were later than that by our own fault, in one case of a hundred, measured ourselves.
const MOST_LAG: Duration = Duration::from_millis(100);
/// So did one that took more of the processors than that.
const MOST_CPU: f64 = 0.9;
/// So did one whose processors had nothing left, whoever took it.
const FULL: f64 = 0.95;

/// Everything that is said about a run. Its fields are the JSON object's.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub pass: bool,
    /// Why not.
    pub reasons: Vec<String>,
    /// The generator itself was the bottleneck: its latencies say nothing.
    pub void: bool,
    pub void_reason: Option<String>,
    /// It was ended by Ctrl-C, or SIGTERM.
    pub interrupted: bool,
    pub scenario: &'static str,
    /// The first one, where there are several.
    pub room: String,
    pub rooms: u64,
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
    /// From when a client was due to its being in the room.
    pub connect_ms: Latencies,
    /// While they came in.
    pub connects_per_s: f64,
    pub reconnects: u64,
    pub resumes: u64,
    /// From the loss of a line (or from when it was to end that was planned) to having everything that was missed.
    pub back_ms: Latencies,
    /// When all lines were cut, or the command was run in place of that, in seconds since the run began.
    pub cut_at_s: Option<f64>,
    /// From the cut to when the last client had everything; `None`: nothing was cut, or somebody is still away.
    pub all_back_s: Option<f64>,
    /// Messages, each counted once.
    pub sent: u64,
    pub resent: u64,
    pub accepted: u64,
    /// Said when the line broke, where nothing tells whether it was heard, and nothing is said again.
    pub in_doubt: u64,
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
    /// The generator's busiest process, and what it took of one processor.
    pub busiest_worker: Option<Worker>,
    /// Processor time of the process of --watch, seconds.
    pub watched_cpu_s: Option<f64>,
    /// The same while clients came in, seconds.
    pub watched_entry_cpu_s: Option<f64>,
    /// Its memory at the end to that after the first tenth, less one: 0 where it did not grow.
    pub watched_growth: Option<f64>,
    /// From the first message to the end.
    pub seconds: f64,
    /// What the server refused, by code.
    pub errors: BTreeMap<String, u64>,
    /// Why connections ended, or did not come about.
    pub ends: BTreeMap<String, u64>,
    pub environment: Environment,
    /// Second by second.
    pub timeline: Vec<Moment>,
}

impl Report {
    /// `promise`: what of the run is a fault.
    pub fn of(outcome: Outcome, promise: &Promise, environment: Environment) -> Self {
        let verdict = judged(&outcome);
        let Outcome { plan, course, mut tally, clients, listeners, .. } = outcome;
        let said = || clients.iter().filter_map(|client| client.said.as_ref());
        let count = |which: fn(&Gone) -> bool| clients.iter().filter(|one| which(one)).count() as u64;
        let begin = match said().next() {
            Some(_) => course.from,
            None => tally.first_delivery.unwrap_or(course.from), // somebody else spoke, and began when it suited them
        };
        let spoken = tally.last_delivery.saturating_sub(begin).as_secs_f64();
        let void_reason = void_reason(&tally, course.load.as_ref(), &plan, promise);
        let away = count(|client| !client.is_live);
        let all_back = course.cut_at.filter(|_| away == 0 && tally.back.count() > 0);
        let entered = tally.last_entered.saturating_sub(course.gathered).as_secs_f64();
        let mut report = Report {
            pass: false,
            reasons: Vec::new(),
            void: void_reason.is_some(),
            void_reason,
            interrupted: course.interrupted,
            scenario: promise.scenario,
            room: plan.rooms.first().map_or(String::new(), |room| room.name.clone()),
            rooms: plan.rooms.len() as u64,
            connections: clients.len() as u64,
            connected: count(|client| client.has_joined),
            away,
            listeners: listeners.len() as u64,
            listeners_in: listeners.iter().filter(|listener| listener.spot().is_some()).count() as u64,
            listeners_bytes: tally.listeners_bytes,
            connect_ms: tally.entered.summary(),
            connects_per_s: if entered > 0.0 { tally.entered.count() as f64 / entered } else { 0.0 },
            reconnects: tally.reconnects,
            resumes: tally.resumes,
            back_ms: tally.back.summary(),
            cut_at_s: course.cut_at.map(|cut| cut.as_secs_f64()),
            all_back_s: all_back.map(|cut| tally.last_back.saturating_sub(cut).as_secs_f64()),
            sent: said().map(|said| said.sent).sum(),
            resent: said().map(|said| said.resent).sum(),
            accepted: said().map(|said| said.accepted.len() as u64 + said.by_ear).sum(),
            in_doubt: said().map(|said| said.in_doubt.len() as u64).sum(),
            unaccepted: said().map(|said| said.unaccepted).sum(),
            accepted_twice_differently: said().map(|said| said.accepted_twice_differently).sum(),
            deliveries: tally.deliveries,
            deliveries_per_s: if spoken > 0.0 { tally.deliveries as f64 / spoken } else { 0.0 },
            verdict,
            breaches: tally.breaches,
            accepted_ms: tally.accepted.summary(),
            delivered_ms: tally.delivered().summary(),
            lag_ms: if promise.is_heard { tally.lag.summary() } else { tally.entry_lag.summary() },
            cpu_share: course.load.as_ref().map(|load| load.own),
            cores_busy: course.load.as_ref().and_then(|load| load.cores_busy),
            busiest_worker: course.load.map(|load| load.busiest),
            watched_cpu_s: course.watched_cpu.map(|cpu| cpu.as_secs_f64()),
            watched_entry_cpu_s: course.watched_gathering.map(|cpu| cpu.as_secs_f64()),
            watched_growth: growth(&course.moments, course.from),
            seconds: course.until.saturating_sub(course.from).as_secs_f64(),
            errors: tally.errors,
            ends: tally.ends,
            environment,
            timeline: course.moments,
        };
        let command = course.command_failed.map(|status| format!("the command of --instead failed: {status}"));
        report.reasons = command.into_iter().chain(report.faults(promise)).collect();
        report.pass = report.reasons.is_empty();
        report
    }

    fn faults(&self, promise: &Promise) -> Vec<String> {
        let faults = [
            (self.verdict.lost, "lost"),
            (self.verdict.doubled, "doubled"),
            (if promise.is_ordered { self.verdict.swapped } else { 0 }, "swapped"),
            (self.verdict.mismatched, "mismatched"),
            (self.verdict.accepted_unseen, "accepted and seen by nobody"),
            (self.unaccepted, "unaccepted"),
            (self.accepted_twice_differently, "accepted twice, differently"),
            (self.breaches, "frames against the protocol"),
            (self.connections - self.connected, "clients never got into the room"),
            (self.listeners - self.listeners_in, "listeners never got into the room"),
            (if promise.all_are_back { self.away } else { 0 }, "clients were away at the end"),
        ];
        let counted = faults.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}"));
        let nothing = [
            (promise.is_heard && self.deliveries == 0, "nothing was received"),
            (promise.is_cut && self.back_ms.count == 0, "no line was cut"),
            (promise.is_left && !self.ends.contains_key(LEFT), "nobody left"),
        ];
        counted.chain(nothing.iter().filter(|(is_so, _)| *is_so).map(|(_, what)| (*what).to_owned())).collect()
    }
}

/// How much the watched process' memory grew after the first tenth of the speaking, as a share.
fn growth(moments: &[Moment], from: Duration) -> Option<f64> {
    let begun = moments.partition_point(|moment| moment.at_s < from.as_secs_f64());
    let moments = &moments[begun..];
    let first = moments.get(moments.len() / 10)?.watched_mib.filter(|mib| *mib > 0.0)?;
    Some(moments.iter().rev().find_map(|moment| moment.watched_mib)? / first - 1.0)
}

impl crate::Outcome for Report {
    fn verdict(&mut self) -> (&mut bool, &mut Vec<String>) {
        (&mut self.pass, &mut self.reasons)
    }

    fn has_passed(&self) -> bool {
        self.pass
    }

    fn reasons(&self) -> &[String] {
        &self.reasons
    }
}

impl Figures for Report {
    fn figures(&self) -> Vec<Figure> {
        let times = [
            ("delivery", &self.delivered_ms),
            ("accept", &self.accepted_ms),
            ("connect", &self.connect_ms),
            ("back", &self.back_ms),
            ("lag", &self.lag_ms),
        ];
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
            Figure::number("connects_per_s", self.connects_per_s),
            Figure::seconds("all_back", self.all_back_s),
            Figure::number("cpu_share", self.cpu_share),
            Figure::number("watched_cpu_s", self.watched_cpu_s),
            Figure::number("watched_growth", self.watched_growth),
        ];
        let times = times.into_iter().flat_map(|(name, latencies)| Figure::latencies(name, latencies));
        times.chain(counts.map(|(name, count)| Figure::count(name, count))).chain(others).collect()
    }

    fn is_void(&self) -> bool {
        self.void
    }
}

/// Room by room.
fn judged(outcome: &Outcome) -> Verdict {
    let mut verdict = Verdict::default();
    // Clients are in the order of their numbers, and so of their rooms.
    for members in outcome.clients.chunk_by(|a, b| a.room == b.room) {
        let room = members[0].room;
        let goal = outcome.course.goals.get(room).copied().flatten();
        let said = || members.iter().filter_map(|member| member.said.as_ref());
        let counts: Vec<_> = said().map(|said| (said.publisher, said.sent, &said.in_doubt[..])).collect();
        let mut views = Vec::new();
        for member in members {
            match &member.view {
                View::Log(receiver) => views.push((member.number, receiver)),
                View::Stamps(heard) => heard.judge(member.number, &counts, &mut verdict),
            }
        }
        let acceptances: Vec<_> = said().flat_map(|said| said.accepted.iter().copied()).collect();
        judge(&views, &acceptances, &outcome.tally.ledgers[room], goal, &mut verdict);
    }
    if verdict.lost > 0
        && outcome.plan.targets.len() > 1
        && outcome.clients.chunk_by(|a, b| a.room == b.room).any(is_torn)
    {
        verdict.examples.insert(0, "a room ended with logs of different epochs: are the servers one hall?".to_owned());
        verdict.examples.truncate(Verdict::MAX_EXAMPLES);
    }
    let goal = outcome.course.goals.first().copied().flatten();
    for listener in &outcome.listeners {
        listener.judge(goal, &mut verdict);
    }
    verdict
}

/// Whether a room's members are not all in one log.
fn is_torn(members: &[Gone]) -> bool {
    let epochs = members.iter().filter_map(|member| match &member.view {
        View::Log(receiver) => receiver.spot().map(|spot| spot.epoch),
        View::Stamps(_) => None,
    });
    epochs.collect::<BTreeSet<_>>().len() > 1
}

fn void_reason(tally: &Tally, load: Option<&Load>, plan: &Plan, promise: &Promise) -> Option<String> {
    let lag = if promise.is_heard { &tally.lag } else { &tally.entry_lag }.at_quantile(0.99);
    let has_schedule = matches!(plan.script.pace, Pace::Open(_)) || !promise.is_heard;
    if has_schedule && lag > MOST_LAG {
        return Some(format!("the generator was late: p99 {} ms", lag.as_millis()));
    }
    let Load { own, busiest, cores_busy } = load?;
    let percent = |share: f64| format!("{:.0}%", 100.0 * share);
    if *own > MOST_CPU {
        return Some(format!("the generator took {} of its processors", percent(*own)));
    }
    if busiest.share > MOST_CPU {
        let Worker { name, share } = busiest;
        return Some(format!("the generator's process {name} took {} of one processor", percent(*share)));
    }
    let busy = cores_busy.filter(|busy| *busy > FULL)?;
    Some(format!("its processors were busy to {}, with others' work: of it they had {}", percent(busy), percent(*own)))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = &self.verdict;
        writeln!(f, "{}{}", if self.pass { "pass" } else { "fail: " }, self.reasons.join(", "))?;
        if self.interrupted {
            writeln!(f, "interrupted: it was to go on longer")?;
        }
        if let Some(reason) = &self.void_reason {
            writeln!(f, "void: {reason}; the latencies say nothing")?;
        }
        let rooms = if self.rooms == 1 { format!("room {}", self.room) } else { format!("{} rooms", self.rooms) };
        writeln!(
            f,
            "{rooms}: {} of {} clients in, {} away at the end, {} reconnects, {} resumes",
            self.connected, self.connections, self.away, self.reconnects, self.resumes
        )?;
        writeln!(f, "due → in the room: {}; {:.0} a second", self.connect_ms, self.connects_per_s)?;
        if self.back_ms.count > 0 {
            writeln!(f, "line lost → back:  {}", self.back_ms)?;
        }
        if let Some(seconds) = self.all_back_s {
            writeln!(f, "cut → all are back: {seconds:.2} s")?;
        }
        if self.listeners > 0 {
            writeln!(f, "besides, {} of {} listeners in, who count", self.listeners_in, self.listeners)?;
        }
        if self.sent == 0 && self.deliveries == 0 {
            return self.write_rest(f);
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
        if self.in_doubt > 0 {
            writeln!(f, "{} in doubt: their line broke, and nothing tells whether they were heard", self.in_doubt)?;
        }
        writeln!(
            f,
            "lost {}, doubled {}, swapped {}, mismatched {}; told of {} lost, {} views broken",
            verdict.lost, verdict.doubled, verdict.swapped, verdict.mismatched, verdict.told, verdict.breaks
        )?;
        writeln!(f, "due → accepted:  {}", self.accepted_ms)?;
        writeln!(f, "due → delivered: {}", self.delivered_ms)?;
        self.write_rest(f)
    }
}

impl Report {
    fn write_rest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "own lag:         {}", self.lag_ms)?;
        if let Some(share) = self.cpu_share {
            writeln!(f, "own CPU:         {:.0}%", 100.0 * share)?;
        }
        let each = |seconds: f64, of: u64| 1e6 * seconds / of.max(1) as f64;
        match (self.watched_cpu_s, self.watched_entry_cpu_s) {
            (Some(seconds), _) if self.deliveries > 0 => {
                writeln!(f, "server's CPU:    {seconds:.2} s, {:.2} µs a delivery", each(seconds, self.deliveries))?;
            }
            (_, Some(seconds)) => {
                writeln!(f, "server's CPU:    {seconds:.2} s, {:.0} µs a client", each(seconds, self.connected))?;
            }
            _ => {}
        }
        if let Some(growth) = self.watched_growth.filter(|_| self.scenario == "soak") {
            writeln!(f, "server's memory: {:+.1}% after the first tenth", 100.0 * growth)?;
        }
        for (what, kinds) in [("error", &self.errors), ("end", &self.ends)] {
            for (kind, times) in kinds {
                writeln!(f, "{what}: {kind}, {times} times")?;
            }
        }
        for example in &self.verdict.examples {
            writeln!(f, "e.g. {example}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leader::Course;
    use crate::plan::tests::plan;
    use crate::receiver::Receiver;

    fn load(own: f64, busiest: f64, cores_busy: f64) -> Load {
        Load { own, busiest: Worker { name: "crowd-0".into(), share: busiest }, cores_busy: Some(cores_busy) }
    }

    fn outcome() -> Outcome {
        let until = Duration::from_secs(10);
        Outcome {
            plan: plan(&[(1, 1)]),
            workers: 1,
            course: Course { until, load: Some(load(0.1, 0.1, 0.2)), ..Course::default() },
            tally: Tally::new(1),
            clients: Vec::new(),
            listeners: Vec::new(),
        }
    }

    const ROOM: Promise = Promise {
        scenario: "fanout",
        is_ordered: true,
        is_heard: true,
        is_cut: false,
        is_left: false,
        all_are_back: false,
    };

    fn told(outcome: Outcome) -> Report {
        Report::of(outcome, &ROOM, Environment::default())
    }

    fn client(view: Receiver, is_live: bool) -> Gone {
        Gone { number: 0, room: 0, has_joined: true, is_live, view: View::Log(view), said: None }
    }

    #[test]
    fn a_run_in_which_nothing_was_received_has_not_passed() {
        let report = told(outcome());
        assert_eq!(report.reasons, ["nothing was received"]);
        assert!(!report.pass && !report.void);
        let mut heard = outcome();
        heard.tally.deliveries = 1;
        assert!(told(heard).pass);
        let silent = Promise { is_heard: false, ..ROOM };
        assert!(Report::of(outcome(), &silent, Environment::default()).pass);
    }

    #[test]
    fn what_came_too_late_is_a_fault_where_an_order_is_promised() {
        let swapped = |is_ordered| {
            let mut outcome = outcome();
            let mut view = Receiver::default();
            view.joined("e", 0, 0, None);
            assert!(view.event(2).is_some() && view.event(1).is_some());
            outcome.clients.push(client(view, true));
            outcome.tally.deliveries = 2;
            Report::of(outcome, &Promise { is_ordered, ..ROOM }, Environment::default())
        };
        assert_eq!(swapped(true).reasons, ["1 swapped"]);
        assert!(swapped(false).pass && swapped(false).verdict.swapped == 1);
    }

    #[test]
    fn a_storm_has_to_cut_somebody_and_everybody_has_to_come_back() {
        let storm = Promise { is_cut: true, all_are_back: true, ..ROOM };
        let mut nobody = outcome();
        nobody.tally.deliveries = 1;
        nobody.clients.push(client(Receiver::default(), false));
        let report = Report::of(nobody, &storm, Environment::default());
        assert_eq!(report.reasons, ["1 clients were away at the end", "no line was cut"]);

        let mut all = outcome();
        all.tally.deliveries = 1;
        all.course.cut_at = Some(Duration::from_secs(5));
        all.clients.push(client(Receiver::default(), true));
        all.tally.is_back(Duration::from_secs(5), Duration::from_secs(7));
        let report = Report::of(all, &storm, Environment::default());
        assert_eq!((report.pass, report.all_back_s, report.back_ms.count), (true, Some(2.0), 1));
    }

    #[test]
    fn servers_that_are_not_one_hall_are_named_as_such() {
        let mut halls = outcome();
        halls.tally.deliveries = 1;
        for epoch in ["a", "b"] {
            let mut view = Receiver::default();
            view.joined(epoch, 0, 0, None);
            assert!(view.event(2).is_some()); // the first one is lost
            halls.clients.push(client(view, true));
        }
        assert!(told(halls).verdict.examples[0].contains("are the servers one hall?"));
    }

    #[test]
    fn a_command_that_failed_is_a_fault() {
        let mut failed = outcome();
        failed.tally.deliveries = 1;
        failed.course.command_failed = Some("exit status: 1".into());
        assert_eq!(told(failed).reasons, ["the command of --instead failed: exit status: 1"]);
    }

    /// The names in a part of the manual's first column.
    fn in_manual(part: &str) -> BTreeSet<&'static str> {
        let manual = include_str!("../README.md");
        let part = manual.split(part).nth(1).and_then(|rest| rest.split("\n\n").nth(1)).unwrap();
        let columns = part.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next());
        columns.flat_map(|column| column.split('`').step_by(2)).filter(|name| !name.is_empty()).collect()
    }

    fn keys(value: &impl Serialize) -> BTreeSet<String> {
        serde_json::to_value(value).unwrap().as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn the_manual_has_every_field() {
        let told = [
            ("The fields of a result", keys(&Report::default())),
            ("Of times", keys(&Latencies::default())),
            ("Of `environment`", keys(&Environment::default())),
            ("Of each moment of `timeline`", keys(&Moment::default())),
        ];
        for (part, fields) in told {
            let manual: BTreeSet<String> = in_manual(part).into_iter().map(str::to_owned).collect();
            assert_eq!(manual, fields, "{part}");
        }
    }

    #[test]
    fn a_late_or_busy_generator_voids_the_run() {
        let mut late = outcome();
        for _ in 0..100 {
            late.tally.lag.record(Duration::from_millis(200));
        }
        late.plan.script.pace = Pace::Window(1);
        assert!(!told(late).void, "without a schedule nothing is late");

        let mut late = outcome();
        late.tally.lag.record(Duration::from_millis(200));
        assert!(told(late).void_reason.unwrap().contains("200 ms"));

        for (load, why) in [
            (load(0.95, 0.5, 0.95), "took 95% of its processors"),
            (load(0.49, 0.96, 0.5), "process crowd-0 took 96%"),
            (load(0.4, 0.4, 0.99), "busy to 99%, with others' work: of it they had 40%"),
        ] {
            let mut busy = outcome();
            busy.course.load = Some(load);
            let reason = told(busy).void_reason.unwrap();
            assert!(reason.contains(why), "{reason}");
        }
    }

    #[test]
    fn memory_that_grows_is_told_from_memory_that_was_needed() {
        let moment = |mib: f64| Moment { watched_mib: Some(mib), ..Moment::default() };
        let moments: Vec<Moment> = [10.0, 20.0].into_iter().chain([20.0; 17]).chain([30.0]).map(moment).collect();
        assert_eq!(growth(&moments, Duration::ZERO), Some(0.5));
        assert_eq!(growth(&[], Duration::ZERO), None);
        let moment = |(second, mib): (u32, f64)| Moment { at_s: second.into(), ..moment(mib) };
        let coming_in: Vec<Moment> = [(1, 1.0), (2, 5.0), (3, 10.0), (4, 10.0)].map(moment).to_vec();
        assert_eq!(growth(&coming_in, Duration::from_secs(3)), Some(0.0));
    }

    #[test]
    fn the_json_is_one_flat_object() {
        let json = serde_json::to_value(told(outcome())).unwrap();
        for field in ["pass", "void", "lost", "doubled", "swapped", "mismatched", "told", "deliveries"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert!(json["delivered_ms"].get("p99").is_some());
    }
}
