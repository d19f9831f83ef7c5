//! The link to one server: connects, proves that commands and the subscription work, notices when they do not, connects
//! again.
//!
//! One task does all of it, so there is never more than one attempt under way. The proof is a probe: a word published over
//! one connection on a channel of this node's own, in the way messages are stored, that must be heard over the other. So
//! whatever refuses messages (a replica, a full memory, a full disk) is noticed without one.

use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, ConnectionAddr, Pipeline, PushKind, RedisError, Value};
use bytes::Bytes;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::functions::lacks;
use super::routes::slot;
use super::servers::connect;
use super::shard::Shard;
use super::trouble::{Reason, Trouble};
use super::{Shared, functions};
use crate::broker::DEADLINE;
use crate::metrics::METRICS;
use crate::redis_url::Host;

/// Between two probes; while messages are refused, and after a command failed, that often.
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBE_OFTEN: Duration = Duration::from_millis(500);

/// Until a probe must be heard.
const PROBE_HEARD: Duration = Duration::from_secs(2);

/// Between two attempts to connect: from the first to the last, before chance takes up to half away.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(500));

/// The oldest server with function libraries.
const OLDEST_SERVER: u32 = 7;

/// So many probes in a row that went to moving slots are more than chance: a slot moves alone.
const ASTRAY: u32 = 3;

/// How many names are tried to find one whose slot a server has; it would have to have very few.
const TAGS: usize = 1_000_000;

pub(super) struct Link {
    shared: Arc<Shared>,
    shard: Arc<Shard>,
    /// Where the connections lead, while those for commands work.
    server: Option<Server>,
    /// What [`Link::begin`] has established.
    subscription: Option<Subscription>,
    /// What was said last about what is wrong, so that nothing is said twice.
    said: Option<Trouble>,
    /// It worked once.
    met: bool,
    backoff: Duration,
}

/// A server and the connections for commands.
struct Server {
    client: Client,
    /// Where Sentinels say that it is.
    host: Option<Host>,
    commands: MultiplexedConnection,
    /// Rings when one of them ends.
    gone: Arc<Notify>,
}

/// The connection that listens, and what came on its own channel.
struct Subscription {
    redis: MultiplexedConnection,
    gone: Arc<Notify>,
    /// Names the probe's channel.
    tag: String,
    probes: watch::Receiver<Bytes>,
    /// So many probes in a row went to a slot that is on its way elsewhere, and have proven nothing.
    astray: u32,
}

/// How a link that worked ended.
enum Lost {
    Commands(Trouble),
    Subscription(Trouble),
}

impl Link {
    /// One that has not tried yet.
    pub fn new(shared: Arc<Shared>, shard: Arc<Shard>) -> Self {
        Link { shared, shard, server: None, subscription: None, said: None, met: false, backoff: BACKOFF.0 }
    }

    /// The first attempt, which alone can be refused for good.
    pub async fn begin(shared: Arc<Shared>, shard: Arc<Shard>) -> Result<Self, Trouble> {
        let mut link = Link::new(shared, shard);
        match link.establish().await {
            Ok(subscription) => link.subscription = Some(subscription),
            Err(trouble) if trouble.reason.is_final() => return Err(trouble),
            Err(trouble) => link.say(trouble),
        }
        Ok(link)
    }

    /// Keeps the link up for as long as the server is ours.
    pub async fn keep(mut self) {
        loop {
            if let Some(subscription) = self.subscription.take() {
                let trouble = match self.watch(subscription).await {
                    Lost::Commands(trouble) => {
                        self.drop_server();
                        trouble
                    }
                    Lost::Subscription(trouble) => trouble,
                };
                self.say(trouble);
            }
            self.shared.rooms.deaf(&self.shard);
            sleep(self.backoff.mul_f64(rand::random_range(0.5..1.0))).await;
            self.backoff = (self.backoff * 2).min(BACKOFF.1);
            match self.establish().await {
                Ok(subscription) => self.subscription = Some(subscription),
                Err(trouble) => self.say(trouble),
            }
        }
    }

