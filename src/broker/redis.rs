//! The broker that makes any number of nodes one hall: one Redis server.
//!
//! - [`address`]: what `--redis` may say.
//! - [`functions`]: the function library, its calls, and the check of everything that comes back.
//! - [`publisher`]: the bounded queue and the one task that stores what gathers in it.
//! - [`subscription`]: which rooms this node listens to, and what it hears.
//! - [`link`]: the one task that connects, proves that both connections work, and connects again.
//!
//! Redis is used over two connections: a multiplexed one for commands, and one that only listens. A time-out is ambiguous: what
//! was asked may have happened. So whatever is asked can be asked again, with the same message id, until [`DEADLINE`].

mod address;
mod functions;
mod link;
mod publisher;
mod subscription;

/// The check of everything that comes from Redis, apart from the connection: the fuzzers feed it with what a broken or
/// hostile server could send.
#[doc(hidden)]
pub mod answers {
    pub use super::functions::{BadLine, CallError, deliveries, head, history, members, positions};
}

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, Cmd, Pipeline, Value};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{self, BoxFuture};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

pub use self::address::{check_url, display_url};
use self::functions::{CallError, Library};
use self::publisher::Queue;
use self::subscription::Rooms;
use super::{
    Broker, BrokerError, DEADLINE, Feed, Head, History, MembersAnswers, MembersCall, Publication, Range, Status,
};
use crate::config::{HistorySettings, RedisSettings};
use crate::names::RoomName;
use crate::position::Position;

/// One try of something; there is time for more than one before [`DEADLINE`].
const ATTEMPT: Duration = Duration::from_millis(700);

/// Between two tries of a read.
const PAUSE: Duration = Duration::from_millis(50);

/// Redis will not have us, however long we wait: the start is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(String);

/// See the module documentation.
pub struct RedisBroker {
    shared: Arc<Shared>,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// What the tasks and the calls share.
struct Shared {
    client: Client,
    /// The URL as it may be shown.
    shown: String,
    library: Arc<Library>,
    /// The connection for commands; `None` while there is none.
    commands: watch::Sender<Option<MultiplexedConnection>>,
    /// Rung when a command failed: time to look whether Redis is still there.
    doubt: Notify,
    queue: Queue,
    rooms: Arc<Rooms>,
    status: watch::Sender<Status>,
}

impl RedisBroker {
    /// Connects once. Where Redis cannot be reached yet, the broker waits for it in the background; where Redis answers and
    /// will never have us, that is an error.
    pub async fn open(
        settings: &RedisSettings,
        history: &HistorySettings,
        feed: Feed,
    ) -> Result<RedisBroker, OpenError> {
        let info = address::connection_info(&settings.url).map_err(OpenError)?;
        let database = info.redis_settings().db();
        let shown = display_url(&settings.url);
        let client = Client::open(info).map_err(|error| OpenError(format!("--redis {shown}: {}", error.category())))?;
        let library = Arc::new(Library::new(&settings.prefix, database, history));
        let shared = Arc::new(Shared {
            client,
            shown,
            rooms: Arc::new(Rooms::new(library.clone(), feed)),
            library,
            commands: watch::Sender::new(None),
            doubt: Notify::new(),
            queue: Queue::default(),
            status: watch::Sender::new(Status::Never),
        });
        metrics::gauge!("townhall_broker_up").set(0.0);
        metrics::counter!("townhall_broker_reconnects_total").increment(0);
        let link = link::Link::begin(shared.clone()).await?;
        Ok(RedisBroker {
            _tasks: [
                AbortOnDropHandle::new(tokio::spawn(link.keep())),
                AbortOnDropHandle::new(tokio::spawn(publisher::run(shared.clone()))),
            ],
            shared,
        })
    }
}

impl Broker for RedisBroker {
    fn publish(&self, publication: Publication) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let deadline = Instant::now() + DEADLINE;
        match self.shared.queue.push(publication) {
            Ok(receiver) => publisher::answer(receiver, deadline).boxed(),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn history(&self, room: &RoomName, range: Range) -> BoxFuture<'static, Result<History, BrokerError>> {
        let (shared, room) = (self.shared.clone(), room.clone());
        within_deadline(async move {
            let call = [shared.library.history(&room, range)];
            let parse = |answer| functions::history(answer, &room, range);
            let mut answers = shared.read(&call, parse).await;
            answers.pop().unwrap_or_else(|| Err(no_answer()))
        })
    }

