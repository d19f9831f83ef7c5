//! One simulated client, without its socket: what it makes of a frame, and what it wants to say.
//!
//! ```text
//! Away ─connected→ Greeting ─welcome→ Joining ─joined→ CatchingUp ─its backlog is here→ Live
//!   ↑                                    └ unavailable: again later
//!   └──────────────────────────── the connection ended ────────────────────────────────┘
//! ```
//!
//! New messages and those to be sent again go out in `Live` only: what comes with the backlog need not be sent again.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::dialect::Dialect;
use crate::speaker::Speaker;
use crate::verdict::{Entrance, EpochKey, IdHash, Ledger, Receiver, Sight, Spot};
use crate::wire::{Command, Heard, JOIN_REF, Stamp};

/// Where a client is on its way into the room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Away,
    Greeting,
    /// `asked`: the answer is under way. Otherwise it asks at `at`.
    Joining {
        asked: bool,
        at: Duration,
    },
    /// Until this offset is here.
    CatchingUp(u64),
    Live,
}

/// What the connection is to do after a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reaction {
    Stay,
    /// The server asked for it: go elsewhere at this time, without backoff.
    MoveAt(Duration),
    /// The server will never let it in.
    GiveUp,
}

/// What the clients of one worker count together.
#[derive(Debug)]
pub struct Tally {
    pub ledger: Ledger,
    /// From when a message was due to its `accepted`; microseconds, as in the two others.
    pub accepted_us: Histogram<u64>,
    /// From when a message was due to its delivery, at every receiver.
    pub delivered_us: Histogram<u64>,
    /// How late our own clock made a message.
    pub lag_us: Histogram<u64>,
    pub deliveries: u64,
    /// What those read who only count.
    pub listeners_bytes: u64,
    pub first_delivery: Option<Duration>,
    pub last_delivery: Duration,
    pub reconnects: u64,
    /// Joins with a position that were `recovered`.
    pub resumes: u64,
    /// Frames that the protocol does not allow.
    pub breaches: u64,
    /// Attempts to connect that failed.
    pub refusals: u64,
    /// By code.
    pub errors: BTreeMap<String, u64>,
    /// By close code, or by what went wrong.
    pub ends: BTreeMap<String, u64>,
}

/// How many kinds of errors are told apart; the server makes up their names.
const MAX_KINDS: usize = 32;

impl Tally {
    pub fn new() -> Self {
        // An hour at three digits; what takes longer counts as an hour.
        let latencies = || Histogram::new_with_bounds(1, 3_600_000_000, 3).expect("these bounds are valid");
        Tally {
            ledger: Ledger::default(),
            accepted_us: latencies(),
            delivered_us: latencies(),
            lag_us: latencies(),
            deliveries: 0,
            listeners_bytes: 0,
            first_delivery: None,
            last_delivery: Duration::ZERO,
            reconnects: 0,
            resumes: 0,
            breaches: 0,
            refusals: 0,
            errors: BTreeMap::new(),
            ends: BTreeMap::new(),
        }
    }

    pub fn error(&mut self, code: &str) {
        count(&mut self.errors, code, 1);
    }

    pub fn end(&mut self, why: &str) {
        count(&mut self.ends, why, 1);
    }

    /// Something was delivered now.
    pub fn delivered_at(&mut self, now: Duration) {
        self.first_delivery.get_or_insert(now);
        self.last_delivery = now;
    }

    /// Adds what another worker's clients counted.
    pub fn merge(&mut self, other: Tally) {
        self.ledger.merge(other.ledger);
        for (ours, theirs) in [
            (&mut self.accepted_us, &other.accepted_us),
            (&mut self.delivered_us, &other.delivered_us),
            (&mut self.lag_us, &other.lag_us),
        ] {
            ours.add(theirs).expect("all have the same bounds");
        }
        self.deliveries += other.deliveries;
        self.listeners_bytes += other.listeners_bytes;
        self.first_delivery = [self.first_delivery, other.first_delivery].into_iter().flatten().min();
        self.last_delivery = self.last_delivery.max(other.last_delivery);
        self.reconnects += other.reconnects;
        self.resumes += other.resumes;
        self.breaches += other.breaches;
        self.refusals += other.refusals;
        for (code, times) in &other.errors {
            count(&mut self.errors, code, *times);
        }
        for (why, times) in &other.ends {
            count(&mut self.ends, why, *times);
        }
    }
}

