//! The public listener: its addresses, and who may upgrade. What browsers are given there is in `web.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Extension, Path, Query, RawQuery, Request, State};
use axum::http::header;
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::get;
use axum::{Router, middleware};
use serde::Deserialize;
use tokio_util::task::TaskTracker;
use tracing::debug;

use crate::auth::{Credentials, Doorkeeper, Identity, NotAdmitted};
use crate::clock::Times;
use crate::config::Config;
use crate::connection::{Admitted, Connection, NO_ROOM, turn_away};
use crate::door::Codec;
use crate::drain::Leaving;
use crate::echo;
use crate::encoding::Encoding;
use crate::gate::{Gate, NoSeat, Seat};
use crate::hub::Hub;
use crate::metrics::METRICS;
use crate::names::RoomName;
use crate::outgoing::Outgoing;
use crate::protocol::{CloseReason, ErrorCode, MAX_LAST, NotIn, Refusal, Tag};
use crate::session::{Rules, Session};
use crate::web;
use crate::ws::frame::Decoder;
use crate::ws::{self, Handshake, Origins, Refused};

/// When to try again what could not be told now.
const COME_AGAIN_MS: u64 = 2000;

/// What all doors of a node share.
#[derive(Clone)]
pub struct Hall {
    pub hub: Arc<Hub>,
    pub doorkeeper: Doorkeeper,
    pub rules: Arc<Rules>,
    pub origins: Origins,
    pub gate: Gate,
    pub leaving: Leaving,
    pub times: Times,
    /// The clients; a node that leaves waits for them.
    pub clients: TaskTracker,
}

impl Hall {
    /// A new client, to be served by a connection.
    pub fn admit(&self, identity: Identity, peer: SocketAddr) -> Admitted {
        Admitted {
            session: Session::new(self.rules.clone(), identity, Instant::now()),
            hub: self.hub.clone(),
            doorkeeper: self.doorkeeper.clone(),
            leaving: self.leaving.clone(),
            times: self.times,
            peer,
        }
    }
}

/// Who a request comes from, seen through trusted proxies, and whether there was a seat for them as they came.
#[derive(Debug, Clone)]
pub struct Caller {
    pub peer: SocketAddr,
    pub seat: Result<Seat, NoSeat>,
}

/// Everything public, at the root and below the base path.
pub fn router(hall: Hall, config: &Config) -> Router {
    let mut router = routes(Router::new(), "");
    let base = config.base_path.as_str();
    if let Some((_, last)) = base.rsplit_once('/') {
        let page = format!("{last}/");
        router = routes(router, base).route(base, get(async move |RawQuery(query)| redirect(&page, query)));
    }
    let router = router.fallback(not_found).layer(middleware::from_fn_with_state(hall.clone(), come_later));
    // Outside of that: whether the process lives is told to everybody, at any time.
    let mut router = router.route("/healthz", get("alive\n"));
    if !base.is_empty() {
        router = router.route(&format!("{base}/healthz"), get("alive\n"));
    }
    router.with_state(hall)
}

fn routes(router: Router<Hall>, base: &str) -> Router<Hall> {
    let at = |path: &str| format!("{base}{path}");
    let router = router
        .route(&at("/ws"), get(websocket))
        .route(&at("/chatroom/ws"), get(classic))
        .route(&at("/chatroom/ws/{name}/{token}"), get(classic_with_token))
        .route(&at("/echo"), get(echo_or_page));
    web::routes(router, base)
}

/// To a relative address, since only proxies know the absolute one.
fn redirect(page: &str, query: Option<String>) -> Response<Body> {
    let location = query.map_or(page.to_owned(), |query| format!("{page}?{query}"));
    let location = HeaderValue::from_str(&location).unwrap_or(HeaderValue::from_static("./"));
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::PERMANENT_REDIRECT;
    answer.headers_mut().insert(header::LOCATION, location);
    answer
}

async fn not_found() -> Response<Body> {
    Refused::new(StatusCode::NOT_FOUND, NotIn::NotFound, "there is no such address; the chat is at /").answer()
}

/// While the node leaves, and to those who found no seat, everything is refused for now.
async fn come_later(State(hall): State<Hall>, request: Request, next: middleware::Next) -> Response<Body> {
    let caller = request.extensions().get::<Caller>();
    if let Some(no_seat) = caller.map_or(Some(NoSeat::Full), |caller| caller.seat.as_ref().err().copied()) {
        let status = match no_seat {
            NoSeat::Full => StatusCode::SERVICE_UNAVAILABLE,
            NoSeat::Address => StatusCode::TOO_MANY_REQUESTS,
        };
        return Refused::for_now(status, no_seat.why(), no_seat.words()).answer();
    }
    if hall.leaving.has_begun()
        && let Err(closed) = hall.gate.pass()
    {
        return Refused::closed(closed).answer();
    }
    next.run(request).await
}

