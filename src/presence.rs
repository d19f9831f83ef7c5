//! Who is in a room, as one node sees it. Decided here, without I/O and without a clock.
//!
//! **A state, not events.** What the room's members are is what the broker says; announcements only say "look again". What
//! clients are told is the difference to what they were told last. So what is lost heals by itself at the next look, and
//! nothing flaps.
//!
//! A [`Roll`] knows who is here on this node and says so to the broker in rounds (a [`MembersCall`] and its answer): at once
//! when something has changed, but one after the other and at most so many a second. Whatever a call said that was not
//! answered is said again in the next one.
//!
//! Nobody is told too early that somebody has left. Who loses the connection stays for the grace. And when the broker has lost
//! what nodes had said, members are missing there only until all have said it again: for a while nobody is told of anybody who
//! left ([`SETTLES`]).

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{MAX_LISTED, Member, Members, MembersCall, NodeId, Registration, RollVersion, Step};
use crate::names::{DisplayName, RoomName, UserId};

/// Between two rounds, and between two events: in a small room, and in one with more members than are listed.
const PACE: Duration = Duration::from_millis(250);
const PACE_LARGE: Duration = Duration::from_secs(1);
/// A room in which nothing changes is looked at so often, which renews the lease.
const RENEW: Duration = Duration::from_secs(7);
/// For so long nobody has left after the broker lost what nodes had said: every node finds out within less.
const SETTLES: Duration = Duration::from_secs(10);
/// A call that was not answered is made again after [`PACE`], then twice that, up to this. News of the broker cut it short.
const PATIENCE: Duration = Duration::from_secs(4);
/// Changes in one call; more follow in the next, at once.
pub const CHANGES: usize = 512;
/// A member who is typing is announced so often.
const TYPING: Duration = Duration::from_secs(3);

/// How long a node's word is good that a user is there: so that members of a node that dies are gone within 30 s, unless the
/// grace alone is longer.
pub fn lease(grace: Duration) -> Duration {
    Duration::from_secs(20).max(grace + Duration::from_secs(10))
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Roll {
    grace: Duration,
    /// Who is here on this node, those included who have lost the connection a moment ago.
    here: HashMap<UserId, Here>,
    /// How many of them the broker does not know yet, as far as we know.
    coming: usize,
    /// Who has lost the last connection, in the order in which their graces end.
    leaving: VecDeque<(Instant, UserId)>,
    /// Who has come or gone since the last call, and those of calls that were not answered.
    unsaid: HashSet<UserId>,
    unsure: HashSet<UserId>,
    /// The last step that was answered; `None`: to be said from the beginning.
    confirmed: Option<Step>,
    /// The first step of a beginning that is not complete.
    since: Option<Step>,
    rounds: Rounds,
    /// The version that was seen, and one that was heard of since.
    seen: RollVersion,
    heard: Option<RollVersion>,
    /// What the broker said last; `None` before the first answer.
    view: Option<View>,
    /// Nobody listened for a while, and the broker was not asked since.
    deaf: bool,
    /// Some members of a room with too many.
    some: Arc<[Member]>,
    /// What this node's clients know.
    told: View,
    told_at: Option<Instant>,
    /// When to look whether there is something to tell.
    tell_at: Option<Instant>,
    /// Until then nobody has left.
    settles_at: Option<Instant>,
    typing: Typing,
    /// Since when nobody is here.
    empty_since: Option<Instant>,
}

#[derive(Debug)]
struct Here {
    name: DisplayName,
    connections: usize,
    /// When the grace ends of somebody without a connection.
    until: Option<Instant>,
    /// The broker knows.
    known: bool,
}

/// Members of a room: how many, and who, unless they are too many.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct View {
    count: usize,
    /// By id.
    list: Option<Arc<[Member]>>,
}

