//! WebSocket frames as a server sees them (RFC 6455, no extensions), without any I/O.
//!
//! In: [`Decoder`] takes bytes as they come from the socket, cut anywhere, and gives whole messages and control frames that
//! were checked. Out: [`write_frame`] and [`header`] make final, unmasked frames; we never fragment.
//!
//! What holds for the decoder, whoever sends the bytes:
//!
//! - **Strict**: what the RFC forbids a client is an error, never guessed at. That includes a length in more bytes than it
//!   needs: §5.2 says MUST.
//! - **Early**: a frame is refused as soon as its header can be judged, before any of its payload; a text as soon as a byte
//!   came that no UTF-8 can hold, though its frame be unfinished.
//! - **The cut doesn't matter**: the answers are the same in whatever pieces the bytes arrive.
//! - **Bounded**: memory grows with what arrived, not with what was announced, and never beyond the limit of a message. How
//!   many fragments a message has costs nothing. Between messages no heap memory is held.
//! - **Ended is ended**: after a close frame everything else is swallowed (§1.4); after an error there is only that error.
//!
//! Absent: extensions (a reserved bit is an error), the client's side, and answers. What to do about a ping, a close or an
//! error is the connection's decision.

use std::ops::Deref;
use std::str;

use thiserror::Error;

/// The longest payload of a control frame, in bytes.
pub const MAX_CONTROL_BYTES: usize = 125;

/// A whole message or control frame from the client, unmasked and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Incoming {
    Text(String),
    Binary(Vec<u8>),
    /// To be answered by a pong with the same payload, at most [`MAX_CONTROL_BYTES`].
    Ping(Vec<u8>),
    /// A sign of life. Nobody asks what was in it, so it isn't kept.
    Pong,
    /// The code and the reason, or neither. Nothing comes after it.
    Close(Option<(u16, String)>),
}

/// What a client did wrong. The text is short enough for the reason of a close frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("{0}")]
    Protocol(&'static str),
    #[error("a text must be UTF-8")]
    NotUtf8,
    #[error("a message may have {limit} bytes at most")]
    TooBig { limit: usize },
}

impl FrameError {
    /// The code that the connection is to be closed with.
    pub fn close_code(&self) -> u16 {
        match self {
            FrameError::Protocol(_) => 1002,
            FrameError::NotUtf8 => 1007,
            FrameError::TooBig { .. } => 1009,
        }
    }
}

/// Makes messages of bytes; the module documentation says what it promises.
pub struct Decoder {
    max_message_bytes: usize,
    stage: Stage,
    /// Whether a message has begun whose last fragment has not ended. Control frames may come in between.
    in_message: bool,
    /// What has come of that message; empty, and without heap memory, when there is none.
    message: Message,
}

/// What the next byte belongs to.
enum Stage {
    Header(PartialHeader),
    Data { mask: [u8; 4], left: usize, last: bool },
    Control { kind: Control, mask: [u8; 4], left: usize, payload: Vec<u8> },
    Closed,
    Failed(FrameError),
}

impl Decoder {
    /// Messages may have `max_message_bytes`, all their fragments together.
    pub fn new(max_message_bytes: usize) -> Self {
        Decoder { max_message_bytes, stage: Stage::between_frames(), in_message: false, message: Message::default() }
    }

    /// Takes bytes from the front of `input`, which are unmasked where they are, until a message or control frame is whole
    /// or the input is used up: `None` asks for more input. After an error the rest of the input has no meaning.
    pub fn next(&mut self, input: &mut &mut [u8]) -> Result<Option<Incoming>, FrameError> {
        let answer = self.advance(input);
        match &answer {
            Err(error) => self.end(Stage::Failed(*error)),
            Ok(Some(Incoming::Close(_))) => self.end(Stage::Closed),
            Ok(_) => {}
        }
        answer
    }

    /// Whether nothing is unfinished. After an error something always is; after a close frame nothing.
    pub fn is_idle(&self) -> bool {
        match &self.stage {
            Stage::Header(header) => header.have == 0 && !self.in_message,
            Stage::Closed => true,
            Stage::Data { .. } | Stage::Control { .. } | Stage::Failed(_) => false,
        }
    }

