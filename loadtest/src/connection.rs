//! A client's life on the network: it connects, talks, loses its connection and comes back.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep_until, timeout};
use tokio_tungstenite::tungstenite::Error;
use uuid::Uuid;

use crate::guest::{Guest, Reaction, Room};
use crate::line::{Came, Line, in_short};
use crate::run::Run;
use crate::standing::TICK;
use crate::tally::Tally;
use crate::worker::Phase;

/// How an end is called that was planned.
pub const LEFT: &str = "left, as planned";
/// From the first packet to the upgrade.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const SHORTEST_BACKOFF: Duration = Duration::from_millis(50);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The run is over.
    Over,
    /// The server asked the client to go elsewhere.
    Moved,
    /// It leaves for a while, as planned.
    Left,
    /// There is no way back in.
    Final(String),
    /// It may come back.
    Lost(String),
}

impl End {
    /// By a close frame: 40xx never come back by themselves.
    fn closed(code: u16) -> Self {
        let why = format!("closed {code}");
        match code {
            4000..=4099 => End::Final(why),
            _ => End::Lost(why),
        }
    }

    fn failed(error: &Error) -> Self {
        End::Lost(in_short(error))
    }
}

/// One client and its surroundings.
pub struct Life {
    pub guest: Rc<RefCell<Box<dyn Guest>>>,
    /// Its room's place among the rooms of the run.
    pub room: usize,
    pub tally: Rc<RefCell<Tally>>,
    pub run: Arc<Run>,
    pub phase: watch::Receiver<Phase>,
    /// How many may be on their way in at once; `None`: whose turn it is goes in.
    pub entrances: Option<Arc<Semaphore>>,
}

/// What a client does by the clock of the run.
#[derive(Debug, Default)]
struct Agenda {
    /// The server asked it to go elsewhere by then.
    move_at: Option<Duration>,
    /// It leaves then for a while.
    leave_at: Option<Duration>,
    /// Its line is cut then.
    cut_at: Option<Duration>,
}

impl Agenda {
    fn next(&self) -> Option<Duration> {
        [self.move_at, self.leave_at, self.cut_at].into_iter().flatten().min()
    }

    /// What is due. Who is not in yet leaves a little later.
    fn due(&mut self, now: Duration, is_live: bool) -> Option<End> {
        let is_due = |time: Option<Duration>| time.is_some_and(|time| time <= now);
        if is_due(self.leave_at) && !is_live {
            self.leave_at = Some(now + TICK);
        }
        if is_due(self.cut_at) {
            Some(End::Lost("cut by the generator".to_owned()))
        } else if is_due(self.leave_at) {
            Some(End::Left)
        } else {
            is_due(self.move_at).then_some(End::Moved)
        }
    }
}

impl Life {
    /// From the first connection to the end of the run, or until the client may not come back.
    pub async fn live(mut self) {
        let key = Uuid::new_v4(); // the same person after a reconnect, or resent messages would be another's
        let Some(mut entrance) = self.wait_for_its_turn().await else { return };
        let mut failures = 0;
        let mut absences = 0;
        for attempt in 0.. {
            let end = match self.connect(attempt, key).await {
                Ok(line) => {
                    let end = self.talk(line, &mut entrance, absences).await;
                    if self.guest.borrow().is_live() {
                        failures = 0;
                    }
                    end
                }
                Err(end) => end,
            };
            let pause = match &end {
                End::Over => return,
                End::Moved => Duration::ZERO,
                End::Left => self.run.plan.churn.map_or(Duration::ZERO, |churn| churn.away),
                End::Final(_) | End::Lost(_) => backoff(failures, rand::random()),
            };
            absences += u32::from(matches!(end, End::Left));
            self.guest.borrow_mut().cut(self.run.now());
            let stays_away = matches!(end, End::Final(_)) || self.left_for_good();
            let pause_ends = self.run.now() + pause;
            if matches!(end, End::Left) {
                self.guest.borrow_mut().due_back(self.run.now(), pause_ends);
            }
            self.note(end);
            if stays_away || self.is_over_before(pause_ends).await {
                return;
            }
            failures += 1;
        }
    }

