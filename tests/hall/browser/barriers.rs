//! Who does not see, or not well, has no mouse, a small screen, or gets ill from things that move, can use the page, too.

use serde_json::json;

use crate::harness::{Chromium, Json, Node, Person, wait_until};

use super::{logins, numbered, page, say_all, texts};

const NARROW: (u32, u32) = (360, 740);
const WIDE: (u32, u32) = (1440, 900);

/// A hall in which much has been said; the reader of the page cannot speak, so that what they say fails.
struct Busy {
    node: Node,
    speaker: Json,
}

impl Busy {
    async fn begin() -> Busy {
        let node = logins::hall(&["--rate", "0"]).await;
        let speaker = token("1", "Speaker with a name as long as can", "member");
        let mut speaker = Json::connect(&node.ws_url(), &format!("?token={speaker}")).await;
        for room in ["lobby", "garden", "empty"] {
            speaker.join(room).await;
        }
        let code = format!("```js\nconst line = \"{}\";\n```", "wide ".repeat(60));
        let link = format!("see https://example.org/{} and `code`, @Reader", "long".repeat(60));
        let word = "Donaudampfschifffahrtsgesellschaft".repeat(8);
        say_all(
            &mut speaker,
            "lobby",
            &[texts(&["hello", "你好，大厅", "🎉", &code, &link, &word]), numbered("more", 30)].concat(),
        )
        .await;
        say_all(&mut speaker, "garden", &numbered("in the garden", 3)).await;
        Busy { node, speaker }
    }

    fn address(&self, room: &str) -> String {
        page(&self.node, &format!("?token={}#{room}", token("2", "Reader", "reader")))
    }
}

fn token(sub: &str, name: &str, role: &str) -> String {
    logins::token(logins::SECRET, &json!({"sub": sub, "name": name, "role": role}))
}

/// What axe finds in everything that the page can be.
async fn hindrances(
    busy: &mut Busy,
    chromium: &std::sync::Arc<std::sync::Mutex<Chromium>>,
    like: serde_json::Value,
) -> Vec<String> {
    let mut found = Vec::new();
    let narrow = like["viewport"]["width"] == NARROW.0;
    let person = Person::open_like(chromium, &busy.address("empty"), &like).await;
    person.wait_connected().await;
    person.wait_sees("#empty").await;
    let mut judge = async |person: &Person, what: &str| {
        let these = person.hindrances().await;
        found.extend(these.into_iter().map(|hindrance| format!("{what}, {like}: {hindrance}")));
    };
    judge(&person, "an empty room").await;

    person.evaluate("location.hash = '#lobby'").await;
    person.wait_count("#view .message", 36).await;
    person.evaluate("location.hash = '#garden'").await;
    person.wait_count("#view .message", 3).await;
    busy.speaker.said("lobby", "unread").await;
    person.evaluate("location.hash = '#lobby'").await;
    person.wait_count("#view .unread", 1).await;
    busy.speaker.said("garden", "unread there").await;
    person.say("may I?").await;
    person.wait_count("#view .failed", 1).await;
    busy.speaker.send(json!({"type": "typing", "room": "lobby"})).await;
    wait_until("somebody types", async || !person.read("#typing").await[0].is_empty()).await;
    person.hover("#view .message >> nth=-2").await;
    judge(&person, "a busy room and a message that failed").await;
    person.click("#emoji").await;
    person.wait_sees("#picker").await;
    judge(&person, "emoji").await;
    person.keys(&["Escape"]).await;
    person.wheel("#view", -100_000).await;
    person.wait_sees("#newest").await;
    judge(&person, "the way back").await;
    if narrow {
        for (opener, pane) in [("#menu", "#side"), ("#here", "#people")] {
            person.click(opener).await;
            person.wait_sees(pane).await;
            judge(&person, pane).await;
            person.keys(&["Escape"]).await;
            person.wait_sees_no(pane).await;
        }
    }
    busy.speaker.said("lobby", "one more").await;
    person.close().await;
    found
}

