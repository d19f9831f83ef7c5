//! The task that keeps a terminal connected: orders in, [`Happening`]s out.
//!
//! It owns the connection and the [`Client`], reconnects with full jitter for as long as it was told to, and ends with one last
//! word. While whoever listens takes nothing, it reads nothing; nothing is lost by that, since it resumes.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Address;
use super::client::{Client, Dead, News};
use super::frames::Refused;
use super::line_door;
use super::link::{Login, Socket, Token};
use super::trouble::Trouble;

/// A wait is anything between nothing and a bound that doubles from the first to the second.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_LAST: Duration = Duration::from_secs(20);
/// A connection that lived this long was a good one.
pub const STABLE: Duration = Duration::from_secs(5);
/// From the end of the handshake to the `welcome`.
const WELCOME_DEADLINE: Duration = Duration::from_secs(10);
/// What does not go on for so long is told to be stuck.
pub const TOLD_AFTER: Duration = Duration::from_secs(5);
const EXPIRED: u16 = 4101;
const RESTART: u16 = 1012;

/// What to do.
#[derive(Debug)]
pub enum Order {
    Join {
        room: String,
        last: u64,
    },
    Leave {
        room: String,
    },
    Say {
        room: String,
        text: String,
        tag: u64,
    },
    Typing {
        room: String,
    },
    Who {
        room: String,
    },
    History {
        room: String,
        before: Option<u64>,
        limit: u64,
    },
    /// To be called otherwise: a short reconnection as the same person.
    Rename {
        name: String,
    },
    /// Leaves for good.
    Close,
}

#[derive(Debug)]
pub enum Happening {
    News(News),
    /// A frame as it came, before the [`News`] that it led to; told only to those who want them.
    Frame(String),
    /// A line of the line door.
    Line(String),
    /// At the line door: in, and whatever is said from now on is heard.
    AtTheLine,
    /// The connection is gone, or there was none to be had; it is tried again.
    Down(Trouble),
    /// There is a connection, but what is wanted has not gone on for a while: the hall's broker is away, as it seems.
    Stuck,
    /// The name that was wanted is refused; the one before it is kept.
    NotRenamed(Refused),
    /// It is over.
    Over(End),
}

#[derive(Debug)]
pub enum End {
    /// As ordered.
    Left,
    Trouble(Trouble),
}

/// How it is to be done.
#[derive(Debug, Clone)]
pub struct Manner {
    pub address: Address,
    pub login: Login,
    /// Whether lists of who is here are kept.
    pub lists: bool,
    /// Whether frames are told as they come.
    pub frames: bool,
    /// How long to try where there is no connection; `None`: for ever.
    pub first_patience: Option<Duration>,
    pub patience: Option<Duration>,
}

/// The front's ends of a talk.
pub struct Talk {
    pub orders: mpsc::UnboundedSender<Order>,
    pub happenings: mpsc::Receiver<Happening>,
}

impl Talk {
    /// Whoever orders bounds what waits: see [`News::Accepted`] and [`News::Failed`].
    pub fn begin(manner: Manner) -> Talk {
        let (orders, ordered) = mpsc::unbounded_channel();
        let (tell, happenings) = mpsc::channel(256);
        match manner.address {
            Address::Socket(_) => tokio::spawn(Talker::new(manner, ordered, tell).run()),
            Address::Lines(_) => tokio::spawn(line_door::talk(manner, ordered, tell)),
        };
        Talk { orders, happenings }
    }

    pub fn order(&self, order: Order) {
        let _ = self.orders.send(order); // who is gone was told why by `Over`
    }
}

/// When to try again, and when to give up.
pub struct Patience {
    first: Option<Duration>,
    later: Option<Duration>,
    rereads: bool,
    attempt: u32,
    was_connected: bool,
    without_since: Instant,
}

impl Patience {
    pub fn new(manner: &Manner) -> Self {
        Patience {
            first: manner.first_patience,
            later: manner.patience,
            rereads: matches!(manner.login.token, Some(Token::In(_))),
            attempt: 0,
            was_connected: false,
            without_since: Instant::now(),
        }
    }

    /// A connection is gone that was there for so long, and on which something went on lastly at that time.
    pub fn had(&mut self, lasted: Duration, progress: Option<Instant>) {
        self.was_connected = true;
        self.without_since = progress.unwrap_or(self.without_since);
        if lasted >= STABLE {
            self.attempt = 0;
        }
    }

