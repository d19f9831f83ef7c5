//! A worker: a process of its own with a share of the clients, so that a run may have more sockets than a process may open
//! files, and a processor for each share. It is told the plan and the phases on its standard input, and says on its standard
//! output where its clients stand, what each second's latencies were, and, at the end, all that is left of them.
//!
//! Nothing is shared on the way of a message. Clients that read are tasks of one thread; those that only count are a crowd,
//! which has a thread of its own.

use std::cell::RefCell;
use std::io::{self, BufReader};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::interval;

use crate::client::Client;
use crate::connection::Life;
use crate::crowd;
use crate::guest::{Gone, Guest};
use crate::latency::Recorded;
use crate::listener::Listener;
use crate::machine;
use crate::pipe;
use crate::plain::Plain;
use crate::plan::{Entry, Plan, Share};
use crate::run::Run;
use crate::speaker::Speaker;
use crate::standing::{RoomStanding, Standing, TICK};
use crate::tally::Tally;
use crate::target::Manner;

/// What the whole run does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Nobody has come.
    Waiting,
    /// Clients come in, since then.
    Gathering(Duration),
    /// Publishers follow their script, which began then.
    Speaking(Duration),
    /// Stragglers come in. It is said where clients stand in each room. `stop`: the run was interrupted then, and nothing that
    /// is due later is said.
    Settling { stop: Option<Duration> },
    /// Since then.
    Over(Duration),
}

impl Phase {
    pub fn is_over(self) -> bool {
        matches!(self, Phase::Over(_))
    }
}

/// What a worker says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Word {
    /// It knows the plan.
    Ready,
    Standing(Standing),
    /// What was delivered in this second of the run, since when it was due.
    Second(u64, Recorded),
    /// The last word.
    Done(Box<Part>),
    Failed(String),
}

/// What a worker leaves behind.
#[derive(Debug, Serialize, Deserialize)]
pub struct Part {
    pub tally: Tally,
    pub clients: Vec<Gone>,
    pub listeners: Vec<Listener>,
}

