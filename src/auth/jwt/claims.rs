//! What a token says (RFC 7519 §4), once it is known who signed it: whom it is from and for, how long it is valid, and who
//! comes in with it.
//!
//! `role` is a word that issuers use for their own things, too: `reader` hears and does not speak, every other role is a
//! member.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::auth::rights::Rights;
use crate::auth::{Identity, Kind};
use crate::names::{DisplayName, UserId};
use crate::protocol::{Info, User};

/// The last second of the year 9999: later is as good as never, and every clock can hold it.
const LATEST: f64 = 253_402_300_799.0;

/// What is asked of every token.
pub struct Rules {
    /// It must be for one of these; none: for nobody in particular.
    pub audiences: Vec<String>,
    /// It must be from one of these; none: from anybody who can sign it.
    pub issuers: Vec<String>,
    /// How far clocks may differ.
    pub leeway: Duration,
}

/// Why a token lets nobody in.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is for an audience, and the hall was not told of any.
    NoAudienceHere,
    /// In words for whoever brought it.
    For(String),
}

impl From<&str> for Refused {
    fn from(words: &str) -> Self {
        Refused::For(words.into())
    }
}

impl From<String> for Refused {
    fn from(words: String) -> Self {
        Refused::For(words)
    }
}

/// All claims that are looked at, unread. One that is there twice makes it no token.
#[derive(Deserialize)]
pub struct Claims<'a> {
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    aud: Option<&'a RawValue>,
    #[serde(borrow)]
    exp: Option<&'a RawValue>,
    #[serde(borrow)]
    nbf: Option<&'a RawValue>,
    #[serde(borrow)]
    sub: Option<&'a RawValue>,
    #[serde(borrow)]
    name: Option<&'a RawValue>,
    #[serde(borrow)]
    info: Option<&'a RawValue>,
    /// `null` is there: it is what some write for an empty list, and that is no room at all.
    #[serde(borrow, default, deserialize_with = "even_null")]
    rooms: Option<&'a RawValue>,
    #[serde(borrow)]
    role: Option<&'a RawValue>,
}

fn even_null<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

impl<'a> Claims<'a> {
    /// `None` for what is no set of claims.
    pub fn parse(json: &'a [u8]) -> Option<Self> {
        let object = json.trim_ascii_start().starts_with(b"{");
        serde_json::from_slice(json).ok().filter(|_| object)
    }

    /// Whom they let in.
    ///
    /// # Errors
    /// Where they let nobody in, or one of them has a wrong shape.
    pub fn identity(&self, rules: &Rules, now: SystemTime) -> Result<Identity, Refused> {
        self.check_issuer(rules)?;
        self.check_audience(rules)?;
        let expires = self.valid_until(rules.leeway, now)?;
        let sub = text("sub", self.sub)?.ok_or("the token does not say who you are: it has no `sub`")?;
        let id = UserId::given(&sub).ok_or("the token's `sub` cannot be anybody's id here")?;
        let name = text("name", self.name)?;
        let name = name.as_deref().and_then(DisplayName::fitted).or_else(|| DisplayName::fitted(&sub));
        let name = name.ok_or("nobody can be called as the token's `name` and `sub` say")?;
        let info = self.info.map(Info::parse).transpose()?;
        Ok(Identity {
            user: User { id, name, info },
            rights: self.rights()?,
            kind: Kind::Known,
            expires: Some(expires),
        })
    }

    fn check_issuer(&self, rules: &Rules) -> Result<(), Refused> {
        let issuer = text("iss", self.iss)?;
        let known = rules.issuers.is_empty() || issuer.is_some_and(|issuer| rules.issuers.contains(&issuer));
        known.then_some(()).ok_or_else(|| "the token is from another issuer".into())
    }

    /// RFC 7519 §4.1.3: whoever is not named in an `aud` must refuse it.
    fn check_audience(&self, rules: &Rules) -> Result<(), Refused> {
        let named = claim::<OneOrMany>("aud", self.aud, "a text, or a list of texts")?;
        match named {
            None if rules.audiences.is_empty() => Ok(()),
            Some(_) if rules.audiences.is_empty() => Err(Refused::NoAudienceHere),
            Some(named) if named.any(|one| rules.audiences.contains(one)) => Ok(()),
            _ => Err(FOR_OTHERS.into()),
        }
    }

    fn valid_until(&self, leeway: Duration, now: SystemTime) -> Result<SystemTime, Refused> {
        const SHAPE: &str = "a number of seconds";
        let exp: f64 = claim("exp", self.exp, SHAPE)?.ok_or("the token never expires: it has no `exp`")?;
        let nbf: Option<f64> = claim("nbf", self.nbf, SHAPE)?;
        let now_s = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        if nbf.is_some_and(|nbf| nbf > now_s + leeway.as_secs_f64()) {
            return Err("the token is not valid yet".into());
        }
        let exp = Duration::from_secs_f64(exp.clamp(0.0, LATEST));
        let expires = UNIX_EPOCH + exp.saturating_add(leeway).min(Duration::from_secs_f64(LATEST));
        if expires <= now {
            return Err("the token has expired".into());
        }
        Ok(expires)
    }

    fn rights(&self) -> Result<Rights, Refused> {
        let rooms: Option<Vec<String>> = claim("rooms", self.rooms, "a list of texts")?;
        let mut rights = rooms.map_or(Ok(Rights::all()), |rooms| Rights::in_rooms(&rooms))?;
        rights.mute = text("role", self.role)?.as_deref() == Some("reader");
        Ok(rights)
    }
}

pub const FOR_OTHERS: &str = "the token is for another audience";

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn any(&self, is: impl Fn(&String) -> bool) -> bool {
        match self {
            OneOrMany::One(one) => is(one),
            OneOrMany::Many(many) => many.iter().any(is),
        }
    }
}

fn text(name: &str, raw: Option<&RawValue>) -> Result<Option<String>, Refused> {
    claim(name, raw, "a text")
}

fn claim<T: DeserializeOwned>(name: &str, raw: Option<&RawValue>, shape: &str) -> Result<Option<T>, Refused> {
    let read = |raw: &RawValue| serde_json::from_str(raw.get());
    raw.map(read).transpose().map_err(|_| format!("the token's `{name}` must be {shape}").into())
}