    fn advance(&mut self, input: &mut &mut [u8]) -> Result<Option<Incoming>, FrameError> {
        loop {
            match &mut self.stage {
                Stage::Header(header) => {
                    let Some(frame) = header.fill(input)? else {
                        return Ok(None);
                    };
                    self.stage = self.begin(frame)?;
                }
                Stage::Data { mask, left, last } => {
                    // A last frame says how long the message will be; others leave that open.
                    let most = match last {
                        true => self.message.len() + *left,
                        false => self.max_message_bytes,
                    };
                    let piece = take_unmasked(input, left, mask);
                    self.message.push(piece, most)?;
                    if *left > 0 {
                        return Ok(None);
                    }
                    let message_ended = *last;
                    self.stage = Stage::between_frames();
                    if message_ended {
                        self.in_message = false;
                        return std::mem::take(&mut self.message).finish().map(Some);
                    }
                }
                Stage::Control { kind, mask, left, payload } => {
                    let piece = take_unmasked(input, left, mask);
                    if *kind != Control::Pong {
                        payload.extend_from_slice(piece);
                    }
                    if *left > 0 {
                        return Ok(None);
                    }
                    let incoming = kind.finish(std::mem::take(payload))?;
                    self.stage = Stage::between_frames();
                    return Ok(Some(incoming));
                }
                Stage::Closed => {
                    *input = &mut [];
                    return Ok(None);
                }
                Stage::Failed(error) => return Err(*error),
            }
        }
    }

    /// What to do with a frame's payload, now that its header is whole.
    fn begin(&mut self, frame: Header) -> Result<Stage, FrameError> {
        let too_big = FrameError::TooBig { limit: self.max_message_bytes };
        let left = usize::try_from(frame.payload_len).map_err(|_| too_big)?;
        match (frame.kind, self.in_message) {
            (Kind::Control(kind), _) => {
                return Ok(Stage::Control { kind, mask: frame.mask, left, payload: Vec::new() });
            }
            (Kind::Text, false) => self.message = Message::Text(PartialText::default()),
            (Kind::Binary, false) => self.message = Message::Binary(Vec::new()),
            (Kind::Continuation, true) => {}
            (Kind::Continuation, false) => return protocol("there is no message to continue"),
            (Kind::Text | Kind::Binary, true) => {
                return protocol("a new message began inside an unfinished one");
            }
        }
        if left > self.max_message_bytes - self.message.len() {
            return Err(too_big);
        }
        self.in_message = true;
        Ok(Stage::Data { mask: frame.mask, left, last: frame.last })
    }

    /// Nothing follows, so nothing is kept.
    fn end(&mut self, stage: Stage) {
        self.stage = stage;
        self.in_message = false;
        self.message = Message::default();
    }
}

impl Stage {
    fn between_frames() -> Self {
        Stage::Header(PartialHeader::default())
    }
}

fn protocol<T>(what: &'static str) -> Result<T, FrameError> {
    Err(FrameError::Protocol(what))
}

