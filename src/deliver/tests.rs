//! Passes over real sockets, one turn at a time.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::broker::{Delivery, Head, History};
use crate::log::Window;
use crate::names::RoomName;
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
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other_end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let out = Outgoing::new(listener.accept().await.unwrap().0, Encoding::Line);
    out.socket().writable().await.unwrap();
    let place = room.place(&Entrance { encoding: Encoding::Line, after: None, last: 0 }, true).unwrap();
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
    for _ in 0..4 {
        clients.push(client(&lobby).await);
    }
    let mut delivery = serving(clients.iter().map(|(out, _)| (&lobby, out)));
    say(&lobby, 1, "one");
    delivery.hear(&lobby);
    let audience = delivery.audiences.get_mut(&key(&lobby)).unwrap();
    assert_eq!(audience.serve(2, Instant::now()), 2);
    // The last one takes the place of the first, where the pass has been already.
    delivery.take(Change::Went(lobby.clone(), clients[0].0.id));
    delivery.serve();
    assert!(delivery.passing.is_empty());
    clients[3].0.flush().unwrap();
    for (_, socket) in &mut clients[1..] {
        heard(socket, "zoe:one\n").await;
    }
    let told = std::future::poll_fn(|context| clients[3].0.poll_handed_over(context));
    tokio::time::timeout(PATIENCE, told).await.expect("it was told to look");
}

#[tokio::test]
async fn what_is_said_during_a_pass_is_in_the_next_one_and_rooms_take_turns() {
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
    say(&hall, 2, "two");
    delivery.hear(&hall);
    delivery.serve();
    heard(&mut few.1, "zoe:here\n").await;
    while !delivery.passing.is_empty() {
        delivery.serve();
    }
    for (_, socket) in &mut many {
        heard(socket, "zoe:one\nzoe:two\n").await;
    }
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
