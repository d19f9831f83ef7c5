use std::convert::Infallible;
use std::net::SocketAddr;

use futures::StreamExt;
use futures::future::join_all;
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Response, header};
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::auth::issuer::{CERTIFICATE, CERTIFICATE_KEY, RSA_N, ed25519_jwk, p_256_jwk, rsa_jwk};

const LONG: Duration = Duration::from_secs(3600);

/// Fetches only when somebody asks, and then at once.
pub(in crate::auth) const ON_DEMAND: Rhythm =
    Rhythm { every: LONG, gap: Duration::ZERO, deadline: LONG, first_backoff: LONG, last_backoff: LONG };

/// Fetches once, and whoever asks for more waits.
pub(in crate::auth) const ONCE: Rhythm = Rhythm { gap: LONG, ..ON_DEMAND };

/// What an issuer answers.
#[derive(Clone)]
pub(in crate::auth) enum Answer {
    Keys(String),
    Status(u16),
    Redirect(String),
    Never,
    Endless,
    Cut,
}

pub(in crate::auth) fn set_of(keys: &[String]) -> Answer {
    Answer::Keys(format!(r#"{{"keys":[{}]}}"#, keys.join(",")))
}

/// One that answers as it is told to.
pub(in crate::auth) struct Issuer {
    address: SocketAddr,
    pub(in crate::auth) answer: watch::Sender<Answer>,
    asked: watch::Receiver<Vec<String>>,
    _task: AbortOnDropHandle<()>,
}

impl Issuer {
    pub(in crate::auth) async fn that_answers(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (answer, answers) = watch::channel(answer);
        let (heard, asked) = watch::channel(Vec::new());
        let heard = Arc::new(heard);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, heard) = (answers.clone(), Arc::clone(&heard));
                let service = service_fn(move |request: Request<Incoming>| {
                    let credentials =
                        request.headers().get(AUTHORIZATION).and_then(|it| it.to_str().ok()).unwrap_or_default();
                    let words = format!("{} {credentials}", request.uri());
                    heard.send_modify(|heard| heard.push(words));
                    answer_with(answers.borrow().clone())
                });
                let serve = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(serve);
            }
        });
        Issuer { address, answer, asked, _task: AbortOnDropHandle::new(task) }
    }

    pub(in crate::auth) fn url(&self) -> String {
        format!("http://{}/keys", self.address)
    }

    fn jwks(&self, rhythm: Rhythm) -> Jwks {
        Jwks::new(&self.url(), rhythm).unwrap()
    }

    pub(in crate::auth) fn asked(&self) -> usize {
        self.asked.borrow().len()
    }
}

type Body = Either<Full<Bytes>, http_body_util::combinators::BoxBody<Bytes, std::io::Error>>;

async fn answer_with(answer: Answer) -> Result<Response<Body>, Infallible> {
    let full = |status: u16, text: String| {
        Response::builder().status(status).body(Either::Left(Full::new(Bytes::from(text)))).unwrap()
    };
    let stream = |frames: Vec<Result<Frame<Bytes>, std::io::Error>>, on: bool| {
        let last = Bytes::from(vec![b' '; 16 * 1024]);
        let more =
            futures::stream::repeat_with(move || Ok(Frame::data(last.clone()))).take(if on { usize::MAX } else { 0 });
        let frames = futures::stream::iter(frames).chain(more);
        Response::new(Either::Right(BodyExt::boxed(StreamBody::new(frames))))
    };
    Ok(match answer {
        Answer::Keys(text) => full(200, text),
        Answer::Status(status) => full(status, format!(r#"{{"keys":[{}]}}"#, rsa_jwk("a"))),
        Answer::Redirect(to) => {
            let mut answer = full(302, String::new());
            answer.headers_mut().insert(header::LOCATION, to.parse().unwrap());
            answer
        }
        Answer::Never => std::future::pending().await,
        Answer::Endless => stream(vec![Ok(Frame::data(Bytes::from_static(b"{\"keys\":[")))], true),
        Answer::Cut => {
            stream(vec![Ok(Frame::data(Bytes::from_static(b"{\"keys\":["))), Err(std::io::Error::other("cut"))], false)
        }
    })
}

async fn fetched(jwks: &Jwks) -> Fetches {
    jwks.fetches.clone().wait_for(|fetches| fetches.ended > 0).await.unwrap().clone()
}

fn has(keys: &[Key], kid: &str) -> bool {
    keys.iter().any(|key| key.is_called(kid))
}

async fn why_not(answer: Answer) -> String {
    let issuer = Issuer::that_answers(answer).await;
    Arc::new(Source::parse(&issuer.url()).unwrap()).fetch().await.err().expect("that was taken for keys")
}

#[tokio::test]
async fn keys_are_fetched_at_the_start_and_whoever_comes_before_waits_for_them() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("a"), p_256_jwk("b"), ed25519_jwk("c")])).await;
    let jwks = issuer.jwks(ONCE);
    assert!(jwks.known().is_none());
    let keys = jwks.fresh(Some("a")).await.unwrap();
    assert!(has(&keys, "a") && has(&keys, "b") && has(&keys, "c"));
    assert_eq!(jwks.known().unwrap().len(), 3);
    assert_eq!(issuer.asked(), 1);
}

