//! One client: its task reads, asks the session what to do, does it, and writes whatever the delivery loop does not.
//!
//! What was asked of the hub goes on in the background, a bounded number of things at a time (`underway.rs`). A command whose
//! turn has not come is held back, and nothing more is read until it has; meanwhile the clock that looks for the client's
//! signs of life stands still.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::FutureExt;
use futures::future::{BoxFuture, poll_fn};
use serde_json::value::RawValue;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::{debug, info};

use crate::attendance::Attendance;
use crate::auth::{Doorkeeper, Identity, Kind, NotAdmitted};
use crate::broker::{Entry, History};
use crate::clock::{Clock, Times};
use crate::door::{Codec, Incoming, is_farewell, write_close, write_ping, write_pong, write_refusal, write_reply};
use crate::drain::{Leaving, Slot};
use crate::encoding::{Encoding, Event, lost_notice, notice};
use crate::hub::{Entered, Hub};
use crate::metrics::METRICS;
use crate::names::RoomName;
use crate::outgoing::{Flushed, Outgoing};
use crate::pages::Page;
use crate::position::{Offset, Position};
use crate::protocol::{CloseReason, ErrorCode, Ref, Refusal, Reply, Request, Tag};
use crate::room::{Entrance, Membership, Place, Room};
use crate::session::{Action, LOG_IN_FIRST, Session, who_notice};
use crate::underway::{Outcome, UnderWay};

/// Bytes read at a time; connections share the buffer of their thread.
const READ_BYTES: usize = 16 * 1024;
/// For so long a closing connection tries to write what is left, and waits for the client to close.
const GOODBYE: Duration = Duration::from_secs(2);
/// A stranger at the line door has so long to log in: somebody types that.
const LOG_IN: Duration = Duration::from_secs(60);
/// How often a client that is leaving is looked at, whether it has heard its own last message.
const HEARD_POLL: Duration = Duration::from_millis(10);
/// What somebody is told whose token is good for no room.
pub const NO_ROOM: &str = "your token lets you into no room here";
/// How many events are replayed to somebody who could not go on after a fork.
const LAST_AFTER_FORK: u64 = 50;
/// A `history` reply carries fewer messages than asked for rather than more bytes than this.
const HISTORY_BYTES: usize = 256 * 1024;

