//! Townhall: one hall, many doors. ARCHITECTURE.md is the map.

pub mod attendance;
pub mod auth;
pub mod broker;
pub mod chat;
pub mod cli;
pub mod clock;
pub mod config;
pub mod connection;
pub mod deliver;
pub mod door;
pub mod drain;
pub mod echo;
pub mod encoding;
pub mod gate;
pub mod greeting;
pub mod health;
pub mod http;
pub mod hub;
pub mod limits;
pub mod log;
pub mod logging;
pub mod measure;
pub mod metrics;
pub mod names;
pub mod ops;
pub mod outgoing;
pub mod pages;
pub mod position;
pub mod presence;
pub mod protocol;
pub mod proxies;
pub mod redis_url;
pub mod room;
pub mod server;
pub mod session;
pub mod tcp;
pub mod tls;
pub mod token;
pub mod underway;
pub mod vital;
pub mod web;
pub mod whispers;
pub mod ws;

// The checks in `fuzz/` know the hall by its name; so does the test of the log that shares them.
#[cfg(test)]
extern crate self as townhall;
