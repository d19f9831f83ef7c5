//! `townhall chat` between pipes: the binary that is shipped, as a process of its own with nothing of our environment.

use std::io::Write;
use std::process::{Child, ChildStdin, Command, Stdio};

use tempfile::NamedTempFile;

use crate::harness::wait_until;

/// A running `townhall chat`; killed when dropped. What it writes is kept in files, so it never waits for us.
pub struct Chat {
    child: Child,
    input: Option<ChildStdin>,
    stdout: NamedTempFile,
    stderr: NamedTempFile,
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chatted {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Chatted {
    /// The one line on stderr of a process that ended so, and printed nothing.
    #[track_caller]
    pub fn complaint(&self, code: i32) -> &str {
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""), "{self:?}");
        let line = self.stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {self:?}"));
        assert!(line.starts_with("townhall: ") && !line.contains(char::is_control), "not one line: {self:?}");
        line
    }

    /// It went well, and this is what it printed.
    #[track_caller]
    pub fn printed(&self) -> Vec<&str> {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        self.stdout.lines().collect()
    }
}

impl Chat {
    /// With an input that is fed by [`Chat::feed`] until [`Chat::end_input`].
    pub fn start(words: &[&str]) -> Chat {
        Chat::start_in(words, &[])
    }

    /// The same with variables of the environment.
    pub fn start_in(words: &[&str], variables: &[(&str, &str)]) -> Chat {
        let file = || NamedTempFile::new().expect("a file for its output");
        let (stdout, stderr) = (file(), file());
        let mut child = Command::new(env!("CARGO_BIN_EXE_townhall"))
            .arg("chat")
            .args(words)
            .env_clear()
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(stdout.reopen().expect("the file for stdout"))
            .stderr(stderr.reopen().expect("the file for stderr"))
            .spawn()
            .expect("the binary starts");
        Chat { input: child.stdin.take(), child, stdout, stderr }
    }

    /// Runs it with this input to its end.
    pub async fn run(words: &[&str], input: &str) -> Chatted {
        Chat::run_in(words, &[], input).await
    }

    pub async fn run_in(words: &[&str], variables: &[(&str, &str)], input: &str) -> Chatted {
        let mut chat = Chat::start_in(words, variables);
        chat.feed(input);
        chat.ended().await
    }

    /// Writes to its input, from a thread of its own: who reads slowly holds up nobody here. Nothing more can be written.
    pub fn feed(&mut self, input: &str) {
        let mut pipe = self.input.take().expect("its input is open");
        let input = input.to_owned();
        // An input that is not read to its end is the process' own affair.
        std::thread::spawn(move || pipe.write_all(input.as_bytes()));
    }

    /// Writes a line to its input, which stays open.
    pub fn say(&mut self, line: &str) {
        writeln!(self.input.as_mut().expect("its input is open"), "{line}").expect("it reads");
    }

    pub fn end_input(&mut self) {
        self.input = None;
    }

    pub fn stdout(&self) -> String {
        std::fs::read_to_string(self.stdout.path()).expect("its stdout")
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(self.stderr.path()).expect("its stderr")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until so many lines were printed.
    pub async fn prints(&self, lines: usize) -> Vec<String> {
        wait_until(&format!("it has printed {lines} lines, stderr: {}", self.stderr()), async || {
            self.stdout().lines().count() >= lines
        })
        .await;
        self.stdout().lines().map(str::to_owned).collect()
    }

    /// Whether SIGINT and SIGTERM are more to it than its end.
    pub fn hears_signals(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
        let (int, term) = (1 << 1, 1 << 14);
        u64::from_str_radix(caught, 16).is_ok_and(|caught| caught & int != 0 && caught & term != 0)
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "SIG{name} did not reach it");
    }

    /// Waits until it has ended by itself.
    pub async fn ended(mut self) -> Chatted {
        let mut status = None;
        wait_until(&format!("the chat {} has ended", self.child.id()), async || {
            status = self.child.try_wait().expect("its state");
            status.is_some()
        })
        .await;
        let code = status.expect("it has ended").code();
        Chatted { code, stdout: self.stdout(), stderr: self.stderr() }
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- what the chat said\n{}", self.stderr());
        }
    }
}
