//! The result as one page that needs nothing else: what came of the run, plots over time, and where it was made. It is read in
//! light and in dark, and printed.

use std::fmt::{self, Display, Write};
use std::time::{Duration, UNIX_EPOCH};

use humantime::format_rfc3339_seconds;

use crate::latency::Latencies;
use crate::report::Report;
use crate::timeline::{Moment, drawn_together};

/// More points than that cannot be told apart.
const MOST_POINTS: usize = 400;
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 220.0;
/// Around what is plotted: where the scales are written.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 28.0;

/// Text of others, as HTML has it.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                _ => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// A line of a plot: its name, and its value at each point, where it has one.
struct Line {
    name: &'static str,
    values: Vec<Option<f64>>,
}

struct Plot {
    title: &'static str,
    unit: &'static str,
    /// Powers of ten at equal distances, for what spans several.
    is_logarithmic: bool,
    lines: Vec<Line>,
}

/// The page.
pub fn of(report: &Report) -> String {
    let moments = drawn_together(&report.timeline, MOST_POINTS);
    let times: Vec<f64> = moments.iter().map(|moment| moment.at_s).collect();
    let mut page = String::new();
    // Writing to a string cannot fail.
    let _ = write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>townhall-load {scenario}: {verdict}</title>\n<style>{STYLE}</style>\n<main>\n\
         <h1>townhall-load {scenario}: <strong class=\"{verdict}\">{verdict}</strong></h1>\n{reasons}{tables}",
        scenario = report.scenario,
        verdict = if report.pass { "pass" } else { "fail" },
        reasons = reasons(report),
        tables = tables(report),
    );
    match moments.len() {
        0 | 1 => page.push_str("<p>The run was too short for plots over time.\n"),
        _ => plots(&moments).iter().for_each(|plot| plot.draw(&times, &marks(report), &mut page)),
    }
    page.push_str(&environment(report));
    page.push_str("</main>\n</html>\n");
    page
}

fn reasons(report: &Report) -> String {
    let void = report.void_reason.as_ref().map(|why| format!("void: {why}; the latencies say nothing"));
    let all = report.reasons.iter().chain(&void).chain(&report.verdict.examples);
    let items: String = all.map(|reason| format!("<li>{}\n", Escaped(reason))).collect();
    if items.is_empty() { items } else { format!("<ul>\n{items}</ul>\n") }
}

fn tables(report: &Report) -> String {
    let counts = [
        ("clients in the room", report.connected + report.listeners_in),
        ("messages accepted", report.accepted),
        ("deliveries", report.deliveries),
        ("deliveries a second", report.deliveries_per_s.round() as u64),
        ("lost", report.verdict.lost),
        ("doubled", report.verdict.doubled),
        ("swapped", report.verdict.swapped),
        ("told lost", report.verdict.told),
        ("reconnects", report.reconnects),
    ];
    let cells: String =
        counts.iter().map(|(name, count)| format!("<div><b>{}</b>{name}</div>\n", grouped(*count))).collect();
    let rows: String = [
        ("due → in the room", &report.connect_ms),
        ("due → accepted", &report.accepted_ms),
        ("due → delivered", &report.delivered_ms),
        ("line lost → back", &report.back_ms),
        ("the generator's own lag", &report.lag_ms),
    ]
    .iter()
    .filter(|(_, latencies)| latencies.count > 0)
    .map(|(name, Latencies { count, p50, p99, p999, max })| {
        let count = grouped(*count);
        format!("<tr><th>{name}<td>{count}<td>{p50:.1}<td>{p99:.1}<td>{p999:.1}<td>{max:.1}\n")
    })
    .collect();
    format!(
        "<section class=\"figures\">\n{cells}</section>\n<table>\n<thead><tr><th>ms<th>count<th>p50<th>p99<th>p99.9<th>max\n\
         <tbody>\n{rows}</table>\n"
    )
}

/// What happened when, in seconds since the run began.
fn marks(report: &Report) -> Vec<(&'static str, f64)> {
    let back = report.cut_at_s.zip(report.all_back_s).map(|(cut, after)| cut + after);
    [("cut", report.cut_at_s), ("all back", back)].into_iter().filter_map(|(what, at)| Some((what, at?))).collect()
}

