//! Who belongs to a cluster, on which data directory, and the number that tells clusters apart.
//!
//! A member is known by its id *and* by its disk id, a random number drawn
//! when its data directory was made. So a replica that comes back with an
//! empty directory is not taken for the one that gave its word before.

use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::ConfState;
use serde::{Deserialize, Serialize};

/// Voters, at most: more make every write slower and no one safer.
pub const VOTERS_MAX: usize = 9;

/// Members with and without a vote, at most: the leader sends each of them
/// every entry.
pub const MEMBERS_MAX: usize = 32;

/// An address, in bytes, at most: a name of the DNS and a port.
pub const ADDRESS_BYTES_MAX: usize = 261;

/// Removed disks that are remembered, so that they can be told. A replica that
/// was off while as many others were removed is refused all the same, only
/// not told why.
const REMOVED_MAX: usize = 64;

/// A member as the cluster knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Where the others reach it: `host:port`.
    pub address: String,
    /// Its data directory; never 0.
    pub disk_id: u64,
}

/// The members as the log made them; the same on every replica that has
/// applied as much. Who of them votes is Raft's own [`ConfState`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    members: BTreeMap<u64, Seat>,
    /// The last [`REMOVED_MAX`], newest last.
    removed: VecDeque<Removed>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Seat {
    member: Member,
    /// The entry that took it in: a snapshot from before does not know it.
    since: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Removed {
    id: u64,
    disk_id: u64,
}

impl Membership {
    /// The founders, who are members from the log's first entry on.
    pub fn founded_by(founders: &BTreeMap<u64, Member>) -> Self {
        let mut membership = Self::default();
        for (id, member) in founders {
            membership.take_in(*id, member.clone(), 1);
        }
        membership
    }

    /// A member, if it is one.
    pub fn get(&self, id: u64) -> Option<&Member> {
        self.members.get(&id).map(|seat| &seat.member)
    }

    /// All members by id.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Member)> {
        self.members.iter().map(|(id, seat)| (*id, &seat.member))
    }

    /// Where they were when they were taken in.
    pub fn addresses(&self) -> BTreeMap<u64, String> {
        let address = |(id, member): (u64, &Member)| (id, member.address.clone());
        self.iter().map(address).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is: so it is on a replica that waits for its first
    /// snapshot.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Whether the member of this id has this data directory.
    pub fn has(&self, id: u64, disk_id: u64) -> bool {
        self.get(id).is_some_and(|member| member.disk_id == disk_id)
    }

    /// Whether a replica with this data directory was a member and is none
    /// any more. It never will be again.
    pub fn was_removed(&self, disk_id: u64) -> bool {
        self.removed.iter().any(|gone| gone.disk_id == disk_id)
    }

    /// Whether a replica of this id was removed and no other took its place.
    pub(super) fn is_gone(&self, id: u64) -> bool {
        self.get(id).is_none() && self.removed.iter().any(|gone| gone.id == id)
    }

    /// The entries that took the members in.
    pub(super) fn since(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.members.iter().map(|(id, seat)| (*id, seat.since))
    }

    /// What the applied entry at `index` made of the members: those it took
    /// in, and of all only those that Raft still counts in `conf`.
    pub(super) fn apply(&mut self, index: u64, added: BTreeMap<u64, Member>, conf: &ConfState) {
        for (id, member) in added {
            self.take_in(id, member, index);
        }
        let gone: Vec<u64> = self.members.keys().copied().collect();
        for id in gone.into_iter().filter(|id| !names(conf, *id)) {
            if let Some(seat) = self.members.remove(&id) {
                let disk_id = seat.member.disk_id;
                self.removed.push_back(Removed { id, disk_id });
            }
        }
        while self.removed.len() > REMOVED_MAX {
            self.removed.pop_front();
        }
    }

    fn take_in(&mut self, id: u64, member: Member, since: u64) {
        self.members.insert(id, Seat { member, since });
    }

    /// Why these members and Raft's do not go together, if they do not.
    pub(super) fn flaw(&self, conf: &ConfState) -> Option<String> {
        if let Some(id) = all_ids(conf).find(|id| self.get(*id).is_none()) {
            return Some(format!("replica {id} has no address"));
        }
        if let Some(id) = self.members.keys().find(|id| !names(conf, **id)) {
            return Some(format!("replica {id} neither votes nor learns"));
        }
        self.iter().find_map(|(id, member)| member_flaw(id, member))
    }
}

/// The members, and which of them vote.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members {
    /// Who they are.
    pub membership: Membership,
    /// What they may do, each list sorted.
    pub roles: ConfState,
}

