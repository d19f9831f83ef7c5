//! One connection to a hall: the handshake, TLS where it is wanted, and what can go wrong, as [`Trouble`].

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{SinkExt, StreamExt};
use hyper::header::{AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER, SEC_WEBSOCKET_PROTOCOL};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, handshake::client::Response};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use uuid::Uuid;

use super::address::{Address, Place};
use super::trouble::Trouble;
use crate::protocol::SUBPROTOCOL;
use crate::tls;

/// From opening a socket to the end of the handshake.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// For the file of the token.
const READ_DEADLINE: Duration = Duration::from_secs(5);
const MOST_TOKEN: usize = 16 * 1024;
/// Another address of the same host is tried beside one that has not answered for so long, as RFC 8305 has it.
const BESIDE: Duration = Duration::from_millis(250);
/// What the hall does not take for so long it will never take.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// When the kernel asks whether a silent line still lives.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// No frame of a hall is longer.
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Of what a stranger answers.
const MOST_WORDS: usize = 200;

/// Who comes in.
#[derive(Debug, Clone)]
pub struct Login {
    pub name: Option<String>,
    pub key: Uuid,
    pub token: Option<Token>,
}

#[derive(Clone)]
pub enum Token {
    Given(String),
    /// Read before each attempt, so that it can be replaced by a fresh one.
    In(PathBuf),
}

/// Without the secret.
impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// The token, where there is one.
///
/// # Errors
/// The file cannot be read, holds nothing, or is a pipe into which nobody writes.
pub async fn read(token: Option<&Token>) -> Result<Option<String>, Trouble> {
    let path = match token {
        None => return Ok(None),
        Some(Token::Given(token)) => return Ok(Some(token.clone())),
        Some(Token::In(path)) => path,
    };
    let trouble = |error| Trouble::NoToken { path: path.to_string_lossy().into_owned(), error };
    let reading = spawn_blocking({
        let path = path.clone();
        move || std::fs::read_to_string(path)
    });
    let read = timeout(READ_DEADLINE, reading).await.map_err(|_| io::Error::other("nothing comes"));
    let text = read.and_then(|read| read.unwrap_or_else(|error| Err(error.into()))).map_err(trouble)?;
    let token = text.trim();
    let some = !token.is_empty() && token.len() <= MOST_TOKEN;
    some.then(|| Some(token.to_owned())).ok_or_else(|| trouble(io::Error::other("it holds no token")))
}

pub trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

/// A WebSocket that speaks `townhall.v1`.
pub struct Socket(WebSocketStream<Box<dyn Bytes>>);

impl Socket {
    /// # Errors
    /// See [`Trouble`].
    pub async fn open(address: &Address, login: &Login) -> Result<Socket, Trouble> {
        let shown = address.to_string();
        let token = read(login.token.as_ref()).await?;
        let opening = Self::shake_hands(address.place(), &shown, login, token.as_deref());
        timeout(HANDSHAKE_DEADLINE, opening).await.unwrap_or(Err(Trouble::TimedOut { address: shown }))
    }

    async fn shake_hands(place: &Place, shown: &str, login: &Login, token: Option<&str>) -> Result<Socket, Trouble> {
        let no_hall = |words: String| Trouble::NoHall { address: shown.into(), words };
        let name = login.name.as_deref().map_or(String::new(), |name| format!("&name={}", encoded(name)));
        let url = format!("ws://{}{}?key={}{name}", place.authority, place.path, login.key);
        let mut request = url.into_client_request().map_err(|error| no_hall(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        if let Some(token) = token {
            let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|_| Trouble::Unauthorized { words: "that is no token".into() })?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let stream = connect(place, shown).await?;
        let config = WebSocketConfig::default().max_message_size(Some(MOST_BYTES)).max_frame_size(Some(MOST_BYTES));
        match client_async_with_config(request, stream, Some(config)).await {
            Ok((socket, _)) => Ok(Socket(socket)),
            Err(Error::Http(response)) => Err(status(shown, &response)),
            Err(Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_))) => {
                Err(no_hall("a WebSocket, and no hall".into()))
            }
            Err(Error::Io(error)) if !is_an_end(&error) => Err(no_hall(error.to_string())),
            Err(Error::Io(_) | Error::Protocol(ProtocolError::HandshakeIncomplete)) => {
                Err(no_hall("it hangs up".into()))
            }
            Err(_) => Err(no_hall("it does not speak WebSocket".into())),
        }
    }

    /// The next text.
    ///
    /// # Errors
    /// The connection is over. To be cancelled at any time.
    pub async fn next(&mut self) -> Result<String, Trouble> {
        loop {
            match self.0.next().await {
                Some(Ok(Message::Text(text))) => return Ok(text.as_str().to_owned()),
                Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(Trouble::Broke { words: plain(&error) }),
                None => return Err(Trouble::Broke { words: String::new() }),
            }
        }
    }

    /// # Errors
    /// The connection is over. Not to be cancelled: it ends by itself, and half a frame cannot be taken back.
    pub async fn send(&mut self, text: String) -> Result<(), Trouble> {
        let broke = |error: Error| Trouble::Broke { words: plain(&error) };
        match timeout(WRITE_DEADLINE, self.0.send(Message::text(text))).await {
            Ok(sent) => sent.map_err(broke),
            Err(_) => Err(Trouble::Broke { words: "the hall takes nothing".into() }),
        }
    }