#[tokio::test]
async fn a_hundred_who_come_with_a_new_key_make_one_fetch() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("old")])).await;
    let jwks = issuer.jwks(Rhythm { gap: Duration::from_secs(1), ..ON_DEMAND });
    fetched(&jwks).await;
    issuer.answer.send_replace(set_of(&[rsa_jwk("new")]));
    for keys in join_all((0..100).map(|_| jwks.fresh(Some("new")))).await {
        assert!(has(&keys.unwrap(), "new"));
    }
    assert_eq!(issuer.asked(), 2);
    assert!(!has(&jwks.known().unwrap(), "old"));
}

#[tokio::test]
async fn a_flood_of_unknown_keys_waits_for_its_fetch_and_keeps_nobody_else() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("a")])).await;
    let jwks = issuer.jwks(ONCE);
    fetched(&jwks).await;
    let kids: Vec<String> = (0..1000).map(|kid| format!("random-{kid}")).collect();
    let mut flood = Box::pin(join_all(kids.iter().map(|kid| jwks.fresh(Some(kid)))));
    for _ in 0..100 {
        assert!(futures::poll!(&mut flood).is_pending());
        assert!(has(&jwks.known().unwrap(), "a"));
        tokio::task::yield_now().await;
    }
    assert_eq!((issuer.asked(), *jwks.waiting.borrow()), (1, 1000));
    drop(flood);
    assert_eq!(*jwks.waiting.borrow(), 0);
}

#[tokio::test]
async fn a_fresh_set_without_the_key_is_a_definite_answer() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("a")])).await;
    let jwks = issuer.jwks(ON_DEMAND);
    fetched(&jwks).await;
    for asked in 2..5 {
        let keys = jwks.fresh(Some("nobody's")).await.unwrap();
        assert!(!has(&keys, "nobody's") && has(&keys, "a"));
        assert!(issuer.asked() >= asked, "a set that was fetched before");
    }
}

#[tokio::test]
async fn keys_are_kept_while_the_issuer_gives_no_others() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("a")])).await;
    let jwks = issuer.jwks(ON_DEMAND);
    fetched(&jwks).await;
    let junk = |text: &str| Answer::Keys(text.into());
    for answer in [Answer::Status(503), junk("<html>"), junk(r#"{"keys":7}"#), Answer::Cut] {
        issuer.answer.send_replace(answer);
        assert!(jwks.fresh(Some("new")).await.is_none(), "what was not fetched says nothing");
        assert!(has(&jwks.known().unwrap(), "a"));
    }
    issuer.answer.send_replace(set_of(&[rsa_jwk("new")]));
    assert!(has(&jwks.fresh(Some("new")).await.unwrap(), "new"));
}

