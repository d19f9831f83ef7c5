//! Everything that can be set, as one typed value, checked once before anything is bound.
//!
//! What an option may be by itself is refused where it is read (`cli.rs`); what options may not be together is refused by
//! [`Config::check`]. Both say it in one line, a [`ConfigError`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use crate::measure::{duration_text, size_text};
use crate::names::RoomName;
use crate::redis_url::RedisUrl;

/// Why the options are refused: which one, what it was, and what is allowed. One line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option} {value}: {allowed}")]
pub struct ConfigError {
    option: String,
    value: String,
    allowed: String,
}

impl ConfigError {
    pub fn new(option: impl Into<String>, value: &str, allowed: impl Into<String>) -> Self {
        ConfigError { option: option.into(), value: format!("{value:?}"), allowed: allowed.into() }
    }

    /// For values that nobody may read in a log.
    pub fn secret(option: impl Into<String>, allowed: impl Into<String>) -> Self {
        ConfigError { option: option.into(), value: "(not shown)".into(), allowed: allowed.into() }
    }
}

/// What `townhall serve` runs with. Sizes are bytes. The command line's way here is `cli.rs`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The public listener.
    pub listen: SocketAddr,
    /// The operations listener.
    pub ops: SocketAddr,
    /// The line door; `None`: closed.
    pub tcp: Option<SocketAddr>,
    /// Below which every public path is served, too: empty, or `/gin`.
    pub base_path: String,
    /// `None`: the embedded broker.
    pub redis: Option<RedisSettings>,
    /// Origins that are let in besides the same one.
    pub origins: AllowedOrigins,
    /// Networks of proxies that say truly whom they pass on.
    pub trusted_proxies: Vec<IpNet>,
    pub auth: AuthSettings,
    pub rooms: Rooms,
    pub limits: Limits,
    pub history: HistorySettings,
}

/// Where Redis is and how it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RedisSettings {
    pub url: RedisUrl,
    /// What our keys and channels begin with.
    pub prefix: String,
    /// The certificates of those who may vouch for Redis, as PEM; `None`: whom this machine trusts.
    pub ca: Option<Vec<u8>>,
    /// As many replicas must have a message before it is accepted.
    pub wait: u32,
}

/// Who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthSettings {
    /// Anybody, under any name; beside others, guests' names begin with `~`.
    pub guests: bool,
    pub tickets: Option<TicketSettings>,
    pub jwt: Option<JwtSettings>,
}

/// Tokens that a site puts into Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketSettings {
    pub redis: RedisSettings,
    pub key: TicketKey,
    /// A ticket lets in once.
    pub once: bool,
}

/// The Redis key of a name's ticket: what stands before and behind the name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TicketKey {
    before: String,
    after: String,
}

/// JSON Web Tokens that an issuer signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtSettings {
    /// For HS256.
    pub secret: Option<Secret>,
    /// Public keys as PEM.
    pub key: Option<Vec<u8>>,
    /// Where the issuer publishes its keys: `http://` or `https://`.
    pub jwks: Option<String>,
    /// A token must be for one of these; none: it must be for nobody in particular.
    pub audiences: Vec<String>,
    /// A token must be from one of these; none: from anybody who can sign it.
    pub issuers: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// What nobody may read in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// What a broker keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistorySettings {
    /// Messages kept a room, at least.
    pub messages: usize,
    /// A room in which nobody speaks for so long is forgotten; zero: never.
    pub room_ttl: Duration,
    /// For so long the same message id is stored only once.
    pub dedupe: Duration,
    /// The embedded broker's memory for all rooms; 0: no bound.
    pub budget: usize,
}

/// Which rooms there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rooms {
    /// Any that somebody names.
    Open,
    /// These.
    Only(Vec<RoomName>),
}

/// `--allow-origin`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowedOrigins {
    Any,
    /// `host` or `host:port` in lower case, without the scheme's own port.
    Only(Vec<String>),
}