fn count(kinds: &mut BTreeMap<String, u64>, kind: &str, times: u64) {
    if let Some(so_far) = kinds.get_mut(kind) {
        *so_far += times;
    } else if kinds.len() < MAX_KINDS {
        kinds.insert(kind.to_owned(), times);
    } else {
        *kinds.entry("others".to_owned()).or_default() += times;
    }
}

fn record(histogram: &mut Histogram<u64>, time: Duration) {
    histogram.saturating_record(u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1));
}

/// What all clients of a run have in common.
#[derive(Debug)]
pub struct Room {
    pub name: String,
    /// Marks this run's messages.
    pub run: u32,
    /// Bytes of text.
    pub size: usize,
    pub dialect: Dialect,
}

/// One simulated client.
#[derive(Debug)]
pub struct Client {
    pub number: usize,
    stage: Stage,
    pub receiver: Receiver,
    pub speaker: Option<Speaker>,
    /// How often the server shows that it is there; `None`: never.
    beat: Option<Duration>,
    /// For how long the server knows an id.
    dedupe: Option<Duration>,
    /// When something was heard last.
    heard_at: Duration,
}

impl Client {
    /// Greater offsets are no honest server's, and sums over many clients could not hold them.
    const MAX_OFFSET: u64 = 1 << 48;
    /// So many beats without a sign of life, and the line is dead.
    const PATIENCE: u32 = 3;
    /// How long a welcome, or the answer to a join, may take.
    const ANSWER: Duration = Duration::from_secs(10);

    pub fn new(number: usize, speaker: Option<Speaker>) -> Self {
        Client {
            number,
            stage: Stage::Away,
            receiver: Receiver::default(),
            speaker,
            beat: None,
            dedupe: None,
            heard_at: Duration::ZERO,
        }
    }

    /// Whether it ever was in the room.
    pub fn has_joined(&self) -> bool {
        self.receiver.place().is_some()
    }

    /// Whether it is in the room, with everything that was promised at the door.
    pub fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    /// The speaking began.
    pub fn begin(&mut self, from: Duration) {
        if let Some(speaker) = &mut self.speaker {
            speaker.start(from);
        }
    }

    /// A connection is there.
    pub fn connected(&mut self, now: Duration) {
        self.stage = Stage::Greeting;
        self.beat = None;
        self.heard_at = now;
    }

    /// The connection is gone.
    pub fn cut(&mut self) {
        self.stage = Stage::Away;
        if let Some(speaker) = &mut self.speaker {
            speaker.cut();
        }
    }

    /// The next frame to send, if one may be sent now.
    pub fn next_command(&mut self, room: &Room, now: Duration, tally: &mut Tally) -> Option<String> {
        match &mut self.stage {
            Stage::Joining { asked, at } if !*asked && *at <= now => {
                *asked = true;
                let join =
                    Command::Join { room: &room.name, reference: JOIN_REF, after: self.receiver.place(), last: 0 };
                Some(room.dialect.write(&join))
            }
            Stage::Live => {
                let speaker = self.speaker.as_mut()?;
                let (say, lag) = speaker.next(now, self.dedupe)?;
                if let Some(lag) = lag {
                    record(&mut tally.lag_us, lag);
                }
                let stamp = Stamp { run: room.run, publisher: speaker.publisher(), scheduled: say.scheduled };
                let say = Command::Say { room: &room.name, id: say.id, text: &stamp.write(room.size) };
                Some(room.dialect.write(&say))
            }
            _ => None,
        }
    }

    /// When to ask [`Client::next_command`] again, unless something is heard before.
    pub fn wake(&self, now: Duration) -> Option<Duration> {
        match self.stage {
            Stage::Joining { asked: false, at } => Some(at),
            Stage::Live => self.speaker.as_ref()?.wake(now),
            _ => None,
        }
    }

    /// The socket takes nothing for now.
    pub fn stalled(&mut self) {
        if let Some(speaker) = &mut self.speaker {
            speaker.stalled();
        }
    }

    /// When the line would be dead if nothing more were heard.
    pub fn dead_at(&self) -> Option<Duration> {
        let patience = match self.stage {
            Stage::Greeting | Stage::Joining { asked: true, .. } => Self::ANSWER,
            _ => self.beat? * Self::PATIENCE,
        };
        Some(self.heard_at + patience)
    }

