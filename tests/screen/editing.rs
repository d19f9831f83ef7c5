//! Keys, and what becomes of the line.

use crate::program::{News, Order, Running};

#[tokio::test]
async fn a_line_of_the_terminal_s_width_and_longer_ones_wrap() {
    let mut chat = Running::start(20, 8).await;
    chat.print("ada: hello");
    chat.types("012345678901234567");
    chat.shows(&["ada: hello", "lobby", "> 012345678901234567"], (0, 3)).await;
    chat.print("ada: you there?");
    chat.shows(&["ada: hello", "ada: you there?", "lobby", "> 012345678901234567"], (0, 4)).await;
    chat.types("89");
    chat.shows(&["ada: hello", "ada: you there?", "lobby", "> 012345678901234567", "89"], (2, 4)).await;
    chat.press(&["Home"]);
    chat.print("ada: well");
    let rows = ["ada: hello", "ada: you there?", "ada: well", "lobby", "> 012345678901234567", "89"];
    chat.shows(&rows, (2, 4)).await;
    chat.press(&["C-e", "BSpace", "BSpace", "BSpace"]);
    chat.shows(&["ada: hello", "ada: you there?", "ada: well", "lobby", "> 01234567890123456"], (19, 4)).await;
    chat.press(&["Enter"]);
    assert_eq!(chat.hears(), News::Line("01234567890123456".into()));
    chat.shows(&["ada: hello", "ada: you there?", "ada: well", "lobby", ">"], (2, 4)).await;
}

/// Four rows of input, the cursor in the second, in a terminal where so many lines are above the prompt.
async fn enter_in_the_middle(columns: usize, rows: usize, lines_above: usize) {
    let mut chat = Running::start(columns, rows).await;
    let above: Vec<String> = (1..=lines_above).map(|number| format!("above {number}")).collect();
    above.iter().for_each(|line| chat.print(line));
    let text: String = ('a'..='z').cycle().take(3 * columns + 3).collect();
    chat.types(&text);
    chat.press(&["Home"]);
    chat.press(&vec!["Right"; columns + 3]);
    let height = lines_above + 5;
    let cursor = (5, height.min(rows) - 3);
    chat.until("the cursor is in the second row", |seen| seen.cursor == cursor).await;
    chat.press(&["Enter"]);
    assert_eq!(chat.hears(), News::Line(text));
    let kept = above.len().saturating_sub(height.saturating_sub(rows));
    let mut expected: Vec<&str> = above[above.len() - kept..].iter().map(String::as_str).collect();
    expected.extend(["lobby", ">"]);
    chat.shows(&expected, (2, expected.len() - 1)).await;
    chat.print("after");
    expected.splice(expected.len() - 2..expected.len() - 2, ["after"]);
    chat.shows(&expected, (2, expected.len() - 1)).await;
}

#[tokio::test]
async fn enter_in_the_middle_of_a_long_line_at_the_top_of_the_screen() {
    enter_in_the_middle(20, 12, 0).await;
    enter_in_the_middle(20, 12, 1).await;
}

#[tokio::test]
async fn enter_in_the_middle_of_a_long_line_at_the_bottom_of_the_screen() {
    enter_in_the_middle(20, 12, 7).await;
    enter_in_the_middle(20, 12, 30).await;
    enter_in_the_middle(20, 6, 3).await;
}

#[tokio::test]
async fn a_line_longer_than_the_screen_can_still_be_entered() {
    let mut chat = Running::start(20, 5).await;
    chat.print("above");
    let text = "0123456789".repeat(15);
    chat.types(&text);
    chat.until("the line ends at the bottom", |seen| seen.cursor == (12, 4)).await;
    chat.print("meanwhile");
    chat.press(&["Enter"]);
    assert_eq!(chat.hears(), News::Line(text));
    chat.until("it has vanished", |seen| seen.text().ends_with(&["lobby".into(), ">".into()])).await;
    let seen = chat.terminal.seen();
    assert!(!seen.rows.iter().any(|row| row.contains("0123")), "{seen:?}");
}

