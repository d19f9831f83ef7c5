//! Signed tokens: [`Jwt::check`] beside the key that signs them.

use std::sync::LazyLock;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt;
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use townhall::auth::jwt::{Jwt, looks_like_one};
use townhall::config::{JwtSettings, Secret};

const SECRET: &str = "only the issuer and the hall know this";

static JWT: LazyLock<Jwt> = LazyLock::new(|| {
    let secret = Some(Secret::new(SECRET.into()));
    let (audiences, issuers) = (Vec::new(), Vec::new());
    let settings = JwtSettings { secret, key: None, jwks: None, audiences, issuers, leeway: Duration::from_secs(60) };
    Jwt::new(&settings).expect("a secret is enough")
});

/// `data`: a token as it is; and a header and a payload, with a line break between them, that the key has signed.
pub fn check(data: &[u8]) {
    if let Ok(token) = std::str::from_utf8(data) {
        check_token(token);
    }
    let mut parts = data.splitn(2, |byte| *byte == b'\n');
    let (header, payload) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    check_token(&format!("{message}.{}", signature(&message)));
    // Signed for something else.
    check_token(&format!("{message}.{}", signature(&message[1..])));
}

/// Whoever is let in has what the key has signed, and is somebody whom others can tell from a guest.
fn check_token(token: &str) {
    let Some(checked) = JWT.check(token).now_or_never() else { panic!("a secret needs no waiting") };
    let Ok(identity) = checked else { return };
    let (message, signed) = token.rsplit_once('.').expect("a token has parts");
    assert_eq!(signed, signature(message));
    assert!(looks_like_one(token) && identity.expires.is_some());
    assert!(!identity.user.name.as_str().starts_with('~'), "{:?}", identity.user);
    let user = serde_json::to_string(&identity.user).expect("a user can be told");
    assert!(!user.contains('\n') && user.len() < 4096, "{user}");
}

fn signature(message: &str) -> String {
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a secret can sign")
}
