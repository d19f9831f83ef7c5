//! What `--redis` may say: one URL that names a server, Sentinels or a cluster. Shown, it never holds its password.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use percent_encoding::percent_decode_str;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// More names than that are a mistake.
const MAX_HOSTS: usize = 64;

/// Where Redis is, and as whom to come in.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    pub servers: Servers,
    pub tls: bool,
    /// Empty: Redis' own `default`.
    pub user: String,
    pub password: Option<String>,
    pub database: u16,
}

/// What is at the address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Servers {
    /// `redis://HOST`
    One(Host),
    /// `redis+unix:///PATH`
    Socket(PathBuf),
    /// `redis-sentinel://HOST,HOST/NAME`: who knows which server is the master of that name.
    Sentinels { hosts: Vec<Host>, master: String },
    /// `redis-cluster://HOST,HOST`: some of its servers, who know the others.
    Cluster(Vec<Host>),
}

/// A name or an address, without brackets, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host {
    pub name: String,
    pub port: u16,
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Host { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

/// What is wrong with a URL; never holds any of it but the scheme.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}; {}", RedisUrl::RULE)]
pub struct BadRedisUrl {
    /// Harmless to show; empty where there is none.
    pub scheme: String,
    why: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    One,
    Socket,
    Sentinels,
    Cluster,
}

impl RedisUrl {
    pub const RULE: &'static str = "allowed is redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], with rediss:// for TLS; \
         redis+unix:///PATH/TO/SOCKET[?db=DATABASE]; redis-sentinel://HOST[:PORT],HOST[:PORT]/NAME[/DATABASE]; \
         redis-cluster://HOST[:PORT],HOST[:PORT]; with rediss-sentinel:// and rediss-cluster:// for TLS, \
         and %23 for # and the like in the password";

    /// Whether it names a cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.servers, Servers::Cluster(_))
    }

    fn scheme(&self) -> &'static str {
        match (&self.servers, self.tls) {
            (Servers::One(_), false) => "redis",
            (Servers::One(_), true) => "rediss",
            (Servers::Socket(_), _) => "redis+unix",
            (Servers::Sentinels { .. }, false) => "redis-sentinel",
            (Servers::Sentinels { .. }, true) => "rediss-sentinel",
            (Servers::Cluster(_), false) => "redis-cluster",
            (Servers::Cluster(_), true) => "rediss-cluster",
        }
    }
}

fn kind(scheme: &str) -> Option<(Kind, bool)> {
    Some(match scheme {
        "redis" => (Kind::One, false),
        "rediss" => (Kind::One, true),
        "redis+unix" => (Kind::Socket, false),
        "redis-sentinel" => (Kind::Sentinels, false),
        "rediss-sentinel" => (Kind::Sentinels, true),
        "redis-cluster" => (Kind::Cluster, false),
        "rediss-cluster" => (Kind::Cluster, true),
        _ => return None,
    })
}

impl FromStr for RedisUrl {
    type Err = BadRedisUrl;

    fn from_str(url: &str) -> Result<Self, BadRedisUrl> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        let split = url.split_once("://");
        let split = split.filter(|(scheme, _)| (1..=20).contains(&scheme.len()) && scheme.bytes().all(plain));
        let Some((scheme, rest)) = split else {
            return Err(BadRedisUrl { scheme: String::new(), why: "not a URL" });
        };
        let wrong = |why| BadRedisUrl { scheme: scheme.to_owned(), why };
        let (kind, tls) = kind(scheme).ok_or_else(|| wrong("no such kind of Redis"))?;
        parse(kind, tls, rest).map_err(wrong)
    }
}

/// Reads what follows `://`.
fn parse(kind: Kind, tls: bool, rest: &str) -> Result<RedisUrl, &'static str> {
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) if kind == Kind::Socket => (rest, Some(query)),
        _ => (rest, None),
    };
    // Behind one of these there would be the rest of a password that was not escaped.
    if rest.contains(['#', '?']) || rest.contains(char::is_control) {
        return Err("a `#` or `?` has no place in it");
    }
    let (authority, path) = match rest.find('/') {
        Some(end) => (&rest[..end], &rest[end..]),
        None => (rest, ""),
    };
    let (login, place) = authority.rsplit_once('@').map_or((None, authority), |(login, place)| (Some(login), place));
    let (user, password) = match login {
        None => (String::new(), None),
        Some(login) => {
            let (user, password) =
                login.split_once(':').ok_or("a user without a password; a password has a `:` before it")?;
            (decoded(user)?, Some(decoded(password)?))
        }
    };
    let path = path.strip_prefix('/').unwrap_or_default();
    let (servers, database) = match kind {
        Kind::One => (Servers::One(host(place, REDIS_PORT)?), database(path)?),
        Kind::Socket => {
            if !place.is_empty() || path.is_empty() {
                return Err("the socket's path is missing, after three slashes");
            }
            let number = query.map(|query| query.strip_prefix("db=").ok_or("only `?db=` may follow the socket's path"));
            let socket = PathBuf::from(format!("/{}", decoded(path)?));
            (Servers::Socket(socket), database(number.transpose()?.unwrap_or_default())?)
        }
        Kind::Sentinels => {
            let (master, number) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err("the master's name is missing, after the hosts and a slash");
            }
            let master = decoded(master)?;
            (Servers::Sentinels { hosts: hosts(place, SENTINEL_PORT)?, master }, database(number)?)
        }
        Kind::Cluster => {
            if !matches!(path, "" | "0") {
                return Err("a cluster has no databases");
            }
            (Servers::Cluster(hosts(place, REDIS_PORT)?), 0)
        }
    };
    Ok(RedisUrl { servers, tls, user, password, database })
}

