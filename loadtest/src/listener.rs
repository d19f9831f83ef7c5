//! A client that counts what it hears and reads next to nothing: what makes a crowd cheap.
//!
//! Its view of the room is a number, the offset that it must be at by now. [`Walker`] steps from one frame header to the
//! next and counts the messages between them; [`Listener`] keeps the count against what it was told at the door. One
//! message too few is `lost`, one too many `doubled`; order, contents and latency are for the clients that read.

use memchr::memchr_iter;
use serde::{Deserialize, Serialize};

use crate::dialect::Dialect;
use crate::place::{EpochKey, Spot};
use crate::verdict::Verdict;
use crate::wire::Heard;

/// Opcodes: what begins a text message, and what goes on with it.
const TEXT: u8 = 0x1;
const CONTINUATION: u8 = 0x0;

/// A frame that has to be read.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    pub opcode: u8,
    pub payload: Vec<u8>,
}

/// The bytes are no frames of a server.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// What a frame's beginning says about it.
#[derive(Debug, Clone, Copy)]
struct Head {
    opcode: u8,
    /// Whether the message ends with this frame.
    is_last: bool,
    /// Bytes before the payload.
    header: usize,
    payload: u64,
    is_message: bool,
}

impl Head {
    /// No head needs more bytes than that to be read.
    const LONGEST: usize = 10 + Dialect::LONGEST_PEEK;
    /// A frame that must be read is not longer than that.
    const MAX_READ: u64 = 4 << 20;

    /// `Ok(None)`: more bytes are needed.
    fn read(bytes: &[u8], dialect: Dialect) -> Result<Option<Head>, Malformed> {
        let [first, second, ..] = *bytes else {
            return Ok(None);
        };
        let (header, payload) = match second {
            0..=125 => (2, u64::from(second)),
            126 => match bytes.get(2..4) {
                Some(length) => (4, length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
                None => return Ok(None),
            },
            127 => match bytes.get(2..10) {
                Some(length) => (10, length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))),
                None => return Ok(None),
            },
            _ => return Err(Malformed), // a server does not mask
        };
        if first & 0x70 != 0 {
            return Err(Malformed); // nothing was negotiated that would set these bits
        }
        let peek = payload.min(dialect.peek() as u64) as usize;
        let Some(beginning) = bytes.get(header..header + peek) else {
            return Ok(None);
        };
        let opcode = first & 0x0f;
        let is_message = opcode == TEXT && dialect.is_message(beginning);
        Ok(Some(Head { opcode, is_last: first & 0x80 != 0, header, payload, is_message }))
    }
}

/// What the walker is inside of.
#[derive(Debug)]
enum Inside {
    /// So much of a payload is passed over, and a message ends with it or goes on.
    Passing { left: u64, ends: bool },
    /// So much of a frame is missing.
    Reading(Frame, u64),
}

impl Inside {
    const BETWEEN: Inside = Inside::Passing { left: 0, ends: false };
}

/// Steps over a stream of frames that arrives in any pieces. Copies nothing but what has to be read.
#[derive(Debug)]
pub struct Walker {
    /// The beginning of a head whose rest has not come.
    head: [u8; Head::LONGEST],
    held: u8,
    inside: Inside,
    /// A message that is counted goes on in the next frame.
    goes_on: bool,
    /// Whether messages are counted; until then they are read.
    pub counts: bool,
    /// Whether every line of a frame is a message.
    lines: bool,
    dialect: Dialect,
    /// So many bytes of a line are missing until its second one is here, which tells what it is; 0: none.
    unread: usize,
    /// What has to be answered to a line that was passed over.
    pub answer: Option<&'static str>,
}

impl Walker {
    pub fn new(lines: bool, dialect: Dialect) -> Self {
        Walker {
            head: [0; Head::LONGEST],
            held: 0,
            inside: Inside::BETWEEN,
            goes_on: false,
            counts: false,
            lines,
            dialect,
            unread: 0,
            answer: None,
        }
    }

