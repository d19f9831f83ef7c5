//! Where to connect to.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::http::Uri;
use uuid::Uuid;

use crate::dialect::Dialect;

/// A server's door.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    pub address: SocketAddr,
    pub manner: Manner,
    #[serde(with = "as_text")]
    uri: Uri,
}

/// How one speaks at a door.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Manner {
    /// By the run's dialect, over WebSocket.
    Protocol,
    /// In texts, over a WebSocket without a subprotocol.
    Plain,
    /// In lines, over TCP.
    Lines,
}

/// Without the query: there may be a token.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: Option<&str>| part.unwrap_or_default().to_owned();
        let authority = part(self.uri.authority().map(|authority| authority.as_str()));
        write!(f, "{}://{authority}{}", part(self.uri.scheme_str()), self.uri.path())
    }
}

/// A URI among what is serialized.
mod as_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use tokio_tungstenite::tungstenite::http::Uri;

    pub fn serialize<S: Serializer>(uri: &Uri, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(uri)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uri, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl Target {
    /// From `ws://host:port[/base]` or `http://…` (with TLS `wss://` or `https://`), the same behind `plain+`, or
    /// `tcp://host:port`. A WebSocket door's path, `/ws` in our own dialect, is appended unless the path ends in it. Names are
    /// looked up once, before the clock runs.
    pub async fn resolve(url: &str, dialect: Dialect) -> anyhow::Result<Self> {
        let (manner, uri) = door(url, dialect)?;
        let url = shown(url);
        let host = uri.host().with_context(|| format!("{url}: no host"))?;
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("wss") { 443 } else { 80 });
        let address = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
            .await
            .with_context(|| format!("{url}: cannot look the host up"))?
            .next()
            .with_context(|| format!("{url}: the host has no address"))?;
        Ok(Target { address, manner, uri })
    }

    /// The host whose certificate is asked for; `None`: no TLS.
    pub fn tls_host(&self) -> Option<&str> {
        self.uri.host().filter(|_| self.uri.scheme_str() == Some("wss")).map(|host| host.trim_matches(['[', ']']))
    }

    pub fn subprotocol(&self, dialect: Dialect) -> Option<&'static str> {
        dialect.subprotocol().filter(|_| self.manner == Manner::Protocol)
    }

    #[cfg(test)]
    pub fn for_test(url: &str) -> Self {
        let (manner, uri) = door(url, Dialect::Townhall).unwrap();
        let address = uri.authority().unwrap().as_str().parse().unwrap();
        Target { address, manner, uri }
    }

    /// The address of a client: with its name, with the key that makes it the same guest each time it comes, and, where nothing
    /// else says it, with its room.
    pub fn uri_for(&self, number: usize, key: Uuid, room: &str) -> Uri {
        let given = self.uri.path_and_query().map_or("/ws", |path| path.as_str());
        let more = if given.contains('?') { '&' } else { '?' };
        let room = if self.manner == Manner::Plain { format!("&room={room}") } else { String::new() };
        let path = format!("{given}{more}name=load-{number}&key={key}{room}");
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = path.parse().ok();
        Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone())
    }
}

/// What may be said of a URL: without what may hold a token or a password.
fn shown(url: &str) -> String {
    let address = url.split('?').next().unwrap_or_default();
    match address.split_once("://").map(|(scheme, rest)| (scheme, rest.rsplit_once('@'))) {
        Some((scheme, Some((_, host)))) => format!("{scheme}://…@{host}"),
        _ => address.to_owned(),
    }
}

/// What a URL may be.
const URLS: &str = "ws://host:port[/base], wss://…, http://…, https://…, plain+ws://… or tcp://host:port";

