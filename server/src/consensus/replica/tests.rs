//! Three replicas in one thread that exchange their batches by hand.

mod cadence;
mod members;
mod orphaned;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::super::batch::Decided;
use super::super::change::HandOverError;
use super::super::entry::encode_command;
use super::super::farewell::{Farewell, Word};
use super::super::founding::{founding, joining};
use super::super::log::Place;
use super::super::testing;
use super::super::testing::register;
use super::*;

/// Far more rounds than any test needs; reaching it means livelock.
const ROUNDS_MAX: usize = 10_000;

/// Enough for any number of split votes that chance will ever throw.
const TICKS_MAX: usize = 1_000;

/// What a replica's disk holds.
#[derive(Clone)]
struct Disk {
    hard_state: HardState,
    snapshot: Snapshot,
    base: Place,
    entries: Vec<Entry>,
}

impl Disk {
    fn new(founders: u64) -> Self {
        Self::of(founding(&testing::founders(founders)).expect("encodes"))
    }

    fn of(restored: Restored) -> Self {
        Self {
            hard_state: restored.hard_state,
            snapshot: restored.snapshot,
            base: restored.base,
            entries: restored.entries,
        }
    }

    fn save(&mut self, save: Save) {
        if let Some(snapshot) = save.snapshot {
            self.base = Place {
                index: snapshot.get_metadata().index,
                term: snapshot.get_metadata().term,
            };
            self.snapshot = snapshot;
            self.entries.clear();
        }
        if let Some(first) = save.entries.first() {
            let first = first.index;
            self.entries.retain(|entry| entry.index < first);
        }
        self.entries.extend(save.entries);
        self.hard_state = save.hard_state;
    }

    fn compact(&mut self, compaction: &Compaction) {
        self.snapshot = compaction.snapshot.clone();
        self.base = compaction.base;
        self.entries
            .retain(|entry| entry.index > compaction.base.index);
        self.hard_state = compaction.hard_state.clone();
    }

    /// Puts its data into a snapshot that is sent.
    fn fill(&self, mut messages: Vec<Message>) -> Vec<Message> {
        for snapshot in messages.iter_mut().filter_map(|it| it.snapshot.as_mut()) {
            assert_eq!(snapshot.get_metadata(), self.snapshot.get_metadata());
            snapshot.data = self.snapshot.data.clone();
        }
        messages
    }

    fn restored(&self) -> Restored {
        Restored {
            hard_state: self.hard_state.clone(),
            snapshot: self.snapshot.clone(),
            base: self.base,
            entries: self.entries.clone(),
        }
    }
}

struct Seat {
    replica: Replica,
    disk: Disk,
    decided: Vec<Decided>,
    reads: Vec<(u64, u64)>,
    restorations: usize,
    role_changes: usize,
    changed: Vec<(ProposalId, u64)>,
    /// What it stopped with.
    ended: Option<FatalError>,
}

/// A cluster without time: it ticks only when told to.
struct Cluster {
    configs: BTreeMap<u64, ReplicaConfig>,
    members: BTreeMap<u64, Seat>,
    on_the_way: VecDeque<Message>,
    /// Pairs between which messages are lost, in this direction.
    cut: BTreeSet<(u64, u64)>,
}

impl Cluster {
    fn new(size: u64, snapshot_every: u64, trailing_entries: u64) -> Self {
        let mut cluster = Self {
            configs: BTreeMap::new(),
            members: BTreeMap::new(),
            on_the_way: VecDeque::new(),
            cut: BTreeSet::new(),
        };
        for id in 1..=size {
            let config = ReplicaConfig {
                id,
                disk_id: 10 + id,
                incarnation: 100 + id,
                heartbeat_ticks: 2,
                election_ticks: 10,
                snapshot_every,
                trailing_entries,
            };
            cluster.configs.insert(id, config);
            cluster.start(id, Disk::new(size));
        }
        cluster
    }

