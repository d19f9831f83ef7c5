//! A peer to compare with: one room over axum's `WebSocket` and `tokio::sync::broadcast`, a task per connection, as axum's
//! own chat example has it. It speaks as much of `townhall.v1` as the load generator needs, stores nothing and resumes
//! nobody, so it does less for each message than a hall.
//!
//! `peer-axum-broadcast ADDRESS`

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use axum::serve::ListenerExt;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Messages that a slow receiver may lag before it loses some: more than the benchmark has under way together, so that
/// nothing has to be lost. The channel holds each message once, as text that all receivers share.
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
            "type": "message", "room": say["room"], "offset": *offset, "at": at_ms(), "id": say["id"],
            "from": {"id": "guest-000000000000000000000000", "name": "load-0"}, "text": say["text"],
        });
        let _ = self.messages.send(message.to_string().into());
        *offset
    }
}

/// Unix time, as a hall gives it.
fn at_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).ok_or("usage: peer-axum-broadcast ADDRESS")?;
    let room = Arc::new(Room { offset: Mutex::new(0), messages: broadcast::channel(LAG).0 });
    let router = Router::new().route("/ws", any(upgrade)).with_state(room);
    // Without it, Nagle's algorithm and delayed acknowledgements would make each message wait for the one before.
    let listener = tokio::net::TcpListener::bind(address).await?.tap_io(|socket| {
        let _ = socket.set_nodelay(true); // it fails only where the client is gone already
    });
    axum::serve(listener, router).await?;
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
