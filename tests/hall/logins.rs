//! `--auth ticket`, as the tutorial's site has it, at every door: whom the site has put into Redis comes in, and nobody else.

use crate::harness::{Json, Line, Node, Plain, RedisServer, wait_until};
use crate::ways::{In, Outcome, Way, asked, come, come_by};
use crate::wire::Request;

/// What Django's `secrets.token_urlsafe()` makes.
const TOKEN: &str = "m3Zb6E0yq2y9yWqGZ0Vh3Zk1a1eL0s5mI0iYyQx4uJc";

fn put(redis: &RedisServer, name: &str, token: &str) {
    redis.cli(&["SET", &format!("ChatroomToken{name}"), token, "EX", "300"]);
}

async fn hall(options: &[&str]) -> (RedisServer, Node) {
    let redis = RedisServer::start();
    let url = redis.url();
    let options = [&["--auth", "ticket", "--redis", &url], options].concat();
    let node = Node::start(&options).await;
    (redis, node)
}

#[tokio::test]
async fn whom_the_site_has_put_into_redis_comes_in_by_every_door_under_that_name() {
    let (redis, node) = hall(&[]).await;
    for (name, token) in [("lewin", TOKEN), ("Zoë 大", "with.dots~and-dashes_"), ("a+b@c.d", TOKEN)] {
        put(&redis, name, token);
        for way in Way::ALL {
            let mut inside = come(&node, way, name, token).await.let_in();
            assert_eq!(inside.speaks_as().await, name, "{way:?}");
            if let In::Json { welcome, .. } = &inside {
                assert_eq!(welcome["user"]["id"], name, "the id is the name: {welcome}");
            }
        }
    }
}

