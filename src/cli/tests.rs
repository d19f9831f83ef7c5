use super::*;
use crate::config::{AuthSettings, JwtSettings, Secret, TicketKey, TicketSettings};

/// As in a process without variables.
fn read(options: &[&str]) -> Result<Command, String> {
    let grammar = command().mut_subcommands(|sub| sub.mut_args(|option| option.env(Resettable::Reset)));
    let words = ["townhall"].iter().chain(options).map(OsString::from);
    interpret(grammar, words.collect()).map_err(|ending| match ending {
        Ending::Answered(text) => panic!("{options:?} is answered: {text}"),
        Ending::Refused(line) => line,
    })
}

/// The same, with 1,024 files.
fn config(options: &[&str]) -> Result<Config, String> {
    match read(options)? {
        Command::Serve(args) => args.into_config(1024).map_err(|error| error.to_string()),
        _ => panic!("{options:?} is no hall"),
    }
}

/// What `townhall token` would make.
fn order(options: &[&str]) -> Result<String, String> {
    match read(&[&["token"], options].concat())? {
        Command::Token(args) => args.into_order().map(|order| order.to_string()).map_err(|error| error.to_string()),
        _ => panic!("{options:?} makes no token"),
    }
}

fn with(options: &[&str]) -> Config {
    config(options).unwrap_or_else(|line| panic!("{options:?}: {line}"))
}

/// `options` are refused in one line that begins with the option and its value and says what is allowed.
fn refused(options: &[&str], option: &str, value: &str) -> String {
    let line = config(options).expect_err(&options.join(" "));
    assert!(line.starts_with(&format!("{option} {value}: ")), "{line}");
    assert!(line.contains("allowed is"), "{line}");
    assert!(!line.contains('\n'), "{line}");
    line
}

#[test]
fn the_grammar_is_sound() {
    command().debug_assert();
}

#[test]
fn without_options_the_defaults_are_those_of_the_types() {
    assert_eq!(with(&[]), Config::default());
    assert_eq!(with(&["serve"]), Config::default());
}

#[test]
fn serve_is_the_default_command() {
    assert_eq!(with(&["--beat", "5s"]), with(&["serve", "--beat", "5s"]));
    assert_eq!(with(&["--beat", "5s"]).limits.beat, 5 * SECOND);
    let line = config(&["sevre"]).unwrap_err();
    assert!(line.contains("'sevre'; did you mean serve?"), "{line}");
}

#[test]
fn every_option_is_a_variable_too() {
    let grammar = command();
    for sub in grammar.get_subcommands() {
        // What is said of one token, one question or one pipe is nothing for a variable.
        let alone: &[&str] = match sub.get_name() {
            "health" => &["ready"],
            "token" => &["name", "life", "sub", "info", "room", "role", "kid"],
            "chat" => &["follow", "json"],
            _ => &[],
        };
        for option in sub.get_arguments().filter(|option| !alone.contains(&option.get_id().as_str())) {
            let long = option.get_long().unwrap_or(option.get_id().as_str());
            let variable = format!("TOWNHALL_{}", long.replace('-', "_").to_uppercase());
            assert_eq!(option.get_env(), Some(OsStr::new(&variable)));
            assert!(option.get_help().is_some(), "{long}");
            assert!(option.is_hide_env_values_set(), "{long}");
        }
    }
}

