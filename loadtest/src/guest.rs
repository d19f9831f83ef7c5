//! A simulated client of any kind, without its socket, and what all of them have in common.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::dialect::Dialect;
use crate::receiver::Receiver;
use crate::speaker::Speaker;
use crate::stamps::Stamps;
use crate::standing::Standing;
use crate::tally::Tally;
use crate::verdict::Acceptance;
use crate::wire::Stamp;

/// A room of the run.
#[derive(Debug)]
pub struct Room {
    /// Its place among the rooms of the run.
    pub number: usize,
    pub name: String,
    /// Marks this run's messages.
    pub run: u32,
    /// Bytes of text.
    pub size: usize,
    /// Of the whole run.
    pub publishers: u32,
    /// Nobody else can be there: its name was made up.
    pub is_ours: bool,
    pub dialect: Dialect,
}

impl Room {
    /// What a message of this run says about itself; `None`: it is somebody else's, or mangled.
    pub fn stamp(&self, text: &str) -> Option<Stamp> {
        let stamp = Stamp::read(text).filter(|stamp| stamp.run == self.run && stamp.publisher < self.publishers)?;
        let whole = text.len() == self.size.max(stamp.bytes())
            && text.as_bytes()[stamp.bytes()..].iter().all(|byte| *byte == b'.');
        whole.then_some(stamp)
    }

    #[cfg(test)]
    pub fn for_test(name: &str) -> Self {
        let name = name.to_owned();
        Room { number: 0, name, run: 1, size: 60, publishers: 8, is_ours: false, dialect: Dialect::Townhall }
    }
}

/// What the connection is to do after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    Stay,
    /// The server asked for it: go elsewhere at this time, without backoff.
    MoveAt(Duration),
    /// The server will never let it in.
    GiveUp,
}

/// A client, as its connection sees it. All times are since the run began.
pub trait Guest {
    fn number(&self) -> usize;
    /// What it says, if it is a publisher.
    fn speaker(&mut self) -> Option<&mut Speaker>;
    /// The speaking began.
    fn begin(&mut self, from: Duration) {
        if let Some(speaker) = self.speaker() {
            speaker.start(from);
        }
    }
    /// The run was interrupted: nothing that is due later is said.
    fn stop(&mut self, at: Duration) {
        if let Some(speaker) = self.speaker() {
            speaker.stop(at);
        }
    }
    /// It should be in the room by now: from here its entering is measured.
    fn due(&mut self, at: Duration);
    /// It is away because it wanted to, until then: from here its coming back is measured.
    fn due_back(&mut self, now: Duration, at: Duration);
    /// A connection is there.
    fn connected(&mut self, now: Duration, tally: &mut Tally);
    /// The connection is gone.
    fn cut(&mut self, now: Duration);
    /// The next frame to send, if one may be sent now.
    fn next_command(&mut self, room: &Room, now: Duration, tally: &mut Tally) -> Option<String>;
    /// When to ask for that again, unless something is heard before.
    fn wake(&self, now: Duration) -> Option<Duration>;
    /// The socket takes nothing for now.
    fn stalled(&mut self) {
        if let Some(speaker) = self.speaker() {
            speaker.stalled();
        }
    }
    /// When the line would be dead if nothing more were heard.
    fn dead_at(&self) -> Option<Duration>;
    /// Takes a frame in, or a line of one. `answers`: what has to be answered at once is added to them.
    fn hear(
        &mut self,
        text: &str,
        room: &Room,
        now: Duration,
        tally: &mut Tally,
        answers: &mut Vec<&'static str>,
    ) -> Reaction;
    /// Whether it ever was in the room.
    fn has_joined(&self) -> bool;
    /// Whether it is in the room, with everything that was promised at the door.
    fn is_live(&self) -> bool;
    /// Adds itself to where all stand; `by_room`: in its room, too. `is_gone`: nobody waits for it, since it will not come back.
    fn stand(&self, now: Duration, standing: &mut Standing, by_room: Option<usize>, is_gone: bool);
    /// What is left of it at the end of the run, which came at `until`.
    fn end(self: Box<Self>, room: usize, until: Duration) -> Gone;
}

/// The speaker's next message, if one may be sent now, with its text. `dedupe`: how long the server knows one again.
pub fn next_message(
    speaker: &mut Speaker,
    room: &Room,
    now: Duration,
    dedupe: Option<Duration>,
    tally: &mut Tally,
) -> Option<(Uuid, String)> {
    let (say, lag) = speaker.next(now, dedupe)?;
    if let Some(lag) = lag {
        tally.lag.record(lag);
    }
    Some((say.id, say.stamp.write(room.size)))
}

/// What is left of a client.
#[derive(Debug, Serialize, Deserialize)]
pub struct Gone {
    pub number: usize,
    pub room: usize,
    pub has_joined: bool,
    pub is_live: bool,
    pub view: View,
    pub said: Option<Said>,
}

/// What it saw of the room.
#[derive(Debug, Serialize, Deserialize)]
pub enum View {
    /// By the offsets of the log.
    Log(Receiver),
    /// By the stamps of this run's messages, where there are no offsets.
    Stamps(Stamps),
}

/// What a publisher said.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Said {
    pub publisher: u32,
    pub sent: u64,
    pub resent: u64,
    pub accepted: Vec<Acceptance>,
    /// Accepted by coming back, where nothing else says so.
    pub by_ear: u64,
    /// Numbers of messages that were said when the line broke, where nothing is said again.
    pub in_doubt: Vec<u64>,
    /// Due, and not accepted.
    pub unaccepted: u64,
    pub accepted_twice_differently: u64,
}

impl Said {
    pub fn of(speaker: Speaker, until: Duration) -> Self {
        let unaccepted = speaker.unaccepted(until);
        Said {
            publisher: speaker.publisher(),
            sent: speaker.sent,
            by_ear: speaker.by_ear,
            in_doubt: speaker.in_doubt,
            resent: speaker.resent,
            unaccepted,
            accepted_twice_differently: speaker.accepted_twice_differently,
            accepted: speaker.accepted,
        }
    }
}
