//! Lines that are still to be painted, and those that were: both are bounded.

use std::collections::VecDeque;

use super::columns::rows;

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

    /// The newest lines that fit whole in so many rows.
    pub fn tail(&self, most_rows: usize, columns: usize) -> impl Iterator<Item = &str> {
        let mut left = most_rows;
        let fitting = self.lines.iter().rev().take_while(|line| {
            let rows = rows(line, columns);
            let fits = rows <= left;
            left = left.saturating_sub(rows);
            fits
        });
        self.lines.range(self.lines.len() - fitting.count()..).map(String::as_str)
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
    fn the_tail_is_made_of_whole_lines() {
        let lines = three();
        let tail = |rows, columns| lines.tail(rows, columns).collect::<Vec<_>>();
        assert_eq!(tail(10, 80), ["one", "twenty columns wide..", "three"]);
        assert_eq!(tail(3, 20), ["twenty columns wide..", "three"]);
        assert_eq!(tail(2, 20), ["three"]);
        assert_eq!(tail(0, 20), [""; 0]);
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
