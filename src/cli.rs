//! The command line: words in, a [`Command`] or one line of refusal out.
//!
//! Every option is a flag and a variable `TOWNHALL_…`; the flag wins, and a variable that is set but empty counts as not set
//! (what `${REDIS:-}` leaves behind). An option's declaration below is all there is to it: name, default, help and what is
//! allowed; README's table is made of it ([`options_table`]). Nothing here opens anything but the files that options name.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::Resettable;
use clap::error::{ContextKind, ErrorKind};
use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser};
use ipnet::IpNet;

use crate::config::{self, AllowedOrigins, Config, ConfigError, HistorySettings, Limits, RedisSettings, Rooms};
use crate::measure::{Zero, count, duration, size};
use crate::names::RoomName;
use crate::redis_url::{BadRedisUrl, RedisUrl};

mod auth;
mod chat;
mod token;

pub use self::chat::ChatArgs;
pub use self::token::TokenArgs;

const KIB: u64 = bytesize::KIB;
const MIB: u64 = bytesize::MIB;
const GIB: u64 = bytesize::GIB;
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// What `welcome` can list without outgrowing a client's outbox.
const MAX_NAMED_ROOMS: usize = 256;

/// Exit code of a command line that is refused.
const USAGE: u8 = 2;

#[derive(Parser)]
#[command(
    name = "townhall",
    version,
    override_usage = "townhall [COMMAND] [OPTIONS]",
    about = "One hall, many doors: a chat backend that many replicas serve as one room",
    after_help = "Without a command, townhall serves: `townhall --tcp` is `townhall serve --tcp`.\n\
                  `townhall serve --help` lists every option with its variable and default."
)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
pub enum Command {
    /// Open the hall (the default command)
    Serve(Box<ServeArgs>),
    /// Chat from a terminal, or between other programs
    Chat(Box<ChatArgs>),
    /// Make a ticket or a signed token, for development, and print it
    Token(Box<TokenArgs>),
    /// Ask a running hall how it is, for container probes: exit code 0 is well
    Health(HealthArgs),
}

/// `townhall health`.
#[derive(Args)]
pub struct HealthArgs {
    /// The operations listener to ask; 0.0.0.0 and [::] mean this machine
    #[arg(long, env = "TOWNHALL_OPS", value_name = "ADDR", default_value = "127.0.0.1:8081", value_parser = address)]
    pub ops: SocketAddr,
    /// Ask whether it should get new clients, not only whether it lives
    #[arg(long)]
    pub ready: bool,
}

/// `townhall serve`, as it was written. [`ServeArgs::into_config`] is the way on.
#[derive(Args)]
#[command(
    after_help = "A variable that is empty counts as not set. Sizes are bytes or like 4KiB, durations like 20s, 10m, 30d; \
                        lists have commas, or the option is repeated."
)]
pub struct ServeArgs {
    #[command(flatten)]
    doors: Doors,
    #[command(flatten)]
    auth: auth::Auth,
    #[command(flatten)]
    broker: Broker,
    #[command(flatten)]
    rooms: RoomsAndHistory,
    #[command(flatten)]
    limits: ClientLimits,
    #[command(flatten)]
    leaving: Leaving,
}

#[derive(Args)]
#[command(next_help_heading = "Doors")]
struct Doors {
    /// Where browsers and WebSockets come in
    #[arg(long, env = "TOWNHALL_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    /// Where /metrics, /healthz and /readyz are; not for the public
    #[arg(long, env = "TOWNHALL_OPS", value_name = "ADDR", default_value = "127.0.0.1:8081", value_parser = address)]
    ops: SocketAddr,
    /// Open the line door for nc; alone, or with `true`: 127.0.0.1:9999
    #[arg(long, env = "TOWNHALL_TCP", value_name = "ADDR", num_args = 0..=1, default_missing_value = "true", value_parser = LineDoor::parse)]
    tcp: Option<LineDoor>,
    /// Serve every public path below this one, too, like /gin
    #[arg(long, env = "TOWNHALL_BASE_PATH", value_name = "PATH", value_parser = base_path)]
    base_path: Option<String>,
    /// Pages of other origins that may come in: scheme://host[:port], or * for all
    #[arg(long, env = "TOWNHALL_ALLOW_ORIGIN", value_name = "ORIGIN", value_delimiter = ',', value_parser = Origin::parse)]
    allow_origin: Vec<Origin>,
    /// Networks of proxies (10.0.0.0/8, ::1) whose X-Forwarded-For, X-Real-IP and X-Forwarded-Host are believed
    #[arg(long, env = "TOWNHALL_TRUSTED_PROXY", value_name = "CIDR", value_delimiter = ',', value_parser = network)]
    trusted_proxy: Vec<IpNet>,
}

