//! Our function library in Redis (`townhall.lua`): how it is loaded and called, and what its answers must look like.
//!
//! Whatever comes from Redis is checked here before it becomes a type of ours: others can write there, too.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, RedisError, Value};
use bytes::Bytes;
use sha2::{Digest, Sha256};

use crate::broker::{
    BrokerError, DEADLINE, Delivery, Entry, Head, Heard, History, MAX_ANNOUNCED_BYTES, MAX_EVENT_BYTES, MAX_LISTED,
    Member, Members, MembersCall, Publication, Range, Registration, RollVersion, Whisper,
};
use crate::config::HistorySettings;
use crate::names::{DisplayName, RoomName, UserId};
use crate::position::{Epoch, Fork, Lineage, Offset, Position};

const SOURCE: &str = include_str!("../townhall.lua");
const NAME: &str = "townhall_1";
/// How the library publishes; in a cluster, to those alone who listen to that slot.
const PUBLISH: &str = "local PUBLISH = 'PUBLISH'";
const SPUBLISH: &str = "local PUBLISH = 'SPUBLISH'";
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
    source: String,
    /// Channels are those of a cluster's slots.
    sharded: bool,
    prefix: String,
    database: i64,
    keep: usize,
    ttl_ms: u64,
    dedupe_ms: u64,
}

impl Library {
    /// `sharded`: for a cluster, whose servers hand on only what was published in their own slots.
    pub fn new(prefix: &str, database: i64, sharded: bool, history: &HistorySettings) -> Self {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(MAX_MS);
        Library {
            source: if sharded { SOURCE.replace(PUBLISH, SPUBLISH) } else { SOURCE.to_owned() },
            sharded,
            prefix: prefix.to_owned(),
            database,
            keep: history.messages.max(1),
            ttl_ms: ms(history.room_ttl),
            dedupe_ms: ms(history.dedupe.max(LEAST_DEDUPE)),
        }
    }

