//! The line door: [`Lines`] beside a reader that has all the bytes at once, then what a session makes of each line.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use townhall::auth::{Identity, Kind};
use townhall::broker::MAX_EVENT_BYTES;
use townhall::config::{Config, Limits};
use townhall::encoding::{Encoding, Event, Record};
use townhall::names::{DisplayName, RoomName, UserId};
use townhall::position::Epoch;
use townhall::protocol::User;
use townhall::session::{Action, Rules, Session, refusal_notice, who_notice};
use townhall::tcp::{Line, Lines};

/// The longest line, as the wire formats have it.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// `data`: how to cut, then what the client sends until it ends its side.
pub fn check(data: &[u8]) {
    let [step, sent @ ..] = data else { return };
    let due = lines_of(sent);
    for step in [1, 1 + usize::from(*step) * 7, sent.len().max(1)] {
        assert_eq!(read(sent, step), due, "in pieces of {step}");
    }
    say(&due);
}

fn read(sent: &[u8], step: usize) -> Vec<Line> {
    let mut lines = Lines::default();
    let mut found = Vec::new();
    for piece in sent.to_vec().chunks_mut(step) {
        let mut input = piece;
        while let Some(line) = lines.next(&mut input) {
            found.push(line);
        }
        assert!(input.is_empty());
    }
    found.extend(lines.rest());
    assert_eq!(lines.rest(), None);
    found
}

fn lines_of(sent: &[u8]) -> Vec<Line> {
    let mut lines: Vec<&[u8]> = sent.split(|byte| *byte == b'\n').collect();
    // What follows the last line break is a line only if it is something.
    if lines.last().is_some_and(|last| last.is_empty()) {
        lines.pop();
    }
    lines.into_iter().map(line_of).collect()
}

fn line_of(bytes: &[u8]) -> Line {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    match std::str::from_utf8(bytes) {
        _ if bytes.len() > MAX_LINE_BYTES => Line::TooLong,
        Ok(text) => Line::Text(text.to_owned()),
        Err(_) => Line::NotUtf8,
    }
}

/// What a session makes of the lines, as the door hands them on.
fn say(lines: &[Line]) {
    let config = Config { limits: Limits { rate: 0, ..Limits::default() }, ..Config::default() };
    let Some(name) = DisplayName::parse("zoe") else { return };
    let user = User { id: UserId::new("guest-1".into()), name, info: None };
    let mut session = Session::new(
        Arc::new(Rules::new(&config, "node")),
        Identity::of(user, Kind::Guest { marked: false }),
        Instant::now(),
    );
    session.entered(RoomName::lobby());
    for line in lines {
        let Line::Text(text) = line else { continue };
        let name = session.user().name.clone();
        match session.line(text) {
            Action::Refuse(refusal) => assert_one_line(&refusal_notice(&refusal)),
            Action::Notice(words) | Action::Renamed(words) => assert_one_line(&words),
            Action::Who { room, .. } => {
                assert_eq!(Some(&room), session.rooms().first());
                assert_one_line(&who_notice(1000, &vec![session.member(); 200]));
            }
            Action::Move { room } => {
                session.left(&session.rooms()[0].clone());
                session.entered(room);
            }
            Action::Publish { publication, .. } => {
                assert_eq!(Some(&publication.room), session.rooms().first());
                assert_heard(publication.event, &name);
            }
            Action::Close(_) | Action::Nothing => {}
            other => panic!("{text:?} became {other:?}"),
        }
    }
}

/// What is told to one client alone cannot be cut into lines of its own making.
fn assert_one_line(words: &str) {
    assert!(!words.is_empty() && words.len() < 10 * 1024, "{words:?}");
    assert!(!words.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')), "{words:?}");
}

/// What the others hear: whole lines, each with the name of whoever said it in front.
fn assert_heard(event: Bytes, name: &DisplayName) {
    assert!(event.len() <= MAX_EVENT_BYTES && !event.contains(&b'\n'));
    let event = Event::parse(event).expect("what a client may say is an event");
    let mut out = Vec::new();
    let record = Record::Event { offset: 1, at_ms: 1, event };
    record.encode(Encoding::Line, &RoomName::lobby(), &Epoch::silent(), &mut out);
    let out = String::from_utf8(out).expect("lines are UTF-8");
    let heard = out.strip_suffix('\n').expect("a line has an end");
    for line in heard.split('\n') {
        let text = line.strip_prefix(name.as_str()).and_then(|rest| rest.strip_prefix(':'));
        let text = text.unwrap_or_else(|| panic!("{line:?} hides that {name} said it"));
        assert!(!text.chars().any(|c| c.is_control() && c != '\t'), "{text:?}");
    }
}
