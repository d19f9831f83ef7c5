//! What a JSON client says: [`Request::parse`], then [`Session::request`]. Whatever it is, the hall answers in JSON of
//! bounded length; and what is accepted is an event that every node and every door can read.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;
use townhall::auth::{Identity, Kind};
use townhall::broker::{MAX_ANNOUNCED_BYTES, MAX_EVENT_BYTES, Publication};
use townhall::config::{Config, Limits, Rooms};
use townhall::encoding::{Encoding, Event, Record};
use townhall::names::{DisplayName, RoomName, UserId};
use townhall::position::Epoch;
use townhall::protocol::{CloseReason, Command, MAX_LAST, Refusal, Reply, Request, User, who_types};
use townhall::session::{Action, Rules, Session};

use super::wire::payloads;

/// The longest refusal, whatever it refuses.
const REFUSAL_BYTES: usize = 4 * 1024;
/// As many refusals in a row for the rate close a connection.
const PATIENCE: usize = 100;

/// `data`: which settings, then commands with a zero byte in between.
pub fn check(data: &[u8]) {
    let [settings, said @ ..] = data else { return };
    let mut client = Client::new(*settings);
    for command in said.split(|byte| *byte == 0) {
        let Ok(text) = std::str::from_utf8(command) else { continue };
        if !client.says(text) {
            return;
        }
    }
}

struct Client {
    session: Session,
    limits: Limits,
    now: Instant,
    /// The rooms that it should be in.
    rooms: HashSet<String>,
    taken: usize,
    refused_in_a_row: usize,
}

impl Client {
    fn new(settings: u8) -> Self {
        let bit = |n: u8| settings >> n & 1 == 1;
        let limits = Limits {
            rate: if bit(0) { 20 } else { 0 },
            text: if bit(1) { 64 * 1024 } else { 16 },
            rooms: 3,
            ..Limits::default()
        };
        let only = ["lobby", "help"].into_iter().filter_map(RoomName::parse).collect();
        let rooms = if bit(2) { Rooms::Only(only) } else { Rooms::Open };
        let config = Config { limits: limits.clone(), rooms, ..Config::default() };
        let name = if bit(3) { "\"\\\u{5D0}\u{1F980}" } else { "zoe" };
        let name = DisplayName::parse(name).expect("a name that anybody may have");
        let now = Instant::now();
        let user = User { id: UserId::new("guest-1".into()), name, info: None };
        let session =
            Session::new(Arc::new(Rules::new(&config, "node")), Identity::of(user, Kind::Guest { marked: false }), now);
        Client { session, limits, now, rooms: HashSet::new(), taken: 0, refused_in_a_row: 0 }
    }

    /// False: the connection is closed.
    fn says(&mut self, text: &str) -> bool {
        let parsed = Request::parse(text);
        if let Err(refusal) = &parsed {
            assert_repeats(text, refusal);
        }
        let request = parsed.clone().ok();
        let action = self.session.request(parsed, self.now);
        if let Action::Close(CloseReason::TooManyCommands) = action {
            assert_eq!(self.refused_in_a_row, PATIENCE - 1);
            return false;
        }
        if let Action::Refuse(refusal) = &action {
            assert_answer(&Reply::Error(refusal.clone()));
            if refusal.code.as_str() == "rate_limited" {
                assert!(self.limits.rate > 0 && refusal.retry_after_ms > Some(0));
                self.refused_in_a_row += 1;
                return true;
            }
        }
        self.refused_in_a_row = 0;
        self.taken += 1;
        assert!(self.limits.rate == 0 || self.taken <= self.limits.burst as usize, "time stands still");
        match (action, request.map(|request| request.command)) {
            (Action::Refuse(_), _) => {}
            (Action::Join { room, last, .. }, Some(Command::Join { .. })) => {
                assert!(last <= MAX_LAST);
                self.rooms.insert(room.as_str().to_owned());
                assert!(self.rooms.len() <= self.limits.rooms);
            }
            (Action::Leave { room, .. }, Some(Command::Leave { .. })) => {
                assert!(self.rooms.remove(room.as_str()), "it was not in {room}");
                self.session.left(&room);
            }
            (Action::History { room, limit, .. }, Some(Command::History { .. })) => {
                assert!(self.rooms.contains(room.as_str()), "it was not in {room}");
                assert!(limit <= MAX_LAST);
            }
            (Action::Publish { publication, .. }, Some(Command::Say { id, text, data, .. })) => {
                assert_eq!(publication.id, id);
                self.assert_may_be_said(&publication, &text, data.as_deref());
            }
            (Action::Who { room, .. }, Some(Command::Who { .. })) => {
                assert!(self.rooms.contains(room.as_str()), "it was not in {room}");
            }
            (Action::Typing { room, event }, Some(Command::Typing { .. })) => {
                assert!(self.rooms.contains(room.as_str()), "it was not in {room}");
                let (user, _) = who_types(&event).expect("every node can read it");
                assert_eq!(user, self.session.user().id);
                assert!(event.len() <= MAX_ANNOUNCED_BYTES && !event.contains(&b'\n'));
            }
            (action, command) => panic!("{command:?} became {action:?}"),
        }
        true
    }

