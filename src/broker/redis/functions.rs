//! Our function library in Redis (`townhall.lua`): how it is loaded and called, and what its answers must look like.
//!
//! Whatever comes from Redis is checked here before it becomes a type of ours: others can write there, too.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, RedisError, ServerErrorKind, Value};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::broker::{BrokerError, DEADLINE, Delivery, Entry, Head, History, MAX_EVENT_BYTES, Publication, Range};
use crate::config::HistorySettings;
use crate::names::RoomName;
use crate::position::{Epoch, Fork, Lineage, Offset, Position};

const SOURCE: &str = include_str!("../townhall.lua");
const NAME: &str = "townhall_1";
const FORMAT: &str = "1";

/// Within this time the same message is never stored twice, whatever is configured: our own retries rely on it.
const LEAST_DEDUPE: Duration = DEADLINE.saturating_mul(5);

/// What a message is remembered by. Always 16 bytes, however long the user's id is.
pub(super) type MessageKey = [u8; 16];

pub(super) fn message_key(publication: &Publication) -> MessageKey {
    let digest =
        Sha256::new().chain_update(publication.id.as_bytes()).chain_update(publication.user.as_str()).finalize();
    let mut key = MessageKey::default();
    key.copy_from_slice(&digest[..16]);
    key
}

/// Names of keys and channels, and the settings that every call carries.
pub(super) struct Library {
    prefix: String,
    database: i64,
    keep: usize,
    ttl_ms: u64,
    dedupe_ms: u64,
}

impl Library {
    pub fn new(prefix: &str, database: i64, history: &HistorySettings) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(MAX_MS);
        Library {
            prefix: prefix.to_owned(),
            database,
            keep: history.messages.max(1),
            ttl_ms: ms(history.room_ttl),
            dedupe_ms: ms(history.dedupe.max(LEAST_DEDUPE)),
        }
    }

    /// The database is in the name, since pub/sub knows no databases.
    pub fn channel(&self, room: &RoomName) -> String {
        format!("{}:{}:{{{room}}}", self.prefix, self.database)
    }

    /// The room that a channel belongs to.
    pub fn room_of(&self, channel: &[u8]) -> Option<RoomName> {
        let name = std::str::from_utf8(channel).ok()?;
        let name = name.strip_prefix(self.prefix.as_str())?.strip_prefix(':')?;
        let (database, name) = name.split_once(':')?;
        let name = name.strip_prefix('{')?.strip_suffix('}')?;
        (database.parse() == Ok(self.database)).then(|| RoomName::parse(name))?
    }

    /// A channel of this node alone. No room's name contains a colon.
    pub fn probe_channel(&self) -> String {
        let node = rand::random::<u128>();
        format!("{}:{}:probe:{node:032x}", self.prefix, self.database)
    }

    /// Stores messages of one room in one step, in this order. All keys come first, so that the function can hand them on as
    /// they are.
    pub fn publish<'a>(
        &self,
        room: &RoomName,
        messages: impl Iterator<Item = (&'a MessageKey, &'a Bytes)> + Clone,
    ) -> Cmd {
        let mut call = self.call("publish", room);
        call.arg(self.channel(room)).arg(Epoch::random().as_str()).arg(self.keep).arg(self.ttl_ms).arg(self.dedupe_ms);
        for (key, _) in messages.clone() {
            call.arg(key);
        }
        for (_, event) in messages {
            call.arg(event.as_ref());
        }
        call
    }

    pub fn head(&self, room: &RoomName) -> Cmd {
        self.read("head", room)
    }

    pub fn history(&self, room: &RoomName, range: Range) -> Cmd {
        let mut call = self.read("history", room);
        match range {
            Range::Before { before, limit } => call.arg("XREVRANGE").arg(before.saturating_sub(1)).arg("-").arg(limit),
            Range::From { first, limit } => call.arg("XRANGE").arg(first).arg("+").arg(limit),
        };
        call
    }

    fn read(&self, function: &str, room: &RoomName) -> Cmd {
        let mut call = self.call(function, room);
        call.arg(Epoch::random().as_str()).arg(self.ttl_ms);
        call
    }

    fn call(&self, function: &str, room: &RoomName) -> Cmd {
        let mut call = ::redis::cmd("FCALL");
        call.arg(format!("{NAME}_{function}")).arg(4);
        for key in ["log", "meta", "seen", "seen:old"] {
            call.arg(format!("{}:{{{room}}}:{key}", self.prefix));
        }
        call
    }
}

