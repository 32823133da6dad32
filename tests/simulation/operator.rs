//! The operator: adds, promotes, replaces and removes replicas, hands leadership over, and replaces replicas whose disks are lost.

use std::sync::Arc;

use trimtab_server::consensus::change::Change;
use trimtab_server::consensus::membership::{Member, Members};

use crate::faults::{LOST_DISKS, MEMBERS};
use crate::host::Host;
use crate::packet::{Answer, Call, Node, Packet, Reply, Request};
use crate::seats::Seat;
use crate::world::{Event, World};

/// Machines without a replica that stand ready.
const SPARES: u64 = 2;
const VOTERS_MAX: usize = 5;
/// How long it waits for an answer. Nobody takes the call afterwards.
const TIMEOUT: u64 = 1_500;
/// After so many answers that are none, and a refusal, it wants something else.
const ATTEMPTS_MAX: u32 = 10;
/// The first disk id of those that no founder has.
const DISK_ID_FIRST: u64 = 1_000;

/// What it is about.
#[derive(Debug, Default)]
pub(crate) struct Operator {
    job: Option<Job>,
    calls: u64,
    disks: u64,
}

/// One change, asked for until it is made or surely is not.
#[derive(Debug)]
struct Job {
    change: Change,
    call: u64,
    deadline: u64,
    attempts: u32,
    /// An attempt may still take effect.
    in_doubt: bool,
}

impl World {
    fn has_kind(&self, kind: u64) -> bool {
        self.kinds & (1 << kind) != 0
    }

    /// In runs whose members change, there are machines to spare, and all who
    /// call know their addresses.
    pub(crate) fn begin_operating(&mut self) {
        if !self.has_kind(MEMBERS) {
            return;
        }
        for _ in 0..SPARES {
            let id = self.replicas() + 1;
            self.add_spare(id);
        }
        let replicas = self.replicas();
        for instance in &mut self.fleet {
            instance.replicas = replicas;
        }
        for script in &mut self.scripts {
            script.replicas = replicas;
        }
        self.at(self.now, Event::Operator);
    }

    /// A machine more, on which nothing runs yet.
    fn add_spare(&mut self, id: u64) {
        let mut seat = Seat::new(id, &mut self.chance);
        seat.is_out = true;
        self.seats.push(seat);
    }

    /// The operator looks at the cluster, and does the next thing.
    pub(crate) fn operate(&mut self) {
        let next = self.now + self.chance.between(100, 700);
        self.at(next, Event::Operator);
        let members = self.ledger.members();
        let Some(job) = &self.operator.job else {
            return self.choose(&members);
        };
        if job.deadline <= self.now {
            self.ask();
        }
    }

    fn count(&mut self, change: &Change) {
        match change {
            Change::Add { .. } => self.counts.members_added += 1,
            Change::Promote { replacing, .. } => {
                self.counts.members_promoted += 1;
                self.counts.members_replaced += u64::from(replacing.is_some());
            }
            Change::Remove { .. } => self.counts.members_removed += 1,
        }
    }

    fn choose(&mut self, members: &Members) {
        if members.is_between() || members.membership.is_empty() {
            return;
        }
        self.send_away(members);
        let mut ids = members.membership.iter().map(|(id, _)| id);
        if let Some(broken) = ids.find(|id| self.is_gone(members, *id)) {
            let force = false;
            return self.want(Change::Remove { id: broken, force });
        }
        if self.healed {
            return;
        }
        match self.chance.between(0, 9) {
            0..=1 => self.add(members),
            2..=4 => self.promote(members),
            5 => self.remove(members),
            6 => self.transfer(members),
            7 => self.lose_a_disk(members),
            _ => {}
        }
    }

    /// Whoever waits to be taken in and will not be.
    fn send_away(&mut self, members: &Members) {
        let waits = |id: &u64| {
            let seat = &self.seats[*id as usize - 1];
            let host = seat.host.as_ref();
            host.is_some_and(|host| host.replica().membership().is_empty())
                && !members.membership.has(*id, seat.disk_id)
                && members.membership.get(*id).is_none()
        };
        let waiting: Vec<u64> = (1..=self.replicas()).filter(waits).collect();
        for id in waiting {
            self.put_away(id);
        }
    }