// Options that `serve` and `token` share. Their comments are no documentation: clap would take that for the command's.

#[derive(Args)]
struct RoomsRedis {
    /// One hall with all that name the same Redis 7+: redis://, rediss://, redis+unix://, redis-sentinel:// or redis-cluster://; without it, history is in memory and this replica is alone
    #[arg(long, env = "TOWNHALL_REDIS", value_name = "URL")]
    redis: Option<String>,
    /// A file that holds the URL of --redis, since that is a secret
    #[arg(long, env = "TOWNHALL_REDIS_FILE", value_name = "PATH")]
    redis_file: Option<PathBuf>,
}

#[derive(Args)]
struct RedisCa {
    /// A file with the certificates (PEM) of those who may vouch for Redis behind rediss://; without it, whom this machine trusts
    #[arg(long, env = "TOWNHALL_REDIS_CA", value_name = "PATH")]
    redis_ca: Option<PathBuf>,
}

#[derive(Args)]
#[command(next_help_heading = "Broker")]
struct Broker {
    #[command(flatten)]
    at: RoomsRedis,
    /// What keys and channels in Redis begin with; halls apart have prefixes apart
    #[arg(long, env = "TOWNHALL_REDIS_PREFIX", value_name = "PREFIX", default_value = "townhall", value_parser = redis_prefix)]
    redis_prefix: String,
    #[command(flatten)]
    ca: RedisCa,
    /// A message is accepted only when so many replicas of its Redis server have it, 16 at most
    #[arg(long, env = "TOWNHALL_REDIS_WAIT", value_name = "N", default_value = "0", value_parser = count::<u32>(0..=16))]
    redis_wait: u32,
}

#[derive(Args)]
#[command(next_help_heading = "Rooms and history")]
struct RoomsAndHistory {
    /// `open`: any room that somebody names; or a list of the only ones
    #[arg(long, env = "TOWNHALL_ROOMS", value_name = "ROOM", default_value = "open", value_delimiter = ',', value_parser = room)]
    rooms: Vec<RoomName>,
    /// Messages kept a room, at least
    #[arg(long, env = "TOWNHALL_HISTORY", value_name = "N", default_value = "10000", value_parser = count::<usize>(1..=10_000_000))]
    history: usize,
    /// Memory for all history without --redis; 0: no bound
    #[arg(long, env = "TOWNHALL_HISTORY_BUDGET", value_name = "SIZE", default_value = "1GiB", value_parser = size(Zero::Allowed, MIB..=1024 * GIB))]
    history_budget: usize,
    /// A room in which nobody speaks for so long is forgotten; 0: never
    #[arg(long, env = "TOWNHALL_ROOM_TTL", value_name = "DURATION", default_value = "30d", value_parser = duration(Zero::Allowed, SECOND..=3650 * DAY))]
    room_ttl: Duration,
    /// For so long a message that is sent again is stored only once
    #[arg(long, env = "TOWNHALL_DEDUPE", value_name = "DURATION", default_value = "10m", value_parser = duration(Zero::Refused, SECOND..=7 * DAY))]
    dedupe: Duration,
    /// Memory for the newest of a room, from which slow and resuming clients are served
    #[arg(long, env = "TOWNHALL_ROOM_WINDOW", value_name = "SIZE", default_value = "1MiB", value_parser = size(Zero::Refused, 16 * KIB..=GIB))]
    room_window: usize,
    /// Messages in that window, at most
    #[arg(long, env = "TOWNHALL_ROOM_WINDOW_MESSAGES", value_name = "N", default_value = "2000", value_parser = count::<usize>(1..=1_000_000))]
    room_window_messages: usize,
    /// Memory for the windows of all rooms
    #[arg(long, env = "TOWNHALL_WINDOW_BUDGET", value_name = "SIZE", default_value = "256MiB", value_parser = size(Zero::Refused, 16 * KIB..=1024 * GIB))]
    window_budget: usize,
}

