//! What a hall says at `townhall.v1`, as a client reads it: bounded and checked, and what it does not know it lets pass.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::position::{Epoch, Offset};

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Welcome(Welcome),
    Joined(Joined),
    Left {
        room: String,
    },
    Message(Message),
    /// Something stored, of a type that we do not know.
    Stored {
        room: String,
        offset: Offset,
    },
    Accepted(Accepted),
    History(History),
    Members(Members),
    Presence(Presence),
    Typing {
        room: String,
        from: User,
    },
    Gap(Gap),
    Reconnect {
        after_ms: u64,
    },
    Error(Refusal),
    /// A beat, or something that we do not know.
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct User {
    pub id: String,
    pub name: String,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Welcome {
    pub user: User,
    /// Seconds; 0: the hall does not beat.
    #[serde(default)]
    pub beat: f64,
    #[serde(default)]
    pub rooms: Vec<String>,
    #[serde(default)]
    pub limits: Limits,
}

/// What the hall allows; where it does not say, we find out by its refusals.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// Commands a second; 0: no limit.
    pub rate: f64,
    pub burst: f64,
    /// Seconds for which a repeated id is recognised.
    pub dedupe_s: Option<f64>,
    pub text_bytes: Option<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Joined {
    pub room: String,
    pub epoch: Epoch,
    pub offset: Offset,
    pub backlog: Offset,
    #[serde(default)]
    pub recovered: Option<bool>,
    #[serde(default)]
    pub members: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Message {
    pub room: String,
    pub offset: Offset,
    /// Unix milliseconds.
    pub at: i64,
    pub id: Uuid,
    pub from: User,
    pub text: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Accepted {
    pub room: String,
    pub id: Uuid,
    pub epoch: Epoch,
    pub offset: Offset,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct History {
    pub room: String,
    #[serde(deserialize_with = "those_that_are")]
    pub messages: Vec<Message>,
    #[serde(default)]
    pub more: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Members {
    pub room: String,
    pub count: u64,
    pub members: Vec<User>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Presence {
    pub room: String,
    pub count: u64,
    pub joined: Option<Vec<User>>,
    pub left: Option<Vec<User>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Gap {
    pub room: String,
    pub epoch: Epoch,
    pub from: Offset,
    pub to: Offset,
}

/// An `error`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Refusal {
    pub code: String,
    #[serde(default)]
    pub message: String,
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    #[serde(default)]
    pub room: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub id: Option<Uuid>,
}

/// Why something did not happen: one of the hall's codes, or `expired`, `left`, `other_user`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub code: String,
    /// The hall's words.
    pub words: String,
}

impl Refused {
    pub fn ours(code: &str, words: &str) -> Self {
        Refused { code: code.into(), words: words.into() }
    }
}

/// A frame that no hall sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("what it sent is no {0}")]
pub struct Malformed(pub String);

/// What is needed to know what else to read.
#[derive(Deserialize)]
struct Head {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default, deserialize_with = "lenient")]
    room: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    offset: Option<Offset>,
    #[serde(default, deserialize_with = "lenient")]
    at: Option<i64>,
    #[serde(rename = "ref", default, deserialize_with = "lenient")]
    reference: Option<u64>,
}

#[derive(Deserialize)]
struct InRoom {
    room: String,
}

#[derive(Deserialize)]
struct Typing {
    room: String,
    from: User,
}

#[derive(Deserialize)]
struct Reconnect {
    #[serde(default)]
    after_ms: u64,
}

impl Frame {
    /// A frame, and the `ref` of the command that it answers.
    ///
    /// # Errors
    /// No JSON object with a `type`, or one of a known type without what that has.
    pub fn parse(text: &str) -> Result<(Frame, Option<u64>), Malformed> {
        let head: Head = read(text, "frame")?;
        let reference = head.reference;
        Self::of(head, text).map(|frame| (frame, reference))
    }

    fn of(head: Head, text: &str) -> Result<Frame, Malformed> {
        let kind = head.kind.as_str();
        Ok(match kind {
            "welcome" => Frame::Welcome(read(text, kind)?),
            "joined" => {
                let joined: Joined = read(text, kind)?;
                if joined.backlog > joined.offset {
                    return Err(Malformed(kind.into()));
                }
                Frame::Joined(joined)
            }
            "left" => Frame::Left { room: read::<InRoom>(text, kind)?.room },
            "message" => Frame::Message(read(text, kind)?),
            "accepted" => Frame::Accepted(read(text, kind)?),
            "history" => Frame::History(read(text, kind)?),
            "members" => Frame::Members(read(text, kind)?),
            "presence" => Frame::Presence(read(text, kind)?),
            "typing" => {
                let Typing { room, from } = read(text, kind)?;
                Frame::Typing { room, from }
            }
            "gap" => Frame::Gap(read(text, kind)?),
            "reconnect" => Frame::Reconnect { after_ms: read::<Reconnect>(text, kind)?.after_ms },
            "error" => Frame::Error(read(text, kind)?),
            _ => match head {
                Head { room: Some(room), offset: Some(offset), at: Some(_), .. } => Frame::Stored { room, offset },
                _ => Frame::Other,
            },
        })
    }
}

fn read<T: DeserializeOwned>(text: &str, what: &str) -> Result<T, Malformed> {
    serde_json::from_str(text).map_err(|_| Malformed(what.chars().filter(|c| !c.is_control()).take(20).collect()))
}

/// Of another type than ours is the same as absent: it was not meant for us.
fn lenient<'de, D: serde::Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    Ok(serde_json::from_value(value).ok())
}

/// A history may hold what a newer version keeps.
fn those_that_are<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<Message>, D::Error> {
    let values = Vec::<serde_json::Value>::deserialize(deserializer)?;
    let is_message = |value: &serde_json::Value| value.get("type").is_some_and(|kind| kind == "message");
    Ok(values.into_iter().filter(is_message).filter_map(|value| serde_json::from_value(value).ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Frame, Malformed> {
        Frame::parse(text).map(|(frame, _)| frame)
    }

    #[test]
    fn what_is_not_known_is_let_pass_and_what_is_stored_counts() {
        assert_eq!(parse(r#"{"type":"beat"}"#), Ok(Frame::Other));
        assert_eq!(parse(r#"{"type":"wave","room":"a","offset":"7","at":1}"#), Ok(Frame::Other));
        let stored = Frame::Stored { room: "a".into(), offset: 7 };
        assert_eq!(parse(r#"{"type":"wave","room":"a","offset":7,"at":1}"#), Ok(stored));
    }

    #[test]
    fn what_no_hall_sends_is_told_apart() {
        for text in ["", "7", "[]", "{}", r#"{"type":7}"#, r#"{"type":"joined","room":"a"}"#, r#"{"type":"message"}"#] {
            assert!(parse(text).is_err(), "{text}");
        }
        let nowhere = r#"{"type":"joined","room":"a","epoch":"e","offset":1,"backlog":2}"#;
        assert_eq!(parse(nowhere), Err(Malformed("joined".into())));
    }

    #[test]
    fn somebody_elses_ref_or_id_is_none() {
        let text = r#"{"type":"error","code":"muted","message":"no","id":"x","ref":"y"}"#;
        let Ok((Frame::Error(refusal), reference)) = Frame::parse(text) else { panic!("{text}") };
        assert_eq!((refusal.id, reference, refusal.code.as_str()), (None, None, "muted"));
    }

    #[test]
    fn of_a_history_what_can_be_shown_is_kept() {
        let message = r#"{"type":"message","room":"a","offset":1,"at":1,"id":"51fd57b2-04fc-47fb-9a88-924d25cc52d9","from":{"id":"i","name":"n"},"text":"t"}"#;
        let text = format!(
            r#"{{"type":"history","room":"a","epoch":"e","messages":[{message},{{"type":"wave"}},7],"more":true}}"#
        );
        let Ok(Frame::History(history)) = parse(&text) else { panic!("{text}") };
        assert_eq!((history.messages.len(), history.more), (1, true));
    }
}
