//! What one client may do: a command in, an action out. No I/O and no clock of its own, so it is tested without a socket.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use uuid::Uuid;

use crate::auth::rights::Rights;
use crate::auth::{Credentials, Identity, Kind};
use crate::broker::{Member, Publication};
use crate::config::{Config, Limits, Rooms};
use crate::encoding::visible;
use crate::limits::Rate;
use crate::names::{DisplayName, RoomName};
use crate::position::{Offset, Position};
use crate::protocol::{
    CloseReason, Command, DEFAULT_LAST, ErrorCode, MAX_LAST, Ref, Refusal, Reply, Request, Tag, User, WelcomeLimits,
    announced_typing, stored_message,
};

/// As many commands in a row may be refused for their rate.
const PATIENCE: u32 = 100;

/// As many tokens that are wrong may be tried on one connection.
const LOGINS: u32 = 5;

/// What is the same for all sessions of a node.
#[derive(Debug)]
pub struct Rules {
    pub rooms: Rooms,
    pub limits: Limits,
    pub dedupe: Duration,
    /// Messages kept a room.
    pub history: usize,
    /// Whether there is something to log in with.
    pub logins: bool,
    /// This node's name, as `welcome` says it.
    pub node: Box<str>,
}

impl Rules {
    pub fn new(config: &Config, node: &str) -> Self {
        Rules {
            rooms: config.rooms.clone(),
            limits: config.limits.clone(),
            dedupe: config.history.dedupe,
            history: config.history.messages,
            logins: config.auth.marks_guests(),
            node: node.into(),
        }
    }

    /// Whether there is such a room.
    pub fn admits(&self, room: &RoomName) -> bool {
        match &self.rooms {
            Rooms::Open => true,
            Rooms::Only(rooms) => rooms.contains(room),
        }
    }

    /// The room of those who name none: the lobby, or the first of those that there are for them.
    pub fn first_room(&self, rights: &Rights) -> Option<RoomName> {
        let rooms = self.listed(rights);
        let lobby = rooms.iter().find(|room| **room == RoomName::lobby());
        lobby.or(rooms.first()).cloned()
    }

    /// What a client is told that it may join.
    fn listed(&self, rights: &Rights) -> Vec<RoomName> {
        let mut rooms: Vec<RoomName> = match &self.rooms {
            Rooms::Open => [RoomName::lobby()].into_iter().chain(rights.named_rooms()).collect(),
            Rooms::Only(rooms) => rooms.clone(),
        };
        let mut listed = HashSet::new();
        rooms.retain(|room| rights.admit(room) && listed.insert(room.clone()));
        rooms
    }
}

/// What is to be done about a command.
#[derive(Debug)]
pub enum Action {
    /// Tell this client alone.
    Refuse(Refusal),
    /// Tell this client alone, at a door without JSON: `CODE words`.
    Notice(String),
    Join {
        room: RoomName,
        after: Option<Position>,
        last: u64,
        reference: Option<Ref>,
    },
    /// Go from the room one is in to another.
    Move {
        room: RoomName,
    },
    Leave {
        room: RoomName,
        reference: Option<Ref>,
    },
    Publish {
        publication: Publication,
        reference: Option<Ref>,
    },
    History {
        room: RoomName,
        before: Offset,
        limit: u64,
        reference: Option<Ref>,
    },
    Who {
        room: RoomName,
        reference: Option<Ref>,
    },
    /// Tell the others, unless that was done a moment ago.
    Typing {
        room: RoomName,
        event: Bytes,
    },
    /// The user is called otherwise now; tell this client.
    Renamed(String),
    /// Somebody wants to be let in, or in as somebody else.
    LogIn(Credentials),
    Close(CloseReason),
    Nothing,
}

/// One client.
#[derive(Debug)]
pub struct Session {
    rules: Arc<Rules>,
    identity: Identity,
    joined: Vec<RoomName>,
    rate: Rate,
    refused_in_a_row: u32,
    logins_refused: u32,
}

impl Session {
    pub fn new(rules: Arc<Rules>, identity: Identity, now: Instant) -> Self {
        let rate = Rate::new(rules.limits.rate, rules.limits.burst, now);
        Session { rules, identity, joined: Vec::new(), rate, refused_in_a_row: 0, logins_refused: 0 }
    }

