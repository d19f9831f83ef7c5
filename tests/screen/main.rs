//! What a person at a real terminal sees of `townhall chat`'s screen.

#[path = "../harness/mod.rs"]
mod harness;
mod program;

use program::{News, Order, Running};

/// What the tests start in their terminals; see `program.rs`.
#[test]
fn the_program() {
    program::main();
}

#[tokio::test]
async fn what_comes_in_stands_above_the_prompt() {
    let mut chat = Running::start(40, 8).await;
    chat.print("ada: hello");
    chat.shows(&["ada: hello", "lobby", ">"], (2, 2)).await;
    chat.types("hi th");
    chat.print("ada: anybody?\nzeno: yes");
    chat.shows(&["ada: hello", "ada: anybody?", "zeno: yes", "lobby", "> hi th"], (7, 4)).await;
}
