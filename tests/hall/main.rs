//! What the hall promises, over real sockets: one module a behaviour, every test a sentence.

#[path = "../harness/mod.rs"]
mod harness;
