//! `examples/django` as its README has it: started by its one command, used by people who log in there with a browser.

use std::collections::HashMap;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tempfile::TempDir;

use crate::harness::{Chromium, Json, LOOK_AGAIN, PATIENCE, Person, get, wait_until};

/// A running `examples/django/run` on a free port; stopped as by Ctrl-C when dropped.
struct Site {
    run: Child,
    said: Arc<Mutex<String>>,
    address: SocketAddr,
    /// What its programs leave in temporary places.
    temporary: TempDir,
}

impl Site {
    /// `state`: where it keeps what it keeps.
    async fn start(state: &Path) -> Site {
        loop {
            let mut site = Site::launch(state);
            if site.wait_open().await {
                return site;
            }
        }
    }

    fn launch(state: &Path) -> Site {
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/django");
        assert!(
            example.join(".venv/requirements.txt").exists(),
            "the site's Python libraries are not there: `tests/setup` installs what the tests need"
        );
        let temporary = tempfile::tempdir().expect("a directory for the site");
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("no free port");
        let mut run = Command::new(example.join("run"));
        run.arg(address.port().to_string())
            .env_clear()
            .envs(["PATH", "HOME"].iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .env("TOWNHALL", env!("CARGO_BIN_EXE_townhall"))
            .env("STATE", state)
            .env("RUST_LOG", "townhall=trace") // the most talkative level: no ticket is in it all the same
            .env("TMPDIR", temporary.path());
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let errors = writer.try_clone().expect("the same pipe");
        run.stdin(Stdio::null()).stdout(writer).stderr(errors);
        let child = run.spawn().expect("examples/django/run cannot be started");
        drop(run); // and with it our ends of the pipe
        let said = Arc::new(Mutex::new(String::new()));
        std::thread::spawn({
            let said = said.clone();
            move || keep(reader, &said)
        });
        Site { run: child, said, address, temporary }
    }

    /// Whether it came up; otherwise its port was taken, before it looked or after that.
    async fn wait_open(&mut self) -> bool {
        // Eight programs, one after another.
        let give_up = Instant::now() + 8 * PATIENCE;
        let mut ended = false;
        while !ended && !self.said().contains("until Ctrl-C") {
            assert!(Instant::now() < give_up, "the site does not start: {}", self.said());
            tokio::time::sleep(LOOK_AGAIN).await;
            ended = self.run.try_wait().expect("cannot wait").is_some();
        }
        let taken = ["listens on port", "in use"].iter().any(|words| self.said().contains(words));
        assert!(!ended || taken, "the site did not start: {}", self.said());
        !ended
    }

    fn said(&self) -> String {
        self.said.lock().expect("a reader panicked").clone()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The people and their passwords.
    fn passwords(&self) -> HashMap<String, String> {
        let said = self.said();
        let words = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        words
            .filter_map(|words| match words[..] {
                [name, "password", password] => Some((name.into(), password.into())),
                _ => None,
            })
            .collect()
    }

    /// Where its logs and sockets are.
    fn directory(&self) -> PathBuf {
        self.find_directory().expect("a directory with its sockets")
    }

    fn find_directory(&self) -> Option<PathBuf> {
        let mut entries = std::fs::read_dir(self.temporary.path()).ok()?.flatten();
        entries.find_map(|entry| Some(entry.path()).filter(|path| path.join("redis.sock").exists()))
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory().join(name)).expect("a log")
    }

    /// The processes of the two nodes, as it says itself.
    fn nodes(&self) -> Vec<String> {
        let said = self.said();
        let words: Vec<&str> = said.split(|c: char| c.is_whitespace() || c == ',').collect();
        words.windows(2).filter(|pair| pair[0] == "-9").map(|pair| pair[1].to_owned()).collect()
    }

    /// How many WebSockets each node has.
    async fn crowds(&self) -> Vec<f64> {
        let mut crowds = Vec::new();
        for node in ["node1.log", "node2.log"] {
            let log = self.log(node);
            let ops = log.split("\"ops\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("an address");
            let Ok(metrics) = get(ops.parse().expect("an address"), "/metrics", "").await else {
                crowds.push(0.0); // it is dead
                continue;
            };
            let mut samples =
                metrics.body.lines().filter_map(|line| line.strip_prefix("townhall_connections{door=\"json\"} "));
            crowds.push(samples.next().map_or(0.0, |count| count.parse().expect("a number")));
        }
        crowds
    }

    /// The power cut of one node.
    fn kill_node(&self, number: usize) {
        kill("KILL", &self.nodes()[number]);
    }

    /// Asks the Redis that the site and the hall share.
    fn redis(&self, command: &[&str]) -> String {
        let socket = self.directory().join("redis.sock");
        let answer = Command::new("redis-cli").arg("-s").arg(socket).args(command).output().expect("redis-cli");
        String::from_utf8(answer.stdout).expect("text").trim().into()
    }

    /// A person's ticket; empty when there is none.
    fn ticket(&self, name: &str) -> String {
        self.redis(&["GET", &format!("ChatroomToken{name}")])
    }

    /// Their tickets run out now.
    async fn expire_tickets(&self) {
        let keys = self.redis(&["KEYS", "ChatroomToken*"]);
        for key in keys.lines() {
            let left_s: i64 = self.redis(&["TTL", key]).parse().expect("seconds");
            assert!((1..=300).contains(&left_s), "{key} has {left_s} s");
            self.redis(&["PEXPIRE", key, "1"]);
        }
        wait_until("the tickets are gone", async || self.redis(&["KEYS", "ChatroomToken*"]).is_empty()).await;
    }

    /// Ctrl-C, and what it ended with.
    async fn stop(&mut self, signal: &str) -> ExitStatus {
        kill(signal, &self.run.id().to_string());
        let mut status = None;
        wait_until("the site has ended", async || {
            status = self.run.try_wait().expect("cannot wait");
            status.is_some()
        })
        .await;
        status.expect("it has ended")
    }

    /// Somebody logs in, in a browser of their own, and waits to be in the hall.
    async fn log_in(&self, chromium: &Arc<Mutex<Chromium>>, name: &str) -> Person {
        let person = Person::open(chromium, &self.url("/")).await;
        assert_eq!(person.address().await, self.url("/login/?next=/"));
        self.fill_in(&person, name).await;
        person.wait_connected().await;
        person
    }

    /// Fills in the form of the login page.
    async fn fill_in(&self, person: &Person, name: &str) {
        person.fill("#id_username", name).await;
        person.enter("#id_password", &self.passwords()[name]).await;
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the site says\n{}", self.said());
            let directory = self.find_directory().unwrap_or_default();
            for log in ["nginx.log", "access.log", "site.log", "node1.log", "node2.log"] {
                eprintln!("--- {log}\n{}", std::fs::read_to_string(directory.join(log)).unwrap_or_default());
            }
        }
        // It stops what it started; without it nobody else would.
        if self.run.try_wait().is_ok_and(|status| status.is_none()) {
            let _ = Command::new("kill").arg(self.run.id().to_string()).status();
        }
        let _ = self.run.wait();
    }
}

fn keep(mut from: impl Read, said: &Mutex<String>) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        said.lock().expect("a test panicked").push_str(&String::from_utf8_lossy(&bytes[..read]));
    }
}

