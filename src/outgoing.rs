//! What one connection is still to be sent, and who writes it.
//!
//! A connection has no queue: it has a cursor per joined room, and a small outbox for what concerns it alone. Exactly one of
//! two writes to its socket: the delivery loop while the connection is up to date, or the connection's own task while there
//! is anything else to do (replies, catching up, a full socket, closing). [`State::owner`] says which; it changes under
//! the lock that is held for the write, which never waits.
//!
//! Why no message falls between the two: the task gives the connection to the loop only when, under the lock, its cursors
//! are at the ends of their logs. Whatever is appended later rings the room's bell later, and the loop serves it. A pass
//! that had begun before finds the cursor at or beyond the end of its snapshot. A pass that finds the task at work leaves a
//! note, [`State::behind`]; without one the task has no room to look at, however many rooms the client is in.
//!
//! Frames never tear: a cursor is always between two records. What a socket did not take of a record is kept in
//! [`State::unfinished`] and goes out before anything else.
//!
//! Whispers (`whispers.rs`) follow the log: a cursor that is at its end is told those that it has not been told yet, by whoever
//! owns the writing.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use futures::task::AtomicWaker;
use tokio::net::TcpStream;

use crate::attendance::Attendance;
use crate::encoding::Encoding;
use crate::log::{Batch, Seq};
use crate::metrics::{METRICS, Sent};
use crate::names::RoomName;
use crate::pages::{Page, Part};
use crate::position::{Offset, Position};
use crate::room::{Membership, News, Place, Room};
use crate::whispers::Whispered;

/// More than this for a client alone, and nothing more is read from it.
const OUTBOX_BYTES: usize = 64 * 1024;
/// After as many bytes a task lets others have its thread.
const TURN_BYTES: usize = 1024 * 1024;
/// Slices in one write; Linux takes 1024.
const MAX_SLICES: usize = 1024;