    /// When to give up on a connection on which nothing goes on. An answer may take a moment, however short the patience.
    pub fn ends(&self, since: Instant) -> Option<Instant> {
        self.later.map(|patience| since + patience.max(TOLD_AFTER))
    }

    /// When to try again after this; `None`: never.
    pub fn again(&mut self, trouble: &Trouble) -> Option<Instant> {
        let bound = BACKOFF_FIRST.saturating_mul(1 << self.attempt.min(8)).min(BACKOFF_LAST);
        self.attempt += 1;
        // Who says "in an hour" is asked sooner all the same: it may be another one who answers then.
        let wait = bound.mul_f64(rand::random()).max(trouble.retry_after().unwrap_or_default().min(BACKOFF_LAST));
        let patience = if self.was_connected { self.later } else { self.first };
        let now = Instant::now();
        let left = patience.map(|patience| (self.without_since + patience).saturating_duration_since(now));
        let in_time = left.is_none_or(|left| !left.is_zero());
        let at = now + left.map_or(wait, |left| wait.min(left)); // once more at the very end
        let passes = trouble.passes() || self.was_connected && trouble.passes_later(self.rereads);
        (passes && in_time).then_some(at)
    }
}

struct Talker {
    manner: Manner,
    orders: mpsc::UnboundedReceiver<Order>,
    tell: mpsc::Sender<Happening>,
    client: Client,
    patience: Patience,
    /// Renamed, and not yet let in under the new name: the one before.
    former_name: Option<Option<String>>,
    /// Sent on at once by a replica that kept us for no time.
    hurried: bool,
    /// When something went on lastly: a message was accepted, or nothing was wanted.
    progress: Option<Instant>,
    /// From when on this connection is looked at: its beginning, or later progress, without the time in which nobody took what
    /// we had to tell.
    waits_since: Instant,
    /// It was told that nothing goes on.
    stuck: bool,
}

/// Why a connection ended.
enum Ending {
    /// As ordered.
    Left,
    /// To connect again at once.
    Again,
    /// For good.
    GaveUp(Trouble),
    Trouble(Trouble),
}

impl From<Trouble> for Ending {
    fn from(trouble: Trouble) -> Self {
        Ending::Trouble(trouble)
    }
}

impl From<Dead> for Ending {
    fn from(dead: Dead) -> Self {
        Ending::Trouble(Trouble::Dead(dead))
    }
}

impl Talker {
    fn new(manner: Manner, orders: mpsc::UnboundedReceiver<Order>, tell: mpsc::Sender<Happening>) -> Self {
        let client = Client::new(manner.lists, Instant::now());
        let patience = Patience::new(&manner);
        Talker {
            manner,
            orders,
            tell,
            client,
            patience,
            former_name: None,
            hurried: false,
            progress: None,
            waits_since: Instant::now(),
            stuck: false,
        }
    }

    async fn run(mut self) {
        let end = self.until_it_is_over().await;
        let why = match end {
            End::Left => Refused::ours("left", "you left"),
            End::Trouble(_) => Refused::ours("lost", "the line broke"),
        };
        let given_up = self.client.abandon(&why);
        let _ = self.tell_all(given_up).await; // nobody needs to hear it
        let _ = self.tell.send(Happening::Over(end)).await;
    }

    async fn until_it_is_over(&mut self) -> End {
        loop {
            let mut trouble = match self.connection().await {
                Ending::Left => return End::Left,
                Ending::Again => continue,
                Ending::GaveUp(trouble) => return End::Trouble(trouble),
                Ending::Trouble(trouble) => trouble,
            };
            if let Some(refused) = self.not_renamed(&trouble) {
                if self.tell(Happening::NotRenamed(refused)).await.is_err() {
                    return End::Left;
                }
                continue;
            }
            if matches!(trouble, Trouble::Closed { code: EXPIRED, .. }) {
                match self.manner.login.token {
                    Some(Token::In(_)) if self.patience.attempt == 0 => {
                        self.patience.attempt = 1;
                        continue;
                    }
                    Some(Token::In(_)) => {}
                    _ => trouble = Trouble::Expired,
                }
            }
            let Some(at) = self.patience.again(&trouble) else { return End::Trouble(trouble) };
            if self.tell(Happening::Down(trouble)).await.is_err() {
                return End::Left;
            }
            if let Err(Ending::Left) = self.obey_until(sleep_until(at)).await {
                return End::Left;
            }
        }
    }

