//! `townhall chat` between pipes: what is piped in is said once and in order, what is said comes out, and whatever goes wrong is
//! a line for people and a code for scripts.

mod at_the_line_door;
mod patience;
mod piped;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use crate::harness::{
    Certificates, Cut, Json, Line, Nginx, NginxKind, Node, RedisServer, doorkeeper, patiently, wait_until,
};

use self::piped::Chat;

fn url(node: &Node) -> String {
    format!("http://{}", node.http())
}

fn line_url(node: &Node) -> String {
    format!("tcp://{}", node.tcp_addr())
}

/// The sample that counts the connections of the JSON door that were closed for this reason.
fn closed(reason: &str) -> String {
    format!(r#"townhall_connections_closed_total{{door="json",reason="{reason}"}}"#)
}

#[track_caller]
fn assert_names(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "no {word:?} in: {line}");
    }
}

fn numbered(count: usize) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

/// What a follower prints of [`numbered`], said by zoe.
fn heard(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("zoe:{number}")).collect()
}

/// Waits until a follower has printed so many lines, however long, as long as it gets on.
async fn follow_to(follower: &Chat, lines: usize) {
    let mut printed = follower.stdout().lines().count();
    while printed < lines {
        printed = follower.prints((printed + 1).min(lines)).await.len();
    }
}

#[tokio::test]
async fn what_is_piped_in_is_accepted_before_it_ends_and_there_for_others() {
    let node = Node::start(&[]).await;
    let ended = Chat::run(&[&url(&node), "--room", "ops"], "hi").await;
    assert_eq!(ended.printed(), Vec::<&str>::new());
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("ops").await;
    ada.hear("ops", "hi").await;
}

#[tokio::test]
async fn the_last_messages_are_printed_and_no_more() {
    let node = Node::start(&["--rate", "0"]).await;
    Chat::run(&[&url(&node), "--name", "zoe"], &numbered(12)).await.printed();
    let last = Chat::run(&[&url(&node), "--last", "5"], "").await;
    assert_eq!(last.printed(), heard(12)[7..]);
    let all = Chat::run(&[&url(&node), "--last", "200"], "").await;
    assert_eq!(all.printed(), heard(12));
}

#[tokio::test]
async fn ten_thousand_lines_arrive_once_and_in_order_over_the_deaths_of_nodes() {
    let redis = RedisServer::start();
    let options = ["--rate", "0", "--redis", &redis.url()];
    let mut nodes = Node::start_many(2, &options).await;
    let watched = Node::start(&options).await;
    let front = Nginx::start(&[nodes[0].port(), nodes[1].port()], NginxKind::RoundRobin).await;
    let follower = Chat::start(&[&url(&watched), "--follow", "--last", "200"]);
    wait_until("the follower is in", async || watched.metric(r#"townhall_connections{door="json"}"#).await == 1.0)
        .await;
    let mut sender = Chat::start(&[&format!("http://{}", front.http()), "--name", "zoe"]);
    sender.feed(&numbered(10_000));
    for death in 0..3 {
        follow_to(&follower, 2000 * (death + 1)).await;
        let (address, victim) = (nodes[death % 2].http().to_string(), &mut nodes[death % 2]);
        victim.kill();
        let again = [&["--listen", &address][..], &options].concat();
        follow_to(&follower, 2000 * (death + 1) + 500).await;
        nodes[death % 2] = Node::start(&again).await;
    }
    follow_to(&follower, 10_000).await;
    let ended = sender.ended().await;
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(0), ""), "{ended:?}");
    assert!(ended.stderr.lines().all(|line| line.ends_with("; trying again")), "{ended:?}");
    assert!(follower.stdout().lines().eq(heard(10_000)), "lost, twice or out of order");
}

