//! People with browsers: what they type, and what they then see.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait_until;

/// A Chromium and the Node process that moves it, by tests/browser/driver.mjs; both end when this is dropped.
pub struct Chromium {
    node: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// For the one whose tabs hide one another; Playwright brings the others' own.
    _profile: TempDir,
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
        let profile = tempfile::tempdir().expect("a directory for Chromium's profile");
        let mut node = Command::new("node")
            .arg("driver.mjs")
            .current_dir(directory)
            .env("CHROMIUM", chromium)
            .env("PROFILE", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("no `node` ({error}): install Debian's package `nodejs`; {advice}"));
        let commands = node.stdin.take().expect("stdin is piped");
        let answers = BufReader::new(node.stdout.take().expect("stdout is piped"));
        Arc::new(Mutex::new(Chromium { node, commands, answers, _profile: profile }))
    }

    /// What the driver answers, or why it does not.
    fn ask(&mut self, command: &Value) -> Result<Value, String> {
        writeln!(self.commands, "{command}").map_err(|error| format!("the driver has ended: {error}"))?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(|error| format!("the driver does not answer: {error}"))?;
        if line.is_empty() {
            return Err(format!("the driver ended at {command}; its words are above"));
        }
        let answer: Value = serde_json::from_str(&line).map_err(|error| format!("no JSON: {error}: {line}"))?;
        match answer["error"].as_str() {
            None => Ok(answer["value"].clone()),
            Some(error) => Err(error.into()),
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        let _ = self.node.kill(); // its Chromium ends with the pipe between them
        let _ = self.node.wait();
    }
}

/// Somebody with a browser of their own, looking at one page. Who is there when a test fails tells what was on screen,
/// and leaves a picture of it.
pub struct Person {
    chromium: Arc<Mutex<Chromium>>,
    who: Value,
}

impl Person {
    pub async fn open(chromium: &Arc<Mutex<Chromium>>, url: &str) -> Person {
        Person::open_like(chromium, url, &json!({})).await
    }

    /// Opens a page as somebody of whom the browser knows more: Playwright's options of a context, such as `locale`,
    /// `colorScheme`, `viewport`, `reducedMotion` and `permissions`.
    pub async fn open_like(chromium: &Arc<Mutex<Chromium>>, url: &str, like: &Value) -> Person {
        Person::seated(chromium, json!({"action": "open", "url": url, "like": like})).await
    }

    /// Opens a page in a browser whose tabs hide one another, as those of people do; there is one such browser at most.
    pub async fn open_in_window(chromium: &Arc<Mutex<Chromium>>, url: &str, permissions: &[&str]) -> Person {
        Person::seated(chromium, json!({"action": "window", "url": url, "permissions": permissions})).await
    }

    async fn seated(chromium: &Arc<Mutex<Chromium>>, command: Value) -> Person {
        let mut person = Person { chromium: chromium.clone(), who: Value::Null };
        person.who = person.act(command).await;
        person
    }

