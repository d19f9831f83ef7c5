//! The interactive screen of `townhall chat`: a status line and a prompt at the bottom, and what is said above them.
//!
//! A thread runs the line editor (`editor.rs`), which alone writes to the terminal while a line is typed. What comes in is queued
//! and becomes part of its next paint (`paint.rs`), so no line ever breaks what is typed; a second thread has the editor paint
//! when nobody types. Everything is bounded: lines that wait (10,000 and 4 MiB; the oldest are dropped and counted), lines that
//! are kept to be painted anew (500 and 256 KiB), and what was typed and is not yet taken ([`INPUTS`]; then the editor waits).

mod columns;
mod complete;
mod editor;
mod lines;
mod paint;
mod terminal;

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, getpid, kill_current_process_group, kill_process};
use tokio::sync::mpsc;

use self::editor::Initial;
use self::paint::{Paint, Phase, Size};
use self::terminal::Mode;

/// Lines that were typed and are not yet taken.
const INPUTS: usize = 16;

/// That somebody types is said once in so long.
const TYPING_EVERY: Duration = Duration::from_secs(3);

/// How long the editor may take to stop, and a paint to be written, before the screen is closed all the same.
const STOPPING: Duration = Duration::from_millis(500);
const WRITTEN: Duration = Duration::from_millis(30);

/// A stop that we asked for comes within this time, or not at all: whoever has no shell is not stopped.
const STOPPED_WITHIN: Duration = Duration::from_millis(50);

/// How it looks, and what it says itself.
pub struct Looks {
    pub colours: bool,
    /// Printed at the first Ctrl-C on an empty line; a second one leaves.
    pub interrupt_hint: String,
    /// Printed where something was typed that is no UTF-8.
    pub stumble_hint: String,
    /// Printed where so many lines were dropped because the terminal took none.
    pub skipped: fn(usize) -> String,
}

/// What the person at the terminal does. Whoever takes these never waits long: keys wait with them, Ctrl-C, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// Enter; not blank. A paste of several lines is one of these, with line breaks in it.
    Line(String),
    /// Something is typed that is not a command; at most once in 3 s.
    Typing,
    /// Ctrl-D, a second Ctrl-C, SIGINT, or the terminal is gone. Nothing follows, and the terminal has its mode back.
    Leave,
}

/// What Tab completes.
#[derive(Debug, Default, Clone)]
pub struct Known {
    /// With their slash: `/join`.
    pub commands: Vec<String>,
    pub rooms: Vec<String>,
    /// Of who is here.
    pub names: Vec<String>,
}

/// A handle of the screen. There is one screen, as there is one terminal.
#[derive(Clone)]
pub struct Screen(Arc<Inner>);

impl Screen {
    /// Takes the terminal, which is to be given back by [`Screen::close`]. Fails where there is none that can be edited on: then
    /// lines are read and written plainly.
    pub fn open(looks: Looks) -> io::Result<(Screen, mpsc::Receiver<Input>)> {
        let (interrupt_hint, stumble_hint) = (looks.interrupt_hint.clone(), looks.stumble_hint.clone());
        let inner = Arc::new(Inner {
            mode: Mode::take()?,
            paint: Mutex::new(Paint::new(looks)),
            changed: Condvar::new(),
            known: Mutex::default(),
            keys: Mutex::default(),
            interrupt_hint,
            stumble_hint,
        });
        let screen = Screen(inner);
        match screen.start() {
            Ok(inputs) => Ok((screen, inputs)),
            Err(error) => {
                screen.close();
                Err(error)
            }
        }
    }

    fn start(&self) -> io::Result<mpsc::Receiver<Input>> {
        let (sender, inputs) = mpsc::channel(INPUTS);
        let mut editor = editor::editor(&self.0, sender.clone()).map_err(io::Error::other)?;
        let doorbell = editor.create_external_printer().map_err(io::Error::other)?;
        let inner = self.0.clone();
        thread::Builder::new().name("doorbell".into()).spawn(move || editor::ring(&inner, doorbell))?;
        let inner = self.0.clone();
        thread::Builder::new().name("editor".into()).spawn(move || editor::run(&inner, editor, &sender))?;
        Ok(inputs)
    }

    /// Prints whole lines above the prompt. They may be coloured; otherwise they are clean of control characters. After the end
    /// they are written as they are.
    pub fn print(&self, lines: &str) {
        let mut paint = self.0.paint();
        paint.queue(lines);
        if paint.phase == Phase::Ended {
            terminal::write(&paint.drain());
        }
        self.0.changed.notify_all();
    }

    /// What the status line says: plain text, cut off at the terminal's width.
    pub fn status(&self, text: &str) {
        self.0.paint().status(text);
        self.0.changed.notify_all();
    }

    /// What Tab completes from now on.
    pub fn know(&self, known: Known) {
        *self.0.known() = known;
    }

    /// Gives the terminal back: status and prompt are erased, what waits is printed, the mode is as it was. Waits for a terminal
    /// that takes nothing (a stopped `ssh`, say).
    pub fn close(&self) {
        self.0.close();
    }
}

struct Inner {
    mode: Mode,
    paint: Mutex<Paint>,
    /// There is something to paint, or another phase.
    changed: Condvar,
    known: Mutex<Known>,
    keys: Mutex<KeysBefore>,
    interrupt_hint: String,
    stumble_hint: String,
}

/// What the keys before have to do with the next one.
#[derive(Default)]
struct KeysBefore {
    interrupted: bool,
    typing_told: Option<Instant>,
    initial: Option<Initial>,
}

