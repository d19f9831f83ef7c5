//! A small hall that keeps `townhall.v1` for one room, and breaks it where a test says so.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;

/// What goes wrong. Numbers are offsets; what concerns one receiver concerns the first client, `load-0`, if `whom` is not said.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    pub whom: Option<&'static str>,
    /// Never delivered to one receiver.
    pub loses: Option<u64>,
    /// Delivered twice to one receiver.
    pub doubles: Option<u64>,
    /// Delivered to one receiver after the next one.
    pub swaps: Option<u64>,
    /// Delivered to one receiver as another message.
    pub renames: Option<u64>,
    /// One receiver is told that it is lost.
    pub gap: Option<u64>,
    /// Stored and never accepted.
    pub never_accepts: Option<u64>,
    /// Accepted and never delivered to anybody.
    pub never_delivers: Option<u64>,
    /// Refused once, to be sent again after 20 ms.
    pub limits: Option<u64>,
    /// Stored, and answered as if that were not known.
    pub doubts: Option<u64>,
    /// The publisher's connection ends when this is stored, before it is accepted.
    pub cuts_publisher: Option<u64>,
    /// A message that is sent again is stored again.
    pub forgets_ids: bool,
    /// Every connection ends after so many events.
    pub cuts_every: Option<u64>,
    /// The connection of `load-19`, who only listens, ends after this one.
    pub cuts_listener: Option<u64>,
    /// Who resumes is not given the first event that it missed.
    pub resumes_too_late: bool,
    /// When this is stored, the last three are dropped and a new epoch begins.
    pub forks: Option<u64>,
    /// Everybody is asked to go elsewhere when this is delivered.
    pub asks_to_move: Option<u64>,
    /// From the third on, two messages go out in one frame, a line each.
    pub pairs: bool,
    /// Nobody may join.
    pub forbids: bool,
}

#[derive(Debug, Clone)]
struct Event {
    id: String,
    name: String,
    text: String,
}

#[derive(Debug, Default)]
struct Room {
    epoch: u64,
    log: Vec<Event>,
    /// Offsets by guest and id.
    known: HashMap<(String, String), u64>,
    /// The epoch before, and up to where it is shared.
    fork: Option<(u64, u64)>,
    /// Of guests by name: who comes back has to be the same.
    keys: HashMap<String, String>,
    /// Up to where each was served, by name.
    served: HashMap<String, u64>,
    limited: bool,
    has_cut: bool,
}

/// What became of a message.
enum Stored {
    /// Under this epoch and offset.
    At(u64, u64),
    ThenCut,
    Limited,
    InDoubt,
}

impl Room {
    /// As it is on the wire; nobody has spoken in epoch 0.
    fn epoch_name(epoch: u64) -> String {
        match epoch {
            0 => String::new(),
            epoch => format!("epoch-{epoch}"),
        }
    }

    fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn fork_at(&mut self, until: u64) {
        self.log.truncate(until as usize);
        self.known.retain(|_, offset| *offset <= until);
        self.fork = Some((self.epoch, until));
        self.epoch += 1;
    }

    fn store(&mut self, event: Event, guest: &str, faults: &Faults) -> Stored {
        let next = self.head() + 1;
        if faults.limits == Some(next) && !std::mem::replace(&mut self.limited, true) {
            return Stored::Limited;
        }
        let key = (guest.to_owned(), event.id.clone());
        if let Some(&offset) = self.known.get(&key).filter(|_| !faults.forgets_ids) {
            return Stored::At(self.epoch, offset);
        }
        if self.epoch == 0 {
            self.fork_at(0);
        }
        let epoch = self.epoch;
        self.log.push(event);
        self.known.insert(key, next);
        if faults.forks == Some(next) && epoch == 1 {
            self.fork_at(next - 3);
        }
        if faults.cuts_publisher == Some(next) && !std::mem::replace(&mut self.has_cut, true) {
            return Stored::ThenCut;
        }
        if faults.doubts == Some(next) {
            return Stored::InDoubt;
        }
        Stored::At(epoch, next)
    }

