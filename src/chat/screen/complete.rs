//! What Tab makes of a line: commands, rooms, and the names of who is here.

use super::Known;

/// What is to be done with the line.
#[derive(Debug, PartialEq, Eq)]
pub enum Completion {
    /// Nothing is known that begins so.
    Nothing,
    /// `text` stands for what is between the byte `from` and the cursor.
    Replace { from: usize, text: String },
    /// Several, and no more of them is common than is written.
    Several(Vec<String>),
}

/// Names hold few words; so far back their beginning is looked for.
const WORDS_BACK: usize = 16;

/// `at`: the byte where the cursor is; what is behind it is left alone.
pub fn complete(line: &str, at: usize, known: &Known) -> Completion {
    let before = line.get(..at).unwrap_or(line);
    let said = !before.starts_with('/') || before.starts_with("//");
    match before.split_once(char::is_whitespace) {
        None if !said => choose(0, before, &known.commands, " "),
        Some(("/join" | "/leave", typed)) => choose(before.len() - typed.len(), typed, &known.rooms, ""),
        _ => name(before, &known.names),
    }
}

/// The longest end of the text that begins a name, for names hold spaces.
fn name(before: &str, names: &[String]) -> Completion {
    let mut beginnings: Vec<usize> = before
        .char_indices()
        .rev()
        .filter(|(_, character)| character.is_whitespace())
        .map(|(index, space)| index + space.len_utf8())
        .take(WORDS_BACK)
        .collect();
    if beginnings.len() < WORDS_BACK {
        beginnings.push(0);
    }
    for from in beginnings.into_iter().rev() {
        let word = &before[from..];
        let completion = match word.strip_prefix('@') {
            Some(typed) => choose(from + 1, typed, names, " "),
            None if word.is_empty() => Completion::Nothing,
            None => choose(from, word, names, if from == 0 { ": " } else { " " }),
        };
        if completion != Completion::Nothing {
            return completion;
        }
    }
    Completion::Nothing
}

/// Of those that begin with what was typed in whichever case: the only one with `ending`, or what they have in common.
fn choose(from: usize, typed: &str, known: &[String], ending: &str) -> Completion {
    let mut fitting: Vec<&str> = known.iter().map(String::as_str).filter(|one| begins_with(one, typed)).collect();
    fitting.sort_unstable();
    fitting.dedup();
    match fitting[..] {
        [] => Completion::Nothing,
        [only] => Completion::Replace { from, text: format!("{only}{ending}") },
        [first, ..] => {
            let common = fitting.iter().fold(first, |common, one| in_common(common, one));
            if common.chars().count() > typed.chars().count() {
                return Completion::Replace { from, text: common.into() };
            }
            Completion::Several(fitting.into_iter().map(String::from).collect())
        }
    }
}

fn begins_with(text: &str, beginning: &str) -> bool {
    let mut text = text.chars();
    beginning.chars().all(|wanted| text.next().is_some_and(|character| same_letter(character, wanted)))
}

/// The beginning of `one` that `other` has, too, in whichever case.
fn in_common<'a>(one: &'a str, other: &str) -> &'a str {
    let mut others = other.chars();
    let differs = |(_, character): &(usize, char)| !others.next().is_some_and(|o| same_letter(*character, o));
    let end = one.char_indices().find(differs).map_or(one.len(), |(index, _)| index);
    &one[..end]
}

fn same_letter(one: char, other: char) -> bool {
    one == other || one.to_lowercase().eq(other.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Known {
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect();
        Known {
            commands: list(&["/join", "/leave", "/list", "/quit"]),
            rooms: list(&["lobby", "lab", "rust"]),
            names: list(&["zeno", "Ada Lovelace", "Ada Byron", "王小明", "Straße", "ann", "anna"]),
        }
    }

    /// The line after Tab at the `|`, or the list.
    fn tab(line: &str) -> String {
        let at = line.find('|').expect("no cursor");
        let line = line.replace('|', "");
        match complete(&line, at, &known()) {
            Completion::Nothing => String::from("nothing"),
            Completion::Replace { from, text } => format!("{}{text}|{}", &line[..from], &line[at..]),
            Completion::Several(all) => all.join(", "),
        }
    }

    #[test]
    fn commands_are_completed_at_the_beginning_of_the_line() {
        assert_eq!(tab("/jo|"), "/join |");
        assert_eq!(tab("/J|"), "/join |");
        assert_eq!(tab("/|"), "/join, /leave, /list, /quit");
        assert_eq!(tab("/l|"), "/leave, /list");
        assert_eq!(tab("/nope|"), "nothing");
        assert_eq!(tab("say /jo|"), "nothing");
        assert_eq!(tab("//jo|"), "nothing");
    }

    #[test]
    fn rooms_are_completed_where_a_room_is_wanted() {
        assert_eq!(tab("/join r|"), "/join rust|");
        assert_eq!(tab("/leave lo|"), "/leave lobby|");
        assert_eq!(tab("/join l|"), "lab, lobby");
        assert_eq!(tab("/join |"), "lab, lobby, rust");
        assert_eq!(tab("/join ze|"), "nothing");
    }

    #[test]
    fn who_is_spoken_to_gets_a_colon() {
        assert_eq!(tab("ze|"), "zeno: |");
        assert_eq!(tab("ZE|"), "zeno: |");
        assert_eq!(tab("hello ze|"), "hello zeno |");
        assert_eq!(tab("@ze|"), "@zeno |");
        assert_eq!(tab("hello @Z|"), "hello @zeno |");
        assert_eq!(tab("/me greets ze|"), "/me greets zeno |");
        assert_eq!(tab("ze| and more"), "zeno: | and more");
    }

    #[test]
    fn names_hold_spaces_and_every_alphabet() {
        assert_eq!(tab("ada lo|"), "Ada Lovelace: |");
        assert_eq!(tab("dear ada b|"), "dear Ada Byron |");
        assert_eq!(tab("王|"), "王小明: |");
        assert_eq!(tab("STRA|"), "Straße: |");
        assert_eq!(tab("@ada l|"), "@Ada Lovelace |");
    }

    #[test]
    fn several_give_what_they_have_in_common_and_then_their_list() {
        assert_eq!(tab("ad|"), "Ada |");
        assert_eq!(tab("Ada |"), "Ada Byron, Ada Lovelace");
        assert_eq!(tab("ann|"), "ann, anna");
        assert_eq!(tab("anna|"), "anna: |");
        assert_eq!(tab("@|"), "Ada Byron, Ada Lovelace, Straße, ann, anna, zeno, 王小明");
    }

    #[test]
    fn nothing_typed_is_nothing_to_complete() {
        assert_eq!(tab("|"), "nothing");
        assert_eq!(tab("hello |"), "nothing");
    }

    #[test]
    fn a_cursor_inside_a_character_is_no_reason_to_fall() {
        assert_eq!(complete("é", 1, &known()), Completion::Nothing);
    }
}
