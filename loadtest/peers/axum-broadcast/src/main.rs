//! A peer to compare with: one room over axum's `WebSocket` and `tokio::sync::broadcast`, a task per connection, as axum's
//! own chat example has it. It speaks as much of `townhall.v1` as the load generator needs, stores nothing and resumes
//! nobody, so it does less for each message than a hall.
//!
//! `peer-axum-broadcast ADDRESS`

use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Messages that a slow receiver may lag before it loses some.
const LAG: usize = 4096;

struct Room {
    offset: Mutex<u64>,
    messages: broadcast::Sender<Utf8Bytes>,
}

impl Room {
    /// The newest offset and everything after it.
    fn join(&self) -> (u64, broadcast::Receiver<Utf8Bytes>) {
        let offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        (*offset, self.messages.subscribe())
    }

    fn say(&self, say: &Value) -> u64 {
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        *offset += 1;
        let message = json!({
            "type": "message", "room": say["room"], "offset": *offset, "at": 0, "id": say["id"],
            "from": {"id": "peer", "name": "peer"}, "text": say["text"],
        });
        let _ = self.messages.send(message.to_string().into());
        *offset
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: peer-axum-broadcast ADDRESS")?;
    let room = Arc::new(Room { offset: Mutex::new(0), messages: broadcast::channel(LAG).0 });
    let router = Router::new().route("/ws", any(upgrade)).with_state(room);
    axum::serve(tokio::net::TcpListener::bind(address).await?, router).await?;
    Ok(())
}

async fn upgrade(State(room): State<Arc<Room>>, upgrade: WebSocketUpgrade) -> axum::response::Response {
    upgrade.protocols(["townhall.v1"]).on_upgrade(|socket| serve(socket, room))
}

async fn serve(socket: WebSocket, room: Arc<Room>) {
    let (mut sender, mut receiver) = socket.split();
    let limits =
        json!({"text_bytes": 4096, "data_bytes": 0, "rooms": 1, "rate": 0, "burst": 0, "dedupe_s": 0, "history": 0});
    let user = json!({"id": "peer", "name": "peer"});
    let welcome = json!({
        "type": "welcome", "user": user, "node": "peer", "session": "peer", "beat": 0, "rooms": ["lobby"], "limits": limits,
    });
    if sender.send(Message::Text(welcome.to_string().into())).await.is_err() {
        return;
    }
    let mut messages = None;
    loop {
        let reply = tokio::select! {
            command = receiver.next() => match command {
                Some(Ok(Message::Text(text))) => answer(&text, &room, &mut messages),
                Some(Ok(_)) => None,
                _ => return,
            },
            message = next(&mut messages) => message,
        };
        if let Some(reply) = reply
            && sender.send(Message::Text(reply)).await.is_err()
        {
            return;
        }
    }
}

fn answer(text: &str, room: &Room, messages: &mut Option<broadcast::Receiver<Utf8Bytes>>) -> Option<Utf8Bytes> {
    let command: Value = serde_json::from_str(text).ok()?;
    let mut reply = match command["type"].as_str()? {
        "join" => {
            let (offset, receiver) = room.join();
            *messages = Some(receiver);
            json!({"type": "joined", "room": command["room"], "epoch": "peer", "offset": offset, "backlog": 0})
        }
        "say" => {
            let offset = room.say(&command);
            json!({"type": "accepted", "room": command["room"], "id": command["id"], "epoch": "peer", "offset": offset})
        }
        _ => return None,
    };
    if !command["ref"].is_null() {
        reply["ref"] = command["ref"].clone();
    }
    Some(reply.to_string().into())
}

async fn next(messages: &mut Option<broadcast::Receiver<Utf8Bytes>>) -> Option<Utf8Bytes> {
    match messages {
        Some(messages) => messages.recv().await.ok(),
        None => std::future::pending().await,
    }
}
