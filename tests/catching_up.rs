//! Pages of a real Redis' history, which clients catch up from: shared while they are read, and never in anybody's way.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use townhall::broker::redis::RedisBroker;
use townhall::broker::{Broker, FeedReceiver, History, Publication, Range, feed};
use townhall::config::{HistorySettings, RedisSettings};
use townhall::encoding::Encoding;
use townhall::log::Window;
use townhall::names::{RoomName, UserId};
use townhall::pages::{Page, Pages};
use townhall::position::Offset;
use townhall::room::{Budget, Progress, Room};
use uuid::Uuid;

#[path = "harness/redis.rs"]
mod redis;
use redis::RedisServer;

/// How long anything is waited for that must come.
const PATIENCE: Duration = Duration::from_secs(20);
/// Offsets in a page.
const PAGE: Offset = 256;
/// As many pages are read at the same time.
const IN_FLIGHT: Offset = 4;

#[tokio::test]
async fn readers_who_go_away_keep_no_place_in_the_queue_for_pages() {
    let redis = RedisServer::start();
    let node = Node::on(&redis).await;
    node.fill((IN_FLIGHT + 1) * PAGE).await;
    let room = node.room().await;
    redis.pause();
    for number in 0..IN_FLIGHT {
        // It has asked Redis, and is gone before the answer comes.
        assert!(node.pages.after(&room, number * PAGE).now_or_never().is_none());
    }
    redis.resume();
    let page = node.page(&room, IN_FLIGHT * PAGE).await;
    assert!(page.after(IN_FLIGHT * PAGE, Encoding::Json).is_some());
}

#[tokio::test]
async fn a_room_that_is_opened_anew_is_not_served_from_pages_of_an_epoch_before() {
    let mut redis = RedisServer::start();
    let node = Node::on(&redis).await;
    node.fill(PAGE).await;
    let before = node.room().await;
    assert_eq!(node.page(&before, 0).await.epoch, before.lineage().epoch);
    redis.restart_empty();
    node.fill(PAGE).await;
    let anew = node.room().await;
    assert_ne!(anew.lineage().epoch, before.lineage().epoch);
    assert_eq!(node.page(&anew, 0).await.epoch, anew.lineage().epoch);
}

#[tokio::test]
async fn a_page_that_helps_nobody_is_read_once_more_for_all_and_not_by_each() {
    let redis = RedisServer::start();
    let node = Node::on(&redis).await;
    node.fill(PAGE).await;
    let room = node.room().await;
    let head = room.head();
    let calls = || {
        let stats = redis.cli(&["INFO", "commandstats"]);
        let calls = stats.split("cmdstat_fcall:calls=").nth(1).and_then(|rest| rest.split(',').next()?.parse().ok());
        calls.unwrap_or(0u32)
    };
    let before = calls();
    redis.pause();
    let mut readers: Vec<_> = (0..50).map(|_| Box::pin(node.pages.after(&room, head))).collect();
    for reader in &mut readers {
        assert!(reader.as_mut().now_or_never().is_none(), "all of them wait for one answer");
    }
    redis.resume();
    for read in tokio::time::timeout(PATIENCE, join_all(readers)).await.expect("answers") {
        assert!(read.expect("a page").after(head, Encoding::Json).is_none());
    }
    let asked = calls() - before;
    assert!(asked <= 2, "Redis was asked {asked} times");
}

/// As much of a node as reads pages.
struct Node {
    broker: Arc<RedisBroker>,
    pages: Pages,
    _feed: FeedReceiver,
}

impl Node {
    async fn on(redis: &RedisServer) -> Node {
        let settings = RedisSettings::new(redis.url().parse().expect("a URL"));
        let (feed, receiver) = feed();
        let broker = RedisBroker::open(&settings, &HistorySettings::default(), feed).await;
        let broker = Arc::new(broker.expect("Redis takes us"));
        Node { pages: Pages::new(broker.clone()), broker, _feed: receiver }
    }

    /// Publishes until the lobby has so many messages.
    async fn fill(&self, messages: Offset) {
        while self.history(0).await.head.offset < messages {
            let event = Bytes::from_static(br#"{"type":"message","from":{"id":"u","name":"zoe"},"text":"x"}"#);
            let user = UserId::new("u".into());
            let said = (0..PAGE).map(|_| {
                let (room, user, id, event) = (RoomName::lobby(), user.clone(), Uuid::new_v4(), event.clone());
                self.broker.publish(Publication { room, user, id, event })
            });
            join_all(said).await;
        }
    }

    /// The newest events of the lobby, however long Redis takes.
    async fn history(&self, limit: usize) -> History {
        let read = async {
            loop {
                let range = Range::Before { before: Offset::MAX, limit };
                if let Ok(history) = self.broker.history(&RoomName::lobby(), range).await {
                    return history;
                }
            }
        };
        tokio::time::timeout(PATIENCE, read).await.expect("Redis answers")
    }

    /// The lobby, opened now, with hardly any window.
    async fn room(&self) -> Arc<Room> {
        let window = Window { bytes: 1024 * 1024, records: 1 };
        let budget = Arc::new(Budget::new(usize::MAX));
        let room = Arc::new(Room::new(RoomName::lobby(), window, budget, &[]));
        let limit = room.first_read().expect("it is not open yet");
        assert_eq!(room.begin(&self.history(limit).await, limit, Encoding::Json), Progress::Done);
        room
    }

    async fn page(&self, room: &Arc<Room>, offset: Offset) -> Arc<Page> {
        let page = tokio::time::timeout(PATIENCE, async {
            loop {
                // Redis may still be on its way back.
                if let Ok(page) = self.pages.after(room, offset).await {
                    return page;
                }
            }
        });
        page.await.expect("a page comes")
    }
}
