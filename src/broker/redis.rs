//! The broker that makes any number of nodes one hall: one Redis server, the master that Sentinels name, or a cluster.
//!
//! - [`servers`]: how servers are reached, and which of them is the master.
//! - [`shard`]: one server that stores messages, [`link`]: the task that connects to it and proves that it works.
//! - [`routes`]: which shard has which room; [`cluster`] follows that where there are many.
//! - [`functions`]: the function library, its calls, and the check of everything that comes back.
//! - [`publisher`]: a shard's bounded queue and the one task that stores what gathers in it.
//! - [`subscription`]: which rooms this node listens to, and what it hears.
//! - [`trouble`]: what can be wrong, in words; [`health`]: what is wrong now.
//! - [`asking`]: a Redis that is asked now and then, for others than the rooms.
//!
//! A server is used over two connections: a multiplexed one for commands, and one that only listens; with `--redis-wait`
//! there is one more, for storing. A time-out is ambiguous: what was asked may have happened. So whatever is asked can be
//! asked again, with the same message id, until [`DEADLINE`].

pub mod asking;
mod cluster;
mod functions;
mod health;
mod link;
mod publisher;
mod routes;
mod servers;
mod shard;
mod subscription;
mod trouble;

/// The check of everything that comes from Redis, apart from the connection: the fuzzers feed it with what a broken or
/// hostile server could send.
#[doc(hidden)]
pub mod answers {
    pub use super::functions::{BadLine, CallError, deliveries, head, history, members, positions};
}

use std::sync::Arc;

use ::redis::{Cmd, Pipeline, Value};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{self, BoxFuture, join_all};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use self::cluster::Cluster;
use self::functions::{Access, CallError, Library};
use self::health::Health;
use self::link::Link;
use self::routes::Routes;
use self::servers::Place;
use self::shard::{PAUSE, Shard, ShardId};
use self::subscription::Rooms;
use super::{
    Broker, BrokerError, DEADLINE, Feed, Head, History, MembersAnswers, MembersCall, Publication, Range, Status,
};
use crate::config::{HistorySettings, RedisSettings};
use crate::metrics::METRICS;
use crate::names::RoomName;
use crate::position::Position;
use crate::redis_url::Servers;
use crate::vital::vital;

/// Redis will not have us, however long we wait: the start is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OpenError(String);

/// See the module documentation.
pub struct RedisBroker {
    shared: Arc<Shared>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What all servers share.
struct Shared {
    library: Arc<Library>,
    routes: Arc<Routes>,
    rooms: Rooms,
    health: Health,
    cluster: bool,
    /// As many replicas must have a message before it is accepted.
    wait: u32,
}

impl RedisBroker {
    /// Connects once. Where Redis cannot be reached yet, the broker waits for it in the background; where Redis answers and
    /// will never have us, that is an error.
    pub async fn open(
        settings: &RedisSettings,
        history: &HistorySettings,
        feed: Feed,
    ) -> Result<RedisBroker, OpenError> {
        let url = &settings.url;
        let cluster = url.is_cluster();
        let library = Arc::new(Library::new(&settings.prefix, i64::from(url.database), cluster, history));
        let routes = Arc::new(Routes::new());
        let shared = Arc::new(Shared {
            rooms: Rooms::new(library.clone(), routes.clone(), feed),
            library,
            routes,
            health: Health::new(),
            cluster,
            wait: settings.wait,
        });
        let access = servers::Access::new(settings);
        let opened = match &url.servers {
            Servers::Cluster(seeds) => open_cluster(&shared, access, seeds.clone()).await,
            servers => match Place::new(servers, access) {
                Ok(place) => open_one(&shared, Shard::new(url.to_string(), place)).await,
                Err(trouble) => Err(trouble),
            },
        };
        let tasks = opened.map_err(|trouble| OpenError(format!("--redis {url}: {}", trouble.words)))?;
        Ok(RedisBroker { shared, _tasks: tasks })
    }
}

async fn open_one(shared: &Arc<Shared>, shard: Shard) -> Result<Vec<AbortOnDropHandle<()>>, trouble::Trouble> {
    let shard = Arc::new(shard);
    shared.routes.change(vec![Some(shard.clone())]).await;
    let link = Link::begin(shared.clone(), shard.clone()).await?;
    Ok(vec![
        AbortOnDropHandle::new(vital("the link to Redis", link.keep())),
        AbortOnDropHandle::new(vital("publishing", publisher::run(shared.clone(), shard))),
    ])
}

async fn open_cluster(
    shared: &Arc<Shared>,
    access: servers::Access,
    seeds: Vec<crate::redis_url::Host>,
) -> Result<Vec<AbortOnDropHandle<()>>, trouble::Trouble> {
    let cluster = Cluster::begin(shared.clone(), access, seeds).await?;
    Ok(vec![AbortOnDropHandle::new(vital("following the cluster", cluster.keep()))])
}

impl Broker for RedisBroker {
    fn publish(&self, publication: Publication) -> BoxFuture<'static, Result<Position, BrokerError>> {
        let deadline = Instant::now() + DEADLINE;
        let room = publication.room.clone();
        let queued = self.shared.routes.with_owner(&room, |owner| match owner {
            Some(shard) => shard.queue.push(publication),
            None => Err(self.shared.health.no_answer()),
        });
        let shared = self.shared.clone();
        match queued {
            Ok(receiver) => async move {
                let answer = publisher::answer(receiver, deadline).await;
                answer.unwrap_or_else(|| Err(shared.health.no_answer()))
            }
            .boxed(),
            Err(error) => future::ready(Err(error)).boxed(),
        }
    }

