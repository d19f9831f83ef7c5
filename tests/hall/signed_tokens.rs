//! `--auth jwt` at every door: who has a token that the issuer signed comes in as whom it says, into the rooms that it names, for
//! as long as it lasts; and nobody else.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64URL;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Json, Line, Node, Plain, RedisServer, secrets, wait_until};
use crate::ways::{In, Outcome, Way, asked, come};
use crate::wire::Request;

const SECRET: &str = "a secret of the issuer, and long enough for it";
const ANOTHER: &str = "a secret of somebody else, just as long as that";

/// Seconds from now.
fn soon(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_secs() as i64 + seconds
}

/// A token of the issuer; `exp` is added where there is none.
fn token(claims: Value) -> String {
    signed(claims, SECRET)
}

fn signed(mut claims: Value, secret: &str) -> String {
    if claims["exp"].is_null() {
        claims["exp"] = soon(300).into();
    }
    let token = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret.as_bytes()));
    token.expect("a token")
}

async fn hall(options: &[&str]) -> Node {
    secrets::keep(SECRET);
    Node::start(&[&["--auth", "jwt", "--jwt-secret", SECRET], options].concat()).await
}

#[tokio::test]
async fn who_has_a_token_comes_in_by_every_door_as_whom_it_says() {
    let node = hall(&[]).await;
    let info = json!({"avatar": "https://a.example/42.png", "title": "Countess"});
    let brought = token(json!({"sub": "42", "name": "Ada", "info": info}));
    for way in Way::ALL {
        for name in ["Ada", "42", ""] {
            if way == Way::Classic && name.is_empty() {
                continue; // that address has a name in it
            }
            let mut inside = come(&node, way, name, &brought).await.let_in();
            assert_eq!(inside.speaks_as().await, "Ada", "{way:?} {name:?}");
            if let In::Json { welcome, .. } = &inside {
                assert_eq!(welcome["user"], json!({"id": "42", "name": "Ada", "info": info}));
            }
        }
    }
    let query = format!("?token={brought}");
    let mut ada = Json::connect(&node.ws_url(), &query).await;
    let mut other = Json::connect(&node.ws_url(), &format!("?token={}", token(json!({"sub": "zoe"})))).await;
    assert_eq!(other.welcome["user"], json!({"id": "zoe", "name": "zoe"}));
    ada.join("ops").await;
    other.join("ops").await;
    ada.say("ops", "hello from the countess").await;
    let heard = other.until_type("message").await;
    assert_eq!(heard["from"], json!({"id": "42", "name": "Ada", "info": info}));
    ada.send(json!({"type": "typing", "room": "ops"})).await;
    wait_until("typing is told with who it is", async || {
        other.who("ops").await;
        other.typing.iter().any(|typing| typing["from"]["info"] == info)
    })
    .await;
    other.send(json!({"type": "history", "room": "ops"})).await;
    let history = other.until_type("history").await;
    assert_eq!(history["messages"][0]["from"]["info"], info);
    other.send(json!({"type": "who", "room": "ops"})).await;
    let members = other.until_type("members").await;
    let ids: Vec<&Value> = members["members"].as_array().expect("members").iter().map(|member| &member["id"]).collect();
    assert!(ids.contains(&&json!("42")) && ids.contains(&&json!("zoe")), "{members}");
}

