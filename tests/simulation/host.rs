//! One replica's process: the production parts, put together as its driver and publisher do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb::{Entry, MessageType};
use trimtab_proto::internal::v1 as wire;
use trimtab_registry::command::Command;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::ServiceName;
use trimtab_server::consensus::batch::{NotProposed, Save, StepError};
use trimtab_server::consensus::config::ReplicaConfig;
use trimtab_server::consensus::entry::{ProposalId, encode_command};
use trimtab_server::consensus::error::FatalError;
use trimtab_server::consensus::founding::founding;
use trimtab_server::consensus::membership::Member;
use trimtab_server::consensus::message;
use trimtab_server::consensus::replica::Replica;
use trimtab_server::consensus::start::restore;
use trimtab_server::consensus::status::Role;
use trimtab_server::convert::encode_view;
use trimtab_server::lease_keeper::JUDGE_INTERVAL;
use trimtab_server::leases::{Judge, LeaseClock, LeaseSettings};
use trimtab_server::storage::file::{Identity, Storage};
use trimtab_server::views::Views;

use crate::disk::Attached;
use crate::packet::{Answer, Call, Node, Outbox, Packet, Reply, Request, RouteRead};
use crate::planted::Planted;

mod rounds;

/// Ticks without a leader after which an election may begin.
const ELECTION_TICKS: usize = 10;
/// Ticks after which an unanswered read is asked again.
const READ_RETRY_TICKS: u32 = 2;
/// The replica's own read, by which it learns whether it has caught up.
const OWN_READ: u64 = 0;

/// How all replicas of a run are set up.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) members: BTreeMap<u64, Member>,
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
    pub(crate) applied: u64,
    pub(crate) state_hash: u64,
}

/// What a process did since it was asked last.
#[derive(Debug, Default)]
pub(crate) struct Done {
    pub(crate) out: Outbox,
    pub(crate) rounds: Vec<AppliedRound>,
    /// Leases whose end was proposed, and the command's bytes.
    pub(crate) judged: Vec<(Vec<LeaseKey>, Bytes)>,
}

/// What a linearizable read is for.
#[derive(Debug)]
enum Question {
    Routes(Vec<ServiceName>),
    /// Whether a lease that was not known when it was renewed is none.
    Lost {
        via: u64,
        key: LeaseKey,
    },
}

#[derive(Debug)]
struct Reading {
    reply: Option<(u64, Vec<Node>, Question)>,
    index: Option<u64>,
    ticks: u32,
}

/// A running process.
pub(crate) struct Host {
    setup: Setup,
    pub(crate) replica: Replica,
    storage: Storage,
    judge: Judge,
    views: Arc<Views>,
    incarnation: u64,
    sequence: u64,
    waiting: BTreeMap<u64, (u64, Vec<Node>)>,
    reads: BTreeMap<u64, Reading>,
    last_read: u64,
    caught_up: bool,
    could_read: bool,
    watching: BTreeMap<(usize, ServiceName), u64>,
    /// Entries in its log that are not applied yet.
    log: BTreeMap<u64, Entry>,
    last_index: u64,
    unwritten: Option<Save>,
    stale_judgements: Vec<LeaseKey>,
    published_early: BTreeSet<u64>,
    pub(crate) done: Done,
}

