//! `townhall.v1`: what JSON clients send and what they are sent. Shapes only; who may do what is `session.rs`' business.
//!
//! Parsing is in two steps, so that even a refusal of a bad command can repeat its `ref`, `id` and `room`.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::broker::Member;
use crate::names::{DisplayName, RoomName, UserId};
use crate::position::{Epoch, Offset, Position};

/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "townhall.v1";
/// How many events are replayed at a join that does not say.
pub const DEFAULT_LAST: u64 = 50;
/// More are never replayed at once, nor put into one `history` reply.
pub const MAX_LAST: u64 = 200;
/// A `ref` is repeated as it came, so it is bounded.
const MAX_REF_BYTES: usize = 128;

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    BadFrame,
    UnknownType,
    BadRoom,
    BadName,
    NotJoined,
    TooLong,
    RateLimited,
    Muted,
    Forbidden,
    Unauthorized,
    Unavailable,
    TooManyRooms,
}

impl ErrorCode {
    pub const ALL: [ErrorCode; 12] = [
        ErrorCode::BadFrame,
        ErrorCode::UnknownType,
        ErrorCode::BadRoom,
        ErrorCode::BadName,
        ErrorCode::NotJoined,
        ErrorCode::TooLong,
        ErrorCode::RateLimited,
        ErrorCode::Muted,
        ErrorCode::Forbidden,
        ErrorCode::Unauthorized,
        ErrorCode::Unavailable,
        ErrorCode::TooManyRooms,
    ];

    /// The code as it is written on the wire and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::BadFrame => "bad_frame",
            ErrorCode::UnknownType => "unknown_type",
            ErrorCode::BadRoom => "bad_room",
            ErrorCode::BadName => "bad_name",
            ErrorCode::NotJoined => "not_joined",
            ErrorCode::TooLong => "too_long",
            ErrorCode::RateLimited => "rate_limited",
            ErrorCode::Muted => "muted",
            ErrorCode::Forbidden => "forbidden",
            ErrorCode::Unauthorized => "unauthorized",
            ErrorCode::Unavailable => "unavailable",
            ErrorCode::TooManyRooms => "too_many_rooms",
        }
    }
}

/// Why the server ended a connection. 40xx are final, the others may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CloseReason {
    /// The client closed, or said `/quit`.
    Left,
    /// `/echo` sends the client's own close code back.
    Echoed(u16),
    /// The client's line ended without a word.
    Lost,
    /// The client broke RFC 6455: 1002, 1007 or 1009.
    BadFrame(u16, &'static str),
    /// This node is leaving.
    Restart,
    /// Nobody knows whether the client may come in; it may try again.
    TryLater,
    /// The client may not come in.
    Unauthorized,
    /// What let the client in is no longer valid.
    TokenExpired,
    /// No sign of life for three beats.
    NoSignOfLife,
    /// The socket took nothing for too long.
    TooSlow,
    /// A hundred commands in a row were refused for their rate.
    TooManyCommands,
}

impl CloseReason {
    /// The WebSocket close code, and why, in plain words.
    pub fn code_and_text(self) -> (u16, &'static str) {
        match self {
            CloseReason::Left | CloseReason::Lost => (1000, "good-bye"),
            CloseReason::Echoed(code) => (code, ""),
            CloseReason::BadFrame(code, text) => (code, text),
            CloseReason::Restart => (1012, "this replica is leaving; come back at once"),
            CloseReason::TryLater => (1013, "come again in a moment"),
            CloseReason::Unauthorized => (4001, "unauthorized"),
            CloseReason::TokenExpired => (4101, "the token has expired; come back with a new one"),
            CloseReason::NoSignOfLife => (4102, "no sign of life"),
            CloseReason::TooSlow => (4108, "too slow: nothing was read for too long"),
            CloseReason::TooManyCommands => (4129, "too many commands"),
        }
    }

    /// The labels of `connections_closed_total`; see [`CloseReason::number`].
    pub const LABELS: [&'static str; 10] = [
        "left",
        "lost",
        "bad_frame",
        "restart",
        "try_later",
        "unauthorized",
        "token_expired",
        "no_sign_of_life",
        "too_slow",
        "too_many_commands",
    ];