#[tokio::test]
async fn up_and_down_bring_back_what_was_said() {
    let mut chat = Running::start(40, 8).await;
    for line in ["first", "second", "second", "third"] {
        chat.types(line);
        chat.press(&["Enter"]);
        assert_eq!(chat.hears(), News::Line(line.into()));
    }
    chat.types("draft");
    for (key, line) in [("Up", "third"), ("Up", "second"), ("Up", "first"), ("Up", "first"), ("Down", "second")] {
        chat.press(&[key]);
        chat.shows(&["lobby", &format!("> {line}")], (2 + line.len(), 1)).await;
    }
    chat.press(&["Down", "Down"]);
    chat.shows(&["lobby", "> draft"], (7, 1)).await;
}

#[tokio::test]
async fn tab_completes_commands_rooms_and_names() {
    let mut chat = Running::start(40, 8).await;
    let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
    let names = list(&["zeno", "Ada Lovelace", "Ada Byron", "王小明"]);
    chat.tell(Order::Know(list(&["/join", "/leave"]), list(&["lobby", "rust"]), names));
    // The order is done when the one after it is.
    chat.print("known");
    chat.shows(&["known", "lobby", ">"], (2, 2)).await;
    chat.types("/jo\tru\t");
    chat.shows(&["known", "lobby", "> /join rust"], (12, 2)).await;
    chat.press(&["C-c"]);
    chat.types("ZE\thi @王\t");
    chat.shows(&["known", "lobby", "> zeno: hi @王小明"], (19, 2)).await;
    chat.press(&["C-c"]);
    chat.types("hello ad\t\t");
    chat.shows(&["known", "Ada Byron  Ada Lovelace", "lobby", "> hello Ada"], (12, 3)).await;
    chat.types("l\t");
    chat.shows(&["known", "Ada Byron  Ada Lovelace", "lobby", "> hello Ada Lovelace"], (21, 3)).await;
    chat.press(&["Home", "C-k"]);
    chat.types("zx");
    chat.press(&["Left"]);
    chat.types("\t");
    chat.shows(&["known", "Ada Byron  Ada Lovelace", "lobby", "> zeno: x"], (8, 3)).await;
}

#[tokio::test]
async fn a_search_in_what_was_said_goes_on_while_messages_come_in() {
    let mut chat = Running::start(50, 8).await;
    for line in ["the first one", "the second one"] {
        chat.types(line);
        chat.press(&["Enter"]);
        assert_eq!(chat.hears(), News::Line(line.into()));
    }
    chat.press(&["C-r"]);
    chat.types("fir");
    chat.shows(&["(reverse-i-search)`fir': the first one"], (29, 0)).await;
    chat.printed("ada: hello\nada: again");
    chat.types("s");
    let found = "(reverse-i-search)`firs': the first one";
    chat.shows(&["ada: hello", "ada: again", found], (30, 2)).await;
    chat.press(&["Right"]);
    chat.shows(&["ada: hello", "ada: again", "lobby", "> the first one"], (7, 3)).await;
    chat.print("ada: done");
    chat.shows(&["ada: hello", "ada: again", "ada: done", "lobby", "> the first one"], (7, 4)).await;
    chat.press(&["C-r"]);
    chat.types("sec");
    chat.press(&["Enter"]);
    assert_eq!(chat.hears(), News::Line("the second one".into()));
    chat.shows(&["ada: hello", "ada: again", "ada: done", "lobby", ">"], (2, 4)).await;
}