#[derive(Args)]
#[command(next_help_heading = "Limits")]
struct ClientLimits {
    /// A message's text
    #[arg(long, env = "TOWNHALL_MAX_TEXT", value_name = "SIZE", default_value = "4KiB", value_parser = size(Zero::Refused, 1..=64 * KIB))]
    max_text: usize,
    /// A WebSocket message from a client
    #[arg(long, env = "TOWNHALL_MAX_FRAME", value_name = "SIZE", default_value = "64KiB", value_parser = size(Zero::Refused, KIB..=16 * MIB))]
    max_frame: usize,
    /// Rooms that one connection is in at a time
    #[arg(long, env = "TOWNHALL_MAX_ROOMS", value_name = "N", default_value = "32", value_parser = count::<usize>(1..=1000))]
    max_rooms: usize,
    /// Commands a second and connection; 0: no limit
    #[arg(long, env = "TOWNHALL_RATE", value_name = "N", default_value = "20", value_parser = count::<u32>(0..=1_000_000))]
    rate: u32,
    /// Commands at once after a pause
    #[arg(long, env = "TOWNHALL_BURST", value_name = "N", default_value = "40", value_parser = count::<u32>(1..=1_000_000))]
    burst: u32,
    /// From accepting a connection to the end of its request's head
    #[arg(long, env = "TOWNHALL_HANDSHAKE_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = duration(Zero::Refused, 100 * MILLISECOND..=10 * MINUTE))]
    handshake_timeout: Duration,
    /// Between signs of life on a silent connection; below the idle time-out of what is in front; 0: none
    #[arg(long, env = "TOWNHALL_BEAT", value_name = "DURATION", default_value = "25s", value_parser = duration(Zero::Allowed, SECOND..=HOUR))]
    beat: Duration,
    /// How long a client may take nothing while there is something for it; 0: for ever
    #[arg(long, env = "TOWNHALL_WRITE_TIMEOUT", value_name = "DURATION", default_value = "30s", value_parser = duration(Zero::Allowed, 100 * MILLISECOND..=HOUR))]
    write_timeout: Duration,
    /// Connections at the same time; 0: 90% of the files this process may open (nofile)
    #[arg(long, env = "TOWNHALL_MAX_CONNECTIONS", value_name = "N", default_value = "0", value_parser = count::<usize>(0..=Limits::MAX_CONNECTIONS))]
    max_connections: usize,
    /// Of them, those of one address (IPv6: of a /64); behind a proxy all clients have the proxy's, unless --trusted-proxy names it; 0: any number
    #[arg(long, env = "TOWNHALL_MAX_PER_ADDRESS", value_name = "N", default_value = "0", value_parser = count::<usize>(0..=Limits::MAX_CONNECTIONS))]
    max_per_address: usize,
    /// Who loses the connection stays a member of its rooms for so long, and may come back unnoticed; 0: leaves at once
    #[arg(long, env = "TOWNHALL_PRESENCE_GRACE", value_name = "DURATION", default_value = "10s", value_parser = duration(Zero::Allowed, 100 * MILLISECOND..=10 * MINUTE))]
    presence_grace: Duration,
}

#[derive(Args)]
#[command(next_help_heading = "Leaving")]
struct Leaving {
    /// On SIGTERM, clients are sent to the other replicas spread over so long; 0: all at once
    #[arg(long, env = "TOWNHALL_DRAIN", value_name = "DURATION", default_value = "20s", value_parser = duration(Zero::Allowed, 100 * MILLISECOND..=10 * MINUTE))]
    drain: Duration,
}

/// Why the process ends before it begins.
pub enum Ending {
    /// Help or the version was asked for.
    Answered(clap::Error),
    /// The command line is wrong; one line that says how.
    Refused(String),
}

impl Ending {
    /// Says it where it belongs; the code is the process's.
    pub fn tell(self) -> ExitCode {
        match self {
            Ending::Answered(text) => match text.print() {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE, // whoever asked has closed the pipe
            },
            Ending::Refused(line) => {
                let _ = writeln!(io::stderr(), "townhall: {line}"); // where nobody reads that, there is nobody to tell
                ExitCode::from(USAGE)
            }
        }
    }
}