    /// A hall that lets us in, and not under the new name.
    fn not_renamed(&mut self, trouble: &Trouble) -> Option<Refused> {
        let refused = match trouble {
            Trouble::Status { status: 400, words, .. } => Refused { code: "bad_name".into(), words: words.clone() },
            Trouble::Unauthorized { words } => Refused { code: "unauthorized".into(), words: words.clone() },
            _ => return None,
        };
        let former = self.former_name.take()?;
        self.manner.login.name = former;
        Some(refused)
    }

    /// Takes orders until this is there.
    async fn obey_until<T>(&mut self, awaited: impl Future<Output = T>) -> Result<T, Ending> {
        tokio::pin!(awaited);
        loop {
            tokio::select! {
                value = &mut awaited => return Ok(value),
                order = self.orders.recv() => self.obey(order.unwrap_or(Order::Close)).await?,
            }
        }
    }

    /// One connection, from the handshake to its end.
    async fn connection(&mut self) -> Ending {
        let Manner { address, login, .. } = self.manner.clone();
        let mut socket = match self.obey_until(Socket::open(&address, &login)).await {
            Ok(Ok(socket)) => socket,
            Ok(Err(trouble)) => return trouble.into(),
            Err(ending) => return ending,
        };
        let news = match self.welcome(&mut socket).await {
            Ok(news) => news,
            Err(ending) => return ending,
        };
        let since = Instant::now();
        self.waits_since = since;
        self.former_name = None;
        let ending = match self.tell_all(news).await {
            Ok(()) => self.serve(&mut socket, since).await,
            Err(ending) => ending,
        };
        if !self.client.waits() {
            self.goes_on();
        }
        if matches!(ending, Ending::Left) {
            self.leave(&mut socket).await;
        }
        self.client.lost();
        self.patience.had(since.elapsed(), self.progress);
        if matches!(ending, Ending::Left | Ending::Again) {
            socket.close().await;
        }
        ending
    }

    /// Who leaves for good is gone at once, and not when the others have waited for him in vain.
    async fn leave(&mut self, socket: &mut Socket) {
        self.client.leave_all();
        while let Some(frame) = self.client.next(Instant::now()) {
            if socket.send(frame).await.is_err() {
                return;
            }
        }
    }

    /// Waits to be let in.
    async fn welcome(&mut self, socket: &mut Socket) -> Result<Vec<News>, Ending> {
        let deadline = Instant::now() + WELCOME_DEADLINE;
        loop {
            let Ok(text) = timeout_at(deadline, socket.next()).await else {
                let address = self.manner.address.to_string();
                return Err(Trouble::TimedOut { address }.into());
            };
            let text = text?;
            let news = self.client.hear(&text, Instant::now())?;
            if !news.is_empty() {
                self.tell_frame(&text).await?;
                return Ok(news);
            }
            if let Ok((super::frames::Frame::Error(refusal), _)) = super::frames::Frame::parse(&text) {
                let refused = Refused { code: refusal.code, words: refusal.message };
                return Err(match refused.code.as_str() {
                    "unauthorized" => Trouble::Unauthorized { words: refused.words },
                    _ => Trouble::Refused(refused),
                }
                .into());
            }
        }
    }

    /// Serves both sides until one of them ends it.
    async fn serve(&mut self, socket: &mut Socket, since: Instant) -> Ending {
        let mut leave_at: Option<Instant> = None;
        loop {
            let done = async {
                self.tick_and_send(socket).await?;
                let wakes = [self.client.wake(Instant::now()), leave_at, self.look_whether_stuck().await?];
                let wake = wakes.into_iter().flatten().min();
                tokio::select! {
                    text = socket.next() => {
                        let text = text?;
                        let news = self.client.hear(&text, Instant::now())?;
                        if let Some(News::Leaving { after }) = news.first() {
                            leave_at = Some(Instant::now() + *after);
                        }
                        if !news.is_empty() {
                            self.tell_frame(&text).await?;
                            self.tell_all(news).await?;
                        }
                    }
                    order = self.orders.recv() => self.obey(order.unwrap_or(Order::Close)).await?,
                    () = sleep_until(wake.unwrap_or_else(far_away)), if wake.is_some() => {
                        if leave_at.is_some_and(|at| at <= Instant::now()) {
                            return Err(self.moving(since));
                        }
                    }
                }
                Ok(())
            };
            match done.await {
                Ok(()) => {}
                Err(Ending::Trouble(Trouble::Closed { code: RESTART, .. })) => return self.moving(since),
                Err(ending) => return ending,
            }
        }
    }

