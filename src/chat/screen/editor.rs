//! The line editor's side: what it is given to paint, which keys are ours, and the thread it runs on.
//!
//! What of rustyline this rests on: its highlighter's prompt is part of every paint; it asks [`Highlighter::highlight_char`]
//! before every paint but those for the doorbell, and paints after it when the answer is yes; and it writes a line break for a
//! doorbell's empty message.

use std::borrow::Cow;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Instant;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::Hinter;
use rustyline::history::MemHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{
    Cmd, ColorMode, ConditionalEventHandler, Config, Editor, Event, EventContext, EventHandler, ExternalPrinter,
    KeyCode, KeyEvent, Modifiers, Movement, RepeatCount,
};
use tokio::sync::mpsc::Sender;

use super::complete::{Completion, complete};
use super::paint::PROMPT;
use super::{Inner, Input, terminal};

/// What a line begins with, around the cursor.
#[derive(Default)]
pub struct Initial {
    pub before: String,
    pub behind: String,
}

impl Initial {
    fn is_empty(&self) -> bool {
        self.before.is_empty() && self.behind.is_empty()
    }
}

/// Lines of one's own that Up brings back.
const HISTORY: usize = 200;

pub type LineEditor = Editor<Helper, MemHistory>;

pub fn editor(inner: &Arc<Inner>, inputs: Sender<Input>) -> rustyline::Result<LineEditor> {
    // Forced: the highlighter is asked only where there are colours, and it is what paints; the colours are our own affair.
    let config = Config::builder().color_mode(ColorMode::Forced).max_history_size(HISTORY)?.build();
    let history = MemHistory::with_config(&config);
    let mut editor = Editor::with_history(config, history)?;
    editor.set_helper(Some(Helper { inner: inner.clone(), inputs }));
    for key in [KeyEvent::ctrl('C'), KeyEvent::ctrl('D'), KeyEvent::ctrl('L'), KeyEvent::ctrl('Z')] {
        editor.bind_sequence(key, EventHandler::Conditional(Box::new(Keys(inner.clone()))));
    }
    // What a key would do as a control character in a text is nobody's wish, and the editor cannot lay it out.
    for key in [KeyEvent::ctrl('Q'), KeyEvent::ctrl('V'), KeyEvent::ctrl('\\')] {
        editor.bind_sequence(key, Cmd::Noop);
    }
    let tab = KeyEvent(KeyCode::Tab, Modifiers::NONE);
    editor.bind_sequence(tab, EventHandler::Conditional(Box::new(Keys(inner.clone()))));
    Ok(editor)
}

/// The editor's thread: lines until somebody leaves, or nobody listens any more.
pub fn run(inner: &Inner, mut editor: LineEditor, inputs: &Sender<Input>) {
    let mut initial = Initial::default();
    while inner.starts() {
        match editor.readline_with_initial(PROMPT, (&initial.before, &initial.behind)) {
            Ok(line) => {
                initial = inner.accepted();
                if !initial.is_empty() || line.trim().is_empty() {
                    continue;
                }
                let _ = editor.add_history_entry(line.as_str());
                if inputs.blocking_send(Input::Line(line)).is_err() {
                    break;
                }
            }
            // Bytes that are not UTF-8 were typed, or pasted: with all that came with them they are left out, since nobody knows
            // what is a key in it. The line stays.
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                terminal::discard();
                initial = inner.stumbled();
            }
            Err(error) => {
                inner.left(matches!(error, ReadlineError::Interrupted));
                break;
            }
        }
    }
    let _ = inputs.blocking_send(Input::Leave);
}

/// The doorbell's thread: has the editor paint what waits while nobody types. The message is empty, so that nothing is written
/// if it comes when the editor does something else; its next paint shows all the same what waits.
pub fn ring(inner: &Inner, mut doorbell: impl ExternalPrinter) {
    while inner.waits_for_paint() {
        if doorbell.print(String::new()).is_err() {
            return;
        }
    }
}

pub struct Helper {
    inner: Arc<Inner>,
    inputs: Sender<Input>,
}

impl rustyline::Helper for Helper {}

/// Tab is a key of ours: rustyline's own completion would let no line be printed while it waits for the next key.
impl Completer for Helper {
    type Candidate = String;
}

impl Hinter for Helper {
    type Hint = String;
}

impl Highlighter for Helper {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(self.inner.prompt(prompt, terminal::size(), Instant::now()))
    }

    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        Cow::Owned(self.inner.paint().input(line))
    }

    /// Whether the whole is painted anew: always, since this tells apart the doorbell's paints; but after Enter the cursor
    /// is only moved.
    fn highlight_char(&self, line: &str, at: usize, _: CmdKind) -> bool {
        let (changed, editing) = self.inner.edited(line, at);
        if changed && editing && is_said(line) && self.inner.tells_typing() {
            let _ = self.inputs.try_send(Input::Typing);
        }
        editing
    }
}

/// Commands are nobody's business; `//` is how a text begins with a slash.
fn is_said(line: &str) -> bool {
    !line.trim().is_empty() && (!line.starts_with('/') || line.starts_with("//"))
}

impl Validator for Helper {
    /// Called at Enter, before anything else. The empty message makes the editor paint once more: the line vanishes, because it
    /// comes back from the hall like everybody's.
    fn validate(&self, _: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        self.inner.accept();
        Ok(ValidationResult::Valid(Some(String::new())))
    }
}

/// Tab, Ctrl-C, Ctrl-D, Ctrl-L and Ctrl-Z.
struct Keys(Arc<Inner>);

impl ConditionalEventHandler for Keys {
    fn handle(&self, event: &Event, _: RepeatCount, _: bool, context: &EventContext) -> Option<Cmd> {
        let empty = context.line().is_empty();
        match event.get(0)?.0 {
            KeyCode::Tab => Some(self.tab(context.line(), context.pos())),
            KeyCode::Char('C') if !empty => Some(Cmd::Kill(Movement::WholeBuffer)),
            KeyCode::Char('C') if self.0.interrupted() => Some(Cmd::Interrupt),
            KeyCode::Char('D') if empty => Some(Cmd::EndOfFile),
            KeyCode::Char('D') => None,
            KeyCode::Char('L') => {
                self.0.paint().begin_anew();
                Some(Cmd::Repaint)
            }
            KeyCode::Char('Z') => {
                self.0.suspend();
                Some(Cmd::Repaint)
            }
            _ => Some(Cmd::Repaint),
        }
    }
}

impl Keys {
    fn tab(&self, line: &str, at: usize) -> Cmd {
        match complete(line, at, &self.0.known()) {
            Completion::Nothing => Cmd::Noop,
            Completion::Several(all) => {
                self.0.paint().queue(&all.join("  "));
                Cmd::Repaint
            }
            Completion::Replace { from, text } => match text.strip_prefix(&line[from..at]) {
                Some(rest) => Cmd::Insert(1, rest.into()),
                None => {
                    // The editor has no command that leaves the cursor behind what it replaced: the line begins anew.
                    let before = format!("{}{text}", &line[..from]);
                    self.0.keys().initial = Some(Initial { before, behind: line[at..].into() });
                    Cmd::AcceptLine
                }
            },
        }
    }
}
