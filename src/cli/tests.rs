use super::*;

/// As in a process without variables, and with 1,024 files.
fn config(options: &[&str]) -> Result<Config, String> {
    let grammar = command().mut_subcommands(|sub| sub.mut_args(|option| option.env(Resettable::Reset)));
    let words = ["townhall"].iter().chain(options).map(OsString::from);
    match interpret(grammar, words.collect()) {
        Ok(Command::Serve(args)) => args.into_config(1024).map_err(|error| error.to_string()),
        Ok(Command::Health(_)) => panic!("{options:?} is health"),
        Err(Ending::Answered(text)) => panic!("{options:?} is answered: {text}"),
        Err(Ending::Refused(line)) => Err(line),
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
        for option in sub.get_arguments().filter(|option| option.get_id() != "ready") {
            let long = option.get_long().unwrap();
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
    let table = options_table();
    assert!(table.contains("| `--beat DURATION` | `TOWNHALL_BEAT` | `25s` | "), "{table}");
    assert!(table.contains("| `--tcp [ADDR]` | `TOWNHALL_TCP` | none | "), "{table}");
    let serve = command().find_subcommand("serve").unwrap().clone();
    assert_eq!(table.matches("| `--").count(), serve.get_arguments().count(), "{table}");
    for group in ["Doors", "Broker", "Rooms and history", "Limits", "Leaving"] {
        assert_eq!(table.matches(&format!("**{group}**\n")).count(), 1, "{table}");
    }
}
