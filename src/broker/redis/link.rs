//! The link to Redis: connects, proves that commands and the subscription work, notices when they do not, connects again.
//!
//! One task does all of it, so there is never more than one attempt under way. The proof is a probe: a word published over
//! the one connection on a channel of this node's own, that must be heard over the other.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, PushInfo, PushKind, RedisError};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::{OpenError, Shared, functions};
use crate::broker::{DEADLINE, Status};

/// Until a connection stands, with its greeting.
const CONNECT: Duration = Duration::from_secs(1);

/// Between two probes.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Until a probe must be heard.
const PROBE_HEARD: Duration = Duration::from_secs(2);

/// Between two attempts to connect: from the first to the last, before chance takes up to half away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// The oldest server with function libraries.
const OLDEST_SERVER: u32 = 7;

pub(super) struct Link {
    shared: Arc<Shared>,
    /// The connection for commands, while it works.
    commands: Option<Connection>,
    /// What [`Link::begin`] has established.
    subscription: Option<Subscription>,
    /// What was said last about why there is no link, so that nothing is said twice.
    said: Option<String>,
    backoff: Duration,
}

/// A connection, and the bell that rings when it ends.
struct Connection {
    redis: MultiplexedConnection,
    gone: Arc<Notify>,
}

/// The connection that listens, and what came on its own channel.
struct Subscription {
    redis: MultiplexedConnection,
    gone: Arc<Notify>,
    channel: String,
    probes: watch::Receiver<Bytes>,
}

/// Why there is no link.
enum Trouble {
    /// Redis is not there, or not yet able.
    Away(String),
    /// Redis will not have us.
    Refused(String),
}

/// How a link that worked ended.
enum Lost {
    Commands(String),
    Subscription(String),
}

impl Link {
    /// The first attempt, which alone can be refused for good.
    pub async fn begin(shared: Arc<Shared>) -> Result<Self, OpenError> {
        let mut link = Link { shared, commands: None, subscription: None, said: None, backoff: BACKOFF.0 };
        match link.establish().await {
            Ok(subscription) => {
                link.say_up();
                link.subscription = Some(subscription);
            }
            Err(Trouble::Away(why)) => link.say_waiting(why),
            Err(Trouble::Refused(why)) => {
                let shown = &link.shared.shown;
                return Err(OpenError(format!("--redis {shown}: {why}")));
            }
        }
        Ok(link)
    }

