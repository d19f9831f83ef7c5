//! Tickets in a real Redis: who is let in by one, who is not, and what becomes of them while that Redis is in trouble.

use townhall::auth::ticket::Tickets;
use townhall::auth::{Identity, NotAdmitted};
use townhall::config::{RedisSettings, TicketKey, TicketSettings};

use crate::harness::{Certificates, Cluster, Node, Plain, RedisServer, Sentinel, wait_until};

fn settings(url: &str) -> TicketSettings {
    let redis = RedisSettings::new(url.parse().expect("a URL of Redis"));
    TicketSettings { redis, key: TicketKey::parse(TicketKey::DEFAULT).expect("a pattern"), once: false }
}

fn tickets(url: &str) -> Tickets {
    Tickets::new(&settings(url)).expect("tickets")
}

/// As a site does it.
fn give(redis: &RedisServer, name: &str, token: &str) {
    redis.must(&["SET", &format!("ChatroomToken{name}"), token, "EX", "300"]);
}

async fn check(tickets: &Tickets, name: &str, token: &str) -> Result<Identity, NotAdmitted> {
    tickets.check(Some(name), token).await
}

fn is_refused(answer: &Result<Identity, NotAdmitted>) -> bool {
    matches!(answer, Err(NotAdmitted::Unauthorized(_)))
}

fn is_unavailable(answer: &Result<Identity, NotAdmitted>) -> bool {
    matches!(answer, Err(NotAdmitted::Unavailable(words)) if words.contains("come again"))
}

async fn wait_for_entry(tickets: &Tickets, name: &str, token: &str) {
    wait_until("a ticket lets in again", async || check(tickets, name, token).await.is_ok()).await;
}

#[tokio::test]
async fn a_ticket_lets_in_whom_it_is_for_and_nobody_else() {
    let redis = RedisServer::start();
    let tickets = tickets(&redis.url());
    give(&redis, "ada", "Zm9v-_1");
    give(&redis, "bob", "YmFy-_2");
    for _ in 0..3 {
        let ada = check(&tickets, "ada", "Zm9v-_1").await.expect("her own ticket");
        assert_eq!((ada.user.id.as_str(), ada.user.name.as_str(), ada.expires), ("ada", "ada", None));
    }
    for (name, token) in [
        ("ada", "Zm9v-_2"),
        ("ada", "YmFy-_2"),
        ("ada", "Zm9v-_"),
        ("ada", "Zm9v-_1 "),
        ("ada", ""),
        ("Ada", "Zm9v-_1"),
        ("eve", "Zm9v-_1"),
        ("eve", ""),
    ] {
        let answer = check(&tickets, name, token).await;
        assert!(is_refused(&answer), "{name} {token}: {answer:?}");
    }
    for name in [None, Some("")] {
        assert!(is_refused(&tickets.check(name, "Zm9v-_1").await), "{name:?}");
    }
}

#[tokio::test]
async fn a_ticket_that_was_taken_back_or_has_expired_lets_nobody_in() {
    let redis = RedisServer::start();
    let tickets = tickets(&redis.url());
    give(&redis, "ada", "one");
    assert!(check(&tickets, "ada", "one").await.is_ok());
    redis.cli(&["DEL", "ChatroomTokenada"]);
    assert!(is_refused(&check(&tickets, "ada", "one").await));
    redis.must(&["SET", "ChatroomTokenada", "two", "PX", "100"]);
    wait_until("the ticket has expired", async || redis.cli(&["EXISTS", "ChatroomTokenada"]) == "0").await;
    assert!(is_refused(&check(&tickets, "ada", "two").await));
}

