//! A proxy in front of a real hall that does wrong on purpose: to one client, and at known messages.

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::time::sleep;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{accept_hdr_async, client_async};

/// What it does wrong. The numbers are of messages that the client `load-0` is to get, from 1.
#[derive(Debug, Default, Clone, Copy)]
pub struct Wrong {
    pub loses: Option<u64>,
    pub doubles: Option<u64>,
    /// With the one after it.
    pub swaps: Option<u64>,
    /// Everything, to everybody.
    pub delays: Duration,
}

/// Runs as long as this value lives.
pub struct Proxy {
    pub url: String,
    _runtime: Runtime,
}

impl Proxy {
    pub fn before(hall: SocketAddr, wrong: Wrong) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        runtime.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A line that ends is the client's business.
                tokio::spawn(async move { pass_on(client, hall, wrong).await });
            }
        });
        Proxy { url, _runtime: runtime }
    }
}

async fn pass_on(client: TcpStream, hall: SocketAddr, wrong: Wrong) -> Result<(), Error> {
    let mut asked = String::new();
    let protocol = HeaderValue::from_static("townhall.v1");
    #[expect(clippy::result_large_err, reason = "tungstenite's own signature")]
    let callback = |request: &Request, mut response: Response| -> Result<_, ErrorResponse> {
        asked = request.uri().to_string();
        response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
        Ok(response)
    };
    let mut client = accept_hdr_async(client, callback).await?;
    let mut request = format!("ws://{hall}{asked}").into_client_request()?;
    request.headers_mut().insert("sec-websocket-protocol", protocol.clone());
    let (mut server, _) = client_async(request, TcpStream::connect(hall).await?).await?;
    let is_wronged = asked.contains("name=load-0&");
    let (mut messages, mut held) = (0, None);
    loop {
        tokio::select! {
            frame = client.next() => match frame { Some(frame) => server.send(frame?).await?, None => return Ok(()) },
            frame = server.next() => {
                let Some(frame) = frame.transpose()? else { return Ok(()) };
                sleep(wrong.delays).await;
                let is_message = matches!(&frame, Message::Text(text) if text.starts_with(r#"{"type":"message""#) || text.starts_with(r#"{"room""#));
                messages += u64::from(is_message);
                let this_one = |number: Option<u64>| is_wronged && is_message && number == Some(messages);
                if this_one(wrong.loses) {
                    continue;
                }
                if this_one(wrong.swaps) {
                    held = Some(frame);
                    continue;
                }
                if this_one(wrong.doubles) {
                    client.send(frame.clone()).await?;
                }
                client.send(frame).await?;
                if is_message && let Some(frame) = held.take() {
                    client.send(frame).await?;
                }
            }
        }
    }
}
