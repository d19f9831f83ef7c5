//! The scenario: many receivers in one room, some of whom speak.
//!
//! Gather (clients connect at a given rate), speak (publishers follow their script), settle (stragglers come in), judge.
//! Clients are spread over worker threads, each with a runtime of its own: nothing is shared on the way of a message. Ten
//! times a second a worker reports where its clients stand; by that the run is led.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::{interval, sleep};

use crate::cli::Fanout;
use crate::client::{Client, Room, Tally};
use crate::connection::{Life, Phase, Run};
use crate::machine::{self, CpuMeter};
use crate::report::Outcome;
use crate::speaker::{Script, Speaker};
use crate::target::Target;
use crate::verdict::Spot;

/// How often workers say where their clients stand, and how often that is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long clients may take to come in, besides the time that their rate gives them.
const GATHERING: Duration = Duration::from_secs(30);
/// After everybody has everything: time for what is one too many.
const GRACE: Duration = Duration::from_millis(250);
/// So many failed attempts for each target, without a single success, and there is nobody.
const HOPELESS: u64 = 5;

/// Where the clients of a worker stand.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    clients: usize,
    joined: usize,
    live: usize,
    /// Clients that will never come back.
    gone: usize,
    /// Failed attempts to connect.
    refusals: u64,
    sent: u64,
    accepted: u64,
    deliveries: u64,
    /// Publishers that have something to say or to be answered.
    speaking: usize,
    /// When the epoch that was met last was met, and its head.
    head: Option<(Duration, Spot)>,
    /// The last client's place, if all are in one epoch.
    lowest: Option<Spot>,
    /// Not all are in one epoch.
    torn: bool,
}

impl Standing {
    fn add_client(&mut self, client: &Client, now: Duration) {
        self.clients += 1;
        self.joined += usize::from(client.has_joined());
        self.live += usize::from(client.is_live());
        if let Some(speaker) = &client.speaker {
            self.sent += speaker.sent;
            self.accepted += speaker.accepted.len() as u64;
            self.speaking += usize::from(!speaker.is_done(now));
        }
        self.lower(client.receiver.spot());
    }

    fn lower(&mut self, spot: Option<Spot>) {
        if let (Some(a), Some(b)) = (self.lowest, spot) {
            self.torn |= a.epoch != b.epoch;
        }
        self.lowest = match (self.lowest, spot) {
            (Some(a), Some(b)) => Some(if a.offset <= b.offset { a } else { b }),
            (a, b) => a.or(b),
        };
    }

    fn add(&mut self, other: &Standing) {
        self.clients += other.clients;
        self.joined += other.joined;
        self.live += other.live;
        self.gone += other.gone;
        self.refusals += other.refusals;
        self.sent += other.sent;
        self.accepted += other.accepted;
        self.deliveries += other.deliveries;
        self.speaking += other.speaking;
        self.head = self.head.max(other.head);
        self.torn |= other.torn;
        self.lower(other.lowest);
    }

    /// Whether every client that is in the room has everything up to `goal`.
    fn reached(&self, goal: Option<Spot>) -> bool {
        match (goal, self.lowest) {
            (Some(goal), Some(lowest)) => !self.torn && lowest.epoch == goal.epoch && lowest.offset >= goal.offset,
            _ => false,
        }
    }
}

/// Joined heads of one epoch: the furthest; of two epochs: that of the later one.
fn head_of(standings: &[Standing]) -> Option<Spot> {
    let latest = standings.iter().filter_map(|one| one.head).max()?.1.epoch;
    standings.iter().filter_map(|one| one.head).map(|(_, spot)| spot).filter(|spot| spot.epoch == latest).max()
}

/// A thread with its clients.
struct Worker {
    thread: thread::JoinHandle<anyhow::Result<(Tally, Vec<Client>)>>,
    standing: watch::Receiver<Standing>,
}

/// Runs the scenario. Errors are usage, or that nobody could be reached at all.
pub async fn run(options: &Fanout) -> anyhow::Result<Outcome> {
    let run = Arc::new(prepare(options).await?);
    let script = options.script();
    let (phase, watched) = watch::channel(Phase::Gathering);
    let workers = spawn_workers(options, &run, &script, &watched)?;
    let leader = Leader {
        options,
        run: run.clone(),
        phase,
        standings: workers.iter().map(|worker| worker.standing.clone()).collect(),
    };
    let led = leader.lead(&script).await;
    leader.phase.send_replace(Phase::Over);

    let mut tally = Tally::new();
    let mut clients = Vec::new();
    for worker in workers {
        let done = worker.thread.join();
        let (part, its_clients) = done.map_err(|_| anyhow!("a worker ended early"))??;
        tally.merge(part);
        clients.extend(its_clients);
    }
    clients.sort_by_key(|client| client.number);
    let Some(course) = led? else {
        let why: Vec<String> = tally.ends.keys().chain(tally.errors.keys()).cloned().collect();
        bail!("nobody got into the room: {}", why.join(", "));
    };
    Ok(Outcome { room: run.room.name.clone(), open_loop: options.rate > 0.0, course, tally, clients })
}