#[tokio::test]
async fn lines_wait_for_a_redis_that_hangs_or_dies_and_arrive_once() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let node = Node::start(&["--rate", "0", "--redis", &redis.url()]).await;
    let follower = Chat::start(&[&url(&node), "--follow", "--last", "200"]);
    wait_until("the follower is in", async || node.metric(r#"townhall_connections{door="json"}"#).await == 1.0).await;
    let mut sender = Chat::start(&[&url(&node), "--name", "zoe"]);
    sender.feed(&numbered(1500));
    follow_to(&follower, 300).await;
    redis.pause();
    wait_until("the node misses it", async || node.metric("townhall_broker_up").await == 0.0).await;
    redis.resume();
    follow_to(&follower, 700).await;
    redis.kill();
    wait_until("the node misses it", async || node.metric("townhall_broker_up").await == 0.0).await;
    redis.restart();
    follow_to(&follower, 1500).await;
    assert_eq!(sender.ended().await.printed(), Vec::<&str>::new());
    assert!(follower.stdout().lines().eq(heard(1500)), "lost, twice or out of order");
}

#[tokio::test]
async fn a_follower_moves_with_a_node_that_leaves_and_misses_nothing() {
    let redis = RedisServer::start();
    let options = ["--rate", "0", "--drain", "3s", "--redis", &redis.url()];
    let (east, west) = (Node::start(&options).await, Node::start(&options).await);
    let front = Nginx::start(&[east.port(), west.port()], NginxKind::RoundRobin).await;
    let follower = Chat::start(&[&format!("http://{}", front.http()), "--follow"]);
    let on = async |node: &Node| node.metric(r#"townhall_connections{door="json"}"#).await;
    wait_until("the follower is in", async || on(&east).await + on(&west).await == 1.0).await;
    let (mut left, stays) = if on(&east).await == 1.0 { (east, west) } else { (west, east) };
    let mut zoe = Json::connect(&stays.ws_url(), "?name=zoe").await;
    zoe.join("lobby").await;
    let mut said = 0;
    left.terminate();
    wait_until("the follower has moved", async || {
        said += 1;
        zoe.said("lobby", &said.to_string()).await;
        on(&stays).await == 2.0
    })
    .await;
    let printed = follower.prints(said).await;
    assert_eq!(printed, heard(said));
    left.wait_exit().await;
    assert_eq!(follower.stderr(), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_of_what_is_printed_gets_everything_once_although_the_hall_cuts_it() {
    const MESSAGES: usize = 10_000;
    let node = Node::start(&["--rate", "0", "--write-timeout", "1s"]).await;
    let (mut slow, out) = unread(&[&url(&node), "--follow"]);
    wait_until("the follower is in", async || node.metric("townhall_rooms").await == 1.0).await;
    let padding = "x".repeat(2000);
    let lines: Vec<String> = (1..=MESSAGES).map(|number| format!("{number} {padding}")).collect();
    let mut zoe = Chat::start(&[&url(&node), "--name", "zoe"]);
    zoe.feed(&(lines.join("\n") + "\n"));
    wait_until("the hall has cut the follower", async || node.metric(&closed("too_slow")).await >= 1.0).await;
    zoe.ended().await.printed();
    let all =
        tokio::task::spawn_blocking(move || BufReader::new(out).lines().map_while(Result::ok).take(MESSAGES).collect());
    let all: Vec<String> = patiently("all that was said", all).await.expect("a thread");
    assert!(
        all.iter().eq(lines.iter().map(|line| format!("zoe:{line}")).collect::<Vec<_>>().iter()),
        "lost, twice or out of order"
    );
    slow.kill().expect("it runs");
    slow.wait().expect("its end");
}

/// One whose output we read when we like.
fn unread(words: &[&str]) -> (Child, ChildStdout) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_townhall"));
    command.arg("chat").args(words).env_clear().stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary starts");
    let out = child.stdout.take().expect("piped");
    (child, out)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_follows_a_room_with_jq() {
    let node = Node::start(&["--rate", "0"]).await;
    let script = r#""$0" chat "$1" --room ops --last 10 --follow --json </dev/null |
        jq --unbuffered -r 'select(.type == "message") | "\(.from.name) said \(.text)"' | head -2"#;
    let mut sh = Command::new("sh");
    sh.args(["-c", script, env!("CARGO_BIN_EXE_townhall"), &url(&node)]).env_clear().env("PATH", "/usr/bin:/bin");
    let sh = sh.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("sh");
    let ended = tokio::task::spawn_blocking(move || sh.wait_with_output().expect("its output"));
    let sent = Chat::run(&[&url(&node), "--room", "ops", "--name", "zoe", "--json"], "a \"b\"\nc\n").await;
    let accepted: Vec<Value> = sent.printed().iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let offsets: Vec<_> = accepted.iter().map(|it| (it["type"].as_str(), it["offset"].as_u64())).collect();
    assert_eq!(offsets, [(Some("accepted"), Some(1)), (Some("accepted"), Some(2))]);
    // Who prints to nobody ends as soon as it has something to print; and nobody panics or complains.
    while !ended.is_finished() {
        Chat::run(&[&url(&node), "--room", "ops"], "one more\n").await.printed();
    }
    let ended = ended.await.expect("a thread");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert_eq!((out.as_ref(), err.as_ref()), ("zoe said a \"b\"\nzoe said c\n", ""));
}

#[tokio::test]
async fn the_bot_of_the_manual_answers() {
    let manual = include_str!("../../docs/chat.md");
    let bot = manual.split("```bash\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a bot");
    let binaries = std::path::Path::new(env!("CARGO_BIN_EXE_townhall")).parent().expect("a directory");
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("ops").await;
    let mut bash = Command::new("bash");
    bash.args(["-c", bot]).env_clear().env("TOWNHALL_URL", url(&node)).env("TZ", "UTC").process_group(0);
    bash.env("PATH", format!("{}:/usr/bin:/bin", binaries.display())).stdin(Stdio::null());
    let _bot = Group(bash.spawn().expect("bash"));
    ada.until_presence("of the bot", |presence| presence["count"] == 2).await;
    ada.said("ops", "what time is it?").await;
    ada.said("ops", "!time").await;
    ada.reach("ops", 3).await;
    let texts = ada.texts("ops");
    assert_eq!(texts[..2], ["what time is it?", "!time"]);
    assert!(texts[2].contains("UTC"), "{texts:?}");
}

/// A shell and all that it has started; they end with the test.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", self.0.id())]).status();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_line_that_is_refused_is_named_and_the_others_arrive() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let input = format!("one\n{}\n\ntwo\n{}\nthree", "x".repeat(5000), "y".repeat(100_000));
    for (language, words) in [("C", "line 2 was not sent"), ("zh_CN.UTF-8", "第 2 行未发送")] {
        let ended = Chat::run_in(&[&url(&node)], &[("LC_ALL", language)], &input).await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        let complaints: Vec<&str> = ended.stderr.lines().collect();
        assert_eq!(complaints.len(), 2, "{ended:?}");
        assert_names(complaints[0], &[words, "4096"]);
        assert_names(complaints[1], &["5", "65536"]);
    }
    ada.reach("lobby", 6).await;
    assert_eq!(ada.texts("lobby"), ["one", "two", "three", "one", "two", "three"]);
}

#[tokio::test]
async fn a_room_that_is_not_open_is_refused_at_both_doors_and_nothing_is_said_elsewhere() {
    let node = Node::start(&["--rooms", "lobby"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for address in [url(&node), line_url(&node)] {
        let ended = Chat::run(&[&address, "--room", "ops"], "for ops alone\n").await;
        assert_names(ended.complaint(1), &["no way into ops", "not open to you"]);
    }
    Chat::run(&[&url(&node)], "the next\n").await.printed();
    ada.reach("lobby", 1).await;
    assert_eq!(ada.texts("lobby"), ["the next"]);
}

#[tokio::test]
async fn a_hall_that_is_lost_is_told_with_the_line_that_was_under_way() {
    let redis = RedisServer::start();
    let mut node = Node::start(&["--redis", &redis.url()]).await;
    redis.pause();
    let mut chat = Chat::start(&[&url(&node), "--retry-for", "1s"]);
    chat.say("first");
    redis.resume();
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.hear("lobby", "first").await;
    redis.pause();
    chat.say("second");
    wait_until("the second is under way", async || node.metric("townhall_broker_up").await == 0.0).await;
    node.kill();
    let ended = chat.ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let about: Vec<&str> = ended.stderr.lines().filter(|line| line.contains("line 2")).collect();
    assert_eq!(about, ["townhall: line 2 may not have been said: the line broke"]);
    redis.resume();
}

#[tokio::test]
async fn a_wrong_command_line_is_one_line_and_code_2() {
    for (words, named) in [
        (&["ftp://h"][..], &["URL", "ftp://h", "allowed"][..]),
        (&["http://zoe:pw@h"], &["URL", "--name"]),
        (&["--room", "No Room"], &["--room", "No Room", "allowed"]),
        (&["--name", "a:b"], &["--name", "a:b", "allowed"]),
        (&["--key", "hush"], &["--key", "uuidgen"]),
        (&["--json", "tcp://h"], &["--json", "tcp://h", "allowed"]),
        (&["--last", "5", "tcp://h"], &["--last", "tcp://h", "allowed"]),
        (&["--token", "hush-hush", "--token-file", "/nowhere"], &["--token-file", "--token"]),
        (&["--last", "201"], &["--last", "200"]),
        (&["--retry-for", "soon"], &["--retry-for", "soon"]),
        (&["http://a", "http://b"], &["http://b"]),
    ] {
        let ended = Chat::run(words, "").await;
        let line = ended.complaint(2);
        assert_names(line, named);
        assert!(!line.contains("hush") && !line.contains("pw"), "{line}");
    }
}

#[tokio::test]
async fn whatever_keeps_one_out_is_one_line_that_says_what_to_do() {
    let jwt = ["--auth", "jwt", "--jwt-secret", "a secret of the issuer, and long enough for it"];
    let guarded = Node::start(&jwt).await;
    let node = Node::start(&[]).await;
    let full = Node::start(&["--max-per-address", "1"]).await;
    let _seat = Json::connect(&full.ws_url(), "").await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let stranger = stranger(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n\x1b[2Jpage\r\n").await;
    let moved =
        b"HTTP/1.1 301 Moved Permanently\r\nLocation: https://elsewhere.example/ws\r\nContent-Length: 0\r\n\r\n";
    let moved = self::stranger(moved).await;
    let ssh = self::stranger(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    let of = |address: SocketAddr| format!("http://{address}");
    let cases = [
        (vec![url(&guarded)], &["--token"][..], "令牌"),
        (vec![url(&guarded), "--token".into(), "no-token".into()], &["token", "fresh"], "令牌"),
        (vec![url(&node), "--token-file".into(), "/nowhere".into()], &["/nowhere", "--token-file"], "令牌"),
        (vec![url(&full)], &["--retry-for"], "--retry-for"),
        (vec![of(node.ops_addr())], &["no hall", &node.ops_addr().to_string()], "没有大厅"),
        (vec![of(free)], &[&free.to_string(), "refused"], "无法连接"),
        (vec![format!("tcp://{free}")], &[&free.to_string(), "refused"], "无法连接"),
        (vec!["http://nowhere.invalid".into()], &["nowhere.invalid"], "找不到主机"),
        (vec![format!("https://{}", node.http())], &["TLS", "http://"], "TLS"),
        (vec![of(stranger)], &["200"], "200"),
        (vec![of(moved)], &["https://elsewhere.example/ws", "address"], "https://elsewhere.example/ws"),
        (vec![of(ssh)], &["no hall"], "不是大厅"),
        (vec![of(node.tcp_addr())], &["no hall", "tcp://"], "tcp://"),
    ];
    for (words, named, chinese) in &cases {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ended = Chat::run(&words, "").await;
        assert_names(ended.complaint(1), named);
        let ended = Chat::run_in(&words, &[("LC_ALL", "zh_CN.UTF-8")], "").await;
        assert_names(ended.complaint(1), &[chinese]);
    }
}

#[tokio::test]
async fn a_key_is_not_told_where_the_hall_has_moved() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        let (mut client, _) = listener.accept().await?;
        let mut asked = [0; 4096];
        let read = client.read(&mut asked).await?;
        let asked = String::from_utf8_lossy(&asked[..read]).into_owned();
        let path = asked.split(' ').nth(1).unwrap_or_default();
        let answer = format!("HTTP/1.1 301 Moved\r\nLocation: https://h.example{path}\r\nContent-Length: 0\r\n\r\n");
        client.write_all(answer.as_bytes()).await
    });
    let key = "5f0b6c6e-8c2c-4a53-a3a5-0123456789ab";
    let ended = Chat::run(&[&format!("http://{address}"), "--key", key, "--name", "zoe"], "").await;
    assert_names(ended.complaint(1), &["sends you to https://h.example/ws;"]);
}

#[tokio::test]
async fn who_may_read_only_is_told_so_for_each_line() {
    let secret = "a secret of the issuer, and long enough for it";
    let node = Node::start(&["--auth", "jwt", "--jwt-secret", secret]).await;
    let mut token = Command::new(env!("CARGO_BIN_EXE_townhall"));
    token.args(["token", "zoe", "--role", "reader", "--jwt-secret", secret]).env_clear();
    let reader = String::from_utf8(token.output().expect("it runs").stdout).expect("a token");
    let reader = reader.trim();
    let ended = Chat::run(&[&url(&node), "--token", reader], "hi\n").await;
    assert_names(ended.complaint(1), &["line 1 was not sent", "you may read here, and not speak"]);
}

#[tokio::test]
async fn json_answers_each_line_and_tells_every_event_to_those_who_follow() {
    let node = Node::start(&["--rate", "0", "--max-text", "10"]).await;
    let parsed = |lines: Vec<String>| -> Vec<Value> {
        lines.iter().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    };
    let said = Chat::run(&[&url(&node), "--json"], "one\nmuch too long for it\nthree\n").await;
    assert_eq!((said.code, said.stderr.lines().count()), (Some(1), 1), "{said:?}");
    let answers = parsed(said.stdout.lines().map(str::to_owned).collect());
    let short: Vec<String> =
        answers.iter().map(|it| format!("{} {} {}", it["type"], it["offset"], it["line"])).collect();
    assert_eq!(short, [r#""accepted" 1 null"#, r#""error" null 2"#, r#""accepted" 2 null"#]);
    assert_eq!((&answers[1]["code"], &answers[1]["room"]), (&json!("too_long"), &json!("lobby")));

    let mut follower = Chat::start(&[&url(&node), "--json", "--follow", "--last", "1"]);
    follower.say("mine");
    wait_until("it has spoken", async || follower.stdout().contains("accepted")).await;
    Chat::run(&[&url(&node)], "theirs\n").await.printed();
    let heard = || ["theirs", "presence"].iter().all(|words| follower.stdout().contains(words));
    wait_until("it has heard", async || heard()).await;
    let events = parsed(follower.stdout().lines().map(str::to_owned).collect());
    let types: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(types[..3], ["welcome", "joined", "message"]);
    let texts: Vec<&str> = events.iter().filter_map(|event| event["text"].as_str()).collect();
    assert_eq!(texts, ["three", "mine", "theirs"]);
    assert_eq!(types.iter().filter(|kind| **kind == "accepted").count(), 1, "whichever came first: {types:?}");
    assert!(types.contains(&"presence"), "{types:?}");
}

#[tokio::test]
async fn who_accepts_a_connection_and_says_nothing_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = silent.local_addr().expect("bound");
    let ended = Chat::run(&[&format!("http://{address}")], "").await;
    assert_names(ended.complaint(1), &["does not answer", &address.to_string()]);
}

/// A server of something else: says this to whoever has said something.
async fn stranger(answer: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let _ = client.read(&mut [0; 4096]).await;
                let _ = client.write_all(answer).await;
                let _ = client.shutdown().await;
            });
        }
    });
    address
}

#[tokio::test]
async fn an_output_that_takes_nothing_is_one_line_and_code_1_and_one_that_nobody_reads_is_none() {
    let node = Node::start(&[]).await;
    Chat::run(&[&url(&node), "--name", "zoe"], "hello\n").await.printed();
    for (script, code, complaints) in [
        ("\"$0\" chat \"$1\" --last 5 </dev/null >/dev/full", 1, 1),
        ("\"$0\" chat \"$1\" --last 5 </dev/null | head -c 1 >/dev/null", 0, 0),
        ("{ \"$0\" chat \"$1\" --last 5 </dev/null; echo $? >&2; } 2>&1 >/dev/null | grep -qx 0", 0, 0),
        ("\"$0\" chat \"$1\" --last 5 </dev/null 2>&- >/dev/full", 1, 0),
        ("\"$0\" chat ftp://h </dev/null 2>/dev/full", 2, 0),
        ("\"$0\" chat \"$1\" </tmp", 1, 1),
    ] {
        let words = ["-c", script, env!("CARGO_BIN_EXE_townhall"), &url(&node)];
        let ended = Command::new("sh").args(words).env_clear().env("PATH", "/usr/bin:/bin").output().expect("sh");
        let stderr = String::from_utf8_lossy(&ended.stderr);
        assert_eq!((ended.status.code(), stderr.lines().count()), (Some(code), complaints), "{script}: {stderr}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    let words = ["-c", "echo one | \"$0\" chat \"$1\" --json >/dev/full", env!("CARGO_BIN_EXE_townhall"), &url(&node)];
    for (language, how_far) in [("C", "lines accepted before that: 1"), ("zh_CN.UTF-8", "此前已接受 1 行")] {
        let mut sh = Command::new("sh");
        let ended = sh.args(words).env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", language).output();
        let stderr = ended.expect("sh").stderr;
        assert_names(&String::from_utf8_lossy(&stderr), &[how_far]);
    }
}

#[tokio::test]
async fn signals_end_it_with_their_codes_and_say_which_line_was_under_way() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let follower = Chat::start(&[&url(&node), "--follow", "--last", "1", "--json"]);
        follower.prints(1).await;
        follower.signal(signal);
        let ended = follower.ended().await;
        assert_eq!((ended.code, ended.stderr.as_str()), (Some(code), ""));
    }
    let mut chat = Chat::start(&[&url(&node), "--json"]);
    chat.say("first");
    chat.prints(1).await;
    redis.pause();
    chat.say("second");
    wait_until("the second is under way", async || node.metric("townhall_broker_up").await == 0.0).await;
    chat.signal("INT");
    let ended = chat.ended().await;
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(130), "townhall: line 2 may not have been said\n"));
    redis.resume();
}

