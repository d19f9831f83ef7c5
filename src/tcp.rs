//! The line door: `nc HOST 9999`. A line in is said in the room, `NAME:TEXT` comes out.

/// A longer line is skipped.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// A line from a client, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    TooLong,
    NotUtf8,
    /// The first line is that of an HTTP request: a browser, led here by a page or by mistake. What it sends is said by nobody,
    /// and may hold secrets.
    Http,
}

/// Finds lines in a stream of bytes.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come yet.
    unfinished: Vec<u8>,
    /// The rest of this line is thrown away.
    skipping: bool,
    /// A line was read already.
    begun: bool,
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

    /// What came after the last line break, when nothing more will come.
    pub fn rest(&mut self) -> Option<Line> {
        (self.skipping || !self.unfinished.is_empty()).then(|| self.finish())
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
        let first = !std::mem::replace(&mut self.begun, true);
        match String::from_utf8(line) {
            Ok(line) if first && is_http(&line) => Line::Http,
            Ok(line) => Line::Text(line),
            Err(_) => Line::NotUtf8,
        }
    }
}

/// RFC 9112 §3: `METHOD TARGET HTTP/1.1`.
fn is_http(line: &str) -> bool {
    let Some((request, version)) = line.rsplit_once(" HTTP/") else { return false };
    let method = request.split(' ').next().unwrap_or_default();
    version.starts_with(|c: char| c.is_ascii_digit())
        && !method.is_empty()
        && method.len() < request.len()
        && method.bytes().all(|byte| byte.is_ascii_uppercase())
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
    fn a_last_line_needs_no_line_break() {
        let mut reader = Lines::default();
        assert_eq!(reader.next(&mut &mut b"one".to_vec()[..]), None);
        assert_eq!(reader.rest(), Some(text("one")));
        assert_eq!(reader.rest(), None);
    }

    #[test]
    fn a_browser_is_known_by_its_first_line_and_nobody_else_is() {
        for request in ["GET / HTTP/1.1", "POST /ws?key=1 HTTP/1.0", "OPTIONS * HTTP/1.1", "PRI * HTTP/2.0"] {
            assert_eq!(
                lines(format!("{request}\r\nHost: a\r\n").as_bytes(), 3),
                [Line::Http, text("Host: a")],
                "{request}"
            );
            assert_eq!(
                lines(format!("hello\n{request}\n").as_bytes(), 100),
                [text("hello"), text(request)],
                "said later"
            );
        }
        for said in ["GET / HTTP/", "we speak HTTP/1.1", "Get / HTTP/1.1", "GET HTTP/1.1", " HTTP/1.1", "GET /"] {
            assert_eq!(lines(format!("{said}\n").as_bytes(), 100), [text(said)]);
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_said_to_be() {
        assert_eq!(lines(b"\xff\nok\n", 1), [Line::NotUtf8, text("ok")]);
    }
}
