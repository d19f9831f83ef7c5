//! A client of `townhall.v1`: the hall's frames in, commands and [`News`] out. It does no I/O and looks at no clock, so all
//! that it promises can be tested by telling it what happens:
//!
//! - A room's events are told in the order of their offsets, each once, over any number of connections. What could not be had
//!   is told, too.
//! - What is said is kept until it is accepted, over connections under the same id, and sent again only when the room's
//!   backlog has been read without finding it.
//! - **In a room, one message is under way at a time.** So they are stored in the order in which they were said, whatever fails:
//!   no later one can overtake one that has to be repeated. It costs a round trip a message, and a hall's usual limit of 20 a
//!   second is slower than that.
//! - What is sent keeps to the hall's pace.
//!
//! `web/client.js` is the same for browsers, and its comments say more about the reasons.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;
use uuid::Uuid;

use super::frames::{
    Accepted, Frame, Gap, Joined, Limits, Malformed, Members, Message, Presence, Refusal, Refused, User, Welcome,
};
use super::outbox::{Outbox, Say};
use super::pace::Pace;
use super::roster::Roster;
use crate::names::RoomName;
use crate::position::{Offset, Position};

/// Of the hall's beat: without a text frame for so many of them the line is dead.
const DEAD_BEATS: f64 = 2.5;
const BEAT_MOST: f64 = 3600.0;
/// A line that beats, but on which a command is not answered for so long, is no good either.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Who read nothing for so long must not wonder at a hall's silence.
const HELD_UP: Duration = Duration::from_millis(100);
/// Where the hall did not say when to try again; it can say neither at once nor never.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_LEAST: Duration = Duration::from_millis(20);
const RETRY_MOST: Duration = Duration::from_secs(60);
/// Nobody is told twice in this time that somebody types.
const TYPING_EVERY: Duration = Duration::from_secs(3);

/// What happened, for whoever shows it.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// The hall lets us in, as `me`.
    Welcome {
        me: User,
        rooms: Vec<String>,
    },
    Joined {
        room: String,
        recovered: Option<bool>,
    },
    /// The backlog is in; what follows is live.
    CaughtUp {
        room: String,
    },
    Left {
        room: String,
    },
    Said {
        message: Message,
        own: bool,
    },
    /// So many messages of a room are lost for good.
    Lost {
        room: String,
        count: u64,
    },
    /// Who is here; fewer names than `count` where not all are known.
    People {
        room: String,
        count: u64,
        names: Vec<String>,
    },
    /// The answer to [`Client::who`].
    Members {
        room: String,
        count: u64,
        names: Vec<String>,
    },
    /// The answer to [`Client::history`], oldest first.
    History {
        room: String,
        messages: Vec<Message>,
        more: bool,
    },
    Typing {
        room: String,
        name: String,
    },
    Accepted {
        tag: u64,
        accepted: Accepted,
    },
    /// What was said under `tag` will not be sent any more.
    Failed {
        tag: u64,
        text: String,
        why: Refused,
        /// It was sent, and what came of it is not known.
        in_doubt: bool,
    },
    /// The room is not open to us, and we are not in it.
    Closed {
        room: String,
        why: Refused,
    },
    /// A refusal of something else.
    Refused(Refused),
    /// The replica is leaving; after so long another one is to be asked.
    Leaving {
        after: Duration,
    },
    /// Something happened that is told to scripts alone.
    Event,
}

/// Why a connection is no good any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Dead {
    #[error("no sign of life")]
    Silent,
    #[error("no answer")]
    NoAnswer,
    #[error(transparent)]
    Broken(#[from] Malformed),
}

/// A command that waits for the pace.
#[derive(Debug, Clone, PartialEq)]
enum Command {
    Join { room: String },
    Leave { room: String },
    Who { room: String, asked: bool },
    History { room: String, before: Option<Offset>, limit: u64 },
}

impl Command {
    fn room(&self) -> &str {
        match self {
            Command::Join { room }
            | Command::Leave { room }
            | Command::Who { room, .. }
            | Command::History { room, .. } => room,
        }
    }
}

