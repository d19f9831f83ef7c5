//! What servers speak: `townhall.v1`, or the protocols of servers that one would pick instead, as far as a room needs
//! them. Each is told in the words of `townhall.v1`, so that everything behind this reads and judges one kind of frames.
//!
//! - **Socket.IO** over Engine.IO 4's WebSocket transport alone: `0{…}` opens and is answered with `40`, `2` is a ping and
//!   answered with `3`, and `42["hall",{…}]` is an object of `townhall.v1` in either direction.
//! - **centrifuge's JSON protocol**, a line each: `connect` and its reply are the `welcome`, `subscribe` is `join`, a publication
//!   is a message, and to say something is the RPC `say`, whose reply is `accepted`. `{}` is a ping, and its answer.

use std::borrow::Cow;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::wire::{Command, Heard, SUBPROTOCOL};

/// What a server speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
pub enum Dialect {
    /// townhall.v1
    #[default]
    Townhall,
    /// Socket.IO 5 over Engine.IO 4, WebSocket alone; objects of townhall.v1 as events `hall`. It has no order between nodes
    Socketio,
    /// The JSON protocol of the centrifuge library
    Centrifuge,
}

/// How a packet begins and ends that holds an object of `townhall.v1`.
const EVENT: (&str, &str) = (r#"42["hall","#, "]");
/// How a publication begins.
const PUSH: &[u8] = br#"{"push":"#;
const CENTRIFUGE_PING: &str = "{}";

impl Dialect {
    /// The path of the door, below whatever a URL says, and its query.
    pub fn door(self) -> (&'static str, Option<&'static str>) {
        match self {
            Dialect::Townhall => ("/ws", None),
            Dialect::Socketio => ("/socket.io/", Some("EIO=4&transport=websocket")),
            Dialect::Centrifuge => ("/connection/websocket", None),
        }
    }

    pub fn subprotocol(self) -> Option<&'static str> {
        (self == Dialect::Townhall).then_some(SUBPROTOCOL)
    }

    /// Whether every line of a text frame is a message of its own.
    pub fn has_lines(self) -> bool {
        self == Dialect::Centrifuge
    }

    /// Whether all receivers at so many nodes get a room's messages in one order.
    pub fn keeps_order(self, nodes: usize) -> bool {
        self != Dialect::Socketio || nodes == 1
    }

    /// What a client says first of all.
    pub fn opening(self) -> Option<&'static str> {
        (self == Dialect::Centrifuge).then_some(r#"{"id":1,"connect":{"name":"townhall-load"}}"#)
    }

    pub fn write(self, command: &Command) -> String {
        match (self, command) {
            (Dialect::Townhall, _) => command.to_json(),
            (Dialect::Socketio, _) => format!("{}{}{}", EVENT.0, command.to_json(), EVENT.1),
            (Dialect::Centrifuge, Command::Join { room, after: None, .. }) => {
                json!({"id": 2, "subscribe": {"channel": room}}).to_string()
            }
            (Dialect::Centrifuge, Command::Join { room, after: Some(place), .. }) => {
                let since = (&place.epoch, place.offset);
                json!({"id": 2, "subscribe": {"channel": room, "recover": true, "epoch": since.0, "offset": since.1}})
                    .to_string()
            }
            // Replies are told apart by what they hold, so every call may have the same number.
            (Dialect::Centrifuge, Command::Say { .. }) => {
                format!(r#"{{"id":3,"rpc":{{"method":"say","data":{}}}}}"#, command.to_json())
            }
        }
    }

    /// Hands over what a text frame (or one line of it) says; `None` for what the protocol does not allow. Returns what
    /// has to be answered at once.
    pub fn read<'a>(
        self,
        text: &'a str,
        room: &'a str,
        mut heard: impl FnMut(Option<Heard<'a>>),
    ) -> Option<&'static str> {
        match self {
            Dialect::Townhall => heard(Heard::read(text)),
            Dialect::Socketio => return read_packet(text, heard),
            Dialect::Centrifuge if text == CENTRIFUGE_PING => {
                heard(Some(Heard::bare("beat")));
                return Some(CENTRIFUGE_PING);
            }
            Dialect::Centrifuge => match serde_json::from_str::<Reply>(text) {
                Ok(reply) => reply.tell(room, heard),
                Err(_) => heard(None),
            },
        }
        None
    }
}

/// A packet of Engine.IO.
fn read_packet<'a>(packet: &'a str, mut heard: impl FnMut(Option<Heard<'a>>)) -> Option<&'static str> {
    if let Some(object) = packet.strip_prefix(EVENT.0) {
        heard(object.strip_suffix(EVENT.1).and_then(Heard::read));
        return None;
    }
    match packet.as_bytes() {
        [b'0', ..] => Some("40"),
        // The namespace is open; the server says `welcome` by itself.
        [b'4', b'0', ..] => None,
        [b'2'] => {
            heard(Some(Heard::bare("beat")));
            Some("3")
        }
        _ => {
            heard(None);
            None
        }
    }
}

/// A reply or a push of centrifuge.
#[derive(Debug, Deserialize)]
struct Reply<'a> {
    #[serde(borrow)]
    push: Option<Push<'a>>,
    #[serde(borrow)]
    rpc: Option<Called<'a>>,
    connect: Option<Connected>,
    #[serde(borrow)]
    subscribe: Option<Subscribed<'a>>,
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
struct Push<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow, rename = "pub")]
    publication: Option<Publication<'a>>,
}