    fn holds(&self, epoch: &str, offset: u64) -> bool {
        let forked = |(old, until)| epoch == Self::epoch_name(old) && offset <= until;
        (epoch == Self::epoch_name(self.epoch) && offset <= self.head())
            || self.fork.is_some_and(forked)
            || (epoch.is_empty() && offset == 0)
    }
}

#[derive(Debug)]
struct Hall {
    faults: Faults,
    room: Mutex<Room>,
    /// Rings at every change.
    bell: watch::Sender<()>,
}

impl Hall {
    fn room(&self) -> MutexGuard<'_, Room> {
        self.room.lock().unwrap()
    }
}

/// A running hall with some doors; it ends with this value.
pub struct Mock {
    pub urls: Vec<String>,
    _runtime: Runtime,
}

impl Mock {
    pub fn start(doors: usize, faults: Faults) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let hall = Arc::new(Hall { faults, room: Mutex::default(), bell: watch::channel(()).0 });
        let urls = (0..doors)
            .map(|_| {
                let address: SocketAddr = ([127, 0, 0, 1], 0).into();
                let listener = runtime.block_on(TcpListener::bind(address)).unwrap();
                let url = format!("ws://{}", listener.local_addr().unwrap());
                runtime.spawn(serve(listener, hall.clone()));
                url
            })
            .collect();
        Mock { urls, _runtime: runtime }
    }
}

async fn serve(listener: TcpListener, hall: Arc<Hall>) {
    while let Ok((stream, _)) = listener.accept().await {
        let hall = hall.clone();
        tokio::spawn(async move {
            // A client that went away in the middle of something is what some tests are about.
            let _ = Door::open(stream, hall).await;
        });
    }
}

type Failed = Box<dyn std::error::Error + Send + Sync>;

/// One connection.
struct Door {
    hall: Arc<Hall>,
    socket: WebSocketStream<TcpStream>,
    name: String,
    key: String,
    room: String,
    /// Epoch and offset, once joined.
    cursor: Option<(u64, u64)>,
    delivered: u64,
    /// What the next event overtakes.
    held: Option<(u64, Event)>,
    /// The first of a pair.
    line: Option<String>,
}