    /// A machine that is not used gets an empty disk and a process, which
    /// waits to be taken in.
    fn add(&mut self, members: &Members) {
        let idle = |id: &u64| members.membership.get(*id).is_none() && self.is_off(*id);
        let idle: Vec<u64> = (1..=self.replicas()).filter(idle).collect();
        if idle.is_empty() {
            return;
        }
        let id = idle[self.chance.index(idle.len())];
        let disk_id = self.give_an_empty_disk(id);
        self.at(self.now + 1, Event::Restart { replica: id });
        let address = format!("127.0.0.{id}:1");
        let member = Member { address, disk_id };
        self.want(Change::Add { id, member });
    }

    fn promote(&mut self, members: &Members) {
        let learners = &members.roles.learners;
        let voters = &members.roles.voters;
        if learners.is_empty() {
            return;
        }
        let id = learners[self.chance.index(learners.len())];
        let replaces = voters.len() >= VOTERS_MAX || self.chance.per_mille(500);
        let replaced = voters[self.chance.index(voters.len())];
        let replacing = replaces.then_some(replaced);
        let mut then = voters.clone();
        then.retain(|voter| Some(*voter) != replacing);
        then.push(id);
        if self.bears(members, &then, None) {
            self.want(Change::Promote { id, replacing });
        }
    }

    fn remove(&mut self, members: &Members) {
        let all: Vec<u64> = members.membership.iter().map(|(id, _)| id).collect();
        let id = all[self.chance.index(all.len())];
        let mut then = members.roles.voters.clone();
        then.retain(|voter| *voter != id);
        if self.bears(members, &then, None) {
            let force = false;
            self.want(Change::Remove { id, force });
        }
    }

    fn transfer(&mut self, members: &Members) {
        let voters = &members.roles.voters;
        let to = voters[self.chance.index(voters.len())];
        self.counts.transfers += 1;
        self.operator.calls += 1;
        self.call(Request::Transfer(to));
    }

    /// A machine dies with its disk, and comes back with an empty one, as if
    /// nobody had asked the others whether they know it.
    fn lose_a_disk(&mut self, members: &Members) {
        let all: Vec<u64> = members.membership.iter().map(|(id, _)| id).collect();
        let id = all[self.chance.index(all.len())];
        let is_flipped = self.flipped.is_some_and(|it| it != id);
        if !self.has_kind(LOST_DISKS) || is_flipped || !self.may_lose(id) {
            return;
        }
        if !self.is_off(id) {
            self.crash(id);
        }
        self.give_an_empty_disk(id);
        self.counts.disks_lost += 1;
        let wait = self.chance.between(1, 500);
        self.at(self.now + wait, Event::Restart { replica: id });
    }

    fn give_an_empty_disk(&mut self, id: u64) -> u64 {
        self.operator.disks += 1;
        let disk_id = DISK_ID_FIRST + self.operator.disks;
        self.seats[id as usize - 1].change_disk(disk_id);
        self.flipped = self.flipped.filter(|flipped| *flipped != id);
        disk_id
    }

    fn is_off(&self, id: u64) -> bool {
        self.seats[id as usize - 1].host.is_none()
    }

    /// Whether a member is one no more, by its disk, and will not be again.
    fn is_gone(&self, members: &Members, id: u64) -> bool {
        let seat = &self.seats[id as usize - 1];
        seat.is_out || !members.membership.has(id, seat.disk_id)
    }

    /// Whether the replica with this disk is a member no more, or not yet.
    pub(crate) fn is_removed(&self, id: u64) -> bool {
        let disk_id = self.seats[id as usize - 1].disk_id;
        !self.ledger.members().membership.has(id, disk_id)
    }

    /// Whether these voters have a quorum without those that are gone, or
    /// whose disk may be damaged, and without `lost`.
    fn bears(&self, members: &Members, voters: &[u64], lost: Option<u64>) -> bool {
        let is_lost = |id: &&u64| {
            let of_doubt = [lost, self.flipped].contains(&Some(**id));
            of_doubt || members.membership.get(**id).is_some() && self.is_gone(members, **id)
        };
        voters.iter().filter(is_lost).count() * 2 < voters.len()
    }

    /// Whether a replica may lose what is on its disk, and the others still
    /// have a quorum whatever the operator is about.
    pub(crate) fn may_lose(&self, id: u64) -> bool {
        let members = self.ledger.members();
        self.operator.job.is_none()
            && !members.is_between()
            && self.bears(&members, &members.roles.voters, Some(id))
    }

