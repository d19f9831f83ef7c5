//! Townhall: one hall, many doors. ARCHITECTURE.md is the map.

pub mod broker;
pub mod config;
pub mod measure;
pub mod names;
pub mod position;
pub mod ws {
    pub mod frame;
}