#[tokio::test]
async fn a_search_that_an_unknown_key_has_ended_is_shown_until_the_next_key() {
    let mut chat = Running::start(50, 8).await;
    chat.types("said before\r");
    assert_eq!(chat.hears(), News::Line("said before".into()));
    chat.press(&["C-r"]);
    chat.types("sa");
    chat.shows(&["(reverse-i-search)`sa': said before"], (24, 0)).await;
    chat.press(&["F5"]);
    chat.print("ada: hello");
    chat.shows(&["ada: hello", "(reverse-i-search)`sa': said before"], (24, 1)).await;
    chat.press(&["End"]);
    chat.print("ada: again");
    chat.shows(&["ada: hello", "ada: again", "lobby", "> said before"], (13, 3)).await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_left_out() {
    let mut chat = Running::start(20, 8).await;
    chat.print("ada: hello");
    chat.types("0123456789abcdefghijklmnopq");
    chat.press(&["Left", "Left"]);
    chat.shows(&["ada: hello", "lobby", "> 0123456789abcdefgh", "ijklmnopq"], (7, 3)).await;
    // In one read, so that what follows is typed after the editor has stumbled.
    chat.terminal.sends(b"-\xff");
    let hint = "that is no UTF-8";
    chat.shows(&["ada: hello", hint, "lobby", "> 0123456789abcdefgh", "ijklmno-pq"], (8, 4)).await;
    chat.types("+");
    chat.print("ada: again");
    let rows = ["ada: hello", hint, "ada: again", "lobby", "> 0123456789abcdefgh", "ijklmno-+pq"];
    chat.shows(&rows, (9, 5)).await;
    chat.press(&["C-v", "C-q"]);
    chat.types("!\r");
    assert_eq!(chat.hears(), News::Line("0123456789abcdefghijklmno-+!pq".into()));
    chat.shows(&["ada: hello", hint, "ada: again", "lobby", ">"], (2, 4)).await;
}

#[tokio::test]
async fn a_paste_that_is_no_utf_8_is_left_out_whole_and_nothing_of_it_is_entered() {
    let mut chat = Running::start(60, 10).await;
    chat.types("mine ");
    chat.shows(&["lobby", "> mine"], (7, 1)).await;
    let mut paste = b"\x1b[200~one \xff two\r".to_vec();
    paste.extend(b"/join elsewhere\rquit\r".repeat(200));
    paste.extend(b"\x1b[201~");
    chat.terminal.sends(&paste);
    chat.shows(&["that is no UTF-8", "lobby", "> mine"], (7, 2)).await;
    chat.types("alone\r");
    assert_eq!(chat.hears(), News::Line("mine alone".into()));
}

#[tokio::test]
async fn a_paste_of_several_lines_is_one_message() {
    let mut chat = Running::start(40, 10).await;
    chat.print("ada: paste it");
    chat.terminal.paste("fn main() {\n\tpanic!();\n}");
    chat.shows(&["ada: paste it", "lobby", "> fn main() {", "        panic!();", "}"], (1, 4)).await;
    chat.print("ada: well?");
    chat.press(&["Left"]);
    let rows = ["ada: paste it", "ada: well?", "lobby", "> fn main() {", "        panic!();", "}"];
    chat.shows(&rows, (0, 5)).await;
    chat.press(&["Enter"]);
    assert_eq!(chat.hears(), News::Line("fn main() {\n\tpanic!();\n}".into()));
    chat.shows(&["ada: paste it", "ada: well?", "lobby", ">"], (2, 3)).await;
}

#[tokio::test]
async fn what_is_typed_ahead_is_neither_lost_nor_echoed() {
    let mut chat = Running::start(40, 8).await;
    chat.tell(Order::Listen(false));
    chat.print("shut");
    chat.shows(&["shut", "lobby", ">"], (2, 2)).await;
    let lines: Vec<String> = (0..50).map(|number| format!("line {number}")).collect();
    chat.types(&lines.iter().map(|line| format!("{line}\r")).collect::<String>());
    chat.until("the editor waits", |seen| seen.text() == ["shut"]).await;
    assert!(!chat.terminal.is_cooked());
    chat.types("more\rand then");
    chat.tell(Order::Listen(true));
    for line in lines {
        assert_eq!(chat.hears(), News::Line(line));
    }
    assert_eq!(chat.hears(), News::Line("more".into()));
    chat.shows(&["shut", "lobby", "> and then"], (10, 2)).await;
}

#[tokio::test]
async fn that_somebody_types_is_said_once_and_not_of_commands() {
    let mut chat = Running::start(40, 8).await;
    chat.types("/join rust\r");
    assert_eq!(chat.next(), News::Line("/join rust".into()));
    chat.types("   \r");
    chat.types("hello there\r");
    assert_eq!(chat.next(), News::Typing);
    assert_eq!(chat.next(), News::Line("hello there".into()));
    chat.types("//slash\r");
    assert_eq!(chat.next(), News::Typing, "a new line is typed anew");
    assert_eq!(chat.next(), News::Line("//slash".into()));
}

#[tokio::test]
async fn ctrl_l_shows_the_newest_lines_anew() {
    let mut chat = Running::start(40, 6).await;
    chat.print("one\ntwo\nthree\nfour\nfive");
    chat.types("abc");
    chat.press(&["Left", "C-l"]);
    let rows = ["two", "three", "four", "five", "lobby", "> abc"];
    chat.shows(&rows, (4, 5)).await;
    chat.print("six");
    chat.shows(&["three", "four", "five", "six", "lobby", "> abc"], (4, 5)).await;
}
