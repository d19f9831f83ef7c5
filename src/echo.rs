//! `/echo`: sends everything back, for testing proxies and for conformance suites.

use std::io;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{sleep_until, timeout};

use crate::clock::Times;
use crate::drain::{Leaving, Slot};
use crate::protocol::CloseReason;
use crate::ws::frame::{self, Decoder, Incoming, Opcode};

const READ_BYTES: usize = 16 * 1024;
/// As many beats without a sign of life end a connection.
const BEATS_MISSED: u32 = 3;
/// For so long a closing connection waits for the client to close.
const GOODBYE: Duration = Duration::from_secs(2);

/// Serves one client until it leaves. `max_message` in bytes.
pub async fn run(socket: TcpStream, read_before: &[u8], max_message: usize, times: Times, leaving: Leaving) {
    let mut echo = Echo { socket, decoder: Decoder::new(max_message), times, leaving, slot: None };
    if let Err(End::Because(reason)) = echo.run(read_before).await {
        let _ = timeout(GOODBYE, echo.say_goodbye(reason)).await;
    }
}

struct Echo {
    socket: TcpStream,
    decoder: Decoder,
    times: Times,
    leaving: Leaving,
    /// When it goes, once the node leaves.
    slot: Option<Slot>,
}

/// How it ended.
enum End {
    Lost,
    Because(CloseReason),
}

impl From<io::Error> for End {
    fn from(_: io::Error) -> Self {
        End::Lost
    }
}

impl Echo {
    async fn run(&mut self, read_before: &[u8]) -> Result<(), End> {
        let mut buffer = vec![0; READ_BYTES];
        let mut first = read_before.to_vec();
        self.answer(&mut first).await?;
        loop {
            let count = self.read(&mut buffer).await?;
            self.answer(&mut buffer[..count]).await?;
            // A client that never stops sending is always readable: without this it would have its thread for itself.
            tokio::task::yield_now().await;
        }
    }

    /// Waits for bytes; asks for a sign of life at every beat without any.
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, End> {
        let mut silent_beats = 0;
        loop {
            let silent = tokio::select! {
                silent = hears_nothing(&self.socket, self.times.beat) => silent?,
                () = departs(&mut self.leaving, &mut self.slot) => return Err(End::Because(CloseReason::Restart)),
            };
            if silent {
                silent_beats += 1;
                if silent_beats == BEATS_MISSED {
                    return Err(End::Because(CloseReason::NoSignOfLife));
                }
                self.write(|out| frame::write_frame(Opcode::Ping, b"", out)).await?;
                continue;
            }
            match self.socket.try_read(buffer) {
                Ok(0) => return Err(End::Lost),
                Ok(count) => return Ok(count),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Lost),
            }
        }
    }

    async fn answer(&mut self, mut input: &mut [u8]) -> Result<(), End> {
        while let Some(message) = self.decoder.next(&mut input).map_err(refused)? {
            match message {
                Incoming::Text(text) => {
                    self.write(|out| frame::write_frame(Opcode::Text, text.as_bytes(), out)).await?
                }
                Incoming::Binary(bytes) => self.write(|out| frame::write_frame(Opcode::Binary, &bytes, out)).await?,
                Incoming::Ping(payload) => self.write(|out| frame::write_frame(Opcode::Pong, &payload, out)).await?,
                Incoming::Pong => {}
                Incoming::Close(close) => {
                    let (code, _) = close.unwrap_or((1000, String::new()));
                    return Err(End::Because(CloseReason::Echoed(code)));
                }
            }
        }
        Ok(())
    }

    async fn write(&self, frame: impl FnOnce(&mut Vec<u8>)) -> Result<(), End> {
        let mut bytes = Vec::new();
        frame(&mut bytes);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let limit = if self.times.write_timeout.is_zero() { Duration::MAX } else { self.times.write_timeout };
            match timeout(limit, self.socket.writable()).await {
                Ok(ready) => ready?,
                Err(_) => return Err(End::Because(CloseReason::TooSlow)),
            }
            match self.socket.try_write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Lost),
            }
        }
        Ok(())
    }

    async fn say_goodbye(&mut self, reason: CloseReason) -> Result<(), End> {
        let (code, words) = reason.code_and_text();
        self.write(|out| frame::write_close(code, words, out)).await?;
        socket2::SockRef::from(&self.socket).shutdown(std::net::Shutdown::Write)?;
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.socket.readable().await?;
            match self.socket.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(End::Lost),
                _ => {}
            }
        }
    }
}

/// True when a whole beat passed without anything to read.
async fn hears_nothing(socket: &TcpStream, beat: Duration) -> io::Result<bool> {
    if beat.is_zero() {
        return socket.readable().await.map(|()| false);
    }
    match timeout(beat, socket.readable()).await {
        Ok(ready) => ready.map(|()| false),
        Err(_) => Ok(true),
    }
}

/// Returns at this client's slot, once the node leaves.
async fn departs(leaving: &mut Leaving, slot: &mut Option<Slot>) {
    let slot = match slot {
        Some(slot) => *slot,
        None => *slot.insert(leaving.slot().await),
    };
    sleep_until(slot.at.into()).await;
}

fn refused(error: frame::FrameError) -> End {
    End::Because(crate::door::broken(error))
}