#[test]
fn every_option_arrives_at_its_place() {
    let config = with(&[
        "--listen=0.0.0.0:1",
        "--ops=0.0.0.0:2",
        "--tcp=0.0.0.0:3",
        "--base-path=/gin",
        "--allow-origin=https://a.example,http://B.example:8000",
        "--allow-origin=https://c.example:443",
        "--trusted-proxy=10.0.0.0/8,::1",
        "--auth=guest,ticket",
        "--ticket-key=T:<name>",
        "--ticket-once",
        "--redis=redis://:pw@h/3",
        "--redis-prefix=hall",
        "--redis-wait=1",
        "--rooms=lobby,help,lobby",
        "--history=4",
        "--history-budget=5MiB",
        "--room-ttl=6h",
        "--dedupe=7s",
        "--room-window=80KiB",
        "--room-window-messages=9",
        "--window-budget=100KiB",
        "--max-text=11",
        "--max-frame=12KiB",
        "--max-rooms=13",
        "--rate=14",
        "--burst=15",
        "--handshake-timeout=16s",
        "--beat=17s",
        "--write-timeout=18s",
        "--max-connections=19",
        "--max-per-address=21",
        "--presence-grace=22s",
        "--drain=20s",
    ]);
    let everywhere = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let origins = ["a.example", "b.example:8000", "c.example"];
    let rooms = ["lobby", "help"].map(|name| RoomName::parse(name).unwrap());
    let redis =
        RedisSettings { prefix: "hall".into(), wait: 1, ..RedisSettings::new("redis://:pw@h/3".parse().unwrap()) };
    let tickets = TicketSettings { redis: redis.clone(), key: TicketKey::parse("T:<name>").unwrap(), once: true };
    let expected = Config {
        listen: everywhere(1),
        ops: everywhere(2),
        tcp: Some(everywhere(3)),
        base_path: "/gin".into(),
        redis: Some(redis),
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()],
        auth: AuthSettings { guests: true, tickets: Some(tickets), jwt: None },
        origins: AllowedOrigins::Only(origins.map(String::from).into()),
        rooms: Rooms::Only(rooms.into()),
        limits: Limits {
            text: 11,
            frame: 12 * 1024,
            rooms: 13,
            rate: 14,
            burst: 15,
            handshake_timeout: 16 * SECOND,
            beat: 17 * SECOND,
            write_timeout: 18 * SECOND,
            connections: 19,
            per_address: 21,
            room_window: 80 * 1024,
            room_window_messages: 9,
            window_budget: 100 * 1024,
            presence_grace: 22 * SECOND,
            drain: 20 * SECOND,
        },
        history: HistorySettings { messages: 4, room_ttl: 6 * HOUR, dedupe: 7 * SECOND, budget: 5 * 1024 * 1024 },
    };
    assert_eq!(config, expected);
}

#[test]
fn zero_is_taken_where_it_means_something() {
    for option in
        ["history-budget", "room-ttl", "rate", "beat", "write-timeout", "max-per-address", "presence-grace", "drain"]
    {
        with(&[&format!("--{option}=0")]);
    }
    assert_eq!(with(&["--max-connections=0"]), Config::default());
    for option in [
        "history",
        "dedupe",
        "room-window",
        "room-window-messages",
        "window-budget",
        "max-text",
        "max-frame",
        "max-rooms",
        "burst",
        "handshake-timeout",
    ] {
        refused(&[&format!("--{option}=0")], &format!("--{option}"), "\"0\"");
    }
}

#[test]
fn a_wrong_value_is_refused_naming_option_value_and_what_is_allowed() {
    let line = refused(&["--beat", "100ms"], "--beat", "\"100ms\"");
    assert!(line.contains("0, or 1s to 1h"), "{line}");
    let line = refused(&["--max-text", "65KiB"], "--max-text", "\"65KiB\"");
    assert!(line.contains("1B to 64KiB"), "{line}");
    refused(&["--drain", "11m"], "--drain", "\"11m\"");
    refused(&["--beat", "-5s"], "--beat", "\"-5s\"");
    refused(&["--history", "-1"], "--history", "\"-1\"");
    refused(&["--listen", "localhost"], "--listen", "\"localhost\"");
    refused(&["--tcp", "9999"], "--tcp", "\"9999\"");
    refused(&["--base-path", "/gin/"], "--base-path", "\"/gin/\"");
    refused(&["--redis-prefix", "a{b}"], "--redis-prefix", "\"a{b}\"");
    refused(&["--redis-prefix", ""], "--redis-prefix", "\"\"");
    refused(&["--allow-origin", "null"], "--allow-origin", "\"null\"");
    refused(&["--allow-origin", "http://a,b"], "--allow-origin", "\"b\"");
    refused(&["--rooms", "lobby,Help"], "--rooms", "\"Help\"");
    refused(&["--rooms", "lobby,a\nb"], "--rooms", "\"a\\nb\"");
    refused(&["--rooms", "open,lobby"], "--rooms", "\"open,lobby\"");
}

#[test]
fn more_named_rooms_than_a_welcome_holds_are_refused() {
    let list = |rooms: usize| {
        let names: Vec<String> = (0..rooms).map(|n| format!("r{n}")).collect();
        config(&["--rooms", &names.join(",")])
    };
    assert!(list(MAX_NAMED_ROOMS).is_ok());
    assert!(list(MAX_NAMED_ROOMS + 1).is_err());
}