#[tokio::test]
async fn a_token_that_expires_is_replaced_by_the_one_in_its_file() {
    use jsonwebtoken::{EncodingKey, Header, encode};
    let secret = "a secret of the issuer, and long enough for it";
    let node = Node::start(&["--auth", "jwt", "--jwt-secret", secret, "--jwt-leeway", "0s"]).await;
    let token = |seconds: u64| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = json!({"sub": "zoe", "exp": now + seconds});
        encode(&Header::default(), &claims, &EncodingKey::from_secret(secret.as_bytes())).expect("a token")
    };
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), token(3)).expect("written");
    let mut chat = Chat::start(&[&url(&node), "--token-file", file.path().to_str().expect("a path"), "--json"]);
    chat.say("before");
    chat.prints(1).await;
    std::fs::write(file.path(), token(3000)).expect("written");
    wait_until("the token has expired", async || node.metric(&closed("token_expired")).await >= 1.0).await;
    chat.say("after");
    chat.end_input();
    let ended = chat.ended().await;
    assert_eq!(ended.printed().len(), 2, "{ended:?}");
}

#[tokio::test]
async fn a_proxy_that_knows_of_no_hall_for_a_moment_is_asked_again() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let not_the_second = |number, _: &str| (number == 1).then_some((404, "default backend"));
    let front = doorkeeper(wire.address(), not_the_second).await;
    let follower = Chat::start(&[&format!("http://{front}"), "--follow", "--last", "5"]);
    wait_until("it is in", async || node.metric("townhall_rooms").await == 1.0).await;
    wire.cut();
    wait_until("it was turned away", async || follower.stderr().contains("no hall at")).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.said("lobby", "hello").await;
    assert_eq!(follower.prints(1).await, ["ada:hello"]);
    let first = doorkeeper(node.http(), |_, _: &str| Some((404, "default backend"))).await;
    let ended = Chat::run(&[&format!("http://{first}"), "--follow", "--retry-for", "1h"], "").await;
    assert_names(ended.complaint(1), &["there is no hall at"]);
}