    /// All connections, and a probe heard.
    async fn establish(&mut self) -> Result<Subscription, Trouble> {
        let server = match self.server.take() {
            Some(server) => server,
            None => self.connect().await?,
        };
        // From here on messages can be stored; whoever listens compares heads once the subscription stands.
        let commands = Some(server.commands.clone());
        self.shard.commands.send_replace(commands);
        let server = self.server.insert(server);
        let (shared, shard) = (&self.shared, &self.shard);
        let tried = async {
            let mut subscription = subscribe(shared, shard, &server.client).await?;
            let probed = probe(shared, shard, &server.commands, &mut subscription).await;
            Ok((subscription, probed))
        };
        match tried.await {
            Ok((subscription, Ok(()))) => {
                self.say_well();
                self.shared.rooms.gapped();
                Ok(subscription)
            }
            Ok((subscription, Err(trouble))) if trouble.reason.keeps_link() => {
                self.say(trouble);
                self.shared.rooms.gapped();
                Ok(subscription)
            }
            Ok((_, Err(trouble))) | Err(trouble) => {
                self.drop_server();
                Err(trouble)
            }
        }
    }

    fn drop_server(&mut self) {
        self.server = None;
        self.shard.commands.send_replace(None);
        self.shard.storing.send_replace(None);
    }

    async fn connect(&self) -> Result<Server, Trouble> {
        let (client, host) = self.shard.place.find().await?;
        let gone = Arc::new(Notify::new());
        let mut commands = open(&client, gone.clone()).await?;
        let prepared = timeout(DEADLINE, async {
            check_server(&self.shared, &mut commands).await?;
            functions::load(&mut commands, self.shared.library.source()).await.map_err(|error| Trouble::of(&error))?;
            check_rights(&self.shared, &self.shard, &mut commands).await
        });
        prepared.await.map_err(|_| Trouble::silent())??;
        if self.shared.wait > 0 {
            let storing = open(&client, gone.clone()).await?;
            self.shard.storing.send_replace(Some(storing));
        }
        Ok(Server { client, host, commands, gone })
    }

    /// Returns when the link is lost.
    async fn watch(&mut self, mut subscription: Subscription) -> Lost {
        let Some(server) = self.server.take() else {
            return Lost::Commands(Trouble::new(Reason::Unreachable, "there is no connection"));
        };
        let gone = (server.gone.clone(), subscription.gone.clone());
        let ended = |what: &str| Trouble::new(Reason::Unreachable, format!("{what} was closed"));
        let lost = tokio::select! {
            biased;
            () = gone.0.notified() => Lost::Commands(ended("the connection")),
            () = gone.1.notified() => Lost::Subscription(ended("the subscription's connection")),
            lost = self.follow_and_probe(&server, &mut subscription) => lost,
        };
        self.server = Some(server);
        lost
    }

    async fn follow_and_probe(&mut self, server: &Server, subscription: &mut Subscription) -> Lost {
        let (shared, shard) = (self.shared.clone(), self.shard.clone());
        loop {
            let often = self.said.is_some();
            let pause = if often { PROBE_OFTEN } else { PROBE_EVERY }.mul_f64(rand::random_range(0.8..1.2));
            tokio::select! {
                () = shard.rooms_changed.notified() => {
                    if let Err(trouble) = follow(&shared, &shard, &mut subscription.redis).await {
                        return Lost::Subscription(trouble);
                    }
                }
                _ = timeout(pause, shard.doubt.notified()) => {
                    // Rights may be taken away later: what a message needs within a function, no probe needs.
                    let probed = timeout(PROBE_HEARD, async {
                        probe(&shared, &shard, &server.commands, subscription).await?;
                        check_rights(&shared, &shard, &mut server.commands.clone()).await
                    });
                    let probed = probed.await;
                    match probed.unwrap_or_else(|_| Err(Trouble::silent())) {
                        Ok(()) => self.say_well(),
                        Err(trouble) if trouble.reason.keeps_link() => self.say(trouble),
                        Err(trouble) => return Lost::Commands(trouble),
                    }
                    if let Err(trouble) = follow(&shared, &shard, &mut subscription.redis).await {
                        return Lost::Subscription(trouble);
                    }
                    if shard.place.has_moved(server.host.as_ref()).await {
                        return Lost::Commands(Trouble::new(Reason::ReadOnly, "another server has become the master"));
                    }
                    // Who is in doubt is asked again, but not all the time.
                    sleep(PROBE_OFTEN / 2).await;
                }
            }
        }
    }