#[tokio::test]
async fn a_forged_an_expired_a_foreign_and_another_ones_token_let_nobody_in_by_any_door() {
    let node =
        hall(&["--rate", "0", "--jwt-leeway", "0", "--jwt-aud", "chat,talk", "--jwt-iss", "https://issuer.example"])
            .await;
    let claims = |change: Value| {
        let mut claims = json!({"sub": "42", "name": "Ada", "aud": "chat", "iss": "https://issuer.example"});
        for (name, value) in change.as_object().expect("claims") {
            claims[name] = value.clone();
        }
        claims
    };
    let good = token(claims(json!({"aud": ["talk", "elsewhere"]})));
    let (head, rest) = good.split_once('.').expect("parts");
    let (payload, signature) = rest.split_once('.').expect("parts");
    let part = |json: Value| BASE64URL.encode(json.to_string());
    let none = part(json!({"alg": "none", "typ": "JWT"}));
    let forged = part(claims(json!({"sub": "root", "exp": soon(300)})));
    let mut bad = vec![
        ("somebody else's signature", signed(claims(json!({})), ANOTHER)),
        ("no signature", format!("{none}.{payload}.")),
        ("no signature but one", format!("{none}.{payload}.{signature}")),
        ("another payload", format!("{head}.{forged}.{signature}")),
        ("a part of a signature", good[..good.len() - 4].into()),
        ("expired", token(claims(json!({"exp": soon(-2)})))),
        ("not valid yet", token(claims(json!({"nbf": soon(300)})))),
        ("for others", token(claims(json!({"aud": "billing"})))),
        ("from another issuer", token(claims(json!({"iss": "https://evil.example"})))),
        ("of nobody", token(claims(json!({"sub": ""})))),
        ("of a guest", token(claims(json!({"sub": "guest-c13ab6d19e9e0e16a350e016"})))),
        ("with rooms that are none", token(claims(json!({"rooms": "lobby"})))),
        ("with info that is none", token(claims(json!({"info": "countess"})))),
        ("with too much info", token(claims(json!({"info": {"x": "y".repeat(1100)}})))),
        ("a ticket", "just-some-random-text".into()),
        ("too long", format!("{good}{}", "A".repeat(5000))),
    ];
    let mut other_algorithm = Header::new(Algorithm::HS512);
    other_algorithm.kid = Some("../../etc/passwd".into());
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    let claimed = claims(json!({"exp": soon(300)}));
    bad.push(("of another algorithm", encode(&other_algorithm, &claimed, &key).expect("a token")));
    let without_exp = {
        let claims = json!({"sub": "42", "name": "Ada", "aud": "chat", "iss": "https://issuer.example"});
        encode(&Header::new(Algorithm::HS256), &claims, &key).expect("a token")
    };
    bad.push(("for ever", without_exp));
    for way in Way::ALL {
        for (what, brought) in &bad {
            let outcome = come(&node, way, "Ada", brought).await;
            eprintln!("{way:?} {what}: {outcome:?}");
            outcome.assert_unauthorized();
        }
        come(&node, way, "Zoe", &good).await.assert_unauthorized();
        come(&node, way, "ada", &good).await.assert_unauthorized();
        come(&node, way, "Ada", &good).await.let_in();
    }
}

#[tokio::test]
async fn rooms_that_the_token_does_not_name_are_not_joined_read_asked_for_or_listed() {
    let node = hall(&[]).await;
    let all = token(json!({"sub": "1", "name": "All"}));
    let some = token(json!({"sub": "2", "name": "Some", "rooms": ["team-*", "help"]}));
    let none = token(json!({"sub": "3", "name": "None", "rooms": []}));
    let mut insider = Json::connect(&node.ws_url(), &format!("?token={all}")).await;
    insider.join("secret").await;
    insider.say("secret", "what is said in a room of others").await;

    let mut outsider = Json::connect(&node.ws_url(), &format!("?token={some}")).await;
    assert_eq!(outsider.welcome["rooms"], json!(["help"]));
    for room in ["secret", "lobby", "team"] {
        let id = Uuid::new_v4();
        for command in [
            json!({"type": "join", "room": room}),
            json!({"type": "join", "room": room, "after": {"epoch": "", "offset": 0}}),
            json!({"type": "history", "room": room}),
            json!({"type": "who", "room": room}),
            json!({"type": "typing", "room": room}),
            json!({"type": "say", "room": room, "id": id, "text": "let me in here"}),
        ] {
            outsider.send(command).await;
            let refused = outsider.expect_error("forbidden").await;
            assert_eq!(refused["room"], room);
        }
    }
    outsider.join("team-red").await;
    outsider.join("help").await;

    let refused = Plain::try_connect(&node.ws_url(), &format!("?room=secret&token={some}")).await.err();
    assert_eq!(refused.expect("a room of others").status, 403);
    let mut plain = Plain::connect(&node.ws_url(), &format!("?token={some}")).await;
    plain.say("in the first room of the token").await;
    outsider.until("what the plain one says", |event| event["room"] == "help" && event["type"] == "message").await;

    let mut line = Line::connect(node.tcp_addr()).await;
    line.expect_notice("unauthorized").await;
    line.say(&format!("/login {some}")).await;
    line.expect("! login you are Some").await;
    line.say("/room secret").await;
    line.expect_notice("forbidden").await;
    line.say("/room team-blue").await;
    line.expect("! room you are in team-blue").await;

    let nowhere = Json::connect(&node.ws_url(), &format!("?token={none}")).await;
    assert_eq!(nowhere.welcome["rooms"], json!([]));
    let refused = Plain::try_connect(&node.ws_url(), &format!("?token={none}")).await.err();
    assert_eq!(refused.expect("no room at all").status, 403);
    let mut line = Line::connect(node.tcp_addr()).await;
    line.expect_notice("unauthorized").await;
    line.say(&format!("/login {none}")).await;
    line.expect("! login you are None").await;
    line.expect_notice("forbidden").await;
    assert_eq!(line.next_or_end().await, None);
}

