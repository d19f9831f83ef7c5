//! `--threshold`: what a figure of the result has to be for the run to pass.

use std::fmt;
use std::str::FromStr;

use anyhow::bail;

use crate::latency::Latencies;

/// A figure of a result, by the name that thresholds have for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    pub name: String,
    pub unit: Unit,
    /// `None`: there is none, since nothing came of which it could be told.
    pub value: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    /// A count, a rate, or a share from 0 to 1.
    Number,
}

impl Figure {
    pub fn number(name: &str, value: impl Into<Option<f64>>) -> Self {
        Figure { name: name.into(), unit: Unit::Number, value: value.into() }
    }

    pub fn count(name: &str, value: u64) -> Self {
        Figure::number(name, value as f64)
    }

    /// A time in seconds.
    pub fn seconds(name: &str, value: Option<f64>) -> Self {
        Figure { name: name.into(), unit: Unit::Milliseconds, value: value.map(|seconds| 1000.0 * seconds) }
    }

    /// `NAME.p50` and so on.
    pub fn latencies(name: &str, latencies: &Latencies) -> impl Iterator<Item = Figure> {
        let Latencies { count, p50, p99, p999, max } = *latencies;
        let figure = move |(part, value): (&str, f64)| Figure {
            name: format!("{name}.{part}"),
            unit: Unit::Milliseconds,
            value: (count > 0).then_some(value),
        };
        [("p50", p50), ("p99", p99), ("p99.9", p999), ("max", max)].map(figure).into_iter()
    }
}

/// A result that thresholds can be held against.
pub trait Figures {
    fn figures(&self) -> Vec<Figure>;
    /// The generator was the bottleneck: what it says of the server's speed says nothing.
    fn is_void(&self) -> bool;
}

