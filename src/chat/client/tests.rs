//! The client is told frames and times, and everything that it promises is looked for in what it says and sends.

use std::collections::HashMap;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

const ID_OF_ANOTHER: &str = "51fd57b2-04fc-47fb-9a88-924d25cc52d9";

/// A client, what it sent and was not answered, and what it told.
struct Visit {
    client: Client,
    now: Instant,
    sent: Vec<Value>,
    news: Vec<News>,
}

impl Visit {
    /// Before any connection, with the room "a" wanted.
    fn new() -> Visit {
        let now = Instant::now();
        let mut client = Client::new(false, now);
        client.join("a", 5);
        Visit { client, now, sent: Vec::new(), news: Vec::new() }
    }

    /// In the room, at (e, 0), with nothing to catch up with.
    fn inside() -> Visit {
        let mut visit = Visit::new();
        visit.welcome(json!({}));
        visit.joined(0, 0, None);
        visit.news.clear();
        visit
    }

    fn welcome(&mut self, limits: Value) {
        self.welcome_as("me", limits);
    }

    fn welcome_as(&mut self, id: &str, limits: Value) {
        let user = json!({"id": id, "name": "zoe"});
        self.hear(json!({"type": "welcome", "user": user, "beat": 10, "rooms": ["lobby"], "limits": limits}));
    }

    fn hear(&mut self, frame: Value) {
        let news = self.client.hear(&frame.to_string(), self.now).expect("a frame of a hall");
        self.news.extend(news);
        self.work();
    }