/// What a client may take. A zero means "no limit" where the field says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A message's text.
    pub text: usize,
    /// A WebSocket message.
    pub frame: usize,
    /// Rooms joined by one connection at a time.
    pub rooms: usize,
    /// Commands a second and connection; 0: no limit.
    pub rate: u32,
    /// Commands at once after a pause.
    pub burst: u32,
    /// From accepting a connection to the end of its request's head.
    pub handshake_timeout: Duration,
    /// Between pings to a silent client; zero: none.
    pub beat: Duration,
    /// How long a socket may take nothing while there is something for it; zero: for ever.
    pub write_timeout: Duration,
    /// Sockets open at the same time.
    pub connections: usize,
    /// Of them, those of one address; 0: any number.
    pub per_address: usize,
    /// A room's window on this node, all encodings counted.
    pub room_window: usize,
    /// Messages in a room's window.
    pub room_window_messages: usize,
    /// All windows together.
    pub window_budget: usize,
    /// Who loses the connection stays a member for so long; zero: is none at once.
    pub presence_grace: Duration,
    /// How long leaving may take.
    pub drain: Duration,
}

impl Limits {
    /// A message's `data`; the wire format has the number.
    pub const DATA: usize = 4 * 1024;

    /// Sockets beyond all those, to tell their clients that there is no seat.
    pub const STANDING: usize = 64;

    /// Files that are open besides clients' sockets: those who stand, listeners, Redis, probes, the runtime's own.
    const OTHER_FILES: u64 = 32 + Limits::STANDING as u64;

    /// More sockets than any machine serves; keeps sums far from overflow where `nofile` is "unlimited".
    pub const MAX_CONNECTIONS: u64 = 10_000_000;

    /// The largest WebSocket message that says a text of that many bytes: JSON writers that escape all but ASCII make
    /// three bytes of one, `data` comes as it is, and the rest of the command has 1 KiB. A frame limit below that would
    /// close connections (1009) for texts that are not too long, again after every reconnect.
    pub const fn frame_for(text: usize) -> usize {
        3 * text + Self::DATA + 1024
    }

    /// The default of `--max-connections`: 90% of the files this process may open.
    pub fn connections_within(nofile: u64) -> usize {
        let sockets = (nofile.min(Self::MAX_CONNECTIONS) * 9 / 10).max(1);
        usize::try_from(sockets).unwrap_or(usize::MAX)
    }
}

/// The defaults of DESIGN §6, on a machine that lets a process open 1,024 files.
impl Default for Limits {
    fn default() -> Self {
        Limits {
            text: 4 * 1024,
            frame: 64 * 1024,
            rooms: 32,
            rate: 20,
            burst: 40,
            handshake_timeout: Duration::from_secs(10),
            beat: Duration::from_secs(25),
            write_timeout: Duration::from_secs(30),
            connections: Limits::connections_within(1024),
            per_address: 0,
            room_window: 1024 * 1024,
            room_window_messages: 2000,
            window_budget: 256 * 1024 * 1024,
            presence_grace: Duration::from_secs(10),
            drain: Duration::from_secs(20),
        }
    }
}

impl Default for HistorySettings {
    fn default() -> Self {
        HistorySettings {
            messages: 10_000,
            room_ttl: Duration::from_secs(30 * 24 * 60 * 60),
            dedupe: Duration::from_secs(10 * 60),
            budget: 1024 * 1024 * 1024,
        }
    }
}

impl Default for AuthSettings {
    fn default() -> Self {
        AuthSettings { guests: true, tickets: None, jwt: None }
    }
}

/// What `townhall` without options runs with.
impl Default for Config {
    fn default() -> Self {
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Config {
            listen: loopback(8080),
            ops: loopback(8081),
            tcp: None,
            base_path: String::new(),
            redis: None,
            origins: AllowedOrigins::Only(Vec::new()),
            trusted_proxies: Vec::new(),
            auth: AuthSettings::default(),
            rooms: Rooms::Open,
            limits: Limits::default(),
            history: HistorySettings::default(),
        }
    }
}

