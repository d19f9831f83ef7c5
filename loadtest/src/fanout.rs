//! The scenario: many receivers in one room, some of whom speak.
//!
//! Gather (clients connect at a given rate), speak (publishers follow their script), settle (stragglers come in), judge.
//! Clients are spread over worker threads, each with a runtime of its own: nothing is shared on the way of a message. Those
//! who only count are a crowd with a thread for all. Ten times a second a thread reports where its clients stand; by that
//! the run is led.

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
use crate::crowd;
use crate::listener::Listener;
use crate::machine::{self, Load, LoadMeter};
use crate::report::Outcome;
use crate::speaker::{Script, Speaker};
use crate::standing::{Goal, Standing, TICK, head_of};
use crate::target::Target;
use crate::verdict::Spot;

/// How long clients may take to come in, besides the time that their rate gives them.
const GATHERING: Duration = Duration::from_secs(30);
/// After everybody has everything: time for what is one too many.
const GRACE: Duration = Duration::from_millis(250);
/// Where only others speak, they have finished when they said nothing for so long: listeners cannot tell what comes later
/// from what came before.
const SILENCE: Duration = Duration::from_secs(1);
/// So many failed attempts for each target, without a single success, and there is nobody.
const HOPELESS: u64 = 5;

/// A thread with its clients.
struct Worker<T> {
    thread: thread::JoinHandle<anyhow::Result<(Tally, Vec<T>)>>,
    standing: watch::Receiver<Standing>,
}

impl<T: Send + 'static> Worker<T> {
    fn spawn(
        name: String,
        work: impl FnOnce(watch::Sender<Standing>) -> anyhow::Result<(Tally, Vec<T>)> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let (report, standing) = watch::channel(Standing::default());
        let thread = thread::Builder::new().name(name).spawn(move || work(report)).context("cannot start a thread")?;
        Ok(Worker { thread, standing })
    }

    /// Its clients, once the run is over; what they counted is added to `tally`.
    fn join(self, tally: &mut Tally) -> anyhow::Result<Vec<T>> {
        let (part, clients) = self.thread.join().map_err(|_| anyhow!("a worker ended early"))??;
        tally.merge(part);
        Ok(clients)
    }
}

/// Runs the scenario. Errors are usage, or that nobody could be reached at all.
pub async fn run(options: &Fanout) -> anyhow::Result<Outcome> {
    let run = Arc::new(prepare(options).await?);
    let script = options.script();
    let (phase, watched) = watch::channel(Phase::Gathering);
    let workers = spawn_workers(options, &run, &script, &watched)?;
    let crowd = spawn_crowd(options, &run, &watched)?;
    let leader = Leader {
        options,
        run: run.clone(),
        phase,
        standings: standings(&workers).chain(standings(crowd.as_slice())).collect(),
    };
    let led = leader.lead(&script).await;
    leader.phase.send_replace(Phase::Over);

    let mut tally = Tally::new();
    let mut clients = Vec::new();
    for worker in workers {
        clients.extend(worker.join(&mut tally)?);
    }
    let listeners = crowd.map_or(Ok(Vec::new()), |crowd| crowd.join(&mut tally))?;
    clients.sort_by_key(|client| client.number);
    let Some(course) = led? else {
        let why: Vec<String> = tally.ends.keys().chain(tally.errors.keys()).cloned().collect();
        bail!("nobody got into the room: {}", why.join(", "));
    };
    Ok(Outcome {
        room: run.room.name.clone(),
        open_loop: options.rate > 0.0,
        is_ordered: options.dialect.keeps_order(options.urls.len()),
        course,
        tally,
        clients,
        listeners,
    })
}

fn standings<T>(workers: &[Worker<T>]) -> impl Iterator<Item = watch::Receiver<Standing>> {
    workers.iter().map(|worker| worker.standing.clone())
}

