//! What each scenario is: its options, made a plan of, and what of its run is a fault.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{bail, ensure};

use crate::cli::{self, Connect, Fanout, Leaving, Mixed, Output, Rooms, Speech, Storm, Way};
use crate::environment::Environment;
use crate::leader::{self, Lead};
use crate::machine;
use crate::plan::{Churn, Entry, Plan, RoomPlan};
use crate::report::Report;
use crate::run::clock;
use crate::speaker::{Pace, Script, Until};
use crate::target::{Manner, Target};
use crate::threshold::Threshold;
use crate::wire::Stamp;

/// How figures of the watched process are called.
const WATCHED: &str = "watched_";
/// For how long publishers speak, unless that is said.
const SOME_SECONDS: Duration = Duration::from_secs(10);
const BEFORE_AND_AFTER_THE_STORM: Duration = Duration::from_secs(20);
const A_SOAK: Duration = Duration::from_hours(1);
/// One of so many members of a mixed room speaks.
const SPEAKS_IN_A_CROWD: usize = 10;
/// A mixed room with fewer than that is the last one, with all who are left.
const LEAST_ROOM: usize = 4;

/// What of a run is a fault.
#[derive(Debug, Clone, Copy)]
pub struct Promise {
    pub scenario: &'static str,
    /// All receivers get a room's messages in one order.
    pub is_ordered: bool,
    /// Something has to be heard.
    pub is_heard: bool,
    /// Somebody has to lose a line.
    pub is_cut: bool,
    /// Somebody has to leave.
    pub is_left: bool,
    /// Nobody may be away at the end.
    pub all_are_back: bool,
}

/// What is told of a scenario, before its servers are looked up.
#[derive(Debug)]
struct Draft<'a> {
    name: &'static str,
    /// Letting clients in is what is measured; nothing is said.
    measures_entry: bool,
    way: &'a Way,
    /// Members and publishers, by room.
    rooms: Vec<(usize, u32)>,
    listeners: usize,
    /// What the only room is called.
    room: Option<&'a str>,
    resume: bool,
    entry: Entry,
    script: Script,
    size: usize,
    settle: Duration,
    leaving: Option<&'a Leaving>,
    storm: Option<&'a Storm>,
    output: &'a Output,
}

pub async fn fanout(options: &Fanout) -> anyhow::Result<Report> {
    let Fanout { way, connections, listeners, publishers, room, resume, speech, output, .. } = options;
    let publishers = publishers.unwrap_or(some_of(*connections));
    check_publishers(publishers, *connections)?;
    ensure!(
        publishers > 0 || speech.seconds.is_some(),
        "--publishers 0: somebody else speaks; say with --seconds how long to listen"
    );
    let draft = Draft {
        listeners: *listeners,
        room: room.as_deref(),
        resume: *resume,
        ..Draft::spoken("fanout", way, vec![(*connections, publishers)], speech, SOME_SECONDS, output)?
    };
    draft.run().await
}

pub async fn rooms(options: &Rooms) -> anyhow::Result<Report> {
    let Rooms { way, rooms, members, publishers, speech, output, .. } = options;
    check_publishers(*publishers, *members)?;
    let rooms = vec![(*members, *publishers); *rooms];
    Draft::spoken("rooms", way, rooms, speech, SOME_SECONDS, output)?.run().await
}

pub async fn connect(options: &Connect) -> anyhow::Result<Report> {
    let Connect { way, connections, window, stay, output, .. } = options;
    ensure!(
        window.is_none() || way.connect_rate == 0.0,
        "--window goes with --connect-rate 0: a schedule waits for nobody"
    );
    let script = Script { publishers: 0, pace: Pace::Open(1.0), until: Until::After(*stay), until_heard: false };
    let entry = match way.connect_rate {
        0.0 => Entry::Window(window.unwrap_or(cli::ON_THEIR_WAY)),
        rate => Entry::Open(rate),
    };
    let draft = Draft::of("connect", way, vec![(*connections, 0)], script, output);
    Draft { measures_entry: true, entry, ..draft }.run().await
}

pub async fn storm(options: &Storm) -> anyhow::Result<Report> {
    let Storm { way, connections, publishers, speech, output, cut_after, .. } = options;
    let publishers = publishers.unwrap_or(some_of(*connections));
    check_publishers(publishers, *connections)?;
    let rooms = vec![(*connections, publishers)];
    let draft = Draft::spoken("storm", way, rooms, speech, BEFORE_AND_AFTER_THE_STORM, output)?;
    if let Some(length) = draft.script.length() {
        ensure!(*cut_after < length, "--cut-after {cut_after:?}: by then everything is said; give more --seconds");
    }
    Draft { storm: Some(options), ..draft }.run().await
}

