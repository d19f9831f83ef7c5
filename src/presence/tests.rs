//! A roll beside a broker of a few lines, with a clock that the tests move.

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(10);

/// A node's roll of one room; the rounds and what was told.
struct Node {
    roll: Roll,
    room: RoomName,
    id: NodeId,
    step: Step,
    now: Instant,
    /// What the broker has of this node's members and of others'; as that changes, so does its version.
    said: HashMap<UserId, DisplayName>,
    others: Vec<Member>,
    version: u128,
    told: Vec<Change>,
}

fn member(name: &str) -> Member {
    Member { id: UserId::new(format!("id-{name}")), name: DisplayName::parse(name).unwrap() }
}

fn id(name: &str) -> UserId {
    member(name).id
}

fn names(members: &[Member]) -> Vec<&str> {
    members.iter().map(|member| member.name.as_str()).collect()
}

impl Node {
    fn new(grace: Duration) -> Self {
        Node {
            roll: Roll::new(grace),
            room: RoomName::lobby(),
            id: NodeId::random(),
            step: 0,
            now: Instant::now(),
            said: HashMap::new(),
            others: Vec::new(),
            version: 1,
            told: Vec::new(),
        }
    }

    fn came(&mut self, name: &str) {
        self.roll.came(member(name));
    }

    /// The call that is due now, if one is.
    fn call(&mut self) -> Option<MembersCall> {
        self.step += 1;
        self.roll.expire(self.now);
        self.told.extend(self.roll.tell(self.now));
        self.roll.call(&self.room, self.id, self.step, CHANGES, self.now)
    }

    /// What the broker answers; it has done what the call says.
    fn answer(&mut self, call: &MembersCall) -> Members {
        let before = self.said.clone();
        for (user, name) in &call.changes {
            match name {
                Some(name) => drop(self.said.insert(user.clone(), name.clone())),
                None => drop(self.said.remove(user)),
            }
        }
        self.version += u128::from(before != self.said);
        let mut all: Vec<Member> =
            self.said.iter().map(|(id, name)| Member { id: id.clone(), name: name.clone() }).collect();
        all.extend(self.others.iter().filter(|other| !self.said.contains_key(&other.id)).cloned());
        let version = RollVersion(self.version);
        let list = (call.list || call.seen != version && all.len() <= MAX_LISTED).then(|| all.clone());
        let list = list.map(|list| list.into_iter().take(MAX_LISTED).collect());
        Members { registration: Registration::Kept, version, count: all.len(), list }
    }

    fn answered(&mut self, members: Members) {
        self.roll.answered(members, self.now);
        self.told.extend(self.roll.tell(self.now));
    }

    /// Does what is due until `later`; how many calls that were.
    fn run(&mut self, later: Duration) -> usize {
        let (until, mut calls) = (self.now + later, 0);
        loop {
            self.now = self.now.max(self.roll.due(self.now));
            if self.now > until {
                self.now = until;
                return calls;
            }
            if let Some(call) = self.call() {
                calls += 1;
                let answer = self.answer(&call);
                self.answered(answer);
            }
        }
    }

    /// Somebody comes to or goes from another node, and this one hears of it.
    fn elsewhere(&mut self, change: impl FnOnce(&mut Vec<Member>)) {
        change(&mut self.others);
        self.version += 1;
        self.roll.heard(RollVersion(self.version));
    }

    /// Who was told to have come and gone since the last look, in order.
    fn told(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        for Change { count, lists } in self.told.drain(..) {
            let (joined, left) = lists.unwrap_or_default();
            words.extend(names(&joined).iter().map(|name| format!("+{name}")));
            words.extend(names(&left).iter().map(|name| format!("-{name}")));
            words.push(count.to_string());
        }
        words
    }
}

/// A node with ada, of whom everybody has been told.
fn with_ada(grace: Duration) -> Node {
    let mut node = Node::new(grace);
    node.came("ada");
    node.run(SECOND);
    assert_eq!(node.told(), ["+ada", "1"]);
    node
}

#[test]
fn who_comes_is_said_at_once_and_whatever_follows_in_one_round() {
    let mut node = Node::new(GRACE);
    node.came("ada");
    let call = node.call().expect("a round at once");
    assert_eq!(call.changes, [(id("ada"), Some(member("ada").name))]);
    assert_eq!((call.base, call.purge), (None, Some(call.step)), "a beginning, and all of it");
    // It has begun: the others wait for the next one.
    node.came("ben");
    node.came("zoe");
    assert!(node.call().is_none());
    let answer = node.answer(&call);
    node.answered(answer);
    assert!(node.call().is_none(), "not before its time");
    node.now += PACE;
    let next = node.call().expect("the next round");
    assert_eq!((next.changes.len(), next.base, next.purge), (2, Some(call.step), None));
}