    fn want(&mut self, change: Change) {
        self.operator.job = Some(Job {
            change,
            call: 0,
            deadline: 0,
            attempts: 0,
            in_doubt: false,
        });
        self.ask();
    }

    fn ask(&mut self) {
        let until = self.now + TIMEOUT;
        self.operator.calls += 1;
        let Some(job) = &mut self.operator.job else {
            return;
        };
        // Silence so far: it may have been made, or be made yet.
        job.in_doubt |= job.deadline > 0;
        job.attempts += 1;
        job.deadline = until;
        job.call = self.operator.calls;
        let change = job.change.clone();
        self.call(Request::Change { change, until });
    }

    fn call(&mut self, request: Request) {
        let id = self.operator.calls;
        let to = Node::Replica(self.chance.between(1, self.replicas()));
        let path = vec![Node::Operator];
        let call = Packet::Call(Call { id, path, request });
        self.carry_to(Node::Operator, to, call);
    }

    /// The leader has answered, or someone for it.
    pub(crate) fn operator_told(&mut self, answer: Answer) -> Result<(), String> {
        let members = self.ledger.members();
        let now = self.now;
        let Some(job) = &mut self.operator.job else {
            return Ok(());
        };
        if job.call != answer.id {
            return Ok(());
        }
        match answer.reply {
            Reply::Changed(index) => {
                let is_there = index.is_none_or(|index| self.ledger.changed_members(index));
                if !is_there || !is_taken(&job.change, &members) {
                    let change = &job.change;
                    return Err(format!("{change:?} was said to be made, at {index:?}"));
                }
                let change = job.change.clone();
                self.operator.job = None;
                self.count(&change);
            }
            Reply::Refused
                if !is_taken(&job.change, &members)
                    && (!job.in_doubt || job.attempts > ATTEMPTS_MAX) =>
            {
                self.operator.job = None;
            }
            Reply::Unknown => {
                job.in_doubt = true;
                job.deadline = now;
            }
            // Asked again when it looks next.
            _ => job.deadline = now,
        }
        Ok(())
    }

    /// In the end whoever runs is a member, on the disk by which it is known,
    /// and whoever was removed has found out, if there is anyone to ask.
    pub(crate) fn check_members(&self) -> Result<(), String> {
        let members = self.ledger.members();
        let known = &members.membership;
        for (id, member) in known.iter() {
            let disk_id = self.seats[id as usize - 1].disk_id;
            if member.disk_id != disk_id {
                return Err(format!(
                    "member {id} lost its disk and was not removed: {known:?}"
                ));
            }
        }
        for seat in self.seats.iter().filter(|seat| !seat.is_out) {
            // Whoever waits to be taken in serves nothing, and may go on waiting,
            // and so may a removed one that knows nobody who is still there.
            let is_there = |id: &u64| self.seats[*id as usize - 1].host.is_some();
            let waits = |host: &Host| !host.others().iter().any(is_there);
            let waits = seat.host.as_ref().is_some_and(waits);
            if !waits && !known.has(seat.id, seat.disk_id) {
                return Err(format!(
                    "replica {} runs on disk {} and is not among {known:?}",
                    seat.id, seat.disk_id
                ));
            }
        }
        let voters = members.roles.voters.len();
        if members.is_between() || voters > VOTERS_MAX {
            return Err(format!("in the end there are {:?}", members.roles));
        }
        let members_seats = self
            .seats
            .iter()
            .filter(|seat| known.has(seat.id, seat.disk_id));
        let hosts = members_seats.filter_map(|seat| seat.host.as_ref());
        let differs = |host: &&Host| {
            let knows = host.replica().members();
            !knows.membership.is_empty() && *knows != members
        };
        match hosts.clone().find(differs) {
            None => Ok(()),
            Some(host) => Err(format!(
                "replica {} knows the members as of {}: {:?}; they are {members:?}",
                host.id(),
                host.replica().applied(),
                host.replica().members()
            )),
        }
    }
}

/// Whether a change was applied, though a vote may still be on its way.
fn is_taken(change: &Change, members: &Arc<Members>) -> bool {
    let known = &members.membership;
    match change {
        Change::Add { id, member } => known.has(*id, member.disk_id),
        Change::Promote { id, .. } => members.roles.voters.contains(id),
        Change::Remove { id, .. } => known.get(*id).is_none(),
    }
}
