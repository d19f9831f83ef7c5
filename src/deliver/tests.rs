//! Passes over real sockets, one turn at a time.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::broker::{Delivery, Head, History};
use crate::log::Window;
use crate::names::RoomName;
use crate::outgoing::Flushed;
use crate::position::{Lineage, Offset, Position};
use crate::room::{Budget, Entrance, Wants};

/// For how long a test waits for what should be there.
const PATIENCE: Duration = Duration::from_secs(10);

fn room(name: &str) -> Arc<Room> {
    let window = Window { bytes: 1 << 20, records: 100 };
    let room = Arc::new(Room::new(RoomName::parse(name).unwrap(), window, Arc::new(Budget::new(usize::MAX)), &[]));
    let head = Head { lineage: Lineage { epoch: "a".into(), forks: Vec::new() }, offset: 0, oldest: 1 };
    let _ = room.begin(&History { head, entries: Vec::new() }, 0, Encoding::Line);
    room
}

fn say(room: &Arc<Room>, offset: Offset, text: &str) {
    let event = format!(r#"{{"type":"message","from":{{"name":"zoe"}},"text":"{text}"}}"#).into();
    let position = Position { epoch: "a".into(), offset };
    let delivery = Delivery { room: room.name.clone(), position, at_ms: 0, event };
    assert_eq!(room.deliver(vec![delivery]), Wants::Nothing);
}

/// A client of the line door that has everything so far, and the other end of its socket.
async fn client(room: &Arc<Room>) -> (Arc<Outgoing>, TcpStream) {
    client_of(room, Encoding::Line).await
}

async fn client_of(room: &Arc<Room>, encoding: Encoding) -> (Arc<Outgoing>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other_end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let out = Outgoing::new(listener.accept().await.unwrap().0, encoding);
    out.socket().writable().await.unwrap();
    let place = room.place(&Entrance { encoding, after: None, last: 0 }, true).unwrap();
    out.place(room.enter(), None, place, |_| {});
    out.flush().unwrap();
    (Arc::new(out), other_end)
}

async fn heard(socket: &mut TcpStream, text: &str) {
    let mut line = vec![0; text.len()];
    let read = tokio::time::timeout(PATIENCE, socket.read_exact(&mut line)).await;
    read.unwrap_or_else(|_| panic!("waited in vain for {text:?}")).unwrap();
    assert_eq!(String::from_utf8_lossy(&line), text);
}

/// A loop that serves these clients of these rooms.
fn serving<'a>(clients: impl IntoIterator<Item = (&'a Arc<Room>, &'a Arc<Outgoing>)>) -> Loop {
    let (_, changes) = mpsc::channel(1);
    let mut delivery =
        Loop { index: 0, changes, rung: Arc::default(), audiences: HashMap::new(), passing: VecDeque::new() };
    for (room, out) in clients {
        delivery.take(Change::Came(room.clone(), out.clone()));
        out.flush().unwrap(); // who comes is told to look
    }
    delivery
}

#[tokio::test]
async fn whoever_leaves_during_a_pass_takes_nobodys_message_along() {
    let lobby = room("lobby");
    let mut clients = Vec::new();
    for _ in 0..TURN + 4 {
        clients.push(client(&lobby).await);
    }
    let mut delivery = serving(clients.iter().map(|(out, _)| (&lobby, out)));
    say(&lobby, 1, "one");
    delivery.hear(&lobby);
    delivery.serve();
    assert_eq!(delivery.passing, [key(&lobby)], "there is another row");
    // The last one takes the place of the first, where the pass has been already.
    delivery.take(Change::Went(lobby.clone(), clients[0].0.id));
    delivery.serve();
    assert!(delivery.passing.is_empty());
    let last = clients.last().unwrap().0.clone();
    let told = std::future::poll_fn(|context| last.poll_handed_over(context));
    tokio::time::timeout(PATIENCE, told).await.expect("it was told to look");
    last.flush().unwrap();
    for (_, socket) in &mut clients[1..] {
        heard(socket, "zoe:one\n").await;
    }
}

/// Rows go with whoever leaves, and nobody is served twice or passed over.
#[tokio::test]
async fn a_room_that_empties_and_fills_serves_whoever_is_there() {
    let lobby = room("lobby");
    let mut clients = Vec::new();
    for _ in 0..3 * TURN {
        clients.push(client(&lobby).await);
    }
    let mut delivery = serving(clients.iter().map(|(out, _)| (&lobby, out)));
    for (out, _) in clients.drain(1..) {
        delivery.take(Change::Went(lobby.clone(), out.id));
    }
    let marks = |delivery: &Loop| delivery.audiences[&key(&lobby)].marks[Encoding::Line as usize].len();
    assert_eq!(marks(&delivery), 1);
    say(&lobby, 1, "one");
    serve(&mut delivery, &lobby);
    for _ in 0..2 * TURN {
        let comes = client(&lobby).await;
        delivery.take(Change::Came(lobby.clone(), comes.0.clone()));
        comes.0.flush().unwrap();
        clients.push(comes);
    }
    assert_eq!(marks(&delivery), 3);
    say(&lobby, 2, "two");
    serve(&mut delivery, &lobby);
    heard(&mut clients[0].1, "zoe:one\nzoe:two\n").await;
    for (_, socket) in &mut clients[1..] {
        heard(socket, "zoe:two\n").await;
    }
}

