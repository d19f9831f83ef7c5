//! The process as a person, a shell and a container see it: what is refused is refused in one line, before anything is
//! half open; what is secret stays so.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use crate::harness::{Json, Line, Node, PATIENCE, Plain, RedisServer, get, wait_until};

/// A process of the binary with these words and variables, and nothing of our own environment.
struct Process {
    child: Child,
    stderr: NamedTempFile,
}

/// How a process ended.
struct Ended {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Process {
    fn start(words: &[&str], variables: &[(&str, &str)]) -> Process {
        let stderr = NamedTempFile::new().expect("a file for stderr");
        let child = Command::new(env!("CARGO_BIN_EXE_townhall"))
            .args(words)
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(stderr.reopen().expect("the file for stderr"))
            .spawn()
            .expect("the binary starts");
        Process { child, stderr }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).expect("its stderr")
    }

    /// Waits until it has ended by itself.
    fn end(mut self) -> Ended {
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it does not end; it said: {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(5));
        };
        let mut stdout = String::new();
        let pipe = self.child.stdout.as_mut().expect("stdout is piped");
        pipe.read_to_string(&mut stdout).expect("its stdout");
        Ended { code: status.code(), stdout, stderr: self.log() }
    }

    /// Waits for the line that says where it listens.
    async fn opened(&mut self) -> Value {
        let mut opening = Value::Null;
        wait_until("it says where it listens", async || {
            let log = self.log();
            let ended = self.child.try_wait().expect("its state");
            assert!(ended.is_none(), "it ended: {log}");
            let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            opening = lines.into_iter().find(|line| line["listen"].is_string()).unwrap_or_default();
            !opening.is_null()
        })
        .await;
        opening
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn run(words: &[&str], variables: &[(&str, &str)]) -> Ended {
    Process::start(words, variables).end()
}

/// The one line for people on stderr of a process that failed. What collectors get besides is no complaint.
#[track_caller]
fn complaint(ended: &Ended) -> String {
    assert!(ended.code.is_some_and(|code| code != 0), "code {:?}: {}", ended.code, ended.stderr);
    assert_eq!(ended.stdout, "", "{}", ended.stderr);
    let (logged, said): (Vec<&str>, Vec<&str>) = ended.stderr.lines().partition(|line| line.starts_with('{'));
    for line in logged {
        let line: Value = serde_json::from_str(line).expect("a line of the log");
        assert_eq!(line["level"], "INFO", "complained besides: {line}");
    }
    assert_eq!(said.len(), 1, "not one line: {}", ended.stderr);
    assert!(said[0].starts_with("townhall: "), "{}", said[0]);
    said[0].into()
}

#[track_caller]
fn assert_names(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "no {word:?} in: {line}");
    }
}

/// Addresses that were free a moment ago; all at once, so that they differ.
fn free_addresses<const N: usize>() -> [String; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("bound").to_string())
}