fn plots(moments: &[Moment]) -> Vec<Plot> {
    let line = |name, value: fn(&Moment) -> Option<f64>| Line { name, values: moments.iter().map(value).collect() };
    let of = |latency: fn(&Latencies) -> f64, moment: &Moment| {
        Some(latency(&moment.delivered_ms)).filter(|_| moment.delivered_ms.count > 0)
    };
    let latencies = |name, latency: fn(&Latencies) -> f64| Line {
        name,
        values: moments.iter().map(|moment| of(latency, moment)).collect(),
    };
    let all = vec![
        Plot {
            title: "due → delivered",
            unit: "ms",
            is_logarithmic: true,
            lines: vec![
                latencies("p50", |latencies| latencies.p50),
                latencies("p99", |latencies| latencies.p99),
                latencies("max", |latencies| latencies.max),
            ],
        },
        Plot {
            title: "deliveries",
            unit: "/s",
            is_logarithmic: false,
            lines: vec![line("deliveries a second", |moment| Some(moment.deliveries_per_s))],
        },
        Plot {
            title: "messages accepted",
            unit: "/s",
            is_logarithmic: false,
            lines: vec![line("accepted a second", |moment| Some(moment.accepted_per_s))],
        },
        Plot {
            title: "clients in the room",
            unit: "",
            is_logarithmic: false,
            lines: vec![line("clients", |moment| Some(moment.clients as f64))],
        },
        Plot {
            title: "the server's processor time",
            unit: "% of one",
            is_logarithmic: false,
            lines: vec![line("CPU", |moment| moment.watched_cpu.map(|share| 100.0 * share))],
        },
        Plot {
            title: "the server's memory",
            unit: "MiB",
            is_logarithmic: false,
            lines: vec![line("memory", |moment| moment.watched_mib)],
        },
    ];
    // What nobody measured, or what never was, is not plotted.
    let shows = |plot: &Plot| plot.lines.iter().any(|line| line.values.iter().flatten().any(|value| *value > 0.0));
    all.into_iter().filter(shows).collect()
}

/// From the least to the greatest value of a scale, and where it is marked.
struct Scale {
    least: f64,
    greatest: f64,
    is_logarithmic: bool,
}

impl Scale {
    fn of(plot: &Plot) -> Self {
        let values = || plot.lines.iter().flat_map(|line| line.values.iter().flatten().copied());
        let greatest = values().fold(f64::MIN_POSITIVE, f64::max);
        if plot.is_logarithmic {
            let least = values().filter(|value| *value > 0.0).fold(greatest, f64::min);
            let power = |exponent: f64| 10_f64.powf(exponent);
            let (least, greatest) = (power(least.log10().floor()), power(greatest.log10().ceil()));
            let greatest = if greatest > least { greatest } else { 10.0 * least };
            return Scale { least, greatest, is_logarithmic: true };
        }
        Scale { least: 0.0, greatest: round_up(greatest), is_logarithmic: false }
    }

    fn y(&self, value: f64) -> f64 {
        let share = if self.is_logarithmic {
            (value.max(self.least) / self.least).log10() / (self.greatest / self.least).log10()
        } else {
            value / self.greatest
        };
        HEIGHT - BOTTOM - share.clamp(0.0, 1.0) * (HEIGHT - BOTTOM - TOP)
    }

    fn marks(&self) -> Vec<f64> {
        if self.is_logarithmic {
            let decades = (self.greatest / self.least).log10().round() as i32;
            return (0..=decades).map(|decade| self.least * 10_f64.powi(decade)).collect();
        }
        (0..=4).map(|quarter| self.greatest * f64::from(quarter) / 4.0).collect()
    }
}

/// 1, 2, 2.5 or 5 times a power of ten, at least `value`.
fn round_up(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    let factors = [1.0, 2.0, 2.5, 5.0];
    factors.iter().map(|factor| factor * power).find(|round| *round >= value).unwrap_or(10.0 * power)
}

