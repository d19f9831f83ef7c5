//! What a broken or hostile Redis sends: payloads of the subscription, answers to publishes, heads, histories and members. What
//! is taken from it keeps what the rest of the hall relies on; a room that is given it stays dense, and its members get whole
//! frames in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use redis::Value;
use townhall::broker::redis::answers;
use townhall::broker::{
    Head, Heard, History, MAX_ANNOUNCED_BYTES, MAX_EVENT_BYTES, MAX_LISTED, Member, NodeId, Range, RollVersion, Whisper,
};
use townhall::encoding::{Encoding, json_string};
use townhall::log::{Seq, Window};
use townhall::names::{DisplayName, RoomName, UserId};
use townhall::position::{Epoch, Lineage, Offset, Position};
use townhall::presence::{Change, Roll};
use townhall::protocol::{Reply, who_types};
use townhall::room::{Budget, Entrance, Progress, Read, Room};

use super::wire::payloads;

/// So many answers in a row may leave a room unfinished.
const READS: usize = 8;

/// `data`: what happens, one thing after the other, until it is used up.
pub fn check(data: &[u8]) {
    let mut server = Unstructured::new(data);
    let mut node = Node::new();
    while !server.is_empty() && node.hears(&mut server).is_ok() {
        node.reader.follow(&node.room);
    }
}

struct Node {
    room: Arc<Room>,
    reader: Reader,
    id: NodeId,
    roll: Roll,
    step: u64,
    now: Instant,
}

impl Node {
    fn new() -> Self {
        let window = Window { bytes: 4096, records: 20 };
        Node {
            room: Arc::new(Room::new(RoomName::lobby(), window, Arc::new(Budget::new(usize::MAX)), &[])),
            reader: Reader::default(),
            id: NodeId::random(),
            roll: Roll::new(Duration::from_secs(10)),
            step: 0,
            now: Instant::now(),
        }
    }

    fn hears(&mut self, server: &mut Unstructured) -> Result<()> {
        match server.int_in_range(0..=11)? {
            0..=3 => self.deliver(&payload(server)?),
            4 | 5 => self.read(server)?,
            6 => {
                let asked = self.room.head();
                if let Ok(head) = answers::head(answer(server)?) {
                    assert_head(&head);
                    let _ = self.room.check(asked, &head);
                }
            }
            7 => {
                let count = server.int_in_range(0..=3)?;
                if let Ok(positions) = answers::positions(answer(server)?, count) {
                    assert_eq!(positions.len(), count);
                    for position in positions {
                        assert_epoch(&position.epoch);
                        self.room.has_reached(&position);
                    }
                }
            }
            8 => self.places(server)?,
            9 => self.call(server)?,
            10 => {
                let member = Member { id: UserId::new(id(server)?), name: DisplayName::stored("zoe").expect("a name") };
                match server.arbitrary()? {
                    true => self.roll.came(member),
                    false => self.roll.went(&member.id, server.arbitrary()?, self.now),
                }
            }
            _ => self.room.shrink(),
        }
        Ok(())
    }

    fn deliver(&mut self, payload: &Bytes) {
        let mut taken = Vec::new();
        let room = self.room.name.clone();
        for heard in answers::deliveries(&room, payload).flatten() {
            let delivery = match heard {
                Heard::Delivery(delivery) => delivery,
                Heard::Whisper(whisper) => {
                    self.whisper(whisper);
                    continue;
                }
            };
            assert_eq!(delivery.room, room);
            assert!(!delivery.position.epoch.is_silent());
            assert_epoch(&delivery.position.epoch);
            assert_event(&delivery.event);
            taken.push(delivery);
        }
        let _ = self.room.deliver(taken);
    }

    fn whisper(&mut self, whisper: Whisper) {
        match whisper {
            Whisper::Members { room, version } => {
                assert_eq!(room, self.room.name);
                self.roll.heard(version);
            }
            Whisper::Announced { event, .. } => {
                assert_event(&event);
                assert!(event.len() <= MAX_ANNOUNCED_BYTES);
                if let Some((_, from)) = who_types(&event) {
                    let typing = assert_told(&Reply::Typing { room: self.room.name.clone(), from });
                    // What has both moves a client's position.
                    assert!(typing.get("offset").is_none() && typing.get("at").is_none(), "{typing}");
                }
            }
        }
    }

