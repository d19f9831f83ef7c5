//! The line door as a client sees it: lines out, lines in. It has no ids, no positions and no resume, so what is promised here
//! is less: one thing is under way at a time, and a message counts as accepted when it comes back. What was under way when the
//! line broke may or may not have been said, and is told to have failed; what waited behind it is said on the next line, in the
//! room that it was meant for, or not at all.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::client::{Dead, News};
use super::frames::{Accepted, Refused};
use super::link::{self, Login};
use super::talk::{End, Happening, Manner, Order, Patience, STABLE, TOLD_AFTER};
use super::trouble::Trouble;
use crate::names::{breaks_lines, turns_direction};
use crate::position::Epoch;

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A door that says nothing for so long to what it was told is none, or its hall stores nothing.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Whoever is so late for that was not running.
const ASLEEP: Duration = Duration::from_secs(2);
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// Lines that are kept until the greetings are answered; more are told to be lost.
const MOST_EARLY: usize = 1000;
/// No hall sends longer lines.
const MOST_BYTES: usize = 256 * 1024;

/// What is to go out. Each is sent when the one before it was answered, so every refusal has one thing that it can mean.
#[derive(Debug)]
enum Item {
    /// `/login` or `/name`, whole.
    Login(String),
    /// Whoever says nothing else first asks for help, since a door that is full, or none, does not give any.
    Help,
    Who,
    Move(String),
    Say(Say),
}

#[derive(Debug)]
struct Say {
    tag: u64,
    /// Where it is meant to be heard; empty: wherever the hall has put us.
    room: String,
    /// What was not accepted yet, each a message here.
    lines: VecDeque<String>,
}

impl Item {
    /// Codes of the notices that answer it well, and that refuse it.
    fn answers(&self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Item::Login(_) => {
                (&["login", "name"], &["bad_name", "forbidden", "rate_limited", "unavailable", "unknown_type"])
            }
            Item::Help => (&["help"], &[]),
            Item::Who => (&["who"], &["not_joined", "rate_limited", "unavailable"]),
            Item::Move(_) => (&["room"], &["bad_room", "forbidden", "rate_limited", "unavailable"]),
            Item::Say(_) => (&[], &["bad_frame", "forbidden", "muted", "not_joined", "too_long", "unavailable"]),
        }
    }

    fn line(&self) -> String {
        match self {
            Item::Login(command) => command.clone(),
            Item::Help => "/help".into(),
            Item::Who => "/who".into(),
            Item::Move(room) => format!("/room {room}"),
            Item::Say(say) => match say.lines.front().map_or("", String::as_str) {
                line if line.starts_with('/') => format!("/{line}"),
                line => line.into(),
            },
        }
    }
}

struct Talker {
    manner: Manner,
    orders: mpsc::UnboundedReceiver<Order>,
    tell: mpsc::Sender<Happening>,
    patience: Patience,
    /// When something was accepted lastly, or nothing was wanted.
    progress: Option<Instant>,
    /// A message was given up since then.
    doubted: bool,
    /// When the line began.
    since: Instant,
    /// What the hall calls us, where it has said so.
    me: Option<String>,
    /// Where the hall has said that we are.
    room: Option<String>,
    queue: VecDeque<Item>,
    /// So many of the first are what every line begins with.
    greetings: usize,
    /// The first was sent, and is not answered.
    under_way: bool,
    /// Lines that came before the greetings were answered, and we were in.
    early: Vec<String>,
    /// So many more came.
    too_early: usize,
}

enum Ending {
    Left,
    Trouble(Trouble),
}

impl From<Trouble> for Ending {
    fn from(trouble: Trouble) -> Self {
        Ending::Trouble(trouble)
    }
}