/// The calls so far.
#[derive(Debug, Default)]
struct Rounds {
    begun: u64,
    /// The last one whose answer was an answer.
    done: u64,
    began_at: Option<Instant>,
    under_way: Option<UnderWay>,
    /// There is more to do than went into the last one.
    more: bool,
    /// Somebody waits for one that has not begun yet.
    asked: bool,
    /// How many in a row were not answered.
    failed: u32,
}

#[derive(Debug)]
struct UnderWay {
    step: Step,
    /// It ends a beginning.
    complete: bool,
    /// Somebody waits for it.
    asked: bool,
}

/// When who was typing: said by this node's members, and shown to them.
#[derive(Debug, Default)]
struct Typing {
    said: HashMap<UserId, Instant>,
    shown: HashMap<UserId, Instant>,
}

/// What a room's clients are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub count: usize,
    /// Who came, or is called otherwise now, and who left; `None` in a room with too many members.
    pub lists: Option<(Vec<Member>, Vec<Member>)>,
}

/// Who is here, for somebody who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    pub count: usize,
    /// At most [`MAX_LISTED`].
    pub members: Arc<[Member]>,
}

impl Roll {
    /// Nobody is here.
    pub fn new(grace: Duration) -> Self {
        Roll {
            grace,
            here: HashMap::new(),
            coming: 0,
            leaving: VecDeque::new(),
            unsaid: HashSet::new(),
            unsure: HashSet::new(),
            confirmed: None,
            since: None,
            rounds: Rounds::default(),
            seen: RollVersion::default(),
            heard: None,
            view: None,
            deaf: false,
            some: Arc::default(),
            told: View { count: 0, list: Some(Arc::default()) },
            told_at: None,
            tell_at: None,
            settles_at: None,
            typing: Typing::default(),
            empty_since: None,
        }
    }

    // --- who is here ------------------------------------------------------------------------------------------------

    /// A connection of `member` is in the room.
    pub fn came(&mut self, member: Member) {
        let Member { id, name } = member;
        let here = self.here.entry(id.clone()).or_insert_with(|| {
            self.coming += 1;
            Here { name: name.clone(), connections: 0, until: None, known: false }
        });
        self.empty_since = None;
        here.connections += 1;
        here.until = None;
        if !here.known || here.name != name {
            here.name = name;
            self.unsaid.insert(id);
        }
    }

    /// One is not any more. Who lost it is still here for the grace; who left is not.
    pub fn went(&mut self, user: &UserId, left: bool, now: Instant) {
        let Some(here) = self.here.get_mut(user) else { return };
        here.connections = here.connections.saturating_sub(1);
        if here.connections > 0 {
            return;
        }
        if left || self.grace.is_zero() {
            self.gone(user, now);
        } else {
            let until = now + self.grace;
            here.until = Some(until);
            self.leaving.push_back((until, user.clone()));
        }
    }

    /// A member is called otherwise.
    pub fn renamed(&mut self, member: Member) {
        if let Some(here) = self.here.get_mut(&member.id)
            && here.name != member.name
        {
            here.name = member.name;
            self.unsaid.insert(member.id);
        }
    }

    fn gone(&mut self, user: &UserId, now: Instant) {
        if let Some((user, here)) = self.here.remove_entry(user) {
            self.coming -= usize::from(!here.known);
            self.typing.said.remove(&user);
            self.unsaid.insert(user);
            self.empty_since = self.here.is_empty().then_some(now);
        }
    }

    /// Ends the graces that are over.
    pub fn expire(&mut self, now: Instant) {
        while let Some((until, user)) = self.leaving.pop_front_if(|(until, _)| *until <= now) {
            if self.here.get(&user).is_some_and(|here| here.until == Some(until)) {
                self.gone(&user, now);
            }
        }
    }

    // --- rounds -----------------------------------------------------------------------------------------------------

    /// The broker has announced another version.
    pub fn heard(&mut self, version: RollVersion) {
        if version != self.seen {
            self.heard = Some(version);
        }
    }

    /// Anything may have been missed.
    pub fn look_again(&mut self) {
        self.heard = Some(RollVersion::default());
        self.rounds.failed = 0;
    }

