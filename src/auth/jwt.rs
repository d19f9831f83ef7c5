//! JSON Web Tokens (RFC 7519) that an issuer has signed, in the compact form of RFC 7515.
//!
//! Nothing of a token is believed before its signature has been checked, but two things that its header says: which algorithm
//! it is signed with, and what the issuer calls the key. Both only choose among the keys that the hall has (see `keys`). Keys
//! in a header, or addresses of some, are not looked at.

mod claims;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use self::claims::{Claims, FOR_OTHERS, Refused, Rules};
use super::jwks::{Jwks, Rhythm};
use super::keys::{self, Key};
use super::{Identity, MAX_TOKEN_BYTES, NotAdmitted};
use crate::config::{JwtSettings, Secret};
use crate::logging::Seldom;

/// A token that names no key tries so many of its algorithm.
const MAX_TRIES: usize = 16;

const WARN_EVERY: Duration = Duration::from_secs(60);

const NOT_ONE: &str = "that is no token that is signed in a way known here";
const BY_NOBODY: &str = "the token is not signed by anybody known here";

pub struct Jwt {
    /// Those that were given at the start.
    keys: Vec<Key>,
    /// Those that the issuer publishes.
    jwks: Option<Jwks>,
    rules: Rules,
    no_audience_here: Mutex<Seldom>,
}

impl Jwt {
    /// Where the issuer publishes its keys, a task fetches them as long as this lives.
    ///
    /// # Errors
    /// In words, where a key or an address cannot be used.
    pub fn new(settings: &JwtSettings) -> Result<Self, String> {
        Self::with_rhythm(settings, Rhythm::default())
    }

    /// Says what [`Jwt::new`] would, and begins nothing.
    ///
    /// # Errors
    /// In words, where a key or an address cannot be used.
    pub fn check_settings(settings: &JwtSettings) -> Result<(), String> {
        keys_of(settings)?;
        settings.jwks.as_deref().map_or(Ok(()), Jwks::check_address)
    }

    fn with_rhythm(settings: &JwtSettings, rhythm: Rhythm) -> Result<Self, String> {
        if settings.secret.as_ref().is_some_and(|secret| secret.reveal().len() < Secret::LEAST_BYTES) {
            tracing::warn!(
                "--jwt-secret is shorter than {} bytes: whoever has one token can guess it, and then sign \
                     tokens for anybody; `openssl rand -base64 32` makes a good one",
                Secret::LEAST_BYTES
            );
        }
        Ok(Jwt {
            keys: keys_of(settings)?,
            jwks: settings.jwks.as_deref().map(|url| Jwks::new(url, rhythm)).transpose()?,
            rules: Rules {
                audiences: settings.audiences.clone(),
                issuers: settings.issuers.clone(),
                leeway: settings.leeway,
            },
            no_audience_here: Mutex::new(Seldom::new(WARN_EVERY)),
        })
    }

    /// Whom `token` lets in. Waits only for the issuer's keys, and only if the token is signed with one that is not known;
    /// how long at most is the caller's to say.
    ///
    /// # Errors
    /// See [`NotAdmitted`].
    pub async fn check(&self, token: &str) -> Result<Identity, NotAdmitted> {
        let token = Signed::parse(token).ok_or_else(|| NotAdmitted::unauthorized(NOT_ONE))?;
        self.check_signature(&token).await?;
        let payload = URL_SAFE_NO_PAD.decode(token.payload).ok();
        let claims = payload.as_deref().and_then(Claims::parse).ok_or_else(|| NotAdmitted::unauthorized(NOT_ONE))?;
        claims.identity(&self.rules, SystemTime::now()).map_err(|refused| self.refuse(refused))
    }

