//! What browsers are given: the files of `web/`, embedded, compressed once, and cached by what is in them.
//!
//! The files are written so that any static server can serve them as they are: their links are relative. Here each has
//! two addresses. At `/page/page.js` a browser asks every time whether it has changed (`no-cache` and an ETag). At
//! `/v/VERSION/page/page.js` it never asks again, since VERSION is a digest of all files: what changes gets another
//! address. The pages themselves stay at the addresses that people know, and their links are led to VERSION when the
//! process starts; what modules import is relative, so it stays there by itself.

use std::io::Write;
use std::sync::LazyLock;

use axum::Router;
use axum::body::Body;
use axum::http::header::{self, HeaderMap, HeaderName};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::get;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

macro_rules! embedded {
    ($($path:literal),* $(,)?) => { &[$(($path, include_str!(concat!("../web/", $path)))),*] };
}

/// A path below `web/`, and what is there.
type Source = (&'static str, &'static str);

const INDEX: &str = include_str!("../web/index.html");
const CLASSIC: &str = include_str!("../web/classic.html");
const ECHO: &str = include_str!("../web/echo.html");

/// All that pages and programs load. A new file is named here; a test tells who forgets it.
const SOURCES: &[Source] = embedded![
    "classic.css",
    "classic.js",
    "client.d.ts",
    "client.js",
    "echo.js",
    "favicon.svg",
    "page/composer.js",
    "page/kept.js",
    "page/listen.js",
    "page/markup.js",
    "page/name.js",
    "page/notify.js",
    "page/outbox.js",
    "page/page.js",
    "page/panes.js",
    "page/part.js",
    "page/people.js",
    "page/rooms.js",
    "page/slice.js",
    "page/style.css",
    "page/timeline.js",
    "page/words.js",
];

/// Scripts and styles are files of ours; nothing else runs, nothing is loaded from elsewhere, and nobody frames us. No
/// Trusted Types policy can be made, so no text ever becomes markup. `'self'` covers WebSockets of the same host; only
/// Safari before 15.4 takes it for http alone, and naming the host there would be to believe a header.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// What a chat never needs, so that a mistake of ours could not use it either.
const PERMISSIONS: &str = "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()";

/// It may be kept, and is asked for again before each use: a 304 as long as it is the same.
const ASK_AGAIN: &str = "no-cache";
/// It never changes, and everybody may keep it.
const FOR_GOOD: &str = "public, max-age=31536000, immutable";

static WEB: LazyLock<Web> = LazyLock::new(|| Web::new(SOURCES));

/// Everything, ready to be sent.
struct Web {
    version: String,
    index: File,
    classic: File,
    echo: File,
    files: Vec<File>,
}

/// The pages, and the files at both of their addresses, below `base`; without the page of `/echo`, which is a door, too.
pub fn routes<S: Clone + Send + Sync + 'static>(router: Router<S>, base: &str) -> Router<S> {
    let version = &WEB.version;
    let mut router = route(router, &format!("{base}/"), &WEB.index, ASK_AGAIN);
    router = route(router, &format!("{base}/chatroom"), &WEB.classic, ASK_AGAIN);
    for file in &WEB.files {
        let path = file.path;
        router = route(router, &format!("{base}/{path}"), file, ASK_AGAIN);
        router = route(router, &format!("{base}/v/{version}/{path}"), file, FOR_GOOD);
        // While replicas are replaced, a page of one version asks a replica of another for its files. It gets what there
        // is, since a page with a part of the other version mostly works, and one without a part never does. Nothing may
        // keep that under the other's address.
        router = route(router, &format!("{base}/v/{{other}}/{path}"), file, ASK_AGAIN);
    }
    router
}

fn route<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    path: &str,
    file: &'static File,
    caching: &'static str,
) -> Router<S> {
    router.route(path, get(async move |asked: HeaderMap| file.answer(&asked, caching)))
}