    /// The driver's pipe blocks; the clocks of the test go on meanwhile.
    pub async fn act(&self, mut command: Value) -> Value {
        command["who"] = self.who.clone();
        let chromium = self.chromium.clone();
        let asked = tokio::task::spawn_blocking(move || ask(&chromium, &command));
        let answer = asked.await.unwrap_or_else(|failure| std::panic::resume_unwind(failure.into_panic()));
        answer.unwrap_or_else(|error| panic!("{error}"))
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
        self.press(field, "Enter").await;
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

    pub async fn back(&self) {
        self.act(json!({"action": "back"})).await;
    }

    pub async fn forward(&self) {
        self.act(json!({"action": "forward"})).await;
    }

    /// Turns to this tab.
    pub async fn front(&self) {
        self.act(json!({"action": "front"})).await;
    }

    pub async fn close(&self) {
        self.act(json!({"action": "close"})).await;
    }

    /// Pulls the plug of the whole machine, or puts it in again.
    pub async fn set_offline(&self, offline: bool) {
        self.act(json!({"action": "offline", "offline": offline})).await;
    }

    pub async fn hover(&self, at: &str) {
        self.act(json!({"action": "hover", "at": at})).await;
    }

    pub async fn press(&self, at: &str, key: &str) {
        self.act(json!({"action": "press", "at": at, "key": key})).await;
    }

    /// Presses keys one after the other, wherever the focus is.
    pub async fn keys(&self, keys: &[&str]) {
        self.act(json!({"action": "keys", "keys": keys})).await;
    }

    /// Types key by key, wherever the focus is.
    pub async fn type_in(&self, text: &str) {
        self.act(json!({"action": "type", "text": text})).await;
    }

    /// Composes with an input method, not confirmed yet.
    pub async fn compose(&self, text: &str) {
        self.act(json!({"action": "compose", "text": text})).await;
    }

    /// Confirms the composition by Enter, in Chromium's order.
    pub async fn confirm(&self, text: &str) {
        self.act(json!({"action": "confirm", "text": text})).await;
    }

    /// Turns the mouse's wheel over an element; up is negative.
    pub async fn wheel(&self, at: &str, by: i32) {
        self.act(json!({"action": "wheel", "at": at, "by": by})).await;
    }

    pub async fn attribute(&self, at: &str, name: &str) -> Value {
        self.act(json!({"action": "attribute", "at": at, "name": name})).await
    }

    /// Whether the first element of a selector can be seen now.
    pub async fn sees(&self, at: &str) -> bool {
        self.act(json!({"action": "shown", "at": at})).await == true
    }

    pub async fn wait_sees(&self, at: &str) {
        wait_until(&format!("{at} is to be seen"), async || self.sees(at).await).await;
    }

    pub async fn wait_sees_no(&self, at: &str) {
        wait_until(&format!("no {at} is to be seen"), async || !self.sees(at).await).await;
    }

    /// How many elements there are now.
    pub async fn count(&self, at: &str) -> usize {
        self.read(at).await.len()
    }

    pub async fn wait_count(&self, at: &str, expected: usize) {
        wait_until(&format!("there are {expected} of {at}"), async || self.count(at).await == expected).await;
    }

    /// Waits until an expression of the page's JavaScript is true; `what` completes "waited in vain until …".
    pub async fn wait(&self, what: &str, script: &str) {
        wait_until(what, async || self.evaluate(script).await == true).await;
    }

    /// The states of the connection that the page has shown, in order.
    pub async fn states(&self) -> Vec<String> {
        serde_json::from_value(self.evaluate("shownStates").await).expect("texts")
    }

    /// The commands that the page sent, in order.
    pub async fn sent(&self) -> Vec<Value> {
        let frames = self.act(json!({"action": "sent"})).await;
        let frames: Vec<String> = serde_json::from_value(frames).expect("texts");
        frames.iter().map(|frame| serde_json::from_str(frame).expect("commands are JSON")).collect()
    }

    /// The hosts, with their ports, that the page asked for anything.
    pub async fn hosts(&self) -> Vec<String> {
        serde_json::from_value(self.act(json!({"action": "hosts"})).await).expect("texts")
    }

    /// What axe finds that hinders people who do not see, or see or move otherwise.
    pub async fn hindrances(&self) -> Vec<String> {
        serde_json::from_value(self.act(json!({"action": "hindrances"})).await).expect("texts")
    }

    // A chat page, the hall's own or one with the same names:

    /// Opens the page and waits until it is connected; `name` as typed.
    pub async fn come_in(chromium: &Arc<Mutex<Chromium>>, url: &str, name: &str) -> Person {
        Person::come_in_like(chromium, url, name, &json!({})).await
    }

    /// The same as [`Person::open_like`] has it.
    pub async fn come_in_like(chromium: &Arc<Mutex<Chromium>>, url: &str, name: &str, like: &Value) -> Person {
        let person = Person::open_like(chromium, url, like).await;
        person.wait_connected().await;
        person.call_oneself(name).await;
        person
    }

    pub async fn call_oneself(&self, name: &str) {
        self.enter("#name", name).await;
        self.wait_connected().await;
    }

    pub async fn wait_connected(&self) {
        wait_until("the page is connected", async || self.state().await == "open").await;
    }

    /// The connection's, as the page tells it.
    pub async fn state(&self) -> Value {
        self.attribute("body", "data-state").await
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

impl Drop for Person {
    fn drop(&mut self) {
        if !std::thread::panicking() || self.who.is_null() {
            return;
        }
        let script = "`${location} ${document.title} ${document.body.dataset.state}\n${document.body.innerText}`";
        let screen = ask(&self.chromium, &json!({"action": "evaluate", "who": self.who, "script": script}));
        let complaints = ask(&self.chromium, &json!({"action": "complaints", "who": self.who}));
        let (Ok(screen) | Err(screen)) = screen.map(|screen| screen.as_str().unwrap_or_default().to_owned());
        let test = std::thread::current().name().unwrap_or("a test").replace("::", ".");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.{}.png", self.who));
        let picture = ask(&self.chromium, &json!({"action": "screenshot", "who": self.who, "path": path}));
        let picture = picture.map(|_| path);
        eprintln!("--- what {} saw ({picture:?})\n{screen}\n--- complaints {complaints:?}", self.who);
    }
}

fn ask(chromium: &Mutex<Chromium>, command: &Value) -> Result<Value, String> {
    chromium.lock().unwrap_or_else(std::sync::PoisonError::into_inner).ask(command)
}
