//! Changes of members: judged by the leader, applied by everyone.
//!
//! [`Replica::propose_change`] takes one at a time. Moving a vote from one
//! member to another goes through a state in which both the old and the new
//! voters must agree, which the leader, or the next one, ends by itself.
//!
//! A change is over when a majority of the new voters know on their disks that
//! it was made. Whoever does not know it counts votes by the members before:
//! were the leader lost, which the new members can bear, the others might not
//! be enough by the old ones. So the leader, as soon as it has applied a change,
//! appends an entry that carries nothing; whoever stores it stores with it that
//! all before is committed, and it is committed when a majority has.

use raft::eraftpb::{ConfChangeType, Entry, EntryType, Message, MessageType};

use super::super::change::{
    Change, ChangeError, HandOverError, Logged, PROMOTE_LAG_MAX, Proposed, check_voters,
};
use super::super::membership::MEMBERS_MAX;
use super::*;

/// See [`Replica::settle`].
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// Whose change it is, and where it was applied.
    marks: Vec<(ProposalId, u64)>,
    /// The entry after it.
    settled_by: Option<u64>,
}

impl Replica {
    /// The members, and which of them vote.
    pub fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// The members.
    pub fn membership(&self) -> &Membership {
        &self.members.membership
    }

    /// Who votes and who learns; while a vote moves, also who voted before.
    pub fn roles(&self) -> &ConfState {
        &self.members.roles
    }

    /// Whether no one else votes.
    pub fn is_only_voter(&self) -> bool {
        self.roles().voters == [self.id()] && !self.members.is_between()
    }

    /// Whether a change of members is under way, or, on a new leader, may be.
    pub fn is_changing(&self) -> bool {
        self.node.raft.has_pending_conf() || self.members.is_between() || self.unsettled.is_some()
    }

    /// Appends a change of members. It comes back in
    /// [`Effects::changed`] under this mark when it is over, unless this
    /// replica loses the leadership first.
    ///
    /// # Errors
    ///
    /// When this replica does not lead, another change is under way, or a
    /// guard refuses. Nothing was done.
    pub fn propose_change(
        &mut self,
        mark: ProposalId,
        change: &Change,
    ) -> Result<Proposed, ChangeError> {
        change.check()?;
        if !self.leads_up_to_date() || self.node.raft.lead_transferee.is_some() {
            return Err(ChangeError::NotLeader);
        }
        if self.is_changing() {
            return Err(ChangeError::InProgress);
        }
        let logged = match change {
            Change::Add { id, member } => self.judge_add(*id, member)?,
            Change::Promote { id, replacing } => self.judge_promote(*id, *replacing)?,
            Change::Remove { id, force } => self.judge_remove(*id, *force)?,
        };
        let Some(logged) = logged else {
            return Ok(Proposed::AlreadySo);
        };
        let mut entry = Entry {
            data: logged.to_bytes(),
            context: Bytes::copy_from_slice(&mark.to_bytes()),
            ..Entry::default()
        };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.id();
        message.set_entries(vec![entry]);
        self.node.step(message).map_err(|_| ChangeError::Full)?;
        // Had Raft known of another change, it had put an empty entry instead.
        match self.node.raft.pending_conf_index == self.last_index() {
            true => Ok(Proposed::Taken),
            false => Err(ChangeError::InProgress),
        }
    }

    /// Hands leadership to `to`, or to the voter that has most of the log, one
    /// that was heard lately if there is any. It is over when another leads;
    /// given up, without a word, after an election timeout. Ok at once when
    /// `to` is this replica.
    ///
    /// # Errors
    ///
    /// When this replica does not lead, or there is nobody to hand it to.
    pub fn hand_over(&mut self, to: Option<u64>) -> Result<(), HandOverError> {
        if self.role() != Role::Leader {
            return Err(HandOverError::NotLeader);
        }
        let successor = match to {
            Some(id) if !self.roles().voters.contains(&id) => {
                return Err(HandOverError::NotAVoter { id });
            }
            Some(id) => id,
            None => self.successor().ok_or(HandOverError::NoSuccessor)?,
        };
        if successor != self.id() {
            self.node.transfer_leader(successor);
        }
        Ok(())
    }