/// The tutorial's test page, for who comes to `/echo` without an upgrade.
pub fn echo_page(asked: &HeaderMap) -> Response<Body> {
    WEB.echo.answer(asked, ASK_AGAIN)
}

impl Web {
    fn new(sources: &'static [Source]) -> Self {
        let version = version(sources);
        let page = |path, text| File::new(path, lead_to_version(text, sources, &version));
        Web {
            index: page("index.html", INDEX),
            classic: page("classic.html", CLASSIC),
            echo: page("echo.html", ECHO),
            files: sources.iter().map(|&(path, text)| File::new(path, text.to_owned())).collect(),
            version,
        }
    }
}

/// A digest of all files, with their paths and lengths, so that no two sets of files have the same.
fn version(sources: &[Source]) -> String {
    let mut digest = Sha256::new();
    for (path, text) in sources {
        digest.update(format!("{path} {}\n", text.len()));
        digest.update(text);
    }
    short_hex(&digest.finalize())
}

/// A page in which the links to `sources` lead to this version of them.
fn lead_to_version(page: &str, sources: &[Source], version: &str) -> String {
    let links = sources.iter().flat_map(|(path, _)| [("src", path), ("href", path)]);
    links.fold(page.to_owned(), |page, (attribute, path)| {
        page.replace(&format!("{attribute}=\"{path}\""), &format!("{attribute}=\"v/{version}/{path}\""))
    })
}

/// 64 bits: enough that chance does not make two the same, and nobody else gives us files.
fn short_hex(digest: &[u8]) -> String {
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file in the forms that it is sent in.
struct File {
    path: &'static str,
    kind: &'static str,
    plain: Form,
    /// None where gzip would not make it smaller.
    gzipped: Option<Form>,
}

/// The bytes of a file as they are sent, and the tag of exactly these bytes.
struct Form {
    body: Bytes,
    etag: HeaderValue,
}

impl File {
    fn new(path: &'static str, text: String) -> Self {
        let kind = match path.rsplit_once('.').unwrap_or_default().1 {
            "html" => "text/html; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "js" => "text/javascript; charset=utf-8",
            "ts" => "application/typescript; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "application/octet-stream",
        };
        let tag = short_hex(&Sha256::digest(&text));
        let gzipped = Bytes::from(gzip(text.as_bytes()));
        let gzipped = (!gzipped.is_empty() && gzipped.len() < text.len())
            .then(|| Form { body: gzipped, etag: etag(&format!("{tag}-gzip")) });
        File { path, kind, plain: Form { body: Bytes::from(text), etag: etag(&tag) }, gzipped }
    }

    /// What programs of other sites may load: the SDK and its types.
    fn is_for_all(&self) -> bool {
        self.path.starts_with("client.")
    }

    /// What a browser opens by itself, so that its headers count: a script's would be ignored.
    fn is_document(&self) -> bool {
        self.path.ends_with(".html") || self.path.ends_with(".svg")
    }

    fn answer(&self, asked: &HeaderMap, caching: &'static str) -> Response<Body> {
        let gzipped = self.gzipped.as_ref().filter(|_| takes_gzip(asked));
        let form = gzipped.unwrap_or(&self.plain);
        let known = form.is_known(asked);
        let mut answer = Response::new(if known { Body::empty() } else { Body::from(form.body.clone()) });
        let headers = answer.headers_mut();
        headers.insert(header::ETAG, form.etag.clone());
        let mut say = |name: HeaderName, value| headers.insert(name, HeaderValue::from_static(value));
        say(header::CONTENT_TYPE, self.kind);
        say(header::CACHE_CONTROL, caching);
        say(header::VARY, "accept-encoding");
        if gzipped.is_some() && !known {
            say(header::CONTENT_ENCODING, "gzip");
        }
        say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        // An address may hold a token for a moment: `/?name=NAME&token=TOKEN`.
        say(header::REFERRER_POLICY, "no-referrer");
        match self.is_for_all() {
            true => {
                say(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
                say(RESOURCE_POLICY, "cross-origin");
            }
            false => {
                say(RESOURCE_POLICY, "same-origin");
            }
        }
        if self.is_document() {
            // `frame-ancestors` says what X-Frame-Options would, to every browser that knows modules.
            say(header::CONTENT_SECURITY_POLICY, POLICY);
            say(OPENER_POLICY, "same-origin");
            say(PERMISSIONS_POLICY, PERMISSIONS);
        }
        if known {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        answer
    }
}

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");
const OPENER_POLICY: HeaderName = HeaderName::from_static("cross-origin-opener-policy");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");

impl Form {
    /// RFC 9110 §13.1.2: lists, compared weakly, since proxies that compress make weak tags of ours.
    fn is_known(&self, asked: &HeaderMap) -> bool {
        let tags = listed(asked, &header::IF_NONE_MATCH);
        tags.map(|tag| tag.strip_prefix("W/").unwrap_or(tag)).any(|tag| tag == "*" || tag == self.etag)
    }
}

fn etag(tag: &str) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{tag}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// As small as it gets, since it is done once. Empty if it cannot be done, which writing to memory always can.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).unwrap_or_default()
}

/// The members of a header that is a list; it may come in several lines.
fn listed<'a>(asked: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = asked.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim)
}

/// RFC 9110 §12.5.3: gzip is taken if it, or everything, is named with a weight, and not less liked than no encoding. Who
/// says nothing gets the file as it is, and so does who wants neither, which is better than nothing.
fn takes_gzip(asked: &HeaderMap) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for coding in listed(asked, &header::ACCEPT_ENCODING) {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, ""));
        let place = match name.trim() {
            name if name.eq_ignore_ascii_case("gzip") || name.eq_ignore_ascii_case("x-gzip") => &mut gzip,
            name if name.eq_ignore_ascii_case("identity") => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        place.get_or_insert(parse_weight(weight));
    }
    let gzip = gzip.or(any).unwrap_or(0.0);
    gzip > 0.0 && gzip >= identity.unwrap_or(0.0)
}

