//! The scenario: what honest readers notice of slow ones. The same people talk in the same room twice in one run: alone,
//! and beside clients that stop reading, some for a while and some for ever.
//!
//! Honest readers are judged: each must have every message once and in order, and their p99 may not double. Slow ones read
//! through sockets that hold a few KiB; before the second part so much is said that these are full. They have a thread of
//! their own: what they cost the generator is not to be taken for what they cost the server.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use clap::Args;
use futures::{SinkExt, StreamExt};
use serde::Serialize;
use tokio::net::TcpSocket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{Instant as Clock, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::http::Request;
use tokio_tungstenite::{WebSocketStream, client_async};
use uuid::Uuid;

use crate::cli::Output;
use crate::dialect::Dialect;
use crate::latency::{Latencies, Recorded};
use crate::machine;
use crate::target::{Manner, Target};
use crate::threshold::{Figure, Figures};
use crate::wire::{Command, Heard, JOIN_REF, SUBPROTOCOL, Stamp};

/// What a slow client's socket holds unread, before the system doubles it.
const NARROW_BYTES: u32 = 4 * 1024;
/// Before the second part as much is said as a server's socket and a client's hold together, and more.
const FILL_BYTES: usize = 1024 * 1024;
/// Messages that fill are said so fast: they are not measured.
const FILL_RATE: f64 = 200.0;
/// A latency that nobody feels does not double for being small.
const FLOOR_MS: f64 = 5.0;
/// This thread and that of the slow readers.
const THREADS: usize = 2;
/// How long a client's way into the room may take.
const ANSWER: Duration = Duration::from_secs(30);
/// Above this share of its processors the generator is what was measured.
const MOST_CPU: f64 = 0.9;

pub const EXIT_CODES: &str = "Exit codes: 0 honest readers got everything once and in order, and slow ones did not double their p99 · 1 they \
noticed · 2 wrong usage, or somebody could not get in or was thrown out.\n\
A run is void when this program was the bottleneck; then its latencies are not judged.";

#[derive(Debug, Clone, Args)]
pub struct Slow {
    /// Where to connect: ws://host:port[/base] or http://…; `/ws` is appended
    #[arg(required = true, value_name = "URL")]
    pub url: String,
    /// How many clients read what they get, and speak in turn
    #[arg(long, short, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub connections: u32,
    /// How many stop reading for --pause, again and again
    #[arg(long, default_value_t = 100)]
    pub pausing: u32,
    /// How many never read again
    #[arg(long, default_value_t = 100)]
    pub dead: u32,
    /// For how long those who pause do not read
    #[arg(long, default_value = "2s", value_parser = crate::cli::length)]
    pub pause: Duration,
    /// Messages a second in all, whatever the server does: latencies count from when a message was due
    #[arg(long, short, default_value_t = 50.0, value_parser = clap::value_parser!(f64))]
    pub rate: f64,
    /// How long each of the two parts lasts
    #[arg(long, short, default_value = "10s", value_parser = crate::cli::length)]
    pub seconds: Duration,
    /// Bytes of text of a message, at least 40
    #[arg(long, default_value_t = 1000)]
    pub size: usize,
    /// How long to wait for what is still missing, after each part and at the end
    #[arg(long, default_value = "20s", value_parser = crate::cli::length)]
    pub settle: Duration,
    #[command(flatten)]
    pub output: Output,
}

impl Slow {
    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.size >= Stamp::MAX_BYTES, "--size {}: at least {} bytes", self.size, Stamp::MAX_BYTES);
        ensure!((0.001..=1e6).contains(&self.rate), "--rate {}: from 0.001 to 1000000", self.rate);
        ensure!(!self.seconds.is_zero(), "--seconds {:?}: more than that", self.seconds);
        let all = [self.connections, self.pausing, self.dead].map(|count| count as usize);
        machine::make_room_for(all.iter().sum())
    }
}

/// What is said when, as a stamp's publisher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Filling,
    Alone,
    BesideSlow,
}