    /// `None`: the run was over before.
    async fn wait_for_its_turn(&mut self) -> Option<Option<OwnedSemaphorePermit>> {
        let gathering = self.phase.wait_for(|phase| *phase != Phase::Waiting).await.ok().map(|phase| *phase)?;
        let Phase::Gathering(from) = gathering else { return None };
        let number = self.guest.borrow().number();
        let due = from + self.run.plan.turn(number);
        if self.is_over_before(due).await {
            return None;
        }
        let Some(entrances) = self.entrances.clone() else {
            self.tally.borrow_mut().entry_lag.record(self.run.now().saturating_sub(due));
            self.guest.borrow_mut().due(due);
            return Some(None);
        };
        let permit = tokio::select! {
            permit = entrances.acquire_owned() => permit.ok(),
            () = self.over() => None,
        }?;
        self.guest.borrow_mut().due(self.run.now());
        Some(Some(permit))
    }

    fn left_for_good(&self) -> bool {
        !self.run.plan.resume && self.guest.borrow().has_joined()
    }

    fn note(&self, end: End) {
        let why = match end {
            End::Final(why) | End::Lost(why) => why,
            End::Moved => "asked to reconnect".to_owned(),
            End::Left => LEFT.to_owned(),
            End::Over => return,
        };
        self.tally.borrow_mut().end(&why);
    }

    /// Waits; `true` when the run is over first.
    async fn is_over_before(&mut self, time: Duration) -> bool {
        let time = self.run.instant(time);
        tokio::select! {
            () = sleep_until(time) => false,
            () = self.over() => true,
        }
    }

    async fn over(&mut self) {
        // An error means that whoever led the run is gone, which is an end as well.
        let _ = self.phase.wait_for(|phase| phase.is_over()).await;
    }

    async fn connect(&mut self, attempt: usize, key: Uuid) -> Result<Line, End> {
        let run = self.run.clone();
        let number = self.guest.borrow().number();
        let opened = tokio::select! {
            opened = timeout(CONNECT_TIMEOUT, Line::open(&run, attempt, number, key)) => opened,
            () = self.over() => return Err(End::Over),
        };
        let mut tally = self.tally.borrow_mut();
        match opened {
            Ok(Ok(line)) => {
                let mut guest = self.guest.borrow_mut();
                tally.reconnects += u64::from(guest.has_joined());
                guest.connected(self.run.now(), &mut tally);
                Ok(line)
            }
            Ok(Err(error)) => {
                tally.refusals += 1;
                Err(End::failed(&error))
            }
            Err(_) => {
                tally.refusals += 1;
                Err(End::Lost("no answer to the handshake".to_owned()))
            }
        }
    }

    /// One connection from its first frame to its end. Waits for a frame (and for the socket to take what is left of
    /// ours), for the run's phase, and for one timer: the next message, a dead line, the time to go. Once it is in, it gives
    /// its `entrance` to the next.
    async fn talk(&mut self, mut line: Line, entrance: &mut Option<OwnedSemaphorePermit>, absences: u32) -> End {
        let mut timer = pin!(sleep_until(self.run.instant(self.run.now())));
        let mut agenda = Agenda::default();
        self.phase.mark_changed(); // a new connection has to see the phase, too
        loop {
            if self.is_over_now(&mut agenda, absences) {
                line.goodbye().await;
                return End::Over;
            }
            let now = self.run.now();
            let is_live = self.guest.borrow().is_live();
            if let Some(end) = agenda.due(now, is_live) {
                if !matches!(end, End::Lost(_)) {
                    line.goodbye().await;
                }
                return end;
            }
            if let Err(error) = self.speak(&mut line, now).await {
                return End::failed(&error);
            }
            if let Some(wake) = self.wake(&line, &agenda, now) {
                let wake = self.run.instant(wake);
                if timer.is_elapsed() || wake < timer.deadline() {
                    timer.as_mut().reset(wake); // one that is early does no harm, and a reset for each frame would cost
                }
            }
            let came = tokio::select! {
                biased;
                came = line.next() => came,
                _ = self.phase.changed() => { self.phase.mark_changed(); continue },
                () = &mut timer, if !timer.is_elapsed() => {
                    // Only here, where no frame is left unread: being slow ourselves is no fault of the line.
                    if self.guest.borrow().dead_at().is_some_and(|time| time <= self.run.now()) {
                        return End::Lost("no sign of life".to_owned());
                    }
                    continue;
                }
            };
            match self.take(came, &mut line.answers) {
                Ok(Reaction::Stay) => {}
                Ok(Reaction::MoveAt(time)) => agenda.move_at = Some(time),
                Ok(Reaction::GiveUp) => return End::Final("the room was refused".to_owned()),
                Err(end) => return end,
            }
            if entrance.is_some() && self.guest.borrow().is_live() {
                *entrance = None;
            }
            if let Err(error) = line.answer().await {
                return End::failed(&error);
            }
        }
    }

