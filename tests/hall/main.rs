//! What the hall promises, over real sockets: one module a behaviour, every test a sentence.

#[path = "../harness/mod.rs"]
mod harness;

mod a_crowd;
mod a_death;
mod a_slow_reader;
mod leaving;
mod line_door;
mod one_order;
mod plain_door;
mod redis_outage;
mod refusals;
mod resume;
mod rooms;
mod said_once;
mod signs_of_life;
mod subscription;
