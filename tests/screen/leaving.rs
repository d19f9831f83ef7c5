//! How it ends, and what it leaves behind.

use crate::harness::Seen;
use crate::program::{News, Order, Running};

/// Where the shell goes on: its prompt below these rows, and it shows what is typed.
async fn is_left(chat: &Running, rows: &[&str]) {
    let mut expected = rows.to_vec();
    expected.push("$");
    chat.shows(&expected, (2, rows.len())).await;
    assert!(chat.terminal.is_cooked());
    chat.types("echo $((6*7))\r");
    expected.pop();
    expected.extend(["$ echo $((6*7))", "42", "$"]);
    chat.shows(&expected, (2, expected.len() - 1)).await;
}

#[tokio::test]
async fn ctrl_c_clears_the_line_then_asks_and_then_leaves() {
    let mut chat = Running::start(40, 12).await;
    chat.print("ada: hello");
    chat.types("something long enough to wrap around the corner");
    chat.press(&["Home", "C-c"]);
    chat.shows(&["ada: hello", "lobby", ">"], (2, 2)).await;
    chat.press(&["C-c"]);
    let asked = ["ada: hello", "Ctrl-C again leaves", "lobby", ">"];
    chat.shows(&asked, (2, 3)).await;
    chat.types("x");
    chat.press(&["BSpace", "C-c"]);
    let hint = "Ctrl-C again leaves";
    chat.shows(&["ada: hello", hint, hint, "lobby", ">"], (2, 4)).await;
    chat.press(&["Enter", "C-c"]);
    chat.shows(&["ada: hello", hint, hint, hint, "lobby", ">"], (2, 5)).await;
    chat.press(&["C-c"]);
    assert_eq!(chat.hears(), News::Leave);
    chat.tell(Order::Exit("bye".into()));
    is_left(&chat, &["ada: hello", hint, hint, hint, "bye"]).await;
}

#[tokio::test]
async fn ctrl_d_on_an_empty_line_leaves() {
    let mut chat = Running::start(40, 12).await;
    chat.print("ada: hello");
    chat.types("ab");
    chat.press(&["Left", "C-d"]);
    chat.shows(&["ada: hello", "lobby", "> a"], (3, 2)).await;
    chat.press(&["BSpace", "C-d"]);
    assert_eq!(chat.hears(), News::Leave);
    chat.shows(&["ada: hello"], (0, 1)).await;
    chat.tell(Order::Exit("bye".into()));
    is_left(&chat, &["ada: hello", "bye"]).await;
}

#[tokio::test]
async fn leaving_at_the_bottom_of_the_screen_takes_no_message_along() {
    let mut chat = Running::start(40, 5).await;
    chat.print("one\ntwo\nthree\nfour\nfive");
    chat.shows(&["three", "four", "five", "lobby", ">"], (2, 4)).await;
    chat.press(&["C-d"]);
    assert_eq!(chat.hears(), News::Leave);
    chat.shows(&["four", "five"], (0, 2)).await;
    chat.tell(Order::Exit("bye".into()));
    chat.shows(&["four", "five", "bye", "$"], (2, 3)).await;
}

#[tokio::test]
async fn closing_in_the_middle_of_a_long_line_leaves_a_clean_screen() {
    let mut chat = Running::start(20, 14).await;
    chat.print("ada: hello");
    chat.types(&"0123456789".repeat(6));
    chat.press(&["Home"]);
    chat.press(&["Right"; 25]);
    chat.until("the cursor is in the second row", |seen| seen.cursor == (7, 3)).await;
    chat.print("the hall has closed");
    chat.tell(Order::Close);
    assert_eq!(chat.hears(), News::Closed);
    chat.tell(Order::Close);
    assert_eq!(chat.hears(), News::Closed);
    chat.tell(Order::Exit("bye".into()));
    is_left(&chat, &["ada: hello", "the hall has closed", "bye"]).await;
}

#[tokio::test]
async fn closing_during_a_search_leaves_a_clean_screen() {
    let mut chat = Running::start(50, 12).await;
    chat.types("said before\r");
    assert_eq!(chat.hears(), News::Line("said before".into()));
    chat.print("ada: hello");
    chat.shows(&["ada: hello", "lobby", ">"], (2, 2)).await;
    chat.press(&["C-r"]);
    chat.types("bef");
    chat.until("it is found", |seen| seen.rows[1] == "(reverse-i-search)`bef': said before").await;
    chat.tell(Order::Exit("bye".into()));
    is_left(&chat, &["ada: hello", "bye"]).await;
}