impl Host {
    /// Starts on what the disk holds. An error is the operator's to read.
    pub(crate) fn start(setup: &Setup, id: u64, life: u64, disk: Attached) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let disk_id = setup.members.get(&id).map_or(0, |it| it.disk_id);
        let identity = Identity::of_new(id, disk_id);
        let mut storage = Storage::open_with_backend(Path::new("a simulated disk"), disk, identity)
            .map_err(|e| text(&e))?;
        let restored = match storage.load().map_err(|e| text(&e))? {
            Some(saved) => restore(saved).map_err(|e| text(&e))?,
            None => {
                let first = founding(&setup.members).map_err(|e| text(&e))?;
                let snapshot = message::snapshot_to_wire(first.snapshot.clone());
                let hard_state = message::hard_state_to_wire(&first.hard_state);
                storage
                    .found(1, &snapshot, &hard_state)
                    .map_err(|e| text(&e))?;
                first
            }
        };
        let at = restored.snapshot.get_metadata().index;
        let log: BTreeMap<u64, Entry> = (restored.entries.iter())
            .filter(|entry| entry.index > at)
            .map(|entry| (entry.index, entry.clone()))
            .collect();
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
        let replica = Replica::new(&config, restored).map_err(|e| text(&e))?;
        let clock = match setup.planted {
            Some(Planted::PausesCount) => LeaseClock::new(Duration::MAX),
            _ => LeaseClock::default(),
        };
        let mut host = Self {
            setup: setup.clone(),
            last_index: replica.last_index(),
            replica,
            storage,
            judge: Judge::new(setup.leases, clock),
            views: Views::new(encode_view),
            incarnation,
            sequence: 0,
            waiting: BTreeMap::new(),
            reads: BTreeMap::new(),
            last_read: OWN_READ,
            caught_up: false,
            could_read: false,
            watching: BTreeMap::new(),
            log,
            unwritten: None,
            stale_judgements: Vec::new(),
            published_early: BTreeSet::new(),
            done: Done::default(),
        };
        host.fix_election_timeout();
        host.judge.restored(host.replica.registry());
        host.views.replace(host.replica.registry());
        host.note_round(Some(at), Vec::new())?;
        if setup.members.len() == 1 {
            host.replica.campaign();
        }
        host.work().map_err(|e| text(&e))?;
        Ok(host)
    }

    pub(crate) fn id(&self) -> u64 {
        self.replica.id()
    }

    pub(crate) fn leads(&self) -> bool {
        self.replica.role() == Role::Leader
    }

    /// One tick of Raft's time.
    pub(crate) fn tick(&mut self) -> Result<(), FatalError> {
        self.replica.tick();
        let mut again = Vec::new();
        for (id, read) in &mut self.reads {
            read.ticks += 1;
            if read.index.is_none() && read.ticks >= READ_RETRY_TICKS {
                read.ticks = 0;
                again.push(*id);
            }
        }
        for id in again {
            self.ask(id);
        }
        self.work()
    }

    /// Looks for leases that ran out, after real time `elapsed`.
    pub(crate) fn judge(&mut self, elapsed: Duration) -> Result<(), FatalError> {
        let mut elapsed = elapsed;
        if self.setup.planted == Some(Planted::PausesCount) {
            // Neither left out nor noticed.
            let stood_still = elapsed.saturating_sub(JUDGE_INTERVAL);
            self.judge.leap(stood_still);
            elapsed -= stood_still;
        }
        let Some(mut command) = self.judge.judge(elapsed) else {
            return self.work();
        };
        if self.setup.planted == Some(Planted::UnfencedExpiry) {
            self.unfence(&mut command);
        }
        let Ok(bytes) = encode_command(&command) else {
            return Ok(());
        };
        if let Command::JudgeLeases(judgement) = &command {
            let keys = judgement.expire.iter().map(|expiry| expiry.key.clone());
            self.done.judged.push((keys.collect(), bytes.clone()));
        }
        self.propose(u64::MAX, Vec::new(), bytes);
        self.work()
    }

    /// The planted bug: who was suspect once is removed at the next judgement,
    /// whatever happened since.
    fn unfence(&mut self, command: &mut Command) {
        let Command::JudgeLeases(judgement) = command else {
            return;
        };
        let since = trimtab_registry::revision::Revision(self.replica.last_index() + 1);
        for key in std::mem::take(&mut self.stale_judgements) {
            judgement.suspect.push(key.clone());
            let suspect_since = since;
            let expiry = trimtab_registry::command::Expiry { key, suspect_since };
            judgement.expire.push(expiry);
        }
        self.stale_judgements
            .extend(judgement.revive.iter().cloned());
    }

    /// Takes what arrived.
    pub(crate) fn take(&mut self, packet: Packet) -> Result<(), FatalError> {
        match packet {
            Packet::Raft(bytes) => self.step(bytes)?,
            Packet::Call(call) => self.serve(call),
            Packet::Answer(Answer { id, path, reply }) => self.done.out.answer(id, path, reply),
        }
        self.work()
    }

    /// A snapshot sent to this peer arrived, or did not.
    pub(crate) fn report_snapshot(&mut self, peer: u64, arrived: bool) -> Result<(), FatalError> {
        self.replica.report_snapshot(peer, arrived);
        self.work()
    }

    pub(crate) fn report_unreachable(&mut self, peer: u64) -> Result<(), FatalError> {
        self.replica.report_unreachable(peer);
        self.work()
    }

    /// Hands leadership over, if it has it.
    pub(crate) fn hand_over(&mut self) -> Result<(), FatalError> {
        // With nobody to take it, it goes on leading.
        let _ = self.replica.hand_over(None);
        self.work()
    }

    fn step(&mut self, bytes: Bytes) -> Result<(), FatalError> {
        let decoded = wire::Message::decode(bytes)
            .map_err(|error| FatalError::Raft(format!("undecodable: {error}")))?;
        let message = message::from_wire(decoded)
            .map_err(|error| FatalError::Raft(format!("a replica's message: {error}")))?;
        // A read that was forwarded to a leader that meanwhile follows the one
        // who asked comes back to him; he asks again.
        let comes_back =
            message.from == self.id() && message.get_msg_type() == MessageType::MsgReadIndex;
        let from = self.setup.members.get(&message.from);
        match self.replica.step(from.map_or(0, |it| it.disk_id), message) {
            Ok(()) => Ok(()),
            Err(StepError::Refused(_)) if comes_back => Ok(()),
            Err(StepError::Refused(error)) => Err(FatalError::Raft(format!("refused: {error}"))),
            Err(StepError::Fatal(error)) => Err(error),
        }
    }

    fn serve(&mut self, call: Call) {
        let Call { id, path, request } = call;
        let here = self.leads();
        let relayed = path.len() > 1;
        let leader = self.replica.leader_id();
        match request {
            Request::Propose(bytes) if here => self.propose(id, path, bytes),
            Request::Renew { via, key } if here => {
                let renewed = self.judge.renew(via, std::slice::from_ref(&key));
                match renewed.as_deref() {
                    Some([]) => self.renewed(id, path, &key, false),
                    // What is missing is lost only if a read says so.
                    Some(_) => self.look(id, path, Question::Lost { via, key }),
                    None => {}
                }
            }
            Request::Broken { via, key } if here => {
                self.judge.broken(via, &[key]);
            }
            Request::Read(services) => self.read(id, path, services),
            Request::Watch { service, known } => {
                if let (Some(Node::Watcher(watcher)), true) = (path.first(), self.caught_up) {
                    self.watching.insert((*watcher, service), known);
                }
            }
            request if !relayed && leader != 0 && leader != self.id() => {
                let mut path = path;
                path.push(Node::Replica(self.id()));
                let call = Call { id, path, request };
                let to = Node::Replica(leader);
                self.done.out.sends.push((to, Packet::Call(call)));
            }
            Request::Propose(_) => self.done.out.answer(id, path, Reply::NotDone),
            Request::Renew { .. } | Request::Broken { .. } => {}
        }
    }

    fn renewed(&mut self, id: u64, path: Vec<Node>, key: &LeaseKey, lost: bool) {
        let retire = self.is_retiring(key);
        let reply = Reply::Renewed { lost, retire };
        self.done.out.answer(id, path, reply);
    }

    fn is_retiring(&self, key: &LeaseKey) -> bool {
        let service = self.replica.registry().service(&key.service);
        service.is_some_and(|service| {
            let instance = service.instance(&key.instance);
            let group = instance.and_then(|instance| service.group(instance.group()));
            group.is_some_and(|group| group.retiring)
        })
    }

    fn propose(&mut self, id: u64, path: Vec<Node>, bytes: Bytes) {
        self.sequence += 1;
        let proposal = ProposalId {
            incarnation: self.incarnation,
            sequence: self.sequence,
        };
        let refused = self.replica.propose(vec![(proposal, bytes)]).err();
        match refused {
            None => {
                self.waiting.insert(self.sequence, (id, path));
            }
            Some(NotProposed::NotLeader | NotProposed::Full) => {
                self.done.out.answer(id, path, Reply::NotDone);
            }
        }
    }

    fn read(&mut self, id: u64, path: Vec<Node>, services: Vec<ServiceName>) {
        if self.setup.planted == Some(Planted::ReadWithoutBarrier) && self.caught_up {
            let reads = self.routes(&services);
            self.done.out.answer(id, path, Reply::Read(reads));
            return;
        }
        self.look(id, path, Question::Routes(services));
    }

    fn look(&mut self, id: u64, path: Vec<Node>, question: Question) {
        self.last_read += 1;
        let reading = Reading {
            reply: Some((id, path, question)),
            index: None,
            ticks: 0,
        };
        self.reads.insert(self.last_read, reading);
        self.ask(self.last_read);
    }

    fn ask(&mut self, read: u64) {
        if self.replica.can_read() {
            self.replica.read_index(read);
        }
    }

    fn routes(&self, services: &[ServiceName]) -> Vec<RouteRead> {
        let found = services.iter().filter_map(|name| {
            let service = self.replica.registry().service(name)?;
            let groups = service
                .groups()
                .filter_map(|group| Some((group.name.clone(), service.group_state(&group.name)?)));
            Some(RouteRead {
                service: name.clone(),
                revision: service.route_revision().0,
                route: format!("{:?}", service.route()?),
                groups: groups.collect(),
            })
        });
        found.collect()
    }
}

/// Whether a Raft message carries a snapshot.
pub(crate) fn is_snapshot(bytes: &Bytes) -> bool {
    let decoded = wire::Message::decode(bytes.clone());
    decoded.is_ok_and(|message| message.msg_type == MessageType::MsgSnapshot as u32)
}
