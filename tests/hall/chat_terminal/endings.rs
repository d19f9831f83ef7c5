//! How it ends, and what it leaves behind.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use super::{Visitor, is_gone, signal};
use crate::harness::{Json, Node, RedisServer, secrets, wait_until};

const SECRET: &str = "a secret of the issuer, and long enough for it";
const HELLO: [&str; 2] = ["connected!", "— #lobby as zoe"];

#[tokio::test]
async fn quit_ctrl_c_twice_and_ctrl_d_leave_at_once() {
    let node = Node::start(&["--presence-grace", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    zoe.enters(" quit ");
    zoe.ended(&[&HELLO[..], &["(0)"]].concat()).await;
    zoe.starts("", "--name zoe").await;
    zoe.types("unfinished");
    zoe.press(&["C-c"]);
    zoe.shows(&[&HELLO[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    zoe.press(&["C-c"]);
    let hint = "Ctrl-C again, or quit, leaves";
    zoe.shows(&[&HELLO[..], &[hint, "#lobby · 2 here", ">"]].concat(), 2).await;
    zoe.press(&["C-c"]);
    zoe.ended(&[&HELLO[..], &[hint, "(0)"]].concat()).await;
    zoe.starts("", "--name zoe").await;
    zoe.press(&["C-d"]);
    zoe.ended(&[&HELLO[..], &["(0)"]].concat()).await;
    wait_until("only ada is left", async || ada.who("lobby").await == ["ada"]).await;
}

#[tokio::test]
async fn who_leaves_with_unsent_messages_is_told_so() {
    let mut node = Node::start(&[]).await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    node.kill();
    zoe.ends_with(&["#lobby · offline", ">"], 2).await;
    zoe.enters("nobody hears this");
    zoe.ends_with(&["… nobody hears this", "#lobby · offline · 1 unsent", ">"], 2).await;
    zoe.enters("/history");
    zoe.enters("/quit");
    zoe.ended(&["— not while there is no connection", "townhall: not sent: nobody hears this", "(1)"]).await;
}

#[tokio::test]
async fn signals_and_a_closed_window_leave_no_process_and_an_orderly_terminal() {
    let node = Node::start(&[]).await;
    let zoe = Visitor::come(&node, "--name zoe").await;
    zoe.types("half a line");
    zoe.ends_with(&["> half a line"], 13).await;
    signal(zoe.program(), "TERM");
    zoe.ended(&[&HELLO[..], &["(143)"]].concat()).await;
    zoe.starts("", "--name zoe").await;
    signal(zoe.program(), "HUP");
    zoe.ended(&[&HELLO[..], &["(143)"]].concat()).await;
    zoe.starts("", "--name zoe").await;
    let program = zoe.program();
    zoe.0.close_window();
    is_gone(program).await;
}

#[tokio::test]
async fn ctrl_z_gives_the_terminal_to_the_shell_and_fg_takes_it_again() {
    let node = Node::start(&[]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let zoe = Visitor::at(60, 24, &node.ws_url());
    zoe.0.types("set -m; clear; $T --name zoe\r");
    zoe.ends_with(&["#lobby · 2 here", ">"], 2).await;
    zoe.types("half a ");
    zoe.ends_with(&["> half a"], 9).await;
    zoe.press(&["C-z"]);
    zoe.0.until("the shell is back", |seen| seen.text().last().is_some_and(|row| row == "$")).await;
    zoe.0.types("echo $((6*7))\r");
    zoe.ends_with(&["$ echo $((6*7))", "42", "$"], 2).await;
    ada.said("lobby", "while you were away").await;
    zoe.0.types("fg\r");
    zoe.ends_with(&["12:00 ada: while you were away", "#lobby · 2 here", "> half a"], 9).await;
    zoe.enters("line");
    ada.hear("lobby", "half a line").await;
    zoe.ends_with(&["12:00 ada: while you were away", "12:00 zoe: half a line", "#lobby · 2 here", ">"], 2).await;
    assert_eq!(zoe.said(), ["ada: while you were away", "zoe: half a line"]);
}

fn token(seconds: u64) -> String {
    secrets::keep(SECRET);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = json!({"sub": "7", "name": "Zoe", "exp": now + seconds});
    let token = encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(SECRET.as_bytes()));
    let token = token.expect("a token");
    secrets::keep(&token);
    token
}

#[tokio::test]
async fn a_fresh_token_in_the_file_keeps_one_in_and_none_ends_it() {
    let node = Node::start(&["--auth", "guest,jwt", "--jwt-secret", SECRET, "--jwt-leeway", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), token(4)).expect("written");
    let stays = Visitor::at(60, 16, &node.ws_url());
    stays.starts("", &format!("--token-file {}", file.path().display())).await;
    let rows = ["connected!", "— #lobby as Zoe"];
    stays.shows(&[&rows[..], &["#lobby · 2 here", ">"]].concat(), 2).await;
    std::fs::write(file.path(), token(300)).expect("written");

    let goes = Visitor::at(200, 16, &node.ws_url());
    goes.starts("", &format!("--token {}", token(3))).await;
    let expired = "townhall: the token has expired; \
                   start again with a fresh one (--token-file is read again for each connection)";
    goes.ended(&["connected!", "— #lobby as Zoe", expired, "(1)"]).await;
    wait_until("it has come again", async || {
        let opened = node.metric("townhall_connections_opened_total{door=\"json\"}").await;
        opened == 4.0 && node.metric("townhall_connections{door=\"json\"}").await == 2.0
    })
    .await;
    stays.enters("still here");
    ada.hear("lobby", "still here").await;
    stays.shows(&[&rows[..], &["12:00 Zoe: still here", "#lobby · 2 here", ">"]].concat(), 2).await;
    stays.enters("/nick Zorro");
    stays.ends_with(&["— you are called as your token says", "#lobby · 2 here", ">"], 2).await;
}

#[tokio::test]
async fn a_ticket_lets_in_whom_it_is_for() {
    let redis = RedisServer::start();
    let node = Node::start(&["--auth", "ticket", "--redis", &redis.url()]).await;
    redis.must(&["SET", "ChatroomTokenzoe", "a-ticket-for-zoe", "EX", "300"]);
    let zoe = Visitor::at(200, 16, &node.ws_url());
    zoe.starts("", "--name zoe --token a-ticket-for-zoe").await;
    zoe.shows(&[&HELLO[..], &["#lobby · 1 here", ">"]].concat(), 2).await;
    zoe.enters("quit");
    zoe.ended(&["(0)"]).await;
    zoe.runs("", "--name ada --token a-ticket-for-zoe");
    let line = "townhall: the hall does not accept this token (the ticket is not this name's, or no longer valid); \
                get a fresh one, or see --token, --token-file and --name";
    zoe.ended(&[line, "(1)"]).await;
}
