//! Every way to bring a token, and how each of them says yes, no and not now.

use serde_json::Value;
use tokio::net::TcpStream;

use super::harness::{Line, Node};
use super::wire::{Request, frame, next_frame, until_close};

/// A door and where the token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    JsonHeader,
    JsonSubprotocol,
    JsonQuery,
    PlainHeader,
    PlainQuery,
    /// The tutorial's address.
    Classic,
    Line,
}

impl Way {
    pub const ALL: [Way; 7] = [
        Way::JsonHeader,
        Way::JsonSubprotocol,
        Way::JsonQuery,
        Way::PlainHeader,
        Way::PlainQuery,
        Way::Classic,
        Way::Line,
    ];

    fn is_json(self) -> bool {
        matches!(self, Way::JsonHeader | Way::JsonSubprotocol | Way::JsonQuery)
    }
}

/// What became of somebody.
#[derive(Debug)]
pub enum Outcome {
    In(In),
    /// A handshake that was answered with a status.
    Http {
        status: u16,
        body: String,
        retry_after: Option<String>,
    },
    /// An error and a close at `townhall.v1`, and nothing before.
    Json {
        error: Value,
        close: u16,
    },
    /// A notice at the line door.
    Notice(String),
}

/// Somebody who is in.
pub enum In {
    Json { welcome: Value, stream: TcpStream },
    Plain(TcpStream),
    Line { line: Line, name: String },
}

impl std::fmt::Debug for In {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            In::Json { welcome, .. } => write!(f, "in, {welcome}"),
            In::Plain(_) => write!(f, "in, plain"),
            In::Line { name, .. } => write!(f, "in as {name}, line"),
        }
    }
}

fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |encoded, byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded + &char::from(byte).to_string(),
        byte => encoded + &format!("%{byte:02X}"),
    })
}

/// Comes to `node` as `name`, with `token`.
pub async fn come(node: &Node, way: Way, name: &str, token: &str) -> Outcome {
    come_by(node, way, name, token, "").await
}

/// The same below a base path.
pub async fn come_by(node: &Node, way: Way, name: &str, token: &str, base: &str) -> Outcome {
    if way == Way::Line {
        return log_in(node, name, token).await;
    }
    let named = if name.is_empty() { String::new() } else { format!("name={}&", encoded(name)) };
    let path = match way {
        Way::JsonQuery | Way::PlainQuery => format!("{base}/ws?{named}token={}", encoded(token)),
        Way::Classic => format!("{base}/chatroom/ws/{}/{}", encoded(name), encoded(token)),
        _ => format!("{base}/ws?{named}"),
    };
    let mut request = Request::handshake(&path);
    if matches!(way, Way::JsonHeader | Way::PlainHeader) {
        request = request.with("Authorization", &format!("Bearer {token}"));
    }
    request = match way {
        Way::JsonSubprotocol => request.with("Sec-WebSocket-Protocol", &format!("townhall.v1, bearer.{token}")),
        way if way.is_json() => request.with("Sec-WebSocket-Protocol", "townhall.v1"),
        _ => request,
    };
    asked(node, request, way).await
}

/// What becomes of a request that is made by hand.
pub async fn asked(node: &Node, request: Request, way: Way) -> Outcome {
    let (answer, mut stream) = request.upgrade(node.http()).await;
    if answer.status != 101 {
        let retry_after = answer.header("Retry-After").map(String::from);
        return Outcome::Http { status: answer.status, body: answer.body, retry_after };
    }
    if !way.is_json() {
        return Outcome::In(In::Plain(stream));
    }
    assert_eq!(answer.header("Sec-WebSocket-Protocol"), Some("townhall.v1"), "the token is not sent back");
    let (first, payload) = next_frame(&mut stream).await.expect("a first frame");
    assert_eq!(first, 0x81);
    let said: Value = serde_json::from_slice(&payload).expect("JSON");
    if said["type"] == "welcome" {
        return Outcome::In(In::Json { welcome: said, stream });
    }
    assert_eq!(said["type"], "error", "{said}");
    let (close, before) = until_close(&mut stream).await;
    assert!(before.is_empty(), "nothing comes between an error and its close: {before:?}");
    Outcome::Json { error: said, close }
}

async fn log_in(node: &Node, name: &str, token: &str) -> Outcome {
    let mut line = Line::connect(node.tcp_addr()).await;
    let space = if name.is_empty() { "" } else { " " };
    line.say(&format!("/login {name}{space}{token}")).await;
    loop {
        let said = line.next().await;
        match said.strip_prefix("! login you are ") {
            Some(name) => return Outcome::In(In::Line { name: name.into(), line }),
            None if said.starts_with("! unauthorized log in first") => {}
            None => return Outcome::Notice(said),
        }
    }
}

impl Outcome {
    pub fn let_in(self) -> In {
        match self {
            Outcome::In(inside) => inside,
            other => panic!("not let in: {other:?}"),
        }
    }

    /// Each door says no in its way.
    pub fn assert_unauthorized(&self) {
        match self {
            Outcome::Http { status: 403, body, retry_after: None } => assert_eq!(body, "token wrong."),
            Outcome::Json { error, close: 4001 } => {
                assert_eq!(error["code"], "unauthorized", "{error}");
                assert!(error["retry_after_ms"].is_null() && !error["message"].as_str().unwrap_or("").is_empty());
            }
            Outcome::Notice(said) if said.starts_with("! unauthorized ") => {}
            other => panic!("refused otherwise than it should: {other:?}"),
        }
    }

    /// Each door says in its way that it cannot tell.
    pub fn assert_unavailable(&self) {
        match self {
            Outcome::Http { status: 503, retry_after: Some(_), .. } => {}
            Outcome::Json { error, close: 1013 } => {
                assert_eq!(error["code"], "unavailable", "{error}");
                assert!(error["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0), "{error}");
            }
            Outcome::Notice(said) if said.starts_with("! unavailable ") => {}
            other => panic!("told otherwise than it should be: {other:?}"),
        }
    }
}

impl In {
    /// Says something in the lobby and waits to hear it; under which name it comes.
    pub async fn speaks_as(&mut self) -> String {
        let text = format!("it is me {}", uuid::Uuid::new_v4());
        match self {
            In::Json { stream, .. } => {
                send(stream, r#"{"type":"join","room":"lobby","last":0}"#).await;
                let id = uuid::Uuid::new_v4();
                send(stream, &format!(r#"{{"type":"say","room":"lobby","id":"{id}","text":"{text}"}}"#)).await;
                loop {
                    let (_, payload) = next_frame(stream).await.expect("its own message");
                    let event: Value = serde_json::from_slice(&payload).expect("JSON");
                    if event["type"] == "message" && event["text"] == text {
                        return event["from"]["name"].as_str().expect("a name").into();
                    }
                }
            }
            In::Plain(stream) => {
                send(stream, &text).await;
                loop {
                    let (_, payload) = next_frame(stream).await.expect("its own message");
                    let said = String::from_utf8(payload).expect("UTF-8");
                    if let Some(name) = said.strip_suffix(&format!(":{text}")) {
                        return name.into();
                    }
                }
            }
            In::Line { line, .. } => {
                line.say(&text).await;
                loop {
                    if let Some(name) = line.next().await.strip_suffix(&format!(":{text}")) {
                        return name.into();
                    }
                }
            }
        }
    }
}

/// Sends a text message.
pub async fn send(stream: &mut TcpStream, text: &str) {
    use tokio::io::AsyncWriteExt;
    stream.write_all(&frame(0x81, text.as_bytes())).await.expect("the node takes a frame");
}
