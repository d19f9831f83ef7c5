//! What nobody may read in a log: every client of the harness keeps here what it says and what lets it in, and every log is
//! held against all of it when its process ends.
//!
//! What is so short that it would be found by chance is not kept. What a test sends as raw bytes is not known here.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use aho_corasick::{AhoCorasick, AhoCorasickKind};
use serde_json::Value;

/// Bytes of a text, and of a key or a token, that are not found by chance.
const SHORTEST_TEXT: usize = 12;
const SHORTEST: usize = 8;
/// Of what is long, so many characters are looked for.
const LOOKED_FOR: usize = 100;

static SECRETS: Mutex<Option<HashSet<String>>> = Mutex::new(None);

/// A key, a token, a password.
pub fn keep(secret: &str) {
    let beginning: String = secret.chars().take(LOOKED_FOR).collect();
    if beginning.len() >= SHORTEST {
        let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.get_or_insert_default().insert(beginning);
    }
}

/// What somebody says.
pub fn keep_text(text: &str) {
    for line in text.lines() {
        // As a log in JSON would have it, quotes and control characters are escaped; a part without is enough.
        let plain = |c: char| !c.is_control() && c != '"' && c != '\\';
        let longest = line.split(|c| !plain(c)).max_by_key(|part| part.len()).unwrap_or_default();
        if longest.len() >= SHORTEST_TEXT {
            keep(longest);
        }
    }
}

/// What a frame of a WebSocket client says: a command of `townhall.v1`, or a text.
pub fn keep_frame(frame: &str) {
    match serde_json::from_str::<Value>(frame) {
        Ok(command @ Value::Object(_)) => {
            keep_strings(&command["text"]);
            keep_strings(&command["data"]);
        }
        _ => keep_text(frame),
    }
}

fn keep_strings(value: &Value) {
    match value {
        Value::String(text) => keep_text(text),
        Value::Array(values) => values.iter().for_each(keep_strings),
        Value::Object(fields) => fields.values().for_each(keep_strings),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A line of the line door.
pub fn keep_line(line: &str) {
    match line.strip_prefix("/login ") {
        Some(login) => keep(login.trim().rsplit(' ').next().unwrap_or_default()),
        None => keep_text(line),
    }
}

/// The keys and tokens of an address.
pub fn keep_address(address: &str) {
    let (path, query) = address.split_once('?').unwrap_or((address, ""));
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if matches!(name, "key" | "token") {
            keep(value);
        }
    }
    if let Some((_, rest)) = path.split_once("/chatroom/ws/")
        && let Some((_, token)) = rest.split_once('/')
    {
        keep(token);
    }
}

/// The tokens of a header.
pub fn keep_header(value: &str) {
    for part in value.split([',', ' ']) {
        if let Some(token) = part.strip_prefix("bearer.") {
            keep(token);
        }
    }
    if let Some((scheme, token)) = value.split_once(' ')
        && scheme.eq_ignore_ascii_case("bearer")
    {
        keep(token);
    }
}

/// A line of `log` that holds something of all that, with what it holds masked; `None`: it holds nothing.
pub fn found_in(log: &str) -> Option<String> {
    let secrets: Vec<String> = {
        let secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
        secrets.iter().flatten().cloned().collect()
    };
    // Made once and used once, so it must be made quickly.
    let kind = Some(AhoCorasickKind::ContiguousNFA);
    let search = AhoCorasick::builder().kind(kind).build(&secrets).expect("secrets to look for");
    let found = search.find(log)?;
    let begin = log[..found.start()].rfind('\n').map_or(0, |at| at + 1);
    let end = log[found.end()..].find('\n').map_or(log.len(), |at| found.end() + at);
    Some(format!("{}<HERE>{}", &log[begin..found.start()], &log[found.end()..end]))
}

/// Fails the test whose process has logged something of all that; for `Drop`, so it says nothing while a test fails already.
pub fn assert_unread(log: &str, whose: &str) {
    if std::thread::panicking() {
        return;
    }
    if let Some(line) = found_in(log) {
        panic!("a text, a key or a token is in the log of {whose}: {line}");
    }
}