impl From<ConfigError> for Ending {
    fn from(error: ConfigError) -> Self {
        Ending::Refused(error.to_string())
    }
}

/// Reads a whole command line, the program's name first, and the variables.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Command, Ending> {
    let environment = command().mut_subcommands(|sub| sub.mut_args(without_empty_variable));
    interpret(environment, words.into_iter().collect())
}

fn interpret(grammar: clap::Command, mut words: Vec<OsString>) -> Result<Command, Ending> {
    if serves_unasked(words.get(1).map(OsString::as_os_str)) {
        words.insert(words.len().min(1), "serve".into());
    }
    grammar
        .clone()
        .try_get_matches_from(&words)
        .and_then(|matches| CommandLine::from_arg_matches(&matches))
        .map(|line| line.command)
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ending::Answered(error),
            _ => Ending::Refused(one_line(&error, &grammar, &words)),
        })
}

/// `townhall [OPTIONS]` is `townhall serve [OPTIONS]`: options that come first are those of `serve`, but for the program's own.
fn serves_unasked(first: Option<&OsStr>) -> bool {
    match first.map(OsStr::as_encoded_bytes) {
        None => true,
        Some(b"-h" | b"--help" | b"-V" | b"--version") => false,
        Some(word) => word.starts_with(b"-"),
    }
}

/// The grammar with what all options share.
fn command() -> clap::Command {
    CommandLine::command().mut_subcommands(|sub| {
        sub.mut_args(|option| {
            // `--beat -5s` is a wrong duration, not an unknown flag `-5`; never for what could swallow the next option.
            let measured =
                option.get_value_names().is_some_and(|names| matches!(names[0].as_str(), "N" | "SIZE" | "DURATION"));
            option.hide_env_values(true).allow_hyphen_values(measured)
        })
    })
}

fn without_empty_variable(option: Arg) -> Arg {
    let value = option.get_env().and_then(std::env::var_os);
    match value {
        Some(value) if value.is_empty() => option.env(Resettable::Reset),
        _ => option,
    }
}

/// What is wrong, without clap's usage below it.
fn one_line(error: &clap::Error, grammar: &clap::Command, words: &[OsString]) -> String {
    let context = |kind| error.get(kind).map(ToString::to_string);
    let cause = std::error::Error::source(error).map(ToString::to_string);
    if let (Some(option), Some(value), Some(allowed)) =
        (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue), cause)
    {
        let flag = option.split(' ').next().unwrap_or_default();
        let origin = variable_behind(flag, grammar, words).unwrap_or(flag.to_owned());
        return ConfigError::new(origin, &value, allowed).to_string();
    }
    let text = error.to_string();
    // What is missing stands in lines of its own.
    let lines = if error.kind() == ErrorKind::MissingRequiredArgument { 2 } else { 1 };
    let first = text.lines().take(lines).map(str::trim).collect::<Vec<_>>().join(" ");
    let first = first.trim_start_matches("error: ");
    let suggestion = context(ContextKind::SuggestedArg).or(context(ContextKind::SuggestedSubcommand));
    match suggestion {
        Some(suggestion) => format!("{first}; did you mean {suggestion}?"),
        None => {
            let sub = words.get(1).and_then(|word| word.to_str());
            let sub = sub.filter(|sub| grammar.find_subcommand(sub).is_some());
            let space = if sub.is_some() { " " } else { "" };
            format!("{first}; see `townhall{space}{} --help`", sub.unwrap_or_default())
        }
    }
}

/// The variable that gave `flag` its value; `None` where that stands on the command line.
fn variable_behind(flag: &str, grammar: &clap::Command, words: &[OsString]) -> Option<String> {
    let written = words.iter().any(|word| {
        let word = word.to_string_lossy();
        word == flag || word.starts_with(&format!("{flag}="))
    });
    let long = flag.strip_prefix("--").filter(|_| !written)?;
    grammar
        .get_subcommands()
        .flat_map(clap::Command::get_arguments)
        .find(|option| option.get_long() == Some(long))
        .and_then(|option| option.get_env())
        .map(|variable| variable.to_string_lossy().into_owned())
}

