//! What is written to the terminal: decided here, written by others.
//!
//! Every paint is one text. It begins where our rows begin (the line editor has cleared them) and holds the lines that wait, the
//! status row and the prompt; the editor appends what is typed and places the cursor.

use std::time::{Duration, Instant};

use super::Looks;
use super::columns::{Place, truncate, width};
use super::lines::Lines;

/// What the line editor is told that its prompt is: two rows, and two columns in the second. What is seen instead has the same
/// size: see [`Paint::prompt`].
pub const PROMPT: &str = "x\n> ";

const WAITING: (usize, usize) = (10_000, 4 * 1024 * 1024);
const SHOWN: (usize, usize) = (500, 256 * 1024);

/// After a change of the terminal's width: the editor may hear of it later than we see it, so a few paints more begin anew.
const UNSETTLED: Duration = Duration::from_millis(500);

/// Where the cursor comes back to after Enter; see [`Phase::Accepted`].
const KEEP_PLACE: &str = "\x1b7";
const BACK_TO_PLACE: &str = "\x1b8\x1b[J";

/// From the home position on, everything is erased.
const ANEW: &str = "\x1b[H\x1b[J";

/// The terminal's columns and rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// Whose the terminal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of ours is below the last line: the editor does something else.
    Away,
    /// The editor is about to paint for the first time.
    Starting,
    /// Status, prompt and input are on the screen.
    Editing,
    /// Enter was pressed. Our rows are cleared and where they began is kept by the terminal, because the editor moves its
    /// cursor about as if the input was there still.
    Accepted,
    /// The editor wanted to paint while the screen closes, and is kept from it for good: it writes nothing any more.
    Stopped { by_doorbell: bool },
    /// Nothing is painted any more; lines are written as they come.
    Ended,
}

/// Where things are on the screen, from the first of our rows on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Painted {
    pub cursor: Place,
    pub end: Place,
}

pub struct Paint {
    pub phase: Phase,
    /// The editor is to be stopped.
    pub closing: bool,
    waiting: Lines,
    /// Of the waiting ones, so many were dropped.
    dropped: usize,
    shown: Lines,
    status: String,
    looks: Looks,
    /// Something waits that no paint has shown yet.
    pub stale: bool,
    /// The editor says so before every paint but those that the doorbell asked for.
    edited: bool,
    anew: bool,
    size: Option<Size>,
    unsettled_until: Option<Instant>,
    pub painted_at: Option<Instant>,
    painted: Painted,
    /// The editor's prompt at the last paint, and where it ends.
    given: String,
    prompt_end: Place,
    line: String,
    at: usize,
}

impl Paint {
    pub fn new(looks: Looks) -> Self {
        Paint {
            phase: Phase::Away,
            closing: false,
            waiting: Lines::bounded(WAITING.0, WAITING.1),
            dropped: 0,
            shown: Lines::bounded(SHOWN.0, SHOWN.1),
            status: String::new(),
            looks,
            stale: false,
            edited: false,
            anew: false,
            size: None,
            unsettled_until: None,
            painted_at: None,
            painted: Painted::default(),
            given: String::new(),
            prompt_end: Place::default(),
            line: String::new(),
            at: 0,
        }
    }

    /// Whole lines, above the prompt with the next paint.
    pub fn queue(&mut self, lines: &str) {
        for line in lines.strip_suffix('\n').unwrap_or(lines).split('\n') {
            self.dropped += self.waiting.push(line.into());
        }
        self.stale = true;
    }

    pub fn status(&mut self, text: &str) {
        if self.status != text {
            self.status = text.into();
            self.stale = true;
        }
    }

    /// The next paint begins with an empty screen and the newest lines.
    pub fn begin_anew(&mut self) {
        self.anew = true;
    }

    /// The editor's line, as it is at every change of it or of the cursor; whether the text is another than before. A paint
    /// follows, unless Enter was pressed.
    pub fn edit(&mut self, line: &str, at: usize) -> bool {
        self.edited = true;
        self.at = at;
        let changed = self.line != line;
        if changed {
            self.line = line.into();
        }
        changed
    }

    /// What is painted in place of `given`, the prompt that the editor believes in: [`PROMPT`], or that of a search. `None`: the
    /// editor is to be stopped before it writes.
    pub fn prompt(&mut self, given: &str, size: Size, now: Instant) -> Option<String> {
        let by_doorbell = !std::mem::take(&mut self.edited);
        match self.phase {
            Phase::Accepted => return Some(KEEP_PLACE.into()),
            Phase::Stopped { .. } | Phase::Ended => return None,
            _ if self.closing => {
                self.phase = Phase::Stopped { by_doorbell };
                return None;
            }
            Phase::Away | Phase::Starting | Phase::Editing => self.phase = Phase::Editing,
        }
        self.painted_at = Some(now);
        // For the doorbell the editor gives its usual prompt, though it may still believe in that of a search.
        if !by_doorbell {
            self.given = given.into();
        }
        let usual = self.given == PROMPT;
        self.prompt_end = if usual {
            Place { row: 1, column: 2 }
        } else {
            Place::default().after(&self.given, size.columns).wrapped(size.columns)
        };
        let mut painted = String::new();
        if by_doorbell {
            // The editor has written a line break for the doorbell's empty message.
            painted.push_str("\x1b[A");
        }
        let fresh = self.drain();
        let anew = self.begins_anew(size, now);
        self.painted = self.places(size);
        if anew {
            self.paint_screen(&mut painted, size);
        } else {
            painted.push_str(&fresh);
        }
        if usual {
            painted.push_str(&self.status_row(size.columns));
            painted.push_str("\n> ");
        } else {
            painted.push_str(&self.given);
        }
        Some(painted)
    }