    /// It has, since nobody listened to the room until now.
    pub fn was_deaf(&mut self) {
        self.look_again();
        self.deaf = true;
    }

    /// Asks for a round that begins after this call; its number.
    pub fn ask(&mut self) -> u64 {
        self.rounds.asked = true;
        self.rounds.begun + 1
    }

    /// The last round that was answered.
    pub fn rounds_done(&self) -> u64 {
        self.rounds.done
    }

    /// When [`Roll::expire`], [`Roll::call`] or [`Roll::tell`] have something to do.
    pub fn due(&self, now: Instant) -> Instant {
        let graces = self.leaving.front().map(|(until, _)| *until);
        let call = self.rounds.under_way.is_none().then(|| self.call_at(now));
        let far = now + RENEW;
        [graces, call, self.tell_at].into_iter().flatten().min().unwrap_or(far)
    }

    fn call_at(&self, now: Instant) -> Instant {
        let Some(began_at) = self.rounds.began_at else { return now };
        let changed = !self.unsaid.is_empty() || self.since.is_some() || self.confirmed.is_none();
        if self.rounds.failed > 0 {
            began_at + (PACE * (1 << self.rounds.failed.min(8))).min(PATIENCE)
        } else if self.rounds.more {
            now
        } else if self.rounds.asked {
            began_at + PACE
        } else if changed || self.heard.is_some() {
            began_at + self.pace()
        } else {
            began_at + RENEW
        }
    }

    fn pace(&self) -> Duration {
        let count = self.view.as_ref().map_or(0, |view| view.count);
        if count.max(self.told.count) > MAX_LISTED { PACE_LARGE } else { PACE }
    }

    /// Begins a round, if one is due. `most`: changes that may go into it.
    pub fn call(
        &mut self,
        room: &RoomName,
        node: NodeId,
        step: Step,
        most: usize,
        now: Instant,
    ) -> Option<MembersCall> {
        if self.rounds.under_way.is_some() || self.call_at(now) > now {
            return None;
        }
        let room_left = most.min(CHANGES).saturating_sub(self.unsure.len());
        let taken: Vec<UserId> = self.unsaid.iter().take(room_left).cloned().collect();
        for user in taken {
            self.unsaid.remove(&user);
            self.unsure.insert(user);
        }
        if self.confirmed.is_none() && self.since.is_none() {
            self.since = Some(step);
        }
        let all_said = self.unsaid.is_empty();
        let purge = self.since.filter(|_| all_said);
        let changes = self.unsure.iter().map(|id| (id.clone(), self.here.get(id).map(|here| here.name.clone())));
        let call = MembersCall {
            room: room.clone(),
            node,
            lease: lease(self.grace),
            base: self.confirmed,
            step,
            purge,
            changes: changes.collect(),
            seen: self.seen,
            list: self.rounds.asked,
        };
        self.rounds.begun += 1;
        self.rounds.began_at = Some(now);
        self.rounds.more = !all_said;
        let asked = std::mem::take(&mut self.rounds.asked);
        self.rounds.under_way = Some(UnderWay { step, complete: purge.is_some(), asked });
        self.heard = None;
        Some(call)
    }

    /// The round under way was not answered.
    pub fn failed(&mut self) {
        if let Some(UnderWay { asked, .. }) = self.rounds.under_way.take() {
            self.rounds.asked |= asked; // whoever waits, waits for the next one
            self.rounds.failed += 1;
        }
    }

    /// The round under way was answered.
    pub fn answered(&mut self, members: Members, now: Instant) {
        let Some(UnderWay { step, complete, asked }) = self.rounds.under_way.take() else { return };
        self.rounds.failed = 0;
        if members.registration == Registration::Lost {
            self.rounds.asked |= asked;
            return self.begin_anew(now);
        }
        self.confirmed = Some(step);
        if complete {
            self.since = None;
        }
        for user in self.unsure.drain() {
            if let Some(here) = self.here.get_mut(&user).filter(|here| !here.known) {
                here.known = true;
                self.coming -= 1;
            }
        }
        self.rounds.done = self.rounds.begun;
        self.rounds.more |= members.registration == Registration::Unfinished;
        self.see(members, now);
    }

