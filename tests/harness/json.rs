//! A client of `townhall.v1` that a test moves step by step. It keeps its positions by the rules of the protocol and
//! panics when an offset comes twice, too early or not at all, so every test with a [`Json`] in it checks the order.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::socket::{Heard, Refusal, Socket, close_code};
use super::{PATIENCE, patiently};

/// A place in a room, as clients keep it: an epoch is opaque.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub epoch: String,
    pub offset: u64,
}

impl Position {
    pub fn new(epoch: &str, offset: u64) -> Position {
        Position { epoch: epoch.into(), offset }
    }

    pub fn of(event: &Value) -> Position {
        Position::new(
            event["epoch"].as_str().unwrap_or_else(|| panic!("no epoch in {event}")),
            event["offset"].as_u64().unwrap_or_else(|| panic!("no offset in {event}")),
        )
    }

    pub fn json(&self) -> Value {
        json!({"epoch": self.epoch, "offset": self.offset})
    }
}

/// What a client has of one room.
#[derive(Debug, Clone)]
pub struct View {
    pub position: Position,
    /// The messages since the last break, oldest first.
    pub messages: Vec<Value>,
    /// Every `joined` that came, asked for or not.
    pub joined: Vec<Value>,
    pub gaps: Vec<Value>,
}

pub struct Json {
    socket: Socket,
    /// The first frame.
    pub welcome: Value,
    pub rooms: HashMap<String, View>,
    /// Every `presence` that came; [`Json::next`] does not show them.
    pub presence: Vec<Value>,
    /// What `accepted` said, by id.
    pub accepted: HashMap<Uuid, Vec<Position>>,
    /// Rooms joined anew, whose cursor the next `joined` may move anywhere.
    joining: HashSet<String>,
    name: String,
}

impl Json {
    /// Comes in with a query (`"?name=ada"`) and takes the `welcome`.
    pub async fn connect(url: &str, query: &str) -> Json {
        match Json::try_connect(url, query).await {
            Ok(client) => client,
            Err(refusal) => panic!("{url}{query} refused: {refusal:?}"),
        }
    }

    /// The same where a refusal is what is expected.
    pub async fn try_connect(url: &str, query: &str) -> Result<Json, Refusal> {
        let socket = Socket::connect(&format!("{url}{query}"), Some("townhall.v1")).await?;
        Ok(Json::welcomed(socket, query).await)
    }

    /// The same over a socket that holds only a few KiB unread.
    pub async fn connect_narrow(url: &str, query: &str) -> Json {
        let url = format!("{url}{query}");
        match Socket::connect_narrow(&url, Some("townhall.v1")).await {
            Ok(socket) => Json::welcomed(socket, query).await,
            Err(refusal) => panic!("{url} refused: {refusal:?}"),
        }
    }

    /// The same, and it reads in fits and starts, as `seed` has it.
    pub async fn connect_fitful(url: &str, query: &str, seed: u64) -> Json {
        let url = format!("{url}{query}");
        match Socket::connect_fitful(&url, Some("townhall.v1"), seed).await {
            Ok(socket) => Json::welcomed(socket, query).await,
            Err(refusal) => panic!("{url} refused: {refusal:?}"),
        }
    }

    /// How many pings came.
    pub fn pings(&self) -> u32 {
        self.socket.pings
    }

    async fn welcomed(socket: Socket, query: &str) -> Json {
        let mut client = Json {
            socket,
            welcome: Value::Null,
            rooms: HashMap::new(),
            presence: Vec::new(),
            accepted: HashMap::new(),
            joining: HashSet::new(),
            name: query.into(),
        };
        client.welcome = client.expect_type("welcome").await;
        client
    }

    pub async fn send(&mut self, command: Value) {
        self.send_text(command.to_string()).await;
    }

    /// Sends text as it is, JSON or not.
    pub async fn send_text(&mut self, text: impl Into<String>) {
        self.send_frame(Message::text(text.into())).await;
    }

