//! A peer to compare with: one room over axum's `WebSocket` and `tokio::sync::broadcast`, a task per connection, as axum's
//! own chat example has it. It speaks as much of `townhall.v1` as the load generator needs, stores nothing and resumes
//! nobody, so it does less for each message than a hall. A message is accepted when its speaker hears it in the room.
//!
//! `peer-axum-broadcast [--redis URL] ADDRESS`
//!
//! With `--redis` several of them are one room, joined by a channel of Redis, whose order all nodes get alike. So each node
//! counts what it hears there and has the same offsets as the others, if all run before the first message; Redis keeps
//! nothing and numbers nothing. A node that loses its connection to Redis ends, since it has lost, for good, what is said
//! until it would be back.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::any;
use axum::serve::ListenerExt;
use futures::{SinkExt, StreamExt};
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// Messages that a slow receiver may lag before it loses some: more than the benchmark has under way together, so that
/// nothing has to be lost. The channel holds each message once, as text that all receivers share.
const LAG: usize = 4096;
/// Between nodes.
const CHANNEL: &str = "axum-broadcast";

type Error = Box<dyn std::error::Error>;

/// A message as everybody gets it.
struct Said {
    offset: u64,
    id: String,
    text: Utf8Bytes,
}

struct Room {
    offset: Mutex<u64>,
    messages: broadcast::Sender<Arc<Said>>,
    /// Where there are other nodes.
    redis: Option<MultiplexedConnection>,
}

impl Room {
    /// The newest offset and everything after it.
    fn join(&self) -> (u64, broadcast::Receiver<Arc<Said>>) {
        let offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        (*offset, self.messages.subscribe())
    }

    /// Tells everybody, by way of Redis where there are other nodes.
    async fn say(&self, say: &Value) -> redis::RedisResult<()> {
        match &self.redis {
            Some(redis) => redis.clone().publish(CHANNEL, say.to_string()).await,
            None => {
                self.tell(say);
                Ok(())
            }
        }
    }

    fn tell(&self, say: &Value) {
        let mut offset = self.offset.lock().unwrap_or_else(PoisonError::into_inner);
        *offset += 1;
        let message = json!({
            "type": "message", "room": say["room"], "offset": *offset, "at": at_ms(), "id": say["id"],
            "from": {"id": "guest-000000000000000000000000", "name": "load-0"}, "text": say["text"],
        });
        let id = say["id"].as_str().unwrap_or_default().to_owned();
        let _ = self.messages.send(Arc::new(Said { offset: *offset, id, text: message.to_string().into() }));
    }
}

/// Unix time, as a hall gives it.
fn at_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (url, address) = match &arguments[..] {
        [address] => (None, address),
        [flag, url, address] if flag == "--redis" => (Some(url), address),
        _ => return Err("usage: peer-axum-broadcast [--redis URL] ADDRESS".into()),
    };
    let client = url.map(|url| redis::Client::open(url.as_str())).transpose()?;
    let redis = match &client {
        Some(client) => Some(client.get_multiplexed_async_connection().await?),
        None => None,
    };
    let room = Arc::new(Room { offset: Mutex::new(0), messages: broadcast::channel(LAG).0, redis });
    let router = Router::new().route("/ws", any(upgrade)).with_state(room.clone());
    let relayed = match client {
        Some(client) => tokio::spawn(relay(subscribe(&client).await?, room)),
        None => tokio::spawn(std::future::pending()),
    };
    // Without it, Nagle's algorithm and delayed acknowledgements would make each message wait for the one before.
    let listener = tokio::net::TcpListener::bind(address).await?.tap_io(|socket| {
        let _ = socket.set_nodelay(true); // it fails only where the client is gone already
    });
    tokio::select! {
        served = axum::serve(listener, router) => Ok(served?),
        _ = relayed => Err("the connection to Redis ended".into()),
    }
}

/// From now on whatever is said at any node is heard.
async fn subscribe(client: &redis::Client) -> Result<redis::aio::PubSub, Error> {
    let mut subscription = client.get_async_pubsub().await?;
    subscription.subscribe(CHANNEL).await?;
    Ok(subscription)
}

/// Tells the clients of this node what is said at all nodes, in Redis' order, as long as there is a connection.
async fn relay(mut subscription: redis::aio::PubSub, room: Arc<Room>) {
    let mut messages = subscription.on_message();
    while let Some(message) = messages.next().await {
        if let Ok(say) = serde_json::from_slice(message.get_payload_bytes()) {
            room.tell(&say);
        }
    }
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
    let mut here = Here::default();
    loop {
        let replies = tokio::select! {
            command = receiver.next() => match command {
                Some(Ok(Message::Text(text))) => [here.answer(&text, &room).await, None],
                Some(Ok(_)) => continue,
                _ => return,
            },
            message = next(&mut here.messages) => here.hear(message),
        };
        for reply in replies.into_iter().flatten() {
            if sender.send(Message::Text(reply)).await.is_err() {
                return;
            }
        }
    }
}

/// One client in the room.
#[derive(Default)]
struct Here {
    messages: Option<broadcast::Receiver<Arc<Said>>>,
    /// By its id: what it said and has not heard yet.
    spoken: HashMap<String, Value>,
}

impl Here {
    async fn answer(&mut self, text: &str, room: &Room) -> Option<Utf8Bytes> {
        let command: Value = serde_json::from_str(text).ok()?;
        match command["type"].as_str()? {
            "join" => {
                let (offset, receiver) = room.join();
                self.messages = Some(receiver);
                let joined =
                    json!({"type": "joined", "room": command["room"], "epoch": "peer", "offset": offset, "backlog": 0});
                Some(with_ref(joined, &command))
            }
            "say" => {
                // What Redis does not take is never heard, and so never accepted.
                room.say(&command).await.ok()?;
                self.spoken.insert(command["id"].as_str()?.to_owned(), command);
                None
            }
            _ => None,
        }
    }

    /// The message, and its acceptance if it is one of this client's own.
    fn hear(&mut self, said: Option<Arc<Said>>) -> [Option<Utf8Bytes>; 2] {
        let Some(said) = said else {
            return [None, None];
        };
        let spoken = if self.spoken.is_empty() { None } else { self.spoken.remove(&said.id) };
        let accepted = spoken.map(|say| {
            let accepted =
                json!({"type": "accepted", "room": say["room"], "id": say["id"], "epoch": "peer", "offset": said.offset});
            with_ref(accepted, &say)
        });
        [Some(said.text.clone()), accepted]
    }
}

fn with_ref(mut reply: Value, command: &Value) -> Utf8Bytes {
    if !command["ref"].is_null() {
        reply["ref"] = command["ref"].clone();
    }
    reply.to_string().into()
}

/// `None`: the client was too slow, and some are lost to it.
async fn next(messages: &mut Option<broadcast::Receiver<Arc<Said>>>) -> Option<Arc<Said>> {
    match messages {
        Some(messages) => messages.recv().await.ok(),
        None => std::future::pending().await,
    }
}
