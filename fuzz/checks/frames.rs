//! [`Decoder`] beside the simplest reader there is: one that has all the bytes before it begins.
//!
//! Whatever the bytes are and however they are cut, both must say the same: the same messages, then the same kind of error
//! or none, and whether anything was left unfinished.

use townhall::ws::frame::{Decoder, FrameError, Incoming, MAX_CONTROL_BYTES};

/// A first byte chooses one of these.
const LIMITS: [usize; 8] = [0, 1, 16, 125, 126, 1000, 0xffff, 0x1_0001];

/// `data`: which limit, how to cut, then what the client sends.
pub fn check(data: &[u8]) {
    let [limit, cuts, sent @ ..] = data else { return };
    let limit = LIMITS[usize::from(*limit) % LIMITS.len()];
    let due = read_whole(sent, limit);
    assert_eq!(decode(sent, limit, std::iter::repeat(sent.len().max(1))), due, "in one piece");
    assert_eq!(decode(sent, limit, std::iter::repeat(1)), due, "byte by byte");
    assert_eq!(decode(sent, limit, pieces(*cuts)), due, "cut by {cuts}");
}

/// What became of some bytes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    messages: Vec<Incoming>,
    /// The close code of the error that ended it.
    error: Option<u16>,
    idle: bool,
}

/// Lengths of pieces, from 1 on, most of them short.
fn pieces(seed: u8) -> impl Iterator<Item = usize> {
    let mut state = u32::from(seed);
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        1 + (state >> 16) as usize % [3, 17, 200, 5000][(state >> 30) as usize]
    })
}

fn decode(sent: &[u8], limit: usize, mut pieces: impl Iterator<Item = usize>) -> Said {
    let mut decoder = Decoder::new(limit);
    let mut said = Said::default();
    let mut rest = sent.to_vec();
    let mut rest = &mut rest[..];
    while !rest.is_empty() {
        let length = pieces.next().unwrap_or(1).min(rest.len());
        let (mut input, after) = std::mem::take(&mut rest).split_at_mut(length);
        rest = after;
        loop {
            match decoder.next(&mut input) {
                Ok(Some(message)) => {
                    assert!(!matches!(said.messages.last(), Some(Incoming::Close(_))), "something after the close");
                    assert_bounded(&message, limit);
                    said.messages.push(message);
                }
                Ok(None) => break assert!(input.is_empty(), "it asks for more and has not taken what is there"),
                Err(error) => {
                    assert_eq!(decoder.next(&mut input), Err(error), "after an error there is only that error");
                    assert!(!decoder.is_idle());
                    assert!(error.to_string().len() <= MAX_CONTROL_BYTES - 2, "the reason of a close frame");
                    said.error = Some(error.close_code());
                    return said;
                }
            }
        }
    }
    said.idle = decoder.is_idle();
    said
}

/// Memory grows with what arrived and never beyond the limit.
fn assert_bounded(message: &Incoming, limit: usize) {
    match message {
        Incoming::Text(text) => assert!(text.capacity() <= limit, "{} for {limit}", text.capacity()),
        Incoming::Binary(bytes) => assert!(bytes.capacity() <= limit, "{} for {limit}", bytes.capacity()),
        Incoming::Ping(payload) => assert!(payload.len() <= MAX_CONTROL_BYTES),
        Incoming::Close(Some((_, reason))) => assert!(reason.len() <= MAX_CONTROL_BYTES - 2),
        Incoming::Close(None) | Incoming::Pong => {}
    }
}