    /// What keys and channels begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Its text, as the servers have it.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Listens to one room's channel, or no longer.
    pub fn listen(&self, channel: &str, on: bool) -> Cmd {
        let mut command = ::redis::cmd(match (self.sharded, on) {
            (false, true) => "SUBSCRIBE",
            (false, false) => "UNSUBSCRIBE",
            (true, true) => "SSUBSCRIBE",
            (true, false) => "SUNSUBSCRIBE",
        });
        command.arg(channel);
        command
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

    /// A channel of this node alone, in the slot of `tag`. No room's name contains a colon.
    pub fn probe_channel(&self, tag: &str) -> String {
        format!("{}:{}:probe:{{{tag}}}", self.prefix, self.database)
    }

    /// Publishes a word of our own on [`Library::probe_channel`], in the way messages are stored: what refuses those refuses
    /// this.
    pub fn probe(&self, tag: &str, word: &str) -> Cmd {
        let mut call = ::redis::cmd("FCALL");
        call.arg(format!("{NAME}_probe")).arg(1).arg(format!("{}:{{{tag}}}:probe", self.prefix));
        call.arg(self.probe_channel(tag)).arg(word);
        call
    }

    /// Asks what this user may not do; see [`lacks`].
    pub fn check(&self, tag: &str, waits: bool) -> Cmd {
        let mut call = ::redis::cmd("FCALL");
        call.arg(format!("{NAME}_check")).arg(1).arg(format!("{}:{{{tag}}}:log", self.prefix));
        call.arg(format!("{}:{}:{{{tag}}}", self.prefix, self.database));
        if waits {
            call.arg("WAIT");
        }
        call
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

    pub fn head(&self, room: &RoomName, access: Access) -> Cmd {
        self.read("head", room, access)
    }

    pub fn history(&self, room: &RoomName, range: Range, access: Access) -> Cmd {
        let mut call = self.read("history", room, access);
        match range {
            Range::Before { before, limit } => call.arg("XREVRANGE").arg(before.saturating_sub(1)).arg("-").arg(limit),
            Range::From { first, limit } => call.arg("XRANGE").arg(first).arg("+").arg(limit),
        };
        call
    }

    /// Says and asks who is in a room.
    pub fn members(&self, said: &MembersCall) -> Cmd {
        let mut call = Self::call_with("members", &self.roll_keys(&said.room, &said.node.to_string()));
        let number = |number: Option<u64>| number.map(|number| number.to_string()).unwrap_or_default();
        call.arg(self.channel(&said.room))
            .arg(said.node.to_string())
            .arg(u64::try_from(said.lease.as_millis()).unwrap_or(MAX_MS))
            .arg(number(said.base))
            .arg(said.step)
            .arg(number(said.purge))
            .arg(RollVersion::random().to_string())
            .arg(said.seen.to_string())
            .arg(u8::from(said.list));
        for (user, name) in &said.changes {
            call.arg(user.as_str()).arg(name.as_ref().map_or("", DisplayName::as_str));
        }
        call
    }

    /// Tells the room's listeners something that is not stored.
    pub fn announce(&self, room: &RoomName, event: &Bytes) -> Cmd {
        let mut call = Self::call_with("announce", &self.roll_keys(room, ""));
        call.arg(self.channel(room)).arg(event.as_ref());
        call
    }

    fn roll_keys(&self, room: &RoomName, node: &str) -> [String; 3] {
        let key = |part: &str| format!("{}:{{{room}}}:members{part}", self.prefix);
        [key(""), key(":nodes"), key(&format!(":{node}"))]
    }

    fn read(&self, function: &str, room: &RoomName, access: Access) -> Cmd {
        let mut call = match access {
            Access::Full => self.call(function, room),
            Access::ReadOnly => self.call(&format!("{function}_ro"), room),
        };
        call.arg(Epoch::random().as_str()).arg(self.ttl_ms);
        call
    }

    fn call(&self, function: &str, room: &RoomName) -> Cmd {
        let keys = ["log", "meta", "seen", "seen:old"].map(|key| format!("{}:{{{room}}}:{key}", self.prefix));
        Self::call_with(function, &keys)
    }

    fn call_with(function: &str, keys: &[String]) -> Cmd {
        let mut call = ::redis::cmd("FCALL");
        call.arg(format!("{NAME}_{function}")).arg(keys.len()).arg(keys);
        call
    }
}

/// How a room is read. A reader writes nothing but a fork; where Redis takes no writes at all, a room that needs none can
/// still be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Full,
    ReadOnly,
}

/// Ten thousand years: what Lua's numbers and Redis' expiry can both add to the present.
const MAX_MS: u64 = 315_360_000_000_000;

/// Sees to it that the library is there, in this very text.
pub(super) async fn load(connection: &mut MultiplexedConnection, source: &str) -> Result<(), RedisError> {
    let listed: Value = ::redis::cmd("FUNCTION")
        .arg("LIST")
        .arg("LIBRARYNAME")
        .arg(NAME)
        .arg("WITHCODE")
        .query_async(connection)
        .await?;
    if mentions(&listed, source.as_bytes()) {
        return Ok(());
    }
    ::redis::cmd("FUNCTION").arg("LOAD").arg("REPLACE").arg(source).exec_async(connection).await
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
    /// Redis will be able to, but is not now.
    NotNow,
    /// Another server of the cluster has that room.
    Elsewhere,
    /// Redis takes no writes at the moment, for a reason that does not end by itself; reading may still be possible.
    NoWrites(BrokerError),
    /// The answer is final.
    Final(BrokerError),
}

impl CallError {
    fn of(error: &::redis::ServerError) -> Self {
        let words = match error.details() {
            Some(details) => format!("{} {details}", error.code()),
            None => error.code().to_owned(),
        };
        let says = || BrokerError::Unavailable(format!("Redis says: {words}"));
        match error.code() {
            "LOADING" | "READONLY" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "ASK" => CallError::NotNow,
            "MOVED" => CallError::Elsewhere,
            "MISCONF" | "NOREPLICAS" => CallError::NoWrites(says()),
            "FORMAT" | "WRONGTYPE" => CallError::Final(BrokerError::Format(words)),
            _ if words.contains("Function not found") => CallError::NotLoaded,
            // The room needs a fork, and there is no writing now.
            _ if words.contains("read-only script") => CallError::NotNow,
            _ => CallError::Final(says()),
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

/// Checks the answer to [`Library::members`].
pub fn members(answer: Value) -> Result<Members, CallError> {
    let mut values = items(answer)?.into_iter();
    let registration = match text(values.next()).as_deref() {
        Some("kept") => Registration::Kept,
        Some("unfinished") => Registration::Unfinished,
        Some("lost") => Registration::Lost,
        _ => return Err(unreadable("it is not said whether a node's members are known")),
    };
    let version = text(values.next()).as_deref().and_then(roll_version);
    let version = version.ok_or_else(|| unreadable("the members' version is not ours"))?;
    let count = usize::try_from(number(values.next())?).map_err(|_| unreadable("too many members"))?;
    let list = values.next().map(listed).transpose()?;
    // What others wrote into the list is left out, so a short one may be less than it says.
    Ok(Members {
        registration,
        version,
        count: if count > MAX_LISTED { count } else { list.as_ref().map_or(count, Vec::len) },
        list,
    })
}

fn listed(value: Value) -> Result<Vec<Member>, CallError> {
    let values: Vec<Option<String>> = items(value)?.into_iter().map(|value| text(Some(value))).collect();
    if values.len() > 2 * MAX_LISTED {
        return Err(unreadable("too long a list of members"));
    }
    let pairs = values.chunks_exact(2).filter_map(|pair| match pair {
        [Some(id), Some(name)] => Some(Member { id: UserId::stored(id)?, name: DisplayName::stored(name)? }),
        _ => None,
    });
    Ok(pairs.collect())
}

/// As [`RollVersion`] writes itself.
fn roll_version(text: &str) -> Option<RollVersion> {
    let ours = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    ours.then(|| u128::from_str_radix(text, 16).ok().map(RollVersion))?
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

/// Checks what was published on a room's channel: a line per message, or one that is not stored.
pub fn deliveries(room: &RoomName, payload: &Bytes) -> impl Iterator<Item = Result<Heard, BadLine>> {
    payload.split(|byte| *byte == b'\n').map(|line| heard(room, payload.slice_ref(line)))
}

/// Checks one line: `1 EPOCH OFFSET AT EVENT`, `1 @ VERSION` or `1 ~ EVENT`.
fn heard(room: &RoomName, line: Bytes) -> Result<Heard, BadLine> {
    let end = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let format = &line[..end];
    if format != FORMAT.as_bytes() {
        let newer = !format.is_empty() && format.iter().all(u8::is_ascii_digit);
        return Err(if newer { BadLine::Format } else { BadLine::Garbage });
    }
    let said = line.slice((end + 1).min(line.len())..);
    match &said[..] {
        [b'@', b' ', version @ ..] => {
            let version = std::str::from_utf8(version).ok().and_then(roll_version).ok_or(BadLine::Garbage)?;
            Ok(Heard::Whisper(Whisper::Members { room: room.clone(), version }))
        }
        [b'~', b' ', ..] => {
            let event = said.slice(2..);
            let event =
                checked_event(event).filter(|event| event.len() <= MAX_ANNOUNCED_BYTES).ok_or(BadLine::Garbage)?;
            Ok(Heard::Whisper(Whisper::Announced { room: room.clone(), event }))
        }
        _ => delivery(room, &said).map(Heard::Delivery),
    }
}

/// Checks the rest `EPOCH OFFSET AT EVENT` of a delivery's line.
fn delivery(room: &RoomName, said: &Bytes) -> Result<Delivery, BadLine> {
    let mut parts = said.splitn(4, |byte| *byte == b' ');
    let mut next = || {
        let part = parts.next().ok_or(BadLine::Garbage)?;
        std::str::from_utf8(part).map_err(|_| BadLine::Garbage)
    };
    let epoch = parse_epoch(next()?).filter(|epoch| !epoch.is_silent());
    let offset: Offset = next()?.parse().map_err(|_| BadLine::Garbage)?;
    let at_ms = next()?.parse().map_err(|_| BadLine::Garbage)?;
    let event = parts.next().map(|event| said.slice_ref(event));
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

/// What the user may not do, by the answer to [`Library::check`]: commands with the key or channel they are for.
pub(super) fn lacks(answer: Value) -> Vec<String> {
    let values = items(answer).unwrap_or_default();
    values.into_iter().filter_map(|value| text(Some(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room() -> RoomName {
        RoomName::parse("lobby").unwrap()
    }

    fn line(text: &str) -> Result<Heard, BadLine> {
        heard(&room(), Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn every_command_that_the_library_calls_is_among_the_rights_that_are_asked_for_and_told() {
        let (_, check) = SOURCE.split_once("local needed = {").unwrap();
        let (check, _) = check.split_once("\n  }\n").unwrap();
        let page = include_str!("../../../docs/redis.md");
        // Those that stand in the source by name, and the two of which `history` is given one.
        let calls = SOURCE.split("call('").skip(1).chain(["XRANGE'", "XREVRANGE'"]);
        for command in calls.filter_map(|rest| rest.split_once('\'')).map(|(command, _)| command) {
            assert!(check.contains(&format!("{{ '{command}'")), "check() does not ask for {command}");
            assert!(page.contains(&format!("+{}", command.to_lowercase())), "docs/redis.md does not name {command}");
        }
    }

    #[test]
    fn a_cluster_is_published_to_by_slot() {
        let history = HistorySettings::default();
        let text = |sharded| Library::new("townhall", 0, sharded, &history).source().to_owned();
        assert!(text(false).contains(PUBLISH) && !text(false).contains(SPUBLISH));
        assert!(text(true).contains(SPUBLISH) && !text(true).contains(PUBLISH));
    }

    #[test]
    fn a_line_of_ours_is_taken_apart() {
        let Ok(Heard::Delivery(delivery)) = line("1 abc 7 1700000000000 {\"text\":\"a b  c\"}") else {
            panic!("not a delivery");
        };
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
        assert_eq!(heard(&room(), not_utf8), Err(BadLine::Garbage));
    }

    #[test]
    fn what_is_not_stored_is_heard_and_nothing_that_only_looks_like_it() {
        let whisper = |text: &str| line(text).map(|heard| matches!(heard, Heard::Whisper(_)));
        let version = RollVersion(0xab);
        let changed = Heard::Whisper(Whisper::Members { room: room(), version });
        assert_eq!(line(&format!("1 @ {version}")), Ok(changed));
        let event = Bytes::from_static(b"{\"type\":\"typing\"}");
        let announced = Heard::Whisper(Whisper::Announced { room: room(), event });
        assert_eq!(line("1 ~ {\"type\":\"typing\"}"), Ok(announced));
        // An epoch of one letter is still an epoch.
        assert_eq!(whisper("1 ~a 7 1 {}"), Ok(false));
        let long = format!("1 ~ {{\"t\":\"{}\"}}", "x".repeat(MAX_ANNOUNCED_BYTES));
        for bad in [
            "1 @",
            "1 @ ",
            "1 @ ab",
            &format!("1 @ {version} "),
            &format!("1 @ {}", version.to_string().to_uppercase()),
            &format!("1 @ +{}", &version.to_string()[1..]),
            "1 ~",
            "1 ~ ",
            "1 ~ []",
            "1 ~ {\"a\":}",
            "1 ~ {}\r",
            &long,
        ] {
            assert_eq!(whisper(bad), Err(BadLine::Garbage), "{bad}");
        }
        assert_eq!(whisper("2 @ what is this"), Err(BadLine::Format));
    }

    #[test]
    fn an_answer_about_members_is_taken_apart_and_what_others_wrote_is_left_out() {
        let bulk = |text: &str| Value::BulkString(text.into());
        let answer = |state: &str, version: &str, count: i64, list: &[&str]| {
            let list = list.iter().map(|text| bulk(text)).collect();
            members(Value::Array(vec![bulk(state), bulk(version), Value::Int(count), Value::Array(list)]))
        };
        let version = RollVersion(7).to_string();
        let told = answer("kept", &version, 3, &["u", "zoe", "v", "127.0.0.1:9", "w", "a\nb", "", "nobody"]).unwrap();
        assert_eq!((told.registration, told.version, told.count), (Registration::Kept, RollVersion(7), 2));
        let names: Vec<_> = told.list.iter().flatten().map(|member| member.name.as_str()).collect();
        assert_eq!(names, ["zoe", "127.0.0.1:9"]);
        let short = members(Value::Array(vec![bulk("lost"), bulk(&version), Value::Int(9)])).unwrap();
        assert_eq!((short.registration, short.count, short.list), (Registration::Lost, 9, None));
        let many: Vec<String> = (0..2 * MAX_LISTED + 2).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        for bad in [
            answer("well", &version, 3, &[]),
            answer("kept", "7", 3, &[]),
            answer("kept", &version, -1, &[]),
            answer("kept", &version, 500, &many),
            members(Value::Array(vec![bulk("kept"), bulk(&version)])),
            members(Value::Nil),
        ] {
            assert!(matches!(bad, Err(CallError::Final(BrokerError::Format(_)))), "{bad:?}");
        }
    }

    #[test]
    fn channels_carry_the_database_and_nothing_of_others_is_taken_for_a_room() {
        let history = HistorySettings { messages: 1, room_ttl: Duration::ZERO, dedupe: Duration::ZERO, budget: 0 };
        let library = Library::new("townhall", 3, false, &history);
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
        let probe = library.probe_channel("lobby");
        assert_eq!(library.room_of(probe.as_bytes()), None);
    }
}
