//! The way of messages to a server: a bounded queue in front, and one task that sends what has gathered.
//!
//! While one round is under way the next one gathers, so under load a round carries many messages and when idle it carries
//! one, at once. A round is one pipeline with at most one call a room; a call stores several messages of its room. As there
//! is only one round at a time and what failed goes back to the front of its room, the order of a room is the order in which
//! [`Queue::push`] was called, over retries, too; and one room's failure is answered for that room alone.
//!
//! Redis is idle from its answer to the next round, so nothing is done in between that can wait: under load the next round is
//! written down while one is under way, and who spoke is told that a message is stored once the next round is on its way.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{Pipeline, Value};
use tokio::join;
use tokio::sync::{Notify, oneshot};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, timeout};

use super::Shared;
use super::functions::{self, CallError, MessageKey};
use super::shard::{ATTEMPT, Line, PAUSE, Shard, present};
use crate::broker::{BrokerError, DEADLINE, Publication};
use crate::metrics::METRICS;
use crate::names::RoomName;
use crate::position::Position;

/// What may wait at most, what is under way included.
const QUEUE_MESSAGES: usize = 8 * 1024;
const QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// What one call stores at most: Redis does nothing else meanwhile, for half a millisecond.
const CALL_MESSAGES: usize = 128;
const CALL_BYTES: usize = 256 * 1024;

/// What one round carries at most: it must be through well within an attempt.
const ROUND_CALLS: usize = 64;
const ROUND_BYTES: usize = 1024 * 1024;

/// How long replicas may take to have a round: Redis' own time-out of `WAIT`, which ends within the attempt.
const REPLICATED: Duration = Duration::from_millis(400);

pub(super) type Answer = Result<Position, BrokerError>;

/// A message that waits for its answer.
struct Pending {
    publication: Publication,
    key: MessageKey,
    deadline: Instant,
    answer: oneshot::Sender<Answer>,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.publication.event.len()
    }
}

/// Messages of one room that are stored in one call.
pub(super) struct Call {
    room: RoomName,
    messages: Vec<Pending>,
}

impl Call {
    pub fn room(&self) -> &RoomName {
        &self.room
    }
}

/// What goes to Redis at once, in the form in which it goes.
struct Round {
    calls: Vec<Call>,
    pipeline: Pipeline,
}

impl Round {
    /// `None` where there is nothing to send.
    fn of(shared: &Shared, calls: Vec<Call>) -> Option<Self> {
        let mut pipeline = Pipeline::with_capacity(calls.len() + 1);
        for call in &calls {
            let messages = call.messages.iter();
            let messages = messages.map(|pending| (&pending.key, &pending.publication.event));
            pipeline.add_command(shared.library.publish(&call.room, messages));
        }
        if shared.wait > 0 {
            pipeline.cmd("WAIT").arg(shared.wait).arg(REPLICATED.as_millis() as u64);
        }
        (!calls.is_empty()).then_some(Round { calls, pipeline })
    }
}

/// Messages whose fate is known, and who has not been told yet.
struct Done {
    messages: Vec<Pending>,
    fate: Result<Vec<Position>, BrokerError>,
}

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Default)]
struct Waiting {
    /// What waits, by room. A room without anything is not here.
    lanes: HashMap<RoomName, VecDeque<Pending>>,
    /// The rooms in `lanes`, in the order of their turns.
    turns: VecDeque<RoomName>,
    /// Including what is under way.
    messages: usize,
    bytes: usize,
}

impl Queue {
    /// Gives the message its place; its answer comes within [`DEADLINE`] or never.
    pub fn push(&self, publication: Publication) -> Result<oneshot::Receiver<Answer>, BrokerError> {
        let key = functions::message_key(&publication);
        let (answer, receiver) = oneshot::channel();
        let pending = Pending { publication, key, deadline: Instant::now() + DEADLINE, answer };
        let mut waiting = self.waiting();
        let bytes = waiting.bytes + pending.bytes();
        if waiting.messages >= QUEUE_MESSAGES || bytes > QUEUE_BYTES {
            let why = "too many messages wait for Redis".to_owned();
            return Err(BrokerError::Unavailable(why));
        }
        waiting.messages += 1;
        METRICS.broker_waiting.increment(1.0);
        waiting.bytes = bytes;
        waiting.put_last(pending);
        drop(waiting);
        self.bell.notify_one();
        Ok(receiver)
    }

