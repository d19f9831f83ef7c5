//! What a room's JSON clients are told and nobody keeps: who came and went, who is typing.
//!
//! Whispers are frames like those of the log, encoded once for everybody, but apart from it: they have no offset, are in no
//! history, and are worth nothing later. A cursor counts them by themselves. Whoever is up to date in the log gets those that
//! came since, if they are not too old; whoever is behind or full skips them, and is told afterwards how many members there
//! are, if that was among them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::log::Seq;

/// A room's whispers take so much; the oldest give way.
const BYTES: usize = 64 * 1024;
/// Older ones are not told any more.
const STALE: Duration = Duration::from_secs(2);

/// A room's newest whispers.
#[derive(Debug, Default)]
pub struct Whispers {
    frames: VecDeque<(Instant, Bytes)>,
    bytes: usize,
    /// The number of the next one.
    end: Seq,
    /// The number of the last one that told who is here, and a frame that says how many, for those who skipped it.
    count: Option<(Seq, Bytes)>,
}

/// Some consecutive whispers, to be written to any number of sockets.
#[derive(Debug, Clone, Default)]
pub struct Whispered {
    /// The number of the first, and that after the last.
    pub from: Seq,
    pub to: Seq,
    /// Those that are not stale.
    pub frames: Vec<Bytes>,
}

impl Whispers {
    pub fn end(&self) -> Seq {
        self.end
    }

    /// Adds a frame. `count`: what those are told who skip it.
    pub fn push(&mut self, frame: Bytes, count: Option<Bytes>, now: Instant) {
        self.forget_stale(now);
        self.bytes += frame.len();
        self.frames.push_back((now, frame));
        while self.bytes > BYTES && self.frames.len() > 1 {
            self.forget_oldest();
        }
        if let Some(count) = count {
            self.count = Some((self.end, count));
        }
        self.end += 1;
    }

    /// Forgets what nobody is told any more.
    pub fn forget_stale(&mut self, now: Instant) {
        while self.frames.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > STALE) {
            self.forget_oldest();
        }
        if self.frames.is_empty() && self.frames.capacity() > 0 {
            self.frames = VecDeque::new();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, frame)) = self.frames.pop_front() {
            self.bytes -= frame.len();
        }
    }

    /// What came since `from`.
    pub fn since(&self, from: Seq, now: Instant) -> Whispered {
        let to = self.end;
        if from >= to {
            return Whispered { from: to, to, frames: Vec::new() };
        }
        let kept = self.frames.iter().rev().take((to - from) as usize);
        let fresh = kept.take_while(|(at, _)| now.saturating_duration_since(*at) <= STALE);
        let mut frames: Vec<Bytes> = fresh.map(|(_, frame)| frame.clone()).collect();
        let first = to - frames.len() as Seq;
        if let Some((seq, count)) = &self.count
            && (from..first).contains(seq)
        {
            frames.push(count.clone());
        }
        frames.reverse();
        Whispered { from, to, frames }
    }
}

impl Whispered {
    pub fn is_empty(&self) -> bool {
        self.from == self.to
    }

    /// Where a write of `count` bytes of [`Whispered::frames`] ended: what is left of the frame it ended in, and the number
    /// of the next.
    pub fn written(&self, count: usize) -> (Bytes, Seq) {
        let mut left = count;
        for (index, frame) in self.frames.iter().enumerate() {
            let rest = self.to - (self.frames.len() - index) as Seq;
            if left == 0 {
                return (Bytes::new(), if index == 0 { self.from } else { rest });
            }
            if left < frame.len() {
                // A copy, so that a slow socket keeps nothing else alive.
                return (Bytes::copy_from_slice(&frame[left..]), rest + 1);
            }
            left -= frame.len();
        }
        (Bytes::new(), self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    fn told(whispers: &Whispers, from: Seq, now: Instant) -> Vec<String> {
        let frames = whispers.since(from, now).frames;
        frames.iter().map(|frame| String::from_utf8_lossy(frame).into_owned()).collect()
    }

    #[test]
    fn whoever_is_up_to_date_is_told_what_came_since_and_nothing_stale() {
        let mut whispers = Whispers::default();
        let start = Instant::now();
        whispers.push(frame("a"), None, start);
        whispers.push(frame("b"), None, start + STALE);
        assert_eq!(told(&whispers, 0, start + STALE), ["a", "b"]);
        assert_eq!(told(&whispers, 1, start + STALE), ["b"]);
        assert_eq!(told(&whispers, 0, start + STALE * 2), ["b"]);
        assert!(whispers.since(2, start).is_empty());
        assert_eq!(whispers.since(0, start + STALE * 3).to, 2, "what is skipped is skipped for good");
    }

    #[test]
    fn whoever_skipped_who_came_and_went_is_told_how_many_there_are() {
        let mut whispers = Whispers::default();
        let start = Instant::now();
        whispers.push(frame("zoe came"), Some(frame("1")), start);
        whispers.push(frame("zoe types"), None, start + STALE * 2);
        assert_eq!(told(&whispers, 0, start + STALE * 2), ["1", "zoe types"]);
        assert_eq!(told(&whispers, 1, start + STALE * 2), ["zoe types"], "it was told");
        assert_eq!(told(&whispers, 0, start + STALE * 9), ["1"], "however long ago that was");
    }

    #[test]
    fn they_take_little_memory_and_none_for_long() {
        let mut whispers = Whispers::default();
        let start = Instant::now();
        for _ in 0..200 {
            whispers.push(Bytes::from(vec![0; 1000]), None, start);
            assert!(whispers.bytes <= BYTES && whispers.bytes == 1000 * whispers.frames.len());
        }
        assert_eq!(whispers.since(0, start).frames.len(), BYTES / 1000);
        whispers.forget_stale(start + STALE * 2);
        assert_eq!((whispers.bytes, whispers.frames.capacity()), (0, 0));
    }

    #[test]
    fn a_write_that_ends_within_a_frame_leaves_its_rest_and_the_next_ones() {
        let frames = vec![frame("abc"), frame("de")];
        let whispered = Whispered { from: 3, to: 7, frames };
        let written = |count| {
            let (rest, next) = whispered.written(count);
            (String::from_utf8_lossy(&rest).into_owned(), next)
        };
        let due = [("", 3), ("bc", 6), ("c", 6), ("", 6), ("e", 7), ("", 7)];
        for (count, (rest, next)) in due.into_iter().enumerate() {
            assert_eq!(written(count), (rest.to_owned(), next), "after {count} bytes");
        }
    }
}