    /// The voter to lead after this one.
    pub(super) fn successor(&self) -> Option<u64> {
        let voters = self.roles().voters.iter().copied();
        voters
            .filter(|id| *id != self.id())
            .max_by_key(|id| (self.hearing.reaches(*id), self.matched(*id)))
    }

    /// Entries that a member lacks, as far as this leader knows; its own log's
    /// length when it knows nothing.
    pub fn lag_of(&self, id: u64) -> u64 {
        self.last_index().saturating_sub(self.matched(id))
    }

    fn matched(&self, id: u64) -> u64 {
        let progress = self.node.raft.prs().get(id);
        progress.map_or(0, |progress| progress.matched)
    }

    fn judge_add(&self, id: u64, member: &Member) -> Result<Option<Logged>, ChangeError> {
        let members = self.membership();
        if members.has(id, member.disk_id) {
            return Ok(None);
        }
        if members.get(id).is_some() {
            return Err(ChangeError::OtherDisk { id });
        }
        if members.was_removed(member.disk_id) {
            return Err(ChangeError::DiskRemoved { id });
        }
        for (other, known) in members.iter() {
            if known.disk_id == member.disk_id {
                return Err(ChangeError::DiskTaken { id, other });
            }
            if known.address == member.address {
                let address = member.address.clone();
                return Err(ChangeError::AddressTaken { id, address, other });
            }
        }
        if members.len() >= MEMBERS_MAX {
            return Err(ChangeError::TooMany {
                what: "members",
                max: MEMBERS_MAX,
            });
        }
        let added = [(id, member.clone())].into();
        logged(&[(ConfChangeType::AddLearnerNode, id)], added)
    }

    fn judge_promote(
        &self,
        id: u64,
        replacing: Option<u64>,
    ) -> Result<Option<Logged>, ChangeError> {
        let mut voters = self.roles().voters.clone();
        if self.membership().get(id).is_none() {
            return Err(ChangeError::NotAMember { id });
        }
        if voters.contains(&id) {
            return match replacing.is_some_and(|replaced| self.membership().get(replaced).is_some())
            {
                true => Err(ChangeError::VotesAlready { id }),
                false => Ok(None),
            };
        }
        if let Some(replaced) = replacing {
            if self.membership().get(replaced).is_none() {
                return Err(ChangeError::NotAMember { id: replaced });
            }
            if replaced == self.id() {
                return Err(ChangeError::Leads { id: replaced });
            }
            if !voters.contains(&replaced) {
                return Err(ChangeError::NotAVoter { id: replaced });
            }
        }
        let behind = self.lag_of(id);
        if behind > PROMOTE_LAG_MAX {
            return Err(ChangeError::Behind { id, behind });
        }
        if !self.hearing.reaches(id) {
            return Err(ChangeError::NotHeard { id });
        }
        voters.retain(|voter| Some(*voter) != replacing);
        voters.push(id);
        check_voters(voters.len())?;
        self.check_quorum(&voters)?;
        let mut steps = vec![(ConfChangeType::AddNode, id)];
        steps.extend(replacing.map(|replaced| (ConfChangeType::RemoveNode, replaced)));
        logged(&steps, [].into())
    }

    fn judge_remove(&self, id: u64, force: bool) -> Result<Option<Logged>, ChangeError> {
        if self.membership().get(id).is_none() {
            return match self.membership().is_gone(id) {
                true => Ok(None),
                false => Err(ChangeError::NotAMember { id }),
            };
        }
        let mut voters = self.roles().voters.clone();
        if voters == [id] {
            return Err(ChangeError::LastVoter { id });
        }
        if id == self.id() {
            return Err(ChangeError::Leads { id });
        }
        if voters.contains(&id) && !force {
            voters.retain(|voter| *voter != id);
            self.check_quorum(&voters)?;
        }
        logged(&[(ConfChangeType::RemoveNode, id)], [].into())
    }

    /// Whether this leader hears of enough of `voters` to go on with them.
    fn check_quorum(&self, voters: &[u64]) -> Result<(), ChangeError> {
        let own = self.id();
        let unreachable: Vec<u64> = voters
            .iter()
            .copied()
            .filter(|id| *id != own && !self.hearing.reaches(*id))
            .collect();
        let needed = voters.len() / 2 + 1;
        let reachable = voters.len() - unreachable.len();
        if reachable >= needed {
            return Ok(());
        }
        Err(ChangeError::LosesQuorum {
            voters: voters.len(),
            reachable,
            needed,
            unreachable,
        })
    }

