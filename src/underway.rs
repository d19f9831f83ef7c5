//! What a connection has asked for and not got yet.
//!
//! Commands about different rooms do not wait for each other, and a `say` waits for nobody but its own room's join: that is
//! how a client with many rooms is answered within one deadline when the broker is away. Within a room the order is kept:
//! nothing overtakes a join or a leave, and a leave overtakes no message, no history and no list of members.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::time::sleep;
use tracing::debug;
use uuid::Uuid;

use crate::auth::{Credentials, Doorkeeper, Identity, NotAdmitted};
use crate::broker::{BrokerError, History, Member, Publication};
use crate::encoding::Encoding;
use crate::hub::{Entered, Hub};
use crate::names::RoomName;
use crate::outgoing::Outgoing;
use crate::position::{Offset, Position};
use crate::presence::Present;
use crate::protocol::{Command, ErrorCode, Ref, Refusal, Tag};
use crate::room::{Entrance, Membership, Room};

/// As many messages of one client may be on their way to the broker.
const PUBLISHING: usize = 64;
/// As many parts of history or lists of members may be read for one client at a time; each may become a quarter of a MiB in
/// its outbox.
const READING: usize = 2;
/// As many joins and leaves of one client may be under way.
const MOVES: usize = 64;
/// When to try again what the broker could not do: it was given its deadline already.
const RETRY: Duration = Duration::from_millis(500);

/// How something ended.
pub enum Outcome {
    Joined { entered: Box<Entered>, reference: Option<Ref>, moved: bool },
    NotJoined { room: RoomName, refusal: Refusal },
    History { room: RoomName, reference: Option<Ref>, history: History, before: Offset, limit: u64 },
    Accepted { room: RoomName, id: Uuid, reference: Option<Ref>, position: Position, said_at: Instant },
    Who { room: RoomName, reference: Option<Ref>, present: Present },
    LoggedIn(Box<Result<Identity, NotAdmitted>>),
    Refused(Refusal),
    Done,
}

/// What ends when a future does.
enum Ends {
    Move(RoomName),
    Say(RoomName),
    Reading,
    LogIn,
}

type Ending = (Ends, Outcome);

/// See the module's documentation. Most clients are idle most of the time, and then it is nothing.
#[derive(Default)]
pub struct UnderWay(Option<Box<Busy>>);

#[derive(Default)]
struct Busy {
    futures: FuturesUnordered<BoxFuture<'static, Ending>>,
    /// What the delivery loop is still to be told. Apart, since this alone outlives the connection: a loop that never hears
    /// that somebody has gone keeps the socket for ever.
    telling: FuturesUnordered<BoxFuture<'static, RoomName>>,
    moving: Vec<RoomName>,
    saying: Vec<RoomName>,
    reading: usize,
}

impl Busy {
    fn is_over(&self) -> bool {
        self.futures.is_empty() && self.telling.is_empty()
    }

    /// Whether something must end before `command` may begin.
    fn holds_back(&self, command: &Command) -> bool {
        let is_here = |rooms: &[RoomName]| rooms.iter().any(|room| room.as_str() == command.room());
        is_here(&self.moving)
            || match command {
                Command::Join { .. } => self.moving.len() >= MOVES,
                Command::Leave { .. } => is_here(&self.saying) || self.reading > 0 || self.moving.len() >= MOVES,
                Command::Say { .. } => self.saying.len() >= PUBLISHING,
                Command::History { .. } | Command::Who { .. } => self.reading >= READING,
                Command::Typing { .. } => false,
            }
    }

    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let ending = match self.futures.poll_next_unpin(context) {
            Poll::Ready(Some(ending)) => Some(ending),
            Poll::Ready(None) | Poll::Pending => match self.telling.poll_next_unpin(context) {
                Poll::Ready(Some(room)) => Some((Ends::Move(room), Outcome::Done)),
                Poll::Ready(None) | Poll::Pending => None,
            },
        };
        let Some((ends, outcome)) = ending else { return Poll::Pending };
        match ends {
            Ends::Move(room) => remove(&mut self.moving, &room),
            Ends::Say(room) => remove(&mut self.saying, &room),
            Ends::Reading => self.reading -= 1,
            Ends::LogIn => {}
        }
        Poll::Ready(outcome)
    }
}

impl UnderWay {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Whether something must end before `command` may begin.
    pub fn holds_back(&self, command: &Command) -> bool {
        self.0.as_ref().is_some_and(|busy| busy.holds_back(command))
    }

