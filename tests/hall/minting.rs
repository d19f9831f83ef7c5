//! `townhall token`: what it makes lets in, and it prints that and nothing else.

use std::path::Path;
use std::process::{Command, Output};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::{Value, json};

use crate::harness::{Node, Plain, RedisServer};

fn townhall(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_townhall"));
    command.arg("token").args(words).env_clear().envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

/// The one line that it prints.
fn made(words: &[&str], variables: &[(&str, &str)]) -> String {
    let output = townhall(words, variables);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{words:?}: {said}");
    let printed = String::from_utf8(output.stdout).expect("text");
    let token = printed.strip_suffix('\n').expect("a line");
    assert!(!token.contains(char::is_whitespace), "{printed}");
    token.to_owned()
}

/// The one line of a refusal.
fn refused(words: &[&str], code: i32) -> String {
    let output = townhall(words, &[]);
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty() && said.matches('\n').count() == 1 && said.starts_with("townhall: "), "{said}");
    said
}

#[tokio::test]
async fn a_ticket_that_is_made_lets_in_until_it_is_used_or_over() {
    let redis = RedisServer::start();
    let node = Node::start(&["--auth", "ticket", "--ticket-once", "--redis", &redis.url()]).await;
    let variables = [("TOWNHALL_AUTH", "ticket"), ("TOWNHALL_REDIS", &redis.url()[..])];
    let tokens = [made(&["Zo\u{eb}"], &variables), made(&["Zo\u{eb}", "--for", "90s"], &variables)];
    assert_ne!(tokens[0], tokens[1]);
    assert_eq!(tokens[1].len(), 43, "32 bytes");
    let left: u64 = redis.cli(&["TTL", "ChatroomTokenZo\u{eb}"]).parse().expect("seconds");
    assert!((1..=90).contains(&left), "{left}");
    let enter = async |token: &str| {
        let door = node.ws(&format!("/chatroom/ws/Zo%C3%AB/{token}"));
        Plain::try_connect(&door, "").await.map_err(|refusal| refusal.status)
    };
    assert_eq!(enter(&tokens[0]).await.err(), Some(403), "there is a newer one");
    let mut zoe = enter(&tokens[1]).await.expect("she is let in");
    zoe.say("hello").await;
    zoe.until("Zo\u{eb}:hello").await;
    assert_eq!(enter(&tokens[1]).await.err(), Some(403), "it was used");
}

#[test]
fn where_redis_is_away_no_ticket_is_made_and_the_password_stays_secret() {
    let mut redis = RedisServer::start();
    redis.kill();
    let url = format!("redis://:hush@127.0.0.1:{}", redis.port());
    let said = refused(&["zoe", "--ticket-redis", &url], 1);
    assert!(said.contains(":***@127.0.0.1") && !said.contains("hush"), "{said}");
}

/// What a token says, if `key` vouches for it.
fn claims(token: &str, algorithm: Algorithm, key: &DecodingKey) -> Value {
    assert_eq!(decode_header(token).expect("a header").alg, algorithm);
    let mut validation = Validation::new(algorithm);
    validation.set_audience(&["hall"]);
    validation.set_issuer(&["https://issuer.example"]);
    decode::<Value>(token, key, &validation).expect("a token that is good").claims
}

const FOR_THE_HALL: [(&str, &str); 2] = [("TOWNHALL_JWT_AUD", "hall"), ("TOWNHALL_JWT_ISS", "https://issuer.example")];

#[test]
fn a_token_is_signed_by_the_halls_own_secret_and_says_what_it_was_told_to() {
    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    let variables = [&FOR_THE_HALL[..], &[("TOWNHALL_AUTH", "guest,jwt"), ("TOWNHALL_JWT_SECRET", SECRET)]].concat();
    let words = ["zoe", "--sub", "7", "--info", r#"{"title":"Dr."}"#, "--room", "lobby", "--room", "team-*"];
    let token = made(&[&words[..], &["--role", "reader", "--for", "10m", "--kid", "k1"]].concat(), &variables);
    let claims = claims(&token, Algorithm::HS256, &DecodingKey::from_secret(SECRET.as_bytes()));
    let (issued, expires) = (claims["iat"].as_u64().expect("iat"), claims["exp"].as_u64().expect("exp"));
    assert_eq!(expires - issued, 600);
    let expected = json!({
        "sub": "7", "name": "zoe", "info": {"title": "Dr."}, "rooms": ["lobby", "team-*"], "role": "reader",
        "aud": "hall", "iss": "https://issuer.example", "iat": issued, "exp": expires,
    });
    assert_eq!(claims, expected);
    assert_eq!(decode_header(&token).expect("a header").kid.as_deref(), Some("k1"));
}

/// A private key in a file, and its public one.
fn key_pair(directory: &Path, algorithm: &[&str]) -> (String, Vec<u8>) {
    let path = directory.join(algorithm.join("-")).to_str().expect("a path in UTF-8").to_owned();
    let openssl = |words: &[&str]| {
        let output = Command::new("openssl").args(words).output().expect("the command `openssl`");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    openssl(&[&["genpkey", "-out", &path, "-algorithm"], algorithm].concat());
    let public = openssl(&["pkey", "-in", &path, "-pubout"]);
    (path, public)
}

#[test]
fn a_private_key_signs_as_it_is_made_for_and_another_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let p256 = ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"];
    type Read = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;
    let kinds: [(&[&str], Algorithm, Read); 3] = [
        (&["RSA", "-pkeyopt", "rsa_keygen_bits:2048"], Algorithm::RS256, DecodingKey::from_rsa_pem),
        (&p256, Algorithm::ES256, DecodingKey::from_ec_pem),
        (&["ED25519"], Algorithm::EdDSA, DecodingKey::from_ed_pem),
    ];
    for (made_with, algorithm, read) in kinds {
        let (private, public) = key_pair(directory.path(), made_with);
        let token = made(&["zoe", "--jwt-private-key", &private], &FOR_THE_HALL);
        let claims = claims(&token, algorithm, &read(&public).expect("the public key"));
        assert_eq!((&claims["sub"], &claims["name"]), (&json!("zoe"), &json!("zoe")));
        let file = directory.path().join("public.pem");
        std::fs::write(&file, &public).expect("a file");
        let said = refused(&["zoe", "--jwt-private-key", file.to_str().expect("UTF-8")], 2);
        assert!(said.contains("it holds no private key that can be used"), "{said}");
    }
    for other in [&["EC", "-pkeyopt", "ec_paramgen_curve:P-384"][..], &["RSA", "-pkeyopt", "rsa_keygen_bits:1024"]] {
        let (private, _) = key_pair(directory.path(), other);
        let said = refused(&["zoe", "--jwt-private-key", &private], 2);
        assert!(said.contains("it holds no private key that can be used"), "{other:?}: {said}");
    }
}

#[test]
fn mistakes_are_one_line_and_no_secret_is_in_it() {
    for (words, part) in [
        (&[][..], "<NAME>"),
        (&["zoe"], "nothing is given to make it with"),
        (&["a:b", "--jwt-secret", "hush"], "NAME \"a:b\": allowed is"),
        (&["zoe", "--jwt-secret", "hush", "--room", "Lobby"], "--room \"Lobby\": allowed is"),
        (&["zoe", "--jwt-secret", "hush", "--info", "7"], "--info \"7\": allowed is"),
        (&["zoe", "--jwt-secret", "hush", "--redis", "redis://:hush@h"], "allowed is one of ticket and jwt"),
    ] {
        let said = refused(words, 2);
        assert!(said.contains(part) && !said.contains("hush"), "{said}");
    }
}