    /// Which of the labels it has.
    pub fn number(self) -> usize {
        match self {
            CloseReason::Left | CloseReason::Echoed(_) => 0,
            CloseReason::Lost => 1,
            CloseReason::BadFrame(..) => 2,
            CloseReason::Restart => 3,
            CloseReason::TryLater => 4,
            CloseReason::Unauthorized => 5,
            CloseReason::TokenExpired => 6,
            CloseReason::NoSignOfLife => 7,
            CloseReason::TooSlow => 8,
            CloseReason::TooManyCommands => 9,
        }
    }

    pub fn label(self) -> &'static str {
        Self::LABELS[self.number()]
    }
}

/// Why somebody was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotIn {
    NoUpgrade,
    Syntax,
    Version,
    Subprotocol,
    Origin,
    NotFound,
    Name,
    Room,
    Unauthorized,
    Unavailable,
    Draining,
    Broker,
    Full,
    Address,
}

impl NotIn {
    pub const ALL: [NotIn; 14] = [
        NotIn::NoUpgrade,
        NotIn::Syntax,
        NotIn::Version,
        NotIn::Subprotocol,
        NotIn::Origin,
        NotIn::NotFound,
        NotIn::Name,
        NotIn::Room,
        NotIn::Unauthorized,
        NotIn::Unavailable,
        NotIn::Draining,
        NotIn::Broker,
        NotIn::Full,
        NotIn::Address,
    ];

    /// The label of `handshakes_refused_total`.
    pub fn label(self) -> &'static str {
        match self {
            NotIn::NoUpgrade => "no_upgrade",
            NotIn::Syntax => "syntax",
            NotIn::Version => "version",
            NotIn::Subprotocol => "subprotocol",
            NotIn::Origin => "origin",
            NotIn::NotFound => "not_found",
            NotIn::Name => "name",
            NotIn::Room => "room",
            NotIn::Unauthorized => "unauthorized",
            NotIn::Unavailable => "unavailable",
            NotIn::Draining => "draining",
            NotIn::Broker => "broker",
            NotIn::Full => "full",
            NotIn::Address => "address",
        }
    }
}

/// What a client calls its command, repeated in the direct reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Ref {
    Text(String),
    Number(i64),
}

/// A command whose fields have the right shape; their contents are still as the client sent them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Join { room: String, after: Option<Position>, last: Option<u64> },
    Leave { room: String },
    Say { room: String, id: Uuid, text: String, data: Option<Box<str>> },
    History { room: String, before: Option<Offset>, limit: Option<u64> },
    Typing { room: String },
    Who { room: String },
}

impl Command {
    /// The room that it is about, as the client wrote it.
    pub fn room(&self) -> &str {
        match self {
            Command::Join { room, .. }
            | Command::Leave { room }
            | Command::Say { room, .. }
            | Command::History { room, .. }
            | Command::Typing { room }
            | Command::Who { room } => room,
        }
    }
}

/// A command and what the client calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    pub command: Command,
    pub tag: Tag,
}

/// What an answer repeats of its command.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Tag {
    #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<Ref>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Box<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room: Option<Box<str>>,
}

/// A refusal: which command, why, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    pub code: ErrorCode,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    #[serde(flatten)]
    pub tag: Tag,
}

impl Refusal {
    pub fn new(code: ErrorCode, message: impl Into<String>, tag: Tag) -> Self {
        Refusal { code, message: message.into(), retry_after_ms: None, tag }
    }

    /// One that is worth another try.
    pub fn retry(code: ErrorCode, message: impl Into<String>, after_ms: u64, tag: Tag) -> Self {
        Refusal { code, message: message.into(), retry_after_ms: Some(after_ms), tag }
    }
}

/// All fields of all commands, unread.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Fields<'a> {
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    reference: Option<&'a RawValue>,
    #[serde(borrow)]
    room: Option<&'a RawValue>,
    #[serde(borrow)]
    after: Option<&'a RawValue>,
    #[serde(borrow)]
    last: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    before: Option<&'a RawValue>,
    #[serde(borrow)]
    limit: Option<&'a RawValue>,
}

/// Why a field was not taken; becomes a `bad_frame`.
type Wrong = String;

