//! A plain HTTP request, so that the tests see every byte of the answer.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{patiently, secrets};

/// What a server said.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    /// The status line and the header lines, as they came.
    pub head: String,
    pub body: String,
}

impl Answer {
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
        parse(&String::from_utf8_lossy(&answer))
            .ok_or_else(|| std::io::Error::other(format!("no HTTP: {:?}", String::from_utf8_lossy(&answer))))
    })
    .await
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some(Answer { status: head.split(' ').nth(1)?.parse().ok()?, head: head.into(), body: body.into() })
}