async fn prepare(options: &Fanout) -> anyhow::Result<Run> {
    options.check()?;
    machine::make_room_for(options.connections)?;
    let mut targets = Vec::new();
    for url in &options.urls {
        targets.push(Target::resolve(url).await?);
    }
    let mut addresses: Vec<_> = targets.iter().map(|target| target.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.ip()).collect();
    let sources = machine::sources(options.connections, &addresses, machine::ephemeral_ports())?;
    let run: u32 = rand::random();
    Ok(Run {
        room: Room { name: options.room.clone().unwrap_or_else(|| format!("load-{run:08x}")), run, size: options.size },
        targets,
        sources,
        connect_rate: options.connect_rate,
        resume: options.resume,
        began: Instant::now(),
    })
}

/// Threads that carry the clients.
fn threads(options: &Fanout) -> usize {
    options.workers.unwrap_or_else(cores).min(options.connections)
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn spawn_workers(
    options: &Fanout,
    run: &Arc<Run>,
    script: &Script,
    phase: &watch::Receiver<Phase>,
) -> anyhow::Result<Vec<Worker>> {
    let count = threads(options);
    let worker = |first: usize| {
        let publishes = |number: usize| u32::try_from(number).ok().filter(|number| *number < script.publishers);
        let clients: Vec<Client> = (first..options.connections)
            .step_by(count)
            .map(|number| {
                let speaker = publishes(number).map(|number| Speaker::new(script.clone(), number));
                Client::new(number, speaker)
            })
            .collect();
        let (run, phase) = (run.clone(), phase.clone());
        let (report, standing) = watch::channel(Standing::default());
        let thread = thread::Builder::new()
            .name(format!("worker-{first}"))
            .spawn(move || work(clients, run, phase, report))
            .context("cannot start a thread")?;
        Ok(Worker { thread, standing })
    };
    (0..count).map(worker).collect()
}

/// A worker's thread: its clients live until the run is over.
fn work(
    clients: Vec<Client>,
    run: Arc<Run>,
    phase: watch::Receiver<Phase>,
    report: watch::Sender<Standing>,
) -> anyhow::Result<(Tally, Vec<Client>)> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    let tally = Rc::new(RefCell::new(Tally::new()));
    let clients: Vec<Rc<RefCell<Client>>> = clients.into_iter().map(|client| Rc::new(RefCell::new(client))).collect();
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let lives: Vec<JoinHandle<()>> = clients
            .iter()
            .map(|client| {
                let life =
                    Life { client: client.clone(), tally: tally.clone(), run: run.clone(), phase: phase.clone() };
                tokio::task::spawn_local(life.live())
            })
            .collect();
        watch_over(&clients, &tally, &lives, &run, phase.clone(), report).await;
        for life in lives {
            life.await.context("a client ended early")?;
        }
        anyhow::Ok(())
    })?;
    drop(local);
    let clients = clients.into_iter().filter_map(Rc::into_inner);
    let clients = clients.map(RefCell::into_inner).collect();
    let tally = Rc::into_inner(tally).context("a client outlived the run")?;
    Ok((tally.into_inner(), clients))
}

/// Reports where the clients stand, until the run is over.
async fn watch_over(
    clients: &[Rc<RefCell<Client>>],
    tally: &RefCell<Tally>,
    lives: &[JoinHandle<()>],
    run: &Run,
    mut phase: watch::Receiver<Phase>,
    report: watch::Sender<Standing>,
) {
    let mut ticks = interval(TICK);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = phase.wait_for(|phase| *phase == Phase::Over) => return,
        }
        let mut standing = Standing::default();
        for client in clients {
            standing.add_client(&client.borrow(), run.now());
        }
        let tally = tally.borrow();
        standing.gone = lives.iter().filter(|life| life.is_finished()).count();
        standing.refusals = tally.refusals;
        standing.deliveries = tally.deliveries;
        standing.head = tally.ledger.head();
        report.send_replace(standing);
    }
}

/// How a run went, as it was led.
#[derive(Debug)]
pub struct Course {
    /// When the publishers began.
    pub from: Duration,
    /// When the settling ended.
    pub until: Duration,
    /// The head of the log that every receiver has to reach.
    pub goal: Option<Spot>,
    /// What this program took of the processors that it could use, while the publishers spoke.
    pub cpu_share: Option<f64>,
}

/// Leads the run through its phases.
struct Leader<'a> {
    options: &'a Fanout,
    run: Arc<Run>,
    phase: watch::Sender<Phase>,
    standings: Vec<watch::Receiver<Standing>>,
}