impl Request {
    /// Reads one text message of a client.
    ///
    /// # Errors
    /// `bad_frame` where it is no JSON object or a field is missing or of the wrong shape, `unknown_type`.
    pub fn parse(text: &str) -> Result<Request, Refusal> {
        let fields: Fields = match serde_json::from_str::<Fields>(text) {
            Ok(fields) if text.trim_start().starts_with('{') => fields,
            Ok(_) => return Err(bad("a command is a JSON object", Tag::default())),
            Err(error) => return Err(bad(&format!("not a JSON object: {error}"), Tag::default())),
        };
        let tag = fields.tag();
        match fields.command() {
            Ok(Some(command)) => Ok(Request { command, tag }),
            Ok(None) => {
                let kind = fields.kind.map_or("", RawValue::get);
                let shown: String = kind.chars().take(64).collect();
                let known = "join, leave, say, typing, history and who";
                Err(Refusal::new(ErrorCode::UnknownType, format!("unknown type {shown}; there are {known}"), tag))
            }
            Err(wrong) => Err(bad(&wrong, tag)),
        }
    }
}

fn bad(message: &str, tag: Tag) -> Refusal {
    Refusal::new(ErrorCode::BadFrame, message, tag)
}

impl Fields<'_> {
    /// `Ok(None)`: a type that does not exist.
    fn command(&self) -> Result<Option<Command>, Wrong> {
        let kind: String = required("type", self.kind, "a string")?;
        self.check_reference()?;
        let room = || required("room", self.room, "a string");
        Ok(Some(match kind.as_str() {
            "join" => Command::Join {
                room: room()?,
                after: optional("after", self.after, "an object with `epoch` and `offset`")?,
                last: whole("last", self.last)?,
            },
            "leave" => Command::Leave { room: room()? },
            "say" => Command::Say {
                room: room()?,
                id: required("id", self.id, "a UUID")?,
                text: optional("text", self.text, "a string")?.unwrap_or_default(),
                data: self.data.map(|raw| object_on_one_line("data", raw)).transpose()?,
            },
            "history" => Command::History {
                room: room()?,
                before: whole("before", self.before)?,
                limit: whole("limit", self.limit)?,
            },
            "typing" => Command::Typing { room: room()? },
            "who" => Command::Who { room: room()? },
            _ => return Ok(None),
        }))
    }

    fn check_reference(&self) -> Result<(), Wrong> {
        match self.reference {
            Some(raw) if reference(raw).is_none() => {
                Err(format!("`ref` must be a string of at most {MAX_REF_BYTES} bytes or an integer"))
            }
            _ => Ok(()),
        }
    }

    fn tag(&self) -> Tag {
        let short = |raw: Option<&RawValue>| {
            let text: String = serde_json::from_str(raw?.get()).ok()?;
            (text.len() <= MAX_REF_BYTES).then(|| text.into_boxed_str())
        };
        Tag { reference: self.reference.and_then(reference), id: short(self.id), room: short(self.room) }
    }
}

fn reference(raw: &RawValue) -> Option<Ref> {
    if let Ok(number) = serde_json::from_str(raw.get()) {
        return Some(Ref::Number(number));
    }
    let text: String = serde_json::from_str(raw.get()).ok()?;
    (text.len() <= MAX_REF_BYTES).then_some(Ref::Text(text))
}

fn required<T: for<'a> Deserialize<'a>>(name: &str, raw: Option<&RawValue>, shape: &str) -> Result<T, Wrong> {
    optional(name, raw, shape)?.ok_or_else(|| format!("`{name}` is missing; it must be {shape}"))
}

fn optional<T: for<'a> Deserialize<'a>>(name: &str, raw: Option<&RawValue>, shape: &str) -> Result<Option<T>, Wrong> {
    match raw {
        None => Ok(None),
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| format!("`{name}` must be {shape}")),
    }
}

/// A whole number; one that is too large for us is the largest, since such numbers are clamped anyway.
fn whole(name: &str, raw: Option<&RawValue>) -> Result<Option<u64>, Wrong> {
    let digits = raw.is_some_and(|raw| raw.get().bytes().all(|byte| byte.is_ascii_digit()));
    match optional(name, raw, "a whole number") {
        Err(_) if digits => Ok(Some(u64::MAX)),
        number => number,
    }
}

/// What is handed on unread, but must not break the line that it is stored on, nor a reader's parser.
fn object_on_one_line(name: &str, raw: &RawValue) -> Result<Box<str>, Wrong> {
    const NESTING: usize = 32;
    let text = raw.get();
    let nested = format!("{}{text}{}", "[".repeat(128 - NESTING), "]".repeat(128 - NESTING));
    if !text.starts_with('{') || serde_json::from_str::<serde_json::Value>(&nested).is_err() {
        return Err(format!("`{name}` must be a JSON object, nested at most {NESTING} deep"));
    }
    // In valid JSON a raw line break is never inside of a string.
    Ok(text.replace(['\n', '\r'], " ").into())
}