#[tokio::test]
async fn tls_is_spoken_with_who_is_trusted_and_nobody_else() {
    let node = Node::start(&[]).await;
    let certificates = Certificates::new();
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let tls = format!(
        "server {{ listen {free} ssl; ssl_certificate {}; ssl_certificate_key {};
            location / {{ proxy_pass http://{}; proxy_http_version 1.1; proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }} }}",
        certificates.certificate.display(),
        certificates.key.display(),
        node.http()
    );
    let _front = Nginx::start_with(&[node.port()], NginxKind::RoundRobin, &tls).await;
    let address = format!("wss://{free}/ws");
    let refused = Chat::run(&[&address], "hi\n").await;
    assert_names(refused.complaint(1), &["TLS", "SSL_CERT_FILE"]);
    let plain = Chat::run(&[&format!("ws://{free}/ws")], "hi\n").await;
    assert_names(plain.complaint(1), &["Bad Request"]); // and no HTML
    let trusted = [("SSL_CERT_FILE", certificates.authority())];
    Chat::run_in(&[&address], &trusted, "hi\n").await.printed();
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    ada.hear("lobby", "hi").await;
}

#[tokio::test]
async fn at_the_line_door_what_comes_back_was_accepted_whatever_it_looks_like() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("ops").await;
    let input = "hi  \n/x\n//y\na\tb \u{1}\n";
    Chat::run(&[&line_url(&node), "--room", "ops", "--name", "zoe"], input).await.printed();
    ada.reach("ops", 4).await;
    assert_eq!(ada.texts("ops"), ["hi  ", "/x", "//y", "a\tb "]);
    let ended = Chat::run(&[&line_url(&node), "--room", "ops"], "\u{7}\n").await;
    assert_names(ended.complaint(1), &["line 1", "nothing"]);
    let mut follower = Chat::start(&[&line_url(&node), "--room", "ops", "--follow", "--name", "bea"]);
    follower.say("there");
    ada.hear("ops", "there").await;
    ada.said("ops", "hello").await;
    wait_until("it is printed", async || follower.stdout().lines().any(|line| line == "ada:hello")).await;
}

#[tokio::test]
async fn at_the_line_door_what_the_hall_leaves_out_is_no_reason_to_wait() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let input = "x \u{202e}y\n\u{2066}\u{2069}\nnext\n";
    let ended = Chat::run(&[&line_url(&node)], input).await;
    assert_names(ended.complaint(1), &["line 2 was not sent"]);
    ada.hear("lobby", "next").await;
    assert_eq!(ada.texts("lobby"), ["x y", "next"]);
}

