//! How somebody ends a run before its time.

use anyhow::Context;
use rustix::process::Signal as Number;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Signals to this program, from when the run begins: none is missed between two looks.
pub struct Ends {
    interrupt: Signal,
    terminate: Signal,
    stop: Signal,
}

impl Ends {
    pub fn watch() -> anyhow::Result<Self> {
        let watch = |kind| signal(kind).context("cannot watch for signals");
        Ok(Ends {
            interrupt: watch(SignalKind::interrupt())?,
            terminate: watch(SignalKind::terminate())?,
            stop: watch(SignalKind::from_raw(Number::TSTP.as_raw()))?,
        })
    }

    /// Ctrl-C, or SIGTERM. Ctrl-Z is answered: a run that pauses would measure its own pause.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                Some(()) = self.interrupt.recv() => return,
                Some(()) = self.terminate.recv() => return,
                Some(()) = self.stop.recv() => eprintln!("\na run goes on, since it measures time; Ctrl-C ends it"),
                else => std::future::pending().await,
            }
        }
    }
}
