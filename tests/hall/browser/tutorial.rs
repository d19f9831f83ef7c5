//! The tutorial's pages, as they were.

use crate::harness::{Chromium, Nginx, NginxKind, Node, Person};

use super::{Hall, texts};

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
