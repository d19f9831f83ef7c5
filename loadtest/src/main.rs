//! `townhall-load`: puts load on chat servers, and says what every single receiver got.
//!
//! - [`cli`] the command line
//! - [`fanout`] the scenario: gather, speak, settle, judge
//! - [`connection`] a client's life on the network; [`client`] the client itself, without a socket
//! - [`crowd`] clients that only count, all on one thread; [`listener`] one of them, without a socket
//! - [`standing`] where all of them are, by which a run is led
//! - [`speaker`] what publishers say, and when
//! - [`verdict`] what receivers got, held against what was promised
//! - [`report`] the result
//! - [`wire`] the protocol; [`target`] where to connect; [`machine`] what the system allows

mod cli;
mod client;
mod connection;
mod crowd;
mod fanout;
mod listener;
mod machine;
mod report;
mod speaker;
mod standing;
mod target;
mod verdict;
mod wire;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Fanout, Scenario};
use crate::report::Report;

fn main() -> ExitCode {
    let Scenario::Fanout(options) = Cli::parse().scenario;
    match run(&options) {
        Ok(report) if report.pass => ExitCode::SUCCESS,
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