    /// What the connection does after each event.
    fn work(&mut self) {
        let news = self.client.tick(self.now).expect("a line that lives");
        self.news.extend(news);
        while let Some(frame) = self.client.next(self.now) {
            self.sent.push(serde_json::from_str(&frame).expect("JSON"));
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.work();
    }

    fn say(&mut self, text: &str, tag: u64) {
        self.client.say("a", text.into(), tag);
        self.news.extend(self.client.take_news());
        self.work();
    }

    fn lose(&mut self) {
        self.client.lost();
        self.sent.clear();
    }

    /// The only command that is under way, which is of this type.
    #[track_caller]
    fn one(&mut self, kind: &str) -> Value {
        let sent = std::mem::take(&mut self.sent);
        let [command] = &sent[..] else { panic!("not one {kind}: {sent:?}") };
        assert_eq!(command["type"], kind, "{command}");
        command.clone()
    }

    #[track_caller]
    fn sends_nothing(&self) {
        assert_eq!(self.sent, Vec::<Value>::new());
    }

    fn joined(&mut self, offset: u64, backlog: u64, recovered: Option<bool>) {
        let join = self.one("join");
        let mut joined = joined("e", offset, backlog, recovered);
        joined["ref"] = join["ref"].clone();
        self.hear(joined);
    }

    fn message(&mut self, offset: u64, id: &Value, from: &str) {
        self.hear(message(offset, id, from));
    }

    fn accept(&mut self, say: &Value, offset: u64) {
        let accepted = json!({"type": "accepted", "room": "a", "id": say["id"], "epoch": "e", "offset": offset});
        self.answer(say, accepted);
    }

    fn refuse(&mut self, command: &Value, code: &str, retry_after_ms: Option<u64>) {
        let error = json!({"type": "error", "code": code, "message": "words", "retry_after_ms": retry_after_ms,
            "room": command["room"], "id": command["id"]});
        self.answer(command, error);
    }

    fn answer(&mut self, command: &Value, mut answer: Value) {
        answer["ref"] = command["ref"].clone();
        self.hear(answer);
    }

    /// What became of what was said, in the order in which it was told: a code, or "accepted".
    fn fates(&self) -> Vec<(u64, String)> {
        let fate = |news: &News| match news {
            News::Accepted { tag, .. } => Some((*tag, "accepted".to_owned())),
            News::Failed { tag, why, .. } => Some((*tag, why.code.clone())),
            _ => None,
        };
        self.news.iter().filter_map(fate).collect()
    }

    fn offsets(&self) -> Vec<u64> {
        let offset = |news: &News| match news {
            News::Said { message, .. } => Some(message.offset),
            _ => None,
        };
        self.news.iter().filter_map(offset).collect()
    }

    fn lost(&self) -> u64 {
        let count = |news: &News| if let News::Lost { count, .. } = news { *count } else { 0 };
        self.news.iter().map(count).sum()
    }
}

fn joined(epoch: &str, offset: u64, backlog: u64, recovered: Option<bool>) -> Value {
    json!({"type": "joined", "room": "a", "epoch": epoch, "offset": offset, "backlog": backlog,
        "members": 1, "recovered": recovered})
}

fn message(offset: u64, id: &Value, from: &str) -> Value {
    let from = json!({"id": from, "name": "somebody"});
    json!({"type": "message", "room": "a", "offset": offset, "at": 1, "id": id, "from": from, "text": "t"})
}

fn fates(fates: &[(u64, &str)]) -> Vec<(u64, String)> {
    fates.iter().map(|(tag, fate)| (*tag, (*fate).to_owned())).collect()
}

fn anybodys() -> Value {
    ID_OF_ANOTHER.into()
}

#[test]
fn what_is_said_before_there_is_a_connection_goes_when_the_room_is_caught_up() {
    let mut visit = Visit::new();
    visit.say("early", 1);
    visit.sends_nothing();
    visit.welcome(json!({}));
    visit.joined(4, 1, None);
    visit.sends_nothing();
    visit.message(4, &anybodys(), "other");
    let say = visit.one("say");
    assert_eq!((&say["room"], &say["text"]), (&json!("a"), &json!("early")));
    visit.accept(&say, 5);
    assert_eq!(visit.fates(), fates(&[(1, "accepted")]));
}

#[test]
fn a_refusal_that_names_only_the_ref_means_the_message() {
    let mut visit = Visit::inside();
    visit.say("x", 1);
    let say = visit.one("say");
    visit.hear(json!({"type": "error", "code": "too_long", "message": "no", "ref": say["ref"]}));
    assert_eq!(visit.fates(), fates(&[(1, "too_long")]));
    assert!(!visit.client.waits());
}

#[test]
fn one_welcome_is_enough() {
    let mut visit = Visit::inside();
    visit.sent.clear();
    for _ in 0..3 {
        visit.welcome(json!({}));
    }
    assert!(visit.sent.is_empty() && visit.news.is_empty(), "{:?}", visit.news);
}

#[test]
fn a_first_join_asks_for_the_last_and_a_later_one_for_what_came_since() {
    let mut visit = Visit::new();
    visit.welcome(json!({}));
    let join = visit.sent[0].clone();
    assert_eq!((&join["after"], &join["last"]), (&Value::Null, &json!(5)));
    visit.joined(7, 0, None);
    visit.message(8, &anybodys(), "other");
    visit.lose();
    visit.welcome(json!({}));
    assert_eq!(visit.one("join")["after"], json!({"epoch": "e", "offset": 8}));
}

#[test]
fn what_was_under_way_is_sent_again_under_its_id_when_the_backlog_does_not_hold_it() {
    let mut visit = Visit::inside();
    visit.say("once", 1);
    let first = visit.one("say");
    visit.lose();
    visit.welcome(json!({}));
    visit.joined(2, 2, Some(true));
    visit.message(1, &anybodys(), "other");
    visit.sends_nothing();
    visit.message(2, &anybodys(), "other");
    let again = visit.one("say");
    assert_eq!(first["id"], again["id"]);
    visit.accept(&again, 3);
    assert_eq!(visit.fates(), fates(&[(1, "accepted")]));
}

#[test]
fn what_is_seen_in_the_backlog_was_accepted_and_that_is_told_once() {
    let mut visit = Visit::inside();
    visit.say("once", 1);
    let say = visit.one("say");
    visit.lose();
    visit.welcome(json!({}));
    visit.joined(1, 1, Some(true));
    visit.message(1, &say["id"], "me");
    visit.sends_nothing();
    visit.accept(&say, 1);
    assert_eq!(visit.fates(), fates(&[(1, "accepted")]));
}

#[test]
fn somebody_elses_message_under_our_id_is_not_ours() {
    let mut visit = Visit::inside();
    visit.say("mine", 1);
    let say = visit.one("say");
    visit.message(1, &say["id"], "other");
    assert_eq!(visit.fates(), []);
}

#[test]
fn one_message_is_under_way_in_a_room_and_a_refusal_for_now_lets_no_later_one_overtake_it() {
    for code in ["unavailable", "rate_limited"] {
        let mut visit = Visit::inside();
        visit.say("first", 1);
        visit.say("second", 2);
        let first = visit.one("say");
        visit.refuse(&first, code, Some(500));
        visit.pass(Duration::from_millis(499));
        visit.sends_nothing();
        visit.pass(Duration::from_millis(1));
        let again = visit.one("say");
        assert_eq!((&again["id"], &again["text"]), (&first["id"], &json!("first")), "{code}");
        visit.accept(&again, 1);
        let second = visit.one("say");
        assert_eq!(second["text"], "second");
        visit.accept(&second, 2);
        assert_eq!(visit.fates(), fates(&[(1, "accepted"), (2, "accepted")]));
    }
}

#[test]
fn a_room_that_is_held_up_holds_up_no_other() {
    let mut visit = Visit::inside();
    visit.client.join("b", 0);
    visit.work();
    let join = visit.one("join");
    let mut inside = joined("f", 0, 0, None);
    inside["room"] = "b".into();
    visit.answer(&join, inside);
    visit.say("in a", 1);
    let held = visit.one("say");
    visit.refuse(&held, "unavailable", Some(10_000));
    visit.client.say("b", "in b".into(), 2);
    visit.work();
    assert_eq!(visit.one("say")["room"], "b");
}

#[test]
fn a_refusal_for_good_fails_that_message_alone() {
    let mut visit = Visit::inside();
    visit.say("one", 1);
    visit.say("two", 2);
    let one = visit.one("say");
    visit.refuse(&one, "muted", None);
    let two = visit.one("say");
    visit.accept(&two, 1);
    assert_eq!(visit.fates(), fates(&[(1, "muted"), (2, "accepted")]));
}

#[test]
fn what_waited_longer_than_a_repetition_is_known_is_not_sent_again() {
    let mut visit = Visit::new();
    visit.welcome(json!({"dedupe_s": 60}));
    visit.joined(0, 0, None);
    visit.say("old", 1);
    visit.one("say");
    visit.lose();
    visit.say("never sent", 2);
    visit.now += Duration::from_secs(61);
    visit.welcome(json!({"dedupe_s": 60}));
    visit.joined(0, 0, Some(true));
    assert_eq!(visit.one("say")["text"], "never sent");
    assert_eq!(visit.fates(), fates(&[(1, "expired")]));
}

#[test]
fn what_is_too_long_is_refused_here_since_the_hall_would_hang_up() {
    let mut visit = Visit::new();
    visit.welcome(json!({"text_bytes": 4}));
    visit.joined(0, 0, None);
    visit.say("大大", 1);
    visit.say("four", 2);
    assert_eq!(visit.fates(), fates(&[(1, "too_long")]));
    assert_eq!(visit.one("say")["text"], "four");
}

#[test]
fn a_join_that_is_refused_for_now_is_tried_again_and_one_for_good_ends_what_was_to_be_said() {
    let mut visit = Visit::new();
    visit.say("waits", 1);
    visit.welcome(json!({}));
    let join = visit.one("join");
    visit.refuse(&join, "unavailable", Some(1000));
    visit.pass(Duration::from_millis(999));
    visit.sends_nothing();
    assert!(visit.client.wake(visit.now).is_some_and(|wake| wake <= visit.now + Duration::from_millis(201)));
    visit.pass(Duration::from_millis(201)); // a fifth more, so that not everybody comes at once
    let join = visit.one("join");
    visit.refuse(&join, "forbidden", None);
    assert_eq!(visit.fates(), fates(&[(1, "forbidden")]));
    assert!(matches!(visit.news.last(), Some(News::Closed { room, .. }) if room == "a"), "{:?}", visit.news);
    visit.lose();
    visit.welcome(json!({}));
    visit.sends_nothing();
}

#[test]
fn events_are_told_in_order_and_once_and_what_cannot_be_had_is_told_too() {
    let mut visit = Visit::inside();
    visit.message(1, &anybodys(), "other");
    visit.message(1, &anybodys(), "other");
    visit.message(3, &anybodys(), "other"); // no hall does that
    assert_eq!((visit.offsets(), visit.lost()), (vec![1, 3], 1));
    visit.hear(json!({"type": "gap", "room": "a", "epoch": "e", "from": 4, "to": 9}));
    visit.hear(json!({"type": "gap", "room": "a", "epoch": "e", "from": 4, "to": 9}));
    assert_eq!(visit.lost(), 7);
    visit.message(9, &anybodys(), "other");
    visit.hear(json!({"type": "wave", "room": "a", "offset": 10, "at": 1}));
    visit.message(11, &anybodys(), "other");
    assert_eq!((visit.offsets(), visit.lost()), (vec![1, 3, 11], 7));
}

#[test]
fn a_gap_at_the_end_of_a_backlog_ends_it() {
    let mut visit = Visit::new();
    visit.welcome(json!({}));
    visit.joined(3, 3, None);
    visit.say("after that", 1);
    visit.hear(json!({"type": "gap", "room": "a", "epoch": "e", "from": 1, "to": 3}));
    visit.one("say");
    assert_eq!(visit.lost(), 3);
}

#[test]
fn after_a_fork_an_unasked_joined_moves_the_place_and_holds_back_what_is_said() {
    for recovered in [true, false] {
        let mut visit = Visit::inside();
        visit.hear(joined("f", 7, 1, Some(recovered)));
        visit.say("after the fork", 1);
        visit.sends_nothing();
        visit.message(7, &anybodys(), "other");
        visit.one("say");
        let told = News::Joined { room: "a".into(), recovered: Some(recovered) };
        assert!(visit.news.contains(&told) && visit.lost() == 0, "{:?}", visit.news);
        visit.lose();
        visit.welcome(json!({}));
        assert_eq!(visit.one("join")["after"], json!({"epoch": "f", "offset": 7}));
    }
}

#[test]
fn a_joined_of_an_earlier_membership_moves_nothing() {
    let mut visit = Visit::inside();
    visit.client.leave("a");
    visit.client.join("a", 5);
    visit.work();
    let sent = std::mem::take(&mut visit.sent);
    let kinds: Vec<&Value> = sent.iter().map(|command| &command["type"]).collect();
    assert_eq!(kinds, ["leave", "join"]);
    visit.hear(joined("f", 9, 0, Some(true)));
    visit.message(10, &anybodys(), "other");
    assert_eq!(visit.offsets(), [0; 0]);
    visit.answer(&sent[1], joined("g", 2, 0, None));
    visit.message(3, &anybodys(), "other");
    assert_eq!(visit.offsets(), [3]);
}

#[test]
fn nobody_says_what_another_user_said_before_a_new_token() {
    let mut visit = Visit::inside();
    visit.say("mine", 1);
    visit.lose();
    visit.welcome_as("you", json!({}));
    visit.joined(0, 0, Some(true));
    visit.sends_nothing();
    assert_eq!(visit.fates(), fates(&[(1, "other_user")]));
}

#[test]
fn who_leaves_a_room_says_nothing_more_in_it() {
    let mut visit = Visit::inside();
    visit.say("one", 1);
    visit.say("two", 2);
    visit.sent.clear();
    visit.client.leave("a");
    visit.work();
    visit.one("leave");
    visit.say("three", 3);
    assert_eq!(visit.fates(), fates(&[(1, "left"), (2, "left"), (3, "not_joined")]));
}

#[test]
fn a_line_without_a_sign_of_life_is_dead() {
    let mut visit = Visit::inside();
    visit.pass(Duration::from_secs(24));
    assert_eq!(visit.client.wake(visit.now), Some(visit.now + Duration::from_secs(1)));
    visit.hear(json!({"type": "beat"}));
    visit.pass(Duration::from_secs(24));
    visit.now += Duration::from_secs(1);
    assert_eq!(visit.client.tick(visit.now), Err(Dead::Silent));
    visit.lose();
    assert_eq!(visit.client.tick(visit.now), Ok(vec![]), "without a line none is dead");
    assert_eq!(visit.client.wake(visit.now), None);
}

#[test]
fn a_line_that_beats_and_does_not_answer_is_dead_too() {
    let mut visit = Visit::inside();
    visit.say("to nobody", 1);
    for _ in 0..2 {
        visit.pass(Duration::from_millis(14_999));
        visit.hear(json!({"type": "beat"}));
    }
    visit.now += Duration::from_millis(2);
    assert_eq!(visit.client.tick(visit.now), Err(Dead::NoAnswer));
}

#[test]
fn what_no_hall_sends_ends_the_connection_and_what_comes_before_the_welcome_is_not_believed() {
    let mut visit = Visit::new();
    visit.hear(joined("e", 3, 0, None));
    visit.hear(message(1, &anybodys(), "other"));
    assert_eq!(visit.news, []);
    let deep = "[".repeat(100_000);
    for text in ["", "null", "{\"type\":\"message\"}", "\u{1b}[2J", deep.as_str()] {
        let heard = visit.client.hear(text, visit.now);
        assert!(matches!(heard, Err(Dead::Broken(_))), "{heard:?}");
    }
    let told = Dead::Broken(Malformed("welcome".into()));
    assert_eq!(visit.client.hear("{\"type\":\"welcome\"}", visit.now), Err(told));
}

#[test]
fn limits_that_make_no_sense_break_nothing() {
    for limits in [
        json!({"rate": -1, "burst": -5, "dedupe_s": -1}),
        json!({"rate": 1e308, "burst": 1e308, "dedupe_s": 1e300, "text_bytes": u64::MAX}),
        json!({"rate": 1e-300, "burst": 0}),
    ] {
        let mut visit = Visit::new();
        visit.welcome(limits);
        visit.joined(0, 0, None);
        visit.say("still", 1);
        visit.pass(Duration::from_secs(1));
        let _ = visit.client.wake(visit.now);
        visit.refuse(&json!({"ref": 99}), "rate_limited", Some(u64::MAX));
    }
}

#[test]
fn that_we_type_is_told_now_and_then_or_never() {
    let mut visit = Visit::new();
    visit.client.typing("a", visit.now);
    visit.welcome(json!({}));
    visit.joined(0, 0, None);
    visit.sends_nothing();
    for _ in 0..3 {
        visit.client.typing("a", visit.now);
        visit.work();
    }
    visit.one("typing");
    visit.pass(Duration::from_secs(3));
    visit.client.typing("a", visit.now);
    visit.work();
    visit.one("typing");
}

/// A hall with a bucket of commands, which reads what was sent when it likes, and stores it once.
struct Hall {
    rate: f64,
    burst: f64,
    left: f64,
    at: Instant,
    /// Sent on this connection, and not read yet.
    wire: VecDeque<Value>,
    /// What it stored, by id, in order.
    log: Vec<(String, String)>,
    refused: usize,
}

impl Hall {
    fn new(rate: f64, burst: f64, now: Instant) -> Hall {
        Hall { rate, burst, left: burst, at: now, wire: VecDeque::new(), log: Vec::new(), refused: 0 }
    }