impl ServeArgs {
    /// The one way from words to a checked [`Config`]. `nofile` is how many files this process may open; the file of
    /// `--redis-file` is read here.
    pub fn into_config(self, nofile: u64) -> Result<Config, ConfigError> {
        let limits = self.limits;
        let rooms = self.rooms;
        self.auth.refuse_unused()?;
        let (rooms_at, tickets_at) = (self.broker.at.url()?, self.auth.tickets_at.url()?);
        let ca = self.broker.ca.certificates(rooms_at.as_ref(), tickets_at.as_ref())?;
        let redis = self.broker.settings(rooms_at, ca.as_deref())?;
        let tickets_in = tickets_at.map(|url| reached_by(url, ca.as_deref())).or_else(|| redis.clone());
        let auth = self.auth.settings(tickets_in)?;
        let config = Config {
            listen: self.doors.listen,
            ops: self.doors.ops,
            tcp: self.doors.tcp.and_then(|door| door.0),
            base_path: self.doors.base_path.unwrap_or_default(),
            redis,
            origins: Origin::all(self.doors.allow_origin),
            trusted_proxies: self.doors.trusted_proxy,
            auth,
            rooms: which_rooms(rooms.rooms)?,
            limits: Limits {
                text: limits.max_text,
                frame: limits.max_frame,
                rooms: limits.max_rooms,
                rate: limits.rate,
                burst: limits.burst,
                handshake_timeout: limits.handshake_timeout,
                beat: limits.beat,
                write_timeout: limits.write_timeout,
                connections: match limits.max_connections {
                    0 => Limits::connections_within(nofile),
                    connections => connections,
                },
                per_address: limits.max_per_address,
                presence_grace: limits.presence_grace,
                room_window: rooms.room_window,
                room_window_messages: rooms.room_window_messages,
                window_budget: rooms.window_budget,
                drain: self.leaving.drain,
            },
            history: HistorySettings {
                messages: rooms.history,
                room_ttl: rooms.room_ttl,
                dedupe: rooms.dedupe,
                budget: rooms.history_budget,
            },
        };
        config.check(nofile)?;
        Ok(config)
    }
}

impl RoomsRedis {
    fn url(&self) -> Result<Option<RedisUrl>, ConfigError> {
        redis_url(("--redis", self.redis.clone()), ("--redis-file", self.redis_file.as_deref()))
    }
}