impl Members {
    pub(super) fn new(membership: Membership, mut roles: ConfState) -> Self {
        // Raft keeps no order among them.
        roles.voters.sort_unstable();
        roles.learners.sort_unstable();
        roles.voters_outgoing.sort_unstable();
        roles.learners_next.sort_unstable();
        Self { membership, roles }
    }

    /// Whether it follows without a vote.
    pub fn is_learner(&self, id: u64) -> bool {
        self.roles.learners.contains(&id)
    }

    /// Whether a vote is on its way from one member to another.
    pub fn is_between(&self) -> bool {
        !self.roles.voters_outgoing.is_empty()
    }
}

/// Why a member cannot be one, if it cannot.
pub(super) fn member_flaw(id: u64, member: &Member) -> Option<String> {
    if id == 0 || member.disk_id == 0 {
        return Some(format!(
            "replica {id} with data directory {:016x}: both are above 0",
            member.disk_id
        ));
    }
    let length = member.address.len();
    (length == 0 || length > ADDRESS_BYTES_MAX)
        .then(|| format!("the address of replica {id} has {length} bytes"))
}

/// Whether Raft counts this replica as a member: with a vote or without, now
/// or until a change that is under way is finished.
pub(super) fn names(conf: &ConfState, id: u64) -> bool {
    all_ids(conf).any(|named| named == id)
}

fn all_ids(conf: &ConfState) -> impl Iterator<Item = u64> + '_ {
    let lists = [&conf.voters, &conf.learners, &conf.voters_outgoing];
    lists.into_iter().flatten().copied()
}

/// Why Raft could not start from these members, if it could not: it would
/// panic.
pub(super) fn conf_state_flaw(conf: &ConfState) -> Option<&'static str> {
    let lists = [
        &conf.voters,
        &conf.learners,
        &conf.voters_outgoing,
        &conf.learners_next,
    ];
    for list in lists {
        let mut ids = list.clone();
        ids.sort_unstable();
        ids.dedup();
        if ids.len() != list.len() || ids.first() == Some(&0) {
            return Some("names each member once in a role, by an id above 0");
        }
    }
    let any = |list: &[u64], other: &[u64]| list.iter().any(|id| other.contains(id));
    if conf.voters.is_empty() {
        return Some("names at least one voter");
    }
    if any(&conf.learners, &conf.voters) || any(&conf.learners, &conf.voters_outgoing) {
        return Some("names no one as voter and learner");
    }
    let next_vote = conf.learners_next.iter();
    let all_leave = next_vote
        .clone()
        .all(|id| conf.voters_outgoing.contains(id));
    if any(&conf.learners_next, &conf.voters) || !all_leave {
        return Some("lets only voters that leave become learners");
    }
    (conf.auto_leave && conf.voters_outgoing.is_empty())
        .then_some("is only left when it is between two sets of voters")
}

