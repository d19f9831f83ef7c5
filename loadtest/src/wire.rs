//! `townhall.v1` as this program reads and writes it, from its description alone: a generator that shared the server's code
//! would share its mistakes.
//!
//! One struct holds the fields of every frame that matters here, borrowed from the socket's buffer, since a frame is read a
//! million times and kept never. Whatever else a frame holds is skipped unread.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::place::Place;

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "townhall.v1";

/// What an answer to `join` repeats, so that its error is told from that of a message.
pub const JOIN_REF: &str = "join";

/// Nothing that a server asks for is waited for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// A frame from the server. Absent texts are empty.
#[derive(Debug, Default, Deserialize)]
pub struct Heard<'a> {
    #[serde(borrow, rename = "type")]
    pub kind: Cow<'a, str>,
    #[serde(borrow, default)]
    pub room: Cow<'a, str>,
    #[serde(borrow, default)]
    pub epoch: Cow<'a, str>,
    #[serde(borrow, default)]
    pub id: Cow<'a, str>,
    #[serde(borrow, default)]
    pub text: Cow<'a, str>,
    #[serde(borrow, default)]
    pub code: Cow<'a, str>,
    #[serde(borrow, default, rename = "ref")]
    pub reference: Cow<'a, str>,
    pub offset: Option<u64>,
    /// Unix milliseconds; what has an offset and this is an event of the log.
    pub at: Option<u64>,
    pub backlog: Option<u64>,
    pub recovered: Option<bool>,
    /// A person in a message, an offset in a `gap`.
    #[serde(borrow)]
    pub from: Option<&'a RawValue>,
    pub to: Option<u64>,
    /// Seconds.
    pub beat: Option<f64>,
    #[serde(borrow)]
    pub limits: Option<&'a RawValue>,
    pub retry_after_ms: Option<u64>,
    pub after_ms: Option<u64>,
}

/// The part of `welcome.limits` that a client has to keep.
#[derive(Debug, Default, Deserialize)]
struct Limits {
    #[serde(default)]
    dedupe_s: u64,
}

impl<'a> Heard<'a> {
    /// `None`: not a frame of the protocol.
    pub fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// One with no field but its type.
    pub fn bare(kind: &'a str) -> Self {
        Heard { kind: kind.into(), ..Heard::default() }
    }

    /// The first offset of a `gap`.
    pub fn first_lost(&self) -> Option<u64> {
        serde_json::from_str(self.from?.get()).ok()
    }

    /// How often a silent server says that it is there; `None`: never.
    pub fn beat(&self) -> Option<Duration> {
        let seconds = self.beat?.min(LONGEST_WAIT.as_secs_f64());
        Duration::try_from_secs_f64(seconds).ok().filter(|beat| !beat.is_zero())
    }

    /// For how long the server knows a message's id; `None` where it does not say.
    pub fn dedupe(&self) -> Option<Duration> {
        let limits: Limits = serde_json::from_str(self.limits?.get()).ok()?;
        (limits.dedupe_s > 0).then(|| Duration::from_secs(limits.dedupe_s))
    }

    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after_ms.map(wait)
    }

    pub fn reconnect_after(&self) -> Duration {
        wait(self.after_ms.unwrap_or(0))
    }
}

fn wait(ms: u64) -> Duration {
    Duration::from_millis(ms).min(LONGEST_WAIT)
}

/// A command to the server.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Command<'a> {
    Join {
        room: &'a str,
        #[serde(rename = "ref")]
        reference: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<&'a Place>,
        last: u32,
    },
    Say {
        room: &'a str,
        id: Uuid,
        text: &'a str,
    },
}

impl Command<'_> {
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers always have a JSON form")
    }
}

/// What a message of ours says about itself, so that whoever hears it knows how long it was under way: it begins the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Which run of the generator spoke; other runs may share the room.
    pub run: u32,
    pub publisher: u32,
    /// Of the publisher's messages, from 0.
    pub number: u64,
    /// When it should have been sent, since the run began.
    pub scheduled: Duration,
}

impl Stamp {
    /// The longest stamp with numbers below a hundred million, and so the smallest text.
    pub const MAX_BYTES: usize = 40;

    /// Greater numbers are none of ours, and sums over many could not hold them.
    const MOST: u64 = 1 << 48;

    /// A text of `size` bytes that begins with the stamp.
    pub fn write(&self, size: usize) -> String {
        let Stamp { run, publisher, number, scheduled } = self;
        let head = format!("{run:x} {publisher:x} {number:x} {:x} ", scheduled.as_micros());
        format!("{head:.<size$}")
    }

