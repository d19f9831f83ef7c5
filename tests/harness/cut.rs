//! A wire that can be cut: a TCP proxy for whatever networks do to connections.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Passes bytes both ways until told otherwise. Gone when dropped, with all its connections.
pub struct Cut {
    address: SocketAddr,
    wire: Arc<Wire>,
    accepting: JoinHandle<()>,
}

struct Wire {
    /// Grows with every cut; a connection lives in the generation it was accepted in.
    generation: watch::Sender<u64>,
    /// How many WebSockets there have been.
    upgraded: AtomicU64,
    faults: Mutex<Faults>,
    /// Where new connections go.
    server: Mutex<SocketAddr>,
}

/// What happens to bytes, mostly on their way from the server to a client.
#[derive(Default)]
struct Faults {
    /// So many more bytes pass, over all connections; then all are cut, once.
    cut_after: Option<usize>,
    /// The next piece that contains these bytes is dropped, once.
    swallow_next: Option<Vec<u8>>,
    /// The connection on which the next piece comes that contains these bytes brings nothing from there on, once.
    mute_from: Option<Vec<u8>>,
    /// Nothing arrives any more, and nobody is told.
    swallow_all: bool,
    /// The first so many WebSockets carry nothing any more, either way, and nobody is told.
    dead: u64,
}

/// The number of a connection that is none.
const NO_WEBSOCKET: u64 = u64::MAX;

/// What becomes of a connection after a piece.
enum After {
    AsBefore,
    Cut,
    Mute,
}

impl Cut {
    /// A wire to `server`; clients connect to [`Cut::address`].
    pub async fn in_front_of(server: SocketAddr) -> Cut {
        Cut::at("127.0.0.1:0", server).await
    }

    /// The same with an address of the caller's choice.
    pub async fn at(address: &str, server: SocketAddr) -> Cut {
        let listener =
            TcpListener::bind(address).await.unwrap_or_else(|error| panic!("cannot listen at {address}: {error}"));
        let wire = Arc::new(Wire {
            generation: watch::Sender::new(0),
            upgraded: AtomicU64::new(0),
            faults: Mutex::default(),
            server: Mutex::new(server),
        });
        Cut {
            address: listener.local_addr().expect("bound"),
            accepting: tokio::spawn(accept(listener, wire.clone())),
            wire,
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `ws://…/ws` through this wire.
    pub fn ws_url(&self) -> String {
        format!("ws://{}/ws", self.address)
    }

    /// New connections go there, as a load balancer has it whose server is gone.
    pub fn lead_to(&self, server: SocketAddr) {
        *self.wire.server.lock().expect("a connection panicked") = server;
    }

    /// Cuts every connection; new ones pass.
    pub fn cut(&self) {
        self.wire.cut();
    }

    /// Lets `bytes` more bytes through to clients, then cuts every connection, in the middle of whatever it is.
    pub fn cut_after(&self, bytes: usize) {
        self.wire.faults().cut_after = Some(bytes);
    }

    /// Drops the next piece on its way to a client that contains `bytes`. A piece is what one write of the server
    /// brought: on a quiet wire, one message.
    pub fn swallow_next_with(&self, bytes: &str) {
        self.wire.faults().swallow_next = Some(bytes.into());
    }

    /// Whether the piece that [`Cut::swallow_next_with`] waits for has come.
    pub fn has_swallowed(&self) -> bool {
        self.wire.faults().swallow_next.is_none()
    }

    /// The connection that is about to bring these bytes to a client brings neither them nor anything after them, and stays
    /// open: an answer is lost, and no later one can be mistaken for it.
    pub fn mute_from(&self, bytes: &str) {
        self.wire.faults().mute_from = Some(bytes.into());
    }

    /// Whether what [`Cut::mute_from`] waits for has come.
    pub fn has_muted(&self) -> bool {
        self.wire.faults().mute_from.is_none()
    }

    /// The WebSockets that there are carry nothing any more, either way, and stay open; new ones pass.
    pub fn kill_silently(&self) {
        self.wire.faults().dead = self.wire.upgraded.load(Ordering::SeqCst);
    }

    /// From now on (or no longer) nothing that a server says arrives; connections stay.
    pub fn swallow_all(&self, swallow: bool) {
        self.wire.faults().swallow_all = swallow;
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Wire {
    fn faults(&self) -> std::sync::MutexGuard<'_, Faults> {
        self.faults.lock().expect("a connection panicked")
    }

    fn is_dead(&self, number: &AtomicU64) -> bool {
        number.load(Ordering::SeqCst) < self.faults().dead
    }

    fn cut(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// What of `piece` goes on to the client, and what comes after it.
    fn pass<'a>(&self, piece: &'a [u8]) -> (&'a [u8], After) {
        let mut faults = self.faults();
        let holds = |needle: &Option<Vec<u8>>| {
            needle.as_ref().is_some_and(|needle| piece.windows(needle.len()).any(|part| part == needle))
        };
        if faults.swallow_all {
            return (&[], After::AsBefore);
        }
        if holds(&faults.mute_from) {
            faults.mute_from = None;
            return (&[], After::Mute);
        }
        if holds(&faults.swallow_next) {
            faults.swallow_next = None;
            return (&[], After::AsBefore);
        }
        match faults.cut_after {
            Some(left) if left <= piece.len() => {
                faults.cut_after = None;
                (&piece[..left], After::Cut)
            }
            Some(left) => {
                faults.cut_after = Some(left - piece.len());
                (piece, After::AsBefore)
            }
            None => (piece, After::AsBefore),
        }
    }
}

async fn accept(listener: TcpListener, wire: Arc<Wire>) {
    while let Ok((client, _)) = listener.accept().await {
        let generation = wire.generation.subscribe();
        let server = *wire.server.lock().expect("a connection panicked");
        tokio::spawn(carry(client, server, wire.clone(), generation));
    }
}

/// One connection, until either side ends it or the wire is cut.
async fn carry(client: TcpStream, server: SocketAddr, wire: Arc<Wire>, mut generation: watch::Receiver<u64>) {
    let Ok(server) = TcpStream::connect(server).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let number = AtomicU64::new(NO_WEBSOCKET);
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::select! {
        _ = asks(from_client, to_server, &wire, &number) => {}
        _ = answers(from_server, to_client, &wire, &number) => {}
        _ = generation.changed() => {}
    }
}

async fn asks(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, wire: &Wire, number: &AtomicU64) -> std::io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    loop {
        match from.read(&mut piece).await? {
            0 => return Ok(()),
            _ if wire.is_dead(number) => {}
            length => to.write_all(&piece[..length]).await?,
        }
    }
}

async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    wire: &Wire,
    number: &AtomicU64,
) -> std::io::Result<()> {
    let mut piece = vec![0; 64 * 1024];
    let mut muted = false;
    loop {
        let length = from.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        if piece.starts_with(b"HTTP/1.1 101 ") && number.load(Ordering::SeqCst) == NO_WEBSOCKET {
            number.store(wire.upgraded.fetch_add(1, Ordering::SeqCst), Ordering::SeqCst);
        }
        if muted || wire.is_dead(number) {
            continue;
        }
        let (passed, after) = wire.pass(&piece[..length]);
        to.write_all(passed).await?;
        match after {
            After::AsBefore => {}
            After::Cut => wire.cut(),
            After::Mute => muted = true,
        }
    }
}
