//! The command line, checked once: what comes out of [`Cli::parse`] can be run.

use std::time::Duration;

use anyhow::ensure;
use clap::{ArgAction, Args, Parser, Subcommand};

use crate::dialect::Dialect;
use crate::machine;
use crate::publish::{self, Publish};
use crate::slow::{self, Slow};
use crate::speaker::{Pace, Script, Until};
use crate::threshold::Threshold;
use crate::wire::Stamp;

/// Puts load on chat servers that speak townhall.v1, and says what every single receiver got.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub scenario: Scenario,
}

const EXIT_CODES: &str = "Exit codes: 0 every receiver got everything once and in order · 1 something was lost, doubled, \
swapped or never accepted, nothing was received, or a --threshold does not hold · 2 wrong usage, or no connection at all.\n\
A run is void when this program was the bottleneck; its latencies then say nothing, its verdict still holds.";

#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Many receivers in one room, some of whom speak
    #[command(after_help = EXIT_CODES)]
    Fanout(Fanout),
    /// What honest readers of a room notice of others who stop reading
    #[command(after_help = slow::EXIT_CODES)]
    Slow(Slow),
    /// How fast the hall's Redis broker stores messages, without a hall around it
    #[command(after_help = publish::EXIT_CODES)]
    Publish(Publish),
}

#[derive(Debug, Clone, Args)]
pub struct Fanout {
    /// Where to connect: ws://host:port[/base] or http://…; `/ws` is appended. Clients are spread over all, one by one
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,
    /// How many clients read and judge everything they get
    #[arg(long, short, default_value_t = 1000, value_parser = positive)]
    pub connections: usize,
    /// How many more only count what they get, which is far cheaper. The room must be silent when the run ends
    #[arg(long, short, default_value_t = 0)]
    pub listeners: usize,
    /// How many of --connections speak; 0 only with --seconds: another process speaks
    #[arg(long, short, default_value_t = 10)]
    pub publishers: u32,
    /// How many messages in all
    #[arg(long, short, conflicts_with = "seconds")]
    pub messages: Option<u64>,
    /// For how long publishers speak; 10 if neither this nor --messages is given
    #[arg(long, short, value_parser = seconds)]
    pub seconds: Option<Duration>,
    /// Messages a second in all, whatever the server does: latencies count from when a message was due. 0: as fast as
    /// they are accepted
    #[arg(long, short, default_value_t = 100.0, value_parser = rate)]
    pub rate: f64,
    /// With --rate 0: how many messages each publisher has under way
    #[arg(long, default_value_t = 32, value_parser = positive)]
    pub window: usize,
    /// With --rate 0: a message is under way until its publisher has heard it, too. Nothing piles up then in a server that
    /// accepts faster than it delivers
    #[arg(long)]
    pub until_heard: bool,
    /// Bytes of text of a message, at least 40
    #[arg(long, default_value_t = 120)]
    pub size: usize,
    /// The room; without it a new one, load-<random>
    #[arg(long)]
    pub room: Option<String>,
    /// How many clients connect a second
    #[arg(long, default_value_t = 500.0, value_parser = above_zero)]
    pub connect_rate: f64,
    /// How long to wait at the end for what is still missing
    #[arg(long, default_value = "20s", value_parser = humantime::parse_duration)]
    pub settle: Duration,
    /// Whether clients whose connection ends come back, to the next URL, with their position
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub resume: bool,
    /// Take every line of a text frame as a message. Without it, several in one frame are a breach of the protocol
    #[arg(long)]
    pub lines: bool,
    /// What the servers speak, if it is not townhall.v1
    #[arg(long, value_enum, default_value_t, hide_default_value = true)]
    pub dialect: Dialect,
    /// The server's process, if it runs here: the result says how much processor time it took meanwhile
    #[arg(long, value_name = "PID")]
    pub watch: Option<u32>,
    /// Threads that carry the clients that read; as many as there are processors if not given
    #[arg(long, value_parser = positive)]
    pub workers: Option<usize>,
    #[command(flatten)]
    pub output: Output,
}

/// What becomes of the result.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// The run fails unless this holds, as `delivery.p99<200ms` or `lost==0`; can be given several times. The figures are
    /// named by a wrong one
    #[arg(long = "threshold", value_name = "FIGURE<VALUE")]
    pub thresholds: Vec<Threshold>,
    /// Print the result as one JSON object on standard output
    #[arg(long)]
    pub json: bool,
    /// Say nothing on standard error but what went wrong
    #[arg(long, short)]
    pub quiet: bool,
}