/// In one colour scheme; the other's test runs beside it.
async fn assert_unhindered(scheme: &str) {
    let chromium = Chromium::start();
    let mut busy = Busy::begin().await;
    let mut found = Vec::new();
    for (width, height) in [NARROW, WIDE] {
        for locale in ["en-US", "zh-CN"] {
            let viewport = json!({"width": width, "height": height});
            let like =
                json!({"locale": locale, "colorScheme": scheme, "viewport": viewport, "reducedMotion": "reduce"});
            found.extend(hindrances(&mut busy, &chromium, like).await);
            busy = Busy::begin().await;
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n\n"));
}

#[tokio::test]
async fn nothing_hinders_in_light_colours() {
    assert_unhindered("light").await;
}

#[tokio::test]
async fn nothing_hinders_in_dark_colours() {
    assert_unhindered("dark").await;
}

#[tokio::test]
async fn nothing_hinders_where_one_has_to_log_in_or_has_no_line() {
    let mut busy = Busy::begin().await;
    let chromium = Chromium::start();
    let still = json!({"reducedMotion": "reduce"});
    let stranger = Person::open_like(&chromium, &page(&busy.node, ""), &still).await;
    stranger.wait_sees("#login").await;
    assert_eq!(stranger.hindrances().await, Vec::<String>::new());
    let reader = Person::open_like(&chromium, &busy.address("garden"), &still).await;
    reader.wait_count("#view .message", 3).await;
    busy.node.kill();
    wait_until("it is offline", async || reader.state().await == "offline").await;
    assert_eq!(reader.hindrances().await, Vec::<String>::new());
}

/// Where the focus is: itself, whether it is somewhere at all, and whether one can see it there.
const FOCUS: &str = r#"((selector) => {
    const element = document.activeElement;
    const box = element.getBoundingClientRect();
    // What one writes in is outlined together with what belongs to it.
    const outlined = [element, element.closest("form")].filter(Boolean).map((each) => getComputedStyle(each));
    const drawn = outlined.some(({ outlineStyle, outlineWidth }) => outlineStyle !== "none" && parseFloat(outlineWidth) > 0);
    const inside = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
    return {
        is: `${element.tagName}#${element.id}.${element.className}`,
        lost: element === document.body || element === document.documentElement,
        visible: drawn && inside && box.width > 0,
        there: element.matches(selector),
    };
})"#;

/// Presses a key until the focus is at `selector`; on the way it is never lost, and always to be seen.
async fn go(person: &Person, key: &str, selector: &str) {
    let script = format!("{FOCUS}({})", json!(selector));
    let mut way = Vec::new();
    for _ in 0..80 {
        person.keys(&[key]).await;
        let focus = person.evaluate(&script).await;
        way.push(focus["is"].as_str().unwrap_or_default().to_owned());
        assert_eq!(focus["lost"], false, "the focus is lost on the way to {selector}: {way:?}");
        assert_eq!(focus["visible"], true, "the focus cannot be seen: {focus} on the way {way:?}");
        if focus["there"] == true {
            return;
        }
    }
    panic!("no way by {key} to {selector}: {way:?}");
}

async fn assert_focus(person: &Person, selector: &str) {
    let script = format!("{FOCUS}({})", json!(selector));
    let mut focus = json!(null);
    let there = async || {
        focus = person.evaluate(&script).await;
        focus["there"] == true && focus["visible"] == true
    };
    wait_until(&format!("the focus is at {selector}, to be seen"), there).await;
}

#[tokio::test]
async fn the_keyboard_alone_does_everything() {
    let node = Node::start(&["--rate", "0"]).await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    script.join("garden").await;
    say_all(&mut script, "garden", &numbered("number", 80)).await;
    let like =
        json!({"permissions": ["clipboard-read", "clipboard-write"], "viewport": {"width": WIDE.0, "height": WIDE.1}});
    let person = Person::open_like(&Chromium::start(), &page(&node, ""), &like).await;
    person.wait_connected().await;

    // To another room, and who one is.
    go(&person, "Tab", "#other").await;
    person.type_in("garden").await;
    person.keys(&["Enter"]).await;
    person.wait_read("#room", &texts(&["garden"])).await;
    person.wait_count("#view .message", 50).await;
    go(&person, "Tab", "#name").await;
    person.type_in("ada").await;
    person.keys(&["Enter"]).await;
    person.wait_connected().await;
    assert_focus(&person, "#text").await;
    person.type_in("by keys").await;
    person.keys(&["Enter"]).await;
    script.hear("garden", "by keys").await;
    person.wait_count("#view .message.own", 1).await;
    assert_focus(&person, "#text").await;

    // Older messages, and one of them to the clipboard.
    go(&person, "Shift+Tab", ".message").await;
    go(&person, "ArrowUp", ".message[data-offset='78']").await;
    go(&person, "Home", ".message:not([data-offset='78'])").await;
    go(&person, "ArrowUp", ".message[data-offset='1']").await;
    go(&person, "ArrowDown", ".message[data-offset='2']").await;
    go(&person, "Tab", ".copy").await;
    person.keys(&["Enter"]).await;
    person.wait("it is on the clipboard", "navigator.clipboard.readText().then((text) => text === 'number 2')").await;
    assert_focus(&person, ".copy").await;
    person.keys(&["Escape"]).await;
    assert_focus(&person, "#text").await;

    // The newest, the emoji, the language.
    go(&person, "Shift+Tab", "#newest").await;
    person.keys(&["Enter"]).await;
    person.wait_sees_no("#newest").await;
    person.wait("the focus is not lost", "document.activeElement !== document.body").await;
    go(&person, "Tab", "#emoji").await;
    person.keys(&["Enter"]).await;
    assert_focus(&person, "#picker button").await;
    go(&person, "ArrowRight", "#picker button:nth-child(2)").await;
    person.keys(&["Escape"]).await;
    person.wait_sees_no("#picker").await;
    assert_focus(&person, "#emoji").await;
    go(&person, "Shift+Tab", "#language").await;
    person.keys(&["Enter"]).await;
    wait_until("it is a Chinese page", async || person.attribute("html", "lang").await == "zh-CN").await;
    assert_focus(&person, "#language").await;

    // Who is here, away and back.
    go(&person, "Tab", "#here").await;
    for shown in [false, true] {
        person.keys(&["Enter"]).await;
        wait_until("people come and go", async || person.sees("#people").await == shown).await;
        assert_eq!(person.attribute("#here", "aria-expanded").await, shown.to_string());
        assert_focus(&person, "#here").await;
    }
    // Back to the first room by its link.
    go(&person, "Shift+Tab", "#rooms a[href='#lobby']").await;
    person.keys(&["Enter"]).await;
    person.wait_read("#room", &texts(&["lobby"])).await;
    person.wait("the focus is not lost", "document.activeElement !== document.body").await;
    person.assert_content().await;
}