    /// What is painted in place of what is typed: no control characters, which the editor takes for characters of no width.
    pub fn input(&self, line: &str) -> String {
        match self.phase {
            Phase::Accepted => String::new(),
            _ => line.chars().filter(|c| !c.is_control() || matches!(c, '\n' | '\t')).collect(),
        }
    }

    /// Enter.
    pub fn accept(&mut self) {
        if self.phase == Phase::Editing {
            self.phase = Phase::Accepted;
        }
    }

    /// The line and the cursor in it.
    pub fn line(&self) -> (&str, usize) {
        (&self.line, self.at)
    }

    /// The editor is done with an accepted line: to be written then.
    pub fn accepted(&mut self) -> &'static str {
        self.edit("", 0);
        self.painted = Painted::default();
        match std::mem::replace(&mut self.phase, Phase::Away) {
            Phase::Accepted => BACK_TO_PLACE,
            _ => "",
        }
    }

    /// Leaves the terminal to others: to be written then. `below`: so many rows is the cursor below where it was painted.
    pub fn end(&mut self, below: usize) -> String {
        let mut last = match self.phase {
            // Our rows are cleared, and one line break is written.
            Phase::Stopped { by_doorbell: true } => String::from("\r\x1b[A\x1b[J"),
            Phase::Editing | Phase::Stopped { .. } => self.erase(below),
            Phase::Accepted => BACK_TO_PLACE.into(),
            Phase::Away | Phase::Starting | Phase::Ended => String::new(),
        };
        self.phase = Phase::Ended;
        last.push_str(&self.drain());
        last
    }

    /// What erases our rows and leaves the cursor where they began.
    pub fn erase(&self, below: usize) -> String {
        match self.painted.cursor.row + below {
            0 => String::from("\r\x1b[J"),
            rows => format!("\r\x1b[{rows}A\x1b[J"),
        }
    }

    /// The editor has given up its line and written a line break: to be written then, so that it can begin anew.
    pub fn stumbled(&mut self) -> String {
        let erased = self.erase(1);
        self.edit("", 0);
        self.painted = Painted::default();
        self.phase = Phase::Away;
        erased
    }

    /// What is on the screen.
    pub fn painted(&self) -> Painted {
        self.painted
    }

    /// The lines that wait, each with its line break; from now on they are shown.
    pub fn drain(&mut self) -> String {
        self.stale = false;
        let mut text = String::new();
        if self.dropped > 0 {
            let said = (self.looks.skipped)(std::mem::take(&mut self.dropped));
            self.take(said, &mut text);
        }
        while let Some(line) = self.waiting.pop() {
            self.take(line, &mut text);
        }
        text
    }

    fn take(&mut self, line: String, text: &mut String) {
        text.push_str(&line);
        text.push('\n');
        self.shown.push(line);
    }

    fn places(&self, size: Size) -> Painted {
        let place = |text| self.prompt_end.after(&self.input(text), size.columns).wrapped(size.columns);
        Painted { cursor: place(self.line.get(..self.at).unwrap_or(&self.line)), end: place(&self.line) }
    }

    /// When the width changes the terminal has laid out our rows in a way of its own, and the editor does not know it.
    fn begins_anew(&mut self, size: Size, now: Instant) -> bool {
        let before = self.size.replace(size);
        if before.is_some_and(|before| before.columns != size.columns) {
            self.unsettled_until = Some(now + UNSETTLED);
        }
        let unsettled = self.unsettled_until.is_some_and(|until| now < until);
        std::mem::take(&mut self.anew) || unsettled
    }

    fn paint_screen(&self, painted: &mut String, size: Size) {
        let ours = self.painted.end.row + 1;
        painted.push_str(ANEW);
        painted.push_str(&self.shown.tail(size.rows.saturating_sub(ours), size.columns));
    }

    /// One row less than a column wide, so that it never wraps.
    fn status_row(&self, columns: usize) -> String {
        let columns = columns.saturating_sub(1);
        let text = truncate(&self.status, columns);
        if !self.looks.colours {
            return text;
        }
        let rest = columns.saturating_sub(width(&text));
        format!("\x1b[7m{text}{:rest$}\x1b[0m", "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size { columns: 20, rows: 6 };

    fn paint() -> Paint {
        let skipped = |count| format!("{count} skipped");
        let mut paint =
            Paint::new(Looks { colours: false, interrupt_hint: String::new(), stumble_hint: String::new(), skipped });
        paint.status("lobby");
        paint
    }

    fn edited(paint: &mut Paint, line: &str) -> String {
        paint.edit(line, line.len());
        paint.prompt(PROMPT, SIZE, Instant::now()).expect("stopped")
    }

    #[test]
    fn what_waits_is_painted_once_above_the_prompt() {
        let mut paint = paint();
        paint.queue("one\ntwo");
        paint.queue("three\n");
        assert_eq!(edited(&mut paint, ""), "one\ntwo\nthree\nlobby\n> ");
        assert_eq!(edited(&mut paint, "a"), "lobby\n> ");
    }

    #[test]
    fn the_doorbell_s_line_break_is_taken_back() {
        let mut paint = paint();
        edited(&mut paint, "a");
        paint.queue("one");
        assert!(paint.stale);
        assert_eq!(paint.prompt(PROMPT, SIZE, Instant::now()).as_deref(), Some("\x1b[Aone\nlobby\n> "));
        assert!(!paint.stale);
    }

    #[test]
    fn a_search_has_its_own_prompt_and_shows_what_waits() {
        let mut paint = paint();
        paint.queue("one");
        paint.edit("", 0);
        assert_eq!(paint.prompt("(search): ", SIZE, Instant::now()).as_deref(), Some("one\n(search): "));
        assert_eq!(paint.painted().cursor, Place { row: 0, column: 10 });
    }

    #[test]
    fn enter_leaves_nothing_and_keeps_what_waits() {
        let mut paint = paint();
        edited(&mut paint, "said");
        paint.queue("one");
        paint.accept();
        assert_eq!(edited(&mut paint, "said"), KEEP_PLACE);
        assert_eq!(paint.input("said"), "");
        assert_eq!(paint.accepted(), BACK_TO_PLACE);
        assert_eq!(edited(&mut paint, ""), "one\nlobby\n> ");
    }

    #[test]
    fn another_width_paints_the_newest_lines_anew_until_it_has_settled() {
        let mut paint = paint();
        let begin = Instant::now();
        paint.queue("one\ntwo\nthree\nfour\nfive");
        edited(&mut paint, "x");
        let narrow = Size { columns: 10, rows: 6 };
        paint.queue("more than ten");
        paint.edit("123456789", 9);
        let anew = Some(format!("{ANEW}five\nmore than ten\nlobby\n> "));
        assert_eq!(paint.prompt(PROMPT, narrow, begin), anew, "three rows are ours, three are left");
        paint.edit("123456789", 9);
        assert_eq!(paint.prompt(PROMPT, narrow, begin + UNSETTLED / 2), anew);
        paint.edit("123456789", 9);
        assert_eq!(paint.prompt(PROMPT, narrow, begin + UNSETTLED).as_deref(), Some("lobby\n> "));
    }

    #[test]
    fn what_overflows_is_counted() {
        let mut paint = paint();
        for _ in 0..WAITING.0 + 2 {
            paint.queue("line");
        }
        assert!(edited(&mut paint, "").starts_with("2 skipped\nline\n"));
    }

    #[test]
    fn ending_erases_the_rows_that_are_ours_and_says_what_waits() {
        let mut paint = paint();
        edited(&mut paint, &"x".repeat(40));
        paint.queue("bye");
        assert_eq!(paint.end(0), "\r\x1b[3A\x1b[Jbye\n");
        assert_eq!(paint.prompt(PROMPT, SIZE, Instant::now()), None);
        assert_eq!(paint.end(0), "");
    }

    #[test]
    fn the_editor_is_stopped_before_it_writes_and_what_it_has_painted_is_erased() {
        let mut paint = paint();
        edited(&mut paint, "a");
        paint.closing = true;
        paint.edit(&"x".repeat(40), 40);
        assert_eq!(paint.prompt(PROMPT, SIZE, Instant::now()), None);
        assert_eq!(paint.end(0), "\r\x1b[1A\x1b[J", "of the long line nothing was written");
    }

    #[test]
    fn the_doorbell_s_line_break_is_taken_back_at_the_end_too() {
        let mut paint = paint();
        edited(&mut paint, &"x".repeat(40));
        paint.closing = true;
        assert_eq!(paint.prompt(PROMPT, SIZE, Instant::now()), None);
        assert_eq!(paint.end(0), "\r\x1b[A\x1b[J");
    }

    #[test]
    fn what_is_typed_is_painted_without_control_characters() {
        let paint = paint();
        assert_eq!(paint.input("a\u{7}\u{9b}2J\u{1b}b\tc\nd"), "a2Jb\tc\nd");
    }

    #[test]
    fn the_status_is_one_row_whatever_it_says() {
        let mut paint = paint();
        paint.status("a status that is far too long");
        assert_eq!(edited(&mut paint, ""), "a status that is f…\n> ");
        paint.looks.colours = true;
        paint.status("你好");
        assert_eq!(edited(&mut paint, ""), format!("\x1b[7m你好{}\x1b[0m\n> ", " ".repeat(15)));
    }
}