#[tokio::test]
async fn of_the_configured_rooms_the_tokens_are_listed() {
    let node = hall(&["--rooms", "lobby,help,team-a,team-b"]).await;
    let some = token(json!({"sub": "2", "rooms": ["team-*", "elsewhere"]}));
    let mut client = Json::connect(&node.ws_url(), &format!("?token={some}")).await;
    assert_eq!(client.welcome["rooms"], json!(["team-a", "team-b"]));
    client.send(json!({"type": "join", "room": "elsewhere"})).await;
    client.expect_error("forbidden").await;
}

#[tokio::test]
async fn a_reader_hears_and_does_not_speak_by_any_door() {
    let node = hall(&[]).await;
    let reader = token(json!({"sub": "1", "name": "Reader", "role": "reader"}));
    let mut speaker =
        Json::connect(&node.ws_url(), &format!("?token={}", token(json!({"sub": "2", "role": "admin"})))).await;
    speaker.join("lobby").await;
    let mut json = Json::connect(&node.ws_url(), &format!("?token={reader}")).await;
    json.join("lobby").await;
    let mut plain = Plain::connect(&node.ws_url(), &format!("?token={reader}")).await;
    let mut line = Line::connect(node.tcp_addr()).await;
    line.expect_notice("unauthorized").await;
    line.say(&format!("/login {reader}")).await;
    line.expect("! login you are Reader").await;
    json.send(json!({"type": "say", "room": "lobby", "id": Uuid::new_v4(), "text": "nobody hears this text"})).await;
    json.expect_error("muted").await;
    json.send(json!({"type": "typing", "room": "lobby"})).await;
    json.expect_error("muted").await;
    plain.say("nobody hears this text").await;
    plain.expect_notice("muted").await;
    line.say("nobody hears this text").await;
    line.expect_notice("muted").await;
    speaker.say("lobby", "everybody hears this one").await;
    speaker.hear("lobby", "everybody hears this one").await;
    json.hear("lobby", "everybody hears this one").await;
    plain.expect("2:everybody hears this one").await;
    line.expect("2:everybody hears this one").await;
    assert_eq!(speaker.rooms["lobby"].position.offset, 1, "nothing else was stored");
}

