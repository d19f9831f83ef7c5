//! A client that lives through everything: it does by itself what the protocol asks of a client, in a task of its own.
//!
//! It goes to the next node when a connection ends or a `reconnect` is due, resumes at its position, resends under the
//! same id what was not accepted, and retries what was refused for now. Whatever breaks a promise (an offset twice, too
//! early or missing; a message stored twice; an `accepted` that disagrees with the room) is kept as its fault, and
//! every later look at it panics. What no client can see alone is judged at the end: [`Faithful::assert_one_room`] where
//! nothing may be lost, [`Faithful::assert_all_told`] where something was.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::future::join_all;
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::json::Position;
use super::socket::{Heard, Socket};
use super::wait_until;

/// Says without an answer at the same time.
const IN_FLIGHT: usize = 16;

/// Before the next node is tried when one refuses.
const BACKOFF: Duration = Duration::from_millis(50);

pub struct Faithful {
    record: Arc<Mutex<Record>>,
    says: mpsc::UnboundedSender<(Uuid, String)>,
    task: JoinHandle<()>,
    name: String,
}

/// What a client has been through.
#[derive(Debug, Default)]
pub struct Record {
    pub position: Option<Position>,
    /// Offsets and ids of the messages since the last break.
    pub heard: Vec<(u64, Uuid)>,
    /// Under which epochs: from which index of `heard` on.
    epochs: Vec<(String, usize)>,
    /// The same from before each break.
    past: Vec<Branch>,
    pub accepted: HashMap<Uuid, Position>,
    /// Connections that came as far as `joined`.
    pub connections: usize,
    /// `joined` with `recovered:false` after the first.
    pub breaks: usize,
    /// `joined` that nobody asked for.
    pub unasked: usize,
    /// Errors by code.
    pub errors: HashMap<String, usize>,
    /// Codes of closes; 1006: cut.
    pub closes: Vec<u16>,
    /// Of whom it was told that they left.
    pub told_left: Vec<String>,
    fault: Option<String>,
}

/// What a client had of a room between two breaks.
#[derive(Debug, Default)]
struct Branch {
    heard: Vec<(u64, Uuid)>,
    epochs: Vec<(String, usize)>,
}

impl Faithful {
    /// So many clients, each with another of `urls` as its first.
    pub async fn join_many(count: usize, urls: &[String], room: &str) -> Vec<Faithful> {
        let clients = (0..count).map(|number| async move {
            let mut urls = urls.to_vec();
            let first = number % urls.len();
            urls.rotate_left(first);
            Faithful::join(&urls, room, &format!("faithful-{number}")).await
        });
        join_all(clients).await
    }

    /// Joins `room` at the first of `urls`; returns when it has joined.
    pub async fn join(urls: &[String], room: &str, name: &str) -> Faithful {
        let (says, queue) = mpsc::unbounded_channel();
        let record = Arc::new(Mutex::new(Record::default()));
        let life = Life {
            urls: urls.to_vec(),
            room: room.into(),
            query: format!("?name={name}&key={}", Uuid::new_v4()),
            record: record.clone(),
            queue,
            pending: Vec::new(),
        };
        let client = Faithful { record, says, task: tokio::spawn(life.live()), name: name.into() };
        wait_until("a faithful client has joined", async || client.record().connections > 0).await;
        client
    }

    /// Says something as soon as it can, and until it is accepted.
    pub fn say(&self, text: &str) -> Uuid {
        let id = Uuid::new_v4();
        let _ = self.says.send((id, text.into())); // a client that ended has a fault, which is shown at the next look
        id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A look at its life so far.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        let record = self.record.lock().expect("the client's task panicked");
        if let Some(fault) = record.fault.clone() {
            drop(record);
            panic!("{}: {fault}", self.name);
        }
        assert!(!self.task.is_finished(), "{}: its task panicked", self.name);
        record
    }

