//! The terminal itself: its size, its mode, and what is written to it past the line editor.

use std::io::{self, IsTerminal, Write};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::read;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize,
    tcsetattr,
};

use super::paint::Size;

/// Names of terminals that can only be written to; the line editor does not edit on them either.
const WITHOUT_CURSOR: [&str; 3] = ["dumb", "cons25", "emacs"];

/// What a terminal without a size is taken for.
const USUAL: Size = Size { columns: 80, rows: 24 };

const PASTE_END: &[u8] = b"\x1b[201~";
const PASTE_OFF: &str = "\x1b[?2004l";
const PASTE_ON: &str = "\x1b[?2004h";

/// The mode that the terminal had before us.
pub struct Mode(Termios);

impl Mode {
    /// Takes the terminal: what is typed is not echoed, and no key is a signal. The editor does the same for each line and then
    /// gives back what it found; in between, keys would be echoed into the screen, and a Ctrl-C would end us.
    pub fn take() -> io::Result<Mode> {
        check()?;
        let before = tcgetattr(io::stdin())?;
        set(&typed(before.clone()))?;
        Ok(Mode(before))
    }

    /// Gives it back. Waits until what was written has gone out.
    pub fn give_back(&self) {
        write(PASTE_OFF);
        let _ = set(&self.0);
    }

    /// Takes it again, after [`Mode::give_back`].
    pub fn take_again(&self) {
        let _ = set(&typed(self.0.clone()));
        write(PASTE_ON);
    }
}

/// Throws away what is typed until there is a pause in it, or a paste ends.
pub fn discard() {
    let Ok(before) = tcgetattr(io::stdin()) else { return };
    let _ = set(&typed(before.clone()));
    let (pause, mut bytes, mut end) = (Timespec { tv_sec: 0, tv_nsec: 200_000_000 }, [0; 4096], Vec::new());
    while poll(&mut [PollFd::new(&io::stdin(), PollFlags::IN)], Some(&pause)).is_ok_and(|ready| ready > 0) {
        match read(io::stdin(), &mut bytes) {
            Ok(count) if count > 0 => end.extend_from_slice(&bytes[..count]),
            _ => break,
        }
        if end.ends_with(PASTE_END) {
            break;
        }
        end.drain(..end.len().saturating_sub(PASTE_END.len()));
    }
    let _ = set(&before);
}

fn check() -> io::Result<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "this is no terminal"));
    }
    match std::env::var("TERM") {
        Ok(term) if WITHOUT_CURSOR.iter().any(|name| term.eq_ignore_ascii_case(name)) => Err(io::Error::new(
            io::ErrorKind::Unsupported,
            format!("a terminal of the kind {term} has no cursor to move"),
        )),
        _ => Ok(()),
    }
}

fn typed(mut mode: Termios) -> Termios {
    use InputModes as In;
    mode.input_modes -= In::BRKINT | In::ICRNL | In::INPCK | In::ISTRIP | In::IXON;
    mode.control_modes |= ControlModes::CS8;
    mode.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::IEXTEN | LocalModes::ISIG;
    mode.special_codes[SpecialCodeIndex::VMIN] = 1;
    mode.special_codes[SpecialCodeIndex::VTIME] = 0;
    mode
}

fn set(mode: &Termios) -> io::Result<()> {
    Ok(tcsetattr(io::stdin(), OptionalActions::Drain, mode)?)
}

pub fn size() -> Size {
    match tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col.into(), rows: size.ws_row.into() }
        }
        _ => USUAL,
    }
}

/// Whoever took the terminal away has no use for what was to be written.
pub fn write(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}
