//! HTTP spelled out header by header: for requests that no well-behaved client sends, and answers that none shows.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::harness::{Answer, patiently};

/// The key and the accept key that RFC 6455 gives as its example (§1.3).
pub const EXAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const EXAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A connection to `server` from another address of this machine than 127.0.0.1.
pub async fn connect_from(source: &str, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("an address of this machine");
    patiently("a connection", socket.connect(server)).await.expect("the node listens")
}

/// A request that can be changed until it is sent.
#[derive(Debug, Clone)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    /// Sent in one piece with the head.
    rest: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Request {
        Request { method: method.into(), path: path.into(), headers: Vec::new(), rest: Vec::new() }
    }

    /// A handshake without fault, as RFC 6455 has it.
    pub fn handshake(path: &str) -> Request {
        Request::new("GET", path)
            .with("Upgrade", "websocket")
            .with("Connection", "Upgrade")
            .with("Sec-WebSocket-Version", "13")
            .with("Sec-WebSocket-Key", EXAMPLE_KEY)
    }

    /// Sets a header, in place of the one of this name that is there.
    pub fn with(self, name: &str, value: &str) -> Request {
        let mut request = self.without(name);
        request.headers.push((name.into(), value.into()));
        request
    }

    pub fn without(mut self, name: &str) -> Request {
        self.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
        self
    }

    /// Sends these bytes in one piece with the request, without waiting for the answer.
    pub fn followed_by(mut self, bytes: &[u8]) -> Request {
        self.rest.extend_from_slice(bytes);
        self
    }

    /// Sends it and takes the answer; a connection that was upgraded ends here.
    pub async fn send(self, server: SocketAddr) -> Answer {
        self.upgrade(server).await.0
    }

    /// Sends it and takes the answer, of a 101 only the head; the connection comes with it.
    pub async fn upgrade(self, server: SocketAddr) -> (Answer, TcpStream) {
        let what = format!("an answer of {server} to {self:?}");
        patiently(&what, self.exchange(server)).await.unwrap_or_else(|error| panic!("no answer of {server}: {error}"))
    }

    /// The same over a connection that is there already.
    pub async fn upgrade_over(self, stream: TcpStream) -> (Answer, TcpStream) {
        let what = format!("an answer to {self:?}");
        let answer = patiently(&what, self.exchange_over(stream)).await;
        answer.unwrap_or_else(|error| panic!("waited in vain for {what}: {error}"))
    }

    async fn exchange(self, server: SocketAddr) -> std::io::Result<(Answer, TcpStream)> {
        self.exchange_over(TcpStream::connect(server).await?).await
    }

    async fn exchange_over(self, mut stream: TcpStream) -> std::io::Result<(Answer, TcpStream)> {
        let request = match self.headers.iter().any(|(name, _)| name == "Host") {
            true => self,
            false => self.with("Host", &stream.peer_addr()?.to_string()),
        };
        stream.write_all(&[request.text().as_bytes(), &request.rest].concat()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).trim_end().to_string();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut answer =
            Answer { status: status.unwrap_or_else(|| panic!("no HTTP: {head}")), head, body: String::new() };
        answer.body = body(&answer, &request.method, &mut stream).await?;
        Ok((answer, stream))
    }

    /// The head as it is sent.
    pub fn text(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{} {} HTTP/1.1\r\n{headers}\r\n", self.method, self.path)
    }
}

/// What follows the head: nothing, so many bytes, or everything until the server closes.
async fn body(answer: &Answer, method: &str, stream: &mut TcpStream) -> std::io::Result<String> {
    let length = answer.header("Content-Length");
    let mut body = Vec::new();
    match length.map(|length| length.parse::<u64>()) {
        _ if matches!(answer.status, 101 | 204 | 304) || method == "HEAD" => {}
        Some(Ok(length)) => {
            stream.take(length).read_to_end(&mut body).await?;
        }
        Some(Err(error)) => panic!("{error}: {}", answer.head),
        None => {
            stream.read_to_end(&mut body).await?;
        }
    }
    Ok(String::from_utf8_lossy(&body).into())
}
