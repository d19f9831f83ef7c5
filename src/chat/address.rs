//! Where a hall is, and by which door one comes in.

use std::fmt;

use hyper::Uri;
use percent_encoding::percent_decode_str;

/// A door of a hall.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `townhall.v1`.
    Socket(Place),
    /// The line door.
    Lines(Place),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    /// As a browser would send it: without the port where that is the usual one.
    pub authority: String,
    /// Of the hall's `/ws`; empty at the line door.
    pub path: String,
}

/// What stands in an address that was copied from a browser: `https://example.org/?name=zoe&token=…#ops`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wishes {
    pub room: Option<String>,
    pub name: Option<String>,
    pub token: Option<String>,
}

pub const RULE: &str = "allowed is an address like https://example.org, ws://127.0.0.1:8080/ws or tcp://127.0.0.1:9999";

/// Where the tutorial's page and its WebSocket are, and what everybody else may have copied instead of the hall's own address.
const DOORS: [&str; 4] = ["/chatroom/ws", "/chatroom", "/echo", "/ws"];

/// Reads a URL; without a scheme it is `http://`, as at `curl`.
///
/// # Errors
/// In words, after the address itself: what is wrong with it and what is allowed.
pub fn parse(url: &str) -> Result<(Address, Wishes), String> {
    let url = url.trim();
    let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let uri: Uri = url.parse().map_err(|_| RULE)?;
    let (lines, tls, usual) = match uri.scheme_str() {
        Some("http" | "ws") => (false, false, 80),
        Some("https" | "wss") => (false, true, 443),
        Some("tcp") => (true, false, 9999),
        _ => return Err(RULE.into()),
    };
    let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(RULE)?;
    if authority.as_str().contains('@') {
        return Err(
            "a hall takes no user and password in its address; allowed is --name, and --token if it wants one".into()
        );
    }
    let port = authority.port_u16();
    // What no port can be is none to this library, and would be taken for the usual one.
    if port.is_none() && authority.as_str() != authority.host() {
        return Err(RULE.into());
    }
    let place = Place {
        tls,
        host: authority.host().trim_matches(['[', ']']).to_owned(),
        port: port.unwrap_or(usual),
        authority: match port {
            Some(port) if port != usual => authority.as_str().to_owned(),
            _ => authority.host().to_owned(),
        },
        path: if lines { String::new() } else { path_of_ws(uri.path()) },
    };
    let address = if lines { Address::Lines(place) } else { Address::Socket(place) };
    Ok((address, wishes(uri.query().unwrap_or_default(), fragment)))
}

/// Where `/ws` is in the hall whose page, or one of whose doors, is at `path`.
fn path_of_ws(path: &str) -> String {
    let path = path.trim_end_matches('/');
    let base = DOORS.iter().find_map(|door| path.strip_suffix(door)).unwrap_or(path);
    format!("{base}/ws")
}

fn wishes(query: &str, fragment: &str) -> Wishes {
    let mut wishes = Wishes::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(&value.replace('+', " "));
        match name {
            "room" => wishes.room = value,
            "name" => wishes.name = value,
            "token" => wishes.token = value,
            _ => {}
        }
    }
    wishes.room = decoded(fragment).or(wishes.room);
    wishes
}

fn decoded(text: &str) -> Option<String> {
    let text = percent_decode_str(text).decode_utf8_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

impl Address {
    pub fn place(&self) -> &Place {
        match self {
            Address::Socket(place) | Address::Lines(place) => place,
        }
    }
}

/// Without what may be secret in it.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Socket(place) => {
                let scheme = if place.tls { "wss" } else { "ws" };
                write!(f, "{scheme}://{}{}", place.authority, place.path)
            }
            Address::Lines(place) if place.host.contains(':') => write!(f, "tcp://[{}]:{}", place.host, place.port),
            Address::Lines(place) => write!(f, "tcp://{}:{}", place.host, place.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        parse(url).map_or_else(|words| words, |(address, _)| address.to_string())
    }

    #[test]
    fn every_address_that_one_may_have_copied_leads_to_the_same_door() {
        for (url, door) in [
            ("http://127.0.0.1:8080", "ws://127.0.0.1:8080/ws"),
            ("127.0.0.1:8080", "ws://127.0.0.1:8080/ws"),
            ("localhost", "ws://localhost/ws"),
            ("ws://h/ws", "ws://h/ws"),
            ("https://example.org/", "wss://example.org/ws"),
            ("wss://example.org:443/ws?x=1", "wss://example.org/ws"),
            ("https://example.org/gin/", "wss://example.org/gin/ws"),
            ("http://h/gin/chatroom", "ws://h/gin/ws"),
            ("ws://h/chatroom/ws", "ws://h/ws"),
            ("ws://h/echo", "ws://h/ws"),
            ("http://[::1]:8080/#ops", "ws://[::1]:8080/ws"),
            ("tcp://h", "tcp://h:9999"),
            ("tcp://[::1]:9", "tcp://[::1]:9"),
            (" http://h ", "ws://h/ws"),
        ] {
            assert_eq!(shown(url), door, "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is_allowed() {
        for url in ["", "ftp://h", "http://", "http://h:99999", "http://h:x", "http:// h", "tcp://", "redis://h"] {
            assert_eq!(shown(url), RULE, "{url}");
        }
        assert!(shown("http://zoe:pw@h").starts_with("a hall takes no user and password"));
    }

    #[test]
    fn a_pages_address_says_who_and_where() {
        let (_, wishes) = parse("https://h/?name=zo%C3%AB+b&token=a%2Bb&x=1#ops").unwrap();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(wishes, Wishes { room: text("ops"), name: text("zoë b"), token: text("a+b") });
        assert_eq!(parse("https://h/?name=&room=a").unwrap().1, Wishes { room: text("a"), ..Wishes::default() });
    }

    #[test]
    fn a_token_is_not_shown() {
        assert!(!shown("https://h/?token=hush").contains("hush"));
    }
}