#[derive(Debug)]
struct Room {
    name: String,
    /// How much to replay where there is nothing to resume.
    last: u64,
    position: Option<Position>,
    /// On this connection.
    joined: bool,
    /// The last offset of the announced backlog.
    until: Offset,
    /// Joined, and the backlog is in.
    caught_up: bool,
    /// The `ref` of the join that was not answered yet.
    awaiting: Option<u64>,
    /// When a join is to be tried again.
    join_at: Option<Instant>,
    /// Before then nothing is said here, because the last message was refused for a while.
    say_at: Option<Instant>,
    roster: Roster,
}

#[derive(Debug)]
struct Unanswered {
    at: Instant,
    command: Option<Command>,
    /// The message that it says.
    say: Option<Uuid>,
}

pub struct Client {
    /// Whether to keep lists of who is here.
    lists: bool,
    me: Option<User>,
    limits: Limits,
    rooms: Vec<Room>,
    outbox: Outbox,
    orders: VecDeque<Command>,
    unanswered: BTreeMap<u64, Unanswered>,
    reference: u64,
    pace: Pace,
    /// Until then nothing is sent, because something came too fast.
    held_until: Option<Instant>,
    typed_at: Option<Instant>,
    types: Option<String>,
    beat: Option<Duration>,
    heard_at: Instant,
    open: bool,
    news: Vec<News>,
}

impl Client {
    pub fn new(lists: bool, now: Instant) -> Self {
        Client {
            lists,
            me: None,
            limits: Limits::default(),
            rooms: Vec::new(),
            outbox: Outbox::default(),
            orders: VecDeque::new(),
            unanswered: BTreeMap::new(),
            reference: 0,
            pace: Pace::new(0.0, 1.0, now),
            held_until: None,
            typed_at: None,
            types: None,
            beat: None,
            heard_at: now,
            open: false,
            news: Vec::new(),
        }
    }

    // --- What is wanted ---

    /// Joins a room, now and on every later connection; where it is joined already nothing changes.
    pub fn join(&mut self, room: &str, last: u64) {
        if self.rooms.iter().any(|known| known.name == room) {
            return;
        }
        self.rooms.push(Room {
            name: room.into(),
            last,
            position: None,
            joined: false,
            until: 0,
            caught_up: false,
            awaiting: None,
            join_at: None,
            say_at: None,
            roster: Roster::default(),
        });
        self.order(Command::Join { room: room.into() });
    }

    /// Leaves a room. What was said there and not accepted fails.
    pub fn leave(&mut self, room: &str) {
        self.forget(room, &Refused::ours("left", "the room was left"));
        self.order(Command::Leave { room: room.into() });
    }

    /// Leaves all rooms. What was not sent will not be.
    pub fn leave_all(&mut self) {
        for room in std::mem::take(&mut self.rooms) {
            self.order(Command::Leave { room: room.name });
        }
    }

    /// Gives up what was said and is not accepted.
    pub fn abandon(&mut self, why: &Refused) -> Vec<News> {
        for say in self.outbox.take_all() {
            self.fail(say, why);
        }
        self.take_news()
    }

    /// Says something in a room that was joined. [`News`] will tell what became of it, by `tag`.
    pub fn say(&mut self, room: &str, text: String, tag: u64) {
        if self.rooms.iter().any(|known| known.name == room) {
            self.outbox.push(tag, room, text);
        } else {
            let why = Refused::ours("not_joined", "join the room first");
            self.news.push(News::Failed { tag, text, why, in_doubt: false });
        }
    }

    /// That we are typing is told now or never.
    pub fn typing(&mut self, room: &str, now: Instant) {
        let lately = self.typed_at.is_some_and(|at| now < at + TYPING_EVERY);
        let joined = self.rooms.iter().any(|known| known.name == room && known.joined);
        if joined && !lately && self.orders.is_empty() && self.free_at(now) == Some(now) {
            self.types = Some(room.into());
        }
    }

    /// Asks who is in a room that is joined. Without a connection nothing is asked.
    pub fn who(&mut self, room: &str) {
        self.order(Command::Who { room: room.into(), asked: true });
    }

    /// Asks for older messages: those before `before`, or else the newest.
    pub fn history(&mut self, room: &str, before: Option<Offset>, limit: u64) {
        self.order(Command::History { room: room.into(), before, limit });
    }

    /// Whether there is something that is yet to happen: a message to be accepted, a room to be caught up with.
    pub fn waits(&self) -> bool {
        !self.outbox.is_empty() || self.rooms.iter().any(|room| !room.caught_up)
    }