#[tokio::test]
async fn closing_while_messages_pour_in_and_keys_are_typed_leaves_no_prompt_behind() {
    let mut chat = Running::start(40, 10).await;
    chat.tell(Order::Flood(100_000, 0));
    chat.types("typed in vain");
    chat.until("messages come in", |seen| seen.rows[0].starts_with("message")).await;
    chat.tell(Order::Exit("bye".into()));
    chat.until("the shell goes on", |seen| seen.text().last().is_some_and(|row| row == "$")).await;
    let everything = chat.terminal.everything();
    let others: Vec<_> = everything.iter().filter(|line| !line.starts_with("message ")).collect();
    assert!(matches!(others[..], [bye, shell] if bye == "bye" && shell == "$"), "{others:?}");
}

#[tokio::test]
async fn ctrl_z_gives_the_shell_its_terminal_and_fg_brings_the_line_back() {
    let mut chat = Running::start(70, 16).await;
    chat.print("ada: hello");
    chat.types("half a ");
    chat.press(&["C-z"]);
    chat.until("the shell goes on", |seen| seen.text().last().is_some_and(|row| row == "$")).await;
    assert!(!chat.terminal.seen().rows.iter().any(|row| row.contains("lobby") || row.contains("half")));
    chat.print("zeno: while you were away");
    chat.types("echo $((6*7))\r");
    let shell = ["42", "$"].map(String::from);
    chat.until("the shell has answered", |seen| seen.text().ends_with(&shell)).await;
    chat.types("fg\r");
    let end = ["zeno: while you were away", "lobby", "> half a"].map(String::from);
    let seen = chat.until("the line is back", |seen| seen.text().ends_with(&end)).await;
    assert_eq!(seen.text()[0], "ada: hello");
    assert!(seen.rows.contains(&"42".into()) && seen.rows.contains(&"$ fg".into()), "{seen:?}");
    assert_eq!(seen.cursor, (9, seen.text().len() - 1));
    chat.types("line\r");
    assert_eq!(chat.hears(), News::Line("half a line".into()));
}

/// A line of three rows with the cursor in the second, and a shell that has taken over from it.
async fn stopped_in_the_middle_of_a_long_line() -> Running {
    let chat = Running::start(30, 16).await;
    chat.types(&"0123456789".repeat(8));
    chat.press(&["Home"]);
    chat.press(&["Right"; 35]);
    let rows = ["lobby", "> 0123456789012345678901234567", "890123456789012345678901234567", "8901234567890123456789"];
    chat.shows(&rows, (7, 2)).await;
    chat.press(&["C-z"]);
    chat.until("the shell goes on", |seen| seen.text().last().is_some_and(|row| row == "$")).await;
    chat.types("echo $((6*7))\r");
    let shell = ["42", "$"].map(String::from);
    chat.until("the shell has answered", |seen| seen.text().ends_with(&shell)).await;
    chat
}

#[tokio::test]
async fn coming_back_in_the_middle_of_a_long_line_wipes_nothing_that_the_shell_wrote() {
    let chat = stopped_in_the_middle_of_a_long_line().await;
    chat.types("fg\r");
    let input = ["lobby", "> 0123456789012345678901234567", "890123456789012345678901234567", "8901234567890123456789"];
    let end = input.map(String::from);
    let seen = chat.until("the line is back", |seen| seen.text().ends_with(&end)).await;
    let above = &seen.text()[..seen.text().len() - 4];
    // The shell says what it continues.
    assert!(above.ends_with(&["42", "$ fg", "${P}"].map(String::from)), "{seen:?}");
    assert_eq!(seen.cursor, (7, above.len() + 2));
}

#[tokio::test]
async fn coming_back_to_a_window_of_another_size_lays_the_line_out_anew() {
    let chat = stopped_in_the_middle_of_a_long_line().await;
    chat.terminal.resize(32, 16);
    chat.types("fg\r");
    let input = ["lobby", "> 012345678901234567890123456789", "01234567890123456789012345678901", "234567890123456789"];
    let end = input.map(String::from);
    let back = |seen: &Seen| seen.text().ends_with(&end) && seen.cursor == (5, seen.text().len() - 2);
    chat.until("the line is back", back).await;
    chat.types("!");
    chat.until("what is typed stands there", |seen| seen.text().last().is_some_and(|row| row == "1234567890123456789"))
        .await;
}

#[tokio::test]
async fn sigint_leaves_a_clean_screen() {
    let mut chat = Running::start(20, 12).await;
    chat.print("ada: hello");
    chat.types(&"0123456789".repeat(6));
    chat.press(&["Home"]);
    chat.until("the cursor is at the beginning", |seen| seen.cursor == (2, 2)).await;
    chat.tell(Order::Interrupt);
    assert_eq!(chat.hears(), News::Leave);
    chat.tell(Order::Exit("bye".into()));
    is_left(&chat, &["ada: hello", "bye"]).await;
}

#[tokio::test]
async fn a_terminal_that_cannot_edit_is_refused() {
    let mut chat = Running::start_with(40, 8, &[("TERM_FOR_THE_PROGRAM", "dumb")]);
    assert_eq!(chat.hears(), News::Refused("a terminal of the kind dumb has no cursor to move".into()));
    is_left(&chat, &[]).await;
}
