//! One who speaks and others who hear it, in a hall on this thread. What the clients do is counted with the rest, so they do
//! next to nothing: who speaks sends one frame over and over, with another id, and steps from header to header of what comes
//! back; so does who hears it last. The others look now and then how many bytes there are.

use std::io::{self, Read};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use tokio::runtime::{self, Runtime};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::hall::Hall;

const JOIN: &[u8] = br#"{"type":"join","room":"lobby","ref":1}"#;
/// What is said is about as long as what people say.
const SAY: [&[u8]; 2] = [
    br#"{"type":"say","room":"lobby","id":""#,
    br#"","text":"About as much as people say at a time: a line, or a line and a half of it."}"#,
];
const ID_BYTES: usize = 36;
/// How frames begin: one that everybody in the room gets, and the answers.
const EVENT: &[u8] = br#"{"room":"#;
const ACCEPTED: &[u8] = br#"{"type":"accepted""#;
const JOINED: &[u8] = br#"{"type":"joined""#;
const BUFFER_BYTES: usize = 64 * 1024;
/// Messages before those that are counted: what is made once is made then.
const BEFORE: u32 = 32;
/// So long after people came in it is quiet again.
const QUIET: Duration = Duration::from_secs(1);
/// Messages between two looks of those who only hear; so many fit into any socket.
const LOOK_EVERY: u32 = 32;
const LOOK_AGAIN: Duration = Duration::from_millis(1);
/// For so long the hall may say nothing to a client that waits for something.
const PATIENCE: Duration = Duration::from_secs(30);

/// How much is said, to how many besides the speaker and who hears it last, and how many messages at once.
#[derive(Debug, Clone, Copy)]
pub struct Talk {
    pub messages: u32,
    pub receivers: u32,
    pub at_once: u32,
}

impl Talk {
    pub fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let numbers: Result<Vec<u32>, _> = words.iter().map(|word| word.parse()).collect();
        let [messages, receivers, at_once] = numbers.context("talk takes numbers")?[..] else {
            bail!("talk MESSAGES RECEIVERS AT_ONCE");
        };
        ensure!(messages.is_multiple_of(LOOK_EVERY), "MESSAGES is a multiple of {LOOK_EVERY}");
        ensure!(at_once > 0 && LOOK_EVERY.is_multiple_of(at_once), "AT_ONCE divides {LOOK_EVERY}");
        Ok(Talk { messages, receivers, at_once })
    }

    pub fn words(self) -> [String; 3] {
        [self.messages, self.receivers, self.at_once].map(|number| number.to_string())
    }

    /// # Errors
    /// Where not everybody heard all of it.
    pub fn run(self) -> anyhow::Result<()> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let mut room = runtime.block_on(Room::gather(self.receivers))?;
        self.counted(&runtime, &mut room)?;
        runtime.block_on(room.settle())
    }

    /// What callgrind counts, by this name; see [`crate::counting`].
    #[inline(never)]
    fn counted(self, runtime: &Runtime, room: &mut Room) -> anyhow::Result<()> {
        runtime.block_on(async {
            for _ in 0..self.messages / LOOK_EVERY {
                for _ in 0..LOOK_EVERY / self.at_once {
                    room.say(self.at_once).await?;
                }
                room.look()?;
            }
            Ok(())
        })
    }
}

/// A hall in which all are in one room and have heard nothing yet.
struct Room {
    _hall: Hall,
    speaker: Client,
    receivers: Vec<Receiver>,
    /// Came in last, and is served last: what it has heard was written to everybody.
    last: Client,
    said: u32,
    buffer: Vec<u8>,
}

impl Room {
    async fn gather(receivers: u32) -> anyhow::Result<Self> {
        let hall = Hall::open().await?;
        let speaker = Client::join(&hall).await?;
        let mut sockets = Vec::new();
        for _ in 0..receivers {
            sockets.push(Client::join(&hall).await?.socket.into_std()?);
        }
        let receivers = sockets.into_iter().map(|socket| Receiver { socket, heard: 0 }).collect();
        let last = Client::join(&hall).await?;
        let mut room = Room { _hall: hall, speaker, receivers, last, said: 0, buffer: vec![0; BUFFER_BYTES] };
        room.say(BEFORE).await?;
        sleep(QUIET).await;
        room.look()?;
        room.receivers.iter_mut().for_each(|receiver| receiver.heard = 0);
        room.last.heard.event_bytes = 0;
        Ok(room)
    }

    /// Says so many messages at once, and waits until all are accepted and everybody was told.
    async fn say(&mut self, messages: u32) -> anyhow::Result<()> {
        let mut frames = Vec::new();
        for _ in 0..messages {
            self.said += 1;
            say(self.said, &mut frames);
        }
        self.speaker.send(&frames).await?;
        while self.speaker.heard.accepted < self.said || self.speaker.heard.events < self.said {
            self.speaker.hear().await?;
        }
        while self.last.heard.events < self.said {
            self.last.hear().await?;
        }
        Ok(())
    }