/// `q=0.5`; nothing is 1, and what is no weight is 0, since the file as it is suits everybody.
fn parse_weight(weight: &str) -> f32 {
    let weight = weight.trim();
    if weight.is_empty() {
        return 1.0;
    }
    let number = weight.strip_prefix("q=").or(weight.strip_prefix("Q="));
    let number = number.and_then(|number| number.parse().ok());
    number.filter(|number| (0.0..=1.0).contains(number)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_changes_in_a_file_changes_the_version() {
        let before = version(&[("a.js", "one"), ("b.js", "two")]);
        let others: [&[Source]; 7] = [
            &[("a.js", "One"), ("b.js", "two")],
            &[("a.js", "one"), ("b.js", "two ")],
            &[("a.js", "one"), ("c.js", "two")],
            &[("a.js", "one")],
            &[("a.js", "one"), ("b.js", "two"), ("c.js", "")],
            &[("a.js", "oneb.js 3\ntwo")],
            &[("a.js", "oneb.jstwo")],
        ];
        for other in others {
            assert_ne!(version(other), before, "{other:?}");
        }
        assert_eq!(version(&[("a.js", "one"), ("b.js", "two")]), before);
    }

    #[test]
    fn only_links_to_files_lead_to_the_version() {
        let page =
            r##"<script src="page/page.js"></script><link href="page/page.js"><a href="#page/page.js">page.js</a>"##;
        let led = lead_to_version(page, &[("page/page.js", ""), ("page.js", "")], "12ab");
        let expected = r##"<script src="v/12ab/page/page.js"></script><link href="v/12ab/page/page.js"><a href="#page/page.js">page.js</a>"##;
        assert_eq!(led, expected);
    }
}
