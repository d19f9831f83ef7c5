//! The command line. What goes together is checked where a scenario is made a plan of.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};

use crate::crew;
use crate::dialect::Dialect;
use crate::publish::{self, Publish};
use crate::slow::{self, Slow};
use crate::threshold::Threshold;

/// Puts load on chat servers that speak townhall.v1, and says what every single receiver got.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// How many messages a publisher has under way at --rate 0, unless that is said.
pub const UNDER_WAY: usize = 32;
/// How many clients are on their way in at once at --connect-rate 0, unless that is said.
pub const ON_THEIR_WAY: usize = 64;

const EXIT_CODES: &str = "Exit codes: 0 every receiver got everything once and in order · 1 something was lost, doubled, \
swapped or never accepted, nothing was received, or a --threshold does not hold · 2 wrong usage, or no connection at all.\n\
A run is void when this program was, or may have been, the bottleneck; its latencies then say nothing, its verdict still holds.";

const EXIT_CODES_OF_CONNECT: &str = "Exit codes: 0 everybody got into the room · 1 somebody did not, or a --threshold does \
not hold · 2 wrong usage, or no connection at all.";

#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Many receivers in one room, some of whom speak
    #[command(after_help = EXIT_CODES)]
    Fanout(Fanout),
    /// Many small rooms, with somebody who speaks in each
    #[command(after_help = EXIT_CODES)]
    Rooms(Rooms),
    /// How fast clients get in; nobody speaks
    #[command(after_help = EXIT_CODES_OF_CONNECT)]
    Connect(Connect),
    /// All lines are cut at once, and everybody comes back for what was missed
    #[command(after_help = EXIT_CODES)]
    Storm(Storm),
    /// One room in which clients leave and come back all the time
    #[command(after_help = EXIT_CODES)]
    Churn(Churn),
    /// A long, quiet run of one room with some churn; with --watch it says whether the server's memory grows
    #[command(after_help = EXIT_CODES, mut_arg("rate", |arg| arg.default_value("10")), mut_arg("leave_rate", |arg| arg.default_value("1")),
        mut_arg("seconds", |arg| arg.help("For how long publishers speak; an hour if neither this nor --messages is given")))]
    Soak(Churn),
    /// What a day is like: rooms of all sizes (half of all are in the first, a quarter in the second, and so on), a tenth of
    /// each speaks, and clients leave and come back
    #[command(after_help = EXIT_CODES)]
    Mixed(Mixed),
    /// What honest readers of a room notice of others who stop reading
    #[command(after_help = slow::EXIT_CODES)]
    Slow(Slow),
    /// How fast the hall's Redis broker stores messages, without a hall around it
    #[command(after_help = publish::EXIT_CODES)]
    Publish(Publish),
    /// A part of a run, which this program starts by itself
    #[command(name = crew::WORKER, hide = true)]
    Worker,
}

#[derive(Debug, Clone, Args)]
pub struct Fanout {
    #[command(flatten)]
    pub way: Way,
    /// How many clients read and judge everything they get
    #[arg(long, short, default_value_t = 1000, value_parser = positive)]
    pub connections: usize,
    /// How many more only count what they get, which is far cheaper. The room must be silent when the run ends
    #[arg(long, short, default_value_t = 0)]
    pub listeners: usize,
    /// How many of --connections speak, 10 or all if that is not given; 0 only with --seconds: another process speaks
    #[arg(long, short)]
    pub publishers: Option<u32>,
    /// The room; without it a new one, load-<random>
    #[arg(long)]
    pub room: Option<String>,
    /// Whether clients whose connection ends come back, to the next URL, with their position
    #[arg(long, default_value_t = true, action = ArgAction::Set, value_name = "BOOL")]
    pub resume: bool,
    #[command(flatten)]
    pub speech: Speech,
    #[command(flatten)]
    pub plots: Plots,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct Rooms {
    #[command(flatten)]
    pub way: Way,
    /// How many rooms
    #[arg(long, default_value_t = 100, value_parser = positive)]
    pub rooms: usize,
    /// How many clients each has
    #[arg(long, default_value_t = 10, value_parser = positive)]
    pub members: usize,
    /// How many of each room's members speak
    #[arg(long, short, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub publishers: u32,
    #[command(flatten)]
    pub speech: Speech,
    #[command(flatten)]
    pub plots: Plots,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
#[command(mut_arg("connect_rate", |arg| arg.help("How many clients connect a second, whatever the server does: each is due at its time. 0: as fast as they are let in")
    .value_parser(rate)))]