    fn start(&mut self, id: u64, disk: Disk) {
        let replica = Replica::new(&self.configs[&id], disk.restored()).expect("starts");
        let member = Seat {
            replica,
            disk,
            decided: Vec::new(),
            reads: Vec::new(),
            restorations: 0,
            role_changes: 0,
            changed: Vec::new(),
            ended: None,
        };
        self.members.insert(id, member);
    }

    /// Starts a replica on an empty disk that waits to be taken in.
    fn join(&mut self, id: u64, disk_id: u64) {
        let config = ReplicaConfig {
            id,
            disk_id,
            ..self.configs[&1].clone()
        };
        self.configs.insert(id, config);
        self.start(id, Disk::of(joining()));
    }

    fn restart(&mut self, id: u64) {
        let disk = self.members[&id].disk.clone();
        self.start(id, disk);
        self.settle();
    }

    fn isolate(&mut self, id: u64) {
        for other in self.configs.keys().filter(|other| **other != id) {
            self.cut.insert((id, *other));
            self.cut.insert((*other, id));
        }
    }

    fn heal(&mut self) {
        self.cut.clear();
    }

    fn at(&mut self, id: u64) -> &mut Replica {
        &mut self.members.get_mut(&id).expect("a member").replica
    }

    /// Carries out batches and delivers messages until nothing moves.
    fn settle(&mut self) {
        for _ in 0..ROUNDS_MAX {
            let ids: Vec<u64> = self.members.keys().copied().collect();
            for id in ids {
                self.work(id);
            }
            let Some(message) = self.on_the_way.pop_front() else {
                return;
            };
            self.deliver(message);
        }
        panic!("the cluster does not come to rest");
    }

    fn work(&mut self, id: u64) {
        let member = self.members.get_mut(&id).expect("a member");
        if member.ended.is_some() {
            return;
        }
        while let Some(batch) = member.replica.next_batch() {
            // A crash before the save must not have told anyone of it.
            self.on_the_way.extend(member.disk.fill(batch.messages));
            if let Some(save) = batch.save {
                member.disk.save(save);
            }
            let after = member.disk.fill(batch.messages_after_save);
            self.on_the_way.extend(after);
            let effects = match member.replica.saved() {
                Ok(effects) => effects,
                Err(error) => {
                    member.ended = Some(error);
                    return;
                }
            };
            self.on_the_way.extend(member.disk.fill(effects.messages));
            member.decided.extend(effects.decided);
            member.reads.extend(effects.reads);
            member.restorations += usize::from(effects.restored);
            member.role_changes += usize::from(effects.role_changed);
            member.changed.extend(effects.changed);
        }
        if member.replica.is_removed() {
            self.say_farewell(id);
        }
        let member = self.members.get_mut(&id).expect("a member");
        if let Some(job) = member.replica.due_snapshot() {
            let snapshot = job.run().expect("encodes");
            let compaction = member.replica.compaction(snapshot).expect("fits");
            let compaction = compaction.expect("is the newest");
            member.disk.compact(&compaction);
            member.replica.compacted(compaction);
        }
    }

    /// A removed replica asks the others whether they need it.
    fn say_farewell(&mut self, id: u64) {
        let disk_id = self.configs[&id].disk_id;
        let knows = |other: &u64| {
            let seat = self.members.get(other).filter(|it| it.ended.is_none());
            let is_cut = self.cut.contains(&(id, *other)) || self.cut.contains(&(*other, id));
            !is_cut && seat.is_some_and(|it| it.replica.membership().was_removed(disk_id))
        };
        let mut farewell = Farewell::default();
        for from in self.members.keys().copied().filter(knows) {
            let replica = &self.members[&from].replica;
            let voters = replica.members().roles.voters.iter();
            let word = Word {
                from,
                applied: replica.applied(),
                voters: voters.map(|id| (*id, String::new())).collect(),
            };
            farewell.heard(word, Duration::ZERO);
        }
        if farewell.is_over(Duration::ZERO) {
            let seat = self.members.get_mut(&id).expect("a member");
            seat.ended = Some(FatalError::Removed { id });
        }
    }