#[tokio::test]
async fn at_the_line_door_another_ones_line_is_not_taken_for_ours() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let door = format!("tcp://{}", listener.local_addr().expect("bound"));
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.expect("a client");
        let (reader, mut writer) = client.into_split();
        let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(reader));
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match line.strip_prefix("/name ") {
                Some(name) => format!("! name you are {name}\n"),
                None => format!("bob:{line}\nbob:al:{line}\n127.0.0.1:7:{line}\n! muted you may not speak here\n"),
            };
            writer.write_all(answer.as_bytes()).await.expect("it reads");
        }
    });
    let ended = Chat::run(&[&door, "--name", "al"], "one\ntwo\n").await;
    let complaints: Vec<&str> = ended.stderr.lines().collect();
    assert_eq!((ended.code, complaints.len()), (Some(1), 2), "{ended:?}");
    assert_names(complaints[0], &["line 1 was not sent"]);
    assert_names(complaints[1], &["line 2 was not sent"]);
}

#[tokio::test]
async fn a_hall_that_stores_nothing_is_given_up_after_as_long_as_was_said() {
    let redis = RedisServer::start();
    let node = Node::start(&["--redis", &redis.url()]).await;
    redis.pause();
    let ended = Chat::run(&[&url(&node), "--retry-for", "3s"], "one\n").await;
    assert_names(ended.complaint(1), &["stores nothing"]);
    redis.resume();
}

