//! What a hall says when it has opened: where it is, how to come in by each door, what is kept where.
//!
//! Somebody at a terminal reads [`greeting`]; a collector gets the same facts as one line, [`log_opening`].

use std::fmt::Write as _;
use std::net::SocketAddr;

use crate::config::{AllowedOrigins, Config, Rooms, reachable};
use crate::measure::{duration_text, size_text};
use crate::names::RoomName;

/// Where the listeners are, now that they have their ports.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    pub listen: SocketAddr,
    pub ops: SocketAddr,
    pub tcp: Option<SocketAddr>,
}

/// For people. `broker` is what is known of the broker's server (`Redis 7.0.15`, `not heard yet`), or empty.
pub fn greeting(config: &Config, bound: &Bound, broker: &str) -> String {
    let mut text = String::new();
    let page = page_url(config, bound);
    // Writing to a String cannot fail.
    let _ = writeln!(text, "Townhall {} is open: {page}{}", env!("CARGO_PKG_VERSION"), reach(bound.listen));
    let _ =
        writeln!(text, "大厅已开门：用浏览器打开 {page} 即可进来；无论走哪扇门，听到的都是同样的话、同样的顺序。\n");
    for (what, how) in doors(config, bound) {
        let _ = writeln!(text, "  {what:<11}{how}");
    }
    let _ = writeln!(text, "\n{}\n", keeping(config, broker));
    for (what, how) in facts(config, bound) {
        let _ = writeln!(text, "  {what:<11}{how}");
    }
    text
}

/// For collectors: the facts of [`greeting`] as one line of the log.
pub fn log_opening(config: &Config, bound: &Bound, broker: &str) {
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        listen = %bound.listen,
        ops = %bound.ops,
        tcp = bound.tcp.map(tracing::field::display),
        page = page_url(config, bound),
        auth = auth(config),
        history = config.redis.as_ref().map_or("memory".into(), |redis| redis.url.to_string()),
        redis_prefix = config.redis.as_ref().map(|redis| redis.prefix.as_str()),
        broker,
        rooms = rooms(config),
        connections = config.limits.connections,
        per_address = config.limits.per_address,
        "{}",
        keeping(config, broker)
    );
}

/// The chat page, as this machine reaches it.
fn page_url(config: &Config, bound: &Bound) -> String {
    format!("http://{}{}/", reachable(bound.listen), config.base_path)
}

fn reach(listen: SocketAddr) -> &'static str {
    if listen.ip().is_unspecified() {
        " (and at every address of this machine)"
    } else if listen.ip().is_loopback() {
        " (this machine only; --listen 0.0.0.0:PORT lets others in)"
    } else {
        ""
    }
}

fn doors(config: &Config, bound: &Bound) -> Vec<(&'static str, String)> {
    let page = page_url(config, bound);
    let room = first_room(config);
    let token = if config.auth.guests { "" } else { "&token=TOKEN" };
    let socket = format!("ws://{}{}/ws?room={room}&name=lewin{token}", reachable(bound.listen), config.base_path);
    let lines = match bound.tcp.map(reachable) {
        Some(tcp) if !config.auth.guests => format!("nc {} {}   then /login NAME TOKEN", tcp.ip(), tcp.port()),
        Some(tcp) if room.as_str() == "lobby" => format!("nc {} {}", tcp.ip(), tcp.port()),
        Some(tcp) => format!("nc {} {}   then /room {room}", tcp.ip(), tcp.port()),
        None => "closed; --tcp opens it".into(),
    };
    vec![
        ("browser", format!("{page}   as in the tutorial: {page}chatroom")),
        ("console", format!("ws = new WebSocket('{socket}'); ws.onmessage = e => console.log(e.data)")),
        ("", "then ws.send('hello'), in the console of that page".into()),
        ("websocat", format!("websocat '{socket}'")),
        ("nc", lines),
    ]
}

/// The room that the examples go to.
fn first_room(config: &Config) -> RoomName {
    let lobby = RoomName::lobby();
    match &config.rooms {
        Rooms::Only(rooms) if !rooms.contains(&lobby) => rooms.first().cloned().unwrap_or(lobby),
        _ => lobby,
    }
}

