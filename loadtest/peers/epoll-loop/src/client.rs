//! One client, up to the moment from which it only receives.

use std::io::{ErrorKind, Read, Write};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use mio::net::TcpStream;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

use crate::frames::{TEXT, frame};

/// It left, or sent what nobody understands.
#[derive(Debug)]
pub struct Gone;

#[derive(Debug)]
enum Stage {
    Upgrading,
    Greeted,
    /// In this room.
    Joined(String),
}

#[derive(Debug)]
pub struct Client {
    socket: TcpStream,
    stage: Stage,
    /// What came and is not complete.
    incoming: Vec<u8>,
}

impl Client {
    /// No request and no command is longer.
    const MAX_INCOMING: usize = 16 * 1024;

    pub fn new(socket: TcpStream) -> Self {
        Client { socket, stage: Stage::Upgrading, incoming: Vec::new() }
    }

    /// `None` until it joined.
    pub fn room(&self) -> Option<&str> {
        match &self.stage {
            Stage::Joined(room) => Some(room),
            _ => None,
        }
    }

    /// Sends what the socket takes now: how much that is.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Gone> {
        if !matches!(self.stage, Stage::Joined(_)) {
            return Ok(bytes.len()); // it came late, and is not part of this
        }
        match self.socket.write(bytes) {
            Ok(sent) => Ok(sent),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
            Err(_) => Err(Gone),
        }
    }

    /// Takes in what is there, and answers it.
    pub fn read(&mut self) -> Result<(), Gone> {
        let mut buffer = [0; 4096];
        loop {
            match self.socket.read(&mut buffer) {
                Ok(0) => return Err(Gone),
                Ok(length) => self.incoming.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Gone),
            }
        }
        while let Some(reply) = self.next_reply()? {
            // Replies are short, and a socket that has just been opened has room for them.
            self.socket.write_all(&reply).map_err(|_| Gone)?;
        }
        if self.incoming.len() > Self::MAX_INCOMING {
            return Err(Gone);
        }
        if self.incoming.is_empty() {
            self.incoming = Vec::new(); // as bare as can be
        }
        Ok(())
    }

    /// `None`: nothing is complete.
    fn next_reply(&mut self) -> Result<Option<Vec<u8>>, Gone> {
        if matches!(self.stage, Stage::Upgrading) {
            let Some(end) = self.incoming.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(None);
            };
            let request: Vec<u8> = self.incoming.drain(..end + 4).collect();
            self.stage = Stage::Greeted;
            return upgraded(&String::from_utf8_lossy(&request)).map(Some);
        }
        match take_frame(&mut self.incoming)? {
            Some((TEXT, text)) => self.answer(&text).map(Some),
            Some((CLOSE, _)) => Err(Gone),
            Some(_) => Ok(Some(Vec::new())),
            None => Ok(None),
        }
    }

    fn answer(&mut self, text: &[u8]) -> Result<Vec<u8>, Gone> {
        let command: Value = serde_json::from_slice(text).map_err(|_| Gone)?;
        let (Some("join"), Some(room)) = (command["type"].as_str(), command["room"].as_str()) else {
            return Err(Gone); // nobody is asked to speak here
        };
        self.stage = Stage::Joined(room.to_owned());
        let joined = json!({
            "type": "joined", "room": room, "epoch": "loop", "offset": 0, "backlog": 0, "ref": command["ref"],
        });
        Ok(frame(joined.to_string().as_bytes()))
    }
}

const CLOSE: u8 = 0x8;

/// The answer to the handshake, and the welcome.
fn upgraded(request: &str) -> Result<Vec<u8>, Gone> {
    let key = request.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    });
    let digest = Sha1::digest(format!("{}258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key.ok_or(Gone)?));
    let mut reply = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Protocol: townhall.v1\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        STANDARD.encode(digest)
    )
    .into_bytes();
    reply.extend(frame(json!({"type": "welcome", "beat": 0}).to_string().as_bytes()));
    Ok(reply)
}

/// Takes a client's frame off the front: its opcode and its payload, unmasked. Clients say little here, so frames are short.
fn take_frame(bytes: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, Gone> {
    let [first, second, ..] = bytes[..] else {
        return Ok(None);
    };
    let (header, length) = match (second & 0x7f, bytes.get(2..4)) {
        (126, Some(length)) => (4, usize::from(u16::from_be_bytes([length[0], length[1]]))),
        (126, None) => return Ok(None),
        (127, _) => return Err(Gone),
        (length, _) => (2, usize::from(length)),
    };
    let Some(mask) = bytes.get(header..header + 4).map(<[u8]>::to_vec) else {
        return Ok(None);
    };
    let payload = header + 4..header + 4 + length;
    if bytes.len() < payload.end {
        return Ok(None);
    }
    let text = bytes[payload.clone()].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
    bytes.drain(..payload.end);
    Ok(Some((first & 0x0f, text)))
}
