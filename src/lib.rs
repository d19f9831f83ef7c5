//! Townhall: one hall, many doors. ARCHITECTURE.md is the map.

pub mod broker;
pub mod cli;
pub mod config;
pub mod greeting;
pub mod health;
pub mod logging;
pub mod measure;
pub mod names;
pub mod position;
pub mod ws {
    pub mod frame;
}

pub mod server;
