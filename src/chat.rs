//! `townhall chat`: the hall from a terminal, and for scripts.
//!
//! A [`talk`] is a task that keeps one connected; its head is the [`client`], which does no I/O. Two fronts listen to it: the
//! [`visit`] at a terminal, whose [`screen`] has a prompt that nothing breaks, and the [`pipe`] between other programs.

pub mod address;
pub mod client;
pub mod frames;
mod line_door;
mod link;
mod outbox;
mod pace;
mod paper;
pub mod pipe;
mod roster;
pub mod screen;
pub mod talk;
mod trouble;
mod visit;
pub mod words;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use self::address::Address;
use self::link::{Login, Token};
use self::pipe::Pipe;
use self::talk::{Manner, Talk};
use self::visit::Ended;
use self::words::Language;
use crate::protocol::DEFAULT_LAST;

/// Said or heard as wanted.
const WELL: u8 = 0;
/// Something was refused, or the hall was lost.
const NOT_WELL: u8 = 1;
/// As shells count what a signal ended: 128 and its number.
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// How long who is interrupted may take to say good-bye.
const GOODBYE: Duration = Duration::from_secs(1);

/// How long a pipe without `--follow` tries to come back.
const PATIENCE_OF_A_SENDER: Duration = Duration::from_secs(60);

/// What is wanted, checked.
#[derive(Debug)]
pub struct Plan {
    pub address: Address,
    pub room: Option<String>,
    pub name: Option<String>,
    /// Who we are to the hall, as a guest.
    pub key: Uuid,
    pub token: Option<String>,
    pub token_file: Option<PathBuf>,
    /// Messages to show of what was said before; `None`: as many as is usual there.
    pub last: Option<u64>,
    pub follow: bool,
    pub json: bool,
    /// How long to try where the hall is not to be reached; `None`: as long as is usual there.
    pub retry_for: Option<Duration>,
}

/// Runs it to its end.
///
/// # Errors
/// There is no runtime to be had.
pub fn run(plan: Plan) -> io::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let code = runtime
        .block_on(async { if plan.is_a_visit() { at_a_terminal(plan).await } else { through_pipes(plan).await } })?;
    runtime.shutdown_background(); // a thread may sit in a read that never ends
    Ok(ExitCode::from(code))
}

impl Plan {
    /// Whether somebody sits there: who asks for lines or JSON wants no prompt.
    fn is_a_visit(&self) -> bool {
        let dumb = std::env::var("TERM").is_ok_and(|term| term == "dumb");
        let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        terminal && !dumb && !self.follow && !self.json
    }

    fn has_token(&self) -> bool {
        self.token.is_some() || self.token_file.is_some()
    }

    fn manner(&self, follow: bool) -> Manner {
        let token = self.token.clone().map(Token::Given);
        let token = token.or_else(|| self.token_file.clone().map(Token::In));
        let usual = if follow { None } else { Some(PATIENCE_OF_A_SENDER) };
        Manner {
            login: Login {
                name: self.name.clone().or_else(|| self.guests_name(token.is_some())),
                key: self.key,
                token,
            },
            address: self.address.clone(),
            lists: false,
            frames: self.json,
            first_patience: Some(self.retry_for.unwrap_or_default()),
            patience: self.retry_for.or(usual),
        }
    }

    /// Without a name a hall calls its guests by their address, which is nobody's business; by a key it is always the same.
    fn guests_name(&self, has_token: bool) -> Option<String> {
        let digest = Sha256::digest(self.key.as_bytes());
        let named = matches!(self.address, Address::Socket(_)) && !has_token;
        named.then(|| format!("guest-{:02x}{:02x}", digest[0], digest[1]))
    }
}

/// A prompt, and what is said above it.
async fn at_a_terminal(plan: Plan) -> io::Result<u8> {
    let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let wishes = visit::Wishes {
        room: plan.room.clone(),
        last: plan.last.unwrap_or(DEFAULT_LAST),
        language: Language::of_environment(),
        has_token: plan.has_token(),
        colours: !no_colour,
        has_events: matches!(plan.address, Address::Socket(_)),
    };
    let manner = Manner { lists: true, ..plan.manner(true) };
    Ok(match visit::visit(wishes, Talk::begin(manner)).await? {
        Ended::Well => WELL,
        Ended::NotWell => NOT_WELL,
        Ended::Terminated => TERMINATED,
    })
}

/// Between other programs. The keyboard is an input only where the answers are seen and we are in front: who listens in the
/// background must not be stopped for it.
async fn through_pipes(plan: Plan) -> io::Result<u8> {
    let keyboard = io::stdin().is_terminal();
    let in_front = rustix::termios::tcgetpgrp(io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
    let reads = !keyboard || io::stdout().is_terminal() && in_front;
    let wishes = pipe::Wishes {
        room: plan.room.clone(),
        last: plan.last.unwrap_or(0),
        follow: plan.follow || keyboard,
        stay: plan.follow || !reads,
        json: plan.json,
        language: Language::of_environment(),
        has_token: plan.has_token(),
    };
    let language = wishes.language;
    tokio::spawn(end_all_the_same());
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let talk = Talk::begin(plan.manner(wishes.stay));
    let input = reads.then(tokio::io::stdin);
    let mut pipe = Pipe::new(wishes, talk, input, tokio::io::stdout());
    let code = tokio::select! {
        ended = pipe.run() => {
            if let Err(error) = ended {
                complain(&words::broken_off(language, &error, pipe.outcome.accepted));
                pipe.outcome.lost = true;
            }
            None
        }
        _ = interrupt.recv() => Some(INTERRUPTED),
        _ = terminate.recv() => Some(TERMINATED),
    };
    if code.is_some() {
        let _ = tokio::time::timeout(GOODBYE, pipe.leave()).await; // so that the others see us go
    }
    if let Some(line) = pipe.outcome.under_way {
        complain(&words::in_doubt(language, line));
    }
    Ok(code.unwrap_or(if pipe.outcome.is_well() { WELL } else { NOT_WELL }))
}

/// Who cannot be interrupted, since nobody takes its complaints, ends without a word.
async fn end_all_the_same() -> io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let code = tokio::select! {
        _ = interrupt.recv() => INTERRUPTED,
        _ = terminate.recv() => TERMINATED,
    };
    tokio::time::sleep(2 * GOODBYE).await;
    std::process::exit(code.into())
}

/// A line on stderr; where nobody reads that, there is nobody to tell.
fn complain(line: &str) {
    let line: String = line.chars().filter(|c| !c.is_control()).collect();
    let _ = writeln!(io::stderr(), "townhall: {line}");
}
