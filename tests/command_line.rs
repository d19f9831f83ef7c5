//! The binary's command line, as a shell, a container and a person see it: variables, exit codes, one line on stderr.

use std::process::{Command, Output};

fn townhall(options: &[&str], variables: &[(&str, &str)]) -> Output {
    let ours = std::env::vars_os().map(|(name, _)| name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_townhall"));
    for name in ours.filter(|name| name.to_string_lossy().starts_with("TOWNHALL_")) {
        command.env_remove(name);
    }
    command.env_remove("RUST_LOG");
    command.args(options).envs(variables.iter().copied());
    command.output().expect("the binary runs")
}

/// The one line on stderr of a process that ended with `code` and printed nothing else.
fn line(output: Output, code: i32) -> String {
    let said = String::from_utf8(output.stderr).expect("stderr is text");
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.matches('\n').count(), 1, "{said}");
    assert!(said.starts_with("townhall: "), "{said}");
    said.trim_end().to_owned()
}

#[test]
fn a_wrong_option_is_one_line_and_exit_code_2() {
    let said = line(townhall(&["--beat", "soon"], &[]), 2);
    assert!(said.starts_with("townhall: --beat \"soon\": allowed is 0, or 1s to 1h"), "{said}");
    let said = line(townhall(&["serve", "--baet", "1s"], &[]), 2);
    assert!(said.contains("did you mean --beat?"), "{said}");
    let said = line(townhall(&["--ops", "127.0.0.1:8080"], &[]), 2);
    assert!(said.starts_with("townhall: --ops \"127.0.0.1:8080\": --listen"), "{said}");
}

#[test]
fn a_wrong_variable_is_called_by_its_name() {
    let said = line(townhall(&[], &[("TOWNHALL_ROOM_WINDOW", "big")]), 2);
    assert!(said.starts_with("townhall: TOWNHALL_ROOM_WINDOW \"big\": "), "{said}");
    let said = line(townhall(&[], &[("TOWNHALL_TCP", "yes")]), 2);
    assert!(said.starts_with("townhall: TOWNHALL_TCP \"yes\": "), "{said}");
    let said = line(townhall(&[], &[("TOWNHALL_ROOMS", "lobby,Help")]), 2);
    assert!(said.starts_with("townhall: TOWNHALL_ROOMS \"Help\": "), "{said}");
    let said = line(townhall(&[], &[("RUST_LOG", "a=loud")]), 2);
    assert!(said.starts_with("townhall: RUST_LOG \"a=loud\": "), "{said}");
}

#[test]
fn a_flag_wins_over_its_variable() {
    let said = line(townhall(&["--drain", "1y"], &[("TOWNHALL_DRAIN", "2y")]), 2);
    assert!(said.starts_with("townhall: --drain \"1y\": "), "{said}");
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let variables = [
        ("TOWNHALL_REDIS", ""),
        ("TOWNHALL_TCP", ""),
        ("TOWNHALL_BEAT", ""),
        ("TOWNHALL_DRAIN", "1y"), // so that no hall opens here
    ];
    let said = line(townhall(&[], &variables), 2);
    assert!(said.starts_with("townhall: TOWNHALL_DRAIN \"1y\": "), "{said}");
}

#[test]
fn a_redis_url_and_its_file_do_not_come_together() {
    let variables = [("TOWNHALL_REDIS", "redis://:hush@h"), ("TOWNHALL_REDIS_FILE", "/run/url")];
    let said = line(townhall(&[], &variables), 2);
    assert!(said.starts_with("townhall: --redis-file \"/run/url\": --redis is given"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

#[test]
fn help_shows_commands_and_options_but_no_secrets() {
    let secret = [("TOWNHALL_REDIS", "redis://:hush@h")];
    let help = townhall(&["--help"], &secret);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    assert!(text.contains("health") && text.contains("townhall serve --help"), "{text}");

    let help = townhall(&["serve", "--help"], &secret);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    assert!(text.contains("TOWNHALL_REDIS") && !text.contains("hush"), "{text}");
    for group in ["Doors:", "Broker:", "Rooms and history:", "Limits:", "Leaving:"] {
        assert!(text.contains(group), "{text}");
    }
}

#[test]
fn the_version_is_told() {
    let output = townhall(&["--version"], &[]);
    let expected = format!("townhall {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn health_of_nobody_is_one_line_and_exit_code_1() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let everywhere = format!("0.0.0.0:{port}");
    let said = line(townhall(&["health", "--ready"], &[("TOWNHALL_OPS", &everywhere)]), 1);
    assert!(said.starts_with(&format!("townhall: http://127.0.0.1:{port}/readyz: ")), "{said}");
}
