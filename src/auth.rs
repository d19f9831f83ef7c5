//! Who may come in, and what they may do.
//!
//! - [`guest`]: anybody, under any name.
//! - [`ticket`]: whom a site has put into Redis, as the tutorial's Django does.
//! - [`jwt`]: whoever has a token that an issuer has signed; `jwks` fetches the issuer's keys,
//!   `keys` says what is one.
//! - [`rights`]: which rooms, and whether to speak there.
//!
//! Every door collects what its client brings as [`Credentials`] and asks the one [`Doorkeeper`].

pub mod guest;
#[cfg(test)]
mod issuer;
mod jwks;
pub mod jwt;
mod keys;
pub mod rights;
pub mod ticket;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use self::jwt::Jwt;
use self::rights::Rights;
use self::ticket::Tickets;
use crate::config::AuthSettings;
use crate::names::DisplayName;
use crate::protocol::User;

/// Nobody waits longer to be told whether they may come in.
pub const DEADLINE: Duration = Duration::from_secs(8);

/// A longer token is none; a request's head holds little more.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

const TOKEN_NEEDED: &str = "a token is needed to come in here";

/// Somebody who may come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    pub user: User,
    pub rights: Rights,
    pub kind: Kind,
    /// From then on it is no longer valid.
    pub expires: Option<SystemTime>,
}

/// How somebody came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// May be called anything; `marked`: with `~` before it, since there are others whose names are theirs.
    Guest { marked: bool },
    /// Is called as the token says.
    Known,
    /// Is not in yet: at the line door, before `/login`.
    Stranger,
}

impl Identity {
    /// Somebody who may do everything, for good.
    pub fn of(user: User, kind: Kind) -> Self {
        Identity { user, rights: Rights::all(), kind, expires: None }
    }

    /// Somebody at the line door who has not said yet who they are.
    pub fn stranger(peer: SocketAddr) -> Self {
        let user = guest::user_of(DisplayName::of_address(peer), uuid::Uuid::new_v4());
        Identity { user, rights: Rights::none(), kind: Kind::Stranger, expires: None }
    }
}

/// What a client brings.
#[derive(Clone, Default)]
pub struct Credentials {
    pub name: Option<String>,
    /// A guest's secret.
    pub key: Option<String>,
    pub token: Option<String>,
}

/// Shows no secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, token) = (self.key.is_some(), self.token.is_some());
        f.debug_struct("Credentials").field("name", &self.name).field("key", &key).field("token", &token).finish()
    }
}

/// Why somebody is not let in, in words for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAdmitted {
    /// The name or the key cannot be one, whoever has it.
    Malformed(String),
    /// What was brought lets nobody in.
    Unauthorized(String),
    /// It cannot be told now.
    Unavailable(String),
}

impl NotAdmitted {
    pub fn unauthorized(words: impl Into<String>) -> Self {
        NotAdmitted::Unauthorized(words.into())
    }

    /// In words for whoever is not let in; they hold no secret.
    pub fn words(&self) -> &str {
        match self {
            NotAdmitted::Malformed(words) | NotAdmitted::Unauthorized(words) | NotAdmitted::Unavailable(words) => words,
        }
    }

    /// What nobody could tell in time.
    pub fn too_late() -> Self {
        NotAdmitted::Unavailable("your token could not be checked in time; come again in a moment".into())
    }
}

/// See the module's documentation.
#[derive(Clone)]
pub struct Doorkeeper(Arc<Ways>);

struct Ways {
    guests: bool,
    /// Guests' names begin with `~`.
    marked: bool,
    tickets: Option<Tickets>,
    jwt: Option<Jwt>,
}

/// Says what [`Doorkeeper::new`] would of the keys and addresses it is given, and begins nothing.
///
/// # Errors
/// In words, where one cannot be used.
pub fn check_settings(settings: &AuthSettings) -> Result<(), String> {
    settings.jwt.as_ref().map_or(Ok(()), Jwt::check_settings)
}

impl Doorkeeper {
    /// # Errors
    /// In words, where a key or an address cannot be used.
    pub fn new(settings: &AuthSettings) -> Result<Self, String> {
        Ok(Doorkeeper(Arc::new(Ways {
            guests: settings.guests,
            marked: settings.marks_guests(),
            tickets: settings.tickets.as_ref().map(Tickets::new).transpose()?,
            jwt: settings.jwt.as_ref().map(Jwt::new).transpose()?,
        })))
    }

    /// Whether a token can let anybody in.
    pub fn knows_tokens(&self) -> bool {
        self.0.tickets.is_some() || self.0.jwt.is_some()
    }

    /// Who somebody at the line door is, before they have said anything.
    pub fn greet(&self, peer: SocketAddr) -> Identity {
        self.admit_guest(&Credentials::default(), peer).unwrap_or_else(|_| Identity::stranger(peer))
    }

    /// Lets somebody in, or says why not. Where nobody has a token to bring, one that is brought is not looked at; everywhere
    /// else it decides.
    ///
    /// # Errors
    /// See [`NotAdmitted`]; within [`DEADLINE`].
    pub async fn admit(&self, brought: Credentials, peer: SocketAddr) -> Result<Identity, NotAdmitted> {
        match brought.token.as_deref().filter(|token| !token.is_empty() && self.knows_tokens()) {
            Some(token) => {
                let checked = timeout(DEADLINE, self.check(brought.name.as_deref(), token));
                checked.await.unwrap_or_else(|_| Err(NotAdmitted::too_late()))
            }
            None => self.admit_guest(&brought, peer),
        }
    }

    fn admit_guest(&self, brought: &Credentials, peer: SocketAddr) -> Result<Identity, NotAdmitted> {
        let Ways { guests, marked, .. } = *self.0;
        if !guests {
            return Err(NotAdmitted::unauthorized(TOKEN_NEEDED));
        }
        let user = guest::admit(brought.name.as_deref(), brought.key.as_deref(), peer, marked);
        let user = user.map_err(NotAdmitted::Malformed)?;
        Ok(Identity::of(user, Kind::Guest { marked }))
    }

    /// What looks like a signed token is one; everything else is a ticket.
    async fn check(&self, name: Option<&str>, token: &str) -> Result<Identity, NotAdmitted> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(NotAdmitted::unauthorized("that is too long for a token"));
        }
        match (&self.0.jwt, &self.0.tickets) {
            (Some(jwt), tickets) if tickets.is_none() || jwt::looks_like_one(token) => {
                let identity = jwt.check(token).await?;
                is_called(name, &identity.user)?;
                Ok(identity)
            }
            (_, Some(tickets)) => tickets.check(name, token).await,
            (_, None) => Err(NotAdmitted::unauthorized(TOKEN_NEEDED)),
        }
    }
}

/// Whoever says a name beside the token must say the token's: its user's name or id.
fn is_called(name: Option<&str>, user: &User) -> Result<(), NotAdmitted> {
    let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(()) };
    let same = name == user.id.as_str() || DisplayName::fitted(name).is_some_and(|name| name == user.name);
    same.then_some(()).ok_or_else(|| NotAdmitted::unauthorized("the token is for another name"))
}
