//! What the paths cost when somebody last looked, and whether that still holds.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::counting::{Costs, count};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/baseline.json");
/// In percent. What is counted of one program differs by a tenth of one, of batched deliveries, which are few instructions, by
/// up to one; on a processor without AVX by one. The rest is for code elsewhere that moves what the compiler puts where.
const TOLERANCE: f64 = 2.0;
const RENEW: &str = "`make instructions RENEW=1` writes a new baseline";

/// Costs, and what they were counted with.
#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    tools: Tools,
    instructions: Costs,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tools {
    compiler: String,
    target: String,
    valgrind: String,
}

/// Counts, prints a table, and whether all is as it was.
///
/// # Errors
/// Where it cannot be counted, or there is nothing to compare with.
pub fn compare() -> anyhow::Result<bool> {
    let baseline = Baseline::read()?;
    let (tools, now) = (Tools::here()?, count()?);
    let rows = rows(&baseline.instructions, &now);
    print(&rows);
    let same = rows.iter().all(|row| row.verdict() == Verdict::Same);
    if !same {
        println!("\nmore than ±{TOLERANCE} % away, or missing. If that is meant to be: {RENEW}");
    }
    if tools != baseline.tools {
        println!("\nthe baseline is by {}, and this by {tools}: {RENEW}", baseline.tools);
    }
    Ok(same)
}

/// Counts, prints a table, and writes down what is now.
///
/// # Errors
/// Where it cannot be counted, or written.
pub fn renew() -> anyhow::Result<()> {
    let former = Baseline::read().map_or_else(|_| Costs::new(), |baseline| baseline.instructions);
    let baseline = Baseline { tools: Tools::here()?, instructions: count()? };
    print(&rows(&former, &baseline.instructions));
    let text = serde_json::to_string_pretty(&baseline)?;
    fs::write(FILE, text + "\n").context(FILE)
}

impl Baseline {
    fn read() -> anyhow::Result<Self> {
        let text = fs::read_to_string(FILE).context(FILE)?;
        serde_json::from_str(&text).with_context(|| format!("{FILE}; {RENEW}"))
    }
}

impl Tools {
    fn here() -> anyhow::Result<Self> {
        let rustc = said_by("rustc", &["-vV"])?;
        let field = |name: &str| rustc.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().to_string();
        Ok(Tools {
            compiler: rustc.lines().next().unwrap_or_default().to_string(),
            target: field("host: "),
            valgrind: said_by("valgrind", &["--version"])?.trim().to_string(),
        })
    }
}

impl fmt::Display for Tools {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}, {}", self.compiler, self.target, self.valgrind)
    }
}

fn said_by(program: &str, options: &[&str]) -> anyhow::Result<String> {
    let said = Command::new(program).args(options).output().with_context(|| format!("{program} cannot be started"))?;
    ensure!(said.status.success(), "{program}: {}", said.status);
    Ok(String::from_utf8(said.stdout)?)
}

/// A path, what it cost and what it costs; `None`: it is not counted there.
struct Row<'a> {
    path: &'a str,
    baseline: Option<f64>,
    now: Option<f64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Same,
    Dearer,
    /// That fails as well: what was won would otherwise be lost again unseen.
    Cheaper,
    /// It is only in the baseline, or only here.
    Missing,
}

fn rows<'a>(baseline: &'a Costs, now: &'a Costs) -> Vec<Row<'a>> {
    let paths: BTreeSet<&String> = baseline.keys().chain(now.keys()).collect();
    let row = |path: &'a String| Row { path, baseline: baseline.get(path).copied(), now: now.get(path).copied() };
    paths.into_iter().map(row).collect()
}

impl Row<'_> {
    /// In percent.
    fn change(&self) -> Option<f64> {
        let (baseline, now) = (self.baseline?, self.now?);
        Some((now - baseline) / baseline * 100.0)
    }

    fn verdict(&self) -> Verdict {
        match self.change() {
            None => Verdict::Missing,
            Some(change) if change > TOLERANCE => Verdict::Dearer,
            Some(change) if change < -TOLERANCE => Verdict::Cheaper,
            Some(_) => Verdict::Same,
        }
    }
}

impl fmt::Display for Row<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |count: Option<f64>| count.map_or("–".to_string(), |count| format!("{count:.1}"));
        let change = self.change().map_or("–".to_string(), |change| format!("{change:+.2} %"));
        let verdict = match self.verdict() {
            Verdict::Same => "",
            Verdict::Dearer => "  dearer",
            Verdict::Cheaper => "  cheaper",
            Verdict::Missing => "  missing",
        };
        let (path, baseline, now) = (self.path, count(self.baseline), count(self.now));
        write!(f, "{path:<21} {baseline:>8} {now:>8} {change:>9}{verdict}")
    }
}

fn print(rows: &[Row<'_>]) {
    println!("{:<21} {:>8} {:>8} {:>9}", "instructions", "baseline", "now", "change");
    rows.iter().for_each(|row| println!("{row}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(costs: &[(&str, f64)]) -> Costs {
        costs.iter().map(|(path, cost)| (path.to_string(), *cost)).collect()
    }

    fn verdicts(baseline: &[(&str, f64)], now: &[(&str, f64)]) -> Vec<Verdict> {
        rows(&costs(baseline), &costs(now)).iter().map(Row::verdict).collect()
    }

    #[test]
    fn a_little_is_nothing() {
        assert_eq!(verdicts(&[("publish", 10_000.0)], &[("publish", 10_199.0)]), [Verdict::Same]);
        assert_eq!(verdicts(&[("publish", 10_000.0)], &[("publish", 9_801.0)]), [Verdict::Same]);
    }

    #[test]
    fn three_percent_more_are_too_many_and_three_less_are_to_be_written_down() {
        let baseline = [("delivery", 1_000.0), ("publish", 10_000.0)];
        assert_eq!(
            verdicts(&baseline, &[("delivery", 1_030.0), ("publish", 9_700.0)]),
            [Verdict::Dearer, Verdict::Cheaper]
        );
    }

    #[test]
    fn a_path_that_only_one_side_has_is_missing() {
        assert_eq!(verdicts(&[("delivery", 1.0)], &[("publish", 1.0)]), [Verdict::Missing, Verdict::Missing]);
    }

    #[test]
    fn the_baseline_in_the_repository_can_be_read() {
        assert_eq!(Baseline::read().unwrap().instructions.len(), 4);
    }
}
