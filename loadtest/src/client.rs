//! One simulated client, without its socket: what it makes of a frame, and what it wants to say.
//!
//! ```text
//! Away ─connected→ Greeting ─welcome→ Joining ─joined→ CatchingUp ─its backlog is here→ Live
//!   ↑                                    └ unavailable: again later
//!   └──────────────────────────── the connection ended ────────────────────────────────┘
//! ```
//!
//! New messages and those to be sent again go out in `Live` only: what comes with the backlog need not be sent again.

use std::time::Duration;

use crate::guest::{Gone, Guest, Reaction, Room, Said, View, next_message};
use crate::place::{EpochKey, IdHash, Spot};
use crate::receiver::{Entrance, Receiver, Sight};
use crate::speaker::Speaker;
use crate::standing::Standing;
use crate::tally::Tally;
use crate::wire::{Command, Heard, JOIN_REF};

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

/// One client of `townhall.v1`, or of what is told in its words.
#[derive(Debug)]
pub struct Client {
    number: usize,
    stage: Stage,
    /// When it was to enter, or lost its line: until it has everything that it was promised.
    awaited: Awaited,
    /// It was away because it wanted to, from when to when, the last time.
    absence: (Duration, Duration),
    receiver: Receiver,
    speaker: Option<Speaker>,
    /// How often the server shows that it is there; `None`: never.
    beat: Option<Duration>,
    /// For how long the server knows an id.
    dedupe: Option<Duration>,
    /// When something was heard last.
    heard_at: Duration,
}

