//! The pages in a real Chromium, as people use them: what they type and what they then see.

use serde_json::json;

use crate::harness::{Chromium, Json, Nginx, NginxKind, Node, Person, Plain, RedisServer, get, wait_until};

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

#[tokio::test]
async fn two_people_at_two_nodes_talk_through_the_page() {
    let hall = Hall::open().await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &hall.url("/"), "ada").await;
    let bea = Person::come_in(&chromium, &hall.url("/"), "bea").await;
    hall.spread("json", &bea).await;
    bea.wait_connected().await;

    ada.say("hello, bea").await;
    bea.wait_messages(&texts(&["hello, bea"])).await;
    bea.say("<b>hello</b>, ada & all").await;
    let both = texts(&["hello, bea", "<b>hello</b>, ada & all"]);
    ada.wait_messages(&both).await;
    bea.wait_messages(&both).await;
    for person in [&ada, &bea] {
        assert_eq!(person.read("#view .message .name").await, ["ada", "bea"]);
        assert_eq!(person.read("#view .message b").await, Vec::<String>::new(), "markup is text");
        person.assert_content().await;
    }
    assert_eq!(ada.read("#view .message.own .text").await, ["hello, bea"]);
    assert_eq!(ada.read("#text").await, [""], "what was said is not said again");
}

#[tokio::test]
async fn somebody_who_reloads_misses_nothing_and_sees_nothing_twice() {
    let hall = Hall::open().await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &hall.url("/"), "ada").await;
    let bea = Person::come_in(&chromium, &hall.url("/"), "bea").await;
    hall.spread("json", &bea).await;
    let mut said = Vec::new();
    let mut say = async |from: usize| {
        for number in from..from + 5 {
            let text = format!("number {number}");
            ada.say(&text).await;
            said.push(text);
        }
        said.clone()
    };
    let first = say(1).await;
    bea.wait_messages(&first).await;

    bea.visit("about:blank").await;
    let second = say(6).await;
    ada.wait_messages(&second).await; // accepted while nobody else is there
    bea.visit(&hall.url("/")).await;
    bea.wait_messages(&second).await;

    let (third, ()) = tokio::join!(say(11), async {
        for _ in 0..3 {
            bea.reload().await;
        }
    });
    bea.wait_messages(&third).await;
    ada.wait_messages(&third).await;
    assert_eq!(bea.read("#name").await, ["bea"], "the name is kept");
    bea.say("and I can still talk").await;
    ada.wait_messages(&[third, texts(&["and I can still talk"])].concat()).await;
    ada.assert_content().await;
    bea.assert_content().await;
}

#[tokio::test]
async fn a_node_dies_and_both_go_on() {
    let mut hall = Hall::open().await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &hall.url("/"), "ada").await;
    let bea = Person::come_in(&chromium, &hall.url("/"), "bea").await;
    hall.spread("json", &bea).await;
    ada.say("before").await;
    bea.wait_messages(&texts(&["before"])).await;

    hall.nodes[0].kill();
    // Said at once, whether connected or not: what is not accepted is resent.
    ada.say("ada after").await;
    ada.wait_messages(&texts(&["before", "ada after"])).await;
    bea.say("bea after").await;
    let all = texts(&["before", "ada after", "bea after"]);
    for person in [&ada, &bea] {
        person.wait_messages(&all).await;
        person.wait_connected().await;
        assert_eq!(person.read("#view .break").await, Vec::<String>::new(), "nothing was lost");
        person.assert_content_but_for_handshakes().await;
    }
}

#[tokio::test]
async fn the_page_hears_every_other_door() {
    let node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &format!("http://{}/", node.http()), "ada").await;
    let mut lewin = Plain::connect(&node.ws_url(), "?name=lewin").await;
    lewin.say("from a console").await;
    lewin.expect("lewin:from a console").await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    script.said("lobby", "from a script").await;
    ada.wait_messages(&texts(&["from a console", "from a script"])).await;
    ada.say("from a page").await;
    lewin.until("ada:from a page").await;
    script.hear("lobby", "from a page").await;
    ada.assert_content().await;
}

#[tokio::test]
async fn the_tutorials_page_talks_and_shows_its_notices() {
    let mut hall = Hall::open().await;
    let chromium = Chromium::start();
    let lewin = Person::open(&chromium, &hall.url("/chatroom?name=lewin")).await;
    let opened = texts(&["[提示] 成功连接服务器\n"]);
    lewin.wait_read("#output", &opened).await;
    let zhang = Person::open(&chromium, &hall.url("/chatroom?name=%E5%BC%A0%E4%B8%89&token=any")).await;
    zhang.wait_read("#output", &opened).await;
    hall.spread("plain", &zhang).await;
    zhang.wait_read("#output", &opened).await;

    zhang.enter("#input", "你好").await; // who hears itself has joined
    zhang.wait_read("#output", &texts(&["[提示] 成功连接服务器\n张三:你好\n"])).await;
    lewin.wait_read("#output", &texts(&["[提示] 成功连接服务器\n张三:你好\n"])).await;
    lewin.enter("#input", "hello").await;
    let talk = texts(&["[提示] 成功连接服务器\n张三:你好\nlewin:hello\n"]);
    lewin.wait_read("#output", &talk).await;
    zhang.wait_read("#output", &talk).await;
    lewin.wait_read("#input", &texts(&[""])).await;

    hall.nodes[0].kill();
    hall.nodes[1].kill();
    let ended = texts(&["[提示] 成功连接服务器\n张三:你好\nlewin:hello\n[提示] 与服务器断开连接，请刷新……\n"]);
    for person in [&lewin, &zhang] {
        person.wait_read("#output", &ended).await;
        person.assert_content().await;
    }
}

