//! One replica's process: the production engine, views and watch streams, with a disk, a clock and chance of the simulation's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{Entry, MessageType, Snapshot};
use tokio::sync::oneshot::channel;
use trimtab_proto::v1::WatchResponse;
use trimtab_registry::command::Command;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::state::Registry;
use trimtab_server::consensus::config::ReplicaConfig;
use trimtab_server::consensus::engine::{Engine, Parts};
use trimtab_server::consensus::entry::encode_command;
use trimtab_server::consensus::error::FatalError;
use trimtab_server::consensus::farewell::Farewell;
use trimtab_server::consensus::input::Input;
use trimtab_server::consensus::membership::{Member, Members, cluster_id};
use trimtab_server::consensus::outside::Store as _;
use trimtab_server::consensus::replica::Replica;
use trimtab_server::consensus::start::{found, join, restore};
use trimtab_server::consensus::status::Role;
use trimtab_server::convert::WIRE;
use trimtab_server::grpc::watching::Watching;
use trimtab_server::leases::LeaseSettings;
use trimtab_server::observation::Departures;
use trimtab_server::peers::Report;
use trimtab_server::storage::file::{Identity, Storage};
use trimtab_server::views::Views;
use trimtab_server::watchers::Watchers;

use self::observer::{Ear, Keeper};
use self::others::Outgoing;
pub(crate) use self::others::campaign_now;
use self::serving::{Asked, Gathering};
use self::vault::Vault;
use crate::disk::Disk;
use crate::packet::{Answer, Node, Outbox, Packet, Reply};
use crate::planted::Planted;

mod observer;
mod others;
mod serving;
mod vault;

/// Ticks without a leader after which an election may begin.
const ELECTION_TICKS: usize = 10;
/// How long a replica hears of no leader before it says that it is cut off.
const CUT_OFF_AFTER: u64 = 2_000;

/// How all replicas of a run are set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) founders: BTreeMap<u64, Member>,
    pub(crate) snapshot_every: u64,
    pub(crate) trailing_entries: u64,
    pub(crate) leases: LeaseSettings,
    pub(crate) planted: Option<Planted>,
}

/// What was applied in one round.
#[derive(Debug)]
pub(crate) struct AppliedRound {
    /// The snapshot that came first, if one did.
    pub(crate) restored_at: Option<u64>,
    pub(crate) entries: Vec<Entry>,
    /// What it made. Copying it copies pointers.
    pub(crate) registry: Registry,
    pub(crate) members: Arc<Members>,
}

/// What a process did since it was asked last.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) out: Outbox,
    /// Said on watch streams; `None`: the replica ends the stream.
    pub(crate) flows: Vec<(u64, Option<WatchResponse>)>,
    pub(crate) rounds: Vec<AppliedRound>,
    /// Whom it gave its vote.
    pub(crate) voted_for: Option<u64>,
    /// Leases whose end was proposed, and the command's bytes.
    pub(crate) judged: Vec<(Vec<LeaseKey>, Bytes)>,
}

/// Whose process it is, on what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Machine<'a> {
    pub(crate) id: u64,
    /// How many processes there were before, with this one.
    pub(crate) life: u64,
    pub(crate) disk: &'a Disk,
    pub(crate) disk_id: u64,
    /// On an empty disk it founds the cluster, or waits to be taken in.
    pub(crate) founds: bool,
}

/// Says whether a watch stream has news.
#[derive(Debug)]
struct News(AtomicBool);

impl Wake for News {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a replica must not forget.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    term: u64,
    snapshot: u64,
    /// Term and index of the last entry.
    last: (u64, u64),
}

impl Kept {
    /// Whether something of it is missing in what was found. A log only grows
    /// or is replaced by a later term's, unless a snapshot came.
    pub(crate) fn is_missing_in(&self, found: &Self) -> bool {
        let has_grown = found.last >= self.last || found.snapshot != self.snapshot;
        found.term < self.term || !has_grown
    }
}

/// A running process.
pub(crate) struct Host {
    setup: Setup,
    /// Its part, as of its last round.
    role: Role,
    leader_id: u64,
    is_caught_up: bool,
    /// Its disk has failed, and it waits until that works again.
    pub(crate) is_halted: bool,
    pub(crate) now: u64,
    started: u64,
    engine: Engine<Vault, Ear, Outgoing>,
    disk_id: u64,
    incarnation: u64,
    ear: Ear,
    watchers: Arc<Watchers>,
    streams: BTreeMap<u64, Watching>,
    news: Arc<News>,
    waker: Waker,
    asked: Vec<Asked>,
    gathering: BTreeMap<u64, Gathering>,
    last_id: u64,
    leaderless_since: Option<u64>,
    /// When it asks next whether it was removed, and who said so, since when.
    asks_at: u64,
    farewell: Farewell,
    departures: Departures,
    encoded: Option<Result<Snapshot, FatalError>>,
    /// It ran before this start, and has forgotten who watched.
    was_down: bool,
    cut_off: bool,
    /// It was told to stop, in order.
    pub(crate) stopping: bool,
    pub(crate) done: Done,
}

