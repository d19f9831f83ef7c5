//! What the fuzzers check, one module for each target: `check(data)` reads any bytes, and panics where the hall did not
//! keep what it promises. `tests/fuzz_corpus.rs` runs the same on a stable compiler.

pub mod commands;
pub mod frames;
pub mod lines;
pub mod log;
pub mod payloads;
pub mod tokens;
mod wire;