    /// Takes a frame in; `None`: one that is not of the protocol.
    pub fn heard(&mut self, heard: Option<Heard>, room: &Room, now: Duration, tally: &mut Tally) -> Reaction {
        self.heard_at = now;
        let Some(heard) = heard.filter(Self::is_credible) else {
            tally.breaches += 1;
            return Reaction::Stay;
        };
        let ours = heard.room == room.name;
        let fits = match &*heard.kind {
            "welcome" => self.welcomed(&heard, now),
            "joined" => ours && self.joined(&heard, now, tally),
            "gap" => ours && self.gap(&heard, tally),
            "accepted" => ours && self.accepted(&heard, now, tally),
            "error" => return self.refused(&heard, now, tally),
            "reconnect" => return Reaction::MoveAt(now + heard.reconnect_after()),
            _ if heard.offset.is_some() && heard.at.is_some() => ours && self.event(&heard, room, now, tally),
            kind => kind != "message",
        };
        tally.breaches += u64::from(!fits);
        self.look_around();
        Reaction::Stay
    }

    fn is_credible(heard: &Heard) -> bool {
        [heard.offset, heard.backlog, heard.to]
            .iter()
            .all(|number| number.is_none_or(|number| number <= Self::MAX_OFFSET))
    }

    /// Whoever waited for its backlog may have it now.
    fn look_around(&mut self) {
        if let Stage::CatchingUp(until) = self.stage
            && self.receiver.place().is_some_and(|place| place.offset >= until)
        {
            self.stage = Stage::Live;
        }
    }

    fn welcomed(&mut self, heard: &Heard, now: Duration) -> bool {
        self.beat = heard.beat();
        self.dedupe = heard.dedupe();
        let first = self.stage == Stage::Greeting;
        if first {
            self.stage = Stage::Joining { asked: false, at: now };
        }
        first
    }

    fn joined(&mut self, heard: &Heard, now: Duration, tally: &mut Tally) -> bool {
        let (Some(offset), Some(backlog)) = (heard.offset, heard.backlog) else {
            return false;
        };
        let asked = matches!(self.stage, Stage::Joining { asked: true, .. });
        if !asked && !matches!(self.stage, Stage::CatchingUp(_) | Stage::Live) {
            return false;
        }
        let epoch = EpochKey::of(&heard.epoch);
        let entrance = self.receiver.joined(&heard.epoch, offset, backlog, heard.recovered);
        if let Entrance::Continued { old, at } = entrance {
            tally.ledger.share(old, epoch, at);
            tally.resumes += u64::from(asked);
        }
        tally.ledger.reach(Spot { epoch, offset }, now);
        self.stage = Stage::CatchingUp(offset);
        self.stalled();
        backlog <= offset
    }

    fn gap(&mut self, heard: &Heard, tally: &mut Tally) -> bool {
        let (Some(from), Some(to)) = (heard.first_lost(), heard.to) else {
            return false;
        };
        let said = self.receiver.gap(from, to);
        if said {
            let epoch = EpochKey::of(&heard.epoch);
            tally.ledger.announce(from, Spot { epoch, offset: to });
        }
        said
    }

    fn accepted(&mut self, heard: &Heard, now: Duration, tally: &mut Tally) -> bool {
        let (Some(offset), Some(speaker)) = (heard.offset, self.speaker.as_mut()) else {
            return false;
        };
        let epoch = EpochKey::of(&heard.epoch);
        let spot = Spot { epoch, offset };
        let Ok(latency) = speaker.accepted(&heard.id, spot, now) else {
            return false;
        };
        tally.ledger.reach(spot, now);
        if let Some(latency) = latency {
            record(&mut tally.accepted_us, latency);
        }
        true
    }

    fn event(&mut self, heard: &Heard, room: &Room, now: Duration, tally: &mut Tally) -> bool {
        let Some((spot, sight)) =
            heard.offset.filter(|offset| *offset > 0).and_then(|offset| self.receiver.event(offset))
        else {
            return false;
        };
        tally.deliveries += 1;
        tally.delivered_at(now);
        let id = match &*heard.id {
            "" => IdHash::of(&format!("{} {}", heard.kind, spot.offset)),
            id => IdHash::of(id),
        };
        tally.ledger.see(spot, id, now);
        if let Some(stamp) = Stamp::read(&heard.text).filter(|stamp| stamp.run == room.run) {
            if sight != Sight::Doubled {
                record(&mut tally.delivered_us, now.saturating_sub(stamp.scheduled));
            }
            if let Some(speaker) = &mut self.speaker
                && speaker.publisher() == stamp.publisher
            {
                speaker.seen(&heard.id, spot);
            }
        }
        true
    }

