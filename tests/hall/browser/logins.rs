//! Where the hall wants to know who one is.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use crate::harness::{Chromium, Cut, Json, Node, Person, RedisServer, secrets, wait_until};

use super::{page, texts};

pub const SECRET: &str = "a secret of thirty-two bytes and more";

/// A node that lets in whoever has a token of [`SECRET`].
pub async fn hall(options: &[&str]) -> Node {
    secrets::keep(SECRET);
    Node::start(&[&["--auth", "jwt", "--jwt-secret", SECRET], options].concat()).await
}

/// A token that is good for five minutes.
pub fn token(secret: &str, claims: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let mut claims = claims.clone();
    claims["exp"] = (now + 300).into();
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
}

#[tokio::test]
async fn who_is_sent_by_a_site_with_a_token_is_in_and_the_token_is_in_no_address() {
    let node = hall(&[]).await;
    let zoe = token(SECRET, &json!({"sub": "42", "name": "Zoe", "role": "member"}));
    secrets::keep(&zoe);
    let mut speaker = Json::connect(&node.ws_url(), &format!("?token={}", token(SECRET, &json!({"sub": "1"})))).await;
    speaker.join("garden").await;
    let chromium = Chromium::start();
    let person = Person::open(&chromium, &page(&node, &format!("?token={zoe}#garden"))).await;
    person.wait_connected().await;
    assert_eq!(person.address().await, page(&node, "#garden"));
    assert!(!person.sees("#name").await, "the token says who it is");
    person.say("by my token").await;
    let heard = speaker.hear("garden", "by my token").await;
    assert_eq!(heard["from"]["name"], "Zoe");
    assert_eq!(heard["from"]["id"], "42");
    person.reload().await;
    person.wait_connected().await;
    person.say("still me").await;
    assert_eq!(speaker.hear("garden", "still me").await["from"]["id"], "42");
    person.assert_content().await;

    person.click("#logout").await;
    person.wait_sees("#login").await;
    person.reload().await;
    person.wait_sees("#login").await;
    assert_eq!(person.count("#view .message").await, 0, "who is out sees nothing");
}

/// Somebody leaves a machine with a message on its way, and somebody else logs in at the same page.
#[tokio::test]
async fn what_one_person_wrote_is_not_said_by_the_next_one() {
    let node = hall(&[]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let address = |sub: &str| format!("http://{}/?token={}", wire.address(), token(SECRET, &json!({"sub": sub})));
    let mut script = Json::connect(&node.ws_url(), &format!("?token={}", token(SECRET, &json!({"sub": "1"})))).await;
    script.join("lobby").await;
    let person = Person::open(&Chromium::start(), &address("ada")).await;
    person.wait_connected().await;
    wire.kill_silently();
    person.say("only ada says this").await;
    person.wait_read("#unsent .message.pending .text", &texts(&["only ada says this"])).await;
    person.visit(&address("bea")).await;
    person.wait_connected().await;
    person.wait_read("#unsent .message.failed .text", &texts(&["only ada says this"])).await;
    let fate = person.read("#unsent .fate").await;
    assert!(fate[0].contains("somebody else"), "{fate:?}");
    person.say("and bea this").await;
    assert_eq!(script.hear("lobby", "and bea this").await["from"]["id"], "bea");
    person.reload().await;
    person.wait_connected().await;
    person.say("and this").await;
    script.hear("lobby", "and this").await;
    assert_eq!(script.texts("lobby"), ["and bea this", "and this"]);
}

#[tokio::test]
async fn who_logs_out_leaves_nothing_behind() {
    let node = hall(&[]).await;
    let address = page(&node, &format!("?token={}", token(SECRET, &json!({"sub": "ada", "role": "reader"}))));
    let person = Person::open(&Chromium::start(), &address).await;
    person.wait_connected().await;
    person.say("what may not be said").await;
    person.wait_count("#unsent .message.failed", 1).await;
    person.fill("#text", "a thought of ada's").await;
    let kept = "Object.entries({ ...localStorage, ...sessionStorage }).flat().join()";
    let all_of_it = async || person.evaluate(kept).await.as_str().unwrap_or_default().to_owned();
    wait_until("both are kept", async || {
        let kept = all_of_it().await;
        kept.contains("a thought of ada's") && kept.contains("what may not be said")
    })
    .await;
    person.click("#logout").await;
    person.wait_sees("#login").await;
    let left = all_of_it().await;
    for of_hers in ["thought", "may not be said", "login", "outbox"] {
        assert!(!left.contains(of_hers), "{of_hers} in {left}");
    }
    assert_eq!(person.read("#text").await, [""]);
}

#[tokio::test]
async fn who_has_no_token_or_a_wrong_one_is_told_so_and_may_bring_another() {
    let node = hall(&[]).await;
    let chromium = Chromium::start();
    let wrong = token("another secret of thirty-two bytes and more", &json!({"sub": "42", "name": "Zoe"}));
    for (times, query) in [String::new(), format!("?token={wrong}")].into_iter().enumerate() {
        let person = Person::open(&chromium, &page(&node, &query)).await;
        wait_until("it has ended", async || person.state().await == "ended").await;
        person.wait_sees("#login").await;
        let words = person.read("#state").await;
        assert!(words[0].contains("Disconnected"), "{words:?}");
        assert_eq!(
            words[0].contains("does not let you in"),
            !query.is_empty(),
            "who brought one was refused: {words:?}"
        );
        person.fill("#loginToken", &token(SECRET, &json!({"sub": "42", "name": "Zoe"}))).await;
        person.press("#loginToken", "Enter").await;
        person.wait_connected().await;
        person.wait_sees_no("#login").await;
        person.say("in by another").await;
        person.wait_count("#view .message.own", times + 1).await;
        person.close().await;
    }
}

#[tokio::test]
async fn a_ticket_of_the_site_lets_its_owner_in_and_nobody_else() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url(), "--auth", "ticket"]).await;
    redis.must(&["SET", "ChatroomToken张三", "a-ticket-of-the-site", "EX", "300"]);
    secrets::keep("a-ticket-of-the-site");
    let chromium = Chromium::start();
    let person =
        Person::open(&chromium, &page(&node, "?name=%E5%BC%A0%E4%B8%89&token=a-ticket-of-the-site#garden")).await;
    person.wait_connected().await;
    assert_eq!(person.address().await, page(&node, "#garden"));
    person.say("你好").await;
    person.wait_messages(&texts(&["你好"])).await;
    assert_eq!(person.read("#view .message .name").await, ["张三"]);
    person.reload().await;
    person.wait_messages(&texts(&["你好"])).await;
    person.assert_content().await;

    let other = Person::open(&chromium, &page(&node, "?name=lisi&token=a-ticket-of-the-site#garden")).await;
    wait_until("it has ended", async || other.state().await == "ended").await;
    other.wait_sees("#login").await;
    assert_eq!(other.count("#view .message").await, 0);
}

