//! The process: binds, opens the broker, serves, and leaves.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::auth::Doorkeeper;
use crate::broker::memory::MemoryBroker;
use crate::broker::redis::RedisBroker;
use crate::broker::{Broker, Feed, feed};
use crate::clock::Times;
use crate::config::{Config, Limits};
use crate::connection::Connection;
use crate::door::Codec;
use crate::drain::{Depart, staying};
use crate::encoding::Encoding;
use crate::gate::{Gate, NoSeat, Seat, Seats, Standing};
use crate::greeting::{Bound, greeting, log_opening};
use crate::http::{self, Caller, Hall};
use crate::hub::Hub;
use crate::log::Window;
use crate::logging::Seldom;
use crate::metrics::{self, METRICS};
use crate::outgoing::Outgoing;
use crate::protocol::NotIn;
use crate::proxies::{self, Proxies};
use crate::session::Rules;
use crate::tcp::Lines;
use crate::ws::Origins;
use crate::{logging, ops};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// After accepting failed (no file left, say), before it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// That is said so often at most.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Who is turned away at the line door has so long to hear it.
const TURNED_AWAY: Duration = Duration::from_secs(2);
/// The last goodbyes may take so long beyond `--drain`.
const LAST_GOODBYES: Duration = Duration::from_secs(5);
/// A dead TCP peer is noticed within about two minutes, and after so long when it does not acknowledge.
const KEEPALIVE: Duration = Duration::from_secs(60);
const USER_TIMEOUT: Duration = Duration::from_secs(120);
/// What the kernel counts is bytes that were not acknowledged; that takes a round trip however fast a client reads.
const ROUND_TRIP: Duration = Duration::from_secs(3);
/// As much may wait unsent in the kernel for one client; what follows stays in the rooms' windows, where it is for all.
/// Without this a slow client has megabytes of its own there, which no budget counts.
const UNSENT_BYTES: u32 = 128 * 1024;
/// Bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;

/// When to leave.
#[derive(Debug, Clone)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// On SIGTERM and SIGINT; the second one ends the process at once.
    ///
    /// # Errors
    /// When signals cannot be listened to.
    pub fn on_signals() -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let asked = CancellationToken::new();
        let leave = asked.clone();
        tokio::spawn(async move {
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            leave.cancel();
            tokio::select! { _ = terminate.recv() => {} _ = interrupt.recv() => {} }
            warn!("asked twice: leaving at once");
            std::process::exit(1);
        });
        Ok(Shutdown(asked))
    }
}

/// Serves until `shutdown`, then leaves politely.
///
/// # Errors
/// In one line for people, before anything is served.
pub async fn run(config: Config, shutdown: Shutdown) -> anyhow::Result<()> {
    let listeners = Listeners::bind(&config)?;
    let bound = listeners.bound()?;
    let handle = metrics::install()?;
    tokio::spawn(metrics::keep_up(handle.clone()));
    let stop = CancellationToken::new();
    let (feed, deliveries) = feed();
    let broker = open_broker(&config, feed).await?;
    let (depart, leaving) = staying();
    let gate = Gate::new(leaving.clone(), broker.status());
    let limits = &config.limits;
    METRICS.connections_max.set(limits.connections as f64);
    let window = Window { bytes: limits.room_window, records: limits.room_window_messages };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let hub = Hub::start(broker, deliveries, window, limits.window_budget, workers, limits.presence_grace, &stop);
    let hall = Hall {
        hub,
        doorkeeper: Doorkeeper::new(&config.auth).map_err(anyhow::Error::msg)?,
        rules: Arc::new(Rules::new(&config, &node_name())),
        origins: Origins { allowed: config.origins.clone(), loopback: config.origins_of_this_machine() },
        gate: gate.clone(),
        leaving,
        times: Times { beat: limits.beat, write_timeout: limits.write_timeout },
        clients: TaskTracker::new(),
    };
    say_open(&config, &bound, &gate.broker());
    let door = Doors::new(hall, &config);
    let accepting = door.open(listeners, ops::router(gate, handle));
    shutdown.0.cancelled().await;
    door.leave(&depart, config.limits.drain, accepting).await;
    stop.cancel();
    info!("everybody has left; good-bye");
    Ok(())
}