    /// Says good-bye, and waits a moment for the answer.
    pub async fn close(mut self) {
        let goodbye = async {
            let frame = CloseFrame { code: CloseCode::Normal, reason: "good-bye".into() };
            if self.0.close(Some(frame)).await.is_ok() {
                while let Some(Ok(_)) = self.0.next().await {}
            }
        };
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    }
}

/// A connection that the kernel looks after: a host that is gone is noticed even where nothing is said.
///
/// # Errors
/// See [`Trouble`].
pub async fn dial(place: &Place, shown: &str) -> Result<TcpStream, Trouble> {
    let unreachable = |error| Trouble::Unreachable { address: shown.into(), error };
    let found = tokio::net::lookup_host((place.host.as_str(), place.port)).await;
    let addresses: Vec<_> = found.map_err(|_| Trouble::NoSuchHost { host: place.host.clone() })?.collect();
    let stream = first_of(addresses).await.map_err(unreachable)?;
    let socket = SockRef::from(&stream);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    socket.set_tcp_keepalive(&keepalive).map_err(unreachable)?;
    socket.set_tcp_user_timeout(Some(WRITE_DEADLINE)).map_err(unreachable)?;
    stream.set_nodelay(true).map_err(unreachable)?;
    Ok(stream)
}

/// The first of these that answers; what the last one said, if none does.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut addresses = addresses.into_iter();
    let mut under_way = FuturesUnordered::new();
    let mut failed = io::Error::other("it has no address");
    loop {
        if let Some(address) = addresses.next() {
            under_way.push(TcpStream::connect(address));
        } else if under_way.is_empty() {
            return Err(failed);
        }
        let more = addresses.len() > 0;
        tokio::select! {
            Some(connected) = under_way.next() => match connected {
                Ok(stream) => return Ok(stream),
                Err(error) => failed = error,
            },
            () = sleep(BESIDE), if more => {}
        }
    }
}

async fn connect(place: &Place, shown: &str) -> Result<Box<dyn Bytes>, Trouble> {
    let host = place.host.as_str();
    let stream = dial(place, shown).await?;
    if !place.tls {
        return Ok(Box::new(stream));
    }
    let trouble = |words: String| Trouble::Tls { host: host.into(), words };
    let roots = tls::whom_this_machine_trusts().map_err(trouble)?;
    let (connector, name) = tls::to(host, roots).ok_or_else(|| trouble("that is no name of a host".into()))?;
    let stream = connector.connect(name, stream).await.map_err(|error| trouble(error.to_string()))?;
    Ok(Box::new(stream))
}

/// What is wrong with a connection, where that is more than its end, in words for people.
fn plain(error: &Error) -> String {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => String::new(),
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => String::new(),
        Error::Io(error) if is_an_end(error) => String::new(),
        Error::Io(error) => error.to_string(),
        Error::Capacity(_) => "it sends more than a hall does".into(),
        _ => "what came makes no sense".into(),
    }
}

fn is_an_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

fn status(address: &str, response: &Response) -> Trouble {
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let body = String::from_utf8_lossy(response.body().as_deref().unwrap_or_default());
    // What is written for browsers is nothing to read here.
    let page = body.trim_start().starts_with('<') || body.trim().is_empty();
    let reason = response.status().canonical_reason().unwrap_or_default();
    let elsewhere = response.headers().get(LOCATION).filter(|_| response.status().is_redirection());
    if let Some(to) = elsewhere.and_then(|to| to.to_str().ok()) {
        // What follows is what we asked with: the key.
        let to = to.split(['?', '#']).next().unwrap_or_default();
        return Trouble::Elsewhere { address: address.into(), to: first_line(to) };
    }
    Trouble::Status {
        address: address.into(),
        status: response.status().as_u16(),
        words: first_line(if page { reason } else { &body }),
        retry_after: seconds.map(|seconds: u64| Duration::from_secs(seconds.min(3600))),
    }
}

fn closed(frame: Option<CloseFrame>) -> Trouble {
    let (code, words) = frame.map_or((1005, String::new()), |frame| (frame.code.into(), first_line(&frame.reason)));
    Trouble::Closed { code, words }
}

/// Of a stranger's words, what fits into a line.
pub fn first_line(text: &str) -> String {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect()
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Socket, Type};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_address_that_says_nothing_keeps_nobody_from_the_next_one() {
        // Whoever comes when nobody more may wait is not answered.
        let silent = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        silent.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
        silent.listen(0).expect("a listener");
        let silent_at = silent.local_addr().ok().and_then(|address| address.as_socket()).expect("an address");
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(500), TcpStream::connect(silent_at)).await {
            waiting.push(stream);
        }
        let hall = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let hall_at = hall.local_addr().expect("an address");
        let stream = timeout(Duration::from_secs(30), first_of(vec![silent_at, hall_at])).await;
        assert_eq!(stream.expect("in time").expect("a connection").peer_addr().ok(), Some(hall_at));
    }

    #[tokio::test]
    async fn where_no_address_answers_the_last_one_says_why() {
        let free = TcpListener::bind("127.0.0.1:0").await.and_then(|free| free.local_addr()).expect("a port");
        let error = first_of(vec![free, free]).await.expect_err("nobody listens there");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