    pub async fn send_frame(&mut self, frame: Message) {
        let sent = self.try_send_frame(frame).await;
        sent.unwrap_or_else(|error| panic!("{}: cannot send: {error}", self.name));
    }

    /// Sends to a server that may have closed.
    pub async fn try_send_frame(&mut self, frame: Message) -> Result<(), String> {
        let sent = patiently("the server to take a command", self.socket.send(frame)).await;
        sent.map_err(|error| error.to_string())
    }

    /// Sends frames in one write, so that the server reads all of them at once.
    pub async fn send_together(&mut self, frames: Vec<Message>) {
        let sent = patiently("the server to take commands", self.socket.send_together(frames)).await;
        sent.unwrap_or_else(|error| panic!("{}: {error}", self.name));
    }

    /// The close code among what it had not read, without having answered any of it.
    pub async fn unanswered_close(self) -> Option<u16> {
        close_code(&self.socket.rest().await)
    }

    /// The next event, whatever it is; `beat`s and `presence` are not shown.
    pub async fn next(&mut self) -> Value {
        match self.next_or_close().await {
            Ok(event) => event,
            Err((code, reason)) => panic!("{}: closed {code} {reason:?}", self.name),
        }
    }

    /// The next event, or the code and the reason of the close (1006: cut).
    pub async fn next_or_close(&mut self) -> Result<Value, (u16, String)> {
        let what = format!("the next event of {} but beats; {}", self.name, self.state());
        patiently(&what, async {
            loop {
                let event = self.next_of_any_kind().await?;
                if event["type"] != "beat" && event["type"] != "presence" {
                    return Ok(event);
                }
            }
        })
        .await
    }

    /// The next event, `beat`s too.
    pub async fn next_with_beats(&mut self) -> Value {
        loop {
            let event = self.any().await;
            if event["type"] != "presence" {
                return event;
            }
        }
    }

    async fn any(&mut self) -> Value {
        let event = self.next_of_any_kind().await;
        event.unwrap_or_else(|(code, reason)| panic!("{}: closed {code} {reason:?}", self.name))
    }

