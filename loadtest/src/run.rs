//! A run as a worker's clients know it: its plan, its rooms and its clock.

use std::time::{Duration, Instant, SystemTime};

use crate::guest::Room;
use crate::plan::Plan;

#[derive(Debug)]
pub struct Run {
    pub plan: Plan,
    pub rooms: Vec<Room>,
    began: Instant,
}

impl Run {
    pub fn new(plan: Plan) -> Self {
        let room = |(number, room): (usize, &crate::plan::RoomPlan)| Room {
            number,
            name: room.name.clone(),
            run: plan.run,
            size: plan.size,
            dialect: plan.dialect,
        };
        let rooms = plan.rooms.iter().enumerate().map(room).collect();
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default().saturating_sub(plan.began);
        let now = Instant::now();
        Run { rooms, began: now.checked_sub(since).unwrap_or(now), plan }
    }

    /// Since the run began, which is the same in all its processes.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn instant(&self, time: Duration) -> tokio::time::Instant {
        (self.began + time).into()
    }
}
