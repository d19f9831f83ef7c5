//! The pages in a real Chromium, as people use them: what they type and what they then see.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::harness::{Json, Nginx, NginxKind, Node, Plain, RedisServer, get, wait_until};

/// A Chromium and the Node process that moves it, by tests/browser/driver.mjs; both end when this is dropped.
struct Chromium {
    node: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Chromium {
    fn start() -> Arc<Mutex<Chromium>> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser");
        let chromium = std::env::var("CHROMIUM").unwrap_or_else(|_| "/usr/bin/chromium".into());
        let advice = "`tests/setup` installs what the tests need";
        assert!(
            Path::new(&chromium).exists(),
            "no Chromium at {chromium}: install Debian's package `chromium`, or set CHROMIUM to another one; {advice}"
        );
        assert!(
            directory.join("node_modules/playwright-core").exists(),
            "no playwright-core: run `npm ci` in {}; {advice}",
            directory.display()
        );
        let mut node = Command::new("node")
            .arg("driver.mjs")
            .current_dir(directory)
            .env("CHROMIUM", chromium)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("no `node` ({error}): install Debian's package `nodejs`; {advice}"));
        let commands = node.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(node.stdout.take().expect("stdout is piped"));
        Arc::new(Mutex::new(Chromium { node, commands, answers }))
    }

    fn ask(&mut self, command: &Value) -> Value {
        writeln!(self.commands, "{command}").expect("the driver has ended");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the driver answers");
        assert!(!line.is_empty(), "the driver ended at {command}; its words are above");
        let answer: Value = serde_json::from_str(&line).expect("an answer is JSON");
        assert!(answer["error"].is_null(), "{}", answer["error"].as_str().unwrap_or_default());
        answer["value"].clone()
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.node.kill(); // its Chromium ends with the pipe between them
        let _ = self.node.wait();
    }
}

/// Somebody with a browser of their own, looking at one page.
struct Person {
    chromium: Arc<Mutex<Chromium>>,
    who: Value,
}

impl Person {
    async fn open(chromium: &Arc<Mutex<Chromium>>, url: &str) -> Person {
        let mut person = Person { chromium: chromium.clone(), who: Value::Null };
        person.who = person.act(json!({"action": "open", "url": url})).await;
        person
    }

    /// The driver's pipe blocks; the clocks of the test go on meanwhile.
    async fn act(&self, mut command: Value) -> Value {
        command["who"] = self.who.clone();
        let chromium = self.chromium.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut chromium = chromium.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            chromium.ask(&command)
        });
        asked.await.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()))
    }

    async fn visit(&self, url: &str) {
        self.act(json!({"action": "goto", "url": url})).await;
    }

    async fn reload(&self) {
        self.act(json!({"action": "reload"})).await;
    }

    async fn enter(&self, field: &str, text: &str) {
        self.act(json!({"action": "fill", "at": field, "text": text})).await;
        self.act(json!({"action": "press", "at": field, "key": "Enter"})).await;
    }

    /// What stands at a selector now.
    async fn read(&self, at: &str) -> Vec<String> {
        let texts = self.act(json!({"action": "read", "at": at})).await;
        serde_json::from_value(texts).expect("texts")
    }

    async fn wait_read(&self, at: &str, expected: &[String]) {
        let mut seen = Vec::new();
        let shown = wait_until("a page shows what it should", async || {
            seen = self.read(at).await;
            seen == expected
        });
        let in_time = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(shown)).await;
        assert!(in_time.is_ok(), "{at} of {} shows {seen:?} and not {expected:?}", self.who);
    }

    async fn assert_content(&self) {
        let complaints = self.act(json!({"action": "complaints"})).await;
        assert_eq!(complaints, json!([]), "the page of {} complains", self.who);
    }

    /// As [`Person::assert_content`], where handshakes may have failed: Chromium puts each into the console.
    async fn assert_content_but_for_handshakes(&self) {
        let complaints = self.act(json!({"action": "complaints"})).await;
        let complaints: Vec<String> = serde_json::from_value(complaints).expect("texts");
        let others = complaints.iter().filter(|complaint| !complaint.contains("WebSocket connection to"));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    }

    // The hall's own page:

    /// Opens the page and waits until it is connected; `name` as typed.
    async fn come_in(chromium: &Arc<Mutex<Chromium>>, url: &str, name: &str) -> Person {
        let person = Person::open(chromium, url).await;
        person.wait_connected().await;
        person.enter("#name", name).await;
        person.wait_connected().await;
        person
    }

    async fn wait_connected(&self) {
        let attribute = json!({"action": "attribute", "at": "body", "name": "data-state"});
        wait_until("the page is connected", async || self.act(attribute.clone()).await == "open").await;
    }

    async fn say(&self, text: &str) {
        self.enter("#text", text).await;
    }

    /// The texts of all messages on the page, oldest first; those that are on their way too.
    async fn wait_messages(&self, expected: &[String]) {
        self.wait_read("#view .message .text", expected).await;
        self.wait_read("#unsent .message", &[]).await;
    }
}