impl Door {
    async fn open(stream: TcpStream, hall: Arc<Hall>) -> Result<(), Failed> {
        let mut query = String::new();
        #[expect(clippy::result_large_err, reason = "tungstenite's own signature")]
        let callback = |request: &Request, mut response: Response| -> Result<_, ErrorResponse> {
            query = request.uri().query().unwrap_or_default().to_owned();
            assert_eq!(request.uri().path(), "/ws");
            let protocol = HeaderValue::from_static("townhall.v1");
            assert_eq!(request.headers()["sec-websocket-protocol"], protocol);
            response.headers_mut().insert("sec-websocket-protocol", protocol);
            Ok(response)
        };
        let socket = accept_hdr_async(stream, callback).await?;
        let parameter = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|pair| pair.0 == name).unwrap().1.to_owned()
        };
        let (name, key) = (parameter("name"), parameter("key"));
        if hall.room().keys.entry(name.clone()).or_insert(key.clone()) != &key {
            return Err(format!("{name} is somebody else now").into());
        }
        let mut door =
            Door { name, key, hall, socket, room: String::new(), cursor: None, delivered: 0, held: None, line: None };
        door.send(json!({"type": "welcome", "beat": 25, "limits": {"dedupe_s": 600}})).await?;
        door.talk().await
    }

    async fn talk(&mut self) -> Result<(), Failed> {
        let mut bell = self.hall.bell.subscribe();
        loop {
            self.deliver().await?;
            tokio::select! {
                frame = self.socket.next() => match frame.ok_or("gone")?? {
                    Message::Text(text) => self.command(&serde_json::from_str(&text)?).await?,
                    _ => return Ok(()),
                },
                _ = bell.changed() => {}
            }
        }
    }

    /// The type comes first, as from a hall.
    async fn send(&mut self, mut frame: Value) -> Result<(), Failed> {
        let kind = frame.as_object_mut().and_then(|fields| fields.remove("type")).ok_or("type")?;
        let fields = frame.to_string();
        let comma = if fields == "{}" { "" } else { "," };
        Ok(self.socket.send(Message::text(format!(r#"{{"type":{kind}{comma}{}"#, &fields[1..]))).await?)
    }

    async fn command(&mut self, command: &Value) -> Result<(), Failed> {
        match command["type"].as_str() {
            Some("join") => self.join(command).await,
            Some("say") => self.say(command).await,
            other => Err(format!("{other:?} is no command").into()),
        }
    }

    async fn join(&mut self, command: &Value) -> Result<(), Failed> {
        self.room = command["room"].as_str().ok_or("room")?.to_owned();
        if self.hall.faults.forbids {
            let reference = &command["ref"];
            return self.send(json!({"type": "error", "code": "forbidden", "ref": reference, "room": self.room})).await;
        }
        let last = command["last"].as_u64().unwrap_or(50);
        let after = command.get("after").map(|after| {
            let epoch = after["epoch"].as_str().unwrap_or_default().to_owned();
            (epoch, after["offset"].as_u64().unwrap_or_default())
        });
        if let Some((_, offset)) = after.as_ref().filter(|_| self.hall.faults.resumes_too_late) {
            self.until_missed(*offset).await?;
        }
        self.enter(after, last).await
    }

    /// Waits until somebody at `offset` has missed something.
    async fn until_missed(&self, offset: u64) -> Result<(), Failed> {
        let mut bell = self.hall.bell.subscribe();
        while self.hall.room().head() <= offset {
            bell.changed().await?;
        }
        Ok(())
    }

    /// One way in for joins, resumes and new epochs.
    async fn enter(&mut self, after: Option<(String, u64)>, last: u64) -> Result<(), Failed> {
        let too_late = u64::from(self.hall.faults.resumes_too_late);
        let (epoch, head, start, recovered) = {
            let room = self.hall.room();
            let head = room.head();
            let fresh = head.saturating_sub(last);
            match after {
                None => (room.epoch, head, fresh, None),
                Some((epoch, offset)) if room.holds(&epoch, offset) => {
                    let start = if offset > 0 { (offset + too_late).min(head) } else { 0 };
                    (room.epoch, head, start, Some(true))
                }
                Some(_) => (room.epoch, head, fresh, Some(false)),
            }
        };
        self.cursor = Some((epoch, start));
        let mut joined = json!({
            "type": "joined", "room": self.room, "epoch": Room::epoch_name(epoch), "offset": head,
            "backlog": head - start, "members": 1,
        });
        if let Some(recovered) = recovered {
            joined["recovered"] = recovered.into();
        }
        self.send(joined).await
    }

    async fn say(&mut self, command: &Value) -> Result<(), Failed> {
        let id = command["id"].as_str().ok_or("id")?;
        let text = command["text"].as_str().ok_or("text")?;
        let event = Event { id: id.to_owned(), name: self.name.clone(), text: text.to_owned() };
        self.until_all_are_ahead_of_the_fork().await?;
        let stored = self.hall.room().store(event, &self.key, &self.hall.faults);
        self.hall.bell.send_replace(());
        match stored {
            Stored::Limited => {
                self.send(json!({
                    "type": "error", "code": "rate_limited", "room": self.room, "id": id, "retry_after_ms": 20,
                }))
                .await
            }
            Stored::InDoubt => {
                self.send(json!({
                    "type": "error", "code": "unavailable", "room": self.room, "id": id, "retry_after_ms": 0,
                }))
                .await
            }
            Stored::ThenCut => Err("cut".into()),
            Stored::At(_, offset) if self.hall.faults.never_accepts == Some(offset) => Ok(()),
            Stored::At(epoch, offset) => {
                let epoch = Room::epoch_name(epoch);
                self.send(json!({
                    "type": "accepted", "room": self.room, "id": id, "epoch": epoch, "offset": offset,
                }))
                .await
            }
        }
    }

    /// What is dropped at a fork was seen by everybody, or the fork would be nothing to them.
    async fn until_all_are_ahead_of_the_fork(&mut self) -> Result<(), Failed> {
        let mut bell = self.hall.bell.subscribe();
        loop {
            self.deliver().await?;
            let (forks, all_are_here) = {
                let room = self.hall.room();
                let head = room.head();
                let served = |name: &String| room.served.get(name).is_some_and(|served| *served >= head);
                (room.epoch == 1 && self.hall.faults.forks == Some(head + 1), room.keys.keys().all(served))
            };
            if !forks || all_are_here {
                return Ok(());
            }
            bell.changed().await?;
        }
    }

    /// Sends what this connection has not seen.
    async fn deliver(&mut self) -> Result<(), Failed> {
        while let Some((epoch, offset)) = self.cursor {
            let now = self.hall.room().epoch;
            if now != epoch {
                self.enter(Some((Room::epoch_name(epoch), offset)), 50).await?;
                continue;
            }
            let Some(event) = self.hall.room().log.get(offset as usize).cloned() else {
                return Ok(());
            };
            self.cursor = Some((epoch, offset + 1));
            self.deliver_one(offset + 1, event).await?;
            if self.hall.faults.forks.is_some() {
                self.hall.room().served.insert(self.name.clone(), offset + 1);
                self.hall.bell.send_replace(());
            }
        }
        Ok(())
    }

    async fn deliver_one(&mut self, offset: u64, mut event: Event) -> Result<(), Failed> {
        let faults = self.hall.faults.clone();
        let whom = faults.whom.unwrap_or("load-0");
        let here = |fault: Option<u64>| self.name == whom && fault == Some(offset);
        if here(faults.gap) {
            let epoch = Room::epoch_name(1);
            return self
                .send(json!({"type": "gap", "room": self.room, "epoch": epoch, "from": offset, "to": offset}))
                .await;
        }
        if here(faults.loses) || faults.never_delivers == Some(offset) {
            return Ok(());
        }
        if here(faults.renames) {
            event.id = "00000000-0000-4000-8000-000000000000".to_owned();
        }
        if here(faults.swaps) {
            self.held = Some((offset, event));
            return Ok(());
        }
        let twice = here(faults.doubles);
        self.event(offset, &event).await?;
        if twice {
            self.event(offset, &event).await?;
        }
        if let Some((offset, event)) = self.held.take() {
            self.event(offset, &event).await?;
        }
        if faults.asks_to_move == Some(offset) {
            self.send(json!({"type": "reconnect", "after_ms": 20})).await?;
        }
        self.delivered += 1;
        let listener_is_cut = self.name == "load-19" && faults.cuts_listener == Some(offset);
        match faults.cuts_every {
            Some(every) if self.delivered == every => Err("cut".into()),
            _ if listener_is_cut => Err("cut".into()),
            _ => Ok(()),
        }
    }

    async fn event(&mut self, offset: u64, event: &Event) -> Result<(), Failed> {
        let Event { id, name, text } = event;
        let message = json!({
            "type": "message", "room": self.room, "offset": offset, "id": id,
            "from": {"id": name, "name": name}, "at": 1_700_000_000_000_u64, "text": text,
        });
        if self.hall.faults.pairs && offset > 2 && offset % 2 == 1 {
            self.line = Some(message.to_string());
            return Ok(());
        }
        match self.line.take() {
            Some(line) => Ok(self.socket.send(Message::text(format!("{line}\n{message}"))).await?),
            None => self.send(message).await,
        }
    }
}
