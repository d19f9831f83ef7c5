//! `townhall chat` between other programs: a line in is a message, and what is said comes out, a line each.
//!
//! Lines are sent one after the other, each when the one before it was accepted, so they arrive in their order and once, over
//! any number of connections; the input is read no faster than that. What is printed goes out before more is read from the
//! hall. So a slow reader slows us, and nobody else.

use std::io;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

use super::client::News;
use super::complain;
use super::frames::{Accepted, Message, Refused};
use super::talk::{End, Happening, Order, Talk};
use super::words::{self, Language};
use crate::names::turns_direction;

/// A log was cut off or replaced: what follows is what there is of it, and some of that may have been printed before.
const NOT_RECOVERED: &str = "! gap messages may be lost here, or come again";
/// A longer line is refused; no hall takes one.
const MOST_BYTES: usize = 64 * 1024;

/// What is wanted of a pipe.
#[derive(Debug, Clone)]
pub struct Wishes {
    pub room: Option<String>,
    /// Messages to print of what was said before.
    pub last: u64,
    /// To print what is said from now on.
    pub follow: bool,
    /// To stay when the input has ended.
    pub stay: bool,
    /// To print the hall's events as they come.
    pub json: bool,
    pub language: Language,
    pub has_token: bool,
}

/// How it went: the numbers of lines that were accepted and that were not, and whether the hall was lost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub accepted: u64,
    pub refused: u64,
    /// The connection was over before everything was done.
    pub lost: bool,
    /// The number of the line that was sent and not answered yet.
    pub under_way: Option<u64>,
}

impl Outcome {
    pub fn is_well(self) -> bool {
        self.refused == 0 && !self.lost
    }
}