#[tokio::test]
async fn an_expired_token_ends_its_connection_and_with_a_new_one_the_client_goes_on_where_it_was() {
    let node = hall(&["--jwt-leeway", "0"]).await;
    let lasting = token(json!({"sub": "1", "name": "Lasting"}));
    let mut speaker = Json::connect(&node.ws_url(), &format!("?token={lasting}")).await;
    speaker.join("lobby").await;

    let short = || token(json!({"sub": "2", "name": "Short", "exp": soon(8)}));
    let mut json = Json::connect(&node.ws_url(), &format!("?token={}", short())).await;
    json.join("lobby").await;
    let mut plain = Plain::connect(&node.ws_url(), &format!("?token={}", short())).await;
    let mut line = Line::connect(node.tcp_addr()).await;
    line.expect_notice("unauthorized").await;
    line.say(&format!("/login {}", short())).await;
    line.expect("! login you are Short").await;

    speaker.say("lobby", "before it expires").await;
    json.hear("lobby", "before it expires").await;
    plain.expect("Lasting:before it expires").await;
    line.expect("Lasting:before it expires").await;
    assert_eq!(json.next_or_close().await.expect_err("the token has expired").0, 4101);
    assert_eq!(plain.next_or_close().await.expect_err("the token has expired").0, 4101);
    line.expect_notice("unauthorized").await;
    assert_eq!(line.next_or_end().await, None);
    for text in ["while it is away, one", "while it is away, two"] {
        speaker.say("lobby", text).await;
    }
    let mut again =
        Json::connect(&node.ws_url(), &format!("?token={}", token(json!({"sub": "2", "name": "Short"})))).await;
    let joined = again.resume("lobby", &json.rooms["lobby"].position).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    again.hear("lobby", "while it is away, one").await;
    again.hear("lobby", "while it is away, two").await;
    speaker.say("lobby", "who lasts is not disturbed").await;
    let closed = r#"townhall_connections_closed_total{door="json",reason="token_expired"}"#;
    wait_until("its end is counted", async || node.metric(closed).await == 1.0).await;
}

#[tokio::test]
async fn at_the_line_door_a_new_token_before_the_old_one_expires_keeps_one_in() {
    let node = hall(&["--jwt-leeway", "0"]).await;
    let mut line = Line::connect(node.tcp_addr()).await;
    line.expect_notice("unauthorized").await;
    let first = token(json!({"sub": "1", "name": "Ada", "exp": soon(8)}));
    line.say(&format!("/login {first}")).await;
    line.expect("! login you are Ada").await;
    line.say(&format!("/login {}", token(json!({"sub": "1", "name": "Ada"})))).await;
    line.expect("! login you are Ada").await;
    line.expect("! room you are in lobby").await;
    wait_until("the first token has expired", async || {
        matches!(come(&node, Way::PlainQuery, "", &first).await, Outcome::Http { status: 403, .. })
    })
    .await;
    line.say("I am still here, am I not").await;
    line.expect("Ada:I am still here, am I not").await;
}

#[tokio::test]
async fn tickets_tokens_and_guests_come_in_side_by_side() {
    let redis = RedisServer::start();
    redis.cli(&["SET", "ChatroomTokenlewin", "a-ticket-of-the-site"]);
    let url = redis.url();
    secrets::keep(SECRET);
    let options = ["--auth", "guest,ticket,jwt", "--jwt-secret", SECRET, "--redis", &url];
    let node = Node::start(&options).await;
    let brought = token(json!({"sub": "42", "name": "Ada"}));
    for way in Way::ALL {
        assert_eq!(come(&node, way, "lewin", "a-ticket-of-the-site").await.let_in().speaks_as().await, "lewin");
        assert_eq!(come(&node, way, "Ada", &brought).await.let_in().speaks_as().await, "Ada");
        come(&node, way, "lewin", &brought).await.assert_unauthorized();
        come(&node, way, "Ada", "a-ticket-of-the-site").await.assert_unauthorized();
        come(&node, way, "42", &signed(json!({"sub": "42"}), ANOTHER)).await.assert_unauthorized();
    }
    // What looks like a signed token is one, even if a site has put it into Redis as a ticket.
    let foreign = signed(json!({"sub": "eve"}), ANOTHER);
    redis.cli(&["SET", "ChatroomTokeneve", &foreign]);
    come(&node, Way::Classic, "eve", &foreign).await.assert_unauthorized();
    let guest = Json::connect(&node.ws_url(), "?name=Ada").await;
    assert_eq!(guest.welcome["user"]["name"], "~Ada");
    // With the issuer's tokens Redis is not asked.
    redis.pause();
    come(&node, Way::JsonSubprotocol, "", &brought).await.let_in();
    come(&node, Way::JsonSubprotocol, "lewin", "a-ticket-of-the-site").await.assert_unavailable();
    redis.resume();
}

