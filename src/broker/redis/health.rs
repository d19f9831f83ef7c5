//! What is wrong at the moment, over all servers: for whoever asks, for `/readyz`, and for metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::Gauge;
use tokio::sync::watch;

use super::shard::ShardId;
use super::trouble::{Reason, Trouble};
use crate::broker::{BrokerError, DEADLINE, Status};
use crate::metrics::METRICS;

pub(super) struct Health {
    state: Mutex<State>,
    status: watch::Sender<Status>,
    /// How many servers have each.
    troubles: [Gauge; Reason::ALL.len()],
}

#[derive(Default)]
struct State {
    /// Every server that should be there, and what is wrong with it.
    servers: BTreeMap<ShardId, Option<Trouble>>,
    /// Any of them was heard once.
    heard: bool,
}

impl Health {
    pub fn new() -> Self {
        METRICS.broker_up.set(0.0);
        Health {
            state: Mutex::default(),
            status: watch::Sender::new(Status::Never("not asked yet".into())),
            troubles: Reason::ALL.map(|reason| metrics::gauge!("townhall_broker_trouble", "reason" => reason.label())),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// A server works, messages included.
    pub fn well(&self, server: ShardId) {
        let mut state = self.state();
        state.heard = true;
        state.servers.insert(server, None);
        self.tell(&state);
    }

    /// A server does not, or not in all.
    pub fn ill(&self, server: ShardId, trouble: Trouble) {
        let mut state = self.state();
        // Who refuses messages was heard all the same.
        state.heard |= trouble.reason.refuses_messages_only();
        state.servers.insert(server, Some(trouble));
        self.tell(&state);
    }

    /// A server is no longer ours.
    pub fn forget(&self, server: ShardId) {
        let mut state = self.state();
        state.servers.remove(&server);
        self.tell(&state);
    }

    fn tell(&self, state: &State) {
        self.count(state);
        let why = state.servers.values().flatten().next().map(|trouble| Arc::<str>::from(trouble.words.as_str()));
        let up = !state.servers.is_empty() && why.is_none();
        METRICS.broker_up.set(f64::from(u8::from(up)));
        let status = match why {
            None if up => Status::Up,
            None => return,
            Some(why) if state.heard => Status::Away(why),
            Some(why) => Status::Never(why),
        };
        self.status.send_if_modified(|before| {
            let changed = *before != status;
            *before = status;
            changed
        });
    }

    fn count(&self, state: &State) {
        for (reason, gauge) in Reason::ALL.iter().zip(&self.troubles) {
            let ill = state.servers.values().flatten().filter(|trouble| trouble.reason == *reason).count();
            gauge.set(ill as f64);
        }
    }

    /// What a client is told whose command was not done in time.
    pub fn no_answer(&self) -> BrokerError {
        BrokerError::Unavailable(match &*self.status.borrow() {
            Status::Up => format!("Redis did not answer within {} s", DEADLINE.as_secs()),
            Status::Never(why) | Status::Away(why) => format!("Redis: {why}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_servers_make_one_status() {
        let health = Health::new();
        let status = health.status();
        let [one, other] = [ShardId::next(), ShardId::next()];
        let away = |words: &str| Trouble::new(Reason::Unreachable, words);
        health.ill(one, away("one"));
        assert_eq!(*status.borrow(), Status::Never("one".into()));
        health.well(other);
        assert_eq!(*status.borrow(), Status::Away("one".into()));
        health.well(one);
        assert_eq!(*status.borrow(), Status::Up);
        health.ill(other, away("other"));
        assert_eq!(*status.borrow(), Status::Away("other".into()));
        health.forget(other);
        assert_eq!(*status.borrow(), Status::Up);
    }

    #[test]
    fn who_refuses_messages_was_heard() {
        let health = Health::new();
        health.ill(ShardId::next(), Trouble::new(Reason::Memory, "full"));
        assert_eq!(*health.status().borrow(), Status::Away("full".into()));
        assert_eq!(health.no_answer(), BrokerError::Unavailable("Redis: full".into()));
    }
}