/// Names this process to clients and people: new at every start.
fn node_name() -> String {
    format!("{:08x}", rand::random::<u32>())
}

async fn open_broker(config: &Config, feed: Feed) -> anyhow::Result<Arc<dyn Broker>> {
    match &config.redis {
        None => Ok(Arc::new(MemoryBroker::new(&config.history, feed))),
        Some(redis) => Ok(Arc::new(RedisBroker::open(redis, &config.history, feed).await?)),
    }
}

fn say_open(config: &Config, bound: &Bound, broker: &str) {
    if logging::on_terminal() {
        eprintln!("{}", greeting(config, bound, broker));
    } else {
        log_opening(config, bound, broker);
    }
}

/// The sockets that people come in by.
struct Listeners {
    public: TcpListener,
    ops: TcpListener,
    lines: Option<TcpListener>,
}

impl Listeners {
    fn bind(config: &Config) -> anyhow::Result<Self> {
        Ok(Listeners {
            public: bind("--listen", config.listen)?,
            ops: bind("--ops", config.ops)?,
            lines: config.tcp.map(|address| bind("--tcp", address)).transpose()?,
        })
    }

    fn bound(&self) -> io::Result<Bound> {
        let tcp = self.lines.as_ref().map(TcpListener::local_addr).transpose()?;
        Ok(Bound { listen: self.public.local_addr()?, ops: self.ops.local_addr()?, tcp })
    }
}

fn bind(option: &str, address: SocketAddr) -> anyhow::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    let bound = || -> io::Result<TcpListener> {
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().with_context(|| format!("{option} {address} cannot be listened on"))
}

/// What serves the sockets that were accepted.
#[derive(Clone)]
struct Doors {
    hall: Hall,
    router: Router,
    seats: Arc<Seats>,
    proxies: Proxies,
    /// Said when a limit of each address meets a proxy that nobody trusts; `None`: there is no such limit.
    strange_proxies: Option<Arc<Mutex<Seldom>>>,
    handshake_timeout: Duration,
    /// Who found no seat is told so there.
    standing: Arc<Standing>,
    /// Apart from those of whose address there are too many, who would take all the places.
    crowding: Arc<Standing>,
    /// No more connections are accepted.
    closing: CancellationToken,
}

impl Doors {
    /// As many are told at the same time that there is no seat for them; who has waited longest with its request is cut
    /// off for the next.
    const STANDING: usize = Limits::STANDING / 2;

    fn new(hall: Hall, config: &Config) -> Self {
        let limited = config.limits.per_address > 0;
        Doors {
            router: http::router(hall.clone(), config),
            hall,
            seats: Seats::new(config.limits.connections, config.limits.per_address),
            proxies: Proxies::new(&config.trusted_proxies),
            strange_proxies: limited.then(|| Arc::new(Mutex::new(Seldom::new(COMPLAIN_EVERY)))),
            handshake_timeout: config.limits.handshake_timeout,
            standing: Standing::new(Self::STANDING),
            crowding: Standing::new(Self::STANDING),
            closing: CancellationToken::new(),
        }
    }

    /// Accepts at all doors. The tasks of the client's doors end when no more are accepted.
    fn open(&self, listeners: Listeners, operations: Router) -> TaskTracker {
        let accepting = TaskTracker::new();
        let (public, lines, probes) = (self.clone(), self.clone(), self.clone());
        accepting.spawn(accept(listeners.public, self.closing.clone(), move |socket, peer| public.http(socket, peer)));
        if let Some(listener) = listeners.lines {
            accepting.spawn(accept(listener, self.closing.clone(), move |socket, peer| lines.line(socket, peer)));
        }
        // Probes are answered until the process ends.
        let never = CancellationToken::new();
        tokio::spawn(accept(listeners.ops, never.clone(), move |socket, _| {
            tokio::spawn(probes.clone().serve_http(socket, operations.clone(), None, never.clone()));
        }));
        accepting.close();
        accepting
    }

