//! The WebSocket door: who may upgrade, and what becomes of it.
//!
//! The handshake is checked here by RFC 6455 §4.2; after it the plain socket is taken back from the HTTP server, and
//! everything else goes through our own frames.

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    self, CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use socket2::SockRef;
use tokio::net::TcpStream;
use tracing::trace;

use crate::config::AllowedOrigins;
use crate::gate::Closed;
use crate::metrics::METRICS;
use crate::protocol::{NotIn, SUBPROTOCOL};
use crate::proxies::ForwardedHost;

pub mod frame;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const VERSION: &str = "13";
/// A subprotocol that is a token, since browsers can set no other header.
const BEARER: &str = "bearer.";
/// When to come again after a refusal that passes, in seconds.
const RETRY_AFTER_S: &str = "2";

/// A handshake that is answered with an HTTP status and not with an upgrade.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    why: NotIn,
    words: String,
    header: Option<(HeaderName, &'static str)>,
    /// Without the line break that is kind to terminals.
    to_the_letter: bool,
}

impl Refused {
    pub fn new(status: StatusCode, why: NotIn, words: impl Into<String>) -> Self {
        Refused { status, why, words: words.into(), header: None, to_the_letter: false }
    }

    /// What the tutorial says to whoever has no right token.
    pub fn token_wrong() -> Self {
        Refused { to_the_letter: true, ..Refused::new(StatusCode::FORBIDDEN, NotIn::Unauthorized, "token wrong.") }
    }

    /// Worth another try soon.
    pub fn for_now(status: StatusCode, why: NotIn, words: impl Into<String>) -> Self {
        Refused::new(status, why, words).with(header::RETRY_AFTER, RETRY_AFTER_S)
    }

    /// 503: nobody may come in at the moment.
    pub fn closed(closed: Closed) -> Self {
        Refused::for_now(StatusCode::SERVICE_UNAVAILABLE, closed.why(), closed.words())
    }

    fn with(mut self, name: HeaderName, value: &'static str) -> Self {
        self.header = Some((name, value));
        self
    }

    /// Counts it and makes the answer.
    pub fn answer(self) -> Response<Body> {
        METRICS.refused(self.why);
        let line_break = if self.to_the_letter { "" } else { "\n" };
        let mut answer = Response::new(Body::from(self.words + line_break));
        *answer.status_mut() = self.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if let Some((name, value)) = self.header {
            headers.insert(name, HeaderValue::from_static(value));
        }
        answer
    }
}

/// Who may upgrade.
#[derive(Debug, Clone)]
pub struct Origins {
    pub allowed: AllowedOrigins,
    /// The hall is for this machine only, so pages of this machine may come in.
    pub loopback: bool,
}

/// A handshake in order.
pub struct Handshake {
    accept: HeaderValue,
    upgrade: OnUpgrade,
    /// The client speaks `townhall.v1`.
    pub json: bool,
    /// What it brings in its headers to be let in.
    pub tokens: Vec<String>,
}

impl Handshake {
    /// Checks a request.
    ///
    /// # Errors
    /// 426 without an upgrade, 400 for wrong syntax, version or subprotocol, 403 for a foreign origin.
    pub fn check(request: &mut Request, origins: &Origins) -> Result<Self, Refused> {
        log(request);
        let headers = request.headers();
        if !has_token(headers, &UPGRADE, "websocket") {
            let words =
                "this address is for WebSockets: connect with ws:// or wss://, through proxies that pass Upgrade on";
            let refused = Refused::new(StatusCode::UPGRADE_REQUIRED, NotIn::NoUpgrade, words);
            return Err(refused.with(UPGRADE, "websocket"));
        }
        if !has_token(headers, &CONNECTION, "upgrade") {
            let words = "Upgrade without `Connection: Upgrade`; does a proxy take it away?";
            return Err(Refused::new(StatusCode::BAD_REQUEST, NotIn::Syntax, words));
        }
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
            let refused = Refused::new(StatusCode::BAD_REQUEST, NotIn::Version, "Sec-WebSocket-Version must be 13");
            return Err(refused.with(SEC_WEBSOCKET_VERSION, VERSION));
        }
        let accept = accept_key(headers)?;
        check_origin(headers, request.extensions().get(), origins)?;
        let json = check_subprotocol(headers)?;
        let tokens = bearer_tokens(headers);
        let Some(upgrade) = request.extensions_mut().remove::<OnUpgrade>() else {
            return Err(Refused::new(StatusCode::BAD_REQUEST, NotIn::Syntax, "an upgrade needs HTTP/1.1"));
        };
        Ok(Handshake { accept, upgrade, json, tokens })
    }

    /// The answer that upgrades, and the socket afterwards.
    pub fn accept(self) -> (Response<Body>, OnUpgrade) {
        let mut answer = Response::new(Body::empty());
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, self.accept);
        if self.json {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        }
        (answer, self.upgrade)
    }
}

