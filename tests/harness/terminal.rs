//! A real terminal: tmux, with a server of its own that ends with it.

use std::process::Command;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use super::{LOOK_AGAIN, PATIENCE};

/// A terminal with a shell in it; gone when dropped.
pub struct Terminal {
    /// With the server's socket.
    directory: TempDir,
}

/// What a person sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Every row, from the top, without the spaces at its end.
    pub rows: Vec<String>,
    /// Column and row of the cursor, from 0.
    pub cursor: (usize, usize),
}

impl Seen {
    /// The rows down to the last one that is not empty.
    pub fn text(&self) -> &[String] {
        let empty = self.rows.iter().rev().take_while(|row| row.is_empty()).count();
        &self.rows[..self.rows.len() - empty]
    }

    /// Whether exactly these rows are seen, and nothing below them.
    pub fn is(&self, rows: &[&str], cursor: (usize, usize)) -> bool {
        self.text() == rows && self.cursor == cursor
    }
}

impl Terminal {
    /// One of so many columns and rows, with a shell whose prompt is `$ ` and which knows these variables.
    pub fn open(columns: usize, rows: usize, variables: &[(&str, &str)]) -> Terminal {
        let terminal = Terminal { directory: tempfile::tempdir().expect("no directory for tmux") };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        let mut begin = vec!["new-session", "-d", "-x", &columns, "-y", &rows];
        let variables: Vec<String> = variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        for variable in &variables {
            begin.extend(["-e", variable]);
        }
        begin.extend(["-e", "LC_ALL=C.UTF-8", "-e", "ENV=", "sh"]);
        begin.extend([";", "set", "-g", "status", "off", ";", "set", "-g", "escape-time", "0"]);
        terminal.tmux(&begin);
        // Some shells have another prompt for root, whatever they are told before they start.
        terminal.types("PS1='$ '; printf '\\033[H\\033[2J\\033[3J'\r");
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = self.command().args(arguments).output().expect("no tmux: see tests/setup");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "tmux {arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("a screen that is not UTF-8")
    }

    fn command(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.arg("-u").arg("-S").arg(self.directory.path().join("tmux")).args(["-f", "/dev/null"]);
        tmux.env("LC_ALL", "C.UTF-8").env_remove("TMUX");
        tmux
    }

    /// Types these characters, as they are.
    pub fn types(&self, text: &str) {
        self.tmux(&["send-keys", "-l", "--", text]);
    }

    /// Presses keys by tmux's names for them: `Enter`, `C-c`, `Left`.
    pub fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// Pastes, as terminals do it for programs that can tell a paste from typing.
    pub fn paste(&self, text: &str) {
        self.tmux(&["set-buffer", "--", text, ";", "paste-buffer", "-p"]);
    }

    /// Sends bytes, which may be anything.
    pub fn sends(&self, bytes: &[u8]) {
        let file = self.directory.path().join("bytes");
        std::fs::write(&file, bytes).expect("cannot write");
        self.tmux(&["load-buffer", file.to_str().expect("no UTF-8"), ";", "paste-buffer", "-r"]);
    }

    /// Gives the window another size.
    pub fn resize(&self, columns: usize, rows: usize) {
        self.tmux(&["resize-window", "-x", &columns.to_string(), "-y", &rows.to_string()]);
    }

    pub fn seen(&self) -> Seen {
        // In one call, so that it is one moment.
        let seen = self.tmux(&["display-message", "-p", "#{cursor_x} #{cursor_y}", ";", "capture-pane", "-p"]);
        let mut lines = seen.lines();
        let mut cursor = lines.next().expect("no cursor").split(' ').map(|number| number.parse().expect("no number"));
        let mut next = || cursor.next().expect("no cursor");
        let cursor = (next(), next());
        Seen { rows: lines.map(|line| line.trim_end().into()).collect(), cursor }
    }

    /// All that was ever on the screen and left it upwards, and the screen; lines that were wrapped are whole.
    pub fn everything(&self) -> Vec<String> {
        self.tmux(&["capture-pane", "-p", "-J", "-S", "-"]).lines().map(|line| line.trim_end().into()).collect()
    }

    /// The shell's process.
    pub fn shell(&self) -> u32 {
        self.tmux(&["display-message", "-p", "#{pane_pid}"]).trim().parse().expect("no process")
    }

    /// Closes the window, as a person closes it on whatever runs there.
    pub fn close_window(&self) {
        self.tmux(&["kill-pane"]);
    }

    /// With the sequences that make colours, and the spaces at the rows' ends.
    pub fn coloured(&self) -> String {
        self.tmux(&["capture-pane", "-p", "-e", "-N"])
    }

    /// Whether what is typed is echoed, and a Ctrl-C ends the program.
    pub fn is_cooked(&self) -> bool {
        let tty = self.tmux(&["display-message", "-p", "#{pane_tty}"]);
        let mode = Command::new("stty").args(["-a", "-F", tty.trim()]).output().expect("no stty");
        let mode = String::from_utf8(mode.stdout).expect("no UTF-8");
        let has = |word| mode.split_whitespace().any(|w| w == word);
        assert!(has("echo") == has("isig") && has("echo") != has("-echo"), "half a mode: {mode}");
        has("echo")
    }

    /// Waits until the screen is such; `what` completes "waited in vain until …".
    pub async fn until(&self, what: &str, mut condition: impl FnMut(&Seen) -> bool) -> Seen {
        let end = Instant::now() + PATIENCE;
        loop {
            let seen = self.seen();
            if condition(&seen) {
                return seen;
            }
            if Instant::now() > end {
                panic!("waited in vain until {what}; cursor {:?}, screen:\n{}", seen.cursor, seen.rows.join("\n"));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until exactly these rows are seen, with the cursor there.
    pub async fn shows(&self, rows: &[&str], cursor: (usize, usize)) {
        let what = format!("the cursor is at {cursor:?} of\n{}\n", rows.join("\n"));
        self.until(&what, |seen| seen.is(rows, cursor)).await;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}