/// `FIGURE<VALUE`, and with `<=`, `>`, `>=` or `==`.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    name: String,
    relation: Relation,
    value: f64,
    /// The value is a time, in milliseconds.
    is_time: bool,
    written: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Relation {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

/// Longer ones first: `<` begins `<=`.
const RELATIONS: [(&str, Relation); 5] = [
    ("<=", Relation::AtMost),
    (">=", Relation::AtLeast),
    ("==", Relation::Equal),
    ("<", Relation::Below),
    (">", Relation::Above),
];
const IN_MILLISECONDS: [(&str, f64); 4] = [("ms", 1.0), ("us", 0.001), ("µs", 0.001), ("s", 1000.0)];

impl Relation {
    fn holds(self, figure: f64, value: f64) -> bool {
        match self {
            Relation::Below => figure < value,
            Relation::AtMost => figure <= value,
            Relation::Above => figure > value,
            Relation::AtLeast => figure >= value,
            Relation::Equal => figure == value,
        }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(written: &str) -> Result<Self, String> {
        let rule = "a figure, one of < <= > >= ==, and a value, like delivery.p99<200ms or lost==0";
        let relations = RELATIONS.iter().filter_map(|(sign, relation)| Some((written.find(sign)?, sign, *relation)));
        let (at, sign, relation) = relations.min_by_key(|(at, ..)| *at).ok_or(rule)?;
        let (name, value) = (written[..at].trim(), written[at + sign.len()..].trim());
        let unit = IN_MILLISECONDS.iter().find_map(|(unit, factor)| Some((value.strip_suffix(unit)?, *factor)));
        let (number, factor) = unit.unwrap_or((value, 1.0));
        let number: f64 = number.trim_end().parse().map_err(|_| rule)?;
        if name.is_empty() || !number.is_finite() {
            return Err(rule.into());
        }
        let (name, value, is_time) = (name.into(), number * factor, unit.is_some());
        Ok(Threshold { name, relation, value, is_time, written: written.into() })
    }
}

impl Threshold {
    /// Which figure it is about.
    pub fn figure(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.written)
    }
}

/// Whether these figures are there, and are compared with what they are.
///
/// # Errors
/// Which threshold is wrong, and what is allowed.
pub fn check(thresholds: &[Threshold], figures: &[Figure]) -> anyhow::Result<()> {
    for threshold in thresholds {
        match figures.iter().find(|figure| figure.name == threshold.name) {
            Some(Figure { unit: Unit::Milliseconds, name, .. }) if !threshold.is_time => {
                bail!("--threshold {threshold}: {name} is a time; give it with its unit, like 200ms, 1.5s or 800us")
            }
            Some(Figure { unit: Unit::Number, name, .. }) if threshold.is_time => {
                bail!("--threshold {threshold}: {name} is a number, and no time")
            }
            Some(_) => {}
            None => {
                let names: Vec<&str> = figures.iter().map(|figure| figure.name.as_str()).collect();
                bail!("--threshold {threshold}: there is no figure {}; allowed is {}", threshold.name, names.join(", "))
            }
        }
    }
    Ok(())
}

/// What these thresholds, which were checked, say against a result: a reason for each that it does not meet. Where the run is
/// void no time is below anything, since it may be the generator's.
pub fn broken(thresholds: &[Threshold], result: &impl Figures) -> Vec<String> {
    let figures = result.figures();
    let broken = |threshold: &Threshold| {
        let figure = figures.iter().find(|figure| figure.name == threshold.name)?;
        let shown = |value: f64| match figure.unit {
            Unit::Milliseconds => format!("{value:.3} ms"),
            Unit::Number => format!("{value}"),
        };
        match figure.value {
            _ if figure.unit == Unit::Milliseconds && result.is_void() => {
                Some(format!("{threshold} cannot be told of a void run"))
            }
            Some(value) if threshold.relation.holds(value, threshold.value) => None,
            Some(value) => Some(format!("{threshold} does not hold: it is {}", shown(value))),
            None => Some(format!("{threshold} cannot be told: there is no such figure in this run")),
        }
    };
    thresholds.iter().filter_map(broken).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Result {
        p99: Option<f64>,
        lost: u64,
        void: bool,
    }

    impl Figures for Result {
        fn figures(&self) -> Vec<Figure> {
            let p99 = Figure { name: "delivery.p99".into(), unit: Unit::Milliseconds, value: self.p99 };
            vec![p99, Figure::count("lost", self.lost)]
        }

        fn is_void(&self) -> bool {
            self.void
        }
    }

    fn thresholds(written: &[&str]) -> Vec<Threshold> {
        written.iter().map(|written| written.parse().unwrap()).collect()
    }

    #[test]
    fn a_figure_a_relation_and_a_value() {
        let result = Result { p99: Some(150.0), lost: 3, void: false };
        for holds in
            ["delivery.p99<200ms", "delivery.p99 <= 0.15s", "delivery.p99>149999us", "lost==3", "lost >= 3", "lost<4"]
        {
            assert_eq!(broken(&thresholds(&[holds]), &result), Vec::<String>::new(), "{holds}");
        }
        for broken_one in ["delivery.p99<150ms", "delivery.p99>=1s", "lost==0", "lost>3", "lost<=2.5"] {
            assert_eq!(broken(&thresholds(&[broken_one]), &result).len(), 1, "{broken_one}");
        }
        let reasons = broken(&thresholds(&["delivery.p99<100ms", "lost==0"]), &result);
        assert_eq!(reasons, ["delivery.p99<100ms does not hold: it is 150.000 ms", "lost==0 does not hold: it is 3"]);
    }

    #[test]
    fn what_cannot_be_told_does_not_hold() {
        let (time, count) = (thresholds(&["delivery.p99<200ms"]), thresholds(&["lost==0"]));
        let nothing = Result { p99: None, lost: 0, void: false };
        assert!(broken(&time, &nothing)[0].contains("no such figure in this run"));
        let void = Result { p99: Some(1.0), lost: 0, void: true };
        assert!(broken(&time, &void)[0].contains("void"));
        assert_eq!(broken(&count, &void), Vec::<String>::new());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in ["", "lost", "<5", "lost=0", "lost<", "lost<x", "lost<inf", "lost<nan", "lost<1h"] {
            assert!(wrong.parse::<Threshold>().is_err(), "{wrong}");
        }
        let figures = Result { p99: None, lost: 0, void: false }.figures();
        for (wrong, why) in [
            ("delivery.p99<200", "a time"),
            ("lost<5ms", "a number"),
            ("delivery.p98<1ms", "allowed is delivery.p99, lost"),
        ] {
            let error = check(&thresholds(&[wrong]), &figures).unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(wrong), "{error}");
        }
        check(&thresholds(&["delivery.p99<200ms", "lost==0"]), &figures).unwrap();
    }
}