#[tokio::test]
async fn an_issuer_takes_keys_back_by_publishing_none_or_none_that_can_be_used() {
    let oct = r#"{"kty":"oct","k":"YSBzZWNyZXQgb2YgdGhlIHRlc3RzLCBsb25nIGVub3VnaA"}"#.to_string();
    let giant = format!(r#"{{"kty":"RSA","e":"AQAB","n":"{}"}}"#, RSA_N.repeat(500));
    for nothing in [Answer::Keys(r#"{"keys":[]}"#.into()), set_of(&[oct, "7".into(), "null".into()]), set_of(&[giant])]
    {
        let issuer = Issuer::that_answers(set_of(&[rsa_jwk("stolen")])).await;
        let jwks = issuer.jwks(ON_DEMAND);
        fetched(&jwks).await;
        assert!(has(&jwks.known().unwrap(), "stolen"));
        issuer.answer.send_replace(nothing);
        assert!(jwks.fresh(Some("new")).await.unwrap().is_empty());
        assert!(jwks.known().unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_issuer_that_is_gone_leaves_its_keys() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("a")])).await;
    let jwks = issuer.jwks(ON_DEMAND);
    fetched(&jwks).await;
    drop(issuer);
    assert!(jwks.fresh(Some("new")).await.is_none());
    assert!(has(&jwks.known().unwrap(), "a"));
}

#[tokio::test]
async fn without_any_keys_nobody_can_be_told_until_there_are_some() {
    let issuer = Issuer::that_answers(Answer::Status(500)).await;
    let jwks = issuer.jwks(ON_DEMAND);
    assert!(join_all((0..10).map(|_| jwks.fresh(None))).await.iter().all(Option::is_none));
    assert!(jwks.known().is_none());
    issuer.answer.send_replace(set_of(&[rsa_jwk("a")]));
    assert!(has(&jwks.fresh(None).await.unwrap(), "a"));
}

#[tokio::test]
async fn without_keys_the_issuer_is_asked_again_though_nobody_comes() {
    let issuer = Issuer::that_answers(Answer::Status(500)).await;
    let soon = Duration::from_millis(1);
    let jwks = issuer.jwks(Rhythm { first_backoff: soon, last_backoff: soon, ..ONCE });
    issuer.asked.clone().wait_for(|asked| asked.len() > 3).await.unwrap();
    issuer.answer.send_replace(set_of(&[rsa_jwk("a")]));
    jwks.fetches.clone().wait_for(|fetches| fetches.keys.is_some()).await.unwrap();
}

#[tokio::test]
async fn keys_are_fetched_from_time_to_time() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("a")])).await;
    let jwks = issuer.jwks(Rhythm { every: Duration::from_millis(1), ..ONCE });
    fetched(&jwks).await;
    issuer.answer.send_replace(set_of(&[rsa_jwk("b")]));
    let has_b = |fetches: &Fetches| fetches.keys.as_ref().is_some_and(|keys| has(keys, "b"));
    jwks.fetches.clone().wait_for(has_b).await.unwrap();
}

#[tokio::test]
async fn an_issuer_that_never_answers_is_given_up() {
    let issuer = Issuer::that_answers(Answer::Never).await;
    let jwks = issuer.jwks(Rhythm { deadline: Duration::from_millis(50), ..ON_DEMAND });
    assert!(jwks.fresh(Some("a")).await.is_none());
    assert_eq!(issuer.asked(), 1);
    issuer.answer.send_replace(set_of(&[rsa_jwk("a")]));
    let jwks = issuer.jwks(ON_DEMAND);
    fetched(&jwks).await;
    // Now it is the refetch that hangs, and who has a known key does not notice.
    issuer.answer.send_replace(Answer::Never);
    let mut waits = Box::pin(jwks.fresh(Some("new")));
    assert!(futures::poll!(&mut waits).is_pending());
    issuer.asked.clone().wait_for(|asked| asked.len() == 3).await.unwrap();
    assert!(futures::poll!(&mut waits).is_pending());
    assert!(has(&jwks.known().unwrap(), "a"));
}

#[tokio::test]
async fn the_task_ends_with_whom_it_fetches_for() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("a")])).await;
    let jwks = issuer.jwks(ONCE);
    let mut fetches = jwks.fetches.clone();
    fetched(&jwks).await;
    drop(jwks);
    assert!(fetches.wait_for(|fetches| fetches.ended > 1).await.is_err());
}