/// Who a message is from, and who a client is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    pub id: UserId,
    pub name: DisplayName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub info: Option<Info>,
}

/// What a token says of its user for others to see: a JSON object on one line, handed on unread.
#[derive(Debug, Clone, Serialize)]
#[serde(transparent)]
pub struct Info(Arc<RawValue>);

impl Info {
    pub const MAX_BYTES: usize = 1024;

    /// # Errors
    /// In words, where it is no object, nested too deep or too long.
    pub fn parse(raw: &RawValue) -> Result<Self, String> {
        if raw.get().len() > Self::MAX_BYTES {
            return Err(format!("`info` has at most {} bytes", Self::MAX_BYTES));
        }
        let object = object_on_one_line("info", raw)?;
        let raw = RawValue::from_string(object.into()).map_err(|error| error.to_string())?;
        Ok(Info(raw.into()))
    }
}

impl PartialEq for Info {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Info {}

/// A message as the broker stores it: everything but its place. `data` is JSON text.
pub fn stored_message(id: Uuid, from: &User, text: &str, data: Option<&str>) -> bytes::Bytes {
    #[derive(Serialize)]
    struct Message<'a> {
        r#type: &'static str,
        id: Uuid,
        from: &'a User,
        text: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<&'a RawValue>,
    }
    let data = data.and_then(|data| serde_json::from_str(data).ok());
    serde_json::to_vec(&Message { r#type: "message", id, from, text, data }).unwrap_or_default().into()
}

/// That somebody is typing, as the broker announces it: everything but the room.
pub fn announced_typing(from: &User) -> bytes::Bytes {
    #[derive(Serialize)]
    struct Typing<'a> {
        r#type: &'static str,
        from: &'a User,
    }
    serde_json::to_vec(&Typing { r#type: "typing", from }).unwrap_or_default().into()
}

/// Who an announced event says is typing: the id, and `from` as it is. `None`: it says something else, perhaps something that
/// a newer version understands.
pub fn who_types(event: &[u8]) -> Option<(UserId, Box<RawValue>)> {
    #[derive(Deserialize)]
    struct Announced<'a> {
        #[serde(borrow)]
        r#type: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        from: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct From<'a> {
        #[serde(borrow)]
        id: std::borrow::Cow<'a, str>,
        #[serde(borrow)]
        name: std::borrow::Cow<'a, str>,
    }
    let announced: Announced =
        serde_json::from_slice(event).ok().filter(|event: &Announced| event.r#type == "typing")?;
    let from: From = serde_json::from_str(announced.from.get()).ok()?;
    DisplayName::stored(&from.name)?;
    Some((UserId::stored(&from.id)?, announced.from.to_owned()))
}

/// What the server says to one client; what it says to a room are events, see `encoding.rs`.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Reply {
    Welcome {
        user: User,
        node: Box<str>,
        session: Uuid,
        beat: u64,
        rooms: Vec<RoomName>,
        limits: WelcomeLimits,
    },
    Joined {
        room: RoomName,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        #[serde(flatten)]
        joined: Joined,
        /// How many are here, oneself included.
        members: usize,
    },
    Left {
        room: RoomName,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
    },
    Accepted {
        room: RoomName,
        id: Uuid,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        epoch: Epoch,
        offset: Offset,
    },
    History {
        room: RoomName,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        epoch: Epoch,
        messages: Vec<Box<RawValue>>,
        more: bool,
    },
    Members {
        room: RoomName,
        #[serde(rename = "ref", skip_serializing_if = "Option::is_none")]
        reference: Option<Ref>,
        count: usize,
        members: Arc<[Member]>,
    },
    /// To everybody in the room: who came and who went, unless they are too many to list.
    Presence {
        room: RoomName,
        count: usize,
        #[serde(skip_serializing_if = "Option::is_none")]
        joined: Option<Vec<Member>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        left: Option<Vec<Member>>,
    },
    /// To everybody in the room.
    Typing {
        room: RoomName,
        from: Box<RawValue>,
    },
    Reconnect {
        after_ms: u64,
    },
    Beat {},
    Error(Refusal),
}

/// Where a client is placed in a room: it has everything up to `offset - backlog`, and `backlog` offsets follow before live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Joined {
    pub epoch: Epoch,
    pub offset: Offset,
    pub backlog: u64,
    /// Of a resume: whether it continues where the client was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recovered: Option<bool>,
}

impl Joined {
    /// The offset up to which the client has everything.
    pub fn from(&self) -> Offset {
        self.offset - self.backlog
    }
}

/// The limits that a client should know.
#[derive(Debug, Clone, Serialize)]
pub struct WelcomeLimits {
    pub text_bytes: usize,
    pub data_bytes: usize,
    pub rooms: usize,
    pub rate: u32,
    pub burst: u32,
    pub dedupe_s: u64,
    pub history: usize,
}

impl Reply {
    /// As it goes over the wire.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> Refusal {
        Request::parse(text).expect_err(text)
    }