// --- WebSockets -----------------------------------------------------------------------------------------------------

/// The query of `/ws` and `/chatroom/ws`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wishes {
    name: Option<String>,
    key: Option<String>,
    token: Option<String>,
    room: Option<String>,
    last: Option<u64>,
}

type Caught<T> = Result<Query<T>, axum::extract::rejection::QueryRejection>;

async fn websocket(
    State(hall): State<Hall>,
    Extension(caller): Extension<Caller>,
    wishes: Caught<Wishes>,
    mut request: Request,
) -> Response<Body> {
    let shaken = check(&hall, &mut request).and_then(|handshake| Ok((handshake, query(wishes)?)));
    match shaken {
        Ok((handshake, wishes)) if handshake.json => open_json(hall, caller, handshake, wishes).await,
        Ok((handshake, wishes)) => open_plain(hall, caller, handshake, wishes).await,
        Err(refused) => Err(refused),
    }
    .unwrap_or_else(Refused::answer)
}

async fn classic(
    State(hall): State<Hall>,
    Extension(caller): Extension<Caller>,
    wishes: Caught<Wishes>,
    mut request: Request,
) -> Response<Body> {
    match check_classic(&hall, &mut request).and_then(|handshake| Ok((handshake, query(wishes)?))) {
        Ok((handshake, wishes)) => open_plain(hall, caller, handshake, wishes).await,
        Err(refused) => Err(refused),
    }
    .unwrap_or_else(Refused::answer)
}

/// The tutorial's address.
async fn classic_with_token(
    State(hall): State<Hall>,
    Extension(caller): Extension<Caller>,
    Path((name, token)): Path<(String, String)>,
    wishes: Caught<Wishes>,
    mut request: Request,
) -> Response<Body> {
    match check_classic(&hall, &mut request).and_then(|handshake| Ok((handshake, query(wishes)?))) {
        Ok((handshake, wishes)) => {
            let wishes = Wishes { name: Some(name), token: Some(token), ..wishes };
            open_plain(hall, caller, handshake, wishes).await
        }
        Err(refused) => Err(refused),
    }
    .unwrap_or_else(Refused::answer)
}

fn check(hall: &Hall, request: &mut Request) -> Result<Handshake, Refused> {
    let handshake = Handshake::check(request, &hall.origins)?;
    hall.gate.pass().map_err(Refused::closed)?;
    Ok(handshake)
}

fn check_classic(hall: &Hall, request: &mut Request) -> Result<Handshake, Refused> {
    let handshake = check(hall, request)?;
    if handshake.json {
        let words = "this address speaks plain text; townhall.v1 is spoken at /ws";
        return Err(Refused::new(StatusCode::BAD_REQUEST, NotIn::Subprotocol, words));
    }
    Ok(handshake)
}

fn query(wishes: Caught<Wishes>) -> Result<Wishes, Refused> {
    let wrong = |error: axum::extract::rejection::QueryRejection| {
        Refused::new(StatusCode::BAD_REQUEST, NotIn::Syntax, error.body_text())
    };
    wishes.map(|Query(wishes)| wishes).map_err(wrong)
}

/// Asks the doorkeeper about what a request brings. A token may be in one place or in several, but it is one.
async fn admit(hall: &Hall, caller: &Caller, handshake: &Handshake, wishes: Wishes) -> Result<Identity, NotAdmitted> {
    let mut tokens = handshake.tokens.clone();
    tokens.extend(wishes.token.filter(|token| !token.is_empty()));
    tokens.dedup();
    if tokens.len() > 1 && hall.doorkeeper.knows_tokens() {
        return Err(NotAdmitted::unauthorized("two tokens that differ"));
    }
    let brought = Credentials { name: wishes.name, key: wishes.key, token: tokens.pop() };
    hall.doorkeeper.admit(brought, caller.peer).await
}

/// Only operators are told why at every door.
fn log_not_admitted(caller: &Caller, why: &NotAdmitted) {
    debug!(peer = %caller.peer, why = why.words(), "not let in");
}

