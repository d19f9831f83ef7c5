//! How much room a text takes on a terminal: columns, and rows once it wraps.
//!
//! Colours (`ESC [ … m`) take none, a tab goes to the next multiple of 8, as terminals do it.

use unicode_width::UnicodeWidthChar;

const TAB: usize = 8;

/// A place relative to where a text began, both from 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Place {
    pub row: usize,
    pub column: usize,
}

impl Place {
    /// Where the cursor is after `text` was written here; a full row leaves it behind the last column.
    pub fn after(self, text: &str, columns: usize) -> Place {
        seen(text).fold(self, |place, (_, character)| place.step(character, columns))
    }

    fn step(self, character: char, columns: usize) -> Place {
        let Place { row, column } = self;
        let last = columns.saturating_sub(1).max(column);
        match (character, character.width().unwrap_or(0)) {
            ('\n', _) => Place { row: row + 1, column: 0 },
            ('\t', _) => Place { row, column: (column / TAB * TAB + TAB).min(last) },
            (_, width) if column + width > columns => Place { row: row + 1, column: width },
            (_, width) => Place { row, column: column + width },
        }
    }

    /// The same where a full row is followed by a line break, as the line editor writes it.
    pub fn wrapped(self, columns: usize) -> Place {
        if self.column >= columns { Place { row: self.row + 1, column: 0 } } else { self }
    }
}

/// How many rows a line takes on a terminal of so many columns.
pub fn rows(line: &str, columns: usize) -> usize {
    Place::default().after(line, columns.max(1)).row + 1
}

/// The last `most` rows that a line takes, in the colours that they have.
pub fn last_rows(line: &str, columns: usize, most: usize) -> String {
    let mut begins = vec![0];
    let mut place = Place::default();
    for (index, character) in seen(line) {
        let after = place.step(character, columns);
        if after.row > place.row {
            begins.push(index);
        }
        place = after;
    }
    match begins.len().checked_sub(most) {
        None | Some(0) => line.into(),
        Some(cut) => match begins.get(cut) {
            Some(&cut) => format!("{}{}", colours(&line[..cut]), &line[cut..]),
            None => String::new(),
        },
    }
}

/// At most `columns` of the text, with `…` where something was cut off. Control characters are left out.
pub fn truncate(text: &str, columns: usize) -> String {
    let clean: String = text.chars().filter(|character| !character.is_control()).collect();
    if width(&clean) <= columns {
        return clean;
    }
    let mut left = columns.saturating_sub(1);
    let mut kept: String = clean
        .chars()
        .take_while(|character| {
            let width = character.width().unwrap_or(0);
            let fits = width <= left;
            left = left.saturating_sub(width);
            fits
        })
        .collect();
    if columns > 0 {
        kept.push('…');
    }
    kept
}

/// The columns of a text that has neither tabs nor line breaks.
pub fn width(text: &str) -> usize {
    seen(text).map(|(_, character)| character.width().unwrap_or(0)).sum()
}

/// The text without its colours, and where its characters are.
fn seen(text: &str) -> impl Iterator<Item = (usize, char)> {
    let mut rest = text.char_indices();
    std::iter::from_fn(move || {
        loop {
            let (index, character) = rest.next()?;
            if character != '\x1b' {
                return Some((index, character));
            }
            rest.find(|(_, character)| ends_sequence(*character))?;
        }
    })
}

/// The colours without their text.
fn colours(text: &str) -> String {
    let sequences = text.split('\x1b').skip(1);
    sequences.filter_map(|rest| Some(format!("\x1b{}", &rest[..=rest.find(ends_sequence)?]))).collect()
}

fn ends_sequence(character: char) -> bool {
    character.is_ascii_alphabetic()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_row_is_one_row() {
        assert_eq!(rows("", 10), 1);
        assert_eq!(rows("0123456789", 10), 1);
        assert_eq!(rows("0123456789a", 10), 2);
    }

    #[test]
    fn a_wide_character_that_does_not_fit_goes_to_the_next_row() {
        assert_eq!(rows("012345678你", 10), 2);
        assert_eq!(rows("01234567你", 10), 1);
        assert_eq!(Place::default().after("012345678你", 10), Place { row: 1, column: 2 });
    }

    #[test]
    fn combining_characters_and_colours_take_no_room() {
        assert_eq!(width("e\u{301}"), 1);
        assert_eq!(rows("\x1b[1;31m0123456789\x1b[0m", 10), 1);
        assert_eq!(width("\x1b[2mab\x1b[0mc"), 3);
    }

    #[test]
    fn a_tab_goes_to_the_next_eighth_column_and_never_past_the_last() {
        assert_eq!(Place::default().after("a\tb", 80), Place { row: 0, column: 9 });
        assert_eq!(Place::default().after("\t\t", 10), Place { row: 0, column: 9 });
        assert_eq!(rows("0123456789\t", 10), 1);
    }

    #[test]
    fn a_line_is_cut_where_a_row_begins_and_keeps_its_colours() {
        assert_eq!(last_rows("0123456789abc", 10, 1), "abc");
        assert_eq!(last_rows("0123456789abc", 10, 2), "0123456789abc");
        assert_eq!(last_rows("0123456789abc", 10, 0), "");
        assert_eq!(last_rows("\x1b[1m01234\x1b[0m5678你好", 10, 1), "\x1b[1m\x1b[0m你好");
        assert_eq!(last_rows("\x1b[31m0123456789\x1b[0mabc", 10, 1), "\x1b[31m\x1b[0mabc");
    }

    #[test]
    fn a_full_row_of_input_is_followed_by_a_line_break() {
        let begin = Place { row: 1, column: 2 };
        assert_eq!(begin.after("01234567", 10).wrapped(10), Place { row: 2, column: 0 });
        assert_eq!(begin.after("0123456", 10).wrapped(10), Place { row: 1, column: 9 });
        assert_eq!(begin.after("a\nb", 10).wrapped(10), Place { row: 2, column: 1 });
    }

    #[test]
    fn what_is_cut_off_says_so() {
        assert_eq!(truncate("lobby", 5), "lobby");
        assert_eq!(truncate("lobby!", 5), "lobb…");
        assert_eq!(truncate("你好吗", 5), "你好…");
        assert_eq!(truncate("你好吗", 4), "你…");
        assert_eq!(truncate("ab", 1), "…");
        assert_eq!(truncate("ab", 0), "");
    }

    #[test]
    fn a_status_cannot_break_its_row() {
        assert_eq!(truncate("a\nb\x1b[2J\tc", 80), "ab[2Jc");
    }
}
