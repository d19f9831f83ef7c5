//! `townhall chat` at a terminal: what is typed is said or obeyed, and what happens is shown.
//!
//! The screen is taken when the hall has let us in, so that a wrong address or a refused token is one line and nothing else.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::News;
use super::complain;
use super::frames::Refused;
use super::paper::{self, Paper, Whose};
use super::screen::{Input, Known, Looks, Screen};
use super::talk::{End, Happening, Order, Talk};
use super::words::{self, Language};
use crate::names::{DisplayName, RoomName};
use crate::protocol::MAX_LAST;

/// Somebody who types is shown to for so long after the last word of it.
const TYPES_FOR: Duration = Duration::from_secs(5);
/// How long it may take to hear that what was said last is accepted, and to say good-bye.
const GOODBYE: Duration = Duration::from_secs(2);
/// Messages that wait to be accepted; more are not taken.
const MOST_UNSENT: usize = 200;
/// Messages shown by a `/history` without a number.
const PAGE: u64 = 20;

const COMMANDS: [&str; 7] = ["/join", "/leave", "/who", "/nick", "/history", "/help", "/quit"];

/// How a visit is to be.
#[derive(Debug, Clone)]
pub struct Wishes {
    pub room: Option<String>,
    /// Messages to show of what was said before, in every room.
    pub last: u64,
    pub language: Language,
    pub has_token: bool,
    pub colours: bool,
    /// There are rooms to be in several of, history, and who types: not at the line door.
    pub has_events: bool,
}

/// How a visit ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// As was wanted.
    Well,
    /// The hall is lost, or what was said.
    NotWell,
    Terminated,
}

struct Room {
    name: String,
    /// The first offset that was shown.
    oldest: Option<u64>,
    /// Who is here, when that is known: how many and, where not too many, who.
    people: Option<(u64, Vec<String>)>,
    /// It was joined before, on this connection or another.
    joined: bool,
}

pub struct Visit {
    wishes: Wishes,
    talk: Talk,
    screen: Screen,
    paper: Paper,
    rooms: Vec<Room>,
    /// Of `rooms`, where what is typed is said.
    current: usize,
    name: Option<String>,
    unsent: BTreeMap<u64, String>,
    tag: u64,
    /// The room whose older messages are asked for: what is older still is not known before they are there.
    asked_for_older: Option<String>,
    typing: Vec<(String, String, Instant)>,
    offline: bool,
    /// The room that was on screen before the last `/join`.
    before: Option<String>,
    /// Some room has let us in.
    ever_in: bool,
    /// The room on screen is another one, and nobody asked for that: what was being typed was not meant for it.
    moved: bool,
    ended: Option<Ended>,
}

/// Visits the hall until the person leaves, or it is over.
///
/// # Errors
/// The terminal cannot be taken, or no signals be heard of.
pub async fn visit(wishes: Wishes, mut talk: Talk) -> io::Result<Ended> {
    let Some(first) = let_in(&wishes, &mut talk).await else { return Ok(Ended::NotWell) };
    let looks = Looks {
        colours: wishes.colours,
        interrupt_hint: wishes
            .language
            .pick("Ctrl-C again, or quit, leaves", "再按一次 Ctrl-C，或输入 quit，即可离开")
            .into(),
        stumble_hint: wishes
            .language
            .pick(
                "— what was just typed or pasted is no UTF-8, and was left out",
                "— 刚才输入或粘贴的内容不是 UTF-8，已忽略",
            )
            .into(),
        skipped: match wishes.language {
            Language::English => |count| format!("… {count} lines were not shown"),
            Language::Chinese => |count| format!("… {count} 行未显示"),
        },
    };
    let (screen, inputs) = Screen::open(looks)?;
    let visit = Visit {
        paper: Paper::new(wishes.colours),
        talk,
        screen: screen.clone(),
        rooms: Vec::new(),
        current: 0,
        name: None,
        unsent: BTreeMap::new(),
        tag: 0,
        asked_for_older: None,
        typing: Vec::new(),
        offline: false,
        before: None,
        ever_in: false,
        moved: false,
        ended: None,
        wishes,
    };
    let ended = visit.run(first, inputs).await;
    screen.close();
    ended
}

