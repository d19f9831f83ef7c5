//! The crowd: all [listeners](crate::listener) on one thread with one poller and one buffer.
//!
//! A listener shakes hands, joins, and from then on is a socket, a walker and a number. It does not come back when its
//! connection ends, and what it misses then is lost. Pings are answered.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use rustix::io::Errno;
use socket2::{Domain, Socket, Type};
use tokio::sync::watch;
use uuid::Uuid;

use crate::guest::Room;
use crate::listener::{Frame, Listener, Malformed, Walker, Word};
use crate::run::Run;
use crate::standing::{RoomStanding, Standing, TICK};
use crate::tally::Tally;
use crate::wire::{Command, JOIN_REF};
use crate::worker::Phase;

/// Shared by all: what one socket has goes through here before the next is looked at.
const BUFFER: usize = 256 * 1024;
/// Sockets looked at in one go.
const EVENTS: usize = 4096;
/// While messages come, the crowd looks no more often than that. It has no use for a message at once, and whoever looks
/// after every packet spends its processor on looking, and the server's on being waked. In that time not more comes than a
/// socket has room for: at 10,000 messages/s of 300 bytes, 60 KB.
const NAP: Duration = Duration::from_millis(20);

/// An answer to the handshake is not longer than that…
const LONGEST_ANSWER: usize = 16 * 1024;
/// …and comes within that.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

const TEXT: u8 = 0x1;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;

/// All listeners are in the run's first room.
const THE_ROOM: usize = 0;

/// Where a listener is on its way into the room.
#[derive(Debug)]
enum Stage {
    /// Connected or about to be, since then; so much of the answer to the handshake is here.
    Upgrading(Vec<u8>, Duration),
    Inside,
    Gone,
}

#[derive(Debug)]
struct Seat {
    socket: TcpStream,
    stage: Stage,
    walker: Walker,
    listener: Listener,
    /// What the socket has not taken of ours.
    outgoing: Vec<u8>,
}

/// A connection's end, in a few words that are the same for the same kind.
type End = String;

/// The thread's work: every `of`th of the run's listeners from `first` comes in, listens, and is gone when the run is over.
pub fn work(
    first: usize,
    of: usize,
    run: &Run,
    phase: &watch::Receiver<Phase>,
    report: &mut impl FnMut(Standing) -> anyhow::Result<()>,
) -> anyhow::Result<(Tally, Vec<Listener>)> {
    let numbers: Vec<usize> = (first..run.plan.listeners).step_by(of).collect();
    let mut crowd = Crowd {
        poll: Poll::new().context("cannot start a poller")?,
        seats: Vec::with_capacity(numbers.len()),
        numbers,
        gone: 0,
        lost: Vec::new(),
        tally: Tally::new(run.rooms.len()),
        run,
    };
    let mut events = Events::with_capacity(EVENTS);
    let mut buffer = vec![0; BUFFER];
    let mut reported = Instant::now();
    let mut gathering = None;
    loop {
        let now = *phase.borrow();
        if now.is_over() || phase.has_changed().is_err() {
            break;
        }
        let looked = Instant::now();
        if let Phase::Gathering(from) = now {
            gathering = Some(from);
        }
        if let Some(from) = gathering {
            crowd.let_in(from)?;
        }
        match crowd.poll.poll(&mut events, Some(crowd.patience())) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error).context("cannot poll"),
            _ => {}
        }
        for event in &events {
            crowd.serve(event, &mut buffer);
        }
        if reported.elapsed() >= TICK {
            crowd.give_up_on_the_silent();
            report(crowd.standing(matches!(now, Phase::Settling { .. })))?;
            reported = Instant::now();
        }
        if let Phase::Speaking(_) = now {
            thread::sleep(NAP.saturating_sub(looked.elapsed()));
        }
    }
    Ok((crowd.tally, crowd.seats.into_iter().map(|seat| seat.listener).chain(crowd.lost).collect()))
}

struct Crowd<'a> {
    poll: Poll,
    seats: Vec<Seat>,
    /// Of all that come, among the run's listeners.
    numbers: Vec<usize>,
    gone: usize,
    /// Those who could not even connect.
    lost: Vec<Listener>,
    tally: Tally,
    run: &'a Run,
}