    /// Over the wire's own types, as between processes.
    fn deliver(&mut self, message: Message) {
        let (from, to) = (message.from, message.to);
        let is_snapshot = message.get_msg_type() == MessageType::MsgSnapshot;
        let is_running = |id: u64| self.members.get(&id).is_some_and(|it| it.ended.is_none());
        let arrives = !self.cut.contains(&(from, to)) && is_running(to);
        if arrives {
            let wire = super::super::message::to_wire(message);
            let message = super::super::message::from_wire(wire).expect("is well formed");
            let disk_id = self.configs[&from].disk_id;
            match self.at(to).step(disk_id, message) {
                // Passed over, as between processes: whoever was away may
                // not know yet who has an id now.
                Ok(()) | Err(StepError::Refused(MessageError::Impostor { .. })) => {}
                Err(error) => panic!("not taken: {error}"),
            }
        } else {
            self.at(from).report_unreachable(to);
        }
        if is_snapshot {
            self.at(from).report_snapshot(to, arrives);
        }
    }

    fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            let running = self.members.values_mut();
            for member in running.filter(|member| member.ended.is_none()) {
                member.replica.tick();
            }
            self.settle();
        }
    }

    /// Ticks until one of `candidates` leads, however the dice fall.
    fn tick_until_led_by(&mut self, candidates: &[u64]) -> u64 {
        for _ in 0..TICKS_MAX {
            let leader = candidates.iter().find(|id| self.leads(**id));
            if let Some(leader) = leader {
                return *leader;
            }
            self.tick(1);
        }
        panic!("none of {candidates:?} was elected");
    }

    fn leads(&self, id: u64) -> bool {
        let member = &self.members[&id];
        member.ended.is_none() && member.replica.role() == Role::Leader
    }

    fn elect(&mut self, id: u64) {
        self.settle();
        self.at(id).campaign();
        self.settle();
        assert_eq!(self.at(id).role(), Role::Leader);
    }

    fn propose(&mut self, id: u64, sequence: u64) -> Result<(), NotProposed> {
        let command = register("catalog", &format!("i{sequence}"));
        let bytes = encode_command(&command).expect("encodes");
        let mark = ProposalId {
            incarnation: self.configs[&id].incarnation,
            sequence,
        };
        self.at(id).propose(vec![(mark, bytes)])
    }

    fn propose_all(&mut self, id: u64, sequences: std::ops::RangeInclusive<u64>) {
        for sequence in sequences {
            self.propose(id, sequence).expect("it leads");
            self.settle();
        }
    }

    /// Commit indexes travel with heartbeats; then all registries are equal.
    fn agree(&mut self) {
        self.tick(3);
        let mut members = self
            .members
            .values()
            .filter(|member| member.ended.is_none());
        let first = members.next().expect("a member");
        let first = &first.replica;
        for member in members {
            assert_eq!(member.replica.registry(), first.registry());
            assert_eq!(member.replica.members(), first.members());
        }
    }

    fn instances(&mut self, id: u64) -> usize {
        let services = self.at(id).registry().services();
        services.map(|service| service.instances().len()).sum()
    }
}

#[test]
fn a_leader_is_elected_and_what_it_takes_is_applied_everywhere() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(2);
    cluster.propose_all(2, 1..=5);
    cluster.agree();
    assert_eq!(cluster.instances(1), 5);
    let decided = &cluster.members[&2].decided;
    let marks: Vec<u64> = decided.iter().map(|d| d.id.sequence).collect();
    assert_eq!(marks, [1, 2, 3, 4, 5]);
    assert!(decided.iter().all(|d| d.result.is_ok()));
    assert_eq!(cluster.at(3).leader_id(), 2);
    assert!(cluster.at(2).leads_up_to_date());
    assert!(!cluster.at(1).leads_up_to_date());
}