    /// The broker has lost what this node said: all of it is said again. Others' members may be missing there, too.
    fn begin_anew(&mut self, now: Instant) {
        self.confirmed = None;
        self.since = None;
        self.unsure.clear();
        self.unsaid.extend(self.here.keys().cloned());
        self.here.values_mut().for_each(|here| here.known = false);
        self.coming = self.here.len();
        self.rounds.more = true;
        self.settles_at = Some(now + SETTLES);
        self.tell_at.get_or_insert(now + SETTLES);
    }

    fn see(&mut self, members: Members, now: Instant) {
        let Members { version, count, list, .. } = members;
        self.heard = self.heard.filter(|heard| *heard != version);
        self.deaf = false;
        let unchanged = self.seen == version && self.view.is_some();
        self.seen = version;
        if let Some(list) = list {
            let list = self.sorted(list);
            if count > MAX_LISTED {
                self.some = list;
                self.view = Some(View { count, list: None });
            } else {
                self.view = Some(View { count, list: Some(list) });
            }
        } else if !unchanged {
            self.view = Some(View { count, list: None });
        }
        let paced = self.told_at.map_or(now, |at| at + self.pace());
        self.tell_at = Some(self.tell_at.map_or(paced, |at| at.min(paced)));
    }

    /// By id. Ids and names of those who are here are shared, not kept twice.
    fn sorted(&self, mut list: Vec<Member>) -> Arc<[Member]> {
        for member in &mut list {
            if let Some((id, here)) = self.here.get_key_value(&member.id) {
                member.id = id.clone();
                if here.name == member.name {
                    member.name = here.name.clone();
                }
            }
        }
        list.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        list.into()
    }

    // --- what is told -----------------------------------------------------------------------------------------------

    /// Whether the broker has said who is here, and would have been heard since.
    pub fn is_seen(&self) -> bool {
        self.view.is_some() && !self.deaf
    }

    /// What the members here are to be told now.
    pub fn tell(&mut self, now: Instant) -> Option<Change> {
        if self.tell_at.is_none_or(|at| at > now) {
            return None;
        }
        self.tell_at = None;
        let view = self.view.clone()?;
        let shown = self.shown(now);
        if shown != view {
            self.tell_at = self.settles_at;
        } else if self.settles_at.is_some_and(|at| at <= now) {
            self.settles_at = None;
        }
        let lists = match (&self.told.list, &shown.list) {
            (Some(told), Some(shown)) => Some(difference(told, shown)),
            _ => None,
        };
        let news = self.told.count != shown.count
            || lists.as_ref().is_some_and(|(joined, left)| !joined.is_empty() || !left.is_empty());
        let count = shown.count;
        self.told = shown;
        if !news {
            return None;
        }
        self.told_at = Some(now);
        Some(Change { count, lists })
    }

    /// The members as far as nobody may have left who is not known to have.
    fn shown(&self, now: Instant) -> View {
        let Some(view) = &self.view else { return self.told.clone() };
        if self.settles_at.is_none_or(|at| at <= now) {
            return view.clone();
        }
        match (&self.told.list, &view.list) {
            (Some(told), Some(list)) => {
                let all = union(list, told.iter());
                View { count: all.len(), list: (all.len() <= MAX_LISTED).then_some(all) }
            }
            _ => View { count: view.count.max(self.told.count), list: None },
        }
    }

    /// How many are here on this node.
    pub fn here(&self) -> usize {
        self.here.len()
    }

    /// How many are here, whoever has just come included.
    pub fn count(&self, now: Instant) -> usize {
        let shown = self.shown(now);
        match &shown.list {
            Some(list) if self.here.len() <= MAX_LISTED => {
                let listed = |id: &UserId| list.binary_search_by(|member| member.id.cmp(id)).is_ok();
                list.len() + self.here.keys().filter(|id| !listed(id)).count()
            }
            _ => (shown.count + self.coming).max(self.here.len()),
        }
    }

