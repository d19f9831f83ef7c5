//! The line door: `nc HOST 9999`. A line in is said in the room, `NAME:TEXT` comes out.

/// A longer line is skipped.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// A line from a client, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    TooLong,
    NotUtf8,
}

/// Finds lines in a stream of bytes.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come yet.
    unfinished: Vec<u8>,
    /// The rest of this line is thrown away.
    skipping: bool,
}

impl Lines {
    /// Takes from the front of `input` until a line is whole, or `input` is used up.
    pub fn next(&mut self, input: &mut &mut [u8]) -> Option<Line> {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else {
            let rest = std::mem::take(input);
            self.keep(rest);
            return None;
        };
        let (line, rest) = std::mem::take(input).split_at_mut(end + 1);
        *input = rest;
        self.keep(&line[..end]);
        Some(self.finish())
    }

    fn keep(&mut self, bytes: &[u8]) {
        // One more for a CR that is not part of the line.
        if self.unfinished.len() + bytes.len() > MAX_LINE_BYTES + 1 {
            self.skipping = true;
            self.unfinished = Vec::new();
        } else if !self.skipping {
            self.unfinished.extend_from_slice(bytes);
        }
    }

    fn finish(&mut self) -> Line {
        let mut line = std::mem::take(&mut self.unfinished);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if std::mem::take(&mut self.skipping) || line.len() > MAX_LINE_BYTES {
            return Line::TooLong;
        }
        String::from_utf8(line).map_or(Line::NotUtf8, Line::Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of `bytes`, fed in pieces of `step`.
    fn lines(bytes: &[u8], step: usize) -> Vec<Line> {
        let mut reader = Lines::default();
        let mut found = Vec::new();
        for piece in bytes.to_vec().chunks_mut(step) {
            let mut input = piece;
            while let Some(line) = reader.next(&mut input) {
                found.push(line);
            }
        }
        found
    }

    fn text(line: &str) -> Line {
        Line::Text(line.into())
    }

    #[test]
    fn lines_end_with_lf_or_cr_lf_however_they_arrive() {
        for step in [1, 2, 3, 100] {
            assert_eq!(
                lines("a\r\n\nb\rc\n大\nrest".as_bytes(), step),
                [text("a"), text(""), text("b\rc"), text("大")]
            );
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_read() {
        let just = "x".repeat(MAX_LINE_BYTES);
        for step in [7, 1000, 100_000] {
            let input = format!("{just}\r\n{just}y\n{just}{just}\nok\n");
            assert_eq!(lines(input.as_bytes(), step), [text(&just), Line::TooLong, Line::TooLong, text("ok")]);
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_said_to_be() {
        assert_eq!(lines(b"\xff\nok\n", 1), [Line::NotUtf8, text("ok")]);
    }
}
