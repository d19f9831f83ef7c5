//! Stands in until the server is here.

use crate::config::Config;

/// When to leave.
#[derive(Debug)]
pub struct Shutdown;

impl Shutdown {
    /// On SIGTERM and SIGINT.
    pub fn on_signals() -> anyhow::Result<Self> {
        Ok(Shutdown)
    }
}

pub async fn run(_config: Config, _shutdown: Shutdown) -> anyhow::Result<()> {
    anyhow::bail!("this build has no server yet")
}