    /// A round of the room's members, whatever Redis says to it.
    fn call(&mut self, server: &mut Unstructured) -> Result<()> {
        self.now += Duration::from_secs(server.int_in_range(0..=12)?);
        self.step += 1;
        self.roll.expire(self.now);
        let called = self.roll.call(&self.room.name, self.id, self.step, 8, self.now).is_some();
        match answers::members(roll(server)?) {
            Ok(members) if called => {
                assert!(members.list.as_ref().is_none_or(|list| list.len() <= MAX_LISTED));
                self.roll.answered(members, self.now);
            }
            _ => self.roll.failed(),
        }
        if let Some(Change { count, lists }) = self.roll.tell(self.now) {
            let (joined, left) = lists.unzip();
            assert_told(&Reply::Presence { room: self.room.name.clone(), count, joined, left });
        }
        let present = self.roll.present(self.now);
        assert!(present.members.iter().all(|member| !member.name.as_str().contains('\n')));
        assert!(self.roll.due(self.now) > self.now - Duration::from_secs(60));
        Ok(())
    }

    /// Reads as the hub does, though what it gets need not be what it asked for.
    fn read(&mut self, server: &mut Unstructured) -> Result<()> {
        for _ in 0..READS {
            let limit = self.room.first_read();
            let read: Read = self.room.next_read();
            let range = match limit {
                Some(limit) => Range::Before { before: Offset::MAX, limit },
                None => Range::From { first: read.first, limit: read.limit },
            };
            // The subscription goes on meanwhile.
            if server.ratio(1, 4)? {
                self.deliver(&payload(server)?);
            }
            let Ok(history) = answers::history(answer(server)?, &self.room.name, range) else { return Ok(()) };
            assert_history(&history);
            let progress = match limit {
                Some(limit) => self.room.begin(&history, limit, Encoding::Json),
                None => self.room.repair(&read, &history),
            };
            if progress == Progress::Done {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Somebody comes in.
    fn places(&self, server: &mut Unstructured) -> Result<()> {
        let after = match server.arbitrary()? {
            true => Some(Position { epoch: Epoch::from(&epoch(server)?[..]), offset: offset(server)? }),
            false => None,
        };
        let encoding = *server.choose(&Encoding::ALL)?;
        let entrance = Entrance { encoding, after, last: server.int_in_range(0..=200)? };
        let Some(place) = self.room.place(&entrance, server.arbitrary()?) else { return Ok(()) };
        let joined = place.joined;
        assert_eq!(joined.offset, self.room.head());
        assert!(joined.backlog <= joined.offset);
        assert_eq!(joined.epoch, self.room.lineage().epoch);
        assert_eq!(joined.recovered.is_some(), entrance.after.is_some());
        match (&entrance.after, joined.recovered) {
            (Some(after), Some(true)) => {
                assert_eq!(joined.from(), after.offset);
                assert!(self.room.lineage().holds(after, self.room.head()));
            }
            (None, _) => assert!(joined.backlog <= entrance.last),
            (Some(_), _) if encoding == Encoding::Json => assert!(joined.backlog <= entrance.last),
            _ => {}
        }
        Ok(())
    }
}

/// A JSON client, which checks what a client relies on.
#[derive(Default)]
struct Reader {
    epoch: Option<Epoch>,
    offset: Offset,
    generation: u32,
    seq: Seq,
}

impl Reader {
    fn follow(&mut self, room: &Room) {
        let current = room.with_log(|log| log.generation());
        if self.epoch.is_none() || current != self.generation {
            self.place(room);
        }
        let Some(news) = room.with_log(|log| log.since(self.seq, Encoding::Json)) else {
            // It fell behind the window; here it goes on from the head instead of reading pages.
            self.epoch = None;
            return self.place(room);
        };
        for frame in payloads(&news.slices(Encoding::Json, self.seq).concat()) {
            self.hear(std::str::from_utf8(frame).expect("a text frame"));
        }
        if self.epoch.is_some() {
            assert_eq!((self.offset, news.to), (news.head, room.with_log(|log| log.end())));
        }
        self.seq = news.to;
    }

    fn place(&mut self, room: &Room) {
        let after = self.epoch.clone().map(|epoch| Position { epoch, offset: self.offset });
        let resumes = after.is_some();
        let last = if resumes { 50 } else { 0 };
        let Some(place) = room.place(&Entrance { encoding: Encoding::Json, after, last }, true) else {
            assert!(self.epoch.is_none(), "a room that was open is not open any more");
            return;
        };
        if place.joined.recovered == Some(true) {
            assert_eq!(place.joined.from(), self.offset);
        }
        match place.seq {
            Some(seq) => {
                self.offset = place.joined.from();
                (self.epoch, self.seq, self.generation) = (Some(place.joined.epoch), seq, place.generation);
            }
            None if resumes => {
                self.epoch = None;
                self.place(room);
            }
            None => panic!("the end of the log is not in the window"),
        }
    }

    /// An event or a gap, that goes on where the last one ended.
    fn hear(&mut self, text: &str) {
        assert!(!text.contains(['\n', '\r']));
        serde_json::from_str::<serde::de::IgnoredAny>(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        let epoch = json_string(self.epoch.as_ref().map_or("", Epoch::as_str));
        let gap = format!(r#"{{"type":"gap","room":"lobby","epoch":{epoch},"from":{},"to":"#, self.offset + 1);
        if let Some(to) = text.strip_prefix(&gap) {
            let to = to.strip_suffix('}').and_then(|to| to.parse().ok()).unwrap_or_else(|| panic!("{text}"));
            assert!(to > self.offset, "{text}");
            self.offset = to;
        } else {
            let place = format!(r#"{{"room":"lobby","offset":{},"at":"#, self.offset + 1);
            assert!(text.starts_with(&place), "at {} of {epoch}: {text}", self.offset);
            self.offset += 1;
        }
    }
}

/// What everybody in a room is told: one JSON object on one line.
fn assert_told(reply: &Reply) -> serde_json::Value {
    let text = reply.to_json();
    assert!(!text.contains(['\n', '\r']), "{text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn assert_history(history: &History) {
    assert_head(&history.head);
    for entry in &history.entries {
        assert_event(&entry.event);
    }
}

fn assert_head(head: &Head) {
    assert_epoch(&head.lineage.epoch);
    assert!(head.lineage.forks.len() <= Lineage::MAX_FORKS);
    head.lineage.forks.iter().for_each(|fork| assert_epoch(&fork.epoch));
    for offset in [0, head.offset, Offset::MAX] {
        let position = Position { epoch: head.lineage.epoch.clone(), offset };
        assert!(!head.lineage.holds(&position, head.offset) || offset <= head.offset);
    }
}

/// An epoch is repeated to clients, so it is short and plain.
fn assert_epoch(epoch: &Epoch) {
    assert!(epoch.as_str().len() <= Epoch::MAX_BYTES && epoch.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
}

/// One JSON object on one line, that can be put into a frame as it is.
fn assert_event(event: &Bytes) {
    assert!(event.len() <= MAX_EVENT_BYTES);
    let text = std::str::from_utf8(event).expect("an event is UTF-8");
    assert!(text.starts_with('{') && !text.contains(['\n', '\r']), "{text}");
    serde_json::from_str::<serde::de::IgnoredAny>(text).expect("an event is JSON");
}

// --- what a server may say: often nearly what ours says, sometimes anything --------------------------------------------

const EPOCHS: [&str; 6] = ["a", "b", "c", "", "\"", "d:e"];
const EVENTS: [&str; 8] = [
    r#"{"type":"message","id":"i","from":{"id":"u","name":"zoe"},"text":"a\nb"}"#,
    r#"{"type":"poll","text":7}"#,
    r#"{"text":"without a type"}"#,
    r#"{"type":"message","offset":9,"at":1,"type":"message"}"#,
    r#"{"type":"message","from":{"name":"\u2028!"},"text":"\ud800"}"#,
    "{ }",
    "[]",
    "{\"type\":\n\"message\"}",
];

/// Bytes of the server's own choice.
fn blob(server: &mut Unstructured) -> Result<Vec<u8>> {
    let length = server.int_in_range(0..=64)?;
    let length = server.len().min(length);
    Ok(server.bytes(length)?.to_vec())
}

fn epoch(server: &mut Unstructured) -> Result<String> {
    Ok(match server.ratio(1, 16)? {
        // Up to longer than any of ours.
        true => String::from_utf8_lossy(&blob(server)?).repeat(server.int_in_range(1..=70)?),
        false => (*server.choose(&EPOCHS)?).to_owned(),
    })
}

fn offset(server: &mut Unstructured) -> Result<Offset> {
    Ok(match server.ratio(1, 16)? {
        true => server.arbitrary()?,
        false => server.int_in_range(0..=40)?,
    })
}

fn event(server: &mut Unstructured) -> Result<Vec<u8>> {
    Ok(match server.ratio(1, 8)? {
        true => blob(server)?,
        false => server.choose(&EVENTS)?.as_bytes().to_vec(),
    })
}

/// One of a few users.
fn id(server: &mut Unstructured) -> Result<String> {
    Ok(match server.ratio(1, 16)? {
        true => String::from_utf8_lossy(&blob(server)?).into_owned(),
        false => format!("u{}", server.int_in_range(0..=9)?),
    })
}

/// A version of a room's members, one of a few.
fn version(server: &mut Unstructured) -> Result<String> {
    Ok(match server.ratio(1, 16)? {
        true => epoch(server)?,
        false => RollVersion(server.int_in_range(0..=4)?).to_string(),
    })
}

/// An answer about a room's members.
fn roll(server: &mut Unstructured) -> Result<Value> {
    let state = *server.choose(&["kept", "kept", "kept", "unfinished", "lost", "?"])?;
    let mut list = Vec::new();
    for _ in 0..server.int_in_range(0..=6)? {
        list.push(string(id(server)?));
        list.push(string(if server.ratio(1, 8)? { blob(server)? } else { b"zoe".to_vec() }));
    }
    let mut items = vec![string(state), string(version(server)?), number(server)?, Value::Array(list)];
    if server.ratio(1, 4)? {
        items.pop();
    }
    Ok(Value::Array(items))
}

/// What is not stored.
fn whisper(server: &mut Unstructured) -> Result<Vec<u8>> {
    Ok(match server.arbitrary()? {
        true => format!("1 @ {}", version(server)?).into_bytes(),
        false => {
            let from = format!(r#"{{"id":"{}","name":"zoe","offset":7,"at":7}}"#, id(server)?);
            let typing = format!(r#"1 ~ {{"type":"typing","offset":7,"at":7,"from":{from}}}"#);
            if server.ratio(1, 8)? { [b"1 ~ ", &event(server)?[..]].concat() } else { typing.into_bytes() }
        }
    })
}

/// What is published on a room's channel.
fn payload(server: &mut Unstructured) -> Result<Bytes> {
    let mut payload = Vec::new();
    if server.ratio(1, 8)? {
        return Ok(blob(server)?.into());
    }
    for i in 0..=server.int_in_range(0..=3)? {
        if i > 0 {
            payload.push(b'\n');
        }
        if server.ratio(1, 8)? {
            payload.extend(whisper(server)?);
            continue;
        }
        let format = if server.ratio(1, 32)? { "2" } else { "1" };
        payload.extend(format!("{format} {} {} {} ", epoch(server)?, offset(server)?, offset(server)?).into_bytes());
        payload.extend(event(server)?);
    }
    Ok(payload.into())
}

/// An answer to one of our calls.
fn answer(server: &mut Unstructured) -> Result<Value> {
    if server.ratio(1, 8)? {
        let bytes = blob(server)?;
        return Ok(redis::parse_redis_value(&bytes).unwrap_or(Value::Nil));
    }
    let mut items = vec![string(epoch(server)?), number(server)?, number(server)?];
    let mut forks = Vec::new();
    for _ in 0..server.int_in_range(0..=3)? {
        forks.push(format!("{}:{}", epoch(server)?, offset(server)?));
    }
    items.push(string(forks.join(",")));
    let mut entries = Vec::new();
    let first = offset(server)?;
    for i in 0..server.int_in_range(0..=8)? {
        // Mostly one after the other.
        let offset = if server.ratio(1, 8)? { offset(server)? } else { first.wrapping_add(i) };
        let fields = [string("at"), string(offset.to_string()), string("e"), string(event(server)?)];
        entries.push(Value::Array(vec![string(format!("{offset}-0")), Value::Array(fields.to_vec())]));
    }
    items.push(Value::Array(entries));
    if server.ratio(1, 8)? {
        let broken = server.choose_index(items.len())?;
        items[broken] = redis::parse_redis_value(&blob(server)?).unwrap_or(Value::Nil);
    }
    items.truncate(server.int_in_range(0..=63)?.max(1));
    Ok(Value::Array(items))
}

fn string(text: impl Into<Vec<u8>>) -> Value {
    Value::BulkString(text.into())
}

fn number(server: &mut Unstructured) -> Result<Value> {
    Ok(match server.ratio(1, 16)? {
        true => Value::Int(server.arbitrary()?),
        false => Value::Int(server.int_in_range(0..=40)?),
    })
}