    pub fn user(&self) -> &User {
        &self.identity.user
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The user as a member of rooms.
    pub fn member(&self) -> Member {
        let User { id, name, .. } = self.user();
        Member { id: id.clone(), name: name.clone() }
    }

    /// The room of a client that names none; `None`: there is none that it may join.
    pub fn first_room(&self) -> Option<RoomName> {
        self.rules.first_room(&self.identity.rights)
    }

    /// The first frame of a `townhall.v1` connection.
    pub fn welcome(&self) -> Reply {
        let limits = &self.rules.limits;
        Reply::Welcome {
            user: self.user().clone(),
            node: self.rules.node.clone(),
            session: Uuid::now_v7(),
            beat: limits.beat.as_secs_f64().ceil() as u64,
            rooms: self.rules.listed(&self.identity.rights),
            limits: WelcomeLimits {
                text_bytes: limits.text,
                data_bytes: Limits::DATA,
                rooms: limits.rooms,
                rate: limits.rate,
                burst: limits.burst,
                dedupe_s: self.rules.dedupe.as_secs(),
                history: self.rules.history,
            },
        }
    }

    /// A command of a JSON client, as it was parsed.
    pub fn request(&mut self, parsed: Result<Request, Refusal>, now: Instant) -> Action {
        if let Err(wait) = self.rate.take(now) {
            return self.too_fast(wait, parsed);
        }
        self.refused_in_a_row = 0;
        match parsed.and_then(|request| self.decide(request.command, request.tag)) {
            Ok(action) => {
                // Whoever is on the way in takes a place already.
                if let Action::Join { room, .. } = &action {
                    self.entered(room.clone());
                }
                action
            }
            Err(refusal) => Action::Refuse(refusal),
        }
    }

    fn too_fast(&mut self, wait: Duration, parsed: Result<Request, Refusal>) -> Action {
        self.refused_in_a_row += 1;
        if self.refused_in_a_row >= PATIENCE {
            return Action::Close(CloseReason::TooManyCommands);
        }
        let tag = match parsed {
            Ok(request) => request.tag,
            Err(refusal) => refusal.tag,
        };
        let after_ms = wait.as_millis() as u64 + 1;
        let rate = self.rules.limits.rate;
        let message = format!("more than {rate} commands a second");
        Action::Refuse(Refusal::retry(ErrorCode::RateLimited, message, after_ms, tag))
    }

    fn decide(&self, command: Command, tag: Tag) -> Result<Action, Refusal> {
        match command {
            Command::Join { room, after, last } => self.join(&room, after, last, tag),
            Command::Leave { room } => Ok(Action::Leave { room: self.joined(&room, &tag)?, reference: tag.reference }),
            Command::Say { room, id, text, data } => {
                let room = self.joined(&room, &tag)?;
                let publication = self.publication(room, id, &text, data.as_deref(), &tag)?;
                Ok(Action::Publish { publication, reference: tag.reference })
            }
            Command::History { room, before, limit } => Ok(Action::History {
                room: self.joined(&room, &tag)?,
                before: before.unwrap_or(Offset::MAX),
                limit: limit.unwrap_or(DEFAULT_LAST).min(MAX_LAST),
                reference: tag.reference,
            }),
            Command::Typing { room } => {
                let room = self.joined(&room, &tag)?;
                self.may_speak(&tag)?;
                Ok(Action::Typing { room, event: announced_typing(self.user()) })
            }
            Command::Who { room } => Ok(Action::Who { room: self.joined(&room, &tag)?, reference: tag.reference }),
        }
    }

    fn join(&self, room: &str, after: Option<Position>, last: Option<u64>, tag: Tag) -> Result<Action, Refusal> {
        let room = self.room(room, &tag)?;
        let limit = self.rules.limits.rooms;
        if self.joined.len() >= limit && !self.joined.contains(&room) {
            let message = format!("at most {limit} rooms at a time; leave one first");
            return Err(Refusal::new(ErrorCode::TooManyRooms, message, tag));
        }
        let last = last.unwrap_or(DEFAULT_LAST).min(MAX_LAST);
        Ok(Action::Join { room, after, last, reference: tag.reference })
    }

    /// A room that exists, joined or not.
    fn room(&self, name: &str, tag: &Tag) -> Result<RoomName, Refusal> {
        let Some(room) = RoomName::parse(name) else {
            return Err(Refusal::new(ErrorCode::BadRoom, RoomName::RULE, tag.clone()));
        };
        if !self.rules.admits(&room) {
            return Err(Refusal::new(ErrorCode::Forbidden, format!("there is no room {room} here"), tag.clone()));
        }
        if !self.identity.rights.admit(&room) {
            let message = format!("your token does not let you into {room}");
            return Err(Refusal::new(ErrorCode::Forbidden, message, tag.clone()));
        }
        Ok(room)
    }

    fn joined(&self, name: &str, tag: &Tag) -> Result<RoomName, Refusal> {
        let room = self.room(name, tag)?;
        if !self.joined.contains(&room) {
            return Err(Refusal::new(ErrorCode::NotJoined, format!("join {room} first"), tag.clone()));
        }
        Ok(room)
    }

    fn may_speak(&self, tag: &Tag) -> Result<(), Refusal> {
        if self.identity.rights.mute {
            return Err(Refusal::new(ErrorCode::Muted, "your token lets you read and not speak", tag.clone()));
        }
        Ok(())
    }

    fn publication(
        &self,
        room: RoomName,
        id: Uuid,
        text: &str,
        data: Option<&str>,
        tag: &Tag,
    ) -> Result<Publication, Refusal> {
        self.may_speak(tag)?;
        let limit = self.rules.limits.text;
        if text.len() > limit {
            let message = format!("a text has at most {limit} bytes, this one {}", text.len());
            return Err(Refusal::new(ErrorCode::TooLong, message, tag.clone()));
        }
        if data.is_some_and(|data| data.len() > Limits::DATA) {
            let message = format!("data has at most {} bytes", Limits::DATA);
            return Err(Refusal::new(ErrorCode::TooLong, message, tag.clone()));
        }
        let text = visible(text);
        if text.is_empty() && data.is_none() {
            return Err(Refusal::new(ErrorCode::BadFrame, "the text is empty", tag.clone()));
        }
        let event = stored_message(id, self.user(), &text, data);
        Ok(Publication { room, user: self.user().id.clone(), id, event })
    }

    /// Whether a client of a door without JSON may say something now. Its door repeats what is retryable, so it is held
    /// back and not refused.
    ///
    /// # Errors
    /// How long to wait.
    pub fn take_turn(&mut self, now: Instant) -> Result<(), Duration> {
        self.rate.take(now)
    }

    /// A text message of a plain client, or a line without command: said in the room it is in. The hall makes the id.
    pub fn text(&mut self, text: &str) -> Action {
        let text = text.trim_end_matches(['\r', '\n']);
        let Some(room) = self.joined.first().cloned() else { return Action::Nothing };
        if text.is_empty() || visible(text).is_empty() {
            return Action::Nothing;
        }
        match self.publication(room, Uuid::new_v4(), text, None, &Tag::default()) {
            Ok(publication) => Action::Publish { publication, reference: None },
            Err(refusal) => Action::Refuse(refusal),
        }
    }

    /// A line of a TCP client: a text or a command.
    pub fn line(&mut self, line: &str) -> Action {
        let (word, rest) = match line.strip_prefix('/') {
            Some(text) if text.starts_with('/') => return self.said(text),
            Some(command) => command.split_once(char::is_whitespace).unwrap_or((command, "")),
            None => return self.said(line),
        };
        match (word, rest.trim()) {
            ("login", words) if self.rules.logins => log_in(words),
            ("quit", _) => Action::Close(CloseReason::Left),
            ("help", _) if self.rules.logins => Action::Notice(format!("{HELP} · /login NAME TOKEN")),
            ("help", _) => Action::Notice(HELP.into()),
            (word, rest) => self.is_in().and_then(|()| self.command(word, rest)).unwrap_or_else(Action::Refuse),
        }
    }

    /// A line that is to be said.
    fn said(&mut self, text: &str) -> Action {
        match self.is_in() {
            Err(_) if text.is_empty() => Action::Nothing,
            Err(refusal) => Action::Refuse(refusal),
            Ok(()) => self.text(text),
        }
    }

    /// Strangers may log in and nothing else.
    fn is_in(&self) -> Result<(), Refusal> {
        match self.identity.kind {
            Kind::Stranger => Err(unauthorized(LOG_IN_FIRST)),
            Kind::Guest { .. } | Kind::Known => Ok(()),
        }
    }

    fn command(&mut self, word: &str, rest: &str) -> Result<Action, Refusal> {
        Ok(match word {
            "name" => self.rename(rest)?,
            "room" => Action::Move { room: self.room(rest, &Tag::default())? },
            "who" => match self.joined.first().cloned() {
                Some(room) => Action::Who { room, reference: None },
                None => Action::Nothing,
            },
            _ => {
                let message = format!("there is no /{}; /help lists what there is", visible(word));
                return Err(Refusal::new(ErrorCode::UnknownType, message, Tag::default()));
            }
        })
    }

    fn rename(&mut self, name: &str) -> Result<Action, Refusal> {
        let refused = |code, words: &str| Err(Refusal::new(code, words, Tag::default()));
        let Kind::Guest { marked } = self.identity.kind else {
            return refused(ErrorCode::Forbidden, "your name is the one that you have logged in with");
        };
        let Some(name) = DisplayName::parse(name) else {
            return refused(ErrorCode::BadName, DisplayName::RULE);
        };
        self.identity.user.name = if marked { name.marked() } else { name };
        Ok(Action::Renamed(format!("name you are {}", self.user().name)))
    }

    /// The client is this one now.
    pub fn logged_in(&mut self, identity: Identity) {
        self.identity = identity;
        self.logins_refused = 0;
    }

    /// The client brought what lets nobody in.
    pub fn not_logged_in(&mut self, words: String) -> Action {
        self.logins_refused += 1;
        if self.logins_refused >= LOGINS {
            return Action::Close(CloseReason::Unauthorized);
        }
        Action::Refuse(unauthorized(words))
    }

    /// The client is in `room` now.
    pub fn entered(&mut self, room: RoomName) {
        if !self.joined.contains(&room) {
            self.joined.push(room);
        }
    }

    /// The client is no longer in `room`.
    pub fn left(&mut self, room: &RoomName) {
        self.joined.retain(|joined| joined != room);
    }

    /// The rooms it is in.
    pub fn rooms(&self) -> &[RoomName] {
        &self.joined
    }
}

/// What strangers are told.
pub const LOG_IN_FIRST: &str = "log in first: /login NAME TOKEN";

fn unauthorized(words: impl Into<String>) -> Refusal {
    Refusal::new(ErrorCode::Unauthorized, words, Tag::default())
}

/// `NAME TOKEN`; a name may have blanks in it, a token has none. A signed token knows its name by itself.
fn log_in(words: &str) -> Action {
    let (name, token) = words.rsplit_once(char::is_whitespace).unwrap_or(("", words));
    if token.is_empty() {
        return Action::Refuse(unauthorized("what is missing is /login NAME TOKEN"));
    }
    Action::LogIn(Credentials { name: Some(name.trim().into()), key: None, token: Some(token.into()) })
}

const HELP: &str = "help /name NAME · /room ROOM · /who · /quit · //x says /x · anything else is said in the room";

/// Names at the doors without JSON; more are only counted.
const NAMES_BYTES: usize = 1000;

/// `who 3 here: ada, ben, zoe`: in the order of the names, and not longer for more people.
pub fn who_notice(count: usize, members: &[Member]) -> String {
    let mut names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    names.sort_unstable();
    let mut words = format!("who {count} here: ");
    let mut named = 0;
    for name in names {
        let comma = if named == 0 { "" } else { ", " };
        if words.len() + comma.len() + name.len() > NAMES_BYTES {
            break;
        }
        words.push_str(comma);
        words.push_str(name);
        named += 1;
    }
    match count.saturating_sub(named) {
        0 => words,
        others => format!("{words} and {others} more"),
    }
}

/// A refusal as the doors without JSON show it.
pub fn refusal_notice(refusal: &Refusal) -> String {
    format!("! {} {}", refusal.code.as_str(), visible(&refusal.message))
}

#[cfg(test)]
mod tests;
