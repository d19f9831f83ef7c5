//! How long is waited, for what, and what is told of what was not accepted by then.

use std::io::Write;
use std::time::Duration;

use super::*;

/// The node's samples of who is connected by the JSON door.
const CONNECTED: &str = r#"townhall_connections{door="json"}"#;

#[tokio::test]
async fn no_patience_is_one_try_and_no_hurry() {
    let node = Node::start(&[]).await;
    for _ in 0..10 {
        Chat::run(&[&url(&node), "--retry-for", "0"], "hi\n").await.printed();
    }
}

#[tokio::test]
async fn a_pause_of_the_input_is_no_fault_of_the_hall() {
    let node = Node::start(&["--beat", "0"]).await;
    let mut ada = Json::connect(&node.ws_url(), "?name=ada").await;
    ada.join("lobby").await;
    let mut chat = Chat::start(&[&url(&node), "--retry-for", "1s"]);
    for text in ["one", "two"] {
        tokio::time::sleep(Duration::from_secs(7)).await; // longer than any patience that counts from before it
        chat.say(text);
        ada.hear("lobby", text).await;
    }
    chat.end_input();
    chat.ended().await.printed();
}

/// A hall that lets in, and then does this with whoever says something.
async fn unwilling(hangs_up: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(refuse_to_listen(client, hangs_up));
        }
    });
    address
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
async fn refuse_to_listen(client: TcpStream, hangs_up: bool) -> Option<()> {
    let speaks = |_: &Request, mut response: Response| {
        response.headers_mut().insert("Sec-WebSocket-Protocol", "townhall.v1".parse().expect("a header"));
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(client, speaks).await.ok()?;
    let welcome = json!({"type": "welcome", "user": {"id": "me", "name": "zoe"}, "beat": 0, "rooms": ["lobby"]});
    socket.send(Message::text(welcome.to_string())).await.ok()?;
    while let Some(Ok(frame)) = socket.next().await {
        let command: Value = serde_json::from_str(frame.to_text().ok()?).ok()?;
        match command["type"].as_str() {
            Some("join") => {
                let joined = json!({"type": "joined", "room": "lobby", "epoch": "e", "offset": 0, "backlog": 0,
                    "recovered": true, "ref": command["ref"]});
                socket.send(Message::text(joined.to_string())).await.ok()?;
            }
            Some("say") if hangs_up => return None,
            _ => {}
        }
    }
    None
}

#[tokio::test]
async fn who_lets_in_over_and_over_and_takes_nothing_is_given_up() {
    // Longer than any pause between two attempts, so that only the patience can end it.
    for (hangs_up, patience) in [(true, "21s"), (false, "2s")] {
        let hall = format!("http://{}", unwilling(hangs_up).await);
        let ended = Chat::run(&[&hall, "--retry-for", patience], "hi\n").await;
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""), "{ended:?}");
        assert!(ended.stderr.contains("line 1 may not have been said"), "{ended:?}");
    }
}

#[tokio::test]
async fn a_hall_that_is_lost_leaves_an_answer_to_each_line_that_was_read() {
    let mut node = Node::start(&[]).await;
    let mut chat = Chat::start(&[&url(&node), "--retry-for", "2s", "--json"]);
    chat.say("one");
    chat.prints(1).await;
    node.kill();
    wait_until("it is told", async || chat.stderr().contains("trying again")).await;
    chat.say("never sent");
    let ended = chat.ended().await;
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let answer: Value = serde_json::from_str(ended.stdout.lines().nth(1).expect("an answer")).expect("JSON");
    assert_eq!((&answer["type"], &answer["code"], &answer["line"]), (&json!("error"), &json!("lost"), &json!(2)));
    assert!(ended.stderr.contains("line 2 was not sent"), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_takes_nothing_for_longer_than_the_patience_loses_nothing() {
    let node = Node::start(&["--rate", "0", "--beat", "1s"]).await;
    let text = "x".repeat(3000);
    Chat::run(&[&url(&node), "--name", "zoe"], &format!("{text}\n").repeat(200)).await.printed();
    let words = ["chat", &url(&node), "--last", "200", "--json", "--retry-for", "1s"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_townhall"));
    let slow = command.args(words).env_clear().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let slow = slow.spawn().expect("the binary starts");
    wait_until("it is in", async || node.metric(CONNECTED).await == 1.0).await;
    tokio::time::sleep(Duration::from_secs(8)).await; // longer than its patience, and than the hall's beats
    let ended = tokio::task::spawn_blocking(move || slow.wait_with_output().expect("its output"));
    let ended = patiently("its end", ended).await.expect("a thread");
    let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    // The hall may take it for dead meanwhile, and it comes back.
    assert_eq!(ended.status.code(), Some(0), "{err}");
    assert!(err.lines().all(|line| line.ends_with("the connection was lost; trying again")), "{err}");
    let messages = out.lines().filter(|line| line.contains(&text)).count();
    assert_eq!(messages, 200, "not all came");
}

#[tokio::test]
async fn whoever_says_come_back_in_an_hour_is_asked_sooner() {
    let node = Node::start(&[]).await;
    let wire = Cut::in_front_of(node.http()).await;
    let full = |number, _: &str| (number == 1).then_some((503, "full"));
    let front = doorkeeper(wire.address(), full).await;
    let mut chat = Chat::start(&[&format!("http://{front}")]);
    wait_until("it is in", async || node.metric(CONNECTED).await == 1.0).await;
    wire.cut();
    wait_until("it was turned away", async || chat.stderr().contains("takes nobody in")).await;
    chat.say("hi");
    chat.end_input();
    let ended = chat.ended().await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn a_hall_that_is_full_for_longer_than_the_patience_is_asked_once_more_at_its_end() {
    let node = Node::start(&[]).await;
    let full = |number, _: &str| (number == 0).then_some((503, "full"));
    let front = doorkeeper(node.http(), full).await;
    let ended = Chat::run(&[&format!("http://{front}"), "--retry-for", "2s"], "hi\n").await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[tokio::test]
async fn signals_end_it_whatever_it_waits_for() {
    let node = Node::start(&[]).await;
    let directory = tempfile::tempdir().expect("a directory");
    let fifo = directory.path().join("token");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let fifo = fifo.to_str().expect("a path");
    let ended = Chat::run(&[&url(&node), "--token-file", fifo], "").await;
    assert_names(ended.complaint(1), &[fifo, "nothing comes"]);
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let waits = Chat::start(&[&url(&node), "--token-file", fifo]);
        wait_until("it hears signals", async || waits.hears_signals()).await;
        waits.signal(signal);
        assert_eq!(waits.ended().await.code, Some(code));
    }
    // Nobody takes its complaints.
    let mut command = Command::new(env!("CARGO_BIN_EXE_townhall"));
    command.args(["chat", &url(&node)]).env_clear().stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut mute = command.spawn().expect("the binary starts");
    let mut input = mute.stdin.take().expect("piped");
    std::thread::spawn(move || {
        let _ = input.write_all(&b"\xff\n".repeat(5000));
    });
    let stderr = mute.stderr.take().expect("piped");
    wait_until("its stderr is full", async || rustix::io::ioctl_fionread(&stderr).is_ok_and(|bytes| bytes > 60_000))
        .await;
    assert!(Command::new("kill").args(["-TERM", &mute.id().to_string()]).status().expect("kill").success());
    let mut status = None;
    wait_until("it has ended", async || {
        status = mute.try_wait().expect("its state");
        status.is_some()
    })
    .await;
    assert_eq!(status.and_then(|status| status.code()), Some(143));
}