/// The cluster's number: a hash (XXH3-64) of its founders' ids and data
/// directories, never 0. No two foundings have the same.
pub fn cluster_id(founders: &BTreeMap<u64, Member>) -> u64 {
    let mut bytes = Vec::with_capacity(founders.len() * 16);
    for (id, member) in founders {
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&member.disk_id.to_le_bytes());
    }
    trimtab_proto::checksum(&bytes).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(disk_id: u64) -> Member {
        Member {
            address: format!("replica-{disk_id}:1"),
            disk_id,
        }
    }

    fn founders(list: &[(u64, u64)]) -> BTreeMap<u64, Member> {
        let members = list.iter().map(|(id, disk)| (*id, member(*disk)));
        members.collect()
    }

    fn conf(voters: &[u64], learners: &[u64]) -> ConfState {
        ConfState::from((voters.to_vec(), learners.to_vec()))
    }

    #[test]
    fn the_cluster_id_depends_on_every_id_and_directory_and_nothing_else() {
        let of = |list: &[(u64, u64)]| cluster_id(&founders(list));
        let one = of(&[(1, 7), (2, 8)]);
        assert_eq!(one, of(&[(2, 8), (1, 7)]));
        assert_ne!(one, of(&[(1, 7), (2, 9)]));
        assert_ne!(one, of(&[(1, 7), (3, 8)]));
        assert_ne!(one, of(&[(1, 7)]));
        let mut moved = founders(&[(1, 7), (2, 8)]);
        moved.insert(
            2,
            Member {
                address: "elsewhere:1".to_owned(),
                disk_id: 8,
            },
        );
        assert_eq!(one, cluster_id(&moved));
    }

    #[test]
    fn a_removed_directory_is_remembered_and_its_id_may_be_used_again() {
        let mut membership = Membership::founded_by(&founders(&[(1, 11), (2, 12)]));
        membership.apply(5, BTreeMap::new(), &conf(&[1], &[]));
        assert!(membership.was_removed(12));
        assert!(membership.is_gone(2));
        membership.apply(6, founders(&[(2, 22)]), &conf(&[1], &[2]));
        assert!(membership.has(2, 22));
        assert!(!membership.has(2, 12));
        assert!(membership.was_removed(12));
        assert!(!membership.is_gone(2));
        let since: Vec<_> = membership.since().collect();
        assert_eq!(since, [(1, 1), (2, 6)]);
    }

    #[test]
    fn what_is_remembered_of_the_removed_is_bounded() {
        let mut membership = Membership::founded_by(&founders(&[(1, 11)]));
        for disk in 100..200 {
            membership.apply(disk, founders(&[(2, disk)]), &conf(&[1], &[2]));
            membership.apply(disk, BTreeMap::new(), &conf(&[1], &[]));
        }
        assert!(!membership.was_removed(135));
        assert!(membership.was_removed(136));
        assert!(membership.was_removed(199));
    }

    #[test]
    fn members_that_raft_does_not_count_and_those_without_address_are_flaws() {
        let membership = Membership::founded_by(&founders(&[(1, 11), (2, 12)]));
        assert_eq!(membership.flaw(&conf(&[1], &[2])), None);
        assert!(membership.flaw(&conf(&[1], &[])).is_some());
        assert!(membership.flaw(&conf(&[1, 2, 3], &[])).is_some());
        let nowhere = Membership::founded_by(&founders(&[(1, 0)]));
        assert!(nowhere.flaw(&conf(&[1], &[])).is_some());
    }

    #[test]
    fn roles_that_raft_could_not_start_from_are_flaws() {
        let joint = |change: fn(&mut ConfState)| {
            let mut conf = conf(&[1, 2, 3], &[5]);
            conf.voters_outgoing = vec![1, 2, 4];
            conf.learners_next = vec![4];
            conf.auto_leave = true;
            change(&mut conf);
            conf_state_flaw(&conf)
        };
        assert_eq!(joint(|_| {}), None);
        assert_eq!(conf_state_flaw(&conf(&[1], &[2])), None);
        for change in [
            |conf: &mut ConfState| conf.voters.clear(),
            |conf: &mut ConfState| conf.voters.push(1),
            |conf: &mut ConfState| conf.voters.push(0),
            |conf: &mut ConfState| conf.learners.push(1),
            |conf: &mut ConfState| conf.learners.push(4),
            |conf: &mut ConfState| conf.learners_next.push(1),
            |conf: &mut ConfState| conf.learners_next.push(9),
            |conf: &mut ConfState| {
                conf.voters_outgoing.clear();
                conf.learners_next.clear();
            },
        ] {
            assert!(joint(change).is_some());
        }
    }
}