async fn open_json(
    hall: Hall,
    caller: Caller,
    handshake: Handshake,
    wishes: Wishes,
) -> Result<Response<Body>, Refused> {
    let admitted = admit(&hall, &caller, &handshake, wishes).await.inspect_err(|why| log_not_admitted(&caller, why));
    let (code, why, reason, words) = match admitted {
        Ok(identity) => return Ok(open(hall, caller, handshake, identity, Encoding::Json, Connection::welcome)),
        Err(NotAdmitted::Malformed(words)) => return Err(Refused::new(StatusCode::BAD_REQUEST, NotIn::Name, words)),
        Err(NotAdmitted::Unauthorized(words)) => {
            (ErrorCode::Unauthorized, NotIn::Unauthorized, CloseReason::Unauthorized, words)
        }
        Err(NotAdmitted::Unavailable(words)) => {
            (ErrorCode::Unavailable, NotIn::Unavailable, CloseReason::TryLater, words)
        }
    };
    METRICS.refused(why);
    let refusal = match code {
        ErrorCode::Unavailable => Refusal::retry(code, words, COME_AGAIN_MS, Tag::default()),
        _ => Refusal::new(code, words, Tag::default()),
    };
    let (answer, upgrade) = handshake.accept();
    hall.clients.spawn(async move {
        let Some((socket, _)) = ws::socket(upgrade).await else { return };
        turn_away(socket, refusal, reason).await;
        drop(caller);
    });
    Ok(answer)
}

async fn open_plain(
    hall: Hall,
    caller: Caller,
    handshake: Handshake,
    mut wishes: Wishes,
) -> Result<Response<Body>, Refused> {
    let forbidden = |words: String| Refused::new(StatusCode::FORBIDDEN, NotIn::Room, words);
    let wished = wishes.room.take().map(|name| {
        RoomName::parse(&name).ok_or_else(|| Refused::new(StatusCode::BAD_REQUEST, NotIn::Room, RoomName::RULE))
    });
    let wished = wished.transpose()?;
    if let Some(room) = wished.as_ref().filter(|room| !hall.rules.admits(room)) {
        return Err(forbidden(format!("there is no room {room} here")));
    }
    let last = wishes.last.unwrap_or(0).min(MAX_LAST);
    let admitted = admit(&hall, &caller, &handshake, wishes).await.inspect_err(|why| log_not_admitted(&caller, why));
    let identity = admitted.map_err(|why| match why {
        NotAdmitted::Malformed(words) => Refused::new(StatusCode::BAD_REQUEST, NotIn::Name, words),
        NotAdmitted::Unauthorized(_) => Refused::token_wrong(),
        NotAdmitted::Unavailable(words) => Refused::for_now(StatusCode::SERVICE_UNAVAILABLE, NotIn::Unavailable, words),
    })?;
    let room = match wished {
        Some(room) if identity.rights.admit(&room) => room,
        Some(room) => return Err(forbidden(format!("your token does not let you into {room}"))),
        None => hall.rules.first_room(&identity.rights).ok_or_else(|| forbidden(NO_ROOM.into()))?,
    };
    Ok(open(hall, caller, handshake, identity, Encoding::Plain, move |connection| connection.start_in(room, last)))
}

/// Upgrades, and serves the client in a task of its own.
fn open(
    hall: Hall,
    caller: Caller,
    handshake: Handshake,
    identity: Identity,
    encoding: Encoding,
    start: impl FnOnce(&mut Connection) + Send + 'static,
) -> Response<Body> {
    let (answer, upgrade) = handshake.accept();
    let frame = hall.rules.limits.frame;
    let admitted = hall.admit(identity, caller.peer);
    // Boxed, so that it is gone when the client is in.
    let entering = Box::pin(async move {
        let (socket, read) = ws::socket(upgrade).await?;
        let codec = Codec::Frames(Decoder::new(frame));
        let mut connection = Box::new(Connection::new(Outgoing::new(socket, encoding), codec, admitted));
        start(&mut connection);
        connection.has_read(&read);
        Some(connection)
    });
    let seat = caller.seat;
    hall.clients.spawn(async move {
        let Some(connection) = entering.await else { return };
        connection.run().await;
        drop(seat);
    });
    answer
}

async fn echo_or_page(
    State(hall): State<Hall>,
    Extension(caller): Extension<Caller>,
    mut request: Request,
) -> Response<Body> {
    if !request.headers().contains_key(header::UPGRADE) {
        return web::echo_page(request.headers());
    }
    let handshake = match Handshake::check(&mut request, &hall.origins) {
        Ok(handshake) => handshake,
        Err(refused) => return refused.answer(),
    };
    let (answer, upgrade) = handshake.accept();
    let frame = hall.rules.limits.frame;
    hall.clients.spawn(async move {
        let Some((socket, read)) = ws::socket(upgrade).await else { return };
        echo::run(socket, &read, frame, hall.times, hall.leaving).await;
        drop(caller);
    });
    answer
}