pub struct Connect {
    #[command(flatten)]
    pub way: Way,
    /// How many clients
    #[arg(long, short, default_value_t = 1000, value_parser = positive)]
    pub connections: usize,
    /// With --connect-rate 0: how many are on their way in at once; 64 if that is not given
    #[arg(long, value_parser = positive)]
    pub window: Option<usize>,
    /// For how long all stay when the last one is in
    #[arg(long, default_value = "0s", value_parser = length)]
    pub stay: Duration,
    #[command(flatten)]
    pub plots: Plots,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
#[command(mut_arg("seconds", |arg| arg.help("For how long publishers speak; 20 if neither this nor --messages is given")))]
pub struct Storm {
    #[command(flatten)]
    pub way: Way,
    /// A server that nobody goes to before the storm; can be given several times
    #[arg(long = "spare", value_name = "URL")]
    pub spares: Vec<String>,
    /// How many clients read and judge everything they get
    #[arg(long, short, default_value_t = 1000, value_parser = positive)]
    pub connections: usize,
    /// How many of them speak; 10 or all if that is not given
    #[arg(long, short, value_parser = clap::value_parser!(u32).range(1..))]
    pub publishers: Option<u32>,
    /// When all lines are cut, after the publishers began
    #[arg(long, default_value = "5s", value_parser = length)]
    pub cut_after: Duration,
    /// A command for the shell that is run then in place of that, like 'kill -9 4711'. One that fails fails the run; nobody
    /// waits for one that goes on
    #[arg(long, value_name = "COMMAND")]
    pub instead: Option<String>,
    #[command(flatten)]
    pub speech: Speech,
    #[command(flatten)]
    pub plots: Plots,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct Churn {
    #[command(flatten)]
    pub way: Way,
    /// How many clients read and judge everything they get
    #[arg(long, short, default_value_t = 1000, value_parser = positive)]
    pub connections: usize,
    /// How many of them speak; 10 or all if that is not given
    #[arg(long, short, value_parser = clap::value_parser!(u32).range(1..))]
    pub publishers: Option<u32>,
    #[command(flatten)]
    pub leaving: Leaving,
    #[command(flatten)]
    pub speech: Speech,
    #[command(flatten)]
    pub plots: Plots,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Debug, Clone, Args)]
pub struct Mixed {
    #[command(flatten)]
    pub way: Way,
    /// How many clients read and judge everything they get
    #[arg(long, short, default_value_t = 1000, value_parser = positive)]
    pub connections: usize,
    #[command(flatten)]
    pub leaving: Leaving,
    #[command(flatten)]
    pub speech: Speech,
    #[command(flatten)]
    pub plots: Plots,
    #[command(flatten)]
    pub output: Output,
}

/// Who leaves and comes back.
#[derive(Debug, Clone, Args)]
pub struct Leaving {
    /// How many clients leave a second, in turn (those that speak stay); they come back with their position
    #[arg(long, default_value_t = 10.0, value_parser = above_zero)]
    pub leave_rate: f64,
    /// For how long each stays away
    #[arg(long, default_value = "1s", value_parser = length)]
    pub away: Duration,
}

/// How clients get to the servers.
#[derive(Debug, Clone, Args)]
pub struct Way {
    /// Where to connect: ws://host:port[/base], wss://…, http://… or https://…, to which `/ws` is appended; plain+ws://… without
    /// the protocol, as texts; tcp://host:port as lines. Clients are spread over all, one by one
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,
    /// How many clients connect a second
    #[arg(long, default_value_t = 500.0, value_parser = above_zero)]
    pub connect_rate: f64,
    /// Addresses of this machine that clients connect from, in turn. Without it the system chooses; beyond 20,000 clients on
    /// loopback 127.0.0.1, 127.0.0.2 and so on
    #[arg(long = "source", value_name = "IP,…", value_delimiter = ',')]
    pub sources: Vec<IpAddr>,
    /// Take every line of a text frame as a message. Without it, several in one frame are a breach of the protocol
    #[arg(long)]
    pub lines: bool,
    /// What the servers speak, if it is not townhall.v1
    #[arg(long, value_enum, default_value_t, hide_default_value = true)]
    pub dialect: Dialect,
    /// The server's process, if it runs here: the result says how much processor time it took meanwhile, and memory
    #[arg(long, value_name = "PID")]
    pub watch: Option<u32>,
    /// Processes that carry the clients that read; as many as there are processors if not given, and as many more as their
    /// number of open files asks for
    #[arg(long, value_parser = positive)]
    pub workers: Option<usize>,
}

/// What is said.
#[derive(Debug, Clone, Args)]
pub struct Speech {
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
    /// With --rate 0: how many messages each publisher has under way; 32 if that is not given
    #[arg(long, value_parser = positive)]
    pub window: Option<usize>,
    /// With --rate 0: a message is under way until its publisher has heard it, too. Nothing piles up then in a server that
    /// accepts faster than it delivers
    #[arg(long)]
    pub until_heard: bool,
    /// Bytes of text of a message, at least 40
    #[arg(long, default_value_t = 120)]
    pub size: usize,
    /// How long to wait at the end for what is still missing
    #[arg(long, default_value = "20s", value_parser = length)]
    pub settle: Duration,
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

/// And how it looks.
#[derive(Debug, Clone, Args)]
pub struct Plots {
    /// Write the result as a page, too, with plots of latency and throughput over time; it needs nothing else
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
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

/// Seconds, or with a unit.
pub fn length(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(10 * 365 * 24);
    let length = match text.parse::<f64>() {
        Ok(_) => number(text).map(Duration::from_secs_f64),
        Err(_) => humantime::parse_duration(text).map_err(|_| "a number of seconds, or like 500ms, 20s, 1h".to_owned()),
    }?;
    if length > LONGEST { Err("at most ten years".to_owned()) } else { Ok(length) }
}

/// The same, and more than nothing.
pub fn seconds(text: &str) -> Result<Duration, String> {
    match length(text)? {
        length if length >= Duration::from_millis(1) => Ok(length),
        _ => Err("more than that".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_length_is_seconds_or_has_a_unit() {
        for (text, expected) in [("5", 5000), ("0.5", 500), ("250ms", 250), ("1m 2s", 62_000), ("0", 0)] {
            assert_eq!(length(text), Ok(Duration::from_millis(expected)), "{text}");
        }
        for wrong in ["", "soon", "-1", "nan", "inf", "18446744073709551615s", "1e30"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
        assert!(seconds("0").is_err() && seconds("1ms").is_ok());
    }

    #[test]
    fn a_soak_is_quiet_unless_that_is_said() {
        let soak = |arguments: &[&str]| {
            let all = ["townhall-load", "soak", "ws://a"].iter().chain(arguments);
            let Scenario::Soak(Churn { speech, leaving, .. }) = Cli::parse_from(all).scenario else { unreachable!() };
            (speech.rate, leaving.leave_rate)
        };
        assert_eq!((soak(&[]), soak(&["--rate", "50"])), ((10.0, 1.0), (50.0, 1.0)));
        let Scenario::Churn(churn) = Cli::parse_from(["townhall-load", "churn", "ws://a"]).scenario else {
            unreachable!()
        };
        assert_eq!(churn.speech.rate, 100.0);
    }
}
