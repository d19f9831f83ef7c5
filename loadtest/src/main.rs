//! `townhall-load`: puts load on chat servers, and says what every single receiver got.
//!
//! - [`cli`] the command line; [`scenario`] what each scenario is: a [`plan`], and what of its run is a fault
//! - [`leader`] leads a run: gather, speak, settle, and [`ends`] it early; [`crew`] its workers, as it sees them; [`pipe`] how both talk
//! - [`worker`] a process with a share of the clients; [`run`] what its clients know; [`standing`] where they stand
//! - [`connection`] a client's life on the network; [`line`] its bytes; [`guest`] any client, without its socket: [`client`], or
//!   [`plain`] without the protocol
//! - [`crowd`] clients that only count, all on one thread; [`listener`] one of them, without a socket
//! - [`speaker`] what publishers say, and when
//! - [`verdict`] what receivers got, held against what was promised: [`receiver`], [`ledger`], [`place`]; at doors without offsets [`stamps`]
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
mod ends;
mod environment;
mod guest;
mod latency;
mod leader;
mod ledger;
mod line;
mod listener;
mod machine;
mod page;
mod pipe;
mod place;
mod plain;
mod plan;
mod progress;
mod publish;
mod receiver;
mod report;
mod run;
mod scenario;
mod slow;
mod speaker;
mod stamps;
mod standing;
mod tally;
mod target;
mod threshold;
mod timeline;
mod verdict;
mod wire;
mod worker;

use std::fmt::Display;
use std::fs::Permissions;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use serde::Serialize;
use tempfile::NamedTempFile;

use crate::cli::{Cli, Output, Plots, Scenario};
use crate::report::Report;
use crate::threshold::Figures;

fn main() -> ExitCode {
    let passed = match Cli::parse().scenario {
        Scenario::Fanout(options) => plotted(&options.output, &options.plots, scenario::fanout(&options)),
        Scenario::Rooms(options) => plotted(&options.output, &options.plots, scenario::rooms(&options)),
        Scenario::Connect(options) => plotted(&options.output, &options.plots, scenario::connect(&options)),
        Scenario::Storm(options) => plotted(&options.output, &options.plots, scenario::storm(&options)),
        Scenario::Churn(options) => plotted(&options.output, &options.plots, scenario::churn(&options)),
        Scenario::Soak(options) => plotted(&options.output, &options.plots, scenario::soak(&options)),
        Scenario::Mixed(options) => plotted(&options.output, &options.plots, scenario::mixed(&options)),
        Scenario::Slow(options) => plain(&options.output, slow::run(&options)),
        Scenario::Publish(options) => plain(&options.output, publish::run(&options)),
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
    fn has_passed(&self) -> bool;
    fn reasons(&self) -> &[String];
}

/// Runs a scenario and says what came of it, on a page, too, if that was asked for; whether it passed.
fn plotted(
    output: &Output,
    plots: &Plots,
    scenario: impl Future<Output = anyhow::Result<Report>>,
) -> anyhow::Result<bool> {
    let Some(path) = &plots.html else {
        return told(output, &judged(output, scenario)?);
    };
    // Before the run: an hour's result must not be lost to a directory that is not there; nor the last page to a run that
    // comes to nothing.
    let failed = || format!("--html {}", path.display());
    let part =
        NamedTempFile::new_in(path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(".".as_ref()));
    let mut part = part.with_context(failed)?;
    let report = judged(output, scenario)?;
    let passed = told(output, &report)?;
    part.write_all(page::of(&report).as_bytes()).with_context(failed)?;
    part.as_file().set_permissions(Permissions::from_mode(0o644)).with_context(failed)?;
    part.persist(path).with_context(failed)?;
    Ok(passed)
}

/// The same of a scenario that has nothing to plot.
fn plain<R: Outcome>(output: &Output, scenario: impl Future<Output = anyhow::Result<R>>) -> anyhow::Result<bool> {
    told(output, &judged(output, scenario)?)
}

/// Runs a scenario, and holds the thresholds against what came of it.
fn judged<R: Outcome>(output: &Output, scenario: impl Future<Output = anyhow::Result<R>>) -> anyhow::Result<R> {
    threshold::check(&output.thresholds, &R::default().figures())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut result = runtime.block_on(scenario)?;
    let broken = threshold::broken(&output.thresholds, &result);
    let (pass, reasons) = result.verdict();
    reasons.extend(broken);
    *pass = reasons.is_empty();
    Ok(result)
}

/// Says what came of it; whether it passed.
fn told(output: &Output, result: &impl Outcome) -> anyhow::Result<bool> {
    // Nobody is there to be told if that fails; the JSON is for somebody else.
    let _ = match (output.quiet, result.has_passed()) {
        (false, _) => write!(std::io::stderr(), "{result}"),
        (true, false) => writeln!(std::io::stderr(), "fail: {}", result.reasons().join(", ")),
        (true, true) => Ok(()),
    };
    if output.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&result)?)?;
    }
    Ok(result.has_passed())
}