    /// What came of what was wanted at once.
    pub fn take_news(&mut self) -> Vec<News> {
        std::mem::take(&mut self.news)
    }

    // --- The connection ---

    /// For so long we read nothing, whatever the hall said.
    pub fn was_held_up(&mut self, time: Duration, now: Instant) {
        if time >= HELD_UP {
            self.heard_at = now;
            self.unanswered.values_mut().for_each(|it| it.at = now);
        }
    }

    /// What belonged to the connection alone ended with it.
    pub fn lost(&mut self) {
        self.open = false;
        self.orders.clear();
        self.unanswered.clear();
        self.held_until = None;
        self.types = None;
        self.outbox.disconnected();
        for room in &mut self.rooms {
            room.rest();
        }
    }

    /// Takes a frame of the hall.
    ///
    /// # Errors
    /// No hall sends that, so what else this one says cannot be trusted, and it is left.
    pub fn hear(&mut self, text: &str, now: Instant) -> Result<Vec<News>, Dead> {
        self.heard_at = now;
        let (frame, reference) = Frame::parse(text)?;
        let unanswered = self.unanswered.len();
        let answered = reference.and_then(|reference| self.unanswered.remove(&reference));
        if answered.is_some() {
            self.pace.answered(unanswered, now);
        }
        let (command, say) = answered.map_or((None, None), |answered| (answered.command, answered.say));
        match frame {
            Frame::Welcome(welcome) => self.welcomed(welcome, now),
            _ if !self.open => {}
            // By its `ref` a refusal means a message, too.
            Frame::Error(mut refusal) => {
                refusal.id = refusal.id.or(say);
                self.refused(refusal, reference, command, now);
            }
            frame => self.take(frame, reference, command, now),
        }
        Ok(std::mem::take(&mut self.news))
    }

    /// When [`Client::tick`] and [`Client::next`] are to be called again, if nothing else happens before.
    pub fn wake(&self, now: Instant) -> Option<Instant> {
        if !self.open {
            return None;
        }
        let dead = self.beat.map(|beat| self.heard_at + beat);
        let unanswered = self.unanswered.values().map(|it| it.at + ANSWER_DEADLINE).min();
        let rooms = self.rooms.iter().flat_map(|room| [room.join_at, room.say_at, room.roster.ask_at]).flatten();
        let waits = !self.orders.is_empty() || self.next_say(now).is_some();
        let free = if waits { self.free_at(now) } else { None };
        rooms.chain(dead).chain(unanswered).chain(free).min()
    }

    /// Does what is due.
    ///
    /// # Errors
    /// The line is dead: it looks like a silent one, so its beats are counted.
    pub fn tick(&mut self, now: Instant) -> Result<Vec<News>, Dead> {
        if self.open && self.beat.is_some_and(|beat| now >= self.heard_at + beat) {
            return Err(Dead::Silent);
        }
        if self.unanswered.values().any(|it| now >= it.at + ANSWER_DEADLINE) {
            return Err(Dead::NoAnswer);
        }
        let due = |at: &mut Option<Instant>| at.take_if(|at| *at <= now).is_some();
        let mut orders = Vec::new();
        for room in &mut self.rooms {
            due(&mut room.say_at);
            if due(&mut room.join_at) {
                orders.push(Command::Join { room: room.name.clone() });
            }
            if due(&mut room.roster.ask_at) {
                orders.push(Command::Who { room: room.name.clone(), asked: false });
            }
        }
        for order in orders {
            self.order(order);
        }
        self.fail_the_unfit(now);
        Ok(std::mem::take(&mut self.news))
    }

    /// The next frame to send, if one may go now.
    pub fn next(&mut self, now: Instant) -> Option<String> {
        if !self.open || self.free_at(now)? > now {
            return None;
        }
        if let Some(command) = self.orders.pop_front() {
            return Some(self.write(command, now));
        }
        if let Some(place) = self.next_say(now) {
            return self.write_say(place, now);
        }
        let room = self.types.take()?;
        self.typed_at = Some(now);
        self.pace.take(self.unanswered.len(), now);
        Some(json!({"type": "typing", "room": room}).to_string())
    }

