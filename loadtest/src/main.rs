//! `townhall-load`: puts load on chat servers, and says what every single receiver got.
//!
//! - [`cli`] the command line
//! - [`fanout`] the scenario: gather, speak, settle, judge
//! - [`slow`] another: honest readers alone, and beside slow ones
//! - [`publish`] another: how fast the hall's Redis broker stores, without a hall
//! - [`connection`] a client's life on the network; [`client`] the client itself, without a socket
//! - [`crowd`] clients that only count, all on one thread; [`listener`] one of them, without a socket
//! - [`standing`] where all of them are, by which a run is led
//! - [`speaker`] what publishers say, and when
//! - [`verdict`] what receivers got, held against what was promised
//! - [`report`] the result
//! - [`wire`] the protocol; [`dialect`] those of other servers, in its words; [`target`] where to connect; [`machine`] what the system allows

mod cli;
mod client;
mod connection;
mod crowd;
mod dialect;
mod fanout;
mod listener;
mod machine;
mod publish;
mod report;
mod slow;
mod speaker;
mod standing;
mod target;
mod verdict;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Fanout, Scenario};
use crate::publish::Publish;
use crate::report::Report;
use crate::slow::Slow;

fn main() -> ExitCode {
    let passed = match Cli::parse().scenario {
        Scenario::Fanout(options) => run(&options).map(|report| report.pass),
        Scenario::Slow(options) => run_slow(&options).map(|report| report.pass),
        Scenario::Publish(options) => run_publish(&options).map(|report| report.pass),
    };
    match passed {
        Ok(true) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => {
            eprintln!("townhall-load: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(options: &Fanout) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = Report::of(runtime.block_on(fanout::run(options))?);
    if !options.quiet {
        eprint!("{report}");
    }
    if options.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(report)
}

fn run_slow(options: &Slow) -> anyhow::Result<slow::Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(slow::run(options))?;
    if !options.quiet {
        eprint!("{report}");
    }
    if options.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(report)
}

fn run_publish(options: &Publish) -> anyhow::Result<publish::Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(publish::run(options))?;
    if !options.quiet {
        eprint!("{report}");
    }
    if options.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&report)?)?;
    }
    Ok(report)
}