    fn is_over_now(&mut self, agenda: &mut Agenda, absences: u32) -> bool {
        match self.phase.has_changed() {
            Ok(true) => {}
            Ok(false) => return false,
            Err(_) => return true, // whoever led the run is gone
        }
        let phase = *self.phase.borrow_and_update();
        let (number, plan) = (self.guest.borrow().number(), &self.run.plan);
        match phase {
            Phase::Speaking(from) => {
                self.guest.borrow_mut().begin(from);
                let leaves = self.run.seats[number].leaver.and_then(|leaver| plan.leaves(leaver, absences));
                agenda.leave_at = leaves.map(|after| from + after);
                agenda.cut_at = plan.cut_after.map(|after| from + after).filter(|time| *time > self.run.now());
            }
            Phase::Settling { stop } => {
                (agenda.leave_at, agenda.cut_at) = (None, None);
                if let Some(stop) = stop {
                    self.guest.borrow_mut().stop(stop);
                }
            }
            _ => {}
        }
        phase.is_over()
    }

    fn room(&self) -> &Room {
        &self.run.rooms[self.room]
    }

    /// Sends what is to be said now, as long as the socket takes it.
    async fn speak(&mut self, line: &mut Line, now: Duration) -> Result<(), Error> {
        while !line.is_busy {
            let next = self.guest.borrow_mut().next_command(self.room(), now, &mut self.tally.borrow_mut());
            let Some(command) = next else {
                return Ok(());
            };
            line.send(command).await?;
        }
        self.guest.borrow_mut().stalled();
        Ok(())
    }

    fn wake(&self, line: &Line, agenda: &Agenda, now: Duration) -> Option<Duration> {
        let guest = self.guest.borrow();
        let speak = if line.is_busy { None } else { guest.wake(now) };
        [speak, guest.dead_at(), agenda.next()].into_iter().flatten().min()
    }

    /// `answers`: what has to be answered at once is added to them.
    fn take(&self, came: Came, answers: &mut Vec<&'static str>) -> Result<Reaction, End> {
        let mut tally = self.tally.borrow_mut();
        match came {
            Came::Text(text) => {
                let (now, room) = (self.run.now(), self.room());
                let mut guest = self.guest.borrow_mut();
                if !self.run.plan.lines {
                    return Ok(guest.hear(&text, room, now, &mut tally, answers));
                }
                let mut reaction = Reaction::Stay;
                for line in text.split('\n') {
                    let next = guest.hear(line, room, now, &mut tally, answers);
                    if reaction == Reaction::Stay {
                        reaction = next;
                    }
                }
                Ok(reaction)
            }
            Came::Strange => {
                tally.breaches += 1;
                Ok(Reaction::Stay)
            }
            Came::Nothing => Ok(Reaction::Stay),
            Came::Closed(code) => Err(End::closed(code)),
            Came::Ended(why) => Err(End::Lost(why)),
        }
    }
}

/// Full jitter: anywhere from the shortest pause to one that doubles with each failure. `dice`: 0 to 1.
fn backoff(failures: u32, dice: f64) -> Duration {
    let longest = SHORTEST_BACKOFF.saturating_mul(1 << failures.min(16)).min(LONGEST_BACKOFF);
    SHORTEST_BACKOFF + (longest - SHORTEST_BACKOFF).mul_f64(dice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_is_jittered_and_bounded() {
        assert_eq!(backoff(0, 1.0), SHORTEST_BACKOFF);
        assert_eq!(backoff(3, 0.0), SHORTEST_BACKOFF);
        assert_eq!(backoff(3, 1.0), 8 * SHORTEST_BACKOFF);
        assert_eq!(backoff(u32::MAX, 1.0), LONGEST_BACKOFF);
    }

    #[test]
    fn closes_that_are_meant_for_good_are_obeyed() {
        assert!(matches!(End::closed(4003), End::Final(_)));
        for code in [1000, 1012, 1013, 4101, 4108] {
            assert!(matches!(End::closed(code), End::Lost(_)), "{code}");
        }
    }
}
