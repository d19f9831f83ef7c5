//! Talks under callgrind, and what they come to. Only what happens while somebody speaks is counted: to start takes now this
//! many instructions, now that many (a clock is compared with another until they agree).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::talk::Talk;

const MESSAGES: u32 = 1024;
/// Those who only hear, in the talk that many people hear.
const RECEIVERS: u32 = 400;
/// Messages at once: alone, and as when there is much to do.
const AT_ONCE: [u32; 2] = [1, 32];
/// The function that is counted, with all that it calls.
const COUNTED: &str = "--toggle-collect=*::talk::Talk::counted";

/// Instructions by what they are spent on.
pub type Costs = BTreeMap<String, f64>;

/// Counts both paths, for messages that come alone and for those that come together. What was counted is kept beside the program
/// for `callgrind_annotate`.
pub fn count() -> anyhow::Result<Costs> {
    let mut costs = Costs::new();
    for at_once in AT_ONCE {
        let few = instructions(Talk { messages: MESSAGES, receivers: 0, at_once })?;
        let many = instructions(Talk { messages: MESSAGES, receivers: RECEIVERS, at_once })?;
        let more = many.checked_sub(few).context("a talk that more people hear took less")?;
        costs.insert(format!("publish, {at_once} at once"), share(few, MESSAGES));
        costs.insert(format!("delivery, {at_once} at once"), share(more, MESSAGES * RECEIVERS));
    }
    Ok(costs)
}

/// What each took, in hundredths.
fn share(instructions: u64, times: u32) -> f64 {
    (instructions as f64 * 100.0 / f64::from(times)).round() / 100.0
}

/// Those of a talk: the middle one of three counts, since every process has other random keys.
fn instructions(talk: Talk) -> anyhow::Result<u64> {
    let mut counts = [counted(talk)?, counted(talk)?, counted(talk)?];
    counts.sort_unstable();
    Ok(counts[1])
}

/// Nothing of this process's environment changes what the hall does.
fn counted(talk: Talk) -> anyhow::Result<u64> {
    let program = std::env::current_exe()?;
    let out = dump(&program, talk)?;
    let counted = Command::new("valgrind")
        .args(["--tool=callgrind", "--quiet", COUNTED])
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(&program)
        .arg("talk")
        .args(talk.words())
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .status()
        .context("valgrind cannot be started; tests/setup valgrind installs it")?;
    ensure!(counted.success(), "{talk:?} under valgrind: {counted}");
    let dump = fs::read_to_string(&out)?;
    let total = total(&dump).with_context(|| format!("{} has no total", out.display()))?;
    ensure!(total > 0, "valgrind has not seen the function of {COUNTED}");
    Ok(total)
}

fn dump(program: &Path, talk: Talk) -> anyhow::Result<PathBuf> {
    let directory = program.with_file_name("instructions");
    fs::create_dir_all(&directory)?;
    Ok(directory.join(format!("callgrind.{}", talk.words().join("."))))
}

fn total(dump: &str) -> Option<u64> {
    dump.lines().find_map(|line| line.strip_prefix("totals:"))?.trim().parse().ok()
}