/// Ten thousand years: what Lua's numbers and Redis' expiry can both add to the present.
const MAX_MS: u64 = 315_360_000_000_000;

/// Sees to it that the library is there, in this very text.
pub(super) async fn load(connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
    let listed: Value = ::redis::cmd("FUNCTION")
        .arg("LIST")
        .arg("LIBRARYNAME")
        .arg(NAME)
        .arg("WITHCODE")
        .query_async(connection)
        .await?;
    if mentions(&listed, SOURCE.as_bytes()) {
        return Ok(());
    }
    ::redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(SOURCE).exec_async(connection).await
}

fn mentions(value: &Value, text: &[u8]) -> bool {
    match value {
        Value::BulkString(bytes) => bytes == text,
        Value::Array(values) => values.iter().any(|value| mentions(value, text)),
        Value::Map(pairs) => pairs.iter().any(|(_, value)| mentions(value, text)),
        _ => false,
    }
}

/// Why one call failed while the connection works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CallError {
    /// The library is gone: load it and call again.
    NotLoaded,
    /// Redis says that it will be able to, but is not now.
    NotNow(String),
    /// The answer is final.
    Final(BrokerError),
}

impl CallError {
    fn of(error: &::redis::ServerError) -> Self {
        let words = match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        };
        let not_now = matches!(
            error.kind(),
            Some(
                ServerErrorKind::BusyLoading
                    | ServerErrorKind::ReadOnly
                    | ServerErrorKind::MasterDown
                    | ServerErrorKind::ClusterDown
                    | ServerErrorKind::TryAgain
            )
        );
        if not_now || error.code() == "BUSY" {
            CallError::NotNow(words)
        } else if words.contains("Function not found") {
            CallError::NotLoaded
        } else if matches!(error.code(), "FORMAT" | "WRONGTYPE") {
            CallError::Final(BrokerError::Format(words))
        } else {
            CallError::Final(BrokerError::Unavailable(format!("Redis says: {words}")))
        }
    }
}

fn unreadable(what: &str) -> CallError {
    CallError::Final(BrokerError::Format(what.to_owned()))
}

/// Checks the answer to [`Library::publish`] of `count` messages: an offset for each, or only the first one where they follow
/// each other.
pub fn positions(answer: Value, count: usize) -> Result<Vec<Position>, CallError> {
    let mut values = items(answer)?.into_iter();
    let epoch = epoch(values.next())?;
    let mut offsets: Vec<Offset> = values.map(|value| number(Some(value))).collect::<Result<_, CallError>>()?;
    if let [first] = offsets[..] {
        let last = first.checked_add(count as Offset).ok_or_else(|| unreadable("an offset beyond all numbers"))?;
        offsets = (first..last).collect();
    }
    if offsets.len() != count {
        return Err(unreadable("not an offset for every message"));
    }
    Ok(offsets.into_iter().map(|offset| Position { epoch: epoch.clone(), offset }).collect())
}

/// Checks the answer to [`Library::head`].
pub fn head(answer: Value) -> Result<Head, CallError> {
    head_of(&mut items(answer)?.into_iter())
}

/// Checks the answer to [`Library::history`]. Entries that nobody of ours wrote are left out: whoever reads takes them for
/// lost.
pub fn history(answer: Value, room: &RoomName, range: Range) -> Result<History, CallError> {
    let mut values = items(answer)?.into_iter();
    let head = head_of(&mut values)?;
    let found = values.next().map(items).transpose()?.unwrap_or_default();
    let in_log = found.len();
    let mut entries: Vec<Entry> = found.into_iter().filter_map(entry).collect();
    if entries.len() < in_log {
        let bad = in_log - entries.len();
        tracing::warn!(%room, bad, "the room's log in Redis has entries that townhall did not write; they are left out");
    }
    if matches!(range, Range::Before { .. }) {
        entries.reverse();
    }
    Ok(History { head, entries })
}