#[test]
fn what_cannot_be_together_is_refused() {
    refused(&["--ops", "127.0.0.1:8080"], "--ops", "\"127.0.0.1:8080\"");
    refused(&["--max-connections", "1024"], "--max-connections", "\"1024\"");
    refused(&["--max-text=64KiB"], "--max-frame", "\"64KiB\"");
}

#[test]
fn other_mistakes_are_one_line_too() {
    for (options, part) in [
        (&["--baet", "5s"][..], "did you mean --beat?"),
        (&["--rooms"], "'--rooms <ROOM>'"),
        (&["--rooms"], "see `townhall serve --help`"),
        (&["foo"], "see `townhall --help`"),
        (&["--beat=5s", "--beat=6s"], "multiple times"),
        (&["serve", "lobby"], "lobby"),
    ] {
        let line = config(options).unwrap_err();
        assert!(line.contains(part), "{line}");
        assert!(!line.contains('\n') && !line.starts_with("error"), "{line}");
    }
}

#[test]
fn the_line_door_opens_alone_or_at_an_address() {
    let tcp = |options: &[&str]| with(options).tcp.map(|address| address.to_string());
    let alone = Some("127.0.0.1:9999".to_owned());
    assert_eq!(tcp(&[]), None);
    assert_eq!(tcp(&["--tcp"]), alone);
    assert_eq!(tcp(&["--tcp", "--rate", "1"]), alone);
    assert_eq!(tcp(&["--tcp=true"]), alone);
    assert_eq!(tcp(&["--tcp=false"]), None);
    assert_eq!(tcp(&["--tcp", "[::]:7"]), Some("[::]:7".into()));
}

#[test]
fn a_star_lets_every_origin_in() {
    let origins = with(&["--allow-origin", "https://a.example,*"]).origins;
    assert_eq!(origins, AllowedOrigins::Any);
}

#[test]
fn the_secret_url_comes_from_a_file_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let good = file("good", "redis://:hush@h/1\n");
    let redis = with(&["--redis-file", &good]).redis.unwrap();
    assert_eq!(redis, RedisSettings::new("redis://:hush@h/1".parse().unwrap()));

    let quoted = format!("{good:?}");
    let line = refused(&["--redis=redis://:hush@h", "--redis-file", &good], "--redis-file", &quoted);
    assert!(!line.contains("hush"), "{line}");
    let bad = file("bad", "hush");
    let line = refused(&["--redis-file", &bad], "--redis-file", "(not shown)");
    assert!(!line.contains("hush"), "{line}");
    let line = refused(&["--redis", "http://:hush@h"], "--redis", "\"http://…\"");
    assert!(!line.contains("hush"), "{line}");

    let missing = folder.path().join("missing");
    let missing = missing.to_str().unwrap();
    refused(&["--redis-file", missing], "--redis-file", &format!("{missing:?}"));
}

#[test]
fn the_table_has_a_row_for_every_option() {
    let table = options_table("serve");
    assert!(table.contains("| `--beat DURATION` | `TOWNHALL_BEAT` | `25s` | "), "{table}");
    assert!(table.contains("| `--tcp [ADDR]` | `TOWNHALL_TCP` | none | "), "{table}");
    let serve = command().find_subcommand("serve").unwrap().clone();
    assert_eq!(table.matches("| `--").count(), serve.get_arguments().count(), "{table}");
    for group in ["Doors", "Broker", "Rooms and history", "Limits", "Leaving"] {
        assert_eq!(table.matches(&format!("**{group}**\n")).count(), 1, "{table}");
    }
}

const SECRET: &str = "0123456789abcdef0123456789abcdef";

fn file_with(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, text).unwrap();
    file
}

#[test]
fn what_lets_people_in_arrives_at_its_place() {
    let key = file_with("-----BEGIN PUBLIC KEY-----");
    let auth = with(&[
        "--auth=jwt,ticket",
        "--redis=redis://rooms",
        "--ticket-redis=redis://site/2",
        "--jwt-secret",
        SECRET,
        "--jwt-key",
        key.path().to_str().unwrap(),
        "--jwt-jwks=https://issuer.example/keys",
        "--jwt-aud=hall,cellar",
        "--jwt-iss=https://issuer.example",
        "--jwt-leeway=5s",
    ])
    .auth;
    let jwt = JwtSettings {
        secret: Some(Secret::new(SECRET.into())),
        key: Some(b"-----BEGIN PUBLIC KEY-----".to_vec()),
        jwks: Some("https://issuer.example/keys".into()),
        audiences: vec!["hall".into(), "cellar".into()],
        issuers: vec!["https://issuer.example".into()],
        leeway: 5 * SECOND,
    };
    let redis = RedisSettings::new("redis://site/2".parse().unwrap());
    let tickets = TicketSettings { redis, key: TicketKey::parse(TicketKey::DEFAULT).unwrap(), once: false };
    assert_eq!(auth, AuthSettings { guests: false, tickets: Some(tickets), jwt: Some(jwt) });
}