    /// Walks until the bytes end or a frame is complete that has to be read: how many messages it passed, and that frame.
    /// A message counts when its last byte is here.
    pub fn walk(&mut self, bytes: &mut &[u8]) -> Result<(u64, Option<Frame>), Malformed> {
        let mut messages = 0;
        loop {
            match &mut self.inside {
                Inside::Passing { left, ends } => {
                    let passed = take(bytes, *left);
                    *left -= passed.len() as u64;
                    if *left == 0 {
                        messages += u64::from(std::mem::take(ends));
                    }
                    messages += self.breaks(passed);
                }
                Inside::Reading(frame, left) => {
                    let part = take(bytes, *left);
                    *left -= part.len() as u64;
                    frame.payload.extend_from_slice(part);
                    if *left == 0
                        && let Inside::Reading(frame, _) = std::mem::replace(&mut self.inside, Inside::BETWEEN)
                    {
                        return Ok((messages, Some(frame)));
                    }
                }
            }
            if bytes.is_empty() {
                return Ok((messages, None));
            }
            messages += self.enter(bytes)?;
        }
    }

    /// Takes the head of the next frame in, as far as it is here.
    fn enter(&mut self, bytes: &mut &[u8]) -> Result<u64, Malformed> {
        if self.held == 0
            && let Some(head) = Head::read(bytes, self.dialect)?
        {
            *bytes = &bytes[head.header..];
            return self.begin(head, &[]);
        }
        while let Some((&byte, rest)) = bytes.split_first() {
            self.head[usize::from(self.held)] = byte;
            self.held += 1;
            *bytes = rest;
            let held = self.head;
            let held = &held[..usize::from(self.held)];
            if let Some(head) = Head::read(held, self.dialect)? {
                self.held = 0;
                return self.begin(head, &held[head.header..]);
            }
        }
        Ok(0)
    }

    /// `peeked`: the part of the payload that was taken in with the head.
    fn begin(&mut self, head: Head, peeked: &[u8]) -> Result<u64, Malformed> {
        let left = head.payload - peeked.len() as u64;
        if self.counts && (head.is_message || self.goes_on && head.opcode == CONTINUATION) {
            self.goes_on = !head.is_last;
            self.inside = Inside::Passing { left, ends: head.is_last };
            return Ok(self.breaks(peeked));
        }
        // What is read comes in one piece and is short, from every server that has been met.
        if !head.is_last || head.payload > Head::MAX_READ {
            return Err(Malformed);
        }
        self.inside = Inside::Reading(Frame { opcode: head.opcode, payload: peeked.to_vec() }, left);
        Ok(0)
    }

    /// How many messages begin behind the first of their frame, or, where not every line is one, turn out to have begun.
    fn breaks(&mut self, payload: &[u8]) -> u64 {
        match (self.lines, self.dialect.has_lines()) {
            (false, _) => 0,
            (true, false) => memchr_iter(b'\n', payload).count() as u64,
            (true, true) => {
                let unread = std::mem::take(&mut self.unread);
                let carried = if unread > 0 { self.line(payload, unread - 1) } else { 0 };
                let begun = memchr_iter(b'\n', payload).map(|end| self.line(payload, end + 2));
                begun.sum::<u64>() + carried
            }
        }
    }

    /// `second`: where a line's second byte is or will be. 1 if it is here, and the line a message.
    fn line(&mut self, payload: &[u8], second: usize) -> u64 {
        let Some(byte) = payload.get(second) else {
            self.unread = second + 1 - payload.len();
            return 0;
        };
        let answer = self.dialect.answer_to(*byte);
        self.answer = answer.or(self.answer);
        u64::from(answer.is_none())
    }
}

/// Splits off up to `most` bytes.
fn take<'a>(bytes: &mut &'a [u8], most: u64) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(bytes.len().min(usize::try_from(most).unwrap_or(usize::MAX)));
    *bytes = rest;
    taken
}

/// What a listener makes of a text frame that is no message.
#[derive(Debug, PartialEq, Eq)]
pub enum Word {
    Welcome,
    Joined,
    /// One that was not counted, since it came in one frame with something else.
    Message,
    /// The server will not let it in, or not now: the code.
    Refused(String),
    /// Nothing that a listener cares for.
    Other,
    Breach,
}

/// One listener's view of the room.
#[derive(Debug, Serialize, Deserialize)]
pub struct Listener {
    pub number: usize,
    /// Where it must be, by what it was told and what it counted.
    spot: Option<Spot>,
    lost: u64,
    doubled: u64,
    told: u64,
    breaks: u64,
}

impl Listener {
    pub fn new(number: usize) -> Self {
        Listener { number, spot: None, lost: 0, doubled: 0, told: 0, breaks: 0 }
    }

