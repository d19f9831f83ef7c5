//! `townhall health`: asks a running hall's operations listener how it is, for probes of containers that hold no curl.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::{CONNECTION, HOST};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::config::reachable;
use crate::measure::duration_text;

/// How long the whole question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// As much of an answer as is read; one that is longer is none of ours.
const MOST_BYTES: usize = 4 * 1024;

/// What was heard: `Ok` from a hall that is well, `Err` from one that is not, or nothing. One line each.
pub type Verdict = Result<String, String>;

/// Asks `/readyz` or `/healthz` of the operations listener at `ops`.
pub async fn ask(ops: SocketAddr, ready: bool) -> Verdict {
    let address = reachable(ops);
    let path = if ready { "/readyz" } else { "/healthz" };
    let line = |said: &str| format!("http://{address}{path}: {said}");
    match tokio::time::timeout(PATIENCE, get(address, path)).await {
        Ok(Ok((true, said))) => Ok(line(&said)),
        Ok(Ok((false, said))) => Err(line(&said)),
        Ok(Err(error)) => Err(line(&format!("{error:#}"))),
        Err(_) => {
            let patience = duration_text(PATIENCE);
            Err(line(&format!("no answer within {patience}")))
        }
    }
}

/// Whether the answer's status is a success, and the status with the first line of the body.
async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(bool, String)> {
    let stream = TcpStream::connect(address).await?;
    let (mut requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request =
        Request::get(path).header(HOST, address.to_string()).header(CONNECTION, "close").body(Empty::<Bytes>::new())?;
    tokio::spawn(connection); // its errors reach us through the answer
    let answer = requests.send_request(request).await?;
    let status = answer.status();
    let body = Limited::new(answer.into_body(), MOST_BYTES)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?
        .to_bytes();
    let body = String::from_utf8_lossy(&body);
    let words = body.lines().next().unwrap_or_default();
    let words: String = words.chars().filter(|c| !c.is_control()).collect();
    let said = format!("{} {words}", status.as_u16());
    Ok((status.is_success(), said.trim_end().to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A listener that gives everybody `answer`; what it was asked comes back with the verdict.
    async fn hear(answer: &'static str, ready: bool) -> (Verdict, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = Vec::new();
            while !question.ends_with(b"\r\n\r\n") {
                question.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(question).unwrap()
        };
        tokio::join!(ask(address, ready), served)
    }

    #[tokio::test]
    async fn a_hall_that_is_well_says_so() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nok\nmore\n";
        let (verdict, question) = hear(answer, false).await;
        assert!(verdict.unwrap().ends_with("/healthz: 200 ok"));
        assert!(question.starts_with("GET /healthz HTTP/1.1\r\n"), "{question}");
        assert!(question.contains("host: 127.0.0.1:"), "{question}");
    }

    #[tokio::test]
    async fn a_hall_that_is_not_ready_says_why() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 9\r\n\r\ndraining\n";
        let (verdict, question) = hear(answer, true).await;
        assert!(verdict.unwrap_err().ends_with("/readyz: 503 draining"));
        assert!(question.starts_with("GET /readyz "), "{question}");
    }

    #[tokio::test]
    async fn what_is_no_hall_is_not_well() {
        assert!(hear("SSH-2.0-OpenSSH\r\n", false).await.0.is_err());
        let endless = "HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n";
        assert!(hear(endless, false).await.0.is_err());
    }

    #[tokio::test]
    async fn nobody_there_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let line = ask(address, false).await.unwrap_err();
        assert!(line.starts_with(&format!("http://{address}/healthz: ")), "{line}");
        assert!(line.contains("refused"), "{line}");
    }

    #[tokio::test]
    async fn silence_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let line = ask(listener.local_addr().unwrap(), false).await.unwrap_err();
        assert!(line.ends_with("no answer within 2s"), "{line}");
    }
}