    /// Takes everything of some rooms.
    pub fn take_all(&self, of: impl Fn(&RoomName) -> bool) -> Vec<Call> {
        let mut waiting = self.waiting();
        let lanes: Vec<_> = waiting.lanes.extract_if(|room, _| of(room)).collect();
        let calls: Vec<Call> = lanes.into_iter().map(|(room, lane)| Call { room, messages: lane.into() }).collect();
        calls.iter().for_each(|call| waiting.answered(&call.messages));
        let Waiting { lanes, turns, .. } = &mut *waiting;
        turns.retain(|room| lanes.contains_key(room));
        calls
    }

    /// Takes over what another server's queue had; it goes first. More than the queue takes by itself, if need be: it was
    /// taken already.
    pub fn take_over(&self, call: Call) {
        let mut waiting = self.waiting();
        waiting.messages += call.messages.len();
        METRICS.broker_waiting.increment(call.messages.len() as f64);
        waiting.bytes += call.messages.iter().map(Pending::bytes).sum::<usize>();
        waiting.put_back(call);
        drop(waiting);
        self.bell.notify_one();
    }

    fn put_back(&self, round: Vec<Call>) {
        let mut waiting = self.waiting();
        round.into_iter().for_each(|call| waiting.put_back(call));
    }

    /// The next round; empty when nothing waits.
    fn take_round(&self, now: Instant) -> Vec<Call> {
        let mut waiting = self.waiting();
        waiting.drop_expired(now);
        waiting.take_round()
    }

    /// The round after the one that is under way, if waiting longer would not make it larger.
    fn take_full_round(&self, now: Instant) -> Vec<Call> {
        let full = self.waiting().fills_a_call();
        if full { self.take_round(now) } else { Vec::new() }
    }

