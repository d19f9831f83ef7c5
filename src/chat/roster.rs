//! Who is in a room, as far as we were told.

use std::time::Duration;

use indexmap::IndexMap;
use tokio::time::Instant;

use super::frames::User;

/// In rooms with more members nobody is told who they are.
const LISTED: u64 = 200;
/// Whoever has the same reason to ask who is here asks at another moment within this time.
const SPREAD: Duration = Duration::from_secs(1);
/// Between asking again and again, when list and count will not agree.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_MOST: Duration = Duration::from_secs(30);

#[derive(Debug, Default)]
pub struct Roster {
    /// By the hall's last word.
    pub count: u64,
    /// When to ask who is here.
    pub ask_at: Option<Instant>,
    /// Ids and names, in the order in which they became known; none where they are too many.
    people: IndexMap<String, String>,
    /// How often in a row asking did not help.
    misses: u32,
}

impl Roster {
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.people.values().map(String::as_str)
    }

    pub fn counted(&mut self, count: u64) {
        self.count = count;
        if count > LISTED {
            self.people.clear();
        }
    }

    /// Somebody may have come or gone unheard: asks, at once or, after a reconnection, not together with everybody else.
    pub fn ask(&mut self, spread: bool, now: Instant) {
        self.misses = 0;
        let wait = if spread { SPREAD.mul_f64(rand::random()) } else { Duration::ZERO };
        self.ask_at = (self.count <= LISTED).then(|| now + wait);
    }

    /// The whole list.
    pub fn listed(&mut self, count: u64, members: Vec<User>, now: Instant) {
        let here = members.into_iter().take(LISTED as usize).map(|user| (user.id, user.name));
        let here: IndexMap<String, String> = here.collect();
        self.people.retain(|id, _| here.contains_key(id));
        self.people.extend(here);
        self.counted(count);
        self.reconcile(now);
    }

    /// Who came and went; without them, in a room where they would be told, some went unheard.
    pub fn changed(&mut self, count: u64, who: Option<(Vec<User>, Vec<User>)>, now: Instant) {
        if let Some((joined, left)) = who {
            for user in left {
                self.people.shift_remove(&user.id);
            }
            self.people.extend(joined.into_iter().map(|user| (user.id, user.name)));
        }
        if self.people.len() as u64 > LISTED {
            self.people.clear(); // whatever the hall counts
        }
        self.counted(count);
        self.reconcile(now);
    }

    /// The question was not answered.
    pub fn missed(&mut self, now: Instant) {
        self.reconcile(now);
    }

    /// Asks while list and count do not agree: again and again, less and less often.
    fn reconcile(&mut self, now: Instant) {
        if self.count > LISTED || self.people.len() as u64 == self.count {
            (self.misses, self.ask_at) = (0, None);
        } else if self.ask_at.is_none() {
            let wait = AGAIN.saturating_mul(1 << self.misses.min(5)).min(AGAIN_MOST);
            self.misses += 1;
            self.ask_at = Some(now + wait.mul_f64(0.5 + rand::random::<f64>() / 2.0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(ids: &[&str]) -> Vec<User> {
        ids.iter().map(|id| User { id: (*id).into(), name: id.to_uppercase() }).collect()
    }

    fn names(roster: &Roster) -> Vec<&str> {
        roster.names().collect()
    }

    #[tokio::test]
    async fn a_hall_that_counts_wrongly_fills_no_memory() {
        let now = Instant::now();
        let mut roster = Roster::default();
        for number in 0..1000 {
            roster.changed(1, Some((users(&[&number.to_string()]), vec![])), now);
            assert!(roster.names().count() as u64 <= LISTED);
        }
        let many: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
        roster.listed(1, users(&many.iter().map(String::as_str).collect::<Vec<_>>()), now);
        assert_eq!(roster.names().count() as u64, LISTED);
    }

    #[tokio::test]
    async fn a_list_is_kept_by_who_comes_and_goes() {
        let now = Instant::now();
        let mut roster = Roster::default();
        roster.counted(2);
        roster.ask(false, now);
        assert_eq!(roster.ask_at, Some(now));
        roster.ask_at = None;
        roster.listed(2, users(&["a", "b"]), now);
        roster.changed(2, Some((users(&["c"]), users(&["a"]))), now);
        assert_eq!((names(&roster), roster.ask_at), (vec!["B", "C"], None));
        roster.changed(2, Some((vec![User { id: "b".into(), name: "Bo".into() }], vec![])), now);
        assert_eq!(names(&roster), ["Bo", "C"]);
    }

    #[tokio::test]
    async fn where_list_and_count_do_not_agree_it_is_asked_less_and_less_often() {
        let now = Instant::now();
        let mut roster = Roster::default();
        let mut waits = Vec::new();
        for _ in 0..8 {
            roster.changed(7, None, now);
            waits.push((roster.ask_at.take().unwrap() - now).as_secs_f64());
        }
        assert!((0.5..=1.0).contains(&waits[0]) && (15.0..=30.0).contains(&waits[7]), "{waits:?}");
        roster.listed(1, users(&["a"]), now);
        assert_eq!(roster.ask_at, None);
    }

    #[tokio::test]
    async fn of_a_crowd_only_the_number_is_known() {
        let now = Instant::now();
        let mut roster = Roster::default();
        roster.listed(1, users(&["a"]), now);
        roster.changed(201, None, now);
        assert_eq!((names(&roster), roster.count, roster.ask_at), (vec![], 201, None));
    }
}