/// Two nodes of one hall, and nginx in front of them.
struct Hall {
    nodes: Vec<Node>,
    front: Nginx,
    _redis: RedisServer,
}

impl Hall {
    async fn open() -> Hall {
        let redis = RedisServer::start();
        let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
        let ports: Vec<u16> = nodes.iter().map(Node::port).collect();
        let front = Nginx::start(&ports, NginxKind::RoundRobin).await;
        Hall { nodes, front, _redis: redis }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.front.http())
    }

    /// Has `person` come back until the two are at two nodes. nginx deals out requests in turn, so that which node a
    /// socket gets depends on how many files the page has: one request more makes it the other.
    async fn spread(&self, door: &str, person: &Person) {
        let sample = format!("townhall_connections{{door=\"{door}\"}}");
        wait_until("the two are at two nodes", async || {
            let at = [self.nodes[0].metric(&sample).await, self.nodes[1].metric(&sample).await];
            if at[0] + at[1] == 2.0 && at[0] != at[1] {
                get(self.front.http(), "/healthz", "").await.expect("an answer");
                person.reload().await;
            }
            at == [1.0, 1.0]
        })
        .await;
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn two_people_at_two_nodes_talk_through_the_page() {
    let hall = Hall::open().await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &hall.url("/"), "ada").await;
    let bea = Person::come_in(&chromium, &hall.url("/"), "bea").await;
    hall.spread("json", &bea).await;
    bea.wait_connected().await;

    ada.say("hello, bea").await;
    bea.wait_messages(&texts(&["hello, bea"])).await;
    bea.say("<b>hello</b>, ada & all").await;
    let both = texts(&["hello, bea", "<b>hello</b>, ada & all"]);
    ada.wait_messages(&both).await;
    bea.wait_messages(&both).await;
    for person in [&ada, &bea] {
        assert_eq!(person.read("#view .message .name").await, ["ada", "bea"]);
        assert_eq!(person.read("#view .message b").await, Vec::<String>::new(), "markup is text");
        person.assert_content().await;
    }
    assert_eq!(ada.read("#view .message.own .text").await, ["hello, bea"]);
    assert_eq!(ada.read("#text").await, [""], "what was said is not said again");
}

#[tokio::test]
async fn somebody_who_reloads_misses_nothing_and_sees_nothing_twice() {
    let hall = Hall::open().await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &hall.url("/"), "ada").await;
    let bea = Person::come_in(&chromium, &hall.url("/"), "bea").await;
    hall.spread("json", &bea).await;
    let mut said = Vec::new();
    let mut say = async |from: usize| {
        for number in from..from + 5 {
            let text = format!("number {number}");
            ada.say(&text).await;
            said.push(text);
        }
        said.clone()
    };
    let first = say(1).await;
    bea.wait_messages(&first).await;

    bea.visit("about:blank").await;
    let second = say(6).await;
    ada.wait_messages(&second).await; // accepted while nobody else is there
    bea.visit(&hall.url("/")).await;
    bea.wait_messages(&second).await;

    let (third, ()) = tokio::join!(say(11), async {
        for _ in 0..3 {
            bea.reload().await;
        }
    });
    bea.wait_messages(&third).await;
    ada.wait_messages(&third).await;
    assert_eq!(bea.read("#name").await, ["bea"], "the name is kept");
    bea.say("and I can still talk").await;
    ada.wait_messages(&[third, texts(&["and I can still talk"])].concat()).await;
    ada.assert_content().await;
    bea.assert_content().await;
}