    /// Its mouth alone, for whoever makes it talk.
    pub(super) fn speaker(&self) -> impl Fn(String) + Send + 'static {
        let says = self.says.clone();
        move |text| {
            let _ = says.send((Uuid::new_v4(), text)); // as in `say`
        }
    }

    /// Waits until so many of its messages were accepted, for as long as there is progress.
    pub async fn wait_accepted(&self, count: usize) {
        let accepted = || self.record().accepted.len() as u64;
        self.wait_progress("messages accepted", count as u64, accepted).await;
    }

    /// Waits until its position has reached this offset, for as long as there is progress.
    pub async fn wait_reached(&self, offset: u64) {
        self.wait_progress("as its offset", offset, || self.offset()).await;
    }

    async fn wait_progress(&self, what: &str, goal: u64, state: impl Fn() -> u64) {
        let mut now = state();
        while now < goal {
            let stuck = format!("{} had more than {now} {what}", self.name);
            let before = now;
            wait_until(&stuck, async || {
                now = state();
                now > before
            })
            .await;
        }
    }

    pub fn offset(&self) -> u64 {
        let record = self.record();
        record.position.as_ref().map_or(0, |position| position.offset)
    }

    /// Checks that everybody heard the same `total` messages as offsets 1 to `total`, without ever having been told of a
    /// loss, and that everything that was accepted is among them, once, under the offset that was accepted.
    pub fn assert_one_room(everybody: &[Faithful], total: usize) {
        let room = everybody[0].record().heard.clone();
        let ids: HashMap<Uuid, u64> = room.iter().map(|(offset, id)| (*id, *offset)).collect();
        assert_eq!(ids.len(), total, "of {} messages heard", room.len());
        assert!(room.iter().map(|(offset, _)| *offset).eq(1..=total as u64));
        for client in everybody {
            let record = client.record();
            assert_eq!(record.breaks, 0, "{} was told of a loss", client.name);
            assert!(record.heard == room, "{} heard another room", client.name);
            for (id, position) in &record.accepted {
                assert_eq!(ids.get(id), Some(&position.offset), "{id} was accepted");
            }
        }
        Faithful::assert_positions_mean_one_message(everybody);
    }

    /// Checks what is promised when Redis has lost writes. `room` is everything that it has now. Everybody who is here has
    /// that, from its last break on; what was accepted is there once, or whoever said it was told of a loss, or has heard
    /// something else under that offset since. How many accepted messages are not there any more.
    pub fn assert_all_told(everybody: &[Faithful], room: &[(u64, Uuid)]) -> usize {
        let head = room.len() as u64;
        assert!(room.iter().map(|(offset, _)| *offset).eq(1..=head), "the room is not dense");
        let ids: HashMap<Uuid, u64> = room.iter().map(|(offset, id)| (*id, *offset)).collect();
        assert_eq!(ids.len(), room.len(), "something is stored twice");
        let mut lost = 0;
        for client in everybody {
            let record = client.record();
            let first = record.heard.first().map_or(head + 1, |(offset, _)| *offset);
            assert!(record.heard == room[first as usize - 1..], "{} has another room", client.name);
            for (id, position) in record.accepted.iter().filter(|(id, _)| !ids.contains_key(id)) {
                lost += 1;
                let now = record.position.as_ref().expect("it has joined");
                let overtaken = position.epoch != now.epoch && position.offset <= now.offset;
                assert!(record.breaks > 0 || overtaken, "{}: {id} is lost and nobody said so", client.name);
            }
        }
        Faithful::assert_positions_mean_one_message(everybody);
        lost
    }

    /// Checks that no two of them ever had different messages under one position, whatever became of it later.
    fn assert_positions_mean_one_message(everybody: &[Faithful]) {
        let mut meant: HashMap<String, HashMap<u64, Uuid>> = HashMap::new();
        for client in everybody {
            let record = client.record();
            let now = (&record.heard, &record.epochs);
            let past = record.past.iter().map(|branch| (&branch.heard, &branch.epochs));
            for (heard, epochs) in past.chain([now]) {
                let ends = epochs.iter().skip(1).map(|(_, from)| *from).chain([heard.len()]);
                for ((epoch, from), end) in epochs.iter().zip(ends) {
                    let epoch = meant.entry(epoch.clone()).or_default();
                    // Whoever comes under an epoch has its last message under that, too.
                    for (offset, id) in &heard[from.saturating_sub(1)..end] {
                        let other = *epoch.entry(*offset).or_insert(*id);
                        assert_eq!(other, *id, "{} has another message at {offset} than others", client.name);
                    }
                }
            }
        }
    }
}

impl Drop for Faithful {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An event as far as this client looks into it; cheap, since some tests hear millions.
#[derive(Deserialize)]
struct Event<'a> {
    r#type: &'a str,
    room: Option<&'a str>,
    epoch: Option<&'a str>,
    offset: Option<u64>,
    at: Option<u64>,
    id: Option<Uuid>,
    backlog: Option<u64>,
    recovered: Option<bool>,
    #[serde(borrow)]
    from: Option<&'a RawValue>,
    to: Option<u64>,
    after_ms: Option<u64>,
    code: Option<&'a str>,
    retry_after_ms: Option<u64>,
    #[serde(borrow)]
    left: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

/// The client's task.
struct Life {
    urls: Vec<String>,
    room: String,
    query: String,
    record: Arc<Mutex<Record>>,
    queue: mpsc::UnboundedReceiver<(Uuid, String)>,
    /// Said and not accepted, in the order of saying.
    pending: Vec<(Uuid, String)>,
}

/// One connection's state.
struct Visit {
    socket: Socket,
    /// A `join` was sent and not answered.
    joining: bool,
    /// The offset at which the backlog ends and resending begins.
    live_from: Option<u64>,
    /// Whether what was pending when the connection began was sent again.
    resent: bool,
    /// When to join again, or to say again what was refused for now.
    retry: Option<Instant>,
    refused: HashSet<Uuid>,
    /// When to follow a `reconnect`.
    leave: Option<Instant>,
}

type Fault = String;

impl Life {
    async fn live(mut self) {
        for turn in 0.. {
            let url = format!("{}{}", self.urls[turn % self.urls.len()], self.query);
            let Ok(socket) = Socket::connect(&url, Some("townhall.v1")).await else {
                tokio::time::sleep(BACKOFF).await;
                continue;
            };
            if let Err(fault) = self.visit(socket).await {
                self.record.lock().expect("a test panicked").fault = Some(fault);
                return;
            }
        }
    }