/// Names a connection on this node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        ConnectionId(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// Which of `workers` delivery loops serves it.
    pub fn share(self, workers: usize) -> usize {
        (self.0 % workers as u64) as usize
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Outgoing {
    pub id: ConnectionId,
    pub encoding: Encoding,
    socket: TcpStream,
    state: Mutex<State>,
    handed_over: HandedOver,
}

/// Wakes the connection's task when it has become the owner. Smaller than a `Notify`, and so is who waits for it.
#[derive(Debug, Default)]
struct HandedOver {
    is_so: AtomicBool,
    task: AtomicWaker,
}

impl HandedOver {
    fn tell(&self) {
        self.is_so.store(true, Ordering::Release);
        self.task.wake();
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        self.task.register(context.waker());
        if self.is_so.swap(false, Ordering::AcqRel) { Poll::Ready(()) } else { Poll::Pending }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Loop,
    Task,
    /// The task, which waits for a page of history and has nothing else to write: it wants to hear of news.
    WaitingTask,
}

#[derive(Debug)]
struct State {
    owner: Owner,
    unfinished: Bytes,
    outbox: Vec<u8>,
    cursors: Vec<Cursor>,
    /// The cursor whose turn it is.
    turn: usize,
    /// A cursor may not be at the end of its log, and the loop will not see to it.
    behind: bool,
    /// When something was written last that a page can see: no control frame.
    spoke_at: Instant,
    /// The socket is broken.
    broken: bool,
}

/// How far a connection is in a room.
#[derive(Debug)]
struct Cursor {
    membership: Membership,
    attendance: Option<Attendance>,
    /// The next record; `None`: it is before the window.
    seq: Option<Seq>,
    /// The epoch that the client was told, and the offset up to which it has everything.
    position: Position,
    generation: u32,
    /// The next whisper.
    whispers: Seq,
    /// What it reads while it is before the window.
    page: Option<Arc<Page>>,
}

/// How a flush ended.
#[derive(Debug)]
pub enum Flushed {
    /// Up to date; the loop is the owner now.
    UpToDate,
    /// The socket takes no more; `progress`: it took something.
    Full { progress: bool },
    /// There is more, but others shall have their turn.
    Turn,
    /// This room's log is of another epoch than the client was told: place it anew.
    Forked(Membership, Position),
    /// The only thing left to send is what follows this offset, and it is not here.
    Missing(Arc<Room>, Offset),
}

impl Outgoing {
    pub fn new(socket: TcpStream, encoding: Encoding) -> Self {
        let state = State {
            owner: Owner::Task,
            unfinished: Bytes::new(),
            outbox: Vec::new(),
            cursors: Vec::new(),
            turn: 0,
            behind: false,
            spoke_at: Instant::now(),
            broken: false,
        };
        let handed_over = HandedOver::default();
        Outgoing { id: ConnectionId::next(), encoding, socket, state: Mutex::new(state), handed_over }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Whether the task has something to write; wakes it when it has.
    pub fn poll_handed_over(&self, context: &mut Context<'_>) -> Poll<()> {
        self.handed_over.poll(context)
    }

    /// When something was written last that is no control frame.
    pub fn spoke_at(&self) -> Instant {
        self.state().spoke_at
    }

    /// Whether the client has everything of `room` up to `offset`, or is no longer in it.
    pub fn has_received(&self, room: &RoomName, offset: Offset) -> bool {
        let state = self.state();
        let mut cursors = state.cursors.iter();
        let cursor = cursors.find(|cursor| cursor.membership.room().name == *room);
        state.unfinished.is_empty() && cursor.is_none_or(|cursor| cursor.position.offset >= offset)
    }

    // --- the delivery loop's side -----------------------------------------------------------------------------------

    /// Writes what is new in `room`, if that is for the loop to do. `whole`: `news` in this connection's encoding.
    pub fn serve(&self, room: &Arc<Room>, news: &News, whole: &[IoSlice<'_>], now: Instant) -> Sent {
        let mut state = self.state();
        match state.owner {
            Owner::Loop => {}
            Owner::Task => {
                state.behind = true;
                return Sent::default();
            }
            Owner::WaitingTask => {
                self.hand_to_task(&mut state);
                return Sent::default();
            }
        }
        let Some(cursor) = state.cursors.iter_mut().find(|cursor| Arc::ptr_eq(cursor.membership.room(), room)) else {
            return Sent::default();
        };
        let batch = &news.batch;
        let seq = match cursor.seq {
            Some(seq) if cursor.generation == batch.generation && seq >= batch.from => seq,
            _ => {
                self.hand_to_task(&mut state);
                return Sent::default();
            }
        };
        let hears = self.encoding.hears_whispers() && cursor.whispers < news.whispers.to;
        if seq >= batch.to && !hears {
            return Sent::default();
        }
        if hears && (seq > batch.from || cursor.whispers != news.whispers.from) {
            // It has a part of this; the task sees which.
            self.hand_to_task(&mut state);
            return Sent::default();
        }
        let written = if seq == batch.from {
            let whispers = hears.then_some(&news.whispers);
            cursor.write(&self.socket, batch, whispers, self.encoding, seq, whole)
        } else {
            let slices = batch.slices(self.encoding, seq);
            let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            cursor.write(&self.socket, batch, None, self.encoding, seq, &slices)
        };
        self.after_write(&mut state, written, now)
    }

    fn after_write(&self, state: &mut State, written: io::Result<CursorWrite>, now: Instant) -> Sent {
        match written {
            Ok(written) => {
                state.spoke_at = now;
                if !written.complete {
                    state.unfinished = written.rest;
                    self.hand_to_task(state);
                }
                written.sent
            }
            Err(error) => {
                state.broken |= error.kind() != io::ErrorKind::WouldBlock;
                self.hand_to_task(state);
                Sent::default()
            }
        }
    }

    fn hand_to_task(&self, state: &mut State) {
        state.owner = Owner::Task;
        state.behind = true;
        self.handed_over.tell();
    }

    /// Lets the task have a look whether anything was missed.
    pub fn nudge(&self) {
        self.hand_to_task(&mut self.state());
    }

    // --- the task's side --------------------------------------------------------------------------------------------

    /// Adds to what the client alone is told; the task flushes it.
    pub fn tell(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.control(write);
        self.state().spoke_at = Instant::now();
    }

    /// Adds a control frame; the task flushes it.
    pub fn control(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        state.owner = Owner::Task;
        write(&mut state.outbox);
    }

    /// Whether more may be read from the client.
    pub fn has_room(&self) -> bool {
        let state = self.state();
        state.outbox.len() + state.unfinished.len() < OUTBOX_BYTES
    }

    /// Puts the client at a place in a room, in which it may be already, and tells it: nothing of the room comes in between.
    /// `attendance`: `None` where it has one already.
    pub fn place(
        &self,
        membership: Membership,
        attendance: Option<Attendance>,
        place: Place,
        tell: impl FnOnce(&mut Vec<u8>),
    ) {
        let mut state = self.state();
        state.owner = Owner::Task;
        state.behind = true;
        let offset = place.joined.from();
        let mut cursor = Cursor {
            seq: place.seq,
            position: Position { epoch: place.joined.epoch, offset },
            generation: place.generation,
            whispers: place.whispers,
            page: None,
            membership,
            attendance,
        };
        match state.cursors.iter_mut().find(|old| old.membership.room().name == cursor.membership.room().name) {
            Some(old) => {
                cursor.attendance = cursor.attendance.or_else(|| old.attendance.take());
                cursor.whispers = old.whispers;
                *old = cursor;
            }
            None => {
                // Most clients are in one room.
                state.cursors.reserve_exact(1);
                state.cursors.push(cursor);
            }
        }
        tell(&mut state.outbox);
    }

    /// Takes the client out of a room; nothing of it follows what `tell` writes.
    pub fn leave(&self, room: &RoomName, tell: impl FnOnce(&mut Vec<u8>)) -> Option<Membership> {
        let mut state = self.state();
        state.owner = Owner::Task;
        let index = state.cursors.iter().position(|cursor| cursor.membership.room().name == *room);
        tell(&mut state.outbox);
        let cursor = state.cursors.swap_remove(index?);
        if let Some(attendance) = cursor.attendance {
            attendance.leave();
        }
        Some(cursor.membership)
    }

    /// Whether the client is in `room`.
    pub fn is_in(&self, room: &RoomName) -> bool {
        self.state().cursors.iter().any(|cursor| cursor.membership.room().name == *room)
    }

    /// Takes the client out of all rooms.
    pub fn leave_all(&self) -> Vec<Membership> {
        let mut state = self.state();
        state.owner = Owner::Task;
        state.cursors.drain(..).map(|cursor| cursor.membership).collect()
    }

    /// Gives the cursor in `room` a page to read on, if it is of the epoch that the client was told.
    pub fn turn_page(&self, room: &Arc<Room>, page: Arc<Page>) {
        let mut state = self.state();
        let here = |cursor: &&mut Cursor| Arc::ptr_eq(cursor.membership.room(), room);
        if let Some(cursor) = state.cursors.iter_mut().find(here)
            && cursor.position.epoch == page.epoch
        {
            cursor.page = Some(page);
        }
    }

    /// The room's history cannot be read now: others have their turn first.
    pub fn pass_over(&self, room: &Arc<Room>) {
        let mut state = self.state();
        if let Some(index) = state.cursors.iter().position(|cursor| Arc::ptr_eq(cursor.membership.room(), room)) {
            state.turn = index + 1;
        }
    }

    /// Writes what there is, until the socket takes no more or the connection is up to date.
    ///
    /// # Errors
    /// When the socket is broken.
    pub fn flush(&self) -> io::Result<Flushed> {
        let mut state = self.state();
        state.owner = Owner::Task;
        if state.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut sent = 0;
        let ended = loop {
            if sent > TURN_BYTES {
                break Flushed::Turn;
            }
            match state.step(&self.socket, self.encoding)? {
                Step::Wrote(count) => sent += count,
                Step::Full => break Flushed::Full { progress: sent > 0 },
                Step::Ended(flushed) => break flushed,
            }
        };
        if sent > 0 {
            METRICS.sent_bytes.increment(sent as u64);
        }
        match ended {
            Flushed::Full { .. } => state.let_go(),
            Flushed::UpToDate => {
                state.owner = Owner::Loop;
                state.behind = false;
            }
            Flushed::Missing(..) => state.owner = Owner::WaitingTask,
            _ => {}
        }
        Ok(ended)
    }
}

enum Step {
    Wrote(usize),
    Full,
    Ended(Flushed),
}

/// What a cursor wrote.
struct CursorWrite {
    sent: Sent,
    complete: bool,
    rest: Bytes,
}

impl State {
    /// Keeps nothing alive but what is this client's alone: a thousand clients that take nothing may be at a thousand pages.
    fn let_go(&mut self) {
        if !self.unfinished.is_unique() {
            self.unfinished = Bytes::copy_from_slice(&self.unfinished);
        }
        for cursor in &mut self.cursors {
            cursor.page = None;
        }
    }

    /// The next write: what is unfinished, then the outbox, then the rooms in rotation.
    fn step(&mut self, socket: &TcpStream, encoding: Encoding) -> io::Result<Step> {
        if self.unfinished.is_empty() && !self.outbox.is_empty() {
            self.unfinished = std::mem::take(&mut self.outbox).into();
        }
        if !self.unfinished.is_empty() {
            return Ok(match full_is_none(socket.try_write(&self.unfinished))? {
                Some(count) => {
                    self.unfinished = self.unfinished.slice(count..);
                    Step::Wrote(count)
                }
                None => Step::Full,
            });
        }
        if self.behind { self.step_rooms(socket, encoding) } else { Ok(Step::Ended(Flushed::UpToDate)) }
    }

    fn step_rooms(&mut self, socket: &TcpStream, encoding: Encoding) -> io::Result<Step> {
        let rooms = self.cursors.len();
        let mut missing = None;
        for i in 0..rooms {
            let index = (self.turn + i) % rooms;
            let cursor = &mut self.cursors[index];
            match cursor.next(encoding) {
                Next::Nothing => {}
                Next::Forked => {
                    let room = cursor.membership.room().enter();
                    return Ok(Step::Ended(Flushed::Forked(room, cursor.position.clone())));
                }
                Next::Missing => {
                    missing.get_or_insert((cursor.membership.room().clone(), cursor.position.offset));
                }
                Next::Page(part) => {
                    cursor.position.offset = part.through;
                    METRICS.sent(encoding, Sent { writes: 1, records: part.records, bytes: part.bytes.len() as u64 });
                    self.unfinished = part.bytes;
                    self.spoke_at = Instant::now();
                    self.turn = index + 1;
                    return Ok(Step::Wrote(0));
                }
                Next::News(news) => {
                    self.turn = index + 1;
                    return self.write_news(index, &news, socket, encoding);
                }
                Next::Whispers(whispers) => {
                    self.unfinished = whispers.frames.concat().into();
                    self.spoke_at = Instant::now();
                    self.turn = index + 1;
                    return Ok(Step::Wrote(0));
                }
            }
        }
        Ok(Step::Ended(match missing {
            Some((room, offset)) => Flushed::Missing(room, offset),
            None => Flushed::UpToDate,
        }))
    }

    fn write_news(&mut self, index: usize, news: &Batch, socket: &TcpStream, encoding: Encoding) -> io::Result<Step> {
        let slices = news.slices(encoding, news.from);
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let cursor = &mut self.cursors[index];
        let Some(written) = full_is_none(cursor.write(socket, news, None, encoding, news.from, &slices))? else {
            return Ok(Step::Full);
        };
        METRICS.sent(encoding, written.sent);
        self.spoke_at = Instant::now();
        self.unfinished = written.rest;
        Ok(Step::Wrote(written.sent.bytes as usize))
    }
}

/// What a cursor has to write.
enum Next {
    Nothing,
    News(Batch),
    Whispers(Whispered),
    Page(Part),
    Missing,
    Forked,
}

impl Cursor {
    fn next(&mut self, encoding: Encoding) -> Next {
        let (membership, seq) = (&self.membership, &mut self.seq);
        let told = &mut self.whispers;
        let found = membership.room().with_whispers(|log, whispers| {
            if log.generation() != self.generation {
                return Err(Next::Forked);
            }
            if *seq == Some(log.end()) {
                if !encoding.hears_whispers() || *told == whispers.end() {
                    return Err(Next::Nothing);
                }
                let whispered = whispers.since(*told, Instant::now());
                *told = whispered.to;
                return Err(if whispered.frames.is_empty() { Next::Nothing } else { Next::Whispers(whispered) });
            }
            let news = seq.and_then(|seq| log.since(seq, encoding));
            Ok(news.or_else(|| {
                *seq = log.place(self.position.offset, encoding);
                log.since((*seq)?, encoding)
            }))
        });
        match found {
            Err(next) => next,
            Ok(Some(news)) => {
                self.page = None;
                if news.is_empty() { Next::Nothing } else { Next::News(news) }
            }
            Ok(None) => match self.page.as_ref().and_then(|page| page.after(self.position.offset, encoding)) {
                Some(part) => Next::Page(part),
                None => {
                    self.page = None;
                    Next::Missing
                }
            },
        }
    }

    /// Writes `slices`, which are `news` from `seq` on and then `whispers`, and moves.
    fn write(
        &mut self,
        socket: &TcpStream,
        news: &Batch,
        whispers: Option<&Whispered>,
        encoding: Encoding,
        seq: Seq,
        slices: &[IoSlice<'_>],
    ) -> io::Result<CursorWrite> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let count = match slices {
            _ if total == 0 => 0,
            [one] => socket.try_write(one)?, // `send` costs less than `writev`
            many => socket.try_write_vectored(&many[..many.len().min(MAX_SLICES)])?,
        };
        let whispered = whispers.map_or(0, |whispers| whispers.frames.iter().map(Bytes::len).sum());
        if count >= total - whispered {
            self.seq = Some(news.to);
            self.position.offset = news.head;
            let mut rest = Bytes::new();
            if let Some(whispers) = whispers {
                (rest, self.whispers) = whispers.written(count + whispered - total);
            }
            let writes = u64::from(count > 0 && news.to > seq);
            let sent = Sent { writes, records: news.to - seq, bytes: count as u64 };
            return Ok(CursorWrite { sent, complete: count == total, rest });
        }
        let written = news.written(encoding, seq, count);
        self.seq = Some(written.seq);
        if let Some(offset) = written.offset {
            self.position.offset = offset;
        }
        let sent = Sent { writes: 1, records: written.seq - seq, bytes: count as u64 };
        Ok(CursorWrite { sent, complete: false, rest: written.rest })
    }
}

fn full_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