async fn prepare(options: &Fanout) -> anyhow::Result<Run> {
    options.check()?;
    machine::make_room_for(options.everybody())?;
    let mut targets = Vec::new();
    for url in &options.urls {
        targets.push(Target::resolve(url, options.dialect).await?);
    }
    let mut addresses: Vec<_> = targets.iter().map(|target| target.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.ip()).collect();
    let sources = machine::sources(options.everybody(), &addresses, machine::ephemeral_ports())?;
    let run: u32 = rand::random();
    let name = options.room.clone().unwrap_or_else(|| format!("load-{run:08x}"));
    Ok(Run {
        room: Room { name, run, size: options.size, dialect: options.dialect },
        targets,
        sources,
        connect_rate: options.connect_rate,
        resume: options.resume,
        lines: options.lines || options.dialect.has_lines(),
        readers: options.connections,
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
) -> anyhow::Result<Vec<Worker<Client>>> {
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
        Worker::spawn(format!("worker-{first}"), move |report| work(clients, run, phase, report))
    };
    (0..count).map(worker).collect()
}

fn spawn_crowd(
    options: &Fanout,
    run: &Arc<Run>,
    phase: &watch::Receiver<Phase>,
) -> anyhow::Result<Option<Worker<Listener>>> {
    let (listeners, run, phase) = (options.listeners, run.clone(), phase.clone());
    let work = move |report| crowd::work(listeners, &run, &phase, &report);
    (listeners > 0).then(|| Worker::spawn("crowd".to_owned(), work)).transpose()
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
    /// What this program took of its processors while messages came; `None`: there was no time, or the system does not say.
    pub load: Option<Load>,
    /// Processor time of the process that was watched, from when the publishers began to the end of the settling.
    pub watched_cpu: Option<Duration>,
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
        let watched = self.watched_cpu();
        let mut meter = LoadMeter::default();
        let from = self.run.now();
        self.phase.send_replace(Phase::Speaking(from));
        let interrupted = tokio::select! {
            () = self.speak(script, &mut meter) => false,
            _ = tokio::signal::ctrl_c() => true,
        };
        let head = head_of(&self.standings());
        let goal = tokio::select! {
            goal = self.settle(), if !interrupted => goal,
            _ = tokio::signal::ctrl_c(), if !interrupted => head,
            else => head,
        };
        let watched_cpu = watched.and_then(|before| Some(self.watched_cpu()?.saturating_sub(before)));
        Ok(Some(Course { from, until: self.run.now(), goal, load: meter.load(), watched_cpu }))
    }

    fn watched_cpu(&self) -> Option<Duration> {
        machine::cpu_time_of(self.options.watch?)
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
        let most = self.options.connections.max(self.options.listeners);
        let ramp = most as f64 / self.options.connect_rate;
        let deadline = Duration::from_secs_f64(ramp) + GATHERING;
        let mut told = Told::new(self.options.output.quiet);
        loop {
            sleep(TICK).await;
            let standing = self.standing();
            told.now_and_then(|| format!("{} of {} are in", standing.live, self.options.everybody()));
            let nobody = standing.joined == 0 && standing.refusals >= HOPELESS * self.run.targets.len() as u64;
            let all = standing.live + standing.gone >= self.options.everybody();
            if all || nobody || self.run.now() > deadline {
                return Ok(());
            }
            ensure!(self.standings.iter().all(|one| one.has_changed().is_ok()), "a worker ended early");
        }
    }

    /// Until the script is through.
    async fn speak(&self, script: &Script, meter: &mut LoadMeter) {
        let by_time = script.length();
        let listens_by_time = self.options.messages.is_none();
        let from = self.run.now();
        let mut progress = (self.standing().accepted, from);
        let mut told = Told::new(self.options.output.quiet);
        loop {
            sleep(TICK).await;
            let (standing, now) = (self.standing(), self.run.now());
            meter.look(standing.deliveries);
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

    /// Until everybody has everything, or the patience ends.
    async fn settle(&self) -> Option<Spot> {
        let deadline = self.run.now() + self.options.settle;
        let silence = match (self.options.publishers, self.options.listeners) {
            (0, 1..) => SILENCE,
            _ => Duration::ZERO,
        };
        let mut goal = Goal::new(silence);
        loop {
            sleep(TICK).await;
            let (standing, head) = (self.standing(), head_of(&self.standings()));
            goal.look(head, standing.speaking > 0, self.run.now());
            if goal.is_fixed && standing.speaking == 0 && standing.reached(goal.spot) {
                sleep(GRACE).await;
                return goal.spot;
            }
            if self.run.now() > deadline {
                return goal.spot;
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
