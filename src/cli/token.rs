//! `townhall token`, as it was written: what it asks for is checked as the hall would check it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use super::auth::{JwtSecret, TicketKeyOption, TicketRedis, Way, no_ticket_redis};
use super::{DAY, RedisCa, RoomsRedis, SECOND, reached_by, read_bounded, unreadable};
use crate::auth::rights::{Rights, RoomPattern};
use crate::config::{ConfigError, Secret};
use crate::measure::{Zero, duration};
use crate::names::{DisplayName, UserId};
use crate::protocol::Info;
use crate::redis_url::RedisUrl;
use crate::token::{Order, Signer};

/// As the tutorial's site has it.
const TICKET_LIFE: Duration = Duration::from_secs(5 * 60);
const JWT_LIFE: Duration = Duration::from_secs(60 * 60);

/// `townhall token`. [`TokenArgs::into_order`] is the way on.
#[derive(Args)]
#[command(
    after_help = "Options and variables are those of `serve`, so that it makes what a hall with the same ones lets in. The token \
                        alone is printed: \"$(townhall token zoe)\". Whoever can make tokens can be anybody."
)]
pub struct TokenArgs {
    /// Who comes in with it
    name: String,
    /// ticket or jwt; without it, whichever the other options make possible
    #[arg(long, env = "TOWNHALL_AUTH", value_name = "WAY", value_delimiter = ',', value_parser = Way::parse)]
    auth: Vec<Way>,
    /// How long it is good; by default a ticket 5m and a signed token 1h
    #[arg(long = "for", value_name = "DURATION", value_parser = duration(Zero::Refused, SECOND..=365 * DAY))]
    life: Option<Duration>,
    #[command(flatten)]
    ticket_key: TicketKeyOption,
    #[command(flatten)]
    tickets_at: TicketRedis,
    #[command(flatten)]
    rooms_at: RoomsRedis,
    #[command(flatten)]
    ca: RedisCa,
    #[command(flatten)]
    secret: JwtSecret,
    /// A file with the private key (PEM, PKCS#8) that signs, with RS256, ES256 or EdDSA as it is made for
    #[arg(long, env = "TOWNHALL_JWT_PRIVATE_KEY", value_name = "PATH")]
    jwt_private_key: Option<PathBuf>,
    /// Whom a signed token is for (aud)
    #[arg(long, visible_alias = "aud", env = "TOWNHALL_JWT_AUD", value_name = "AUDIENCE", value_delimiter = ',')]
    jwt_aud: Vec<String>,
    /// Whom it is from (iss); the first one, if there are several
    #[arg(long, visible_alias = "iss", env = "TOWNHALL_JWT_ISS", value_name = "ISSUER", value_delimiter = ',')]
    jwt_iss: Vec<String>,
    /// Its user's id, if that is not the name
    #[arg(long, value_name = "ID")]
    sub: Option<String>,
    /// A JSON object for everybody to see
    #[arg(long, value_name = "JSON")]
    info: Option<String>,
    /// Rooms that it lets in to, with * for anything; without it, all
    #[arg(long, value_name = "PATTERN", value_delimiter = ',', value_parser = room_pattern)]
    room: Vec<String>,
    /// `reader`: hears and does not speak
    #[arg(long, value_name = "ROLE")]
    role: Option<String>,
    /// The name of the key that signs, as the issuer's JWK set has it
    #[arg(long, value_name = "ID")]
    kid: Option<String>,
}

impl TokenArgs {
    /// The one way from words to a checked [`Order`]. Files of secrets and keys are read here.
    pub fn into_order(self) -> Result<Order, ConfigError> {
        let name = DisplayName::parse(&self.name)
            .ok_or_else(|| ConfigError::new("NAME", &self.name, format!("allowed is this: {}", DisplayName::RULE)))?;
        let (rooms_at, tickets_at) = (self.rooms_at.url()?, self.tickets_at.url()?);
        let secret = self.secret.read()?;
        let has_redis = rooms_at.is_some() || tickets_at.is_some();
        match self.way(has_redis, secret.is_some() || self.jwt_private_key.is_some())? {
            Way::Jwt => self.jwt(&name, secret),
            _ => self.ticket(&name, rooms_at, tickets_at),
        }
    }

    /// What to make: what `--auth` says, or else what can be made.
    fn way(&self, ticket: bool, jwt: bool) -> Result<Way, ConfigError> {
        let refused = |allowed: &str| Err(ConfigError::new("--auth", &Way::list(&self.auth), allowed));
        let has = |way| self.auth.contains(&way);
        match (has(Way::Ticket), has(Way::Jwt)) {
            (true, false) => return Ok(Way::Ticket),
            (false, true) => return Ok(Way::Jwt),
            (false, false) if has(Way::Guest) => return refused("guests need no token; allowed is ticket or jwt"),
            _ => {}
        }
        match (ticket, jwt) {
            (true, false) => Ok(Way::Ticket),
            (false, true) => Ok(Way::Jwt),
            (true, true) => refused("Redis is given, and a key that signs, too; allowed is one of ticket and jwt"),
            (false, false) => refused(
                "nothing is given to make it with; allowed is ticket with --ticket-redis or --redis, or jwt with \
                 --jwt-secret or --jwt-private-key",
            ),
        }
    }

