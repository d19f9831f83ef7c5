//! Logs go to stderr: text for people on a terminal, JSON for collectors otherwise.
//!
//! `RUST_LOG` decides what is logged; without it that is `info` and above. Connections that come and go are logged at `info`
//! with the target [`DOOR`]. A terminal shows them, as the tutorial did; elsewhere they would be most of the log, so they are
//! left out unless `RUST_LOG` lets them in (`RUST_LOG=townhall=debug`). Texts, keys and tokens are never logged.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::ConfigError;

/// The target of lines about a connection: `tracing::info!(target: logging::DOOR, …)`.
pub const DOOR: &str = "townhall::door";

/// Whether somebody reads along.
pub fn on_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Starts logging. A process that logs already goes on as it does.
pub fn start() -> Result<(), ConfigError> {
    let terminal = on_terminal();
    let wanted = std::env::var_os("RUST_LOG").map(|text| text.to_string_lossy().into_owned());
    let filter = filter(wanted.as_deref(), terminal)?;
    let _ = subscriber(filter, terminal, io::stderr).try_init();
    Ok(())
}

fn filter(wanted: Option<&str>, terminal: bool) -> Result<EnvFilter, ConfigError> {
    let directives = match wanted.map(str::trim) {
        None | Some("") if terminal => "info",
        None | Some("") => "info,townhall::door=warn",
        Some(wanted) => wanted,
    };
    EnvFilter::try_new(directives).map_err(|_| {
        let allowed = "allowed is a level (error, warn, info, debug, trace), or TARGET=LEVEL, or a list of such";
        ConfigError::new("RUST_LOG", directives, allowed)
    })
}

fn subscriber<W>(filter: EnvFilter, terminal: bool, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    if terminal {
        Box::new(lines.with_target(false).finish())
    } else {
        let json = lines.json().flatten_event(true);
        Box::new(json.with_current_span(false).finish())
    }
}

/// Lets something that happens again and again be said once in a while.
#[derive(Debug)]
pub struct Seldom {
    every: Duration,
    said_at: Option<Instant>,
    unsaid: u64,
}

impl Seldom {
    pub fn new(every: Duration) -> Self {
        Seldom { every, said_at: None, unsaid: 0 }
    }

    /// It has happened. `Some`, with how often since it was said last, when it is to be said now.
    pub fn pass(&mut self, now: Instant) -> Option<u64> {
        self.unsaid += 1;
        if self.said_at.is_some_and(|said_at| now < said_at + self.every) {
            return None;
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// What is written of a line about a connection, one of the hall and one of its details.
    fn written(wanted: Option<&str>, terminal: bool) -> String {
        let page = tempfile::NamedTempFile::new().unwrap();
        let writer = Arc::new(page.reopen().unwrap());
        let filter = filter(wanted, terminal).unwrap();
        let subscriber = subscriber(filter, terminal, writer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(target: DOOR, address = "10.0.0.1:5", "connected");
            tracing::info!("open");
            tracing::debug!("detail");
        });
        io::read_to_string(page).unwrap()
    }

    #[test]
    fn a_terminal_shows_connections_as_text() {
        for wanted in [None, Some(""), Some("info")] {
            let text = written(wanted, true);
            assert!(text.contains("connected") && text.contains("10.0.0.1:5"), "{text}");
            assert!(text.contains("open") && !text.contains("detail"), "{text}");
        }
    }

    #[test]
    fn a_collector_gets_json_without_connections() {
        let text = written(None, false);
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!(lines[0]["message"], "open");
        assert_eq!(lines[0]["level"], "INFO");
    }

    #[test]
    fn rust_log_is_respected() {
        for (wanted, lines) in [("townhall=debug", 3), ("townhall::door=info", 1), ("off", 0)] {
            let text = written(Some(wanted), false);
            assert_eq!(text.lines().count(), lines, "{wanted}: {text}");
        }
    }

    #[test]
    fn a_wrong_rust_log_is_refused() {
        let line = filter(Some("town hall=loud"), true).unwrap_err().to_string();
        assert!(line.starts_with("RUST_LOG \"town hall=loud\": allowed is"), "{line}");
    }

    #[test]
    fn what_happens_all_the_time_is_said_once_in_a_while_with_how_often() {
        let start = Instant::now();
        let mut seldom = Seldom::new(Duration::from_secs(60));
        assert_eq!(seldom.pass(start), Some(1));
        for second in 1..60 {
            assert_eq!(seldom.pass(start + Duration::from_secs(second)), None);
        }
        assert_eq!(seldom.pass(start + Duration::from_secs(60)), Some(60));
        assert_eq!(seldom.pass(start + Duration::from_secs(61)), None);
    }
}