/// The result. Its fields are the JSON object's.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub pass: bool,
    /// Why not.
    reasons: Vec<String>,
    /// The generator itself was the bottleneck: its latencies say nothing.
    void: bool,
    honest: u32,
    pausing: u32,
    dead: u32,
    said: u64,
    /// Deliveries that honest readers did not get.
    lost: u64,
    /// What honest and pausing readers got out of place.
    misplaced: u64,
    alone_ms: Latencies,
    beside_slow_ms: Latencies,
    /// Those who paused and had everything in the end.
    caught_up: u32,
    /// How connections of slow clients ended before the run did, by close code; 1006: cut.
    ended: BTreeMap<u16, u32>,
    cpu_share: Option<f64>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}{}", if self.pass { "pass" } else { "FAIL" }, if self.void { " (void)" } else { "" })?;
        for reason in &self.reasons {
            writeln!(f, "  {reason}")?;
        }
        let Report { honest, pausing, dead, said, lost, misplaced, caught_up, .. } = self;
        writeln!(f, "{honest} honest readers, {pausing} that pause, {dead} that never read; {said} messages")?;
        writeln!(f, "lost {lost}, misplaced {misplaced}; {caught_up} of those who pause caught up")?;
        writeln!(f, "due → delivered, honest readers alone:     {}", self.alone_ms)?;
        writeln!(f, "due → delivered, beside the slow readers:  {}", self.beside_slow_ms)?;
        let ended: Vec<String> = self.ended.iter().map(|(code, count)| format!("{count} by {code}")).collect();
        writeln!(f, "slow connections ended: {}", if ended.is_empty() { "none".into() } else { ended.join(", ") })?;
        let cpu = self.cpu_share.map_or("unknown".into(), |share| format!("{:.0}%", 100.0 * share));
        writeln!(f, "own CPU: {cpu}")
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
        let times = [("alone", &self.alone_ms), ("beside_slow", &self.beside_slow_ms)];
        let times = times.into_iter().flat_map(|(name, latencies)| Figure::latencies(name, latencies));
        let counts = [("said", self.said), ("lost", self.lost), ("misplaced", self.misplaced)];
        times.chain(counts.map(|(name, count)| Figure::count(name, count))).collect()
    }

    fn is_void(&self) -> bool {
        self.void
    }
}

/// The room of a run, and the way to it.
#[derive(Clone)]
struct Door {
    target: Target,
    room: String,
    id: u32,
}

/// What honest readers got.
struct Tally {
    alone: Recorded,
    beside_slow: Recorded,
    /// Messages of this run.
    heard: u64,
    misplaced: u64,
}

/// What became of slow ones.
#[derive(Default)]
struct Fates {
    misplaced: u64,
    caught_up: u32,
    ended: BTreeMap<u16, u32>,
}

type Socket = WebSocketStream<tokio::net::TcpStream>;

/// Runs the scenario. Errors are usage, or that somebody could not get in or was thrown out.
pub async fn run(options: &Slow) -> anyhow::Result<Report> {
    options.check()?;
    let id = rand::random();
    let target = Target::resolve(&options.url, Dialect::Townhall).await?;
    let is_plain_websocket = target.manner == Manner::Protocol && target.tls_host().is_none();
    ensure!(is_plain_websocket, "{}: this scenario goes to ws:// or http:// alone", options.url);
    let door = Door { target, room: format!("slow-{id:08x}"), id };
    LocalSet::new().run_until(lead(door, options)).await
}

/// Leads the run through its parts.
async fn lead(door: Door, options: &Slow) -> anyhow::Result<Report> {
    let mut crowd = Crowd::gather(door.clone(), options).await?;
    let before = (Clock::now(), own_cpu());
    crowd.speak(Part::Alone, options.rate, options.seconds).await?;
    let (goal, watched) = watch::channel(None);
    let (ready, all_in) = oneshot::channel();
    let slow = thread::spawn({
        let options = options.clone();
        move || slow_readers(&door, &options, &watched, ready)
    });
    let _ = all_in.await; // if not, the thread says why
    if !slow.is_finished() {
        let fill = Duration::from_secs_f64(FILL_BYTES as f64 / options.size as f64 / FILL_RATE);
        crowd.speak(Part::Filling, FILL_RATE, fill).await?;
        crowd.speak(Part::BesideSlow, options.rate, options.seconds).await?;
    }
    let available = before.0.elapsed().as_secs_f64() * THREADS as f64;
    let cpu_share = before.1.zip(own_cpu()).map(|(before, now)| now.saturating_sub(before).as_secs_f64() / available);
    goal.send_replace(Some(crowd.said));
    let fates = slow.join().map_err(|_| anyhow!("the slow readers' thread ended early"))??;
    Ok(report(options, &crowd, fates, cpu_share))
}