    async fn check_signature(&self, token: &Signed<'_>) -> Result<(), NotAdmitted> {
        let by_nobody = || NotAdmitted::unauthorized(BY_NOBODY);
        if token.is_signed_by_one_of(&self.keys) {
            return Ok(());
        }
        // An issuer publishes public keys, and HS256 has none.
        let published = self.jwks.as_ref().filter(|_| token.algorithm != Algorithm::HS256);
        let jwks = published.ok_or_else(by_nobody)?;
        if let Some(keys) = jwks.known() {
            if token.is_signed_by_one_of(&keys) {
                return Ok(());
            }
            if token.kid.as_deref().is_some_and(|kid| keys.iter().any(|key| key.is_called(kid))) {
                return Err(by_nobody());
            }
        }
        let keys = jwks.fresh(token.kid.as_deref()).await;
        let keys = keys.ok_or_else(|| {
            NotAdmitted::Unavailable("who signed your token could not be found out; come again in a moment".into())
        })?;
        token.is_signed_by_one_of(&keys).then_some(()).ok_or_else(by_nobody)
    }

    fn refuse(&self, refused: Refused) -> NotAdmitted {
        let words = match refused {
            Refused::For(words) => return NotAdmitted::Unauthorized(words),
            Refused::NoAudienceHere => FOR_OTHERS,
        };
        let passed = self.no_audience_here.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now());
        if let Some(tokens) = passed {
            tracing::warn!(
                tokens,
                "tokens that are for an audience (aud) were refused, since --jwt-aud is not given; give it what the issuer calls \
                 this hall"
            );
        }
        NotAdmitted::unauthorized(words)
    }
}

/// The keys that are given at the start.
fn keys_of(settings: &JwtSettings) -> Result<Vec<Key>, String> {
    let mut keys = Vec::new();
    if let Some(secret) = &settings.secret {
        keys.push(Key::secret(secret.reveal())?);
    }
    if let Some(pem) = &settings.key {
        keys.extend(Key::all_in_pem(pem)?);
    }
    Ok(keys)
}

/// A token in its parts; nothing was checked yet.
struct Signed<'a> {
    algorithm: Algorithm,
    kid: Option<String>,
    /// What is signed: header and payload.
    message: &'a str,
    payload: &'a str,
    signature: &'a str,
}

impl<'a> Signed<'a> {
    /// `None` for what is no token, or one that nobody of ours can have signed.
    fn parse(token: &'a str) -> Option<Self> {
        if token.len() > MAX_TOKEN_BYTES {
            return None;
        }
        let (message, signature) = token.rsplit_once('.')?;
        let (header, payload) = message.split_once('.')?;
        let header = Header::parse(header)?;
        // RFC 7515 §4.1.11: whoever does not understand what is critical must refuse it. We understand nothing that is.
        let odd = header.crit || header.b64 == Some(false) || payload.contains('.');
        let algorithm = keys::algorithm(&header.alg).filter(|_| !odd)?;
        Some(Signed { algorithm, kid: header.kid, message, payload, signature })
    }

    fn is_signed_by_one_of(&self, keys: &[Key]) -> bool {
        let kid = self.kid.as_deref();
        let candidates = keys.iter().filter(|key| key.serves(self.algorithm, kid)).take(MAX_TRIES);
        candidates.into_iter().any(|key| key.has_signed(self.message, self.signature))
    }
}

/// What is looked at of a header (RFC 7515 §4.1); a member that is there twice makes it none.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    #[serde(default, deserialize_with = "is_there")]
    crit: bool,
    b64: Option<bool>,
}

impl Header {
    fn parse(part: &str) -> Option<Self> {
        let json = URL_SAFE_NO_PAD.decode(part).ok()?;
        let object = json.trim_ascii_start().starts_with(b"{");
        serde_json::from_slice(&json).ok().filter(|_| object)
    }
}

/// Whatever it is.
fn is_there<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

/// Whether `token` has the shape of a signed token, so that it is nobody's ticket.
pub fn looks_like_one(token: &str) -> bool {
    let in_base64url = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    match token.split('.').collect::<Vec<_>>()[..] {
        [header, payload, signature] => in_base64url(payload) && in_base64url(signature) && names_algorithm(header),
        _ => false,
    }
}

fn names_algorithm(header: &str) -> bool {
    #[derive(Deserialize)]
    struct Named {
        #[serde(rename = "alg")]
        _alg: String,
    }
    let json = URL_SAFE_NO_PAD.decode(header).unwrap_or_default();
    json.trim_ascii_start().starts_with(b"{") && serde_json::from_slice::<Named>(&json).is_ok()
}

#[cfg(test)]
mod published_tests;
#[cfg(test)]
mod tests;
