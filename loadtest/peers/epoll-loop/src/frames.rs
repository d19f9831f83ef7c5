//! The messages: as long as those of a hall, each under its offset, in frames that every socket is given alike.

use std::fmt::Write;

pub const TEXT: u8 = 0x1;

/// A text frame of a server.
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 4);
    append(&mut frame, payload);
    frame
}

/// Payloads are below 64 KiB.
fn append(out: &mut Vec<u8>, payload: &[u8]) {
    out.push(0x80 | TEXT);
    match payload.len() {
        length @ 0..=125 => out.push(length as u8),
        length => {
            out.push(126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(payload);
}

/// All messages of the room, one batch after the other.
#[derive(Debug)]
pub struct Messages {
    room: String,
    text: String,
    offset: u64,
    payload: String,
    batch: Vec<u8>,
}

impl Messages {
    pub fn new(room: String, size: usize) -> Self {
        Messages { room, text: ".".repeat(size), offset: 0, payload: String::new(), batch: Vec::new() }
    }

    /// The next messages, as bytes to be sent. Ids are the offsets, names as long as those of the generator's clients.
    pub fn batch(&mut self, frames: u32) -> &[u8] {
        self.batch.clear();
        for _ in 0..frames {
            self.offset += 1;
            self.payload.clear();
            let Messages { room, text, offset, payload, .. } = self;
            // Writing to a string cannot fail.
            let _ = write!(
                payload,
                r#"{{"room":"{room}","offset":{offset},"at":1700000000000,"type":"message","id":"00000000-0000-4000-8000-{offset:012}","from":{{"id":"guest-000000000000000000000000","name":"load-0"}},"text":"{text}"}}"#,
            );
            append(&mut self.batch, self.payload.as_bytes());
        }
        &self.batch
    }
}
