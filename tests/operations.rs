//! What an operator is given fits together: metrics, dashboard, alerts and runbooks name one another as they are.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use townhall::metrics::list::{self, Kind};

const README: &str = include_str!("../README.md");
const OPERATIONS: &str = include_str!("../docs/operations.md");
const REDIS: &str = include_str!("../docs/redis.md");
const RULES: &str = include_str!("../grafana/rules.yaml");
const RULES_TEST: &str = include_str!("../grafana/rules.test.yaml");
const DASHBOARD: &str = include_str!("../grafana/dashboards/townhall.json");

#[test]
fn the_readme_lists_the_metrics_as_they_are() {
    let (_, rest) = README.split_once("<!-- metrics -->\n").expect("README.md has <!-- metrics -->");
    let (written, _) = rest.split_once("<!-- /metrics -->").expect("README.md has <!-- /metrics -->");
    let table = list::table();
    assert!(written.trim() == table.trim(), "README.md: between its two markers belongs:\n\n{table}");
}

#[test]
fn no_metric_is_listed_twice_and_each_has_its_words() {
    let names: BTreeSet<&str> = list::ALL.iter().map(|metric| metric.name).collect();
    assert_eq!(names.len(), list::ALL.len());
    for metric in list::ALL {
        assert!(!metric.help.is_empty(), "{}", metric.name);
        assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
    }
}

/// The metrics that a text names, without the parts of histograms.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let ours = words.filter(|word| word.starts_with("townhall_") || word.starts_with("process_"));
    ours.map(|word| {
        let histogram = |name: &&str| list::ALL.iter().any(|it| it.name == *name && it.kind == Kind::Histogram);
        let parts = ["_bucket", "_sum", "_count"].iter().filter_map(|part| word.strip_suffix(part));
        parts.clone().find(histogram).unwrap_or(word).to_owned()
    })
    .collect()
}

#[test]
fn every_metric_that_is_shown_alerted_on_or_explained_exists() {
    let listed: BTreeSet<String> = list::ALL.iter().map(|metric| metric.name.to_owned()).collect();
    for (name, text) in
        [("dashboard", DASHBOARD), ("rules", RULES), ("their test", RULES_TEST), ("operations.md", OPERATIONS)]
    {
        let named = metrics_in(text);
        assert!(!named.is_empty(), "{name} names no metric");
        let unknown: Vec<_> = named.difference(&listed).collect();
        assert!(unknown.is_empty(), "{name}: {unknown:?}");
    }
    // There the names of functions in Redis begin like that, too.
    let unknown: Vec<_> = metrics_in(REDIS).difference(&listed).filter(|name| !name.contains("_1")).cloned().collect();
    assert!(unknown.is_empty(), "docs/redis.md: {unknown:?}");
}

#[test]
fn every_metric_is_shown_somewhere() {
    let shown = metrics_in(DASHBOARD);
    let hidden = |metric: &&list::Metric| !shown.contains(metric.name);
    let hidden: Vec<&str> = list::ALL.iter().filter(hidden).map(|metric| metric.name).collect();
    // Mapped memory says nothing that anybody acts on; every process tells it.
    assert_eq!(hidden, ["process_virtual_memory_bytes"]);
}

fn panels() -> Vec<Value> {
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("JSON");
    dashboard["panels"].as_array().expect("panels").clone()
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let mut ids = BTreeSet::new();
    let mut titles = BTreeSet::new();
    for panel in panels() {
        let title = panel["title"].as_str().filter(|title| !title.is_empty());
        let title = title.unwrap_or_else(|| panic!("no title: {panel}"));
        assert!(ids.insert(panel["id"].as_u64().expect("an id")), "two panels have the id of {title}");
        if panel["type"] == "row" {
            titles.clear(); // what is alike has other neighbours
            continue;
        }
        assert!(titles.insert(title.to_owned()), "twice in its row: {title}");
        let says = |pointer: &str| panel.pointer(pointer).and_then(Value::as_str).is_some_and(|text| !text.is_empty());
        assert!(says("/description"), "no description: {title}");
        assert!(says("/fieldConfig/defaults/unit"), "no unit: {title}");
        let targets = panel["targets"].as_array().expect("targets");
        assert!(!targets.is_empty(), "shows nothing: {title}");
        for target in targets {
            let expr = target["expr"].as_str().expect("a query");
            assert!(expr.contains(r#"job=~"$job", instance=~"$instance""#), "not of what was chosen: {title}");
            assert_eq!(target.pointer("/datasource/uid"), Some(&Value::from("${datasource}")), "{title}");
            for (_, range) in expr.match_indices('[').map(|(at, _)| expr.split_at(at)) {
                assert!(range.starts_with("[$__rate_interval]") || range.starts_with("[$__range]"), "{title}: {expr}");
            }
        }
    }
    let rows: Vec<Value> =
        panels().iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].clone()).collect();
    assert_eq!(rows, ["Overview", "Connections", "Messages and latency", "Broker", "Rooms and memory", "Process"]);
}

/// Each alert's name and what is said of it.
fn alerts() -> Vec<(&'static str, &'static str)> {
    let parts = RULES.split("      - alert: ").skip(1);
    parts.map(|part| part.split_once('\n').expect("an alert has lines")).collect()
}

#[test]
fn every_alert_has_its_runbook_and_every_runbook_its_alert() {
    let alerts = alerts();
    assert!(alerts.len() > 8, "{alerts:?}");
    for (name, rule) in &alerts {
        let runbook = format!("runbook_url: docs/operations.md#{}\n", name.to_lowercase());
        for wanted in ["severity: ", "summary: ", "description: ", &runbook] {
            assert!(rule.contains(wanted), "{name} lacks {wanted}");
        }
    }
    let named: BTreeSet<&str> = alerts.into_iter().map(|(name, _)| name).collect();
    let runbooks =
        OPERATIONS.lines().filter_map(|line| line.strip_prefix("### ")).filter(|it| it.starts_with("Townhall"));
    assert_eq!(runbooks.collect::<BTreeSet<_>>(), named, "left the runbooks, right the alerts");
}

#[test]
fn every_alert_is_tested_to_fire_and_not_to() {
    for (name, _) in alerts() {
        let after: Vec<&str> = RULES_TEST.split(&format!("alertname: {name}")).skip(1).collect();
        let quiet = |rest: &&&str| rest.starts_with(", exp_alerts: []");
        let fires = |rest: &&&str| rest.trim_start().starts_with("exp_alerts:\n") && rest.contains("exp_labels");
        assert!(after.iter().any(|rest| quiet(&rest)), "{name} is never quiet");
        assert!(after.iter().any(|rest| fires(&rest)), "{name} never fires");
    }
}

#[test]
fn prometheus_takes_the_rules_and_they_do_what_their_test_says() {
    for arguments in ["check rules --lint-fatal grafana/rules.yaml", "test rules grafana/rules.test.yaml"] {
        let output = Command::new("promtool")
            .args(arguments.split(' '))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("the tests need `promtool` (Debian's package prometheus)");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "promtool {arguments}\n{said}");
    }
}
