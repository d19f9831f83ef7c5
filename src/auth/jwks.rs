//! The keys that an issuer publishes (RFC 7517), fetched by one task.
//!
//! The task fetches at the start, from time to time, and when somebody brings a token that none of the keys may have signed,
//! since issuers change their keys. Whoever brings one waits for a fetch that began after they came, so the answer is about
//! the keys of now; however many they are, fetches are one at a time and seldom. Everybody else is served with the keys that are
//! known, and those are kept as long as the issuer gives no others. So an issuer that is slow, away or hostile harms nobody but
//! those whose keys it did not give.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONNECTION, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::keys::Key;
use crate::logging::Seldom;
use crate::tls;

const MAX_ANSWER_BYTES: usize = 256 * 1024;
/// More are passed over.
const MAX_KEYS: usize = 100;

const WARN_EVERY: Duration = Duration::from_secs(60);

/// When keys are fetched.
#[derive(Debug, Clone, Copy)]
pub struct Rhythm {
    /// From one fetch to the next while nobody asks.
    pub every: Duration,
    /// From the beginning of a fetch to that of one that somebody asks for, at least.
    pub gap: Duration,
    /// A fetch that takes longer has failed.
    pub deadline: Duration,
    /// While there are no keys at all: after the first failure, doubled after each one.
    pub first_backoff: Duration,
    /// At most.
    pub last_backoff: Duration,
}

impl Default for Rhythm {
    fn default() -> Self {
        Rhythm {
            every: Duration::from_secs(600),
            gap: Duration::from_secs(5),
            deadline: Duration::from_secs(3),
            first_backoff: Duration::from_secs(1),
            last_backoff: Duration::from_secs(30),
        }
    }
}

/// See the module's documentation.
pub struct Jwks {
    fetches: watch::Receiver<Fetches>,
    /// How many wait for a fetch.
    waiting: watch::Sender<usize>,
    _task: AbortOnDropHandle<()>,
}

/// What came of the fetches so far, which are numbered from 1.
#[derive(Default, Clone)]
struct Fetches {
    begun: u64,
    ended: u64,
    /// The last one that ended gave no keys.
    failed: bool,
    /// Those of the last one that gave some.
    keys: Option<Arc<[Key]>>,
}

impl Jwks {
    /// Begins to fetch, and does not wait for it.
    ///
    /// # Errors
    /// In words, where nothing can be fetched from there.
    pub fn new(url: &str, rhythm: Rhythm) -> Result<Self, String> {
        let source = Source::parse(url).map_err(|words| format!("--jwt-jwks: {words}"))?;
        source.warn_if_anybody_can_change_it();
        let (told, fetches) = watch::channel(Fetches::default());
        let (waiting, asked) = watch::channel(0);
        let task = keep(Arc::new(source), rhythm, told, asked);
        Ok(Jwks { fetches, waiting, _task: AbortOnDropHandle::new(tokio::spawn(task)) })
    }

    /// # Errors
    /// In words, where nothing can be fetched from there.
    pub fn check_address(url: &str) -> Result<(), String> {
        Source::parse(url).map(|_| ()).map_err(|words| format!("--jwt-jwks: {words}"))
    }

    /// The keys that are known; `None` before there were any.
    pub fn known(&self) -> Option<Arc<[Key]>> {
        self.fetches.borrow().keys.clone()
    }

    /// The keys of a fetch that began after this call, or the first ones in which one is called `kid`. Before there were any
    /// keys, those of the next fetch that ends. `None` where it failed.
    pub async fn fresh(&self, kid: Option<&str>) -> Option<Arc<[Key]>> {
        let _waiting = Waiting::among(&self.waiting);
        let mut fetches = self.fetches.clone();
        let due = match &*fetches.borrow() {
            Fetches { keys: None, ended, .. } => ended + 1,
            Fetches { begun, .. } => begun + 1,
        };
        let has = |fetches: &Fetches| {
            let keys = fetches.keys.iter().flat_map(|keys| keys.iter());
            kid.is_some_and(|kid| keys.into_iter().any(|key| key.is_called(kid)))
        };
        let fetches = fetches.wait_for(|fetches| fetches.ended >= due || has(fetches)).await.ok()?;
        fetches.keys.clone().filter(|_| !fetches.failed || has(&fetches))
    }
}

/// Somebody who waits for a fetch, until dropped.
struct Waiting<'a>(&'a watch::Sender<usize>);

impl<'a> Waiting<'a> {
    fn among(waiting: &'a watch::Sender<usize>) -> Self {
        waiting.send_modify(|waiting| *waiting += 1);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|waiting| *waiting -= 1);
    }
}

/// Fetches, waits until it is time or somebody asks, and so on.
async fn keep(source: Arc<Source>, rhythm: Rhythm, told: watch::Sender<Fetches>, mut asked: watch::Receiver<usize>) {
    let mut complaints = Complaints::default();
    let mut backoff = rhythm.first_backoff;
    loop {
        let began = Instant::now();
        told.send_modify(|fetches| fetches.begun += 1);
        // A task of its own, so that not even a bug in it ends this one.
        let fetch = timeout(rhythm.deadline, Arc::clone(&source).fetch());
        let fetched = AbortOnDropHandle::new(tokio::spawn(fetch)).await;
        let fetched = fetched.unwrap_or_else(|_| Ok(Err("a bug, please report it".into())));
        let fetched = fetched.unwrap_or_else(|_| Err("no answer in time".into()));
        complaints.hear(&source, fetched.as_ref());
        told.send_modify(|fetches| {
            fetches.ended += 1;
            fetches.failed = fetched.is_err();
            fetches.keys = fetched.ok().or_else(|| fetches.keys.take());
        });
        let next = if told.borrow().keys.is_some() {
            began + jittered(rhythm.every)
        } else {
            let next = Instant::now() + jittered(backoff);
            backoff = (backoff * 2).min(rhythm.last_backoff);
            next
        };
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                somebody = asked.wait_for(|waiting| *waiting > 0) => if somebody.is_err() { return },
            }
            sleep_until(next.min(began + rhythm.gap)).await;
            // Those who asked may have got what they need from the last fetch, or have left.
            if *asked.borrow_and_update() > 0 {
                break;
            }
        }
    }
}

