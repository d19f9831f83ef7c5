//! What the decoder promises, in examples and in properties.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

const LIMIT: usize = 100_000;
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client's frame by the letter of §5.2, made without any of the code above.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    masked_frame(first, payload, MASK)
}

fn masked_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    if payload.len() < 126 {
        out.push(0x80 + payload.len() as u8);
    } else if payload.len() < 65536 {
        out.push(0x80 + 126);
        out.extend((payload.len() as u16).to_be_bytes());
    } else {
        out.push(0x80 + 127);
        out.extend((payload.len() as u64).to_be_bytes());
    }
    out.extend(mask);
    for (at, byte) in payload.iter().enumerate() {
        out.push(byte ^ mask[at % 4]);
    }
    out
}

/// Everything a decoder says to these pieces: what came, and the error that ended it.
fn decode_with(
    decoder: &mut Decoder,
    pieces: impl IntoIterator<Item = Vec<u8>>,
) -> (Vec<Incoming>, Option<FrameError>) {
    let mut heard = Vec::new();
    for mut piece in pieces {
        let mut input = &mut piece[..];
        loop {
            match decoder.next(&mut input) {
                Ok(Some(incoming)) => heard.push(incoming),
                Ok(None) => break,
                Err(error) => return (heard, Some(error)),
            }
        }
        assert!(input.is_empty(), "the decoder asks for more with input left");
    }
    (heard, None)
}

fn decode(bytes: &[u8]) -> (Vec<Incoming>, Option<FrameError>) {
    decode_with(&mut Decoder::new(LIMIT), [bytes.to_vec()])
}

fn refusal(bytes: &[u8]) -> u16 {
    let (heard, error) = decode(bytes);
    assert_eq!(heard, [], "{bytes:02x?}");
    error.map_or(0, |error| error.close_code())
}

fn text(text: &str) -> Incoming {
    Incoming::Text(text.to_owned())
}

#[test]
fn the_examples_of_the_rfc_are_understood() {
    let masked_hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&masked_hello), (vec![text("Hello")], None));
    let masked_pong = [0x8a, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
    assert_eq!(decode(&masked_pong), (vec![Incoming::Pong], None));
    let fragments = [frame(0x01, b"Hel"), frame(0x80, b"lo")].concat();
    assert_eq!(decode(&fragments), (vec![text("Hello")], None));
    let ping = Incoming::Ping(b"Hello".to_vec());
    assert_eq!(decode(&frame(0x89, b"Hello")), (vec![ping], None));
}

