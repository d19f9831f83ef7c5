//! How fast messages are stored: drives the hall's own Redis broker, without a hall around it, and so measures the broker
//! and Redis alone. It is the one scenario that runs the code that it measures.
//!
//! Flat out, so many messages are under way all the time: each that was accepted makes room for the next. With a rate,
//! messages follow a schedule that waits for nobody, and latencies count from when they were due. At the end the rooms' heads
//! say whether what was accepted was stored, once.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use townhall::broker::redis::RedisBroker;
use townhall::broker::{Broker, BrokerError, Publication, feed};
use townhall::config::{HistorySettings, RedisSettings};
use townhall::names::{RoomName, UserId};
use townhall::position::Position;
use townhall::redis_url::RedisUrl;
use uuid::Uuid;

use crate::cli::{Output, above_zero};
use crate::latency::{Latencies, Recorded};
use crate::machine;
use crate::threshold::{Figure, Figures};

/// Shorter events would have no text.
const LEAST_BYTES: usize = 160;
/// How often the schedule is looked at. A timer of the runtime's would be late by up to a millisecond.
const TICK: Duration = Duration::from_micros(250);

pub const EXIT_CODES: &str = "Exit codes: 0 all was accepted, and stored once · 1 something was refused, lost or doubled · \
2 wrong usage, or Redis cannot be used.";

#[derive(Debug, Clone, Args)]
pub struct Publish {
    /// The Redis server, as the hall's --redis
    #[arg(long, value_name = "URL")]
    pub redis: RedisUrl,
    /// How many rooms, in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub rooms: u32,
    /// Without --rate: how many messages are under way
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..))]
    pub in_flight: u32,
    /// Messages a second, whatever Redis does: latencies count from when a message was due
    #[arg(long, short, value_parser = above_zero)]
    pub rate: Option<f64>,
    /// Bytes of an event, its JSON included
    #[arg(long, default_value_t = 250)]
    pub bytes: usize,
    /// For how long messages are published
    #[arg(long, short, default_value = "10", value_parser = crate::cli::seconds)]
    pub seconds: Duration,
    /// Messages kept a room, as the hall's --history
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    pub history: usize,
    /// The Redis server's process, if it runs here: the result says how much processor time it took meanwhile
    #[arg(long, value_name = "PID")]
    pub watch: Option<u32>,
    #[command(flatten)]
    pub output: Output,
}

/// The result. Its fields are the JSON object's.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Everything was accepted, and stored once.
    pub pass: bool,
    /// Why not.
    pub reasons: Vec<String>,
    pub accepted: u64,
    pub refused: u64,
    /// Why, the last time.
    pub refusal: Option<String>,
    /// By the rooms' heads.
    pub stored: u64,
    pub accepted_per_s: f64,
    /// From `publish`, or from when a message was due, to its acceptance.
    pub accepted_ms: Latencies,
    /// Processor time a message, of this process.
    pub own_cpu_us: f64,
    /// Processor time a message, of the watched process.
    pub watched_cpu_us: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}{}", if self.pass { "pass" } else { "fail: " }, self.reasons.join(", "))?;
        writeln!(
            f,
            "{} accepted, {:.0} a second; {} stored, {} refused",
            self.accepted, self.accepted_per_s, self.stored, self.refused
        )?;
        if let Some(refusal) = &self.refusal {
            writeln!(f, "refused: {refusal}")?;
        }
        writeln!(f, "published → accepted: {}", self.accepted_ms)?;
        write!(f, "CPU a message: {:.2} µs own", self.own_cpu_us)?;
        match self.watched_cpu_us {
            Some(watched) => writeln!(f, ", {watched:.2} µs of the watched process"),
            None => writeln!(f),
        }
    }
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
        let counts = [("accepted", self.accepted), ("refused", self.refused), ("stored", self.stored)];
        let others = [
            Figure::number("accepted_per_s", self.accepted_per_s),
            Figure::number("own_cpu_us", self.own_cpu_us),
            Figure::number("watched_cpu_us", self.watched_cpu_us),
        ];
        let counts = counts.map(|(name, count)| Figure::count(name, count));
        Figure::latencies("accept", &self.accepted_ms).chain(counts).chain(others).collect()
    }

    fn is_void(&self) -> bool {
        false // its processor's time is a part of what is measured
    }
}

pub async fn run(options: &Publish) -> anyhow::Result<Report> {
    ensure!(options.bytes >= LEAST_BYTES, "--bytes {}: at least {LEAST_BYTES}", options.bytes);
    ensure!(
        options.watch.is_none_or(|pid| machine::cpu_time_of(pid).is_some()),
        "--watch: there is no such process here"
    );
    let settings = RedisSettings::new(options.redis.clone());
    let history = HistorySettings {
        messages: options.history,
        room_ttl: Duration::from_hours(30 * 24),
        dedupe: Duration::from_mins(10),
        budget: 0,
    };
    // Nobody subscribes, so nothing ever comes.
    let (feed, _nothing) = feed();
    let broker = RedisBroker::open(&settings, &history, feed).await.map_err(|error| anyhow!("{error}"))?;
    let speaker = Rc::new(Speaker::new(broker, options)?);
    // The first message of a room is another piece of work than those after it.
    for room in &speaker.rooms {
        speaker.say(room).await.context("nothing can be published")?;
    }
    LocalSet::new().run_until(measure(speaker, options)).await
}