/// The processor time of this process so far; `None` where the system does not say.
fn own_cpu() -> Option<Duration> {
    machine::cpu_time_of(std::process::id())
}

fn report(options: &Slow, crowd: &Crowd<'_>, fates: Fates, cpu_share: Option<f64>) -> Report {
    let tally = crowd.reader.tally.borrow();
    let mut report = Report {
        pass: false,
        reasons: Vec::new(),
        void: cpu_share.is_some_and(|share| share > MOST_CPU),
        honest: options.connections,
        pausing: options.pausing,
        dead: options.dead,
        said: crowd.said,
        lost: (crowd.said * u64::from(options.connections)).saturating_sub(tally.heard),
        misplaced: tally.misplaced + fates.misplaced,
        alone_ms: tally.alone.summary(),
        beside_slow_ms: tally.beside_slow.summary(),
        caught_up: fates.caught_up,
        ended: fates.ended,
        cpu_share,
    };
    let most = 2.0 * report.alone_ms.p99.max(FLOOR_MS);
    let faults = [
        (report.lost > 0, "honest readers did not get everything"),
        (report.misplaced > 0, "something came out of place"),
        (report.caught_up < report.pausing, "not everybody who paused caught up"),
        (report.beside_slow_ms.p99 > most && !report.void, "slow readers more than doubled the p99 of honest ones"),
    ];
    report.reasons = faults.iter().filter(|(is_so, _)| *is_so).map(|(_, words)| (*words).to_owned()).collect();
    report.pass = report.reasons.is_empty();
    report
}

/// The honest readers.
struct Crowd<'a> {
    options: &'a Slow,
    reader: Rc<Reader>,
    /// By which they are told what to say.
    speakers: Vec<mpsc::UnboundedSender<String>>,
    honest: Vec<JoinHandle<anyhow::Result<()>>>,
    said: u64,
}

impl<'a> Crowd<'a> {
    async fn gather(door: Door, options: &'a Slow) -> anyhow::Result<Self> {
        let tally = Tally { alone: Recorded::new(), beside_slow: Recorded::new(), heard: 0, misplaced: 0 };
        let reader = Rc::new(Reader { door, began: Instant::now(), tally: RefCell::new(tally) });
        let mut crowd = Crowd { options, reader, speakers: Vec::new(), honest: Vec::new(), said: 0 };
        for number in 0..options.connections {
            let (socket, offset) = crowd.reader.door.join(number, false).await?;
            let (speaker, says) = mpsc::unbounded_channel();
            crowd.speakers.push(speaker);
            crowd.honest.push(spawn_local(crowd.reader.clone().live(socket, offset, says)));
        }
        Ok(crowd)
    }