fn kill(signal: &str, process: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), process]).status().expect("cannot run kill");
    assert!(sent.success(), "SIG{signal} did not reach {process}");
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// A request for a ticket, as the page makes it.
const ASK: &str = "fetch('/chat/token', {method: 'POST', headers: {'X-CSRFToken': \
                   document.cookie.match(/csrftoken=([^;]*)/)?.[1] ?? document.forms[0].csrfmiddlewaretoken.value}})";

/// A guess at a ticket, and what becomes of it.
const GUESS: &str = "import('/hall/client.js').then(({ Townhall }) => new Promise((resolve) => { \
                     const getToken = async () => ({ name: 'lewin', token: 'guessed' }); \
                     const hall = new Townhall('/hall/ws', { getToken }); \
                     hall.addEventListener('state', ({ detail }) => detail.state === 'closed' && resolve(detail)); \
                     hall.connect(); }))";

/// What makes a request one for a WebSocket.
const HANDSHAKE: &str =
    "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";

#[tokio::test]
async fn two_who_logged_in_talk_on_when_their_tickets_have_run_out_and_a_node_dies() {
    let state = tempfile::tempdir().expect("a directory");
    let site = Site::start(state.path()).await;
    let chromium = Chromium::start();
    let lewin = site.log_in(&chromium, "lewin").await;
    let zoe = site.log_in(&chromium, "zoe").await;
    // nginx deals out requests in turn. How many a page takes is the browser's business, so every other time it is one
    // more.
    let mut one_more = false;
    wait_until("the two are at two nodes", async || {
        let crowds = site.crowds().await;
        if crowds == [2.0, 0.0] || crowds == [0.0, 2.0] {
            if one_more {
                get(site.address, "/hall/healthz", "").await.expect("an answer");
            }
            one_more = !one_more;
            zoe.reload().await;
        }
        crowds == [1.0, 1.0]
    })
    .await;
    zoe.wait_connected().await;

    lewin.say("hello, zoe").await;
    zoe.wait_messages(&texts(&["hello, zoe"])).await;
    zoe.say("<b>hello</b>, lewin & all").await;
    let mut all = texts(&["hello, zoe", "<b>hello</b>, lewin & all"]);
    let mut tickets = vec![site.ticket("lewin"), site.ticket("zoe")];
    for person in [&lewin, &zoe] {
        person.wait_messages(&all).await;
        assert_eq!(person.read("#messages .name").await, ["lewin", "zoe"]);
        assert_eq!(person.read("#messages b").await, Vec::<String>::new(), "markup is text");
        person.assert_content().await;
    }

    site.expire_tickets().await;
    site.kill_node(0);
    // Said at once, whether connected or not: what is not accepted is resent.
    lewin.say("lewin after").await;
    all.push("lewin after".into());
    lewin.wait_messages(&all).await;
    zoe.say("zoe after").await;
    all.push("zoe after".into());
    for person in [&lewin, &zoe] {
        person.wait_messages(&all).await;
        person.wait_connected().await;
        assert_eq!(person.read(".break, .failed").await, Vec::<String>::new(), "nothing was lost");
        person.assert_content_but_for_handshakes().await;
    }
    wait_until("both are at the node that is left", async || site.crowds().await == [0.0, 2.0]).await;

    // Who was at the dead node has a new ticket, and nobody wrote one into a log.
    let new = [site.ticket("lewin"), site.ticket("zoe")].into_iter().filter(|ticket| !ticket.is_empty());
    tickets.extend(new);
    assert_eq!(tickets.len(), 3, "{tickets:?}");
    for (log, seen) in [
        ("access.log", "/hall/ws"),
        ("site.log", "POST /chat/token"),
        ("nginx.log", ""),
        ("node1.log", "sec-websocket-protocol: …"),
        ("node2.log", "sec-websocket-protocol: …"),
    ] {
        let log = site.log(log);
        assert!(log.contains(seen), "no {seen} in {log}");
        assert!(!tickets.iter().any(|ticket| log.contains(ticket)), "a ticket in {log}");
    }
}

