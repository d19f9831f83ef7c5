//! What browsers are given: pages that run nothing of anybody else's, that work below any path, and that are small and kept.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;

use serde_json::json;

use crate::harness::{Answer, Chromium, Nginx, NginxKind, Node, Person, get, wait_until};
use crate::wire::Request;

const PAGES: [(&str, &str); 3] = [("/", "index.html"), ("/chatroom", "classic.html"), ("/echo", "echo.html")];
const UNPACKED: &str = "";
const PACKED: &str = "Accept-Encoding: gzip, deflate, br\r\n";

/// For good, by everybody.
const FOR_GOOD: Option<&str> = Some("public, max-age=31536000, immutable");
const ASK_AGAIN: Option<&str> = Some("no-cache");

async fn fetch(node: &Node, path: &str) -> Answer {
    let answer = get(node.http(), path, UNPACKED).await;
    answer.unwrap_or_else(|error| panic!("no answer to {path}: {error}"))
}

/// The values of an attribute in HTML.
fn attributes<'a>(html: &'a str, name: &str) -> Vec<&'a str> {
    let before = format!(" {name}=\"");
    html.split(before.as_str()).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// What a script imports, whether in one line or in several.
fn imports(script: &str) -> Vec<&str> {
    let statements = script.lines().filter(|line| ["import ", "export ", "} from"].iter().any(|s| line.starts_with(s)));
    let named = statements.filter_map(|line| line.rsplit_once("from \"").or(line.split_once("import \"")));
    named.filter_map(|(_, rest)| rest.split('"').next()).collect()
}

/// What a file at this path loads.
fn links<'a>(path: &str, text: &'a str) -> Vec<&'a str> {
    match path.rsplit_once('.') {
        None => [attributes(text, "src"), attributes(text, "href")]
            .concat()
            .into_iter()
            .filter(|link| !link.starts_with('#'))
            .collect(),
        Some((_, "js")) => imports(text),
        Some(_) => Vec::new(),
    }
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

/// What a browser loads that opens these pages: path and answer, pages first.
async fn loaded(server: SocketAddr, pages: &[&str], headers: &str) -> Vec<(String, Answer)> {
    let mut paths: Vec<String> = pages.iter().map(ToString::to_string).collect();
    let mut answers: Vec<(String, Answer)> = Vec::new();
    while answers.len() < paths.len() {
        let path = paths[answers.len()].clone();
        let answer = get(server, &path, headers).await.unwrap_or_else(|error| panic!("no answer to {path}: {error}"));
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        for link in links(&path, &answer.body) {
            let path = resolve(&path, link);
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        answers.push((path, answer));
    }
    answers
}

/// Everything that there is: the pages, what they load, and the same files at their plain paths.
async fn everything(node: &Node) -> Vec<(String, Answer)> {
    let mut all = loaded(node.http(), &PAGES.map(|(page, _)| page), UNPACKED).await;
    for file in files().keys() {
        let path = format!("/{file}");
        let answer = fetch(node, &path).await;
        all.push((path, answer));
    }
    assert!(all.len() >= 15, "pages, scripts, styles, an icon: {}", all.len());
    all
}

/// The files that are for browsers, as they are in `web/`: all but the pages, what is for npm, and tests.
fn files() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
    let mut directories = vec![root.clone()];
    let mut files = BTreeMap::new();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.strip_prefix(&root).expect("below web").to_str().expect("a name").to_owned();
            let for_others = ["test", "screenshots", "node_modules", "package.json", "package-lock.json", "README.md"];
            if for_others.contains(&name.as_str()) || PAGES.iter().any(|(_, page)| *page == name) {
                continue;
            }
            match path.is_dir() {
                true => directories.push(path),
                false => drop(files.insert(name, std::fs::read_to_string(&path).expect("text"))),
            }
        }
    }
    files
}

