//! The SDK in a page of somebody else's, as its README tells to begin.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::harness::{Chromium, Json, Node, Person, wait_until};

/// The first page of the SDK's README, made to come to `node`.
fn ten_lines(node: &Node) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/web/README.md");
    let readme = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (_, after) = readme.split_once("```html\n").expect("the README has a page in it");
    let (page, _) = after.split_once("```").expect("it has an end");
    let lines = page.lines().filter(|line| !line.trim().is_empty()).count();
    assert_eq!(lines, 10, "ten lines, as it says");
    let page = page.replace("https://hall.example", &format!("http://{}", node.http()));
    page.replace("wss://hall.example", &format!("ws://{}", node.http()))
}

/// Answers every visitor of a site with this one page.
async fn serve(site: TcpListener, page: String) {
    while let Ok((mut stream, _)) = site.accept().await {
        let mut request = vec![0; 4096];
        let length = stream.read(&mut request).await.unwrap_or(0);
        let wanted = request[..length].starts_with(b"GET / ");
        let (status, body) = if wanted { ("200 OK", page.as_str()) } else { ("204 No Content", "") };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nConnection: close");
        let answer = format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    }
}

#[tokio::test]
async fn ten_lines_on_another_site_make_a_chat() {
    let site = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    // The driver has Chromium find it here; to the hall it is a stranger.
    let origin = format!("http://site.example:{}", site.local_addr().expect("bound").port());
    let node = Node::start(&["--allow-origin", &origin]).await;
    let serving = tokio::spawn(serve(site, ten_lines(&node)));
    let person = Person::open(&Chromium::start(), &origin).await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    script.said("lobby", "<img src=x onerror='window.__xss = 1'> hello").await;
    let shown = async || person.evaluate("document.body.innerText").await.as_str().unwrap_or_default().to_owned();
    wait_until("it hears", async || shown().await.contains("<img src=x onerror='window.__xss = 1'> hello")).await;
    person.enter("input:not([type=hidden]), textarea", "from ten lines").await;
    script.hear("lobby", "from ten lines").await;
    wait_until("it hears itself", async || shown().await.contains("from ten lines")).await;
    assert_eq!(person.evaluate("globalThis.__xss ?? null").await, serde_json::Value::Null);
    person.assert_content().await;
    serving.abort();
}
