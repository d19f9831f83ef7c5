//! Whether anybody may come in at the moment: the hall is neither full nor closing, and its broker was heard.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::watch;

use crate::broker::Status;
use crate::drain::Leaving;

/// Why nobody may come in; all of these pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    Leaving,
    /// The broker was not heard since the start.
    Broker,
}

impl Closed {
    pub fn words(self) -> &'static str {
        match self {
            Closed::Leaving => "this replica is leaving; come again at once, to another one",
            Closed::Broker => "the broker was not heard yet; come again in a moment",
        }
    }

    /// The label of `handshakes_refused_total`.
    pub fn label(self) -> &'static str {
        match self {
            Closed::Leaving => "draining",
            Closed::Broker => "broker",
        }
    }
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub struct Gate {
    leaving: Leaving,
    broker: watch::Receiver<Status>,
}

impl Gate {
    pub fn new(leaving: Leaving, broker: watch::Receiver<Status>) -> Self {
        Gate { leaving, broker }
    }

    /// # Errors
    /// Why new clients should not come.
    pub fn pass(&self) -> Result<(), Closed> {
        if self.leaving.has_begun() {
            return Err(Closed::Leaving);
        }
        match *self.broker.borrow() {
            Status::Never => Err(Closed::Broker),
            Status::Up | Status::Away => Ok(()),
        }
    }

    /// What is known of the broker, in words.
    pub fn broker(&self) -> &'static str {
        match *self.broker.borrow() {
            Status::Never => "the broker was not heard yet",
            Status::Up => "the broker is up",
            Status::Away => "the broker is away; clients stay, and are served again when it is back",
        }
    }
}

/// The sockets that may be open at the same time.
#[derive(Debug)]
pub struct Seats {
    taken: AtomicUsize,
    all: usize,
}

/// One of them; free again when dropped.
#[derive(Debug)]
pub struct Seat(Arc<Seats>);

impl Seats {
    pub fn new(all: usize) -> Arc<Self> {
        Arc::new(Seats { taken: AtomicUsize::new(0), all })
    }

    /// `None` when all are taken.
    pub fn take(self: &Arc<Self>) -> Option<Seat> {
        let taken = self.taken.fetch_add(1, Ordering::AcqRel);
        let seat = Seat(self.clone());
        (taken < self.all).then_some(seat)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_client_has_left() {
        let seats = Seats::new(2);
        let (one, two) = (seats.take(), seats.take());
        assert!(one.is_some() && two.is_some());
        assert!(seats.take().is_none());
        drop(one);
        assert!(seats.take().is_some());
    }
}