#[tokio::test]
async fn a_file_whose_token_is_replaced_late_is_waited_for() {
    let secret = "a secret of the issuer, and long enough for it";
    let node = Node::start(&["--auth", "jwt", "--jwt-secret", secret, "--jwt-leeway", "0s"]).await;
    let token = |life: &str| {
        let mut token = Command::new(env!("CARGO_BIN_EXE_townhall"));
        token.args(["token", "zoe", "--for", life, "--jwt-secret", secret]).env_clear();
        token.output().expect("it runs").stdout
    };
    let file = NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), token("2s")).expect("written");
    let follower = Chat::start(&[&url(&node), "--token-file", file.path().to_str().expect("a path"), "--follow"]);
    wait_until("it complains of the token", async || follower.stderr().contains("does not accept this token")).await;
    std::fs::write(file.path(), token("1h")).expect("written");
    wait_until("it is in again", async || node.metric(r#"townhall_connections{door="json"}"#).await == 1.0).await;
}

#[tokio::test]
async fn at_the_line_door_a_ticket_lets_in_and_a_wrong_one_is_one_line() {
    let redis = RedisServer::start();
    redis.must(&["SET", "ChatroomTokenada", "Zm9v-ticket", "EX", "300"]);
    let node = Node::start(&["--auth", "ticket", "--ticket-redis", &redis.url()]).await;
    let words = [&line_url(&node), "--name", "ada", "--token"];
    Chat::run(&[&words[..], &["Zm9v-ticket"]].concat(), "hi\n").await.printed();
    let refused = Chat::run(&[&words[..], &["YmFy-ticket"]].concat(), "hi\n").await;
    let line = refused.complaint(1);
    assert_names(line, &["token"]);
    assert!(!line.contains("YmFy"), "{line}");
    let without = Chat::run(&[&line_url(&node), "--name", "ada"], "hi\n").await;
    assert_names(without.complaint(1), &["--token"]);
}

#[tokio::test]
async fn a_line_door_that_is_full_or_none_is_one_line() {
    let full = Node::start(&["--max-per-address", "1"]).await;
    let _seat = Line::connect(full.tcp_addr()).await;
    for words in [&[][..], &["--name", "zoe"], &["--follow"]] {
        let ended = Chat::run(&[&[line_url(&full).as_str()], words].concat(), "hi\n").await;
        assert_names(&ended.stderr, &["takes nobody in", "--retry-for"]);
        assert_eq!((ended.code, ended.stdout.as_str(), ended.stderr.lines().count()), (Some(1), "", 1), "{ended:?}");
    }
    let http = format!("tcp://{}", full.http());
    for words in [&[][..], &["--room", "ops"]] {
        let ended = Chat::run(&[&[http.as_str()], words].concat(), "").await;
        assert_names(ended.complaint(1), &["no hall", "http://"]);
    }
}

#[tokio::test]
async fn at_the_line_door_a_line_that_was_under_way_is_reported_and_not_repeated() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.tcp_addr()).await;
    let mut ada = Line::connect(node.tcp_addr()).await;
    let mut chat = Chat::start(&[&format!("tcp://{}", wire.address()), "--name", "zoe"]);
    wire.swallow_next_with("zoe:first");
    chat.say("first");
    ada.until("zoe:first").await;
    wait_until("the answer is lost", async || wire.has_swallowed()).await;
    wire.cut();
    chat.say("second");
    assert_eq!(ada.until("zoe:second").await, Vec::<String>::new(), "the first is not repeated");
    chat.end_input();
    let ended = chat.ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stderr.lines().filter(|line| line.contains("line 1")).count(), 1, "{ended:?}");
}