#[test]
fn a_way_in_is_refused_that_is_none_or_has_nothing_to_go_by() {
    for (options, value) in [
        (&["--auth="][..], "\"\""),
        (&["--auth=guest,"], "\"\""),
        (&["--auth=Ticket"], "\"Ticket\""),
        (&["--auth=ticket"], "\"ticket\""),
        (&["--auth=guest,jwt"], "\"jwt\""),
    ] {
        refused(options, "--auth", value);
    }
    let jwt = "--auth=jwt";
    refused(&["--auth=ticket", "--redis=redis://h", "--ticket-key=key"], "--ticket-key", "\"key\"");
    refused(&[jwt, "--jwt-secret", SECRET, "--jwt-leeway=11m"], "--jwt-leeway", "\"11m\"");
    refused(&[jwt, "--jwt-key=/nowhere/key.pem"], "--jwt-key", "\"/nowhere/key.pem\"");
    refused(&[jwt, "--jwt-secret-file=/run/nowhere/secret"], "--jwt-secret-file", "\"/run/nowhere/secret\"");
}

#[test]
fn what_says_how_tokens_are_checked_is_refused_where_none_are() {
    for (option, way, shown) in [
        ("--ticket-once=true", "ticket", "\"true\""),
        ("--ticket-redis=redis://:hush@h", "ticket", "(not shown)"),
        ("--ticket-redis-file=/run/url", "ticket", "\"/run/url\""),
        ("--jwt-secret=hush", "jwt", "(not shown)"),
        ("--jwt-secret-file=/run/secret", "jwt", "\"/run/secret\""),
        ("--jwt-key=/run/key.pem", "jwt", "\"/run/key.pem\""),
        ("--jwt-jwks=https://me:hush@issuer", "jwt", "(not shown)"),
        ("--jwt-aud=hall,cellar", "jwt", "\"hall,cellar\""),
        ("--jwt-iss=issuer", "jwt", "\"issuer\""),
    ] {
        let name = option.split('=').next().unwrap();
        let other = if way == "jwt" { "--auth=guest,ticket" } else { "--auth=guest,jwt" };
        for auth in ["--auth=guest", other] {
            let line = refused(&[auth, option], name, shown);
            assert!(line.ends_with(&format!("allowed is that with {way} in it")), "{line}");
            assert!(!line.contains("hush"), "{line}");
        }
    }
}

#[test]
fn a_secret_is_long_enough_and_is_no_key_and_is_never_shown() {
    fn jwt<'a>(options: &[&'a str]) -> Vec<&'a str> {
        [&["--auth=jwt", "--listen=0.0.0.0:8080"], options].concat()
    }
    with(&jwt(&["--jwt-secret", SECRET]));
    with(&["--auth=jwt", "--jwt-secret=short"]);
    with(&["--auth=jwt", "--jwt-secret=short", "--listen=[::1]:8080", "--tcp"]);
    let line = refused(&jwt(&["--jwt-secret", &SECRET[1..]]), "--jwt-secret", "(not shown)");
    assert!(line.contains("31 bytes") && line.contains("32 or more") && line.contains("--listen"), "{line}");
    for open in ["--tcp=0.0.0.0:9", "--trusted-proxy=127.0.0.1"] {
        refused(&["--auth=jwt", "--jwt-secret=short", open], "--jwt-secret", "(not shown)");
    }
    let pem = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n";
    for (option, secret) in [
        ("--jwt-secret-file", "hunter2hunter2hunter2"),
        ("--jwt-secret-file", "q83vEjRWeJASNFZ4/kBI0VniQEjRWeJASNFZ4kBI0Vng="),
        ("--jwt-key", pem),
        ("--redis-file", "redis://:hunter2@redis.example:6379/0"),
    ] {
        let line = config(&jwt(&[&format!("{option}={secret}")])).unwrap_err();
        assert!(line.starts_with(&format!("{option} (not shown): that is no file")), "{line}");
    }
    let file = file_with(&format!("{SECRET}\n"));
    let path = file.path().to_str().unwrap();
    assert_eq!(with(&jwt(&["--jwt-secret-file", path])).auth.jwt.unwrap().secret, Some(Secret::new(SECRET.into())));
    refused(&jwt(&["--jwt-secret", SECRET, "--jwt-secret-file", path]), "--jwt-secret-file", &format!("{path:?}"));
    refused(&["--auth=jwt", "--jwt-secret="], "--jwt-secret", "(not shown)");
    for key in ["-----BEGIN PUBLIC KEY-----\nMCow", "-----BEGIN PRIVATE KEY-----\nMCow"] {
        let line = refused(&jwt(&[&format!("--jwt-secret={key}")]), "--jwt-secret", "(not shown)");
        assert!(line.contains("--jwt-key") && !line.contains("MCow"), "{line}");
        let file = file_with(key);
        refused(&jwt(&["--jwt-secret-file", file.path().to_str().unwrap()]), "--jwt-secret-file", "(not shown)");
    }
}

