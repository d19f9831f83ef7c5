//! Which servers a cluster has, and which of them has which slots: asked, and followed.
//!
//! A master is a [`Shard`] of its own, named by its address. When slots move, or a replica takes over at another address,
//! their rooms move to that address' shard: with what waits to be stored there, and with what is listened to.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, Value};
use futures::future::join_all;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::link::Link;
use super::routes::{Owners, SLOTS};
use super::servers::{Access, CONNECT, Place, connect};
use super::shard::{Shard, ShardId};
use super::trouble::{Reason, Trouble};
use super::{Shared, publisher};
use crate::broker::Status;
use crate::redis_url::Host;
use crate::vital::vital;

/// How often the cluster is asked who has what; and how often while something is wrong.
const ASK_EVERY: Duration = Duration::from_secs(5);
const ASK_OFTEN: Duration = Duration::from_millis(300);
/// Between two looks, whatever was heard.
const ASK_PAUSE: Duration = Duration::from_millis(50);

/// More servers than any cluster has.
const MAX_SERVERS: usize = 1000;

/// Who has each slot, as one server sees it.
struct View {
    /// Grows whenever the cluster agrees on something new; who was cut off has a lower one.
    epoch: u64,
    owners: Vec<Option<Host>>,
}

pub(super) struct Cluster {
    shared: Arc<Shared>,
    access: Access,
    seeds: Vec<Host>,
    members: HashMap<Host, Member>,
    /// What is wrong with the cluster as a whole counts as one more server.
    id: ShardId,
    said: Option<Reason>,
}

struct Member {
    shard: Arc<Shard>,
    tasks: [AbortOnDropHandle<()>; 2],
}

impl Member {
    /// Returns when nobody works for it any more.
    async fn end(self) -> ShardId {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        self.shard.id
    }
}

impl Cluster {
    /// The first look, which alone can be refused for good.
    pub async fn begin(shared: Arc<Shared>, access: Access, seeds: Vec<Host>) -> Result<Self, Trouble> {
        let id = ShardId::next();
        let mut cluster = Cluster { shared, access, seeds, members: HashMap::new(), id, said: None };
        match cluster.view().await {
            Ok(view) => cluster.follow(view, true).await?,
            Err(trouble) if trouble.reason.is_final() => return Err(trouble),
            Err(trouble) => cluster.say(trouble),
        }
        Ok(cluster)
    }

    /// Follows the cluster until the broker is dropped.
    pub async fn keep(mut self) {
        loop {
            // Who does not answer may have a successor by now.
            let well = *self.shared.health.status().borrow() == Status::Up;
            let pause = if well { ASK_EVERY } else { ASK_OFTEN };
            let _ = timeout(pause.mul_f64(rand::random_range(0.8..1.2)), self.shared.routes.stale.notified()).await;
            match self.view().await {
                // A server that refuses us says so by itself.
                Ok(view) => drop(self.follow(view, false).await),
                Err(trouble) => self.say(trouble),
            }
            sleep(ASK_PAUSE).await;
        }
    }

    fn say(&mut self, trouble: Trouble) {
        if self.said != Some(trouble.reason) {
            tracing::warn!("the Redis cluster: {}", trouble.words);
            self.said = Some(trouble.reason);
        }
        self.shared.health.ill(self.id, trouble);
    }

    /// Makes everything as `view` has it.
    async fn follow(&mut self, view: View, first: bool) -> Result<(), Trouble> {
        let mut fresh = Vec::new();
        let mut owners: Owners = Vec::with_capacity(SLOTS);
        for host in &view.owners {
            owners.push(match host {
                None => None,
                Some(host) => Some(self.shard(host, &mut fresh)?),
            });
        }
        let changed = !fresh.is_empty() || self.differs(&owners);
        if changed {
            self.shared.routes.change(owners).await;
            self.shared.rooms.moved();
        }
        for shard in fresh {
            self.open(shard, first).await?;
        }
        let is_gone = |host: &Host| !view.owners.iter().flatten().any(|owner| owner == host);
        let gone: Vec<(Host, Member)> = self.members.extract_if(|host, _| is_gone(host)).collect();
        for (host, member) in gone {
            tracing::info!("the Redis cluster: {host} has no slots any more");
            // Its link must not say anything about it afterwards: nobody would ever take that back.
            let id = member.end().await;
            self.shared.health.forget(id);
        }
        let orphans = view.owners.iter().filter(|owner| owner.is_none()).count();
        if orphans > 0 {
            self.say(Trouble::new(Reason::Topology, format!("{orphans} of its {SLOTS} slots have no server")));
        } else if self.said.take().is_some() || first {
            self.shared.health.forget(self.id);
        }
        Ok(())
    }