/// What is given as it is or in a file, not both, and which option gave it.
fn one_of(
    (option, value): (&'static str, Option<String>),
    (file_option, file): (&'static str, Option<&Path>),
) -> Result<Option<(&'static str, String)>, ConfigError> {
    match (value, file) {
        (None, None) => Ok(None),
        (Some(value), None) => Ok(Some((option, value))),
        (None, Some(path)) => Ok(Some((file_option, secret_in(file_option, path)?))),
        (Some(_), Some(path)) => {
            let allowed = format!("{option} is given, too; allowed is one of the two");
            Err(ConfigError::new(file_option, &path.to_string_lossy(), allowed))
        }
    }
}

fn redis_url(
    given: (&'static str, Option<String>),
    file: (&'static str, Option<&Path>),
) -> Result<Option<RedisUrl>, ConfigError> {
    let Some((option, url)) = one_of(given, file)? else { return Ok(None) };
    url.parse().map(Some).map_err(|bad: BadRedisUrl| refused_url(option, &bad))
}

/// Certificates are for those who speak TLS.
fn reached_by(url: RedisUrl, ca: Option<&[u8]>) -> RedisSettings {
    let ca = ca.filter(|_| url.tls).map(<[u8]>::to_vec);
    RedisSettings { ca, ..RedisSettings::new(url) }
}

impl Broker {
    fn settings(self, url: Option<RedisUrl>, ca: Option<&[u8]>) -> Result<Option<RedisSettings>, ConfigError> {
        match url {
            Some(url) => {
                Ok(Some(RedisSettings { prefix: self.redis_prefix, wait: self.redis_wait, ..reached_by(url, ca) }))
            }
            None if self.redis_wait > 0 => {
                Err(ConfigError::new("--redis-wait", &self.redis_wait.to_string(), WITH_REDIS))
            }
            None => Ok(None),
        }
    }
}

/// What says how Redis is used makes no hall with Redis.
const WITH_REDIS: &str = "allowed is that with --redis, and there is none: history would be in memory";

impl RedisCa {
    /// Those who vouch for the Redis of the rooms, for that of the tickets, or for both.
    fn certificates(
        &self,
        rooms: Option<&RedisUrl>,
        tickets: Option<&RedisUrl>,
    ) -> Result<Option<Vec<u8>>, ConfigError> {
        let Some(path) = self.redis_ca.as_deref() else { return Ok(None) };
        let plain = match (rooms, tickets) {
            (None, None) => return Err(ConfigError::new("--redis-ca", &path.to_string_lossy(), WITH_REDIS)),
            (rooms, tickets) if [rooms, tickets].into_iter().flatten().any(|url| url.tls) => {
                return certificates(path).map(Some);
            }
            (Some(_), None) => "--redis is no rediss:// URL",
            (None, Some(_)) => "--ticket-redis is no rediss:// URL",
            (Some(_), Some(_)) => "neither --redis nor --ticket-redis is a rediss:// URL",
        };
        let allowed = format!("{plain}, and without TLS there is nothing to vouch for");
        Err(ConfigError::new("--redis-ca", &path.to_string_lossy(), allowed))
    }
}

fn refused_url(option: &str, bad: &BadRedisUrl) -> ConfigError {
    match bad.scheme.as_str() {
        "" => ConfigError::secret(option, bad.to_string()),
        scheme => ConfigError::new(option, &format!("{scheme}://…"), bad.to_string()),
    }
}

/// A secret's file, without the line break that editors leave at its end.
fn secret_in(option: &str, path: &Path) -> Result<String, ConfigError> {
    let unreadable = |error| unreadable(option, path, error, "it and nothing else");
    let bytes = read_bounded(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| unreadable(io::Error::other(error)))?;
    Ok(text.trim().to_owned())
}

fn certificates(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let shown = path.to_string_lossy();
    let pem = read_bounded(path).map_err(|error| unreadable("--redis-ca", path, error, "certificates"))?;
    let has_one = pem.windows(PEM_CERTIFICATE.len()).any(|part| part == PEM_CERTIFICATE);
    has_one.then_some(pem).ok_or_else(|| {
        ConfigError::new(
            "--redis-ca",
            &shown,
            "it holds no certificate; allowed is a PEM file (-----BEGIN CERTIFICATE-----)",
        )
    })
}

const PEM_CERTIFICATE: &[u8] = b"-----BEGIN CERTIFICATE-----";

fn unreadable(option: &str, path: &Path, error: io::Error, what: &str) -> ConfigError {
    if looks_like_a_path(path) {
        let allowed = format!("cannot be read ({error}); allowed is a file that holds {what}");
        return ConfigError::new(option, &path.to_string_lossy(), allowed);
    }
    let allowed = format!("that is no file; allowed is the path of one that holds {what}, and not what it holds");
    ConfigError::secret(option, allowed)
}

/// Whoever puts a secret itself where its file belongs must not find it in a log. So a path is one that begins with a directory
/// that is there, or a file's name with a point in it.
fn looks_like_a_path(path: &Path) -> bool {
    let text = path.to_string_lossy();
    let mut directories = path.ancestors().skip(1).filter(|directory| directory.file_name().is_some());
    let has_directory = directories.any(Path::is_dir);
    let is_name = text.len() <= 128 && path.extension().is_some() && !text.contains(['@', ':']);
    !text.contains('\n') && (has_directory || is_name)
}

/// Nothing that is longer is a URL, and few bundles are; `/dev/zero` is not read to its end.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    const MOST: u64 = 1024 * 1024;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MOST).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn which_rooms(mut names: Vec<RoomName>) -> Result<Rooms, ConfigError> {
    let open = names.iter().any(|name| name.as_str() == "open");
    if open && names.len() == 1 {
        return Ok(Rooms::Open);
    }
    let given = names.len();
    if open || given > MAX_NAMED_ROOMS {
        let text: Vec<&str> = names.iter().take(8).map(RoomName::as_str).collect();
        let allowed = format!("allowed is `open` alone, or a list of at most {MAX_NAMED_ROOMS} rooms");
        return Err(ConfigError::new("--rooms", &text.join(","), allowed));
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(Rooms::Only(names))
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        "allowed is an IP address and a port, like 127.0.0.1:8080, or 0.0.0.0:8080 or [::]:8080 for everybody".into()
    })
}

fn base_path(text: &str) -> Result<String, &'static str> {
    config::base_path(text).ok_or(config::BASE_PATH_RULE)
}

fn network(text: &str) -> Result<IpNet, &'static str> {
    let text = text.trim();
    let alone = || text.parse::<IpAddr>().map(IpNet::from).ok();
    let mapped = |network: &IpNet| matches!(network, IpNet::V6(v6) if v6.addr().to_ipv4_mapped().is_some());
    let network: Option<IpNet> = text.parse().ok().or_else(alone).filter(|network| !mapped(network));
    network.ok_or("allowed is a network like 10.0.0.0/8 or fd00::/8, or an address; one of IPv4 is written as such")
}

