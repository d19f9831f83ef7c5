//! A Redis that is asked now and then, whatever is at its URL: one server, the master that Sentinels name, or a cluster.
//!
//! Nothing is connected to before somebody asks. Then there is one multiplexed connection a server, which whoever comes
//! meanwhile waits for, too; when it fails, it is made anew within the same question. Whoever asks has an answer, or why there
//! is none, within [`DEADLINE`]. A question may be asked twice: where that matters, the question itself must see to it.
//!
//! A cluster is asked at any of its servers, which says who has the key: those who are asked seldom need no map.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value, from_redis_value};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use tokio::time::timeout;

use super::servers::{Access, CONNECT, Place, connect};
use super::trouble::{Reason, Trouble};
use crate::broker::DEADLINE;
use crate::config::RedisSettings;
use crate::redis_url::{Host, Servers};

/// How long one connection may keep an answer to itself; then there is as much left for another one.
const ATTEMPT: Duration = CONNECT;

/// How long the Sentinels' word is taken for a connection that works.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// See the module's documentation.
pub struct Asking(Way);

/// Whether a question is asked again when nobody can tell if it was heard.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Often {
    Once,
    Again,
}

enum Way {
    One(Server),
    Cluster(Cluster),
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoAnswer {
    /// Of what kind it is, as `townhall_broker_trouble` calls it.
    pub kind: &'static str,
    /// One line for people who run the hall; holds no secret.
    pub words: String,
}

impl From<Trouble> for NoAnswer {
    fn from(trouble: Trouble) -> Self {
        NoAnswer { kind: trouble.reason.label(), words: trouble.words }
    }
}

impl Asking {
    /// # Errors
    /// In words, where that Redis can never be asked.
    pub fn new(settings: &RedisSettings) -> Result<Self, String> {
        let access = Access::new(settings);
        Ok(Asking(match &settings.url.servers {
            Servers::Cluster(seeds) => Way::Cluster(Cluster::new(access, seeds.clone())),
            servers => Way::One(Server::new(Place::new(servers, access).map_err(|trouble| trouble.words)?)),
        }))
    }

    /// What may be asked twice: the first time it may have been heard and not answered.
    ///
    /// # Errors
    /// Where there is no answer in time, where Redis refuses, and where the answer is no `T`.
    pub async fn ask<T: FromRedisValue>(&self, question: &Cmd) -> Result<T, NoAnswer> {
        self.ask_so_often(question, Often::Again).await
    }

    /// What must not be done twice.
    ///
    /// # Errors
    /// As [`Asking::ask`]; it may have been done all the same.
    pub async fn ask_once<T: FromRedisValue>(&self, question: &Cmd) -> Result<T, NoAnswer> {
        self.ask_so_often(question, Often::Once).await
    }

    async fn ask_so_often<T: FromRedisValue>(&self, question: &Cmd, often: Often) -> Result<T, NoAnswer> {
        let asked = async {
            match &self.0 {
                Way::One(server) => server.ask(question, false, often).await.map_err(|failure| failure.trouble),
                Way::Cluster(cluster) => cluster.ask(question, often).await,
            }
        };
        let answer = timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(Trouble::silent()))?;
        let unfit = |error| Trouble::of(&RedisError::from(error));
        Ok(from_redis_value(answer).map_err(unfit)?)
    }
}

/// Why a server gave no answer, and who is said to have one.
struct Failure {
    trouble: Trouble,
    elsewhere: Option<Elsewhere>,
}

/// What a cluster's server says of a key that it has not.
struct Elsewhere {
    address: String,
    /// Only this once, while the slot is on its way there.
    asking: bool,
}

impl Failure {
    fn of(error: &RedisError) -> Self {
        let asking = error.kind() == ErrorKind::Server(ServerErrorKind::Ask);
        let elsewhere = error.redirect_node().map(|(address, _)| Elsewhere { address: address.to_owned(), asking });
        Failure { trouble: Trouble::of(error), elsewhere }
    }