    fn differs(&self, owners: &Owners) -> bool {
        let has = |(slot, owner): (usize, &Option<Arc<Shard>>)| match owner {
            Some(owner) => self.shared.routes.has(owner, slot),
            None => false,
        };
        !owners.iter().enumerate().all(has)
    }

    /// The shard at an address; a new one is noted in `fresh`.
    fn shard(&self, host: &Host, fresh: &mut Vec<Arc<Shard>>) -> Result<Arc<Shard>, Trouble> {
        if let Some(member) = self.members.get(host) {
            return Ok(member.shard.clone());
        }
        let name = host.to_string();
        if let Some(shard) = fresh.iter().find(|shard| shard.name == name) {
            return Ok(shard.clone());
        }
        let shard = Arc::new(Shard::new(name, Place::Fixed(self.access.client(host)?)));
        fresh.push(shard.clone());
        Ok(shard)
    }

    async fn open(&mut self, shard: Arc<Shard>, first: bool) -> Result<(), Trouble> {
        let Some(host) = self.host_of(&shard) else { return Ok(()) };
        let connecting = Trouble::new(Reason::Unreachable, format!("{} is being connected to", shard.name));
        self.shared.health.ill(shard.id, connecting);
        let link = if first {
            let refused = |trouble: Trouble| Trouble::new(trouble.reason, format!("{}: {}", shard.name, trouble.words));
            Link::begin(self.shared.clone(), shard.clone()).await.map_err(refused)?
        } else {
            Link::new(self.shared.clone(), shard.clone())
        };
        let tasks = [
            AbortOnDropHandle::new(vital("the link to Redis", link.keep())),
            AbortOnDropHandle::new(vital("publishing", publisher::run(self.shared.clone(), shard.clone()))),
        ];
        self.members.insert(host, Member { shard, tasks });
        Ok(())
    }

    fn host_of(&self, shard: &Shard) -> Option<Host> {
        let (name, port) = shard.name.rsplit_once(':')?;
        let name = name.trim_start_matches('[').trim_end_matches(']');
        Some(Host { name: name.to_owned(), port: port.parse().ok()? })
    }

    /// The newest view of all that there are.
    async fn view(&self) -> Result<View, Trouble> {
        let known =
            join_all(self.members.iter().map(|(host, member)| self.ask(host, member.shard.commands.borrow().clone())))
                .await;
        let newest = |views: Vec<Result<View, Trouble>>| views.into_iter().flatten().max_by_key(|view| view.epoch);
        if let Some(view) = newest(known) {
            return Ok(view);
        }
        let views = join_all(self.seeds.iter().map(|seed| self.ask(seed, None))).await;
        let first = views.iter().find_map(|view| view.as_ref().err().cloned());
        let refused =
            views.iter().filter_map(|view| view.as_ref().err()).find(|trouble| trouble.reason.is_final()).cloned();
        newest(views).ok_or_else(|| {
            refused.or(first).unwrap_or_else(|| Trouble::new(Reason::Topology, "the URL names no server"))
        })
    }

    /// Asks one server, over the connection that there is or over one for this alone.
    async fn ask(&self, host: &Host, connection: Option<MultiplexedConnection>) -> Result<View, Trouble> {
        let asked = async {
            let mut redis = match connection {
                Some(redis) => redis,
                None => connect(&self.access.client(host)?, |_| {}).await.map_err(|error| Trouble::of(&error))?,
            };
            let mut questions = Pipeline::new();
            questions.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
            redis.send_packed_commands(&questions, 0, 2).await.map_err(|error| Trouble::of(&error))
        };
        let answers = timeout(CONNECT, asked).await.map_err(|_| Trouble::silent())??;
        let [info, slots] = <[Value; 2]>::try_from(answers).map_err(|_| Trouble::silent())?;
        let at = |trouble: Trouble| Trouble { words: format!("{host}: {}", trouble.words), ..trouble };
        Ok(View { epoch: epoch(info).map_err(at)?, owners: owners(slots, host).map_err(at)? })
    }
}