pub async fn churn(options: &cli::Churn) -> anyhow::Result<Report> {
    coming_and_going("churn", options, SOME_SECONDS).await
}

pub async fn soak(options: &cli::Churn) -> anyhow::Result<Report> {
    coming_and_going("soak", options, A_SOAK).await
}

async fn coming_and_going(name: &'static str, options: &cli::Churn, length: Duration) -> anyhow::Result<Report> {
    let cli::Churn { way, connections, publishers, leaving, speech, output, .. } = options;
    let publishers = publishers.unwrap_or(some_of(*connections));
    check_publishers(publishers, *connections)?;
    let draft = Draft::spoken(name, way, vec![(*connections, publishers)], speech, length, output)?;
    Draft { leaving: Some(leaving), ..draft }.run().await
}

pub async fn mixed(options: &Mixed) -> anyhow::Result<Report> {
    let Mixed { way, connections, leaving, speech, output, .. } = options;
    let draft = Draft::spoken("mixed", way, halves(*connections), speech, SOME_SECONDS, output)?;
    Draft { leaving: Some(leaving), ..draft }.run().await
}

/// Who speaks where that is not said.
fn some_of(clients: usize) -> u32 {
    clients.min(10) as u32
}

fn check_publishers(publishers: u32, members: usize) -> anyhow::Result<()> {
    ensure!(
        publishers as usize <= members,
        "--publishers {publishers}: they are among the {members} clients of a room"
    );
    Ok(())
}

/// Half of all in the first room, half of the rest in the second, and so on; members and publishers.
fn halves(mut clients: usize) -> Vec<(usize, u32)> {
    let mut rooms = Vec::new();
    while clients > 0 {
        let members = if clients < 2 * LEAST_ROOM { clients } else { clients / 2 };
        rooms.push((members, members.div_ceil(SPEAKS_IN_A_CROWD) as u32));
        clients -= members;
    }
    rooms
}

impl<'a> Draft<'a> {
    fn of(name: &'static str, way: &'a Way, rooms: Vec<(usize, u32)>, script: Script, output: &'a Output) -> Self {
        Draft {
            name,
            measures_entry: false,
            way,
            rooms,
            listeners: 0,
            room: None,
            resume: true,
            entry: Entry::Open(way.connect_rate),
            script,
            size: Stamp::MAX_BYTES,
            settle: Duration::ZERO,
            leaving: None,
            storm: None,
            output,
        }
    }

    /// Of rooms in which is spoken.
    fn spoken(
        name: &'static str,
        way: &'a Way,
        rooms: Vec<(usize, u32)>,
        speech: &Speech,
        length: Duration,
        output: &'a Output,
    ) -> anyhow::Result<Self> {
        let publishers = rooms.iter().map(|(_, publishers)| publishers).sum();
        let script = script(speech, publishers, length)?;
        Ok(Draft { size: speech.size, settle: speech.settle, ..Draft::of(name, way, rooms, script, output) })
    }

    async fn run(self) -> anyhow::Result<Report> {
        let (plan, lead) = (self.plan().await?, self.lead());
        let promise = self.promise();
        let outcome = leader::run(plan, &lead).await?;
        let environment = Environment::of(&outcome.plan, outcome.workers);
        Ok(Report::of(outcome, &promise, environment))
    }

    fn promise(&self) -> Promise {
        Promise {
            scenario: self.name,
            is_ordered: self.way.dialect.keeps_order(self.way.urls.len()),
            is_heard: !self.measures_entry,
            is_cut: self.storm.is_some(),
            is_left: self.leaving.is_some(),
            all_are_back: self.measures_entry || self.storm.is_some() || self.leaving.is_some(),
        }
    }

    fn lead(&self) -> Lead {
        let command = |storm: &Storm| Some((storm.cut_after, storm.instead.clone()?));
        Lead {
            workers: self.way.workers,
            watch: self.way.watch,
            settle: self.settle,
            measures_entry: self.measures_entry,
            instead: self.storm.and_then(command),
            quiet: self.output.quiet,
        }
    }