impl Config {
    /// Refuses what cannot be true at once. `nofile` is how many files this process may open.
    pub fn check(&self, nofile: u64) -> Result<(), ConfigError> {
        self.check_addresses()?;
        self.check_sizes()?;
        self.check_dedupe()?;
        self.check_jwt_secret()?;
        self.check_connections(nofile)
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        let doors = [("--listen", Some(self.listen)), ("--ops", Some(self.ops)), ("--tcp", self.tcp)];
        for (at, (option, address)) in doors.iter().enumerate() {
            for (earlier, taken) in &doors[..at] {
                if let (Some(address), Some(taken)) = (address, taken)
                    && collide(*address, *taken)
                {
                    let allowed =
                        format!("{earlier} {taken} has that port; allowed is another one, or 0 for any that is free");
                    return Err(ConfigError::new(*option, &address.to_string(), allowed));
                }
            }
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let largest = Limits::frame_for(limits.text);
        let text = size_text(limits.text as u64);
        let at_least = |option, value: usize, least: usize, why: String| {
            let least_text = size_text(least as u64);
            let allowed = format!("allowed is {least_text} or more, {why}");
            (value >= least).then_some(()).ok_or_else(|| ConfigError::new(option, &size_text(value as u64), allowed))
        };
        at_least(
            "--max-frame",
            limits.frame,
            largest,
            format!("so that a text of --max-text {text} fits in, escaped, with its data"),
        )?;
        at_least(
            "--room-window",
            limits.room_window,
            largest,
            format!("so that a message of --max-text {text} fits in"),
        )?;
        at_least(
            "--window-budget",
            limits.window_budget,
            limits.room_window,
            "since that is what --room-window gives one room".into(),
        )
    }

    /// A room that is forgotten forgets its ids, too.
    fn check_dedupe(&self) -> Result<(), ConfigError> {
        let HistorySettings { room_ttl, dedupe, .. } = self.history;
        if room_ttl.is_zero() || dedupe <= room_ttl {
            return Ok(());
        }
        let allowed = format!(
            "allowed is at most --room-ttl {}, after which a silent room is forgotten with its ids",
            duration_text(room_ttl)
        );
        Err(ConfigError::new("--dedupe", &duration_text(dedupe), allowed))
    }

    /// A secret that can be guessed makes anybody anybody; on a machine of one's own it is only warned of.
    /// Whether only this machine comes in: no door is open to others, nor is there a proxy that brings them.
    pub fn is_for_this_machine(&self) -> bool {
        let doors = [Some(self.listen), self.tcp];
        self.trusted_proxies.is_empty() && doors.iter().flatten().all(|address| address.ip().is_loopback())
    }

    /// Whether pages of this machine may come in: they are nobody else's while nobody brings others here.
    pub fn origins_of_this_machine(&self) -> bool {
        self.trusted_proxies.is_empty() && self.listen.ip().is_loopback()
    }

    fn check_jwt_secret(&self) -> Result<(), ConfigError> {
        let secret = self.auth.jwt.as_ref().and_then(|jwt| jwt.secret.as_ref());
        let Some(bytes) = secret.map(|secret| secret.reveal().len()) else { return Ok(()) };
        if bytes >= Secret::LEAST_BYTES || self.is_for_this_machine() {
            return Ok(());
        }
        let least = Secret::LEAST_BYTES;
        let allowed = format!(
            "it has {bytes} bytes; allowed is {least} or more where others than this machine come in (--listen, --tcp, \
             --trusted-proxy)"
        );
        Err(ConfigError::secret("--jwt-secret", allowed))
    }

    fn check_connections(&self, nofile: u64) -> Result<(), ConfigError> {
        let connections = self.limits.connections;
        let most = nofile.saturating_sub(Limits::OTHER_FILES);
        // The default is always possible, however few files there are.
        if connections as u64 <= most || connections <= Limits::connections_within(nofile) {
            return Ok(());
        }
        let allowed = format!(
            "allowed is at most {most}, since this process may open {nofile} files (nofile); 0 takes 90% of them"
        );
        Err(ConfigError::new("--max-connections", &connections.to_string(), allowed))
    }
}

/// Whether listening on both at once fails.
fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (everywhere || one.ip() == other.ip())
}

/// Where this machine reaches a listener: one that listens everywhere is reached on loopback.
pub fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Raises the number of files this process may open as far as the system lets it, and says how many that are.
pub fn raise_nofile() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX)
        .or_else(|_| rlimit::getrlimit(rlimit::Resource::NOFILE).map(|(soft, _)| soft))
        .unwrap_or(1024)
}