#[test]
fn a_wrong_option_is_refused_in_one_line_that_says_what_is_allowed() {
    for (words, named) in [
        (&["--baet", "1s"][..], &["--baet", "--beat"][..]),
        (&["--beat", "soon"], &["--beat", "\"soon\"", "allowed", "1s"]),
        (&["--beat", "-5s"], &["--beat", "\"-5s\"", "allowed"]),
        (&["--beat", "20"], &["--beat", "\"20\"", "allowed", "20s"]),
        (&["--max-text", "big"], &["--max-text", "\"big\"", "allowed", "KiB"]),
        (&["--max-text", "64GiB"], &["--max-text", "\"64GiB\"", "allowed"]),
        (&["--max-frame", "1KiB"], &["--max-frame", "1KiB", "allowed", "--max-text"]),
        (&["--rooms", "lobby,Help Desk"], &["--rooms", "\"Help Desk\"", "allowed", "a-z"]),
        (&["--rooms", ""], &["--rooms", "allowed"]),
        (&["--listen", "8080"], &["--listen", "\"8080\"", "allowed", "127.0.0.1:8080"]),
        (&["--listen", "127.0.0.1:99999"], &["--listen", "\"127.0.0.1:99999\"", "allowed"]),
        (&["--tcp", "yes"], &["--tcp", "\"yes\"", "allowed"]),
        (&["--base-path", "gin/"], &["--base-path", "\"gin/\"", "allowed", "/gin"]),
        (&["--allow-origin", "chat.example"], &["--allow-origin", "\"chat.example\"", "allowed", "scheme://"]),
        (&["--redis", "127.0.0.1:6379"], &["--redis", "allowed", "redis://"]),
        (&["--redis", "http://127.0.0.1:6379"], &["--redis", "http://", "allowed", "redis://"]),
        (&["--redis-wait", "1"], &["--redis-wait", "\"1\"", "--redis"]),
        (&["--redis-ca", "/ca.pem"], &["--redis-ca", "/ca.pem", "with --redis"]),
        (&["--redis", "redis-sentinel://127.0.0.1"], &["--redis", "name is missing", "redis-sentinel://"]),
        (&["--redis", "redis://h", "--redis-ca", "/nowhere/ca.pem"], &["--redis-ca", "/nowhere/ca.pem", "rediss://"]),
        (
            &["--redis", "rediss://h", "--redis-ca", "/nowhere/ca.pem"],
            &["--redis-ca", "/nowhere/ca.pem", "certificates"],
        ),
        (&["--redis-prefix", "a{b}"], &["--redis-prefix", "\"a{b}\"", "allowed"]),
        (&["--redis-file", "/run/nowhere/url"], &["--redis-file", "/run/nowhere/url", "allowed"]),
        (&["--history", "0"], &["--history", "\"0\"", "allowed"]),
        (&["--dedupe", "2h", "--room-ttl", "1h"], &["--dedupe", "2h", "allowed", "--room-ttl"]),
        (&["--max-connections", "many"], &["--max-connections", "\"many\"", "allowed"]),
        (&["--ops", "127.0.0.1:8080"], &["--ops", "127.0.0.1:8080", "--listen", "allowed"]),
        (&["--tcp", "0.0.0.0:8081"], &["--tcp", "0.0.0.0:8081", "--ops", "allowed"]),
        (&["serve", "lobby"], &["lobby", "townhall serve --help"]),
        (&["dance"], &["dance", "townhall --help"]),
        (&["health", "--ops", "8081"], &["--ops", "\"8081\"", "allowed"]),
    ] {
        let ended = run(words, &[]);
        let line = complaint(&ended);
        assert_names(&line, named);
        assert_eq!(ended.stderr.lines().count(), 1, "{words:?}: {}", ended.stderr);
    }
}

#[test]
fn a_wrong_variable_is_called_by_its_name() {
    for (variable, value) in [
        ("TOWNHALL_BEAT", "soon"),
        ("TOWNHALL_ROOMS", "Help Desk"),
        ("TOWNHALL_LISTEN", "everywhere"),
        ("TOWNHALL_MAX_TEXT", "big"),
        ("TOWNHALL_ALLOW_ORIGIN", "null"),
    ] {
        let line = complaint(&run(&[], &[(variable, value)]));
        assert_names(&line, &[variable, value, "allowed"]);
    }
}

#[test]
fn nothing_is_open_after_a_refusal() {
    let [listen, ops, tcp] = free_addresses();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let busy = taken.local_addr().expect("bound").to_string();
    for (option, addresses) in
        [("--listen", [&busy, &ops, &tcp]), ("--ops", [&listen, &busy, &tcp]), ("--tcp", [&listen, &ops, &busy])]
    {
        let [one, two, three] = addresses.map(String::as_str);
        let line = complaint(&run(&["--listen", one, "--ops", two, "--tcp", three], &[]));
        assert_names(&line, &[option, &busy, "in use"]);
        for address in [&listen, &ops, &tcp] {
            TcpListener::bind(address.as_str()).unwrap_or_else(|error| panic!("{address} is not free: {error}"));
        }
    }
}

#[test]
fn an_address_that_is_not_of_this_machine_is_refused() {
    let line = complaint(&run(&["--listen", "192.0.2.1:8080"], &[]));
    assert_names(&line, &["--listen", "192.0.2.1:8080"]);
}

#[test]
fn a_wrong_redis_password_is_refused_and_not_told() {
    let redis = RedisServer::start();
    redis.cli(&["config", "set", "requirepass", "open-sesame"]);
    let [listen, ops] = free_addresses();
    for (password, advice) in [(":hush-hush@", "wrong"), ("", "password"), ("nobody:hush-hush@", "wrong")] {
        let url = format!("redis://{password}127.0.0.1:{}", redis.port());
        let ended = run(&["--listen", &listen, "--ops", &ops, "--redis", &url], &[]);
        let line = complaint(&ended);
        assert_names(&line, &["--redis", &redis.port().to_string(), advice]);
        assert!(!ended.stderr.contains("hush-hush"), "{}", ended.stderr);
        for address in [&listen, &ops] {
            TcpListener::bind(address.as_str()).unwrap_or_else(|error| panic!("{address} is not free: {error}"));
        }
    }
}

