//! Leads a run: gather (clients come in), speak (publishers follow their script), settle (stragglers come in), and what is left
//! of everybody. By where the workers say that their clients stand it knows when each is done.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::process::{Child, Command};

use crate::crew::Crew;
use crate::ends::Ends;
use crate::guest::Gone;
use crate::listener::Listener;
use crate::machine::{self, Load, LoadMeter};
use crate::place::Spot;
use crate::plan::{Entry, Plan, Share};
use crate::progress::Progress;
use crate::run::since;
use crate::speaker::Until;
use crate::standing::{Goal, RoomStanding, Standing, TICK};
use crate::tally::Tally;
use crate::timeline::{Moment, Timeline};
use crate::worker::Phase;

/// How long clients may take to come in, besides the time that their rate gives them.
const GATHERING: Duration = Duration::from_secs(30);
/// Where nobody can be in time, the gathering ends when nobody has come in for so long.
const STUCK: Duration = Duration::from_secs(30);
/// After everybody has everything: time for what is one too many.
const GRACE: Duration = Duration::from_millis(250);
/// Where nobody can tell whether there is more (only others speak, and listeners cannot tell what comes later from what came
/// before; or somebody was away where nothing is resumed), it is over when nothing came for so long.
const SILENCE: Duration = Duration::from_secs(1);
/// So many failed attempts for each target, without a single success, and there is nobody.
const HOPELESS: u64 = 5;

/// What a run is led by, besides its plan.
#[derive(Debug, Clone)]
pub struct Lead {
    /// Processes for the clients that read; as many as there are processors, or as their files need, if not given.
    pub workers: Option<usize>,
    /// The server's process.
    pub watch: Option<u32>,
    /// How long to wait at the end for what is still missing.
    pub settle: Duration,
    /// Whether letting clients in is what is measured, and not what is said then.
    pub measures_entry: bool,
    /// What is run in place of cutting all lines, and how long after the speaking began.
    pub instead: Option<(Duration, String)>,
    pub quiet: bool,
}

/// How a run went, as it was led.
#[derive(Debug, Default)]
pub struct Course {
    /// When clients began to come in.
    pub gathered: Duration,
    /// When the publishers began.
    pub from: Duration,
    /// When the settling ended.
    pub until: Duration,
    /// When all lines were cut, or the command was run in place of that.
    pub cut_at: Option<Duration>,
    /// By the user.
    pub interrupted: bool,
    /// How the command that was run in place of cutting failed.
    pub command_failed: Option<String>,
    /// By room: the head of the log that every receiver has to reach.
    pub goals: Vec<Option<Spot>>,
    /// What this program took of its processors while messages came; `None`: there was no time, or the system does not say.
    pub load: Option<Load>,
    /// Processor time of the process that was watched, while clients came in, and from then to the end of the settling.
    pub watched_gathering: Option<Duration>,
    pub watched_cpu: Option<Duration>,
    pub moments: Vec<Moment>,
}

/// What a run left behind.
#[derive(Debug)]
pub struct Outcome {
    pub plan: Plan,
    pub workers: usize,
    pub course: Course,
    pub tally: Tally,
    pub clients: Vec<Gone>,
    pub listeners: Vec<Listener>,
}

/// Runs the plan. Errors are usage, or that nobody could be reached at all.
pub async fn run(plan: Plan, lead: &Lead) -> anyhow::Result<Outcome> {
    let shares = shares(&plan, lead.workers)?;
    let workers = shares.len();
    let mut ends = Ends::watch()?;
    let crew = Crew::start(&plan, shares).await?;
    let (timeline, progress) = (Timeline::new(lead.watch), Progress::new(lead.quiet));
    let mut leader = Leader { plan, lead, crew, timeline, progress, command: None };
    let course = leader.lead(&mut ends).await?;
    let Leader { plan, crew, .. } = leader;
    let until = course.as_ref().map_or(Duration::ZERO, |course| course.until);
    let mut tally = Tally::new(plan.rooms.len());
    let (mut clients, mut listeners) = (Vec::new(), Vec::new());
    for part in crew.dismiss(until).await? {
        tally.merge(part.tally);
        clients.extend(part.clients);
        listeners.extend(part.listeners);
    }
    clients.sort_by_key(|client| client.number);
    let Some(course) = course else {
        let why: Vec<&str> = tally.ends.keys().chain(tally.errors.keys()).map(String::as_str).collect();
        let doors: Vec<String> = plan.targets.iter().map(ToString::to_string).collect();
        bail!("nobody got into the room at {}: {}", doors.join(", "), why.join(", "));
    };
    Ok(Outcome { plan, workers, course, tally, clients, listeners })
}