#[tokio::test]
async fn a_name_is_looked_up_trimmed_and_composed_and_is_only_ever_a_key() {
    let redis = RedisServer::start();
    let tickets = tickets(&redis.url());
    give(&redis, "Zo\u{eb}", "token");
    assert!(check(&tickets, " Zoe\u{308} ", "token").await.is_ok());
    for name in ["*", "Zo?", "[Z]o\u{eb}", "x 1 EX 1", "{ada}", "$x", "\"", "\\"] {
        assert!(is_refused(&check(&tickets, name, "token").await), "{name}");
        give(&redis, name, "its own");
        assert!(check(&tickets, name, "its own").await.is_ok(), "{name}");
    }
    for name in ["x 1\r\nSET y z", "a\nb", "a\0b", "a:b", "~ada", "/ada", "  ", &"x".repeat(33)] {
        let answer = check(&tickets, name, "token").await;
        assert!(matches!(answer, Err(NotAdmitted::Malformed(_))), "{name:?}: {answer:?}");
    }
    // Nobody comes in as a guest who is somewhere else.
    give(&redis, "guest-0a1b2c", "token");
    assert!(is_refused(&check(&tickets, "guest-0a1b2c", "token").await));
    assert_eq!(redis.cli(&["DBSIZE"]), "10");
}