impl Crowd<'_> {
    /// Connects whoever's turn it is since the gathering began. Listeners come in beside the clients that read, at the same
    /// rate.
    fn let_in(&mut self, from: Duration) -> anyhow::Result<()> {
        while let Some(&number) = self.numbers.get(self.seats.len())
            && self.run.now() >= from + self.run.plan.turn(number)
        {
            let place = self.seats.len();
            let stage = Stage::Upgrading(Vec::new(), self.run.now());
            let (stage, socket) = match connect(self.run, number) {
                Ok(socket) => (stage, socket),
                Err(error) => {
                    self.tally.refusals += 1;
                    self.tally.end(&error.to_string());
                    self.gone += 1;
                    self.lost.push(Listener::new(number));
                    self.numbers.remove(place);
                    continue;
                }
            };
            let mut socket = socket;
            let both = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().register(&mut socket, Token(place), both).context("cannot poll a socket")?;
            let outgoing = upgrade(self.run, number);
            let walker = Walker::new(self.run.plan.lines, self.run.plan.dialect);
            self.seats.push(Seat { socket, stage, walker, listener: Listener::new(number), outgoing });
        }
        Ok(())
    }

    /// How long to wait for something to happen.
    fn patience(&self) -> Duration {
        if self.seats.len() < self.numbers.len() { NAP } else { TICK }
    }

    fn serve(&mut self, event: &Event, buffer: &mut [u8]) {
        let place = event.token().0;
        let seat = &mut self.seats[place];
        if matches!(seat.stage, Stage::Gone) {
            return;
        }
        if let Err(end) = seat.serve(event, buffer, self.run, &mut self.tally) {
            self.end(place, &end);
        }
    }

    fn give_up_on_the_silent(&mut self) {
        let now = self.run.now();
        for place in 0..self.seats.len() {
            if matches!(&self.seats[place].stage, Stage::Upgrading(_, since) if now > *since + CONNECT_TIMEOUT) {
                self.end(place, "no answer to the handshake");
            }
        }
    }

    fn end(&mut self, place: usize, why: &str) {
        let seat = &mut self.seats[place];
        {
            let was_in = matches!(seat.stage, Stage::Inside);
            self.tally.refusals += u64::from(!was_in);
            self.tally.end(why);
            self.gone += 1;
            seat.stage = Stage::Gone;
            // The socket may have failed already, and then nobody is told of its end.
            let _ = self.poll.registry().deregister(&mut seat.socket);
            let _ = seat.socket.shutdown(std::net::Shutdown::Both);
        }
    }

    fn standing(&self, settling: bool) -> Standing {
        let mut standing = Standing {
            gone: self.gone,
            refusals: self.tally.refusals,
            deliveries: self.tally.deliveries,
            ..Standing::default()
        };
        standing.by_room = settling;
        let room = settling.then_some(THE_ROOM);
        standing.rooms.resize_with(usize::from(settling), RoomStanding::default);
        for seat in &self.seats {
            let is_live = matches!(seat.stage, Stage::Inside) && seat.walker.counts;
            let room = room.filter(|_| !matches!(seat.stage, Stage::Gone)); // it gets nothing more
            standing.add_listener(&seat.listener, is_live, room);
        }
        standing
    }
}

impl Seat {
    fn serve(&mut self, event: &Event, buffer: &mut [u8], run: &Run, tally: &mut Tally) -> Result<(), End> {
        if event.is_error()
            && let Ok(Some(error)) = self.socket.take_error()
        {
            return Err(error.kind().to_string());
        }
        if event.is_writable() && !self.outgoing.is_empty() {
            self.flush()?;
        }
        if !event.is_readable() {
            return Ok(());
        }
        let before = tally.deliveries;
        let read = self.read(event, buffer, run, tally);
        if tally.deliveries > before {
            tally.delivered_at(run.now());
        }
        read
    }

    /// Takes what is there. A read that does not fill the buffer has emptied the socket, and the poller speaks up again; so
    /// one call is enough, unless the end follows.
    fn read(&mut self, event: &Event, buffer: &mut [u8], run: &Run, tally: &mut Tally) -> Result<(), End> {
        loop {
            let length = match self.socket.read(buffer) {
                Ok(0) => return Err("ended without a close frame".to_owned()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.kind().to_string()),
            };
            self.take(&buffer[..length], run, tally)?;
            if length < buffer.len() && !event.is_read_closed() {
                return Ok(());
            }
        }
    }