#[tokio::test]
async fn a_message_that_failed_is_retried_and_discarded_by_keys() {
    let busy = Busy::begin().await;
    let person = Person::open(&Chromium::start(), &busy.address("garden")).await;
    person.wait_count("#view .message", 3).await;
    go(&person, "Tab", "#text").await;
    person.type_in("may I?").await;
    person.keys(&["Enter"]).await;
    person.wait_count("#unsent .failed", 1).await;
    let says = async || person.sent().await.iter().filter(|sent| sent["type"] == "say").count();
    assert_eq!(says().await, 1);
    go(&person, "Shift+Tab", ".retry").await;
    person.evaluate("document.activeElement.dataset.first = ''").await;
    person.keys(&["Enter"]).await;
    wait_until("it was said again", async || says().await == 2).await;
    person.wait_count("#unsent .failed .retry:not([data-first])", 1).await; // and refused again
    person.wait("the focus is not lost", "document.activeElement !== document.body").await;
    if person.evaluate("document.activeElement.matches('#text')").await == true {
        go(&person, "Shift+Tab", ".discard").await;
    } else {
        go(&person, "Tab", ".discard").await;
    }
    person.keys(&["Enter"]).await;
    person.wait_count("#unsent .message", 0).await;
    assert_focus(&person, "#text").await;
}

#[tokio::test]
async fn on_a_small_screen_the_drawers_open_close_and_keep_the_focus() {
    let node = Node::start(&[]).await;
    let like = json!({"viewport": {"width": NARROW.0, "height": NARROW.1}});
    let person = Person::open_like(&Chromium::start(), &page(&node, "#garden"), &like).await;
    person.wait_connected().await;
    for (opener, pane) in [("#menu", "#side"), ("#here", "#people")] {
        assert!(!person.sees(pane).await, "{pane} is away");
        person.evaluate("document.activeElement.blur()").await;
        go(&person, "Tab", opener).await;
        person.keys(&["Enter"]).await;
        person.wait_sees(pane).await;
        assert_eq!(person.attribute(opener, "aria-expanded").await, "true");
        // Whoever goes on stays within.
        assert_focus(&person, &format!("{pane} *")).await;
        for _ in 0..12 {
            person.keys(&["Tab"]).await;
            let outside =
                format!("document.activeElement !== document.body && !document.activeElement.closest('{pane}')");
            assert_eq!(person.evaluate(&outside).await, false);
        }
        person.keys(&["Escape"]).await;
        person.wait_sees_no(pane).await;
        assert_eq!(person.attribute(opener, "aria-expanded").await, "false");
        assert_focus(&person, opener).await;
    }
    // A room that is chosen in the drawer closes it.
    person.click("#menu").await;
    person.click("#rooms a[href='#lobby']").await;
    person.wait_read("#room", &texts(&["lobby"])).await;
    person.wait_sees_no("#side").await;
    // A tap beside it, too.
    person.click("#menu").await;
    person.wait_sees("#side").await;
    person.act(json!({"action": "tap", "x": NARROW.0 - 5, "y": NARROW.1 / 2})).await;
    person.wait_sees_no("#side").await;
    person.say("it still works").await;
    person.wait_messages(&texts(&["it still works"])).await;
    person.assert_content().await;
}