/// `/v/VERSION/`, where the files of this version are.
async fn versioned(node: &Node) -> String {
    let page = fetch(node, "/").await.body;
    let scripts = attributes(&page, "src");
    let script = scripts.first().expect("a page has a script");
    let version = script.strip_prefix("v/").and_then(|rest| rest.split('/').next());
    let version = version.unwrap_or_else(|| panic!("no version in {script}"));
    assert!(version.len() == 16 && version.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
    format!("/v/{version}/")
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
            Some((name, "ts")) if name.ends_with(".d") => "application/typescript; charset=utf-8",
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
    for (path, _) in PAGES {
        let page = fetch(&node, path).await;
        let policy = page.header("Content-Security-Policy");
        let policy = policy.unwrap_or_else(|| panic!("{path} has no policy"));
        let directives: BTreeSet<&str> = policy.split(';').map(str::trim).collect();
        let expected = BTreeSet::from([
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]);
        assert_eq!(directives, expected, "{path}");
        for inline in [" style=", " onclick=", " onload=", "<style", "javascript:"] {
            assert!(!page.body.contains(inline), "{path} has {inline}");
        }
        let scripts = page.body.matches("<script").count();
        let ours = page.body.matches("<script type=\"module\" src=\"").count();
        assert_eq!(scripts, ours, "{path} has a script in itself");
    }
}

#[tokio::test]
async fn pages_have_no_opener_tell_nobody_their_address_and_reach_for_nothing_of_the_machine() {
    let node = Node::start(&[]).await;
    for (path, _) in PAGES {
        let page = fetch(&node, path).await;
        assert_eq!(page.header("Cross-Origin-Opener-Policy"), Some("same-origin"), "{path}");
        assert_eq!(page.header("Referrer-Policy"), Some("no-referrer"), "{path}");
        let permissions = page.header("Permissions-Policy").unwrap_or_else(|| panic!("{path} has no such policy"));
        for part in permissions.split(", ") {
            assert!(part.ends_with("=()"), "{path} allows {part}");
        }
        for feature in ["camera", "microphone", "geolocation"] {
            assert!(permissions.contains(&format!("{feature}=()")), "{path}: {permissions}");
        }
    }
    // A picture that is opened by itself is a document, too, and could hold scripts.
    let (page, picture) = (fetch(&node, "/").await, fetch(&node, "/favicon.svg").await);
    let policy = "Content-Security-Policy";
    assert_eq!(picture.header(policy), page.header(policy));
}

/// What somebody tries who found a way to run a line of script: markup from text, a script's address, a way around.
const TRIES: &str = r#"[
    () => { document.body.innerHTML = "<b>markup</b>"; },
    () => { document.createElement("script").src = "https://elsewhere.example/x.js"; },
    () => trustedTypes.createPolicy("mine", { createHTML: (text) => text }),
].map((attempt) => { try { attempt(); return "it went"; } catch (error) { return error.name; } })"#;

#[tokio::test]
async fn in_a_browser_no_text_can_become_markup_or_a_script() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    for (path, _) in PAGES {
        let person = Person::open(&chromium, &format!("http://{}{path}", node.http())).await;
        assert_eq!(person.evaluate(TRIES).await, json!(["TypeError", "TypeError", "TypeError"]), "{path}");
    }
}

/// What a page had to ask the hall for, and not its browser's cache; and how much it loaded.
const ASKED: &str = r#"(() => {
    const loaded = performance.getEntriesByType("resource");
    return [loaded.length, loaded.filter(({ transferSize }) => transferSize > 0).map(({ name }) => name)];
})()"#;

#[tokio::test]
async fn a_browser_that_comes_again_asks_for_the_page_and_for_nothing_else() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let page = format!("http://{}/", node.http());
    let person = Person::open(&chromium, &page).await;
    let first = person.evaluate(ASKED).await;
    assert!(first[1].to_string().contains("/page/page.js"), "{first}");
    person.visit("about:blank").await;
    person.visit(&page).await;
    let again = person.evaluate(ASKED).await;
    assert!(again[0].as_u64() >= Some(3), "it loaded nothing: {again}");
    assert_eq!(again[1], json!([]), "it asked again");
}

#[tokio::test]
async fn links_are_relative_so_that_pages_work_below_any_path() {
    let node = Node::start(&[]).await;
    for (path, answer) in everything(&node).await {
        for link in links(&path, &answer.body) {
            assert!(!link.starts_with('/') && !link.contains(':'), "{path} has a link to {link}");
            resolve(&path, link); // not above the root
        }
    }
}

#[tokio::test]
async fn every_file_for_browsers_is_served_as_it_is_and_none_is_forgotten() {
    let node = Node::start(&[]).await;
    let version = versioned(&node).await;
    let files = files();
    for here in ["client.js", "client.d.ts", "page/page.js", "page/style.css", "classic.js", "echo.js", "favicon.svg"] {
        assert!(files.contains_key(here), "{here} is gone");
    }
    for (file, text) in files {
        for path in [format!("/{file}"), format!("{version}{file}")] {
            let answer = fetch(&node, &path).await;
            assert_eq!(answer.status, 200, "{path} is not served: web/{file} is not among the sources in src/web.rs");
            assert!(answer.body == text, "{path} is not web/{file}");
        }
    }
}

