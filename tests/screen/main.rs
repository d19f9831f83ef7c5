//! What a person at a real terminal sees of `townhall chat`'s screen: whole screens, with the cursor.

#[path = "../harness/mod.rs"]
mod harness;
mod program;

mod editing;
mod leaving;
mod messages;
mod sizes;

/// What the tests start in their terminals.
#[test]
fn the_program() {
    program::main();
}
