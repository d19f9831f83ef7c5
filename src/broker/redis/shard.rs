//! One server that stores messages: its connections while there are any, and what waits for it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, Value};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::functions;
use super::publisher::Queue;
use super::servers::Place;

/// One try of something; there is time for more than one before the deadline.
pub(super) const ATTEMPT: Duration = Duration::from_millis(700);

/// Between two tries.
pub(super) const PAUSE: Duration = Duration::from_millis(50);

/// Names a shard for as long as the process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ShardId(u32);

impl ShardId {
    pub fn next() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        ShardId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A connection for one purpose; `None` while there is none.
pub(super) type Line = watch::Sender<Option<MultiplexedConnection>>;

/// See the module's documentation.
pub(super) struct Shard {
    pub id: ShardId,
    /// As it may be shown.
    pub name: String,
    pub place: Place,
    /// For everything but listening.
    pub commands: Line,
    /// For storing messages where their replicas are waited for: `WAIT` holds up whatever follows it.
    pub storing: Line,
    /// Rung when a command failed: time to look how the server is.
    pub doubt: Notify,
    /// Rung when rooms of this server are to be listened to, or no longer.
    pub rooms_changed: Notify,
    pub queue: Queue,
}

/// It is not known whether what was asked has happened.
#[derive(Debug)]
pub(super) struct Doubtful;

impl Shard {
    pub fn new(name: String, place: Place) -> Self {
        Shard {
            id: ShardId::next(),
            name,
            place,
            commands: watch::Sender::new(None),
            storing: watch::Sender::new(None),
            doubt: Notify::new(),
            rooms_changed: Notify::new(),
            queue: Queue::default(),
        }
    }

    /// The connection over which messages are stored.
    pub fn line_for_messages(&self, wait: u32) -> &Line {
        if wait > 0 { &self.storing } else { &self.commands }
    }

    /// Whether there is a connection for commands.
    pub fn is_connected(&self) -> bool {
        self.commands.borrow().is_some()
    }

    /// Sends a pipeline once. An error means that any part of it may or may not have happened.
    pub async fn attempt(&self, line: &Line, pipeline: &Pipeline) -> Result<Vec<Value>, Doubtful> {
        let count = pipeline.len();
        let answers = timeout(ATTEMPT, async {
            let mut connection = present(line).await;
            connection.send_packed_commands(pipeline, 0, count).await
        });
        match answers.await {
            Ok(Ok(answers)) if answers.len() == count => Ok(answers),
            _ => {
                self.doubt.notify_one();
                Err(Doubtful)
            }
        }
    }

    /// Loads the library again after the server lost it. Whether that worked.
    pub async fn load(&self, source: &str) -> bool {
        let loaded = timeout(ATTEMPT, async { functions::load(&mut present(&self.commands).await, source).await });
        match loaded.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(
                    "Redis at {} has lost townhall's functions and does not take them again: {error}",
                    self.name
                );
                false
            }
            Err(_) => false,
        }
    }
}

/// The connection, as soon as there is one.
pub(super) async fn present(line: &Line) -> MultiplexedConnection {
    let mut line = line.subscribe();
    loop {
        let connection = line.borrow_and_update().clone();
        match connection {
            Some(connection) => return connection,
            // The shard is dropped; whoever waits here is dropped, too, or has a deadline.
            None => {
                if line.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}