pub struct Pipe<R, W> {
    wishes: Wishes,
    talk: Talk,
    input: Option<BufReader<R>>,
    output: Option<W>,
    /// How far it came, for whoever interrupts it, too.
    pub outcome: Outcome,
    room: Option<String>,
    /// The room's backlog was printed.
    ready: bool,
    line: Vec<u8>,
    lines: u64,
    /// What came, and was not printed yet.
    frame: Option<String>,
    /// What keeps us from the hall, as it was told; an outage of an hour is one line.
    told: Option<String>,
    /// At the line door, in the room that is wanted.
    at_the_line: bool,
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pipe<R, W> {
    pub fn new(wishes: Wishes, talk: Talk, input: Option<R>, output: W) -> Self {
        Pipe {
            room: wishes.room.clone(),
            wishes,
            talk,
            input: input.map(BufReader::new),
            output: Some(output),
            outcome: Outcome::default(),
            ready: false,
            line: Vec::new(),
            lines: 0,
            frame: None,
            told: None,
            at_the_line: false,
        }
    }

    /// Until everything is said and heard.
    ///
    /// # Errors
    /// The input cannot be read. An output that nobody reads any more is no error: what is to be said is said.
    pub async fn run(&mut self) -> io::Result<()> {
        while !self.is_done() {
            let reads = self.ready && self.outcome.under_way.is_none() && self.input.is_some();
            tokio::select! {
                happening = self.talk.happenings.recv() => match happening {
                    Some(happening) => self.take(happening).await?,
                    None => break,
                },
                line = next_line(&mut self.input, &mut self.line), if reads => {
                    let line = line.map_err(|error| self.broken("the input cannot be read", "无法读取输入", &error))?;
                    self.say(line).await?;
                }
            }
        }
        self.leave().await
    }

    fn is_done(&self) -> bool {
        let said = self.ready && self.input.is_none() && self.outcome.under_way.is_none();
        let heard = !self.wishes.stay || self.output.is_none();
        self.outcome.lost || said && heard
    }

    /// Ends politely, and prints no more.
    ///
    /// # Errors
    /// What was printed cannot be written.
    pub async fn leave(&mut self) -> io::Result<()> {
        self.talk.order(Order::Close);
        let last_word = async { while self.talk.happenings.recv().await.is_some() {} };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), last_word).await;
        match &mut self.output {
            Some(output) => quiet(output.flush().await),
            None => Ok(()),
        }
    }

    async fn say(&mut self, line: Option<()>) -> io::Result<()> {
        if line.is_none() {
            self.input = None;
            return Ok(());
        }
        self.lines += 1;
        let mut bytes = std::mem::take(&mut self.line);
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.len() > MOST_BYTES {
            let words = format!("a line has at most {MOST_BYTES} bytes");
            return self.refused(self.lines, &Refused { code: "too_long".into(), words }).await;
        }
        let Ok(text) = String::from_utf8(bytes) else {
            let why = Refused { code: "bad_frame".into(), words: "the line is no UTF-8".into() };
            return self.refused(self.lines, &why).await;
        };
        if !text.trim().is_empty() {
            self.outcome.under_way = Some(self.lines);
            let room = self.room.clone().unwrap_or_default();
            self.talk.order(Order::Say { room, text, tag: self.lines });
        }
        Ok(())
    }

    async fn refused(&mut self, line: u64, why: &Refused) -> io::Result<()> {
        let language = self.wishes.language;
        self.outcome.refused += 1;
        let not_sent = language.pick(format!("line {line} was not sent"), format!("第 {line} 行未发送"));
        self.failed(&not_sent, line, why).await
    }

    async fn in_doubt(&mut self, line: u64, why: &Refused) -> io::Result<()> {
        self.outcome.refused += 1;
        let in_doubt = words::in_doubt(self.wishes.language, line);
        self.failed(&in_doubt, line, why).await
    }

    async fn failed(&mut self, what: &str, line: u64, why: &Refused) -> io::Result<()> {
        complain(&format!("{what}: {}", words::refused(self.wishes.language, why)));
        if !self.wishes.json {
            return Ok(());
        }
        let error = json!({"type": "error", "code": why.code, "message": why.words, "room": self.room, "line": line});
        self.print(&error.to_string()).await
    }

    async fn take(&mut self, happening: Happening) -> io::Result<()> {
        let (language, has_token) = (self.wishes.language, self.wishes.has_token);
        match happening {
            Happening::News(news) => return self.hear(news).await,
            Happening::Frame(frame) => self.frame = Some(frame),
            Happening::Line(line) if self.wishes.follow => {
                // Before we are in the room that is wanted we hear another one.
                let room = line.strip_prefix("! room you are in ");
                self.at_the_line |= self.room.is_none() || room.is_some_and(|room| Some(room) == self.room.as_deref());
                if self.at_the_line || line.starts_with("! ") {
                    return self.print(&visible(&line)).await;
                }
            }
            Happening::Line(_) | Happening::NotRenamed(_) => {}
            Happening::AtTheLine => {
                if let Some(room) = self.room.clone().filter(|_| !self.ready) {
                    self.talk.order(Order::Join { room, last: 0 });
                }
                (self.ready, self.told) = (true, None);
            }
            Happening::Down(trouble) => {
                let line = words::trying_again(language, &trouble, has_token);
                if self.told.as_ref() != Some(&line) {
                    complain(&line);
                    self.told = Some(line);
                }
            }
            Happening::Stuck => complain(words::stuck(language)),
            Happening::Over(end) => {
                self.outcome.lost = true;
                if let End::Trouble(trouble) = end {
                    complain(&words::trouble(language, &trouble, has_token));
                }
            }
        }
        Ok(())
    }

    async fn hear(&mut self, news: News) -> io::Result<()> {
        match news {
            News::Accepted { accepted, .. } => return self.accepted(&accepted).await,
            News::Failed { tag, why, in_doubt, .. } => {
                (self.outcome.under_way, self.frame) = (None, None);
                return if in_doubt { self.in_doubt(tag, &why).await } else { self.refused(tag, &why).await };
            }
            News::Said { message, .. } if self.prints_messages() && !self.wishes.json => {
                return self.print(&as_lines(&message)).await;
            }
            News::Said { .. } if !self.prints_messages() => self.frame = None,
            News::Said { .. } => return self.print_frame().await,
            News::Lost { .. } if self.prints_messages() && self.wishes.json => return self.print_frame().await,
            News::Lost { count, .. } if self.prints_messages() => {
                return self.print(&format!("! gap {count} messages lost")).await;
            }
            News::Joined { recovered: Some(false), .. } if self.wishes.follow && !self.wishes.json => {
                return self.print(NOT_RECOVERED).await;
            }
            News::Welcome { rooms, .. } => {
                self.told = None;
                let room = self.room.get_or_insert_with(|| rooms.first().cloned().unwrap_or_else(|| "lobby".into()));
                self.talk.order(Order::Join { room: room.clone(), last: self.wishes.last });
            }
            News::CaughtUp { .. } => self.ready = true,
            News::Closed { room, why } => {
                (self.outcome.lost, self.outcome.under_way) = (true, None);
                let language = self.wishes.language;
                let no_way = language.pick(format!("no way into {room}"), format!("无法进入 {room}"));
                complain(&format!("{no_way}: {}", words::refused(language, &why)));
            }
            _ => {}
        }
        if self.wishes.follow { self.print_frame().await } else { Ok(()) }
    }

    async fn print_frame(&mut self) -> io::Result<()> {
        match self.frame.take() {
            Some(frame) => self.print(&one_line(&frame)).await,
            None => Ok(()),
        }
    }

    /// What was said before is printed where it is wanted, and what is said now by those who follow.
    fn prints_messages(&self) -> bool {
        self.wishes.follow || !self.ready
    }

    async fn accepted(&mut self, accepted: &Accepted) -> io::Result<()> {
        self.outcome.under_way = None;
        self.outcome.accepted += 1;
        self.frame = None; // the hall's own, or its message, which was printed
        if !self.wishes.json {
            return Ok(());
        }
        let Accepted { room, id, epoch, offset } = accepted;
        self.print(&json!({"type": "accepted", "room": room, "id": id, "epoch": epoch, "offset": offset}).to_string())
            .await
    }

    fn broken(&self, english: &str, chinese: &str, error: &io::Error) -> io::Error {
        io::Error::other(format!("{}: {error}", self.wishes.language.pick(english, chinese)))
    }

    async fn print(&mut self, lines: &str) -> io::Result<()> {
        let Some(output) = &mut self.output else { return Ok(()) };
        let written = async {
            output.write_all(lines.as_bytes()).await?;
            output.write_all(b"\n").await?;
            output.flush().await
        };
        match written.await {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.output = None;
                Ok(())
            }
            written => written.map_err(|error| self.broken("the output cannot be written", "无法写入输出", &error)),
        }
    }
}

