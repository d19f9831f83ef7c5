//! A client without the protocol, as people at a terminal or on the tutorial's page are: it says texts, and hears
//! `NAME:TEXT`. At the line door it first goes to its room.
//!
//! Nothing is accepted there: what it said is accepted when it comes back. What it said when its line broke it does not say again,
//! since nobody would know it.

use std::time::Duration;

use crate::guest::{Gone, Guest, Reaction, Room, Said, View, next_message};
use crate::receiver::Sight;
use crate::speaker::Speaker;
use crate::stamps::Stamps;
use crate::standing::Standing;
use crate::tally::Tally;
use crate::target::Manner;

/// Lines that tell a client what it asked for, and no refusals.
const NOTICES: [&str; 5] = ["name", "room", "who", "help", "login"];

/// Refusals that the door itself repeats.
const RETRYABLE: [&str; 2] = ["rate_limited", "unavailable"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Away,
    /// What is to be said before it is in its room, so far.
    Entering {
        said: usize,
    },
    Live,
}

#[derive(Debug)]
pub struct Plain {
    number: usize,
    manner: Manner,
    stage: Stage,
    has_joined: bool,
    /// The door says that it went to its room.
    is_where_it_belongs: bool,
    is_speaking: bool,
    due: Option<Duration>,
    lost: Option<Duration>,
    /// When it connected, or heard something last, on its way in.
    asked_at: Duration,
    heard: Stamps,
    speaker: Option<Speaker>,
}

impl Plain {
    /// How long the way into the room may take.
    const ANSWER: Duration = Duration::from_secs(10);

    pub fn new(number: usize, manner: Manner, speaker: Option<Speaker>) -> Self {
        Plain {
            number,
            manner,
            stage: Stage::Away,
            has_joined: false,
            is_where_it_belongs: false,
            is_speaking: false,
            due: None,
            lost: None,
            asked_at: Duration::ZERO,
            heard: Stamps::default(),
            speaker,
        }
    }

    /// What it says on its way in. Whoever is told who is there, is there.
    fn way_in(&self, room: &Room) -> [String; 3] {
        [format!("/name load-{}", self.number), format!("/room {}", room.name), "/who".to_owned()]
    }

    fn is_in(&mut self, now: Duration, tally: &mut Tally) {
        if self.is_speaking && !self.has_joined {
            self.heard.drifts(); // the others began without it
        }
        self.stage = Stage::Live;
        self.has_joined = true;
        if let Some(due) = self.due.take() {
            tally.has_entered(due, now);
        }
        if let Some(lost) = self.lost.take() {
            tally.is_back(lost, now);
        }
    }

    fn noticed(&mut self, notice: &str, room: &Room, now: Duration, tally: &mut Tally) -> Reaction {
        let code = notice.split(' ').next().unwrap_or_default();
        let is_entering = matches!(self.stage, Stage::Entering { .. });
        if code == "room" && is_entering {
            self.is_where_it_belongs = notice.ends_with(&format!(" {}", room.name));
        } else if code == "who" && is_entering && self.is_where_it_belongs {
            self.is_in(now, tally);
        } else if code == "gap" {
            self.heard.drifts();
        } else if !NOTICES.contains(&code) {
            tally.error(code);
            if is_entering && !RETRYABLE.contains(&code) {
                return Reaction::GiveUp; // what it would say would be said elsewhere
            }
        }
        Reaction::Stay
    }

    fn message(&mut self, text: &str, room: &Room, now: Duration, tally: &mut Tally) {
        tally.deliveries += 1;
        tally.delivered_at(now);
        let Some(stamp) = room.stamp(text) else {
            tally.breaches += u64::from(room.is_ours);
            return;
        };
        if self.heard.hear(&stamp) == Sight::Doubled {
            return;
        }
        tally.delivered_after(now.saturating_sub(stamp.scheduled));
        if let Some(speaker) = self.speaker.as_mut().filter(|speaker| speaker.publisher() == stamp.publisher)
            && let Some(latency) = speaker.came_back(stamp.number, now)
        {
            tally.accepted.record(latency);
        }
    }
}

impl Guest for Plain {
    fn number(&self) -> usize {
        self.number
    }