    fn history(&self, room: &RoomName, range: Range) -> BoxFuture<'static, Result<History, BrokerError>> {
        METRICS.history_reads.increment(1);
        let (shared, room) = (self.shared.clone(), room.clone());
        async move {
            let call = |access| shared.library.history(&room, range, access);
            let parse = |answer| functions::history(answer, &room, range);
            let mut answers = shared.read(std::slice::from_ref(&room), |_, access| call(access), parse).await;
            answers.pop().unwrap_or_else(|| Err(shared.health.no_answer()))
        }
        .boxed()
    }

    fn heads(&self, rooms: Vec<RoomName>) -> BoxFuture<'static, Result<Vec<Result<Head, BrokerError>>, BrokerError>> {
        let shared = self.shared.clone();
        async move {
            let call = |index: usize, access| shared.library.head(&rooms[index], access);
            let heads = shared.read(&rooms, call, functions::head).await;
            match heads.first() {
                Some(Err(error)) if heads.iter().all(is_unavailable) => Err(error.clone()),
                _ => Ok(heads),
            }
        }
        .boxed()
    }

    fn subscribe(&self, room: &RoomName) -> BoxFuture<'static, Result<(), BrokerError>> {
        let (shared, room) = (self.shared.clone(), room.clone());
        async move {
            let heard = timeout(DEADLINE, shared.rooms.want(&room)).await;
            heard.map_err(|_| shared.health.no_answer())
        }
        .boxed()
    }

    fn unsubscribe(&self, room: &RoomName) {
        self.shared.rooms.forget(room);
    }

    fn announce(&self, room: &RoomName, event: Bytes) -> BoxFuture<'static, ()> {
        let (shared, room) = (self.shared.clone(), room.clone());
        async move {
            let Some(shard) = shared.routes.owner(&room) else { return };
            let mut pipeline = Pipeline::with_capacity(1);
            pipeline.add_command(shared.library.announce(&room, &event));
            let _ = shard.attempt(&shard.commands, &pipeline).await;
        }
        .boxed()
    }

    fn members(&self, calls: Vec<MembersCall>) -> BoxFuture<'static, MembersAnswers> {
        let shared = self.shared.clone();
        async move {
            // One server that is away must not hold up the leases of all rooms at the others.
            let is_there =
                |call: &MembersCall| shared.routes.owner(&call.room).is_some_and(|shard| shard.is_connected());
            let (here, away): (Vec<usize>, Vec<usize>) = (0..calls.len()).partition(|index| is_there(&calls[*index]));
            let rooms: Vec<RoomName> = here.iter().map(|index| calls[*index].room.clone()).collect();
            let call = |number: usize, _| shared.library.members(&calls[here[number]]);
            let answers = shared.read(&rooms, call, functions::members).await;
            let mut answers: Vec<(usize, _)> = here.iter().copied().zip(answers).collect();
            answers.extend(away.into_iter().map(|index| (index, Err(shared.health.no_answer()))));
            answers.sort_unstable_by_key(|(index, _)| *index);
            Ok(answers.into_iter().map(|(_, answer)| answer).collect())
        }
        .boxed()
    }

    fn status(&self) -> watch::Receiver<Status> {
        self.shared.health.status()
    }
}