/// See [`super::talk::Talk::begin`].
pub async fn talk(manner: Manner, orders: mpsc::UnboundedReceiver<Order>, tell: mpsc::Sender<Happening>) {
    let patience = Patience::new(&manner);
    let mut talker = Talker {
        manner,
        orders,
        tell,
        patience,
        progress: None,
        doubted: false,
        since: Instant::now(),
        me: None,
        room: None,
        queue: VecDeque::new(),
        greetings: 0,
        under_way: false,
        early: Vec::new(),
        too_early: 0,
    };
    let end = talker.until_it_is_over().await;
    let _ = talker.abandon(&end).await; // nobody needs to hear it
    let _ = talker.tell.send(Happening::Over(end)).await;
}

impl Talker {
    async fn until_it_is_over(&mut self) -> End {
        loop {
            let trouble = match self.connection().await {
                Ending::Left => return End::Left,
                Ending::Trouble(trouble) => trouble,
            };
            let Some(at) = self.patience.again(&trouble) else { return End::Trouble(trouble) };
            if self.tell(Happening::Down(trouble)).await.is_err() || self.obey_until(sleep_until(at)).await.is_err() {
                return End::Left;
            }
        }
    }

    async fn obey_until<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, Ending> {
        tokio::pin!(awaited);
        loop {
            tokio::select! {
                value = &mut awaited => return Ok(value),
                order = self.orders.recv() => self.obey(order.unwrap_or(Order::Close)).await?,
            }
        }
    }