    /// Tells it, and after a while gives up, where what is wanted does not go on. When to look again.
    async fn look_whether_stuck(&mut self) -> Result<Option<Instant>, Ending> {
        if !self.client.waits() {
            self.goes_on();
            return Ok(None);
        }
        let (now, from) = (Instant::now(), self.waits_since);
        if self.patience.ends(from).is_some_and(|end| end <= now) {
            let words = "it stores nothing just now".into();
            return Err(Ending::GaveUp(Trouble::Refused(Refused { code: "unavailable".into(), words })));
        }
        if !self.stuck && now >= from + TOLD_AFTER {
            self.stuck = true;
            self.tell(Happening::Stuck).await?;
        }
        let tells = (!self.stuck).then_some(from + TOLD_AFTER);
        Ok([tells, self.patience.ends(from)].into_iter().flatten().min())
    }

    fn goes_on(&mut self) {
        let now = Instant::now();
        (self.progress, self.waits_since, self.stuck) = (Some(now), now, false);
    }

    async fn tick_and_send(&mut self, socket: &mut Socket) -> Result<(), Ending> {
        let news = self.client.tick(Instant::now())?;
        self.tell_all(news).await?;
        while let Some(frame) = self.client.next(Instant::now()) {
            socket.send(frame).await?;
        }
        Ok(())
    }

    /// At once; but replicas that send us from one to the next, over and over, are not taken at their word for ever.
    fn moving(&mut self, since: Instant) -> Ending {
        let lasted = since.elapsed() >= STABLE;
        let again = !lasted && self.hurried;
        self.hurried = !lasted;
        if again {
            return Trouble::Closed { code: RESTART, words: "asked to reconnect".into() }.into();
        }
        Ending::Again
    }

    /// What is to be done with or without a connection.
    async fn obey(&mut self, order: Order) -> Result<(), Ending> {
        if !self.client.waits() {
            self.goes_on(); // what is wanted from now on has waited for no time
        }
        let client = &mut self.client;
        match order {
            Order::Join { room, last } => client.join(&room, last),
            Order::Leave { room } => client.leave(&room),
            Order::Say { room, text, tag } => client.say(&room, text, tag),
            Order::Typing { room } => client.typing(&room, Instant::now()),
            Order::Who { room } => client.who(&room),
            Order::History { room, before, limit } => client.history(&room, before, limit),
            Order::Rename { name } => {
                let former = self.manner.login.name.replace(name);
                self.former_name.get_or_insert(former);
                return Err(Ending::Again);
            }
            Order::Close => return Err(Ending::Left),
        }
        let news = client.take_news();
        self.tell_all(news).await
    }

    async fn tell_frame(&mut self, text: &str) -> Result<(), Ending> {
        if self.manner.frames { self.tell(Happening::Frame(text.to_owned())).await } else { Ok(()) }
    }

    async fn tell_all(&mut self, news: Vec<News>) -> Result<(), Ending> {
        for news in news {
            // To have caught up is as far as one comes, over and over, where the hall takes nothing that is said.
            if matches!(news, News::Accepted { .. }) {
                self.goes_on();
            }
            self.tell(Happening::News(news)).await?;
        }
        Ok(())
    }

    /// While nobody takes it nothing else goes on, and the hall is not to blame for that.
    async fn tell(&mut self, happening: Happening) -> Result<(), Ending> {
        let began = Instant::now();
        self.tell.send(happening).await.map_err(|_| Ending::Left)?;
        let now = Instant::now();
        self.waits_since += now - began;
        self.progress = self.progress.map(|progress| progress + (now - began));
        self.patience.without_since += now - began;
        self.client.was_held_up(now - began, now);
        Ok(())
    }
}

/// For a sleep that is not slept.
fn far_away() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
