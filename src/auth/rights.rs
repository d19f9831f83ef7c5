//! What somebody may do once they are in.

use std::sync::Arc;

use crate::names::RoomName;

/// More patterns are refused with their token.
const MAX_PATTERNS: usize = 64;

/// Which rooms, and whether to speak there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rights {
    /// `None`: all that there are.
    rooms: Option<Arc<[RoomPattern]>>,
    /// Hears, and does not speak.
    pub mute: bool,
}

impl Rights {
    pub fn all() -> Self {
        Rights { rooms: None, mute: false }
    }

    pub fn none() -> Self {
        Rights { rooms: Some(Arc::new([])), mute: false }
    }

    /// In the rooms that match one of `patterns`.
    ///
    /// # Errors
    /// In words, where there are too many or one is none.
    pub fn in_rooms(patterns: &[String]) -> Result<Self, String> {
        if patterns.len() > MAX_PATTERNS {
            return Err(format!("`rooms` has at most {MAX_PATTERNS} patterns"));
        }
        let parse = |text: &String| RoomPattern::parse(text).ok_or_else(|| RoomPattern::RULE.to_string());
        let rooms: Vec<RoomPattern> = patterns.iter().map(parse).collect::<Result<_, _>>()?;
        Ok(Rights { rooms: Some(rooms.into()), mute: false })
    }

    pub fn admit(&self, room: &RoomName) -> bool {
        self.rooms.as_deref().is_none_or(|rooms| rooms.iter().any(|pattern| pattern.matches(room)))
    }

    /// The rooms that are named one by one.
    pub fn named_rooms(&self) -> impl Iterator<Item = RoomName> {
        self.rooms.iter().flat_map(|rooms| rooms.iter()).filter_map(|pattern| RoomName::parse(&pattern.0))
    }
}

/// A room's name in which `*` stands for anything, also for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomPattern(Box<str>);

impl RoomPattern {
    pub const RULE: &'static str = "`rooms` are 1 to 64 of a-z 0-9 . _ - *, where * stands for anything";
    /// Of all: matching takes a step back for each of them.
    const MAX_BYTES: usize = 64;

    /// `None` where it breaks [`RoomPattern::RULE`].
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-*".contains(&byte);
        let sound = (1..=Self::MAX_BYTES).contains(&text.len()) && text.bytes().all(plain);
        sound.then(|| RoomPattern(text.into()))
    }

    /// Each part between two `*` is taken where it comes first; the last one at the end.
    pub fn matches(&self, room: &RoomName) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return *self.0 == *room.as_str() };
        let Some(mut left) = room.as_str().strip_prefix(first) else { return false };
        let mut parts = rest.split('*');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            match left.find(part) {
                Some(at) => left = &left[at + part.len()..],
                None => return false,
            }
        }
        left.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, room: &str) -> bool {
        RoomPattern::parse(pattern).unwrap().matches(&RoomName::parse(room).unwrap())
    }

    #[test]
    fn a_star_stands_for_anything_and_everything_else_for_itself() {
        for (pattern, room) in [
            ("lobby", "lobby"),
            ("*", "lobby"),
            ("team-*", "team-a"),
            ("team-*", "team-"),
            ("*-ops", "red-ops"),
            ("*-ops", "red-ops-ops"),
            ("a*b*c", "abc"),
            ("a*b*c", "a-b-b-c"),
            ("a**a", "aa"),
            ("a.b", "a.b"),
        ] {
            assert!(matches(pattern, room), "{pattern} {room}");
        }
        for (pattern, room) in [
            ("lobby", "lobby2"),
            ("lobby", "xlobby"),
            ("team-*", "team"),
            ("*-ops", "ops"),
            ("a*b*c", "acb"),
            ("a*a", "a"),
            ("a.b", "axb"),
            ("ab*ba", "aba"),
        ] {
            assert!(!matches(pattern, room), "{pattern} {room}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for bad in ["", "Lobby", "a b", "a{b}", "[a-z]", "é", &"x".repeat(65)] {
            assert!(RoomPattern::parse(bad).is_none(), "{bad}");
        }
        assert!(Rights::in_rooms(&vec!["a".into(); 65]).is_err());
    }

    #[test]
    fn no_patterns_are_no_rooms_and_rooms_named_one_by_one_are_listed() {
        let lobby = RoomName::lobby();
        assert!(Rights::all().admit(&lobby));
        assert!(!Rights::none().admit(&lobby));
        assert!(!Rights::in_rooms(&[]).unwrap().admit(&lobby));
        let some = Rights::in_rooms(&["team-*".into(), "help".into(), "-x".into()]).unwrap();
        assert!(!some.admit(&lobby));
        assert_eq!(some.named_rooms().collect::<Vec<_>>(), [RoomName::parse("help").unwrap()]);
    }
}
