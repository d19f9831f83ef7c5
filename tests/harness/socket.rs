//! The WebSocket under the clients: an independent implementation, so that the server's own frames are not judged by
//! themselves.

use futures::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::patiently;

pub(super) struct Socket {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
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
    pub status: u16,
    pub body: String,
    pub retry_after: Option<String>,
}

impl Socket {
    pub(super) async fn connect(url: &str, subprotocol: Option<&str>) -> Result<Socket, Refusal> {
        let mut request = url.into_client_request().expect("not a WebSocket address");
        if let Some(subprotocol) = subprotocol {
            let header = subprotocol.parse().expect("not a header's value");
            request
                .headers_mut()
                .insert("Sec-WebSocket-Protocol", header);
        }
        let connected = patiently(&format!("a handshake with {url}"), connect_async(request)).await;
        match connected {
            Ok((stream, _)) => {
                if let MaybeTlsStream::Plain(tcp) = stream.get_ref() {
                    let _ = tcp.set_nodelay(true);
                }
                Ok(Socket { stream })
            }
            Err(Error::Http(answer)) => Err(Refusal {
                status: answer.status().as_u16(),
                retry_after: answer
                    .headers()
                    .get("Retry-After")
                    .and_then(|value| value.to_str().ok().map(String::from)),
                body: answer
                    .body()
                    .as_deref()
                    .map(|body| String::from_utf8_lossy(body).into_owned())
                    .unwrap_or_default(),
            }),
            Err(error) => Err(Refusal {
                status: 0,
                body: error.to_string(),
                retry_after: None,
            }),
        }
    }

    pub(super) async fn send(&mut self, message: Message) -> Result<(), Error> {
        self.stream.send(message).await
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
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Err(error)) => return Heard::Closed(1006, error.to_string()),
                None => return Heard::Closed(1006, "the connection ended".into()),
            }
        }
    }
}
