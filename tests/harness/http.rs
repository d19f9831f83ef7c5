//! A plain HTTP request, so that the tests see every byte of the answer.

use std::io::Read;
use std::net::SocketAddr;

use flate2::read::MultiGzDecoder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{patiently, secrets};

/// What a server said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// The status line and the header lines, as they came.
    pub head: String,
    /// Unpacked, where it came compressed.
    pub body: String,
    /// How many bytes the body had on its way.
    pub size: usize,
}

impl Answer {
    /// Without its body.
    pub fn of(head: String) -> Option<Answer> {
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Answer { status, head, body: String::new(), size: 0 })
    }

    /// With the bytes that followed the head.
    pub fn with_body(mut self, bytes: &[u8]) -> Answer {
        self.size = bytes.len();
        self.body = match self.header("Content-Encoding") {
            Some("gzip") if !bytes.is_empty() => {
                let mut unpacked = String::new();
                MultiGzDecoder::new(bytes).read_to_string(&mut unpacked).expect("gzip, and text in it");
                unpacked
            }
            Some(other) if other != "gzip" => panic!("an encoding that nobody asked for: {other}"),
            _ => String::from_utf8_lossy(bytes).into(),
        };
        self
    }

    /// A header's value; names in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(':'))
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }
}

/// `GET path`, with more header lines if wanted (`"Origin: http://elsewhere\r\n"`). An error when nobody answers.
pub async fn get(address: SocketAddr, path: &str, headers: &str) -> std::io::Result<Answer> {
    secrets::keep_address(path);
    headers.lines().filter_map(|line| line.split_once(": ")).for_each(|(_, value)| secrets::keep_header(value));
    patiently(&format!("an answer of {address} to GET {path}"), async {
        let mut stream = TcpStream::connect(address).await?;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let parsed = parse(&answer);
        parsed.ok_or_else(|| std::io::Error::other(format!("no HTTP: {:?}", String::from_utf8_lossy(&answer))))
    })
    .await
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n")?;
    Some(Answer::of(String::from_utf8_lossy(&answer[..end]).into())?.with_body(&answer[end + 4..]))
}