#[test]
fn the_examples_of_the_rfc_are_what_we_write() {
    let written = |opcode, payload: &[u8]| {
        let mut out = Vec::new();
        write_frame(opcode, payload, &mut out);
        out
    };
    let hello = |first| [&[first, 0x05], &b"Hello"[..]].concat();
    assert_eq!(written(Opcode::Text, b"Hello"), hello(0x81));
    assert_eq!(written(Opcode::Ping, b"Hello"), hello(0x89));
    assert_eq!(written(Opcode::Pong, b"Hello"), hello(0x8a));
    let medium = written(Opcode::Binary, &[7; 256]);
    assert_eq!(medium[..4], [0x82, 0x7e, 0x01, 0x00]);
    assert_eq!(medium[4..], [7; 256]);
    let large = written(Opcode::Binary, &[7; 65536]);
    assert_eq!(large[..10], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(large.len(), 10 + 65536);
}

#[test]
fn a_header_uses_as_few_bytes_as_the_length_allows() {
    assert_eq!(*header(Opcode::Text, 0), [0x81, 0]);
    assert_eq!(*header(Opcode::Text, 125), [0x81, 125]);
    assert_eq!(*header(Opcode::Text, 126), [0x81, 126, 0, 126]);
    assert_eq!(*header(Opcode::Text, 65535), [0x81, 126, 0xff, 0xff]);
    let long = [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0];
    assert_eq!(*header(Opcode::Text, 65536), long);
}

#[test]
fn what_the_rfc_forbids_a_client_is_refused_as_a_protocol_error() {
    let len64 = |len: u64| [&[0x82, 0xff], &len.to_be_bytes()[..], &MASK].concat();
    let unfinished_then = |first| [frame(0x01, b"a"), frame(first, b"b")].concat();
    for (why, bytes) in [
        ("unmasked", vec![0x81, 0x05]),
        ("RSV1", frame(0xc1, b"")),
        ("RSV2", frame(0xa1, b"")),
        ("RSV3", frame(0x91, b"")),
        ("opcode 3", frame(0x83, b"")),
        ("opcode 7", frame(0x87, b"")),
        ("opcode 11", frame(0x8b, b"")),
        ("opcode 15", frame(0x8f, b"")),
        ("fragmented ping", frame(0x09, b"")),
        ("fragmented close", frame(0x08, b"")),
        ("long ping", frame(0x89, &[0; 126])),
        ("long pong", frame(0x8a, &[0; 70_000])),
        ("continuation of nothing", frame(0x80, b"a")),
        ("unfinished continuation of nothing", frame(0x00, b"")),
        ("a text inside a text", unfinished_then(0x81)),
        ("a fragmented binary inside a text", unfinished_then(0x02)),
        ("the highest bit of the length", len64(1 << 63)),
        ("all bits of the length", len64(u64::MAX)),
        ("125 in two bytes", [&[0x81, 0xfe, 0, 125], &MASK[..]].concat()),
        ("65535 in eight bytes", len64(65535)),
    ] {
        assert_eq!(refusal(&bytes), 1002, "{why}");
    }
}

#[test]
fn a_message_begins_anew_after_the_last_fragment() {
    let bytes = [frame(0x01, b"a"), frame(0x80, b"b"), frame(0x82, b"c"), frame(0x80, b"d")];
    let heard = vec![text("ab"), Incoming::Binary(b"c".to_vec())];
    let error = FrameError::Protocol("there is no message to continue");
    assert_eq!(decode(&bytes.concat()), (heard, Some(error)));
}

#[test]
fn a_bad_header_is_refused_before_its_payload_and_an_unmasked_one_before_its_length() {
    assert_eq!(refusal(&[0x83, 0x80]), 1002);
    assert_eq!(refusal(&[0x81, 0x7f]), 1002);
    assert_eq!(refusal(&[0x89, 0xfe]), 1002);
}

#[test]
fn a_message_may_have_just_the_limit() {
    let decode = |frames: &[Vec<u8>]| decode_with(&mut Decoder::new(10), [frames.concat()]);
    let too_big = Some(FrameError::TooBig { limit: 10 });
    let ten = (vec![text("0123456789")], None);
    assert_eq!(decode(&[frame(0x81, b"0123456789")]), ten);
    assert_eq!(decode(&[frame(0x01, b"01234567"), frame(0x80, b"89")]), ten);
    assert_eq!(decode(&[frame(0x81, b"0123456789x")]).1, too_big);
    let over = [frame(0x01, b"01234567"), frame(0x80, b"89x")];
    assert_eq!(decode(&over).1, too_big);
    // The bytes of a character that was cut count, too.
    let over = [frame(0x01, "01234567大".as_bytes()[..10].into()), frame(0x80, b"x")];
    assert_eq!(decode(&over).1, too_big);
    assert_eq!(FrameError::TooBig { limit: 10 }.close_code(), 1009);
}

#[test]
fn a_message_over_the_limit_is_refused_by_its_header_alone() {
    let mut decoder = Decoder::new(1000);
    let header = [&[0x81, 0xff][..], &(1u64 << 62).to_be_bytes(), &MASK].concat();
    let too_big = FrameError::TooBig { limit: 1000 };
    let heard = decode_with(&mut decoder, [header]);
    assert_eq!(heard, (vec![], Some(too_big)));
}

#[test]
fn control_frames_are_not_counted_against_the_limit_of_a_message() {
    let mut decoder = Decoder::new(0);
    let bytes = [frame(0x01, b""), frame(0x89, &[1; 125]), frame(0x80, b"")].concat();
    let heard = vec![Incoming::Ping(vec![1; 125]), text("")];
    assert_eq!(decode_with(&mut decoder, [bytes]), (heard, None));
}

#[test]
fn control_frames_come_between_fragments_and_are_heard_at_once() {
    let bytes = [
        frame(0x01, "Gr\u{fc}".as_bytes()[..3].into()),
        frame(0x89, b"1"),
        frame(0x00, "\u{fc}\u{df}".as_bytes()[1..].into()),
        frame(0x8a, b"2"),
        frame(0x80, b"e"),
    ];
    let ping = Incoming::Ping(b"1".to_vec());
    let heard = vec![ping, Incoming::Pong, text("Gr\u{fc}\u{df}e")];
    assert_eq!(decode(&bytes.concat()), (heard, None));
}

#[test]
fn a_close_frame_says_nothing_or_a_code_that_may_travel_and_a_text() {
    let close = |payload: &[u8]| decode(&frame(0x88, payload));
    let with = |code: u16, reason: &[u8]| [&code.to_be_bytes(), reason].concat();
    let answer = |close| (vec![Incoming::Close(close)], None);
    assert_eq!(close(b""), answer(None));
    let longest = "x".repeat(123);
    assert_eq!(close(&with(1000, longest.as_bytes())), answer(Some((1000, longest))));
    for code in (1000..=1003).chain(1007..=1014).chain([3000, 3999, 4000, 4999]) {
        assert_eq!(close(&with(code, b"")), answer(Some((code, String::new()))));
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        assert_eq!(refusal(&frame(0x88, &with(code, b""))), 1002, "{code}");
    }
    assert_eq!(refusal(&frame(0x88, b"\x03")), 1002);
    assert_eq!(refusal(&frame(0x88, &with(1000, b"\xce\xba\xff"))), 1007);
    assert_eq!(refusal(&frame(0x88, &with(1000, b"\xce"))), 1007);
}

#[test]
fn nothing_is_heard_after_a_close_frame_and_nothing_is_held() {
    let mut decoder = Decoder::new(LIMIT);
    let bytes = [frame(0x01, b"a"), frame(0x88, b""), frame(0x89, b""), vec![0xff; 99]];
    let heard = decode_with(&mut decoder, [bytes.concat(), vec![0xff; 99]]);
    assert_eq!(heard, (vec![Incoming::Close(None)], None));
    assert!(decoder.is_idle());
    assert_eq!(capacity(&decoder), 0);
}

#[test]
fn after_an_error_there_is_only_that_error() {
    let mut decoder = Decoder::new(LIMIT);
    let bytes = [frame(0x01, b"abc"), frame(0x83, b"")].concat();
    let (_, error) = decode_with(&mut decoder, [bytes]);
    assert_eq!(error, Some(FrameError::Protocol("a reserved opcode")));
    assert_eq!(decode_with(&mut decoder, [frame(0x81, b"abc")]), (vec![], error));
    assert_eq!(decode_with(&mut decoder, [vec![]]), (vec![], error));
    assert!(!decoder.is_idle());
    assert_eq!(capacity(&decoder), 0);
}

#[test]
fn a_wrong_byte_in_a_text_is_refused_while_its_frame_is_unfinished() {
    let whole = frame(0x81, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xf4\x90\x80\x80edited");
    let header_len = 6;
    let wrong_at = header_len + 12; // f4 may be followed by 90 never
    let decoder = &mut Decoder::new(LIMIT);
    let right = whole[..wrong_at].to_vec();
    assert_eq!(decode_with(decoder, [right]), (vec![], None));
    let wrong = whole[wrong_at..=wrong_at].to_vec();
    assert_eq!(decode_with(decoder, [wrong]), (vec![], Some(FrameError::NotUtf8)));
    assert_eq!(FrameError::NotUtf8.close_code(), 1007);
}

#[test]
fn a_text_that_ends_inside_a_character_is_refused_and_a_binary_may_hold_anything() {
    assert_eq!(refusal(&frame(0x81, b"abc\xe5\xa4")), 1007);
    let fragments = [frame(0x01, b"abc\xe5\xa4"), frame(0x80, b"")];
    assert_eq!(refusal(&fragments.concat()), 1007);
    let any = Incoming::Binary(b"abc\xe5\xff".to_vec());
    assert_eq!(decode(&frame(0x82, b"abc\xe5\xff")), (vec![any], None));
}

#[test]
fn a_frame_without_payload_is_whole_with_its_header() {
    assert_eq!(decode(&frame(0x81, b"")), (vec![text("")], None));
    assert_eq!(decode(&frame(0x82, b"")).0, [Incoming::Binary(vec![])]);
    assert_eq!(decode(&frame(0x89, b"")).0, [Incoming::Ping(vec![])]);
}

#[test]
fn a_decoder_is_idle_only_between_messages() {
    let bytes = [frame(0x01, b"ab"), frame(0x89, b"c"), frame(0x80, b"")].concat();
    let mut decoder = Decoder::new(LIMIT);
    assert!(decoder.is_idle());
    for byte in &bytes[..bytes.len() - 1] {
        decode_with(&mut decoder, [vec![*byte]]);
        assert!(!decoder.is_idle());
    }
    decode_with(&mut decoder, [bytes[bytes.len() - 1..].to_vec()]);
    assert!(decoder.is_idle());
    assert_eq!(capacity(&decoder), 0);
}

/// Bytes of heap memory that a decoder holds.
fn capacity(decoder: &Decoder) -> usize {
    let message = match &decoder.message {
        Message::Text(text) => text.text.capacity(),
        Message::Binary(bytes) => bytes.capacity(),
    };
    match &decoder.stage {
        Stage::Control { payload, .. } => message + payload.capacity(),
        _ => message,
    }
}

#[test]
fn a_decoder_is_small() {
    assert!(size_of::<Decoder>() <= 96, "{}", size_of::<Decoder>());
}

#[test]
fn memory_is_taken_for_what_came_and_not_for_what_was_announced() {
    for first in [0x01, 0x02, 0x81, 0x82] {
        let mut decoder = Decoder::new(LIMIT);
        let bytes = frame(first, &[b'a'; LIMIT]);
        decode_with(&mut decoder, [bytes[..14].to_vec()]);
        assert_eq!(capacity(&decoder), 0);
        decode_with(&mut decoder, [bytes[14..114].to_vec()]);
        assert_eq!(capacity(&decoder), 100);
        for byte in &bytes[114..bytes.len() - 1] {
            decode_with(&mut decoder, [vec![*byte]]);
        }
        assert!(capacity(&decoder) <= LIMIT);
    }
}

#[test]
fn a_message_in_one_piece_takes_exactly_its_length() {
    let (heard, _) = decode(&[frame(0x81, &[b'a'; 120]), frame(0x82, &[1; 120])].concat());
    let [Incoming::Text(text), Incoming::Binary(bytes)] = &heard[..] else {
        panic!("{heard:?}");
    };
    assert_eq!((text.capacity(), bytes.capacity()), (120, 120));
}

#[test]
fn empty_fragments_cost_no_memory() {
    let mut decoder = Decoder::new(LIMIT);
    decode_with(&mut decoder, [frame(0x01, b"")]);
    for _ in 0..10_000 {
        assert_eq!(decode_with(&mut decoder, [frame(0x00, b"")]), (vec![], None));
    }
    assert_eq!(capacity(&decoder), 0);
    assert_eq!(decode_with(&mut decoder, [frame(0x80, b"a")]).0, [text("a")]);
}

#[test]
fn a_reason_that_does_not_fit_is_cut_between_two_characters() {
    let mut out = Vec::new();
    write_close(1001, "bye", &mut out);
    assert_eq!(out, b"\x88\x05\x03\xe9bye");
    out.clear();
    write_close(1001, &"大".repeat(50), &mut out);
    assert_eq!(out.len(), 2 + 2 + 123);
    out.clear();
    write_close(1001, &format!("x{}", "大".repeat(50)), &mut out);
    assert_eq!(out[1], 2 + 1 + 40 * 3);
    assert!(str::from_utf8(&out[4..]).is_ok());
}

#[test]
fn errors_fit_into_the_reason_of_a_close_frame() {
    let error = FrameError::TooBig { limit: usize::MAX };
    assert!(error.to_string().len() <= 123);
    let error = FrameError::Protocol("a reserved bit is set");
    assert_eq!(error.to_string(), "a reserved bit is set");
}

/// A message as it travels: where it is cut into fragments, and what comes between them.
#[derive(Debug, Clone)]
struct Sent {
    message: Incoming,
    cuts: Vec<(Index, Option<Incoming>)>,
}

impl Sent {
    /// Appends the frames, and what is to be heard of them.
    fn send(&self, mask: [u8; 4], wire: &mut Vec<u8>, heard: &mut Vec<Incoming>) {
        let (opcode, payload) = match &self.message {
            Incoming::Text(text) => (1, text.as_bytes()),
            Incoming::Binary(bytes) => (2, &bytes[..]),
            other => unreachable!("{other:?} is not a message"),
        };
        let mut cuts: Vec<_> = self.cuts.iter().map(|(at, between)| (at.index(payload.len() + 1), between)).collect();
        cuts.sort_by_key(|(at, _)| *at);
        let mut from = 0;
        let mut opcode = opcode;
        for (to, between) in cuts {
            wire.extend(masked_frame(opcode, &payload[from..to], mask));
            (from, opcode) = (to, 0);
            match between {
                Some(Incoming::Ping(bytes)) => wire.extend(masked_frame(0x89, bytes, mask)),
                Some(_) => wire.extend(masked_frame(0x8a, b"pong", mask)),
                None => {}
            }
            heard.extend(between.clone());
        }
        wire.extend(masked_frame(0x80 | opcode, &payload[from..], mask));
        heard.push(self.message.clone());
    }
}

fn sent() -> impl Strategy<Value = Sent> {
    let message = prop_oneof![
        4 => "\\PC{0,80}".prop_map(Incoming::Text),
        4 => vec(any::<u8>(), 0..300).prop_map(Incoming::Binary),
        1 => (65_500usize..65_600).prop_map(|len| Incoming::Binary(vec![0xa5; len])),
        1 => (21_800usize..21_900).prop_map(|len| Incoming::Text("大".repeat(len))),
    ];
    let between = prop_oneof![
        vec(any::<u8>(), 0..=125).prop_map(|bytes| Some(Incoming::Ping(bytes))),
        Just(Some(Incoming::Pong)),
        Just(None),
    ];
    let cuts = vec((any::<Index>(), between), 0..5);
    (message, cuts).prop_map(|(message, cuts)| Sent { message, cuts })
}

/// The bytes in pieces of these lengths, over and over.
fn pieces(bytes: &[u8], lens: &[usize]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for len in lens.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at((*len).min(rest.len()));
        pieces.push(piece.to_vec());
        rest = after;
    }
    pieces
}

fn lens() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![vec(1usize..20, 1..10), vec(1usize..5000, 1..10), Just(vec![usize::MAX]),]
}

