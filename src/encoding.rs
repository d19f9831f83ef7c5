//! How an event looks on the wire, at each kind of door.
//!
//! Server-to-client WebSocket frames are not masked, so an event's bytes are the same for everybody behind the same kind of
//! door: they are made once, here, and shared by all sockets.

use std::borrow::Cow;
use std::fmt::Write as _;

use bytes::Bytes;
use serde::Deserialize;

use crate::names::{RoomName, breaks_lines, turns_direction};
use crate::position::{Epoch, Offset};
use crate::ws::frame::{self, Opcode};

/// The wire forms that exist; a room encodes those that somebody in it listens to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// WebSocket text frames of `townhall.v1`.
    Json,
    /// WebSocket text frames of `NAME:TEXT`.
    Plain,
    /// Lines of `NAME:TEXT`.
    Line,
}

impl Encoding {
    pub const COUNT: usize = 3;
    pub const ALL: [Encoding; Self::COUNT] = [Encoding::Json, Encoding::Plain, Encoding::Line];

    /// The kind of door where it is spoken, as metrics call it.
    pub fn door(self) -> &'static str {
        match self {
            Encoding::Json => "json",
            Encoding::Plain => "plain",
            Encoding::Line => "tcp",
        }
    }

    /// Whether who comes, goes and types is told there.
    pub fn hears_whispers(self) -> bool {
        self == Encoding::Json
    }
}

/// One step of a room's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// A stored event under its offset.
    Event { offset: Offset, at_ms: u64, event: Event },
    /// These offsets are lost for good (both ends inclusive).
    Gap { from: Offset, to: Offset },
}

impl Record {
    /// Where somebody is who has received this.
    pub fn offset(&self) -> Offset {
        match self {
            Record::Event { offset, .. } => *offset,
            Record::Gap { to, .. } => *to,
        }
    }

    /// Appends the record as `encoding` has it; nothing where that door does not show such a record.
    pub fn encode(&self, encoding: Encoding, room: &RoomName, epoch: &Epoch, out: &mut Vec<u8>) {
        match (self, encoding) {
            (Record::Event { offset, at_ms, event }, Encoding::Json) => {
                event_frame(room, *offset, *at_ms, event, out);
            }
            (Record::Event { event, .. }, _) => {
                if let Some(said) = event.said() {
                    said.encode(encoding, out);
                }
            }
            (Record::Gap { from, to }, Encoding::Json) => {
                let text = format!(
                    r#"{{"type":"gap","room":"{room}","epoch":{},"from":{from},"to":{to}}}"#,
                    json_string(epoch.as_str())
                );
                frame::write_frame(Opcode::Text, text.as_bytes(), out);
            }
            (Record::Gap { from, to }, _) => lost_notice(to - from + 1, encoding, out),
        }
    }
}

/// `! gap N messages lost`, at the doors that do not speak JSON.
pub fn lost_notice(count: u64, encoding: Encoding, out: &mut Vec<u8>) {
    notice(&format!("! gap {count} messages lost"), encoding, out);
}

/// A line for one client alone, at the doors that do not speak JSON.
pub fn notice(text: &str, encoding: Encoding, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Line => {
            out.extend_from_slice(text.as_bytes());
            out.push(b'\n');
        }
        Encoding::Json | Encoding::Plain => frame::write_frame(Opcode::Text, text.as_bytes(), out),
    }
}

/// An event as the broker stores it: the wire JSON without what depends on where it was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// A JSON object with at least `type`, on one line.
    json: Bytes,
}

/// A message as people read it.
struct Said {
    name: String,
    text: String,
}

#[derive(Deserialize)]
struct Stored<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    from: Option<StoredFrom<'a>>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct StoredFrom<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct AnyKind<'a> {
    #[serde(rename = "type", borrow)]
    _kind: Cow<'a, str>,
}

impl Event {
    /// `None` where `json` is not an event: an object with a `type`. One of a type that this version does not know is an
    /// event, too, and passed to JSON clients as it is.
    pub fn parse(json: Bytes) -> Option<Self> {
        if json.first() != Some(&b'{') || json.contains(&b'\n') {
            return None;
        }
        serde_json::from_slice::<AnyKind>(&json).ok()?;
        Some(Event { json })
    }

    /// What is shown to those who do not speak JSON: looked for only where there are some.
    fn said(&self) -> Option<Said> {
        let stored: Stored = serde_json::from_slice(&self.json).ok()?;
        let from = stored.from.filter(|_| stored.kind == "message")?;
        Said::new(&from.name, &stored.text)
    }

    /// Appends the event's wire JSON with its place: what a `message` of `townhall.v1` is.
    pub fn write_json(&self, room: &RoomName, offset: Offset, at_ms: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.place(room, offset, at_ms).as_bytes());
        out.extend_from_slice(&self.json[1..]);
    }

    /// The part of the wire JSON that the broker decides. An event is never an empty object, so a comma is right.
    fn place(&self, room: &RoomName, offset: Offset, at_ms: u64) -> String {
        let mut place = String::with_capacity(64 + room.as_str().len());
        let _ = write!(place, r#"{{"room":"{room}","offset":{offset},"at":{at_ms},"#);
        place
    }
}