    // --- saying how it is -----------------------------------------------------------------------------------------

    fn say_well(&mut self) {
        let name = &self.shard.name;
        let troubled = self.said.take().is_some();
        if troubled && self.met {
            tracing::info!("Redis at {name} is back");
            METRICS.broker_reconnects.increment(1);
        } else if !self.met {
            tracing::info!("Redis at {name} answers");
        }
        self.met = true;
        self.backoff = BACKOFF.0;
        self.shared.health.well(self.shard.id);
    }

    fn say(&mut self, trouble: Trouble) {
        let name = &self.shard.name;
        let Trouble { reason, words } = &trouble;
        // In the middle of a failover the words change at every attempt; what is new is the reason.
        if self.said.as_ref().is_none_or(|said| said.reason != *reason) {
            match (self.met, reason.is_final()) {
                (_, true) => tracing::error!("Redis at {name} refuses us, trying again: {words}"),
                _ if reason.refuses_messages_only() => {
                    tracing::warn!("Redis at {name} takes no messages, everything else goes on: {words}");
                }
                (true, _) => tracing::warn!("Redis at {name} is away, everybody stays and waits for it: {words}"),
                (false, _) => tracing::warn!("waiting for Redis at {name}: {words}"),
            }
        }
        self.met |= reason.refuses_messages_only();
        let told = if self.shared.cluster { format!("{name}: {words}") } else { words.clone() };
        self.shared.health.ill(self.shard.id, Trouble::new(*reason, told));
        self.said = Some(trouble);
    }
}

/// A connection for commands, and the bell that it rings when it ends.
async fn open(client: &Client, gone: Arc<Notify>) -> Result<MultiplexedConnection, Trouble> {
    let hear = move |push: ::redis::PushInfo| {
        if push.kind == PushKind::Disconnection {
            gone.notify_one();
        }
    };
    connect(client, hear).await.map_err(|error| unconnected(&error, client))
}

/// Who listens with TLS hangs up on those who come without; who listens without waits for those who come with it to go on.
fn unconnected(error: &RedisError, client: &Client) -> Trouble {
    let mut trouble = Trouble::of(error);
    let tls = matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
    if tls && trouble.reason == Reason::Silent {
        trouble.words.push_str("; does it speak TLS, or is it redis:// without the second s?");
    } else if !tls && error.is_connection_dropped() && !error.is_connection_refusal() {
        trouble.words.push_str("; does it want TLS, rediss:// with a second s?");
    }
    trouble
}

/// Whether the server is one that we can live with.
async fn check_server(shared: &Shared, redis: &mut MultiplexedConnection) -> Result<(), Trouble> {
    let info: String = ::redis::cmd("INFO").query_async(redis).await.map_err(|error| Trouble::of(&error))?;
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
    };
    if let Some(version) = field("redis_version") {
        let major = version.split('.').next().and_then(|major| major.parse().ok());
        if major.is_some_and(|major: u32| major < OLDEST_SERVER) {
            return Err(Trouble::too_old(version));
        }
    }
    let wrong = |words: &str| Err(Trouble::new(Reason::WrongServer, words));
    match field("redis_mode") {
        Some("sentinel") => return wrong("it is a Sentinel; give it as redis-sentinel://HOST:PORT,…/NAME"),
        Some("cluster") if !shared.cluster => {
            return wrong("it is part of a cluster; give it as redis-cluster://HOST:PORT,…");
        }
        Some("standalone") if shared.cluster => return wrong("it is no cluster; give it as redis://HOST:PORT"),
        _ => {}
    }
    if field("loading") == Some("1") {
        let part = field("loading_loaded_perc").unwrap_or("0");
        let left = field("loading_eta_seconds").unwrap_or("?");
        let words = format!("it is reading its data from disk: {part}% done, about {left} s left");
        return Err(Trouble::new(Reason::Loading, words));
    }
    if field("role") == Some("slave") {
        return Err(Trouble::new(Reason::ReadOnly, "it is a replica, which takes no messages"));
    }
    if let Some(policy) = field("maxmemory_policy").filter(|policy| *policy != "noeviction") {
        tracing::warn!(
            "Redis' maxmemory-policy is {policy}: when memory is short it will drop rooms' history; noeviction is safe"
        );
    }
    Ok(())
}

