//! Frames never tear, however they are read, and whatever else is going on.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Dice, Json, Node};

const ROOMS: u64 = 32;
const TALKERS: u64 = 2;
/// What a talker says at least, and how often the reader says nothing until it is pinged.
const SAYS: u64 = 500;
const RESTS: u32 = 3;

fn room(number: u64) -> String {
    format!("room-{number}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_client_in_32_rooms_that_reads_in_fits_and_starts_gets_whole_frames_all_replies_and_every_room_in_order() {
    let seed: u64 = rand::random();
    println!("seed {seed}"); // shown when it fails
    let options = ["--rate", "0", "--beat", "3s", "--room-window-messages", "8", "--write-timeout", "0"];
    let node = Node::start(&options).await;
    let mut reader = Json::connect_fitful(&node.ws_url(), "?name=reader", seed).await;
    for number in 0..ROOMS {
        reader.join(&room(number)).await;
    }
    let enough = Arc::new(AtomicBool::new(false));
    let talk = |number| tokio::spawn(talk(node.ws_url(), seed ^ number, enough.clone()));
    let talking: Vec<_> = (1..=TALKERS).map(talk).collect();

    let mut dice = Dice::new(seed);
    let mut asked = Asked::default();
    for _ in 0..RESTS {
        for _ in 0..40 {
            asked.ask(&mut reader, &mut dice).await;
            asked.read(&mut reader, dice.roll(20)).await;
        }
        let pings = reader.pings();
        while reader.pings() == pings {
            asked.read(&mut reader, 1).await;
        }
    }
    enough.store(true, Ordering::Release);
    let mut heads: HashMap<String, u64> = HashMap::new();
    for talker in talking {
        for (room, offset) in talker.await.expect("the talkers hear each other") {
            let head = heads.entry(room).or_default();
            *head = offset.max(*head);
        }
    }
    for number in 0..ROOMS {
        asked.ask(&mut reader, &mut dice).await;
        let head = heads.get(&room(number)).copied().unwrap_or_default();
        while reader.position(&room(number)).offset < head {
            asked.read(&mut reader, 1).await;
        }
    }
    while !asked.open.is_empty() {
        asked.read(&mut reader, 1).await;
    }
    // The harness checks that every event is whole and the next one of its room; and here that nothing was left out.
    for number in 0..ROOMS {
        let view = reader.view(&room(number));
        assert!(view.gaps.is_empty(), "{:?}", view.gaps);
        assert_eq!(view.messages.len() as u64, view.position.offset, "{}", room(number));
    }
    for (id, room, text) in &asked.said {
        let message = reader.hear(room, text).await;
        assert_eq!(message["id"], id.to_string());
        assert_eq!(reader.accepted[id][0].offset, message["offset"].as_u64().expect("an offset"));
    }
}

/// What the reader wants to know, and what it was told.
#[derive(Default)]
struct Asked {
    count: u64,
    /// Asked and not answered.
    open: HashSet<u64>,
    said: Vec<(Uuid, String, String)>,
}

impl Asked {
    async fn ask(&mut self, reader: &mut Json, dice: &mut Dice) {
        self.count += 1;
        let room = room(dice.roll(ROOMS));
        let mut command = match dice.roll(5) {
            0 => json!({"type": "history", "room": room, "limit": 1 + dice.roll(60)}),
            1 => json!({"type": "dance", "room": room}),
            2 => json!({"type": "say", "room": "not-joined", "id": Uuid::new_v4(), "text": "x"}),
            _ => {
                let (id, text) = (Uuid::new_v4(), format!("the reader's {}", self.count));
                self.said.push((id, room.clone(), text.clone()));
                json!({"type": "say", "room": room, "id": id, "text": text})
            }
        };
        command["ref"] = self.count.into();
        self.open.insert(self.count);
        reader.send(command).await;
    }

    /// Reads so many events.
    async fn read(&mut self, reader: &mut Json, events: u64) {
        for _ in 0..events {
            let event = reader.next_with_beats().await;
            if let Some(reference) = event["ref"].as_u64() {
                assert!(self.open.remove(&reference), "answered twice, or never asked: {event}");
                check_answer(&event);
            }
        }
    }
}

fn check_answer(event: &Value) {
    match event["type"].as_str() {
        Some("accepted") => {}
        Some("error") => assert!(event["code"] == "unknown_type" || event["code"] == "not_joined", "{event}"),
        Some("history") => {
            let messages = event["messages"].as_array().expect("messages");
            let offsets: Vec<u64> = messages.iter().map(|message| message["offset"].as_u64().expect("one")).collect();
            assert!(offsets.is_sorted_by(|one, next| one + 1 == *next), "{offsets:?}");
        }
        _ => panic!("no answer: {event}"),
    }
}

/// Says texts of all lengths in all rooms until it is enough; the newest offset of each room in which it spoke.
async fn talk(url: String, seed: u64, enough: Arc<AtomicBool>) -> HashMap<String, u64> {
    let mut dice = Dice::new(seed);
    let mut talker = Json::connect(&url, "?name=talker").await;
    for number in 0..ROOMS {
        talker.join(&room(number)).await;
    }
    let mut heads = HashMap::new();
    let mut number = 0;
    while number < SAYS || !enough.load(Ordering::Acquire) {
        number += 1;
        let room = room(dice.roll(ROOMS));
        let length = match dice.roll(4) {
            0 => dice.roll(10),
            1..=2 => dice.roll(500),
            _ => dice.roll(4_000),
        };
        let accepted = talker.said(&room, &format!("{number} {}", "x".repeat(length as usize))).await;
        heads.insert(room, accepted.offset);
        tokio::time::sleep(Duration::from_millis(dice.roll(5))).await; // slower than it could, faster than it is read
    }
    heads
}