    fn speaker(&mut self) -> Option<&mut Speaker> {
        self.speaker.as_mut()
    }

    fn begin(&mut self, from: Duration) {
        self.is_speaking = true;
        if let Some(speaker) = &mut self.speaker {
            speaker.start(from);
        }
    }

    fn due(&mut self, at: Duration) {
        self.due = Some(at);
    }

    fn due_back(&mut self, _now: Duration, at: Duration) {
        self.lost = Some(at);
    }

    fn connected(&mut self, now: Duration, tally: &mut Tally) {
        self.asked_at = now;
        match self.manner {
            Manner::Lines => {
                self.is_where_it_belongs = false;
                self.stage = Stage::Entering { said: 0 };
            }
            Manner::Plain | Manner::Protocol => self.is_in(now, tally), // its address said where to
        }
    }

    fn cut(&mut self, now: Duration) {
        if self.has_joined {
            self.lost.get_or_insert(now);
            self.heard.drifts();
        }
        self.stage = Stage::Away;
        if let Some(speaker) = &mut self.speaker {
            speaker.leave_in_doubt();
        }
    }

    fn next_command(&mut self, room: &Room, now: Duration, tally: &mut Tally) -> Option<String> {
        match self.stage {
            Stage::Away => None,
            Stage::Entering { said } => {
                let next = self.way_in(room).get(said).cloned()?;
                self.stage = Stage::Entering { said: said + 1 };
                Some(next)
            }
            Stage::Live => next_message(self.speaker.as_mut()?, room, now, None, tally).map(|(_, text)| text),
        }
    }

    fn wake(&self, now: Duration) -> Option<Duration> {
        match self.stage {
            Stage::Live => self.speaker.as_ref()?.wake(now),
            _ => None,
        }
    }

    /// A line that has nothing to say is no dead one.
    fn dead_at(&self) -> Option<Duration> {
        matches!(self.stage, Stage::Entering { .. }).then(|| self.asked_at + Self::ANSWER)
    }

    fn hear(
        &mut self,
        text: &str,
        room: &Room,
        now: Duration,
        tally: &mut Tally,
        _answers: &mut Vec<&'static str>,
    ) -> Reaction {
        match (text.strip_prefix("! "), text.split_once(':')) {
            (Some(notice), _) => return self.noticed(notice, room, now, tally),
            // On its way it may hear of another room.
            (None, Some((_, text))) if self.stage == Stage::Live => self.message(text, room, now, tally),
            (None, Some(_)) => {}
            (None, None) => tally.breaches += 1,
        }
        Reaction::Stay
    }

    fn has_joined(&self) -> bool {
        self.has_joined
    }

    fn is_live(&self) -> bool {
        self.stage == Stage::Live
    }

    fn stand(&self, now: Duration, standing: &mut Standing, by_room: Option<usize>, is_gone: bool) {
        let is_speaking = !is_gone && self.speaker.as_ref().is_some_and(|speaker| !speaker.is_done(now));
        standing.add_guest(self, self.speaker.as_ref(), is_speaking, by_room);
        if let Some(room) = by_room.filter(|_| self.has_joined && !is_gone) {
            if self.heard.has_drifted() {
                standing.adrift += 1;
            } else {
                standing.rooms[room].has_heard(self.heard.count());
            }
        }
    }

