//! This node's rooms: opened when somebody comes, fed by the broker's subscription, kept as the broker is.
//!
//! The hub asks the broker, the room decides what the answer means. One read of history serves everybody who waits for it:
//! [`Hub::refresh`] is the only way in which a room asks, whether it is opened, repaired after a loss, or behind a client
//! who comes from another node.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use indexmap::IndexMap;
use tokio::sync::{Notify, Semaphore};
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::attendance::{Attendance, Register};
use crate::broker::{
    Broker, BrokerError, Delivery, FeedReceiver, History, Member, Notice, Publication, Range, Whisper,
};
use crate::deliver::Worker;
use crate::encoding::Encoding;
use crate::log::Window;
use crate::metrics::METRICS;
use crate::names::{RoomName, UserId};
use crate::outgoing::ConnectionId;
use crate::pages::{Page, Pages};
use crate::position::{Offset, Position};
use crate::presence::{Change, Present};
use crate::protocol::{Reply, who_types};
use crate::room::{Budget, Entrance, Membership, Place, Progress, Room, Wants};
use crate::vital::vital;
use crate::ws::frame::{self, Opcode};

/// A room stays open for so long after its last member left.
const LINGER: Duration = Duration::from_secs(60);
/// One in which nobody has spoken has nothing to keep.
const LINGER_SILENT: Duration = Duration::from_secs(2);
/// As many rooms may linger; more, and those close that would close first.
const LINGERING: usize = 1024;
/// So often the heads of rooms with members are compared with the broker's: a silent loss lasts no longer.
const COMPARE_EVERY: Duration = Duration::from_secs(10);
/// Rooms compared in one call.
const COMPARE_ROOMS: usize = 512;
/// So long after it was accepted, a message should have been heard.
const HEARD_WITHIN: Duration = Duration::from_millis(500);
/// Deliveries handled together.
const BATCH: usize = 512;
/// Whispers taken between two batches of deliveries.
const WHISPERS: usize = 64;
/// As many announcements may be on their way to the broker; more are forgotten.
const ANNOUNCING: usize = 256;
/// An event that lists who came and who left is not longer; else it says only how many there are.
const PRESENCE_BYTES: usize = 32 * 1024;
/// Before asking the broker again.
const RETRY: Duration = Duration::from_millis(500);

/// See the module's documentation.
pub struct Hub {
    broker: Arc<dyn Broker>,
    rooms: Mutex<HashMap<RoomName, Arc<OpenRoom>>>,
    workers: Vec<Worker>,
    pages: Pages,
    window: Window,
    budget: Arc<Budget>,
    /// Rung when any room may have missed something.
    compare: Notify,
    /// What was accepted here and not heard yet, and until when it should be.
    unheard: Mutex<VecDeque<(Instant, Arc<OpenRoom>)>>,
    /// Rung when that is no longer empty.
    unheard_begins: Notify,
    register: Arc<Register>,
    announcing: Arc<Semaphore>,
}

/// What somebody who comes into a room gets.
pub struct Entered {
    pub membership: Membership,
    pub attendance: Attendance,
    pub place: Place,
}

/// A room and what is being asked about it.
struct OpenRoom {
    room: Arc<Room>,
    subscribed: AtomicBool,
    refresh: Mutex<Option<Refresh>>,
    /// Whether that is still under way.
    reading: AtomicBool,
    repairing: AtomicBool,
    /// The newest position that was accepted here and not heard yet.
    expected: Mutex<Option<Position>>,
}

impl OpenRoom {
    /// For how long it stays open yet; `None` while somebody is here or on the way in.
    fn lingers(&self, now: Instant) -> Option<Duration> {
        let empty = self.room.empty_for(now)?;
        let linger = if self.room.head() == 0 { LINGER_SILENT } else { LINGER };
        (!self.reading.load(Ordering::Acquire)).then(|| linger.saturating_sub(empty))
    }
}

