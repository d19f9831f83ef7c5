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
//! - [`report`] the result; [`threshold`] what it has to be
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
mod threshold;
mod verdict;
mod wire;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use crate::cli::{Cli, Output, Scenario};
use crate::report::Report;
use crate::threshold::Figures;

fn main() -> ExitCode {
    let passed = match Cli::parse().scenario {
        Scenario::Fanout(options) => run(&options.output, async { Ok(Report::of(fanout::run(&options).await?)) }),
        Scenario::Slow(options) => run(&options.output, slow::run(&options)),
        Scenario::Publish(options) => run(&options.output, publish::run(&options)),
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

/// What a scenario ends with.
trait Outcome: Figures + Default + Display + Serialize {
    /// Whether it has passed, and why not.
    fn verdict(&mut self) -> (&mut bool, &mut Vec<String>);
}

/// Runs a scenario and says what came of it; whether it passed.
fn run<R: Outcome>(output: &Output, scenario: impl Future<Output = anyhow::Result<R>>) -> anyhow::Result<bool> {
    threshold::check(&output.thresholds, &R::default().figures())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut result = runtime.block_on(scenario)?;
    let broken = threshold::broken(&output.thresholds, &result);
    let (pass, reasons) = result.verdict();
    reasons.extend(broken);
    *pass = reasons.is_empty();
    let passed = *pass;
    if !output.quiet {
        eprint!("{result}");
    }
    if output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&result)?)?;
    }
    Ok(passed)
}