impl Plot {
    fn draw(&self, times: &[f64], marks: &[(&str, f64)], page: &mut String) {
        let scale = Scale::of(self);
        let last = times.last().copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
        let x = |time: f64| LEFT + time / last * (WIDTH - LEFT - RIGHT);
        let names: Vec<String> =
            self.lines.iter().enumerate().map(|(n, line)| format!("<i class=\"l{n}\">{}</i>", line.name)).collect();
        let _ = write!(
            page,
            "<figure>\n<figcaption>{} <small>{}</small> {}</figcaption>\n<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{} over time\">\n",
            self.title,
            self.unit,
            if self.lines.len() > 1 { names.concat() } else { String::new() },
            self.title
        );
        for mark in scale.marks() {
            let y = scale.y(mark);
            let _ = writeln!(
                page,
                "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                y + 4.0,
                short(mark)
            );
        }
        let step = round_up(last / 6.0);
        for time in (0..).map(|n| f64::from(n) * step).take_while(|time| *time <= last) {
            let _ = writeln!(
                page,
                "<text x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{} s</text>",
                x(time),
                HEIGHT - 8.0,
                short(time)
            );
        }
        for ((what, time), y) in marks.iter().zip([TOP + 10.0, TOP + 26.0]) {
            let (x, foot) = (x(*time), HEIGHT - BOTTOM);
            let _ = writeln!(
                page,
                "<path class=\"event\" d=\"M{x:.1} {TOP}V{foot}\"/><text x=\"{:.1}\" y=\"{y:.0}\">{what}</text>",
                x + 4.0
            );
        }
        for (n, line) in self.lines.iter().enumerate() {
            let _ = writeln!(page, "<path class=\"l{n}\" d=\"{}\"/>", path(line, times, x, &scale));
        }
        page.push_str("</svg>\n</figure>\n");
    }
}

/// A stroke through all values; it is interrupted where there is none.
fn path(line: &Line, times: &[f64], x: impl Fn(f64) -> f64, scale: &Scale) -> String {
    let mut path = String::new();
    let mut pen_is_down = false;
    for (value, time) in line.values.iter().zip(times) {
        if let Some(value) = value {
            let _ = write!(path, "{}{:.1} {:.1}", if pen_is_down { 'L' } else { 'M' }, x(*time), scale.y(*value));
        }
        pen_is_down = value.is_some();
    }
    path
}

fn environment(report: &Report) -> String {
    let environment = &report.environment;
    let share = |share: Option<f64>| share.map_or("unknown".to_owned(), |share| format!("{:.0}%", 100.0 * share));
    let rows: Vec<(&str, String)> = vec![
        ("command", environment.command.clone()),
        ("began", format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(environment.began)).to_string()),
        ("targets", environment.targets.join(", ")),
        ("processor", format!("{} × {}", environment.cores, environment.processor)),
        ("kernel", environment.kernel.clone()),
        ("open files a process", environment.nofile.to_string()),
        ("worker processes", environment.workers.to_string()),
        ("the generator's share of its processors", share(report.cpu_share)),
        ("townhall-load", environment.version.to_owned()),
    ];
    let told = [
        ("all were back after", report.all_back_s.map(|seconds| format!("{seconds:.2} s"))),
        ("the server's memory grew by", report.watched_growth.map(|growth| share(Some(growth)))),
    ];
    let told = told.into_iter().filter_map(|(what, words)| Some((what, words?)));
    let kinds = report.errors.iter().map(|kind| ("error", kind)).chain(report.ends.iter().map(|kind| ("end", kind)));
    let kinds = kinds.map(|(what, (kind, times))| (what, format!("{kind}, {times} times")));
    let rows: String =
        told.chain(rows).chain(kinds).map(|(name, value)| format!("<tr><th>{name}<td>{}\n", Escaped(&value))).collect();
    format!("<table class=\"words\">\n<tbody>\n{rows}</table>\n")
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().filter_map(|group| std::str::from_utf8(group).ok()).collect();
    groups.join(",")
}

/// A number for a scale: 25000 as 25k.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        1e6.. => (value / 1e6, "M"),
        1e4.. => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = format!("{value:.2}");
    format!("{}{unit}", digits.trim_end_matches('0').trim_end_matches('.'))
}