#[tokio::test]
async fn what_pages_load_is_kept_for_good_and_they_are_asked_for_again() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    let version = versioned(&node).await;
    for below in ["", "/gin"] {
        let pages = PAGES.map(|(page, _)| format!("{below}{page}"));
        let pages = pages.each_ref().map(String::as_str);
        for (path, answer) in loaded(node.http(), &pages, UNPACKED).await {
            if pages.contains(&path.as_str()) {
                assert_eq!(answer.header("Cache-Control"), ASK_AGAIN, "{path}");
            } else {
                assert!(path.starts_with(&format!("{below}{version}")), "{path} is not of {version}");
                assert_eq!(answer.header("Cache-Control"), FOR_GOOD, "{path}");
            }
        }
        for file in files().keys() {
            let plain = fetch(&node, &format!("{below}/{file}")).await;
            assert_eq!(plain.header("Cache-Control"), ASK_AGAIN, "{file}");
        }
    }
    let other = Node::start(&[]).await;
    assert_eq!(versioned(&other).await, version, "replicas of one version agree");
}

#[tokio::test]
async fn a_page_of_another_version_gets_what_there_is_and_nobody_keeps_that() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    let version = versioned(&node).await;
    for (file, text) in files() {
        for other in ["/v/0123456789abcdef/", "/gin/v/0123456789abcdef/", "/v/next/"] {
            let answer = fetch(&node, &format!("{other}{file}")).await;
            assert_eq!((answer.status, answer.body == text), (200, true), "{other}{file}: {}", answer.head);
            assert_eq!(answer.header("Cache-Control"), ASK_AGAIN, "{other}{file}");
        }
    }
    for below in ["/v/0123456789abcdef/", "/gin/v/0123456789abcdef/", &version] {
        let escapes = ["../../Cargo.toml", "%2e%2e/%2e%2e/Cargo.toml", "page/../../../Cargo.toml"];
        for nothing in ["", "page", "page/", "page/nothing.js", "index.html", "x/client.js", "v/x/client.js"] {
            assert_eq!(fetch(&node, &format!("{below}{nothing}")).await.status, 404, "{below}{nothing}");
        }
        for escape in escapes {
            assert_eq!(fetch(&node, &format!("{below}{escape}")).await.status, 404, "{below}{escape}");
        }
    }
}

#[tokio::test]
async fn files_are_only_read_and_an_address_has_a_longest_length() {
    let node = Node::start(&[]).await;
    let version = versioned(&node).await;
    for path in [format!("{version}client.js"), "/v/other/client.js".into(), "/page/page.js".into(), "/".into()] {
        for method in ["POST", "PUT", "DELETE"] {
            let answer = Request::new(method, &path).with("Content-Length", "0").send(node.http()).await;
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
        }
    }
    let long = Request::new("GET", &format!("/v/{}/client.js", "x".repeat(16 * 1024))).send(node.http()).await;
    assert!(matches!(long.status, 414 | 431), "{long:?}");
}

#[tokio::test]
async fn every_module_of_a_page_is_announced_once_and_nothing_else_is() {
    let node = Node::start(&[]).await;
    for (page, _) in PAGES {
        let all = loaded(node.http(), &[page], UNPACKED).await;
        let html = &all[0].1.body;
        let tags = html.split('<').filter(|tag| tag.starts_with("link ") && tag.contains(" rel=\"modulepreload\""));
        let preloaded = tags.flat_map(|tag| attributes(tag, "href"));
        let announced: Vec<String> = attributes(html, "src").into_iter().chain(preloaded).map(String::from).collect();
        let once: BTreeSet<String> = announced.iter().cloned().collect();
        assert_eq!(once.len(), announced.len(), "{page} announces one twice: {announced:?}");

        // What its script imports, and what that imports: without the help of what is announced.
        let mut needed: Vec<String> = attributes(html, "src").into_iter().map(|src| resolve(page, src)).collect();
        let mut read = 0;
        while let Some(path) = needed.get(read).cloned() {
            let text = &all.iter().find(|(other, _)| *other == path).expect("it was loaded").1.body;
            let more = imports(text).into_iter().map(|import| resolve(&path, import));
            let more: Vec<String> = more.filter(|path| !needed.contains(path)).collect();
            needed.extend(more);
            read += 1;
        }
        let announced: BTreeSet<String> = announced.iter().map(|link| resolve(page, link)).collect();
        assert_eq!(announced, needed.into_iter().collect(), "{page}: what it announces, and what its script needs");
    }
}