/// Whatever is to be used and cannot be reached, since it is outside of the screen, or wider.
const OUTSIDE: &str = r##"(() => {
    const outside = [];
    const { scrollWidth, scrollHeight } = document.scrollingElement;
    if (scrollWidth > innerWidth) outside.push(`the page is ${scrollWidth} wide`);
    if (scrollHeight > innerHeight) outside.push(`the page is ${scrollHeight} high`);
    const view = document.querySelector("#view");
    if (view.scrollWidth > view.clientWidth) outside.push(`the view is ${view.scrollWidth} wide`);
    for (const element of document.querySelectorAll("button, input, textarea, a, .message, .text, h1")) {
        if (!element.checkVisibility({ visibilityProperty: true }) || element.closest("[inert], pre")) continue;
        const { left, right, top, bottom, width } = element.getBoundingClientRect();
        if (element.tagName === "A" && element.closest(".text")) continue;
        const scrolled = element.closest("#view, #picker, .pane");
        const sideways = left < -1 || right > innerWidth + 1;
        const away = !scrolled && (top < -1 || bottom > innerHeight + 1);
        if (width > 0 && element.id !== "skip" && (sideways || away)) {
            outside.push(`${element.tagName}#${element.id}.${element.className}: ${[left, right, top, bottom]}`);
        }
    }
    return outside;
})()"##;

#[tokio::test]
async fn on_the_smallest_screen_everything_is_in_reach_and_nothing_scrolls_sideways() {
    let mut busy = Busy::begin().await;
    let chromium = Chromium::start();
    for locale in ["en-US", "zh-CN"] {
        let like = json!({"locale": locale, "viewport": {"width": 320, "height": 480}, "reducedMotion": "reduce"});
        let person = Person::open_like(&chromium, &busy.address("garden"), &like).await;
        person.wait_count("#view .message", 3).await;
        person.evaluate("location.hash = '#lobby'").await;
        person.wait("the room is there", "document.querySelectorAll('#view .message').length > 30").await;
        person.say("may I?").await;
        person.wait_count("#view .failed", 1).await;
        assert_eq!(person.evaluate(OUTSIDE).await, json!([]));
        person.wheel("#view", -100_000).await;
        person.wait_sees("#newest").await;
        person.hover("#view .message >> nth=0").await;
        assert_eq!(person.evaluate(OUTSIDE).await, json!([]));
        for (opener, shown) in [("#menu", "#side"), ("#here", "#people"), ("#emoji", "#picker")] {
            person.click(opener).await;
            person.wait_sees(shown).await;
            assert_eq!(person.evaluate(OUTSIDE).await, json!([]), "{shown}");
            person.keys(&["Escape"]).await;
            person.wait_sees_no(shown).await;
        }
        person.fill("#text", &"many words ".repeat(80)).await;
        assert_eq!(person.evaluate(OUTSIDE).await, json!([]), "much to say");
        person.close().await;
        busy = Busy::begin().await;
    }
}

#[tokio::test]
async fn nothing_moves_for_those_who_do_not_want_it() {
    let node = Node::start(&[]).await;
    let mut script = Json::connect(&node.ws_url(), "?name=script").await;
    script.join("lobby").await;
    let viewport = json!({"width": NARROW.0, "height": NARROW.1});
    let chromium = Chromium::start();
    // Every animation and transition that ever began and takes any time, by what moves.
    let watch =
        "globalThis.moved = []; for (const type of ['animationstart', 'transitionrun']) addEventListener(type, () => {
        for (const animation of document.getAnimations()) {
            const { duration, delay } = animation.effect.getComputedTiming();
            if (duration + delay > 10) moved.push(`${animation.effect.target.id}.${animation.effect.target.className}`);
        } }, true); 0";
    let moved = async |motion: &str, script: &mut Json| {
        let like = json!({"viewport": viewport, "reducedMotion": motion});
        let person = Person::open_like(&chromium, &page(&node, ""), &like).await;
        person.wait_connected().await;
        person.evaluate(watch).await;
        for (opener, pane) in [("#menu", "#side"), ("#here", "#people"), ("#emoji", "#picker")] {
            person.click(opener).await;
            person.wait_sees(pane).await;
            person.keys(&["Escape"]).await;
            person.wait_sees_no(pane).await;
        }
        let before = person.count("#view .message").await;
        script.said("lobby", "something new").await;
        person.wait_count("#view .message", before + 1).await;
        person.hover("#view .message >> nth=0").await;
        person.say("something own").await;
        person.wait_count("#view .message", before + 2).await;
        person
            .evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(moved))))")
            .await
    };
    let without = moved("reduce", &mut script).await;
    assert_eq!(without, json!([]));
    let with = moved("no-preference", &mut script).await;
    assert_ne!(with, json!([]), "for others something does, so that what is looked for can be found");
}