#[test]
fn a_quiet_room_is_looked_at_often_enough_to_keep_its_lease() {
    let mut node = with_ada(GRACE);
    let calls = node.run(SECOND * 70);
    assert!((9..=11).contains(&calls), "{calls} calls");
    assert!(RENEW * 2 < lease(Duration::ZERO));
    assert_eq!(node.told(), [""; 0]);
}

#[test]
fn who_loses_the_connection_stays_for_the_grace_and_who_leaves_does_not() {
    let mut node = with_ada(GRACE);
    node.came("ben");
    node.run(SECOND);
    node.told();
    node.roll.went(&id("ben"), false, node.now);
    node.run(GRACE - SECOND);
    assert_eq!(node.told(), [""; 0]);
    assert_eq!(node.roll.count(node.now), 2);
    node.run(SECOND * 2);
    assert_eq!(node.told(), ["-ben", "1"]);

    node.came("zoe");
    node.run(SECOND);
    node.told();
    node.roll.went(&id("zoe"), true, node.now);
    node.run(SECOND);
    assert_eq!(node.told(), ["-zoe", "1"]);
}

#[test]
fn who_comes_back_within_the_grace_has_not_been_away() {
    let mut node = with_ada(GRACE);
    for _ in 0..5 {
        node.roll.went(&id("ada"), false, node.now);
        node.run(GRACE - SECOND);
        node.came("ada");
        node.run(SECOND * 2);
    }
    // Here, and there too: at another node within the grace.
    node.roll.went(&id("ada"), false, node.now);
    node.elsewhere(|others| others.push(member("ada")));
    node.came("ben");
    node.run(GRACE * 2);
    assert_eq!(node.told(), ["+ben", "2"]);
}

#[test]
fn without_grace_who_loses_the_last_connection_is_gone() {
    let mut node = with_ada(Duration::ZERO);
    node.came("ben");
    node.came("ben");
    node.run(SECOND);
    assert_eq!(node.told(), ["+ben", "2"]);
    node.roll.went(&id("ben"), false, node.now);
    node.run(SECOND);
    assert_eq!(node.told(), [""; 0], "there was another connection");
    node.roll.went(&id("ben"), false, node.now);
    node.run(SECOND);
    assert_eq!(node.told(), ["-ben", "1"]);
}

#[test]
fn what_was_not_answered_is_said_again_as_it_is_by_then() {
    let mut node = with_ada(Duration::ZERO);
    node.came("ben");
    node.came("eve");
    node.now += SECOND;
    let lost = node.call().unwrap();
    node.roll.went(&id("eve"), true, node.now);
    node.came("zoe");
    node.roll.failed();
    assert!(node.call().is_none(), "not at once");
    node.now += SECOND;
    let again = node.call().unwrap();
    let mut changes: Vec<_> = again.changes.iter().map(|(id, name)| (id.as_str(), name.is_some())).collect();
    changes.sort_unstable();
    assert_eq!(changes, [("id-ben", true), ("id-eve", false), ("id-zoe", true)]);
    assert_eq!(again.base, lost.base, "what was answered last");
    assert!(again.step > lost.step);
}

#[test]
fn a_broker_that_is_away_is_asked_less_and_less_and_at_once_when_it_is_back() {
    let mut node = with_ada(GRACE);
    node.roll.look_again();
    let mut calls = 0;
    for _ in 0..300 {
        node.now += SECOND / 10;
        if node.call().is_some() {
            calls += 1;
            node.roll.failed();
        }
    }
    assert!((7..=12).contains(&calls), "{calls} calls in 30 s");
    node.roll.look_again();
    assert!(node.run(PACE) > 0);
}

#[test]
fn many_who_come_at_once_go_in_several_calls_without_a_pause_and_are_told_of_once_a_second() {
    let mut node = with_ada(GRACE);
    for n in 0..5000 {
        node.came(&format!("guest{n}"));
    }
    assert_eq!(node.roll.count(node.now), 5001);
    let calls = node.run(PACE_LARGE);
    assert!((10..=12).contains(&calls), "{calls} calls");
    assert_eq!(node.said.len(), 5001);
    node.run(SECOND * 3);
    let told = node.told();
    assert!(told.len() <= 5, "{told:?}");
    assert_eq!(told.last().unwrap(), "5001");
    assert!(!told.iter().any(|word| word.starts_with('+')), "only how many");
    assert_eq!(node.roll.present(node.now).members.len(), 0, "nobody asked");
    node.roll.ask();
    node.run(SECOND);
    let present = node.roll.present(node.now);
    assert_eq!((present.count, present.members.len()), (5001, MAX_LISTED));
}

