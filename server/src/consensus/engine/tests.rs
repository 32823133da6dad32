//! Engines that reach each other through a list of messages, on stores that write down what they are told.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;

use bytes::Bytes;
use tokio::sync::oneshot;
use trimtab_proto::internal::v1::{HardState, Message, Snapshot};
use trimtab_registry::event::Event;
use trimtab_registry::state::Registry;

use super::super::config::ReplicaConfig;
use super::super::entry::encode_command;
use super::super::error::ProposeError;
use super::super::founding::founding;
use super::super::input::{Answer, Input};
use super::super::membership::Membership;
use super::super::message::{self, from_wire};
use super::super::observer::Observer;
use super::super::outside::{Carrier, Store};
use super::super::status::{ConsensusStatus, Role};
use super::super::testing::{founders, register};
use super::{Engine, Parts};
use crate::storage::error::StorageError;
use crate::storage::file::{Identity, LogBase, Round, Saved, Storage};
use crate::storage::testing::TestDisk;

mod halt;
mod snapshots;

/// What a store was asked to make durable.
#[derive(Debug, Clone, PartialEq)]
struct Written {
    entries: Vec<u64>,
    hard_state: HardState,
}

struct Noting {
    storage: Storage,
    written: Vec<Written>,
    reopened: u32,
    staged: usize,
}

impl Store for Noting {
    fn reopen(&mut self) -> Result<(), StorageError> {
        self.reopened += 1;
        Store::reopen(&mut self.storage)
    }

    fn load(&mut self) -> Result<Option<Saved>, StorageError> {
        self.storage.load()
    }

    fn snapshot(&self, index: u64) -> Result<Bytes, StorageError> {
        self.storage.snapshot(index)
    }

    fn save(&mut self, round: Round<'_>) -> Result<(), StorageError> {
        self.storage.save(round)?;
        self.written.push(Written {
            entries: round.entries.iter().map(|entry| entry.index).collect(),
            hard_state: *round.hard_state,
        });
        Ok(())
    }

    fn stage(&mut self, snapshot: &Snapshot, piece: usize) -> Result<(), StorageError> {
        self.storage.stage(snapshot, piece)?;
        self.staged += 1;
        Ok(())
    }

    fn compact(
        &mut self,
        snapshot: &Snapshot,
        base: LogBase,
        hard_state: &HardState,
    ) -> Result<(), StorageError> {
        self.storage.compact(snapshot, base, hard_state)
    }
}

#[derive(Default)]
struct Letters(Vec<Message>);

impl Carrier for Letters {
    fn send(&mut self, message: Message) {
        self.0.push(message);
    }

    fn follow(&mut self, _: &Membership) {}
}

/// Counts instances as it is told of them.
#[derive(Default)]
struct Watching {
    instances: Vec<usize>,
}

fn instances_in(registry: &Registry) -> usize {
    let services = registry.services();
    services.map(|service| service.instances().len()).sum()
}

impl Observer for Watching {
    fn applied(&mut self, registry: &Registry, _: &[Event]) {
        self.instances.push(instances_in(registry));
    }

    fn restored(&mut self, registry: &Registry) {
        self.instances.push(instances_in(registry));
    }

    fn role_changed(&mut self, _: &ConsensusStatus) {}
}

type TestEngine = Engine<Noting, Watching, Letters>;

fn engine(id: u64, count: u64) -> TestEngine {
    engine_on(&TestDisk::default(), id, count)
}

fn engine_on(disk: &TestDisk, id: u64, count: u64) -> TestEngine {
    engine_with(disk, id, count, 1_000)
}

fn engine_with(disk: &TestDisk, id: u64, count: u64, snapshot_every: u64) -> TestEngine {
    let identity = Identity::of_new(id, 10 + id);
    let disk = disk.clone();
    let next = move || Ok(disk.clone());
    let mut storage = Storage::open_on_disks(Path::new("memory"), next, identity).expect("opens");
    assert_eq!(storage.load().expect("loads"), None);
    let restored = founding(&founders(count)).expect("founds");
    let snapshot = message::snapshot_to_wire(restored.snapshot.clone());
    let hard_state = message::hard_state_to_wire(&restored.hard_state);
    storage.found(1, &snapshot, &hard_state).expect("founds");
    let config = ReplicaConfig {
        id,
        disk_id: 10 + id,
        incarnation: id,
        heartbeat_ticks: 2,
        election_ticks: 10,
        snapshot_every,
        trailing_entries: 10,
    };
    let parts = Parts {
        store: Noting {
            storage,
            written: Vec::new(),
            reopened: 0,
            staged: 0,
        },
        observer: Watching::default(),
        carrier: Letters::default(),
    };
    let mut engine = Engine::start(&config, restored, parts).expect("starts");
    engine.round([], 0).expect("works");
    engine
}