    /// When something may be sent; `None`: after an answer.
    fn free_at(&self, now: Instant) -> Option<Instant> {
        let free = self.pace.free_at(self.unanswered.len(), now)?;
        Some(self.held_until.map_or(free, |held| held.max(free)))
    }

    fn write(&mut self, command: Command, now: Instant) -> String {
        let reference = self.answerable(Some(command.clone()), now);
        let frame = match command {
            Command::Join { room } => {
                let known = self.rooms.iter_mut().find(|known| known.name == room);
                let (after, last) = known.map_or((None, 0), |known| {
                    known.awaiting = Some(reference);
                    (known.position.clone(), known.last)
                });
                json!({"type": "join", "room": room, "after": after, "last": last, "ref": reference})
            }
            Command::Leave { room } => json!({"type": "leave", "room": room, "ref": reference}),
            Command::Who { room, .. } => json!({"type": "who", "room": room, "ref": reference}),
            Command::History { room, before, limit } => {
                json!({"type": "history", "room": room, "before": before, "limit": limit, "ref": reference})
            }
        };
        frame.to_string()
    }

    fn write_say(&mut self, place: usize, now: Instant) -> Option<String> {
        let reference = self.answerable(None, now);
        let Say { room, id, text, .. } = self.outbox.send(place, now)?;
        if let Some(unanswered) = self.unanswered.get_mut(&reference) {
            unanswered.say = Some(*id);
        }
        Some(json!({"type": "say", "room": room, "id": id, "text": text, "ref": reference}).to_string())
    }

    fn answerable(&mut self, command: Option<Command>, now: Instant) -> u64 {
        self.pace.take(self.unanswered.len(), now);
        self.reference += 1;
        self.unanswered.insert(self.reference, Unanswered { at: now, command, say: None });
        self.reference
    }

    /// Without a connection a command is not sent: each connection begins with its own.
    fn order(&mut self, command: Command) {
        if self.open {
            self.orders.push_back(command);
        }
    }

    // --- What the hall says ---

    fn welcomed(&mut self, welcome: Welcome, now: Instant) {
        let Welcome { user, beat, rooms, limits } = welcome;
        if self.open {
            return; // one is enough
        }
        self.open = true;
        self.pace = Pace::new(limits.rate, limits.burst, now);
        self.limits = limits;
        let beat = (beat > 0.0 && beat <= BEAT_MOST).then_some(beat);
        self.beat = beat.map(|beat| Duration::from_secs_f64(beat * DEAD_BEATS));
        let another = self.me.as_ref().is_some_and(|me| me.id != user.id);
        self.me = Some(user.clone());
        let rooms = rooms.into_iter().filter(|room| RoomName::parse(room).is_some()).collect();
        self.news.push(News::Welcome { me: user, rooms });
        if another {
            // A new token may be another person's, who said nothing of what waits.
            for say in self.outbox.take_all() {
                self.fail(say, &Refused::ours("other_user", "it was said by somebody else, who is no longer here"));
            }
        }
        for index in 0..self.rooms.len() {
            let room = self.rooms[index].name.clone();
            self.order(Command::Join { room });
        }
    }

    fn take(&mut self, frame: Frame, reference: Option<u64>, command: Option<Command>, now: Instant) {
        match frame {
            Frame::Joined(joined) => self.joined(joined, reference, now),
            Frame::Message(message) => self.message(message),
            Frame::Stored { room, offset } => self.moved_to(&room, offset, None),
            Frame::Gap(gap) => self.gap(&gap),
            Frame::Accepted(accepted) => self.accepted(accepted),
            Frame::Members(members) => self.members(members, command, now),
            Frame::Presence(presence) => self.presence(presence, now),
            Frame::History(history) => {
                self.news.push(News::History { room: history.room, messages: history.messages, more: history.more });
            }
            Frame::Typing { room, from } => {
                let own = self.me.as_ref().is_some_and(|me| me.id == from.id);
                self.news.push(if own { News::Event } else { News::Typing { room, name: from.name } });
            }
            Frame::Left { room } => self.news.push(News::Left { room }),
            Frame::Reconnect { after_ms } => {
                self.news.push(News::Leaving { after: Duration::from_millis(after_ms.min(600_000)) });
            }
            Frame::Welcome(_) | Frame::Error(_) | Frame::Other => {}
        }
    }