    fn assert_may_be_said(&self, publication: &Publication, text: &str, data: Option<&str>) {
        let Publication { room, user, id, event } = publication;
        assert!(self.rooms.contains(room.as_str()), "it was not in {room}");
        assert!(text.len() <= self.limits.text);
        assert!(event.len() <= MAX_EVENT_BYTES, "{} bytes are dropped by everyone who reads them", event.len());
        assert!(!event.iter().any(|byte| matches!(byte, b'\n' | b'\r')), "it breaks the line that it is stored on");
        let json: Value = serde_json::from_slice(event).expect("an event is JSON");
        let from = self.session.user();
        assert_eq!(json["type"], "message");
        assert_eq!(json["id"], id.to_string());
        assert_eq!(json["from"], serde_json::json!({ "id": user.as_str(), "name": from.name.as_str() }));
        assert_eq!(json["text"], harmless(text));
        assert_eq!(json.get("data").cloned(), data.map(|data| serde_json::from_str(data).expect("data is JSON")));
        assert!(data.is_some() || json["text"] != "");
        let event = Event::parse(event.clone()).expect("what a client may say is an event");
        let record = Record::Event { offset: u64::MAX, at_ms: u64::MAX, event };
        assert_shown(&record, room, json);
    }
}

/// What is left of a text.
fn harmless(text: &str) -> String {
    let mut left = String::new();
    for c in text.chars() {
        match c {
            '\t' | '\n' => left.push(c),
            '\u{2028}' | '\u{2029}' => left.push('\n'),
            c if c.is_control() => {}
            c => left.push(c),
        }
    }
    left
}

/// The wire forms of a message: one frame each, with all of it inside.
fn assert_shown(record: &Record, room: &RoomName, mut message: Value) {
    let encoded = |encoding| {
        let mut out = Vec::new();
        record.encode(encoding, room, &Epoch::random(), &mut out);
        out
    };
    let json: Value = serde_json::from_slice(payload(&encoded(Encoding::Json))).expect("a message is JSON");
    let place = serde_json::json!({ "room": room.as_str(), "offset": u64::MAX, "at": u64::MAX });
    for (name, value) in place.as_object().into_iter().flatten() {
        message[name] = value.clone();
    }
    assert_eq!(json, message);
    let plain = encoded(Encoding::Plain);
    let lines = encoded(Encoding::Line);
    if message["text"] == "" {
        assert!(plain.is_empty() && lines.is_empty(), "what has no text is for programs");
    } else {
        assert_eq!([payload(&plain), b"\n"].concat(), lines);
        let name = [message["from"]["name"].as_str().unwrap_or_default().as_bytes(), b":"].concat();
        let text = message["text"].as_str().unwrap_or_default().split('\n');
        let due: Vec<u8> = text.flat_map(|line| [&name, line.as_bytes(), b"\n"].concat()).collect();
        assert_eq!(lines, due);
    }
}

/// What is in a single frame.
fn payload(frame: &[u8]) -> &[u8] {
    match payloads(frame)[..] {
        [payload] => payload,
        _ => panic!("not one frame"),
    }
}

/// A refusal repeats what it can of its command, so that the client knows which one it was.
fn assert_repeats(text: &str, refusal: &Refusal) {
    // The hall leaves what it does not know unread; this reads all of it, and takes the last of two.
    let Ok(Value::Object(command)) = serde_json::from_str(text) else { return };
    if refusal.message.contains("duplicate field") {
        return;
    }
    let short = |name: &str| command.get(name).and_then(Value::as_str).filter(|text| text.len() <= 128);
    assert_eq!(refusal.tag.room.as_deref(), short("room"), "{text}");
    assert_eq!(refusal.tag.id.as_deref(), short("id"), "{text}");
    let reference = serde_json::to_value(&refusal.tag.reference).expect("a ref is JSON");
    let due = match command.get("ref") {
        Some(Value::Number(number)) if number.is_i64() => number.clone().into(),
        Some(Value::String(text)) if text.len() <= 128 => text.clone().into(),
        _ => Value::Null,
    };
    assert_eq!(reference, due, "{text}");
}

/// One JSON object on one line, that says what it is, and is no longer for a longer command.
fn assert_answer(reply: &Reply) {
    let text = reply.to_json();
    assert!(text.len() <= REFUSAL_BYTES, "{} bytes: {text}", text.len());
    assert!(!text.contains(['\n', '\r']));
    let json: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(json["type"].is_string(), "{text}");
}
