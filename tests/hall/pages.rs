//! What browsers are given: pages that run nothing of anybody else's, and that work below any path.

use crate::harness::{Answer, Node, get};
use crate::wire::Request;

const PAGES: [&str; 3] = ["/", "/chatroom", "/echo"];

async fn fetch(node: &Node, path: &str) -> Answer {
    let answer = get(node.http(), path, "").await;
    answer.unwrap_or_else(|error| panic!("no answer to {path}: {error}"))
}

/// What pages and scripts name: the values of `src`, `href` and `from`.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for before in ["src=\"", "href=\"", "from \""] {
        let found = text.split(before).skip(1).filter_map(|rest| rest.split('"').next());
        links.extend(found.filter(|link| !link.starts_with('#')).map(String::from));
    }
    links
}

/// The path that a relative link names in a file at `path`.
fn resolve(path: &str, link: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "." => (),
            ".." => assert!(parts.pop().is_some_and(|part| !part.is_empty()), "{path} has a link to {link}"),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Everything that the pages are made of: path and answer, pages first.
async fn everything(node: &Node) -> Vec<(String, Answer)> {
    let mut paths: Vec<String> = PAGES.iter().map(ToString::to_string).collect();
    paths.push("/client.js".into());
    let mut answers: Vec<(String, Answer)> = Vec::new();
    while answers.len() < paths.len() {
        let path = paths[answers.len()].clone();
        let answer = fetch(node, &path).await;
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        let code = path.ends_with(".js") || PAGES.contains(&path.as_str());
        for link in links(&answer.body).iter().filter(|_| code) {
            let path = resolve(&path, link);
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        answers.push((path, answer));
    }
    assert!(answers.len() >= 10, "pages, scripts, styles, an icon: {paths:?}");
    answers
}

#[tokio::test]
async fn everything_has_its_type_and_is_taken_for_nothing_else() {
    let node = Node::start(&[]).await;
    for (path, answer) in everything(&node).await {
        let expected = match path.rsplit_once('.') {
            None => "text/html; charset=utf-8",
            Some((_, "js")) => "text/javascript; charset=utf-8",
            Some((_, "css")) => "text/css; charset=utf-8",
            Some((_, "svg")) => "image/svg+xml",
            Some(other) => panic!("a new kind: {other:?}"),
        };
        let kind = answer.header("Content-Type").map(str::to_lowercase);
        assert_eq!(kind.as_deref(), Some(expected), "{path}");
        assert_eq!(answer.header("X-Content-Type-Options"), Some("nosniff"), "{path}");
    }
}

#[tokio::test]
async fn pages_may_run_only_our_own_scripts() {
    let node = Node::start(&[]).await;
    for path in PAGES {
        let page = fetch(&node, path).await;
        let policy = page.header("Content-Security-Policy");
        let policy = policy.unwrap_or_else(|| panic!("{path} has no policy"));
        let directives: Vec<&str> = policy.split(';').map(str::trim).collect();
        assert!(directives.contains(&"default-src 'none'"), "{path}: {policy}");
        assert!(directives.contains(&"script-src 'self'"), "{path}: {policy}");
        for hole in ["unsafe-inline", "unsafe-eval", "data:", "http:", " *"] {
            assert!(!policy.contains(hole), "{path}: {policy}");
        }
        for inline in [" style=", " onclick=", " onload=", "<style", "javascript:"] {
            assert!(!page.body.contains(inline), "{path} has {inline}");
        }
        let scripts = page.body.matches("<script").count();
        let ours = page.body.matches("<script type=\"module\" src=\"").count();
        assert_eq!(scripts, ours, "{path} has a script in itself");
    }
}

#[tokio::test]
async fn links_are_relative_so_that_pages_work_below_any_path() {
    let node = Node::start(&[]).await;
    for (path, answer) in everything(&node).await {
        if path.ends_with(".svg") {
            continue; // its xmlns is no link
        }
        for link in links(&answer.body) {
            assert!(!link.starts_with('/') && !link.contains(':'), "{path} has a link to {link}");
            resolve(&path, &link); // not above the root
        }
    }
}

#[tokio::test]
async fn the_sdk_may_be_loaded_by_every_page() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    for path in ["/client.js", "/gin/client.js"] {
        let header = "Origin: https://elsewhere.example\r\n";
        let sdk = get(node.http(), path, header).await.expect("an answer");
        assert_eq!(sdk.status, 200, "{path}");
        assert_eq!(sdk.header("Access-Control-Allow-Origin"), Some("*"), "{path}");
    }
    for path in PAGES {
        let page = fetch(&node, path).await;
        assert_eq!(page.header("Access-Control-Allow-Origin"), None, "{path}");
    }
}

#[tokio::test]
async fn what_a_browser_has_already_is_not_sent_again() {
    let node = Node::start(&[]).await;
    for (path, answer) in everything(&node).await {
        let tag = answer.header("ETag").unwrap_or_else(|| panic!("{path} has no ETag"));
        let ask = async |tags: &str| {
            let asked = Request::new("GET", &path).with("If-None-Match", tags);
            asked.send(node.http()).await
        };
        for known in [tag.to_string(), format!("\"other\", {tag}"), format!("W/{}", tag.trim_start_matches("W/"))] {
            let again = ask(&known).await;
            assert_eq!(again.status, 304, "{path} with {known}");
            assert_eq!(again.header("ETag"), Some(tag), "{path}");
        }
        let other = ask("\"other\"").await;
        assert_eq!((other.status, other.body == answer.body), (200, true), "{path}");
    }
}

#[tokio::test]
async fn a_head_is_a_get_without_the_body() {
    let node = Node::start(&[]).await;
    for path in PAGES {
        let page = fetch(&node, path).await;
        let head = Request::new("HEAD", path).send(node.http()).await;
        assert_eq!(head.status, 200, "{path}");
        for header in ["Content-Type", "Content-Length", "ETag"] {
            assert_eq!(head.header(header), page.header(header), "{path}");
        }
    }
}

#[tokio::test]
async fn the_base_path_leads_to_the_page_by_a_relative_redirect() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    let redirect = fetch(&node, "/gin").await;
    assert!(matches!(redirect.status, 301 | 302 | 303 | 307 | 308), "{redirect:?}");
    assert_eq!(redirect.header("Location"), Some("gin/"));

    let deep = Node::start(&["--base-path", "/chat/hall"]).await;
    assert_eq!(fetch(&deep, "/chat/hall").await.header("Location"), Some("hall/"));
    assert_eq!(fetch(&deep, "/chat/hall/").await.status, 200);

    let without = Node::start(&[]).await;
    assert_eq!(fetch(&without, "/gin").await.status, 404);
}

#[tokio::test]
async fn everything_is_below_the_base_path_too() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    for (path, answer) in everything(&node).await {
        let below = fetch(&node, &format!("/gin{path}")).await;
        assert_eq!(below.status, 200, "/gin{path}");
        assert!(below.body == answer.body, "/gin{path} is not {path}");
    }
    assert_eq!(fetch(&node, "/gin/healthz").await.status, 200);
}

#[tokio::test]
async fn the_tutorials_page_is_the_tutorials() {
    let node = Node::start(&[]).await;
    let page = fetch(&node, "/chatroom").await.body;
    for part in ["rows=\"25\"", "rows=\"6\""] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    let script = fetch(&node, "/classic.js").await.body;
    for notice in ["[提示] 成功连接服务器", "[提示] 与服务器断开连接，请刷新……"] {
        assert!(script.contains(notice), "no {notice}");
    }
}
