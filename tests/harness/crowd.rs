//! Faithful clients who talk all the time, whatever happens meanwhile, and what must be true of them afterwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::interval;
use uuid::Uuid;

use super::{Faithful, Json, Node, Position, wait_until};

pub struct Crowd {
    pub clients: Vec<Faithful>,
    pub room: String,
    urls: Vec<String>,
    talk: Option<Talk>,
    /// What each of them has said in talks that are over.
    said: usize,
}

struct Talk {
    stop: Arc<AtomicBool>,
    /// How many rounds, in each of which everybody said something.
    rounds: JoinHandle<usize>,
}

impl Crowd {
    /// So many clients in a room, spread over these nodes; another one is the next that each goes to.
    pub async fn gather(count: usize, nodes: &[Node], room: &str) -> Crowd {
        let urls: Vec<String> = nodes.iter().map(Node::ws_url).collect();
        let clients = Faithful::join_many(count, &urls, room).await;
        Crowd { clients, room: room.into(), urls, talk: None, said: 0 }
    }

    /// From now on each of them says something every so often.
    pub fn talk(&mut self, every: Duration) {
        assert!(self.talk.is_none(), "they talk already");
        let stop = Arc::new(AtomicBool::new(false));
        let speakers: Vec<_> = self.clients.iter().map(Faithful::speaker).collect();
        let (stopped, already) = (stop.clone(), self.said);
        let rounds = tokio::spawn(async move {
            let mut pace = interval(every);
            let mut rounds = 0;
            while !stopped.load(Ordering::Relaxed) {
                pace.tick().await;
                rounds += 1;
                speakers.iter().for_each(|say| say(format!("message {}", already + rounds)));
            }
            rounds
        });
        self.talk = Some(Talk { stop, rounds });
    }

    /// Waits until everybody has heard so many more messages than now: all is well.
    pub async fn hear_more(&self, count: u64) {
        let goals: Vec<u64> = self.clients.iter().map(|client| client.offset() + count).collect();
        for (client, goal) in self.clients.iter().zip(goals) {
            client.wait_reached(goal).await;
        }
    }

    /// Waits until some of them were told to try again: something is wrong, and was noticed.
    pub async fn notice(&self, code: &str) {
        let told = |client: &Faithful| client.record().errors.contains_key(code);
        wait_until(&format!("somebody is told {code}"), async || self.clients.iter().any(told)).await;
    }

    /// They stop, and all that they have said is accepted; how many messages that were in all.
    pub async fn hush(&mut self) -> usize {
        if let Some(talk) = self.talk.take() {
            talk.stop.store(true, Ordering::Relaxed);
            self.said += talk.rounds.await.expect("they talk to the end");
        }
        for client in &self.clients {
            client.wait_accepted(self.said).await;
        }
        self.said * self.clients.len()
    }

    /// Hushes them. Nothing was lost or doubled, and nobody was ever told that it might be.
    pub async fn assert_one_room(&mut self) -> usize {
        let total = self.hush().await;
        for client in &self.clients {
            client.wait_reached(total as u64).await;
        }
        Faithful::assert_one_room(&self.clients, total);
        self.assert_all_here().await;
        total
    }

    /// Hushes them. What was lost was told; how many accepted messages that are, and how many clients had a break.
    pub async fn assert_all_told(&mut self) -> (usize, usize) {
        self.hush().await;
        let room = loop {
            let room = whole_room(&self.urls, &self.room).await;
            for client in &self.clients {
                client.wait_reached(room.len() as u64).await;
            }
            // The node that was asked may have been a little behind.
            if self.clients.iter().all(|client| client.offset() == room.len() as u64) {
                break room;
            }
        };
        let lost = Faithful::assert_all_told(&self.clients, &room);
        self.assert_all_here().await;
        let broken = self.clients.iter().filter(|client| client.record().breaks > 0);
        (lost, broken.count())
    }

    /// Every node says that all of them are here; and if none of them ever had to come back, nobody was told that one left.
    async fn assert_all_here(&self) {
        let expected = self.clients.iter().map(Faithful::name);
        let expected: Vec<&str> = expected.collect();
        for url in &self.urls {
            let Ok(mut asking) = Json::try_connect(url, "?name=asking").await else { continue };
            asking.join_last(&self.room, 0).await;
            wait_until(&format!("{url} says that all are here"), async || {
                let here = asking.who(&self.room).await;
                expected.iter().all(|name| here.iter().any(|one| one == name))
            })
            .await;
        }
        if self.connections() == self.clients.len() {
            for client in &self.clients {
                let record = client.record();
                let left = record.told_left.iter().find(|left| expected.contains(&left.as_str()));
                assert_eq!(left, None, "{} was told so", client.name());
            }
        }
    }

    /// How many connections they have had in all, which is one each if nobody ever had to come back.
    pub fn connections(&self) -> usize {
        self.clients.iter().map(|client| client.record().connections).sum()
    }
}

/// Everything that a room has, as a newcomer gets it from the first node that has it.
async fn whole_room(urls: &[String], room: &str) -> Vec<(u64, Uuid)> {
    for url in urls {
        let Ok(mut reader) = Json::try_connect(url, "?name=reader").await else { continue };
        let joined = reader.resume(room, &Position::new("", 0)).await;
        assert_eq!(joined["recovered"], true, "its first message is there: {joined}");
        reader.reach(room, Position::of(&joined).offset).await;
        let offset_and_id = |message: &serde_json::Value| {
            let id = message["id"].as_str().and_then(|id| id.parse().ok());
            Some((message["offset"].as_u64()?, id?))
        };
        let messages = reader.view(room).messages.iter().map(offset_and_id);
        return messages.map(|message| message.expect("a message with offset and id")).collect();
    }
    panic!("no node takes a reader");
}