impl Inner {
    fn paint(&self) -> MutexGuard<'_, Paint> {
        self.paint.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keys(&self) -> MutexGuard<'_, KeysBefore> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The editor goes on to the next line, unless the screen was closed.
    fn starts(&self) -> bool {
        let mut paint = self.paint();
        if paint.closing || paint.phase == Phase::Ended {
            return false;
        }
        paint.phase = Phase::Starting;
        true
    }

    /// The line, or the cursor in it, is another; whether the text is, and whether it is still being typed.
    fn edited(&self, line: &str, at: usize) -> (bool, bool) {
        if !line.is_empty() {
            self.keys().interrupted = false;
        }
        let mut paint = self.paint();
        let changed = paint.edit(line, at);
        (changed, paint.phase != Phase::Accepted)
    }

    /// What the editor paints. Does not come back once the screen is closed: the editor writes no more, and knows no other way to
    /// be told so.
    fn prompt(&self, given: &str, size: Size, now: Instant) -> String {
        let painted = self.paint().prompt(given, size, now);
        self.changed.notify_all();
        painted.unwrap_or_else(|| {
            loop {
                thread::park();
            }
        })
    }

    /// Whether it is time to say that somebody types.
    fn tells_typing(&self) -> bool {
        let now = Instant::now();
        let mut keys = self.keys();
        let due = keys.typing_told.is_none_or(|told| now - told >= TYPING_EVERY);
        if due {
            keys.typing_told = Some(now);
        }
        due
    }

    fn accept(&self) {
        self.keys().interrupted = false;
        self.paint().accept();
    }

    /// The editor is done with a line: what the next one begins with, where Tab has ended it; otherwise it was entered.
    fn accepted(&self) -> Initial {
        let initial = self.keys().initial.take();
        if initial.is_none() {
            self.keys().typing_told = None;
        }
        let mut paint = self.paint();
        terminal::write(paint.accepted());
        self.changed.notify_all();
        initial.unwrap_or_default()
    }

    /// The editor gave up, and is to begin anew with this.
    fn stumbled(&self) -> Initial {
        let mut paint = self.paint();
        let (line, at) = paint.line();
        let (before, behind) = line.split_at_checked(at).unwrap_or((line, ""));
        let initial = Initial { before: before.into(), behind: behind.into() };
        paint.queue(&self.stumble_hint);
        terminal::write(&paint.stumbled());
        self.changed.notify_all();
        initial
    }

    /// Ctrl-C on an empty line: whether it is the second one.
    fn interrupted(&self) -> bool {
        let again = std::mem::replace(&mut self.keys().interrupted, true);
        if !again {
            self.paint().queue(&self.interrupt_hint);
        }
        again
    }

    /// The editor has ended and written a line break, from the end of the input where a signal ended it.
    fn left(&self, from_the_end: bool) {
        let mut paint = self.paint();
        let painted = paint.painted();
        let further = if from_the_end { painted.end.row - painted.cursor.row } else { 0 };
        let last = paint.end(further + 1);
        terminal::write(&last);
        self.mode.give_back();
        self.changed.notify_all();
    }

    /// Waits until there is something to paint while nobody types; `false` at the end.
    fn waits_for_paint(&self) -> bool {
        let idle = |paint: &mut Paint| paint.phase != Phase::Ended && !(paint.stale && paint.phase == Phase::Editing);
        let paint = self.changed.wait_while(self.paint(), idle);
        let mut paint = paint.unwrap_or_else(PoisonError::into_inner);
        // The next paint shows it, whoever asks for it: one ring is enough.
        paint.stale = false;
        paint.phase != Phase::Ended
    }

    /// Stops us until the shell continues us, on a terminal as the shell left it: Ctrl-Z.
    fn suspend(&self) {
        let paint = self.paint();
        terminal::write(&paint.erase(0));
        self.mode.give_back();
        let _ = kill_current_process_group(Signal::TSTP);
        thread::sleep(STOPPED_WITHIN);
        self.mode.take_again();
        // The editor is about to clear the rows that it had: below what the shell has written there must be as many.
        let painted = paint.painted();
        let (cursor, end) = (painted.cursor.row, painted.end.row);
        let mut rows = "\n".repeat(end);
        if end > cursor {
            rows.push_str(&format!("\x1b[{}A", end - cursor));
        }
        terminal::write(&rows);
        // Whoever is stopped is not told that the window has another size.
        let _ = kill_process(getpid(), Signal::WINCH);
    }

    fn close(&self) {
        let mut paint = self.paint();
        if paint.phase == Phase::Ended {
            self.mode.give_back();
            return;
        }
        // What the editor has begun to write must be written before we write, and nothing after it: it is stopped at its next
        // paint, for which the doorbell rings.
        paint.closing = true;
        paint.stale = true;
        self.changed.notify_all();
        let writes = |paint: &mut Paint| matches!(paint.phase, Phase::Starting | Phase::Editing | Phase::Accepted);
        let waited = self.changed.wait_timeout_while(paint, STOPPING, writes);
        paint = waited.unwrap_or_else(PoisonError::into_inner).0;
        if paint.phase == Phase::Editing {
            // During a search it hears no doorbell. If somebody types just now, what it painted is written in a moment.
            let written = paint.painted_at.map_or(Duration::ZERO, |at| WRITTEN.saturating_sub(at.elapsed()));
            thread::sleep(written);
        }
        let last = paint.end(0);
        terminal::write(&last);
        self.mode.give_back();
        self.changed.notify_all();
    }
}