/// Reads up to the end of a line, or as much of it as can be refused; the rest of a line that is too long is thrown away.
/// Cancelled, it goes on where it was.
async fn next_line<R: AsyncRead + Unpin>(
    input: &mut Option<BufReader<R>>,
    line: &mut Vec<u8>,
) -> io::Result<Option<()>> {
    let Some(input) = input else { return Ok(None) };
    loop {
        let available = input.fill_buf().await?;
        if available.is_empty() {
            return Ok((!line.is_empty()).then_some(()));
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(available.len(), |end| end + 1);
        let room = (MOST_BYTES + 3).saturating_sub(line.len());
        line.extend_from_slice(&available[..used.min(room)]);
        input.consume(used);
        if end.is_some() {
            return Ok(Some(()));
        }
    }
}

/// As at the line door: the name before each line of the text.
fn as_lines(message: &Message) -> String {
    let name = visible(&message.from.name);
    let lines: Vec<String> = message.text.split('\n').map(|line| format!("{name}:{}", visible(line))).collect();
    lines.join("\n")
}

/// Nothing that a terminal obeys: the output may end there.
fn visible(text: &str) -> String {
    text.chars().filter(|c| *c == '\t' || !(c.is_control() || turns_direction(*c))).collect()
}

/// The same JSON: without the line breaks that may stand between its parts, and with those control characters escaped that
/// JSON takes as they are within a text (DEL and C1), but a terminal obeys.
fn one_line(frame: &str) -> String {
    let mut line = String::with_capacity(frame.len());
    for c in frame.chars() {
        match c {
            '\0'..' ' => line.push(' '),
            c if c.is_control() => line.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => line.push(c),
        }
    }
    line
}

fn quiet(result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) })
}
