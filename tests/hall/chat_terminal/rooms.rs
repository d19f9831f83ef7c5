//! What begins with a slash.

use super::Visitor;
use crate::harness::{Cut, Json, Node, doorkeeper, wait_until};

#[tokio::test]
async fn rooms_are_joined_shown_with_their_marks_and_left() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    for room in ["lobby", "ops", "tea"] {
        ada.join(room).await;
    }
    let zoe = Visitor::come(&node, "--name zoe").await;
    zoe.enters("/join #ops");
    let mut rows = vec!["connected!", "— #lobby as zoe", "— #ops as zoe"];
    zoe.shows(&[&rows[..], &["#ops · 2 here · (#lobby)", ">"]].concat(), 2).await;
    ada.said("lobby", "who has tea?").await;
    zoe.enters("all is well");
    ada.hear("ops", "all is well").await;
    rows.extend(["12:00 #lobby ada: who has tea?", "12:00 #ops zoe: all is well"]);
    zoe.shows(&[&rows[..], &["#ops · 2 here · (#lobby)", ">"]].concat(), 2).await;

    zoe.enters("/join tea");
    rows.push("— #tea as zoe");
    zoe.shows(&[&rows[..], &["#tea · 2 here · (#lobby #ops)", ">"]].concat(), 2).await;
    zoe.types("/leave o");
    zoe.press(&["Tab", "Enter"]);
    rows.push("— left #ops");
    zoe.shows(&[&rows[..], &["#tea · 2 here · (#lobby)", ">"]].concat(), 2).await;
    wait_until("nobody else is in #ops", async || ada.who("ops").await == ["ada"]).await;
    ada.said("ops", "nobody hears it").await;
    zoe.enters("/join lobby");
    zoe.shows(&[&rows[..], &["#lobby · 2 here · (#tea)", ">"]].concat(), 2).await;
    zoe.enters("I have");
    ada.hear("lobby", "I have").await;
    rows.push("12:00 #lobby zoe: I have");
    zoe.enters("/leave");
    rows.push("— left #lobby");
    zoe.shows(&[&rows[..], &["#tea · 2 here", ">"]].concat(), 2).await;
    zoe.enters("/leave nowhere");
    zoe.enters("/leave");
    zoe.enters("hello?");
    zoe.enters("/who");
    rows.extend(["— you are not in that room", "— left #tea"]);
    rows.extend(["— you are in no room; /join one", "— you are in no room; /join one"]);
    zoe.shows(&[&rows[..], &["", ">"]].concat(), 2).await;
}

#[tokio::test]
async fn names_are_completed_of_the_room_that_is_on_screen() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("ops").await;
    let mut bob = Json::connect(&node.ws_url(), "?name=bob").await;
    bob.join("lobby").await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    for (room, begun, name) in [("ops", "ad", "> ada:"), ("lobby", "bo", "> bob:"), ("ops", "ad", "> ada:")] {
        zoe.enters(&format!("/join {room}"));
        zoe.types(begun);
        wait_until("the name is completed", async || {
            zoe.press(&["Tab"]);
            zoe.0.seen().text().last().is_some_and(|row| row == name)
        })
        .await;
        zoe.press(&["C-u"]);
    }
}

