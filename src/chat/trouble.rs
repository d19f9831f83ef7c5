//! Why there is no connection, and whether it makes sense to try again.

use std::io;
use std::time::Duration;

use super::client::Dead;
use super::frames::Refused;

#[derive(Debug)]
pub enum Trouble {
    /// Nobody is known by that name.
    NoSuchHost {
        host: String,
    },
    /// Nobody listens there, or the way there is closed.
    Unreachable {
        address: String,
        error: io::Error,
    },
    Tls {
        host: String,
        words: String,
    },
    /// No answer in time.
    TimedOut {
        address: String,
    },
    /// The handshake was answered with another status, and words.
    Status {
        address: String,
        status: u16,
        words: String,
        retry_after: Option<Duration>,
    },
    /// The handshake was answered with another address, which is not gone to: a token would go with us.
    Elsewhere {
        address: String,
        to: String,
    },
    /// What answers speaks something else.
    NoHall {
        address: String,
        words: String,
    },
    /// The hall does not let us in: its words.
    Unauthorized {
        words: String,
    },
    /// The token's file cannot be read.
    NoToken {
        path: String,
        error: io::Error,
    },
    /// What let us in is no longer valid, and we have nothing else.
    Expired,
    /// The hall closed the connection.
    Closed {
        code: u16,
        words: String,
    },
    Refused(Refused),
    /// The line broke.
    Broke {
        /// Empty where it simply ended.
        words: String,
    },
    Dead(Dead),
}

impl Trouble {
    /// Whether trying again may help.
    pub fn passes(&self) -> bool {
        match self {
            Trouble::Status { status, .. } => matches!(status, 429 | 500..=599),
            // What it could not read it could not read again.
            Trouble::Closed { code, .. } => !matches!(code, 1002 | 1003 | 1007 | 1009 | 4000..4100),
            Trouble::Refused(refused) => refused.code == "unavailable",
            Trouble::Unauthorized { .. } | Trouble::Expired => false,
            _ => true,
        }
    }

    /// Whether it may pass for somebody who was in: what a proxy says that is set up anew, or of a token whose file is read again
    /// and may be late.
    pub fn passes_later(&self, rereads: bool) -> bool {
        match self {
            Trouble::Status { status, .. } => *status == 404,
            Trouble::Unauthorized { .. } => rereads,
            _ => false,
        }
    }

    /// When the hall said that it makes sense again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Trouble::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
