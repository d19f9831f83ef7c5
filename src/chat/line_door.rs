//! The line door as a client sees it: lines out, lines in. It has no ids, no positions and no resume, so what is promised here
//! is less: one message is under way at a time, and it counts as accepted when it comes back. What was under way when the line
//! broke may or may not have been said, and is told to have failed; what waited behind it is said on the next line.

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
use super::talk::{End, Happening, Manner, Order, Patience};
use super::trouble::Trouble;
use crate::names::{breaks_lines, turns_direction};
use crate::position::Epoch;

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// A door that says nothing for so long to what it was told is none, or its hall stores nothing.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// No hall sends longer lines.
const MOST_BYTES: usize = 256 * 1024;
/// Notices that refuse what was said, and not another command.
const REFUSALS: [&str; 7] =
    ["bad_frame", "forbidden", "muted", "not_joined", "too_long", "unauthorized", "unavailable"];
/// Notices that refuse a `/room`; the last two only for now.
const NO_WAY_IN: [&str; 4] = ["bad_room", "forbidden", "rate_limited", "unavailable"];

/// A line that is to be said.
struct Say {
    tag: u64,
    text: String,
    /// It is the last line of what was said under its tag.
    last: bool,
    sent: bool,
}

struct Talker {
    manner: Manner,
    orders: mpsc::UnboundedReceiver<Order>,
    tell: mpsc::Sender<Happening>,
    patience: Patience,
    /// When the hall answered lastly.
    progress: Option<Instant>,
    /// What the hall calls us, where it has said so.
    me: Option<String>,
    /// Where we were before `room`.
    former_room: Option<String>,
    room: Option<String>,
    /// A `/room` is not answered yet. Nothing is said before: who is refused stays where he was, and others would hear it.
    moving: bool,
    says: VecDeque<Say>,
    /// Commands that are sent as soon as there is a connection, or never.
    commands: VecDeque<String>,
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
    let (says, commands) = (VecDeque::new(), VecDeque::new());
    let mut talker = Talker {
        manner,
        orders,
        tell,
        patience,
        progress: None,
        me: None,
        former_room: None,
        room: None,
        moving: false,
        says,
        commands,
    };
    let end = talker.until_it_is_over().await;
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
        let opening = timeout(CONNECT_DEADLINE, link::dial(address.place(), &shown));
        let mut stream = match self.obey_until(opening).await {
            Ok(Ok(Ok(stream))) => stream,
            Ok(Ok(Err(trouble))) => return trouble.into(),
            Ok(Err(_)) => return Trouble::TimedOut { address: shown }.into(),
            Err(ending) => return ending,
        };
        self.commands = match greeting(&login, self.room.as_deref()) {
            Ok(commands) => commands,
            Err(trouble) => return trouble.into(),
        };
        self.moving = self.room.is_some();
        self.me = None;
        let since = Instant::now();
        let ending = match self.tell(Happening::AtTheLine).await {
            Ok(()) => self.serve(&mut stream).await.err().unwrap_or(Ending::Left),
            Err(ending) => ending,
        };
        self.patience.had(since.elapsed(), self.progress);
        if self.fail_what_was_under_way().await.is_err() {
            return Ending::Left;
        }
        ending
    }

    async fn serve(&mut self, stream: &mut TcpStream) -> Result<(), Ending> {
        let (mut reader, mut writer) = stream.split();
        let mut lines = Lines::default();
        let mut buffer = [0; 8192];
        let mut answered_by = Instant::now() + ANSWER_DEADLINE;
        loop {
            while let Some(line) = self.next_line() {
                answered_by = Instant::now() + ANSWER_DEADLINE;
                let written = timeout(WRITE_DEADLINE, writer.write_all(format!("{line}\n").as_bytes())).await;
                written.unwrap_or_else(|late| Err(late.into())).map_err(broke)?;
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
                () = sleep_until(answered_by), if self.awaits_an_answer() => return Err(Trouble::Dead(Dead::NoAnswer).into()),
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

    fn awaits_an_answer(&self) -> bool {
        self.moving || self.says.front().is_some_and(|say| say.sent)
    }

    /// A command, or the oldest line that is to be said, if none is under way.
    fn next_line(&mut self) -> Option<String> {
        if let Some(command) = self.commands.pop_front() {
            return Some(command);
        }
        let say = self.says.front_mut().filter(|say| !say.sent && !self.moving)?;
        say.sent = true;
        Some(if say.text.starts_with('/') { format!("/{}", say.text) } else { say.text.clone() })
    }

    async fn obey(&mut self, order: Order) -> Result<(), Ending> {
        match order {
            Order::Join { room, .. } => {
                self.commands.push_back(format!("/room {room}"));
                self.former_room = self.room.replace(room);
                self.moving = true;
            }
            Order::Say { room, text, tag } if room == self.room.as_deref().unwrap_or_default() => {
                self.say(&text, tag).await?;
            }
            // Meant for a room that was closed to us meanwhile: it must not be said in another one.
            Order::Say { text, tag, .. } => {
                let why = Refused { code: "not_joined".into(), words: "you are not in that room".into() };
                self.tell(Happening::News(News::Failed { tag, text, why, in_doubt: false })).await?;
            }
            Order::Who { .. } => self.commands.push_back("/who".into()),
            Order::Rename { name } => {
                self.commands.push_back(format!("/name {name}"));
                self.manner.login.name = Some(name);
            }
            Order::Leave { .. } | Order::Typing { .. } | Order::History { .. } => {} // there is no such thing here
            Order::Close => return Err(Ending::Left),
        }
        Ok(())
    }

    /// Each of its lines is a message here; the hall drops the same characters, and says nothing to a line without others.
    async fn say(&mut self, text: &str, tag: u64) -> Result<(), Ending> {
        let text = text.replace(breaks_lines, "\n");
        let is_said = |c: &char| *c == '\t' || !(c.is_control() || turns_direction(*c));
        let clean = |line: &str| line.chars().filter(is_said).collect::<String>();
        let lines: Vec<String> = text.lines().map(clean).filter(|line| !line.is_empty()).collect();
        let count = lines.len();
        if count == 0 {
            let why = Refused { code: "bad_frame".into(), words: "there is nothing in it that can be said".into() };
            return self.tell(Happening::News(News::Failed { tag, text, why, in_doubt: false })).await;
        }
        let says = lines.into_iter().zip(1..).map(|(text, n)| Say { tag, text, last: n == count, sent: false });
        self.says.extend(says);
        Ok(())
    }

    async fn hear(&mut self, line: String) -> Result<(), Ending> {
        self.progress = Some(Instant::now());
        if let Some((code, words)) = line.strip_prefix("! ").map(|rest| rest.split_once(' ').unwrap_or((rest, ""))) {
            let why = Refused { code: code.into(), words: words.into() };
            if code == "unauthorized" && self.manner.login.token.is_some() && why.words.starts_with("log in first") {
                return Ok(()); // that crossed with our own
            }
            if code == "unauthorized" {
                // Who is not in was not heard.
                self.says.iter_mut().for_each(|say| say.sent = false);
                return Err(Trouble::Unauthorized { words: why.words }.into());
            }
            if self.moving && NO_WAY_IN.contains(&code) {
                return self.no_way_in(why).await;
            }
            if code == "room" {
                (self.moving, self.former_room) = (false, None);
            }
            let refuses = REFUSALS.contains(&code) && self.says.front().is_some_and(|say| say.sent);
            if refuses && let Some(say) = self.says.pop_front() {
                self.says.retain(|other| other.tag != say.tag);
                let news = News::Failed { tag: say.tag, text: say.text, why, in_doubt: false };
                return self.tell(Happening::News(news)).await;
            }
            if matches!(code, "name" | "login") {
                self.me = line.split_once("you are ").map(|(_, name)| name.to_owned());
            }
        } else if self.says.front().is_some_and(|say| say.sent && self.is_ours(&line, &say.text)) {
            self.accepted().await?;
        }
        self.tell(Happening::Line(line)).await
    }

    /// For now is another matter than for good, where nothing that waits for that room is said in another.
    async fn no_way_in(&mut self, why: Refused) -> Result<(), Ending> {
        if matches!(why.code.as_str(), "rate_limited" | "unavailable") {
            return Err(Trouble::Refused(Refused { code: "unavailable".into(), ..why }).into());
        }
        self.moving = false;
        let room = std::mem::replace(&mut self.room, self.former_room.take()).unwrap_or_default();
        let waiting = std::mem::take(&mut self.says);
        self.tell(Happening::News(News::Closed { room, why: why.clone() })).await?;
        for say in waiting.into_iter().filter(|say| say.last) {
            let news = News::Failed { tag: say.tag, text: say.text, why: why.clone(), in_doubt: false };
            self.tell(Happening::News(news)).await?;
        }
        Ok(())
    }

    /// Whether this is what we said: `NAME:TEXT` by the name that the hall told us, or by an address where it told none. Which
    /// one is ours the hall alone knows.
    fn is_ours(&self, line: &str, text: &str) -> bool {
        let name = line.strip_suffix(text).and_then(|line| line.strip_suffix(':'));
        match (&self.me, name) {
            (Some(me), Some(name)) => me == name,
            (None, Some(name)) => name.parse::<SocketAddr>().is_ok(),
            (_, None) => false,
        }
    }

    async fn accepted(&mut self) -> Result<(), Ending> {
        let Some(say) = self.says.pop_front().filter(|say| say.last) else { return Ok(()) };
        let room = self.room.clone().unwrap_or_default();
        let accepted = Accepted { room, id: Uuid::nil(), epoch: Epoch::silent(), offset: 0 };
        self.tell(Happening::News(News::Accepted { tag: say.tag, accepted })).await
    }

    /// What a door says last, where it says that it is full.
    fn ended(&self, lines: &Lines) -> Trouble {
        match lines.last.strip_prefix("! unavailable ") {
            Some(words) => Trouble::Status {
                address: self.manner.address.to_string(),
                status: 503,
                words: link::first_line(words),
                retry_after: None,
            },
            None => Trouble::Broke { words: String::new() },
        }
    }

    async fn fail_what_was_under_way(&mut self) -> Result<(), Ending> {
        let Some(say) = self.says.pop_front_if(|say| say.sent) else { return Ok(()) };
        self.says.retain(|other| other.tag != say.tag);
        let why = Refused { code: "lost".into(), words: "the line broke".into() };
        self.tell(Happening::News(News::Failed { tag: say.tag, text: say.text, why, in_doubt: true })).await
    }

    async fn tell(&self, happening: Happening) -> Result<(), Ending> {
        self.tell.send(happening).await.map_err(|_| Ending::Left)
    }
}

/// What is said first on a new line.
fn greeting(login: &Login, room: Option<&str>) -> Result<VecDeque<String>, Trouble> {
    let token = login.token.as_ref().map(link::Token::read).transpose()?;
    let who = match (&login.name, token) {
        (Some(name), Some(token)) => Some(format!("/login {name} {token}")),
        (None, Some(token)) => Some(format!("/login {token}")),
        (Some(name), None) => Some(format!("/name {name}")),
        (None, None) => None,
    };
    Ok(who.into_iter().chain(room.map(|room| format!("/room {room}"))).collect())
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
        assert!(lines.take(&endless).is_empty() && lines.unfinished.len() <= 2 * endless.len());
    }
}
