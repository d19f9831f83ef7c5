//! `townhall chat` at a real terminal, over real nodes: what a person sees of it, row by row.

mod at_the_line_door;
mod endings;
mod looks;
mod people;
mod refusals;
mod rooms;
mod storms;

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::harness::{Node, Seen, Terminal, secrets, wait_until};

/// Somebody at a terminal, with a shell that knows the program as `$T`.
struct Visitor(Terminal);

impl Visitor {
    /// A terminal for the hall at this address, with nothing in it yet.
    fn at(columns: usize, rows: usize, url: &str) -> Visitor {
        let program = format!("{} chat", env!("CARGO_BIN_EXE_townhall"));
        let zone = where_it_is_noon();
        Visitor(Terminal::open(columns, rows, &[("T", program.as_str()), ("TOWNHALL_URL", url), ("TZ", &zone)]))
    }

    /// Comes to the node with these options, and is in the lobby.
    async fn come(node: &Node, options: &str) -> Visitor {
        let visitor = Visitor::at(60, 16, &node.ws_url());
        visitor.starts("", options).await;
        visitor
    }

    /// Starts it, after more variables, in an empty terminal and is in a room.
    async fn starts(&self, variables: &str, options: &str) {
        self.runs(variables, options);
        let is_in = |status: &String| status.ends_with(" here") || status.ends_with(" 人在此");
        let prompt = |seen: &Seen| matches!(seen.text(), [.., status, prompt] if is_in(status) && prompt == ">");
        self.0.until("the prompt is there", prompt).await;
    }

    /// Starts it, and has its exit code said.
    fn runs(&self, variables: &str, options: &str) {
        self.0.types(&format!("clear; {variables} $T {options}; echo \"($?)\"\r"));
    }

    fn types(&self, text: &str) {
        secrets::keep_text(text);
        self.0.types(text);
    }

    fn enters(&self, line: &str) {
        self.types(line);
        self.press(&["Enter"]);
    }

    fn press(&self, keys: &[&str]) {
        self.0.press(keys);
    }

    /// Waits until exactly these rows are seen, every time of day as 12:00, with the cursor in this column of the last one.
    async fn shows(&self, rows: &[&str], column: usize) {
        let what = format!("the cursor is in column {column} of the last of\n{}\n", rows.join("\n"));
        let wanted = |seen: &Seen| at_noon(seen.text()) == rows && seen.cursor == (column, rows.len() - 1);
        self.0.until(&what, wanted).await;
    }

    /// The same, of the last rows.
    async fn ends_with(&self, rows: &[&str], column: usize) {
        let what = format!("the cursor is in column {column} of the last of\n…\n{}\n", rows.join("\n"));
        let wanted = |seen: &Seen| {
            at_noon(seen.text()).ends_with(&owned(rows)) && seen.cursor == (column, seen.text().len() - 1)
        };
        self.0.until(&what, wanted).await;
    }

    /// Waits until the program has ended, these were its last rows, and the terminal is as it was.
    async fn ended(&self, rows: &[&str]) {
        let rows = [rows, &["$"]].concat();
        self.ends_with(&rows, 2).await;
        self.0.types("echo $((6*7))\r");
        self.ends_with(&[&rows[..rows.len() - 1], &["$ echo $((6*7))", "42", "$"]].concat(), 2).await;
    }

    /// All that was said and stands on the screen or above it.
    fn said(&self) -> Vec<String> {
        let rows = at_noon(&self.0.everything());
        rows.iter().filter_map(|row| row.strip_prefix("12:00 ").map(String::from)).collect()
    }

    /// The processes that the shell has started and that are still there.
    fn programs(&self) -> Vec<u32> {
        let shell = self.0.shell();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).unwrap_or_default();
        children.split_whitespace().map(|process| process.parse().expect("a process")).collect()
    }

    /// The one process that runs in it.
    fn program(&self) -> u32 {
        let programs = self.programs();
        assert_eq!(programs.len(), 1, "what runs there: {programs:?}");
        programs[0]
    }
}

fn owned(rows: &[&str]) -> Vec<String> {
    rows.iter().map(|row| String::from(*row)).collect()
}

fn signal(process: u32, name: &str) {
    let sent = std::process::Command::new("kill").args([&format!("-{name}"), &process.to_string()]).status();
    assert!(sent.expect("no kill").success(), "SIG{name} did not reach {process}");
}

async fn is_gone(process: u32) {
    let place = PathBuf::from(format!("/proc/{process}"));
    wait_until("the process is gone", async || !place.exists()).await;
}

/// Where no message is said before midnight and read after it, whenever the test runs.
fn where_it_is_noon() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let hour = i64::try_from(now.as_secs() / 3600 % 24).expect("an hour");
    format!("XXX{:+}", hour - 12) // POSIX counts to the west
}

/// With every time of day as 12:00.
fn at_noon(rows: &[String]) -> Vec<String> {
    rows.iter().map(|row| if tells_time(row) { format!("12:00{}", &row[5..]) } else { row.clone() }).collect()
}

fn tells_time(row: &str) -> bool {
    let digits = |range: std::ops::Range<usize>| row.as_bytes()[range].iter().all(u8::is_ascii_digit);
    row.len() >= 6 && row.as_bytes()[2] == b':' && row.as_bytes()[5] == b' ' && digits(0..2) && digits(3..5)
}