#[tokio::test]
async fn a_value_that_no_ticket_has_is_none_and_is_not_read_to_its_end() {
    let redis = RedisServer::start();
    let tickets = tickets(&redis.url());
    let longest = "x".repeat(1024);
    give(&redis, "long", &longest);
    assert!(check(&tickets, "long", &longest).await.is_ok());
    for longer in [1025, 2000] {
        let longer = "x".repeat(longer);
        give(&redis, "long", &longer);
        for token in [&longer, &longest, &"x".repeat(1025)] {
            assert!(is_refused(&check(&tickets, "long", token).await));
        }
    }
    give(&redis, "empty", "");
    assert!(is_refused(&check(&tickets, "empty", "").await));
    redis.cli(&["SETRANGE", "ChatroomTokenhuge", "100000000", "x"]);
    let sent = || redis.info("stats", "total_net_output_bytes").and_then(|bytes| bytes.parse::<u64>().ok());
    let before = sent().expect("a number");
    assert!(is_refused(&check(&tickets, "huge", "x").await));
    assert!(sent().expect("a number") - before < 100_000, "Redis sent all of it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_for_once_lets_in_one_of_all_who_bring_it_at_once() {
    let redis = RedisServer::start();
    let once = || Tickets::new(&TicketSettings { once: true, ..settings(&redis.url()) }).expect("tickets");
    let replicas = [once(), once()];
    for round in 0..20 {
        let token = format!("token{round}");
        give(&redis, "ada", &token);
        // Who is wrong does not use it up.
        assert!(is_refused(&check(&replicas[0], "ada", "wrong").await));
        let at_once = (0..8).map(|n| check(&replicas[n % 2], "ada", &token));
        let answers = futures::future::join_all(at_once).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
        assert_eq!(answers.iter().filter(|answer| is_refused(answer)).count(), 7, "{answers:?}");
        assert!(is_refused(&check(&replicas[0], "ada", &token).await));
    }
    assert_eq!(redis.cli(&["DBSIZE"]), "0");
}

#[tokio::test]
async fn while_redis_is_away_nobody_is_called_wrong_and_afterwards_all_is_well() {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes"]);
    let tickets = tickets(&redis.url());
    give(&redis, "ada", "token");
    assert!(check(&tickets, "ada", "token").await.is_ok());
    // A connection that is gone is made anew within the same question.
    redis.cli(&["CLIENT", "KILL", "TYPE", "normal"]);
    assert!(check(&tickets, "ada", "token").await.is_ok());
    redis.kill();
    for token in ["token", "wrong"] {
        assert!(is_unavailable(&check(&tickets, "ada", token).await));
    }
    redis.restart();
    assert!(check(&tickets, "ada", "token").await.is_ok());
    assert!(is_refused(&check(&tickets, "ada", "wrong").await));
}

#[tokio::test]
async fn while_redis_hangs_everybody_is_told_so_together_and_afterwards_all_is_well() {
    let redis = RedisServer::start();
    let tickets = tickets(&redis.url());
    give(&redis, "ada", "token");
    assert!(check(&tickets, "ada", "token").await.is_ok());
    redis.pause();
    for _ in 0..2 {
        let many = futures::future::join_all((0..100).map(|_| check(&tickets, "ada", "token"))).await;
        assert!(many.iter().all(is_unavailable), "{many:?}");
    }
    redis.resume();
    wait_for_entry(&tickets, "ada", "token").await;
    // All of those had a handful of connections between them.
    let connections = redis.info("stats", "total_connections_received").and_then(|count| count.parse::<u32>().ok());
    assert!(connections.expect("a number") < 20, "{connections:?}");
}

#[tokio::test]
async fn what_redis_refuses_is_nobodys_fault_who_comes() {
    let redis = RedisServer::start();
    let tickets = tickets(&redis.url());
    redis.cli(&["RPUSH", "ChatroomTokenada", "token"]);
    assert!(is_unavailable(&check(&tickets, "ada", "token").await));
    give(&redis, "bob", "token");
    assert!(check(&tickets, "bob", "token").await.is_ok());
    redis.must(&["ACL", "SETUSER", "default", "-getrange"]);
    assert!(is_unavailable(&check(&tickets, "bob", "token").await));
    redis.must(&["ACL", "SETUSER", "default", "+getrange"]);
    assert!(check(&tickets, "bob", "token").await.is_ok());
}

#[tokio::test]
async fn a_failover_moves_the_tickets_along() {
    let mut redis = Sentinel::start(1);
    let tickets = tickets(&redis.url());
    give(redis.master(), "ada", "token");
    assert!(check(&tickets, "ada", "token").await.is_ok());
    redis.master().stop_writing(&redis.replicas());
    let old = redis.master_index();
    // It hangs and keeps its connections; then it is gone, too.
    redis.server(old).pause();
    let new = redis.wait_for_another_than(old);
    wait_for_entry(&tickets, "ada", "token").await;
    give(&redis.servers()[new], "ada", "newer");
    wait_for_entry(&tickets, "ada", "newer").await;
    redis.server(old).resume();
    redis.wait_followed();
    assert!(check(&tickets, "ada", "newer").await.is_ok());
}

#[tokio::test]
async fn a_cluster_is_asked_wherever_a_name_lives() {
    let redis = Cluster::start(3, 0);
    let tickets = Tickets::new(&TicketSettings { once: true, ..settings(&redis.url()) }).expect("tickets");
    for number in 0..12 {
        let (name, token) = (format!("user{number}"), format!("token{number}"));
        assert_eq!(redis.cli(&["SET", &format!("ChatroomToken{name}"), &token, "EX", "300"]), "OK");
        assert!(is_refused(&check(&tickets, &name, "wrong").await));
        assert!(check(&tickets, &name, &token).await.is_ok(), "{name}");
        assert!(is_refused(&check(&tickets, &name, &token).await));
    }
}

#[tokio::test]
async fn tickets_come_over_tls_with_a_password_too() {
    let certificates = Certificates::new();
    let redis = RedisServer::start_with_tls(&certificates, &["--requirepass", "hush"]);
    give(&redis, "ada", "token");
    let mut settings = settings(&format!("rediss://:hush@127.0.0.1:{}", redis.tls_port()));
    settings.redis.ca = Some(std::fs::read(&certificates.authority).expect("the certificates"));
    assert!(check(&Tickets::new(&settings).expect("tickets"), "ada", "token").await.is_ok());
    settings.redis.ca = None;
    assert!(is_unavailable(&check(&Tickets::new(&settings).expect("tickets"), "ada", "token").await));
}

/// The user `doorkeeper`, made exactly as docs/redis.md says.
fn grant(redis: &RedisServer, more: &[&str]) {
    let page = include_str!("../../docs/redis.md");
    let (_, rest) = page.split_once("ACL SETUSER doorkeeper ").expect("how the user is made");
    let (rules, _) = rest.split_once("```").expect("the end of that");
    let user = ["ACL", "SETUSER", "doorkeeper", "reset"].into_iter();
    redis.must(&user.chain(rules.split_whitespace()).chain(more.iter().copied()).collect::<Vec<_>>());
}

/// What docs/redis.md adds to that for `--ticket-once`.
const FOR_ONCE: [&str; 2] = ["+eval", "+del"];

#[tokio::test]
async fn the_rights_that_are_printed_are_enough_and_each_of_them_is_needed() {
    let redis = RedisServer::start();
    let mut settings = settings(&format!("redis://doorkeeper:PASSWORD@127.0.0.1:{}/1", redis.port()));
    give_in(&redis, "1", "ada", "token");
    grant(&redis, &[]);
    assert!(check(&Tickets::new(&settings).expect("tickets"), "ada", "token").await.is_ok());
    settings.once = true;
    for missing in ["+eval", "+del", "~ChatroomToken*"] {
        grant(&redis, &FOR_ONCE);
        match missing.strip_prefix('+') {
            Some(command) => redis.must(&["ACL", "SETUSER", "doorkeeper", &format!("-{command}")]),
            None => redis.must(&["ACL", "SETUSER", "doorkeeper", "resetkeys"]),
        }
        let answer = check(&Tickets::new(&settings).expect("tickets"), "ada", "token").await;
        assert!(is_unavailable(&answer), "{missing}: {answer:?}");
    }
    assert!(include_str!("../../docs/redis.md").contains(&FOR_ONCE.join(" ")), "they are printed");
    grant(&redis, &FOR_ONCE);
    assert!(check(&Tickets::new(&settings).expect("tickets"), "ada", "token").await.is_ok());
    assert!(is_refused(&check(&Tickets::new(&settings).expect("tickets"), "ada", "token").await));
}

fn give_in(redis: &RedisServer, database: &str, name: &str, token: &str) {
    let key = format!("ChatroomToken{name}");
    assert_eq!(redis.cli_with(&["-n", database], &["SET", &key, token, "EX", "300"]), "OK");
}

#[tokio::test]
async fn the_sites_redis_may_be_another_one_and_its_trouble_is_not_the_rooms() {
    let rooms = RedisServer::start();
    let mut site = RedisServer::start_with(&["--requirepass", "hush"]);
    let url = format!("redis://:hush@127.0.0.1:{}", site.port());
    let node = Node::start(&["--auth", "ticket", "--redis", &rooms.url(), "--ticket-redis", &url]).await;
    let door = async || Plain::try_connect(&node.ws("/chatroom/ws/ada/token"), "").await;
    let status = async || door().await.err().map(|refusal| refusal.status);
    give(&site, "ada", "token");
    give(&rooms, "ada", "another");
    let mut ada = door().await.expect("she is let in");
    give(&site, "ada", "another");
    assert_eq!(status().await, Some(403));
    site.kill();
    for _ in 0..5 {
        assert_eq!(status().await, Some(503));
    }
    // Who is in stays in, and the rooms are well.
    ada.say("hello").await;
    ada.until("ada:hello").await;
    assert_eq!(node.metric("townhall_broker_up").await, 1.0);
    site.restart();
    give(&site, "ada", "token");
    for _ in 0..3 {
        door().await.expect("she is let in again");
    }
    let log = node.log();
    assert_eq!(log.matches("no tickets from Redis at redis://:***@127.0.0.1").count(), 1, "{log}");
    assert_eq!(log.matches("tickets from Redis at redis://:***@127.0.0.1").count(), 2, "{log}");
    assert!(!log.contains("hush") && !log.contains("another"), "{log}");
}

#[tokio::test]
async fn the_log_says_which_right_is_missing_and_what_is_no_ticket() {
    let redis = RedisServer::start();
    let node = Node::start(&["--auth", "ticket", "--ticket-once", "--redis", &redis.url()]).await;
    let status = async || Plain::try_connect(&node.ws("/chatroom/ws/ada/token"), "").await.err().map(|no| no.status);
    redis.must(&["ACL", "SETUSER", "default", "-getrange"]);
    assert_eq!(status().await, Some(503));
    redis.must(&["ACL", "SETUSER", "default", "+getrange", "-eval"]);
    give(&redis, "ada", "token");
    assert_eq!(status().await, Some(503));
    assert!(node.log().contains("'getrange'"), "{}", node.log());
    redis.must(&["ACL", "SETUSER", "default", "+eval"]);
    redis.cli(&["DEL", "ChatroomTokenada"]);
    redis.cli(&["RPUSH", "ChatroomTokenada", "token"]);
    assert_eq!(status().await, Some(503));
    assert!(node.log().contains("wrong kind of value"), "{}", node.log());
}