/// Takes the socket back from the HTTP server, with what it had read already. `None` when the client is gone.
pub async fn socket(upgrade: OnUpgrade) -> Option<(TcpStream, Bytes)> {
    let upgraded: Upgraded = upgrade.await.ok()?;
    let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
    let socket = parts.io.into_inner();
    // The clock of HTTP; from here on the connection's own says who is too slow, and says so to the client.
    let _ = SockRef::from(&socket).set_tcp_user_timeout(None);
    Some((socket, parts.read_buf))
}

/// RFC 6455 §4.2.2: the answer to the client's key.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Refused> {
    let wrong = || Refused::new(StatusCode::BAD_REQUEST, NotIn::Syntax, "Sec-WebSocket-Key must be 16 bytes in base64");
    let key = headers.get(SEC_WEBSOCKET_KEY).ok_or_else(wrong)?;
    if BASE64_STANDARD.decode(key.as_bytes()).map_or(true, |bytes| bytes.len() != 16) {
        return Err(wrong());
    }
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(GUID);
    HeaderValue::from_str(&BASE64_STANDARD.encode(hash.finalize())).map_err(|_| wrong())
}

/// Whether a comma-separated header has `token`, in whatever case.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// The tokens that a request brings in its headers, as `Authorization: Bearer` and as subprotocol `bearer.<token>`.
fn bearer_tokens(headers: &HeaderMap) -> Vec<String> {
    let authorized = headers.get_all(header::AUTHORIZATION).into_iter().filter_map(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
    });
    let offered = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).filter_map(|offered| offered.strip_prefix(BEARER));
    authorized.chain(offered.map(str::to_owned)).collect()
}

/// Whether the client speaks `townhall.v1`.
fn check_subprotocol(headers: &HeaderMap) -> Result<bool, Refused> {
    if tokens(headers, &SEC_WEBSOCKET_PROTOCOL).any(|offered| offered == SUBPROTOCOL) {
        return Ok(true);
    }
    if headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
        let words = format!("unknown subprotocol; there is {SUBPROTOCOL}, or none for plain text");
        return Err(Refused::new(StatusCode::BAD_REQUEST, NotIn::Subprotocol, words));
    }
    Ok(false)
}

/// Browsers say which page connects; only pages of this site and allowed ones may. What is no browser sends no Origin.
/// A proxy may have put a `Host` of its own in the place of the site's, and say which that was.
fn check_origin(headers: &HeaderMap, forwarded: Option<&ForwardedHost>, origins: &Origins) -> Result<(), Refused> {
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or("");
    let host = headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    if is_let_in(origin, host, origins) || forwarded.is_some_and(|host| is_let_in(origin, &host.0, origins)) {
        return Ok(());
    }
    let advice = match AllowedOrigins::authority(origin) {
        Some(_) => format!("the option --allow-origin {origin} lets it in"),
        None => "a page without a site of its own is let in by --allow-origin '*' alone".into(),
    };
    let words = format!("a page of Origin {origin:?} may not connect to Host {host:?}; {advice}");
    Err(Refused::new(StatusCode::FORBIDDEN, NotIn::Origin, words))
}

