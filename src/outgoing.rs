//! What one connection is still to be sent, and who writes it.
//!
//! A connection has no queue: it has a cursor per joined room, and a small outbox for what concerns it alone. Exactly one of
//! two writes to its socket: the delivery loop while the connection is up to date, or the connection's own task while there
//! is anything else to do (replies, catching up, a full socket, closing). [`State::owner`] says which; it changes under
//! the lock that is held for the write, which never waits.
//!
//! Why no message falls between the two: the task gives the connection to the loop only when, under the lock, its cursors
//! are at the ends of their logs. Whatever is appended later rings the room's bell later, and the loop serves it. A pass
//! that had begun before finds the cursor at or beyond the end of its snapshot.
//!
//! Frames never tear: a cursor is always between two records. What a socket did not take of a record is kept in
//! [`State::unfinished`] and goes out before anything else.

use std::io::{self, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::encoding::Encoding;
use crate::log::{Batch, Seq};
use crate::metrics::METRICS;
use crate::names::RoomName;
use crate::pages::{Page, Part};
use crate::position::{Offset, Position};
use crate::room::{Membership, Place, Room};

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
    /// Wakes the connection's task when it has become the owner.
    wake: Notify,
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
    /// When something was written last that a page can see: no control frame.
    spoke_at: Instant,
    /// The socket is broken.
    broken: bool,
}

/// How far a connection is in a room.
#[derive(Debug)]
struct Cursor {
    membership: Membership,
    /// The next record; `None`: it is before the window.
    seq: Option<Seq>,
    /// The epoch that the client was told, and the offset up to which it has everything.
    position: Position,
    generation: u32,
    /// What it reads while it is before the window.
    page: Option<Arc<Page>>,
}

/// What the loop wrote to one connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Served {
    pub records: u64,
    pub bytes: u64,
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
            spoke_at: Instant::now(),
            broken: false,
        };
        Outgoing { id: ConnectionId::next(), encoding, socket, state: Mutex::new(state), wake: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// Waits until the task has something to write.
    pub async fn woken(&self) {
        self.wake.notified().await;
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
    pub fn serve(&self, room: &Arc<Room>, news: &Batch, whole: &[IoSlice<'_>], now: Instant) -> Served {
        let mut state = self.state();
        match state.owner {
            Owner::Loop => {}
            Owner::Task => return Served::default(),
            Owner::WaitingTask => {
                self.hand_to_task(&mut state);
                return Served::default();
            }
        }
        let Some(cursor) = state.cursors.iter_mut().find(|cursor| Arc::ptr_eq(cursor.membership.room(), room)) else {
            return Served::default();
        };
        let seq = match cursor.seq {
            Some(seq) if cursor.generation == news.generation && seq >= news.from => seq,
            _ => {
                self.hand_to_task(&mut state);
                return Served::default();
            }
        };
        if seq >= news.to {
            return Served::default();
        }
        let written = if seq == news.from {
            cursor.write(&self.socket, news, self.encoding, seq, whole)
        } else {
            let slices = news.slices(self.encoding, seq);
            let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
            cursor.write(&self.socket, news, self.encoding, seq, &slices)
        };
        self.after_write(&mut state, written, now)
    }

    fn after_write(&self, state: &mut State, written: io::Result<CursorWrite>, now: Instant) -> Served {
        match written {
            Ok(written) => {
                state.spoke_at = now;
                let served = Served { records: written.records, bytes: written.bytes };
                if !written.complete {
                    state.unfinished = written.rest;
                    self.hand_to_task(state);
                }
                served
            }
            Err(error) => {
                state.broken |= error.kind() != io::ErrorKind::WouldBlock;
                self.hand_to_task(state);
                Served::default()
            }
        }
    }

    fn hand_to_task(&self, state: &mut State) {
        state.owner = Owner::Task;
        self.wake.notify_one();
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
    pub fn place(&self, membership: Membership, place: Place, tell: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        state.owner = Owner::Task;
        let offset = place.joined.from();
        let cursor = Cursor {
            seq: place.seq,
            position: Position { epoch: place.joined.epoch, offset },
            generation: place.generation,
            page: None,
            membership,
        };
        match state.cursors.iter_mut().find(|old| old.membership.room().name == cursor.membership.room().name) {
            Some(old) => *old = cursor,
            None => state.cursors.push(cursor),
        }
        tell(&mut state.outbox);
    }

    /// Takes the client out of a room; nothing of it follows what `tell` writes.
    pub fn leave(&self, room: &RoomName, tell: impl FnOnce(&mut Vec<u8>)) -> Option<Membership> {
        let mut state = self.state();
        state.owner = Owner::Task;
        let index = state.cursors.iter().position(|cursor| cursor.membership.room().name == *room);
        tell(&mut state.outbox);
        index.map(|index| state.cursors.swap_remove(index).membership)
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
            Flushed::UpToDate => state.owner = Owner::Loop,
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
    records: u64,
    bytes: u64,
    complete: bool,
    rest: Bytes,
}

impl State {
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
                None => {
                    self.let_pages_go();
                    Step::Full
                }
            });
        }
        self.step_rooms(socket, encoding)
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
                    METRICS.deliveries.at(encoding).increment(part.records);
                    self.unfinished = part.bytes;
                    self.spoke_at = Instant::now();
                    self.turn = index + 1;
                    return Ok(Step::Wrote(0));
                }
                Next::News(news, seq) => {
                    self.turn = index + 1;
                    return self.write_news(index, &news, seq, socket, encoding);
                }
            }
        }
        Ok(Step::Ended(match missing {
            Some((room, offset)) => Flushed::Missing(room, offset),
            None => Flushed::UpToDate,
        }))
    }

    /// The socket takes no more, perhaps for long. A page is not kept for it alone: there can be thousands of such sockets,
    /// each at another page. It is asked for again when its turn comes.
    fn let_pages_go(&mut self) {
        for cursor in &mut self.cursors {
            cursor.page = None;
        }
        if !self.unfinished.is_unique() {
            self.unfinished = Bytes::copy_from_slice(&self.unfinished);
        }
    }

    fn write_news(
        &mut self,
        index: usize,
        news: &Batch,
        seq: Seq,
        socket: &TcpStream,
        encoding: Encoding,
    ) -> io::Result<Step> {
        let slices = news.slices(encoding, seq);
        let slices: Vec<_> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        let Some(written) = full_is_none(self.cursors[index].write(socket, news, encoding, seq, &slices))? else {
            return Ok(Step::Full);
        };
        METRICS.deliveries.at(encoding).increment(written.records);
        self.spoke_at = Instant::now();
        self.unfinished = written.rest;
        Ok(Step::Wrote(written.bytes as usize))
    }
}