#[tokio::test]
async fn what_is_said_during_a_pass_goes_out_with_it_to_the_rows_it_has_not_been_at() {
    let hall = room("hall");
    let mut many = Vec::new();
    for _ in 0..2 * TURN {
        many.push(client(&hall).await);
    }
    let mut delivery = serving(many.iter().map(|(out, _)| (&hall, out)));
    say(&hall, 1, "one");
    delivery.hear(&hall);
    delivery.serve();
    say(&hall, 2, "two");
    delivery.hear(&hall);
    delivery.serve();
    heard(&mut many[TURN].1, "zoe:one\nzoe:two\n").await;
    let (first, mut behind) = (&mut many[0].1, [0; 64]);
    heard(first, "zoe:one\n").await;
    assert!(first.try_read(&mut behind).is_err(), "the pass has been there");
    delivery.serve();
    heard(first, "zoe:two\n").await;
    delivery.serve();
    assert!(delivery.passing.is_empty());
}

#[tokio::test]
async fn rooms_take_turns() {
    let (hall, corner) = (room("hall"), room("corner"));
    let mut many = Vec::new();
    for _ in 0..TURN + 1 {
        many.push(client(&hall).await);
    }
    let mut few = client(&corner).await;
    let clients = many.iter().map(|(out, _)| (&hall, out)).chain([(&corner, &few.0)]);
    let mut delivery = serving(clients);
    say(&hall, 1, "one");
    delivery.hear(&hall);
    say(&corner, 1, "here");
    delivery.hear(&corner);
    delivery.serve();
    assert_eq!(delivery.passing, [key(&corner), key(&hall)], "the hall has not been served whole, and waits its turn");
    delivery.serve();
    heard(&mut few.1, "zoe:here\n").await;
    while !delivery.passing.is_empty() {
        delivery.serve();
    }
    for (_, socket) in &mut many {
        heard(socket, "zoe:one\n").await;
    }
}

#[tokio::test]
async fn a_seat_that_was_left_is_taken_by_whoever_comes_next_and_hears_everything_from_then_on() {
    let lobby = room("lobby");
    let (gone, (stays, mut there)) = (client(&lobby).await.0, client(&lobby).await);
    let mut delivery = serving([(&lobby, &gone), (&lobby, &stays)]);
    delivery.take(Change::Went(lobby.clone(), gone.id));
    say(&lobby, 1, "one");
    serve(&mut delivery, &lobby);
    say(&lobby, 2, "two"); // whoever comes now has it, and the row does not
    let (comes, mut late) = client(&lobby).await;
    delivery.take(Change::Came(lobby.clone(), comes.clone()));
    comes.flush().unwrap();
    say(&lobby, 3, "three");
    serve(&mut delivery, &lobby);
    heard(&mut there, "zoe:one\nzoe:two\nzoe:three\n").await;
    heard(&mut late, "zoe:three\n").await;
    assert_eq!(delivery.audiences[&key(&lobby)].members[Encoding::Line as usize].len(), 2);
}

#[tokio::test]
async fn what_is_said_while_a_reply_goes_out_follows_it() {
    let lobby = room("lobby");
    let (out, mut socket) = client(&lobby).await;
    let mut delivery = serving([(&lobby, &out)]);
    out.tell(|reply| reply.extend_from_slice(b"! a reply\n"));
    say(&lobby, 1, "one");
    delivery.hear(&lobby);
    delivery.serve();
    out.flush().unwrap();
    heard(&mut socket, "! a reply\nzoe:one\n").await;
    say(&lobby, 2, "two");
    delivery.hear(&lobby);
    delivery.serve();
    heard(&mut socket, "zoe:two\n").await;
}

/// A frame of a whisper.
fn whisper(text: &str) -> Bytes {
    let mut frame = Vec::new();
    crate::ws::frame::write_frame(crate::ws::frame::Opcode::Text, text.as_bytes(), &mut frame);
    frame.into()
}

/// The payload of the next frame.
async fn next_frame(socket: &mut TcpStream) -> String {
    let read = async {
        let mut head = [0; 2];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], 0x81, "the beginning of a text frame");
        let length = match head[1] {
            126 => socket.read_u16().await.unwrap() as usize,
            127 => socket.read_u64().await.unwrap() as usize,
            short => short as usize,
        };
        let mut payload = vec![0; length];
        socket.read_exact(&mut payload).await.unwrap();
        String::from_utf8(payload).unwrap()
    };
    tokio::time::timeout(PATIENCE, read).await.expect("a frame")
}

fn serve(delivery: &mut Loop, room: &Arc<Room>) {
    delivery.hear(room);
    while !delivery.passing.is_empty() {
        delivery.serve();
    }
}