#[test]
fn a_room_that_shrinks_to_a_list_is_told_how_many_and_then_who() {
    let mut node = with_ada(GRACE);
    node.elsewhere(|others| others.extend((0..200).map(|n| member(&format!("guest{n}")))));
    node.run(SECOND * 2);
    assert_eq!(node.told(), ["201"]);
    node.elsewhere(|others| others.truncate(199));
    node.run(SECOND * 2);
    assert_eq!(node.told(), ["200"]);
    node.elsewhere(|others| others.truncate(198));
    node.run(SECOND * 2);
    assert_eq!(node.told(), ["-guest198", "199"]);
}

#[test]
fn events_of_a_small_room_keep_their_distance_too() {
    let mut node = with_ada(GRACE);
    for n in 0..40 {
        node.elsewhere(|others| others.push(member(&format!("guest{n}"))));
        node.run(SECOND / 20);
    }
    let events = node.told.len();
    assert!((7..=9).contains(&events), "{events} in two seconds");
    node.run(SECOND);
    let told = node.told();
    assert_eq!(told.iter().filter(|word| word.starts_with('+')).count(), 40, "nobody is left out");
}

#[test]
fn a_large_room_whose_members_keep_changing_costs_one_round_and_one_count_a_second() {
    let mut node = with_ada(GRACE);
    node.elsewhere(|others| others.extend((0..300).map(|n| member(&format!("guest{n}")))));
    node.run(SECOND * 2);
    node.told();
    let mut calls = 0;
    for n in 0..100 {
        node.elsewhere(|others| others.push(member(&format!("visitor{n}"))));
        calls += node.run(SECOND / 10);
    }
    assert!((9..=11).contains(&calls), "{calls} calls in ten seconds");
    assert!((9..=11).contains(&node.told.len()), "{} counts in ten seconds", node.told.len());
}

#[test]
fn a_lost_announcement_is_made_up_for_by_the_next_look() {
    let mut node = with_ada(GRACE);
    node.others.push(member("ben"));
    node.version += 1;
    node.run(RENEW + SECOND);
    assert_eq!(node.told(), ["+ben", "2"]);
    // What came and went in between is not told at all.
    node.others.push(member("eve"));
    node.others.pop();
    node.version += 2;
    node.run(RENEW + SECOND);
    assert_eq!(node.told(), [""; 0]);
}

#[test]
fn when_the_broker_has_lost_what_was_said_nobody_leaves_until_all_could_say_it_again() {
    let mut node = with_ada(GRACE);
    node.elsewhere(|others| others.extend([member("ben"), member("eve")]));
    node.run(SECOND);
    assert_eq!(node.told(), ["+ben", "+eve", "3"]);

    node.said.clear();
    node.others.clear();
    node.version += 1;
    node.roll.look_again();
    node.now += SECOND;
    let call = node.call().unwrap();
    let lost = Members { registration: Registration::Lost, version: RollVersion(9), count: 0, list: Some(vec![]) };
    node.answered(lost);
    let again = node.call().expect("all of it, at once");
    assert_eq!((again.base, again.purge), (None, Some(again.step)));
    assert_eq!(again.changes, [(id("ada"), Some(member("ada").name))]);
    assert!(again.step > call.step);
    let answer = node.answer(&again);
    node.answered(answer);
    node.run(SECOND);
    assert_eq!(node.roll.count(node.now), 3, "nor do those disappear who join now");
    assert_eq!(names(&node.roll.present(node.now).members), ["ada", "ben", "eve"]);
    // Ben's node says so again, eve's was gone; and zoe comes.
    node.elsewhere(|others| others.extend([member("ben"), member("zoe")]));
    node.run(SETTLES - SECOND * 3);
    assert_eq!(node.told(), ["+zoe", "4"]);
    node.run(SECOND * 5);
    assert_eq!(node.told(), ["-eve", "3"]);
}

#[test]
fn a_long_list_is_said_again_in_parts_and_only_the_last_one_ends_it() {
    let mut node = Node::new(GRACE);
    for n in 0..CHANGES + 1 {
        node.came(&format!("guest{n}"));
    }
    let first = node.call().unwrap();
    assert_eq!((first.changes.len(), first.base, first.purge), (CHANGES, None, None));
    node.roll.failed();
    node.now += SECOND;
    let again = node.call().unwrap();
    assert_eq!((again.changes.len(), again.base, again.purge), (CHANGES, None, None));
    let answer = node.answer(&again);
    node.answered(answer);
    let last = node.call().expect("at once");
    assert_eq!((last.changes.len(), last.base), (1, Some(again.step)));
    assert_eq!(last.purge, Some(first.step), "whoever was named before the beginning is not here");
}