    fn heads(&self, rooms: Vec<RoomName>) -> BoxFuture<'static, Result<Vec<Result<Head, BrokerError>>, BrokerError>> {
        let shared = self.shared.clone();
        within_deadline(async move {
            let calls: Vec<Cmd> = rooms.iter().map(|room| shared.library.head(room)).collect();
            Ok(shared.read(&calls, functions::head).await)
        })
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        let (rooms, room) = (self.shared.rooms.clone(), room.clone());
        within_deadline(async move {
            rooms.want(&room).await;
            Ok(())
        })
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.shared.rooms.forget(room);
    }

    fn announce(&self, room: &RoomName, event: Bytes) -> BoxFuture<'static, ()> {
        let (shared, call) = (self.shared.clone(), self.shared.library.announce(room, &event));
        async move {
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.add_command(call);
            let _ = shared.attempt(&pipeline).await;
        }
        .boxed()
    }

    fn members(&self, calls: Vec<MembersCall>) -> BoxFuture<'static, MembersAnswers> {
        let shared = self.shared.clone();
        within_deadline(async move {
            let calls: Vec<Cmd> = calls.iter().map(|call| shared.library.members(call)).collect();
            Ok(shared.read(&calls, functions::members).await)
        })
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.shared.status.subscribe()
    }
}

impl Shared {
    fn connected(&self) -> bool {
        self.commands.borrow().is_some()
    }

    /// The connection for commands, as soon as there is one.
    async fn connection(&self) -> MultiplexedConnection {
        let mut commands = self.commands.subscribe();
        loop {
            let present = commands.borrow_and_update().clone();
            match present {
                Some(connection) => return connection,
                // The sender lives as long as `self`.
                None => drop(commands.changed().await),
            }
        }
    }

    /// Sends a pipeline once. An error means that any part of it may or may not have happened.
    async fn attempt(&self, pipeline: &Pipeline) -> Result<Vec<Value>, Doubtful> {
        let count = pipeline.len();
        let answers = timeout(ATTEMPT, async {
            let mut connection = self.connection().await;
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

    /// Loads the library again after Redis lost it. Whether that worked.
    async fn load(&self) -> bool {
        let loaded = timeout(ATTEMPT, async { functions::load(&mut self.connection().await).await });
        match loaded.await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!("Redis has lost townhall's functions and does not take them again: {error}");
                false
            }
            Err(_) => false,
        }
    }

    /// Asks until every call has an answer that is final; who calls bounds the time.
    async fn read<T>(
        &self,
        calls: &[Cmd],
        parse: impl Fn(Value) -> Result<T, CallError>,
    ) -> Vec<Result<T, BrokerError>> {
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in calls {
            pipeline.add_command(call.clone());
        }
        if calls.is_empty() {
            return Vec::new();
        }
        loop {
            if let Ok(answers) = self.attempt(&pipeline).await {
                let parsed = answers.into_iter().map(&parse);
                match parsed.map(settled).collect() {
                    Ok(results) => return results,
                    Err(CallError::NotLoaded) if self.load().await => continue,
                    Err(_) => {}
                }
            }
            sleep(PAUSE).await;
        }
    }
}

/// It is not known whether what was asked has happened.
#[derive(Debug)]
struct Doubtful;

/// Tells what is final from what has to be asked again.
fn settled<T>(answer: Result<T, CallError>) -> Result<Result<T, BrokerError>, CallError> {
    match answer {
        Ok(value) => Ok(Ok(value)),
        Err(CallError::Final(error)) => Ok(Err(error)),
        Err(again) => Err(again),
    }
}

fn within_deadline<T: Send + 'static>(
    work: impl Future<Output = Result<T, BrokerError>> + Send + 'static,
) -> BoxFuture<'static, Result<T, BrokerError>> {
    async move {
        let answer = timeout(DEADLINE, work).await;
        answer.unwrap_or_else(|_| Err(no_answer()))
    }
    .boxed()
}

fn no_answer() -> BrokerError {
    let seconds = DEADLINE.as_secs();
    BrokerError::Unavailable(format!("Redis did not answer within {seconds} s"))
}