/// Waits to be let in; says why not, if not.
async fn let_in(wishes: &Wishes, talk: &mut Talk) -> Option<Happening> {
    let mut told = String::new();
    loop {
        match talk.happenings.recv().await? {
            Happening::Down(trouble) => {
                let words = words::trying_again(wishes.language, &trouble, wishes.has_token);
                if told != words {
                    complain(&words);
                    told = words;
                }
            }
            Happening::Over(end) => {
                if let End::Trouble(trouble) = end {
                    complain(&words::trouble(wishes.language, &trouble, wishes.has_token));
                }
                return None;
            }
            first => return Some(first),
        }
    }
}

impl Visit {
    async fn run(mut self, first: Happening, mut inputs: mpsc::Receiver<Input>) -> io::Result<Ended> {
        let (mut terminate, mut hang_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
        self.print("connected!");
        self.happened(first);
        while self.ended.is_none() {
            self.show_status();
            let forgotten = self.typing.iter().map(|(_, _, until)| *until).min();
            tokio::select! {
                happening = self.talk.happenings.recv() => match happening {
                    Some(happening) => self.happened(happening),
                    None => self.ended = Some(Ended::NotWell),
                },
                input = inputs.recv() => self.typed(input.unwrap_or(Input::Leave)),
                () = sleep_until(forgotten.unwrap_or_else(Instant::now)), if forgotten.is_some() => self.forget_typing(),
                _ = terminate.recv() => self.ended = Some(Ended::Terminated),
                _ = hang_up.recv() => self.ended = Some(Ended::Terminated),
            }
        }
        Ok(self.leave().await)
    }

    /// Gives the terminal back, and says good-bye to the hall.
    async fn leave(mut self) -> Ended {
        self.screen.close();
        let mut given_up = Vec::new();
        // What was said last may be under way.
        let accepted = async {
            while !(self.offline || self.unsent.is_empty()) {
                match self.talk.happenings.recv().await {
                    Some(Happening::News(News::Accepted { tag, .. })) => drop(self.unsent.remove(&tag)),
                    Some(Happening::News(News::Failed { tag, text, in_doubt, .. })) => {
                        self.unsent.remove(&tag);
                        given_up.push((text, in_doubt));
                    }
                    Some(Happening::Down(_)) | None => break,
                    Some(_) => {}
                }
            }
        };
        let _ = timeout(GOODBYE, accepted).await;
        self.talk.order(Order::Close);
        let goodbye = async {
            while let Some(happening) = self.talk.happenings.recv().await {
                if let Happening::News(News::Failed { tag, text, in_doubt, .. }) = happening {
                    self.unsent.remove(&tag);
                    given_up.push((text, in_doubt));
                }
            }
        };
        let _ = timeout(GOODBYE, goodbye).await;
        given_up.extend(self.unsent.values().map(|text| (text.clone(), true)));
        for (text, in_doubt) in &given_up {
            let text = self.paper.clean(text).replace('\n', " ");
            complain(&format!("{}: {text}", words::unsaid(self.wishes.language, *in_doubt)));
        }
        match self.ended {
            Some(Ended::Well) | None if !given_up.is_empty() => Ended::NotWell,
            ended => ended.unwrap_or(Ended::Well),
        }
    }

    // --- What is typed ---

    fn typed(&mut self, input: Input) {
        match input {
            Input::Leave => self.ended = Some(Ended::Well),
            Input::Typing => {
                if let Some(room) = self.rooms.get(self.current) {
                    self.talk.order(Order::Typing { room: room.name.clone() });
                }
            }
            Input::Line(line) if line.trim() == "quit" => self.ended = Some(Ended::Well),
            Input::Line(line) => match line.strip_prefix('/') {
                Some(text) if text.starts_with('/') => self.say(text.to_owned()),
                Some(command) => self.obey(command.trim()),
                None => self.say(line),
            },
        }
    }

    fn say(&mut self, text: String) {
        let room = match self.rooms.get(self.current) {
            Some(room) => room.name.clone(),
            None if !self.wishes.has_events => String::new(),
            None => return self.in_no_room(),
        };
        if std::mem::take(&mut self.moved) {
            let english = format!("not sent: you are in #{room} now; arrow up and Enter says it here");
            return self.notice(&english, &format!("未发送：你现在在 #{room}；按上箭头再回车，即在此发出"));
        }
        if self.unsent.len() >= MOST_UNSENT {
            return self.notice(
                "too many messages wait to be sent; this one was not taken",
                "等待发送的消息太多；这一条未被接受",
            );
        }
        if self.offline {
            self.dim(&format!("… {}", self.paper.clean(&text).replace('\n', " ")));
        }
        self.tag += 1;
        self.unsent.insert(self.tag, text.clone());
        self.talk.order(Order::Say { room, text, tag: self.tag });
    }

    fn obey(&mut self, command: &str) {
        let (name, rest) = command.split_once(char::is_whitespace).unwrap_or((command, ""));
        let rest = rest.trim();
        match name {
            "join" => self.join(rest),
            "leave" if self.wishes.has_events => self.leave_room(rest),
            "leave" => self
                .notice("at this door one is always in a room; /join another", "此入口总在一个房间内；请 /join 另一个"),
            "who" | "history" if self.rooms.is_empty() && self.wishes.has_events => self.in_no_room(),
            "who" if self.offline => self.notice("not while there is no connection", "当前没有连接"),
            "who" => self.talk.order(Order::Who { room: self.here() }),
            "nick" => self.nick(rest),
            "history" if self.wishes.has_events => self.history(rest),
            "history" => self.notice(
                "this door keeps no history; come in by http:// for that",
                "此入口没有历史消息；请改用 http:// 进入",
            ),
            "help" => self.help(),
            "quit" => self.ended = Some(Ended::Well),
            _ => {
                let name = self.paper.clean(name);
                let english = format!("there is no /{name}; /help lists what there is, and //{name} says it");
                self.notice(&english, &format!("没有 /{name} 命令；/help 列出全部命令，//{name} 则原样发出"));
            }
        }
    }

    fn in_no_room(&self) {
        self.notice("you are in no room; /join one", "你不在任何房间；请用 /join 进入");
    }

    /// The room that is on screen.
    fn here(&self) -> String {
        self.rooms.get(self.current).map_or(String::new(), |room| room.name.clone())
    }

    /// Where we are told by the line door that we are.
    fn at_the_line(&mut self, line: &str) {
        let Some(name) = line.strip_prefix("! room you are in ") else { return };
        self.ever_in = true;
        if let Some(room) = self.room(name) {
            room.joined = true;
            self.before = None;
        }
    }

    fn join(&mut self, name: &str) {
        let Some(name) = RoomName::parse(name.trim_start_matches('#')) else {
            let why = Refused { code: "bad_room".into(), words: String::new() };
            return self.alarm(&words::refused(self.wishes.language, &why));
        };
        // One that has not let us in yet is none to come back to.
        if let Some(room) = self.rooms.get(self.current).filter(|room| room.joined) {
            self.before = Some(room.name.clone());
        }
        self.moved = false;
        if !self.wishes.has_events {
            self.rooms.clear();
        }
        self.enter(name.as_str());
    }

    /// Joins a room, or goes back to it.
    fn enter(&mut self, name: &str) {
        if let Some(index) = self.rooms.iter().position(|room| room.name == name) {
            self.current = index;
            return self.know();
        }
        self.rooms.push(Room { name: name.into(), oldest: None, people: None, joined: false });
        self.current = self.rooms.len() - 1;
        self.talk.order(Order::Join { room: name.into(), last: self.wishes.last });
        self.know();
    }

    fn leave_room(&mut self, name: &str) {
        let name = if name.is_empty() { self.here() } else { name.trim_start_matches('#').to_owned() };
        if !self.forget_room(&name) {
            return self.notice("you are not in that room", "你不在该房间");
        }
        self.talk.order(Order::Leave { room: name.clone() });
        self.notice(&format!("left #{name}"), &format!("已离开 #{name}"));
    }

    /// Whether it was there.
    fn forget_room(&mut self, name: &str) -> bool {
        let Some(index) = self.rooms.iter().position(|room| room.name == name) else { return false };
        self.rooms.remove(index);
        self.asked_for_older.take_if(|room| room == name);
        if self.current >= index {
            self.current = self.current.saturating_sub(1);
        }
        self.know();
        true
    }

    fn nick(&mut self, name: &str) {
        if self.wishes.has_token {
            return self.notice("you are called as your token says", "你的名字由令牌决定");
        }
        match DisplayName::parse(name.trim_start_matches('~')) {
            Some(name) => self.talk.order(Order::Rename { name: name.to_string() }),
            None => self.alarm(self.wishes.language.pick(
                "a name is 1 to 32 characters, has no colon, and begins with none of ! / ~",
                "名字为 1 至 32 个字符，不含冒号，且不以 ! / ~ 开头",
            )),
        }
    }

    fn history(&mut self, count: &str) {
        let limit = if count.is_empty() { Ok(PAGE) } else { count.parse() };
        let Some(limit) = limit.ok().filter(|limit| (1..=MAX_LAST).contains(limit)) else {
            return self.notice("/history takes a number from 1 to 200", "/history 后可跟 1 至 200 的数字");
        };
        if self.offline {
            return self.notice("not while there is no connection", "当前没有连接");
        }
        if self.asked_for_older.is_some() {
            return self.notice("older messages are on their way", "更早的消息正在路上");
        }
        let before = self.rooms.get(self.current).and_then(|room| room.oldest);
        if before == Some(1) {
            return self.nothing_older();
        }
        self.asked_for_older = Some(self.here());
        self.talk.order(Order::History { room: self.here(), before, limit });
    }

    fn nothing_older(&mut self) {
        self.notice("there is nothing older", "没有更早的消息了");
    }

    fn help(&mut self) {
        let text = self.wishes.language.pick(
            "/join ROOM      go to a room, and stay in the others\n\
             /leave [ROOM]   leave it\n\
             /who            who is here\n\
             /nick NAME      be called otherwise\n\
             /history [N]    N older messages (20); again: older ones still\n\
             /quit           leave the hall; so does quit alone\n\
             //x             says /x\n\
             Tab completes commands, rooms and names; arrow up is what you said before",
            "/join 房间      进入房间，其他房间仍保留\n\
             /leave [房间]   离开房间\n\
             /who            谁在这里\n\
             /nick 名字      改名\n\
             /history [N]    更早的 N 条消息（默认 20）；可重复使用\n\
             /quit           离开大厅；单独输入 quit 也可以\n\
             //x             发送 /x\n\
             Tab 补全命令、房间和名字；上箭头为此前的输入",
        );
        self.dim(text);
    }

    // --- What happens ---

    fn happened(&mut self, happening: Happening) {
        match happening {
            Happening::News(news) => self.hear(news),
            Happening::Frame(_) => {}
            Happening::Stuck => self.dim(&format!("— {}", words::stuck(self.wishes.language))),
            Happening::Line(line) => {
                self.at_the_line(&line);
                let line = self.paper.line(&line);
                self.print(&line);
            }
            Happening::AtTheLine => {
                self.ever_in |= self.wishes.room.is_none();
                self.back();
                if let Some(room) = self.wishes.room.clone().filter(|_| self.rooms.is_empty()) {
                    self.enter(&room);
                }
            }
            Happening::Down(trouble) => {
                if !std::mem::replace(&mut self.offline, true) {
                    let why = words::trouble(self.wishes.language, &trouble, self.wishes.has_token);
                    self.notice(&format!("{why}; reconnecting…"), &format!("{why}；正在重新连接……"));
                }
            }
            Happening::NotRenamed(why) => self.alarm(&words::refused(self.wishes.language, &why)),
            Happening::Over(end) => {
                self.screen.close();
                self.ended = Some(Ended::NotWell);
                if let End::Trouble(trouble) = end {
                    complain(&words::trouble(self.wishes.language, &trouble, self.wishes.has_token));
                }
            }
        }
    }

    fn hear(&mut self, news: News) {
        match news {
            News::Welcome { me, rooms } => self.welcome(me.name, rooms),
            News::Joined { room, recovered } => self.joined(&room, recovered),
            News::CaughtUp { .. } => self.back(),
            News::Said { message, own, .. } => {
                self.typing.retain(|(room, name, _)| *room != message.room || *name != message.from.name);
                let called = self.name.as_ref().is_some_and(|name| paper::calls(&message.text, name));
                let whose = if own {
                    Whose::Mine
                } else if called {
                    Whose::ToMe
                } else {
                    Whose::Another
                };
                let shown = self.paper.message(&message, whose, self.rooms.len() > 1);
                self.print(&shown);
                if let Some(room) = self.room(&message.room) {
                    room.oldest.get_or_insert(message.offset);
                }
            }
            News::Lost { room, count } => {
                let english = format!("#{room}: {count} messages are lost here");
                self.alarm(&self.wishes.language.pick(english, format!("#{room}：此处丢失了 {count} 条消息")));
            }
            News::People { room, count, names } => {
                let names = names.iter().map(|name| self.paper.clean(name)).collect();
                if let Some(room) = self.room(&room) {
                    room.people = Some((count, names));
                }
                self.know();
            }
            News::Members { room, count, names } => self.members(&room, count, &names),
            News::History { room, messages, more } => self.older(&room, &messages, more),
            News::Typing { room, name } => {
                self.typing.retain(|(other, another, _)| *other != room || *another != name);
                if self.typing.len() < 100 {
                    self.typing.push((room, name, Instant::now() + TYPES_FOR));
                }
            }
            News::Accepted { tag, .. } => {
                self.unsent.remove(&tag);
            }
            News::Failed { tag, text, why, in_doubt } => {
                self.unsent.remove(&tag);
                let (why, text) = (words::refused(self.wishes.language, &why), self.paper.clean(&text));
                self.alarm(&format!("{}: {why}: {text}", words::unsaid(self.wishes.language, in_doubt)));
            }
            News::Closed { room, why } => self.closed(&room, &why),
            News::Refused(why) => {
                self.asked_for_older = None;
                self.alarm(&words::refused(self.wishes.language, &why));
            }
            News::Left { .. } | News::Leaving { .. } | News::Event => {}
        }
    }

    fn welcome(&mut self, name: String, rooms: Vec<String>) {
        self.asked_for_older = None;
        let before = self.name.replace(name.clone());
        if before.as_ref().is_some_and(|before| *before != name) {
            let name = self.paper.clean(&name);
            self.notice(&format!("you are {name} now"), &format!("你现在叫 {name}"));
        }
        if before.is_none() {
            let room = self.wishes.room.clone().or_else(|| rooms.into_iter().next());
            self.enter(&room.unwrap_or_else(|| "lobby".into()));
        }
    }

    fn joined(&mut self, name: &str, recovered: Option<bool>) {
        let Some(room) = self.room(name) else { return };
        let again = std::mem::replace(&mut room.joined, true);
        if recovered == Some(false) {
            room.oldest = None; // what follows is another log, or another place in it
        }
        self.ever_in = true;
        if self.here() == name {
            self.before = None;
        }
        if !again {
            let me = self.paper.clean(&self.name.clone().unwrap_or_default());
            self.notice(&format!("#{name} as {me}"), &format!("#{name}，你是 {me}"));
        } else if recovered == Some(false) {
            let english = format!("#{name}: some messages before this point may be lost");
            self.alarm(&self.wishes.language.pick(english, format!("#{name}：此处之前的部分消息可能丢失")));
        }
    }

    /// The line is there again.
    fn back(&mut self) {
        if std::mem::replace(&mut self.offline, false) {
            let (english, chinese) = match self.wishes.has_events {
                true => ("reconnected", "已重新连接"),
                false => ("reconnected; what was said meanwhile is not known here", "已重新连接；期间的消息无法得知"),
            };
            self.notice(english, chinese);
        }
    }

    fn members(&mut self, room: &str, count: u64, names: &[String]) {
        let mut names: Vec<String> = names.iter().map(|name| self.paper.clean(name)).collect();
        names.sort();
        let more = count.saturating_sub(names.len() as u64);
        let names = names.join(self.wishes.language.pick(", ", "、"));
        let (english, chinese) = match more {
            0 => (format!("#{room}: {count} here: {names}"), format!("#{room}：{count} 人在此：{names}")),
            _ => (
                format!("#{room}: {count} here: {names} and {more} more"),
                format!("#{room}：{count} 人在此：{names}，另有 {more} 人"),
            ),
        };
        self.notice(&english, &chinese);
    }

    fn older(&mut self, room: &str, messages: &[super::frames::Message], more: bool) {
        self.asked_for_older = None;
        let Some(first) = messages.first() else { return self.nothing_older() };
        let count = messages.len();
        self.notice(&format!("#{room}: {count} older messages"), &format!("#{room}：更早的 {count} 条消息"));
        for message in messages {
            let shown = self.paper.older(message);
            self.print(&shown);
        }
        self.notice("until here", "到此为止");
        if let Some(room) = self.room(room) {
            room.oldest = Some(if more { first.offset } else { 1 });
        }
    }

    fn closed(&mut self, room: &str, why: &Refused) {
        let why = words::refused(self.wishes.language, why);
        let words =
            self.wishes.language.pick(format!("no way into #{room}: {why}"), format!("无法进入 #{room}：{why}"));
        let on_screen = self.here() == room;
        self.forget_room(room);
        if on_screen {
            self.go_back();
            self.moved = !self.here().is_empty();
        }
        if !self.ever_in {
            self.screen.close();
            complain(&words);
            self.ended = Some(Ended::NotWell);
        } else {
            self.alarm(&words);
        }
    }

    /// To the room that was on screen before one that did not let us in: what is typed next is meant for that.
    fn go_back(&mut self) {
        let Some(before) = self.before.take() else { return };
        if let Some(index) = self.rooms.iter().position(|room| room.name == before) {
            self.current = index;
        } else if !self.wishes.has_events {
            self.rooms.push(Room { name: before, oldest: None, people: None, joined: true });
        }
        self.know();
    }

    fn room(&mut self, name: &str) -> Option<&mut Room> {
        self.rooms.iter_mut().find(|room| room.name == name)
    }

    // --- What is shown ---

    fn print(&self, lines: &str) {
        self.screen.print(lines);
    }

    /// Something about the hall, and not from it; but a room's name, or the reason of something, may be a hall's words.
    fn notice(&self, english: &str, chinese: &str) {
        let words = self.paper.clean(self.wishes.language.pick(english, chinese)).replace('\n', " ");
        self.dim(&format!("— {words}"));
    }

    fn dim(&self, lines: &str) {
        self.print(&self.paper.dim(lines));
    }

    /// Something that must not be overlooked.
    fn alarm(&self, words: &str) {
        let words = self.paper.clean(words).replace('\n', " ");
        self.print(&self.paper.alarm(&format!("! {words}")));
    }

    fn know(&self) {
        let names = self.rooms.get(self.current).and_then(|room| room.people.as_ref()).map(|(_, names)| names.clone());
        self.screen.know(Known {
            commands: COMMANDS.map(String::from).to_vec(),
            rooms: self.rooms.iter().map(|room| room.name.clone()).collect(),
            names: names.unwrap_or_default(),
        });
    }

    fn forget_typing(&mut self) {
        let now = Instant::now();
        self.typing.retain(|(_, _, until)| *until > now);
    }

    fn show_status(&self) {
        let language = self.wishes.language;
        let mut parts = Vec::new();
        let others: Vec<_> = (0..).zip(&self.rooms).filter(|(index, _)| *index != self.current).collect();
        if let Some(room) = self.rooms.get(self.current) {
            parts.push(format!("#{}", room.name));
        }
        if self.offline {
            parts.push(language.pick("offline", "离线").into());
        } else if let Some((count, _)) = self.rooms.get(self.current).and_then(|room| room.people.as_ref()) {
            parts.push(language.pick(format!("{count} here"), format!("{count} 人在此")));
        }
        match self.unsent.len() {
            0 => {}
            count => parts.push(language.pick(format!("{count} unsent"), format!("{count} 条未发送"))),
        }
        parts.extend(self.who_types());
        // Last, since it may be cut off.
        if !others.is_empty() {
            let others: Vec<String> = others.iter().map(|(_, room)| format!("#{}", room.name)).collect();
            parts.push(format!("({})", others.join(" ")));
        }
        self.screen.status(&parts.join(" · "));
    }

    /// In the room on screen.
    fn who_types(&self) -> Option<String> {
        let here = self.here();
        let names: Vec<String> =
            self.typing.iter().filter(|(room, ..)| *room == here).map(|(_, name, _)| self.paper.clean(name)).collect();
        let (english, chinese) = match names.as_slice() {
            [] => return None,
            [name] => (format!("{name} is typing…"), format!("{name} 正在输入……")),
            [one, other] => (format!("{one} and {other} are typing…"), format!("{one} 和 {other} 正在输入……")),
            _ => ("several people are typing…".into(), "多人正在输入……".into()),
        };
        Some(self.wishes.language.pick(english, chinese))
    }
}