#[tokio::test]
async fn a_forged_an_expired_and_another_ones_ticket_let_nobody_in_by_any_door() {
    let (redis, node) = hall(&["--rate", "0"]).await;
    put(&redis, "lewin", TOKEN);
    put(&redis, "zoe", "another-token-that-is-hers");
    put(&redis, "empty", "");
    put(&redis, "gone", TOKEN);
    redis.cli(&["PEXPIRE", "ChatroomTokengone", "1"]);
    wait_until("the ticket has expired", async || redis.cli(&["EXISTS", "ChatroomTokengone"]) == "0").await;
    let almost = &TOKEN[..TOKEN.len() - 1];
    let longer = format!("{TOKEN}x");
    let huge = "x".repeat(7000);
    for way in Way::ALL {
        for (name, token) in [
            ("lewin", "forged-token"),
            ("lewin", almost),
            ("lewin", &longer),
            ("lewin", &TOKEN.to_uppercase()),
            ("lewin", "another-token-that-is-hers"),
            ("zoe", TOKEN),
            ("Lewin", TOKEN),
            ("nobody", TOKEN),
            ("gone", TOKEN),
            ("empty", "x"),
            ("lewin*", TOKEN),
            ("lewin", &huge),
        ] {
            come(&node, way, name, token).await.assert_unauthorized();
        }
    }
    // Still there, still good: nothing of all that has used it up.
    come(&node, Way::Classic, "lewin", TOKEN).await.let_in();
    let refused = node.metric(r#"townhall_handshakes_refused_total{reason="unauthorized"}"#).await;
    assert_eq!(refused, 12.0 * 6.0, "handshakes that were refused; the line door has none");
    assert!(node.metric(r#"townhall_errors_total{code="unauthorized"}"#).await >= 12.0 * 4.0);
}

#[tokio::test]
async fn without_a_token_nobody_comes_in() {
    let (redis, node) = hall(&[]).await;
    put(&redis, "lewin", TOKEN);
    for path in ["/ws", "/ws?name=lewin", "/ws?name=lewin&token=", "/chatroom/ws", "/chatroom/ws?name=lewin"] {
        asked(&node, Request::handshake(path), Way::PlainQuery).await.assert_unauthorized();
    }
    for path in ["/ws", "/ws?name=lewin", "/ws?name=lewin&token=", "/ws?key=5f0b6c6e-8c2c-4a53-a3a5-0123456789ab"] {
        let request = Request::handshake(path).with("Sec-WebSocket-Protocol", "townhall.v1");
        asked(&node, request, Way::JsonQuery).await.assert_unauthorized();
    }
    // A token without the name that it is for.
    for way in [Way::JsonHeader, Way::JsonSubprotocol, Way::JsonQuery, Way::PlainHeader, Way::PlainQuery, Way::Line] {
        come(&node, way, "", TOKEN).await.assert_unauthorized();
    }
}

#[tokio::test]
async fn two_tokens_that_differ_let_nobody_in_and_the_same_twice_does() {
    let (redis, node) = hall(&[]).await;
    put(&redis, "lewin", TOKEN);
    let brought = |header: &str, query: &str, protocol: &str| {
        Request::handshake(&format!("/ws?name=lewin&token={query}"))
            .with("Authorization", &format!("Bearer {header}"))
            .with("Sec-WebSocket-Protocol", &format!("townhall.v1, bearer.{protocol}"))
    };
    asked(&node, brought(TOKEN, TOKEN, TOKEN), Way::JsonQuery).await.let_in();
    for (header, query, protocol) in
        [("another", TOKEN, TOKEN), (TOKEN, "another", TOKEN), (TOKEN, TOKEN, "another"), ("a", "b", TOKEN)]
    {
        asked(&node, brought(header, query, protocol), Way::JsonQuery).await.assert_unauthorized();
    }
    let plain = Request::handshake(&format!("/ws?name=lewin&token={TOKEN}")).with("Authorization", "Bearer another");
    asked(&node, plain, Way::PlainQuery).await.assert_unauthorized();
    // Another scheme is a proxy's business.
    let basic =
        Request::handshake(&format!("/ws?name=lewin&token={TOKEN}")).with("Authorization", "Basic bGV3aW46eA==");
    asked(&node, basic, Way::PlainQuery).await.let_in();
}

#[tokio::test]
async fn a_ticket_that_is_good_for_once_lets_in_one_of_all_who_bring_it() {
    let (redis, node) = hall(&["--ticket-once"]).await;
    for way in Way::ALL {
        put(&redis, "lewin", TOKEN);
        come(&node, way, "lewin", "forged-token").await.assert_unauthorized();
        let mut first = come(&node, way, "lewin", TOKEN).await.let_in();
        assert_eq!(redis.cli(&["EXISTS", "ChatroomTokenlewin"]), "0");
        for again in Way::ALL {
            come(&node, again, "lewin", TOKEN).await.assert_unauthorized();
        }
        assert_eq!(first.speaks_as().await, "lewin");
    }
    put(&redis, "lewin", TOKEN);
    let all = (0..20).map(|at| come(&node, Way::ALL[at % 7], "lewin", TOKEN));
    let let_in = futures::future::join_all(all).await.into_iter().filter(|outcome| matches!(outcome, Outcome::In(_)));
    assert_eq!(let_in.count(), 1);
}

#[tokio::test]
async fn the_tutorials_address_works_below_a_base_path_and_percent_encoded() {
    let (redis, node) = hall(&["--base-path", "/gin", "--allow-origin", "http://www.lewinblog.com"]).await;
    put(&redis, "大 b/c%", "a/b%c?d");
    let mut inside = come_by(&node, Way::Classic, "大 b/c%", "a/b%c?d", "/gin").await.let_in();
    assert_eq!(inside.speaks_as().await, "大 b/c%");
    let foreign = Request::handshake("/gin/chatroom/ws/lewin/x").with("Origin", "http://evil.example");
    match asked(&node, foreign, Way::Classic).await {
        Outcome::Http { status: 403, body, .. } => assert!(body.contains("--allow-origin"), "{body}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_connection_outlives_its_ticket() {
    let (redis, node) = hall(&[]).await;
    put(&redis, "lewin", TOKEN);
    let mut inside = Vec::new();
    for way in Way::ALL {
        inside.push(come(&node, way, "lewin", TOKEN).await.let_in());
    }
    redis.cli(&["DEL", "ChatroomTokenlewin"]);
    come(&node, Way::Classic, "lewin", TOKEN).await.assert_unauthorized();
    for client in &mut inside {
        assert_eq!(client.speaks_as().await, "lewin");
    }
}

#[tokio::test]
async fn when_the_tickets_cannot_be_read_every_door_says_so_and_those_inside_stay() {
    let rooms = RedisServer::start();
    let mut site = RedisServer::start();
    put(&site, "lewin", TOKEN);
    let options = ["--auth", "ticket", "--redis", &rooms.url(), "--ticket-redis", &site.url()];
    let node = Node::start(&options).await;
    let mut inside = come(&node, Way::JsonSubprotocol, "lewin", TOKEN).await.let_in();
    site.kill();
    for way in Way::ALL {
        come(&node, way, "lewin", TOKEN).await.assert_unavailable();
        // What cannot be looked up is not known to be wrong.
        come(&node, way, "lewin", "forged-token").await.assert_unavailable();
    }
    assert_eq!(node.readiness().await, 200, "the rooms are well");
    assert_eq!(inside.speaks_as().await, "lewin");
    site.restart();
    put(&site, "lewin", TOKEN);
    for way in Way::ALL {
        come(&node, way, "lewin", TOKEN).await.let_in();
        come(&node, way, "lewin", "forged-token").await.assert_unauthorized();
    }
    assert_eq!(rooms.cli(&["EXISTS", "ChatroomTokenlewin"]), "0", "tickets are in the other Redis");
}

#[tokio::test]
async fn at_the_line_door_nothing_is_heard_and_nothing_said_before_the_login() {
    let (redis, node) = hall(&[]).await;
    put(&redis, "lewin", TOKEN);
    put(&redis, "zoe", TOKEN);
    let mut zoe = come(&node, Way::PlainQuery, "zoe", TOKEN).await.let_in();
    let mut line = Line::connect(node.tcp_addr()).await;
    line.expect_notice("unauthorized").await;
    for said in ["does anybody hear me", "/who", "/room lobby", "/name zoe", "//slash"] {
        line.say(said).await;
        line.expect_notice("unauthorized").await;
    }
    assert_eq!(zoe.speaks_as().await, "zoe");
    line.say("/help").await;
    assert!(line.next().await.contains("/login NAME TOKEN"), "nothing of what zoe said came before");
    line.say(&format!("/login lewin {TOKEN}")).await;
    line.expect("! login you are lewin").await;
    line.say("/name root").await;
    line.expect_notice("forbidden").await;
    line.say("now it is me that speaks").await;
    line.expect("lewin:now it is me that speaks").await;
    let mut history = Json::connect(&node.ws_url(), &format!("?name=zoe&token={TOKEN}")).await;
    history.join("lobby").await;
    assert!(history.rooms["lobby"].messages.iter().all(|message| message["text"] != "does anybody hear me"));
}

#[tokio::test]
async fn at_the_line_door_tokens_are_not_tried_for_ever() {
    let (_redis, node) = hall(&[]).await;
    let mut line = Line::connect(node.tcp_addr()).await;
    line.expect_notice("unauthorized").await;
    for _ in 0..4 {
        line.say("/login lewin forged-token").await;
        line.expect_notice("unauthorized").await;
    }
    line.say("/login lewin forged-token").await;
    line.expect("! unauthorized too many wrong tokens; good-bye").await;
    assert_eq!(line.next_or_end().await, None);
}

#[tokio::test]
async fn where_guests_are_let_in_too_they_are_marked_and_cannot_take_a_name() {
    let redis = RedisServer::start();
    put(&redis, "zoe", TOKEN);
    let node = Node::start(&["--auth", "guest,ticket", "--redis", &redis.url()]).await;
    let mut guest = Json::connect(&node.ws_url(), "?name=zoe").await;
    assert_eq!(guest.welcome["user"]["name"], "~zoe");
    guest.join("lobby").await;
    let mut plain = Plain::connect(&node.ws_url(), "?name=zoe").await;
    plain.say("I say that I am zoe").await;
    plain.expect("~zoe:I say that I am zoe").await;
    for name in ["~zoe", "~"] {
        let refused = Plain::try_connect(&node.ws_url(), &format!("?name={name}")).await;
        assert_eq!(refused.err().expect("a guest's mark is not chosen").status, 400);
    }
    // Who brings a token means it: a wrong one does not make a guest.
    for way in Way::ALL {
        come(&node, way, "zoe", "forged-token").await.assert_unauthorized();
        assert_eq!(come(&node, way, "zoe", TOKEN).await.let_in().speaks_as().await, "zoe");
    }
}

#[tokio::test]
async fn a_guest_at_the_line_door_who_logs_in_is_a_member_from_then_on_and_no_guest_any_more() {
    let redis = RedisServer::start();
    put(&redis, "zoe", TOKEN);
    let node = Node::start(&["--auth", "guest,ticket", "--redis", &redis.url()]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("ops").await;
    let mut line = Line::connect(node.tcp_addr()).await;
    line.say("/name zoe").await;
    line.expect("! name you are ~zoe").await;
    line.say("/room ops").await;
    line.expect("! room you are in ops").await;
    ada.until_presence("of the guest", |event| event["count"] == 2).await;
    line.say("/login zoe forged-token").await;
    line.expect_notice("unauthorized").await;
    line.say(&format!("/login zoe {TOKEN}")).await;
    line.expect("! login you are zoe").await;
    line.expect("! room you are in ops").await;
    line.say("I am who I say I am").await;
    line.expect("zoe:I am who I say I am").await;
    wait_until("the member is there, and the guest is not", async || ada.who("ops").await == ["zoe", "~ada"]).await;
}

#[tokio::test]
async fn what_nobody_can_be_called_is_refused_as_a_name_and_is_only_a_key_in_redis() {
    let (redis, node) = hall(&[]).await;
    for name in ["a:b", "~zoe", "!x", "x\r\nSET y z", "x\u{0}", &"x".repeat(33)] {
        redis.cli(&["SET", &format!("ChatroomToken{}", name.replace('\0', "")), TOKEN]);
        let outcome = come(&node, Way::PlainQuery, name, TOKEN).await;
        assert!(matches!(outcome, Outcome::Http { status: 400, .. }), "{name:?}: {outcome:?}");
        let outcome = come(&node, Way::JsonQuery, name, TOKEN).await;
        assert!(matches!(outcome, Outcome::Http { status: 400, .. }), "{name:?}: {outcome:?}");
    }
    // An id that could be a guest's is nobody's.
    put(&redis, "guest-c13ab6d19e9e0e16a350e016", TOKEN);
    come(&node, Way::Classic, "guest-c13ab6d19e9e0e16a350e016", TOKEN).await.assert_unauthorized();
    assert_eq!(redis.cli(&["EXISTS", "y"]), "0");
}

#[tokio::test]
async fn who_is_refused_leaves_no_seat_taken() {
    let (redis, node) = hall(&["--max-connections", "3"]).await;
    put(&redis, "lewin", TOKEN);
    for way in Way::ALL.repeat(3) {
        let outcome = come(&node, way, "lewin", "forged-token").await;
        if matches!(outcome, Outcome::Http { status: 503, .. }) {
            continue; // the last ones are still on their way out
        }
        outcome.assert_unauthorized();
    }
    wait_until("there is a seat", async || {
        matches!(come(&node, Way::JsonHeader, "lewin", TOKEN).await, Outcome::In(_))
    })
    .await;
}
