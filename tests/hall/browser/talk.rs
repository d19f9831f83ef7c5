//! People who talk, by whatever door.

use crate::harness::{Chromium, Json, Node, Person, Plain};

use super::{Hall, texts};

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
