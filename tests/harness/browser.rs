//! People with browsers: what they type, and what they then see.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::wait_until;

/// A Chromium and the Node process that moves it, by tests/browser/driver.mjs; both end when this is dropped.
pub struct Chromium {
    node: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Chromium {
    pub fn start() -> Arc<Mutex<Chromium>> {
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
pub struct Person {
    chromium: Arc<Mutex<Chromium>>,
    who: Value,
}

impl Person {
    pub async fn open(chromium: &Arc<Mutex<Chromium>>, url: &str) -> Person {
        let mut person = Person { chromium: chromium.clone(), who: Value::Null };
        person.who = person.act(json!({"action": "open", "url": url})).await;
        person
    }

    /// The driver's pipe blocks; the clocks of the test go on meanwhile.
    pub async fn act(&self, mut command: Value) -> Value {
        command["who"] = self.who.clone();
        let chromium = self.chromium.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut chromium = chromium.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            chromium.ask(&command)
        });
        asked.await.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()))
    }

    /// The same person in one more tab: both have the same cookies.
    pub async fn tab(&self, url: &str) -> Person {
        let who = self.act(json!({"action": "tab", "url": url})).await;
        Person { chromium: self.chromium.clone(), who }
    }

    /// What an expression of the page's JavaScript comes to.
    pub async fn evaluate(&self, script: &str) -> Value {
        self.act(json!({"action": "evaluate", "script": script})).await
    }

    pub async fn visit(&self, url: &str) {
        self.act(json!({"action": "goto", "url": url})).await;
    }

    pub async fn reload(&self) {
        self.act(json!({"action": "reload"})).await;
    }

    pub async fn fill(&self, field: &str, text: &str) {
        self.act(json!({"action": "fill", "at": field, "text": text})).await;
    }

    pub async fn click(&self, at: &str) {
        self.act(json!({"action": "click", "at": at})).await;
    }

    /// Where the page is by now.
    pub async fn address(&self) -> String {
        self.act(json!({"action": "address"})).await.as_str().expect("an address").into()
    }

    pub async fn enter(&self, field: &str, text: &str) {
        self.fill(field, text).await;
        self.act(json!({"action": "press", "at": field, "key": "Enter"})).await;
    }

    /// What stands at a selector now.
    pub async fn read(&self, at: &str) -> Vec<String> {
        let texts = self.act(json!({"action": "read", "at": at})).await;
        serde_json::from_value(texts).expect("texts")
    }

    pub async fn wait_read(&self, at: &str, expected: &[String]) {
        let mut seen = Vec::new();
        let shown = wait_until("a page shows what it should", async || {
            seen = self.read(at).await;
            seen == expected
        });
        let in_time = futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(shown)).await;
        assert!(in_time.is_ok(), "{at} of {} shows {seen:?} and not {expected:?}", self.who);
    }

    pub async fn assert_content(&self) {
        let complaints = self.act(json!({"action": "complaints"})).await;
        assert_eq!(complaints, json!([]), "the page of {} complains", self.who);
    }

    /// As [`Person::assert_content`], where handshakes may have failed: Chromium puts each into the console.
    pub async fn assert_content_but_for_handshakes(&self) {
        let complaints = self.act(json!({"action": "complaints"})).await;
        let complaints: Vec<String> = serde_json::from_value(complaints).expect("texts");
        let others = complaints.iter().filter(|complaint| !complaint.contains("WebSocket connection to"));
        assert_eq!(others.collect::<Vec<_>>(), Vec::<&String>::new());
    }

    // A chat page, the hall's own or one with the same names:

    /// Opens the page and waits until it is connected; `name` as typed.
    pub async fn come_in(chromium: &Arc<Mutex<Chromium>>, url: &str, name: &str) -> Person {
        let person = Person::open(chromium, url).await;
        person.wait_connected().await;
        person.enter("#name", name).await;
        person.wait_connected().await;
        person
    }

    pub async fn wait_connected(&self) {
        wait_until("the page is connected", async || self.state().await == "open").await;
    }

    /// The connection's, as the page tells it.
    pub async fn state(&self) -> Value {
        self.act(json!({"action": "attribute", "at": "body", "name": "data-state"})).await
    }

    pub async fn say(&self, text: &str) {
        self.enter("#text", text).await;
    }

    /// The texts of all messages on the page, oldest first; those that are on their way too.
    pub async fn wait_messages(&self, expected: &[String]) {
        self.wait_read("#view .message .text", expected).await;
        self.wait_read("#unsent .message", &[]).await;
    }
}