#[test]
fn one_replica_alone_leads_and_commits_at_once() {
    let mut cluster = Cluster::new(1, 1_000, 100);
    cluster.elect(1);
    cluster.propose_all(1, 1..=3);
    assert_eq!(cluster.instances(1), 3);
    cluster.restart(1);
    cluster.elect(1);
    assert_eq!(cluster.instances(1), 3);
}

#[test]
fn only_a_leader_takes_proposals() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.settle();
    assert_eq!(cluster.propose(1, 1), Err(NotProposed::NotLeader));
    cluster.elect(2);
    assert_eq!(cluster.propose(1, 1), Err(NotProposed::NotLeader));
    cluster.settle();
    assert_eq!(cluster.at(2).applied(), cluster.at(2).commit());
    assert_eq!(cluster.instances(2), 0);
}

#[test]
fn proposals_made_together_travel_in_one_message() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    let commands = (1..=50)
        .map(|sequence| {
            let command = register("catalog", &format!("i{sequence}"));
            let mark = ProposalId {
                incarnation: 101,
                sequence,
            };
            (mark, encode_command(&command).expect("encodes"))
        })
        .collect();
    cluster.at(1).propose(commands).expect("it leads");
    let batch = cluster.at(1).next_batch().expect("there is work");
    let appends: Vec<usize> = batch.messages.iter().map(|m| m.entries.len()).collect();
    assert_eq!(appends, [50, 50]);
    assert_eq!(batch.save.expect("entries to save").entries.len(), 50);
}

#[test]
fn a_follower_tells_of_entries_only_after_they_are_saved() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.propose(1, 1).expect("it leads");
    cluster.work(1);
    let append = cluster
        .on_the_way
        .iter()
        .find(|message| message.to == 2)
        .cloned()
        .expect("an append");
    cluster.at(2).step(11, append).expect("is taken");
    let batch = cluster.at(2).next_batch().expect("there is work");
    assert!(batch.messages.is_empty());
    assert!(batch.save.is_some());
    assert_eq!(batch.messages_after_save.len(), 1);
    // Until it is saved there is nothing else to do.
    assert!(cluster.at(2).next_batch().is_none());
}

#[test]
fn all_replicas_restart_from_what_they_saved() {
    let mut cluster = Cluster::new(3, 7, 3);
    cluster.elect(1);
    cluster.propose_all(1, 1..=20);
    cluster.agree();
    for id in 1..=3 {
        cluster.restart(id);
    }
    cluster.elect(3);
    cluster.agree();
    assert_eq!(cluster.instances(2), 20);
    cluster.propose_all(3, 21..=22);
    cluster.agree();
    assert_eq!(cluster.instances(1), 22);
}

#[test]
fn a_follower_far_behind_catches_up_by_snapshot() {
    let mut cluster = Cluster::new(3, 10, 2);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose_all(1, 1..=35);
    assert!(cluster.at(1).snapshot_index() > 30);
    cluster.heal();
    cluster.tick(10);
    cluster.agree();
    assert_eq!(cluster.members[&3].restorations, 1);
    assert_eq!(cluster.instances(3), 35);
    // It has the snapshot on disk, and goes on from there.
    cluster.restart(3);
    cluster.tick(10);
    cluster.propose_all(1, 36..=36);
    cluster.agree();
    assert_eq!(cluster.instances(3), 36);
}

#[test]
fn a_follower_a_little_behind_catches_up_by_entries() {
    let mut cluster = Cluster::new(3, 10, 100);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose_all(1, 1..=35);
    cluster.heal();
    cluster.tick(10);
    cluster.agree();
    assert_eq!(cluster.members[&3].restorations, 0);
}

