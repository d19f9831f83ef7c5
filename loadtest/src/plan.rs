//! What a run is, as every worker is told: which rooms there are and who is in them, where clients connect to, what is said
//! when, and who goes away in between.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::dialect::Dialect;
use crate::speaker::Script;
use crate::target::Target;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Marks this run's messages.
    pub run: u32,
    /// When it began, by the system's clock that never jumps: all other times are since then.
    pub began: Duration,
    pub rooms: Vec<RoomPlan>,
    /// Bytes of a message's text.
    pub size: usize,
    pub dialect: Dialect,
    /// Whether every line of a text frame is a message.
    pub lines: bool,
    /// Clients are spread over the first ones; the `spares` last ones are for those who come back.
    pub targets: Vec<Target>,
    pub spares: usize,
    /// Where clients connect from; empty: whatever the system chooses.
    pub sources: Vec<IpAddr>,
    pub entry: Entry,
    /// Clients in the first room, numbered behind all others, that only count what they get.
    pub listeners: usize,
    /// Whether a client whose connection ends comes back.
    pub resume: bool,
    pub script: Script,
    pub churn: Option<Churn>,
    /// When all lines are cut, after the speaking began.
    pub cut_after: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoomPlan {
    pub name: String,
    /// Nobody else can be there: its name was made up.
    pub is_ours: bool,
    /// How many clients it has that read.
    pub members: usize,
    /// How many of those speak.
    pub publishers: u32,
}

/// How clients come in.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Entry {
    /// So many a second, whatever the server does.
    Open(f64),
    /// As fast as they are let in, with so many under way.
    Window(usize),
}

/// Clients that leave and come back, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Churn {
    /// How many leave a second.
    pub rate: f64,
    /// For how long each stays away.
    pub away: Duration,
}

/// Which clients a worker has.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Share {
    /// Every `of`th of those that read, from `first`.
    Readers { first: usize, of: usize },
    /// Every `of`th of those that count, from `first`.
    Listeners { first: usize, of: usize },
}

/// A client's place in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    pub room: usize,
    pub publisher: Option<u32>,
    /// Its place among those that may leave.
    pub leaver: Option<usize>,
}

impl Plan {
    pub fn readers(&self) -> usize {
        self.rooms.iter().map(|room| room.members).sum()
    }

    pub fn everybody(&self) -> usize {
        self.readers() + self.listeners
    }

    /// Where each of those that read sits. A room's members have consecutive numbers, and so are spread over targets and
    /// workers; publishers are numbered across rooms, so that messages in a row go to different ones.
    pub fn seats(&self) -> Vec<Seat> {
        let mut seats = Vec::with_capacity(self.readers());
        let mut first_of = Vec::with_capacity(self.rooms.len());
        for (room, plan) in self.rooms.iter().enumerate() {
            first_of.push(seats.len());
            seats.extend((0..plan.members).map(|_| Seat { room, publisher: None, leaver: None }));
        }
        let most = self.rooms.iter().map(|room| room.publishers as usize).max().unwrap_or(0);
        let speaking = (0..most).flat_map(|nth| {
            let rooms = self.rooms.iter().zip(&first_of);
            rooms.filter(move |(room, _)| nth < room.publishers as usize).map(move |(_, first)| first + nth)
        });
        for (publisher, seat) in (0..).zip(speaking) {
            seats[seat].publisher = Some(publisher);
        }
        for (leaver, seat) in seats.iter_mut().filter(|seat| seat.publisher.is_none()).enumerate() {
            seat.leaver = Some(leaver);
        }
        seats
    }

    /// Where a client connects to the `attempt`th time, from 0: to the next one at which one speaks as at its first.
    pub fn target(&self, client: usize, attempt: usize) -> &Target {
        let first = client % (self.targets.len() - self.spares);
        let manner = self.targets[first].manner;
        let alike = || self.targets.iter().cycle().skip(first).filter(|target| target.manner == manner);
        let count = self.targets.iter().filter(|target| target.manner == manner).count();
        alike().nth(attempt % count).unwrap_or(&self.targets[first])
    }

    pub fn source(&self, client: usize) -> Option<IpAddr> {
        (!self.sources.is_empty()).then(|| self.sources[client % self.sources.len()])
    }

