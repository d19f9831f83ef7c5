//! Everything that can be set, as one typed value, checked once before anything is bound.

use std::net::SocketAddr;
use std::time::Duration;

use crate::names::RoomName;

/// What `townhall serve` runs with. Sizes are bytes. The command line's way here is `cli.rs`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The public listener.
    pub listen: SocketAddr,
    /// The operations listener.
    pub ops: SocketAddr,
    /// The line door; `None`: closed.
    pub tcp: Option<SocketAddr>,
    /// Below which every public path is served, too: empty, or `/gin`.
    pub base_path: String,
    /// `None`: the embedded broker.
    pub redis: Option<RedisSettings>,
    /// Origins that are let in besides the same one.
    pub origins: AllowedOrigins,
    pub rooms: Rooms,
    pub limits: Limits,
    pub history: HistorySettings,
}

/// Where Redis is and what our keys begin with.
#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// As given; holds a password, so it is never logged as it is.
    pub url: String,
    pub prefix: String,
}

/// What a broker keeps.
#[derive(Debug, Clone)]
pub struct HistorySettings {
    /// Messages kept a room, at least.
    pub messages: usize,
    /// A room in which nobody speaks for so long is forgotten; zero: never.
    pub room_ttl: Duration,
    /// For so long the same message id is stored only once.
    pub dedupe: Duration,
    /// The embedded broker's memory for all rooms; 0: no bound.
    pub budget: usize,
}

/// Which rooms there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rooms {
    /// Any that somebody names.
    Open,
    /// These.
    Only(Vec<RoomName>),
}

/// `--allow-origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    Any,
    /// `host` or `host:port` in lower case, without the scheme's own port.
    Only(Vec<String>),
}

/// What a client may take. A zero means "no limit" where the field says so.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A message's text.
    pub text: usize,
    /// A WebSocket message.
    pub frame: usize,
    /// Rooms joined by one connection at a time.
    pub rooms: usize,
    /// Commands a second and connection; 0: no limit.
    pub rate: u32,
    /// Commands at once after a pause.
    pub burst: u32,
    /// From accepting a connection to the end of its request's head.
    pub handshake_timeout: Duration,
    /// Between pings to a silent client; zero: none.
    pub beat: Duration,
    /// How long a socket may take nothing while there is something for it; zero: for ever.
    pub write_timeout: Duration,
    /// Sockets open at the same time.
    pub connections: usize,
    /// A room's window on this node, all encodings counted.
    pub room_window: usize,
    /// Messages in a room's window.
    pub room_window_messages: usize,
    /// All windows together.
    pub window_budget: usize,
    /// How long leaving may take.
    pub drain: Duration,
}

impl Limits {
    /// A message's `data`; the wire format has the number.
    pub const DATA: usize = 4 * 1024;
}
