//! `townhall chat`: the hall from a terminal, and for scripts.

pub mod address;
pub mod client;
pub mod frames;
mod pace;
mod roster;
pub mod screen;
