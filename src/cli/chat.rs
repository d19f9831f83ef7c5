//! `townhall chat`, as it was written.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::{DAY, SECOND, one_of};
use crate::chat::Plan;
use crate::chat::address::{self, Address};
use crate::config::ConfigError;
use crate::measure::{Zero, count, duration};
use crate::names::{DisplayName, RoomName};
use crate::protocol::MAX_LAST;

/// `townhall chat`. [`ChatArgs::into_plan`] is the way on.
#[derive(Args)]
#[command(after_help = "\
At a terminal it is a chat: what you type is said, /help lists what else there is, quit leaves. Between other programs, one \
message per line in, and out only what is asked for, as NAME:TEXT:

  echo hi | townhall chat --room ops               say it, and wait until it is accepted
  townhall chat --room ops --last 20 </dev/null    print the last 20 messages
  townhall chat --room ops --follow --json | jq -r 'select(.type == \"message\").text'

Messages are sent one by one; they arrive once and in their order, over reconnections too. At tcp:// one that was under way \
when the line broke is reported, and not repeated.

Exit codes: 0 all was said and accepted, 1 something was refused or the hall lost, 2 the command line is wrong, 130 interrupted, \
143 terminated.")]
pub struct ChatArgs {
    /// The hall's address: http(s)://, ws(s)://, or tcp://HOST:9999 for its line door
    #[arg(env = "TOWNHALL_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// The room; without it, the hall's first (lobby)
    #[arg(long, env = "TOWNHALL_ROOM", value_name = "ROOM")]
    room: Option<String>,
    /// What others see; without it, guest-xxxx (at tcp://, your address)
    #[arg(long, env = "TOWNHALL_NAME", value_name = "NAME")]
    name: Option<String>,
    /// A ticket (with --name) or a signed token, where the hall wants one
    #[arg(long, env = "TOWNHALL_TOKEN", value_name = "TOKEN")]
    token: Option<String>,
    /// A file that holds the token; it is read again for each connection
    #[arg(long, env = "TOWNHALL_TOKEN_FILE", value_name = "PATH")]
    token_file: Option<PathBuf>,
    /// A secret UUID by which the hall knows a guest again; without it, another guest each time
    #[arg(long, env = "TOWNHALL_KEY", value_name = "UUID")]
    key: Option<String>,
    /// A file that holds the key
    #[arg(long, env = "TOWNHALL_KEY_FILE", value_name = "PATH")]
    key_file: Option<PathBuf>,
    /// Show the last N messages first, 200 at most; by default 50 at a terminal and none in pipes
    #[arg(long, env = "TOWNHALL_LAST", value_name = "N", value_parser = count::<u64>(0..=MAX_LAST))]
    last: Option<u64>,
    /// Print what is said, and stay when the input has ended
    #[arg(long)]
    follow: bool,
    /// Print JSON: an `accepted` or `error` for each line in, messages and, with --follow, every event
    #[arg(long)]
    json: bool,
    /// How long to try when the hall cannot be reached; by default not at all at first, then 1m in pipes, and for ever at a terminal and with --follow
    #[arg(long, env = "TOWNHALL_RETRY_FOR", value_name = "DURATION", value_parser = duration(Zero::Allowed, SECOND..=3650 * DAY))]
    retry_for: Option<Duration>,
}

impl ChatArgs {
    /// The one way from words to a checked [`Plan`]. The file of `--key-file` is read here.
    ///
    /// # Errors
    /// What is wrong, and what is allowed.
    pub fn into_plan(self) -> Result<Plan, ConfigError> {
        let (address, wishes) = address::parse(&self.url).map_err(|allowed| refused_url(&self.url, allowed))?;
        if self.json && matches!(address, Address::Lines(_)) {
            let allowed = "the line door has no events; allowed is --json with http(s):// or ws(s)://";
            return Err(ConfigError::new("--json", &address.to_string(), allowed));
        }
        if self.last.is_some_and(|last| last > 0) && matches!(address, Address::Lines(_)) {
            let allowed = "the line door has no history; allowed is --last with http(s):// or ws(s)://";
            return Err(ConfigError::new("--last", &address.to_string(), allowed));
        }
        let token = match (self.token, &self.token_file) {
            (Some(_), Some(path)) => {
                let allowed = "--token is given, too; allowed is one of the two";
                return Err(ConfigError::new("--token-file", &path.to_string_lossy(), allowed));
            }
            (None, Some(_)) => None,
            (token, None) => token.or(wishes.token),
        };
        Ok(Plan {
            address,
            room: self.room.or(wishes.room).map(|room| checked_room(&room)).transpose()?,
            name: self.name.or(wishes.name).map(|name| checked_name(&name)).transpose()?,
            key: key(self.key, self.key_file.as_deref())?,
            token,
            token_file: self.token_file,
            last: self.last,
            follow: self.follow,
            json: self.json,
            retry_for: self.retry_for,
        })
    }
}

/// There may be a token in it.
fn refused_url(url: &str, allowed: String) -> ConfigError {
    let secret = url.contains(['?', '@']);
    if secret { ConfigError::secret("URL", allowed) } else { ConfigError::new("URL", url, allowed) }
}

fn checked_room(room: &str) -> Result<String, ConfigError> {
    let checked = RoomName::parse(room.trim()).map(|room| room.to_string());
    checked.ok_or_else(|| ConfigError::new("--room", room, format!("allowed is this: {}", RoomName::RULE)))
}

fn checked_name(name: &str) -> Result<String, ConfigError> {
    let checked = DisplayName::parse(name).map(|name| name.to_string());
    checked.ok_or_else(|| ConfigError::new("--name", name, format!("allowed is this: {}", DisplayName::RULE)))
}

fn key(given: Option<String>, file: Option<&Path>) -> Result<Uuid, ConfigError> {
    match one_of(("--key", given), ("--key-file", file))? {
        None => Ok(Uuid::new_v4()),
        Some((option, text)) => text
            .trim()
            .parse()
            .map_err(|_| ConfigError::secret(option, "allowed is a UUID; `uuidgen` makes one".to_owned())),
    }
}