#[derive(Debug, Deserialize)]
struct Publication<'a> {
    #[serde(borrow)]
    data: Heard<'a>,
    #[serde(default)]
    offset: u64,
}

impl<'a> Publication<'a> {
    fn told(self, room: Cow<'a, str>) -> Heard<'a> {
        Heard { room, offset: Some(self.offset), ..self.data }
    }
}

#[derive(Debug, Deserialize)]
struct Called<'a> {
    #[serde(borrow)]
    data: Heard<'a>,
}

#[derive(Debug, Deserialize)]
struct Connected {
    /// Seconds.
    ping: Option<f64>,
}

/// Numbers that are 0 and texts that are empty are left out.
#[derive(Debug, Deserialize)]
struct Subscribed<'a> {
    #[serde(borrow, default)]
    epoch: Cow<'a, str>,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    was_recovering: bool,
    #[serde(default)]
    recovered: bool,
    #[serde(borrow, default)]
    publications: Vec<Publication<'a>>,
}

#[derive(Debug, Deserialize)]
struct Failure {
    code: u32,
}

impl<'a> Reply<'a> {
    fn tell(self, room: &'a str, mut heard: impl FnMut(Option<Heard<'a>>)) {
        match self {
            Reply { push: Some(Push { channel, publication: Some(publication) }), .. } => {
                heard(Some(publication.told(channel)));
            }
            Reply { rpc: Some(Called { data }), .. } => heard(Some(data)),
            Reply { connect: Some(Connected { ping }), .. } => {
                heard(Some(Heard { beat: ping, ..Heard::bare("welcome") }))
            }
            Reply { subscribe: Some(subscribed), .. } => {
                let Subscribed { epoch, offset, was_recovering, recovered, publications } = subscribed;
                heard(Some(Heard {
                    room: room.into(),
                    epoch,
                    offset: Some(offset),
                    backlog: Some(publications.len() as u64),
                    recovered: was_recovering.then_some(recovered),
                    ..Heard::bare("joined")
                }));
                publications.into_iter().for_each(|publication| heard(Some(publication.told(room.into()))));
            }
            // Whose it is cannot be told; what was asked for stays unanswered, and the run says so.
            Reply { error: Some(Failure { code }), .. } => {
                heard(Some(Heard { code: format!("centrifuge {code}").into(), ..Heard::bare("error") }));
            }
            _ => heard(None),
        }
    }
}

/// What a listener has to know of a frame's first bytes, and of lines.
impl Dialect {
    /// How a frame begins that is about something else than a message…
    const OTHER: &[u8] = br#"{"type":""#;
    /// …unless it goes on like this. Fields may stand in any order; what begins otherwise is a message.
    const MESSAGE: &[u8] = br#"message""#;
    /// So many bytes of a payload are enough to tell, in any dialect.
    pub const LONGEST_PEEK: usize = EVENT.0.len() + Self::OTHER.len() + Self::MESSAGE.len();

    /// So many are in this one.
    pub fn peek(self) -> usize {
        match self {
            Dialect::Townhall => Self::OTHER.len() + Self::MESSAGE.len(),
            Dialect::Socketio => Self::LONGEST_PEEK,
            Dialect::Centrifuge => PUSH.len(),
        }
    }

    /// Whether a text frame that begins so is a message.
    pub fn is_message(self, beginning: &[u8]) -> bool {
        let is_other =
            |object: &[u8]| object.strip_prefix(Self::OTHER).is_some_and(|kind| !kind.starts_with(Self::MESSAGE));
        match self {
            Dialect::Townhall => !is_other(beginning),
            Dialect::Socketio => beginning.strip_prefix(EVENT.0.as_bytes()).is_some_and(|object| !is_other(object)),
            Dialect::Centrifuge => beginning.starts_with(PUSH),
        }
    }

