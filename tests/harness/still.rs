//! A client of `townhall.v1` that reads only when it is told to, over a socket that holds a few KiB unread. It keeps nothing
//! but its position, so there can be thousands of them; it panics when an offset is lost, doubled or swapped.

use serde::Deserialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::json::Position;
use super::patiently;
use super::socket::{Heard, Socket};

pub struct Still {
    socket: Socket,
    room: String,
    pub position: Position,
}

#[derive(Deserialize)]
struct Event<'a> {
    r#type: &'a str,
    epoch: Option<&'a str>,
    offset: Option<u64>,
    backlog: Option<u64>,
    at: Option<u64>,
    recovered: Option<bool>,
}

impl Still {
    /// Joins where it left, or at the head; reads until it has joined.
    pub async fn join(url: &str, room: &str, after: Option<&Position>) -> Still {
        let socket = Socket::connect_narrow(url, Some("townhall.v1")).await;
        let mut socket = socket.unwrap_or_else(|refusal| panic!("{url} refused: {refusal:?}"));
        let join = match after {
            Some(after) => json!({"type": "join", "room": room, "after": after.json()}),
            None => json!({"type": "join", "room": room, "last": 0}),
        };
        socket.send(Message::text(join.to_string())).await.expect("sent");
        let mut still = Still { socket, room: room.into(), position: Position::new("", 0) };
        while !still.next().await.unwrap_or_else(|(code, why)| panic!("closed {code} {why}")) {}
        assert!(after.is_none_or(|after| after.offset == still.position.offset), "joined elsewhere");
        still
    }

    /// Reads until it has everything up to `offset`.
    pub async fn reach(&mut self, offset: u64) {
        while self.position.offset < offset {
            let next = self.next().await;
            next.unwrap_or_else(|(code, why)| panic!("closed {code} {why:?} at {:?}", self.position));
        }
        assert_eq!(self.position.offset, offset);
    }

    /// Reads until the server closes; the code.
    pub async fn until_closed(&mut self) -> u16 {
        loop {
            if let Err((code, _)) = self.next().await {
                return code;
            }
        }
    }

    /// The next event; whether it was a `joined`.
    async fn next(&mut self) -> Result<bool, (u16, String)> {
        let what = format!("the next event after {:?}", self.position);
        let text = match patiently(&what, self.socket.hear()).await {
            Heard::Text(text) => text,
            Heard::Closed(code, why) => return Err((code, why)),
        };
        let event: Event = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        match (event.r#type, event.epoch, event.offset, event.backlog, event.at) {
            ("joined", Some(epoch), Some(offset), Some(backlog), _) => {
                assert_ne!(event.recovered, Some(false), "in {} after {:?}: {text}", self.room, self.position);
                self.position = Position::new(epoch, offset - backlog);
                return Ok(true);
            }
            ("gap" | "error", ..) => panic!("after {:?}: {text}", self.position),
            (_, _, Some(offset), _, Some(_)) => {
                assert_eq!(offset, self.position.offset + 1, "lost, doubled or swapped");
                self.position.offset = offset;
            }
            _ => {}
        }
        Ok(false)
    }
}