/// The header of a frame from the client: 2 bytes, 0, 2 or 8 more of length, 4 of mask.
struct Header {
    kind: Kind,
    /// No fragment of the same message follows.
    last: bool,
    mask: [u8; 4],
    payload_len: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Continuation,
    Text,
    Binary,
    Control(Control),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Control {
    Close,
    Ping,
    Pong,
}

/// As much of a header as has come.
#[derive(Default)]
struct PartialHeader {
    bytes: [u8; 14],
    have: u8,
}

impl PartialHeader {
    /// Takes what the header lacks; `None` where the input ends before it.
    fn fill(&mut self, input: &mut &mut [u8]) -> Result<Option<Header>, FrameError> {
        if !self.fill_to(2, input) {
            return Ok(None);
        }
        let (kind, last) = read_first_byte(self.bytes[0])?;
        let short_len = read_second_byte(self.bytes[1], kind, last)?;
        let extended = match short_len {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        if !self.fill_to(2 + extended + 4, input) {
            return Ok(None);
        }
        let mut mask = [0; 4];
        mask.copy_from_slice(&self.bytes[2 + extended..][..4]);
        let payload_len = match extended {
            0 => u64::from(short_len),
            _ => read_extended_len(&self.bytes[2..][..extended])?,
        };
        Ok(Some(Header { kind, last, mask, payload_len }))
    }

    fn fill_to(&mut self, need: usize, input: &mut &mut [u8]) -> bool {
        let have = usize::from(self.have);
        if have >= need {
            return true;
        }
        let piece = take(input, need - have);
        self.bytes[have..][..piece.len()].copy_from_slice(piece);
        self.have += piece.len() as u8;
        have + piece.len() == need
    }
}

/// The kind of a frame, and whether it is its message's last.
fn read_first_byte(byte: u8) -> Result<(Kind, bool), FrameError> {
    if byte & 0x70 != 0 {
        return protocol("a reserved bit is set");
    }
    let kind = match byte & 0x0f {
        0x0 => Kind::Continuation,
        0x1 => Kind::Text,
        0x2 => Kind::Binary,
        0x8 => Kind::Control(Control::Close),
        0x9 => Kind::Control(Control::Ping),
        0xa => Kind::Control(Control::Pong),
        _ => return protocol("a reserved opcode"),
    };
    Ok((kind, byte & 0x80 != 0))
}

/// The seven bits of length.
fn read_second_byte(byte: u8, kind: Kind, last: bool) -> Result<u8, FrameError> {
    if byte & 0x80 == 0 {
        return protocol("a client's frames must be masked");
    }
    let short_len = byte & 0x7f;
    if let Kind::Control(_) = kind {
        if !last {
            return protocol("a control frame must not be fragmented");
        }
        if usize::from(short_len) > MAX_CONTROL_BYTES {
            return protocol("a control frame may have 125 bytes at most");
        }
    }
    Ok(short_len)
}

/// A length of two or eight bytes, that would not fit into fewer.
fn read_extended_len(bytes: &[u8]) -> Result<u64, FrameError> {
    let len = bytes.iter().fold(0, |len, byte| len << 8 | u64::from(*byte));
    let needs = match len {
        0..=125 => 0,
        126..=0xffff => 2,
        _ => 8,
    };
    if len >> 63 != 0 {
        return protocol("the highest bit of a length is set");
    }
    if needs < bytes.len() {
        return protocol("a length in more bytes than it needs");
    }
    Ok(len)
}

impl Control {
    fn finish(self, payload: Vec<u8>) -> Result<Incoming, FrameError> {
        match self {
            Control::Ping => Ok(Incoming::Ping(payload)),
            Control::Pong => Ok(Incoming::Pong),
            Control::Close => read_close(&payload).map(Incoming::Close),
        }
    }
}

fn read_close(payload: &[u8]) -> Result<Option<(u16, String)>, FrameError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => protocol("half a close code"),
        };
    };
    let code = u16::from_be_bytes(*code);
    if !may_be_sent(code) {
        return protocol("a close code that must not be sent");
    }
    let reason = str::from_utf8(reason).map_err(|_| FrameError::NotUtf8)?;
    Ok(Some((code, reason.to_owned())))
}

/// The close codes that RFC 6455 §7.4 and its registry let travel: 1004 is reserved, 1005, 1006 and 1015 are for what was
/// never sent, the rest below 3000 is for later standards.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// As much of a message as has come.
enum Message {
    Text(PartialText),
    Binary(Vec<u8>),
}

impl Default for Message {
    fn default() -> Self {
        Message::Binary(Vec::new())
    }
}

impl Message {
    fn len(&self) -> usize {
        match self {
            Message::Text(text) => text.len(),
            Message::Binary(bytes) => bytes.len(),
        }
    }

    /// `most`: what the message may come to, as far as is known.
    fn push(&mut self, piece: &[u8], most: usize) -> Result<(), FrameError> {
        match self {
            Message::Text(text) => text.push(piece, most),
            Message::Binary(bytes) => {
                let more = growth(bytes.len(), bytes.capacity(), piece.len(), most);
                bytes.reserve_exact(more);
                bytes.extend_from_slice(piece);
                Ok(())
            }
        }
    }

    fn finish(self) -> Result<Incoming, FrameError> {
        match self {
            Message::Text(text) => text.finish().map(Incoming::Text),
            Message::Binary(bytes) => Ok(Incoming::Binary(bytes)),
        }
    }
}

/// A text, checked as it comes.
#[derive(Default)]
struct PartialText {
    text: String,
    /// The beginning of a character whose rest has not come: fewer bytes than it needs, none of them wrong so far.
    cut: [u8; 4],
    cut_len: u8,
}

impl PartialText {
    fn len(&self) -> usize {
        self.text.len() + usize::from(self.cut_len)
    }