/// What is kept where, and what that means. The memory's limits are said loudly: they surprise whoever starts a second replica.
fn keeping(config: &Config, broker: &str) -> String {
    let history = &config.history;
    let room = match history.room_ttl {
        ttl if ttl.is_zero() => "for ever".into(),
        ttl => format!("until {} after the last", duration_text(ttl)),
    };
    let kept = format!("{} messages a room, {room}", history.messages);
    match &config.redis {
        None => format!(
            "HISTORY IS IN MEMORY ONLY: it is lost when this process ends, and other replicas will not hear this one. \
             --redis URL keeps it and makes all replicas one hall. Kept here: {kept}."
        ),
        Some(redis) => {
            let known = match broker {
                "" => String::new(),
                known => format!(" ({known})"),
            };
            format!(
                "History is in Redis at {}{known}, prefix {}; every replica with the same is one hall. Kept there: {kept}.",
                redis.url, redis.prefix
            )
        }
    }
}

fn facts(config: &Config, bound: &Bound) -> Vec<(&'static str, String)> {
    let limits = &config.limits;
    let ops = reachable(bound.ops);
    let rate = match limits.rate {
        0 => "any number of commands a second".into(),
        rate => format!("{rate} commands a second",),
    };
    let of_one = match limits.per_address {
        0 => String::new(),
        most => format!(", {most} of one address"),
    };
    vec![
        ("operations", format!("http://{ops}/metrics   /healthz   /readyz")),
        ("people", auth(config)),
        ("rooms", rooms(config)),
        ("origins", origins(config)),
        (
            "limits",
            format!(
                "{} a text, {rate} and {} rooms a connection, {} connections{of_one}",
                size_text(limits.text as u64),
                limits.rooms,
                limits.connections
            ),
        ),
        ("leaving", format!("Ctrl-C sends everybody on within {}; twice leaves at once", duration_text(limits.drain))),
    ]
}

/// Who may come in.
fn auth(config: &Config) -> String {
    let auth = &config.auth;
    let mut ways = Vec::new();
    if auth.guests {
        ways.push(
            if auth.marks_guests() { "guests, whose names begin with ~" } else { "anybody, under any name" }.into(),
        );
    }
    if let Some(tickets) = &auth.tickets {
        let once = if tickets.once { ", good for once" } else { "" };
        ways.push(format!(
            "whoever brings the ticket that is in Redis at {} under {}{once}",
            tickets.redis.url, tickets.key
        ));
    }
    if let Some(jwt) = &auth.jwt {
        let keys = [
            jwt.secret.is_some().then_some("--jwt-secret"),
            jwt.key.is_some().then_some("--jwt-key"),
            jwt.jwks.is_some().then_some("--jwt-jwks"),
        ];
        let keys: Vec<&str> = keys.into_iter().flatten().collect();
        ways.push(format!("whoever brings a token that is signed by a key of {}", keys.join(" or ")));
    }
    ways.join("; ")
}

fn rooms(config: &Config) -> String {
    match &config.rooms {
        Rooms::Open => "any that somebody names".into(),
        Rooms::Only(rooms) => {
            let names: Vec<&str> = rooms.iter().map(RoomName::as_str).collect();
            names.join(", ")
        }
    }
}