/// A base path without a trailing `/`, or `None` where it breaks [`BASE_PATH_RULE`]. Empty stays empty.
pub fn base_path(text: &str) -> Option<String> {
    /// Our own first segments: below `/ws`, `/ws/ws` would be one thing and `/chatroom/ws` two.
    const OURS: [&str; 6] = ["api", "chatroom", "client.js", "echo", "healthz", "ws"];
    let plain = |segment: &str| {
        !matches!(segment, "" | "." | "..")
            && segment.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
    };
    if text.is_empty() {
        return Some(String::new());
    }
    let mut segments = text.strip_prefix('/')?.split('/');
    let first_is_ours = segments.clone().next().is_some_and(|s| OURS.contains(&s));
    (text.len() <= 128 && !first_is_ours && segments.all(plain)).then(|| text.to_owned())
}

pub const BASE_PATH_RULE: &str = "allowed is a path like /gin: it begins with `/`, does not end with one, has only \
     A-Z a-z 0-9 - . _ ~ in its parts, no `.` or `..`, and does not begin like a path of the hall itself";

impl AllowedOrigins {
    pub const RULE: &'static str = "allowed is scheme://host or scheme://host:port, as a browser's Origin has it, or *";

    /// What is compared of an `Origin`: `host` or `host:port` in lower case, without the scheme's own port. `None` for
    /// `null` and for everything else that is not `scheme://host[:port]`.
    pub fn authority(origin: &str) -> Option<String> {
        let origin = origin.to_ascii_lowercase();
        let (scheme, authority) = origin.split_once("://")?;
        let in_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(in_scheme) {
            return None;
        }
        let host_ends = if authority.starts_with('[') {
            authority.find(']')? + 1
        } else {
            authority.find(':').unwrap_or(authority.len())
        };
        let (host, port) = authority.split_at(host_ends);
        if !is_host(host) {
            return None;
        }
        let own_port = match scheme {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        };
        match port.strip_prefix(':') {
            None => port.is_empty().then(|| host.to_owned()),
            Some(digits) => {
                let digits_only = digits.bytes().all(|byte| byte.is_ascii_digit());
                let port: u16 = digits.parse().ok().filter(|_| digits_only)?;
                Some(if own_port == Some(port) { host.to_owned() } else { format!("{host}:{port}") })
            }
        }
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']').is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            (1..=253).contains(&host.len()) && host.bytes().all(plain)
        }
    }
}

impl AuthSettings {
    /// Whether others than guests are let in, too: then guests' names show that they are guests.
    pub fn marks_guests(&self) -> bool {
        self.tickets.is_some() || self.jwt.is_some()
    }
}

impl TicketKey {
    pub const RULE: &'static str = "allowed is a pattern with one <name> in it, like ChatroomToken<name>";
    /// As the tutorial's site has it.
    pub const DEFAULT: &'static str = "ChatroomToken<name>";
    const NAME: &'static str = "<name>";

    /// `None` where the pattern breaks [`TicketKey::RULE`].
    pub fn parse(pattern: &str) -> Option<Self> {
        let (before, after) = pattern.split_once(Self::NAME)?;
        let sound = pattern.len() <= 256 && !after.contains(Self::NAME) && !pattern.contains(char::is_control);
        sound.then(|| TicketKey { before: before.into(), after: after.into() })
    }

    pub fn of(&self, name: &str) -> String {
        format!("{}{name}{}", self.before, self.after)
    }
}

impl fmt::Display for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.before, Self::NAME, self.after)
    }
}

impl Secret {
    /// What signs tokens and has fewer can be guessed (RFC 7518, 3.2).
    pub const LEAST_BYTES: usize = 32;

    pub fn new(text: String) -> Self {
        Secret(text)
    }

    /// The secret itself, to be used and not to be shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

impl RedisSettings {
    pub const PREFIX_RULE: &'static str = "allowed is 1 to 64 of A-Z a-z 0-9 _ . : -";

    pub const PREFIX: &'static str = "townhall";

    /// With everything else as it is by default.
    pub fn new(url: RedisUrl) -> Self {
        RedisSettings { url, prefix: Self::PREFIX.into(), ca: None, wait: 0 }
    }

    /// Whether keys may begin with `prefix`: braces would move the hash tag, spaces and line breaks would make keys that
    /// nobody can type.
    pub fn is_prefix(prefix: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte);
        (1..=64).contains(&prefix.len()) && prefix.bytes().all(plain)
    }
}

#[cfg(test)]
mod tests;