    fn end(self: Box<Self>, room: usize, until: Duration) -> Gone {
        Gone {
            number: self.number,
            room,
            has_joined: self.has_joined,
            is_live: self.is_live(),
            said: self.speaker.map(|speaker| Said::of(speaker, until)),
            view: View::Stamps(self.heard),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::speaker::{Pace, Script, Until};
    use crate::wire::Stamp;

    const NOW: Duration = Duration::from_millis(5);

    struct Bench {
        plain: Plain,
        room: Room,
        tally: Tally,
    }

    impl Bench {
        fn at(manner: Manner) -> Self {
            let script = Script { publishers: 1, pace: Pace::Window(8), until: Until::Messages(2), until_heard: false };
            let mut speaker = Speaker::new(script, 1, 3);
            speaker.start(NOW);
            let room = Room { is_ours: true, publishers: 4, ..Room::for_test("r") };
            Bench { plain: Plain::new(9, manner, Some(speaker)), room, tally: Tally::new(1) }
        }

        fn says(&mut self) -> Vec<String> {
            std::iter::from_fn(|| self.plain.next_command(&self.room, NOW, &mut self.tally)).collect()
        }

        fn hears(&mut self, line: &str) -> Reaction {
            self.plain.hear(line, &self.room, NOW, &mut self.tally, &mut Vec::new())
        }
    }

    #[test]
    fn at_the_line_door_it_goes_to_its_room_and_speaks_when_it_is_there() {
        let mut bench = Bench::at(Manner::Lines);
        bench.plain.due(NOW);
        bench.plain.connected(NOW, &mut bench.tally);
        assert_eq!(bench.says(), ["/name load-9", "/room r", "/who"]);
        bench.hears("! who 1 here: load-9");
        assert!(!bench.plain.is_live(), "that was another room");
        bench.hears("! room you are in r");
        bench.hears("zoe:this is another room's");
        assert!(!bench.plain.is_live() && bench.says().is_empty());
        bench.hears("! who 1 here: load-9");
        assert!(bench.plain.is_live());
        assert_eq!((bench.says().len(), bench.tally.entered.count(), bench.tally.deliveries), (0, 1, 0));
    }

    #[test]
    fn what_it_said_is_accepted_when_it_comes_back_and_never_said_again() {
        let mut bench = Bench::at(Manner::Plain);
        bench.plain.speaker = Some(Speaker::new(
            Script { publishers: 1, pace: Pace::Window(8), until: Until::Messages(2), until_heard: false },
            1,
            0,
        ));
        bench.plain.begin(NOW);
        bench.plain.connected(NOW, &mut bench.tally);
        let said = bench.says();
        assert_eq!(said.len(), 2);
        bench.hears(&format!("load-9:{}", said[0]));
        assert_eq!((bench.tally.accepted.count(), bench.tally.deliveries), (1, 1));
        bench.plain.cut(NOW);
        bench.plain.connected(NOW, &mut bench.tally);
        assert!(bench.says().is_empty());
        let gone = Box::new(bench.plain).end(0, NOW);
        let said = gone.said.unwrap();
        assert_eq!((said.by_ear, said.in_doubt, said.unaccepted, said.sent), (1, vec![1], 0, 2));
    }

    #[test]
    fn who_is_not_let_into_its_room_says_nothing_elsewhere() {
        let mut bench = Bench::at(Manner::Lines);
        bench.plain.connected(NOW, &mut bench.tally);
        bench.says();
        assert_eq!(bench.hears("! rate_limited slow down"), Reaction::Stay);
        assert_eq!(bench.hears("! forbidden not here"), Reaction::GiveUp);
        bench.hears("! who 1 here: load-9");
        assert!(!bench.plain.is_live() && bench.says().is_empty());
    }

    #[test]
    fn what_nobody_said_in_a_room_of_the_runs_own_is_a_breach() {
        let mut bench = Bench::at(Manner::Plain);
        bench.plain.connected(NOW, &mut bench.tally);
        let said = Stamp { run: 1, publisher: 3, number: 0, scheduled: NOW }.write(60);
        bench.hears(&format!("load-9:{said}"));
        assert_eq!(bench.tally.breaches, 0);
        for text in [said.replace('.', "x"), said.replacen(" 3 ", " 9 ", 1), "hello".into(), format!("{said}.")] {
            bench.hears(&format!("load-9:{text}"));
        }
        assert_eq!(bench.tally.breaches, 4);
        bench.room.is_ours = false;
        bench.hears("zoe:hello");
        assert_eq!(bench.tally.breaches, 4);
    }

    #[test]
    fn refusals_are_counted_and_other_lines_are_a_breach() {
        let mut bench = Bench::at(Manner::Plain);
        bench.plain.connected(NOW, &mut bench.tally);
        bench.hears("! rate_limited slow down");
        bench.hears("what is that");
        assert_eq!((bench.tally.errors.get("rate_limited"), bench.tally.breaches), (Some(&1), 1));
    }
}