/// The process.
pub fn main() -> ExitCode {
    let heard = match work() {
        Ok(part) => say(&Word::Done(Box::new(part))),
        Err(error) => say(&Word::Failed(format!("{error:#}"))),
    };
    // Whoever led the run is gone if nobody hears that.
    if heard.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

fn say(word: &Word) -> io::Result<()> {
    pipe::write(&mut io::stdout().lock(), word)
}

fn work() -> anyhow::Result<Part> {
    let mut orders = BufReader::new(io::stdin());
    let told = pipe::read::<(Plan, Share)>(&mut orders).context("the plan")?;
    let (plan, share) = told.ok_or_else(|| anyhow!("there is no plan; this is for townhall-load itself"))?;
    let (sender, phase) = watch::channel(Phase::Waiting);
    thread::Builder::new().name("orders".into()).spawn(move || obey(&mut orders, &sender))?;
    let run = Arc::new(Run::new(plan)?);
    match share {
        Share::Readers { first, of } => {
            machine::make_room_for((first..run.plan.readers()).step_by(of).len())?;
            say(&Word::Ready)?;
            readers(&run, first, of, phase)
        }
        Share::Listeners { first, of } => {
            machine::make_room_for((first..run.plan.listeners).step_by(of).len())?;
            say(&Word::Ready)?;
            let (tally, listeners) = crowd::work(first, of, &run, &phase, &mut say_standing)?;
            Ok(Part { tally, clients: Vec::new(), listeners })
        }
    }
}

fn say_standing(standing: Standing) -> anyhow::Result<()> {
    say(&Word::Standing(standing)).context("nobody leads the run any more")
}

/// Passes orders on. Without anybody who gives them the process ends, whatever it is at.
fn obey(orders: &mut impl io::Read, phase: &watch::Sender<Phase>) {
    while let Ok(Some(next)) = pipe::read::<Phase>(orders) {
        phase.send_replace(next);
    }
    if !phase.borrow().is_over() {
        std::process::exit(2);
    }
}

type Shared = Rc<RefCell<Box<dyn Guest>>>;

/// Those that read live until the run is over.
fn readers(run: &Arc<Run>, first: usize, of: usize, phase: watch::Receiver<Phase>) -> anyhow::Result<Part> {
    let seats = &run.seats;
    let tally = Rc::new(RefCell::new(Tally::new(run.rooms.len())));
    let guests: Vec<(usize, Shared)> = (first..seats.len())
        .step_by(of)
        .map(|number| {
            let speaker =
                seats[number].publisher.map(|number| Speaker::new(run.plan.script.clone(), run.plan.run, number));
            let guest: Box<dyn Guest> = match run.plan.target(number, 0).manner {
                Manner::Protocol => Box::new(Client::new(number, speaker)),
                manner => Box::new(Plain::new(number, manner, speaker)),
            };
            (seats[number].room, Rc::new(RefCell::new(guest)))
        })
        .collect();
    let entrances = match run.plan.entry {
        Entry::Open(_) => None,
        Entry::Window(size) => Some(Arc::new(Semaphore::new(size / of + usize::from(first < size % of)))),
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a runtime")?;
    LocalSet::new().block_on(&runtime, async {
        let lives: Vec<JoinHandle<()>> = guests
            .iter()
            .map(|(room, guest)| {
                let (guest, tally, run, phase) = (guest.clone(), tally.clone(), run.clone(), phase.clone());
                let life = Life { guest, room: *room, tally, run, phase, entrances: entrances.clone() };
                tokio::task::spawn_local(life.live())
            })
            .collect();
        watch_over(&guests, &tally, &lives, run, phase.clone()).await?;
        for life in lives {
            life.await.context("a client ended early")?;
        }
        anyhow::Ok(())
    })?;
    let until = match *phase.borrow() {
        Phase::Over(until) => until,
        _ => run.now(),
    };
    let ends =
        guests.into_iter().filter_map(|(room, guest)| Some(Rc::into_inner(guest)?.into_inner().end(room, until)));
    let clients = ends.collect();
    let tally = Rc::into_inner(tally).context("a client outlived the run")?.into_inner();
    Ok(Part { tally, clients, listeners: Vec::new() })
}

/// Says where the clients stand, until the run is over.
async fn watch_over(
    guests: &[(usize, Shared)],
    tally: &RefCell<Tally>,
    lives: &[JoinHandle<()>],
    run: &Run,
    mut phase: watch::Receiver<Phase>,
) -> anyhow::Result<()> {
    let mut ticks = interval(TICK);
    let mut second = 0;
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = phase.wait_for(|phase| phase.is_over()) => return Ok(()),
        }
        let now = run.now();
        if now.as_secs() > second {
            if let Some(recorded) = tally.borrow_mut().end_second() {
                say(&Word::Second(second, recorded)).context("nobody leads the run any more")?;
            }
            second = now.as_secs();
        }
        let settling = matches!(*phase.borrow(), Phase::Settling { .. });
        say_standing(standing(guests, &tally.borrow(), lives, now, settling))?;
    }
}

fn standing(
    guests: &[(usize, Shared)],
    tally: &Tally,
    lives: &[JoinHandle<()>],
    now: Duration,
    settling: bool,
) -> Standing {
    let mut standing = Standing {
        gone: lives.iter().filter(|life| life.is_finished()).count(),
        refusals: tally.refusals,
        deliveries: tally.deliveries,
        ..Standing::default()
    };
    if settling {
        let heads = tally.ledgers.iter().map(|ledger| RoomStanding { head: ledger.head(), ..RoomStanding::default() });
        standing.rooms = heads.collect();
        standing.by_room = true;
    }
    for ((room, guest), life) in guests.iter().zip(lives) {
        guest.borrow().stand(now, &mut standing, settling.then_some(*room), life.is_finished());
    }
    standing
}
