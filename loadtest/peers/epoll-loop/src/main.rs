//! The limit to compare with: one thread and one epoll that lets clients in and then sends the same bytes to all of them,
//! in turn. No queue, no room, no publisher, no allocation per client: what is left is the price of `send` itself.
//!
//! It speaks as much of `townhall.v1` as the load generator needs to judge it. Once `--clients` have joined it waits a
//! second, so that the generator has begun to measure, and speaks for `--seconds`: flat out, `--frames-per-write` messages in each
//! call, or at `--rate` messages a second with a call for each. A batch is made once and shared; that costs a delivery a
//! thousandth of a message's making. The sockets stay open until the clients go.

mod client;
mod frames;

use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use mio::event::Event;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use client::{Client, Gone};
use frames::Messages;

/// A bare epoll loop that sends the same bytes to every client
#[derive(Debug, Parser)]
struct Options {
    /// Where to listen
    address: std::net::SocketAddr,
    /// Speak when so many have joined
    #[arg(long)]
    clients: usize,
    /// How many messages go out with one call, flat out
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    frames_per_write: u32,
    /// Messages a second, each with a call of its own; without it, flat out
    #[arg(long)]
    rate: Option<f64>,
    /// For how long to speak
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Bytes of text of a message
    #[arg(long, default_value_t = 120)]
    size: usize,
}

/// Between the last client's joining and the first message: the generator looks only ten times a second.
const PAUSE: Duration = Duration::from_secs(1);
const LISTENER: Token = Token(usize::MAX);

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    // Refused where this process may not raise it: then there is room for as many as there is.
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let mut hall = Hall::open(options.address)?;
    let room = hall.gather(options.clients)?;
    hall.wait_until(Instant::now() + PAUSE)?;
    let mut messages = Messages::new(room, options.size);
    let end = Instant::now() + Duration::from_secs_f64(options.seconds);
    match options.rate {
        Some(rate) => hall.paced(&mut messages, rate, end)?,
        None => hall.flat_out(&mut messages, options.frames_per_write, end)?,
    }
    while hall.is_open() {
        hall.look(None)?;
    }
    Ok(())
}

struct Hall {
    poll: Poll,
    events: Events,
    listener: TcpListener,
    /// By their token; those who left are `None`.
    clients: Vec<Option<Client>>,
    joined: usize,
}

impl Hall {
    fn open(address: std::net::SocketAddr) -> anyhow::Result<Self> {
        let poll = Poll::new()?;
        let mut listener = TcpListener::bind(address).with_context(|| format!("cannot listen at {address}"))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Hall { poll, events: Events::with_capacity(4096), listener, clients: Vec::new(), joined: 0 })
    }

    /// Lets clients in until so many have joined. Returns the room that they named.
    fn gather(&mut self, clients: usize) -> anyhow::Result<String> {
        while self.joined < clients {
            self.look(None)?;
        }
        let joined = self.clients.iter().flatten().find_map(|client| client.room().map(str::to_owned));
        joined.context("everybody left before the first message")
    }

    fn is_open(&self) -> bool {
        self.clients.iter().any(Option::is_some)
    }

    /// Waits for something to happen, at most so long, and serves it.
    fn look(&mut self, patience: Option<Duration>) -> anyhow::Result<()> {
        match self.poll.poll(&mut self.events, patience) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                LISTENER => self.accept()?,
                Token(number) => self.serve(number, event),
            }
        }
        self.events = events;
        Ok(())
    }

    fn wait_until(&mut self, time: Instant) -> anyhow::Result<()> {
        loop {
            let left = time.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.look(Some(left))?;
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            socket.set_nodelay(true)?;
            let token = Token(self.clients.len());
            self.poll.registry().register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
            self.clients.push(Some(Client::new(socket)));
        }
    }

    fn serve(&mut self, number: usize, event: &Event) {
        let Some(client) = &mut self.clients[number] else {
            return;
        };
        let was_in = client.room().is_some();
        let served = if event.is_readable() { client.read() } else { Ok(()) };
        let is_in = client.room().is_some();
        self.joined += usize::from(is_in && !was_in);
        if let Err(Gone) = served {
            self.clients[number] = None;
        }
    }

    /// Batch after batch, each to all.
    fn flat_out(&mut self, messages: &mut Messages, frames_per_write: u32, end: Instant) -> anyhow::Result<()> {
        while Instant::now() < end {
            let batch = messages.batch(frames_per_write);
            self.send(batch)?;
        }
        Ok(())
    }

    /// One message at a time, when it is due.
    fn paced(&mut self, messages: &mut Messages, rate: f64, end: Instant) -> anyhow::Result<()> {
        let began = Instant::now();
        for number in 0_u32.. {
            let due = began + Duration::from_secs_f64(f64::from(number) / rate);
            if due.max(Instant::now()) >= end {
                break;
            }
            self.wait_until(due)?;
            let message = messages.batch(1);
            self.send(message)?;
        }
        Ok(())
    }

    /// Sends the same bytes to every client in turn. Whoever takes only part gets the rest when its socket takes more; the
    /// next batch waits for that, so nobody needs a queue.
    fn send(&mut self, batch: &[u8]) -> anyhow::Result<()> {
        let mut late = Vec::new();
        for (number, client) in self.clients.iter_mut().enumerate() {
            match client.as_mut().map(|client| client.send(batch)) {
                Some(Ok(sent)) if sent < batch.len() => late.push((number, sent)),
                Some(Err(Gone)) => *client = None,
                _ => {}
            }
        }
        while !late.is_empty() {
            self.look(None)?;
            late.retain_mut(|(number, sent)| {
                match self.clients[*number].as_mut().map(|client| client.send(&batch[*sent..])) {
                    Some(Ok(more)) => {
                        *sent += more;
                        *sent < batch.len()
                    }
                    _ => {
                        self.clients[*number] = None;
                        false
                    }
                }
            });
        }
        Ok(())
    }
}
