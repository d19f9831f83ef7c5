use super::*;

/// What `change` makes of the defaults is refused with a line that names `option`.
fn refused(option: &str, change: impl FnOnce(&mut Config)) -> String {
    let mut config = Config::default();
    change(&mut config);
    let line = config.check(1024).unwrap_err().to_string();
    assert!(line.starts_with(&format!("{option} \"")), "{line}");
    assert!(line.contains("allowed is"), "{line}");
    line
}

#[test]
fn the_defaults_may_be() {
    assert_eq!(Config::default().check(1024), Ok(()));
    assert_eq!(Limits::connections_within(1024), 921);
}

#[test]
fn doors_do_not_share_a_port() {
    let listen: SocketAddr = "127.0.0.1:8080".parse().unwrap();
    refused("--ops", |config| config.ops = listen);
    refused("--tcp", |config| config.tcp = Some(listen));
    refused("--tcp", |config| config.tcp = Some(config.ops));
    refused("--ops", |config| config.ops = "0.0.0.0:8080".parse().unwrap());
    refused("--ops", |config| config.ops = "[::]:8080".parse().unwrap());

    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let free = Config { listen: any, ops: any, tcp: Some(any), ..Config::default() };
    assert_eq!(free.check(1024), Ok(()));
    let other_address = Config { ops: "127.0.0.2:8080".parse().unwrap(), ..Config::default() };
    assert_eq!(other_address.check(1024), Ok(()));
}

#[test]
fn sizes_fit_into_one_another() {
    let line = refused("--max-frame", |config| config.limits.frame = 17 * 1024 - 1);
    assert!(line.contains("--max-text 4KiB"), "{line}");
    refused("--room-window", |config| config.limits.room_window = 17 * 1024 - 1);
    refused("--window-budget", |config| config.limits.window_budget = config.limits.room_window - 1);
    let mut tight = Config::default();
    tight.limits.frame = 17 * 1024;
    tight.limits.room_window = 17 * 1024;
    tight.limits.window_budget = 17 * 1024;
    assert_eq!(tight.check(1024), Ok(()));
}

#[test]
fn ids_are_not_kept_longer_than_their_room() {
    let minute = Duration::from_secs(60);
    refused("--dedupe", |config| config.history.room_ttl = minute);
    let mut endless = Config::default();
    endless.history.room_ttl = Duration::ZERO;
    assert_eq!(endless.check(1024), Ok(()));
}

#[test]
fn there_are_no_more_connections_than_files() {
    refused("--max-connections", |config| config.limits.connections = 929);
    let mut config = Config::default();
    config.limits.connections = 928;
    assert_eq!(config.check(1024), Ok(()));
    for nofile in [0, 1, 20, 1024, u64::MAX] {
        config.limits.connections = Limits::connections_within(nofile);
        assert_eq!(config.check(nofile), Ok(()), "{nofile}");
    }
}

#[test]
fn a_base_path_is_plain() {
    for good in ["", "/gin", "/a/b.c", "/~me/hall_2", "/websocket"] {
        assert_eq!(base_path(good).as_deref(), Some(good));
    }
    let long = format!("/{}", "x".repeat(128));
    for bad in [
        "/",
        "gin",
        "/gin/",
        "//",
        "/a//b",
        "/..",
        "/a/../b",
        "/.",
        "/a b",
        "/{x}",
        "/*x",
        "/a?b",
        "/a#b",
        "/ä",
        "/ws",
        "/chatroom/x",
        &long,
    ] {
        assert_eq!(base_path(bad), None, "{bad}");
    }
}

#[test]
fn origins_are_compared_by_host_and_port() {
    let authority = |origin| AllowedOrigins::authority(origin);
    for (origin, expected) in [
        ("https://Chat.Example.org", "chat.example.org"),
        ("https://chat.example.org:443", "chat.example.org"),
        ("http://chat.example.org:80", "chat.example.org"),
        ("http://chat.example.org:443", "chat.example.org:443"),
        ("http://localhost:3000", "localhost:3000"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("https://[::1]", "[::1]"),
        ("capacitor://localhost", "localhost"),
    ] {
        assert_eq!(authority(origin).as_deref(), Some(expected), "{origin}");
    }
    for bad in [
        "null",
        "",
        "chat.example.org",
        "https://",
        "https://a/",
        "https://a/b",
        "https://a:",
        "https://a:+1",
        "https://a:65536",
        "https://u@a",
        "https://*.a",
        "https://[::1",
        "https://[a]",
        "https://[::1]x",
        "://a",
        "1://a",
        "https://a b",
    ] {
        assert_eq!(authority(bad), None, "{bad}");
    }
}

#[test]
fn a_password_is_in_no_debug_output() {
    let url = "redis://me:hush@[::1]:6380/2".parse().unwrap();
    let config = Config { redis: Some(RedisSettings::new(url)), ..Config::default() };
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn a_listener_for_everybody_is_reached_on_loopback() {
    for (address, expected) in [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
        let address = reachable(address.parse().unwrap());
        assert_eq!(address.to_string(), expected);
    }
}

#[test]
fn files_are_raised_to_what_the_system_allows() {
    let raised = raise_nofile();
    let (soft, hard) = rlimit::getrlimit(rlimit::Resource::NOFILE).unwrap();
    assert_eq!((soft, raised), (hard, hard));
}