/// RFC 6455, 5.2 to 5.6, read off the page.
fn read_whole(mut sent: &[u8], limit: usize) -> Said {
    let mut said = Said::default();
    // Of a message whose last fragment has not ended: whether it is a text, and its payload so far.
    let mut message: Option<(bool, Vec<u8>)> = None;
    loop {
        let frame = match next_frame(sent) {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                said.idle = sent.is_empty() && message.is_none();
                return said;
            }
            Err(error) => return said.failed(error),
        };
        sent = frame.rest;
        if frame.opcode >= 8 {
            if !frame.is_whole() {
                return said;
            }
            match control(frame.opcode, frame.payload) {
                Err(error) => return said.failed(error),
                Ok(close @ Incoming::Close(_)) => {
                    said.messages.push(close);
                    said.idle = true;
                    return said;
                }
                Ok(other) => said.messages.push(other),
            }
            continue;
        }
        let (is_text, mut payload) = match (frame.opcode, message.take()) {
            (0, Some(message)) => message,
            (0, None) | (_, Some(_)) => return said.failed(FrameError::Protocol("")),
            (opcode, None) => (opcode == 1, Vec::new()),
        };
        if frame.length > (limit - payload.len()) as u64 {
            return said.failed(FrameError::TooBig { limit });
        }
        payload.extend(&frame.payload);
        let cut = match std::str::from_utf8(&payload) {
            Err(error) if is_text && error.error_len().is_some() => return said.failed(FrameError::NotUtf8),
            read => read.is_err(),
        };
        if !frame.is_whole() {
            return said;
        }
        if !frame.last {
            message = Some((is_text, payload));
        } else if !is_text {
            said.messages.push(Incoming::Binary(payload));
        } else if cut {
            return said.failed(FrameError::NotUtf8);
        } else {
            said.messages.push(Incoming::Text(String::from_utf8_lossy(&payload).into_owned()));
        }
    }
}

impl Said {
    fn failed(mut self, error: FrameError) -> Self {
        self.error = Some(error.close_code());
        self.idle = false;
        self
    }
}

struct Frame<'a> {
    last: bool,
    opcode: u8,
    /// As the header has it; there may be less of it here.
    length: u64,
    payload: Vec<u8>,
    rest: &'a [u8],
}

impl Frame<'_> {
    fn is_whole(&self) -> bool {
        self.payload.len() as u64 == self.length
    }
}

/// The frame at the front; `None` where its header is not whole.
fn next_frame(sent: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let wrong = Err(FrameError::Protocol(""));
    let [first, second, rest @ ..] = sent else { return Ok(None) };
    let (last, opcode, masked, short) = (first & 0x80 != 0, first & 0x0f, second & 0x80 != 0, second & 0x7f);
    if first & 0x70 != 0 || !matches!(opcode, 0..=2 | 8..=10) || !masked {
        return wrong;
    }
    if opcode >= 8 && (!last || short > 125) {
        return wrong;
    }
    let extended = [0, 2, 8][usize::from(short.saturating_sub(125))];
    if rest.len() < extended + 4 {
        return Ok(None);
    }
    let (extension, rest) = rest.split_at(extended);
    let (mask, rest) = rest.split_at(4);
    let (length, least) = match *extension {
        [] => (u64::from(short), 0),
        [a, b] => (u64::from(u16::from_be_bytes([a, b])), 126),
        _ => (u64::from_be_bytes(extension.try_into().unwrap_or_default()), 0x1_0000),
    };
    if length < least || length > i64::MAX as u64 {
        return wrong;
    }
    let here = rest.len().min(usize::try_from(length).unwrap_or(usize::MAX));
    let (payload, rest) = rest.split_at(here);
    let payload = payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]).collect();
    Ok(Some(Frame { last, opcode, length, payload, rest }))
}

fn control(opcode: u8, payload: Vec<u8>) -> Result<Incoming, FrameError> {
    let wrong = Err(FrameError::Protocol(""));
    match (opcode, &payload[..]) {
        (9, _) => Ok(Incoming::Ping(payload)),
        (10, _) => Ok(Incoming::Pong),
        (_, []) => Ok(Incoming::Close(None)),
        (_, [_]) => wrong,
        (_, [high, low, reason @ ..]) => {
            let code = u16::from_be_bytes([*high, *low]);
            let reserved = [1004, 1005, 1006, 1015].contains(&code);
            if !(1000..5000).contains(&code) || reserved || (1016..3000).contains(&code) {
                return wrong;
            }
            let reason = std::str::from_utf8(reason).map_err(|_| FrameError::NotUtf8)?;
            Ok(Incoming::Close(Some((code, reason.to_owned()))))
        }
    }
}