    /// `error`: of the join, of a message of ours, or of something that was never asked.
    fn refused(&mut self, heard: &Heard, now: Duration, tally: &mut Tally) -> Reaction {
        tally.error(&heard.code);
        let retry_after = match &*heard.code {
            "unavailable" | "rate_limited" => Some(heard.retry_after().unwrap_or(Self::PAUSE)),
            _ => None,
        };
        if heard.reference == JOIN_REF {
            let Some(pause) = retry_after else {
                return Reaction::GiveUp;
            };
            self.stage = Stage::Joining { asked: false, at: now + pause };
        } else if let Some(speaker) = &mut self.speaker
            && !heard.id.is_empty()
        {
            tally.breaches += u64::from(!speaker.refused(&heard.id, retry_after, now));
        }
        Reaction::Stay
    }

    /// For a retryable error that does not say when.
    const PAUSE: Duration = Duration::from_millis(500);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speaker::{Pace, Script, Until};

    const NOW: Duration = Duration::from_millis(1);

    /// A client in a room `r`, with the worker it belongs to.
    struct Bench {
        client: Client,
        room: Room,
        tally: Tally,
    }

    impl Bench {
        fn new() -> Self {
            let script = Script { publishers: 1, pace: Pace::Window(8), until: Until::Messages(2), until_heard: false };
            let mut speaker = Speaker::new(script, 0);
            speaker.start(NOW);
            Bench {
                client: Client::new(0, Some(speaker)),
                room: Room { name: "r".into(), run: 1, size: 60, dialect: Dialect::Townhall },
                tally: Tally::new(),
            }
        }