    /// Whether another connection may be better: to where the master is now, or to the same server when it is well again.
    fn ends_connection(&self) -> bool {
        matches!(
            self.trouble.reason,
            Reason::Unreachable | Reason::Silent | Reason::ReadOnly | Reason::Login | Reason::Tls
        )
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Failure { trouble, elsewhere: None }
    }
}

/// One server, or the one that is the master now.
struct Server {
    place: Arc<Place>,
    line: Mutex<Option<Line>>,
}

/// A connection, or its making: whoever needs it waits for the same one.
#[derive(Clone)]
struct Line(Shared<BoxFuture<'static, Result<Arc<Connection>, Trouble>>>);

struct Connection {
    redis: MultiplexedConnection,
    /// Where the Sentinels said that it is.
    host: Option<Host>,
    looked: Mutex<Instant>,
}

impl Server {
    fn new(place: Place) -> Self {
        Server { place: Arc::new(place), line: Mutex::new(None) }
    }

    async fn ask(&self, question: &Cmd, asking: bool, often: Often) -> Result<Value, Failure> {
        let (line, old) = self.line();
        match self.ask_over(&line, question, asking).await {
            // The connection was good once; that says nothing of the server now.
            Err(failure) if old && often == Often::Again && failure.ends_connection() => {
                let (line, _) = self.line();
                self.ask_over(&line, question, asking).await
            }
            answer => answer,
        }
    }

    /// What there is to ask over, and whether that stood already.
    fn line(&self) -> (Line, bool) {
        let mut slot = locked(&self.line);
        if let Some(line) = &*slot {
            match line.0.peek() {
                Some(Ok(_)) => return (line.clone(), true),
                None => return (line.clone(), false),
                Some(Err(_)) => {}
            }
        }
        // A task of its own: it comes to its end, whoever gives up waiting.
        let made = tokio::spawn(Connection::make(self.place.clone()));
        let line = Line(made.map(|made| made.unwrap_or_else(|_| Err(Trouble::silent()))).boxed().shared());
        *slot = Some(line.clone());
        (line, false)
    }

    /// This one is not used any more; another that came in its place stays.
    fn leave(&self, line: &Line) {
        self.line.lock().unwrap_or_else(PoisonError::into_inner).take_if(|current| current.0.ptr_eq(&line.0));
    }

    async fn ask_over(&self, line: &Line, question: &Cmd, asking: bool) -> Result<Value, Failure> {
        let answer = async {
            let connection = line.0.clone().await?;
            if connection.is_due() && self.place.has_moved(connection.host.as_ref()).await {
                return Err(Trouble::new(Reason::ReadOnly, "the Sentinels have another master now").into());
            }
            connection.ask(question, asking).await
        };
        let answer = answer.await;
        if answer.as_ref().is_err_and(Failure::ends_connection) {
            self.leave(line);
        }
        answer
    }
}

impl Connection {
    async fn make(place: Arc<Place>) -> Result<Arc<Self>, Trouble> {
        let made = async {
            let (client, host) = place.find().await?;
            let redis = connect(&client, |_| {}).await.map_err(|error| Trouble::of(&error))?;
            Ok(Arc::new(Connection { redis, host, looked: Mutex::new(Instant::now()) }))
        };
        timeout(DEADLINE, made).await.unwrap_or_else(|_| Err(Trouble::silent()))
    }

    /// Whether somebody should look if the master is still here; says so to one.
    fn is_due(&self) -> bool {
        let mut looked = locked(&self.looked);
        let due = self.host.is_some() && looked.elapsed() >= LOOK_EVERY;
        if due {
            *looked = Instant::now();
        }
        due
    }

    async fn ask(&self, question: &Cmd, asking: bool) -> Result<Value, Failure> {
        // In one piece: what others ask must not come between the permission and its use.
        let mut pipeline = Pipeline::with_capacity(2);
        if asking {
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(question.clone());
        let mut redis = self.redis.clone();
        let answered = timeout(ATTEMPT, redis.send_packed_commands(&pipeline, usize::from(asking), 1)).await;
        let answers = answered.map_err(|_| Trouble::silent())?.map_err(|error| Failure::of(&error))?;
        match answers.into_iter().next() {
            Some(Value::ServerError(error)) => Err(Failure::of(&error.into())),
            Some(value) => Ok(value),
            None => Err(Trouble::silent().into()),
        }
    }
}

/// Any of its servers can be asked; what it says of a key's place is followed once.
struct Cluster {
    access: Access,
    seeds: Vec<Host>,
    servers: Mutex<HashMap<Host, Arc<Server>>>,
    /// Who answered last.
    good: Mutex<Option<Host>>,
}

impl Cluster {
    fn new(access: Access, seeds: Vec<Host>) -> Self {
        Cluster { access, seeds, servers: Mutex::default(), good: Mutex::default() }
    }

    async fn ask(&self, question: &Cmd, often: Often) -> Result<Value, Trouble> {
        let mut trouble = Trouble::new(Reason::Topology, "the URL names no server");
        for host in self.in_turn() {
            let failure = match self.server(&host)?.ask(question, false, often).await {
                Ok(answer) => {
                    *locked(&self.good) = Some(host);
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if let Some(elsewhere) = &failure.elsewhere {
                *locked(&self.good) = Some(host.clone());
                return self.follow(&host, elsewhere, question, often).await;
            }
            let dead = failure.ends_connection();
            trouble = Trouble { words: format!("{host}: {}", failure.trouble.words), ..failure.trouble };
            if !dead && trouble.reason != Reason::Loading {
                return Err(trouble);
            }
            self.forget(&host);
            if often == Often::Once {
                return Err(trouble);
            }
        }
        Err(trouble)
    }

    /// Whoever answered last, then those of the URL.
    fn in_turn(&self) -> Vec<Host> {
        let good = locked(&self.good).clone();
        let others = self.seeds.iter().filter(|seed| Some(*seed) != good.as_ref()).cloned().collect::<Vec<_>>();
        good.into_iter().chain(others).collect()
    }

    async fn follow(&self, from: &Host, elsewhere: &Elsewhere, question: &Cmd, often: Often) -> Result<Value, Trouble> {
        let host = host_at(&elsewhere.address, from)
            .ok_or_else(|| Trouble::new(Reason::WrongServer, "it does not answer as a cluster does"))?;
        let answer = self.server(&host)?.ask(question, elsewhere.asking, often).await;
        answer.map_err(|failure| {
            if failure.ends_connection() {
                self.forget(&host);
            }
            Trouble { words: format!("{host}: {}", failure.trouble.words), ..failure.trouble }
        })
    }

    fn server(&self, host: &Host) -> Result<Arc<Server>, Trouble> {
        let mut servers = locked(&self.servers);
        if let Some(server) = servers.get(host) {
            return Ok(server.clone());
        }
        let server = Arc::new(Server::new(Place::Fixed(self.access.client(host)?)));
        servers.insert(host.clone(), server.clone());
        Ok(server)
    }

    /// It may be gone for good, and then nobody would ever ask for it again.
    fn forget(&self, host: &Host) {
        locked(&self.servers).remove(host);
        locked(&self.good).take_if(|good| good == host);
    }
}

/// Where a cluster's server says that another one is; one that does not know its own name leaves that out.
fn host_at(address: &str, asked: &Host) -> Option<Host> {
    let (name, port) = address.rsplit_once(':')?;
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let name = if matches!(name, "" | "?") { &asked.name } else { name };
    Some(Host { name: name.to_owned(), port: port.parse().ok().filter(|port| *port > 0)? })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_cluster_says_that_a_key_is() {
        let asked = Host { name: "seed".into(), port: 7000 };
        for (address, host) in [
            ("10.0.0.1:7001", Some(("10.0.0.1", 7001))),
            ("redis.example:7001", Some(("redis.example", 7001))),
            ("::1:7001", Some(("::1", 7001))),
            ("[::1]:7001", Some(("::1", 7001))),
            (":7001", Some(("seed", 7001))),
            ("?:7001", Some(("seed", 7001))),
            ("10.0.0.1", None),
            ("10.0.0.1:0", None),
            ("10.0.0.1:70000", None),
        ] {
            let host = host.map(|(name, port)| Host { name: name.into(), port });
            assert_eq!(host_at(address, &asked), host, "{address}");
        }
    }
}