type Refresh = Shared<BoxFuture<'static, Result<(), BrokerError>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Hub {
    /// Starts the hub's tasks and `workers` delivery loops; they end with `stop`.
    pub fn start(
        broker: Arc<dyn Broker>,
        feed: FeedReceiver,
        window: Window,
        budget: usize,
        workers: usize,
        presence_grace: Duration,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        METRICS.log_budget_bytes.set(budget as f64);
        let hub = Arc::new(Hub {
            pages: Pages::new(broker.clone()),
            broker,
            rooms: Mutex::default(),
            workers: (0..workers).map(|index| Worker::start(index, stop.clone())).collect(),
            window,
            budget: Arc::new(Budget::new(budget)),
            compare: Notify::new(),
            unheard: Mutex::default(),
            unheard_begins: Notify::new(),
            register: Register::new(presence_grace),
            announcing: Arc::new(Semaphore::new(ANNOUNCING)),
        });
        let (register, broker, teller) = (hub.register.clone(), hub.broker.clone(), hub.clone());
        until(stop, register.keep(broker, move |room, change| teller.tell_members(room, change)));
        until(stop, hub.clone().receive(feed));
        until(stop, hub.clone().keep_comparing());
        until(stop, hub.clone().keep_listening());
        until(stop, hub.clone().keep_house());
        hub
    }

    /// The delivery loop that serves a connection.
    pub fn worker(&self, connection: ConnectionId) -> &Worker {
        &self.workers[connection.share(self.workers.len())]
    }

    fn find(&self, name: &RoomName) -> Option<Arc<OpenRoom>> {
        lock(&self.rooms).get(name).cloned()
    }

    fn all(&self, wanted: impl Fn(&Room) -> bool) -> Vec<Arc<OpenRoom>> {
        lock(&self.rooms).values().filter(|open| wanted(&open.room)).cloned().collect()
    }

    // --- for connections --------------------------------------------------------------------------------------------

    /// Comes into a room.
    ///
    /// # Errors
    /// When neither the room's window nor the broker can tell where the client belongs.
    pub async fn join(
        self: Arc<Self>,
        name: RoomName,
        entrance: Entrance,
        member: Member,
    ) -> Result<Entered, BrokerError> {
        let (open, membership) = self.enter(name);
        let mut asked = false;
        for round in 0.. {
            if let Some(place) = open.room.place(&entrance, asked) {
                let attendance = self.register.came(&open.room.name, member);
                if entrance.encoding == Encoding::Json {
                    self.register.first_look(&open.room.name).await;
                }
                return Ok(Entered { membership, attendance, place });
            }
            let (refresh, began_now) = self.refresh(&open, entrance.encoding);
            refresh.await?;
            // One that was already under way may have read before this client came.
            asked = began_now || round > 0;
        }
        Err(BrokerError::Unavailable("the room cannot be read".into()))
    }

    fn enter(&self, name: RoomName) -> (Arc<OpenRoom>, Membership) {
        let mut rooms = lock(&self.rooms);
        let open = rooms.entry(name).or_insert_with_key(|name| {
            Arc::new(OpenRoom {
                room: Arc::new(Room::new(name.clone(), self.window, self.budget.clone(), &self.workers)),
                subscribed: AtomicBool::new(false),
                refresh: Mutex::default(),
                reading: AtomicBool::new(false),
                repairing: AtomicBool::new(false),
                expected: Mutex::default(),
            })
        });
        (open.clone(), open.room.enter())
    }

    /// Publishes; its place in the room's order is taken at the call.
    pub fn publish(
        self: &Arc<Self>,
        publication: Publication,
    ) -> impl Future<Output = Result<Position, BrokerError>> + Send + 'static {
        let hub = self.clone();
        let room = publication.room.clone();
        let stored = self.broker.publish(publication);
        async move {
            let position = stored.await?;
            METRICS.messages_published.increment(1);
            hub.expect(&room, &position);
            Ok(position)
        }
    }

    /// The newest `limit` events below `before`.
    ///
    /// # Errors
    /// When the broker cannot tell now.
    pub fn history(
        &self,
        room: &RoomName,
        before: Offset,
        limit: usize,
    ) -> BoxFuture<'static, Result<History, BrokerError>> {
        self.broker.history(room, Range::Before { before, limit })
    }

    /// How many members the room has, as far as is known here.
    pub fn count_members(&self, room: &RoomName) -> usize {
        self.register.count(room)
    }

    /// Who is in the room, at all nodes.
    ///
    /// # Errors
    /// When the broker cannot tell now.
    pub async fn who(&self, room: &RoomName) -> Result<Present, BrokerError> {
        self.register.who(room).await
    }

    /// A member of these rooms is called otherwise.
    pub fn renamed(&self, rooms: &[RoomName], member: &Member) {
        self.register.renamed(rooms, member);
    }

    /// Tells everybody in the room that `user` is typing, now and then.
    pub fn announce_typing(&self, room: &RoomName, user: &UserId, event: Bytes) {
        let Ok(place) = self.announcing.clone().try_acquire_owned() else { return };
        if self.register.may_say_typing(room, user) {
            let announced = self.broker.announce(room, event);
            tokio::spawn(async move {
                announced.await;
                drop(place);
            });
        }
    }

    /// The page of history that goes on after `offset`. `None`, and not at once: the broker cannot tell now.
    pub async fn page(self: Arc<Self>, room: Arc<Room>, offset: Offset) -> Option<Arc<Page>> {
        match self.pages.after(&room, offset).await {
            Ok(page) if page.epoch == room.lineage().epoch => return Some(page),
            Ok(_) => {
                // The broker has forked and the room does not know yet.
                if let Some(open) = self.find(&room.name) {
                    let _ = self.refresh(&open, Encoding::Json).0.await;
                }
            }
            Err(error) => debug!(room = room.name.as_str(), %error, "no history now"),
        }
        sleep(RETRY).await;
        None
    }

    // --- asking the broker ------------------------------------------------------------------------------------------

    /// Makes the room as the broker is. Joins the reading that is under way, if there is one; says whether it began now.
    fn refresh(self: &Arc<Self>, open: &Arc<OpenRoom>, encoding: Encoding) -> (Refresh, bool) {
        let mut slot = lock(&open.refresh);
        if let Some(refresh) = slot.as_ref().filter(|_| open.reading.load(Ordering::Acquire)) {
            return (refresh.clone(), false);
        }
        open.reading.store(true, Ordering::Release);
        let (hub, opened) = (self.clone(), open.clone());
        let task = vital("reading a room", async move {
            let result = hub.read_on(&opened, encoding).await;
            opened.reading.store(false, Ordering::Release);
            result
        });
        let refresh = async move {
            let ended = || BrokerError::Unavailable("reading ended early".into());
            task.await.unwrap_or_else(|_| Err(ended()))
        };
        let refresh = refresh.boxed().shared();
        *slot = Some(refresh.clone());
        (refresh, true)
    }

    /// Subscribes before it reads, never the other way round.
    async fn read_on(&self, open: &OpenRoom, encoding: Encoding) -> Result<(), BrokerError> {
        let room = &open.room;
        if !open.subscribed.load(Ordering::Acquire) {
            self.broker.subscribe(&room.name).await?;
            open.subscribed.store(true, Ordering::Release);
            self.register.listens_again(&room.name);
        }
        if let Some(limit) = room.first_read() {
            let history = self.broker.history(&room.name, Range::Before { before: Offset::MAX, limit }).await?;
            if room.begin(&history, limit, encoding) == Progress::Done {
                return Ok(());
            }
        }
        loop {
            let read = room.next_read();
            let range = Range::From { first: read.first, limit: read.limit };
            let history = self.broker.history(&room.name, range).await?;
            if room.repair(&read, &history) == Progress::Done {
                return Ok(());
            }
        }
    }

    /// Repairs a room in the background, as long as it needs it and the broker answers.
    fn repair(self: &Arc<Self>, open: &Arc<OpenRoom>) {
        if open.repairing.swap(true, Ordering::AcqRel) {
            return;
        }
        let (hub, open) = (self.clone(), open.clone());
        tokio::spawn(async move {
            loop {
                let (refresh, began_now) = hub.refresh(&open, Encoding::Json);
                let read = refresh.await.is_ok();
                // One that was already under way may have read before the loss.
                if read && (!began_now || open.room.is_behind()) {
                    continue;
                }
                open.repairing.store(false, Ordering::Release);
                // What was missed while `repairing` was true asked for nothing by itself.
                if !read || !open.room.is_behind() || open.repairing.swap(true, Ordering::AcqRel) {
                    return;
                }
            }
        });
    }

    /// What was accepted at `position` should be heard soon.
    fn expect(&self, room: &RoomName, position: &Position) {
        let Some(open) = self.find(room) else { return };
        if open.room.has_reached(position) || lock(&open.expected).replace(position.clone()).is_some() {
            return;
        }
        let mut unheard = lock(&self.unheard);
        unheard.push_back((Instant::now() + HEARD_WITHIN, open));
        if unheard.len() == 1 {
            self.unheard_begins.notify_one();
        }
    }

    // --- what runs by itself ----------------------------------------------------------------------------------------

    /// Takes what the subscription delivers. Never waits for anything but the next delivery.
    async fn receive(self: Arc<Self>, mut feed: FeedReceiver) {
        while let Some(notice) = feed.next().await {
            match notice {
                Notice::Gapped => {
                    METRICS.feed_gaps.increment(1);
                    self.compare.notify_one();
                    self.register.look_again();
                }
                Notice::Whisper(whisper) => self.hear(&whisper),
                Notice::Delivery(first) => {
                    let mut by_room: IndexMap<RoomName, Vec<Delivery>> = IndexMap::new();
                    let mut next = Some(first);
                    for _ in 0..BATCH {
                        let Some(delivery) = next else { break };
                        by_room.entry(delivery.room.clone()).or_default().push(delivery);
                        next = feed.try_next();
                    }
                    // The last one taken has not been counted in yet when the batch is full.
                    if let Some(delivery) = next {
                        by_room.entry(delivery.room.clone()).or_default().push(delivery);
                    }
                    self.deliver(by_room);
                    for whisper in std::iter::from_fn(|| feed.try_whisper()).take(WHISPERS) {
                        self.hear(&whisper);
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Something that is stored nowhere.
    fn hear(&self, whisper: &Whisper) {
        match whisper {
            Whisper::Members { room, version } => self.register.heard(room, *version),
            Whisper::Announced { room: name, event } => {
                let Some((user, from)) = who_types(event) else { return };
                if let Some(open) = self.find(name)
                    && self.register.may_show_typing(name, &user)
                {
                    open.room.whisper(text_frame(&Reply::Typing { room: name.clone(), from }), None);
                }
            }
        }
    }

    /// Tells a room's clients who came and who went.
    fn tell_members(&self, name: &RoomName, change: &Change) {
        let Some(open) = self.find(name) else { return };
        METRICS.presence_changes.increment(1);
        let presence =
            |joined, left| text_frame(&Reply::Presence { room: name.clone(), count: change.count, joined, left });
        let count = presence(None, None);
        let frame = match &change.lists {
            Some((joined, left)) => presence(Some(joined.clone()), Some(left.clone())),
            None => count.clone(),
        };
        let frame = if frame.len() > PRESENCE_BYTES { count.clone() } else { frame };
        open.room.whisper(frame, Some(count));
    }

    fn deliver(self: &Arc<Self>, by_room: IndexMap<RoomName, Vec<Delivery>>) {
        for (name, deliveries) in by_room {
            METRICS.messages_received.increment(deliveries.len() as u64);
            let Some(open) = self.find(&name) else { continue };
            if open.room.deliver(deliveries) == Wants::Repair {
                self.repair(&open);
            }
        }
    }

    /// Repairs rooms in which something that was accepted was not heard in time.
    async fn keep_listening(self: Arc<Self>) {
        loop {
            let first = lock(&self.unheard).front().map(|(until, _)| *until);
            match first {
                None => self.unheard_begins.notified().await,
                Some(until) => sleep_until(until.into()).await,
            }
            let now = Instant::now();
            while let Some((_, open)) = lock(&self.unheard).pop_front_if(|(until, _)| *until <= now) {
                let expected = lock(&open.expected).take();
                if expected.is_some_and(|position| !open.room.has_reached(&position)) {
                    self.repair(&open);
                }
            }
        }
    }

    /// Compares rooms with the broker: those with members from time to time, all of them after a known loss.
    async fn keep_comparing(self: Arc<Self>) {
        let mut lost = false;
        loop {
            if lost {
                sleep(RETRY).await;
            } else {
                lost = timeout(COMPARE_EVERY, self.compare.notified()).await.is_ok();
            }
            let rooms = if lost { self.all(|_| true) } else { self.all(Room::has_members) };
            if self.compare_rooms(&rooms).await.is_ok() {
                lost = false;
            }
        }
    }

    async fn compare_rooms(self: &Arc<Self>, rooms: &[Arc<OpenRoom>]) -> Result<(), BrokerError> {
        let mut away = Ok(());
        for rooms in rooms.chunks(COMPARE_ROOMS) {
            let names = rooms.iter().map(|open| open.room.name.clone()).collect();
            let asked: Vec<Offset> = rooms.iter().map(|open| open.room.head()).collect();
            let heads = self.broker.heads(names).await?;
            for ((open, asked), head) in rooms.iter().zip(asked).zip(heads) {
                match head {
                    Ok(head) if open.room.check(asked, &head) == Wants::Repair => self.repair(open),
                    Err(error @ BrokerError::Unavailable(_)) => away = Err(error),
                    Ok(_) | Err(BrokerError::Format(_)) => {}
                }
            }
        }
        away
    }

    /// Closes rooms that nobody needs and keeps all windows within the budget.
    async fn keep_house(self: Arc<Self>) {
        let mut clock = interval(Duration::from_secs(1));
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = clock.tick() => {
                    self.close_quiet_rooms();
                    let now = Instant::now();
                    self.all(|_| true).iter().for_each(|open| open.room.forget_stale(now));
                    METRICS.members.set(self.register.here() as f64);
                }
                () = self.budget.exceeded() => self.shrink_to_budget(),
            }
            METRICS.rooms.set(lock(&self.rooms).len() as f64);
            METRICS.log_bytes.set(self.budget.used() as f64);
        }
    }

    fn close_quiet_rooms(&self) {
        let now = Instant::now();
        let mut rooms = lock(&self.rooms); // so that nobody comes in meanwhile
        let lingering = |(name, open): (&RoomName, &Arc<OpenRoom>)| Some((open.lingers(now)?, name.clone()));
        let mut lingering: Vec<(Duration, RoomName)> = rooms.iter().filter_map(lingering).collect();
        lingering.sort_unstable_by_key(|(left, _)| Reverse(*left));
        let stay = lingering.partition_point(|(left, _)| !left.is_zero()).min(LINGERING);
        for (_, name) in lingering.drain(stay..) {
            rooms.remove(&name);
            self.broker.unsubscribe(&name);
        }
    }

    /// Over budget, the room that has been idle longest shrinks first.
    fn shrink_to_budget(&self) {
        let mut excess = self.budget.excess();
        let mut rooms = if excess == 0 { Vec::new() } else { self.all(|_| true) };
        rooms.sort_by_cached_key(|open| open.room.quiet_since());
        for open in &rooms {
            let before = open.room.bytes();
            open.room.shrink();
            excess = excess.saturating_sub(before.saturating_sub(open.room.bytes()));
            if excess == 0 {
                break;
            }
        }
    }
}

/// A reply that everybody in a room gets, as JSON clients read it.
fn text_frame(reply: &Reply) -> Bytes {
    let mut frame = Vec::new();
    frame::write_frame(Opcode::Text, reply.to_json().as_bytes(), &mut frame);
    frame.into()
}

/// Runs `task` until `stop`.
fn until(stop: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let stop = stop.clone();
    vital("the hub", async move {
        tokio::select! {
            () = task => {}
            () = stop.cancelled() => {}
        }
    });
}