    fn look(&mut self) -> anyhow::Result<()> {
        self.receivers.iter_mut().try_for_each(|receiver| receiver.look(&mut self.buffer))
    }

    /// Waits until everybody has heard all; what was written may still be on its way through the kernel.
    async fn settle(mut self) -> anyhow::Result<()> {
        let said = self.last.heard.event_bytes;
        for receiver in &mut self.receivers {
            let all = timeout(PATIENCE, receiver.look_until(said, &mut self.buffer)).await;
            all.with_context(|| format!("a receiver got {} bytes, and the last one {said}", receiver.heard))??;
        }
        Ok(())
    }
}

/// A client's end, while it waits for what the hall says.
struct Client {
    socket: tokio::net::TcpStream,
    unread: Vec<u8>,
    heard: Heard,
}

/// Frames by what they tell.
#[derive(Default)]
struct Heard {
    joined: u32,
    accepted: u32,
    events: u32,
    /// Of events, their headers included.
    event_bytes: usize,
}

impl Client {
    /// Comes in and joins the room.
    async fn join(hall: &Hall) -> anyhow::Result<Self> {
        let socket = tokio::net::TcpStream::from_std(hall.enter()?)?;
        let mut client = Client { socket, unread: Vec::new(), heard: Heard::default() };
        client.send(&frame(JOIN)).await?;
        while client.heard.joined == 0 {
            client.hear().await?;
        }
        Ok(client)
    }

    async fn send(&self, frames: &[u8]) -> anyhow::Result<()> {
        self.socket.writable().await?;
        let sent = self.socket.try_write(frames)?;
        ensure!(sent == frames.len(), "the hall takes nothing more");
        Ok(())
    }

    /// Waits for frames, and counts those that are whole.
    async fn hear(&mut self) -> anyhow::Result<()> {
        timeout(PATIENCE, self.socket.readable()).await.context("the hall says nothing")??;
        self.unread.reserve(BUFFER_BYTES);
        match self.socket.try_read_buf(&mut self.unread) {
            Ok(0) => bail!("the hall has hung up"),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let mut taken = 0;
        while let Some(payload) = payload(&self.unread[taken..]) {
            self.heard.count(&self.unread[taken..][..payload.end], payload.start);
            taken += payload.end;
        }
        self.unread.drain(..taken);
        Ok(())
    }
}

impl Heard {
    /// A frame whose payload begins there.
    fn count(&mut self, frame: &[u8], payload: usize) {
        let text = &frame[payload..];
        if text.starts_with(EVENT) {
            self.events += 1;
            self.event_bytes += frame.len();
        } else if text.starts_with(ACCEPTED) {
            self.accepted += 1;
        } else if text.starts_with(JOINED) {
            self.joined += 1;
        }
    }
}

/// Who only hears. Nothing waits on its socket, so it costs nothing between two looks.
struct Receiver {
    socket: TcpStream,
    heard: usize,
}

impl Receiver {
    /// Counts what has come.
    fn look(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        match self.socket.read(buffer) {
            Ok(count) => self.heard += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn look_until(&mut self, bytes: usize, buffer: &mut [u8]) -> anyhow::Result<()> {
        while self.heard != bytes {
            sleep(LOOK_AGAIN).await;
            self.look(buffer)?;
        }
        Ok(())
    }
}

/// Appends the frame of the `number`th message.
fn say(number: u32, out: &mut Vec<u8>) {
    let [before, after] = SAY;
    begin_frame(before.len() + ID_BYTES + after.len(), out);
    out.extend_from_slice(before);
    let mut id = [0; ID_BYTES];
    out.extend_from_slice(Uuid::from_u128(number.into()).hyphenated().encode_lower(&mut id).as_bytes());
    out.extend_from_slice(after);
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    begin_frame(payload.len(), &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// The header of a client's text frame. Its mask is zero, which the hall treats as any other, and the payload goes out as it is.
fn begin_frame(payload_bytes: usize, out: &mut Vec<u8>) {
    const MASKED: u8 = 0x80;
    out.push(0x81);
    match payload_bytes {
        short @ 0..=125 => out.push(MASKED | short as u8),
        long => {
            out.push(MASKED | 126);
            out.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(&[0; 4]);
}

/// Where the payload of the frame is that these bytes begin with; `None`: it is not whole.
fn payload(bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let range = match *bytes {
        [_, 126, high, low, ..] => 4..4 + usize::from(u16::from_be_bytes([high, low])),
        [_, short @ 0..=125, ..] => 2..2 + usize::from(short),
        _ => return None,
    };
    (range.end <= bytes.len()).then_some(range)
}
