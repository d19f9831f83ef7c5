//! Lines that are still to be painted, and those that were: both are bounded.

use std::collections::VecDeque;

use super::columns::{last_rows, rows};

/// The newest lines, up to a number and a size; what does not fit any more is dropped from the old end.
pub struct Lines {
    lines: VecDeque<String>,
    bytes: usize,
    most: usize,
    most_bytes: usize,
}

impl Lines {
    pub fn bounded(most: usize, most_bytes: usize) -> Self {
        Lines { lines: VecDeque::new(), bytes: 0, most, most_bytes }
    }

    /// How many lines were dropped for this one.
    pub fn push(&mut self, line: String) -> usize {
        self.bytes += line.len();
        self.lines.push_back(line);
        let before = self.lines.len();
        while self.lines.len() > self.most || self.bytes > self.most_bytes {
            self.pop();
        }
        before - self.lines.len()
    }

    pub fn pop(&mut self) -> Option<String> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }

    /// The newest lines that fit in so many rows, each with its line break; of the first one its last rows, if need be.
    pub fn tail(&self, most_rows: usize, columns: usize) -> String {
        let mut left = most_rows;
        let mut tail = VecDeque::new();
        for line in self.lines.iter().rev() {
            if left == 0 {
                break;
            }
            let shown = last_rows(line, columns, left);
            left -= rows(&shown, columns).min(left);
            tail.push_front(shown + "\n");
        }
        tail.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three() -> Lines {
        let mut lines = Lines::bounded(100, 1000);
        for line in ["one", "twenty columns wide..", "three"] {
            assert_eq!(lines.push(line.into()), 0);
        }
        lines
    }

    #[test]
    fn the_tail_fills_the_rows_that_there_are() {
        let lines = three();
        assert_eq!(lines.tail(10, 80), "one\ntwenty columns wide..\nthree\n");
        assert_eq!(lines.tail(3, 20), "twenty columns wide..\nthree\n");
        assert_eq!(lines.tail(2, 20), ".\nthree\n");
        assert_eq!(lines.tail(0, 20), "");
    }

    #[test]
    fn too_many_lines_drop_the_oldest() {
        let mut lines = Lines::bounded(2, 1000);
        assert_eq!(["a", "b", "c", "d"].map(|line| lines.push(line.into())), [0, 0, 1, 1]);
        assert_eq!((lines.pop().as_deref(), lines.pop().as_deref(), lines.pop()), (Some("c"), Some("d"), None));
    }

    #[test]
    fn too_many_bytes_drop_the_oldest() {
        let mut lines = Lines::bounded(100, 10);
        assert_eq!(["12345", "12345", "1234567890", "x"].map(|line| lines.push(line.into())), [0, 0, 2, 1]);
        assert_eq!(lines.pop().as_deref(), Some("x"));
        assert_eq!(lines.push("12345678901".into()), 1);
        assert_eq!(lines.push("1234567890".into()), 0, "nothing of the others is counted any more");
    }
}