fn is_unavailable<T>(answer: &Result<T, BrokerError>) -> bool {
    matches!(answer, Err(BrokerError::Unavailable(_)))
}

impl Shared {
    /// Asks about rooms, each at its server, one round trip a server; no server keeps the rooms of others waiting for longer
    /// than [`DEADLINE`]. The answers come in the order asked. `call` makes the command about the room of an index.
    async fn read<T>(
        &self,
        rooms: &[RoomName],
        call: impl Fn(usize, Access) -> Cmd,
        parse: impl Fn(Value) -> Result<T, CallError>,
    ) -> Vec<Result<T, BrokerError>> {
        let mut by_server: Vec<(Option<ShardId>, Vec<usize>)> = Vec::new();
        for (index, room) in rooms.iter().enumerate() {
            let owner = self.routes.owner(room).map(|shard| shard.id);
            match by_server.iter_mut().find(|(server, _)| *server == owner) {
                Some((_, indexes)) => indexes.push(index),
                None => by_server.push((owner, vec![index])),
            }
        }
        let mut answers: Vec<Option<Result<T, BrokerError>>> = rooms.iter().map(|_| None).collect();
        let groups = by_server.into_iter().map(|(_, indexes)| self.read_group(rooms, indexes, &call, &parse));
        for (index, answer) in join_all(groups).await.into_iter().flatten() {
            answers[index] = Some(answer);
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(self.health.no_answer()))).collect()
    }

    /// Asks until every call has an answer that is final, or the deadline is over; those without one are missing.
    async fn read_group<T>(
        &self,
        rooms: &[RoomName],
        mut open: Vec<usize>,
        call: &impl Fn(usize, Access) -> Cmd,
        parse: &impl Fn(Value) -> Result<T, CallError>,
    ) -> Vec<(usize, Result<T, BrokerError>)> {
        let mut done = Vec::with_capacity(open.len());
        let mut access = Access::Full;
        let reading = async {
            while let Some(first) = open.first() {
                // All of them are at one server, until the cluster changes; then the others follow in their turn.
                let Some(shard) = self.routes.owner(&rooms[*first]) else {
                    sleep(PAUSE).await;
                    continue;
                };
                let here = |index: &usize| self.routes.owner(&rooms[*index]).is_some_and(|owner| owner.id == shard.id);
                let asked: Vec<usize> = open.iter().copied().filter(here).collect();
                let mut pipeline = Pipeline::with_capacity(asked.len());
                for index in &asked {
                    pipeline.add_command(call(*index, access));
                }
                let answers = shard.attempt(&shard.commands, &pipeline).await.unwrap_or_default();
                let (mut pause, asked_with) = (answers.is_empty(), access);
                for (index, answer) in asked.into_iter().zip(answers) {
                    let settled = match parse(answer) {
                        Ok(value) => Ok(value),
                        Err(CallError::Final(error)) => Err(error),
                        Err(CallError::NoWrites(error)) if asked_with == Access::ReadOnly => Err(error),
                        Err(again) => {
                            pause |= self.before_again(&shard, &again, &mut access).await;
                            continue;
                        }
                    };
                    open.retain(|other| *other != index);
                    done.push((index, settled));
                }
                if pause {
                    sleep(PAUSE).await;
                }
            }
        };
        let _ = timeout(DEADLINE, reading).await;
        done
    }

    /// Does what a read needs before it is tried again; whether it has to wait as well.
    async fn before_again(&self, shard: &Shard, why: &CallError, access: &mut Access) -> bool {
        match why {
            CallError::NotLoaded => !shard.load(self.library.source()).await,
            CallError::NoWrites(_) => {
                shard.doubt.notify_one();
                *access = Access::ReadOnly;
                false
            }
            CallError::Elsewhere => {
                self.routes.stale.notify_one();
                true
            }
            CallError::NotNow | CallError::Final(_) => {
                shard.doubt.notify_one();
                true
            }
        }
    }
}
