//! Where and how a run was made: without it a figure says nothing.

use std::time::SystemTime;

use serde::Serialize;

use crate::machine;
use crate::plan::{Entry, Plan};
use crate::run::since;

#[derive(Debug, Default, Serialize)]
pub struct Environment {
    /// Of this program.
    pub version: &'static str,
    /// As it was typed; a token or key in a URL is left out.
    pub command: String,
    /// Unix time in seconds.
    pub began: u64,
    pub processor: String,
    /// That this program may use.
    pub cores: usize,
    pub kernel: String,
    /// Files that a process may open.
    pub nofile: u64,
    /// Processes that carried the clients.
    pub workers: usize,
    pub targets: Vec<String>,
    /// Addresses that clients came from; empty: the system's choice.
    pub sources: Vec<String>,
    /// How clients came in: so many a second, or as fast as they were let in.
    pub connect_rate: Option<f64>,
}

impl Environment {
    pub fn of(plan: &Plan, workers: usize) -> Self {
        Environment {
            version: env!("CARGO_PKG_VERSION"),
            command: command(std::env::args()),
            began: SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(since(plan.began)).as_secs(),
            processor: machine::processor(),
            cores: machine::cores(),
            kernel: machine::kernel(),
            nofile: rlimit::Resource::NOFILE.get_hard().unwrap_or(0),
            workers,
            targets: plan.targets.iter().map(ToString::to_string).collect(),
            sources: plan.sources.iter().map(ToString::to_string).collect(),
            connect_rate: match plan.entry {
                Entry::Open(rate) => Some(rate),
                Entry::Window(_) => None,
            },
        }
    }
}

/// What was typed, without the directory of this program, and without what follows `?` in a URL: there may be a token.
fn command(arguments: impl Iterator<Item = String>) -> String {
    let arguments = arguments.enumerate().map(|(n, argument)| match n {
        0 => argument.rsplit('/').next().unwrap_or_default().to_owned(),
        _ => match argument.split_once('?') {
            Some((address, _)) if address.contains("://") => format!("{address}?…"),
            _ => argument,
        },
    });
    arguments.map(quoted).collect::<Vec<_>>().join(" ")
}

/// As a shell would take it.
fn quoted(argument: String) -> String {
    let plain = |char: char| char.is_alphanumeric() || "-_./:=,@%+…?".contains(char);
    match argument.chars().all(plain) && !argument.is_empty() {
        true => argument,
        false => format!("'{}'", argument.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_can_be_typed_again_and_shows_no_token() {
        let typed = [
            "/opt/bin/townhall-load",
            "fanout",
            "wss://a/ws?token=secret",
            "--threshold",
            "delivery.p99<200ms",
            "it's",
        ];
        let shown = command(typed.into_iter().map(str::to_owned));
        assert_eq!(shown, r"townhall-load fanout wss://a/ws?… --threshold 'delivery.p99<200ms' 'it'\''s'");
    }
}