#[test]
fn who_asks_gets_a_round_that_begins_afterwards_and_thousands_share_it() {
    let mut node = with_ada(GRACE);
    node.came("ben");
    node.now += SECOND;
    let under_way = node.call().unwrap();
    let rounds: Vec<u64> = (0..1000).map(|_| node.roll.ask()).collect();
    let answer = node.answer(&under_way);
    node.answered(answer);
    assert!(rounds.iter().all(|round| *round == rounds[0] && *round > node.roll.rounds_done()));
    assert_eq!(node.run(PACE * 4), 1);
    assert_eq!(node.roll.rounds_done(), rounds[0]);
}

#[test]
fn after_nobody_listened_the_members_are_as_good_as_unseen_until_the_broker_is_asked_again() {
    let mut node = Node::new(GRACE);
    node.came("ada");
    assert!(!node.roll.is_seen());
    node.run(SECOND);
    assert!(node.roll.is_seen());
    node.roll.was_deaf();
    assert!(!node.roll.is_seen());
    assert_eq!(node.run(Duration::ZERO), 1, "and it is asked at once");
    assert!(node.roll.is_seen());
}

#[test]
fn a_round_that_was_not_answered_is_no_answer_to_who_asked() {
    let mut node = with_ada(GRACE);
    let round = node.roll.ask();
    node.now += SECOND;
    assert!(node.call().unwrap().list);
    node.roll.failed();
    assert!(node.roll.rounds_done() < round);
    node.now += SECOND;
    assert!(node.call().unwrap().list, "who asked still waits");
}

#[test]
fn another_name_is_told_under_the_same_id() {
    let mut node = with_ada(GRACE);
    let renamed = Member { name: DisplayName::parse("lovelace").unwrap(), ..member("ada") };
    node.roll.renamed(renamed.clone());
    node.run(SECOND);
    let Some(Change { count: 1, lists: Some((joined, left)) }) = node.told.pop() else { panic!("not told") };
    assert_eq!((joined, left), (vec![renamed], vec![]));
}

#[test]
fn a_member_types_once_in_three_seconds_and_nobody_does_in_a_large_room() {
    let mut node = with_ada(GRACE);
    let at = |seconds: f64| node.now + Duration::from_secs_f64(seconds);
    let times: Vec<Instant> = [0.0, 1.0, 2.9, 3.1, 5.0, 6.2].map(at).to_vec();
    let said = times.iter().map(|at| node.roll.may_say_typing(&id("ada"), *at));
    assert_eq!(said.collect::<Vec<_>>(), [true, false, false, true, false, true]);
    let shown = times.iter().map(|at| node.roll.may_show_typing(&id("ben"), *at));
    assert_eq!(shown.collect::<Vec<_>>(), [true, false, false, true, false, true]);
    assert!(!node.roll.may_say_typing(&id("nobody"), node.now));
    node.elsewhere(|others| others.extend((0..200).map(|n| member(&format!("guest{n}")))));
    node.run(SECOND * 2);
    assert!(!node.roll.may_say_typing(&id("ada"), node.now + SECOND * 60));
    assert!(!node.roll.may_show_typing(&id("ben"), node.now + SECOND * 60));
}

#[test]
fn made_up_typists_take_no_memory_without_end() {
    let mut node = with_ada(GRACE);
    for n in 0..10_000 {
        node.roll.may_show_typing(&UserId::new(n.to_string()), node.now);
    }
    assert!(node.roll.typing.shown.len() <= 2 * MAX_LISTED);
    node.now += TYPING;
    assert!(node.roll.may_show_typing(&id("ben"), node.now));
    assert!(node.roll.typing.shown.len() <= MAX_LISTED);
}

#[test]
fn a_roll_is_over_when_the_broker_knows_that_nobody_is_here_or_has_forgotten_by_itself() {
    let mut node = with_ada(GRACE);
    node.roll.went(&id("ada"), true, node.now);
    assert!(!node.roll.is_over(node.now), "it is still to be said");
    node.run(SECOND);
    assert!(node.said.is_empty() && node.roll.is_over(node.now));

    let mut node = with_ada(GRACE);
    node.roll.went(&id("ada"), true, node.now);
    node.now += SECOND;
    node.call().unwrap();
    node.roll.failed();
    assert!(!node.roll.is_over(node.now + SECOND));
    assert!(node.roll.is_over(node.now + lease(GRACE)));

    let mut node = Node::new(GRACE);
    node.came("ada");
    node.roll.went(&id("ada"), true, node.now);
    assert!(node.roll.is_over(node.now), "nobody ever heard of it");
}