fn origins(config: &Config) -> String {
    let loopback = if config.origins_of_this_machine() { ", and any of this machine" } else { "" };
    match &config.origins {
        AllowedOrigins::Any => "pages of every origin may come in".into(),
        AllowedOrigins::Only(others) if others.is_empty() => format!("the hall's own{loopback}"),
        AllowedOrigins::Only(others) => format!("the hall's own, {}{loopback}", others.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{AuthSettings, JwtSettings, RedisSettings, Secret, TicketKey, TicketSettings};

    fn bound() -> Bound {
        Bound { listen: "127.0.0.1:8080".parse().unwrap(), ops: "127.0.0.1:8081".parse().unwrap(), tcp: None }
    }

    fn with_redis() -> Config {
        Config {
            redis: Some(RedisSettings {
                prefix: "hall".into(),
                ..RedisSettings::new("redis://:hush@h:1/2".parse().unwrap())
            }),
            ..Config::default()
        }
    }

    #[test]
    fn the_first_lines_say_where_the_hall_is_in_two_languages() {
        let text = greeting(&Config::default(), &bound(), "");
        let mut lines = text.lines();
        assert!(lines.next().unwrap().contains("is open: http://127.0.0.1:8080/ (this machine only"));
        assert!(lines.next().unwrap().contains("用浏览器打开 http://127.0.0.1:8080/ "));
        assert!(text.lines().all(|line| line == line.trim_end()), "{text}");
    }

    #[test]
    fn every_door_is_named_with_what_to_type() {
        let closed = greeting(&Config::default(), &bound(), "");
        assert!(closed.contains("websocat 'ws://127.0.0.1:8080/ws?room=lobby&name=lewin'"), "{closed}");
        assert!(closed.contains("new WebSocket('ws://127.0.0.1:8080/ws?"), "{closed}");
        assert!(closed.contains("http://127.0.0.1:8080/chatroom"), "{closed}");
        assert!(closed.contains("--tcp opens it"), "{closed}");

        let everywhere =
            Bound { listen: "[::]:80".parse().unwrap(), tcp: Some("0.0.0.0:9999".parse().unwrap()), ..bound() };
        let config = Config {
            base_path: "/gin".into(),
            rooms: Rooms::Only(vec![RoomName::parse("help").unwrap()]),
            ..Config::default()
        };
        let open = greeting(&config, &everywhere, "");
        assert!(open.contains("http://[::1]:80/gin/ (and at every address"), "{open}");
        assert!(open.contains("ws://[::1]:80/gin/ws?room=help&"), "{open}");
        assert!(open.contains("nc 127.0.0.1 9999   then /room help"), "{open}");
        assert!(!open.contains("0.0.0.0"), "{open}");
    }

    #[test]
    fn who_may_come_in_is_said_without_what_lets_them_in() {
        assert!(greeting(&Config::default(), &bound(), "").contains("people     anybody, under any name"));
        let redis = RedisSettings::new("redis://:hush@h:1/2".parse().unwrap());
        let key = TicketKey::parse(TicketKey::DEFAULT).unwrap();
        let jwt = JwtSettings {
            secret: Some(Secret::new("hush".into())),
            key: None,
            jwks: Some("https://issuer.example/keys?hush".into()),
            audiences: Vec::new(),
            issuers: Vec::new(),
            leeway: std::time::Duration::ZERO,
        };
        let auth =
            AuthSettings { guests: false, tickets: Some(TicketSettings { redis, key, once: true }), jwt: Some(jwt) };
        let config = Config { auth: auth.clone(), ..Config::default() };
        let open = Bound { tcp: Some("127.0.0.1:9999".parse().unwrap()), ..bound() };
        let text = greeting(&config, &open, "");
        assert!(!text.contains("hush"), "{text}");
        assert!(text.contains("redis://:***@h:1/2 under ChatroomToken<name>, good for once; "), "{text}");
        assert!(text.contains("signed by a key of --jwt-secret or --jwt-jwks"), "{text}");
        assert!(text.contains("&name=lewin&token=TOKEN'"), "{text}");
        assert!(text.contains("nc 127.0.0.1 9999   then /login NAME TOKEN"), "{text}");
        let config = Config { auth: AuthSettings { guests: true, ..auth }, ..Config::default() };
        let text = greeting(&config, &open, "");
        assert!(text.contains("guests, whose names begin with ~; whoever"), "{text}");
        assert!(!text.contains("TOKEN'"), "{text}");
    }

    #[test]
    fn memory_is_said_loudly() {
        let text = greeting(&Config::default(), &bound(), "memory");
        assert!(text.contains("IN MEMORY ONLY"), "{text}");
        assert!(text.contains("other replicas will not hear this one"), "{text}");
        assert!(text.contains("10000 messages a room, until 30d after the last"), "{text}");
    }

    #[test]
    fn redis_is_named_without_its_password() {
        let text = greeting(&with_redis(), &bound(), "Redis 7.0.15");
        assert!(text.contains("redis://:***@h:1/2 (Redis 7.0.15), prefix hall;"), "{text}");
        assert!(!text.contains("hush") && !text.contains("MEMORY"), "{text}");
    }

    #[test]
    fn the_log_has_the_same_facts_and_no_password() {
        let page = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(page.reopen().unwrap());
        let lines = tracing_subscriber::fmt().json().flatten_event(true);
        let subscriber = lines.with_writer(writer).finish();
        tracing::subscriber::with_default(subscriber, || {
            log_opening(&with_redis(), &bound(), "Redis 7.0.15");
        });
        let text = std::io::read_to_string(page).unwrap();
        assert!(!text.contains("hush"), "{text}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["listen"], "127.0.0.1:8080");
        assert_eq!(line["ops"], "127.0.0.1:8081");
        assert_eq!(line["tcp"], serde_json::Value::Null);
        assert_eq!(line["history"], "redis://:***@h:1/2");
    }
}
