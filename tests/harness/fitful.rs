//! A socket that is read in fits and starts: a few bytes, a pause, a lot at once. The seed alone decides how.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

pub(super) struct Fitful {
    stream: TcpStream,
    /// `None`: it is read like any other.
    dice: Option<Dice>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// Numbers that only look random (splitmix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice(seed)
    }

    /// One of `0..below`.
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % below
    }
}

impl Fitful {
    pub(super) fn new(stream: TcpStream, seed: Option<u64>) -> Fitful {
        Fitful { stream, dice: seed.map(Dice::new), pause: None }
    }
}

impl AsyncRead for Fitful {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(dice) = &mut this.dice else { return Pin::new(&mut this.stream).poll_read(cx, buffer) };
        if let Some(pause) = &mut this.pause {
            ready!(pause.as_mut().poll(cx));
            this.pause = None;
        }
        let most = match dice.roll(8) {
            0 => 1,
            1..=3 => 1 + dice.roll(40),
            4..=6 => 1 + dice.roll(3_000),
            _ => 64 * 1024,
        };
        let mut piece = buffer.take(most as usize);
        ready!(Pin::new(&mut this.stream).poll_read(cx, &mut piece))?;
        let read = piece.filled().len();
        // The piece is the front of what `buffer` has not filled, and was initialized by the read.
        let taken = piece.filled().to_vec();
        buffer.put_slice(&taken);
        if read > 0 && dice.roll(4) == 0 {
            this.pause = Some(Box::pin(sleep(Duration::from_millis(dice.roll(6)))));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Fitful {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