async fn measure(speaker: Rc<Speaker>, options: &Publish) -> anyhow::Result<Report> {
    let cpu = Cpu::now(options.watch);
    let began = Instant::now();
    match options.rate {
        None => flat_out(&speaker, options.in_flight, began + options.seconds).await,
        Some(rate) => on_schedule(&speaker, rate, began, options.seconds).await,
    }
    let seconds = began.elapsed().as_secs_f64();
    let used = Cpu::now(options.watch);
    let stored = speaker.stored().await?;
    let tally = speaker.tally.borrow();
    let accepted = tally.accepted.count();
    let a_message = |used: Duration| used.as_secs_f64() * 1e6 / accepted.max(1) as f64;
    let faults = [
        (accepted == 0, "nothing was accepted"),
        (tally.refused > 0, "something was refused"),
        (stored != accepted, "what was accepted was not stored once"),
    ];
    let reasons: Vec<String> =
        faults.iter().filter(|(is_so, _)| *is_so).map(|(_, words)| (*words).to_owned()).collect();
    Ok(Report {
        pass: reasons.is_empty(),
        reasons,
        accepted,
        refused: tally.refused,
        refusal: tally.refusal.as_ref().map(ToString::to_string),
        stored,
        accepted_per_s: accepted as f64 / seconds,
        accepted_ms: tally.accepted.summary(),
        own_cpu_us: a_message(used.own.saturating_sub(cpu.own)),
        watched_cpu_us: used.watched.zip(cpu.watched).map(|(after, before)| a_message(after.saturating_sub(before))),
    })
}

/// So many speakers, each of whom says the next message when its last one is accepted.
async fn flat_out(speaker: &Rc<Speaker>, in_flight: u32, until: Instant) {
    let mut speakers = JoinSet::new();
    for n in 0..in_flight as usize {
        let speaker = speaker.clone();
        speakers.spawn_local(async move {
            let room = speaker.room(n);
            while Instant::now() < until {
                speaker.say_measured(room, Instant::now()).await;
            }
        });
    }
    while speakers.join_next().await.is_some() {}
}

/// A message whenever one is due.
async fn on_schedule(speaker: &Rc<Speaker>, rate: f64, began: Instant, length: Duration) {
    let (sender, mut due) = mpsc::unbounded_channel();
    let count = (length.as_secs_f64() * rate) as u64;
    let clock = thread::spawn(move || {
        let at = |n: u64| began + Duration::from_secs_f64(n as f64 / rate);
        let mut n = 0;
        while n < count {
            let now = Instant::now();
            while n < count && at(n) <= now {
                if sender.send(at(n)).is_err() {
                    return;
                }
                n += 1;
            }
            thread::sleep(TICK);
        }
    });
    let mut under_way = JoinSet::new();
    let mut n = 0;
    while let Some(due) = due.recv().await {
        let speaker = speaker.clone();
        // Spawned in the order of the schedule, and a local task runs in the order in which it was spawned.
        under_way.spawn_local(async move { speaker.say_measured(speaker.room(n), due).await });
        n += 1;
        while under_way.try_join_next().is_some() {}
    }
    while under_way.join_next().await.is_some() {}
    // It has ended: it holds the sender.
    let _ = clock.join();
}

struct Speaker {
    broker: RedisBroker,
    rooms: Vec<RoomName>,
    user: UserId,
    /// What comes after the id in every event.
    rest: String,
    tally: RefCell<Tally>,
}

struct Tally {
    accepted: Recorded,
    refused: u64,
    refusal: Option<BrokerError>,
}

impl Speaker {
    fn new(broker: RedisBroker, options: &Publish) -> anyhow::Result<Self> {
        let run = rand::random::<u64>();
        let name = |n| RoomName::parse(&format!("load-{run:016x}-{n}")).context("no name for a room");
        let from = r#"","from":{"id":"guest-000000000000000000000000","name":"load"},"text":""#;
        let text = "x".repeat(options.bytes - event_head(Uuid::nil()).len() - from.len() - 2);
        Ok(Speaker {
            broker,
            rooms: (0..options.rooms).map(name).collect::<anyhow::Result<_>>()?,
            user: UserId::new("guest-000000000000000000000000".to_owned()),
            rest: format!("{from}{text}\"}}"),
            tally: RefCell::new(Tally { accepted: Recorded::new(), refused: 0, refusal: None }),
        })
    }

    fn room(&self, n: usize) -> &RoomName {
        &self.rooms[n % self.rooms.len()]
    }

    async fn say(&self, room: &RoomName) -> Result<Position, BrokerError> {
        // A generator of this process' own: the system's would be asked for each.
        let id = Uuid::from_u128(rand::random());
        let event = Bytes::from(event_head(id) + &self.rest);
        self.broker.publish(Publication { room: room.clone(), user: self.user.clone(), id, event }).await
    }

    async fn say_measured(&self, room: &RoomName, due: Instant) {
        let answer = self.say(room).await;
        let took = due.elapsed();
        let mut tally = self.tally.borrow_mut();
        match answer {
            Ok(_) => tally.accepted.record(took),
            Err(error) => {
                tally.refused += 1;
                tally.refusal = Some(error);
            }
        }
    }

    /// What the rooms hold but for the first message of each, which was not measured.
    async fn stored(&self) -> anyhow::Result<u64> {
        let heads = self.broker.heads(self.rooms.clone()).await.context("the rooms' heads")?;
        let mut stored = 0;
        for head in heads {
            stored += head.context("a room's head")?.offset - 1;
        }
        Ok(stored)
    }
}

fn event_head(id: Uuid) -> String {
    format!(r#"{{"type":"message","id":"{id}"#)
}

/// Processor times so far.
struct Cpu {
    own: Duration,
    watched: Option<Duration>,
}

impl Cpu {
    fn now(watched: Option<u32>) -> Self {
        let own = machine::cpu_time_of(std::process::id()).unwrap_or_default();
        Cpu { own, watched: watched.and_then(machine::cpu_time_of) }
    }
}