fn is_let_in(origin: &str, host: &str, origins: &Origins) -> bool {
    let allowed = match &origins.allowed {
        AllowedOrigins::Any => return true,
        AllowedOrigins::Only(allowed) => allowed,
    };
    let Some(authority) = AllowedOrigins::authority(origin) else { return false };
    let scheme = origin.split_once("://").map_or("http", |(scheme, _)| scheme);
    let same = AllowedOrigins::authority(&format!("{scheme}://{host}")).is_some_and(|host| host == authority);
    same || allowed.contains(&authority) || (origins.loopback && is_loopback(&authority))
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or(""),
        None => authority.split(':').next().unwrap_or(""),
    };
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Headers that carry no secret. Others may (a cookie, a referring page's address), whatever they are called.
fn is_shown(name: &HeaderName) -> bool {
    let shown = [HOST, ORIGIN, CONNECTION, UPGRADE, SEC_WEBSOCKET_VERSION, SEC_WEBSOCKET_KEY, header::USER_AGENT];
    shown.contains(name)
        || matches!(*name, header::SEC_WEBSOCKET_EXTENSIONS | header::ACCEPT_ENCODING | header::ACCEPT_LANGUAGE)
        || matches!(*name, header::PRAGMA | header::CACHE_CONTROL)
}

/// A path without the token that ends the tutorial's address.
fn shown_path(path: &str) -> String {
    const CLASSIC: &str = "/chatroom/ws/";
    let Some((base, rest)) = path.split_once(CLASSIC) else { return path.into() };
    let name = rest.split_once('/').map_or("…", |(name, _)| name);
    format!("{base}{CLASSIC}{name}/…")
}

/// The handshake as it came, secrets masked: what the tutorial's first WebSocket server printed.
fn log(request: &Request) {
    if !tracing::enabled!(tracing::Level::TRACE) {
        return;
    }
    let mut text = format!("{} {} {:?}", request.method(), shown_path(request.uri().path()), request.version());
    for (name, value) in request.headers() {
        let shown = if is_shown(name) || value == SUBPROTOCOL { value.to_str().unwrap_or("…") } else { "…" };
        text.push_str(&format!("\n{name}: {shown}"));
    }
    trace!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(allowed: &[&str], loopback: bool) -> Origins {
        Origins { allowed: AllowedOrigins::Only(allowed.iter().map(|&host| host.into()).collect()), loopback }
    }

    #[test]
    fn pages_of_the_same_site_and_allowed_ones_are_let_in() {
        let here = origins(&["friend.example"], false);
        assert!(is_let_in("https://hall.example", "hall.example", &here));
        assert!(is_let_in("https://hall.example:443", "HALL.example", &here));
        assert!(is_let_in("http://hall.example:8080", "hall.example:8080", &here));
        assert!(is_let_in("https://friend.example", "hall.example", &here));
        assert!(!is_let_in("https://hall.example", "hall.example:8080", &here));
        assert!(!is_let_in("https://evil.example", "hall.example", &here));
        assert!(!is_let_in("null", "hall.example", &here));
        assert!(!is_let_in("", "", &here));
        assert!(!is_let_in("http://localhost:3000", "hall.example", &here));
    }

    #[test]
    fn pages_of_this_machine_are_let_in_while_the_hall_is_for_this_machine() {
        let here = origins(&[], true);
        for origin in ["http://localhost:3000", "http://127.0.0.1:1", "http://[::1]:8080", "http://127.9.9.9"] {
            assert!(is_let_in(origin, "127.0.0.1:8080", &here), "{origin}");
        }
        assert!(!is_let_in("http://localhost.evil.example", "127.0.0.1:8080", &here));
    }

    #[test]
    fn a_token_in_the_path_is_not_shown() {
        assert_eq!(shown_path("/ws"), "/ws");
        assert_eq!(shown_path("/gin/chatroom/ws/lewin/s3cret"), "/gin/chatroom/ws/lewin/…");
        assert_eq!(shown_path("/chatroom/ws/s3cret"), "/chatroom/ws/…/…");
        assert_eq!(shown_path("/chatroom/ws/lewin/a/s3cret"), "/chatroom/ws/lewin/…");
    }

    #[test]
    fn the_accept_key_is_that_of_the_rfc() {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        assert_eq!(accept_key(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}
