//! A connection's bytes, whatever the door: text frames of a WebSocket, with or without TLS, or lines of TCP. It reads while it
//! writes: a server that is slow to take our frames may be waiting for us to take its own.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::{Sink, SinkExt, Stream};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Error, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use tokio_util::codec::{Framed, LinesCodec, LinesCodecError};
use uuid::Uuid;

use crate::run::Run;
use crate::target::Manner;

/// How long a polite goodbye may take.
const GOODBYE: Duration = Duration::from_secs(1);
/// A line that is longer is none of a hall's.
const LONGEST_LINE: usize = 1 << 20;

/// A connection, TLS or not.
trait Bytes: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Bytes for T {}

enum Door {
    // Each is large, and thousands of them are kept in tasks that are moved.
    WebSocket(Box<WebSocketStream<Box<dyn Bytes>>>),
    Lines(Box<Framed<TcpStream, LinesCodec>>),
}

pub struct Line {
    door: Door,
    /// Some of what we sent is still here.
    pub is_busy: bool,
    /// What has to be said before anything else.
    pub answers: Vec<&'static str>,
}

/// What comes of a line.
#[derive(Debug)]
pub enum Came {
    Text(String),
    /// A frame that no server of ours sends.
    Strange,
    /// It can be written to again, or showed that it is alive.
    Nothing,
    /// With this code.
    Closed(u16),
    /// Without a word, or in a few that are the same for the same kind of error, so that they can be counted.
    Ended(String),
}

impl Came {
    fn failed(error: &Error) -> Self {
        Came::Ended(in_short(error))
    }
}

/// A few words that are the same for the same kind of error.
pub fn in_short(error: &Error) -> String {
    match error {
        // That is what TLS makes of a certificate, which says more about itself.
        Error::Io(error) if error.kind() == io::ErrorKind::InvalidData => error.to_string(),
        // Without a word for it there is the system's.
        Error::Io(error) if error.kind().to_string() == "uncategorized error" => error.to_string(),
        Error::Io(error) => error.kind().to_string(),
        Error::Http(response) => format!("HTTP {}", response.status().as_u16()),
        other => other.to_string(),
    }
}

impl Line {
    /// Connects a client to where its `attempt`th connection goes; `key` makes it the same guest each time.
    pub async fn open(run: &Run, attempt: usize, client: usize, key: Uuid) -> Result<Self, Error> {
        let target = run.plan.target(client, attempt);
        let stream = connect(target.address, run.plan.source(client)).await?;
        let door = match target.manner {
            Manner::Lines => Door::Lines(Box::new(Framed::new(stream, LinesCodec::new_with_max_length(LONGEST_LINE)))),
            Manner::Protocol | Manner::Plain => {
                let stream: Box<dyn Bytes> = match run.tls(target) {
                    Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
                    None => Box::new(stream),
                };
                let room = run.room_of(client);
                let mut request = ClientRequestBuilder::new(target.uri_for(client, key, room));
                if let Some(subprotocol) = target.subprotocol(run.plan.dialect) {
                    request = request.with_sub_protocol(subprotocol);
                }
                let (socket, _) = client_async_with_config(request, stream, Some(config())).await?;
                Door::WebSocket(Box::new(socket))
            }
        };
        let opening = run.plan.dialect.opening().filter(|_| target.manner == Manner::Protocol);
        let mut line = Line { door, is_busy: false, answers: opening.into_iter().collect() };
        line.answer().await?;
        Ok(line)
    }

    /// Hands a text over and sends what the socket takes at once; the rest goes out with [`Line::next`].
    pub async fn send(&mut self, text: String) -> Result<(), Error> {
        match &mut self.door {
            Door::WebSocket(socket) => Pin::new(socket).start_send(Message::text(text))?,
            Door::Lines(lines) => Pin::new(lines).start_send(text).map_err(of_lines)?,
        }
        poll_fn(|cx| match self.door.poll_flush(cx) {
            Poll::Ready(flushed) => Poll::Ready(flushed),
            Poll::Pending => {
                self.is_busy = true;
                Poll::Ready(Ok(()))
            }
        })
        .await
    }

    pub async fn answer(&mut self) -> Result<(), Error> {
        while let Some(answer) = self.answers.pop() {
            self.send(answer.to_owned()).await?;
        }
        Ok(())
    }

    /// What comes next. Nothing, but in time, when the socket can be written to again.
    pub async fn next(&mut self) -> Came {
        poll_fn(|cx| {
            if self.is_busy
                && let Poll::Ready(flushed) = self.door.poll_flush(cx)
            {
                self.is_busy = false;
                return Poll::Ready(match flushed {
                    Ok(()) => Came::Nothing,
                    Err(error) => Came::failed(&error),
                });
            }
            self.door.poll_next(cx)
        })
        .await
    }

    pub async fn goodbye(&mut self) {
        // The run, or this connection, is over: what becomes of the close frame changes nothing.
        let _ = match &mut self.door {
            Door::WebSocket(socket) => timeout(GOODBYE, socket.as_mut().close(None)).await.map(drop),
            Door::Lines(lines) => timeout(GOODBYE, SinkExt::<String>::close(lines)).await.map(drop),
        };
    }
}

impl Door {
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self {
            Door::WebSocket(socket) => Pin::new(socket).poll_flush(cx),
            Door::Lines(lines) => Sink::<String>::poll_flush(Pin::new(lines), cx).map_err(of_lines),
        }
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Came> {
        match self {
            Door::WebSocket(socket) => Pin::new(socket).poll_next(cx).map(|frame| match frame {
                Some(Ok(Message::Text(text))) => Came::Text(text.as_str().to_owned()),
                Some(Ok(Message::Binary(_))) => Came::Strange,
                Some(Ok(Message::Close(frame))) => {
                    Came::Closed(frame.map_or(CloseCode::Status.into(), |frame| frame.code.into()))
                }
                Some(Ok(_)) => Came::Nothing,
                Some(Err(error)) => Came::failed(&error),
                None => Came::Ended("ended without a close frame".to_owned()),
            }),
            Door::Lines(lines) => Pin::new(lines).poll_next(cx).map(|line| match line {
                Some(Ok(line)) => Came::Text(line),
                Some(Err(error)) => Came::failed(&of_lines(error)),
                None => Came::Ended("ended".to_owned()),
            }),
        }
    }
}

fn of_lines(error: LinesCodecError) -> Error {
    match error {
        LinesCodecError::Io(error) => Error::Io(error),
        LinesCodecError::MaxLineLengthExceeded => Error::Io(io::Error::other("a line that is too long")),
    }
}

async fn connect(address: SocketAddr, source: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    if let Some(source) = source {
        socket.bind((source, 0).into())?;
    }
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Thousands of these: a small buffer each, and every frame goes out at once.
fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(4 * 1024)
        .write_buffer_size(0)
        .max_write_buffer_size(256 * 1024)
        .max_message_size(Some(4 << 20))
}