/// Whether this user may do everything that is needed; says what is lacking.
async fn check_rights(shared: &Shared, shard: &Shard, redis: &mut MultiplexedConnection) -> Result<(), Trouble> {
    let tag = own_tag(shared, shard)?;
    let check = shared.library.check(&tag, shared.wait > 0);
    let answer = check.query_async(redis).await;
    if answer.as_ref().is_err_and(|error| is_on_its_way(shared, error)) {
        return Ok(()); // nothing was learned
    }
    let answer: Value = answer.map_err(|error| {
        let mut trouble = Trouble::of(&error);
        if trouble.reason == Reason::Permission && trouble.words.contains("access") {
            let prefix = shared.library.prefix();
            trouble.words.push_str(&format!("; what it needs is the keys ~{prefix}:* and the channels &{prefix}:*"));
        }
        trouble
    })?;
    let lacking = lacks(answer);
    if lacking.is_empty() {
        return Ok(());
    }
    let lacking = lacking.join(", ").replace(&format!("{{{tag}}}"), "*");
    let words = format!("this Redis user may not do what townhall needs; allow it {lacking}");
    Err(Trouble::new(Reason::Permission, words))
}

/// Whether a slot of a cluster is moving away from a server, or has done so.
fn is_on_its_way(shared: &Shared, error: &RedisError) -> bool {
    shared.cluster && matches!(error.code(), Some("MOVED" | "ASK" | "TRYAGAIN"))
}

/// A name whose slot this server has, for what is this node's own.
fn own_tag(shared: &Shared, shard: &Shard) -> Result<String, Trouble> {
    let mut tags = (0..TAGS).map(|_| format!("{:016x}", rand::random::<u64>()));
    let tag = tags.find(|tag| shared.routes.has(shard, slot(tag)));
    tag.ok_or_else(|| Trouble::new(Reason::Topology, "it has no slots of the cluster any more"))
}

/// The connection that listens, with every room that is wanted.
async fn subscribe(shared: &Arc<Shared>, shard: &Arc<Shard>, client: &Client) -> Result<Subscription, Trouble> {
    let gone = Arc::new(Notify::new());
    let (heard, probes) = watch::channel(Bytes::new());
    let tag = own_tag(shared, shard)?;
    let (bell, hearing) = (gone.clone(), shared.clone());
    let connected = connect(client, move |push| {
        if push.kind == PushKind::Disconnection {
            bell.notify_one();
        } else if let Some(word) = hearing.rooms.hear(push) {
            heard.send_replace(word);
        }
    });
    let mut redis = connected.await.map_err(|error| unconnected(&error, client))?;
    let channel = shared.library.probe_channel(&tag);
    listen(shared, &mut redis, [channel.as_str()], true).await?;
    shared.rooms.deaf(shard);
    follow(shared, shard, &mut redis).await?;
    Ok(Subscription { redis, gone, tag, probes, astray: 0 })
}

/// Brings the connection in line with what is wanted. What the server refuses is left for the next time, which is soon.
async fn follow(shared: &Shared, shard: &Shard, redis: &mut MultiplexedConnection) -> Result<(), Trouble> {
    let rooms = &shared.rooms;
    let mut refused = Vec::new();
    loop {
        let changes = rooms.next_changes(shard);
        if changes.is_empty() {
            if !refused.is_empty() {
                rooms.refused(&refused, shard);
                shard.doubt.notify_one();
            }
            return Ok(());
        }
        for (rooms_of, on) in [(&changes.close, false), (&changes.open, true)] {
            let channels: Vec<String> = rooms_of.iter().map(|room| shared.library.channel(room)).collect();
            let done = listen(shared, redis, channels.iter().map(String::as_str), on).await?;
            if on {
                let (opened, others): (Vec<_>, Vec<_>) = changes.open.iter().zip(done).partition(|(_, done)| *done);
                rooms.confirm(opened.into_iter().map(|(room, _)| room), shard);
                refused.extend(others.into_iter().map(|(room, _)| room.clone()));
            }
        }
    }
}