    fn ticket(
        self,
        name: &DisplayName,
        rooms: Option<RedisUrl>,
        tickets: Option<RedisUrl>,
    ) -> Result<Order, ConfigError> {
        let room = (!self.room.is_empty()).then(|| self.room.join(","));
        let claims = [("--sub", &self.sub), ("--info", &self.info), ("--room", &room), ("--role", &self.role)];
        let more = [("--kid", &self.kid)];
        if let Some((option, Some(value))) = claims.into_iter().chain(more).find(|(_, value)| value.is_some()) {
            let allowed = "a ticket says nothing but the name; allowed is that with --auth jwt";
            return Err(ConfigError::new(option, value, allowed));
        }
        user_id("NAME", name.as_str())?;
        let ca = self.ca.certificates(rooms.as_ref(), tickets.as_ref())?;
        let url = tickets.or(rooms).ok_or_else(no_ticket_redis)?;
        let redis = reached_by(url, ca.as_deref());
        let key = self.ticket_key.ticket_key.of(name.as_str());
        Ok(Order::Ticket { redis, key, life: self.life.unwrap_or(TICKET_LIFE) })
    }

    fn jwt(self, name: &DisplayName, secret: Option<Secret>) -> Result<Order, ConfigError> {
        let signer = self.signer(secret)?;
        let mut claims = Map::new();
        let mut say = |claim: &str, value: Value| claims.insert(claim.to_owned(), value);
        match &self.sub {
            Some(sub) => say("sub", user_id("--sub", sub)?),
            None => say("sub", user_id("NAME", name.as_str())?),
        };
        say("name", json!(name));
        if let Some(text) = &self.info {
            say("info", info(text)?);
        }
        if !self.room.is_empty() {
            let refused = |rule| ConfigError::new("--room", &self.room.join(","), format!("allowed is this: {rule}"));
            Rights::in_rooms(&self.room).map_err(refused)?;
            say("rooms", json!(self.room));
        }
        if let Some(role) = &self.role {
            say("role", json!(role));
        }
        match &self.jwt_aud[..] {
            [] => None,
            [one] => say("aud", json!(one)),
            several => say("aud", json!(several)),
        };
        if let Some(issuer) = self.jwt_iss.first() {
            say("iss", json!(issuer));
        }
        Ok(Order::Jwt { claims, signer, kid: self.kid, life: self.life.unwrap_or(JWT_LIFE) })
    }

    fn signer(&self, secret: Option<Secret>) -> Result<Signer, ConfigError> {
        const KEY: &str = "--jwt-private-key";
        match (secret, self.jwt_private_key.as_deref()) {
            (Some(secret), None) => Ok(Signer::with_secret(&secret)),
            (None, Some(path)) => {
                let pem = read_bounded(path).map_err(|error| unreadable(KEY, path, error, "a private key"))?;
                Signer::with_key(&pem).ok_or_else(|| {
                    let allowed = "it holds no private key that can be used; allowed is a PEM file with one in PKCS#8 for RS256 \
                                   (2,048 bits or more), ES256 (P-256) or EdDSA (Ed25519); `openssl pkey -in FILE -out NEW` \
                                   makes that of an older form";
                    ConfigError::new(KEY, &path.to_string_lossy(), allowed)
                })
            }
            (Some(_), Some(path)) => {
                let allowed = "--jwt-secret is given, too; allowed is one of the two";
                Err(ConfigError::new(KEY, &path.to_string_lossy(), allowed))
            }
            (None, None) => {
                let allowed = "allowed is that with --jwt-secret or --jwt-private-key, by which it is signed";
                Err(ConfigError::new("--auth", "jwt", allowed))
            }
        }
    }
}

fn user_id(option: &str, id: &str) -> Result<Value, ConfigError> {
    let allowed = "allowed is 1 to 256 bytes without control characters, and not like a guest's id";
    UserId::given(id).map(|id| json!(id)).ok_or_else(|| ConfigError::new(option, id, allowed))
}

fn info(text: &str) -> Result<Value, ConfigError> {
    let raw: Option<&RawValue> = serde_json::from_str(text).ok();
    let value = raw.filter(|raw| Info::parse(raw).is_ok()).and_then(|raw| serde_json::from_str(raw.get()).ok());
    value.ok_or_else(|| {
        let allowed = "allowed is a JSON object of at most 1,024 bytes, nested at most 32 deep";
        ConfigError::new("--info", text, allowed)
    })
}

fn room_pattern(text: &str) -> Result<String, String> {
    RoomPattern::parse(text).map(|_| text.to_owned()).ok_or_else(|| format!("allowed is this: {}", RoomPattern::RULE))
}
