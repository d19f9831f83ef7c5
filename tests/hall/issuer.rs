//! An issuer that publishes its keys, and everything that may be wrong with it: whoever does not need it notices nothing.

use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::{Node, secrets, wait_until};
use crate::ways::{Outcome, Way, come};

const SECRET: &str = "a secret of another issuer, and long enough for it";

/// A key pair for EdDSA.
struct Key {
    kid: String,
    private: Vec<u8>,
    x: String,
}

impl Key {
    fn new(kid: &str) -> Key {
        let private = openssl(&["genpkey", "-algorithm", "ed25519", "-outform", "DER"], &[]);
        let public = openssl(&["pkey", "-inform", "DER", "-pubout", "-outform", "DER"], &private);
        // The key itself ends its description.
        Key { kid: kid.into(), x: BASE64URL.encode(&public[public.len() - 32..]), private }
    }

    fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": self.kid, "x": self.x})
    }

    fn token(&self, name: &str) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        let claims = json!({"sub": name, "exp": 4_000_000_000u64});
        encode(&header, &claims, &EncodingKey::from_ed_der(&self.private)).expect("a token")
    }
}

fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the tests need openssl");
    child.stdin.take().expect("stdin is piped").write_all(input).expect("openssl reads");
    let output = child.wait_with_output().expect("openssl ends");
    assert!(output.status.success(), "openssl {arguments:?}");
    output.stdout
}

/// What the issuer does with whoever asks.
#[derive(Clone)]
enum Mood {
    Publishes(String),
    Hangs,
    Refuses,
}

struct Issuer {
    url: String,
    mood: Arc<Mutex<Mood>>,
    asked: Arc<Mutex<usize>>,
    task: JoinHandle<()>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Issuer {
    async fn start(mood: Mood) -> Issuer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/keys?secret=5ecret-of-the-address", listener.local_addr().expect("an address"));
        secrets::keep("5ecret-of-the-address");
        let (mood, asked) = (Arc::new(Mutex::new(mood)), Arc::new(Mutex::new(0)));
        let (now, count) = (mood.clone(), asked.clone());
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("somebody who asks");
                *count.lock().expect("a count") += 1;
                let mood = now.lock().expect("a mood").clone();
                tokio::spawn(answer(stream, mood));
            }
        });
        Issuer { url, mood, asked, task }
    }

    fn becomes(&self, mood: Mood) {
        *self.mood.lock().expect("a mood") = mood;
    }

    fn asked(&self) -> usize {
        *self.asked.lock().expect("a count")
    }
}

fn publishing(keys: &[&Key]) -> Mood {
    Mood::Publishes(json!({"keys": keys.iter().map(|key| key.jwk()).collect::<Vec<_>>()}).to_string())
}

async fn answer(mut stream: TcpStream, mood: Mood) {
    let mut request = [0; 4096];
    let _ = stream.read(&mut request).await;
    match mood {
        Mood::Publishes(body) => {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
        Mood::Refuses => {
            let _ = stream.write_all(b"HTTP/1.1 500 no\r\nContent-Length: 0\r\n\r\n").await;
        }
        Mood::Hangs => std::future::pending().await,
    }
}

async fn hall(issuer: &Issuer) -> Node {
    secrets::keep(SECRET);
    Node::start(&["--auth", "guest,jwt", "--jwt-secret", SECRET, "--jwt-jwks", &issuer.url]).await
}

/// A token that needs no issuer.
fn other_token() -> String {
    let claims = json!({"sub": "other", "exp": 4_000_000_000u64});
    encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes())).expect("a token")
}

#[tokio::test]
async fn the_keys_that_an_issuer_publishes_let_in_by_every_door_and_others_do_not() {
    let (ours, foreign) = (Key::new("k1"), Key::new("k1"));
    let issuer = Issuer::start(publishing(&[&ours])).await;
    let node = hall(&issuer).await;
    for way in Way::ALL {
        assert_eq!(come(&node, way, "ada", &ours.token("ada")).await.let_in().speaks_as().await, "ada");
        come(&node, way, "ada", &foreign.token("ada")).await.assert_unauthorized();
    }
    assert_eq!(issuer.asked(), 1, "a known key is not asked for");
}

#[tokio::test]
async fn a_new_key_lets_in_at_once_and_all_who_bring_it_cost_one_question() {
    let (old, new) = (Key::new("old"), Key::new("new"));
    let issuer = Issuer::start(publishing(&[&old])).await;
    let node = hall(&issuer).await;
    come(&node, Way::JsonQuery, "ada", &old.token("ada")).await.let_in();
    issuer.becomes(publishing(&[&old, &new]));
    let people: Vec<String> = (0..30).map(|at| format!("person-{at}")).collect();
    let tokens: Vec<String> = people.iter().map(|name| new.token(name)).collect();
    let all = (0..30).map(|at| come(&node, Way::ALL[at % 7], &people[at], &tokens[at]));
    for outcome in futures::future::join_all(all).await {
        outcome.let_in();
    }
    assert_eq!(issuer.asked(), 2);
    come(&node, Way::JsonQuery, "ada", &old.token("ada")).await.let_in();
}

#[tokio::test]
async fn an_issuer_that_hangs_or_fails_is_noticed_by_nobody_but_those_whose_keys_it_did_not_give() {
    let (ours, unknown) = (Key::new("ours"), Key::new("unknown"));
    let issuer = Issuer::start(Mood::Hangs).await;
    let node = hall(&issuer).await;
    for way in Way::ALL {
        come(&node, way, "other", &other_token()).await.let_in();
    }
    come(&node, Way::PlainQuery, "ada", "").await.let_in();
    let waiting = Way::ALL.map(|way| {
        let (node, token) = (&node, ours.token("ada"));
        async move { come(node, way, "ada", &token).await }
    });
    for outcome in futures::future::join_all(waiting).await {
        outcome.assert_unavailable();
    }
    issuer.becomes(publishing(&[&ours]));
    wait_until("the issuer answers again", async || {
        matches!(come(&node, Way::JsonQuery, "ada", &ours.token("ada")).await, Outcome::In(_))
    })
    .await;
    for mood in [Mood::Refuses, Mood::Publishes("{\"keys\":7}".into()), Mood::Hangs] {
        issuer.becomes(mood);
        let unknown = unknown.token("eve");
        let nobody_knows = come(&node, Way::JsonQuery, "eve", &unknown);
        let known = async {
            for way in Way::ALL {
                come(&node, way, "ada", &ours.token("ada")).await.let_in();
            }
        };
        let (outcome, ()) = tokio::join!(nobody_knows, known);
        outcome.assert_unavailable();
    }
    let log = node.log();
    assert!(log.contains("the issuer's keys cannot be fetched"), "{log}");
    assert_eq!(node.readiness().await, 200);
}