fn unreadable() -> Trouble {
    Trouble::new(Reason::WrongServer, "it does not answer as a cluster does")
}

fn epoch(answer: Value) -> Result<u64, Trouble> {
    let info = text(answer)?;
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    let epoch = lines.find(|(key, _)| *key == "cluster_current_epoch");
    epoch.and_then(|(_, number)| number.trim().parse().ok()).ok_or_else(unreadable)
}

/// Reads the answer to `CLUSTER SLOTS`: ranges, each with its master and that one's replicas. A server that does not know by
/// which name it is reached leaves that out.
fn owners(answer: Value, asked: &Host) -> Result<Vec<Option<Host>>, Trouble> {
    let mut owners = vec![None; SLOTS];
    for (number, range) in items(answer)?.into_iter().enumerate() {
        let mut fields = items(range)?.into_iter();
        let mut slot = || match fields.next() {
            Some(Value::Int(slot)) => usize::try_from(slot).ok().filter(|slot| *slot < SLOTS).ok_or_else(unreadable),
            _ => Err(unreadable()),
        };
        let (first, last) = (slot()?, slot()?);
        let mut master = items(fields.next().ok_or_else(unreadable)?)?.into_iter();
        let name = match master.next() {
            Some(Value::Nil) => asked.name.clone(),
            Some(name) => {
                Some(text(name)?).filter(|name| !matches!(name.as_str(), "" | "?")).unwrap_or(asked.name.clone())
            }
            None => return Err(unreadable()),
        };
        let port = match master.next() {
            Some(Value::Int(port)) => u16::try_from(port).map_err(|_| unreadable())?,
            _ => return Err(unreadable()),
        };
        if first > last || number > MAX_SERVERS * 16 {
            return Err(unreadable());
        }
        owners[first..=last].fill(Some(Host { name, port }));
    }
    Ok(owners)
}

fn items(value: Value) -> Result<Vec<Value>, Trouble> {
    match value {
        Value::Array(values) => Ok(values),
        Value::ServerError(error) => Err(Trouble::of(&error.into())),
        _ => Err(unreadable()),
    }
}

fn text(value: Value) -> Result<String, Trouble> {
    match value {
        Value::BulkString(bytes) => String::from_utf8(bytes).map_err(|_| unreadable()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(text.to_string()),
        Value::ServerError(error) => Err(Trouble::of(&error.into())),
        _ => Err(unreadable()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn range(first: i64, last: i64, name: Value, port: i64) -> Value {
        let master = Value::Array(vec![name, Value::Int(port), bulk("id"), Value::Array(vec![])]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master.clone(), master])
    }

    fn asked() -> Host {
        Host { name: "seed".into(), port: 7000 }
    }

    #[test]
    fn who_has_which_slots() {
        let answer = Value::Array(vec![
            range(0, 99, bulk("10.0.0.1"), 7001),
            range(200, 200, Value::Nil, 7002),
            range(16383, 16383, bulk(""), 7003),
        ]);
        let owners = owners(answer, &asked()).unwrap();
        let at = |slot: usize| owners[slot].as_ref().map(Host::to_string);
        assert_eq!(at(0).as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(at(99).as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(at(100), None);
        assert_eq!(at(200).as_deref(), Some("seed:7002"));
        assert_eq!(at(16383).as_deref(), Some("seed:7003"));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_refused() {
        for bad in [
            Value::Nil,
            Value::Array(vec![Value::Int(1)]),
            Value::Array(vec![range(0, 16384, bulk("h"), 1)]),
            Value::Array(vec![range(-1, 1, bulk("h"), 1)]),
            Value::Array(vec![range(5, 1, bulk("h"), 1)]),
            Value::Array(vec![range(1, 5, bulk("h"), 70000)]),
            Value::Array(vec![range(1, 5, Value::Int(3), 1)]),
            Value::Array(vec![Value::Array(vec![Value::Int(1), Value::Int(2)])]),
        ] {
            assert!(owners(bad.clone(), &asked()).is_err(), "{bad:?}");
        }
        assert_eq!(epoch(bulk("cluster_state:ok\r\ncluster_current_epoch:7\r\n")), Ok(7));
        assert!(epoch(bulk("cluster_state:ok")).is_err());
    }
}
