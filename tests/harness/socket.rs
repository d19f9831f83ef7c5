//! The WebSocket under the clients: an independent implementation, so that the server's own frames are not judged by
//! themselves.

use futures::{SinkExt, StreamExt};
use tokio::io::AsyncReadExt;
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async};

use super::fitful::Fitful;
use super::{patiently, secrets};

pub(super) struct Socket {
    stream: WebSocketStream<Fitful>,
    /// How many pings came.
    pub(super) pings: u32,
}

/// What a socket brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Heard {
    Text(String),
    /// A close frame, or 1006 and why where there was none.
    Closed(u16, String),
}

/// A handshake that was answered with something else than 101.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// 0: there was no HTTP answer.
    pub status: u16,
    pub body: String,
    pub retry_after: Option<String>,
}

impl Refusal {
    fn of(error: Error) -> Refusal {
        let Error::Http(answer) = error else {
            return Refusal { status: 0, body: error.to_string(), retry_after: None };
        };
        let retry_after = answer.headers().get("Retry-After");
        let body = answer.body().as_deref().unwrap_or_default();
        Refusal {
            status: answer.status().as_u16(),
            retry_after: retry_after.and_then(|value| value.to_str().ok().map(String::from)),
            body: String::from_utf8_lossy(body).into_owned(),
        }
    }
}

fn new_tcp() -> TcpSocket {
    TcpSocket::new_v4().expect("no socket")
}

fn narrow_tcp() -> TcpSocket {
    let tcp = new_tcp();
    tcp.set_recv_buffer_size(8 * 1024).expect("cannot set a buffer's size");
    tcp
}

impl Socket {
    pub(super) async fn connect(url: &str, subprotocol: Option<&str>) -> Result<Socket, Refusal> {
        Socket::connect_from(new_tcp(), url, subprotocol, None).await
    }

    /// With a receive buffer of a few KiB: who does not read is felt by the server soon.
    pub(super) async fn connect_narrow(url: &str, subprotocol: Option<&str>) -> Result<Socket, Refusal> {
        Socket::connect_from(narrow_tcp(), url, subprotocol, None).await
    }

    /// The same, and it reads in fits and starts, as `seed` has it.
    pub(super) async fn connect_fitful(url: &str, subprotocol: Option<&str>, seed: u64) -> Result<Socket, Refusal> {
        Socket::connect_from(narrow_tcp(), url, subprotocol, Some(seed)).await
    }

    async fn connect_from(
        tcp: TcpSocket,
        url: &str,
        subprotocol: Option<&str>,
        seed: Option<u64>,
    ) -> Result<Socket, Refusal> {
        secrets::keep_address(url);
        let mut request = url.into_client_request().unwrap_or_else(|error| panic!("{url}: {error}"));
        if let Some(subprotocol) = subprotocol {
            secrets::keep_header(subprotocol);
            let header = subprotocol.parse().expect("not a header's value");
            request.headers_mut().insert("Sec-WebSocket-Protocol", header);
        }
        let authority = request.uri().authority().expect("no host");
        let server = authority.as_str().parse().expect("not an ip:port");
        let handshake = async {
            let stream = tcp.connect(server).await?;
            stream.set_nodelay(true)?;
            client_async(request, Fitful::new(stream, seed)).await
        };
        match patiently(&format!("a handshake with {url}"), handshake).await {
            Ok((stream, _)) => Ok(Socket { stream, pings: 0 }),
            Err(error) => Err(Refusal::of(error)),
        }
    }

    pub(super) async fn send(&mut self, message: Message) -> Result<(), Error> {
        keep(&message);
        self.stream.send(message).await
    }

    /// In one write, so that the server reads all of it at once.
    pub(super) async fn send_together(&mut self, messages: Vec<Message>) -> Result<(), Error> {
        for message in messages {
            keep(&message);
            self.stream.feed(message).await?;
        }
        self.stream.flush().await
    }

    /// Everything that is still to be read, as bytes and not as frames, until the server ends the connection.
    pub(super) async fn rest(self) -> Vec<u8> {
        let mut stream = self.stream.into_inner();
        let mut bytes = Vec::new();
        let read = patiently("the server to end a connection", stream.read_to_end(&mut bytes)).await;
        read.unwrap_or_else(|error| panic!("{error} after {bytes:?}"));
        bytes
    }

    /// Waits for as long as it takes; pings are answered meanwhile.
    pub(super) async fn hear(&mut self) -> Heard {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => return Heard::Text(text.as_str().into()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Heard::Closed(frame.code.into(), frame.reason.as_str().into());
                }
                Some(Ok(Message::Close(None))) => return Heard::Closed(1005, String::new()),
                Some(Ok(Message::Binary(bytes))) => panic!("a binary frame came: {bytes:?}"),
                Some(Ok(Message::Ping(_))) => self.pings += 1,
                Some(Ok(Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Heard::Closed(1006, error.to_string()),
                None => return Heard::Closed(1006, "the connection ended".into()),
            }
        }
    }
}

/// What it says is in no log.
fn keep(message: &Message) {
    if let Message::Text(text) = message {
        secrets::keep_frame(text);
    }
}

/// The code of the close frame with which some server frames end; all of them are short.
pub(super) fn close_code(mut frames: &[u8]) -> Option<u16> {
    while let [head, length, rest @ ..] = frames {
        let (payload, others) = rest.split_at_checked(usize::from(*length))?;
        if let (0x88, [high, low, ..]) = (head, payload) {
            return Some(u16::from_be_bytes([*high, *low]));
        }
        frames = others;
    }
    None
}