impl Fanout {
    /// Refuses what does not go together.
    pub fn check(&self) -> anyhow::Result<()> {
        ensure!(
            self.publishers as usize <= self.connections,
            "--publishers {}: they are among the --connections {}",
            self.publishers,
            self.connections
        );
        ensure!(
            self.publishers > 0 || self.seconds.is_some(),
            "--publishers 0: somebody else speaks; say with --seconds how long to listen"
        );
        ensure!(self.messages != Some(0), "--messages 0: nothing would be said");
        ensure!(!self.until_heard || self.rate == 0.0, "--until-heard goes with --rate 0: a schedule waits for nobody");
        if let Some(pid) = self.watch {
            ensure!(machine::cpu_time_of(pid).is_some(), "--watch {pid}: there is no such process here");
        }
        ensure!(
            self.size >= Stamp::MAX_BYTES,
            "--size {}: at least {} bytes, since a text says when it was due",
            self.size,
            Stamp::MAX_BYTES
        );
        Ok(())
    }

    /// What the publishers say.
    pub fn script(&self) -> Script {
        let until = match (self.messages, self.seconds) {
            (Some(messages), _) => Until::Messages(messages),
            (None, seconds) => Until::After(seconds.unwrap_or(Duration::from_secs(10))),
        };
        let pace = match self.rate {
            0.0 => Pace::Window(self.window),
            rate => Pace::Open(rate),
        };
        Script { publishers: self.publishers, pace, until, until_heard: self.until_heard }
    }

    /// Those who read and those who count.
    pub fn everybody(&self) -> usize {
        self.connections.saturating_add(self.listeners)
    }
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err("a whole number above 0".to_owned()),
        Ok(number) => Ok(number),
    }
}

fn number(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "a number".to_owned())?;
    let sane = number.is_finite() && (0.0..=1e9).contains(&number);
    sane.then_some(number).ok_or_else(|| "a number from 0 to 1000000000".to_owned())
}

/// 0, or not so slow that a schedule outlasts all clocks.
fn rate(text: &str) -> Result<f64, String> {
    match number(text)? {
        0.0 => Ok(0.0),
        _ => above_zero(text),
    }
}

pub fn above_zero(text: &str) -> Result<f64, String> {
    match number(text)? {
        number if number >= 0.001 => Ok(number),
        _ => Err("at least 0.001".to_owned()),
    }
}

pub fn seconds(text: &str) -> Result<Duration, String> {
    above_zero(text).map(Duration::from_secs_f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn fanout(arguments: &[&str]) -> anyhow::Result<Fanout> {
        let all = ["townhall-load", "fanout"].iter().chain(arguments);
        let Scenario::Fanout(fanout) = Cli::try_parse_from(all)?.scenario else { unreachable!("it says fanout") };
        fanout.check()?;
        Ok(fanout)
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn ten_seconds_at_a_hundred_a_second_are_the_default() {
        let script = fanout(&["ws://a"]).unwrap().script();
        assert!(matches!(script.until, Until::After(length) if length == Duration::from_secs(10)));
        assert!(matches!(script.pace, Pace::Open(100.0)));
        assert!(fanout(&["ws://a"]).unwrap().resume);
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        for wrong in [
            &[][..],
            &["ws://a", "--connections", "0"],
            &["ws://a", "--connections", "5", "--publishers", "6"],
            &["ws://a", "--publishers", "0"],
            &["ws://a", "--publishers", "0", "--messages", "5"],
            &["ws://a", "--messages", "5", "--seconds", "5"],
            &["ws://a", "--messages", "0"],
            &["ws://a", "--rate", "-1"],
            &["ws://a", "--rate", "nan"],
            &["ws://a", "--connect-rate", "0"],
            &["ws://a", "--size", "39"],
            &["ws://a", "--settle", "soon"],
            &["ws://a", "--until-heard"],
            &["ws://a", "--threshold", "lost"],
            &["ws://a", "--watch", "4294967295"],
        ] {
            assert!(fanout(wrong).is_err(), "{wrong:?}");
        }
        assert!(fanout(&["ws://a", "--publishers", "0", "--seconds", "1"]).is_ok());
        assert!(fanout(&["ws://a", "--rate", "0", "--resume", "false"]).is_ok());
    }
}
