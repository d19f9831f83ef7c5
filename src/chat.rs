//! `townhall chat`: the hall from a terminal, and for scripts.

pub mod screen;