/// A hall that nobody should trust: lets in, takes the join, and then says this.
pub async fn hostile(frames: Vec<Message>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let _ = entertain(client, frames.clone()).await;
        }
    });
    address
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
async fn entertain(client: TcpStream, frames: Vec<Message>) -> Option<()> {
    let speaks = |_: &Request, mut response: Response| {
        response.headers_mut().insert("Sec-WebSocket-Protocol", "townhall.v1".parse().expect("a header"));
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(client, speaks).await.ok()?;
    let user = json!({"id": "me", "name": "\u{1b}]0;x\u{7}"});
    let welcome = json!({"type": "welcome", "user": user, "beat": 0, "rooms": ["lobby"]});
    socket.send(Message::text(welcome.to_string())).await.ok()?;
    let join: Value = serde_json::from_str(socket.next().await?.ok()?.to_text().ok()?).ok()?;
    let joined =
        json!({"type": "joined", "room": "lobby", "epoch": "e", "offset": 9, "backlog": 9, "ref": join["ref"]});
    socket.send(Message::text(joined.to_string())).await.ok()?;
    for frame in frames {
        socket.send(frame).await.ok()?;
    }
    while socket.next().await?.is_ok() {}
    None
}

#[tokio::test]
async fn nothing_that_a_hostile_hall_says_reaches_a_terminal_raw() {
    let name = "\u{1b}[31mred\u{9b}2J\u{7f}";
    let said = json!({"type": "message", "room": "lobby", "offset": 1, "at": 1,
        "id": "51fd57b2-04fc-47fb-9a88-924d25cc52d9", "from": {"id": "i", "name": name}, "text": "a\u{9b}\u{7f}\u{1b}b\nc"});
    let broken = said.to_string().replacen(',', ",\r\n\t", 3).replacen("\"offset\":1", "\"offset\":2", 1);
    let deep = format!("{{\"type\":\"wave\",\"x\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    let closed = json!({"type": "error", "code": "\u{1b}c", "message": "\u{9b}2J\u{1b}c"});
    let goodbye =
        tokio_tungstenite::tungstenite::protocol::CloseFrame { code: 4003.into(), reason: "\u{1b}[2Jgone".into() };
    let frames = [said.to_string(), broken, deep, closed.to_string()].map(Message::text);
    let frames = frames.into_iter().chain([Message::Close(Some(goodbye))]).collect();
    let address = format!("http://{}", hostile(frames).await);
    for words in [&[&address, "--follow"][..], &[&address, "--follow", "--json"]] {
        let ended = Chat::run(words, "").await;
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.contains("[31mred"), "{ended:?}");
        let raw = |text: &str| text.chars().any(|c| c.is_control() && c != '\n');
        assert!(!raw(&ended.stdout) && !raw(&ended.stderr), "{ended:?}");
        assert_names(&ended.stderr, &["gone", "4003"]);
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        if words.contains(&"--json") {
            let frames: Result<Vec<Value>, _> = ended.stdout.lines().map(serde_json::from_str).collect();
            assert_eq!(frames.expect("JSON")[2]["text"], said["text"]);
        }
    }
}

#[tokio::test]
async fn no_frame_is_too_huge_too_wrong_or_too_early_for_it() {
    let wrong = json!({"type": "message", "room": 7, "offset": "x"});
    let huge = format!("{{\"type\":\"wave\",\"x\":\"{}\"}}", "x".repeat(8 << 20));
    for frame in [wrong.to_string(), huge, "\u{1b}[2J".into()] {
        let address = hostile(vec![Message::text(frame)]).await;
        let ended = Chat::run(&[&format!("http://{address}"), "--retry-for", "1s"], "hi\n").await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(!ended.stderr.contains("panicked") && !ended.stderr.contains('\u{1b}'), "{ended:?}");
    }
}

#[tokio::test]
async fn a_token_and_a_key_in_files_are_nowhere_where_others_look() {
    let node = Node::start(&[]).await;
    let (token, key) = ("hush-hush-token", "5f0b6c6e-8c2c-4a53-a3a5-0123456789ab");
    let files = [token, key].map(|secret| {
        let file = NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), secret).expect("written");
        file
    });
    let paths = files.each_ref().map(|file| file.path().to_str().expect("a path"));
    let words = [&url(&node), "--follow", "--json", "--token-file", paths[0], "--key-file", paths[1]];
    let chat = Chat::start(&words);
    chat.prints(1).await;
    for file in ["cmdline", "environ", "comm"] {
        let read = std::fs::read(format!("/proc/{}/{file}", chat.id())).expect("what others see");
        let read = String::from_utf8_lossy(&read).into_owned() + &chat.stdout() + &chat.stderr();
        assert!(!read.contains(token) && !read.contains(key), "{file}: {read}");
    }
}

#[tokio::test]
async fn help_shows_every_option_and_no_secret_of_the_environment() {
    let secrets = [("TOWNHALL_TOKEN", "hush-hush"), ("TOWNHALL_KEY", "hush-hush")];
    let help = Chat::run_in(&["--help"], &secrets, "").await;
    let text = help.printed().join("\n");
    assert_names(&text, &["--room", "--follow", "--json", "--retry-for", "Exit codes", "TOWNHALL_TOKEN"]);
    assert!(!text.contains("hush"), "{text}");
}