#[tokio::test]
async fn another_name_is_the_same_person_and_misses_nothing() {
    let node =
        Node::start(&["--auth", "guest,jwt", "--jwt-secret", "a secret of the issuer, and long enough for it"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    zoe.enters("it is me");
    let first = ada.hear("lobby", "it is me").await;
    assert_eq!(first["from"]["name"], "~zoe");
    let mut rows = vec!["connected!", "— #lobby as ~zoe", "12:00 ~zoe: it is me"];
    zoe.shows(&[&rows[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    for (name, why) in [
        ("a:b", "! a name is 1 to 32 characters, has no colon, and begins"),
        ("", "! a name is 1 to 32 characters, has no colon, and begins"),
    ] {
        zoe.enters(&format!("/nick {name}"));
        rows.extend([why, "with none of ! / ~"]);
    }
    zoe.enters("/nick Zoë B");
    for number in 0..20 {
        ada.said("lobby", &format!("message {number}")).await;
    }
    wait_until("the name is another one", async || {
        let everything = zoe.0.everything();
        everything.iter().any(|row| row == "— you are ~Zoë B now")
            && everything.iter().any(|row| row.ends_with("~ada: message 19"))
    })
    .await;
    let messages: Vec<String> = (0..20).map(|number| format!("~ada: message {number}")).collect();
    assert_eq!(zoe.said(), [&["~zoe: it is me".to_string()], &messages[..]].concat());
    zoe.enters("still me");
    let second = ada.hear("lobby", "still me").await;
    assert_eq!(second["from"]["name"], "~Zoë B");
    assert_eq!(second["from"]["id"], first["from"]["id"]);
    assert_eq!(ada.who("lobby").await, ["~Zoë B", "~ada"]);
}

#[tokio::test]
async fn a_name_that_the_hall_refuses_is_told_and_the_one_before_is_kept() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let no_boss = |_, asked: &str| asked.contains("name=boss").then_some((400, "nobody is called boss"));
    let zoe = Visitor::at(60, 16, &format!("http://{}", doorkeeper(node.http(), no_boss).await));
    zoe.starts("", "--name zoe").await;
    zoe.enters("/nick boss");
    zoe.ends_with(&["! nobody is called boss (bad_name)", "#lobby · 2 here", ">"], 2).await;
    zoe.enters("still me");
    assert_eq!(ada.hear("lobby", "still me").await["from"]["name"], "zoe");
}

#[tokio::test]
async fn history_goes_further_back_each_time_until_there_is_no_more() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for number in 1..=5 {
        ada.said("lobby", &format!("message {number}")).await;
    }
    let zoe = Visitor::at(60, 24, &node.ws_url());
    zoe.starts("", "--name zoe --last 1").await;
    let mut rows = vec!["connected!", "— #lobby as zoe", "12:00 ada: message 5"];
    zoe.shows(&[&rows[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    zoe.enters("/history 2");
    rows.extend(["— #lobby: 2 older messages", "DAY message 3", "DAY message 4", "— until here"]);
    zoe.0.until("older messages are there", |seen| seen.text().len() == rows.len() + 2).await;
    zoe.enters("/history");
    rows.extend(["— #lobby: 2 older messages", "DAY message 1", "DAY message 2", "— until here"]);
    zoe.0.until("all messages are there", |seen| seen.text().len() == rows.len() + 2).await;
    zoe.enters("/history");
    zoe.enters("/history 0");
    rows.extend(["— there is nothing older", "— /history takes a number from 1 to 200", "#lobby · 2 here", ">"]);
    let seen = zoe.0.until("the history is there", |seen| seen.text().len() == rows.len()).await;
    // What is older has its day, too: 2026-11-24 12:00.
    let undated = |row: &String| match row.split_once(" ada: ") {
        Some((time, text)) if time.len() == 16 => format!("DAY {text}"),
        _ => row.clone(),
    };
    let seen: Vec<String> = super::at_noon(seen.text()).iter().map(undated).collect();
    assert_eq!(seen, rows);
}

#[tokio::test]
async fn who_asks_for_older_messages_before_they_are_there_gets_none_twice() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    for number in 1..=3 {
        ada.said("lobby", &format!("message {number}")).await;
    }
    let zoe = Visitor::at(60, 24, &wire.ws_url());
    zoe.starts("", "--name zoe --last 1").await;
    wire.swallow_next_with(r#""more":"#);
    zoe.enters("/history 1");
    zoe.enters("/history 1");
    let rows = ["connected!", "— #lobby as zoe", "12:00 ada: message 3", "— older messages are on their way"];
    zoe.shows(&[&rows[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    wait_until("the answer is swallowed", async || wire.has_swallowed()).await;
    wire.cut();
    zoe.ends_with(&["— reconnected", "#lobby · 2 here", ">"], 2).await;
    zoe.enters("/history 1");
    zoe.ends_with(&["— until here", "#lobby · 2 here", ">"], 2).await;
    let older = zoe.0.everything().into_iter().filter(|row| row.ends_with(" ada: message 2")).count();
    assert_eq!(older, 1);
}

#[tokio::test]
async fn help_an_unknown_command_and_two_slashes() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(80, 24, &node.ws_url());
    zoe.starts("", "--name zoe").await;
    zoe.enters("/help");
    let mut rows = vec![
        "connected!",
        "— #lobby as zoe",
        "/join ROOM      go to a room, and stay in the others",
        "/leave [ROOM]   leave it",
        "/who            who is here",
        "/nick NAME      be called otherwise",
        "/history [N]    N older messages (20); again: older ones still",
        "/quit           leave the hall; so does quit alone",
        "//x             says /x",
        "Tab completes commands, rooms and names; arrow up is what you said before",
    ];
    zoe.shows(&[&rows[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    zoe.enters("/etc/passwd");
    rows.push("— there is no /etc/passwd; /help lists what there is, and //etc/passwd says it");
    zoe.enters("/join Über");
    rows.push("! a room is 1 to 64 of a-z 0-9 . _ - and begins with a letter or digit");
    zoe.shows(&[&rows[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    zoe.enters("//etc/passwd");
    ada.hear("lobby", "/etc/passwd").await;
    zoe.enters("I quit");
    ada.hear("lobby", "I quit").await;
    rows.extend(["12:00 zoe: /etc/passwd", "12:00 zoe: I quit"]);
    zoe.shows(&[&rows[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    zoe.enters("/quit");
    zoe.ended(&[&rows[..], &["(0)"]].concat()).await;
}

#[tokio::test]
async fn a_room_that_lets_nobody_in_leaves_one_where_one_was() {
    let node = Node::start(&["--rooms", "lobby,ops"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(120, 20, &node.ws_url());
    zoe.starts("", "--name zoe").await;
    zoe.enters("/join ops");
    zoe.enters("/join lobby");
    zoe.enters("/join nowhere");
    let refusal = "! no way into #nowhere: that room is not open to you; try another";
    let mut rows = vec!["connected!", "— #lobby as zoe", "— #ops as zoe", refusal];
    zoe.shows(&[&rows[..], &["#lobby · 2 here · (#ops)", ">"]].concat(), 2).await;
    // Whoever types just then means another room than the one on screen.
    zoe.enters("meant for nowhere");
    rows.extend(["— not sent: you are in #lobby now; arrow up and Enter says it here"]);
    zoe.shows(&[&rows[..], &["#lobby · 2 here · (#ops)", ">"]].concat(), 2).await;
    zoe.enters("meant for lobby");
    ada.hear("lobby", "meant for lobby").await;
    assert_eq!(ada.texts("lobby"), ["meant for lobby"]);
    zoe.enters("/leave lobby");
    zoe.enters("/leave");
    zoe.enters("/join nowhere");
    rows.extend(["12:00 #lobby zoe: meant for lobby", "— left #lobby", "— left #ops", refusal]);
    zoe.shows(&[&rows[..], &["", ">"]].concat(), 2).await;
}