#[tokio::test]
async fn without_a_login_there_is_no_ticket_and_after_a_logout_no_way_back() {
    let state = tempfile::tempdir().expect("a directory");
    let site = Site::start(state.path()).await;
    let chromium = Chromium::start();
    let stranger = Person::open(&chromium, &site.url("/")).await;
    assert_eq!(stranger.address().await, site.url("/login/?next=/"));
    assert_eq!(stranger.evaluate(&format!("{ASK}.then((answer) => answer.status)")).await, 401);
    assert_eq!(stranger.evaluate("fetch('/chat/token').then((answer) => answer.status)").await, 405);
    let outside = "fetch('/chat/token', {method: 'POST'}).then((answer) => answer.status)";
    assert_eq!(stranger.evaluate(outside).await, 403);
    stranger.fill("#id_username", "lewin").await;
    stranger.enter("#id_password", "guessed").await;
    stranger
        .wait_read(
            ".errorlist li",
            &["Please enter a correct username and password. Note that both fields may be case-sensitive.".into()],
        )
        .await;

    assert_eq!(stranger.evaluate(GUESS).await["code"], 4001, "and the SDK does not try again");

    let lewin = site.log_in(&chromium, "lewin").await;
    assert_eq!(lewin.evaluate(outside).await, 403, "another site's page cannot ask in lewin's name");
    let ticket = site.ticket("lewin");
    let ws = format!("ws://{}/hall/ws", site.address);
    let query = format!("?name=lewin&token={ticket}");
    drop(Json::connect(&ws, &query).await);

    let other_tab = lewin.tab(&site.url("/")).await;
    other_tab.wait_connected().await;
    other_tab.click("#logout").await;
    wait_until("the ticket is taken back", async || site.ticket("lewin").is_empty()).await;
    let late = get(site.address, &format!("/hall/chatroom/ws/lewin/{ticket}"), HANDSHAKE).await.expect("an answer");
    assert_eq!((late.status, late.body.as_str()), (403, "token wrong."));

    // Who is in stays in, but does not come back.
    assert_eq!(lewin.state().await, "open");
    wait_until("one tab is in the hall", async || site.crowds().await.iter().sum::<f64>() == 1.0).await;
    let at = site.crowds().await.iter().position(|&crowd| crowd == 1.0).expect("a node");
    site.kill_node(at);
    lewin.wait_read("#ended span", &texts(&["You are logged out."])).await;
    assert_eq!(lewin.state().await, "closed");
    assert_eq!(site.ticket("lewin"), "");

    // Those two had their ticket in the address.
    let log = site.log("access.log");
    assert!(log.contains("/hall/ws HTTP") && log.contains("/hall/chatroom/ws/lewin/... HTTP"), "{log}");
    assert!(!log.contains(&ticket), "a ticket in {log}");
}