    /// One connection, until it ends. Arms: an event; something to say; a retry that is due; a `reconnect` that is due.
    async fn visit(&mut self, socket: Socket) -> Result<(), Fault> {
        let mut visit = Visit {
            socket,
            joining: false,
            live_from: None,
            resent: false,
            retry: None,
            refused: HashSet::new(),
            leave: None,
        };
        if self.ask_to_join(&mut visit).await.is_err() {
            return Ok(());
        }
        loop {
            let never = Instant::now() + Duration::from_secs(3600);
            let free = visit.resent && self.pending.len() < IN_FLIGHT;
            let sent = tokio::select! {
                heard = visit.socket.hear() => match heard {
                    Heard::Text(text) => self.hear(&mut visit, &text).await?,
                    Heard::Closed(code, _) => {
                        self.record.lock().expect("a test panicked").closes.push(code);
                        return Ok(());
                    }
                },
                say = self.queue.recv(), if free => match say {
                    Some((id, text)) => {
                        self.pending.push((id, text));
                        self.send_pending(&mut visit, |pending| pending == id).await
                    }
                    None => return Ok(()),
                },
                _ = sleep_until(visit.retry.unwrap_or(never)) => self.try_again(&mut visit).await,
                _ = sleep_until(visit.leave.unwrap_or(never)) => return Ok(()),
            };
            if sent.is_err() {
                return Ok(());
            }
        }
    }

    async fn ask_to_join(&self, visit: &mut Visit) -> Result<(), Gone> {
        let mut join = json!({"type": "join", "room": self.room});
        let position = self.record.lock().expect("a test panicked").position.clone();
        if let Some(position) = position {
            join["after"] = position.json();
        }
        visit.joining = true;
        visit.send(join).await
    }

    async fn try_again(&self, visit: &mut Visit) -> Result<(), Gone> {
        visit.retry = None;
        if visit.joining {
            return self.ask_to_join(visit).await;
        }
        let refused = std::mem::take(&mut visit.refused);
        self.send_pending(visit, |id| refused.contains(&id)).await
    }

    async fn send_pending(&self, visit: &mut Visit, which: impl Fn(Uuid) -> bool) -> Result<(), Gone> {
        for (id, text) in self.pending.iter().filter(|(id, _)| which(*id)) {
            let say = json!({"type": "say", "room": self.room, "id": id, "text": text});
            visit.send(say).await?;
        }
        Ok(())
    }

    /// Notes an event; where the backlog has ended, resends.
    async fn hear(&mut self, visit: &mut Visit, text: &str) -> Result<Result<(), Gone>, Fault> {
        let event: Event = serde_json::from_str(text).map_err(|error| format!("{error}: {text}"))?;
        self.note(visit, &event).map_err(|fault| format!("{fault}: {text}"))?;
        let position = self.record.lock().expect("a test panicked").position.clone();
        let caught_up =
            visit.live_from.is_some_and(|live_from| position.is_some_and(|position| position.offset >= live_from));
        if caught_up && !visit.resent {
            visit.resent = true;
            return Ok(self.send_pending(visit, |_| true).await);
        }
        Ok(Ok(()))
    }

    fn note(&mut self, visit: &mut Visit, event: &Event) -> Result<(), Fault> {
        let record = self.record.clone();
        let mut record = record.lock().expect("a test panicked");
        match event.r#type {
            "joined" => note_joined(&mut record, visit, event),
            "gap" => note_gap(&mut record, event),
            "accepted" => self.note_accepted(&mut record, event),
            "error" => note_error(&mut record, visit, event),
            "presence" => note_presence(&mut record, event),
            "reconnect" => {
                let after = event.after_ms.ok_or("a reconnect without after_ms")?;
                visit.leave = Some(Instant::now() + Duration::from_millis(after));
                Ok(())
            }
            _ => match (event.offset, event.at) {
                (Some(offset), Some(_)) => self.note_message(&mut record, visit, event, offset),
                _ => Ok(()),
            },
        }
    }

