//! Where to connect to.

use std::fmt;
use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use tokio_tungstenite::tungstenite::http::Uri;
use uuid::Uuid;

use crate::dialect::Dialect;

/// A server's WebSocket door.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    pub address: SocketAddr,
    #[serde(with = "as_text")]
    uri: Uri,
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
    /// From `ws://host:port[/base]` or `http://…`; the door's path, `/ws` in our own dialect, is appended unless the path
    /// ends in it. Names are looked up once, before the clock runs.
    pub async fn resolve(url: &str, dialect: Dialect) -> anyhow::Result<Self> {
        let uri = door(url, dialect)?;
        let host = uri.host().with_context(|| format!("{url}: no host"))?;
        let port = uri.port_u16().unwrap_or(80);
        let address = tokio::net::lookup_host((host.trim_matches(['[', ']']), port))
            .await
            .with_context(|| format!("{url}: cannot look the host up"))?
            .next()
            .with_context(|| format!("{url}: the host has no address"))?;
        Ok(Target { address, uri })
    }

    #[cfg(test)]
    pub fn for_test(url: &str) -> Self {
        let uri = door(url, Dialect::Townhall).unwrap();
        let address = uri.authority().unwrap().as_str().parse().unwrap();
        Target { address, uri }
    }

    /// The address of a client: with its name, and with the key that makes it the same guest each time it comes.
    pub fn uri_for(&self, number: usize, key: Uuid) -> Uri {
        let given = self.uri.path_and_query().map_or("/ws", |path| path.as_str());
        let more = if given.contains('?') { '&' } else { '?' };
        let path = format!("{given}{more}name=load-{number}&key={key}");
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = path.parse().ok();
        Uri::from_parts(parts).unwrap_or_else(|_| self.uri.clone())
    }
}

/// The address of the door, as its URL says.
fn door(url: &str, dialect: Dialect) -> anyhow::Result<Uri> {
    let uri: Uri = url.parse().with_context(|| format!("{url}: not a URL"))?;
    match uri.scheme_str() {
        Some("ws" | "http") => {}
        Some("wss" | "https") => bail!("{url}: no TLS here; measure behind whatever ends it"),
        _ => bail!("{url}: ws://host:port[/base] or http://host:port[/base]"),
    }
    let authority = uri.authority().with_context(|| format!("{url}: no host"))?;
    ensure!(!uri.host().unwrap_or_default().is_empty(), "{url}: no host");
    let (door, asked) = dialect.door();
    let path = uri.path().trim_end_matches('/');
    let base = path.strip_suffix(door.trim_end_matches('/')).unwrap_or(path);
    let query: Vec<&str> = [asked, uri.query()].into_iter().flatten().collect();
    let mark = if query.is_empty() { "" } else { "?" };
    format!("ws://{authority}{base}{door}{mark}{}", query.join("&"))
        .parse()
        .with_context(|| format!("{url}: not a URL"))
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
            assert_eq!(door(url, Dialect::Townhall).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn other_dialects_have_other_doors() {
        for (url, dialect, expected) in [
            ("ws://a:1", Dialect::Socketio, "ws://a:1/socket.io/?EIO=4&transport=websocket"),
            ("ws://a:1/socket.io/?x=y", Dialect::Socketio, "ws://a:1/socket.io/?EIO=4&transport=websocket&x=y"),
            ("ws://a:1/chat", Dialect::Centrifuge, "ws://a:1/chat/connection/websocket"),
        ] {
            assert_eq!(door(url, dialect).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn what_is_no_door_is_refused() {
        for url in ["127.0.0.1:8080", "wss://hall", "tcp://hall:1", "ws://", "hall", ""] {
            assert!(door(url, Dialect::Townhall).is_err(), "{url}");
        }
    }

    #[tokio::test]
    async fn clients_say_who_they_are() {
        let target = Target::resolve("ws://127.0.0.1:8080/ws?token=t", Dialect::Townhall).await.unwrap();
        let uri = target.uri_for(7, Uuid::nil()).to_string();
        assert_eq!(uri, format!("ws://127.0.0.1:8080/ws?token=t&name=load-7&key={}", Uuid::nil()));
        let v6 = Target::resolve("ws://[::1]:81", Dialect::Townhall).await.unwrap();
        assert_eq!(v6.address, "[::1]:81".parse().unwrap());
    }
}