#[tokio::test]
async fn whispers_follow_what_is_said_at_the_door_that_has_json_and_at_no_other() {
    let lobby = room("lobby");
    let (json, mut page) = client_of(&lobby, Encoding::Json).await;
    let (line, mut nc) = client(&lobby).await;
    let mut delivery = serving([(&lobby, &json), (&lobby, &line)]);
    lobby.whisper(whisper("alone"), None);
    serve(&mut delivery, &lobby);
    assert_eq!(next_frame(&mut page).await, "alone");
    lobby.whisper(whisper("zoe types"), None);
    say(&lobby, 1, "one");
    lobby.whisper(whisper("zoe left"), Some(whisper("count")));
    serve(&mut delivery, &lobby);
    assert!(next_frame(&mut page).await.contains("one"));
    assert_eq!(next_frame(&mut page).await, "zoe types");
    assert_eq!(next_frame(&mut page).await, "zoe left");
    heard(&mut nc, "zoe:one\n").await;
    say(&lobby, 2, "two");
    serve(&mut delivery, &lobby);
    assert!(next_frame(&mut page).await.contains("two"), "nothing twice");
    heard(&mut nc, "zoe:two\n").await;
}

#[tokio::test]
async fn what_is_whispered_while_a_reply_goes_out_follows_it() {
    let lobby = room("lobby");
    let (out, mut socket) = client_of(&lobby, Encoding::Json).await;
    let mut delivery = serving([(&lobby, &out)]);
    out.tell(|reply| reply.extend_from_slice(&whisper("a reply")));
    lobby.whisper(whisper("zoe came"), None);
    serve(&mut delivery, &lobby);
    out.flush().unwrap();
    assert_eq!(next_frame(&mut socket).await, "a reply");
    assert_eq!(next_frame(&mut socket).await, "zoe came");
    lobby.whisper(whisper("zoe left"), None);
    serve(&mut delivery, &lobby);
    assert_eq!(next_frame(&mut socket).await, "zoe left");
}

#[tokio::test]
async fn who_comes_into_a_room_is_told_nothing_from_before_and_all_from_then_on() {
    let lobby = room("lobby");
    lobby.whisper(whisper("before"), Some(whisper("count")));
    let (out, mut socket) = client_of(&lobby, Encoding::Json).await;
    // The loop does not know of this client yet.
    lobby.whisper(whisper("after"), None);
    let mut delivery = serving([(&lobby, &out)]);
    serve(&mut delivery, &lobby);
    assert_eq!(next_frame(&mut socket).await, "after");
}

#[tokio::test]
async fn a_socket_that_takes_half_of_a_whisper_gets_the_other_half_first_and_no_frame_is_torn() {
    const WHISPERS: usize = 400;
    let lobby = room("lobby");
    let (out, mut socket) = client_of(&lobby, Encoding::Json).await;
    socket2::SockRef::from(out.socket()).set_send_buffer_size(4096).unwrap();
    let mut delivery = serving([(&lobby, &out)]);
    let long = "x".repeat(5_000);
    let reading = tokio::spawn(async move {
        let (mut said, mut whispered) = (0, 0);
        while said < WHISPERS {
            let text = next_frame(&mut socket).await;
            let is_whisper = text.len() == 5_000 && text.bytes().all(|byte| byte == b'x');
            assert!(is_whisper || text.contains(&format!("message {said}\"")), "after {said}: {text}");
            whispered += usize::from(is_whisper);
            said += usize::from(!is_whisper);
            if said % 7 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await; // it is slow
            }
        }
        whispered
    });
    for number in 0..WHISPERS {
        say(&lobby, number as Offset + 1, &format!("message {number}"));
        lobby.whisper(whisper(&long), None);
        serve(&mut delivery, &lobby);
        // The task's part, whenever it is the owner.
        while !matches!(out.flush().unwrap(), Flushed::UpToDate) {
            out.socket().writable().await.unwrap();
        }
    }
    let whispered = reading.await.unwrap();
    assert!(whispered > WHISPERS / 2, "{whispered} of {WHISPERS}");
}

#[tokio::test]
async fn who_took_nothing_for_a_while_is_told_the_newest_whispers_and_only_as_many_as_are_kept() {
    let lobby = room("lobby");
    let (out, mut socket) = client_of(&lobby, Encoding::Json).await;
    let mut delivery = serving([(&lobby, &out)]);
    out.tell(|reply| reply.extend_from_slice(&whisper(&"y".repeat(8 << 20))));
    while !matches!(out.flush().unwrap(), Flushed::Full { .. }) {}
    for count in 1..=300 {
        lobby.whisper(whisper(&format!("{count:01000}")), Some(whisper(&count.to_string())));
        serve(&mut delivery, &lobby);
    }
    let reading = tokio::spawn(async move {
        next_frame(&mut socket).await;
        let mut told = vec![next_frame(&mut socket).await];
        while told.last().is_some_and(|last| last != &format!("{:01000}", 300)) {
            told.push(next_frame(&mut socket).await);
        }
        told.len()
    });
    while !matches!(out.flush().unwrap(), Flushed::UpToDate) {
        out.socket().writable().await.unwrap();
    }
    let told = reading.await.unwrap();
    assert!(told < 70, "{told} of them; they have 64 KiB");
}