    fn joined(&mut self, joined: Joined, reference: Option<u64>, now: Instant) {
        let Some(room) = self.rooms.iter_mut().find(|room| room.name == joined.room) else { return };
        // While a join of ours is on its way, an unasked one belongs to the membership before it.
        let meant = match room.awaiting {
            None => room.joined,
            awaiting => awaiting == reference,
        };
        if !meant {
            return;
        }
        let again = room.position.is_some();
        let offset = joined.offset - joined.backlog;
        room.position = Some(Position { epoch: joined.epoch, offset });
        (room.awaiting, room.joined, room.until, room.caught_up) = (None, true, joined.offset, false);
        if self.lists {
            room.roster.counted(joined.members);
            room.roster.ask(again, now);
        }
        self.news.push(News::Joined { room: joined.room.clone(), recovered: joined.recovered });
        self.tell_people(&joined.room);
        self.look_whether_caught_up(&joined.room);
    }

    fn message(&mut self, message: Message) {
        let room = message.room.clone();
        let offset = message.offset;
        self.moved_to(&room, offset, Some(message));
    }

    /// A room's log went on to `offset`, and said this.
    fn moved_to(&mut self, name: &str, offset: Offset, message: Option<Message>) {
        let Some(room) = self.rooms.iter_mut().find(|room| room.name == name && room.joined) else { return };
        let Some(position) = room.position.as_mut().filter(|position| offset > position.offset) else { return };
        let missing = offset - position.offset - 1;
        position.offset = offset;
        let epoch = position.epoch.clone();
        if missing > 0 {
            // The hall promises that this cannot happen. Should it, then not silently.
            self.news.push(News::Lost { room: name.into(), count: missing });
        }
        match message {
            None => self.news.push(News::Event),
            Some(message) => {
                let own = self.me.as_ref().is_some_and(|me| me.id == message.from.id);
                let id = message.id;
                self.news.push(News::Said { message, own });
                if own {
                    self.accepted(Accepted { room: name.into(), id, epoch, offset });
                }
            }
        }
        self.look_whether_caught_up(name);
    }

    fn gap(&mut self, gap: &Gap) {
        let Some(room) = self.rooms.iter_mut().find(|room| room.name == gap.room && room.joined) else { return };
        let Some(position) = room.position.as_mut().filter(|position| gap.to > position.offset) else { return };
        let count = gap.to - position.offset;
        *position = Position { epoch: gap.epoch.clone(), offset: gap.to };
        self.news.push(News::Lost { room: gap.room.clone(), count });
        self.look_whether_caught_up(&gap.room);
    }

    fn look_whether_caught_up(&mut self, name: &str) {
        let Some(room) = self.rooms.iter_mut().find(|room| room.name == name) else { return };
        if !room.caught_up && room.position.as_ref().is_some_and(|position| position.offset >= room.until) {
            room.caught_up = true;
            self.news.push(News::CaughtUp { room: name.into() });
        }
    }

    /// By the hall's word, or since we heard it ourselves.
    fn accepted(&mut self, accepted: Accepted) {
        if let Some(say) = self.outbox.take(accepted.id) {
            self.news.push(News::Accepted { tag: say.tag, accepted });
        }
    }

    fn refused(&mut self, refusal: Refusal, reference: Option<u64>, command: Option<Command>, now: Instant) {
        let wait = retry_after(refusal.retry_after_ms);
        let passing = matches!(refusal.code.as_str(), "unavailable" | "rate_limited");
        if refusal.code == "rate_limited" {
            self.held_until = Some(now + wait);
        }
        let why = Refused { code: refusal.code, words: refusal.message };
        match refusal.id {
            Some(id) if passing => {
                if let Some(room) = self.outbox.again(id) {
                    let room = self.rooms.iter_mut().find(|known| known.name == room && why.code != "rate_limited");
                    return room.into_iter().for_each(|room| room.say_at = Some(now + wait));
                }
            }
            Some(id) => {
                if let Some(Say { tag, text, .. }) = self.outbox.take(id) {
                    return self.news.push(News::Failed { tag, text, why, in_doubt: false });
                }
            }
            None => {}
        }
        let joining = self.rooms.iter().position(|room| room.awaiting.is_some() && room.awaiting == reference);
        match (joining, command) {
            (Some(index), _) if passing => {
                // Everybody in this room was told the same moment: spread a little.
                let room = &mut self.rooms[index];
                room.awaiting = None;
                room.join_at = Some(now + wait.mul_f64(1.0 + rand::random::<f64>() / 5.0));
            }
            (Some(index), _) => {
                let room = self.rooms[index].name.clone();
                self.forget(&room, &why);
                self.news.push(News::Closed { room, why });
            }
            // Who is not in it has left it; else it is tried again, unless we want to be there again.
            (None, Some(Command::Leave { room })) => {
                if passing && !self.rooms.iter().any(|known| known.name == room) {
                    self.order(Command::Leave { room });
                }
            }
            (None, Some(Command::Who { room, asked: false })) => self.ask_again(&room, now),
            (None, _) => self.news.push(News::Refused(why)),
        }
    }