fn redis_prefix(text: &str) -> Result<String, &'static str> {
    RedisSettings::is_prefix(text).then(|| text.to_owned()).ok_or(RedisSettings::PREFIX_RULE)
}

fn room(text: &str) -> Result<RoomName, String> {
    RoomName::parse(text.trim())
        .ok_or_else(|| format!("allowed is `open`, or a list like lobby,help: {}", RoomName::RULE))
}

/// The line door's address. A variable cannot stand alone as a flag can, hence `true`, and with it `false`.
#[derive(Clone, Copy)]
struct LineDoor(Option<SocketAddr>);

impl LineDoor {
    const ALONE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9999);

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "true" => Ok(LineDoor(Some(Self::ALONE))),
            "false" => Ok(LineDoor(None)),
            _ => address(text).map(|address| LineDoor(Some(address))).map_err(|_| {
                format!(
                    "allowed is an IP address and a port, like 0.0.0.0:9999, `true` for {}, or `false`",
                    Self::ALONE
                )
            }),
        }
    }
}

/// One of `--allow-origin`.
#[derive(Clone)]
enum Origin {
    Any,
    /// See [`AllowedOrigins::Only`].
    Authority(String),
}

impl Origin {
    fn parse(text: &str) -> Result<Self, &'static str> {
        match text.trim() {
            "*" => Ok(Origin::Any),
            origin => AllowedOrigins::authority(origin).map(Origin::Authority).ok_or(AllowedOrigins::RULE),
        }
    }

    fn all(origins: Vec<Origin>) -> AllowedOrigins {
        let only = origins.into_iter().map(|origin| match origin {
            Origin::Any => None,
            Origin::Authority(authority) => Some(authority),
        });
        only.collect::<Option<Vec<String>>>().map_or(AllowedOrigins::Any, AllowedOrigins::Only)
    }
}

/// The options of a command as the documents have them: a Markdown table a group, or one where there are no groups.
pub fn options_table(command_name: &str) -> String {
    let grammar = command();
    let mut table = String::new();
    let mut group = None;
    for option in grammar.find_subcommand(command_name).into_iter().flat_map(clap::Command::get_arguments) {
        let heading = option.get_help_heading().unwrap_or_default();
        if group != Some(heading) {
            let gap = if group.is_some() { "\n" } else { "" };
            let title = if heading.is_empty() { String::new() } else { format!("**{heading}**\n\n") };
            let _ = writeln!(table, "{gap}{title}| option | variable | default | |\n|---|---|---|---|");
            group = Some(heading);
        }
        let _ = writeln!(table, "{}", row(option));
    }
    table
}

fn row(option: &Arg) -> String {
    let takes_value = option.get_action().takes_values() || option.get_num_args().is_some();
    let value = option.get_value_names().filter(|_| takes_value).map_or(String::new(), |names| names.join(" "));
    let value = match option.get_num_args() {
        Some(range) if range.min_values() == 0 => format!("[{value}]"),
        _ => value,
    };
    let name = option.get_long().map_or(value.clone(), |name| format!("--{name} {value}").trim_end().to_owned());
    let variable = option.get_env().map_or(String::new(), |variable| format!("`{}`", variable.to_string_lossy()));
    let default = match option.get_default_values() {
        [] if takes_value => "none".into(),
        [] => "off".into(),
        [default, ..] => format!("`{}`", default.to_string_lossy()),
    };
    let help = option.get_help().map(ToString::to_string);
    let help = help.unwrap_or_default().replace('|', "\\|");
    format!("| `{name}` | {variable} | {default} | {help} |")
}

#[cfg(test)]
mod tests;