fn event_frame(room: &RoomName, offset: Offset, at_ms: u64, event: &Event, out: &mut Vec<u8>) {
    let place = event.place(room, offset, at_ms);
    out.extend_from_slice(&frame::header(Opcode::Text, place.len() + event.json.len() - 1));
    out.extend_from_slice(place.as_bytes());
    out.extend_from_slice(&event.json[1..]);
}

impl Said {
    /// `None` for a message without text: it is for programs.
    ///
    /// Here names and texts share lines, so nothing stays that turns a direction round. A line break ends what was turned
    /// (UAX #9, P1), but not every program that shows lines takes each for a paragraph, and the next line is another's. What
    /// remains is laid out by its letters alone; JSON clients, which keep texts apart, get all of it.
    fn new(name: &str, text: &str) -> Option<Self> {
        let text: String = visible(text).chars().filter(|c| !turns_direction(*c)).collect();
        let name = name.chars().filter(|c| !c.is_control() && !breaks_lines(*c) && !turns_direction(*c)).collect();
        (!text.is_empty()).then_some(Said { name, text })
    }

    /// `NAME:` before each line, so that no line of a text looks as if somebody else had said it.
    fn encode(&self, encoding: Encoding, out: &mut Vec<u8>) {
        let mut lines = String::with_capacity(self.name.len() + self.text.len() + 2);
        for (i, line) in self.text.split('\n').enumerate() {
            if i > 0 {
                lines.push('\n');
            }
            lines.push_str(&self.name);
            lines.push(':');
            lines.push_str(line);
        }
        notice(&lines, encoding, out);
    }
}

/// A text without control characters other than tab and line break. Unicode's line separators become line breaks: they
/// break lines all the same.
pub fn visible(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\t' | b'\n');
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text); // as most texts are
    }
    text.chars()
        .filter(|c| !c.is_control() || matches!(c, '\t' | '\n'))
        .map(|c| if breaks_lines(c) { '\n' } else { c })
        .collect()
}

/// A string as JSON has it, quotes included.
pub fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(json: &str) -> Record {
        Record::Event { offset: 7, at_ms: 9, event: Event::parse(Bytes::copy_from_slice(json.as_bytes())).unwrap() }
    }

    fn encoded(record: &Record, encoding: Encoding) -> String {
        let mut out = Vec::new();
        record.encode(encoding, &RoomName::lobby(), &"e".into(), &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    const MESSAGE: &str = r#"{"type":"message","id":"i","from":{"id":"u","name":"zoe"},"text":"a\nb\u001b[1m"}"#;

    #[test]
    fn a_message_gets_its_place_in_json() {
        let text = encoded(&record(MESSAGE), Encoding::Json);
        let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap()..]).unwrap();
        assert_eq!(json["offset"], 7);
        assert_eq!(json["at"], 9);
        assert_eq!(json["room"], "lobby");
        assert_eq!(json["type"], "message");
    }

    #[test]
    fn plain_texts_are_taken_as_they_are_and_of_others_what_cannot_be_seen_is_left_out() {
        for text in ["", "a ~b!\tc\nd", "早上好"] {
            assert_eq!(visible(text), text);
        }
        assert_eq!(visible("a\u{7f}b\rc\u{1b}[1m\u{85}d\u{2028}e"), "abc[1md\ne");
    }

    #[test]
    fn every_line_of_a_text_carries_its_speaker() {
        assert_eq!(encoded(&record(MESSAGE), Encoding::Line), "zoe:a\nzoe:b[1m\n");
    }

    #[test]
    fn nothing_turns_a_line_round_where_names_and_texts_share_it() {
        let turned = MESSAGE.replace(r"a\nb\u001b[1m", "\u{2067}a\u{202E}b\u{2069}\u{202C}\u{200D}c");
        let turned = record(&turned.replace("zoe", "z\u{202E}oe"));
        assert_eq!(encoded(&turned, Encoding::Line), "zoe:ab\u{200D}c\n");
        assert!(encoded(&turned, Encoding::Json).contains("\u{2067}a\u{202E}b\u{2069}\u{202C}\u{200D}c"));
        let nothing = record(&MESSAGE.replace(r"a\nb\u001b[1m", "\u{202E}\u{2066}"));
        assert_eq!(encoded(&nothing, Encoding::Line), "", "nothing of it is to be read");
    }

    #[test]
    fn an_unknown_type_is_passed_to_json_clients_only() {
        let unknown = record(r#"{"type":"poll","text":7,"from":"x"}"#);
        assert!(encoded(&unknown, Encoding::Json).contains(r#""type":"poll""#));
        assert_eq!(encoded(&unknown, Encoding::Line), "");
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for bad in ["", "{}", "[]", "{\"text\":\"x\"}", "{\"type\":\"x\"", "{\"type\":\n\"x\"}", "{\"type\":7}"] {
            assert!(Event::parse(Bytes::copy_from_slice(bad.as_bytes())).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_gap_is_told_at_every_door() {
        let gap = Record::Gap { from: 3, to: 5 };
        assert!(encoded(&gap, Encoding::Json).contains(r#""from":3,"to":5"#));
        assert_eq!(encoded(&gap, Encoding::Line), "! gap 3 messages lost\n");
    }
}