#[tokio::test]
async fn the_echo_page_shows_what_comes_back() {
    let mut node = Node::start(&[]).await;
    let chromium = Chromium::start();
    let person = Person::open(&chromium, &format!("http://{}/echo", node.http())).await;
    person.wait_read("#output", &texts(&["Status: Connected\n"])).await;
    person.fill("#input", "大厅").await;
    person.click("#send").await;
    person.wait_read("#output", &texts(&["Status: Connected\nServer: 大厅\n"])).await;
    node.kill();
    person.wait_read("#output", &texts(&["Status: Connected\nServer: 大厅\nConnection closed.\n"])).await;
    person.assert_content().await;
}

#[tokio::test]
async fn behind_the_tutorials_location_the_pages_work() {
    let node = Node::start(&["--base-path", "/gin"]).await;
    let front = Nginx::start(&[node.port()], NginxKind::TutorialGin).await;
    let chromium = Chromium::start();
    let ada = Person::come_in(&chromium, &format!("http://{}/gin", front.http()), "ada").await;
    assert_eq!(ada.address().await, format!("http://{}/gin/", front.http()));
    let lewin = Person::open(&chromium, &format!("http://{}/gin/chatroom?name=lewin", front.http())).await;
    lewin.wait_read("#output", &texts(&["[提示] 成功连接服务器\n"])).await;
    lewin.enter("#input", "through /gin").await;
    ada.wait_messages(&texts(&["through /gin"])).await;
    ada.say("and back").await;
    lewin.wait_read("#output", &texts(&["[提示] 成功连接服务器\nlewin:through /gin\nada:and back\n"])).await;
    ada.assert_content().await;
    lewin.assert_content().await;
}

/// Comes in with tokens that it signs itself, each for five seconds, says something with the first one and something with
/// the second, and tells what it went through.
const SIGNED: &str = r#"(async () => {
    const { Townhall } = await import("/client.js");
    const url = { "+": "-", "/": "_", "=": "" };
    const base64 = (bytes) => btoa(String.fromCharCode(...new Uint8Array(bytes))).replace(/[+/=]/g, (c) => url[c]);
    const encode = (text) => new TextEncoder().encode(text);
    const secret = encode("a secret of thirty-two bytes and more");
    const key = await crypto.subtle.importKey("raw", secret, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
    let tokens = 0;
    const getToken = async () => {
      tokens += 1;
      const claims = { sub: "zoe", exp: Math.floor(Date.now() / 1000) + 5 };
      const parts = [{ alg: "HS256" }, claims].map((part) => base64(encode(JSON.stringify(part))));
      return `${parts.join(".")}.${base64(await crypto.subtle.sign("HMAC", key, encode(parts.join("."))))}`;
    };
    const hall = new Townhall("/ws", { getToken });
    const states = [], said = [];
    hall.addEventListener("state", ({ detail: { state, code } }) => states.push(code ? `${state} ${code}` : state));
    hall.addEventListener("message", ({ detail }) => said.push(`${detail.offset} ${detail.from.id}: ${detail.text}`));
    hall.addEventListener("welcome", () => hall.send("lobby", `with token ${tokens}`));
    hall.join("lobby");
    hall.connect();
    return new Promise((resolve) => {
      const look = () => (said.length === 2 || hall.state === "closed") && resolve({ states, said });
      for (const event of ["message", "state"]) hall.addEventListener(event, look);
    });
})()"#;

#[tokio::test]
async fn whose_token_runs_out_goes_on_at_once_with_another() {
    let secret = "a secret of thirty-two bytes and more";
    let node = Node::start(&["--auth", "jwt", "--jwt-secret", secret, "--jwt-leeway", "0s"]).await;
    let chromium = Chromium::start();
    let zoe = Person::open(&chromium, &format!("http://{}/echo", node.http())).await;
    let went = zoe.evaluate(SIGNED).await;
    assert_eq!(went["said"], json!(["1 zoe: with token 1", "2 zoe: with token 2"]), "{went}");
    assert_eq!(went["states"], json!(["connecting", "open", "connecting", "open"]), "never did it wait: {went}");
}
