//! What all doors have in common: bytes become what a client says, and answers become bytes.

use crate::encoding::{Encoding, notice};
use crate::protocol::{CloseReason, ErrorCode, Refusal, Reply};
use crate::session::refusal_notice;
use crate::tcp::{Line, Lines};
use crate::ws::frame::{self, Decoder, FrameError, Opcode};

/// Something that a client sent, whole.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    Text(String),
    Ping(Vec<u8>),
    Pong,
    /// The client is done.
    Close,
    /// It is refused before anybody looks what it means.
    Unreadable(ErrorCode, &'static str),
}

/// A door's inbound half; holds nothing while nothing is unfinished.
pub enum Codec {
    Frames(Decoder),
    Lines(Lines),
}

impl Codec {
    /// Takes from the front of `input` until something is whole, or `input` is used up.
    ///
    /// # Errors
    /// When the connection cannot go on.
    pub fn next(&mut self, input: &mut &mut [u8]) -> Result<Option<Incoming>, CloseReason> {
        match self {
            Codec::Frames(decoder) => Ok(decoder.next(input).map_err(broken)?.map(from_frame)),
            Codec::Lines(lines) => lines.next(input).map(from_line).transpose(),
        }
    }
}

impl Codec {
    /// What is left when the client sends nothing more.
    pub fn rest(&mut self) -> Option<Incoming> {
        match self {
            Codec::Frames(_) => None,
            Codec::Lines(lines) => lines.rest().and_then(|line| from_line(line).ok()),
        }
    }
}

/// Whether a frame that begins so is a client's last.
pub fn is_farewell(first: u8) -> bool {
    first == 0x80 | Opcode::Close as u8
}

/// The close that a broken frame is answered with.
pub fn broken(error: FrameError) -> CloseReason {
    let words = match error {
        FrameError::Protocol(words) => words,
        FrameError::NotUtf8 => "a text is UTF-8",
        FrameError::TooBig { .. } => "the message is too big",
    };
    CloseReason::BadFrame(error.close_code(), words)
}

fn from_frame(message: frame::Incoming) -> Incoming {
    match message {
        frame::Incoming::Text(text) => Incoming::Text(text),
        frame::Incoming::Binary(_) => Incoming::Unreadable(ErrorCode::BadFrame, "a binary frame where text is due"),
        frame::Incoming::Ping(payload) => Incoming::Ping(payload),
        frame::Incoming::Pong => Incoming::Pong,
        frame::Incoming::Close(_) => Incoming::Close,
    }
}

fn from_line(line: Line) -> Result<Incoming, CloseReason> {
    match line {
        Line::Text(text) => Ok(Incoming::Text(text)),
        Line::TooLong => Ok(Incoming::Unreadable(ErrorCode::TooLong, "a line has at most 8 KiB; it was skipped")),
        Line::NotUtf8 => Ok(Incoming::Unreadable(ErrorCode::BadFrame, "a line is UTF-8; it was skipped")),
        Line::Http => Err(CloseReason::BadFrame(1002, "this door is for lines, not for HTTP")),
    }
}

/// Appends a reply, at the door that has JSON.
pub fn write_reply(reply: &Reply, out: &mut Vec<u8>) {
    frame::write_frame(Opcode::Text, reply.to_json().as_bytes(), out);
}

/// Appends a refusal as the door shows it.
pub fn write_refusal(refusal: Refusal, encoding: Encoding, out: &mut Vec<u8>) {
    match encoding {
        Encoding::Json => write_reply(&Reply::Error(refusal), out),
        Encoding::Plain | Encoding::Line => notice(&refusal_notice(&refusal), encoding, out),
    }
}

/// Appends a question for a sign of life.
pub fn write_ping(out: &mut Vec<u8>) {
    frame::write_frame(Opcode::Ping, b"", out);
}

/// Appends the answer to a client's ping.
pub fn write_pong(payload: &[u8], out: &mut Vec<u8>) {
    frame::write_frame(Opcode::Pong, payload, out);
}

/// Appends the last words, where the door has any.
pub fn write_close(reason: CloseReason, encoding: Encoding, out: &mut Vec<u8>) {
    if encoding != Encoding::Line {
        let (code, words) = reason.code_and_text();
        frame::write_close(code, words, out);
    }
}