const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1c1e21; --paper: #fff; --faint: #d9dce1; --quiet: #5d636c; --l0: #1769c2; --l1: #b45309; --l2: #a21caf; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #16181b; --faint: #34383e; --quiet: #9aa1ab; --l0: #6cb2ff; --l1: #f0a34a; --l2: #e08af0; }
}
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 760px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 22px; font-weight: 600; }
.pass { color: #15803d; } .fail { color: #dc2626; }
@media (prefers-color-scheme: dark) { .pass { color: #4ade80; } .fail { color: #f87171; } }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); gap: 12px; margin: 20px 0; }
.figures div { border-top: 2px solid var(--faint); padding-top: 6px; color: var(--quiet); font-size: 13px; }
.figures b { display: block; color: var(--ink); font-size: 20px; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; margin: 20px 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 4px 8px; border-bottom: 1px solid var(--faint); }
th:first-child { text-align: left; font-weight: 400; color: var(--quiet); }
.words td { text-align: left; overflow-wrap: anywhere; }
figure { margin: 28px 0; }
figcaption { font-weight: 600; } figcaption small { color: var(--quiet); font-weight: 400; }
figcaption i { font-style: normal; font-weight: 400; margin-left: 14px; }
svg { width: 100%; height: auto; } svg text { fill: var(--quiet); font: 12px system-ui, sans-serif; }
svg path { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; } svg .grid { stroke: var(--faint); stroke-width: 1; }
svg .event { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 4 3; }
path.l0 { stroke: var(--l0); } path.l1 { stroke: var(--l1); } path.l2 { stroke: var(--l2); }
i.l0 { color: var(--l0); } i.l1 { color: var(--l1); } i.l2 { color: var(--l2); }
";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let moment = |second: u32| Moment {
            at_s: f64::from(second),
            clients: 10,
            deliveries_per_s: 100.0 * f64::from(second),
            delivered_ms: Latencies { count: 5, p50: 1.0, p99: 20.0, p999: 30.0, max: 300.0 },
            ..Moment::default()
        };
        Report { pass: true, scenario: "fanout", timeline: (1..=5).map(moment).collect(), ..Report::default() }
    }

    #[test]
    fn what_was_measured_is_plotted_and_what_was_not_is_not() {
        let page = of(&report());
        for there in ["due → delivered", "clients in the room", "<path class=\"l2\"", ">pass<"] {
            assert!(page.contains(there), "{there}");
        }
        for absent in ["memory", "processor time", "accepted a second", "http://", "https://", "<script"] {
            assert!(!page.contains(absent), "{absent}");
        }
        assert!(of(&Report { timeline: Vec::new(), ..report() }).contains("too short"));
    }

    #[test]
    fn a_cut_is_marked_and_so_is_when_all_were_back() {
        assert!(!of(&report()).contains("class=\"event\""));
        let cut = Report { cut_at_s: Some(2.0), all_back_s: Some(1.5), ..report() };
        assert_eq!(marks(&cut), [("cut", 2.0), ("all back", 3.5)]);
        let page = of(&cut);
        let half = LEFT + 2.0 / 5.0 * (WIDTH - LEFT - RIGHT);
        assert!(page.contains(&format!("<path class=\"event\" d=\"M{half:.1} ")), "{page}");
        assert!(page.contains(">cut</text>") && page.contains("<tr><th>all were back after<td>1.50 s"));
        assert_eq!(page.matches("class=\"event\"").count(), 2 * page.matches("<svg").count());
        let away = Report { cut_at_s: Some(2.0), ..report() };
        assert_eq!(marks(&away), [("cut", 2.0)]);
    }

    #[test]
    fn what_a_server_says_cannot_become_a_part_of_the_page() {
        let mut report = report();
        report.errors.insert("<img src=x onerror=alert(1)>".into(), 1);
        report.reasons.push("\"<b>".into());
        let page = of(&report);
        assert!(!page.contains("<img") && !page.contains("<b>\""), "{page}");
        assert!(page.contains("&lt;img src=x") && page.contains("&quot;&lt;b&gt;"));
    }

    #[test]
    fn scales_begin_and_end_at_round_numbers() {
        assert_eq!([round_up(0.3), round_up(1.0), round_up(21.0), round_up(7300.0)], [0.5, 1.0, 25.0, 10_000.0]);
        let plot = Plot {
            title: "",
            unit: "",
            is_logarithmic: true,
            lines: vec![Line { name: "", values: vec![Some(0.4), None, Some(90.0)] }],
        };
        let scale = Scale::of(&plot);
        let marks: Vec<String> = scale.marks().into_iter().map(short).collect();
        assert_eq!(marks, ["0.1", "1", "10", "100"]);
        assert_eq!((scale.y(0.1).round(), scale.y(100.0).round()), (HEIGHT - BOTTOM, TOP));
        assert_eq!(path(&plot.lines[0], &[0.0, 1.0, 2.0], |time| time, &scale).matches('M').count(), 2);
    }

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!([grouped(0), grouped(999), grouped(1_234_567)], ["0", "999", "1,234,567"]);
        assert_eq!([short(0.5), short(2500.0), short(25_000.0), short(7_300_000.0)], ["0.5", "2500", "25k", "7.3M"]);
    }
}