/// Who has which clients: so many processes that each may open as many files as it has clients.
fn shares(plan: &Plan, workers: Option<usize>) -> anyhow::Result<Vec<Share>> {
    let holds = machine::clients_a_process()?;
    let split = |clients: usize, wanted: usize| wanted.max(clients.div_ceil(holds)).min(clients);
    let most = match plan.entry {
        Entry::Open(_) => usize::MAX,
        Entry::Window(size) => size, // each has a part of it
    };
    let readers = split(plan.readers(), workers.unwrap_or_else(machine::cores).min(most));
    let crowds = split(plan.listeners, 1);
    let readers = (0..readers).map(|first| Share::Readers { first, of: readers });
    Ok(readers.chain((0..crowds).map(|first| Share::Listeners { first, of: crowds })).collect())
}

struct Leader<'a> {
    plan: Plan,
    lead: &'a Lead,
    crew: Crew,
    timeline: Timeline,
    progress: Progress,
    /// What was run in place of cutting all lines.
    command: Option<Child>,
}

impl Leader<'_> {
    fn now(&self) -> Duration {
        since(self.plan.began)
    }

    /// `None`: nobody got in.
    async fn lead(&mut self, ends: &mut Ends) -> anyhow::Result<Option<Course>> {
        let gathered = self.now();
        let mut meter = self.crew.meter();
        let watched = self.watched_cpu();
        self.crew.order(Phase::Gathering(gathered));
        self.gather(gathered, &mut meter, ends).await?;
        if self.crew.standing().joined == 0 {
            return Ok(None);
        }
        let mut course = Course { gathered, from: self.now(), ..Course::default() };
        let all_in = self.watched_cpu();
        if !self.lead.measures_entry {
            meter = self.crew.meter();
        }
        self.crew.order(Phase::Speaking(course.from));
        course.cut_at = self.plan.cut_after.map(|after| course.from + after);
        let interrupted = tokio::select! {
            spoken = self.speak(&mut course, &mut meter) => { spoken?; false }
            () = ends.next() => true,
        };
        course.interrupted = interrupted;
        let spoken = self.now();
        course.cut_at = course.cut_at.filter(|cut| *cut <= spoken); // an interrupted run may not have come to it
        self.crew.order(Phase::Settling { stop: interrupted.then(|| self.now()) });
        course.goals = self.settle(&mut meter, ends).await?;
        course.until = self.now();
        course.command_failed = self.command_failed();
        course.load = meter.load();
        course.watched_gathering = all_in.zip(watched).map(|(after, before)| after.saturating_sub(before));
        course.watched_cpu = all_in.and_then(|before| Some(self.watched_cpu()?.saturating_sub(before)));
        self.timeline.end(course.until, &self.crew.standing());
        course.moments = self.timeline.moments();
        Ok(Some(course))
    }

    /// One that goes on has not failed.
    fn command_failed(&mut self) -> Option<String> {
        let status = self.command.as_mut()?.try_wait().ok()??;
        (!status.success()).then(|| status.to_string())
    }

    fn watched_cpu(&self) -> Option<Duration> {
        machine::cpu_time_of(self.lead.watch?)
    }

    /// Listens for a tick. Returns where all stand, and when that is.
    async fn tick(&mut self) -> anyhow::Result<(Standing, Duration)> {
        let timeline = &mut self.timeline;
        self.crew.listen(TICK, &mut |second, recorded| timeline.delivered(second, &recorded)).await?;
        let (standing, now) = (self.crew.standing(), self.now());
        self.timeline.look(now, &standing);
        Ok((standing, now))
    }

    /// Until all are in the room, or will not get there.
    async fn gather(&mut self, from: Duration, meter: &mut LoadMeter, ends: &mut Ends) -> anyhow::Result<()> {
        let everybody = self.plan.everybody();
        let most = self.plan.readers().max(self.plan.listeners);
        let deadline = match self.plan.entry {
            Entry::Open(rate) => from + Duration::from_secs_f64(most as f64 / rate) + GATHERING,
            Entry::Window(_) => Duration::MAX,
        };
        let mut progress = (0, from);
        loop {
            let (standing, now) = tokio::select! {
                ticked = self.tick() => ticked?,
                () = ends.next() => bail!("interrupted while clients came in"),
            };
            meter.look(standing.live as u64);
            self.progress.say(|| {
                let refused =
                    if standing.refusals > 0 { format!(", {} refused", standing.refusals) } else { String::new() };
                format!("{} of {everybody} are in{refused}", standing.live)
            });
            if standing.live != progress.0 {
                progress = (standing.live, now);
            }
            let nobody = standing.joined == 0 && standing.refusals >= HOPELESS * self.plan.targets.len() as u64;
            let all = standing.live + standing.gone >= everybody;
            let stuck = matches!(self.plan.entry, Entry::Window(_)) && now > progress.1 + STUCK;
            if all || nobody || stuck || now > deadline {
                return Ok(());
            }
        }
    }

    /// Until the script is through.
    async fn speak(&mut self, course: &mut Course, meter: &mut LoadMeter) -> anyhow::Result<()> {
        let by_time = self.plan.script.length();
        let counted = matches!(self.plan.script.until, Until::Messages(_));
        let from = course.from;
        let mut progress = (self.crew.standing().accepted, from);
        loop {
            let (standing, now) = self.tick().await?;
            meter.look(standing.deliveries);
            self.progress.say(|| {
                let Standing { live, sent, accepted, deliveries, .. } = standing;
                let seconds = (now - from).as_secs_f64();
                format!("{seconds:.0} s: {live} in, {sent} sent, {accepted} accepted, {deliveries} delivered")
            });
            if let Some((after, command)) = &self.lead.instead
                && course.cut_at.is_none()
                && now >= from + *after
            {
                course.cut_at = Some(now);
                self.command = Some(started(command)?);
            }
            if standing.accepted != progress.0 {
                progress = (standing.accepted, now);
            }
            let over = match by_time {
                Some(length) => now >= from + length,
                None => now >= progress.1 + self.lead.settle,
            };
            if over || counted && standing.speaking == 0 {
                return Ok(());
            }
        }
    }

    /// Until everybody has everything, and is back, or the patience ends, or the user's: the head of each room.
    async fn settle(&mut self, meter: &mut LoadMeter, ends: &mut Ends) -> anyhow::Result<Vec<Option<Spot>>> {
        let deadline = self.now() + self.lead.settle;
        let mut heard = (self.crew.standing().deliveries, self.now());
        let silence = match (self.plan.script.publishers, self.plan.listeners) {
            (0, 1..) => SILENCE,
            _ => Duration::ZERO,
        };
        let mut goals = vec![Goal::new(silence); self.plan.rooms.len()];
        loop {
            let ticked = tokio::select! {
                ticked = self.tick() => Some(ticked?),
                () = ends.next() => None,
            };
            let Some((mut standing, now)) = ticked else {
                return Ok(goals.iter().map(|goal| goal.spot).collect());
            };
            meter.look(standing.deliveries);
            if standing.deliveries != heard.0 {
                heard = (standing.deliveries, now);
            }
            if !self.crew.tells_by_room() && now <= deadline {
                continue; // what was said before the settling began says nothing of it
            }
            let is_quiet = standing.adrift == 0 || now >= heard.1 + SILENCE;
            standing.rooms.resize_with(goals.len(), RoomStanding::default);
            for (goal, room) in goals.iter_mut().zip(&standing.rooms) {
                goal.look(room.head(), standing.speaking > 0, now);
            }
            let spots = || goals.iter().map(|goal| goal.spot).collect();
            let all_have = |(goal, room): (&Goal, &RoomStanding)| goal.is_fixed && room.reached(goal.spot);
            let all_are_back = !self.plan.resume || standing.live + standing.gone >= standing.clients;
            if standing.speaking == 0 && all_are_back && is_quiet && goals.iter().zip(&standing.rooms).all(all_have) {
                let spots = spots();
                let timeline = &mut self.timeline;
                self.crew.listen(GRACE, &mut |second, recorded| timeline.delivered(second, &recorded)).await?;
                return Ok(spots);
            }
            self.progress
                .say(|| format!("waiting for what is missing: {} of {} are in", standing.live, standing.clients));
            if now > deadline {
                return Ok(spots());
            }
        }
    }
}

/// Starts a command of the user's shell.
fn started(command: &str) -> anyhow::Result<Child> {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::null()).stdout(Stdio::null());
    let shell = shell.process_group(0).spawn(); // Ctrl-C is for us
    shell.with_context(|| format!("--instead {command}"))
}