#[tokio::test]
async fn two_tabs_that_ask_at_the_same_moment_both_come_in() {
    let state = tempfile::tempdir().expect("a directory");
    let site = Site::start(state.path()).await;
    let chromium = Chromium::start();
    let zoe = site.log_in(&chromium, "zoe").await;
    for _ in 0..5 {
        site.expire_tickets().await;
        let tickets = zoe
            .evaluate(&format!("Promise.all(Array.from({{length: 8}}, () => {ASK}.then((answer) => answer.json())))"))
            .await;
        let tickets = tickets.as_array().expect("a list");
        assert_eq!(tickets.len(), 8);
        for ticket in tickets {
            assert_eq!(ticket["name"], "zoe");
            assert_eq!(ticket["token"], site.ticket("zoe"), "each of {tickets:?} is the one that lets in");
        }
    }
}

#[tokio::test]
async fn who_logs_in_as_somebody_else_in_another_tab_speaks_as_that_one_in_both() {
    let state = tempfile::tempdir().expect("a directory");
    let site = Site::start(state.path()).await;
    let chromium = Chromium::start();
    let one = site.log_in(&chromium, "lewin").await;
    let its_node = site.crowds().await.iter().position(|&crowd| crowd == 1.0).expect("a node");
    let other = one.tab(&site.url("/")).await;
    other.click("#logout").await;
    site.fill_in(&other, "zoe").await;
    other.wait_connected().await;
    assert_eq!(one.read("header span").await, ["lewin"]);

    site.kill_node(its_node);
    one.wait_read("header span", &texts(&["zoe"])).await;
    one.wait_connected().await;
    one.say("it is me").await;
    other.wait_messages(&texts(&["it is me"])).await;
    assert_eq!(other.read("#messages .own .name").await, ["zoe"]);
}

#[tokio::test]
async fn the_example_starts_again_and_leaves_nothing_behind() {
    let state = tempfile::tempdir().expect("a directory");
    let mut passwords = Vec::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut site = Site::start(state.path()).await;
        passwords.push(site.passwords());
        let nodes = site.nodes();
        assert_eq!((site.passwords().len(), nodes.len()), (2, 2));
        site.kill_node(0);
        assert_eq!(get(site.address, "/hall/healthz", "").await.expect("an answer").status, 200);
        assert_eq!(site.stop(signal).await.code(), Some(code));
        assert!(get(site.address, "/", "").await.is_err(), "nginx is still there");
        let left: Vec<_> = std::fs::read_dir(site.temporary.path()).expect("a directory").collect();
        assert!(left.is_empty(), "{left:?}");
        for node in nodes {
            assert!(!Path::new("/proc").join(&node).exists(), "node {node} is still there");
        }
    }
    assert_ne!(passwords[0], passwords[1], "passwords are made at every start");
    let mut kept: Vec<_> =
        std::fs::read_dir(state.path()).expect("a directory").flatten().map(|entry| entry.file_name()).collect();
    kept.sort();
    assert_eq!(kept, ["db.sqlite3", "secret-key"]);
}