    #[test]
    fn commands_are_read_and_unknown_fields_ignored() {
        let request = Request::parse(
            r#"{"type":"join","room":"lobby","after":{"epoch":"e","offset":3},"last":9,"ref":7,"new":[1]}"#,
        );
        let after = Some(Position { epoch: "e".into(), offset: 3 });
        let request = request.unwrap();
        assert_eq!(request.command, Command::Join { room: "lobby".into(), after, last: Some(9) });
        assert_eq!(request.tag.reference, Some(Ref::Number(7)));
    }

    #[test]
    fn a_refusal_repeats_what_it_can_of_its_command() {
        let refusal = refused(r#"{"type":"say","room":"ops","id":"nonsense","ref":"r1","text":"x"}"#);
        assert_eq!(refusal.code, ErrorCode::BadFrame);
        assert_eq!(refusal.tag.reference, Some(Ref::Text("r1".into())));
        assert_eq!(refusal.tag.room.as_deref(), Some("ops"));
        assert_eq!(refusal.tag.id.as_deref(), Some("nonsense"));
        let json = Reply::Error(refusal).to_json();
        assert!(json.starts_with(r#"{"type":"error","code":"bad_frame","message":"#), "{json}");
        assert!(json.contains(r#""ref":"r1""#), "{json}");
    }

    #[test]
    fn wrong_shapes_are_bad_frames() {
        for text in [
            "",
            "hello",
            "[]",
            "null",
            r#"["join","lobby"]"#,
            "{}",
            r#"{"type":"join"}"#,
            r#"{"type":"join","room":7}"#,
            r#"{"type":"join","room":"a","last":-1}"#,
            r#"{"type":"join","room":"a","last":1.5}"#,
            r#"{"type":"join","room":"a","after":{"epoch":"e"}}"#,
            r#"{"type":"join","room":"a","ref":{}}"#,
            r#"{"type":"join","room":"a","room":"b"}"#,
            r#"{"type":"say","room":"a","text":"no id"}"#,
            r#"{"type":"say","room":"a","id":"5f0b6c6e-8c2c-4a53-a3a5-000000000000","text":"\ud800"}"#,
            r#"{"type":"say","room":"a","id":"5f0b6c6e-8c2c-4a53-a3a5-000000000000","data":[]}"#,
        ] {
            assert_eq!(refused(text).code, ErrorCode::BadFrame, "{text}");
        }
    }

    #[test]
    fn an_unknown_type_is_named() {
        let refusal = refused(r#"{"type":"dance"}"#);
        assert_eq!(refusal.code, ErrorCode::UnknownType);
        assert!(refusal.message.contains("dance"));
    }

    #[test]
    fn data_is_handed_on_as_it_is_but_on_one_line() {
        let text = "{\"type\":\"say\",\"room\":\"a\",\"id\":\"5f0b6c6e-8c2c-4a53-a3a5-000000000000\",\
                    \"data\":{\"n\":12345678901234567890123,\n\"s\":\"a\\nb\"}}";
        let Command::Say { data, .. } = Request::parse(text).unwrap().command else { panic!() };
        assert_eq!(data.as_deref(), Some("{\"n\":12345678901234567890123, \"s\":\"a\\nb\"}"));
    }

    #[test]
    fn data_that_would_break_a_readers_parser_is_refused() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(40), "]".repeat(40));
        let text = format!(r#"{{"type":"say","room":"a","id":"5f0b6c6e-8c2c-4a53-a3a5-000000000000","data":{deep}}}"#);
        assert_eq!(refused(&text).code, ErrorCode::BadFrame);
    }
}
