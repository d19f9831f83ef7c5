//! Reads what the hall sends: unmasked text frames, nothing else.

/// The payloads of some frames, which are all that there is.
pub fn payloads(mut frames: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while !frames.is_empty() {
        let (length, rest) = match frames {
            [0x81, 127, rest @ ..] => rest.split_at(8),
            [0x81, 126, rest @ ..] => rest.split_at(2),
            [0x81, rest @ ..] => rest.split_at(1),
            _ => panic!("no text frame"),
        };
        let length = length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let (payload, rest) = rest.split_at(length);
        found.push(payload);
        frames = rest;
    }
    found
}