    fn take(&mut self, bytes: &[u8], run: &Run, tally: &mut Tally) -> Result<(), End> {
        let Stage::Upgrading(answer, _) = &mut self.stage else {
            return self.walk(bytes, run, tally);
        };
        answer.extend_from_slice(bytes);
        if answer.len() > LONGEST_ANSWER {
            return Err("an answer to the handshake that does not end".to_owned());
        }
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
            return Ok(());
        };
        let answer = std::mem::take(answer);
        let status = answer.split(|&byte| byte == b' ').nth(1).unwrap_or_default();
        if status != b"101" {
            return Err(format!("HTTP {}", String::from_utf8_lossy(status)));
        }
        self.stage = Stage::Inside;
        if let Some(opening) = run.plan.dialect.opening() {
            self.send(TEXT, opening.as_bytes())?;
        }
        self.walk(&answer[end + 4..], run, tally)
    }

    fn walk(&mut self, mut bytes: &[u8], run: &Run, tally: &mut Tally) -> Result<(), End> {
        tally.listeners_bytes += bytes.len() as u64;
        while !bytes.is_empty() {
            let (messages, frame) =
                self.walker.walk(&mut bytes).map_err(|Malformed| "sent what is no frame".to_owned())?;
            self.listener.count(messages);
            tally.deliveries += messages;
            if let Some(answer) = self.walker.answer.take() {
                self.send(TEXT, answer.as_bytes())?;
            }
            match frame {
                Some(frame) => self.hear(&frame, run, tally)?,
                None => return Ok(()),
            }
        }
        Ok(())
    }

    fn hear(&mut self, frame: &Frame, run: &Run, tally: &mut Tally) -> Result<(), End> {
        match frame.opcode {
            TEXT if run.plan.lines => {
                frame.payload.split(|&byte| byte == b'\n').try_for_each(|line| self.hear_text(line, run, tally))
            }
            TEXT => self.hear_text(&frame.payload, run, tally),
            PING => self.send(PONG, &frame.payload),
            PONG => Ok(()),
            CLOSE => {
                let code = frame.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                Err(format!("closed {code}"))
            }
            _ => {
                tally.breaches += 1;
                Ok(())
            }
        }
    }

    fn hear_text(&mut self, text: &[u8], run: &Run, tally: &mut Tally) -> Result<(), End> {
        let Ok(text) = std::str::from_utf8(text) else {
            tally.breaches += 1;
            return Ok(());
        };
        let before = self.listener.spot();
        let (room, mut words) = (&run.rooms[THE_ROOM], Vec::new());
        let answer = room.dialect.read(text, &room.name, |heard| words.push(self.listener.hear(heard, &room.name)));
        if let Some(answer) = answer {
            self.send(TEXT, answer.as_bytes())?;
        }
        words.into_iter().try_for_each(|word| self.obey(word, before.is_some(), room, tally))
    }

    /// `was_in`: before this word it was in the room.
    fn obey(&mut self, word: Word, was_in: bool, room: &Room, tally: &mut Tally) -> Result<(), End> {
        match word {
            Word::Welcome => {
                let join = Command::Join { room: &room.name, reference: JOIN_REF, after: None, last: 0 };
                self.send(TEXT, room.dialect.write(&join).as_bytes())?;
            }
            Word::Joined => self.walker.counts = true,
            Word::Message => tally.deliveries += 1,
            Word::Refused(code) => {
                tally.error(&code);
                if !was_in {
                    return Err("the room was refused".to_owned());
                }
            }
            Word::Other => {}
            Word::Breach => tally.breaches += 1,
        }
        Ok(())
    }

    /// A short frame. Its mask is zero, which the protocol allows and which leaves the payload as it is.
    fn send(&mut self, opcode: u8, payload: &[u8]) -> Result<(), End> {
        self.outgoing.push(0x80 | opcode);
        match payload.len() {
            length @ 0..=125 => self.outgoing.push(0x80 | length as u8),
            length => {
                self.outgoing.push(0x80 | 126);
                self.outgoing.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        self.outgoing.extend_from_slice(&[0; 4]);
        self.outgoing.extend_from_slice(payload);
        self.flush()
    }

    fn flush(&mut self) -> Result<(), End> {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(length) => drop(self.outgoing.drain(..length)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.kind().to_string()),
            }
        }
        self.outgoing = Vec::new(); // most listeners never say anything again
        Ok(())
    }
}

/// Listeners are numbered behind the clients that read, for names, targets and sources alike.
fn connect(run: &Run, number: usize) -> std::io::Result<TcpStream> {
    let number = run.plan.readers() + number;
    let address = run.plan.target(number, 0).address;
    let Some(source) = run.plan.source(number) else {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        return Ok(socket);
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    match socket.connect(&address.into()) {
        // Under way; the poller says when it is done, or failed.
        Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// The handshake's request.
fn upgrade(run: &Run, number: usize) -> Vec<u8> {
    let number = run.plan.readers() + number;
    let uri = run.plan.target(number, 0).uri_for(number, Uuid::new_v4(), "");
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let subprotocol = run.plan.dialect.subprotocol();
    let subprotocol = subprotocol.map(|name| format!("Sec-WebSocket-Protocol: {name}\r\n")).unwrap_or_default();
    // Any 16 bytes will do as a key; that the answer to it is right is for the clients that read.
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         {subprotocol}Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
    )
    .into_bytes()
}