#[tokio::test]
async fn a_token_is_sent_back_and_logged_by_nobody() {
    let node = hall(&[]).await;
    let brought = token(json!({"sub": "42"}));
    let request = Request::handshake("/ws").with("Sec-WebSocket-Protocol", &format!("bearer.{brought}"));
    let (answer, _) = request.upgrade(node.http()).await;
    assert_eq!(answer.status, 400, "a token alone is no subprotocol");
    assert!(!answer.body.contains(&brought) && !answer.head.contains(&brought), "{answer:?}");
    let request = Request::handshake("/ws").with("Sec-WebSocket-Protocol", &format!("bearer.{brought}, townhall.v1"));
    match asked(&node, request, Way::JsonSubprotocol).await {
        Outcome::In(_) => {}
        other => panic!("the order does not matter: {other:?}"),
    }
    for path in ["", "/nothing", "/chatroom", "/healthz", "/chatroom/ws/a"] {
        let (answer, _) = Request::new("GET", &format!("{path}/?token={brought}")).upgrade(node.http()).await;
        assert!(!answer.body.contains(&brought), "{answer:?}");
    }
    let metrics = node.ops("/metrics").await.expect("metrics").body;
    assert!(!metrics.contains(&brought[..20]), "{metrics}");
    assert!(secrets::found_in(&metrics).is_none());
}

#[tokio::test]
async fn whatever_a_token_says_arrives_harmless_at_every_door() {
    let node = hall(&["--rate", "0"]).await;
    let hostile = [
        "<script>alert(1)</script>",
        "\u{202E}reversed\u{2066}",
        "nul\u{0}bell\u{7}escape\u{1B}[31m",
        "line\nbreak\r\nroot:forged\u{2028}line",
        "\u{1F469}\u{200D}\u{1F4BB} \u{1F3F4}\u{E0067}",
        "root:said this",
        "\"}],\"type\":\"message\",\"x\":\"",
        "~guest !notice /quit",
    ];
    let mut json = Json::connect(&node.ws_url(), &format!("?token={}", token(json!({"sub": "json"})))).await;
    json.join("lobby").await;
    let mut plain = Plain::connect(&node.ws_url(), &format!("?token={}", token(json!({"sub": "plain"})))).await;
    let mut line = Line::connect(node.tcp_addr()).await;
    line.expect_notice("unauthorized").await;
    line.say(&format!("/login {}", token(json!({"sub": "line"})))).await;
    line.expect("! login you are line").await;
    for (at, text) in hostile.into_iter().enumerate() {
        let greeting = format!("greeting number {at}");
        let info = json!({"title": text, text: [text], "deep": {"er": {"x": text}}});
        let brought = token(json!({"sub": "eve", "name": format!("eve{text}"), "info": info}));
        let mut speaker = Json::connect(&node.ws_url(), &format!("?token={brought}")).await;
        let name = speaker.welcome["user"]["name"].as_str().expect("a name").to_string();
        assert!(name.starts_with("eve") && !name.contains(|c: char| c == ':' || c.is_control()), "{name:?}");
        speaker.join("lobby").await;
        speaker.say("lobby", &greeting).await;
        let heard = json.hear("lobby", &greeting).await;
        assert_eq!(heard["from"], json!({"id": "eve", "name": name, "info": info}), "as the issuer has it");
        plain.expect(&format!("{name}:{greeting}")).await;
        line.expect(&format!("{name}:{greeting}")).await;
    }
    for (sub, name) in [("\u{202E}", None), ("a\nb", Some("Ada")), (":::", None), (&"x".repeat(300), Some("Ada"))] {
        let brought = token(json!({"sub": sub, "name": name}));
        come(&node, Way::JsonQuery, "", &brought).await.assert_unauthorized();
    }
}