#[test]
fn a_lost_snapshot_is_sent_again() {
    let mut cluster = Cluster::new(3, 10, 2);
    cluster.elect(1);
    cluster.isolate(3);
    cluster.propose_all(1, 1..=35);
    // The follower is heard, but nothing reaches it: the snapshot is lost.
    cluster.cut.remove(&(3, 1));
    cluster.cut.remove(&(1, 3));
    cluster.at(1).tick();
    cluster.at(1).tick();
    cluster.work(1);
    while let Some(message) = cluster.on_the_way.pop_front() {
        if message.get_msg_type() == MessageType::MsgSnapshot {
            cluster.at(1).report_snapshot(3, false);
        } else {
            cluster.deliver(message);
        }
        for id in 1..=3 {
            cluster.work(id);
        }
    }
    assert_eq!(cluster.members[&3].restorations, 0);
    cluster.tick(10);
    cluster.agree();
    assert_eq!(cluster.members[&3].restorations, 1);
}

#[test]
fn an_isolated_leader_steps_down_and_what_it_took_alone_is_gone() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.propose_all(1, 1..=1);
    cluster.isolate(1);
    cluster.propose(1, 2).expect("it does not know yet");
    cluster.settle();
    let changes = cluster.members[&1].role_changes;
    cluster.tick(25);
    assert_ne!(cluster.at(1).role(), Role::Leader);
    assert_eq!(cluster.at(1).leader_id(), 0);
    assert!(cluster.members[&1].role_changes > changes);
    let successor = cluster.tick_until_led_by(&[2, 3]);
    cluster.propose_all(successor, 3..=3);
    cluster.heal();
    cluster.tick(25);
    cluster.agree();
    // Proposal 2 was never decided; 1 and 3 were.
    assert_eq!(cluster.instances(1), 2);
    let marks: Vec<u64> = cluster.members[&1]
        .decided
        .iter()
        .filter(|decided| decided.id.incarnation == 101)
        .map(|decided| decided.id.sequence)
        .collect();
    assert_eq!(marks, [1]);
}

#[test]
fn an_old_leader_cannot_disturb_the_new_one() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.tick_until_led_by(&[2, 3]);
    let term = cluster.at(2).term();
    // While it was alone it asked for votes in vain, without raising the term.
    cluster.heal();
    cluster.tick(5);
    assert_eq!(cluster.at(1).term(), term);
    assert_eq!(cluster.at(2).term(), term);
}

#[test]
fn leadership_is_handed_over_to_someone_up_to_date() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.propose_all(1, 1..=3);
    cluster.isolate(3);
    cluster.propose_all(1, 4..=4);
    cluster.tick(20);
    assert_eq!(cluster.at(1).hand_over(None), Ok(()));
    assert_eq!(cluster.propose(1, 5), Err(NotProposed::NotLeader));
    cluster.settle();
    assert_eq!(cluster.at(2).role(), Role::Leader);
    assert_eq!(cluster.at(1).leader_id(), 2);
    let refused = cluster.at(1).hand_over(None);
    assert_eq!(refused, Err(HandOverError::NotLeader));
}

#[test]
fn reads_are_answered_on_every_replica_with_what_was_committed() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.settle();
    assert!(!cluster.at(1).can_read());
    cluster.elect(1);
    cluster.propose_all(1, 1..=4);
    let commit = cluster.at(1).commit();
    for id in 1..=3 {
        assert!(cluster.at(id).can_read());
        cluster.at(id).read_index(40 + id);
        cluster.settle();
        assert_eq!(cluster.members[&id].reads, [(40 + id, commit)]);
    }
}

