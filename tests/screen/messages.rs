//! What comes in, while somebody types.

use crate::program::{News, Order, Running};

/// The messages among all that was ever on the screen.
fn messages(chat: &Running) -> Vec<String> {
    chat.terminal.everything().into_iter().filter(|line| line.starts_with("message ")).collect()
}

fn numbered(count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("message {number}")).collect()
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

#[tokio::test]
async fn typing_while_200_messages_come_in_keeps_line_and_cursor() {
    let mut chat = Running::start(40, 6).await;
    chat.tell(Order::Flood(200, 5));
    let text = "the quick brown fox jumps over";
    for (index, character) in text.chars().enumerate() {
        chat.types(&character.to_string());
        if index % 5 == 4 {
            chat.press(&["Left", "Left", "Right", "Right"]);
        }
    }
    chat.press(&["Left", "Left", "Left", "Left", "Left"]);
    let rows =
        ["message 197", "message 198", "message 199", "message 200", "lobby", "> the quick brown fox jumps over"];
    chat.shows(&rows, (27, 5)).await;
    assert_eq!(messages(&chat), numbered(200), "each once and in order");
    chat.press(&["Enter"]);
    assert_eq!(chat.hears(), News::Line(text.into()));
}

#[tokio::test]
async fn lines_entered_while_messages_come_in_take_none_with_them() {
    let mut chat = Running::start(40, 6).await;
    chat.tell(Order::Flood(200, 2));
    for number in 0..20 {
        chat.types(&format!("line {number}\r"));
        assert_eq!(chat.hears(), News::Line(format!("line {number}")));
    }
    chat.shows(&["message 197", "message 198", "message 199", "message 200", "lobby", ">"], (2, 5)).await;
    let everything = chat.terminal.everything();
    let rest: Vec<_> = everything.iter().filter(|line| !line.starts_with("message ")).collect();
    assert_eq!(messages(&chat), numbered(200));
    assert_eq!(rest, ["lobby", ">"], "nothing else was ever left on the screen");
}

#[tokio::test]
async fn a_burst_is_shown_whole() {
    let mut chat = Running::start(40, 5).await;
    chat.types("busy");
    chat.tell(Order::Flood(1500, 0));
    chat.shows(&["message 1498", "message 1499", "message 1500", "lobby", "> busy"], (6, 4)).await;
    assert_eq!(messages(&chat), numbered(1500));
}

#[tokio::test]
async fn long_messages_wrap_and_leave_the_prompt_alone() {
    let mut chat = Running::start(20, 8).await;
    chat.types("abc");
    chat.print("exactly twenty wide.\nthis one is longer than that\nöäü 你好你好你好你好");
    let rows = ["exactly twenty wide.", "this one is longer t", "han that", "öäü 你好你好你好你好", "lobby", "> abc"];
    chat.shows(&rows, (5, 5)).await;
}

#[tokio::test]
async fn wide_and_combining_characters_keep_the_cursor_where_it_belongs() {
    let mut chat = Running::start(40, 8).await;
    chat.types("你好e\u{301}e\u{301}🙂x");
    chat.shows(&["lobby", "> 你好e\u{301}e\u{301}🙂x"], (11, 1)).await;
    chat.press(&["Left", "Left", "Left"]);
    chat.shows(&["lobby", "> 你好e\u{301}e\u{301}🙂x"], (7, 1)).await;
    chat.print("王小明: 吃了吗");
    chat.types("中");
    chat.print("cafe\u{301}");
    chat.shows(&["王小明: 吃了吗", "cafe\u{301}", "lobby", "> 你好e\u{301}中e\u{301}🙂x"], (9, 3)).await;
    chat.press(&["BSpace", "BSpace", "Enter"]);
    assert_eq!(chat.hears(), News::Line("你好e\u{301}🙂x".into()));
    chat.shows(&["王小明: 吃了吗", "cafe\u{301}", "lobby", ">"], (2, 3)).await;
}

#[tokio::test]
async fn the_status_changes_under_what_is_typed() {
    let mut chat = Running::start(20, 5).await;
    chat.types("abc");
    chat.tell(Order::Status("rust · 12 here · typing: ada".into()));
    chat.shows(&["rust · 12 here · t…", "> abc"], (5, 1)).await;
    chat.tell(Order::Status("offline\x1b[2J\nreally".into()));
    chat.shows(&["offline[2Jreally", "> abc"], (5, 1)).await;
}

#[tokio::test]
async fn colours_are_there_when_they_are_wanted() {
    let plain = Running::start(20, 5).await;
    plain.types("a");
    plain.shows(&["lobby", "> a"], (3, 1)).await;
    assert!(!plain.terminal.coloured().contains('\x1b'));
    let mut coloured = Running::start_with(20, 5, &[("SCREEN_COLOURS", "1")]);
    coloured.tell(Order::Status("lobby".into()));
    coloured.print("\x1b[1mada\x1b[0m: hi");
    coloured.shows(&["ada: hi", "lobby", ">"], (2, 2)).await;
    let seen = coloured.terminal.coloured();
    assert!(seen.contains("\x1b[7mlobby              ") && seen.contains("\x1b[1mada"), "{seen:?}");
}
