//! Who is in a room of the embedded broker: what `townhall.lua` does in Redis, under the same contract. There is one node in
//! earnest, but a lease is a lease.

use std::collections::HashMap;

use tokio::time::Instant;

use crate::broker::{MAX_LISTED, Member, Members, MembersCall, NodeId, Registration, RollVersion, Step};
use crate::names::{DisplayName, UserId};

/// As many users of dead nodes are removed in one call.
const SWEPT: usize = 1024;

#[derive(Default)]
pub(super) struct Roll {
    version: RollVersion,
    users: HashMap<UserId, Present>,
    nodes: HashMap<NodeId, Node>,
}

struct Present {
    /// At so many nodes.
    nodes: usize,
    name: DisplayName,
}

struct Node {
    expires: Instant,
    /// Since when the lease was valid without a break.
    since: Instant,
    step: Step,
    /// The step in which each user was named last.
    users: HashMap<UserId, Step>,
}

impl Roll {
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The answer, and whether others should hear of it.
    pub fn call(&mut self, call: &MembersCall, now: Instant) -> (Members, bool) {
        if call.base.is_none() && !self.nodes.contains_key(&call.node) && self.is_abandoned(call, now) {
            *self = Roll::default();
        }
        let mut changed = self.version == RollVersion::default();
        let registration = self.register(call, now, &mut changed);
        if changed {
            self.version = RollVersion::random();
        }
        let count = self.users.len();
        let wanted = call.list || (self.version != call.seen && count <= MAX_LISTED);
        let list = wanted.then(|| self.users.iter().take(MAX_LISTED).map(member).collect());
        (Members { registration, version: self.version, count, list }, changed)
    }

    /// Whether all who were here have said nothing for a whole lease after theirs lapsed.
    fn is_abandoned(&self, call: &MembersCall, now: Instant) -> bool {
        self.nodes.values().all(|node| node.expires + call.lease <= now)
    }

    fn register(&mut self, call: &MembersCall, now: Instant, changed: &mut bool) -> Registration {
        let own = self.nodes.get(&call.node);
        if own.is_some_and(|own| own.step > call.step) {
            return Registration::Kept; // a later call was here already, and nobody waits for this one
        }
        let known = own.is_some_and(|own| call.base.is_none_or(|base| base <= own.step));
        if call.base.is_some() && !known {
            return Registration::Lost;
        }
        let expires = now + call.lease;
        let own = self.nodes.entry(call.node);
        let own = own.or_insert_with(|| Node { expires, since: now, step: 0, users: HashMap::new() });
        if own.expires <= now {
            own.since = now;
        }
        (own.expires, own.step) = (expires, call.step);
        let may_sweep = now - own.since >= call.lease / 2;
        for (user, name) in &call.changes {
            match name {
                Some(name) => *changed |= self.come(call.node, user, name, call.step),
                None => *changed |= self.go(call.node, user),
            }
        }
        if let Some(step) = call.purge {
            for user in self.users_of(call.node, |named| named < step) {
                *changed |= self.go(call.node, &user);
            }
        }
        let unfinished = may_sweep && self.sweep(now, changed);
        self.nodes.retain(|_, node| !node.users.is_empty());
        if unfinished { Registration::Unfinished } else { Registration::Kept }
    }

    fn users_of(&self, node: NodeId, which: impl Fn(Step) -> bool) -> Vec<UserId> {
        let users = self.nodes.get(&node).into_iter().flat_map(|node| &node.users);
        users.filter(|(_, named)| which(**named)).map(|(user, _)| user.clone()).collect()
    }

    fn come(&mut self, node: NodeId, user: &UserId, name: &DisplayName, step: Step) -> bool {
        let Some(node) = self.nodes.get_mut(&node) else { return false };
        let added = usize::from(node.users.insert(user.clone(), step).is_none());
        match self.users.get_mut(user) {
            Some(present) => {
                present.nodes += added;
                let renamed = present.name != *name;
                present.name = name.clone();
                renamed
            }
            None => {
                self.users.insert(user.clone(), Present { nodes: 1, name: name.clone() });
                true
            }
        }
    }

    fn go(&mut self, node: NodeId, user: &UserId) -> bool {
        let was_there = self.nodes.get_mut(&node).is_some_and(|node| node.users.remove(user).is_some());
        let Some(present) = self.users.get_mut(user).filter(|_| was_there) else { return false };
        present.nodes -= 1;
        let gone = present.nodes == 0;
        if gone {
            self.users.remove(user);
        }
        gone
    }

    /// Removes what nodes have left whose lease has lapsed; whether there is more to do.
    fn sweep(&mut self, now: Instant, changed: &mut bool) -> bool {
        let lapsed = self.nodes.iter().filter(|(_, node)| node.expires <= now).map(|(id, _)| *id);
        let left: Vec<(NodeId, UserId)> = lapsed
            .collect::<Vec<_>>()
            .into_iter()
            .flat_map(|node| self.users_of(node, |_| true).into_iter().map(move |user| (node, user)))
            .take(SWEPT + 1)
            .collect();
        for (node, user) in left.iter().take(SWEPT) {
            *changed |= self.go(*node, user);
        }
        left.len() > SWEPT
    }
}

fn member((id, present): (&UserId, &Present)) -> Member {
    Member { id: id.clone(), name: present.name.clone() }
}