struct Trio {
    engines: BTreeMap<u64, TestEngine>,
    disks: BTreeMap<u64, TestDisk>,
}

impl Trio {
    fn new() -> Self {
        let disks: BTreeMap<_, _> = (1..=3).map(|id| (id, TestDisk::default())).collect();
        let engines = disks
            .iter()
            .map(|(id, disk)| (*id, engine_on(disk, *id, 3)));
        Self {
            engines: engines.collect(),
            disks,
        }
    }

    fn at(&mut self, id: u64) -> &mut TestEngine {
        self.engines.get_mut(&id).expect("is a member")
    }

    fn others(&self, id: u64) -> Vec<u64> {
        self.engines
            .keys()
            .copied()
            .filter(|it| *it != id)
            .collect()
    }

    fn tick(&mut self) {
        for engine in self.engines.values_mut() {
            engine.round([], 1).expect("works");
        }
        self.settle();
    }

    /// Carries messages until there are none.
    fn settle(&mut self) {
        loop {
            let sent = self
                .engines
                .values_mut()
                .map(|engine| &mut engine.parts().carrier);
            let mut letters: VecDeque<Message> = sent.flat_map(|sent| sent.0.drain(..)).collect();
            if letters.is_empty() {
                return;
            }
            while let Some(letter) = letters.pop_front() {
                let to = letter.to;
                let message = from_wire(letter).expect("is well formed");
                let input = Input::Step {
                    from_disk: 10 + message.from,
                    messages: vec![message],
                };
                self.at(to).round([input], 0).expect("works");
            }
        }
    }

    /// Lets time pass until someone leads and all know it.
    fn leader(&mut self) -> u64 {
        for _ in 0..100 {
            self.tick();
            let leader = self.at(1).status().leader_id;
            let known = |engine: &TestEngine| engine.status().leader_id == leader;
            if leader != 0 && self.engines.values().all(known) {
                return leader;
            }
        }
        panic!("no leader");
    }
}

fn propose(
    engine: &mut TestEngine,
    instance: &str,
) -> oneshot::Receiver<Result<Answer, ProposeError>> {
    let (reply, answer) = oneshot::channel();
    let command: Bytes = encode_command(&register("catalog", instance)).expect("encodes");
    let input = Input::Propose(command, reply);
    engine.round([input], 0).expect("works");
    answer
}

#[test]
fn one_round_is_one_write_however_many_ask() {
    let mut engine = engine(1, 1);
    assert_eq!(engine.status().role, Role::Leader);
    let before = engine.parts().store.written.len();
    let (inputs, mut answers): (Vec<_>, Vec<_>) = (0..50)
        .map(|number| {
            let (reply, answer) = oneshot::channel();
            let command = encode_command(&register("catalog", &format!("i{number}")));
            (Input::Propose(command.expect("encodes"), reply), answer)
        })
        .unzip();
    engine.round(inputs, 0).expect("works");
    let written = &engine.parts().store.written[before..];
    assert_eq!(written.len(), 1);
    assert_eq!(written[0].entries.len(), 50);
    for answer in &mut answers {
        let answer = answer.try_recv().expect("is answered");
        assert!(answer.expect("is applied").result.is_ok());
    }
}

/// Whoever restarts counts its quorums by the members it had applied, so what
/// it applied must not be far behind what it had.
#[test]
fn every_save_of_entries_carries_the_commit_index_of_its_moment() {
    let mut trio = Trio::new();
    let leader = trio.leader();
    for number in 0..5 {
        let mut answer = propose(trio.at(leader), &format!("i{number}"));
        trio.settle();
        assert!(matches!(answer.try_recv(), Ok(Ok(_))));
        let committed = trio.at(leader).status().commit;
        for id in trio.others(leader) {
            assert_eq!(trio.at(id).status().commit, committed, "replica {id}");
            let hard_state = trio.at(id).parts().store.storage.load().expect("loads");
            let saved = hard_state.expect("was founded").hard_state.commit;
            // The entry came with the commit index of the one before it.
            assert_eq!(saved, committed - 1, "replica {id}");
        }
        let saved = trio.at(leader).parts().store.storage.load();
        let saved = saved.expect("loads").expect("was founded");
        assert_eq!(saved.hard_state.commit, committed - 1);
    }
}
