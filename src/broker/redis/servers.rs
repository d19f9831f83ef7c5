//! How the servers of a URL are reached: over what, as whom, and which of them is the master.

use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::io::tcp::TcpSettings;
use ::redis::io::tcp::socket2::TcpKeepalive;
use ::redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, IntoConnectionInfo, ProtocolVersion, PushInfo, RedisConnectionInfo,
    RedisError, TlsCertificates,
};
use futures::future::join_all;
use tokio::time::timeout;

use super::trouble::{Reason, Trouble};
use crate::broker::DEADLINE;
use crate::config::RedisSettings;
use crate::redis_url::{Host, Servers};

/// Until a connection stands, with its greeting.
pub(super) const CONNECT: Duration = Duration::from_secs(1);

/// What every server of a URL has in common.
#[derive(Clone)]
pub(super) struct Access {
    login: RedisConnectionInfo,
    tls: bool,
    ca: Option<Vec<u8>>,
}

impl Access {
    pub fn new(settings: &RedisSettings) -> Self {
        let url = &settings.url;
        let mut login = anonymous().set_db(i64::from(url.database));
        if !url.user.is_empty() {
            login = login.set_username(&url.user);
        }
        if let Some(password) = &url.password {
            login = login.set_password(password);
        }
        Access { login, tls: url.tls, ca: settings.ca.clone() }
    }

    /// # Errors
    /// When the certificates of `--redis-ca` cannot be read.
    pub fn client(&self, host: &Host) -> Result<Client, Trouble> {
        let (host, port) = (host.name.clone(), host.port);
        self.open(if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        })
    }

    fn open(&self, address: ConnectionAddr) -> Result<Client, Trouble> {
        // Without NODELAY, Nagle's algorithm costs about half of the throughput. The rest notices a peer that is gone
        // without a word; the probe is quicker, but both must end.
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(15));
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        let info = address.into_connection_info().map_err(|error| Trouble::of(&error))?;
        let info = info.set_redis_settings(self.login.clone()).set_tcp_settings(tcp);
        let client = match &self.ca {
            Some(ca) if self.tls => {
                Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(ca.clone()) })
            }
            _ => Client::open(info),
        };
        client.map_err(|error| match &self.ca {
            Some(_) => Trouble::new(Reason::Tls, format!("--redis-ca cannot be used: {error}")),
            None => Trouble::of(&error),
        })
    }

    /// The same without user and password.
    fn as_nobody(&self) -> Self {
        Access { login: anonymous(), ..self.clone() }
    }

    fn has_login(&self) -> bool {
        self.login.password().is_some()
    }
}

fn anonymous() -> RedisConnectionInfo {
    let info = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3);
    info.set_lib_name("townhall", env!("CARGO_PKG_VERSION"))
}

/// Connects; `hear` gets whatever the server says unasked, and its disconnection.
pub(super) async fn connect(
    client: &Client,
    hear: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<MultiplexedConnection, RedisError> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT))
        .set_response_timeout(Some(DEADLINE))
        .set_push_sender(move |push| {
            hear(push);
            Ok::<(), ::redis::aio::SendError>(())
        });
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Where one master is.
pub(super) enum Place {
    /// Always there.
    Fixed(Client),
    /// Where the Sentinels say, and that changes.
    Sentinels(Sentinels),
}

impl Place {
    /// The place of the one master that `servers` names; not for clusters.
    pub fn new(servers: &Servers, access: Access) -> Result<Self, Trouble> {
        Ok(match servers {
            Servers::One(host) => Place::Fixed(access.client(host)?),
            Servers::Socket(path) => Place::Fixed(access.open(ConnectionAddr::Unix(path.clone()))?),
            Servers::Sentinels { hosts, master } => {
                Place::Sentinels(Sentinels { hosts: hosts.clone(), master: master.clone(), access })
            }
            Servers::Cluster(_) => return Err(Trouble::new(Reason::Topology, "a cluster has many masters")),
        })
    }

