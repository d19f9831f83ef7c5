//! How a worker's process and whoever leads the run talk: each message is its length, four bytes in network order, and what
//! postcard makes of it.

use std::io::{self, ErrorKind, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// More than any worker has to say.
const LONGEST: usize = 1 << 30;

pub fn write(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let body = postcard::to_allocvec(what).map_err(io::Error::other)?;
    let length = u32::try_from(body.len()).map_err(io::Error::other)?;
    to.write_all(&length.to_be_bytes())?;
    to.write_all(&body)?;
    to.flush()
}

/// `Ok(None)`: the other side has ended.
pub fn read<T: DeserializeOwned>(from: &mut impl Read) -> io::Result<Option<T>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::other("a message of a worker that is no such thing"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    postcard::from_bytes(&body).map(Some).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_an_end_is_no_error() {
        let mut pipe = Vec::new();
        write(&mut pipe, &("a", 7_u64)).unwrap();
        write(&mut pipe, &("b", 8_u64)).unwrap();
        let mut rest = &pipe[..];
        assert_eq!(read::<(String, u64)>(&mut rest).unwrap(), Some(("a".into(), 7)));
        assert_eq!(read::<(String, u64)>(&mut rest).unwrap(), Some(("b".into(), 8)));
        assert_eq!(read::<(String, u64)>(&mut rest).unwrap(), None);
        assert!(read::<(String, u64)>(&mut &pipe[..6]).is_err());
    }
}