    /// Keeps the link up until the broker is dropped.
    pub async fn keep(mut self) {
        loop {
            if let Some(subscription) = self.subscription.take() {
                let lost = self.watch(subscription).await;
                self.say_away(lost);
            }
            self.shared.rooms.deaf();
            sleep(self.backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            self.backoff = (self.backoff * 2).min(BACKOFF.1);
            match self.establish().await {
                Ok(subscription) => {
                    self.say_up();
                    self.subscription = Some(subscription);
                }
                Err(Trouble::Away(why)) => self.say_waiting(why),
                Err(Trouble::Refused(why)) => self.say_refused(why),
            }
        }
    }

    /// Both connections, and a probe heard.
    async fn establish(&mut self) -> Result<Subscription, Trouble> {
        let commands = match self.commands.take() {
            Some(commands) => commands,
            None => self.connect_commands().await?,
        };
        // From here on messages can be stored; whoever listens compares heads once the subscription stands.
        let redis = Some(commands.redis.clone());
        self.shared.commands.send_replace(redis);
        let commands = self.commands.insert(commands);
        let tried = async {
            let mut subscription = subscribe(&self.shared).await?;
            probe(commands, &mut subscription).await?;
            Ok(subscription)
        };
        match tried.await {
            Ok(subscription) => Ok(subscription),
            Err(trouble) => {
                self.drop_commands();
                Err(trouble)
            }
        }
    }

    fn drop_commands(&mut self) {
        self.commands = None;
        self.shared.commands.send_replace(None);
    }

    async fn connect_commands(&self) -> Result<Connection, Trouble> {
        let gone = Arc::new(Notify::new());
        let bell = gone.clone();
        let connected = connect(&self.shared, move |push| {
            if push.kind == PushKind::Disconnection {
                bell.notify_one();
            }
        });
        let mut redis = connected.await.map_err(trouble)?;
        let prepared = timeout(DEADLINE, async {
            check_server(&mut redis).await?;
            functions::load(&mut redis).await.map_err(trouble)
        });
        prepared.await.map_err(|_| silent())??;
        Ok(Connection { redis, gone })
    }

    /// Returns when the link is lost.
    async fn watch(&mut self, mut subscription: Subscription) -> Lost {
        let shared = self.shared.clone();
        let Some(commands) = &mut self.commands else {
            return Lost::Commands("there is no connection".to_owned());
        };
        let commands_gone = commands.gone.clone();
        let subscription_gone = subscription.gone.clone();
        let work = async {
            loop {
                let pause = PROBE_EVERY.mul_f64(rand::random_range(0.8..1.2));
                tokio::select! {
                    () = shared.rooms.changed() => {
                        if let Err(trouble) = follow(&shared, &mut subscription.redis).await {
                            return Lost::Subscription(trouble.words());
                        }
                    }
                    _ = timeout(pause, shared.doubt.notified()) => {
                        if let Some(lost) = look(commands, &mut subscription).await {
                            return lost;
                        }
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = commands_gone.notified() => Lost::Commands("the connection was closed".to_owned()),
            () = subscription_gone.notified() => {
                Lost::Subscription("the subscription's connection was closed".to_owned())
            }
            lost = work => lost,
        }
    }

    fn say_up(&mut self) {
        let before = self.shared.status.send_replace(Status::Up);
        let shown = &self.shared.shown;
        if before == Status::Away {
            tracing::info!("Redis at {shown} is back");
            metrics::counter!("townhall_broker_reconnects_total").increment(1);
        } else {
            tracing::info!("Redis at {shown} answers");
        }
        metrics::gauge!("townhall_broker_up").set(1.0);
        self.said = None;
        self.backoff = BACKOFF.0;
        self.shared.rooms.gapped();
    }

    fn say_away(&mut self, lost: Lost) {
        let why = match lost {
            Lost::Commands(why) => {
                self.drop_commands();
                why
            }
            Lost::Subscription(why) => why,
        };
        let shown = &self.shared.shown;
        tracing::warn!("Redis at {shown} is away, everybody stays and waits for it: {why}");
        metrics::gauge!("townhall_broker_up").set(0.0);
        self.said = Some(why);
        self.shared.status.send_replace(Status::Away);
    }

    fn say_waiting(&mut self, why: String) {
        if self.said.is_none() {
            let shown = &self.shared.shown;
            tracing::warn!("waiting for Redis at {shown}: {why}");
            self.said = Some(why);
        }
    }

    fn say_refused(&mut self, why: String) {
        if self.said.as_ref() != Some(&why) {
            let shown = &self.shared.shown;
            tracing::error!("Redis at {shown} refuses us, trying again: {why}");
            self.said = Some(why);
        }
    }
}

impl Trouble {
    fn words(self) -> String {
        match self {
            Trouble::Away(words) | Trouble::Refused(words) => words,
        }
    }
}

fn trouble(error: RedisError) -> Trouble {
    use ::redis::ErrorKind::{Parse, RESP3NotSupported};
    if !functions::is_final(&error) {
        return Trouble::Away(error.to_string());
    }
    let advice = match (error.kind(), error.code()) {
        (RESP3NotSupported, _) => return Trouble::Refused(too_old("6 or older")),
        (Parse, _) => "what answers there does not speak Redis' protocol; check host and port",
        (_, Some("WRONGPASS")) => "wrong user or password; check redis://user:password@…",
        (_, Some("NOAUTH")) => "Redis wants a password; give it as redis://:password@… or redis://user:password@…",
        (_, Some("NOPERM")) => {
            "this Redis user may not do what townhall needs; allow it FCALL, FUNCTION, INFO, PUBLISH, SUBSCRIBE and its keys and channels"
        }
        _ => "Redis refuses the connection",
    };
    Trouble::Refused(match error.detail() {
        Some(detail) => format!("{advice} (Redis says: {})", detail.trim()),
        None => advice.to_owned(),
    })
}

fn silent() -> Trouble {
    Trouble::Away("no answer in time".to_owned())
}

fn too_old(version: &str) -> String {
    format!("Redis {version} is too old; townhall needs {OLDEST_SERVER}.0 or newer (or Valkey)")
}

async fn connect(
    shared: &Shared,
    hear: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(DEADLINE))
        .set_push_sender(move |push| {
            hear(push);
            Ok::<(), ::redis::aio::SendError>(())
        });
    let client = &shared.client;
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Whether the server is one that we can live with.
async fn check_server(redis: &mut MultiplexedConnection) -> Result<(), Trouble> {
    let info: String = ::redis::cmd("INFO").query_async(redis).await.map_err(trouble)?;
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    if let Some(version) = field("redis_version") {
        let major = version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_some_and(|major: u32| major < OLDEST_SERVER) {
            return Err(Trouble::Refused(too_old(version)));
        }
    }
    if field("role") == Some("slave") {
        return Err(Trouble::Away("it is a replica, which takes no messages".to_owned()));
    }
    if let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction") {
        tracing::warn!(
            "Redis' maxmemory-policy is {policy}: when memory is short it will drop rooms' history; noeviction is safe"
        );
    }
    Ok(())
}

/// The connection that listens, with every room that is wanted.
async fn subscribe(shared: &Shared) -> Result<Subscription, Trouble> {
    let gone = Arc::new(Notify::new());
    let (bell, rooms) = (gone.clone(), shared.rooms.clone());
    let (heard, probes) = watch::channel(Bytes::new());
    let channel = shared.library.probe_channel();
    let own = channel.clone();
    let connected = connect(shared, move |push| {
        if push.kind == PushKind::Disconnection {
            bell.notify_one();
        } else if let Some((channel, word)) = rooms.hear(push)
            && channel == own.as_bytes()
        {
            heard.send_replace(word);
        }
    });
    let mut redis = connected.await.map_err(trouble)?;
    redis.subscribe(&channel).await.map_err(trouble)?;
    shared.rooms.deaf();
    follow(shared, &mut redis).await?;
    Ok(Subscription { redis, gone, channel, probes })
}

/// Brings the connection in line with what is wanted.
async fn follow(shared: &Shared, redis: &mut MultiplexedConnection) -> Result<(), Trouble> {
    let rooms = &shared.rooms;
    loop {
        let changes = rooms.next_changes();
        if changes.is_empty() {
            return Ok(());
        }
        if !changes.close.is_empty() {
            let channels: Vec<String> = changes.close.iter().map(|room| rooms.channel(room)).collect();
            redis.unsubscribe(channels).await.map_err(trouble)?;
        }
        if !changes.open.is_empty() {
            let channels: Vec<String> = changes.open.iter().map(|room| rooms.channel(room)).collect();
            redis.subscribe(channels).await.map_err(trouble)?;
            rooms.confirm(&changes.open);
        }
    }
}

/// Publishes a word of our own and waits until it is heard.
async fn probe(commands: &mut Connection, subscription: &mut Subscription) -> Result<(), Trouble> {
    let word = format!("{:032x}", rand::random::<u128>());
    let sent = ::redis::cmd("PUBLISH").arg(&subscription.channel).arg(&word).exec_async(&mut commands.redis).await;
    sent.map_err(trouble)?;
    let heard = subscription.probes.wait_for(|heard| *heard == word);
    match timeout(PROBE_HEARD, heard).await {
        Ok(Ok(_)) => Ok(()),
        _ => Err(Trouble::Away("its subscription hears nothing".to_owned())),
    }
}

/// A probe of a link that worked so far.
async fn look(commands: &mut Connection, subscription: &mut Subscription) -> Option<Lost> {
    let probed = timeout(PROBE_HEARD, probe(commands, subscription)).await;
    match probed.unwrap_or_else(|_| Err(silent())) {
        Ok(()) => None,
        Err(trouble) => Some(Lost::Commands(trouble.words())),
    }
}
