//! Tokens whose keys an issuer publishes, over real HTTP.

use futures::FutureExt;
use futures::future::join_all;

use super::*;
use crate::auth::issuer::{ANOTHER_P_256_JWK, SECRET, ZOE, ed25519_jwk, p_256_jwk, rsa_jwk, token, token_of};
use crate::auth::jwks::tests::{Answer, Issuer, ON_DEMAND, ONCE, set_of};
use crate::config::Secret;

/// How the payload of Zoe's tokens begins: `{"sub"`, in base64url.
const SUB: &str = "eyJzdWIi";

const PUBLIC: [Algorithm; 3] = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

fn settings(issuer: &Issuer) -> JwtSettings {
    JwtSettings {
        secret: None,
        key: None,
        jwks: Some(issuer.url()),
        audiences: Vec::new(),
        issuers: Vec::new(),
        leeway: Duration::ZERO,
    }
}

/// One that has fetched the keys.
async fn fetched(issuer: &Issuer, rhythm: Rhythm) -> Jwt {
    let jwt = Jwt::with_rhythm(&settings(issuer), rhythm).unwrap();
    jwt.jwks.as_ref().unwrap().fresh(None).await.unwrap();
    jwt
}

fn zoes(algorithm: Algorithm, kid: &str) -> String {
    token_of(algorithm, &format!(r#"{{"alg":"{algorithm:?}","kid":"{kid}"}}"#), ZOE)
}

fn by_nobody() -> NotAdmitted {
    NotAdmitted::unauthorized(BY_NOBODY)
}

fn is_unavailable<T>(checked: &Result<T, NotAdmitted>) -> bool {
    matches!(checked, Err(NotAdmitted::Unavailable(_)))
}

#[tokio::test]
async fn a_token_of_a_published_key_lets_its_user_in() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("r"), p_256_jwk("e"), ed25519_jwk("d")])).await;
    let jwt = Jwt::with_rhythm(&settings(&issuer), ONCE).unwrap();
    for (algorithm, kid) in PUBLIC.into_iter().zip(["r", "e", "d"]) {
        // The first one comes before the keys do.
        assert_eq!(jwt.check(&zoes(algorithm, kid)).await.unwrap().user.id.as_str(), "zoe");
        assert!(jwt.check(&token(algorithm, ZOE)).await.is_ok(), "{algorithm:?} without a kid");
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn who_brings_a_known_key_waits_for_nobody() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("r"), p_256_jwk("e"), ed25519_jwk("d")])).await;
    let jwt = fetched(&issuer, ONCE).await;
    let unknown: Vec<String> = (0..200).map(|kid| zoes(Algorithm::EdDSA, &format!("random-{kid}"))).collect();
    let mut flood = Box::pin(join_all(unknown.iter().map(|token| jwt.check(token))));
    for _ in 0..20 {
        assert!(futures::poll!(&mut flood).is_pending());
        for (algorithm, kid) in PUBLIC.into_iter().zip(["r", "e", "d"]) {
            assert!(jwt.check(&zoes(algorithm, kid)).now_or_never().expect("an answer at once").is_ok());
            assert!(jwt.check(&token(algorithm, ZOE)).now_or_never().expect("an answer at once").is_ok());
        }
        // Whose key is known and did not sign it is told so at once, too: no other key can have.
        let forged = zoes(Algorithm::RS256, "r").replacen(SUB, "eyJzdWIx", 1);
        assert_eq!(jwt.check(&forged).now_or_never(), Some(Err(by_nobody())));
        assert_eq!(jwt.check(&zoes(Algorithm::ES256, "d")).now_or_never(), Some(Err(by_nobody())));
        tokio::task::yield_now().await;
    }
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn a_hundred_tokens_of_a_new_key_come_in_with_one_fetch_and_the_old_key_is_gone() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("old")])).await;
    let jwt = fetched(&issuer, Rhythm { gap: Duration::from_millis(200), ..ON_DEMAND }).await;
    issuer.answer.send_replace(set_of(&[rsa_jwk("new")]));
    let new = zoes(Algorithm::RS256, "new");
    for checked in join_all((0..100).map(|_| jwt.check(&new))).await {
        assert!(checked.is_ok());
    }
    assert_eq!(issuer.asked(), 2);
    assert_eq!(jwt.check(&zoes(Algorithm::RS256, "old")).await, Err(by_nobody()));
}

#[tokio::test]
async fn a_token_of_an_unknown_key_is_refused_when_its_issuer_says_so_and_put_off_when_it_says_nothing() {
    let issuer = Issuer::that_answers(set_of(&[p_256_jwk("e")])).await;
    let jwt = fetched(&issuer, ON_DEMAND).await;
    let unknown = zoes(Algorithm::RS256, "r");
    assert_eq!(jwt.check(&unknown).await, Err(by_nobody()));
    for answer in [Answer::Status(503), Answer::Keys("{}".into()), Answer::Redirect(issuer.url()), Answer::Cut] {
        issuer.answer.send_replace(answer);
        assert!(is_unavailable(&jwt.check(&unknown).await));
        assert!(jwt.check(&zoes(Algorithm::ES256, "e")).await.is_ok(), "a key that is known goes on");
    }
    drop(issuer);
    assert!(is_unavailable(&jwt.check(&unknown).await));
    assert!(jwt.check(&zoes(Algorithm::ES256, "e")).await.is_ok());
}

#[tokio::test]
async fn keys_that_were_given_serve_while_an_issuer_has_never_answered() {
    let issuer = Issuer::that_answers(Answer::Never).await;
    let given = JwtSettings { secret: Some(Secret::new(SECRET.into())), ..settings(&issuer) };
    let jwt = Jwt::with_rhythm(&given, Rhythm { deadline: Duration::from_millis(50), ..ON_DEMAND }).unwrap();
    assert!(jwt.check(&zoes(Algorithm::HS256, "any")).now_or_never().expect("an answer at once").is_ok());
    assert!(is_unavailable(&jwt.check(&zoes(Algorithm::RS256, "r")).await));
}

#[tokio::test]
async fn no_published_key_is_a_secret() {
    let oct = format!(r#"{{"kty":"oct","alg":"HS256","kid":"s","k":"{}"}}"#, URL_SAFE_NO_PAD.encode(SECRET));
    let issuer = Issuer::that_answers(set_of(&[oct, rsa_jwk("r")])).await;
    let jwt = fetched(&issuer, ONCE).await;
    for kid in ["s", "r", "another"] {
        // At once: no issuer can ever say otherwise.
        assert_eq!(jwt.check(&zoes(Algorithm::HS256, kid)).now_or_never(), Some(Err(by_nobody())), "{kid}");
    }
    assert_eq!(jwt.check(&token(Algorithm::HS256, ZOE)).now_or_never(), Some(Err(by_nobody())));
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn of_two_published_keys_under_one_name_either_may_have_signed() {
    let another = ANOTHER_P_256_JWK.replacen('{', r#"{"kid":"e","#, 1);
    let issuer = Issuer::that_answers(set_of(&[another.clone(), p_256_jwk("e")])).await;
    let jwt = fetched(&issuer, ONCE).await;
    assert!(jwt.check(&zoes(Algorithm::ES256, "e")).await.is_ok());
    issuer.answer.send_replace(set_of(&[another]));
    let jwt = fetched(&issuer, ONCE).await;
    assert_eq!(jwt.check(&zoes(Algorithm::ES256, "e")).await, Err(by_nobody()));
}