    async fn connection(&mut self) -> Ending {
        let Manner { address, login, .. } = self.manner.clone();
        let shown = address.to_string();
        let opening = async {
            let token = link::read(login.token.as_ref()).await?;
            let dialed = timeout(CONNECT_DEADLINE, link::dial(address.place(), &shown)).await;
            dialed.unwrap_or_else(|_| Err(Trouble::TimedOut { address: shown.clone() })).map(|stream| (stream, token))
        };
        let (mut stream, token) = match self.obey_until(opening).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(trouble)) => return trouble.into(),
            Err(ending) => return ending,
        };
        self.greet(&login, token);
        self.since = Instant::now();
        let ending = self.serve(&mut stream).await.err().unwrap_or(Ending::Left);
        if self.queue.is_empty() {
            self.wants_nothing();
        }
        if self.greetings == 0 {
            self.patience.had(self.since.elapsed(), self.progress);
        }
        if self.fail_what_was_under_way().await.is_err() {
            return Ending::Left;
        }
        ending
    }

    /// What a new line begins with, before what waits: who we are, and where we were.
    fn greet(&mut self, login: &Login, token: Option<String>) {
        let who = match (&login.name, token) {
            (Some(name), Some(token)) => Some(format!("/login {name} {token}")),
            (None, Some(token)) => Some(format!("/login {token}")),
            (Some(name), None) => Some(format!("/name {name}")),
            (None, None) => None,
        };
        let where_to = self.room.take().map(Item::Move);
        let mut greetings: Vec<Item> = who.map(Item::Login).into_iter().chain(where_to).collect();
        if greetings.is_empty() {
            greetings.push(Item::Help);
        }
        self.early.clear();
        self.too_early = 0;
        self.greetings = greetings.len();
        greetings.into_iter().rev().for_each(|item| self.queue.push_front(item));
        (self.me, self.under_way) = (None, false);
    }

    async fn serve(&mut self, stream: &mut TcpStream) -> Result<(), Ending> {
        let (mut reader, mut writer) = stream.split();
        let mut lines = Lines::default();
        let mut buffer = [0; 8192];
        let (mut answered_by, mut told_at) = (Instant::now() + ANSWER_DEADLINE, Instant::now() + TOLD_AFTER);
        loop {
            if let Some(line) = self.next_line().await? {
                answered_by = Instant::now() + ANSWER_DEADLINE;
                told_at = Instant::now() + TOLD_AFTER;
                let written = timeout(WRITE_DEADLINE, writer.write_all(format!("{line}\n").as_bytes())).await;
                written.unwrap_or_else(|late| Err(late.into())).map_err(broke)?;
            }
            if self.queue.is_empty() {
                self.wants_nothing();
            }
            tokio::select! {
                count = reader.read(&mut buffer) => match count.map_err(broke)? {
                    0 => return Err(self.ended(&lines).into()),
                    count => {
                        for line in lines.take(&buffer[..count]) {
                            self.hear(line).await?;
                        }
                    }
                },
                () = sleep_until(answered_by.min(told_at)), if self.under_way => {
                    let now = Instant::now();
                    if now > answered_by + ASLEEP {
                        answered_by = now + ASLEEP; // who slept has not read what came meanwhile
                    } else if now >= answered_by {
                        return Err(Trouble::Dead(Dead::NoAnswer).into());
                    } else {
                        told_at = answered_by;
                        self.tell(Happening::Stuck).await?;
                    }
                }
                order = self.orders.recv() => match order {
                    None | Some(Order::Close) => {
                        let _ = writer.shutdown().await;
                        return Ok(());
                    }
                    Some(order) => self.obey(order).await?,
                },
            }
        }
    }

    /// Nothing waits. After a message that was given up that is no progress, unless the line holds without one.
    fn wants_nothing(&mut self) {
        if !self.doubted || self.since.elapsed() >= STABLE {
            (self.progress, self.doubted) = (Some(Instant::now()), false);
        }
    }

    /// What goes out next, if nothing is under way.
    async fn next_line(&mut self) -> Result<Option<String>, Ending> {
        let here = self.room.clone().unwrap_or_default();
        // Meant for a room that did not let us in, or that we are put out of: it must not be said in another one.
        while let Some(say) = self.take_first_say(|say| say.room != here).await {
            let why = Refused::ours("not_joined", "you are not in that room");
            self.fail(say, why, false).await?;
        }
        let next = self.queue.front().filter(|_| !self.under_way).map(Item::line);
        self.under_way |= next.is_some();
        Ok(next)
    }

    /// The first thing, where it is a message of this kind that is not under way.
    async fn take_first_say(&mut self, is_it: impl Fn(&Say) -> bool) -> Option<Say> {
        let takes = !self.under_way && matches!(self.queue.front(), Some(Item::Say(say)) if is_it(say));
        match self.queue.pop_front_if(|_| takes) {
            Some(Item::Say(say)) => Some(say),
            _ => None,
        }
    }

    /// The first thing was answered.
    async fn answered(&mut self) -> Result<Option<Item>, Ending> {
        self.under_way = false;
        if self.greetings > 0 {
            self.greetings -= 1;
            if self.greetings == 0 {
                self.tell(Happening::AtTheLine).await?;
                for line in std::mem::take(&mut self.early) {
                    self.tell(Happening::Line(line)).await?;
                }
                if self.too_early > 0 {
                    self.tell(Happening::Line(format!("! gap {} messages lost", self.too_early))).await?;
                }
            }
        }
        Ok(self.queue.pop_front())
    }

    /// A line for whoever listens: in its order, and none before we are in.
    async fn tell_line(&mut self, line: String) -> Result<(), Ending> {
        if self.greetings == 0 {
            return self.tell(Happening::Line(line)).await;
        }
        if line.starts_with("HTTP/1.") {
            let words = "it speaks HTTP".into();
            return Err(Trouble::NoHall { address: self.manner.address.to_string(), words }.into());
        }
        match self.early.len() {
            0..MOST_EARLY => self.early.push(line),
            _ => self.too_early += 1,
        }
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<(), Ending> {
        if self.queue.is_empty() && self.progress.is_some() {
            self.wants_nothing();
        }
        match order {
            Order::Join { room, .. } => self.queue.push_back(Item::Move(room)),
            Order::Say { room, text, tag } => self.say(room, &text, tag).await?,
            Order::Who { .. } => self.queue.push_back(Item::Who),
            Order::Rename { name } => {
                self.queue.push_back(Item::Login(format!("/name {name}")));
                self.manner.login.name = Some(name);
            }
            Order::Leave { .. } | Order::Typing { .. } | Order::History { .. } => {} // there is no such thing here
            Order::Close => return Err(Ending::Left),
        }
        Ok(())
    }

    /// Each of its lines is a message here; the hall drops the same characters, and says nothing to a line without others.
    async fn say(&mut self, room: String, text: &str, tag: u64) -> Result<(), Ending> {
        let text = text.replace(breaks_lines, "\n");
        let is_said = |c: &char| *c == '\t' || !(c.is_control() || turns_direction(*c));
        let clean = |line: &str| line.chars().filter(is_said).collect::<String>();
        let lines: VecDeque<String> = text.lines().map(clean).filter(|line| !line.is_empty()).collect();
        if lines.is_empty() {
            let why = Refused::ours("bad_frame", "there is nothing in it that can be said");
            return self.tell(Happening::News(News::Failed { tag, text, why, in_doubt: false })).await;
        }
        self.queue.push_back(Item::Say(Say { tag, room, lines }));
        Ok(())
    }

    async fn hear(&mut self, line: String) -> Result<(), Ending> {
        if let Some((code, words)) = line.strip_prefix("! ").map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
            let why = Refused { code: code.into(), words: words.into() };
            if code == "unauthorized" && self.manner.login.token.is_some() && words.starts_with("log in first") {
                return Ok(()); // that crossed with our own
            }
            if code == "unauthorized" {
                self.under_way &= self.greetings == 0; // who is not in was not heard; who was in may have been
                return Err(Trouble::Unauthorized { words: why.words }.into());
            }
            if matches!(code, "name" | "login") {
                self.me = line.split_once("you are ").map(|(_, name)| name.to_owned());
            }
            let first = self.queue.front().filter(|_| self.under_way);
            let (well, refused) = first.map_or((&[][..], &[][..]), Item::answers);
            // After a login the hall says where it has put us, which is no answer to where we want to be.
            let elsewhere = matches!(first, Some(Item::Move(room)) if !words.split(' ').any(|word| word == room));
            if well.contains(&code) && !elsewhere {
                return self.went_well(line).await;
            } else if refused.contains(&code) && self.was_refused(why).await? {
                return Ok(());
            }
        } else if self.under_way && self.is_ours(&line) {
            self.accepted().await?;
        }
        self.tell_line(line).await
    }

    /// The hall has done what is under way, and says so.
    async fn went_well(&mut self, line: String) -> Result<(), Ending> {
        let helped = matches!(self.queue.front(), Some(Item::Help));
        if !helped {
            self.tell_line(line).await?;
        }
        if let Some(Item::Move(room)) = self.answered().await? {
            self.room = Some(room);
        }
        Ok(())
    }

    /// What is under way was refused; whether that was told by something else than the hall's line.
    async fn was_refused(&mut self, why: Refused) -> Result<bool, Ending> {
        let for_now = matches!(why.code.as_str(), "rate_limited" | "unavailable");
        if for_now && self.greetings > 0 {
            return Err(self.full(&why.words).into());
        }
        if for_now && matches!(self.queue.front(), Some(Item::Move(_))) {
            // It is asked for again on the next line.
            return Err(Trouble::Refused(Refused { code: "unavailable".into(), ..why }).into());
        }
        match self.answered().await? {
            Some(Item::Say(say)) => self.fail(say, why, false).await?,
            Some(Item::Move(room)) => self.tell(Happening::News(News::Closed { room, why })).await?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether this is what we said: `NAME:TEXT` by the name that the hall told us, or by an address where it told none. Which
    /// one is ours the hall alone knows.
    fn is_ours(&self, line: &str) -> bool {
        let Some(Item::Say(Say { lines, .. })) = self.queue.front() else { return false };
        let text = lines.front().map_or("", String::as_str);
        let name = line.strip_suffix(text).and_then(|line| line.strip_suffix(':'));
        match (&self.me, name) {
            (Some(me), Some(name)) => me == name,
            (None, Some(name)) => name.trim_start_matches('~').parse::<SocketAddr>().is_ok(),
            (_, None) => false,
        }
    }

    /// One line of a message was.
    async fn accepted(&mut self) -> Result<(), Ending> {
        (self.under_way, self.progress, self.doubted) = (false, Some(Instant::now()), false);
        if let Some(Item::Say(say)) = self.queue.front_mut() {
            say.lines.pop_front();
        }
        let Some(say) = self.take_first_say(|say| say.lines.is_empty()).await else { return Ok(()) };
        let accepted = Accepted { room: say.room, id: Uuid::nil(), epoch: Epoch::silent(), offset: 0 };
        self.tell(Happening::News(News::Accepted { tag: say.tag, accepted })).await
    }

    /// What a door says last, where it says that it is full.
    fn ended(&self, lines: &Lines) -> Trouble {
        match lines.last.strip_prefix("! unavailable ") {
            Some(words) => self.full(words),
            None => Trouble::Broke { words: String::new() },
        }
    }

    /// As the other doors say it.
    fn full(&self, words: &str) -> Trouble {
        let (address, words) = (self.manner.address.to_string(), link::first_line(words));
        Trouble::Status { address, status: 503, words, retry_after: None }
    }

    /// The line is gone: what is left is what waits for the next one.
    async fn fail_what_was_under_way(&mut self) -> Result<(), Ending> {
        let was_under_way = std::mem::take(&mut self.under_way);
        let greetings = std::mem::take(&mut self.greetings);
        for greeting in self.queue.drain(..greetings) {
            // Where we were, if we were not there again yet.
            if let Item::Move(room) = greeting {
                self.room = Some(room);
            }
        }
        if was_under_way
            && greetings == 0
            && let Some(say) = self.take_first_say(|_| true).await
        {
            let why = Refused::ours("lost", "the line broke");
            let Say { tag, room, mut lines } = say;
            let first = lines.pop_front().into_iter().collect();
            self.doubted = true;
            self.fail(Say { tag, room: room.clone(), lines: first }, why.clone(), true).await?;
            if !lines.is_empty() {
                self.fail(Say { tag, room, lines }, why, false).await?;
            }
        }
        self.queue.retain(|item| matches!(item, Item::Move(_) | Item::Say(_)));
        Ok(())
    }

    /// It is over: what was not sent will not be.
    async fn abandon(&mut self, end: &End) -> Result<(), Ending> {
        let why = match end {
            End::Left => Refused::ours("left", "you left"),
            End::Trouble(_) => Refused::ours("lost", "the line broke"),
        };
        for item in std::mem::take(&mut self.queue) {
            if let Item::Say(say) = item {
                self.fail(say, why.clone(), false).await?;
            }
        }
        Ok(())
    }

    /// With all of it that was not accepted.
    async fn fail(&self, say: Say, why: Refused, in_doubt: bool) -> Result<(), Ending> {
        let text = Vec::from(say.lines).join("\n");
        self.tell(Happening::News(News::Failed { tag: say.tag, text, why, in_doubt })).await
    }

    async fn tell(&self, happening: Happening) -> Result<(), Ending> {
        self.tell.send(happening).await.map_err(|_| Ending::Left)
    }
}

fn broke(error: std::io::Error) -> Ending {
    Trouble::Broke { words: error.to_string() }.into()
}

/// Finds lines in a stream of bytes.
#[derive(Default)]
struct Lines {
    unfinished: Vec<u8>,
    /// The newest line.
    last: String,
}

impl Lines {
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut found = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            if self.unfinished.len() < MOST_BYTES {
                self.unfinished.extend_from_slice(part);
            }
            if part.ends_with(b"\n") {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.unfinished)).into_owned();
                // Blanks at its end are somebody's text, and by that we know our own again.
                let line = line.trim_end_matches(['\r', '\n']).to_owned();
                self.last.clone_from(&line);
                found.push(line);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_however_they_arrive() {
        let mut lines = Lines::default();
        let found: Vec<String> = "a:大\r\nb:2\n".as_bytes().chunks(1).flat_map(|byte| lines.take(byte)).collect();
        assert_eq!(found, ["a:大", "b:2"]);
        let endless = vec![b'x'; 4 * MOST_BYTES];
        assert!(lines.take(&endless).is_empty() && lines.take(&endless).is_empty());
        assert!(lines.unfinished.len() <= MOST_BYTES + endless.len(), "what is too long is not kept");
    }
}