    /// The id of the message, which follows from what it is: a text under another one's id is found out. Version 8 of RFC 9562
    /// leaves all bits to us but those of bytes 6 and 8.
    pub fn id(&self) -> Uuid {
        let [_, _, number @ ..] = self.number.to_be_bytes();
        let [a, b, c, d] = self.publisher.to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..4].copy_from_slice(&self.run.to_be_bytes());
        [bytes[4], bytes[5], bytes[7], bytes[9]] = [a, b, c, d];
        bytes[10..].copy_from_slice(&number);
        uuid::Builder::from_custom_bytes(bytes).into_uuid()
    }

    /// Whether that may be its id: no other message's of any run. What is said at a door without ids has one of the server's.
    pub fn is_under(&self, id: &str) -> bool {
        Uuid::try_parse(id).is_ok_and(|id| id == self.id() || id.get_version_num() != 8)
    }

    /// How many of them are the stamp.
    pub fn bytes(&self) -> usize {
        let digits = |number: u64| (number.checked_ilog(16).unwrap_or(0) + 1) as usize;
        let us = u64::try_from(self.scheduled.as_micros()).unwrap_or(u64::MAX);
        digits(self.run.into()) + digits(self.publisher.into()) + digits(self.number) + digits(us) + 4
    }

    pub fn read(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ' ');
        Some(Stamp {
            run: u32::from_str_radix(parts.next()?, 16).ok()?,
            publisher: u32::from_str_radix(parts.next()?, 16).ok()?,
            number: u64::from_str_radix(parts.next()?, 16).ok().filter(|number| *number < Self::MOST)?,
            scheduled: Duration::from_micros(u64::from_str_radix(parts.next()?, 16).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_without_copying() {
        let text = r#"{"type":"message","room":"a","offset":7,"id":"x","from":{"id":"u","name":"n"},"at":1,"text":"hi","data":{"text":[]}}"#;
        let heard = Heard::read(text).unwrap();
        assert!(matches!(heard.kind, Cow::Borrowed("message")));
        assert!(matches!(heard.text, Cow::Borrowed("hi")));
        assert_eq!((heard.offset, heard.at), (Some(7), Some(1)));
        assert_eq!(heard.first_lost(), None);
    }

    #[test]
    fn a_gap_says_from_where_and_a_welcome_what_it_keeps() {
        let gap = Heard::read(r#"{"type":"gap","room":"a","epoch":"e","from":3,"to":5}"#).unwrap();
        assert_eq!((gap.first_lost(), gap.to), (Some(3), Some(5)));
        let welcome =
            Heard::read(r#"{"type":"welcome","beat":25,"limits":{"text_bytes":4096,"dedupe_s":600}}"#).unwrap();
        assert_eq!(welcome.beat(), Some(Duration::from_secs(25)));
        assert_eq!(welcome.dedupe(), Some(Duration::from_secs(600)));
    }

    #[test]
    fn times_that_no_clock_holds_are_no_panic() {
        let beat = |beat| {
            let text = format!(r#"{{"type":"welcome","beat":{beat}}}"#);
            Heard::read(&text).unwrap().beat()
        };
        assert_eq!(beat("-1"), None);
        assert_eq!(beat("0"), None);
        assert_eq!(beat("1e300"), Some(LONGEST_WAIT));
        let text = format!(r#"{{"type":"reconnect","after_ms":{}}}"#, u64::MAX);
        assert_eq!(Heard::read(&text).unwrap().reconnect_after(), LONGEST_WAIT);
    }

    #[test]
    fn a_join_without_a_position_has_no_after() {
        let join = |after| Command::Join { room: "a", reference: JOIN_REF, after, last: 0 }.to_json();
        assert_eq!(join(None), r#"{"type":"join","room":"a","ref":"join","last":0}"#);
        let place = Place { epoch: "e".into(), offset: 3 };
        assert!(join(Some(&place)).contains(r#""after":{"epoch":"e","offset":3}"#));
    }

    #[test]
    fn no_two_messages_have_one_id() {
        let stamp = |run, publisher, number| Stamp { run, publisher, number, scheduled: Duration::ZERO };
        let last = stamp(u32::MAX, u32::MAX, Stamp::MOST - 1);
        let mut ids = vec![stamp(0, 0, 0).id(), last.id()];
        ids.extend((0..32).flat_map(|bit| [stamp(1 << bit, 0, 0).id(), stamp(0, 1 << bit, 0).id()]));
        ids.extend((0..48).map(|bit| stamp(0, 0, 1 << bit).id()));
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert!(ids.iter().all(|id| id.get_version_num() == 8));
        assert_eq!(Stamp { scheduled: Duration::from_secs(5), ..last }.id(), last.id(), "said again, it is the same");
    }

    #[test]
    fn stamps_survive_the_way_and_fill_the_text() {
        let stamp = Stamp {
            run: u32::MAX,
            publisher: u32::MAX,
            number: 0x0fff_ffff,
            scheduled: Duration::from_secs(365 * 86_400),
        };
        assert_eq!(stamp.write(Stamp::MAX_BYTES).len(), Stamp::MAX_BYTES);
        assert_eq!(stamp.write(120).len(), 120);
        assert_eq!(Stamp::read(&stamp.write(120)), Some(stamp));
        for stamp in [stamp, Stamp { run: 0, publisher: 16, number: 255, scheduled: Duration::ZERO }] {
            assert_eq!(stamp.write(0).len(), stamp.bytes());
        }
        assert_eq!(Stamp::read("1 0 1000000000000 0 ...."), None);
        assert_eq!(Stamp::read("hello there you all"), None);
        assert_eq!(Stamp::read(""), None);
    }
}
