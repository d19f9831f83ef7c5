//! The line door: `nc HOST 9999`. A line in is said in the room, `NAME:TEXT` comes out.

/// A longer line is skipped.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// More than any method of HTTP has, and what follows it.
const LONGEST_METHOD: usize = 32;

/// A line from a client, without its line break.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    Text(String),
    TooLong,
    NotUtf8,
    /// The first line is that of an HTTP request: a browser, led here by a page or by mistake. What it sends is said by
    /// nobody, and may hold secrets.
    Http,
}

/// Finds lines in a stream of bytes.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come yet.
    unfinished: Vec<u8>,
    /// The rest of this line is thrown away.
    skipping: bool,
    /// The first line, of which the rest is thrown away, began as that of an HTTP request does.
    http: bool,
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
            self.unfinished.extend(bytes.iter().take(LONGEST_METHOD));
            self.http |= !self.skipping && asks(&self.unfinished);
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
        let first = !std::mem::replace(&mut self.begun, true);
        let skipped = std::mem::take(&mut self.skipping) || line.len() > MAX_LINE_BYTES;
        if first && (self.http || asks(&line) && (skipped || is_versioned(&line))) {
            return Line::Http;
        }
        if skipped {
            return Line::TooLong;
        }
        String::from_utf8(line).map_or(Line::NotUtf8, Line::Text)
    }
}

/// Whether a line begins as that of an HTTP request does (RFC 9112 §3): `METHOD TARGET …`. What a browser can be led to
/// write before its headers is no more than that.
fn asks(line: &[u8]) -> bool {
    let method = line.iter().take_while(|byte| byte.is_ascii_uppercase()).count();
    method > 0 && matches!(line[method..], [b' ', b'/' | b'*' | b'h', ..])
}

/// Whether it ends so: `… HTTP/1.1`.
fn is_versioned(line: &[u8]) -> bool {
    matches!(line, [.., b' ', b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
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
        for target in ["/".to_owned() + &"x".repeat(MAX_LINE_BYTES), "/\u{fffd}".into()] {
            let request = format!("GET {target} HTTP/1.1\r\nCookie: a\r\n");
            for step in [1, 100, 100_000] {
                assert_eq!(lines(request.as_bytes(), step), [Line::Http, text("Cookie: a")], "however long it is");
            }
        }
        assert_eq!(lines(b"GET /\xff HTTP/1.1\nCookie: a\n", 100), [Line::Http, text("Cookie: a")]);
        let long = "A ".repeat(MAX_LINE_BYTES);
        assert_eq!(lines(format!("{long}\nGET / HTTP/1.1\n").as_bytes(), 7), [Line::TooLong, text("GET / HTTP/1.1")]);
        for said in ["GET / HTTP/", "we speak HTTP/1.1", "Get / HTTP/1.1", "GET HTTP/1.1", " HTTP/1.1", "GET /"] {
            assert_eq!(lines(format!("{said}\n").as_bytes(), 100), [text(said)]);
        }
    }

    #[test]
    fn a_line_that_is_not_utf8_is_said_to_be() {
        assert_eq!(lines(b"\xff\nok\n", 1), [Line::NotUtf8, text("ok")]);
    }
}