/// A server that speaks enough of Redis' protocol to be taken for one of a version of its own choice.
fn redis_of_version(version: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer_commands(client, version));
        }
    });
    address
}

fn answer_commands(client: TcpStream, version: &str) -> Option<()> {
    let mut writer = client.try_clone().ok()?;
    let mut lines = BufReader::new(client).lines().map_while(Result::ok);
    loop {
        let count: usize = lines.next()?.strip_prefix('*')?.parse().ok()?;
        let command: Vec<String> = (0..count).map_while(|_| lines.nth(1)).collect(); // after its length
        let answer = match command.first()?.to_ascii_uppercase().as_str() {
            "PING" => "+PONG\r\n".into(),
            "CLIENT" | "AUTH" | "SELECT" => "+OK\r\n".into(),
            "HELLO" => format!(
                "%3\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${}\r\n{version}\r\n$5\r\nproto\r\n:3\r\n",
                version.len()
            ),
            "INFO" => {
                let info = format!("# Server\r\nredis_version:{version}\r\nrole:master\r\n");
                format!("${}\r\n{info}\r\n", info.len())
            }
            other => format!("-ERR unknown command '{other}'\r\n"),
        };
        writer.write_all(answer.as_bytes()).ok()?;
    }
}

#[test]
fn a_redis_that_is_too_old_is_refused_with_the_version_that_is_needed() {
    let url = format!("redis://{}", redis_of_version("6.2.14"));
    let line = complaint(&run(&["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--redis", &url], &[]));
    assert_names(&line, &["--redis", "6.2.14", "7"]);
}

#[test]
fn what_is_no_redis_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("bound");
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            let _ = client.write_all(b"SSH-2.0-OpenSSH_9.2\r\n");
        }
    });
    let url = format!("redis://{address}");
    let line = complaint(&run(&["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--redis", &url], &[]));
    assert_names(&line, &["--redis", &address.to_string()]);
}

#[tokio::test]
async fn a_redis_that_is_away_is_waited_for() {
    let mut redis = RedisServer::start();
    redis.kill();
    let node = Node::start_unready(&["--redis", &redis.url()]).await;
    wait_until("the node says that Redis is away", async || {
        let lines = node.log();
        let complaints = lines.lines().filter(|line| line.contains("\"WARN\"") || line.contains("\"ERROR\""));
        complaints.clone().count() > 0 && complaints.into_iter().any(|line| line.contains(&redis.port().to_string()))
    })
    .await;
    redis.restart();
    node.wait_ready().await;
}

#[tokio::test]
async fn health_tells_by_its_exit_code_how_a_hall_is() {
    let mut redis = RedisServer::start();
    redis.kill();
    let mut node = Node::start_unready(&["--redis", &redis.url()]).await;
    let ops = node.ops_addr().to_string();
    let lives = run(&["health", "--ops", &ops], &[]);
    assert_eq!(lives.code, Some(0), "{}", lives.stderr);
    assert_eq!(lives.stdout.lines().count(), 1, "{}", lives.stdout);
    let not_ready = run(&["health", "--ready", "--ops", &ops], &[]);
    assert_eq!(not_ready.code, Some(1));
    assert_names(&complaint(&not_ready), &[&ops, "/readyz", "503"]);

    redis.restart();
    node.wait_ready().await;
    let ready = run(&["health", "--ready"], &[("TOWNHALL_OPS", &ops)]);
    assert_eq!(ready.code, Some(0), "{}", ready.stderr);

    node.kill();
    let dead = run(&["health"], &[("TOWNHALL_OPS", &ops)]);
    assert_eq!(dead.code, Some(1));
    assert_names(&complaint(&dead), &[&ops, "/healthz"]);
}

