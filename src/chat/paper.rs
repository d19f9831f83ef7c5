//! How a message looks on a terminal: when, who, what.
//!
//! Whatever comes from outside is cleaned of all that a terminal obeys. Only a message has its time at the very left, and each
//! line of a text after the first is indented. What is longer than the window is broken by the terminal, without an indent.

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;

use super::frames::Message;
use crate::names::{breaks_lines, turns_direction};

const INDENT: &str = "      ";
/// Readable on light and dark, and none of them red: that is for what went wrong.
const NAMES: [u8; 6] = [32, 33, 34, 35, 36, 95];

/// What a message is to whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    Mine,
    /// It has my name in it.
    ToMe,
    Another,
}

pub struct Paper {
    colours: bool,
    zone: TimeZone,
    /// Of the last message.
    day: Option<Date>,
}

impl Paper {
    pub fn new(colours: bool) -> Self {
        Paper { colours, zone: TimeZone::system(), day: None }
    }

    /// A message, after the day where that is another one than that of the message before.
    pub fn message(&mut self, message: &Message, whose: Whose, with_room: bool) -> String {
        let (day, time) = self.time(message.at);
        let today = Timestamp::now().to_zoned_datetime(self.zone.clone()).date();
        let before = self.day.replace(day).unwrap_or(today);
        let heading = if before == day { String::new() } else { format!("{}\n", self.dim(&format!("— {day}"))) };
        let room = if with_room {
            format!("{} ", self.dim(&format!("#{}", self.clean(&message.room))))
        } else {
            String::new()
        };
        format!("{heading}{} {room}{}", self.dim(&time), self.said(message, whose))
    }

    /// The same out of a history: with its day, and none of what is remembered is touched.
    pub fn older(&self, message: &Message) -> String {
        let (day, time) = self.time(message.at);
        format!("{} {}", self.dim(&format!("{day} {time}")), self.said(message, Whose::Another))
    }

    fn said(&self, message: &Message, whose: Whose) -> String {
        let name = self.clean(&message.from.name);
        let colour = message.from.id.bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        let colour = NAMES[colour % NAMES.len()];
        let name = match whose {
            Whose::Mine => self.sgr("1", &name),
            Whose::ToMe if self.colours => self.sgr(&format!("{colour};7"), &name),
            Whose::ToMe => format!("» {name}"),
            Whose::Another => self.sgr(&colour.to_string(), &name),
        };
        let text = self.clean(&message.text).replace('\n', &format!("\n{INDENT}"));
        format!("{name}: {text}")
    }

    /// A line of the line door, with the time at which it came.
    pub fn line(&self, line: &str) -> String {
        let (_, time) = self.time(Timestamp::now().as_millisecond());
        let line = self.clean(line);
        let line = if line.starts_with("! ") { self.dim(&line) } else { line };
        format!("{} {line}", self.dim(&time))
    }

    fn time(&self, at_ms: i64) -> (Date, String) {
        let at = Timestamp::from_millisecond(at_ms).unwrap_or_default().to_zoned_datetime(self.zone.clone());
        (at.date(), at.strftime("%H:%M").to_string())
    }

    pub fn dim(&self, lines: &str) -> String {
        let lines: Vec<String> = lines.lines().map(|line| self.sgr("2", line)).collect();
        lines.join("\n")
    }

    pub fn alarm(&self, line: &str) -> String {
        self.sgr("31", line)
    }

    fn sgr(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Without what a terminal obeys, and what turns the direction of what follows.
    pub fn clean(&self, text: &str) -> String {
        let text = text.replace("\r\n", "\n").replace('\t', "    ");
        text.chars().filter(|c| *c == '\n' || !(c.is_control() || turns(*c))).collect()
    }
}

/// Whether somebody is called by this name: in any case, and not in the middle of a word, where the script has words.
pub fn calls(text: &str, name: &str) -> bool {
    let (text, name) = (text.to_lowercase(), name.trim_start_matches('~').to_lowercase());
    let joins = |one: Option<char>, other: Option<char>| {
        let is_of_a_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() && c < '\u{2e80}');
        is_of_a_word(one) && is_of_a_word(other)
    };
    let (first, last) = (name.chars().next(), name.chars().next_back());
    first.is_some()
        && text.match_indices(&name).any(|(at, name)| {
            let (before, after) = (&text[..at], &text[at + name.len()..]);
            !joins(before.chars().next_back(), first) && !joins(last, after.chars().next())
        })
}

/// What turns the direction of what others wrote, its marks included, and what breaks lines elsewhere.
fn turns(c: char) -> bool {
    turns_direction(c) || breaks_lines(c) || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}')
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::chat::frames::User;

    fn message(at: i64, name: &str, text: &str) -> Message {
        let from = User { id: "a".into(), name: name.into() };
        Message { room: "ops".into(), offset: 1, at, id: Uuid::nil(), from, text: text.into() }
    }

    fn paper(colours: bool) -> Paper {
        Paper { zone: TimeZone::UTC, ..Paper::new(colours) }
    }

    const NOON: i64 = 1_795_435_200_000;

    #[test]
    fn a_message_has_its_day_once_its_time_and_who_said_it() {
        let mut paper = paper(false);
        let day = "— 2026-11-23\n";
        assert_eq!(
            paper.message(&message(NOON, "zoe", "大家好"), Whose::Another, false),
            format!("{day}12:00 zoe: 大家好")
        );
        assert_eq!(
            paper.message(&message(NOON + 60_000, "zoe", "a\nb"), Whose::Mine, true),
            "12:01 #ops zoe: a\n      b"
        );
        assert_eq!(paper.older(&message(NOON, "zoe", "a")), "2026-11-23 12:00 zoe: a");
    }

    #[test]
    fn nothing_that_a_terminal_obeys_comes_through() {
        let hostile = message(NOON, "z\x1b[2Joe\u{202e}", "a\x1b]0;x\x07\u{9b}31m\r\x08b\u{2066}\u{7f}\tc");
        let mut paper = paper(false);
        paper.day = Some(Date::constant(2026, 11, 23));
        assert_eq!(paper.message(&hostile, Whose::ToMe, false), "12:00 » z[2Joe: a]0;x31mb    c");
    }

    #[test]
    fn who_is_called_is_called_by_the_whole_name() {
        for text in ["zoe", "@Zoe!", "hello zoe", "ZOE: come", "在吗zoe？", "zoey and zoe"] {
            assert!(calls(text, "~zoe"), "{text}");
        }
        for text in ["", "zoey", "ezoe", "zo e", "zoe2"] {
            assert!(!calls(text, "zoe"), "{text}");
        }
        assert!(calls("请问左伊在吗", "左伊") && !calls("请问左一在吗", "左伊") && !calls("anything", ""));
    }

    #[test]
    fn colours_are_asked_for() {
        assert!(paper(true).older(&message(NOON, "zoe", "a")).contains("\x1b["));
        assert!(!paper(false).older(&message(NOON, "zoe", "a")).contains('\x1b'));
    }
}
