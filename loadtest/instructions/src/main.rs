//! How many instructions the hall takes for a message, and for a delivery: counted by callgrind, and compared with
//! `baseline.json`. They repeat where times do not, so that a test can hold on to them.
//!
//! - [`hall`] a hall within this process, on one thread; [`talk`] a speaker and receivers in it
//! - [`counting`] runs of that under callgrind, and what they differ by
//! - [`baseline`] what they are compared with
//!
//! `compare` and `renew` are for people, by `make instructions`; `talk` is what they run under callgrind.

mod baseline;
mod counting;
mod hall;
mod talk;

use std::process::ExitCode;

use anyhow::bail;

use crate::talk::Talk;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("townhall-instructions: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all is as it was.
fn run(words: &[String]) -> anyhow::Result<bool> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        ["compare"] => baseline::compare(),
        ["renew"] => baseline::renew().map(|()| true),
        ["talk", ..] => Talk::parse(&words[1..])?.run().map(|()| true),
        _ => bail!("townhall-instructions compare|renew, or talk MESSAGES RECEIVERS AT_ONCE"),
    }
}