    fn http(&self, socket: TcpStream, peer: SocketAddr) {
        let seat = if self.proxies.trusts(peer.ip()) { self.seats.take_of_all() } else { self.seats.take(peer.ip()) };
        let place = seat.as_ref().err().map(|no_seat| self.standing_of(*no_seat).take());
        let doors = self.clone();
        let caller = Caller { peer, seat };
        let closing = self.closing.clone();
        self.hall.clients.spawn(async move {
            let router = doors.router.clone();
            let served = doors.serve_http(socket, router, Some(caller), closing);
            match place {
                None => served.await,
                Some(place) => tokio::select! { () = served => {} () = place.gives_way() => {} },
            }
        });
    }

    /// Who a request comes from, and the host that they asked a proxy for, both among its extensions. A proxy's socket
    /// carries the requests of many, so a seat of the client's address is taken for each.
    fn announce<B>(&self, caller: &Caller, request: &mut hyper::Request<B>) {
        if !self.proxies.trusts(caller.peer.ip()) {
            if proxies::is_forwarded(request.headers()) {
                self.mention_strange_proxy(caller.peer);
            }
            request.extensions_mut().insert(caller.clone());
            return;
        }
        let peer = self.proxies.client(caller.peer, request.headers());
        let seat = caller.seat.as_ref().map_err(|no_seat| *no_seat).and_then(|seat| seat.of(peer.ip()));
        if let Some(host) = self.proxies.host(caller.peer, request.headers()) {
            request.extensions_mut().insert(host);
        }
        request.extensions_mut().insert(Caller { peer, seat });
    }

    /// Behind a proxy that nobody trusts all clients are of one address, and some find the hall closed for no reason
    /// that they could see.
    fn mention_strange_proxy(&self, peer: SocketAddr) {
        let Some(seldom) = &self.strange_proxies else { return };
        let said = seldom.lock().unwrap_or_else(PoisonError::into_inner).pass(Instant::now());
        if let Some(times) = said {
            let address = peer.ip();
            warn!(
                %address, times,
                "requests with X-Forwarded-For count for --max-per-address as those of the address that sends them; \
                 if that is a proxy of yours, name it with --trusted-proxy"
            );
        }
    }

    fn standing_of(&self, no_seat: NoSeat) -> &Arc<Standing> {
        match no_seat {
            NoSeat::Full => &self.standing,
            NoSeat::Address => &self.crowding,
        }
    }

    async fn serve_http(self, socket: TcpStream, router: Router, caller: Option<Caller>, closing: CancellationToken) {
        // Who is accepted while the node leaves is still to be told so.
        let already_closing = closing.is_cancelled();
        prepare(&socket);
        limit_silence(&socket, self.hall.times.write_timeout);
        let routes = TowerToHyperService::new(router);
        let handshake_timeout = self.handshake_timeout;
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            if let Some(caller) = &caller {
                self.announce(caller, &mut request);
            }
            routes.call(request)
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).max_buf_size(HEAD_BYTES);
        if !handshake_timeout.is_zero() {
            server.header_read_timeout(handshake_timeout);
        }
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(socket), service).with_upgrades());
        tokio::select! {
            _ = connection.as_mut() => return,
            () = closing.cancelled(), if !already_closing => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    fn line(&self, socket: TcpStream, peer: SocketAddr) {
        let seat = match self.may_enter(peer) {
            Ok(seat) => seat,
            Err((why, words, standing)) => {
                METRICS.refused(why);
                let place = standing.take();
                self.hall.clients.spawn(async move {
                    tokio::select! { () = turn_away(&socket, words) => {} () = place.gives_way() => {} }
                });
                return;
            }
        };
        let identity = self.hall.doorkeeper.greet(peer);
        keep_line_alive(&socket);
        let codec = Codec::Lines(Lines::default());
        let out = Outgoing::new(socket, Encoding::Line);
        let mut connection = Box::new(Connection::new(out, codec, self.hall.admit(identity, peer)));
        connection.start();
        self.hall.clients.spawn(async move {
            connection.run().await;
            drop(seat);
        });
    }

    /// The seat at the line door; or why there is none, in words, too, and where that is told.
    fn may_enter(&self, peer: SocketAddr) -> Result<Seat, (NotIn, &'static str, &Arc<Standing>)> {
        self.hall.gate.pass().map_err(|closed| (closed.why(), closed.words(), &self.standing))?;
        let seat = self.seats.take(peer.ip());
        seat.map_err(|no_seat| (no_seat.why(), no_seat.words(), self.standing_of(no_seat)))
    }

    /// Sends everybody to the other nodes, and returns when the last has left or the time is over.
    async fn leave(&self, depart: &Depart, drain: Duration, accepting: TaskTracker) {
        info!(?drain, "leaving: clients are sent to the other replicas");
        METRICS.draining.set(1.0);
        depart.begin(drain);
        self.closing.cancel();
        accepting.wait().await;
        self.hall.clients.close();
        if timeout(drain + LAST_GOODBYES, self.hall.clients.wait()).await.is_err() {
            warn!("some clients did not leave in time; they are cut off");
        }
    }
}

