//! What runs in the terminal: a screen, and a socket over which a test tells it what comes in and hears what was typed.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use townhall::chat::screen::{Input, Known, Looks, Screen};

use crate::harness::{PATIENCE, Seen, Terminal};

/// Where the program finds its test.
const SOCKET: &str = "SCREEN_SOCKET";

#[derive(Debug, Serialize, Deserialize)]
pub enum Order {
    Print(String),
    /// `message 1` to `message N`, one each so many milliseconds.
    Flood(usize, u64),
    Status(String),
    /// Commands, rooms, names.
    Know(Vec<String>, Vec<String>, Vec<String>),
    /// Whether what is typed is taken.
    Listen(bool),
    Close,
    /// Says so: what was told before is done.
    Say,
    /// SIGINT, from itself.
    Interrupt,
    /// Closes, prints and ends.
    Exit(String),
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum News {
    Line(String),
    Typing,
    Leave,
    Refused(String),
    Said,
    Closed,
}

impl From<Input> for News {
    fn from(input: Input) -> News {
        match input {
            Input::Line(line) => News::Line(line),
            Input::Typing => News::Typing,
            Input::Leave => News::Leave,
        }
    }
}

/// The program; does nothing where no test has started it.
pub fn main() {
    let Some(path) = std::env::var_os(SOCKET) else { return };
    let test = UnixStream::connect(path).expect("no test");
    // Away with what the test runner has said.
    print!("\x1b[H\x1b[2J\x1b[3J");
    std::io::stdout().flush().expect("no terminal");
    let looks = Looks {
        colours: std::env::var_os("SCREEN_COLOURS").is_some(),
        interrupt_hint: String::from("Ctrl-C again leaves"),
        stumble_hint: String::from("that is no UTF-8"),
        skipped: |count| format!("({count} skipped)"),
    };
    match Screen::open(looks) {
        Ok((screen, inputs)) => obey(test, screen, inputs),
        Err(error) => tell(&test, &News::Refused(error.to_string())),
    }
    std::process::exit(0);
}

fn obey(test: UnixStream, screen: Screen, mut inputs: tokio::sync::mpsc::Receiver<Input>) {
    let gate = Arc::new(Mutex::new(()));
    let (news, opened) = (test.try_clone().expect("cannot clone"), gate.clone());
    std::thread::spawn(move || {
        while let Some(input) = inputs.blocking_recv() {
            drop(opened.lock());
            tell(&news, &News::from(input));
        }
    });
    let mut shut = None;
    let orders = BufReader::new(test.try_clone().expect("cannot clone"));
    for order in orders.lines() {
        match serde_json::from_str(&order.expect("no order")).expect("no order") {
            Order::Print(text) => screen.print(&text),
            Order::Flood(count, every_ms) => {
                let screen = screen.clone();
                std::thread::spawn(move || {
                    for number in 1..=count {
                        screen.print(&format!("message {number}"));
                        std::thread::sleep(Duration::from_millis(every_ms));
                    }
                });
            }
            Order::Status(text) => screen.status(&text),
            Order::Know(commands, rooms, names) => screen.know(Known { commands, rooms, names }),
            Order::Listen(false) => shut = gate.lock().ok(),
            Order::Listen(true) => drop(shut.take()),
            Order::Close => {
                screen.close();
                tell(&test, &News::Closed);
            }
            Order::Say => tell(&test, &News::Said),
            Order::Interrupt => kill_process(getpid(), Signal::INT).expect("no signal"),
            Order::Exit(last) => {
                screen.close();
                screen.print(&last);
                return;
            }
        }
    }
}

fn tell(mut test: &UnixStream, news: &News) {
    let line = serde_json::to_string(news).expect("no news");
    let _ = test.write_all(format!("{line}\n").as_bytes());
}

/// The program in a terminal, from a test's side.
pub struct Running {
    pub terminal: Terminal,
    orders: UnixStream,
    news: BufReader<UnixStream>,
    _directory: TempDir,
}

impl Running {
    /// With the status `lobby`, when it is on the screen.
    pub async fn start(columns: usize, rows: usize) -> Running {
        let mut running = Running::start_with(columns, rows, &[]);
        running.tell(Order::Status("lobby".into()));
        running.terminal.shows(&["lobby", ">"], (2, 1)).await;
        running
    }

    /// Before anything is shown, with more variables.
    pub fn start_with(columns: usize, rows: usize, variables: &[(&str, &str)]) -> Running {
        let directory = tempfile::tempdir().expect("no directory");
        let socket: PathBuf = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).expect("no socket");
        let program = std::env::current_exe().expect("no name");
        // A terminal that is not what it says it is, for those who want one.
        let term = variables
            .iter()
            .find(|(name, _)| *name == "TERM_FOR_THE_PROGRAM")
            .map(|(_, term)| format!("env TERM={term} "));
        let command = format!("{}{} --exact the_program --nocapture", term.unwrap_or_default(), program.display());
        let mut all = vec![("P", command.as_str()), (SOCKET, socket.to_str().expect("no UTF-8"))];
        all.extend_from_slice(variables);
        let terminal = Terminal::open(columns, rows, &all);
        terminal.types("$P\r");
        let (orders, _) = listener.accept().expect("no program");
        orders.set_read_timeout(Some(PATIENCE)).expect("no timeout");
        let news = BufReader::new(orders.try_clone().expect("cannot clone"));
        Running { terminal, orders, news, _directory: directory }
    }

    pub fn tell(&mut self, order: Order) {
        let line = serde_json::to_string(&order).expect("no order");
        self.orders.write_all(format!("{line}\n").as_bytes()).expect("no program");
    }

    pub fn print(&mut self, lines: &str) {
        self.tell(Order::Print(lines.into()));
    }

    /// Returns when it waits for a paint, or is painted.
    pub fn printed(&mut self, lines: &str) {
        self.print(lines);
        self.tell(Order::Say);
        assert_eq!(self.hears(), News::Said);
    }

    /// The next news but those of typing.
    pub fn hears(&mut self) -> News {
        loop {
            let news = self.next();
            if news != News::Typing {
                return news;
            }
        }
    }

    pub fn next(&mut self) -> News {
        let mut line = String::new();
        self.news.read_line(&mut line).expect("no news");
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no news: {line:?}"))
    }

    pub fn types(&self, text: &str) {
        self.terminal.types(text);
    }

    pub fn press(&self, keys: &[&str]) {
        self.terminal.press(keys);
    }

    pub async fn shows(&self, rows: &[&str], cursor: (usize, usize)) {
        self.terminal.shows(rows, cursor).await;
    }

    pub async fn until(&self, what: &str, condition: impl FnMut(&Seen) -> bool) -> Seen {
        self.terminal.until(what, condition).await
    }
}
