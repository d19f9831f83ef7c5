//! Windows that get another size.

use crate::program::{News, Running};

const TEXT: &str = "0123456789abcdefghijklmnopqrstuvwxyz";

#[tokio::test]
async fn a_narrower_and_a_wider_window_keep_messages_and_line() {
    let mut chat = Running::start(40, 10).await;
    chat.print("ada: hello\nzeno: a message of thirty columns");
    chat.types(TEXT);
    chat.press(&["Left", "Left"]);
    let wide = ["ada: hello", "zeno: a message of thirty columns", "lobby", "> 0123456789abcdefghijklmnopqrstuvwxyz"];
    chat.shows(&wide, (36, 3)).await;
    chat.terminal.resize(20, 10);
    let narrow =
        ["ada: hello", "zeno: a message of t", "hirty columns", "lobby", "> 0123456789abcdefgh", "ijklmnopqrstuvwxyz"];
    chat.shows(&narrow, (16, 5)).await;
    chat.print("ada: more");
    let mut more = narrow.to_vec();
    more.insert(3, "ada: more");
    chat.shows(&more, (16, 6)).await;
    chat.terminal.resize(60, 10);
    let wider = ["ada: hello", "zeno: a message of thirty columns", "ada: more", "lobby", wide[3]];
    chat.shows(&wider, (36, 4)).await;
    chat.types("!");
    chat.press(&["Enter"]);
    assert_eq!(chat.hears(), News::Line("0123456789abcdefghijklmnopqrstuvwx!yz".into()));
    chat.shows(&["ada: hello", "zeno: a message of thirty columns", "ada: more", "lobby", ">"], (2, 4)).await;
}

#[tokio::test]
async fn a_full_screen_that_gets_narrower_and_wider_loses_nothing() {
    let mut chat = Running::start(30, 8).await;
    let lines: Vec<String> = (10..40).map(|number| format!("message {number} is quite long")).collect();
    chat.print(&lines.join("\n"));
    chat.types(TEXT);
    let input = ["> 0123456789abcdefghijklmnopqr", "stuvwxyz"];
    let mut rows: Vec<&str> = lines[25..].iter().map(String::as_str).collect();
    rows.push("lobby");
    rows.extend(input);
    chat.shows(&rows, (8, 7)).await;
    for columns in [29, 25, 21, 18, 15, 12] {
        chat.terminal.resize(columns, 8);
    }
    let narrow =
        ["s quite long", "message 39 i", "s quite long", "lobby", "> 0123456789", "abcdefghijkl", "mnopqrstuvwx", "yz"];
    chat.shows(&narrow, (2, 7)).await;
    for columns in [15, 22, 30, 50] {
        chat.terminal.resize(columns, 8);
    }
    let mut rows: Vec<&str> = lines[24..].iter().map(String::as_str).collect();
    rows.extend(["lobby", "> 0123456789abcdefghijklmnopqrstuvwxyz"]);
    chat.shows(&rows, (38, 7)).await;
}

#[tokio::test]
async fn a_window_of_another_height_keeps_the_prompt() {
    let mut chat = Running::start(30, 8).await;
    chat.print("one\ntwo\nthree\nfour\nfive");
    chat.types("abc");
    chat.shows(&["one", "two", "three", "four", "five", "lobby", "> abc"], (5, 6)).await;
    chat.terminal.resize(30, 4);
    chat.shows(&["four", "five", "lobby", "> abc"], (5, 3)).await;
    chat.print("six");
    chat.shows(&["five", "six", "lobby", "> abc"], (5, 3)).await;
    chat.terminal.resize(30, 8);
    chat.print("seven");
    let last = ["five", "six", "seven", "lobby", "> abc"].map(String::from);
    chat.until("all is there", |seen| seen.text().ends_with(&last)).await;
}

#[tokio::test]
async fn a_tiny_window_is_no_reason_to_fall() {
    let mut chat = Running::start(20, 6).await;
    chat.print("hello there");
    chat.types("abc");
    chat.terminal.resize(2, 2);
    chat.print("more");
    chat.types("d");
    chat.terminal.resize(20, 6);
    chat.shows(&["hello there", "more", "lobby", "> abcd"], (6, 3)).await;
}