/// What a cursor has to write.
enum Next {
    Nothing,
    News(Batch, Seq),
    Page(Part),
    Missing,
    Forked,
}

impl Cursor {
    fn next(&mut self, encoding: Encoding) -> Next {
        let (generation, position) = (self.generation, &self.position);
        let mut seq = self.seq;
        let news = self.membership.room().with_log(|log| {
            if log.generation() != generation {
                return Err(Next::Forked);
            }
            if seq.is_none_or(|seq| log.since(seq, encoding).is_none()) {
                seq = log.place(position.offset, encoding);
            }
            Ok(seq.and_then(|seq| log.since(seq, encoding)))
        });
        self.seq = seq;
        match (news, seq) {
            (Err(next), _) => next,
            (Ok(Some(news)), Some(seq)) => {
                self.page = None;
                if news.to == seq { Next::Nothing } else { Next::News(news, seq) }
            }
            _ => match self.page.as_ref().and_then(|page| page.after(self.position.offset, encoding)) {
                Some(part) => Next::Page(part),
                None => {
                    self.page = None;
                    Next::Missing
                }
            },
        }
    }

    /// Writes `slices`, which are `news` from `seq` on, and moves.
    fn write(
        &mut self,
        socket: &TcpStream,
        news: &Batch,
        encoding: Encoding,
        seq: Seq,
        slices: &[IoSlice<'_>],
    ) -> io::Result<CursorWrite> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        let count = if total == 0 { 0 } else { socket.try_write_vectored(&slices[..slices.len().min(MAX_SLICES)])? };
        if count == total {
            self.seq = Some(news.to);
            self.position.offset = news.head;
            let records = news.to - seq;
            return Ok(CursorWrite { records, bytes: count as u64, complete: true, rest: Bytes::new() });
        }
        let written = news.written(encoding, seq, count);
        self.seq = Some(written.seq);
        if let Some(offset) = written.offset {
            self.position.offset = offset;
        }
        let records = written.seq - seq;
        Ok(CursorWrite { records, bytes: count as u64, complete: false, rest: written.rest })
    }
}

fn full_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