    /// Reads on until a `presence` is as wanted; those that came before do not count.
    pub async fn until_presence(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let event = self.any().await;
            if event["type"] == "presence" && wanted(&event) {
                return event;
            }
        }
        panic!("{}: no presence {what} among {:#?}", self.name, self.presence);
    }

    /// Who is in the room, by name.
    pub async fn who(&mut self, room: &str) -> Vec<String> {
        self.send(json!({"type": "who", "room": room})).await;
        let members = self.until_type("members").await;
        let listed = members["members"].as_array().expect("a list of members");
        assert!(listed.len() as u64 <= members["count"].as_u64().expect("a count"), "{members}");
        let mut names: Vec<String> = listed.iter().map(|member| text(&member["name"])).collect();
        names.sort();
        names
    }

    async fn next_of_any_kind(&mut self) -> Result<Value, (u16, String)> {
        let what = format!("the next event of {}; {}", self.name, self.state());
        match patiently(&what, self.socket.hear()).await {
            Heard::Closed(code, reason) => Err((code, reason)),
            Heard::Text(text) => {
                let event: Value =
                    serde_json::from_str(&text).unwrap_or_else(|error| panic!("no JSON ({error}): {text}"));
                self.note(&event);
                Ok(event)
            }
        }
    }

    /// The next event, which must be of this type.
    pub async fn expect_type(&mut self, kind: &str) -> Value {
        let event = self.next().await;
        assert_eq!(event["type"], kind, "{}: instead came {event}", self.name);
        event
    }

    /// The next event, which must be an error with this code.
    pub async fn expect_error(&mut self, code: &str) -> Value {
        let event = self.expect_type("error").await;
        assert_eq!(event["code"], code, "{}: instead came {event}", self.name);
        let words = event["message"].as_str();
        assert!(words.is_some_and(|words| !words.is_empty()), "no words: {event}");
        event
    }

    /// Reads on until an event of this type comes; the others are only noted.
    pub async fn until_type(&mut self, kind: &str) -> Value {
        self.until(&format!("a {kind}"), |event| event["type"] == kind).await
    }

    /// Reads on until an event is as wanted. Bounded as a whole: other events coming do not prolong it.
    pub async fn until(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let mut others: Vec<String> = Vec::new();
        while tokio::time::Instant::now() < deadline {
            let event = self.next().await;
            if wanted(&event) {
                return event;
            }
            others.push(event.to_string());
        }
        let last = others.len().saturating_sub(5);
        panic!("{}: no {what}; the last of {} events: {:#?}", self.name, others.len(), &others[last..]);
    }

    /// Joins without a position: `joined` and, read on demand, its backlog.
    pub async fn join(&mut self, room: &str) -> Value {
        self.join_with(json!({"type": "join", "room": room})).await
    }

    /// Joins with so many last messages.
    pub async fn join_last(&mut self, room: &str, last: u64) -> Value {
        self.join_with(json!({"type": "join", "room": room, "last": last})).await
    }

    /// Joins at a position, and checks that a recovery begins exactly there.
    pub async fn resume(&mut self, room: &str, after: &Position) -> Value {
        let joined = self.join_with(json!({"type": "join", "room": room, "after": after.json()})).await;
        if joined["recovered"] == true {
            let head = Position::of(&joined).offset;
            let start = joined["backlog"].as_u64().map(|backlog| head - backlog);
            assert_eq!(start, Some(after.offset), "recovered from elsewhere: {joined}");
        }
        joined
    }

    /// Sends a `join` and reads until its `joined`.
    pub async fn join_with(&mut self, command: Value) -> Value {
        let room = command["room"].clone();
        self.joining.extend(room.as_str().map(String::from));
        self.send(command).await;
        self.until("joined", |event| event["type"] == "joined" && event["room"] == room).await
    }

    /// Says something under a new id, and does not wait.
    pub async fn say(&mut self, room: &str, text: &str) -> Uuid {
        let id = Uuid::new_v4();
        self.say_as(room, id, text).await;
        id
    }

    pub async fn say_as(&mut self, room: &str, id: Uuid, text: &str) {
        self.send(json!({"type": "say", "room": room, "id": id, "text": text})).await;
    }

    /// Says something and waits until it is accepted. What else comes is noted.
    pub async fn said(&mut self, room: &str, text: &str) -> Position {
        let id = self.say(room, text).await;
        self.accepted(id).await
    }

    /// Says something, again and again under the same id while it is refused for now, until it is accepted.
    pub async fn insist(&mut self, room: &str, id: Uuid, text: &str) -> Position {
        loop {
            self.say_as(room, id, text).await;
            let answer = self
                .until("an answer to a say", |event| {
                    event["id"] == id.to_string() && (event["type"] == "accepted" || event["type"] == "error")
                })
                .await;
            if answer["type"] == "accepted" {
                return Position::of(&answer);
            }
            let pause = answer["retry_after_ms"].as_u64();
            let pause = pause.unwrap_or_else(|| panic!("refused for good: {answer}"));
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Reads until the message of this id is accepted once more than before; any error is a failure.
    pub async fn accepted(&mut self, id: Uuid) -> Position {
        let event = self
            .until("accepted", |event| {
                assert_ne!(event["type"], "error", "refused: {event}");
                event["type"] == "accepted" && event["id"] == id.to_string()
            })
            .await;
        Position::of(&event)
    }

    /// Waits until this text was heard in the room, perhaps already, and gives the message.
    pub async fn hear(&mut self, room: &str, text: &str) -> Value {
        loop {
            let heard = self.view(room).messages.iter().rev().find(|message| message["text"] == text);
            if let Some(message) = heard {
                return message.clone();
            }
            self.next().await;
        }
    }

    /// Reads until the room's position has reached this offset.
    pub async fn reach(&mut self, room: &str, offset: u64) {
        while self.view(room).position.offset < offset {
            self.next().await;
        }
    }

    /// Reads until the server closes; the code and the reason.
    pub async fn until_closed(&mut self) -> (u16, String) {
        loop {
            if let Err(closed) = self.next_or_close().await {
                return closed;
            }
        }
    }

    /// Proves that nothing more came: an answered command is the next event.
    pub async fn expect_silence(&mut self) {
        let marker = format!("silence-{}", Uuid::new_v4());
        self.send(json!({"type": "no-such-command", "ref": marker})).await;
        let event = self.expect_error("unknown_type").await;
        assert_eq!(event["ref"], marker, "{}: not silent: {event}", self.name);
    }

    pub fn view(&self, room: &str) -> &View {
        self.rooms.get(room).unwrap_or_else(|| panic!("{} is not in {room}", self.name))
    }

    pub fn position(&self, room: &str) -> Position {
        self.view(room).position.clone()
    }

    /// The texts heard in a room since the last break.
    pub fn texts(&self, room: &str) -> Vec<String> {
        let texts = self.view(room).messages.iter().map(|message| message["text"].as_str());
        texts.map(|text| text.expect("a message has a text").into()).collect()
    }

    /// Keeps the books, by the protocol's rules of what moves a position.
    fn note(&mut self, event: &Value) {
        let Some(room) = event["room"].as_str() else {
            return;
        };
        match event["type"].as_str() {
            Some("joined") => self.note_joined(room, event),
            Some("presence") => self.presence.push(event.clone()),
            Some("gap") => {
                let view = self.joined_view(room, event);
                let from = event["from"].as_u64().expect("a gap has a from");
                assert_eq!(from, view.position.offset + 1, "a gap out of place: {event}");
                view.position.offset = event["to"].as_u64().expect("a gap has a to");
                assert!(view.position.offset >= from, "a gap of nothing: {event}");
                view.gaps.push(event.clone());
            }
            Some("accepted") => {
                let id = event["id"].as_str().and_then(|id| id.parse().ok());
                let id = id.unwrap_or_else(|| panic!("no id in {event}"));
                self.accepted.entry(id).or_default().push(Position::of(event));
            }
            Some("left") => {
                self.rooms.remove(room);
            }
            _ => {
                if let (Some(offset), Some(_)) = (event["offset"].as_u64(), event["at"].as_u64()) {
                    let view = self.joined_view(room, event);
                    let expected = view.position.offset + 1;
                    assert_eq!(offset, expected, "lost, doubled or swapped before {event}");
                    view.position.offset = offset;
                    view.messages.push(event.clone());
                }
            }
        }
    }

    fn note_joined(&mut self, room: &str, event: &Value) {
        let head = Position::of(event);
        let backlog = event["backlog"].as_u64().expect("joined has a backlog");
        assert!(backlog <= head.offset, "a backlog from before the first: {event}");
        let start = Position::new(&head.epoch, head.offset - backlog);
        let asked = self.joining.remove(room);
        let here = self.rooms.contains_key(room);
        assert!(asked || here, "joined without having asked: {event}");
        let view = self.rooms.entry(room.into()).or_insert_with(|| View {
            position: start.clone(),
            messages: Vec::new(),
            joined: Vec::new(),
            gaps: Vec::new(),
        });
        if event["recovered"] != true {
            view.messages.clear();
        } else if asked {
            let replayed = |message: &Value| message["offset"].as_u64() > Some(start.offset);
            view.messages.retain(|message| !replayed(message));
        } else {
            let offset = view.position.offset;
            assert_eq!(start.offset, offset, "recovered from elsewhere than {offset}: {event}");
        }
        view.position = start;
        view.joined.push(event.clone());
    }

    fn joined_view(&mut self, room: &str, event: &Value) -> &mut View {
        let stranger = format!("{}: an event of a room that was not joined: {event}", self.name);
        self.rooms.get_mut(room).expect(&stranger)
    }

    fn state(&self) -> String {
        let rooms = self.rooms.iter().map(|(room, view)| {
            let Position { epoch, offset } = &view.position;
            format!("{room} at {epoch}/{offset}, {} messages", view.messages.len())
        });
        format!("so far: {:?}", rooms.collect::<Vec<_>>())
    }
}

/// A string in an event.
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).into()
}