#[test]
fn an_answer_to_an_earlier_process_does_not_answer_a_read() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.at(2).read_index(7);
    while !cluster
        .on_the_way
        .iter()
        .any(|it| it.get_msg_type() == MessageType::MsgReadIndexResp)
    {
        let ids: Vec<u64> = cluster.members.keys().copied().collect();
        ids.into_iter().for_each(|id| cluster.work(id));
        let is_answer = |it: &Message| it.get_msg_type() == MessageType::MsgReadIndexResp;
        if !cluster.on_the_way.iter().any(is_answer) {
            let message = cluster.on_the_way.pop_front().expect("is under way");
            cluster.deliver(message);
        }
    }
    // It is late: meanwhile the replica starts anew, and others go on.
    let mut late = std::mem::take(&mut cluster.on_the_way);
    late.retain(|it| it.get_msg_type() == MessageType::MsgReadIndexResp);
    cluster.configs.get_mut(&2).expect("a member").incarnation += 1_000;
    cluster.restart(2);
    cluster.isolate(2);
    cluster.propose_all(1, 1..=1);
    cluster.heal();
    cluster.at(2).read_index(7);
    cluster.work(2);
    cluster.on_the_way.clear();
    for message in late {
        cluster.deliver(message);
    }
    cluster.work(2);
    assert_eq!(cluster.members[&2].reads, []);
}

#[test]
fn an_isolated_leader_answers_no_reads() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.isolate(1);
    cluster.at(1).read_index(7);
    cluster.settle();
    cluster.tick(25);
    assert!(cluster.members[&1].reads.is_empty());
}

#[test]
fn nobody_and_oneself_are_refused() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    for from in [0, 1] {
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgHeartbeat);
        message.from = from;
        message.to = 1;
        message.term = 5;
        let refused = cluster.at(1).step(11, message);
        let Err(StepError::Refused(MessageError::NotAMember { .. })) = refused else {
            panic!("{refused:?}");
        };
    }
    assert_eq!(cluster.at(1).term(), 1);
}

#[test]
fn a_replica_whose_disk_was_emptied_finds_out_and_stops() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    cluster.propose_all(1, 1..=5);
    cluster.start(2, Disk::new(3));
    cluster.at(1).tick();
    cluster.at(1).tick();
    cluster.work(1);
    let heartbeat = cluster
        .on_the_way
        .iter()
        .find(|m| m.to == 2 && m.get_msg_type() == MessageType::MsgHeartbeat)
        .cloned()
        .expect("a heartbeat");
    let refused = cluster.at(2).step(11, heartbeat);
    let Err(StepError::Fatal(FatalError::LostEntries { last: 1, .. })) = refused else {
        panic!("{refused:?}");
    };
}

#[test]
fn an_unreadable_snapshot_is_refused_before_it_replaces_anything() {
    let mut cluster = Cluster::new(3, 1_000, 100);
    cluster.elect(1);
    let mut message = Message::default();
    message.set_msg_type(MessageType::MsgSnapshot);
    message.from = 1;
    message.to = 2;
    message.term = cluster.at(1).term();
    let mut snapshot = cluster.members[&2].disk.snapshot.clone();
    snapshot.mut_metadata().index = 100;
    snapshot.data = Bytes::from_static(b"\x01nonsense");
    message.set_snapshot(snapshot);
    assert!(matches!(
        cluster.at(2).step(11, message),
        Err(StepError::Refused(MessageError::Malformed { .. }))
    ));
    cluster.settle();
    assert_eq!(cluster.members[&2].restorations, 0);
}

#[test]
fn a_committed_entry_that_cannot_be_read_stops_the_replica() {
    let mut cluster = Cluster::new(1, 1_000, 100);
    cluster.elect(1);
    let mark = ProposalId {
        incarnation: 101,
        sequence: 1,
    };
    let newer = Bytes::from_static(b"\xffa command of the future");
    cluster
        .at(1)
        .propose(vec![(mark, newer)])
        .expect("it leads");
    let member = cluster.members.get_mut(&1).expect("a member");
    let batch = member.replica.next_batch().expect("there is work");
    member.disk.save(batch.save.expect("an entry to save"));
    let stopped = member.replica.saved().expect_err("it must not be skipped");
    assert!(matches!(stopped, FatalError::UnreadableEntry { .. }));
    assert!(
        stopped.to_string().contains("format version 255"),
        "{stopped}"
    );
}