    /// What can be told before anybody is looked up.
    fn check(&self) -> anyhow::Result<()> {
        if let Some(room) = self.room {
            let is_inside = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || "._-".contains(char);
            let is_name = room.starts_with(|char: char| char.is_ascii_alphanumeric()) && room.chars().all(is_inside);
            ensure!(
                is_name && room.len() <= 64,
                "--room {room:?}: 1 to 64 of a-z 0-9 . _ - that begin with a letter or digit"
            );
        }
        let watches = |threshold: &&Threshold| threshold.figure().starts_with(WATCHED);
        if let (None, Some(threshold)) = (self.way.watch, self.output.thresholds.iter().find(watches)) {
            bail!("--threshold {threshold}: of which process? It takes --watch");
        }
        let Some(Leaving { leave_rate, away }) = self.leaving else { return Ok(()) };
        ensure!(self.script.length().is_some(), "with --rate 0 it takes --seconds: who leaves does so by the clock");
        let speak: u32 = self.rooms.iter().map(|(_, publishers)| publishers).sum();
        let may_leave = self.rooms.iter().map(|(members, _)| members).sum::<usize>() - speak as usize;
        let absent = leave_rate * away.as_secs_f64();
        ensure!(
            absent < may_leave as f64,
            "--leave-rate {leave_rate} with --away {away:?}: {absent} would be away at a time, and {may_leave} clients may leave, \
             since those that speak stay"
        );
        Ok(())
    }

    async fn plan(&self) -> anyhow::Result<Plan> {
        self.check()?;
        if let Some(pid) = self.way.watch {
            ensure!(machine::cpu_time_of(pid).is_some(), "--watch {pid}: there is no such process here");
        }
        let spares = self.storm.map_or(&[][..], |storm| &storm.spares);
        let mut targets = Vec::new();
        for url in self.way.urls.iter().chain(spares) {
            targets.push(Target::resolve(url, self.way.dialect).await?);
        }
        let (first, back) = targets.split_at(self.way.urls.len());
        if let Some(spare) = back.iter().find(|spare| first.iter().all(|target| target.manner != spare.manner)) {
            bail!("--spare {spare}: nobody who was elsewhere speaks as one does there");
        }
        let counts = |target: &Target| target.manner == Manner::Protocol && target.tls_host().is_none();
        ensure!(
            self.listeners == 0 || targets.iter().all(counts),
            "--listeners count frames at ws:// or http:// alone"
        );
        let run: u32 = rand::random();
        let everybody = self.listeners + self.rooms.iter().map(|(members, _)| members).sum::<usize>();
        Ok(Plan {
            run,
            began: clock(),
            rooms: self.rooms.iter().enumerate().map(|(n, room)| self.room(run, n, room)).collect(),
            size: self.size,
            dialect: self.way.dialect,
            lines: self.way.lines || self.way.dialect.has_lines(),
            spares: spares.len(),
            sources: self.sources(everybody, &targets)?,
            targets,
            entry: self.entry,
            listeners: self.listeners,
            resume: self.resume,
            script: self.script.clone(),
            churn: self.leaving.map(|leaving| Churn { rate: leaving.leave_rate, away: leaving.away }),
            cut_after: self.storm.filter(|storm| storm.instead.is_none()).map(|storm| storm.cut_after),
        })
    }

    fn room(&self, run: u32, number: usize, &(members, publishers): &(usize, u32)) -> RoomPlan {
        let name = match self.room {
            Some(name) => name.to_owned(),
            None if self.rooms.len() == 1 => format!("load-{run:08x}"),
            None => format!("load-{run:08x}-{number}"),
        };
        RoomPlan { name, is_ours: self.room.is_none() && self.script.publishers > 0, members, publishers }
    }

    fn sources(&self, clients: usize, targets: &[Target]) -> anyhow::Result<Vec<IpAddr>> {
        let mut addresses: Vec<_> = targets.iter().map(|target| target.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.ip()).collect();
        machine::sources(clients, &self.way.sources, &addresses, machine::ephemeral_ports())
    }
}