    /// Tells those who spoke. Who no longer listens has been told "unavailable", and may ask again with the same id.
    fn answer(&self, done: Vec<Done>) {
        let mut waiting = self.waiting();
        done.iter().for_each(|done| waiting.answered(&done.messages));
        drop(waiting);
        for Done { messages, fate } in done {
            match fate {
                Ok(positions) => {
                    for (pending, position) in messages.into_iter().zip(positions) {
                        let _ = pending.answer.send(Ok(position));
                    }
                }
                Err(error) => {
                    for pending in messages {
                        let _ = pending.answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    fn drop_expired(&self, now: Instant) {
        self.waiting().drop_expired(now);
    }

    fn is_empty(&self) -> bool {
        self.waiting().turns.is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn put_last(&mut self, pending: Pending) {
        let room = pending.publication.room.clone();
        let lane = self.lanes.entry(room.clone()).or_default();
        if lane.is_empty() {
            self.turns.push_back(room);
        }
        lane.push_back(pending);
    }

    /// Puts what was not stored back in front of what came since.
    fn put_back(&mut self, call: Call) {
        let lane = self.lanes.entry(call.room.clone()).or_default();
        if lane.is_empty() {
            self.turns.push_back(call.room);
        }
        for pending in call.messages.into_iter().rev() {
            lane.push_front(pending);
        }
    }

    fn take_round(&mut self) -> Vec<Call> {
        let mut round = Vec::new();
        let mut bytes = 0;
        for _ in 0..self.turns.len().min(ROUND_CALLS) {
            if bytes >= ROUND_BYTES {
                break;
            }
            let Some(room) = self.turns.pop_front() else {
                break;
            };
            let messages = self.take_call(&room);
            bytes += messages.iter().map(Pending::bytes).sum::<usize>();
            if !messages.is_empty() {
                round.push(Call { room, messages });
            }
        }
        round
    }

    /// Whether the room whose turn it is has so much to say that more would wait for another call anyway.
    fn fills_a_call(&self) -> bool {
        let first = self.turns.front().and_then(|room| self.lanes.get(room));
        first.is_some_and(|lane| lane.len() >= CALL_MESSAGES)
    }

    /// The messages at the front of a room's lane, which keeps a later turn for the rest.
    fn take_call(&mut self, room: &RoomName) -> Vec<Pending> {
        let Some(lane) = self.lanes.get_mut(room) else {
            return Vec::new();
        };
        let mut bytes = 0;
        let mut count = 0;
        while count < lane.len().min(CALL_MESSAGES) {
            bytes += lane[count].bytes();
            if count > 0 && bytes > CALL_BYTES {
                break;
            }
            count += 1;
        }
        let call = lane.drain(..count).collect();
        if lane.is_empty() {
            self.lanes.remove(room);
        } else {
            self.turns.push_back(room.clone());
        }
        call
    }

    /// Lets go of what nobody waits for any longer.
    fn drop_expired(&mut self, now: Instant) {
        let (mut messages, mut bytes) = (0, 0);
        self.lanes.retain(|_, lane| {
            while let Some(pending) = lane.front()
                && pending.deadline <= now
            {
                messages += 1;
                bytes += pending.bytes();
                lane.pop_front();
            }
            !lane.is_empty()
        });
        self.turns.retain(|room| self.lanes.contains_key(room));
        self.gone(messages, bytes);
    }

    fn answered(&mut self, messages: &[Pending]) {
        self.gone(messages.len(), messages.iter().map(Pending::bytes).sum());
    }

    fn gone(&mut self, messages: usize, bytes: usize) {
        self.messages -= messages;
        self.bytes -= bytes;
        METRICS.broker_waiting.decrement(messages as f64);
    }
}

/// Sends what gathers in the queue, for as long as the server is ours.
pub(super) async fn run(shared: Arc<Shared>, shard: Arc<Shard>) {
    let queue = &shard.queue;
    let line = shard.line_for_messages(shared.wait);
    let (mut next, mut done) = (None::<Round>, Vec::new());
    let mut staying = None;
    loop {
        if shared.routes.are_changing() {
            // Rooms are about to move, with what waits here.
            queue.put_back(next.take().map(|next| next.calls).unwrap_or_default());
            staying = None;
        }
        if staying.is_none() {
            staying = Some(shared.routes.rounds.read().await);
        }
        if next.is_none() && line.borrow().is_some() {
            next = Round::of(&shared, queue.take_round(Instant::now()));
        }
        if let Some(round) = next.take() {
            (next, done) = send(&shared, &shard, round, done).await;
        } else {
            staying = None;
            queue.answer(std::mem::take(&mut done));
            wait_for_work(&shard, line).await;
        }
    }
}

/// Until there may be something to send, and somewhere to send it.
async fn wait_for_work(shard: &Shard, line: &Line) {
    if shard.queue.is_empty() {
        shard.queue.bell.notified().await;
    }
    if timeout(PAUSE, present(line)).await.is_err() {
        // Who waits is told in time without us; here the memory is given back.
        shard.queue.drop_expired(Instant::now());
    }
}

/// Sends a round, and answers what was done before meanwhile. Returns the next round, if it is ready and can be sent at once,
/// and what is to be answered then.
async fn send(shared: &Shared, shard: &Shard, round: Round, before: Vec<Done>) -> (Option<Round>, Vec<Done>) {
    let queue = &shard.queue;
    let meanwhile = async {
        // The connection's task goes first: it writes the round.
        yield_now().await;
        queue.answer(before);
        Round::of(shared, queue.take_full_round(Instant::now()))
    };
    let asked = async {
        let began = Instant::now();
        let answers = shard.attempt(shard.line_for_messages(shared.wait), &round.pipeline).await;
        METRICS.broker_round_seconds.record(began.elapsed());
        answers
    };
    let (answers, next) = join!(asked, meanwhile);
    let Settled { done, failed, again } = match answers {
        Ok(answers) if has_replicas(&answers, shared.wait) => settle(shared, shard, round.calls, answers),
        // In doubt, or stored and not yet where it should be: the same ids ask again.
        Ok(_) | Err(_) => {
            shard.doubt.notify_one();
            Settled { done: Vec::new(), failed: round.calls, again: Again::Later }
        }
    };
    if again == Again::AtOnce {
        return (next, done);
    }
    // In this order, since each goes to the front.
    queue.put_back(next.map(|next| next.calls).unwrap_or_default());
    queue.put_back(failed);
    queue.answer(done);
    if again == Again::Later || !shard.load(shared.library.source()).await {
        sleep(PAUSE).await;
    }
    (None, Vec::new())
}

/// Whether as many replicas as are wanted have the round; its last answer says how many do.
fn has_replicas(answers: &[Value], wanted: u32) -> bool {
    wanted == 0 || matches!(answers.last(), Some(Value::Int(number)) if *number >= i64::from(wanted))
}

/// What became of a round.
struct Settled {
    done: Vec<Done>,
    failed: Vec<Call>,
    again: Again,
}

/// Tells the calls that have their answer from those that have to be sent again.
fn settle(shared: &Shared, shard: &Shard, round: Vec<Call>, answers: Vec<Value>) -> Settled {
    let mut settled = Settled { done: Vec::with_capacity(round.len()), failed: Vec::new(), again: Again::AtOnce };
    for (call, answer) in round.into_iter().zip(answers) {
        let again = match functions::positions(answer, call.messages.len()) {
            Ok(positions) => {
                settled.done.push(Done { messages: call.messages, fate: Ok(positions) });
                continue;
            }
            Err(CallError::Final(error) | CallError::NoWrites(error)) => {
                shard.doubt.notify_one();
                settled.done.push(Done { messages: call.messages, fate: Err(error) });
                continue;
            }
            Err(CallError::NotLoaded) => Again::Loaded,
            Err(CallError::Elsewhere) => {
                shared.routes.stale.notify_one();
                Again::Later
            }
            Err(CallError::NotNow) => {
                shard.doubt.notify_one();
                Again::Later
            }
        };
        settled.failed.push(call);
        settled.again = settled.again.max(again);
    }
    settled
}

/// What the next round needs first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Again {
    AtOnce,
    Loaded,
    Later,
}

/// Waits for a message's answer, but never beyond the deadline; `None`: there is none.
pub(super) async fn answer(receiver: oneshot::Receiver<Answer>, deadline: Instant) -> Option<Answer> {
    tokio::time::timeout_at(deadline, receiver).await.ok()?.ok()
}

/// An attempt must leave room for another one before the deadline.
const _: () = assert!(ATTEMPT.as_millis() * 2 < DEADLINE.as_millis());

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::UserId;
    use bytes::Bytes;
    use uuid::Uuid;

    fn push(queue: &Queue, room: &str, text: &str) -> Result<(), BrokerError> {
        let publication = Publication {
            room: RoomName::parse(room).unwrap(),
            user: UserId::new("u".into()),
            id: Uuid::new_v4(),
            event: Bytes::copy_from_slice(text.as_bytes()),
        };
        queue.push(publication).map(|_| ())
    }

    /// What a round carries, as `room text text …`.
    fn shown(round: &[Call]) -> Vec<String> {
        let text = |pending: &Pending| String::from_utf8_lossy(&pending.publication.event).into();
        let line = |call: &Call| {
            let texts: Vec<String> = call.messages.iter().map(text).collect();
            format!("{} {}", call.room, texts.join(" "))
        };
        round.iter().map(line).collect()
    }

    #[test]
    fn what_failed_is_sent_again_in_its_order_and_before_what_came_since() {
        let queue = Queue::default();
        for text in ["1", "2", "3"] {
            push(&queue, "a", text).unwrap();
        }
        push(&queue, "b", "1").unwrap();
        let now = Instant::now();
        let round = queue.take_round(now);
        assert_eq!(shown(&round), ["a 1 2 3", "b 1"]);
        push(&queue, "a", "4").unwrap();
        queue.put_back(round);
        assert_eq!(shown(&queue.take_round(now)), ["a 1 2 3 4", "b 1"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_next_round_is_taken_ahead_only_when_more_would_have_to_wait_for_another_one() {
        let queue = Queue::default();
        let now = Instant::now();
        for _ in 1..CALL_MESSAGES {
            push(&queue, "busy", "x").unwrap();
        }
        push(&queue, "quiet", "x").unwrap();
        assert!(queue.take_full_round(now).is_empty());
        push(&queue, "busy", "x").unwrap();
        let round = queue.take_full_round(now);
        assert_eq!((round[0].messages.len(), &*shown(&round)[1]), (CALL_MESSAGES, "quiet x"));
        assert!(queue.is_empty());
    }

    #[test]
    fn a_room_has_one_call_a_round_and_a_busy_one_keeps_nobody_waiting() {
        let queue = Queue::default();
        for _ in 0..CALL_MESSAGES + 1 {
            push(&queue, "busy", "x").unwrap();
        }
        push(&queue, "quiet", "x").unwrap();
        let now = Instant::now();
        let first = queue.take_round(now);
        let rooms: Vec<_> = first.iter().map(|call| call.room.as_str()).collect();
        assert_eq!(rooms, ["busy", "quiet"]);
        assert_eq!(first[0].messages.len(), CALL_MESSAGES);
        assert_eq!(shown(&queue.take_round(now)), ["busy x"]);
    }

    #[test]
    fn what_waits_and_what_is_under_way_are_bounded_together() {
        let queue = Queue::default();
        for _ in 0..QUEUE_MESSAGES {
            push(&queue, "a", "x").unwrap();
        }
        let now = Instant::now();
        let round = queue.take_round(now);
        assert!(push(&queue, "b", "x").is_err());
        queue.waiting().answered(&round[0].messages);
        assert!(push(&queue, "b", "x").is_ok());
        queue.drop_expired(now + DEADLINE + Duration::from_secs(1));
        assert!(queue.is_empty());
        let waiting = queue.waiting();
        assert_eq!((waiting.messages, waiting.bytes), (0, 0));
    }

    #[test]
    fn bytes_are_bounded_in_a_call_and_in_the_queue() {
        let queue = Queue::default();
        let big = "x".repeat(100 * 1024);
        let mut taken = 0;
        while push(&queue, "a", &big).is_ok() {
            taken += 1;
        }
        assert_eq!(taken, QUEUE_BYTES / big.len());
        assert_eq!(queue.take_round(Instant::now())[0].messages.len(), 2);
    }
}