/// How one speaks at a door, and its address, as its URL says.
fn door(given: &str, dialect: Dialect) -> anyhow::Result<(Manner, Uri)> {
    let url = shown(given);
    let (manner, rest) = match given.strip_prefix("plain+") {
        Some(rest) => (Manner::Plain, rest),
        None if given.starts_with("tcp://") => (Manner::Lines, given),
        None => (Manner::Protocol, given),
    };
    let uri: Uri = rest.parse().with_context(|| format!("{url}: not a URL; {URLS}"))?;
    let scheme = match (uri.scheme_str(), manner) {
        (Some("tcp"), Manner::Lines) => "tcp",
        (Some("ws" | "http"), _) => "ws",
        (Some("wss" | "https"), _) => "wss",
        _ => bail!("{url}: {URLS}"),
    };
    ensure!(manner == Manner::Protocol || dialect == Dialect::Townhall, "{url}: goes with no --dialect");
    let authority = uri.authority().with_context(|| format!("{url}: no host"))?;
    ensure!(!uri.host().unwrap_or_default().is_empty(), "{url}: no host");
    ensure!(
        !authority.as_str().contains('@'),
        "{url}: a name and a password are sent nowhere; townhall.v1 has ?token="
    );
    let whole = if manner == Manner::Lines {
        ensure!(uri.port_u16().is_some(), "{url}: a line door's URL says its port");
        format!("tcp://{authority}/")
    } else {
        let (door, asked) = dialect.door();
        let path = uri.path().trim_end_matches('/');
        let base = path.strip_suffix(door.trim_end_matches('/')).unwrap_or(path);
        let query: Vec<&str> = [asked, uri.query()].into_iter().flatten().collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{scheme}://{authority}{base}{door}{mark}{}", query.join("&"))
    };
    Ok((manner, whole.parse().with_context(|| format!("{url}: not a URL"))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_is_below_the_base() {
        for (url, expected) in [
            ("ws://127.0.0.1:8080", "ws://127.0.0.1:8080/ws"),
            ("http://127.0.0.1:8080/", "ws://127.0.0.1:8080/ws"),
            ("ws://hall:1/gin", "ws://hall:1/gin/ws"),
            ("ws://hall:1/gin/ws", "ws://hall:1/gin/ws"),
            ("ws://hall:1/ws?token=t", "ws://hall:1/ws?token=t"),
        ] {
            assert_eq!(door(url, Dialect::Townhall).unwrap().1.to_string(), expected);
        }
    }

    #[test]
    fn other_dialects_have_other_doors() {
        for (url, dialect, expected) in [
            ("ws://a:1", Dialect::Socketio, "ws://a:1/socket.io/?EIO=4&transport=websocket"),
            ("ws://a:1/socket.io/?x=y", Dialect::Socketio, "ws://a:1/socket.io/?EIO=4&transport=websocket&x=y"),
            ("ws://a:1/chat", Dialect::Centrifuge, "ws://a:1/chat/connection/websocket"),
        ] {
            assert_eq!(door(url, dialect).unwrap().1.to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_door_is_refused() {
        for url in
            ["127.0.0.1:8080", "ftp://hall", "tcp://hall", "plain+tcp://hall:1", "plain+hall", "ws://", "hall", ""]
        {
            assert!(door(url, Dialect::Townhall).is_err(), "{url}");
        }
        assert!(door("tcp://hall:1", Dialect::Socketio).is_err());
        for secret in ["ws://me:secret@hall", "ftp://hall/ws?token=secret", "ws://me:secret@?x", "plain+tcp://a?secret"]
        {
            let words = format!("{:#}", door(secret, Dialect::Townhall).unwrap_err());
            assert!(!words.contains("secret"), "{words}");
        }
    }

    #[test]
    fn a_url_says_how_one_speaks_there() {
        for (url, manner, expected) in [
            ("https://hall/gin", Manner::Protocol, "wss://hall/gin/ws"),
            ("plain+ws://hall:1", Manner::Plain, "ws://hall:1/ws"),
            ("plain+wss://hall/chatroom/ws", Manner::Plain, "wss://hall/chatroom/ws"),
            ("tcp://hall:9999", Manner::Lines, "tcp://hall:9999/"),
        ] {
            let (found, uri) = door(url, Dialect::Townhall).unwrap();
            assert_eq!((found, &*uri.to_string()), (manner, expected));
        }
    }

    #[tokio::test]
    async fn clients_say_who_they_are() {
        let target = Target::resolve("ws://127.0.0.1:8080/ws?token=t", Dialect::Townhall).await.unwrap();
        let uri = target.uri_for(7, Uuid::nil(), "r").to_string();
        assert_eq!(uri, format!("ws://127.0.0.1:8080/ws?token=t&name=load-7&key={}", Uuid::nil()));
        let plain = Target::resolve("plain+ws://127.0.0.1:8080", Dialect::Townhall).await.unwrap();
        assert!(plain.uri_for(7, Uuid::nil(), "r").to_string().ends_with("&room=r"));
        let v6 = Target::resolve("ws://[::1]:81", Dialect::Townhall).await.unwrap();
        assert_eq!(v6.address, "[::1]:81".parse().unwrap());
    }
}