    fn push(&mut self, piece: &[u8], most: usize) -> Result<(), FrameError> {
        let arriving = usize::from(self.cut_len) + piece.len();
        let more = growth(self.text.len(), self.text.capacity(), arriving, most);
        self.text.reserve_exact(more);
        let piece = self.mend(piece)?;
        let valid = match str::from_utf8(piece) {
            Ok(valid) => valid,
            Err(error) if error.error_len().is_some() => return Err(FrameError::NotUtf8),
            Err(error) => {
                let (valid, cut) = piece.split_at(error.valid_up_to());
                self.cut[..cut.len()].copy_from_slice(cut);
                self.cut_len = cut.len() as u8;
                str::from_utf8(valid).map_err(|_| FrameError::NotUtf8)?
            }
        };
        self.text.push_str(valid);
        Ok(())
    }

    /// Completes the character that was cut; gives back what follows it.
    fn mend<'p>(&mut self, mut piece: &'p [u8]) -> Result<&'p [u8], FrameError> {
        while self.cut_len > 0
            && let Some((next, rest)) = piece.split_first()
        {
            piece = rest;
            self.cut[usize::from(self.cut_len)] = *next;
            self.cut_len += 1;
            match str::from_utf8(&self.cut[..usize::from(self.cut_len)]) {
                Ok(character) => {
                    self.text.push_str(character);
                    self.cut_len = 0;
                }
                Err(error) if error.error_len().is_some() => return Err(FrameError::NotUtf8),
                Err(_) => {}
            }
        }
        Ok(piece)
    }

    fn finish(self) -> Result<String, FrameError> {
        match self.cut_len {
            0 => Ok(self.text),
            _ => Err(FrameError::NotUtf8),
        }
    }
}

/// How many bytes to reserve beyond `len`, for `arriving` ones to fit. Doubles, as a `Vec` would, but never beyond `most`: a
/// message that comes in one piece takes exactly its length.
fn growth(len: usize, capacity: usize, arriving: usize, most: usize) -> usize {
    if capacity - len >= arriving {
        return 0;
    }
    (2 * len).min(most).max(len + arriving) - len
}

/// Up to `most` bytes from the front of the input.
fn take<'i>(input: &mut &'i mut [u8], most: usize) -> &'i mut [u8] {
    let here = most.min(input.len());
    input.split_off_mut(..here).unwrap_or_default()
}

/// What is here of a payload of which `left` bytes are to come. Turns the mask, so that it fits the next byte.
fn take_unmasked<'i>(input: &mut &'i mut [u8], left: &mut usize, mask: &mut [u8; 4]) -> &'i mut [u8] {
    let piece = take(input, *left);
    unmask(piece, *mask);
    mask.rotate_left(piece.len() % 4);
    *left -= piece.len();
    piece
}

/// Eight bytes at a time: the mask is the same for every word, whatever the machine's byte order.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    let [a, b, c, d] = mask;
    let word_mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = bytes.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ word_mask).to_ne_bytes();
    }
    for (byte, mask) in rest.iter_mut().zip(mask.into_iter().cycle()) {
        *byte ^= mask;
    }
}

/// What a frame of ours is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// The header of a frame of ours, 2 to 10 bytes.
#[derive(Debug, Clone, Copy)]
pub struct FrameHeader {
    bytes: [u8; 10],
    len: u8,
}

impl Deref for FrameHeader {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

/// The header of a final, unmasked frame. The payload of a control frame has [`MAX_CONTROL_BYTES`] at most.
pub fn header(opcode: Opcode, payload_len: usize) -> FrameHeader {
    let mut bytes = [0; 10];
    bytes[0] = 0x80 | opcode as u8;
    let len = match payload_len {
        0..=125 => {
            bytes[1] = payload_len as u8;
            2
        }
        126..=0xffff => {
            bytes[1] = 126;
            bytes[2..4].copy_from_slice(&(payload_len as u16).to_be_bytes());
            4
        }
        _ => {
            bytes[1] = 127;
            bytes[2..].copy_from_slice(&(payload_len as u64).to_be_bytes());
            10
        }
    };
    FrameHeader { bytes, len }
}

/// Appends a final, unmasked frame.
pub fn write_frame(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&header(opcode, payload.len()));
    out.extend_from_slice(payload);
}

/// Appends a close frame. A reason that doesn't fit is cut between two characters.
pub fn write_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL_BYTES - 2)];
    out.extend_from_slice(&header(Opcode::Close, 2 + reason.len()));
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(reason.as_bytes());
}

#[cfg(test)]
mod tests;