/// What a client's being live ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Awaited {
    Nothing,
    /// Its first entering, which was due then.
    Entering(Duration),
    /// Its coming back, since its line was lost then.
    Back(Duration),
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
            awaited: Awaited::Nothing,
            absence: (Duration::ZERO, Duration::ZERO),
            receiver: Receiver::default(),
            speaker,
            beat: None,
            dedupe: None,
            heard_at: Duration::ZERO,
        }
    }

    fn is_credible(heard: &Heard) -> bool {
        [heard.offset, heard.backlog, heard.to]
            .iter()
            .all(|number| number.is_none_or(|number| number <= Self::MAX_OFFSET))
    }

    /// Whoever waited for its backlog may have it now.
    fn look_around(&mut self, now: Duration, tally: &mut Tally) {
        if let Stage::CatchingUp(until) = self.stage
            && self.receiver.place().is_some_and(|place| place.offset >= until)
        {
            self.stage = Stage::Live;
            match std::mem::replace(&mut self.awaited, Awaited::Nothing) {
                Awaited::Nothing => {}
                Awaited::Entering(due) => tally.has_entered(due, now),
                Awaited::Back(lost) => tally.is_back(lost, now),
            }
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

    fn joined(&mut self, heard: &Heard, room: &Room, now: Duration, tally: &mut Tally) -> bool {
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
            tally.ledgers[room.number].share(old, epoch, at);
            tally.resumes += u64::from(asked);
        }
        tally.ledgers[room.number].reach(Spot { epoch, offset }, now);
        self.stage = Stage::CatchingUp(offset);
        self.stalled();
        backlog <= offset
    }

    fn gap(&mut self, heard: &Heard, room: &Room, tally: &mut Tally) -> bool {
        let (Some(from), Some(to)) = (heard.first_lost(), heard.to) else {
            return false;
        };
        let said = self.receiver.gap(from, to);
        if said {
            let epoch = EpochKey::of(&heard.epoch);
            tally.ledgers[room.number].announce(from, Spot { epoch, offset: to });
        }
        said
    }

    fn accepted(&mut self, heard: &Heard, room: &Room, now: Duration, tally: &mut Tally) -> bool {
        let (Some(offset), Some(speaker)) = (heard.offset, self.speaker.as_mut()) else {
            return false;
        };
        let epoch = EpochKey::of(&heard.epoch);
        let spot = Spot { epoch, offset };
        let Ok(latency) = speaker.accepted(&heard.id, spot, now) else {
            return false;
        };
        tally.ledgers[room.number].reach(spot, now);
        if let Some(latency) = latency {
            tally.accepted.record(latency);
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
        tally.ledgers[room.number].see(spot, id, now);
        let stamp = room.stamp(&heard.text);
        let is_theirs = stamp.map_or(!room.is_ours || heard.kind != "message", |stamp| stamp.is_under(&heard.id));
        if !is_theirs {
            return false; // nobody said that, or not under this id
        }
        if let Some(stamp) = stamp {
            if sight != Sight::Doubled {
                let (left, back) = self.absence;
                let absent = back.min(now).saturating_sub(left.max(stamp.scheduled)); // while it was due
                tally.delivered_after(now.saturating_sub(stamp.scheduled + absent));
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

    /// One frame of `townhall.v1`; `None`: one that is not of the protocol.
    fn take(&mut self, heard: Option<Heard>, room: &Room, now: Duration, tally: &mut Tally) -> Reaction {
        self.heard_at = now;
        let Some(heard) = heard.filter(Self::is_credible) else {
            tally.breaches += 1;
            return Reaction::Stay;
        };
        let ours = heard.room == room.name;
        let fits = match &*heard.kind {
            "welcome" => self.welcomed(&heard, now),
            "joined" => ours && self.joined(&heard, room, now, tally),
            "gap" => ours && self.gap(&heard, room, tally),
            "accepted" => ours && self.accepted(&heard, room, now, tally),
            "error" => return self.refused(&heard, now, tally),
            "reconnect" => return Reaction::MoveAt(now + heard.reconnect_after()),
            _ if heard.offset.is_some() && heard.at.is_some() => ours && self.event(&heard, room, now, tally),
            kind => kind != "message",
        };
        tally.breaches += u64::from(!fits);
        self.look_around(now, tally);
        Reaction::Stay
    }
}

impl Guest for Client {
    fn number(&self) -> usize {
        self.number
    }

    fn speaker(&mut self) -> Option<&mut Speaker> {
        self.speaker.as_mut()
    }

    fn due(&mut self, at: Duration) {
        self.awaited = Awaited::Entering(at);
    }

    fn due_back(&mut self, now: Duration, at: Duration) {
        self.awaited = Awaited::Back(at);
        self.absence = (now, at);
    }

    fn connected(&mut self, now: Duration, _tally: &mut Tally) {
        self.stage = Stage::Greeting;
        self.beat = None;
        self.heard_at = now;
    }

    fn cut(&mut self, now: Duration) {
        if self.awaited == Awaited::Nothing && self.has_joined() {
            self.awaited = Awaited::Back(now);
        }
        self.stage = Stage::Away;
        if let Some(speaker) = &mut self.speaker {
            speaker.cut();
        }
    }

    fn next_command(&mut self, room: &Room, now: Duration, tally: &mut Tally) -> Option<String> {
        match &mut self.stage {
            Stage::Joining { asked, at } if !*asked && *at <= now => {
                *asked = true;
                let join =
                    Command::Join { room: &room.name, reference: JOIN_REF, after: self.receiver.place(), last: 0 };
                Some(room.dialect.write(&join))
            }
            Stage::Live => {
                let (id, text) = next_message(self.speaker.as_mut()?, room, now, self.dedupe, tally)?;
                Some(room.dialect.write(&Command::Say { room: &room.name, id, text: &text }))
            }
            _ => None,
        }
    }

    fn wake(&self, now: Duration) -> Option<Duration> {
        match self.stage {
            Stage::Joining { asked: false, at } => Some(at),
            Stage::Live => self.speaker.as_ref()?.wake(now),
            _ => None,
        }
    }

    fn dead_at(&self) -> Option<Duration> {
        let patience = match self.stage {
            Stage::Greeting | Stage::Joining { asked: true, .. } => Self::ANSWER,
            _ => self.beat? * Self::PATIENCE,
        };
        Some(self.heard_at + patience)
    }

    fn hear(
        &mut self,
        text: &str,
        room: &Room,
        now: Duration,
        tally: &mut Tally,
        answers: &mut Vec<&'static str>,
    ) -> Reaction {
        let mut reaction = Reaction::Stay;
        answers.extend(room.dialect.read(text, &room.name, |heard| {
            let next = self.take(heard, room, now, tally);
            if reaction == Reaction::Stay {
                reaction = next;
            }
        }));
        reaction
    }

    fn has_joined(&self) -> bool {
        self.receiver.place().is_some()
    }

    fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    fn stand(&self, now: Duration, standing: &mut Standing, by_room: Option<usize>, is_gone: bool) {
        let is_speaking = !is_gone && self.speaker.as_ref().is_some_and(|speaker| !speaker.is_done(now));
        standing.add_guest(self, self.speaker.as_ref(), is_speaking, by_room);
        if let Some(room) = by_room.filter(|_| !is_gone) {
            standing.rooms[room].lower(self.receiver.spot());
        }
    }

    fn end(self: Box<Self>, room: usize, until: Duration) -> Gone {
        Gone {
            number: self.number,
            room,
            has_joined: self.has_joined(),
            is_live: self.is_live(),
            said: self.speaker.map(|speaker| Said::of(speaker, until)),
            view: View::Log(self.receiver),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::speaker::{Pace, Script, Until};
    use crate::wire::Stamp;

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
            let mut speaker = Speaker::new(script, 1, 0);
            speaker.start(NOW);
            Bench { client: Client::new(0, Some(speaker)), room: Room::for_test("r"), tally: Tally::new(1) }
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
            self.client.connected(NOW, &mut self.tally);
            self.hears(r#"{"type":"welcome","beat":25,"limits":{"dedupe_s":600}}"#);
        }

        fn hears(&mut self, text: &str) -> Reaction {
            self.client.hear(text, &self.room, NOW, &mut self.tally, &mut Vec::new())
        }

        /// Message by message, all are of one publisher.
        fn hears_message(&mut self, offset: u64, publisher: u32) {
            let stamp = Stamp { run: 1, publisher, number: offset - 1, scheduled: Duration::ZERO };
            self.hears_text(offset, stamp.id(), &stamp.write(60));
        }

        fn hears_text(&mut self, offset: u64, id: Uuid, text: &str) {
            self.hears(&format!(
                r#"{{"type":"message","room":"r","offset":{offset},"id":"{id}","from":{{"id":"u","name":"n"}},"at":5,"text":"{text}"}}"#
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
        bench.client.connected(NOW, &mut bench.tally);
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
        bench.hears_message(1, 3);
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
        bench.client.cut(NOW);
        bench.greets();
        let join = bench.commands(NOW);
        assert_eq!(join[0]["after"], serde_json::json!({"epoch": "e", "offset": 0}));
        bench.hears(r#"{"type":"joined","room":"r","epoch":"e","offset":2,"backlog":2,"recovered":true}"#);
        bench.hears_message(1, 0);
        assert!(bench.commands(NOW).is_empty());
        bench.hears_message(2, 3);
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
    fn a_text_under_another_messages_id_is_a_breach() {
        let mut bench = Bench::live();
        let stamp = |number| Stamp { run: 1, publisher: 3, number, scheduled: Duration::ZERO };
        bench.hears_text(1, stamp(1).id(), &stamp(1).write(60));
        assert_eq!(bench.tally.breaches, 0);
        bench.hears_text(2, stamp(2).id(), &stamp(3).write(60));
        assert_eq!(bench.tally.breaches, 1);
        bench.hears_text(3, Uuid::from_u128(0x4000_8000_0000_0000_0000), &stamp(4).write(60));
        assert_eq!(bench.tally.breaches, 1, "it was said at a door that has no ids, and got one of the hall's");
        bench.hears_text(4, stamp(3).id(), "somebody else's, in a room that is not the run's own");
        assert_eq!(bench.tally.breaches, 1);
    }

    #[test]
    fn a_line_without_a_beat_or_an_answer_is_dead() {
        let mut bench = Bench::new();
        bench.client.connected(NOW, &mut bench.tally);
        assert_eq!(bench.client.dead_at(), Some(NOW + Client::ANSWER));
        let bench = Bench::live();
        assert_eq!(bench.client.dead_at(), Some(NOW + Duration::from_secs(75)));
    }

    #[test]
    fn what_was_said_while_it_stayed_away_is_late_only_since_it_wanted_to_be_back() {
        let ms = Duration::from_millis;
        let mut bench = Bench::live();
        bench.hears_message(1, 3);
        bench.client.cut(ms(0));
        bench.client.due_back(ms(0), ms(1));
        bench.greets();
        bench.commands(NOW);
        bench.hears(r#"{"type":"joined","room":"r","epoch":"e","offset":2,"backlog":1,"recovered":true}"#);
        bench.hears_message(2, 3); // both were due at 0, and now it is 1 ms
        let delivered = bench.tally.delivered().summary();
        assert_eq!((delivered.count, delivered.max, delivered.p50), (2, 1.0, 0.001));
        bench.hears_message(3, 3); // it was due at 0, and came while it was there
        bench.client.absence = (ms(5), ms(9));
        bench.hears_message(4, 3);
        assert_eq!(bench.tally.delivered().count(), 4);
    }

    #[test]
    fn entering_is_measured_from_when_it_was_due_and_coming_back_from_the_loss_of_the_line() {
        let ms = Duration::from_millis;
        let mut bench = Bench::new();
        bench.client.due(ms(0));
        bench.greets();
        bench.commands(NOW);
        bench.hears(r#"{"type":"joined","room":"r","epoch":"e","offset":0,"backlog":0}"#);
        assert_eq!((bench.tally.entered.count(), bench.tally.back.count()), (1, 0));
        bench.client.cut(ms(0));
        bench.client.cut(ms(1)); // a failed attempt: it is away since the first
        bench.greets();
        bench.commands(NOW);
        bench.hears(r#"{"type":"joined","room":"r","epoch":"e","offset":1,"backlog":1,"recovered":true}"#);
        assert_eq!(bench.tally.back.count(), 0, "its backlog has not come");
        bench.hears_message(1, 3);
        assert_eq!((bench.tally.entered.count(), bench.tally.back.count()), (1, 1));
        assert!(bench.tally.back.at_quantile(1.0) >= ms(1));
    }
}