#[test]
fn the_issuers_keys_are_at_an_address_with_a_host() {
    for good in ["http://127.0.0.1:8000/keys", "https://issuer.example/keys?v=1", "https://[::1]/"] {
        assert_eq!(with(&["--auth=jwt", "--jwt-jwks", good]).auth.jwt.unwrap().jwks.as_deref(), Some(good));
    }
    for bad in ["issuer.example/keys", "ftp://issuer.example/", "https://", "https:///keys", "file:///keys", "a b", ""]
    {
        refused(&["--auth=jwt", "--jwt-jwks", bad], "--jwt-jwks", &format!("{bad:?}"));
    }
    let line = refused(&["--auth=jwt", "--jwt-jwks=ftp://me:hush@h/"], "--jwt-jwks", "(not shown)");
    assert!(!line.contains("hush"), "{line}");
}

#[test]
fn certificates_are_for_either_redis_that_speaks_tls() {
    let file = file_with("-----BEGIN CERTIFICATE-----");
    let ca = format!("--redis-ca={}", file.path().to_str().unwrap());
    let ca_of = |options: &[&str]| {
        let config = with(&[&["--auth=ticket", &ca], options].concat());
        let rooms = config.redis.is_some_and(|redis| redis.ca.is_some());
        (rooms, config.auth.tickets.unwrap().redis.ca.is_some())
    };
    assert_eq!(ca_of(&["--redis=rediss://a"]), (true, true));
    assert_eq!(ca_of(&["--ticket-redis=rediss://b"]), (false, true));
    assert_eq!(ca_of(&["--redis=redis://a", "--ticket-redis=rediss://b"]), (false, true));
    assert_eq!(ca_of(&["--redis=rediss://a", "--ticket-redis=redis://b"]), (true, false));
    for (options, words) in [
        (&["--redis=redis://a"][..], "--redis is no rediss:// URL"),
        (&["--auth=ticket", "--ticket-redis=redis://b"], "--ticket-redis is no rediss:// URL"),
        (&["--auth=ticket", "--redis=redis://a", "--ticket-redis=redis://b"], "neither --redis nor --ticket-redis"),
        (&[], "with --redis, and there is none"),
    ] {
        let line = config(&[&[&ca[..]], options].concat()).unwrap_err();
        assert!(line.starts_with("--redis-ca ") && line.contains(words), "{line}");
    }
    for bad in ["localhost:6379", "redis://:hush@", "http://:hush@h"] {
        let shown = bad.split_once("://").map_or("(not shown)".into(), |(scheme, _)| format!("\"{scheme}://…\""));
        let line = refused(&["--auth=ticket", "--ticket-redis", bad], "--ticket-redis", &shown);
        assert!(!line.contains("hush"), "{line}");
    }
}