/// Listens to channels, or no longer; says for each whether that was done. One that another server of the cluster has is not.
async fn listen<'a>(
    shared: &Shared,
    redis: &mut MultiplexedConnection,
    channels: impl IntoIterator<Item = &'a str>,
    on: bool,
) -> Result<Vec<bool>, Trouble> {
    // One command a channel: a cluster takes no more, since they would be of several slots.
    let mut pipeline = Pipeline::new();
    for channel in channels {
        pipeline.add_command(shared.library.listen(channel, on));
    }
    let count = pipeline.len();
    if count == 0 {
        return Ok(Vec::new());
    }
    let answers = redis.send_packed_commands(&pipeline, 0, count).await.map_err(|error| Trouble::of(&error))?;
    let done = answers.into_iter().map(|answer| match answer {
        Value::ServerError(error) if matches!(error.code(), "MOVED" | "CLUSTERDOWN") => {
            shared.routes.stale.notify_one();
            Ok(false)
        }
        Value::ServerError(error) => Err(Trouble::of(&error.into())),
        _ => Ok(true),
    });
    done.collect()
}

/// Publishes a word of our own and waits until it is heard.
async fn probe(
    shared: &Shared,
    shard: &Shard,
    commands: &MultiplexedConnection,
    subscription: &mut Subscription,
) -> Result<(), Trouble> {
    if subscription.astray > 0 || !shared.routes.has(shard, slot(&subscription.tag)) {
        let before = std::mem::replace(&mut subscription.tag, own_tag(shared, shard)?);
        for (tag, on) in [(&before, false), (&subscription.tag, true)] {
            let channel = shared.library.probe_channel(tag);
            listen(shared, &mut subscription.redis, [channel.as_str()], on).await?;
        }
    }
    let word = format!("{:032x}", rand::random::<u128>());
    let began = Instant::now();
    let sent = shared.library.probe(&subscription.tag, &word).exec_async(&mut commands.clone()).await;
    match sent {
        Err(error) if is_on_its_way(shared, &error) => {
            // The next look knows where to; the next probe takes another slot.
            shared.routes.stale.notify_one();
            subscription.astray += 1;
            if subscription.astray < ASTRAY {
                return Ok(());
            }
            let words = "it says that its slots are elsewhere, or on their way there";
            return Err(Trouble::new(Reason::Topology, words));
        }
        Err(error) if error.to_string().contains("Function not found") => {
            return if shard.load(shared.library.source()).await { Ok(()) } else { Err(Trouble::of(&error)) };
        }
        sent => sent.map_err(|error| Trouble::of(&error))?,
    }
    subscription.astray = 0;
    let heard = timeout(PROBE_HEARD, subscription.probes.wait_for(|heard| *heard == word));
    if !heard.await.is_ok_and(|heard| heard.is_ok()) {
        return Err(Trouble::new(Reason::Silent, "its subscription hears nothing"));
    }
    METRICS.broker_probe_seconds.record(began.elapsed());
    check_replicas(shared, shard).await
}

/// Whether there are as many replicas as every message waits for.
async fn check_replicas(shared: &Shared, shard: &Shard) -> Result<(), Trouble> {
    let wanted = shared.wait;
    let storing = shard.storing.borrow().clone();
    let (true, Some(mut storing)) = (wanted > 0, storing) else { return Ok(()) };
    let wait = ::redis::cmd("WAIT").arg(wanted).arg(400).query_async(&mut storing).await;
    let there: u32 = wait.map_err(|error| Trouble::of(&error))?;
    if there >= wanted {
        return Ok(());
    }
    let words =
        format!("only {there} of its replicas follow, and --redis-wait is {wanted}, so messages are not accepted");
    Err(Trouble::new(Reason::Replicas, words))
}