        /// In the room at the offset 0 of the epoch `e`.
        fn live() -> Self {
            let mut bench = Bench::new();
            bench.greets();
            bench.commands(NOW);
            bench.hears(r#"{"type":"joined","room":"r","epoch":"e","offset":0,"backlog":0}"#);
            bench
        }

        fn greets(&mut self) {
            self.client.connected(NOW);
            self.hears(r#"{"type":"welcome","beat":25,"limits":{"dedupe_s":600}}"#);
        }

        fn hears(&mut self, text: &str) -> Reaction {
            self.client.heard(Heard::read(text), &self.room, NOW, &mut self.tally)
        }

        fn hears_message(&mut self, offset: u64, id: &str) {
            self.hears(&format!(
                r#"{{"type":"message","room":"r","offset":{offset},"id":"{id}","from":{{"id":"u","name":"n"}},"at":5,"text":"1 0 0 .."}}"#
            ));
        }

        fn commands(&mut self, now: Duration) -> Vec<serde_json::Value> {
            let next = || self.client.next_command(&self.room, now, &mut self.tally);
            std::iter::from_fn(next).map(|text| serde_json::from_str(&text).unwrap()).collect()
        }

        fn place(&self) -> (String, u64) {
            let place = self.client.receiver.place().unwrap();
            (place.epoch.clone(), place.offset)
        }
    }

    #[test]
    fn it_joins_after_the_welcome_and_speaks_after_the_joined() {
        let mut bench = Bench::new();
        bench.client.connected(NOW);
        assert!(bench.commands(NOW).is_empty());
        bench.greets();
        let join = bench.commands(NOW);
        assert_eq!((join.len(), &join[0]["type"]), (1, &"join".into()));
        assert!(join[0].get("after").is_none());
        bench.hears(r#"{"type":"joined","room":"r","epoch":"e","offset":0,"backlog":0}"#);
        assert_eq!(bench.commands(NOW).len(), 2);
        assert_eq!(bench.tally.breaches, 0);
    }

    #[test]
    fn a_position_moves_by_joined_gap_and_events_alone() {
        let mut bench = Bench::live();
        bench.hears_message(1, "a");
        assert_eq!(bench.place(), ("e".into(), 1));
        bench.hears(r#"{"type":"topic","room":"r","offset":2,"at":5}"#);
        assert_eq!(bench.place(), ("e".into(), 2));
        bench.hears(r#"{"type":"topic","room":"r","offset":9}"#);
        bench.hears(r#"{"type":"history","room":"r","epoch":"e","messages":[{"offset":9,"at":1}],"more":false}"#);
        let id = bench.commands(NOW)[0]["id"].as_str().unwrap().to_owned();
        bench.hears(&format!(r#"{{"type":"accepted","room":"r","id":"{id}","epoch":"e","offset":9}}"#));
        assert_eq!(bench.place(), ("e".into(), 2));
        bench.hears(r#"{"type":"gap","room":"r","epoch":"e","from":3,"to":4}"#);
        assert_eq!(bench.place(), ("e".into(), 4));
        bench.hears(r#"{"type":"joined","room":"r","epoch":"f","offset":9,"backlog":5,"recovered":true}"#);
        assert_eq!(bench.place(), ("f".into(), 4));
        assert_eq!(bench.tally.breaches, 0);
    }

    #[test]
    fn it_resumes_at_its_position_and_repeats_itself_only_after_the_backlog() {
        let mut bench = Bench::live();
        let said = bench.commands(NOW);
        let ids: Vec<&str> = said.iter().map(|say| say["id"].as_str().unwrap()).collect();
        bench.client.cut();
        bench.greets();
        let join = bench.commands(NOW);
        assert_eq!(join[0]["after"], serde_json::json!({"epoch": "e", "offset": 0}));
        bench.hears(r#"{"type":"joined","room":"r","epoch":"e","offset":2,"backlog":2,"recovered":true}"#);
        bench.hears_message(1, ids[0]);
        assert!(bench.commands(NOW).is_empty());
        bench.hears_message(2, "somebody else's");
        let again = bench.commands(NOW);
        assert_eq!(again.len(), 1, "the other one came with the backlog");
        assert_eq!(again[0]["id"], ids[1]);
        assert_eq!(again[0]["text"], said[1]["text"]);
        assert_eq!(bench.tally.resumes, 1);
    }

    #[test]
    fn an_unavailable_room_is_asked_for_again_later_and_a_forbidden_one_never() {
        let mut bench = Bench::new();
        bench.greets();
        bench.commands(NOW);
        let stay = bench.hears(r#"{"type":"error","code":"unavailable","ref":"join","room":"r","retry_after_ms":300}"#);
        assert_eq!(stay, Reaction::Stay);
        let later = NOW + Duration::from_millis(300);
        assert!(bench.commands(NOW).is_empty());
        assert_eq!(bench.client.wake(NOW), Some(later));
        assert_eq!(bench.commands(later).len(), 1);
        let never = bench.hears(r#"{"type":"error","code":"forbidden","ref":"join","room":"r"}"#);
        assert_eq!(never, Reaction::GiveUp);
        assert_eq!(bench.tally.errors.len(), 2);
    }

    #[test]
    fn a_refused_message_waits_as_long_as_it_was_told() {
        let mut bench = Bench::live();
        let said = bench.commands(NOW);
        let id = said[0]["id"].as_str().unwrap();
        bench.hears(&format!(r#"{{"type":"error","code":"rate_limited","room":"r","id":"{id}","retry_after_ms":40}}"#));
        assert!(bench.commands(NOW).is_empty());
        assert_eq!(bench.commands(NOW + Duration::from_millis(40)), said[..1]);
    }

    #[test]
    fn frames_that_the_protocol_does_not_have_are_counted() {
        let mut bench = Bench::live();
        for breach in [
            "no json",
            r#"{"type":"message","room":"r","id":"x","text":"no offset"}"#,
            r#"{"type":"message","room":"r","offset":0,"at":1,"id":"x"}"#,
            r#"{"type":"message","room":"r","offset":1000000000000000000,"at":1,"id":"x"}"#,
            r#"{"type":"message","room":"elsewhere","offset":1,"at":1,"id":"x"}"#,
            r#"{"type":"joined","room":"r","epoch":"e"}"#,
            r#"{"type":"accepted","room":"r","id":"x","epoch":"e","offset":1}"#,
            r#"{"type":"gap","room":"r","epoch":"e","from":3,"to":2}"#,
            r#"{"type":"welcome"}"#,
        ] {
            let before = bench.tally.breaches;
            bench.hears(breach);
            assert_eq!(bench.tally.breaches, before + 1, "{breach}");
        }
        bench.hears(r#"{"type":"beat"}"#);
        bench.hears(r#"{"type":"presence","room":"r","count":2,"joined":[],"left":[]}"#);
        assert_eq!(bench.tally.breaches, 9);
    }

    #[test]
    fn a_line_without_a_beat_or_an_answer_is_dead() {
        let mut bench = Bench::new();
        bench.client.connected(NOW);
        assert_eq!(bench.client.dead_at(), Some(NOW + Client::ANSWER));
        let bench = Bench::live();
        assert_eq!(bench.client.dead_at(), Some(NOW + Duration::from_secs(75)));
    }

    #[test]
    fn a_server_cannot_make_up_kinds_of_errors_without_end() {
        let mut tally = Tally::new();
        for code in 0..1000 {
            tally.error(&code.to_string());
        }
        assert_eq!(tally.errors.len(), MAX_KINDS + 1);
        assert_eq!(tally.errors.values().sum::<u64>(), 1000);
    }
}