#[tokio::test]
async fn the_sdk_may_be_loaded_by_every_page_and_nothing_else_may() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    let version = versioned(&node).await;
    let header = "Origin: https://elsewhere.example\r\n";
    for below in ["/", "/gin/", &version, "/v/other/"] {
        for file in files().keys() {
            let answer = get(node.http(), &format!("{below}{file}"), header).await.expect("an answer");
            assert_eq!(answer.status, 200, "{below}{file}");
            let (shared, policy) = match file.starts_with("client.") {
                true => (Some("*"), Some("cross-origin")),
                false => (None, Some("same-origin")),
            };
            assert_eq!(answer.header("Access-Control-Allow-Origin"), shared, "{below}{file}");
            assert_eq!(answer.header("Cross-Origin-Resource-Policy"), policy, "{below}{file}");
        }
    }
    for (path, _) in PAGES {
        let page = fetch(&node, path).await;
        assert_eq!(page.header("Access-Control-Allow-Origin"), None, "{path}");
        assert_eq!(page.header("Cross-Origin-Resource-Policy"), Some("same-origin"), "{path}");
    }
}

#[tokio::test]
async fn what_a_browser_has_already_is_not_sent_again() {
    let node = Node::start(&[]).await;
    for (path, answer) in everything(&node).await {
        let mut tags = Vec::new();
        for encoding in ["identity", "gzip"] {
            let ask = async |tags: &str| {
                let asked = Request::new("GET", &path).with("Accept-Encoding", encoding);
                asked.with("If-None-Match", tags).send(node.http()).await
            };
            let other = ask("\"other\"").await;
            assert_eq!((other.status, other.body == answer.body), (200, true), "{path}");
            let tag = other.header("ETag").unwrap_or_else(|| panic!("{path} has no ETag"));
            assert!(tag.starts_with('"') && tag.len() > 10, "{path}: {tag}");
            for known in [tag.to_string(), format!("\"other\", {tag}"), format!("W/{tag}"), "*".into()] {
                let again = ask(&known).await;
                assert_eq!((again.status, again.size), (304, 0), "{path} with {known}");
                for header in ["ETag", "Cache-Control", "Vary", "Content-Security-Policy"] {
                    assert_eq!(again.header(header), other.header(header), "{header} of {path} with {known}");
                }
            }
            tags.push((tag.to_owned(), other.header("Content-Encoding").map(String::from)));
        }
        let (plain, packed) = (&tags[0], &tags[1]);
        assert_eq!(plain.0 == packed.0, plain.1 == packed.1, "a tag is of the bytes that are sent: {path} {tags:?}");
        if packed.1.is_some() {
            // Who has it packed and wants it plain has nothing that is the same.
            let asked = Request::new("GET", &path).with("If-None-Match", &packed.0).send(node.http()).await;
            assert_eq!(asked.status, 200, "{path}");
        }
    }
}

#[tokio::test]
async fn who_takes_gzip_gets_it_and_who_does_not_never() {
    let node = Node::start(&[]).await;
    let version = versioned(&node).await;
    let takes = |text: &str| text.split('|').map(|line| format!("Accept-Encoding: {line}\r\n")).collect::<String>();
    for path in ["/", "/client.js", "/v/other/client.js", &format!("{version}page/page.js")] {
        let plain = fetch(&node, path).await;
        assert_eq!(plain.header("Content-Encoding"), None, "{path}");
        for (line, packed) in [
            ("gzip", true),
            ("gzip, deflate, br, zstd", true),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", true),
            ("GZip ; Q=0.001", true),
            ("x-gzip", true),
            ("*", true),
            ("br|gzip", true),
            ("gzip;q=0.5, identity;q=0.5", true),
            ("", false),
            ("identity", false),
            ("br, zstd", false),
            ("gzip;q=0", false),
            ("gzip;q=0.000, *", false),
            ("*;q=0", false),
            ("gzip;q=0.5, identity", false),
            ("gzip;q=NaN", false),
            ("gzip;q=2", false),
            ("gzip;q=", false),
            ("gzip;level=9", false),
            ("agzip, gzipped", false),
            ("identity;q=0", false),
        ] {
            let answer = get(node.http(), path, &takes(line)).await.expect("an answer");
            assert_eq!(answer.status, 200, "{path} with {line:?}");
            let expected = packed.then_some("gzip");
            assert_eq!(answer.header("Content-Encoding"), expected, "{path} with {line:?}");
            assert_eq!(answer.header("Vary"), Some("accept-encoding"), "{path} with {line:?}");
            assert!(answer.body == plain.body, "{path} with {line:?} is another text");
            assert_eq!(answer.size < plain.size, packed, "{path} with {line:?} has {} bytes", answer.size);
            assert_eq!(answer.header("Content-Length"), Some(answer.size.to_string().as_str()), "{path} with {line:?}");
        }
    }
}

