//! The options of `--auth`: who may come in, and how `townhall token` makes what lets them in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::{MINUTE, SECOND, one_of, read_bounded, redis_url, unreadable};
use crate::config::{AuthSettings, ConfigError, JwtSettings, RedisSettings, Secret, TicketKey, TicketSettings};
use crate::measure::{Zero, duration};
use crate::redis_url::RedisUrl;

#[derive(Args)]
#[command(next_help_heading = "Who may come in")]
pub(super) struct Auth {
    /// guest: anybody, under any name; ticket: whom a site has put into Redis; jwt: whoever has a signed token; or a list of them
    #[arg(long, env = "TOWNHALL_AUTH", value_name = "WAY", default_value = "guest", value_delimiter = ',', value_parser = Way::parse)]
    auth: Vec<Way>,
    #[command(flatten)]
    ticket_key: TicketKeyOption,
    /// A ticket lets in once; without this, until it expires
    #[arg(long, env = "TOWNHALL_TICKET_ONCE", value_name = "BOOL", num_args = 0..=1, default_value = "false", default_missing_value = "true")]
    ticket_once: bool,
    #[command(flatten)]
    pub tickets_at: TicketRedis,
    #[command(flatten)]
    secret: JwtSecret,
    /// A file with the public keys (PEM) of tokens that are signed with RS256, ES256 or EdDSA
    #[arg(long, env = "TOWNHALL_JWT_KEY", value_name = "PATH")]
    jwt_key: Option<PathBuf>,
    /// Where the issuer publishes its keys as a JWK set: https://issuer/.well-known/jwks.json
    #[arg(long, env = "TOWNHALL_JWT_JWKS", value_name = "URL")]
    jwt_jwks: Option<String>,
    /// Whom a token must be for (aud), one of these; without this, a token that is for somebody is refused
    #[arg(long, env = "TOWNHALL_JWT_AUD", value_name = "AUDIENCE", value_delimiter = ',')]
    jwt_aud: Vec<String>,
    /// Whom a token must be from (iss), one of these
    #[arg(long, env = "TOWNHALL_JWT_ISS", value_name = "ISSUER", value_delimiter = ',')]
    jwt_iss: Vec<String>,
    /// How far the issuer's clock may differ
    #[arg(long, env = "TOWNHALL_JWT_LEEWAY", value_name = "DURATION", default_value = "30s", value_parser = duration(Zero::Allowed, SECOND..=10 * MINUTE))]
    jwt_leeway: Duration,
}

// Options that `serve` and `token` share. Their comments are no documentation: clap would take that for the command's.

#[derive(Args)]
pub(super) struct TicketKeyOption {
    /// The Redis key of a name's ticket
    #[arg(long, env = "TOWNHALL_TICKET_KEY", value_name = "PATTERN", default_value = TicketKey::DEFAULT, value_parser = ticket_key)]
    pub ticket_key: TicketKey,
}

#[derive(Args)]
pub(super) struct TicketRedis {
    /// The Redis where the site puts tickets, if it is another one than that of --redis
    #[arg(long, env = "TOWNHALL_TICKET_REDIS", value_name = "URL")]
    ticket_redis: Option<String>,
    /// A file that holds the URL of --ticket-redis, since that is a secret
    #[arg(long, env = "TOWNHALL_TICKET_REDIS_FILE", value_name = "PATH")]
    ticket_redis_file: Option<PathBuf>,
}

#[derive(Args)]
pub(super) struct JwtSecret {
    /// The secret of tokens that are signed with HS256: 32 bytes or more
    #[arg(long, env = "TOWNHALL_JWT_SECRET", value_name = "SECRET")]
    jwt_secret: Option<String>,
    /// A file that holds it
    #[arg(long, env = "TOWNHALL_JWT_SECRET_FILE", value_name = "PATH")]
    jwt_secret_file: Option<PathBuf>,
}

impl Auth {
    pub fn has(&self, way: Way) -> bool {
        self.auth.contains(&way)
    }

    /// `tickets_in`: the Redis that tickets would be in.
    pub fn settings(self, tickets_in: Option<RedisSettings>) -> Result<AuthSettings, ConfigError> {
        let tickets = self.has(Way::Ticket).then(|| self.tickets(tickets_in)).transpose()?;
        let jwt = self.has(Way::Jwt).then(|| self.jwt()).transpose()?;
        Ok(AuthSettings { guests: self.has(Way::Guest), tickets, jwt })
    }