#[test]
fn a_token_is_made_as_its_options_say_and_a_ticket_where_there_is_redis() {
    let jwt = ["zoe", "--jwt-secret", SECRET];
    assert_eq!(order(&jwt).unwrap(), r#"signed with HS256, good for 1h: {"name":"zoe","sub":"zoe"}"#);
    let all = ["--sub=7", "--info={\"a\":1}", "--room=lobby,team-*", "--room=x", "--role=reader", "--for=90s"];
    let whom = ["--aud=hall", "--iss=me,them", "--kid=k"];
    assert_eq!(
        order(&[&jwt[..], &all, &whom].concat()).unwrap(),
        r#"signed with HS256, good for 90s: {"aud":"hall","info":{"a":1},"iss":"me","name":"zoe","role":"reader","rooms":["lobby","team-*","x"],"sub":"7"}"#
    );
    let ticket = "a ticket, ChatroomTokenzoe in Redis at redis://h:6379/0, good for 5m";
    assert_eq!(order(&[" zoe ", "--redis=redis://h"]).unwrap(), ticket);
    assert_eq!(
        order(&["zoe", "--auth=guest,ticket", "--redis=redis://x", "--ticket-redis=redis://h"]).unwrap(),
        ticket
    );
    let both = ["zoe", "--redis=redis://:hush@h", "--jwt-secret", SECRET];
    assert!(order(&[&both[..], &["--auth=jwt"]].concat()).unwrap().starts_with("signed"));
    let made = order(&[&both[..], &["--auth=ticket", "--ticket-key=t:<name>", "--for=1h"]].concat()).unwrap();
    assert_eq!(made, "a ticket, t:zoe in Redis at redis://:***@h:6379/0, good for 1h");
    for auth in [&[][..], &["--auth=jwt,ticket"]] {
        let line = order(&[&both[..], auth].concat()).unwrap_err();
        assert!(line.starts_with("--auth ") && line.contains("allowed is one of"), "{line}");
    }
}

#[test]
fn a_token_that_the_hall_would_refuse_is_not_made() {
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(1100));
    let long_name = "x".repeat(33);
    for (option, begins) in [
        ("--info=[]", "--info \"[]\": allowed is a JSON object"),
        ("--info={", "--info \"{\": allowed is"),
        (&format!("--info={long}"), "--info \"{"),
        ("--room=Lobby", "--room \"Lobby\": allowed is"),
        ("--sub=guest-0a1b", "--sub \"guest-0a1b\": allowed is"),
        ("--sub=", "--sub \"\": allowed is"),
        ("--for=0s", "--for \"0s\": allowed is 1s to 365d"),
        ("--auth=guest", "--auth \"guest\": guests need no token; allowed is"),
        ("--jwt-private-key=/k.pem", "--jwt-private-key \"/k.pem\": --jwt-secret is given, too"),
    ] {
        let line = order(&["zoe", "--jwt-secret", SECRET, option]).expect_err(option);
        assert!(line.starts_with(begins) && !line.contains('\n'), "{line}");
        assert!(!line.contains(SECRET), "{line}");
    }
    for name in ["a:b", "~zoe", "", &long_name] {
        let line = order(&[name, "--jwt-secret", SECRET]).expect_err(name);
        assert!(line.starts_with(&format!("NAME {name:?}: allowed is this: a name is")), "{line}");
    }
    for redis in ["--redis=redis://h", "--jwt-secret=0123456789abcdef"] {
        let line = order(&["guest-0a1b", redis]).unwrap_err();
        assert!(line.starts_with("NAME \"guest-0a1b\": allowed is"), "{line}");
    }
    let many: Vec<String> = (0..65).map(|n| format!("--room=r{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(order(&[&["zoe", "--jwt-secret", SECRET], &many[..]].concat()).unwrap_err().contains("at most 64"));
    for claim in ["--sub=x", "--info={}", "--room=x", "--role=x", "--kid=x"] {
        let line = order(&["zoe", "--redis=redis://h", claim]).expect_err(claim);
        assert!(line.starts_with(claim.split('=').next().unwrap()) && line.contains("a ticket says nothing"), "{line}");
    }
    for (options, words) in [
        (&["zoe"][..], "nothing is given to make it with"),
        (&["zoe", "--auth=ticket"], "--ticket-redis"),
        (&["zoe", "--auth=jwt"], "--jwt-private-key"),
        (&["zoe", "--jwt-private-key=/nowhere.pem"], "\"/nowhere.pem\": cannot be read"),
        (&[], "<NAME>; see `townhall token --help`"),
        (&["zoe", "ada"], "'ada'"),
    ] {
        let line = order(options).unwrap_err();
        assert!(line.contains(words) && !line.contains('\n'), "{line}");
    }
}