#[tokio::test]
async fn what_is_no_answer_gives_no_keys_and_says_why() {
    let elsewhere = Issuer::that_answers(set_of(&[rsa_jwk("a")])).await;
    let junk = |text: &str| Answer::Keys(text.into());
    for (answer, words) in [
        (Answer::Redirect(elsewhere.url()), "redirects (302 Found), which is not followed"),
        (Answer::Status(404), "404"),
        (Answer::Endless, "too long"),
        (Answer::Cut, "no answer"),
        (junk(""), "no set of keys"),
        (junk("<html></html>"), "no set of keys"),
        (junk("[]"), "no set of keys"),
        (junk("[[]]"), "no set of keys"),
        (junk("{}"), "no set of keys"),
        (junk(r#"{"keys":{}}"#), "no set of keys"),
        (junk(r#"{"keys":[]} x"#), "no set of keys"),
        (junk(&"[".repeat(200_000)), "no set of keys"),
        (junk(&format!(r#"{{"keys":[{}]}}"#, "[".repeat(100_000))), "no set of keys"),
        (junk(&format!(r#"{{"keys":[{}]{}}}"#, rsa_jwk("a"), " ".repeat(MAX_ANSWER_BYTES))), "too long"),
    ] {
        let why = why_not(answer).await;
        assert!(why.contains(words), "{words}: {why}");
    }
    assert_eq!(elsewhere.asked(), 0);
}

#[test]
fn an_odd_key_costs_the_others_nothing_and_there_are_not_too_many() {
    let odd = [r#"{"kty":"oct","k":"AAAA"}"#, r#"{"kty":7}"#, "[]", r#"{"kty":"PQ"}"#].map(String::from);
    let Answer::Keys(body) = set_of(&[&odd[..], &[rsa_jwk("a")], &odd[..], &[ed25519_jwk("b")]].concat()) else {
        panic!()
    };
    let keys = keys_in(body.as_bytes()).unwrap();
    assert!(keys.len() == 2 && has(&keys, "a") && has(&keys, "b"));
    let many: Vec<String> = (0..10_000).map(|kid| ed25519_jwk(&kid.to_string())).collect();
    let Answer::Keys(body) = set_of(&many) else { panic!() };
    assert_eq!(keys_in(body.as_bytes()).unwrap().len(), MAX_KEYS);
}

#[tokio::test]
async fn the_request_is_what_the_address_says_and_only_what_is_no_secret_is_shown() {
    let issuer = Issuer::that_answers(set_of(&[rsa_jwk("a")])).await;
    let url = format!("http://zoe:p%40ss@{}/the/keys?token=s3cret", issuer.address);
    let source = Source::parse(&url).unwrap();
    assert_eq!(source.to_string(), format!("http://{}/the/keys", issuer.address));
    Arc::new(source).fetch().await.unwrap();
    let asked = issuer.asked.borrow()[0].clone();
    let credentials = STANDARD.encode("zoe:p@ss");
    assert_eq!(asked, format!("/the/keys?token=s3cret Basic {credentials}"));
}

#[tokio::test]
async fn only_an_issuer_that_somebody_vouches_for_is_believed() {
    let der = |text: &str| STANDARD.decode(text).unwrap();
    let certificate = CertificateDer::from(der(CERTIFICATE));
    let key = PrivateKeyDer::Pkcs8(der(CERTIFICATE_KEY).into());
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate.clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/keys", listener.local_addr().unwrap());
    let serve = async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not believe us ends the handshake.
            let Ok(stream) = acceptor.accept(stream).await else { continue };
            let service = service_fn(|_| answer_with(set_of(&[rsa_jwk("a")])));
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        }
    };
    let _serve = AbortOnDropHandle::new(tokio::spawn(serve));
    let stranger = Source::parse(&url).unwrap();
    let why = Arc::new(stranger).fetch().await.err().unwrap();
    assert!(why.starts_with("TLS: ") && why.contains("UnknownIssuer"), "{why}");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let known = Source { tls: Some(tls::to("127.0.0.1", roots).unwrap()), ..Source::parse(&url).unwrap() };
    assert!(has(&Arc::new(known).fetch().await.unwrap(), "a"));
}

#[test]
fn what_is_no_address_is_refused_before_anything_starts() {
    for url in
        ["", "keys", "/keys", "ftp://a/keys", "http://", "http:///keys", "https://a b/", "file:///keys", "https://"]
    {
        let refused = Source::parse(url).err().unwrap_or_else(|| panic!("{url} was taken"));
        assert!(refused.contains("allowed is"), "{url}: {refused}");
    }
    for (url, shown) in [
        ("http://[::1]:8080", "http://[::1]:8080/"),
        ("https://issuer.example/keys#x", "https://issuer.example/keys"),
        (" http://localhost/?q ", "http://localhost/"),
    ] {
        assert_eq!(Source::parse(url).unwrap().to_string(), shown);
    }
}
