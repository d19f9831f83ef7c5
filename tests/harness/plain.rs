//! A WebSocket without a subprotocol: the tutorial's page, `websocat`, a browser's console.

use tokio_tungstenite::tungstenite::Message;

use super::patiently;
use super::socket::{Heard, Refusal, Socket, close_code};

pub struct Plain {
    socket: Socket,
    url: String,
}

impl Plain {
    pub async fn connect(url: &str, query: &str) -> Plain {
        match Plain::try_connect(url, query).await {
            Ok(client) => client,
            Err(refusal) => panic!("{url}{query} refused: {refusal:?}"),
        }
    }

    /// The same where a refusal is what is expected.
    pub async fn try_connect(url: &str, query: &str) -> Result<Plain, Refusal> {
        let url = format!("{url}{query}");
        let socket = Socket::connect(&url, None).await?;
        Ok(Plain { socket, url })
    }

    /// The same over a socket that holds only a few KiB unread.
    pub async fn connect_narrow(url: &str, query: &str) -> Plain {
        let url = format!("{url}{query}");
        match Socket::connect_narrow(&url, None).await {
            Ok(socket) => Plain { socket, url },
            Err(refusal) => panic!("{url} refused: {refusal:?}"),
        }
    }

    pub async fn say(&mut self, text: &str) {
        let sent = patiently("the server to take a message", self.socket.send(Message::text(text)));
        sent.await.unwrap_or_else(|error| panic!("{}: cannot send: {error}", self.url));
    }

    /// The close code among what it had not read, without having answered any of it.
    pub async fn unanswered_close(self) -> Option<u16> {
        close_code(&self.socket.rest().await)
    }

    /// The next message, lines as they are.
    pub async fn next(&mut self) -> String {
        match self.next_or_close().await {
            Ok(text) => text,
            Err((code, reason)) => panic!("{}: closed {code} {reason:?}", self.url),
        }
    }

    /// The next message, or the code and the reason of the close.
    pub async fn next_or_close(&mut self) -> Result<String, (u16, String)> {
        let what = format!("the next message at {}", self.url);
        match patiently(&what, self.socket.hear()).await {
            Heard::Text(text) => Ok(text),
            Heard::Closed(code, reason) => Err((code, reason)),
        }
    }

    /// The next message, which must be this one.
    pub async fn expect(&mut self, line: &str) {
        assert_eq!(self.next().await, line, "at {}", self.url);
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
            self.url
        );
    }
}
