//! Leaving politely: when a node stops, its clients are sent to the others spread over time.

use std::time::{Duration, Instant};

use tokio::sync::watch;

/// A client closes by itself at its slot; one that does not is closed so long after.
const GRACE: Duration = Duration::from_secs(2);
/// The slots cover this part of the time that leaving may take.
const SLOTS: f64 = 0.8;

/// Starts the leaving; kept by whoever stops the node.
#[derive(Debug)]
pub struct Depart(watch::Sender<Option<Departure>>);

/// Follows whether this node is leaving.
#[derive(Debug, Clone)]
pub struct Leaving(watch::Receiver<Option<Departure>>);

/// A leaving that is under way.
#[derive(Debug, Clone, Copy)]
struct Departure {
    began: Instant,
    drain: Duration,
}

/// When one client goes.
#[derive(Debug, Clone, Copy)]
pub struct Slot {
    /// When it should close by itself.
    pub at: Instant,
    /// When it is closed.
    pub until: Instant,
}

/// A node that is not leaving yet.
pub fn staying() -> (Depart, Leaving) {
    let (sender, receiver) = watch::channel(None);
    (Depart(sender), Leaving(receiver))
}

impl Depart {
    /// From now on the node leaves, within `drain`.
    pub fn begin(&self, drain: Duration) {
        self.0.send_replace(Some(Departure { began: Instant::now(), drain }));
    }
}

impl Leaving {
    pub fn has_begun(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for the leaving to begin; for ever if it never does. Gives this client a slot of its own.
    pub async fn slot(&mut self) -> Slot {
        let begun = self.0.wait_for(Option::is_some).await.map(|departure| *departure);
        match begun {
            Ok(Some(departure)) => departure.slot(rand::random()),
            _ => std::future::pending().await,
        }
    }
}

impl Departure {
    /// `share`: where in the slots, from 0 to 1.
    fn slot(&self, share: f64) -> Slot {
        let at = self.began + self.drain.mul_f64(SLOTS * share);
        Slot { at, until: (at + GRACE).min(self.began + self.drain) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_spread_and_end_within_the_drain() {
        let began = Instant::now();
        let departure = Departure { began, drain: Duration::from_secs(20) };
        assert_eq!(departure.slot(0.0).at, began);
        assert_eq!(departure.slot(0.0).until, began + GRACE);
        assert_eq!(departure.slot(1.0).at, began + Duration::from_secs(16));
        let short = Departure { began, drain: Duration::from_secs(1) };
        assert_eq!(short.slot(1.0).until, began + Duration::from_secs(1));
    }
}