    /// What says how something is done that is not done at all.
    pub fn refuse_unused(&self) -> Result<(), ConfigError> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.to_string_lossy().into_owned());
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| String::new());
        let list = |list: &[String]| (!list.is_empty()).then(|| list.join(","));
        let given = [
            ("--ticket-once", self.ticket_once.then(|| "true".into()), Way::Ticket),
            ("--ticket-redis", hidden(&self.tickets_at.ticket_redis), Way::Ticket),
            ("--ticket-redis-file", path(&self.tickets_at.ticket_redis_file), Way::Ticket),
            ("--jwt-secret", hidden(&self.secret.jwt_secret), Way::Jwt),
            ("--jwt-secret-file", path(&self.secret.jwt_secret_file), Way::Jwt),
            ("--jwt-key", path(&self.jwt_key), Way::Jwt),
            ("--jwt-jwks", hidden(&self.jwt_jwks), Way::Jwt),
            ("--jwt-aud", list(&self.jwt_aud), Way::Jwt),
            ("--jwt-iss", list(&self.jwt_iss), Way::Jwt),
        ];
        let unused = given.into_iter().find(|(_, value, way)| value.is_some() && !self.has(*way));
        let Some((option, Some(value), way)) = unused else { return Ok(()) };
        let allowed = format!("--auth is {}; allowed is that with {} in it", Way::list(&self.auth), way.name());
        Err(if value.is_empty() {
            ConfigError::secret(option, allowed)
        } else {
            ConfigError::new(option, &value, allowed)
        })
    }

    pub fn tickets(&self, redis: Option<RedisSettings>) -> Result<TicketSettings, ConfigError> {
        let redis = redis.ok_or_else(no_ticket_redis)?;
        Ok(TicketSettings { redis, key: self.ticket_key.ticket_key.clone(), once: self.ticket_once })
    }

    pub fn jwt(&self) -> Result<JwtSettings, ConfigError> {
        let secret = self.secret.read()?;
        let pem = |path: &Path| read_bounded(path).map_err(|error| unreadable("--jwt-key", path, error, "public keys"));
        let key = self.jwt_key.as_deref().map(pem).transpose()?;
        if secret.is_none() && key.is_none() && self.jwt_jwks.is_none() {
            let allowed = "allowed is that with --jwt-secret, --jwt-key or --jwt-jwks, by which tokens are checked";
            return Err(ConfigError::new("--auth", "jwt", allowed));
        }
        Ok(JwtSettings {
            secret,
            key,
            jwks: self.jwt_jwks.as_deref().map(jwks).transpose()?,
            audiences: self.jwt_aud.clone(),
            issuers: self.jwt_iss.clone(),
            leeway: self.jwt_leeway,
        })
    }
}

pub(super) fn no_ticket_redis() -> ConfigError {
    let allowed = "a site puts tickets into Redis; allowed is that with --ticket-redis, or with --redis";
    ConfigError::new("--auth", "ticket", allowed)
}

impl TicketRedis {
    pub fn url(&self) -> Result<Option<RedisUrl>, ConfigError> {
        let file = self.ticket_redis_file.as_deref();
        redis_url(("--ticket-redis", self.ticket_redis.clone()), ("--ticket-redis-file", file))
    }
}

impl JwtSecret {
    pub fn read(&self) -> Result<Option<Secret>, ConfigError> {
        let file = self.jwt_secret_file.as_deref();
        let given = one_of(("--jwt-secret", self.jwt_secret.clone()), ("--jwt-secret-file", file))?;
        let Some((option, secret)) = given else { return Ok(None) };
        if secret.starts_with("-----BEGIN") {
            let allowed =
                "it is a key (PEM), which is no secret; allowed is that with --jwt-key, if it is a public one";
            return Err(ConfigError::secret(option, allowed));
        }
        if secret.is_empty() {
            return Err(ConfigError::secret(option, "it is empty; allowed is 32 bytes or more"));
        }
        Ok(Some(Secret::new(secret)))
    }
}

/// The address may hold a password.
fn jwks(url: &str) -> Result<String, ConfigError> {
    let parsed: Option<hyper::Uri> = url.parse().ok();
    let sound = parsed.is_some_and(|url| {
        matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some_and(|host| !host.is_empty())
    });
    let allowed = "allowed is an address like https://issuer.example/.well-known/jwks.json, or with http://";
    match sound {
        true => Ok(url.to_owned()),
        false if url.contains('@') => Err(ConfigError::secret("--jwt-jwks", allowed)),
        false => Err(ConfigError::new("--jwt-jwks", url, allowed)),
    }
}

fn ticket_key(text: &str) -> Result<TicketKey, &'static str> {
    TicketKey::parse(text).ok_or(TicketKey::RULE)
}

/// One of `--auth`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Guest,
    Ticket,
    Jwt,
}

impl Way {
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.trim() {
            "guest" => Ok(Way::Guest),
            "ticket" => Ok(Way::Ticket),
            "jwt" => Ok(Way::Jwt),
            _ => Err("allowed is guest, ticket or jwt, or a list of them like guest,jwt"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Way::Guest => "guest",
            Way::Ticket => "ticket",
            Way::Jwt => "jwt",
        }
    }

    pub fn list(ways: &[Way]) -> String {
        ways.iter().map(|way| way.name()).collect::<Vec<_>>().join(",")
    }
}
