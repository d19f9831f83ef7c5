//! A run as a worker's clients know it: its plan, its rooms and its clock.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use rustix::time::{ClockId, clock_gettime};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use townhall::tls::whom_this_machine_trusts;

use crate::guest::Room;
use crate::plan::{Plan, Seat};
use crate::target::Target;

pub struct Run {
    pub plan: Plan,
    pub rooms: Vec<Room>,
    /// Of each client that reads.
    pub seats: Vec<Seat>,
    /// What speaks TLS to a host, by its name.
    tls: HashMap<String, Tls>,
    began: Instant,
}

type Tls = (TlsConnector, ServerName<'static>);

impl Run {
    /// # Errors
    /// Where TLS is asked for: this machine trusts nobody, or a host has no name.
    pub fn new(plan: Plan) -> anyhow::Result<Self> {
        let room = |(number, room): (usize, &crate::plan::RoomPlan)| Room {
            number,
            name: room.name.clone(),
            run: plan.run,
            size: plan.size,
            publishers: plan.script.publishers,
            is_ours: room.is_ours,
            dialect: plan.dialect,
        };
        let rooms = plan.rooms.iter().enumerate().map(room).collect();
        let now = Instant::now();
        let began = now.checked_sub(since(plan.began)).unwrap_or(now);
        Ok(Run { rooms, seats: plan.seats(), tls: tls(&plan)?, began, plan })
    }

    /// The name of the room of a client that reads.
    pub fn room_of(&self, client: usize) -> &str {
        &self.rooms[self.seats[client].room].name
    }

    /// What speaks TLS to a target; `None`: it is spoken to without.
    pub fn tls(&self, target: &Target) -> Option<Tls> {
        self.tls.get(target.tls_host()?).cloned()
    }

    /// Since the run began, which is the same in all its processes.
    pub fn now(&self) -> Duration {
        since(self.plan.began)
    }

    pub fn instant(&self, time: Duration) -> tokio::time::Instant {
        (self.began + time).into()
    }
}

/// What the system's clock says that never jumps and is the same for all processes.
pub fn clock() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

pub fn since(began: Duration) -> Duration {
    clock().saturating_sub(began)
}

fn tls(plan: &Plan) -> anyhow::Result<HashMap<String, Tls>> {
    let mut all = HashMap::new();
    for host in plan.targets.iter().filter_map(Target::tls_host) {
        let trusted = whom_this_machine_trusts().map_err(|words| anyhow!("{words}"))?;
        let connector = townhall::tls::to(host, trusted).with_context(|| format!("{host}: no name of a host"))?;
        all.insert(host.to_owned(), connector);
    }
    Ok(all)
}