#[test]
fn help_shows_how_to_begin_and_every_option_with_its_variable_and_default() {
    let help = run(&["--help"], &[("TOWNHALL_REDIS", "redis://:hush-hush@h")]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert_names(&help.stdout, &["serve", "health", "townhall serve --help"]);

    let help = run(&["serve", "--help"], &[("TOWNHALL_REDIS", "redis://:hush-hush@h")]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    assert!(!help.stdout.contains("hush-hush"), "{}", help.stdout);
    let text = help.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    for (option, default) in [
        ("--listen", "127.0.0.1:8080"),
        ("--ops", "127.0.0.1:8081"),
        ("--tcp", ""),
        ("--base-path", ""),
        ("--allow-origin", ""),
        ("--redis", ""),
        ("--redis-file", ""),
        ("--redis-prefix", "townhall"),
        ("--rooms", "open"),
        ("--history", "10000"),
        ("--history-budget", "1GiB"),
        ("--room-ttl", "30d"),
        ("--dedupe", "10m"),
        ("--room-window", "1MiB"),
        ("--room-window-messages", "2000"),
        ("--window-budget", "256MiB"),
        ("--max-text", "4KiB"),
        ("--max-frame", "64KiB"),
        ("--max-rooms", "32"),
        ("--rate", "20"),
        ("--burst", "40"),
        ("--handshake-timeout", "10s"),
        ("--beat", "25s"),
        ("--write-timeout", "30s"),
        ("--max-connections", ""),
        ("--drain", "20s"),
    ] {
        let variable = format!("[env: TOWNHALL_{}]", option.trim_start_matches('-').replace('-', "_").to_uppercase());
        let default = if default.is_empty() { String::new() } else { format!(" [default: {default}]") };
        assert_names(&text, &[&format!("{option} "), &format!("{variable}{default}")]);
    }
}

#[tokio::test]
async fn everything_can_be_set_by_variables() {
    let redis = RedisServer::start();
    let mut url_file = NamedTempFile::new().expect("a file");
    writeln!(url_file, "redis://127.0.0.1:{}/3", redis.port()).expect("written");
    let variables = [
        ("TOWNHALL_LISTEN", "127.0.0.1:0"),
        ("TOWNHALL_OPS", "127.0.0.1:0"),
        ("TOWNHALL_TCP", "127.0.0.1:0"),
        ("TOWNHALL_BASE_PATH", "/gin"),
        ("TOWNHALL_ROOMS", "lobby,help"),
        ("TOWNHALL_REDIS_FILE", url_file.path().to_str().expect("a path")),
        ("TOWNHALL_REDIS_PREFIX", "hall"),
        ("TOWNHALL_BEAT", "7s"),
        ("TOWNHALL_MAX_TEXT", "5KiB"),
        ("TOWNHALL_RATE", "11"),
    ];
    let mut hall = Process::start(&[], &variables);
    let opening = hall.opened().await;
    let address = |name: &str| -> SocketAddr {
        let address = opening[name].as_str().and_then(|text| text.parse().ok());
        address.unwrap_or_else(|| panic!("no {name} in {opening}"))
    };
    let ops = address("ops");
    wait_until("the hall is ready", async || get(ops, "/readyz", "").await.is_ok_and(|answer| answer.status == 200))
        .await;

    let url = format!("ws://{}/gin/ws", address("listen"));
    let mut ada = Json::connect(&url, "?name=ada").await;
    assert_eq!(ada.welcome["beat"], 7);
    assert_eq!(ada.welcome["rooms"], serde_json::json!(["lobby", "help"]));
    assert_eq!(ada.welcome["limits"]["text_bytes"], 5 * 1024);
    assert_eq!(ada.welcome["limits"]["rate"], 11);
    ada.join("lobby").await;
    ada.said("lobby", "kept in database 3").await;
    let mut line = Line::connect(address("tcp")).await;
    line.say("through the line door").await;
    ada.hear("lobby", "through the line door").await;
    let keys = redis.cli(&["-n", "3", "keys", "hall:{lobby}:log"]);
    assert_eq!(keys, "hall:{lobby}:log");
    assert_eq!(redis.cli(&["-n", "0", "dbsize"]), "0");
}

#[tokio::test]
async fn a_flag_wins_over_its_variable_and_an_empty_variable_is_none() {
    let variables = [("TOWNHALL_BEAT", "7s"), ("TOWNHALL_REDIS", ""), ("TOWNHALL_TCP", ""), ("TOWNHALL_ROOMS", "")];
    let words = ["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--beat", "9s"];
    let mut hall = Process::start(&words, &variables);
    let opening = hall.opened().await;
    assert!(opening["tcp"].is_null(), "{opening}");
    let url = format!("ws://{}/ws", opening["listen"].as_str().expect("an address"));
    assert_eq!(Json::connect(&url, "?name=ada").await.welcome["beat"], 9);
}

#[tokio::test]
async fn the_start_says_that_memory_is_not_shared() {
    let node = Node::start(&[]).await;
    let log = node.log().to_lowercase();
    assert_names(&log, &["memory", "other replicas will not hear", "--redis"]);
}

#[tokio::test]
async fn comings_and_goings_are_logged_for_who_asks() {
    let words = ["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--tcp", "127.0.0.1:0"];
    for (wanted, logged) in [("townhall=debug", true), ("", false)] {
        let mut hall = Process::start(&words, &[("RUST_LOG", wanted)]);
        let opening = hall.opened().await;
        let tcp = opening["tcp"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        let mut line = Line::connect(tcp).await;
        line.say("here").await;
        line.until(&format!("{}:here", line.address)).await;
        line.say("/quit").await;
        assert_eq!(line.next_or_end().await, None);
        let address = line.address.to_string();
        let about = |log: &str| log.lines().filter(|line| line.contains(&address)).count();
        if logged {
            wait_until("the coming and the going are logged", async || about(&hall.log()) >= 2).await;
        }
        assert_eq!(about(&hall.log()) > 0, logged, "{}", hall.log());
    }
}

#[tokio::test]
async fn secrets_and_texts_are_never_logged() {
    let redis = RedisServer::start();
    redis.cli(&["config", "set", "requirepass", "open-sesame"]);
    let secrets = TempDir::new().expect("a directory");
    let file = secrets.path().join("url");
    std::fs::write(&file, format!("redis://:open-sesame@127.0.0.1:{}\n", redis.port())).expect("written");
    let variables = [("RUST_LOG", "townhall=trace"), ("TOWNHALL_REDIS_FILE", file.to_str().expect("a path"))];
    let words = ["--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--tcp", "127.0.0.1:0"];
    let mut hall = Process::start(&words, &variables);
    let opening = hall.opened().await;
    let address = |name: &str| opening[name].as_str().expect("an address").to_string();
    let ops: SocketAddr = address("ops").parse().expect("an address");
    wait_until("the hall is ready", async || get(ops, "/readyz", "").await.is_ok_and(|answer| answer.status == 200))
        .await;

    let key = "5f0b6c6e-8c2c-4a53-a3a5-0123456789ab";
    let url = format!("ws://{}", address("listen"));
    let query = format!("?name=ada&key={key}&token=query-token");
    let mut ada = Json::connect(&format!("{url}/ws"), &query).await;
    ada.join("lobby").await;
    let mut lewin = Plain::connect(&format!("{url}/chatroom/ws/lewin/path-token"), "").await;
    lewin.say("a word in private").await;
    lewin.expect("lewin:a word in private").await;
    ada.hear("lobby", "a word in private").await;
    ada.send_text("{\"type\":\"say\", a broken word").await;
    ada.until("the refusal", |event| event["code"] == "bad_frame").await;
    let mut line = Line::connect(address("tcp").parse().expect("an address")).await;
    line.say("/login lewin line-token").await;
    line.next().await;
    let refused = format!("{url}/ws?name=a%3Ab&key={key}&token=refused-token");
    Plain::try_connect(&refused, "").await.err().expect("a bad name is refused");
    drop((ada, lewin));

    let log = hall.log();
    // Handshakes are there, as the tutorial prints them: there is something in which secrets could be.
    assert_names(&log, &["/chatroom/ws/lewin/", "127.0.0.1:"]);
    for secret in
        ["open-sesame", key, "query-token", "path-token", "line-token", "refused-token", "in private", "broken word"]
    {
        let line = log.lines().find(|line| line.contains(secret));
        assert!(line.is_none(), "{secret} is in the log: {line:?}");
    }
}

#[test]
fn the_version_is_told() {
    let told = run(&["--version"], &[]);
    assert_eq!(told.stdout, format!("townhall {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(told.code, Some(0));
}

#[test]
fn a_word_that_is_no_text_is_refused() {
    use std::os::unix::ffi::OsStrExt;
    let output = Command::new(env!("CARGO_BIN_EXE_townhall"))
        .arg("--rooms")
        .arg(OsStr::from_bytes(b"\xff\xfe"))
        .env_clear()
        .output()
        .expect("the binary runs");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && !stderr.contains("panicked"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
}
