//! The parts of a hall, one line each: real nodes, real Redis, real nginx, and clients of every door.
//!
//! ```no_run
//! let redis = RedisServer::start();
//! let east = Node::start(&["--redis", &redis.url()]).await;
//! let west = Node::start(&["--redis", &redis.url()]).await;
//! let front = Nginx::start(&[east.port(), west.port()], NginxKind::RoundRobin).await;
//! let mut ada = Json::connect(&front.ws_url(), "?name=ada").await;
//! ada.join("lobby").await;
//! ada.say("lobby", "hello").await;
//! ada.hear("lobby", "hello").await;
//! ```
//!
//! Every part takes free ports of 127.0.0.1 and a directory of its own, and ends when it is dropped; tests share nothing
//! and run side by side. Nothing here sleeps for luck: whatever is waited for is a state, for at most [`PATIENCE`], and
//! who waits in vain is told what came instead. A node whose test fails prints its log.

#![allow(dead_code, unused_imports)] // every test binary takes the parts it needs

mod browser;
mod bystanders;
mod crowd;
mod cut;
mod doorkeeper;
mod faithful;
mod fitful;
mod http;
mod json;
mod line;
mod nginx;
mod node;
mod plain;
pub mod redis;
pub mod secrets;
mod socket;
mod still;
mod terminal;

use std::future::Future;
use std::time::Duration;

pub use browser::{Chromium, Person};
pub use bystanders::Bystanders;
pub use crowd::Crowd;
pub use cut::Cut;
pub use doorkeeper::doorkeeper;
pub use faithful::Faithful;
pub use fitful::Dice;
pub use http::{Answer, get};
pub use json::{Json, Position};
pub use line::Line;
pub use nginx::{Nginx, NginxKind};
pub use node::Node;
pub use plain::Plain;
pub use redis::{Certificates, Cluster, RedisServer, Sentinel};
pub use socket::Refusal;
pub use still::Still;
pub use terminal::{Seen, Terminal};

/// How long anything may take before a test fails: far more than anything takes, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks at a state.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Waits until `condition` holds; `what` completes "waited in vain until …".
pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !condition().await {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    if tokio::time::timeout(PATIENCE, looking).await.is_err() {
        panic!("waited in vain until {what}");
    }
}

/// Awaits something for at most [`PATIENCE`]; `what` completes "waited in vain for …".
pub async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}
