//! Makes what lets somebody in, for development: a ticket as a site puts it into Redis, or a token as an issuer signs it.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::redis::cmd;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Map, Value, json};

use crate::broker::redis::asking::Asking;
use crate::config::{RedisSettings, Secret};
use crate::measure::duration_text;

/// What is to be made; what it says was checked.
pub enum Order {
    Ticket { redis: RedisSettings, key: String, life: Duration },
    Jwt { claims: Map<String, Value>, signer: Signer, kid: Option<String>, life: Duration },
}

impl Order {
    /// Makes it: what a client brings.
    ///
    /// # Errors
    /// In words, where Redis does not take the ticket.
    pub async fn mint(&self) -> Result<String, String> {
        match self {
            Order::Ticket { redis, key, life } => ticket(redis, key, *life).await,
            Order::Jwt { claims, signer, kid, life } => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let mut claims = claims.clone();
                claims.insert("iat".into(), json!(now.as_secs()));
                claims.insert("exp".into(), json!((now + *life).as_secs()));
                let header = Header { kid: kid.clone(), ..Header::new(signer.algorithm) };
                signer.sign(&header, &claims)
            }
        }
    }
}

/// For the person who ordered it; holds no secret.
impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Order::Ticket { redis, key, life } => {
                write!(f, "a ticket, {key} in Redis at {}, good for {}", redis.url, duration_text(*life))
            }
            Order::Jwt { claims, signer, life, .. } => {
                let claims = Value::from(claims.clone());
                write!(f, "signed with {:?}, good for {}: {claims}", signer.algorithm, duration_text(*life))
            }
        }
    }
}

async fn ticket(redis: &RedisSettings, key: &str, life: Duration) -> Result<String, String> {
    let token = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>());
    let asking = Asking::new(redis)?;
    let life_ms = u64::try_from(life.as_millis()).unwrap_or(u64::MAX);
    let set = asking.ask::<()>(cmd("SET").arg(key).arg(&token).arg("PX").arg(life_ms)).await;
    set.map(|()| token).map_err(|no_answer| format!("Redis at {}: {}", redis.url, no_answer.words))
}

/// A key, and the one algorithm that it is for.
pub struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    pub fn with_secret(secret: &Secret) -> Self {
        Signer { algorithm: Algorithm::HS256, key: EncodingKey::from_secret(secret.reveal().as_bytes()) }
    }

    /// By what the key is; `None` where it is none that signs.
    pub fn with_key(pem: &[u8]) -> Option<Self> {
        type Read = fn(&[u8]) -> jsonwebtoken::errors::Result<EncodingKey>;
        let kinds: [(Algorithm, Read); 3] = [
            (Algorithm::RS256, EncodingKey::from_rsa_pem),
            (Algorithm::ES256, EncodingKey::from_ec_pem),
            (Algorithm::EdDSA, EncodingKey::from_ed_pem),
        ];
        let made = |(algorithm, read): (Algorithm, Read)| Some(Signer { algorithm, key: read(pem).ok()? });
        // A key on another curve is seen when it signs.
        kinds
            .into_iter()
            .find_map(made)
            .filter(|signer| signer.sign(&Header::new(signer.algorithm), &Map::new()).is_ok())
    }

    fn sign(&self, header: &Header, claims: &Map<String, Value>) -> Result<String, String> {
        jsonwebtoken::encode(header, claims, &self.key).map_err(|error| format!("it cannot be signed: {error}"))
    }
}