/// So that the nodes of a hall do not ask all at once.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(rand::random_range(0.9..1.1))
}

/// Says once in a while that keys cannot be fetched, and once that they can be again.
struct Complaints {
    seldom: Seldom,
    without_keys: Seldom,
    failing: bool,
}

impl Default for Complaints {
    fn default() -> Self {
        let seldom = || Seldom::new(WARN_EVERY);
        Complaints { seldom: seldom(), without_keys: seldom(), failing: false }
    }
}

impl Complaints {
    fn hear(&mut self, source: &Source, fetched: Result<&Arc<[Key]>, &String>) {
        let was_failing = std::mem::replace(&mut self.failing, fetched.is_err());
        match fetched {
            // That is an answer: an issuer whose keys were stolen takes them back so.
            Ok(keys) if keys.is_empty() => {
                if self.without_keys.pass(std::time::Instant::now()).is_some() {
                    tracing::warn!(
                        "{source}: the issuer publishes no key that can be used (RSA, P-256 or Ed25519), so its tokens let \
                         nobody in"
                    );
                }
            }
            Ok(_) if was_failing => tracing::info!("{source}: the issuer's keys are fetched again"),
            Ok(_) => {}
            Err(reason) => {
                if let Some(times) = self.seldom.pass(std::time::Instant::now()) {
                    tracing::warn!(times, "{source}: the issuer's keys cannot be fetched: {reason}");
                }
            }
        }
    }
}

/// Where the keys are. Shown without what may be secret in its address: a password, a query.
struct Source {
    /// Path and query.
    target: String,
    host: String,
    port: u16,
    /// As a browser would send it.
    host_header: String,
    authorization: Option<String>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let path = self.target.split('?').next().unwrap_or_default();
        write!(f, "{scheme}://{}{path}", self.host_header)
    }
}

impl Source {
    const RULE: &'static str = "allowed is an address like https://issuer.example/.well-known/jwks.json";

    fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.trim().parse().map_err(|_| Self::RULE)?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(Self::RULE.into()),
        };
        let authority = uri.authority().filter(|authority| !authority.host().is_empty()).ok_or(Self::RULE)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let to_host = |roots| tls::to(&host, roots).ok_or_else(|| Self::RULE.to_owned());
        let tls = secure.then(|| tls::whom_this_machine_trusts().and_then(to_host)).transpose()?;
        let (user, host_header) = authority.as_str().rsplit_once('@').unwrap_or(("", authority.as_str()));
        let plain: Vec<u8> = percent_decode_str(user).collect();
        Ok(Source {
            target: uri.path_and_query().map_or("/", |target| target.as_str()).into(),
            port: authority.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            host,
            host_header: host_header.into(),
            authorization: (!plain.is_empty()).then(|| format!("Basic {}", STANDARD.encode(plain))),
            tls,
        })
    }

    fn warn_if_anybody_can_change_it(&self) {
        let here = self.host == "localhost" || self.host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        if self.tls.is_none() && !here {
            tracing::warn!(
                "--jwt-jwks {self} is not https: whoever is on the way can give the hall other keys, and then sign tokens for \
                 anybody"
            );
        }
    }

    /// # Errors
    /// In words for operators.
    async fn fetch(self: Arc<Self>) -> Result<Arc<[Key]>, String> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|error| error.to_string())?;
        match &self.tls {
            None => self.ask(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await;
                self.ask(stream.map_err(|error| format!("TLS: {error}"))?).await
            }
        }
    }

    async fn ask(&self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Result<Arc<[Key]>, String> {
        let unheard = |error: hyper::Error| format!("no answer: {error}");
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(unheard)?;
        let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
        let answer = sender.send_request(self.request()?).await.map_err(unheard)?;
        match answer.status() {
            StatusCode::OK => {}
            status if status.is_redirection() => {
                return Err(format!(
                    "it redirects ({status}), which is not followed; give the address where the keys are"
                ));
            }
            status => return Err(format!("it answers {status}")),
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        keys_in(&body.map_err(|error| format!("its answer breaks off or is too long: {error}"))?.to_bytes())
    }

    fn request(&self) -> Result<Request<Empty<Bytes>>, String> {
        let request = Request::get(self.target.as_str())
            .header(HOST, self.host_header.as_str())
            .header(USER_AGENT, concat!("townhall/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/jwk-set+json, application/json")
            .header(CONNECTION, "close");
        let request = match &self.authorization {
            Some(authorization) => request.header(AUTHORIZATION, authorization.as_str()),
            None => request,
        };
        request.body(Empty::new()).map_err(|error| error.to_string())
    }
}

/// Each key is read by itself: one that is odd costs the others nothing.
fn keys_in(body: &[u8]) -> Result<Arc<[Key]>, String> {
    #[derive(Deserialize)]
    struct Set<'a> {
        #[serde(borrow)]
        keys: Vec<&'a RawValue>,
    }
    let object = body.trim_ascii_start().starts_with(b"{");
    let set: Set = serde_json::from_slice(body).ok().filter(|_| object).ok_or("that is no set of keys (JWKS)")?;
    Ok(set.keys.into_iter().filter_map(|key| Key::in_jwk(key.get())).take(MAX_KEYS).collect())
}

#[cfg(test)]
pub(in crate::auth) mod tests;