    // --- Our messages ---

    /// The first message that can go now: the oldest of its room, where none is under way.
    fn next_say(&self, now: Instant) -> Option<usize> {
        let ready = |room: &&Room| room.caught_up && room.say_at.is_none_or(|at| at <= now);
        self.rooms.iter().filter(ready).filter_map(|room| self.outbox.next(&room.name)).min()
    }

    /// What could not be sent safely, or never could, is told to be so.
    fn fail_the_unfit(&mut self, now: Instant) {
        let dedupe = self.limits.dedupe_s.filter(|dedupe_s| (0.0..1e9).contains(dedupe_s)).map(Duration::from_secs_f64);
        let most = self.limits.text_bytes.unwrap_or(usize::MAX);
        let rooms = &self.rooms;
        // What the backlog has in it was accepted, however long ago it was sent.
        let known = |name: &str| rooms.iter().any(|room| room.name == name && room.caught_up);
        for (say, why) in self.outbox.take_unfit(dedupe, most, known, now) {
            self.fail(say, &why);
        }
    }

    fn fail(&mut self, say: Say, why: &Refused) {
        let in_doubt = say.may_be_stored();
        self.news.push(News::Failed { tag: say.tag, text: say.text, why: why.clone(), in_doubt });
    }

    /// Forgets a room, and what was to be said in it.
    fn forget(&mut self, room: &str, why: &Refused) {
        self.rooms.retain(|known| known.name != room);
        self.orders.retain(|order| order.room() != room);
        for say in self.outbox.take_room(room) {
            self.fail(say, why);
        }
    }

    // --- Who is here ---

    fn members(&mut self, members: Members, command: Option<Command>, now: Instant) {
        let Members { room, count, members } = members;
        let names = members.iter().map(|user| user.name.clone()).collect();
        let asked = matches!(command, Some(Command::Who { asked: true, .. }));
        self.news.push(if asked { News::Members { room: room.clone(), count, names } } else { News::Event });
        if let Some(known) = self.rooms.iter_mut().find(|known| known.name == room && self.lists) {
            known.roster.listed(count, members, now);
            self.tell_people(&room);
        }
    }

    fn presence(&mut self, presence: Presence, now: Instant) {
        self.news.push(News::Event);
        let Some(room) = self.rooms.iter_mut().find(|room| room.name == presence.room && self.lists) else { return };
        room.roster.changed(presence.count, presence.joined.zip(presence.left), now);
        self.tell_people(&presence.room);
    }

    fn ask_again(&mut self, name: &str, now: Instant) {
        if let Some(room) = self.rooms.iter_mut().find(|room| room.name == name) {
            room.roster.missed(now);
        }
    }

    fn tell_people(&mut self, name: &str) {
        let Some(room) = self.rooms.iter().find(|room| room.name == name && self.lists) else { return };
        let names = room.roster.names().map(str::to_owned).collect();
        self.news.push(News::People { room: name.into(), count: room.roster.count, names });
    }
}

impl Room {
    /// What a room was on a connection ends with it.
    fn rest(&mut self) {
        (self.joined, self.caught_up) = (false, false);
        (self.awaiting, self.join_at, self.say_at) = (None, None, None);
        self.roster.ask_at = None;
    }
}

fn retry_after(ms: Option<u64>) -> Duration {
    ms.map_or(RETRY, Duration::from_millis).clamp(RETRY_LEAST, RETRY_MOST)
}

#[cfg(test)]
mod tests;