    /// Where it is; `None` before the first `joined`.
    pub fn spot(&self) -> Option<Spot> {
        self.spot
    }

    /// So many messages came.
    pub fn count(&mut self, messages: u64) {
        if let Some(spot) = &mut self.spot {
            spot.offset += messages;
        }
    }

    /// Takes in one frame (or, where lines are messages, one line of it) that is not just counted; `None`: one that is
    /// not of the protocol.
    pub fn hear(&mut self, heard: Option<Heard>, room: &str) -> Word {
        let Some(heard) = heard else {
            return Word::Breach;
        };
        let ours = heard.room == room;
        match &*heard.kind {
            "welcome" => Word::Welcome,
            "joined" if ours => self.joined(&heard),
            "gap" if ours => self.gap(&heard),
            "message" if ours && self.spot.is_some() => {
                self.count(1);
                Word::Message
            }
            "error" => Word::Refused(heard.code.into_owned()),
            "joined" | "gap" | "message" | "accepted" => Word::Breach,
            _ => Word::Other,
        }
    }

    /// `joined`, asked for or not: it has to go on where the listener is, unless it is told that it begins anew.
    fn joined(&mut self, heard: &Heard) -> Word {
        let (Some(offset), Some(backlog)) =
            (heard.offset, heard.backlog.filter(|backlog| Some(*backlog) <= heard.offset))
        else {
            return Word::Breach;
        };
        let start = offset - backlog;
        if let Some(before) = self.spot {
            let (missing, again) = (start.saturating_sub(before.offset), before.offset.saturating_sub(start));
            if heard.recovered == Some(false) {
                self.breaks += 1;
                self.told += missing;
            } else {
                self.lost += missing;
                self.doubled += again;
            }
        }
        self.spot = Some(Spot { epoch: EpochKey::of(&heard.epoch), offset: start });
        Word::Joined
    }

    fn gap(&mut self, heard: &Heard) -> Word {
        match (&mut self.spot, heard.first_lost(), heard.to) {
            (Some(spot), Some(from), Some(to)) if from == spot.offset + 1 && to >= from => {
                self.told += to - spot.offset;
                spot.offset = to;
                Word::Other
            }
            _ => Word::Breach,
        }
    }

