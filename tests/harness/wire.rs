//! HTTP spelled out header by header, and frames byte by byte: for what no well-behaved client sends, and none shows.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::harness::{Answer, patiently, secrets};

/// The key and the accept key that RFC 6455 gives as its example (§1.3).
pub const EXAMPLE_KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub const EXAMPLE_ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A connection to `server` from another address of this machine than 127.0.0.1.
pub async fn connect_from(source: &str, server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::new(source.parse().expect("an address"), 0)).expect("an address of this machine");
    patiently("a connection", socket.connect(server)).await.expect("the node listens")
}

/// A connection that holds only a few KiB unread.
pub async fn connect_narrow(server: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 * 1024).expect("a buffer's size");
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
        secrets::keep_address(&request.path);
        request.headers.iter().for_each(|(_, value)| secrets::keep_header(value));
        stream.write_all(&[request.text().as_bytes(), &request.rest].concat()).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await?);
        }
        let head = String::from_utf8_lossy(&head).trim_end().to_string();
        let answer = Answer::of(head.clone()).unwrap_or_else(|| panic!("no HTTP: {head}"));
        let body = body(&answer, &request.method, &mut stream).await?;
        Ok((answer.with_body(&body), stream))
    }

    /// The head as it is sent.
    pub fn text(&self) -> String {
        let headers: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("{} {} HTTP/1.1\r\n{headers}\r\n", self.method, self.path)
    }
}

/// What follows the head: nothing, so many bytes, or everything until the server closes.
async fn body(answer: &Answer, method: &str, stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
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
    Ok(body)
}

/// A WebSocket of which every byte is one's own.
pub async fn open(server: SocketAddr, path: &str, subprotocol: Option<&str>) -> TcpStream {
    upgraded(asking(path, subprotocol).upgrade(server).await)
}

/// The same, and it holds only a few KiB unread.
pub async fn open_narrow(server: SocketAddr, path: &str, subprotocol: Option<&str>) -> TcpStream {
    upgraded(asking(path, subprotocol).upgrade_over(connect_narrow(server).await).await)
}

fn asking(path: &str, subprotocol: Option<&str>) -> Request {
    let handshake = Request::handshake(path);
    match subprotocol {
        Some(subprotocol) => handshake.with("Sec-WebSocket-Protocol", subprotocol),
        None => handshake,
    }
}

fn upgraded((answer, stream): (Answer, TcpStream)) -> TcpStream {
    assert_eq!(answer.status, 101, "{answer:?}");
    stream
}

/// A client's frame with this first byte, masked with zeros.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        short @ 0..=125 => bytes.push(0x80 | short as u8),
        medium @ 126..=0xffff => {
            bytes.push(0xfe);
            bytes.extend((medium as u16).to_be_bytes());
        }
        long => {
            bytes.push(0xff);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend([0; 4]);
    bytes.extend(payload);
    bytes
}

/// The next frame of the server: its first byte and its payload; `None` when there is none any more.
pub async fn next_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let read = async {
        let first = stream.read_u8().await?;
        let length = match stream.read_u8().await? {
            126 => u64::from(stream.read_u16().await?),
            127 => stream.read_u64().await?,
            short => u64::from(short),
        };
        let mut payload = vec![0; length as usize];
        stream.read_exact(&mut payload).await?;
        Ok::<_, std::io::Error>((first, payload))
    };
    patiently("a frame of the server", read).await.ok()
}

/// Reads until the server closes; the code, and the frames before.
pub async fn until_close(stream: &mut TcpStream) -> (u16, Vec<(u8, Vec<u8>)>) {
    let mut before = Vec::new();
    loop {
        match next_frame(stream).await {
            Some((0x88, payload)) => {
                let code = payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
                return (code, before);
            }
            Some(other) => before.push(other),
            None => return (1006, before),
        }
    }
}