    /// When a client is to connect, since the gathering began.
    pub fn turn(&self, client: usize) -> Duration {
        match self.entry {
            Entry::Open(rate) => Duration::from_secs_f64(client as f64 / rate),
            Entry::Window(_) => Duration::ZERO,
        }
    }

    /// How many may leave. Those that speak stay, or what they would have said meanwhile would look like a late server's.
    pub fn leavers(&self) -> usize {
        let publishers: usize = self.rooms.iter().map(|room| room.publishers as usize).sum();
        self.readers() - publishers
    }

    /// When the `leaver`th of those that may leave goes away, for the `time`th time, after the speaking began; not after the
    /// script's end.
    pub fn leaves(&self, leaver: usize, time: u32) -> Option<Duration> {
        let Churn { rate, .. } = self.churn?;
        let place = f64::from(time) * self.leavers() as f64 + leaver as f64 + 1.0;
        let at = Duration::try_from_secs_f64(place / rate).ok()?;
        self.script.length().filter(|length| at < *length).map(|_| at)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::speaker::{Pace, Until};

    pub fn plan(rooms: &[(usize, u32)]) -> Plan {
        let rooms = rooms.iter().enumerate();
        Plan {
            run: 1,
            began: Duration::ZERO,
            rooms: rooms
                .map(|(n, &(members, publishers))| RoomPlan {
                    name: format!("r{n}"),
                    is_ours: true,
                    members,
                    publishers,
                })
                .collect(),
            size: 60,
            dialect: Dialect::Townhall,
            lines: false,
            targets: ["ws://127.0.0.1:1", "ws://127.0.0.1:2", "ws://127.0.0.1:3"].map(Target::for_test).to_vec(),
            spares: 1,
            sources: Vec::new(),
            entry: Entry::Open(10.0),
            listeners: 0,
            resume: true,
            script: Script {
                publishers: 0,
                pace: Pace::Open(10.0),
                until: Until::After(Duration::from_secs(10)),
                until_heard: false,
            },
            churn: None,
            cut_after: None,
        }
    }

    #[test]
    fn rooms_are_filled_one_after_another_and_publishers_numbered_across_them() {
        let seats = plan(&[(3, 2), (2, 1), (1, 0)]).seats();
        let told: Vec<(usize, Option<u32>)> = seats.iter().map(|seat| (seat.room, seat.publisher)).collect();
        assert_eq!(told, [(0, Some(0)), (0, Some(2)), (0, None), (1, Some(1)), (1, None), (2, None)]);
    }

    #[test]
    fn spares_are_for_those_who_come_back() {
        let plan = plan(&[(4, 0)]);
        let port = |client, attempt| plan.target(client, attempt).address.port();
        assert_eq!([port(0, 0), port(1, 0), port(2, 0)], [1, 2, 1]);
        assert_eq!([port(0, 1), port(0, 2), port(0, 3), port(1, 1)], [2, 3, 1, 3]);
    }

    #[test]
    fn who_comes_back_goes_where_one_speaks_alike() {
        let mut plan = plan(&[(4, 0)]);
        plan.spares = 0;
        plan.targets.insert(1, Target::for_test("tcp://127.0.0.1:9"));
        let port = |client, attempt| plan.target(client, attempt).address.port();
        assert_eq!([port(0, 0), port(0, 1), port(0, 2), port(0, 3)], [1, 2, 3, 1]);
        assert_eq!([port(1, 0), port(1, 1)], [9, 9]);
    }

    #[test]
    fn everybody_leaves_in_turn_until_the_script_ends() {
        let mut plan = plan(&[(6, 2)]);
        assert_eq!(plan.leaves(0, 0), None);
        let leavers: Vec<_> = plan.seats().iter().map(|seat| seat.leaver).collect();
        assert_eq!(leavers, [None, None, Some(0), Some(1), Some(2), Some(3)]);
        plan.churn = Some(Churn { rate: 2.0, away: Duration::from_secs(1) });
        let ms = |client, time| plan.leaves(client, time).map(|at| at.as_millis());
        assert_eq!([ms(0, 0), ms(1, 0), ms(3, 0), ms(0, 1)], [Some(500), Some(1000), Some(2000), Some(2500)]);
        assert_eq!(ms(3, 4), None, "that would be the end of the script");
    }
}