#[tokio::test]
async fn a_node_dies_and_both_go_on() {
    let mut hall = Hall::open().await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &hall.url("/"), "ada").await;
    let bea = Person::come_in(&chromium, &hall.url("/"), "bea").await;
    hall.spread("json", &bea).await;
    ada.say("before").await;
    bea.wait_messages(&texts(&["before"])).await;

    hall.nodes[0].kill();
    // Said at once, whether connected or not: what is not accepted is resent.
    ada.say("ada after").await;
    ada.wait_messages(&texts(&["before", "ada after"])).await;
    bea.say("bea after").await;
    let all = texts(&["before", "ada after", "bea after"]);
    for person in [&ada, &bea] {
        person.wait_messages(&all).await;
        person.wait_connected().await;
        assert_eq!(person.read("#view .break").await, Vec::<String>::new(), "nothing was lost");
        person.assert_content_but_for_handshakes().await;
    }
}

#[tokio::test]
async fn the_page_hears_every_other_door() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &format!("http://{}/", node.http()), "ada").await;
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    lewin.say("from a console").await;
    lewin.expect("lewin:from a console").await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    script.said("lobby", "from a script").await;
    ada.wait_messages(&texts(&["from a console", "from a script"])).await;
    ada.say("from a page").await;
    lewin.until("ada:from a page").await;
    script.hear("lobby", "from a page").await;
    ada.assert_content().await;
}

#[tokio::test]
async fn the_tutorials_page_talks_and_shows_its_notices() {
    let mut hall = Hall::open().await;
    let chromium = Chromium::start();
    let lewin = Person::open(&chromium, &hall.url("/chatroom?name=lewin")).await;
    let opened = texts(&["[提示] 成功连接服务器\n"]);
    lewin.wait_read("#output", &opened).await;
    let zhang = Person::open(&chromium, &hall.url("/chatroom?name=%E5%BC%A0%E4%B8%89&token=any")).await;
    zhang.wait_read("#output", &opened).await;
    hall.spread("plain", &zhang).await;
    zhang.wait_read("#output", &opened).await;

    zhang.enter("#input", "你好").await; // who hears itself has joined
    zhang.wait_read("#output", &texts(&["[提示] 成功连接服务器\n张三:你好\n"])).await;
    lewin.wait_read("#output", &texts(&["[提示] 成功连接服务器\n张三:你好\n"])).await;
    lewin.enter("#input", "hello").await;
    let talk = texts(&["[提示] 成功连接服务器\n张三:你好\nlewin:hello\n"]);
    lewin.wait_read("#output", &talk).await;
    zhang.wait_read("#output", &talk).await;
    lewin.wait_read("#input", &texts(&[""])).await;

    hall.nodes[0].kill();
    hall.nodes[1].kill();
    let ended = texts(&["[提示] 成功连接服务器\n张三:你好\nlewin:hello\n[提示] 与服务器断开连接，请刷新……\n"]);
    for person in [&lewin, &zhang] {
        person.wait_read("#output", &ended).await;
        person.assert_content().await;
    }
}

#[tokio::test]
async fn the_echo_page_shows_what_comes_back() {
    let mut node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let person = Person::open(&chromium, &format!("http://{}/echo", node.http())).await;
    person.wait_read("#output", &texts(&["Status: Connected\n"])).await;
    person.act(json!({"action": "fill", "at": "#input", "text": "大厅"})).await;
    person.act(json!({"action": "click", "at": "#send"})).await;
    person.wait_read("#output", &texts(&["Status: Connected\nServer: 大厅\n"])).await;
    node.kill();
    person.wait_read("#output", &texts(&["Status: Connected\nServer: 大厅\nConnection closed.\n"])).await;
    person.assert_content().await;
}

#[tokio::test]
async fn behind_the_tutorials_location_the_pages_work() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    let front = Nginx::start(&[node.port()], NginxKind::TutorialGin).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &format!("http://{}/gin", front.http()), "ada").await;
    let address = ada.act(json!({"action": "address"})).await;
    assert_eq!(address, format!("http://{}/gin/", front.http()));
    let lewin = Person::open(&chromium, &format!("http://{}/gin/chatroom?name=lewin", front.http())).await;
    lewin.wait_read("#output", &texts(&["[提示] 成功连接服务器\n"])).await;
    lewin.enter("#input", "through /gin").await;
    ada.wait_messages(&texts(&["through /gin"])).await;
    ada.say("and back").await;
    lewin.wait_read("#output", &texts(&["[提示] 成功连接服务器\nlewin:through /gin\nada:and back\n"])).await;
    ada.assert_content().await;
    lewin.assert_content().await;
}