/// Comes in with tokens that it signs itself, each for five seconds, says something with the first one and something with
/// the second, and tells what it went through.
const SIGNED: &str = r#"(async () => {
    const { Townhall } = await import("/client.js");
    const url = { "+": "-", "/": "_", "=": "" };
    const base64 = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/[+/=]/g, (c) => url[c]);
    const encode = (text) => new TextEncoder().encode(text);
    const secret = encode("a secret of thirty-two bytes and more");
    const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    let tokens = 0;
    const getToken = async () => {
      tokens += 1;
      const claims = { sub: "zoe", exp: Math.floor(Date.now() / 1000) + 5 };
      const parts = [{ alg: "HS256" }, claims].map((part) => base64(encode(JSON.stringify(part))));
      return `${parts.join(".")}.${base64(await crypto.subtle.sign("HMAC", key, encode(parts.join("."))))}`;
    };
    const hall = new Townhall("/ws", { getToken });
    const states = [], said = [];
    hall.addEventListener("state", ({ detail: { state, code } }) => states.push(code ? `${state} ${code}` : state));
    hall.addEventListener("message", ({ detail }) => said.push(`${detail.offset} ${detail.from.id}: ${detail.text}`));
    hall.addEventListener("welcome", () => hall.send("lobby", `with token ${tokens}`));
    hall.join("lobby");
    hall.connect();
    return new Promise((resolve) => {
      const look = () => (said.length === 2 || hall.state === "closed") && resolve({ states, said });
      for (const event of ["message", "state"]) hall.addEventListener(event, look);
    });
})()"#;

#[tokio::test]
async fn whose_token_runs_out_goes_on_at_once_with_another() {
    let node = hall(&["--jwt-leeway", "0s"]).await;
    let chromium = Chromium::start();
    let zoe = Person::open(&chromium, &format!("http://{}/echo", node.http())).await;
    let went = zoe.evaluate(SIGNED).await;
    assert_eq!(went["said"], json!(["1 zoe: with token 1", "2 zoe: with token 2"]), "{went}");
    assert_eq!(went["states"], json!(["connecting", "open", "connecting", "open"]), "never did it wait: {went}");
}
