//! The line door, as `nc` uses it.

use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::{patiently, secrets};

pub struct Line {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    /// Our own end: a guest's name.
    pub address: SocketAddr,
}

impl Line {
    pub async fn connect(server: SocketAddr) -> Line {
        let stream = patiently("a connection to the line door", TcpStream::connect(server)).await;
        let stream = stream.unwrap_or_else(|error| panic!("{server} does not answer: {error}"));
        let _ = stream.set_nodelay(true);
        let address = stream.local_addr().expect("connected");
        let (reader, writer) = stream.into_split();
        Line { reader: BufReader::new(reader), writer, address }
    }

    /// Sends a line and its end.
    pub async fn say(&mut self, line: &str) {
        self.send(&format!("{line}\n")).await;
    }

    /// Sends bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        String::from_utf8_lossy(bytes.as_ref()).lines().for_each(secrets::keep_line);
        let sent = patiently("the server to take a line", self.writer.write_all(bytes.as_ref()));
        sent.await.unwrap_or_else(|error| panic!("{}: cannot send: {error}", self.address));
    }

    /// The next line without its end; `None` when the server has closed.
    pub async fn next_or_end(&mut self) -> Option<String> {
        let mut line = String::new();
        let what = format!("the next line of {}", self.address);
        match patiently(&what, self.reader.read_line(&mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end_matches(['\r', '\n']).into()),
        }
    }

    pub async fn next(&mut self) -> String {
        let line = self.next_or_end().await;
        line.unwrap_or_else(|| panic!("{}: the server closed", self.address))
    }

    /// The next line, which must be this one.
    pub async fn expect(&mut self, line: &str) {
        assert_eq!(self.next().await, line, "at {}", self.address);
    }

    /// Reads on until this line comes; those before it.
    pub async fn until(&mut self, line: &str) -> Vec<String> {
        let mut others = Vec::new();
        loop {
            let next = self.next().await;
            if next == line {
                return others;
            }
            others.push(next);
        }
    }

    /// The next line, which must be a notice with this code: `! CODE words`.
    pub async fn expect_notice(&mut self, code: &str) {
        let line = self.next().await;
        let words = line.strip_prefix(&format!("! {code} "));
        assert!(
            words.is_some_and(|words| !words.trim().is_empty()),
            "at {} instead of ! {code} came {line:?}",
            self.address
        );
    }
}