/// Bytes that are frames often enough to get past the header.
fn nearly_frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![
        8 => proptest::sample::select(vec![0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x89, 0x8a]),
        1 => Just(0x88),
        1 => any::<u8>(),
    ];
    let payload = prop_oneof![vec(any::<u8>(), 0..140), "\\PC{0,50}".prop_map(String::into_bytes),];
    let whole =
        (first, payload, any::<[u8; 4]>()).prop_map(|(first, payload, mask)| masked_frame(first, &payload, mask));
    let piece = prop_oneof![9 => whole, 1 => vec(any::<u8>(), 0..30)];
    vec(piece, 0..8).prop_map(|pieces| pieces.concat())
}

/// Bytes that are UTF-8, and then, here and there, not.
fn nearly_utf8() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        6 => any::<char>().prop_map(|c| c.to_string().into_bytes()),
        6 => "[a-zäß大𝄞]{1,10}".prop_map(String::into_bytes),
        1 => (any::<char>(), any::<Index>()).prop_map(|(c, at)| {
            let bytes = c.to_string().into_bytes();
            bytes[..=at.index(bytes.len())].to_vec()
        }),
        1 => vec(0x80u8.., 1..4),
    ];
    vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn messages_arrive_as_they_were_sent_however_they_are_cut(
        sent in vec((sent(), any::<[u8; 4]>()), 0..5),
        lens in lens(),
    ) {
        let (mut wire, mut heard) = (Vec::new(), Vec::new());
        for (message, mask) in sent {
            message.send(mask, &mut wire, &mut heard);
        }
        let mut decoder = Decoder::new(LIMIT);
        let decoded = decode_with(&mut decoder, pieces(&wire, &lens));
        prop_assert_eq!(decoded, (heard, None));
        prop_assert!(decoder.is_idle());
        prop_assert_eq!(capacity(&decoder), 0);
    }

    #[test]
    fn any_bytes_mean_the_same_however_they_are_cut(
        bytes in prop_oneof![vec(any::<u8>(), 0..200), nearly_frames()],
        lens in lens(),
        limit in prop_oneof![Just(LIMIT), 0usize..200],
    ) {
        let whole = decode_with(&mut Decoder::new(limit), [bytes.clone()]);
        let mut decoder = Decoder::new(limit);
        prop_assert_eq!(decode_with(&mut decoder, pieces(&bytes, &lens)), whole);
        prop_assert!(capacity(&decoder) <= limit + 2 * MAX_CONTROL_BYTES);
    }

    #[test]
    fn a_text_is_refused_at_the_very_byte_that_makes_it_wrong(
        bytes in nearly_utf8(),
        cut in any::<Index>(),
    ) {
        let cut = cut.index(bytes.len() + 1);
        let first = frame(0x01, &bytes[..cut]);
        let last = frame(0x80, &bytes[cut..]);
        let (_, error) = decode(&[&first[..], &last[..]].concat());
        prop_assert_eq!(error.is_some(), str::from_utf8(&bytes).is_err());

        // Where on the wire each byte of the text is, and the one with which the message is over.
        let last_at = first.len() + last.len() - bytes.len() + cut;
        let on_wire = |at: usize| match at < cut {
            true => first.len() - cut + at,
            false => last_at + at - cut,
        };
        let due = (0..bytes.len())
            .find(|at| {
                let so_far = str::from_utf8(&bytes[..=*at]);
                so_far.is_err_and(|error| error.error_len().is_some())
            })
            .map(on_wire)
            .or(error.map(|_| first.len() + last.len() - 1));

        let mut decoder = Decoder::new(LIMIT);
        for (at, byte) in [first, last].concat().into_iter().enumerate() {
            let (_, error) = decode_with(&mut decoder, [vec![byte]]);
            prop_assert_eq!(error, (due == Some(at)).then_some(FrameError::NotUtf8));
            if error.is_some() {
                break;
            }
        }
    }

    #[test]
    fn what_we_write_is_understood_once_it_is_masked(
        payload in "\\PC{0,300}",
    ) {
        let mut written = Vec::new();
        write_frame(Opcode::Text, payload.as_bytes(), &mut written);
        let header_len = written.len() - payload.len();
        written[1] |= 0x80;
        written.splice(header_len..header_len, [0; 4]);
        prop_assert_eq!(decode(&written), (vec![Incoming::Text(payload)], None));
    }
}
