//! The process: binds, opens the broker, serves, and leaves.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

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

use crate::auth::guest;
use crate::broker::memory::MemoryBroker;
use crate::broker::redis::RedisBroker;
use crate::broker::{Broker, Feed, feed};
use crate::clock::Times;
use crate::config::Config;
use crate::connection::Connection;
use crate::door::Codec;
use crate::drain::{Depart, staying};
use crate::encoding::Encoding;
use crate::gate::{Gate, Seat, Seats};
use crate::greeting::{Bound, greeting, log_opening};
use crate::http::{self, Caller, Hall};
use crate::hub::Hub;
use crate::log::Window;
use crate::metrics::{self, METRICS};
use crate::outgoing::Outgoing;
use crate::session::Rules;
use crate::tcp::Lines;
use crate::ws::Origins;
use crate::{logging, ops};

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 4096;
/// After accepting failed (no file left, say), before it is tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The last goodbyes may take so long beyond `--drain`.
const LAST_GOODBYES: Duration = Duration::from_secs(5);
/// A dead TCP peer is noticed within about two minutes, and after so long when it does not acknowledge.
const KEEPALIVE: Duration = Duration::from_secs(60);
const USER_TIMEOUT: Duration = Duration::from_secs(120);
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
    let window = Window { bytes: limits.room_window, records: limits.room_window_messages };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let hub = Hub::start(broker, deliveries, window, limits.window_budget, workers, &stop);
    let hall = Hall {
        hub,
        rules: Arc::new(Rules::new(&config, &node_name())),
        origins: Origins { allowed: config.origins.clone(), loopback: config.listen.ip().is_loopback() },
        gate: gate.clone(),
        leaving,
        times: Times { beat: limits.beat, write_timeout: limits.write_timeout },
        clients: TaskTracker::new(),
    };
    say_open(&config, &bound, gate.broker());
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
    handshake_timeout: Duration,
    /// Requests that are answered for those who found no seat.
    standing: Arc<Seats>,
    /// No more connections are accepted.
    closing: CancellationToken,
}

impl Doors {
    /// As many are told at the same time that the hall is full; more are cut off.
    const STANDING: usize = 64;

    fn new(hall: Hall, config: &Config) -> Self {
        Doors {
            router: http::router(hall.clone(), config),
            hall,
            seats: Seats::new(config.limits.connections),
            handshake_timeout: config.limits.handshake_timeout,
            standing: Seats::new(Self::STANDING),
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
        let (seat, place) = match self.seats.take() {
            Some(seat) => (Some(Arc::new(seat)), None),
            None => match self.standing.take() {
                Some(place) => (None, Some(place)),
                None => return,
            },
        };
        let doors = self.clone();
        let caller = Caller { peer, seat };
        let closing = self.closing.clone();
        self.hall.clients.spawn(async move {
            let router = doors.router.clone();
            doors.serve_http(socket, router, Some(caller), closing).await;
            drop(place);
        });
    }

    async fn serve_http(self, socket: TcpStream, router: Router, caller: Option<Caller>, closing: CancellationToken) {
        // Who is accepted while the node leaves is still to be told so.
        let already_closing = closing.is_cancelled();
        let _ = socket.set_nodelay(true);
        let routes = TowerToHyperService::new(router);
        let service = service_fn(move |mut request: hyper::Request<hyper::body::Incoming>| {
            if let Some(caller) = &caller {
                request.extensions_mut().insert(caller.clone());
            }
            routes.call(request)
        });
        let mut server = http1::Builder::new();
        server.timer(TokioTimer::new()).max_buf_size(HEAD_BYTES);
        if !self.handshake_timeout.is_zero() {
            server.header_read_timeout(self.handshake_timeout);
        }
        let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(socket), service).with_upgrades());
        tokio::select! {
            _ = connection.as_mut() => return,
            () = closing.cancelled(), if !already_closing => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }

    fn line(&self, socket: TcpStream, peer: SocketAddr) {
        let seat = self.seats.take();
        if let Err(words) = self.may_enter(seat.as_ref()) {
            METRICS.refused("line");
            let _ = socket.try_write(format!("! unavailable {words}\n").as_bytes());
            return;
        }
        let Ok(user) = guest::admit(None, None, peer) else { return };
        keep_line_alive(&socket);
        let codec = Codec::Lines(Lines::default());
        let out = Outgoing::new(socket, Encoding::Line);
        let mut connection = Box::new(Connection::new(out, codec, self.hall.admit(user, peer)));
        connection.start_in(self.hall.rules.first_room(), 0);
        self.hall.clients.spawn(async move {
            connection.run().await;
            drop(seat);
        });
    }

    fn may_enter(&self, seat: Option<&Seat>) -> Result<(), &'static str> {
        self.hall.gate.pass().map_err(|closed| closed.words())?;
        seat.map(|_| ()).ok_or("the hall is full; come again in a moment")
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

fn keep_line_alive(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let socket = SockRef::from(socket);
    let _ = socket.set_tcp_keepalive(&socket2::TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4));
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
}

/// Accepts until `closing`; then what is queued already, and no more.
async fn accept(listener: TcpListener, closing: CancellationToken, serve: impl Fn(TcpStream, SocketAddr)) {
    loop {
        tokio::select! {
            () = closing.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((socket, peer)) => serve(socket, peer),
                Err(error) => {
                    warn!(%error, "a connection could not be accepted");
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