fn head_of(values: &mut impl Iterator<Item = Value>) -> Result<Head, CallError> {
    let epoch = epoch(values.next())?;
    let offset = number(values.next())?;
    let oldest = number(values.next())?;
    let forks = text(values.next()).ok_or_else(|| unreadable("no forks"))?;
    let forks = forks
        .split(',')
        .filter(|fork| !fork.is_empty())
        .map(fork)
        .collect::<Option<Vec<Fork>>>()
        .filter(|forks| forks.len() <= Lineage::MAX_FORKS)
        .ok_or_else(|| unreadable("the forks are not ours"))?;
    Ok(Head { lineage: Lineage { epoch, forks }, offset, oldest })
}

fn fork(text: &str) -> Option<Fork> {
    let (epoch, until) = text.rsplit_once(':')?;
    Some(Fork { epoch: parse_epoch(epoch)?, until: until.parse().ok()? })
}

fn entry(value: Value) -> Option<Entry> {
    let [id, fields] = <[Value; 2]>::try_from(items(value).ok()?).ok()?;
    let offset = text(Some(id))?.strip_suffix("-0")?.parse().ok()?;
    let fields = <[Value; 4]>::try_from(items(fields).ok()?).ok()?;
    let [at_name, at, event_name, event] = fields.map(bytes);
    if at_name? != "at" || event_name? != "e" {
        return None;
    }
    Some(Entry { offset, at_ms: std::str::from_utf8(&at?).ok()?.parse().ok()?, event: checked_event(event?)? })
}

/// What was wrong with a line of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLine {
    /// Another format: a node of a newer version writes to the room.
    Format,
    /// Nobody of ours wrote it.
    Garbage,
}

/// Checks what was published on a room's channel: a line per message.
pub fn deliveries(room: &RoomName, payload: &Bytes) -> impl Iterator<Item = Result<Delivery, BadLine>> {
    payload.split(|byte| *byte == b'\n').map(|line| delivery(room, payload.slice_ref(line)))
}

/// Checks one line `1 EPOCH OFFSET AT EVENT` of a delivery.
fn delivery(room: &RoomName, line: Bytes) -> Result<Delivery, BadLine> {
    let mut parts = line.splitn(5, |byte| *byte == b' ');
    let mut next = || {
        let part = parts.next().ok_or(BadLine::Garbage)?;
        std::str::from_utf8(part).map_err(|_| BadLine::Garbage)
    };
    let format = next()?;
    if format != FORMAT {
        let newer = !format.is_empty() && format.bytes().all(|byte| byte.is_ascii_digit());
        return Err(if newer { BadLine::Format } else { BadLine::Garbage });
    }
    let epoch = parse_epoch(next()?).filter(|epoch| !epoch.is_silent());
    let offset: Offset = next()?.parse().map_err(|_| BadLine::Garbage)?;
    let at_ms = next()?.parse().map_err(|_| BadLine::Garbage)?;
    let event = parts.next().map(|event| line.slice_ref(event));
    Ok(Delivery {
        room: room.clone(),
        position: Position { epoch: epoch.ok_or(BadLine::Garbage)?, offset },
        at_ms,
        event: event.and_then(checked_event).ok_or(BadLine::Garbage)?,
    })
}

/// One JSON object of bounded size on one line; anything else could break the frames that it is put into.
fn checked_event(event: Bytes) -> Option<Bytes> {
    let plausible = event.len() <= MAX_EVENT_BYTES
        && event.first() == Some(&b'{')
        && !event.iter().any(|byte| matches!(byte, b'\n' | b'\r'));
    if !plausible {
        return None;
    }
    // The parser skips over strings without looking at their encoding.
    let text = std::str::from_utf8(&event).ok()?;
    serde_json::from_str::<serde::de::IgnoredAny>(text).ok()?;
    Some(event)
}

fn parse_epoch(text: &str) -> Option<Epoch> {
    let ours = text.len() <= Epoch::MAX_BYTES && text.bytes().all(|byte| byte.is_ascii_graphic());
    ours.then(|| Epoch::from(text))
}