/// What the publishers say.
fn script(speech: &Speech, publishers: u32, length: Duration) -> anyhow::Result<Script> {
    let Speech { messages, seconds, rate, window, until_heard, size, .. } = *speech;
    ensure!(messages != Some(0), "--messages 0: nothing would be said");
    ensure!(!until_heard || rate == 0.0, "--until-heard goes with --rate 0: a schedule waits for nobody");
    ensure!(window.is_none() || rate == 0.0, "--window goes with --rate 0: a schedule waits for nobody");
    if size < Stamp::MAX_BYTES {
        bail!("--size {size}: at least {} bytes, since a text says when it was due", Stamp::MAX_BYTES);
    }
    let until = match messages {
        Some(messages) => Until::Messages(messages),
        None => Until::After(seconds.unwrap_or(length)),
    };
    let pace = if rate > 0.0 { Pace::Open(rate) } else { Pace::Window(window.unwrap_or(cli::UNDER_WAY)) };
    Ok(Script { publishers, pace, until, until_heard })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Scenario};
    use clap::Parser;

    /// What comes of a command line before anything is connected to; the servers are never reached.
    async fn planned(arguments: &[&str]) -> anyhow::Result<()> {
        let all = ["townhall-load"].iter().chain(arguments).chain(&["-q", "--connect-rate", "1000"]);
        match Cli::try_parse_from(all)?.scenario {
            Scenario::Fanout(options) => fanout(&options).await.map(drop),
            Scenario::Rooms(options) => rooms(&options).await.map(drop),
            Scenario::Storm(options) => storm(&options).await.map(drop),
            Scenario::Churn(options) => churn(&options).await.map(drop),
            Scenario::Soak(options) => soak(&options).await.map(drop),
            Scenario::Connect(options) => connect(&options).await.map(drop),
            _ => unreachable!("none of those"),
        }
    }

    #[tokio::test]
    async fn what_cannot_be_run_is_refused_by_what_is_wrong() {
        for (wrong, why) in [
            (&["fanout"][..], "URL"),
            (&["fanout", "ws://a", "--connections", "0"], "above 0"),
            (&["fanout", "ws://a", "--connections", "5", "--publishers", "6"], "--publishers 6"),
            (&["fanout", "ws://a", "--publishers", "0"], "--seconds"),
            (&["fanout", "ws://a", "--publishers", "0", "--messages", "5"], "--seconds"),
            (&["fanout", "ws://a", "--messages", "5", "--seconds", "5"], "cannot be used with"),
            (&["fanout", "ws://a", "--messages", "0"], "nothing would be said"),
            (&["fanout", "ws://a", "--rate", "-1"], "-1"),
            (&["fanout", "ws://a", "--rate", "nan"], "nan"),
            (&["fanout", "ws://a", "--rate", "1e-300"], "at least 0.001"),
            (&["fanout", "ws://a", "--connect-rate", "0"], "at least 0.001"),
            (&["fanout", "ws://a", "--size", "39"], "at least 40"),
            (&["fanout", "ws://a", "--until-heard"], "--rate 0"),
            (&["fanout", "ws://a", "--window", "5"], "--rate 0"),
            (&["connect", "ws://a", "--window", "5"], "--connect-rate 0"),
            (&["soak", "ws://a", "--threshold", "watched_growth<0.1"], "--watch"),
            (&["storm", "ws://127.0.0.1:1", "--spare", "tcp://127.0.0.1:1"], "--spare tcp://127.0.0.1:1"),
            (&["fanout", "ws://a", "--watch", "4294967295"], "no such process"),
            (&["fanout", "ws://a", "--source", "nowhere"], "nowhere"),
            (&["fanout", "ws://a", "--room", "a b"], "--room \"a b\""),
            (&["churn", "ws://a", "-c", "20", "-p", "10", "--leave-rate", "20"], "20 would be away"),
            (&["churn", "ws://a", "--rate", "0", "-m", "50"], "--seconds"),
            (&["fanout", "ws://a?token=secret@x", "--settle", "soon"], "soon"),
            (&["rooms", "ws://a", "--members", "2", "--publishers", "3"], "--publishers 3"),
            (&["storm", "ws://a", "--seconds", "5", "--cut-after", "6s"], "--cut-after 6s"),
        ] {
            let error = format!("{:#}", planned(wrong).await.unwrap_err());
            assert!(error.contains(why), "{wrong:?}: {error}");
        }
    }

    #[test]
    fn mixed_rooms_have_half_of_the_rest_each() {
        assert_eq!(halves(40), [(20, 2), (10, 1), (5, 1), (5, 1)]);
        assert_eq!(halves(1), [(1, 1)]);
        assert_eq!(halves(1000).iter().map(|(members, _)| members).sum::<usize>(), 1000);
    }
}
