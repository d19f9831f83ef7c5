//! How far a run is, on standard error: one line that is written over where that is a terminal, and otherwise a line now and
//! then.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// How often a terminal's line is written anew.
const AT_A_TERMINAL: Duration = Duration::from_millis(500);
/// How often a line is added to a log.
const IN_A_LOG: Duration = Duration::from_secs(5);

pub struct Progress {
    every: Option<Duration>,
    is_terminal: bool,
    last: Instant,
}

impl Progress {
    pub fn new(quiet: bool) -> Self {
        let is_terminal = stderr().is_terminal();
        let every = if is_terminal { AT_A_TERMINAL } else { IN_A_LOG };
        Progress { every: (!quiet).then_some(every), is_terminal, last: Instant::now() }
    }

    /// Says it if it is time to.
    pub fn say(&mut self, words: impl FnOnce() -> String) {
        if self.every.is_none_or(|every| self.last.elapsed() < every) {
            return;
        }
        self.last = Instant::now();
        // Nobody is there to be told if that fails.
        let _ = match self.is_terminal {
            true => write!(stderr(), "\r\x1b[K{}", words()),
            false => writeln!(stderr(), "{}", words()),
        };
    }
}

/// What follows begins on a line of its own, whatever became of the run.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.every.is_some() && self.is_terminal {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}