fn epoch(value: Option<Value>) -> Result<Epoch, CallError> {
    text(value).and_then(|text| parse_epoch(&text)).ok_or_else(|| unreadable("the epoch is not ours"))
}

fn number(value: Option<Value>) -> Result<Offset, CallError> {
    match value {
        Some(Value::Int(number)) => number.try_into().ok(),
        _ => None,
    }
    .ok_or_else(|| unreadable("an offset is not a number"))
}

fn items(value: Value) -> Result<Vec<Value>, CallError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::ServerError(error) => Err(CallError::of(&error)),
        _ => Err(unreadable("not a list")),
    }
}

fn text(value: Option<Value>) -> Option<String> {
    String::from_utf8(bytes(value?)?.into()).ok()
}

fn bytes(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        _ => None,
    }
}

/// Whether an error says something about Redis for good, so that waiting does not help.
pub(super) fn is_final(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    match error.kind() {
        ErrorKind::AuthenticationFailed
        | ErrorKind::InvalidClientConfig
        | ErrorKind::Parse
        | ErrorKind::RESP3NotSupported
        | ErrorKind::Server(ServerErrorKind::NoPerm) => true,
        ErrorKind::Server(ServerErrorKind::ResponseError) => {
            detail.contains("DB index") || detail.contains("unknown command")
        }
        _ => matches!(error.code(), Some("WRONGPASS" | "NOAUTH" | "DENIED" | "NOPERM")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> RoomName {
        RoomName::parse("lobby").unwrap()
    }

    fn line(text: &str) -> Result<Delivery, BadLine> {
        delivery(&room(), Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn a_line_of_ours_is_taken_apart() {
        let delivery = line("1 abc 7 1700000000000 {\"text\":\"a b  c\"}").unwrap();
        assert_eq!(delivery.position.offset, 7);
        assert_eq!(delivery.position.epoch.as_str(), "abc");
        assert_eq!(delivery.at_ms, 1_700_000_000_000);
        assert_eq!(&delivery.event[..], b"{\"text\":\"a b  c\"}");
    }

    #[test]
    fn a_line_of_another_format_is_not_parsed() {
        assert_eq!(line("2 whatever comes"), Err(BadLine::Format));
        assert_eq!(line("10"), Err(BadLine::Format));
    }

    #[test]
    fn a_line_of_somebody_else_is_refused() {
        let long = format!("1 abc 7 1 {{\"t\":\"{}\"}}", "x".repeat(MAX_EVENT_BYTES));
        for bad in [
            "",
            "hello",
            "1",
            "1 abc 7 1",
            "1 abc 7 {\"type\":\"message\"}",
            "1 abc -7 1 {}",
            "1 abc 18446744073709551616 1 {}",
            "1  7 1 {}",
            "1 \u{e9} 7 1 {}",
            "1 abc 7 1 []",
            "1 abc 7 1 {\"a\":}",
            "1 abc 7 1 {}{}",
            "1 abc 7 1 {}\r",
            &format!("1 {} 7 1 {{}}", "e".repeat(65)),
            &long,
        ] {
            assert_eq!(line(bad), Err(BadLine::Garbage), "{bad}");
        }
        let not_utf8 = Bytes::from_static(b"1 abc 7 1 {\"t\":\"\xff\"}");
        assert_eq!(delivery(&room(), not_utf8), Err(BadLine::Garbage));
    }

    #[test]
    fn channels_carry_the_database_and_nothing_of_others_is_taken_for_a_room() {
        let history = HistorySettings { messages: 1, room_ttl: Duration::ZERO, dedupe: Duration::ZERO, budget: 0 };
        let library = Library::new("townhall", 3, &history);
        assert_eq!(library.channel(&room()), "townhall:3:{lobby}");
        assert_eq!(library.room_of(b"townhall:3:{lobby}"), Some(room()));
        for other in [
            &b"townhall:0:{lobby}"[..],
            b"townhall:3:lobby",
            b"townhall:3:{LOBBY}",
            b"other:3:{lobby}",
            b"townhall:3:{lobby\xff}",
        ] {
            assert_eq!(library.room_of(other), None);
        }
        let probe = library.probe_channel();
        assert_eq!(library.room_of(probe.as_bytes()), None);
    }
}