/// What the whole page may weigh on its way.
const PAGE_BYTES: usize = 60 * 1024;

#[tokio::test]
async fn the_whole_page_is_small() {
    let node = Node::start(&[]).await;
    let all = loaded(node.http(), &["/"], PACKED).await;
    for file in ["/page/page.js", "/page/style.css", "/client.js", "/favicon.svg"] {
        assert!(all.iter().any(|(path, _)| path.ends_with(file)), "the page does not load {file}");
    }
    all.iter().for_each(|(path, answer)| println!("{:6} of {:6} bytes: {path}", answer.size, answer.body.len()));
    let sum: usize = all.iter().map(|(_, answer)| answer.size).sum();
    let heads: usize = all.iter().map(|(_, answer)| answer.head.len()).sum();
    println!("{sum} bytes compressed in {} files of at most {PAGE_BYTES}, and {heads} of headers", all.len());
    assert!(sum <= PAGE_BYTES, "{sum} bytes");
}

#[tokio::test]
async fn behind_the_tutorials_location_files_are_kept_and_compressed_as_well() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    let front = Nginx::start(&[node.port()], NginxKind::TutorialGin).await;
    let version = versioned(&node).await;
    let pages = ["/gin/", "/gin/chatroom", "/gin/echo"];
    for (path, answer) in loaded(front.http(), &pages, PACKED).await {
        if !pages.contains(&path.as_str()) {
            assert!(path.starts_with(&format!("/gin{version}")), "{path}");
            assert_eq!(answer.header("Cache-Control"), FOR_GOOD, "{path}");
        }
        if answer.body.len() > 512 {
            assert_eq!(answer.header("Content-Encoding"), Some("gzip"), "{path}");
        }
    }
    assert_eq!(get(front.http(), "/gin/v/other/nothing.js", "").await.expect("an answer").status, 404);
}

#[tokio::test]
async fn the_shipped_nginx_names_in_its_log_what_pages_load() {
    let nodes = Node::start_many(2, &["--trusted-proxy", "127.0.0.1"]).await;
    let ports: Vec<u16> = nodes.iter().map(Node::port).collect();
    let front = Nginx::start(&ports, NginxKind::Shipped).await;
    let all = loaded(front.http(), &PAGES.map(|(page, _)| page), PACKED).await;
    let mut paths: Vec<String> = all.into_iter().map(|(path, _)| path).collect();
    for file in files().keys() {
        paths.push(format!("/{file}"));
        assert_eq!(get(front.http(), &format!("/{file}"), "").await.expect("an answer").status, 200, "{file}");
    }
    for path in paths {
        let line = format!(" GET {path} 200 ");
        wait_until(&format!("{path} is in the log"), async || front.access_log().contains(&line)).await;
    }
}

#[tokio::test]
async fn a_head_is_a_get_without_the_body() {
    let node = Node::start(&[]).await;
    let version = versioned(&node).await;
    for path in PAGES.map(|(page, _)| page.to_owned()).into_iter().chain([format!("{version}client.js")]) {
        for encoding in ["identity", "gzip"] {
            let ask = |method| Request::new(method, &path).with("Accept-Encoding", encoding).send(node.http());
            let (whole, head) = (ask("GET").await, ask("HEAD").await);
            assert_eq!(head.status, 200, "{path}");
            for header in ["Content-Type", "Content-Length", "Content-Encoding", "ETag", "Vary", "Cache-Control"] {
                assert_eq!(head.header(header), whole.header(header), "{header} of {path} with {encoding}");
            }
            assert!(whole.size > 0, "{path}");
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