    /// Looks where the master is now.
    pub async fn find(&self) -> Result<(Client, Option<Host>), Trouble> {
        match self {
            Place::Fixed(client) => Ok((client.clone(), None)),
            Place::Sentinels(sentinels) => {
                let host = sentinels.master().await?;
                Ok((sentinels.access.client(&host)?, Some(host)))
            }
        }
    }

    /// Whether the master is known to be elsewhere than at `host`. Sentinels that do not answer know nothing.
    pub async fn has_moved(&self, host: Option<&Host>) -> bool {
        match (self, host) {
            (Place::Sentinels(sentinels), Some(host)) => sentinels.master().await.is_ok_and(|master| master != *host),
            _ => false,
        }
    }
}

/// Those who watch a master and say which server it is.
pub(super) struct Sentinels {
    hosts: Vec<Host>,
    master: String,
    access: Access,
}

impl Sentinels {
    /// What most of those who answer say: one who was cut off may still believe in a master of long ago.
    async fn master(&self) -> Result<Host, Trouble> {
        let answers = join_all(self.hosts.iter().map(|sentinel| self.ask(sentinel))).await;
        let mut votes: Vec<(Host, usize)> = Vec::new();
        let mut troubles: Vec<(&Host, Trouble)> = Vec::new();
        let mut answered = false;
        for (sentinel, answer) in self.hosts.iter().zip(answers) {
            match answer {
                Ok(Some(host)) => match votes.iter_mut().find(|(voted, _)| *voted == host) {
                    Some((_, count)) => *count += 1,
                    None => votes.push((host, 1)),
                },
                Ok(None) => answered = true,
                Err(trouble) => troubles.push((sentinel, trouble)),
            }
        }
        let most = votes.iter().map(|(_, count)| *count).max();
        if let Some((host, _)) = votes.into_iter().find(|(_, count)| Some(*count) == most) {
            return Ok(host);
        }
        let name = &self.master;
        if answered {
            return Err(Trouble::new(Reason::WrongServer, format!("the Sentinels watch no master called {name:?}")));
        }
        // What waiting cannot mend comes first.
        troubles.sort_by_key(|(_, trouble)| !trouble.reason.is_final());
        let others = troubles.len().saturating_sub(1);
        let Some((sentinel, first)) = troubles.into_iter().next() else {
            return Err(Trouble::new(Reason::Topology, "the URL names no Sentinel"));
        };
        let more = if others > 0 { format!("; {others} more are no better") } else { String::new() };
        let words = match first.reason {
            Reason::Login => "it wants another password than the URL's, which Sentinels are given, too",
            _ => &first.words,
        };
        Err(Trouble::new(first.reason, format!("no Sentinel answers ({sentinel}: {words}{more})")))
    }

    /// `None`: this one watches no such master.
    async fn ask(&self, sentinel: &Host) -> Result<Option<Host>, Trouble> {
        let asked = async {
            // Many Sentinels want no password where their master does; one that wants another is out of reach.
            let mut redis = match self.sentinel(&self.access, sentinel).await {
                Err(trouble) if trouble.reason == Reason::Login && self.access.has_login() => {
                    self.sentinel(&self.access.as_nobody(), sentinel).await?
                }
                connected => connected?,
            };
            let mut ask = ::redis::cmd("SENTINEL");
            ask.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
            ask.query_async(&mut redis).await.map_err(|error| match error.detail() {
                Some(said) if said.contains("unknown command") => Trouble::new(
                    Reason::WrongServer,
                    "it is no Sentinel; a server of its own is given as redis://HOST:PORT",
                ),
                _ => Trouble::of(&error),
            })
        };
        let answer: Option<(String, u16)> = timeout(CONNECT, asked).await.map_err(|_| Trouble::silent())??;
        Ok(answer.map(|(name, port)| Host { name, port }))
    }

    async fn sentinel(&self, access: &Access, host: &Host) -> Result<MultiplexedConnection, Trouble> {
        // A Sentinel has no databases.
        let access = Access { login: access.login.clone().set_db(0), ..access.clone() };
        connect(&access.client(host)?, |_| {}).await.map_err(|error| Trouble::of(&error))
    }
}
