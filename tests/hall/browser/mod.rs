//! The pages in a real Chromium, as people use them: what they type and what they then see. One module a behaviour.

mod barriers;
mod elsewhere;
mod history;
mod hostile;
mod languages;
mod logins;
mod messages;
mod people;
mod rooms;
mod talk;
mod troubles;
mod tutorial;
mod unread;
mod writing;

use crate::harness::{Json, Nginx, NginxKind, Node, Person, RedisServer, get, wait_until};

/// Two nodes of one hall, and nginx in front of them.
struct Hall {
    nodes: Vec<Node>,
    front: Nginx,
    _redis: RedisServer,
}

impl Hall {
    async fn open() -> Hall {
        let redis = RedisServer::start();
        let nodes = Node::start_many(2, &["--redis", &redis.url()]).await;
        let ports: Vec<u16> = nodes.iter().map(Node::port).collect();
        let front = Nginx::start(&ports, NginxKind::RoundRobin).await;
        Hall { nodes, front, _redis: redis }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.front.http())
    }

    /// Has `person` come back until the two are at two nodes. nginx deals out requests in turn, so that which node a
    /// socket gets depends on how many files the page has: one request more makes it the other.
    async fn spread(&self, door: &str, person: &Person) {
        let sample = format!("townhall_connections{{door=\"{door}\"}}");
        wait_until("the two are at two nodes", async || {
            let at = [self.nodes[0].metric(&sample).await, self.nodes[1].metric(&sample).await];
            if at[0] + at[1] == 2.0 && at[0] != at[1] {
                get(self.front.http(), "/healthz", "").await.expect("an answer");
                person.reload().await;
            }
            at == [1.0, 1.0]
        })
        .await;
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(ToString::to_string).collect()
}

/// The address of a node's page, with a query and a fragment.
fn page(node: &Node, more: &str) -> String {
    format!("http://{}/{more}", node.http())
}

/// Says texts in a room, one after the other, as somebody without a browser.
async fn say_all(client: &mut Json, room: &str, texts: &[String]) {
    for some in texts.chunks(100) {
        let mut ids = Vec::new();
        for text in some {
            ids.push(client.say(room, text).await);
        }
        for id in ids {
            client.accepted(id).await;
        }
    }
}

fn numbered(what: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{what} {number}")).collect()
}

/// Moves a room's messages into the past, by so many minutes each, the oldest first; no node may know the room.
fn age(redis: &RedisServer, room: &str, minutes: &[i64]) {
    let key = format!("townhall:{{{room}}}:log");
    let script = r#"
        local aged = redis.call("XRANGE", KEYS[1], "-", "+")
        redis.call("DEL", KEYS[1])
        for index, entry in ipairs(aged) do
            local fields = entry[2]
            for at = 1, #fields, 2 do
                if fields[at] == "at" then
                    fields[at + 1] = string.format("%.0f", tonumber(fields[at + 1]) - 60000 * tonumber(ARGV[index]))
                end
            end
            redis.call("XADD", KEYS[1], entry[1], unpack(fields))
        end
        return #aged
    "#;
    let minutes: Vec<String> = minutes.iter().map(ToString::to_string).collect();
    let words = ["EVAL", script, "1", &key].into_iter().chain(minutes.iter().map(String::as_str));
    let aged = redis.cli(&words.collect::<Vec<_>>());
    assert_eq!(aged, minutes.len().to_string(), "all are aged");
}