    /// What to answer when a line among messages has this as its second byte; `None`: it is a message, too. A ping may go
    /// out in one frame with them, and is the only line that does not begin like a message.
    pub fn answer_to(self, second: u8) -> Option<&'static str> {
        (self == Dialect::Centrifuge && second == b'}').then_some(CENTRIFUGE_PING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Place;
    use uuid::Uuid;

    /// What is heard, in short, and what is answered.
    fn read(dialect: Dialect, text: &str) -> (Vec<String>, Option<&'static str>) {
        let mut all = Vec::new();
        let answer = dialect.read(text, "r", |heard| {
            all.push(match heard {
                Some(heard) => format!("{} {} {:?} {:?}", heard.kind, heard.room, heard.offset, heard.recovered),
                None => "breach".to_owned(),
            });
        });
        (all, answer)
    }

    #[test]
    fn packets_of_socket_io_are_told_in_our_words() {
        let read = |text| read(Dialect::Socketio, text);
        assert_eq!(read(r#"0{"sid":"x"}"#), (vec![], Some("40")));
        assert_eq!(read(r#"40{"sid":"y"}"#), (vec![], None));
        assert_eq!(read("2"), (vec!["beat  None None".to_owned()], Some("3")));
        let message = r#"42["hall",{"room":"r","offset":7,"type":"message","at":1}]"#;
        assert_eq!(read(message), (vec!["message r Some(7) None".to_owned()], None));
        for breach in [r#"42["hall",{"room":"r"#, r#"42["other",{}]"#, "41", "", "44{}"] {
            assert_eq!(read(breach), (vec!["breach".to_owned()], None), "{breach}");
        }
        let join = Command::Join { room: "r", reference: "join", after: None, last: 0 };
        assert_eq!(Dialect::Socketio.write(&join), r#"42["hall",{"type":"join","room":"r","ref":"join","last":0}]"#);
    }

    #[test]
    fn one_node_of_socket_io_has_an_order_and_several_have_none() {
        assert!(Dialect::Socketio.keeps_order(1) && !Dialect::Socketio.keeps_order(2));
        assert!(Dialect::Townhall.keeps_order(3) && Dialect::Centrifuge.keeps_order(3));
    }

    #[test]
    fn replies_of_centrifuge_are_told_in_our_words() {
        let read = |text| read(Dialect::Centrifuge, text);
        assert_eq!(read("{}"), (vec!["beat  None None".to_owned()], Some("{}")));
        assert_eq!(read(r#"{"id":1,"connect":{"client":"x","ping":25,"pong":true}}"#).0, ["welcome  None None"]);
        assert_eq!(read(r#"{"id":2,"subscribe":{"epoch":"e","positioned":true}}"#).0, ["joined r Some(0) None"]);
        let publication =
            r#"{"data":{"type":"message","at":1,"id":"a","from":{"id":"u","name":"n"},"text":"t"},"offset":7}"#;
        let push = format!(r#"{{"push":{{"channel":"r","pub":{publication}}}}}"#);
        assert_eq!(read(&push).0, ["message r Some(7) None"]);
        let again = format!(
            r#"{{"id":2,"subscribe":{{"epoch":"e","offset":7,"was_recovering":true,"recovered":true,"publications":[{publication}]}}}}"#
        );
        assert_eq!(read(&again).0, ["joined r Some(7) Some(true)", "message r Some(7) None"]);
        let lost = r#"{"id":2,"subscribe":{"epoch":"f","offset":7,"was_recovering":true}}"#;
        assert_eq!(read(lost).0, ["joined r Some(7) Some(false)"]);
        let accepted = r#"{"id":3,"rpc":{"data":{"type":"accepted","room":"r","id":"a","epoch":"e","offset":7}}}"#;
        assert_eq!(read(accepted).0, ["accepted r Some(7) None"]);
        assert_eq!(read(r#"{"id":3,"error":{"code":100,"message":"internal"}}"#).0, ["error  None None"]);
        for breach in ["no json", r#"{"push":{"channel":"r"}}"#, r#"{"id":9}"#] {
            assert_eq!(read(breach).0, ["breach"], "{breach}");
        }
    }

    #[test]
    fn commands_to_centrifuge_are_its_own() {
        let write = |command: Command| Dialect::Centrifuge.write(&command);
        let join = |after| write(Command::Join { room: "r", reference: "join", after, last: 0 });
        assert_eq!(join(None), r#"{"id":2,"subscribe":{"channel":"r"}}"#);
        let place = Place { epoch: "e".into(), offset: 3 };
        let again: serde_json::Value = serde_json::from_str(&join(Some(&place))).unwrap();
        assert_eq!(again["subscribe"], json!({"channel": "r", "recover": true, "epoch": "e", "offset": 3}));
        let say = write(Command::Say { room: "r", id: Uuid::nil(), text: "hi" });
        let say: serde_json::Value = serde_json::from_str(&say).unwrap();
        assert_eq!((&say["rpc"]["method"], &say["rpc"]["data"]["text"]), (&json!("say"), &json!("hi")));
    }

    #[test]
    fn a_message_is_told_by_its_first_bytes() {
        for (dialect, beginning, is_message) in [
            (Dialect::Townhall, r#"{"room":"r""#, true),
            (Dialect::Townhall, r#"{"type":"message","room""#, true),
            (Dialect::Townhall, r#"{"type":"beat"}"#, false),
            (Dialect::Socketio, r#"42["hall",{"room":"r""#, true),
            (Dialect::Socketio, r#"42["hall",{"type":"message","#, true),
            (Dialect::Socketio, r#"42["hall",{"type":"joined","#, false),
            (Dialect::Socketio, "2", false),
            (Dialect::Centrifuge, r#"{"push":{"channel":"r""#, true),
            (Dialect::Centrifuge, r#"{"id":2,"subscribe":{}}"#, false),
            (Dialect::Centrifuge, "{}", false),
        ] {
            let beginning = &beginning.as_bytes()[..beginning.len().min(dialect.peek())];
            assert_eq!(dialect.is_message(beginning), is_message, "{}", String::from_utf8_lossy(beginning));
        }
    }
}
