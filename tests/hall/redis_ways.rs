//! The ways to Redis: TCP, TLS, a Unix socket, with passwords; whichever a node goes, it is the same hall. Who is no
//! Redis that may be trusted is refused in words that say what to do.

use std::time::Duration;

use crate::harness::{Certificates, Cluster, Crowd, Faithful, Node, RedisServer, Sentinel};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_come_by_tcp_by_tls_and_by_a_unix_socket_are_one_hall() {
    let certificates = Certificates::new();
    // As it is in the URL and as it is: everything that a URL might take for its own.
    let (escaped, password) = ("p%40ss%3A%2F%3F%23%25", "p@ss:/?#%");
    let redis = RedisServer::start_with_tls(&certificates, &["--requirepass", password]);
    let tcp = format!("redis://:{escaped}@127.0.0.1:{}/2", redis.port());
    let tls = format!("rediss://:{escaped}@127.0.0.1:{}/2", redis.tls_port());
    let socket = format!("redis+unix://:{escaped}@{}?db=2", redis.socket().display());
    let ca = ["--redis-ca", certificates.authority()];
    let nodes = vec![
        Node::start(&["--redis", &tcp, "--rate", "0"]).await,
        Node::start(&[&["--redis", &tls, "--rate", "0"][..], &ca].concat()).await,
        Node::start(&["--redis", &socket, "--rate", "0"]).await,
    ];
    let mut crowd = Crowd::gather(9, &nodes, "lobby").await;
    crowd.talk(Duration::from_millis(50));
    for _ in 0..4 {
        crowd.hear_more(20).await;
        redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    }
    crowd.hear_more(20).await;
    crowd.assert_one_room().await;
    for node in &nodes {
        assert!(!node.log().contains(password) && !node.log().contains(escaped), "the password is in the log");
        assert!(node.metric("townhall_broker_reconnects_total").await >= 4.0);
    }
}

#[tokio::test]
async fn a_redis_that_nobody_vouches_for_is_refused_and_so_is_one_of_another_name() {
    let [ours, theirs] = [Certificates::new(), Certificates::new()];
    let elsewhere = Certificates::naming("DNS:elsewhere.example");
    let redis = RedisServer::start_with_tls(&ours, &[]);
    let other = RedisServer::start_with_tls(&elsewhere, &[]);
    let tls = |server: &RedisServer| format!("rediss://127.0.0.1:{}", server.tls_port());
    for (url, ca, words) in [
        (tls(&redis), None, "give who does with --redis-ca"),
        (tls(&redis), Some(theirs.authority()), "give who does with --redis-ca"),
        (tls(&other), Some(elsewhere.authority()), "its certificate is for another name"),
        (tls(&redis), Some("/nowhere/ca.pem"), "/nowhere/ca.pem"),
        (tls(&redis), Some(ours.key.to_str().expect("UTF-8")), "--redis-ca"),
    ] {
        let mut options = vec!["--redis", &url];
        options.extend(ca.into_iter().flat_map(|ca| ["--redis-ca", ca]));
        let said = Node::refused(&options).await;
        assert!(said.contains(words), "{words}: {said}");
    }
    // Redis hangs up on whoever comes to its TLS port without, and says nothing to whoever comes to the other one with: both
    // may pass, so they are waited for.
    for (url, words) in [
        (format!("redis://127.0.0.1:{}", redis.tls_port()), "does it want TLS, rediss://"),
        (format!("rediss://127.0.0.1:{}", redis.port()), "does it speak TLS"),
    ] {
        let node = Node::start_unready(&["--redis", &url]).await;
        let ready = node.ops("/readyz").await.expect("an answer");
        assert!(ready.status == 503 && ready.body.contains(words), "{ready:?}");
    }
}

#[tokio::test]
async fn sentinels_and_clusters_with_a_password_are_entered_with_it_and_not_without() {
    let locked = ["--requirepass", "hush", "--masterauth", "hush"];
    let sentinel = Sentinel::start_with(1, &locked);
    let cluster = Cluster::start_with(3, 0, &locked);
    for (right, wrong, none) in [
        (sentinel.url_with(":hush@", ""), sentinel.url_with(":shout@", ""), sentinel.url()),
        (cluster.url_with(":hush@"), cluster.url_with(":shout@"), cluster.url()),
    ] {
        let node = Node::start(&["--redis", &right]).await;
        let talker = Faithful::join(&[node.ws_url()], "lobby", "ada").await;
        talker.say("hello");
        talker.wait_accepted(1).await;
        assert!(!node.log().contains("hush"), "the password is in the log");
        for (url, words) in [(wrong, "wrong user or password"), (none, "Redis wants a password")] {
            let said = Node::refused(&["--redis", &url]).await;
            assert!(said.contains(words) && !said.contains("shout"), "{said}");
        }
    }
}