    /// The next end; pending while nothing is under way.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Outcome> {
        let Some(busy) = &mut self.0 else { return Poll::Pending };
        let outcome = busy.poll_next(context);
        if busy.is_over() {
            self.0 = None;
        }
        outcome
    }

    /// Gives up what was asked for; the delivery loop is still told what it must know.
    pub async fn give_up(self) {
        let Some(busy) = self.0 else { return };
        let Busy { futures, mut telling, .. } = *busy;
        drop(futures);
        while telling.next().await.is_some() {}
    }

    fn busy(&mut self) -> &mut Busy {
        self.0.get_or_insert_default()
    }

    /// Comes into a room. A door without JSON tries again by itself until it is in.
    pub fn join(
        &mut self,
        hub: &Arc<Hub>,
        room: RoomName,
        entrance: Entrance,
        member: Member,
        reference: Option<Ref>,
        moved: bool,
    ) {
        let hub = hub.clone();
        let busy = self.busy();
        busy.moving.push(room.clone());
        busy.futures.push(Box::pin(async move {
            let outcome = loop {
                match hub.clone().join(room.clone(), entrance.clone(), member.clone()).await {
                    Ok(entered) => break Outcome::Joined { entered: Box::new(entered), reference, moved },
                    Err(error) if entrance.encoding == Encoding::Json => {
                        let tag = Tag { reference, room: Some(room.as_str().into()), id: None };
                        break Outcome::NotJoined { room: room.clone(), refusal: unavailable(&error, tag) };
                    }
                    Err(_) => sleep(RETRY).await,
                }
            };
            (Ends::Move(room), outcome)
        }));
    }

    /// Asks who it is that wants to come in. At the line door, where one thing is done after the other.
    pub fn log_in(&mut self, doorkeeper: &Doorkeeper, brought: Credentials, peer: SocketAddr) {
        let doorkeeper = doorkeeper.clone();
        self.busy().futures.push(Box::pin(async move {
            let admitted = doorkeeper.admit(brought, peer).await;
            (Ends::LogIn, Outcome::LoggedIn(Box::new(admitted)))
        }));
    }

    /// Tells the delivery loop that the connection is in a room now, and no longer in others.
    pub fn moved(&mut self, hub: &Hub, out: Arc<Outgoing>, came: Option<Arc<Room>>, went: Vec<Membership>) {
        let worker = hub.worker(out.id).clone();
        let Some(room) = came.as_ref().or(went.first().map(Membership::room)) else { return };
        let name = room.name.clone();
        let busy = self.busy();
        busy.moving.push(name.clone());
        busy.telling.push(Box::pin(async move {
            for membership in went {
                worker.went(membership.room().clone(), out.id).await;
            }
            if let Some(room) = came {
                worker.came(room, out).await;
            }
            name
        }));
    }

    /// Publishes. A door without JSON tries again by itself, with the same id.
    pub fn say(&mut self, hub: &Arc<Hub>, publication: Publication, reference: Option<Ref>, encoding: Encoding) {
        let (hub, room, id, said_at) = (hub.clone(), publication.room.clone(), publication.id, Instant::now());
        let mut stored = hub.publish(publication.clone()).boxed();
        let busy = self.busy();
        busy.saying.push(room.clone());
        busy.futures.push(Box::pin(async move {
            let outcome = loop {
                match stored.await {
                    Ok(position) => {
                        break Outcome::Accepted { room: room.clone(), id, reference, position, said_at };
                    }
                    Err(error) if encoding == Encoding::Json => {
                        let (id, room) = (Some(id.to_string().into()), Some(room.as_str().into()));
                        break Outcome::Refused(unavailable(&error, Tag { reference, id, room }));
                    }
                    Err(_) => {
                        sleep(RETRY).await;
                        stored = hub.publish(publication.clone()).boxed();
                    }
                }
            };
            (Ends::Say(room), outcome)
        }));
    }

    /// Reads the newest `limit` events below `before`.
    pub fn history(&mut self, hub: &Hub, room: RoomName, before: Offset, limit: u64, reference: Option<Ref>) {
        let history = hub.history(&room, before, limit as usize);
        let busy = self.busy();
        busy.reading += 1;
        busy.futures.push(Box::pin(async move {
            let outcome = match history.await {
                Ok(history) => Outcome::History { room, reference, history, before, limit },
                Err(error) => {
                    let room = Some(room.as_str().into());
                    Outcome::Refused(unavailable(&error, Tag { reference, room, id: None }))
                }
            };
            (Ends::Reading, outcome)
        }));
    }

    /// Asks who is in a room.
    pub fn who(&mut self, hub: &Arc<Hub>, room: RoomName, reference: Option<Ref>) {
        let hub = hub.clone();
        let busy = self.busy();
        busy.reading += 1;
        busy.futures.push(Box::pin(async move {
            let outcome = match hub.who(&room).await {
                Ok(present) => Outcome::Who { room, reference, present },
                Err(error) => {
                    let room = Some(room.as_str().into());
                    Outcome::Refused(unavailable(&error, Tag { reference, room, id: None }))
                }
            };
            (Ends::Reading, outcome)
        }));
    }
}

fn remove(rooms: &mut Vec<RoomName>, room: &RoomName) {
    if let Some(index) = rooms.iter().position(|found| found == room) {
        rooms.swap_remove(index);
    }
}

fn unavailable(error: &BrokerError, tag: Tag) -> Refusal {
    debug!(%error, room = tag.room.as_deref(), "told to try again");
    Refusal::retry(ErrorCode::Unavailable, error.for_clients(), RETRY.as_millis() as u64, tag)
}