/// What is so for a client's socket at every door.
fn prepare(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let _ = SockRef::from(socket).set_tcp_notsent_lowat(UNSENT_BYTES);
}

/// An HTTP client that takes no answer has its connection for so long; the kernel resets it then, since the HTTP server has
/// no such clock. A WebSocket has its own ([`crate::ws::socket`]).
fn limit_silence(socket: &TcpStream, write_timeout: Duration) {
    if !write_timeout.is_zero() {
        let _ = SockRef::from(socket).set_tcp_user_timeout(Some(write_timeout.max(ROUND_TRIP)));
    }
}

fn keep_line_alive(socket: &TcpStream) {
    prepare(socket);
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4));
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// Says why at the line door. Closed at once, a socket with something unread would be reset, and the words lost.
async fn turn_away(socket: &TcpStream, words: &str) {
    let _ = socket.try_write(format!("! unavailable {words}\n").as_bytes());
    let _ = SockRef::from(socket).shutdown(std::net::Shutdown::Write);
    let mut unread = [0; 512];
    let _ = timeout(TURNED_AWAY, async {
        while socket.readable().await.is_ok() {
            match socket.try_read(&mut unread) {
                Ok(0) => break,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => break,
                _ => tokio::task::yield_now().await,
            }
        }
    })
    .await;
}

/// Accepts until `closing`; then what is queued already, and no more.
async fn accept(listener: TcpListener, closing: CancellationToken, serve: impl Fn(TcpStream, SocketAddr)) {
    let mut complaints = Seldom::new(COMPLAIN_EVERY);
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => serve(socket, peer),
                Err(error) => {
                    METRICS.accepts_failed.increment(1);
                    // It may go on for hours, ten times a second.
                    if let Some(times) = complaints.pass(Instant::now()) {
                        warn!(%error, times, "connections have to wait: none could be accepted; is nofile too small?");
                    }
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    // The queue is asked directly: what tokio has not been told of yet is in it, too.
    let Ok(listener) = listener.into_std() else { return };
    while let Ok((socket, peer)) = listener.accept() {
        if socket.set_nonblocking(true).is_ok()
            && let Ok(socket) = TcpStream::from_std(socket)
        {
            serve(socket, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ends of a connection; the first is the server's.
    async fn connected() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (listener.accept().await.unwrap().0, client)
    }

    #[tokio::test]
    async fn a_dead_line_is_found_out_by_the_kernel() {
        let (socket, _client) = connected().await;
        keep_line_alive(&socket);
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(USER_TIMEOUT));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    }

    #[tokio::test]
    async fn an_http_client_may_take_nothing_for_as_long_as_others_may() {
        let (socket, _client) = connected().await;
        prepare(&socket);
        limit_silence(&socket, Duration::ZERO);
        assert_eq!(SockRef::from(&socket).tcp_user_timeout().unwrap(), None);
        limit_silence(&socket, Duration::from_millis(100));
        assert_eq!(SockRef::from(&socket).tcp_user_timeout().unwrap(), Some(ROUND_TRIP));
        limit_silence(&socket, Duration::from_secs(7));
        let socket = SockRef::from(&socket);
        assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        assert_eq!(socket.tcp_notsent_lowat().unwrap(), UNSENT_BYTES);
    }
}