    /// Holds it against `goal`, the head of the log when the run ended.
    pub fn judge(&self, goal: Option<Spot>, verdict: &mut Verdict) {
        let (mut lost, mut doubled) = (self.lost, self.doubled);
        if let (Some(spot), Some(goal)) = (self.spot, goal) {
            let behind = goal.offset.saturating_sub(spot.offset);
            if spot.epoch == goal.epoch {
                lost += behind;
                doubled += spot.offset.saturating_sub(goal.offset);
            } else {
                lost += behind.max(1); // it was never told that another epoch began
            }
        }
        verdict.lost += lost;
        verdict.doubled += doubled;
        verdict.told += self.told;
        verdict.breaks += self.breaks;
        if lost + doubled > 0 {
            let number = self.number;
            verdict.example(|| format!("listener {number}: lost {lost}, doubled {doubled}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match payload.len() {
            length @ 0..=125 => frame.push(length as u8),
            length @ 126..=65_535 => {
                frame.push(126);
                frame.extend((length as u16).to_be_bytes());
            }
            length => {
                frame.push(127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    fn walker(lines: bool) -> Walker {
        Walker { counts: true, ..Walker::new(lines, Dialect::Townhall) }
    }

    /// Walks over all pieces: messages, and what was read.
    fn walked<'a>(walker: &mut Walker, pieces: impl IntoIterator<Item = &'a [u8]>) -> (u64, Vec<Frame>) {
        let (mut messages, mut read) = (0, Vec::new());
        for mut piece in pieces {
            while !piece.is_empty() {
                let (passed, frame) = walker.walk(&mut piece).unwrap();
                messages += passed;
                read.extend(frame);
            }
        }
        (messages, read)
    }

    /// One of each: messages short, middling and long, in either order of fields, and what has to be read among them.
    fn stream() -> Vec<u8> {
        let long = format!(r#"{{"room":"r","text":"{}"}}"#, "x".repeat(70_000));
        [
            frame(TEXT, br#"{"type":"message","room":"r"}"#),
            frame(9, b"still there?"),
            frame(TEXT, b""),
            frame(TEXT, br#"{"room":"r","offset":1,"type":"message","text":"middling: 126 bytes and more need a longer header, and that may be cut in two, as may all of it"}"#),
            frame(TEXT, br#"{"type":"beat"}"#),
            frame(TEXT, long.as_bytes()),
            frame(TEXT, br#"{"type":"joined","room":"r","epoch":"e","offset":1,"backlog":0}"#),
            in_fragments(br#"{"room":"r","text":"a message in several frames"}"#),
            frame(TEXT, br#"{"room":"r"}"#),
        ]
        .concat()
    }

    /// A text message in three frames, with a ping among them.
    fn in_fragments(payload: &[u8]) -> Vec<u8> {
        let (a, rest) = payload.split_at(5);
        let (b, c) = rest.split_at(7);
        let open = |mut frame: Vec<u8>| {
            frame[0] &= 0x7f;
            frame
        };
        [open(frame(TEXT, a)), open(frame(CONTINUATION, b)), frame(9, b""), frame(CONTINUATION, c)].concat()
    }

    #[track_caller]
    fn saw_all((messages, read): (u64, Vec<Frame>)) {
        assert_eq!(messages, 6);
        let opcodes: Vec<u8> = read.iter().map(|frame| frame.opcode).collect();
        assert_eq!(opcodes, [9, TEXT, TEXT, 9]);
        assert_eq!(read[0].payload, b"still there?");
        assert_eq!(read[1].payload, br#"{"type":"beat"}"#);
        assert!(read[2].payload.starts_with(br#"{"type":"joined""#) && read[2].payload.ends_with(b"0}"));
    }

    #[test]
    fn every_cut_in_two_leaves_the_same_messages() {
        let stream = stream();
        let interesting = (0..400).chain(stream.len() - 400..stream.len());
        for cut in interesting {
            let (a, b) = stream.split_at(cut);
            saw_all(walked(&mut walker(false), [a, b]));
        }
        saw_all(walked(&mut walker(false), stream.chunks(1)));
    }

    proptest! {
        #[test]
        fn so_does_every_cut_in_many(cuts in prop::collection::vec(0usize..71_000, 0..40)) {
            let stream = stream();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut % stream.len()).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            saw_all(walked(&mut walker(false), cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]])));
        }
    }

    #[test]
    fn what_is_cut_off_is_not_there() {
        let two = frame(TEXT, br#"{"room":"r"}"#).repeat(2);
        for length in 0..two.len() {
            assert_eq!(walked(&mut walker(false), [&two[..length]]).0, u64::from(length >= two.len() / 2), "{length}");
        }
    }

    #[test]
    fn lines_are_messages_where_that_was_said_and_only_there() {
        let three = frame(TEXT, b"{\"room\":\"r\"}\n{\"room\":\"r\"}\n{\"room\":\"r\"}");
        for cut in 0..three.len() {
            let (a, b) = three.split_at(cut);
            assert_eq!(walked(&mut walker(true), [a, b]).0, 3, "{cut}");
            assert_eq!(walked(&mut walker(false), [a, b]).0, 1, "{cut}");
        }
    }

    /// A ping may stand anywhere but at the front, where the frame is read.
    #[test]
    fn a_ping_among_lines_is_no_message_and_is_answered() {
        let push = r#"{"push":{"channel":"r","pub":{"data":{},"offset":1}}}"#;
        let all = frame(TEXT, format!("{push}\n{{}}\n{push}\n{push}\n{{}}").as_bytes());
        for cut in 0..all.len() {
            let (a, b) = all.split_at(cut);
            let mut walker = Walker { counts: true, ..Walker::new(true, Dialect::Centrifuge) };
            assert_eq!(walked(&mut walker, [a, b]), (3, vec![]), "{cut}");
            assert_eq!(walker.answer, Some("{}"));
        }
        let mut walker = Walker { counts: true, ..Walker::new(true, Dialect::Centrifuge) };
        let (messages, read) = walked(&mut walker, [&frame(TEXT, b"{}")[..], &frame(TEXT, push.as_bytes())]);
        assert_eq!((messages, read.len(), walker.answer), (1, 1, None));
    }

    #[test]
    fn before_it_counts_it_reads() {
        let two = [frame(TEXT, br#"{"room":"r"}"#), frame(TEXT, br#"{"type":"joined"}"#)].concat();
        let (messages, read) = walked(&mut Walker::new(false, Dialect::Townhall), [&two[..]]);
        assert_eq!((messages, read.len()), (0, 2));
    }

    #[test]
    fn no_server_sends_such_bytes() {
        for mut bytes in [
            &[0x81, 0x80][..],
            &[0xc1, 0x01],
            &[0x8a, 127, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(walker(false).walk(&mut bytes), Err(Malformed));
        }
    }

    fn joined(listener: &mut Listener, epoch: &str, offset: u64, backlog: u64, recovered: Option<bool>) -> Word {
        let recovered = recovered.map(|recovered| format!(r#","recovered":{recovered}"#)).unwrap_or_default();
        let text = format!(
            r#"{{"type":"joined","room":"r","epoch":"{epoch}","offset":{offset},"backlog":{backlog}{recovered}}}"#
        );
        listener.hear(Heard::read(&text), "r")
    }

    /// In the room at the offset 5 of the epoch `a`.
    fn listener() -> Listener {
        let mut listener = Listener::new(0);
        assert_eq!(joined(&mut listener, "a", 5, 0, None), Word::Joined);
        listener
    }

    /// What is lost, doubled and told of when the log ends at `offset` of `epoch`.
    fn judged(listener: &Listener, epoch: &str, offset: u64) -> (u64, u64, u64) {
        let mut verdict = Verdict::default();
        listener.judge(Some(Spot { epoch: EpochKey::of(epoch), offset }), &mut verdict);
        assert_eq!(verdict.examples.is_empty(), verdict.lost + verdict.doubled == 0);
        (verdict.lost, verdict.doubled, verdict.told)
    }

    #[test]
    fn too_few_are_lost_and_too_many_are_doubled() {
        let mut listener = listener();
        listener.count(10);
        assert_eq!(judged(&listener, "a", 15), (0, 0, 0));
        assert_eq!(judged(&listener, "a", 17), (2, 0, 0));
        assert_eq!(judged(&listener, "a", 12), (0, 3, 0));
        assert_eq!(judged(&listener, "b", 15), (1, 0, 0), "it still believes in the old epoch");
    }

    #[test]
    fn a_gap_is_told_and_must_follow_what_came() {
        let mut listener = listener();
        let gap = |listener: &mut Listener, from: u64, to: u64| {
            let text = format!(r#"{{"type":"gap","room":"r","epoch":"a","from":{from},"to":{to}}}"#);
            listener.hear(Heard::read(&text), "r")
        };
        assert_eq!(gap(&mut listener, 6, 8), Word::Other);
        assert_eq!(judged(&listener, "a", 8), (0, 0, 3));
        assert_eq!(gap(&mut listener, 10, 11), Word::Breach);
    }

    #[test]
    fn a_new_epoch_goes_on_where_the_listener_is_or_says_that_it_does_not() {
        let mut goes_on = listener();
        goes_on.count(2);
        joined(&mut goes_on, "b", 9, 2, Some(true));
        goes_on.count(2);
        assert_eq!(judged(&goes_on, "b", 9), (0, 0, 0));

        let mut skips = listener();
        joined(&mut skips, "b", 9, 2, Some(true));
        assert_eq!(judged(&skips, "b", 7), (2, 0, 0));

        let mut repeats = listener();
        joined(&mut repeats, "b", 4, 0, None);
        assert_eq!(judged(&repeats, "b", 4), (0, 1, 0));

        let mut breaks = listener();
        joined(&mut breaks, "b", 9, 2, Some(false));
        assert_eq!(judged(&breaks, "b", 7), (0, 0, 2));
    }

    #[test]
    fn what_the_protocol_does_not_have_is_a_breach() {
        for breach in [
            "no json",
            r#"{"type":"joined","room":"r","epoch":"e","offset":1,"backlog":2}"#,
            r#"{"type":"joined","room":"elsewhere","epoch":"e","offset":1,"backlog":0}"#,
            r#"{"type":"message","room":"elsewhere"}"#,
            r#"{"type":"accepted","room":"r"}"#,
        ] {
            assert_eq!(listener().hear(Heard::read(breach), "r"), Word::Breach, "{breach}");
        }
        let other = Heard::read(r#"{"type":"presence","room":"r","count":2}"#);
        assert_eq!(listener().hear(other, "r"), Word::Other);
    }
}