    fn note_accepted(&mut self, record: &mut Record, event: &Event) -> Result<(), Fault> {
        let (Some(id), Some(offset)) = (event.id, event.offset) else {
            return Err("accepted without id and offset".into());
        };
        let epoch = event.epoch.ok_or("accepted without epoch")?;
        self.pending.retain(|(pending, _)| *pending != id);
        record.accept(id, Position::new(epoch, offset))
    }

    fn note_message(&mut self, record: &mut Record, visit: &Visit, event: &Event, offset: u64) -> Result<(), Fault> {
        if event.room != Some(&self.room) {
            return Err("an event of another room".into());
        }
        let id = event.id.ok_or("a message without id")?;
        let position = record.position.as_mut().ok_or("an event before joined")?;
        if offset != position.offset + 1 {
            return Err(format!("lost, doubled or swapped at {}", position.offset));
        }
        position.offset = offset;
        record.heard.push((offset, id));
        let in_backlog = visit.live_from.is_some_and(|live_from| offset <= live_from);
        if in_backlog && self.pending.iter().any(|(pending, _)| *pending == id) {
            let position = record.position.clone().ok_or("an event before joined")?;
            self.pending.retain(|(pending, _)| *pending != id);
            record.accept(id, position)?;
        }
        Ok(())
    }
}

impl Record {
    fn accept(&mut self, id: Uuid, position: Position) -> Result<(), Fault> {
        let offset = position.offset;
        match self.accepted.insert(id, position) {
            Some(before) if before.offset != offset => Err(format!("accepted before at {before:?}")),
            _ => Ok(()),
        }
    }

    /// What it had is not the room any more.
    fn forget(&mut self) {
        self.breaks += 1;
        let (heard, epochs) = (std::mem::take(&mut self.heard), std::mem::take(&mut self.epochs));
        self.past.push(Branch { heard, epochs });
    }
}

fn note_joined(record: &mut Record, visit: &mut Visit, event: &Event) -> Result<(), Fault> {
    let (Some(epoch), Some(offset), Some(backlog)) = (event.epoch, event.offset, event.backlog) else {
        return Err("joined without epoch, offset and backlog".into());
    };
    let start = offset.checked_sub(backlog).ok_or("a backlog below 0")?;
    match (&record.position, event.recovered) {
        (None, _) => {}
        (Some(position), Some(true)) if position.offset == start => {}
        (Some(position), Some(true)) => {
            return Err(format!("recovered, but from {}", position.offset));
        }
        (Some(_), Some(false)) => {
            record.forget();
        }
        (Some(_), None) => return Err("joined after a resume without recovered".into()),
    }
    record.position = Some(Position::new(epoch, start));
    if record.epochs.last().is_none_or(|(known, _)| known != epoch) {
        let from = record.heard.len();
        record.epochs.push((epoch.into(), from));
    }
    if std::mem::take(&mut visit.joining) {
        record.connections += 1;
    } else {
        record.unasked += 1;
    }
    visit.live_from = Some(offset);
    Ok(())
}

fn note_gap(record: &mut Record, event: &Event) -> Result<(), Fault> {
    let from: Option<u64> = event.from.and_then(|from| from.get().parse().ok());
    let (Some(from), Some(to)) = (from, event.to) else {
        return Err("a gap without from and to".into());
    };
    let position = record.position.as_mut().ok_or("a gap before joined")?;
    if from != position.offset + 1 || to < from {
        return Err(format!("a gap out of place at {}", position.offset));
    }
    position.offset = to;
    Ok(())
}

fn note_presence(record: &mut Record, event: &Event) -> Result<(), Fault> {
    let Some(left) = event.left else { return Ok(()) };
    let left: Vec<Named> = serde_json::from_str(left.get()).map_err(|error| format!("who left: {error}"))?;
    record.told_left.extend(left.into_iter().map(|member| member.name));
    Ok(())
}

fn note_error(record: &mut Record, visit: &mut Visit, event: &Event) -> Result<(), Fault> {
    let code = event.code.ok_or("an error without code")?;
    *record.errors.entry(code.into()).or_default() += 1;
    let after = event.retry_after_ms.ok_or("refused for good")?;
    let retry = Instant::now() + Duration::from_millis(after);
    visit.retry = Some(visit.retry.map_or(retry, |earlier| earlier.min(retry)));
    visit.refused.extend(event.id);
    Ok(())
}

/// The connection ended under a command; what it carried is resent on the next.
struct Gone;

impl Visit {
    async fn send(&mut self, command: serde_json::Value) -> Result<(), Gone> {
        let frame = Message::text(command.to_string());
        self.socket.send(frame).await.map_err(|_| Gone)
    }
}
