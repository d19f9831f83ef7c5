//! A hall within this process: the hub, the memory broker and connections as `townhall serve` has them by default, but on the
//! one thread of whoever runs it, with one delivery loop. What comes before a connection (accepting, the handshake) is left out.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;

use anyhow::{anyhow, bail};
use tokio_util::sync::CancellationToken;
use townhall::auth::{Credentials, Doorkeeper, Identity};
use townhall::broker::feed;
use townhall::broker::memory::MemoryBroker;
use townhall::cli::{self, Command};
use townhall::clock::Times;
use townhall::config::Config;
use townhall::connection::{Admitted, Connection};
use townhall::door::Codec;
use townhall::drain::{Depart, Leaving, staying};
use townhall::encoding::Encoding;
use townhall::hub::Hub;
use townhall::log::Window;
use townhall::metrics;
use townhall::outgoing::Outgoing;
use townhall::session::{Rules, Session};
use townhall::ws::frame::Decoder;

/// The limit of commands is kept and never reached; no beat comes in between.
const OPTIONS: [&str; 8] = ["townhall", "serve", "--rate", "1000000", "--burst", "1000000", "--beat", "0s"];
/// Everybody's: one member, so that nobody is told who comes and goes.
const KEY: &str = "00000000-0000-4000-8000-000000000000";

pub struct Hall {
    hub: Arc<Hub>,
    rules: Arc<Rules>,
    identity: Identity,
    doorkeeper: Doorkeeper,
    leaving: Leaving,
    _staying: Depart,
    times: Times,
    frame_bytes: usize,
}

impl Hall {
    /// Opens it on the runtime that this is called on.
    pub async fn open() -> anyhow::Result<Self> {
        let config = config()?;
        let limits = &config.limits;
        metrics::install()?;
        let (feed, deliveries) = feed();
        let broker = Arc::new(MemoryBroker::new(&config.history, feed));
        let window = Window { bytes: limits.room_window, records: limits.room_window_messages };
        let stop = CancellationToken::new();
        let hub = Hub::start(broker, deliveries, window, limits.window_budget, 1, limits.presence_grace, &stop);
        let doorkeeper = Doorkeeper::new(&config.auth).map_err(anyhow::Error::msg)?;
        let (depart, leaving) = staying();
        Ok(Hall {
            hub,
            rules: Arc::new(Rules::new(&config, "instructions")),
            identity: admit(&doorkeeper).await?,
            doorkeeper,
            leaving,
            _staying: depart,
            times: Times { beat: limits.beat, write_timeout: limits.write_timeout },
            frame_bytes: limits.frame,
        })
    }

    /// Somebody comes in; the client's end of the socket.
    pub fn enter(&self) -> anyhow::Result<TcpStream> {
        let (ours, client) = connected()?;
        let peer = client.local_addr()?;
        let out = Outgoing::new(tokio::net::TcpStream::from_std(ours)?, Encoding::Json);
        let admitted = Admitted {
            session: Session::new(self.rules.clone(), self.identity.clone(), std::time::Instant::now()),
            hub: self.hub.clone(),
            doorkeeper: self.doorkeeper.clone(),
            leaving: self.leaving.clone(),
            times: self.times,
            peer,
        };
        let connection = Connection::new(out, Codec::Frames(Decoder::new(self.frame_bytes)), admitted);
        tokio::spawn(Box::new(connection).run());
        Ok(client)
    }
}

fn config() -> anyhow::Result<Config> {
    let Ok(Command::Serve(options)) = cli::parse(OPTIONS.map(Into::into)) else {
        bail!("the hall does not know these options: {OPTIONS:?}");
    };
    Ok(options.into_config(1024)?)
}

async fn admit(doorkeeper: &Doorkeeper) -> anyhow::Result<Identity> {
    let brought = Credentials { name: Some("zoe".into()), key: Some(KEY.into()), token: None };
    let admitted = doorkeeper.admit(brought, (Ipv4Addr::LOCALHOST, 0).into()).await;
    admitted.map_err(|refused| anyhow!("not let in: {}", refused.words()))
}

/// Both ends of a connection that holds nothing back to send it together.
fn connected() -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    let (ours, _) = listener.accept()?;
    for socket in [&ours, &client] {
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
    }
    Ok((ours, client))
}