    /// A committed change: Raft counts votes by it from here on.
    pub(super) fn apply_change(
        &mut self,
        entry: &Entry,
        effects: &mut Effects,
    ) -> Result<(), FatalError> {
        let index = entry.index;
        if entry.get_entry_type() != EntryType::EntryConfChangeV2 {
            let reason = "it has the older form, which was never written".to_owned();
            return Err(FatalError::MembershipChange { index, reason });
        }
        let logged = Logged::from_bytes(&entry.data)
            .map_err(|source| FatalError::UnreadableEntry { index, source })?;
        let misfit = |reason: String| FatalError::MembershipChange { index, reason };
        let roles = self
            .node
            .apply_conf_change(&logged.conf)
            .map_err(|error| misfit(error.to_string()))?;
        let mut membership = self.membership().clone();
        membership.apply(index, logged.added, &roles);
        if let Some(flaw) = membership.flaw(&roles) {
            return Err(misfit(flaw));
        }
        self.set_membership(membership);
        effects.members_changed = true;
        if self.role() == Role::Leader {
            let mark = ProposalId::from_bytes(&entry.context);
            let unsettled = self.unsettled.get_or_insert_default();
            unsettled.marks.extend(mark.map(|mark| (mark, index)));
            unsettled.settled_by = None;
        }
        Ok(())
    }

    /// Sees to it that a majority of the voters know of the change that this
    /// leader has applied. A new leader needs no more than its first entry,
    /// which comes after what it had applied by then.
    pub(super) fn settle(&mut self, effects: &mut Effects) {
        let leads = self.role() == Role::Leader;
        let is_between = self.members.is_between();
        let applied = self.applied();
        match &mut self.unsettled {
            Some(_) if !leads => self.unsettled = None,
            Some(unsettled) if unsettled.settled_by.is_none() && !is_between => {
                let mut message = Message::default();
                message.set_msg_type(MessageType::MsgPropose);
                message.from = self.node.raft.id;
                message.set_entries(vec![Entry::default()]);
                // Refused while leadership is handed over; then the next one sees to it.
                if self.node.step(message).is_ok() {
                    unsettled.settled_by = Some(self.node.raft.raft_log.last_index());
                }
            }
            Some(unsettled) if unsettled.settled_by.is_some_and(|by| by <= applied) => {
                effects.changed.append(&mut unsettled.marks);
                self.unsettled = None;
            }
            Some(_) | None => {}
        }
    }

    /// A leader that was removed leads no more: Raft cannot go on with one
    /// that it does not count. It has another ask for votes, and gives its own
    /// as long as it is here.
    pub(super) fn step_down(&mut self, effects: &mut Effects) {
        if self.role() != Role::Leader {
            return;
        }
        let resignation = self.resignation();
        let said = match self.owes_commit {
            true => &mut self.held,
            false => &mut effects.messages,
        };
        said.extend(resignation);
        let term = self.term();
        self.node.raft.become_follower(term, 0);
    }

    /// The members are these now.
    pub(super) fn set_membership(&mut self, membership: Membership) {
        self.node.mut_store().set_joined(membership.since());
        self.hearing.retain(|id| membership.get(id).is_some());
        let roles = self.node.raft.prs().conf().to_conf_state();
        self.members = Arc::new(Members::new(membership, roles));
    }

    /// Whether it was removed. It goes on as far as the others need it, and
    /// ends when it is told to ([`super::super::farewell`]).
    pub fn is_removed(&self) -> bool {
        let membership = self.membership();
        !membership.is_empty() && !membership.has(self.id(), self.disk_id)
    }

    /// Ends the replica when a snapshot does not name it: Raft must not go on
    /// with a leader that it does not count.
    pub(super) fn must_be_member(&self) -> Result<(), FatalError> {
        let id = self.id();
        match self.is_removed() {
            true => Err(FatalError::Removed { id }),
            false => Ok(()),
        }
    }
}

fn logged(
    steps: &[(ConfChangeType, u64)],
    added: std::collections::BTreeMap<u64, Member>,
) -> Result<Option<Logged>, ChangeError> {
    Logged::new(steps, added)
        .map(Some)
        .map_err(|error| ChangeError::Invalid(error.to_string()))
}