impl Leader<'_> {
    /// `None`: nobody got in.
    async fn lead(&self, script: &Script) -> anyhow::Result<Option<Course>> {
        self.gather().await?;
        if self.standing().joined == 0 {
            return Ok(None);
        }
        let cpu = CpuMeter::start();
        let from = self.run.now();
        self.phase.send_replace(Phase::Speaking(from));
        let interrupted = tokio::select! {
            () = self.speak(script) => false,
            _ = tokio::signal::ctrl_c() => true,
        };
        let cpu_share = cpu.share_of(cores().min(threads(self.options)));
        let head = head_of(&self.standings());
        let goal = tokio::select! {
            goal = self.settle(), if !interrupted => goal,
            _ = tokio::signal::ctrl_c(), if !interrupted => head,
            else => head,
        };
        Ok(Some(Course { from, until: self.run.now(), goal, cpu_share }))
    }

    fn standings(&self) -> Vec<Standing> {
        self.standings.iter().map(|one| *one.borrow()).collect()
    }

    fn standing(&self) -> Standing {
        let mut all = Standing::default();
        for one in self.standings() {
            all.add(&one);
        }
        all
    }

    /// Until all are in the room, or will not get there.
    async fn gather(&self) -> anyhow::Result<()> {
        let ramp = self.options.connections as f64 / self.options.connect_rate;
        let deadline = Duration::from_secs_f64(ramp) + GATHERING;
        let mut told = Told::new(self.options.quiet);
        loop {
            sleep(TICK).await;
            let standing = self.standing();
            told.now_and_then(|| format!("{} of {} are in", standing.live, self.options.connections));
            let nobody = standing.joined == 0 && standing.refusals >= HOPELESS * self.run.targets.len() as u64;
            let all = standing.live + standing.gone >= self.options.connections;
            if all || nobody || self.run.now() > deadline {
                return Ok(());
            }
            ensure!(self.standings.iter().all(|one| one.has_changed().is_ok()), "a worker ended early");
        }
    }

    /// Until the script is through.
    async fn speak(&self, script: &Script) {
        let by_time = script.length();
        let listens_by_time = self.options.messages.is_none();
        let from = self.run.now();
        let mut progress = (self.standing().accepted, from);
        let mut told = Told::new(self.options.quiet);
        loop {
            sleep(TICK).await;
            let (standing, now) = (self.standing(), self.run.now());
            told.now_and_then(|| {
                format!(
                    "{:.0} s: {} sent, {} accepted, {} delivered",
                    (now - from).as_secs_f64(),
                    standing.sent,
                    standing.accepted,
                    standing.deliveries
                )
            });
            if standing.accepted != progress.0 {
                progress = (standing.accepted, now);
            }
            let over = match by_time {
                Some(length) => now >= from + length,
                None => now >= progress.1 + self.options.settle,
            };
            if over || (standing.speaking == 0 && !listens_by_time) {
                return;
            }
        }
    }

    /// Until everybody has everything, or the patience ends. The goal is fixed once everything is accepted, since others
    /// may go on speaking in the room; a new epoch moves it.
    async fn settle(&self) -> Option<Spot> {
        let deadline = self.run.now() + self.options.settle;
        let mut goal: Option<Spot> = None;
        loop {
            sleep(TICK).await;
            let (standing, head) = (self.standing(), head_of(&self.standings()));
            let same_epoch = goal.map(|goal| goal.epoch) == head.map(|head| head.epoch);
            if standing.speaking > 0 || !same_epoch {
                goal = head;
            }
            if standing.speaking == 0 && standing.reached(goal) {
                sleep(GRACE).await;
                return goal;
            }
            if self.run.now() > deadline {
                return goal;
            }
        }
    }
}

/// Progress on standard error, once a second.
struct Told {
    quiet: bool,
    last: Instant,
}

impl Told {
    fn new(quiet: bool) -> Self {
        Told { quiet, last: Instant::now() }
    }

    fn now_and_then(&mut self, words: impl FnOnce() -> String) {
        if !self.quiet && self.last.elapsed() >= Duration::from_secs(1) {
            eprintln!("{}", words());
            self.last = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::EpochKey;

    fn spot(epoch: &str, offset: u64) -> Spot {
        Spot { epoch: EpochKey::of(epoch), offset }
    }

    fn standing(head: Spot, since: u64, lowest: Spot) -> Standing {
        Standing { head: Some((Duration::from_secs(since), head)), lowest: Some(lowest), ..Standing::default() }
    }

    #[test]
    fn the_goal_is_the_furthest_head_of_the_latest_epoch() {
        let old = standing(spot("a", 90), 1, spot("a", 90));
        let new = standing(spot("b", 20), 2, spot("b", 20));
        let further = standing(spot("b", 25), 1, spot("b", 20));
        assert_eq!(head_of(&[old, new, further]), Some(spot("b", 25)));
        assert_eq!(head_of(&[]), None);
    }

    #[test]
    fn the_goal_is_reached_by_all_or_not_at_all() {
        let mut all = standing(spot("a", 9), 1, spot("a", 9));
        all.add(&standing(spot("a", 9), 1, spot("a", 8)));
        assert!(all.reached(Some(spot("a", 8))));
        assert!(!all.reached(Some(spot("a", 9))));
        all.add(&standing(spot("b", 9), 2, spot("b", 9)));
        assert!(!all.reached(Some(spot("a", 8))));
        assert!(!Standing::default().reached(None));
    }
}