fn database(text: &str) -> Result<u16, &'static str> {
    if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| "the database is not a number") }
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "a `%` that stands for no UTF-8")?;
    Ok(text.into_owned())
}

fn hosts(text: &str, port: u16) -> Result<Vec<Host>, &'static str> {
    let hosts: Vec<Host> = text.split(',').map(|one| host(one.trim(), port)).collect::<Result<_, _>>()?;
    if hosts.len() > MAX_HOSTS { Err("too many hosts") } else { Ok(hosts) }
}

fn host(text: &str, port: u16) -> Result<Host, &'static str> {
    const PORT: &str = "the port is not a number";
    let (name, rest) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or("an address with `[` and without `]`")?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => port,
        None => return Err(PORT),
        Some(number) => number.parse().ok().filter(|port| *port > 0).ok_or(PORT)?,
    };
    let plain = |c: char| c.is_alphanumeric() || "._-:%".contains(c);
    if name.is_empty() {
        return Err("the host is missing");
    }
    if !name.chars().all(plain) {
        return Err("the host has characters that no host has");
    }
    Ok(Host { name: name.to_owned(), port })
}

/// With `***` for the password.
impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://", self.scheme())?;
        if self.password.is_some() {
            write!(f, "{}:***@", self.user)?;
        }
        let several = |hosts: &[Host]| hosts.iter().map(Host::to_string).collect::<Vec<_>>().join(",");
        let number = self.database;
        match &self.servers {
            Servers::One(host) => write!(f, "{host}/{number}"),
            Servers::Socket(path) if number == 0 => write!(f, "{}", path.display()),
            Servers::Socket(path) => write!(f, "{}?db={number}", path.display()),
            Servers::Sentinels { hosts, master } => write!(f, "{}/{master}/{number}", several(hosts)),
            Servers::Cluster(hosts) => write!(f, "{}", several(hosts)),
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> RedisUrl {
        text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn what_it_takes_and_how_that_is_shown() {
        for (given, shown) in [
            ("redis://localhost", "redis://localhost:6379/0"),
            ("redis://localhost/", "redis://localhost:6379/0"),
            ("redis://127.0.0.1:6380/3", "redis://127.0.0.1:6380/3"),
            ("redis://[::1]:6379", "redis://[::1]:6379/0"),
            ("redis://[::1]/2", "redis://[::1]:6379/2"),
            ("redis://:hush@redis.example", "redis://:***@redis.example:6379/0"),
            ("redis://me:hu%40sh@redis.example:1/0", "redis://me:***@redis.example:1/0"),
            ("rediss://me:hush@h:1/2", "rediss://me:***@h:1/2"),
            ("redis+unix:///run/redis.sock", "redis+unix:///run/redis.sock"),
            ("redis+unix:///run/a@b.sock?db=3", "redis+unix:///run/a@b.sock?db=3"),
            ("redis+unix://:hush@/run/redis.sock", "redis+unix://:***@/run/redis.sock"),
            ("redis-sentinel://a,b:1/hall", "redis-sentinel://a:26379,b:1/hall/0"),
            ("redis-sentinel://:hush@a/hall/2", "redis-sentinel://:***@a:26379/hall/2"),
            ("redis-cluster://a:7000,[::1]:7001", "redis-cluster://a:7000,[::1]:7001"),
            ("rediss-cluster://me:hush@a", "rediss-cluster://me:***@a:6379"),
        ] {
            assert_eq!(url(given).to_string(), shown);
            assert!(!format!("{:?}", url(given)).contains("hush"));
        }
        assert_eq!(url("redis://me:hu%40sh@h").password.as_deref(), Some("hu@sh"));
    }

    #[test]
    fn what_it_refuses_and_why() {
        for (bad, why) in [
            ("localhost:6379", "not a URL"),
            ("se cret://x", "not a URL"),
            ("http://localhost", "no such kind"),
            ("redis://", "the host is missing"),
            ("redis:///1", "the host is missing"),
            ("redis://:secret@", "the host is missing"),
            ("redis://secret@h", "a user without a password"),
            ("redis://localhost:port", "the port is not a number"),
            ("redis://localhost:0", "the port is not a number"),
            ("redis://[::1]6379", "the port is not a number"),
            ("redis://[::1", "without `]`"),
            ("redis://se cret", "no host has"),
            ("redis://localhost/one", "the database is not a number"),
            ("redis://localhost/-1", "the database is not a number"),
            ("redis://localhost/1?protocol=resp2", "has no place"),
            ("redis://u:1#secret@h", "has no place"),
            ("redis://:%ff@h", "no UTF-8"),
            ("redis+unix://run/redis.sock", "three slashes"),
            ("redis+unix:///", "three slashes"),
            ("redis+unix:///a?pass=secret", "?db="),
            ("redis-sentinel://a,b", "name is missing"),
            ("redis-sentinel://a,,b/hall", "the host is missing"),
            ("redis-cluster://a/1", "no databases"),
        ] {
            let said = bad.parse::<RedisUrl>().expect_err(bad).to_string();
            assert!(said.contains(why) && said.contains(RedisUrl::RULE), "{bad}: {said}");
            assert!(!said.contains("secret"), "{said}");
        }
    }
}
