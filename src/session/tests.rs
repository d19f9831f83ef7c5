//! Commands in, actions out.

use super::*;

const ID: &str = "5f0b6c6e-8c2c-4a53-a3a5-0123456789ab";

fn session_with(change: impl FnOnce(&mut Config)) -> Session {
    let mut config = Config::default();
    change(&mut config);
    let id = crate::names::UserId::new("guest-1".into());
    let user = User { id, name: DisplayName::parse("zoe").unwrap(), info: None };
    let kind = Kind::Guest { marked: config.auth.marks_guests() };
    Session::new(Arc::new(Rules::new(&config, "node")), Identity::of(user, kind), Instant::now())
}

fn session() -> Session {
    session_with(|_| {})
}

fn ask(session: &mut Session, json: &str) -> Action {
    session.request(Request::parse(json), Instant::now())
}

fn refusal(action: Action) -> Refusal {
    match action {
        Action::Refuse(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn join(session: &mut Session, room: &str) {
    let action = ask(session, &format!(r#"{{"type":"join","room":"{room}"}}"#));
    assert!(matches!(action, Action::Join { .. }), "{action:?}");
}

fn say(text: &str) -> String {
    format!(r#"{{"type":"say","room":"lobby","id":"{ID}","text":{}}}"#, serde_json::Value::from(text))
}

#[test]
fn a_join_replays_fifty_and_never_more_than_two_hundred() {
    for (given, expected) in [("", 50), (r#","last":7"#, 7), (r#","last":201"#, 200), (r#","last":1e3"#, 0)] {
        let action = ask(&mut session(), &format!(r#"{{"type":"join","room":"lobby"{given}}}"#));
        match action {
            Action::Join { last, .. } => assert_eq!(last, expected, "{given}"),
            other => assert_eq!(refusal(other).code, ErrorCode::BadFrame, "{given}"),
        }
    }
    let huge = ask(&mut session(), r#"{"type":"join","room":"lobby","last":99999999999999999999999}"#);
    assert!(matches!(huge, Action::Join { last: 200, .. }), "{huge:?}");
}

#[test]
fn everything_but_join_needs_a_joined_room() {
    let mut session = session();
    let bare = |kind: &str| format!(r#"{{"type":"{kind}","room":"lobby"}}"#);
    let commands = [say("hi"), bare("history"), bare("typing"), bare("who"), bare("leave")];
    for command in &commands {
        assert_eq!(refusal(ask(&mut session, command)).code, ErrorCode::NotJoined, "{command}");
    }
    join(&mut session, "lobby");
    for command in &commands {
        assert!(!matches!(ask(&mut session, command), Action::Refuse(_)), "{command}");
    }
}

#[test]
fn rooms_that_do_not_exist_are_told_from_names_that_are_none() {
    let mut session = session_with(|config| config.rooms = Rooms::Only(vec![RoomName::parse("help").unwrap()]));
    let code = |session: &mut Session, room: &str| {
        refusal(ask(session, &format!(r#"{{"type":"join","room":"{room}"}}"#))).code
    };
    assert_eq!(code(&mut session, "Help!"), ErrorCode::BadRoom);
    assert_eq!(code(&mut session, "lobby"), ErrorCode::Forbidden);
    join(&mut session, "help");
}

#[test]
fn more_rooms_than_allowed_are_refused_until_one_is_left() {
    let mut session = session_with(|config| config.limits.rooms = 2);
    join(&mut session, "a");
    join(&mut session, "b");
    let third = r#"{"type":"join","room":"c","ref":"r"}"#;
    let refused = refusal(ask(&mut session, third));
    assert_eq!(refused.code, ErrorCode::TooManyRooms);
    assert_eq!(refused.tag.reference, Some(Ref::Text("r".into())));
    join(&mut session, "b"); // again, in the same one
    session.left(&RoomName::parse("a").unwrap());
    join(&mut session, "c");
}

#[test]
fn a_text_is_stored_without_control_characters_and_with_its_speaker() {
    let mut session = session();
    join(&mut session, "lobby");
    let Action::Publish { publication, .. } = ask(&mut session, &say("a\u{1b}[31m\tb\r\nc\u{0}\u{2028}d")) else {
        panic!("not published")
    };
    let event: serde_json::Value = serde_json::from_slice(&publication.event).unwrap();
    assert_eq!(event["text"], "a[31m\tb\nc\nd");
    assert_eq!(event["from"], serde_json::json!({"id": "guest-1", "name": "zoe"}));
    assert_eq!((publication.id.to_string().as_str(), publication.user.as_str()), (ID, "guest-1"));
    assert!(!publication.event.contains(&b'\n'));
}

#[test]
fn too_long_and_empty_texts_are_refused() {
    let mut session = session_with(|config| config.limits.text = 10);
    join(&mut session, "lobby");
    assert_eq!(refusal(ask(&mut session, &say("12345678901"))).code, ErrorCode::TooLong);
    assert_eq!(refusal(ask(&mut session, &say(""))).code, ErrorCode::BadFrame);
    assert_eq!(refusal(ask(&mut session, &say("\u{0}"))).code, ErrorCode::BadFrame);
    let with_data = format!(r#"{{"type":"say","room":"lobby","id":"{ID}","data":{{"n":1}}}}"#);
    assert!(matches!(ask(&mut session, &with_data), Action::Publish { .. }));
    let too_much = format!(r#"{{"type":"say","room":"lobby","id":"{ID}","data":{{"n":"{}"}}}}"#, "x".repeat(4096));
    assert_eq!(refusal(ask(&mut session, &too_much)).code, ErrorCode::TooLong);
}

#[test]
fn who_is_too_fast_is_told_when_to_try_again_and_at_last_sent_away() {
    let mut session = session_with(|config| (config.limits.rate, config.limits.burst) = (1, 2));
    let now = Instant::now();
    let mut ask = |at| session.request(Request::parse(&say("hi")), at);
    assert_eq!(refusal(ask(now)).code, ErrorCode::NotJoined);
    assert_eq!(refusal(ask(now)).code, ErrorCode::NotJoined);
    let limited = refusal(ask(now));
    assert_eq!(limited.code, ErrorCode::RateLimited);
    assert_eq!(limited.tag.id.as_deref(), Some(ID));
    let later = now + Duration::from_millis(limited.retry_after_ms.unwrap());
    assert_eq!(refusal(ask(later)).code, ErrorCode::NotJoined);
    for _ in 1..PATIENCE {
        assert_eq!(refusal(ask(later)).code, ErrorCode::RateLimited);
    }
    assert!(matches!(ask(later), Action::Close(CloseReason::TooManyCommands)));
}

#[test]
fn a_plain_text_is_said_in_its_room_without_its_trailing_line_breaks() {
    let mut session = session();
    assert!(matches!(session.text("nobody hears this"), Action::Nothing));
    session.entered(RoomName::lobby());
    assert!(matches!(session.text("\r\n"), Action::Nothing));
    let Action::Publish { publication, .. } = session.text("one\ntwo\r\n\n") else { panic!("not published") };
    assert!(String::from_utf8_lossy(&publication.event).contains(r#""text":"one\ntwo""#));
}

#[test]
fn a_line_is_a_command_only_with_one_slash() {
    let mut session = session();
    session.entered(RoomName::lobby());
    let Action::Publish { publication, .. } = session.line("//help") else { panic!("not published") };
    assert!(String::from_utf8_lossy(&publication.event).contains(r#""text":"/help""#));
    assert!(matches!(session.line("/help"), Action::Notice(words) if words.starts_with("help ")));
    assert!(matches!(session.line("/quit"), Action::Close(CloseReason::Left)));
    assert!(matches!(session.line("/room ops"), Action::Move { room } if room.as_str() == "ops"));
    assert_eq!(refusal(session.line("/room Ops!")).code, ErrorCode::BadRoom);
    assert_eq!(refusal(session.line("/dance")).code, ErrorCode::UnknownType);
}

#[test]
fn a_new_name_is_the_next_messages_name_and_the_id_stays() {
    let mut session = session();
    session.entered(RoomName::lobby());
    assert_eq!(refusal(session.line("/name !root")).code, ErrorCode::BadName);
    assert!(matches!(session.line("/name Zoë"), Action::Renamed(_)));
    let Action::Publish { publication, .. } = session.line("hi") else { panic!("not published") };
    assert!(String::from_utf8_lossy(&publication.event).contains(r#"{"id":"guest-1","name":"Zoë"}"#));
}

#[test]
fn typing_says_who_and_nothing_that_would_move_a_position() {
    let mut session = session();
    join(&mut session, "lobby");
    let Action::Typing { room, event } = ask(&mut session, r#"{"type":"typing","room":"lobby"}"#) else {
        panic!("not announced")
    };
    assert_eq!(room, RoomName::lobby());
    assert_eq!(&event[..], br#"{"type":"typing","from":{"id":"guest-1","name":"zoe"}}"#);
}

#[test]
fn who_is_asked_at_the_line_door_about_the_room_one_is_in_and_answered_in_one_bounded_line() {
    let mut session = session();
    assert!(matches!(session.line("/who"), Action::Nothing));
    session.entered(RoomName::lobby());
    assert!(matches!(session.line("/who"), Action::Who { room, .. } if room == RoomName::lobby()));
    let member = |n: usize, name: &str| {
        let id = crate::names::UserId::new(n.to_string());
        Member { id, name: DisplayName::parse(name).unwrap() }
    };
    let few: Vec<Member> = ["zoe", "ada", "ben"].into_iter().enumerate().map(|(n, name)| member(n, name)).collect();
    assert_eq!(who_notice(3, &few), "who 3 here: ada, ben, zoe");
    assert_eq!(who_notice(5, &few), "who 5 here: ada, ben, zoe and 2 more");
    let many: Vec<Member> = (0..200).map(|n| member(n, &"大".repeat(32))).collect();
    let words = who_notice(5000, &many);
    let named = words.matches('大').count() / 32;
    assert!(words.len() < 1100 && words.ends_with(&format!(" and {} more", 5000 - named)), "{words}");
}

// --- rights and logins ----------------------------------------------------------------------------------------------

fn known(rights: Rights) -> Identity {
    let user =
        User { id: crate::names::UserId::new("42".into()), name: DisplayName::parse("ada").unwrap(), info: None };
    Identity { rights, ..Identity::of(user, Kind::Known) }
}

/// A client with a token, where guests may come in, too.
fn session_of(identity: Identity, change: impl FnOnce(&mut Config)) -> Session {
    let mut session = session_with(|config| {
        config.auth.tickets = Some(crate::config::TicketSettings {
            redis: crate::config::RedisSettings::new("redis://h".parse().unwrap()),
            key: crate::config::TicketKey::parse("T<name>").unwrap(),
            once: false,
        });
        change(config);
    });
    session.logged_in(identity);
    session
}

fn rights(patterns: &[&str]) -> Rights {
    Rights::in_rooms(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap()
}

fn listed(session: &Session) -> Vec<String> {
    let Reply::Welcome { rooms, .. } = session.welcome() else { panic!("no welcome") };
    rooms.iter().map(ToString::to_string).collect()
}

#[test]
fn a_room_that_the_token_does_not_name_is_not_joined_read_asked_for_or_listed() {
    let mut session = session_of(known(rights(&["team-*", "help"])), |_| {});
    for kind in ["join", "history", "who", "typing", "leave"] {
        let refused = refusal(ask(&mut session, &format!(r#"{{"type":"{kind}","room":"lobby"}}"#)));
        assert_eq!(refused.code, ErrorCode::Forbidden, "{kind}");
        assert_eq!(refused.tag.room.as_deref(), Some("lobby"));
    }
    assert_eq!(refusal(ask(&mut session, &say("hi"))).code, ErrorCode::Forbidden);
    assert_eq!(refusal(session.line("/room lobby")).code, ErrorCode::Forbidden);
    assert_eq!(listed(&session), ["help"]);
    join(&mut session, "team-red");
    join(&mut session, "help");
}

#[test]
fn of_the_rooms_that_there_are_those_of_the_token_are_listed() {
    let rooms = |config: &mut Config| {
        config.rooms = Rooms::Only(["lobby", "help", "team-a"].map(|room| RoomName::parse(room).unwrap()).into());
    };
    assert_eq!(listed(&session_of(known(Rights::all()), rooms)), ["lobby", "help", "team-a"]);
    let some = session_of(known(rights(&["team-*", "elsewhere"])), rooms);
    assert_eq!(listed(&some), ["team-a"]);
    assert_eq!(some.first_room(), RoomName::parse("team-a"));
    let none = session_of(known(rights(&["elsewhere"])), rooms);
    assert!(listed(&none).is_empty() && none.first_room().is_none());
}

#[test]
fn a_reader_hears_and_does_not_speak_at_any_door() {
    let mut reads = Rights::all();
    reads.mute = true;
    let mut session = session_of(known(reads), |_| {});
    join(&mut session, "lobby");
    let typing = r#"{"type":"typing","room":"lobby"}"#;
    for action in [ask(&mut session, &say("hi")), ask(&mut session, typing), session.text("hi"), session.line("hi")] {
        assert_eq!(refusal(action).code, ErrorCode::Muted);
    }
    let history = ask(&mut session, r#"{"type":"history","room":"lobby"}"#);
    assert!(matches!(history, Action::History { .. }), "{history:?}");
}

#[test]
fn beside_others_a_guest_stays_a_guest_by_every_name_and_nobody_else_takes_another() {
    let mut guest = session_of(known(Rights::all()), |_| {});
    guest.identity.kind = Kind::Guest { marked: true };
    assert!(matches!(guest.line("/name ada"), Action::Renamed(words) if words == "name you are ~ada"));
    assert_eq!(refusal(guest.line("/name ~ada")).code, ErrorCode::BadName);

    let mut member = session_of(known(Rights::all()), |_| {});
    assert_eq!(refusal(member.line("/name zoe")).code, ErrorCode::Forbidden);
    assert_eq!(member.user().name.as_str(), "ada");
}

#[test]
fn a_stranger_may_log_in_and_nothing_else() {
    let mut session = session_of(Identity::stranger("192.0.2.1:7".parse().unwrap()), |_| {});
    assert_eq!(session.first_room(), None);
    for line in ["hi", "//hi", "/who", "/room lobby", "/name ada", "/dance"] {
        assert_eq!(refusal(session.line(line)).code, ErrorCode::Unauthorized, "{line}");
    }
    assert!(matches!(session.line(""), Action::Nothing));
    assert!(matches!(session.line("/help"), Action::Notice(words) if words.contains("/login NAME TOKEN")));
    assert!(matches!(session.line("/quit"), Action::Close(CloseReason::Left)));
    let Action::LogIn(brought) = session.line("/login Ada Lovelace s3cret") else { panic!("no login") };
    assert_eq!((brought.name.as_deref(), brought.token.as_deref()), (Some("Ada Lovelace"), Some("s3cret")));
    assert!(!format!("{brought:?}").contains("s3cret"));
    let Action::LogIn(brought) = session.line("/login s3cret") else { panic!("no login") };
    assert_eq!((brought.name.as_deref(), brought.token.as_deref()), (Some(""), Some("s3cret")));
    assert_eq!(refusal(session.line("/login")).code, ErrorCode::Unauthorized);
}

#[test]
fn tokens_are_not_tried_for_ever() {
    let mut session = session_of(Identity::stranger("192.0.2.1:7".parse().unwrap()), |_| {});
    for _ in 1..LOGINS {
        assert_eq!(refusal(session.not_logged_in("no".into())).code, ErrorCode::Unauthorized);
    }
    assert!(matches!(session.not_logged_in("no".into()), Action::Close(CloseReason::Unauthorized)));
}

#[test]
fn where_nobody_can_log_in_there_is_no_login() {
    assert_eq!(refusal(session().line("/login ada s3cret")).code, ErrorCode::UnknownType);
    assert!(matches!(session().line("/help"), Action::Notice(words) if !words.contains("login")));
}