    /// They speak in turn, on a schedule that waits for nobody; then everybody is waited for who reads.
    async fn speak(&mut self, part: Part, rate: f64, length: Duration) -> anyhow::Result<()> {
        let messages = (length.as_secs_f64() * rate).ceil().max(1.0) as u64;
        let (from, start) = (self.reader.began.elapsed(), Clock::now());
        let door = &self.reader.door;
        for number in 0..messages {
            let due = Duration::from_secs_f64(number as f64 / rate);
            sleep_until(start + due).await;
            let stamp = Stamp { run: door.id, publisher: part as u32, number, scheduled: from + due };
            let text = stamp.write(self.options.size);
            let say = Command::Say { room: &door.room, id: Uuid::from_u128(rand::random()), text: &text };
            let speaker = &self.speakers[self.said as usize % self.speakers.len()];
            if speaker.send(say.to_json()).is_err() {
                break; // it was thrown out; what it says of that is asked for below
            }
            self.said += 1;
        }
        let everything = self.said * u64::from(self.options.connections);
        let waiting = async {
            let heard = || self.reader.tally.borrow().heard;
            while heard() < everything && self.honest.iter().all(|reader| !reader.is_finished()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        let _ = timeout(self.options.settle, waiting).await; // what is missing then is lost
        for reader in &mut self.honest {
            if reader.is_finished() {
                reader.await.context("an honest reader ended early")??;
            }
        }
        Ok(())
    }
}

/// What honest readers share.
struct Reader {
    door: Door,
    began: Instant,
    tally: RefCell<Tally>,
}

impl Reader {
    /// One reader's life. Its arms: something came; something is to be said.
    async fn live(
        self: Rc<Self>,
        mut socket: Socket,
        mut offset: u64,
        mut says: mpsc::UnboundedReceiver<String>,
    ) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                text = next_text(&mut socket) => {
                    let text = text.map_err(|code| anyhow!("an honest reader was closed: {code}"))?;
                    if let Some(in_place) = note(&text, &mut offset)? {
                        self.measure(&text, in_place);
                    }
                }
                say = says.recv() => match say {
                    Some(say) => socket.send(Message::text(say)).await?,
                    None => return Ok(()),
                },
            }
        }
    }

    fn measure(&self, text: &str, in_place: bool) {
        let now = self.began.elapsed();
        let mut tally = self.tally.borrow_mut();
        tally.misplaced += u64::from(!in_place);
        let Some(stamp) = Heard::read(text).and_then(|heard| Stamp::read(&heard.text)) else { return };
        if stamp.run != self.door.id {
            return;
        }
        tally.heard += 1;
        let late = now.saturating_sub(stamp.scheduled);
        if stamp.publisher == Part::Alone as u32 {
            tally.alone.record(late);
        } else if stamp.publisher == Part::BesideSlow as u32 {
            tally.beside_slow.record(late);
        }
    }
}

impl Door {
    /// A client in the room, and the offset up to which it has everything.
    async fn join(&self, number: u32, narrow: bool) -> anyhow::Result<(Socket, u64)> {
        let tcp = if self.target.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        if narrow {
            tcp.set_recv_buffer_size(NARROW_BYTES)?;
        }
        let mut request =
            self.target.uri_for(number as usize, Uuid::from_u128(rand::random()), "").into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", SUBPROTOCOL.parse()?);
        let in_time = timeout(ANSWER, self.enter(tcp, request)).await;
        in_time.map_err(|_| anyhow!("the server does not answer"))?
    }

    async fn enter(&self, tcp: TcpSocket, request: Request<()>) -> anyhow::Result<(Socket, u64)> {
        let stream = tcp.connect(self.target.address).await.context("cannot connect")?;
        stream.set_nodelay(true)?;
        let (mut socket, _) = client_async(request, stream).await.context("no handshake")?;
        let join = Command::Join { room: &self.room, reference: JOIN_REF, after: None, last: 0 };
        socket.send(Message::text(join.to_json())).await?;
        loop {
            let text = next_text(&mut socket).await.map_err(|code| anyhow!("closed {code} before it had joined"))?;
            let heard = Heard::read(&text).with_context(|| format!("not of the protocol: {text}"))?;
            match (&*heard.kind, heard.offset) {
                ("joined", Some(offset)) => return Ok((socket, offset - heard.backlog.unwrap_or(0))),
                ("error", _) => return Err(anyhow!("not let in: {text}")),
                _ => {}
            }
        }
    }
}

/// What an event does to a position; of a message, whether it was the next one.
fn note(text: &str, offset: &mut u64) -> anyhow::Result<Option<bool>> {
    let heard = Heard::read(text).with_context(|| format!("not of the protocol: {text}"))?;
    match (&*heard.kind, heard.offset, heard.at) {
        // The fork with which a room's first message begins.
        ("joined", Some(head), _) => *offset = head.saturating_sub(heard.backlog.unwrap_or(0)),
        ("gap" | "error", ..) => return Err(anyhow!("an unexpected answer: {text}")),
        (_, Some(next), Some(_)) => {
            let in_place = next == *offset + 1;
            *offset = next;
            return Ok(Some(in_place));
        }
        _ => {}
    }
    Ok(None)
}

