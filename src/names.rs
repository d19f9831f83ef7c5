//! Names that were checked: a value of these types can be trusted, whoever sent it.

mod unseen;

use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use unicode_normalization::UnicodeNormalization;

pub use self::unseen::turns_direction;
use self::unseen::{may_end_with, may_follow};

/// A room's name: `[a-z0-9][a-z0-9._-]{0,63}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct RoomName(Arc<str>);

impl RoomName {
    pub const RULE: &'static str = "a room is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit";

    /// `None` where the name breaks [`RoomName::RULE`].
    pub fn parse(text: &str) -> Option<Self> {
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = text.len() <= 64
            && text.as_bytes().first().is_some_and(plain)
            && text.bytes().all(|byte| plain(&byte) || matches!(byte, b'.' | b'_' | b'-'));
        valid.then(|| RoomName(text.into()))
    }

    /// The room of doors and people that name none.
    pub fn lobby() -> Self {
        RoomName("lobby".into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RoomName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Who somebody is, for good: `guest-…` for guests. Opaque to clients.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct UserId(Arc<str>);

impl UserId {
    /// What guests' ids begin with; the rest is hexadecimal.
    pub const GUEST: &'static str = "guest-";

    pub fn new(id: String) -> Self {
        UserId(id.into())
    }

    /// One that a site or an issuer gave; `None` for what is none, and for what could be a guest's.
    pub fn given(id: &str) -> Option<Self> {
        let guests = id.strip_prefix(Self::GUEST).is_some_and(|rest| rest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        Self::stored(id).filter(|_| !guests)
    }

    /// One that the broker has; `None` for what nobody of ours wrote there.
    pub fn stored(id: &str) -> Option<Self> {
        let plausible = (1..=256).contains(&id.len()) && !id.chars().any(|c| c.is_control() || breaks_lines(c));
        plausible.then(|| UserId(id.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// How somebody is called: 1 to 32 characters, NFC, trimmed, all of which can be seen, without `:` and what looks like it,
/// and not beginning with `!`, `/` or `~`. Need not be unique. Guests without a name are called by their `ip:port`, which no one can choose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct DisplayName(Arc<str>);

impl DisplayName {
    pub const RULE: &'static str = "a name is 1 to 32 characters, without control characters, invisible ones and `:`, \
        and does not begin with `!`, `/` or `~`";
    const MAX_CHARS: usize = 32;
    /// Of a name that does not fit, no more is looked at.
    const MAX_LOOKED_AT: usize = 16 * Self::MAX_CHARS;

    /// `None` where the name breaks [`DisplayName::RULE`].
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 16 * Self::MAX_CHARS {
            return None;
        }
        let name: String = text.trim().nfc().collect();
        let valid = (1..=Self::MAX_CHARS).contains(&name.chars().count())
            && !name.starts_with(['!', '/', '~'])
            && name.ends_with(may_end_with)
            && std::iter::once(None).chain(name.chars().map(Some)).zip(name.chars()).all(|(a, b)| may_follow(a, b));
        valid.then(|| DisplayName(name.into()))
    }

    /// What fits of a name that somebody trustworthy gave; `None` where nothing does.
    pub fn fitted(text: &str) -> Option<Self> {
        let mut name = String::new();
        let mut last = None;
        for c in text.nfc().take(Self::MAX_LOOKED_AT).filter(|c| !c.is_control()) {
            let begins = last.is_some() || !(c.is_whitespace() || matches!(c, '!' | '/' | '~'));
            if begins && may_follow(last, c) {
                name.push(c);
                last = Some(c);
            }
        }
        let name: String = name.nfc().take(Self::MAX_CHARS).collect();
        Self::parse(name.trim_end_matches(|c: char| c.is_whitespace() || !may_end_with(c)))
    }

    /// The same name as that of a guest where others are let in, too: they begin with none of that.
    pub fn marked(&self) -> Self {
        DisplayName(format!("~{}", self.0).into())
    }

    /// One that the broker has, an address or a name; `None` for what could be neither.
    pub fn stored(name: &str) -> Option<Self> {
        let plausible = (1..=16 * Self::MAX_CHARS).contains(&name.len())
            && name.chars().count() <= 2 * Self::MAX_CHARS
            && !name.chars().any(|c| c.is_control() || breaks_lines(c));
        plausible.then(|| DisplayName(name.into()))
    }

    /// The name of somebody who gave none.
    pub fn of_address(address: std::net::SocketAddr) -> Self {
        DisplayName(address.to_string().into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DisplayName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Unicode's own line and paragraph separators: not control characters, but they could begin a line that looks like
/// somebody else's.
pub fn breaks_lines(c: char) -> bool {
    matches!(c, '\u{2028}' | '\u{2029}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_short_and_plain() {
        for good in ["lobby", "0", "a.b_c-d", &"x".repeat(64)] {
            assert!(RoomName::parse(good).is_some(), "{good}");
        }
        for bad in ["", "Lobby", ".a", "-a", "a b", "ä", "a{b}", "a\n", &"x".repeat(65)] {
            assert!(RoomName::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_cannot_be_mistaken_for_notices_commands_guests_or_lines_of_others() {
        for bad in ["", "  ", "!x", "/x", "~x", "a:b", "a\nb", "a\u{0}b", "a\u{2028}b", &"x".repeat(33)] {
            assert!(DisplayName::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn a_name_that_somebody_trustworthy_gave_is_made_to_fit() {
        for (given, fits) in [
            ("Dr. Who: Return", "Dr. Who Return"),
            (" ~!/ zoe", "zoe"),
            ("a\u{0}\n\u{2028}b", "ab"),
            ("Zoe\u{308}", "Zo\u{eb}"),
        ] {
            assert_eq!(DisplayName::fitted(given).unwrap().as_str(), fits);
        }
        assert_eq!(DisplayName::fitted(&"大".repeat(5000)).unwrap().as_str(), "大".repeat(32));
        assert_eq!(DisplayName::fitted(&format!("{}{}", "x".repeat(31), " y")).unwrap().as_str(), "x".repeat(31));
        assert!(DisplayName::fitted(":::").is_none());
    }

    #[test]
    fn names_hold_nothing_that_nobody_sees_or_that_turns_what_follows_round() {
        let unseen = "\u{202A}\u{202B}\u{202C}\u{202D}\u{202E}\u{2066}\u{2067}\u{2068}\u{2069}\u{200B}\u{200E}\u{200F}\
            \u{61C}\u{FEFF}\u{AD}\u{2060}\u{34F}\u{180E}\u{2800}\u{3164}\u{E0041}\u{E007F}\u{200C}\u{200D}\u{FE0F}";
        for c in unseen.chars() {
            for name in [format!("zoe{c}"), format!("{c}zoe"), format!("z{c}oe"), format!("大{c}{c}e")] {
                assert!(DisplayName::parse(&name).is_none(), "{name:?}");
            }
            assert_eq!(DisplayName::fitted(&format!("z{c}o{c}{c}e{c}")).unwrap().as_str(), "zoe", "{c:?}");
        }
        for colon in "\u{FF1A}\u{2236}\u{A789}\u{589}\u{5C3}\u{2F8}\u{FE13}\u{FE55}".chars() {
            assert!(DisplayName::parse(&format!("ada{colon}hello")).is_none(), "{colon:?}");
        }
        assert!(DisplayName::parse("\u{338}zoe").is_none(), "a mark that is written on what stands before the name");
        assert_eq!(DisplayName::fitted("\u{338}zoe").unwrap().as_str(), "zoe");
        assert!(DisplayName::fitted("\u{202E}\u{200B}\u{200D}").is_none());
    }

    #[test]
    fn names_of_every_script_and_emoji_keep_what_they_are_written_with() {
        for name in [
            "می\u{200C}خواهم",
            "क्\u{200D}ष",
            "👩🏽\u{200D}⚕\u{FE0F}",
            "❤\u{FE0F}\u{200D}🔥",
            "葛\u{E0100}城",
            "עדה",
            "عمر",
            "Đặng Thị",
            "©\u{FE0F}",
            "O'Neill-<b>",
            "a\u{A0}b",
        ] {
            assert_eq!(DisplayName::parse(name).unwrap().as_str(), name);
            assert_eq!(DisplayName::fitted(name).unwrap().as_str(), name);
        }
        let cut = format!("{}👩\u{200D}👩", "x".repeat(30));
        assert_eq!(DisplayName::fitted(&cut).unwrap().as_str(), format!("{}👩", "x".repeat(30)));
    }

    #[test]
    fn an_id_that_was_given_is_never_a_guests() {
        assert!(UserId::given("zoe@example.org").is_some());
        assert!(UserId::given("guest-house").is_some());
        for bad in ["", "guest-0a1b2c3d4e5f", "a\nb", &"x".repeat(257)] {
            assert!(UserId::given(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn names_are_trimmed_and_composed() {
        assert_eq!(DisplayName::parse("  Zoe\u{308} ").unwrap().as_str(), "Zo\u{eb}");
        assert_eq!(DisplayName::parse(&"大".repeat(32)).unwrap().as_str(), "大".repeat(32));
    }
}