    fn takes(&mut self, now: Instant) -> bool {
        self.left = (self.left + (now - self.at).as_secs_f64() * self.rate).min(self.burst);
        self.at = now;
        let takes = self.left >= 1.0;
        self.left -= if takes { 1.0 } else { 0.0 };
        takes
    }

    /// Reads a command; the frames that it leads to.
    fn read(&mut self, now: Instant) -> Vec<Value> {
        let Some(command) = self.wire.pop_front() else { return vec![json!({"type": "beat"})] };
        if !self.takes(now) {
            self.refused += 1;
        }
        match command["type"].as_str() {
            Some("join") => {
                let after = command["after"]["offset"].as_u64().unwrap_or(0);
                let head = self.log.len() as u64;
                let mut joined = joined("e", head, head - after, command["after"].is_object().then_some(true));
                joined["ref"] = command["ref"].clone();
                std::iter::once(joined).chain((after..head).map(|at| self.event(at))).collect()
            }
            Some("say") => {
                let (id, text) = (command["id"].as_str().unwrap().into(), command["text"].as_str().unwrap().into());
                let known = self.log.iter().position(|(stored, _)| *stored == id);
                let at = known.unwrap_or(self.log.len()) as u64;
                let new = known.is_none().then(|| {
                    self.log.push((id, text));
                    self.event(at)
                });
                let accepted = json!({"type": "accepted", "room": "a", "id": command["id"], "epoch": "e",
                    "offset": at + 1, "ref": command["ref"]});
                std::iter::once(accepted).chain(new).collect()
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn event(&self, at: u64) -> Value {
        message(at + 1, &self.log[at as usize].0.clone().into(), "me")
    }
}

#[derive(Debug, Clone)]
enum Step {
    Say,
    Pass(u64),
    /// The hall reads a command, and its answer arrives.
    Answer,
    /// The hall reads a command, and the connection breaks before its answer arrives.
    ReadAndLose,
    Lose,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => Just(Step::Say),
        3 => (0..250_u64).prop_map(Step::Pass),
        6 => Just(Step::Answer),
        1 => Just(Step::ReadAndLose),
        1 => Just(Step::Lose),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_each_message_is_stored_once_in_order_and_told_once_and_no_command_comes_too_fast(
        steps in prop::collection::vec(step(), 0..80),
        rate in 5.0..50.0_f64,
        burst in 1..8_u32,
    ) {
        let mut visit = Visit::new();
        let limits = json!({"rate": rate, "burst": burst});
        let mut hall = Hall::new(rate, burst.into(), visit.now);
        let connect = |visit: &mut Visit, hall: &mut Hall| {
            visit.lose();
            hall.wire.clear();
            (hall.left, hall.at) = (hall.burst, visit.now); // each connection has a bucket of its own
            visit.welcome(limits.clone());
        };
        connect(&mut visit, &mut hall);
        let mut said = 0;
        // In the end everything is answered.
        let rest = std::iter::repeat_n([Step::Answer, Step::Pass(250)], 400).flatten();
        for step in steps.into_iter().chain(rest) {
            match step {
                Step::Say => {
                    said += 1;
                    visit.say(&said.to_string(), said);
                }
                Step::Pass(ms) => visit.pass(Duration::from_millis(ms)),
                Step::Answer => {
                    for frame in hall.read(visit.now) {
                        visit.hear(frame);
                    }
                }
                Step::ReadAndLose => {
                    hall.read(visit.now);
                    connect(&mut visit, &mut hall);
                }
                Step::Lose => connect(&mut visit, &mut hall),
            }
            hall.wire.extend(visit.sent.drain(..));
        }
        prop_assert_eq!(hall.refused, 0, "commands came too fast");
        let stored: Vec<String> = hall.log.iter().map(|(_, text)| text.clone()).collect();
        let wanted: Vec<String> = (1..=said).map(|tag| tag.to_string()).collect();
        prop_assert_eq!(stored, wanted);
        let mut told: HashMap<u64, Vec<String>> = HashMap::new();
        for (tag, fate) in visit.fates() {
            told.entry(tag).or_default().push(fate);
        }
        for tag in 1..=said {
            prop_assert_eq!(told.get(&tag), Some(&vec!["accepted".to_owned()]), "message {}", tag);
        }
        prop_assert_eq!(visit.offsets(), (1..=said).collect::<Vec<_>>());
    }
}