/// The thread of those who do not read; it ends when the goal is known and each of them has reached it, or was closed.
fn slow_readers(
    door: &Door,
    options: &Slow,
    goal: &watch::Receiver<Option<u64>>,
    ready: oneshot::Sender<()>,
) -> anyhow::Result<Fates> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let fates = Rc::new(RefCell::new(Fates::default()));
    LocalSet::new().block_on(&runtime, async {
        let mut lives = Vec::new();
        for number in 0..options.pausing + options.dead {
            let (socket, offset) = door.join(options.connections + number, true).await?;
            let (goal, settle) = (goal.clone(), options.settle);
            let reader = SlowReader { socket, offset, goal, settle, fates: fates.clone() };
            lives.push(if number < options.pausing {
                spawn_local(reader.pause_and_read(options.pause))
            } else {
                spawn_local(reader.play_dead())
            });
        }
        let _ = ready.send(()); // who led the run has given up
        for life in lives {
            life.await.context("a slow reader ended early")?;
        }
        anyhow::Ok(())
    })?;
    Ok(fates.take())
}

struct SlowReader {
    socket: Socket,
    offset: u64,
    /// The newest offset, when the run is over.
    goal: watch::Receiver<Option<u64>>,
    settle: Duration,
    fates: Rc<RefCell<Fates>>,
}

impl SlowReader {
    /// Reads as long as it pauses, in turn; everyone at another time.
    async fn pause_and_read(mut self, pause: Duration) {
        let _ = timeout(pause.mul_f64(rand::random()), self.goal.wait_for(Option::is_some)).await;
        while self.goal.borrow().is_none() {
            let _ = timeout(pause, self.goal.wait_for(Option::is_some)).await;
            let _ = timeout(pause, self.read_to(u64::MAX)).await;
        }
        if self.read_to_goal().await {
            self.fates.borrow_mut().caught_up += 1;
        }
    }

    /// Reads nothing until it is over. Then who is still connected can read everything, and who was closed cannot.
    async fn play_dead(mut self) {
        let _ = self.goal.wait_for(Option::is_some).await;
        self.read_to_goal().await;
    }

    async fn read_to_goal(&mut self) -> bool {
        let goal = self.goal.borrow().unwrap_or_default();
        match timeout(self.settle, self.read_to(goal)).await {
            Ok(Ok(())) => true,
            Ok(Err(code)) => {
                *self.fates.borrow_mut().ended.entry(code).or_default() += 1;
                false
            }
            Err(_) => false,
        }
    }

    async fn read_to(&mut self, goal: u64) -> Result<(), u16> {
        while self.offset < goal {
            let text = next_text(&mut self.socket).await?;
            let in_place = note(&text, &mut self.offset);
            self.fates.borrow_mut().misplaced += u64::from(!matches!(in_place, Ok(None | Some(true))));
        }
        Ok(())
    }
}

/// The next text, or the code of the close; 1006: cut.
async fn next_text(socket: &mut Socket) -> Result<String, u16> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
            Some(Ok(Message::Close(frame))) => return Err(frame.map_or(1005, |frame| frame.code.into())),
            Some(Ok(_)) => {}
            Some(Err(_)) | None => return Err(1006),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_not_the_next_one_is_out_of_place() {
        let message = |offset| format!(r#"{{"type":"message","room":"a","offset":{offset},"at":1,"text":"x"}}"#);
        let mut offset = 3;
        assert_eq!(note(&message(4), &mut offset).unwrap(), Some(true));
        assert_eq!(note(&message(6), &mut offset).unwrap(), Some(false));
        assert_eq!(note(&message(6), &mut offset).unwrap(), Some(false));
        let fork = r#"{"type":"joined","room":"a","epoch":"e","offset":9,"backlog":2,"recovered":true}"#;
        assert_eq!(note(fork, &mut offset).unwrap(), None);
        assert_eq!(note(&message(8), &mut offset).unwrap(), Some(true));
        assert!(note(r#"{"type":"gap","room":"a","epoch":"e","from":9,"to":9}"#, &mut offset).is_err());
    }
}
