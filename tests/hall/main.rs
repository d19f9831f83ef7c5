//! What the hall promises, over real sockets: one module a behaviour, every test a sentence.

#[path = "../harness/mod.rs"]
mod harness;
#[path = "../harness/ways.rs"]
mod ways;
#[path = "../harness/wire.rs"]
mod wire;

mod a_crowd;
mod a_death;
mod a_quiet_node;
mod a_slow_crowd;
mod a_slow_reader;
mod a_storm;
mod bad_input;
mod browser;
mod chat_terminal;
mod chat_troubles;
mod cli;
mod cluster;
mod django;
mod echo;
mod floods;
mod frames;
mod handshakes;
mod hostile;
mod issuer;
mod leaving;
mod line_door;
mod logins;
mod minting;
mod nginx;
mod one_order;
mod ops;
mod pages;
mod plain_door;
mod presence;
mod proxies;
mod redis_outage;
mod redis_troubles;
mod redis_ways;
mod refusals;
mod resume;
mod rooms;
mod said_once;
mod seats;
mod sentinel;
mod signed_tokens;
mod signs_of_life;
mod subscription;
mod tickets;
mod two_versions;
mod windows;