thread_local! {
    static READ_BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

/// What a connection needs besides its socket.
pub struct Admitted {
    pub session: Session,
    pub hub: Arc<Hub>,
    pub doorkeeper: Doorkeeper,
    pub leaving: Leaving,
    pub times: Times,
    pub peer: SocketAddr,
}

/// See the module's documentation.
pub struct Connection {
    out: Arc<Outgoing>,
    codec: Codec,
    session: Session,
    hub: Arc<Hub>,
    doorkeeper: Doorkeeper,
    leaving: Leaving,
    peer: SocketAddr,
    /// Until when the client may be here, and why no longer.
    may_stay: Option<(Instant, CloseReason)>,
    /// Read, but its turn has not come.
    unread: Vec<u8>,
    held_back: Option<Box<HeldBack>>,
    under_way: UnderWay,
    page: Option<BoxFuture<'static, Fetched>>,
    clock: Clock,
    slot: Option<Slot>,
    /// Nothing more is read; what is under way is finished, until then at most.
    finishing: Option<(CloseReason, Instant)>,
    /// Where the newest message of this client was stored.
    said: Option<(RoomName, Position)>,
}

/// A page of a room's history; `None`: it cannot be read now.
type Fetched = (Arc<Room>, Option<Arc<Page>>);

/// Something that the client said, whose turn has not come.
enum HeldBack {
    /// It was too fast, at a door that refuses nobody for that.
    Until(Instant, Incoming),
    /// Something that is under way must end first.
    Behind(Request),
}

impl Connection {
    pub fn new(out: Outgoing, codec: Codec, admitted: Admitted) -> Self {
        let Admitted { session, hub, doorkeeper, leaving, times, peer } = admitted;
        let may_stay = may_stay(session.identity(), Instant::now());
        let clock = Clock::new(times, out.encoding);
        Connection {
            out: Arc::new(out),
            codec,
            session,
            hub,
            doorkeeper,
            leaving,
            peer,
            may_stay,
            unread: Vec::new(),
            held_back: None,
            under_way: UnderWay::default(),
            page: None,
            clock,
            slot: None,
            finishing: None,
            said: None,
        }
    }

    /// A `townhall.v1` client: told who it is, and in no room yet.
    pub fn welcome(&mut self) {
        let welcome = self.session.welcome();
        self.out.tell(|out| write_reply(&welcome, out));
    }

    /// A client of the line door: in a room from the start, unless it has to log in first.
    pub fn start(&mut self) {
        match self.session.first_room() {
            Some(room) => self.start_in(room, 0),
            None => self.notice(&format!("unauthorized {LOG_IN_FIRST}")),
        }
    }

    /// A client of a door without JSON: in a room from the start.
    pub fn start_in(&mut self, room: RoomName, last: u64) {
        self.join(room, None, last, None, false);
    }

    /// What was read with the handshake.
    pub fn has_read(&mut self, bytes: &[u8]) {
        self.unread = bytes.to_vec();
    }

    /// Serves the client until it leaves or has to. Boxed, since a future holds a second copy of whatever is moved in it.
    pub async fn run(mut self: Box<Self>) {
        let encoding = self.out.encoding;
        METRICS.connections.at(encoding).increment(1.0);
        METRICS.connections_opened.at(encoding).increment(1);
        info!(target: "townhall::door", door = encoding.door(), "A client connected : {}", self.peer);
        self.arm(Instant::now());
        let reason = loop {
            if let Err(reason) = self.step().await {
                break reason;
            }
        };
        let peer = self.peer;
        self.end(reason).await;
        METRICS.closed(encoding, reason);
        info!(target: "townhall::door", door = encoding.door(), reason = reason.label(), "disconnected :{peer}");
    }

    /// One round. The arms: the delivery loop gave the writing back · the socket has something to read · it takes bytes
    /// again · something that was under way has ended · a page of history is here · a clock · the node begins to leave.
    async fn step(&mut self) -> Result<(), CloseReason> {
        self.take_unread()?;
        if self.flush()? {
            tokio::task::yield_now().await;
            return Ok(());
        }
        if !self.unread.is_empty() && self.may_take() {
            // Writing made room for the rest of what was read; no arm would tell of that.
            return Ok(());
        }
        self.finish_if_done()?;
        let may_read = self.may_take() && self.unread.is_empty();
        tokio::select! {
            () = poll_fn(|context| self.out.poll_handed_over(context)) => {}
            ready = poll_fn(|context| self.out.socket().poll_read_ready(context)), if may_read => {
                ready.map_err(|_| CloseReason::Lost)?;
                // Who never stops sending is always readable, and would have the thread alone.
                if self.read()? == READ_BYTES {
                    tokio::task::yield_now().await;
                }
            }
            ready = poll_fn(|context| self.out.socket().poll_write_ready(context)), if self.clock.is_full() => {
                ready.map_err(|_| CloseReason::Lost)?;
            }
            outcome = poll_fn(|context| self.under_way.poll_next(context)) => self.conclude(outcome)?,
            (room, page) = pending(&mut self.page) => {
                self.page = None;
                match page {
                    Some(page) => self.out.turn_page(&room, page),
                    None => self.out.pass_over(&room),
                }
            }
            () = poll_fn(|context| self.clock.poll(context)) => self.tick(Instant::now())?,
            slot = self.leaving.slot(), if self.slot.is_none() => self.leave_at(slot),
        }
        Ok(())
    }

    // --- reading ----------------------------------------------------------------------------------------------------

    /// Whether the next thing that the client says may be looked at. The doors without JSON do one thing after the other:
    /// they repeat by themselves what is retryable, and the order must stay.
    fn may_take(&self) -> bool {
        self.held_back.is_none()
            && self.finishing.is_none()
            && self.out.has_room()
            && (self.out.encoding == Encoding::Json || self.under_way.is_empty())
    }

    /// Reads and takes what there is; how many bytes.
    fn read(&mut self) -> Result<usize, CloseReason> {
        READ_BUFFER.with_borrow_mut(|buffer| match self.out.socket().try_read(buffer) {
            Ok(0) => self.ended().map(|()| 0),
            Ok(count) => {
                METRICS.received_bytes.increment(count as u64);
                self.clock.heard(Instant::now());
                self.take(&mut buffer[..count]).map(|()| count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(_) => Err(CloseReason::Lost),
        })
    }

    /// The client sends nothing more. Who came through a pipe may still want to hear that it was said.
    fn ended(&mut self) -> Result<(), CloseReason> {
        if self.out.encoding != Encoding::Line {
            return Err(CloseReason::Lost);
        }
        if let Some(rest) = self.codec.rest() {
            self.hear(rest, Instant::now())?;
        }
        self.finish(CloseReason::Left, Instant::now() + GOODBYE);
        Ok(())
    }

    fn take_unread(&mut self) -> Result<(), CloseReason> {
        if self.unread.is_empty() || !self.may_take() {
            return Ok(());
        }
        let mut unread = std::mem::take(&mut self.unread);
        self.take(&mut unread)
    }

    fn take(&mut self, mut input: &mut [u8]) -> Result<(), CloseReason> {
        while self.may_take() {
            match self.codec.next(&mut input)? {
                Some(incoming) => self.hear(incoming, Instant::now())?,
                None => return Ok(()),
            }
        }
        self.unread = input.to_vec();
        Ok(())
    }

    /// What the client said.
    fn hear(&mut self, incoming: Incoming, now: Instant) -> Result<(), CloseReason> {
        match incoming {
            Incoming::Ping(payload) => self.out.control(|out| write_pong(&payload, out)),
            Incoming::Pong => {}
            Incoming::Close => return Err(CloseReason::Left),
            Incoming::Text(text) if self.out.encoding == Encoding::Json => self.request(Request::parse(&text), now)?,
            Incoming::Unreadable(code, why) if self.out.encoding == Encoding::Json => {
                self.request(Err(Refusal::new(code, why, Tag::default())), now)?;
            }
            Incoming::Text(_) | Incoming::Unreadable(..) => self.hear_in_turn(incoming, now)?,
        }
        Ok(())
    }

    /// A command of a JSON client.
    fn request(&mut self, parsed: Result<Request, Refusal>, now: Instant) -> Result<(), CloseReason> {
        match parsed {
            Ok(request) if self.under_way.holds_back(&request.command) => {
                self.held_back = Some(Box::new(HeldBack::Behind(request)));
                Ok(())
            }
            parsed => {
                let action = self.session.request(parsed, now);
                self.act(action, now)
            }
        }
    }

    /// Something that came by a door without JSON.
    fn hear_in_turn(&mut self, incoming: Incoming, now: Instant) -> Result<(), CloseReason> {
        if let Err(wait) = self.session.take_turn(now) {
            self.held_back = Some(Box::new(HeldBack::Until(now + wait, incoming)));
            self.clock.wake_by(now + wait);
            return Ok(());
        }
        let action = match (self.out.encoding, incoming) {
            (Encoding::Plain, Incoming::Text(text)) => self.session.text(&text),
            (_, Incoming::Text(line)) => self.session.line(&line),
            (_, Incoming::Unreadable(code, why)) => Action::Refuse(Refusal::new(code, why, Tag::default())),
            (_, Incoming::Ping(_) | Incoming::Pong | Incoming::Close) => Action::Nothing,
        };
        self.act(action, now)
    }

    /// Looks again at what was held back.
    fn take_up(&mut self, now: Instant) -> Result<(), CloseReason> {
        match self.held_back.take().map(|held_back| *held_back) {
            Some(HeldBack::Until(at, incoming)) if now >= at => self.hear_in_turn(incoming, now),
            Some(HeldBack::Behind(request)) => self.request(Ok(request), now),
            waiting => {
                self.held_back = waiting.map(Box::new);
                Ok(())
            }
        }
    }

    // --- doing ------------------------------------------------------------------------------------------------------

    fn act(&mut self, action: Action, now: Instant) -> Result<(), CloseReason> {
        match action {
            Action::Refuse(refusal) => self.refuse(refusal),
            Action::Notice(words) => self.notice(&words),
            Action::Join { room, after, last, reference } => self.join(room, after, last, reference, false),
            Action::Move { room } => self.join(room, None, 0, None, true),
            Action::Leave { room, reference } => self.leave(room, reference),
            Action::Publish { publication, reference } => {
                self.under_way.say(&self.hub, publication, reference, self.out.encoding);
            }
            Action::History { room, before, limit, reference } => {
                self.under_way.history(&self.hub, room, before, limit, reference);
            }
            Action::Who { room, reference } => self.under_way.who(&self.hub, room, reference),
            Action::Typing { room, event } => self.hub.announce_typing(&room, &self.session.user().id, event),
            Action::Renamed(words) => {
                self.hub.renamed(self.session.rooms(), &self.session.member());
                self.notice(&words);
            }
            Action::LogIn(brought) => self.under_way.log_in(&self.doorkeeper, brought, self.peer),
            Action::Close(CloseReason::Left) => self.finish(CloseReason::Left, now + GOODBYE),
            Action::Close(reason) => return Err(reason),
            Action::Nothing => {}
        }
        Ok(())
    }

    fn refuse(&mut self, refusal: Refusal) {
        METRICS.error(refusal.code);
        let encoding = self.out.encoding;
        self.out.tell(|out| write_refusal(refusal, encoding, out));
    }

    fn notice(&mut self, words: &str) {
        let encoding = self.out.encoding;
        self.out.tell(|out| notice(&format!("! {words}"), encoding, out));
    }

    fn join(&mut self, room: RoomName, after: Option<Position>, last: u64, reference: Option<Ref>, moved: bool) {
        let entrance = Entrance { encoding: self.out.encoding, after, last };
        self.under_way.join(&self.hub, room, entrance, self.session.member(), reference, moved);
    }

    fn leave(&mut self, room: RoomName, reference: Option<Ref>) {
        // The page that is awaited may be of this room, and may never come.
        self.page = None;
        self.session.left(&room);
        let left = Reply::Left { room: room.clone(), reference };
        let went = self.out.leave(&room, |out| write_reply(&left, out));
        self.under_way.moved(&self.hub, self.out.clone(), None, went.into_iter().collect());
    }

    /// What was under way has ended.
    fn conclude(&mut self, outcome: Outcome) -> Result<(), CloseReason> {
        match outcome {
            Outcome::Joined { entered, reference, moved } => self.enter(*entered, reference, moved),
            Outcome::NotJoined { room, refusal } => {
                // Who was in already, and only joined again, stays in.
                if !self.out.is_in(&room) {
                    self.session.left(&room);
                }
                self.refuse(refusal);
            }
            Outcome::History { room, reference, history, before, limit } => {
                let reply = history_reply(room, reference, &history, before, limit);
                self.out.tell(|out| write_reply(&reply, out));
            }
            Outcome::Accepted { room, id, reference, position, said_at } => {
                METRICS.publish_seconds.record(said_at.elapsed());
                self.said = Some((room.clone(), position.clone()));
                if self.out.encoding == Encoding::Json {
                    let Position { epoch, offset } = position;
                    let accepted = Reply::Accepted { room, id, reference, epoch, offset };
                    self.out.tell(|out| write_reply(&accepted, out));
                }
            }
            Outcome::Who { room, reference, present } if self.out.encoding == Encoding::Json => {
                let members = Reply::Members { room, reference, count: present.count, members: present.members };
                self.out.tell(|out| write_reply(&members, out));
            }
            Outcome::Who { present, .. } => self.notice(&who_notice(present.count, &present.members)),
            Outcome::LoggedIn(admitted) => self.log_in(*admitted)?,
            Outcome::Refused(refusal) => self.refuse(refusal),
            Outcome::Done => {}
        }
        self.take_up(Instant::now())
    }

    /// Whether the client may come in is known: it goes on where it was, as who it is now.
    fn log_in(&mut self, admitted: Result<Identity, NotAdmitted>) -> Result<(), CloseReason> {
        let now = Instant::now();
        let identity = match admitted {
            Ok(identity) => identity,
            Err(NotAdmitted::Unavailable(words)) => {
                self.refuse(Refusal::new(ErrorCode::Unavailable, words, Tag::default()));
                return Ok(());
            }
            Err(NotAdmitted::Malformed(words) | NotAdmitted::Unauthorized(words)) => {
                debug!(peer = %self.peer, why = words, "not let in");
                let action = self.session.not_logged_in(words);
                if matches!(action, Action::Close(_)) {
                    self.notice("unauthorized too many wrong tokens; good-bye");
                }
                return self.act(action, now);
            }
        };
        // Whose time was over while this was looked at is in all the same.
        if matches!(self.finishing, Some((CloseReason::Unauthorized | CloseReason::TokenExpired, _))) {
            self.finishing = None;
        }
        self.may_stay = may_stay(&identity, now);
        self.clock.wake_by(now);
        self.session.logged_in(identity);
        self.notice(&format!("login you are {}", self.session.user().name));
        let here = self.session.rooms().first().cloned();
        let admits = |room: &RoomName| self.session.identity().rights.admit(room);
        let Some(room) = here.clone().filter(admits).or_else(|| self.session.first_room()) else {
            self.refuse(Refusal::new(ErrorCode::Forbidden, NO_ROOM, Tag::default()));
            return Err(CloseReason::Unauthorized);
        };
        self.join(room, None, 0, None, here.is_some());
        Ok(())
    }

    fn enter(&mut self, entered: Entered, reference: Option<Ref>, moved: bool) {
        let Entered { membership, attendance, place } = entered;
        place.count();
        let room = membership.room().clone();
        let mut went = Vec::new();
        if moved {
            self.page = None;
            for old in self.session.rooms().to_vec() {
                self.session.left(&old);
                went.extend(self.out.leave(&old, |_| {}));
            }
            self.notice(&format!("room you are in {}", room.name));
        }
        self.session.entered(room.name.clone());
        self.put(membership, Some(attendance), place, reference);
        self.under_way.moved(&self.hub, self.out.clone(), Some(room), went);
    }

    /// Places the cursor and tells the client: at a join, at joining again, and after a fork.
    fn put(
        &mut self,
        membership: Membership,
        attendance: Option<Attendance>,
        mut place: Place,
        reference: Option<Ref>,
    ) {
        let encoding = self.out.encoding;
        let lost = place.lost;
        let room = membership.room().name.clone();
        // First from where on it hears who comes and goes, then how many there are: in between nobody gets lost.
        place.whispers = membership.room().with_whispers(|_, whispers| whispers.end());
        let members = if encoding == Encoding::Json { self.hub.count_members(&room) } else { 0 };
        let joined = Reply::Joined { room, reference, joined: place.joined.clone(), members };
        self.out.place(membership, attendance, place, |out| match encoding {
            Encoding::Json => write_reply(&joined, out),
            _ if lost > 0 => lost_notice(lost, encoding, out),
            _ => {}
        });
    }

    // --- writing ----------------------------------------------------------------------------------------------------

    /// Writes what there is. True: others shall have their turn, but there is more.
    fn flush(&mut self) -> Result<bool, CloseReason> {
        loop {
            let flushed = self.out.flush().map_err(|_| CloseReason::Lost)?;
            if !matches!(flushed, Flushed::Full { progress: false }) {
                self.clock.takes_again();
            }
            match flushed {
                Flushed::UpToDate => return Ok(false),
                Flushed::Turn => return Ok(true),
                Flushed::Full { .. } => {
                    self.clock.full(Instant::now());
                    return Ok(false);
                }
                Flushed::Forked(membership, position) => self.place_anew(membership, position),
                Flushed::Missing(room, offset) => {
                    self.fetch(room, offset);
                    return Ok(false);
                }
            }
        }
    }

    fn place_anew(&mut self, membership: Membership, position: Position) {
        self.page = None;
        let entrance = |after| Entrance { encoding: self.out.encoding, after: Some(after), last: LAST_AFTER_FORK };
        let room = membership.room();
        // Who was told that a message is stored has it, as it were: if it is lost, that is told, heard or not.
        let beyond = |said: &Position| said.epoch == position.epoch && said.offset > position.offset;
        let said = self.said.as_ref().filter(|(said_in, said)| *said_in == room.name && beyond(said));
        let lost = said.and_then(|(_, said)| room.place(&entrance(said.clone()), true));
        let lost = lost.filter(|place| place.joined.recovered == Some(false));
        if let Some(place) = lost.or_else(|| room.place(&entrance(position), true)) {
            if place.joined.recovered == Some(false) {
                place.count();
            }
            self.put(membership, None, place, None);
        }
    }

    fn fetch(&mut self, room: Arc<Room>, offset: Offset) {
        if self.page.is_none() {
            let page = self.hub.clone().page(room.clone(), offset);
            self.page = Some(Box::pin(async move { (room, page.await) }));
        }
    }

    // --- clocks -----------------------------------------------------------------------------------------------------

    fn tick(&mut self, now: Instant) -> Result<(), CloseReason> {
        if !self.may_take() && self.has_hung_up() {
            return Err(CloseReason::Lost);
        }
        let due = self.clock.look(now, self.may_take(), self.out.spoke_at())?;
        if due.ping {
            self.out.control(write_ping);
        }
        if due.beat {
            self.out.tell(|out| write_reply(&Reply::Beat {}, out));
        }
        if let Some((reason, until)) = self.finishing
            && now >= until
        {
            return Err(reason);
        }
        if let Some((until, reason)) = self.may_stay
            && self.finishing.is_none()
            && (now >= until || self.has_expired())
        {
            self.may_stay_no_longer(reason, now);
        }
        if let Some(slot) = self.slot
            && self.finishing.is_none()
            && now >= slot.until
        {
            self.finish(CloseReason::Restart, now + GOODBYE);
        }
        self.take_up(now)?;
        self.arm(now);
        Ok(())
    }

    /// Whether the client has closed its end and has nothing more to say, which is not read while something else must end
    /// first. At the line door it may still want to listen.
    fn has_hung_up(&self) -> bool {
        let ready = self.out.socket().ready(Interest::READABLE).now_or_never();
        let closed = matches!(ready, Some(Ok(ready)) if ready.is_read_closed());
        if self.out.encoding == Encoding::Line || !closed || !self.unread.is_empty() {
            return false;
        }
        let mut next = [0];
        match self.out.socket().peek(&mut next).now_or_never() {
            Some(Ok(0)) => true,
            Some(Ok(_)) => is_farewell(next[0]),
            Some(Err(_)) | None => false,
        }
    }

    /// By the clock on the wall, which goes on while a machine sleeps, and may be set right.
    fn has_expired(&self) -> bool {
        self.session.identity().expires.is_some_and(|at| SystemTime::now() >= at)
    }

    fn may_stay_no_longer(&mut self, reason: CloseReason, now: Instant) {
        if self.out.encoding == Encoding::Line {
            let words = match reason {
                CloseReason::Unauthorized => "nobody has logged in for too long; good-bye",
                other => other.code_and_text().1,
            };
            self.notice(&format!("unauthorized {words}"));
        }
        // Nothing is said any more, whatever came before.
        self.held_back = None;
        self.unread = Vec::new();
        self.finish(reason, now + GOODBYE);
    }

    /// Sets the clock to whatever is due first.
    fn arm(&mut self, now: Instant) {
        let turn = match self.held_back.as_deref() {
            Some(HeldBack::Until(at, _)) => Some(*at),
            Some(HeldBack::Behind(_)) | None => None,
        };
        let leaves = match self.finishing {
            Some((_, until)) => [Some(until), None],
            None => [self.slot.map(|slot| slot.until), self.may_stay.map(|(until, _)| until)],
        };
        self.clock.arm(now, self.out.spoke_at(), turn.into_iter().chain(leaves.into_iter().flatten()));
    }

    // --- leaving ----------------------------------------------------------------------------------------------------

    /// The node leaves; this client at its slot.
    fn leave_at(&mut self, slot: Slot) {
        let now = Instant::now();
        let until = if self.out.encoding == Encoding::Json {
            let after_ms = slot.at.saturating_duration_since(now).as_millis() as u64;
            self.out.tell(|out| write_reply(&Reply::Reconnect { after_ms }, out));
            slot.until
        } else {
            slot.at
        };
        self.slot = Some(Slot { until, ..slot });
        self.clock.wake_by(until);
    }

    /// Reads nothing more, and closes when everything under way is done.
    fn finish(&mut self, reason: CloseReason, until: Instant) {
        self.finishing = Some((reason, until));
        self.clock.wake_by(until);
    }

    fn finish_if_done(&mut self) -> Result<(), CloseReason> {
        let Some((reason, _)) = self.finishing else { return Ok(()) };
        let busy = self.held_back.is_some() || !self.under_way.is_empty();
        if busy || self.clock.is_full() || self.page.is_some() {
            return Ok(());
        }
        // Who speaks hears oneself, too; the delivery loop does not tell when it has written that.
        let heard = self.said.as_ref().is_none_or(|(room, said)| self.out.has_received(room, said.offset));
        if heard {
            return Err(reason);
        }
        self.clock.wake_by(Instant::now() + HEARD_POLL);
        Ok(())
    }

    /// Leaves all rooms and says good-bye.
    async fn end(mut self: Box<Self>, reason: CloseReason) {
        self.clock.takes_again();
        self.under_way.give_up().await;
        let worker = self.hub.worker(self.out.id).clone();
        for membership in self.out.leave_all() {
            worker.went(membership.room().clone(), self.out.id).await;
        }
        if reason != CloseReason::Lost {
            let encoding = self.out.encoding;
            self.out.tell(|out| write_close(reason, encoding, out));
            // Boxed, so that those who stay do not carry it.
            let _ = Box::pin(timeout(GOODBYE, say_goodbye(&self.out))).await;
        }
    }
}

/// Tells a `townhall.v1` client why it does not come in: a browser cannot read a refused handshake.
pub async fn turn_away(socket: TcpStream, refusal: Refusal, reason: CloseReason) {
    METRICS.error(refusal.code);
    let out = Outgoing::new(socket, Encoding::Json);
    out.tell(|out| write_refusal(refusal, Encoding::Json, out));
    out.tell(|out| write_close(reason, Encoding::Json, out));
    let _ = timeout(GOODBYE, say_goodbye(&out)).await;
}

/// Until when somebody may be here, and why no longer.
fn may_stay(identity: &Identity, now: Instant) -> Option<(Instant, CloseReason)> {
    match (identity.kind, identity.expires) {
        (Kind::Stranger, _) => Some((now + LOG_IN, CloseReason::Unauthorized)),
        (_, Some(at)) => {
            let left = at.duration_since(SystemTime::now()).unwrap_or_default();
            Some((now.checked_add(left)?, CloseReason::TokenExpired))
        }
        (_, None) => None,
    }
}

/// Writes what is left, then reads until the client has closed, so that it sees the last words.
async fn say_goodbye(out: &Outgoing) -> io::Result<()> {
    while !matches!(out.flush()?, Flushed::UpToDate) {
        out.socket().writable().await?;
    }
    socket2::SockRef::from(out.socket()).shutdown(std::net::Shutdown::Write)?;
    loop {
        out.socket().readable().await?;
        let read = READ_BUFFER.with_borrow_mut(|buffer| out.socket().try_read(buffer));
        match read {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for what there is; for ever where there is nothing.
async fn pending<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The newest messages that fit.
fn history_reply(room: RoomName, reference: Option<Ref>, history: &History, before: Offset, limit: u64) -> Reply {
    let mut messages = VecDeque::new();
    let mut bytes = 0;
    let mut first = before.min(history.head.offset + 1);
    for entry in history.entries.iter().rev().take(limit as usize) {
        let Some(message) = stored_json(&room, entry) else { continue };
        bytes += message.get().len();
        if bytes > HISTORY_BYTES && !messages.is_empty() {
            break;
        }
        messages.push_front(message);
        first = entry.offset;
    }
    let epoch = history.head.lineage.epoch.clone();
    Reply::History { room, reference, epoch, messages: messages.into(), more: first > history.head.oldest }
}

fn stored_json(room: &RoomName, entry: &Entry) -> Option<Box<RawValue>> {
    let mut json = Vec::new();
    Event::parse(entry.event.clone())?.write_json(room, entry.offset, entry.at_ms, &mut json);
    RawValue::from_string(String::from_utf8(json).ok()?).ok()
}