impl Host {
    /// Starts on what the disk holds. An error is the operator's to read.
    pub(crate) fn start(setup: &Setup, machine: Machine<'_>, now: u64) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let Machine {
            id,
            life,
            disk,
            disk_id,
            founds,
        } = machine;
        let identity = Identity::of_new(id, disk_id);
        let disk = disk.clone();
        let attached = disk.clone();
        let mut storage = Storage::open_on_disks(
            Path::new("a simulated disk"),
            move || Ok(attached.attach()),
            identity,
        )
        .map_err(|e| text(&e))?;
        let was_down = storage.identity().cluster_id != 0;
        if !was_down {
            let begun = match founds {
                true => found(&mut storage, &setup.founders),
                false => join(&mut storage, cluster_id(&setup.founders)),
            };
            begun.map_err(|e| text(&e))?;
        }
        let ear = Ear {
            keeper: Arc::new(Mutex::new(Keeper::new(setup.leases, setup.planted))),
            views: Views::new(WIRE),
        };
        let views = Arc::clone(&ear.views);
        let mut store = Vault::new(storage, disk, setup.planted, views);
        let saved = store.load().map_err(|e| text(&e))?;
        let saved = saved.ok_or("nothing was founded")?;
        let restored = restore(saved).map_err(|e| text(&e))?;
        let incarnation = id * 1_000_000 + life;
        let config = ReplicaConfig {
            id,
            disk_id,
            incarnation,
            heartbeat_ticks: 2,
            election_ticks: ELECTION_TICKS,
            snapshot_every: setup.snapshot_every,
            trailing_entries: setup.trailing_entries,
        };
        let parts = Parts {
            store,
            observer: ear.clone(),
            carrier: Outgoing::default(),
        };
        let engine = Engine::start(&config, restored, parts).map_err(|e| text(&e))?;
        let news = Arc::new(News(AtomicBool::new(false)));
        let mut host = Self {
            role: Role::Follower,
            leader_id: 0,
            is_caught_up: false,
            is_halted: false,
            setup: setup.clone(),
            now,
            started: now,
            engine,
            disk_id,
            incarnation,
            ear,
            watchers: Arc::default(),
            streams: BTreeMap::new(),
            waker: Waker::from(Arc::clone(&news)),
            news,
            asked: Vec::new(),
            gathering: BTreeMap::new(),
            // Answers to an earlier process are not taken for its own.
            last_id: incarnation * 1_000_000,
            leaderless_since: Some(now),
            asks_at: 0,
            farewell: Farewell::default(),
            departures: Departures::default(),
            encoded: None,
            was_down,
            cut_off: false,
            stopping: false,
            done: Done::default(),
        };
        host.note_standing();
        Ok(host)
    }

    pub(crate) fn replica(&self) -> &Replica {
        self.engine.replica()
    }

    pub(crate) fn kept(&mut self) -> Kept {
        Kept {
            term: self.replica().term(),
            snapshot: self.replica().snapshot_index(),
            last: self.engine.parts().store.last,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.replica().id()
    }

    pub(crate) fn leader_id(&self) -> u64 {
        self.leader_id
    }

    pub(crate) fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether it was stopped and has nothing left to do.
    pub(crate) fn has_stopped(&self) -> bool {
        self.engine.is_done()
    }

    /// What is left from before its start.
    pub(crate) fn resume(&mut self) -> Result<(), FatalError> {
        self.round(Vec::new(), 0)
    }

    /// One tick of Raft's time.
    pub(crate) fn tick(&mut self) -> Result<(), FatalError> {
        // A snapshot that was to be encoded elsewhere is done by now.
        let encoded = self.encoded.take().map(Input::Encoded);
        self.round(encoded.into_iter().collect(), 1)?;
        self.notice_a_cut();
        self.end_gathering();
        Ok(())
    }

    /// Hands leadership over, if it has it, and stays.
    pub(crate) fn hand_over(&mut self) -> Result<(), FatalError> {
        let (reply, _answer) = channel();
        self.round(vec![Input::HandOver(None, reply)], 0)
    }

    /// Stops in order: hands leadership over and says goodbye.
    pub(crate) fn stop(&mut self) -> Result<(), FatalError> {
        self.stopping = true;
        self.say_goodbye();
        self.round(vec![Input::Stop], 0)
    }

    /// Looks for leases that ran out, after real time `elapsed`.
    pub(crate) fn judge(&mut self, elapsed: Duration) -> Result<(), FatalError> {
        let last = self.replica().last_index();
        let judged = self.ear.keeper().judge(elapsed, last);
        let Some((bytes, command)) = judged.and_then(|it| Some((encode_command(&it).ok()?, it)))
        else {
            return Ok(());
        };
        if let Command::JudgeLeases(judgement) = &command {
            let keys = judgement.expire.iter().map(|expiry| expiry.key.clone());
            self.done.judged.push((keys.collect(), bytes.clone()));
        }
        let input = self.proposal(0, Vec::new(), bytes);
        self.round(vec![input], 0)
    }

    /// Takes what arrived.
    pub(crate) fn take(&mut self, packet: Packet) -> Result<(), FatalError> {
        let input = match packet {
            Packet::Raft { disks, bytes, .. } => self.step(disks, bytes)?,
            Packet::Call(call) => self.serve(call),
            Packet::Answer(Answer { id, path, reply }) => self.relay(id, path, reply),
        };
        match input {
            Some(input) => self.round(vec![input], 0),
            None => Ok(()),
        }
    }

    pub(crate) fn report(&mut self, report: Report) -> Result<(), FatalError> {
        self.round(vec![Input::Report(report)], 0)
    }

    /// One round of the engine, and what comes of it.
    fn round(&mut self, inputs: Vec<Input>, ticks: u32) -> Result<(), FatalError> {
        let before = self.replica().applied();
        let worked = self.engine.round(inputs, ticks);
        if let Some(job) = self.engine.due_snapshot() {
            self.encoded = Some(job.run());
        }
        self.fix_election_timeout();
        self.note_standing();
        self.collect(before);
        worked?;
        self.answer_asked()?;
        self.tell_news();
        Ok(())
    }

    fn note_standing(&mut self) {
        let status = self.engine.status();
        self.role = status.role;
        self.leader_id = status.leader_id;
        self.is_caught_up = status.caught_up;
        self.is_halted = status.halted.is_some();
    }

    /// One timeout per term and life, drawn from the seed.
    fn fix_election_timeout(&mut self) {
        let mut bytes = [0; 24];
        for (part, place) in [self.setup.seed, self.incarnation, self.replica().term()]
            .iter()
            .zip(bytes.chunks_mut(8))
        {
            place.copy_from_slice(&part.to_le_bytes());
        }
        let drawn = trimtab_proto::checksum(&bytes) % ELECTION_TICKS as u64;
        self.engine
            .set_election_timeout(ELECTION_TICKS + drawn as usize);
    }

    /// What the engine sent and applied.
    fn collect(&mut self, before: u64) {
        let messages = std::mem::take(&mut self.engine.parts().carrier.messages);
        for (to_disk, message) in messages {
            let to = Node::Replica(message.to);
            let is_snapshot = message.msg_type == MessageType::MsgSnapshot as u32;
            let is_vote = message.msg_type == MessageType::MsgRequestVoteResponse as u32;
            if is_vote && !message.reject {
                self.done.voted_for = Some(message.to);
            }
            let bytes = Bytes::from(message.encode_to_vec());
            let packet = Packet::Raft {
                disks: (self.disk_id, to_disk),
                bytes,
                is_snapshot,
            };
            self.done.out.sends.push((to, packet));
        }
        let has_news = self.replica().applied() != before;
        if !has_news && !self.engine.parts().store.was_restored() {
            return;
        }
        let registry = self.replica().registry().clone();
        let (restored_at, entries) = self.engine.parts().store.applied(&registry);
        self.done.rounds.push(AppliedRound {
            restored_at,
            entries,
            registry,
            members: Arc::clone(self.replica().members()),
        });
    }

    fn notice_a_cut(&mut self) {
        if self.replica().is_removed() {
            self.say_goodbye();
            self.ask_whether_removed();
        }
        self.note_departures();
        if self.leader_id != 0 && !self.is_halted {
            self.leaderless_since = None;
            return self.say_cut_off(false);
        }
        let since = *self.leaderless_since.get_or_insert(self.now);
        if self.now >= since + CUT_OFF_AFTER {
            self.say_cut_off(true);
            self.ask_whether_removed();
        }
    }

    fn relay(&mut self, id: u64, path: Vec<Node>, reply: Reply) -> Option<Input> {
        match reply {
            Reply::Observed(observed) if path.is_empty() => self.observed(id, observed),
            Reply::Removed(Some(word)) if path.is_empty() => return self.told_of_removal(id, word),
            Reply::Removed(None) if path.is_empty() => {}
            reply => self.done.out.answer(id, path, reply),
        }
        None
    }
}
