//! `townhall-load`: puts load on chat servers, and says what every single receiver got.
//!
//! - [`cli`] the command line; [`scenario`] what each scenario is: a [`plan`], and what of its run is a fault
//! - [`leader`] leads a run: gather, speak, settle; [`crew`] its workers, as it sees them; [`pipe`] how both talk
//! - [`worker`] a process with a share of the clients; [`run`] what its clients know; [`standing`] where they stand
//! - [`connection`] a client's life on the network; [`guest`] any client, without its socket: [`client`]
//! - [`crowd`] clients that only count, all on one thread; [`listener`] one of them, without a socket
//! - [`speaker`] what publishers say, and when
//! - [`verdict`] what receivers got, held against what was promised: [`receiver`], [`ledger`], [`place`]
//! - [`tally`] what is counted; [`latency`] how long things took; [`timeline`] what happened when
//! - [`report`] the result; [`threshold`] what it has to be; [`page`] the result with plots; [`environment`] where it was made
//! - [`slow`] a scenario of its own: honest readers alone, and beside slow ones
//! - [`publish`] another: how fast the hall's Redis broker stores, without a hall
//! - [`wire`] the protocol; [`dialect`] those of other servers, in its words; [`target`] where to connect; [`machine`] what the
//!   system allows; [`progress`] how far a run is

mod cli;
mod client;
mod connection;
mod crew;
mod crowd;
mod dialect;
mod environment;
mod guest;
mod latency;
mod leader;
mod ledger;
mod listener;
mod machine;
mod pipe;
mod place;
mod plan;
mod progress;
mod publish;
mod receiver;
mod report;
mod run;
mod scenario;
mod slow;
mod speaker;
mod standing;
mod tally;
mod target;
mod threshold;
mod timeline;
mod verdict;
mod wire;
mod worker;

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use serde::Serialize;

use crate::cli::{Cli, Output, Scenario};
use crate::threshold::Figures;

fn main() -> ExitCode {
    let passed = match Cli::parse().scenario {
        Scenario::Fanout(options) => run(&options.output, scenario::fanout(&options)),
        Scenario::Rooms(options) => run(&options.output, scenario::rooms(&options)),
        Scenario::Connect(options) => run(&options.output, scenario::connect(&options)),
        Scenario::Storm(options) => run(&options.output, scenario::storm(&options)),
        Scenario::Churn(options) => run(&options.output, scenario::churn(&options)),
        Scenario::Soak(options) => run(&options.output, scenario::soak(&options)),
        Scenario::Mixed(options) => run(&options.output, scenario::mixed(&options)),
        Scenario::Slow(options) => run(&options.output, slow::run(&options)),
        Scenario::Publish(options) => run(&options.output, publish::run(&options)),
        Scenario::Worker => return worker::main(),
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