    /// Who is here, whoever has just come included; as far as they are listed.
    pub fn present(&self, now: Instant) -> Present {
        let count = self.count(now);
        let members = match self.shown(now).list {
            Some(list) if count <= MAX_LISTED => {
                let here: Vec<Member> = self.here.iter().map(|(id, here)| here.member(id)).collect();
                union(&list, here.iter())
            }
            Some(list) => list,
            None => self.some.clone(),
        };
        Present { count, members }
    }

    // --- typing -----------------------------------------------------------------------------------------------------

    /// Whether it is announced that a member here is typing.
    pub fn may_say_typing(&mut self, user: &UserId, now: Instant) -> bool {
        !self.is_large() && self.here.contains_key(user) && pass(&mut self.typing.said, user, now)
    }

    /// Whether it is shown here that somebody is typing. Other nodes' members are counted, too: who is at two of them is one.
    pub fn may_show_typing(&mut self, user: &UserId, now: Instant) -> bool {
        !self.is_large() && pass(&mut self.typing.shown, user, now)
    }

    fn is_large(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.count > MAX_LISTED)
    }

    // --- the end ----------------------------------------------------------------------------------------------------

    /// Nobody is here, and the broker knows or has forgotten by itself.
    pub fn is_over(&self, now: Instant) -> bool {
        if !self.here.is_empty() || self.rounds.under_way.is_some() {
            return false;
        }
        let nothing_to_say = self.unsaid.is_empty() && self.unsure.is_empty() && self.since.is_none();
        let never_said = self.rounds.begun == 0;
        let lapsed = self.empty_since.is_none_or(|at| now.saturating_duration_since(at) >= lease(self.grace));
        never_said || lapsed || nothing_to_say && self.confirmed.is_some()
    }
}

impl Here {
    fn member(&self, id: &UserId) -> Member {
        Member { id: id.clone(), name: self.name.clone() }
    }
}

/// Takes `user`'s turn, if it has one.
fn pass(turns: &mut HashMap<UserId, Instant>, user: &UserId, now: Instant) -> bool {
    let is_fresh = |at: &Instant| now.saturating_duration_since(*at) < TYPING;
    if turns.get(user).is_some_and(is_fresh) {
        return false;
    }
    if turns.len() >= MAX_LISTED {
        turns.retain(|_, at| is_fresh(at));
    }
    // More of them at once than the room has members: somebody makes them up.
    let fits = turns.len() < 2 * MAX_LISTED;
    if fits {
        turns.insert(user.clone(), now);
    }
    fits
}

/// Who is only in `new`, or is called otherwise there; and who is only in `old`. Both are by id.
fn difference(old: &[Member], new: &[Member]) -> (Vec<Member>, Vec<Member>) {
    let (mut joined, mut left) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return (joined, left),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(old), Some(new)) => old.id.cmp(&new.id),
        };
        match order {
            Ordering::Less => left.extend(old.next().cloned()),
            Ordering::Greater => joined.extend(new.next().cloned()),
            Ordering::Equal => {
                let (was, is) = (old.next(), new.next());
                joined.extend(is.filter(|is| was != Some(is)).cloned());
            }
        }
    }
}

/// `list` with those of `others` who are missing, by id.
fn union<'a>(list: &Arc<[Member]>, others: impl Iterator<Item = &'a Member>) -> Arc<[Member]> {
    let missing = others.filter(|other| list.binary_search_by(|member| member.id.cmp(&other.id)).is_err());
    let missing: Vec<Member> = missing.cloned().collect();
    if missing.is_empty() {
        return list.clone();
    }
    let mut all: Vec<Member> = list.iter().cloned().chain(missing).collect();
    all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
    all.into()
}

#[cfg(test)]
mod tests;
