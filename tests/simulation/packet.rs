//! Who there is, and what they send each other.

use bytes::Bytes;
use trimtab_proto::v1::{WatchRequest, WatchResponse};
use trimtab_registry::group::GroupState;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::{GroupName, InstanceId, ServiceName};
use trimtab_registry::policy::RoutePolicy;
use trimtab_server::consensus::change::Change;
use trimtab_server::consensus::farewell::Word;

/// Someone on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    Replica(u64),
    Instance(usize),
    Script(usize),
    Caller(usize),
    /// Who adds, removes and replaces replicas.
    Operator,
}

/// What travels by itself, in any order.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    /// A Raft message, encoded as on the wire.
    Raft {
        /// The data directories it comes from and is for.
        disks: (u64, u64),
        bytes: Bytes,
        is_snapshot: bool,
    },
    Call(Call),
    Answer(Answer),
}

/// What travels on a watch stream, in order.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant, reason = "few are on their way at a time")]
pub(crate) enum Flow {
    /// To the replica: someone opens it.
    Opened,
    Request(WatchRequest),
    Answer(WatchResponse),
    /// The other end is gone, or will not have it.
    Ended,
}

/// A request to a replica.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Chosen by who asks.
    pub(crate) id: u64,
    /// Whom to answer: the last one first.
    pub(crate) path: Vec<Node>,
    pub(crate) request: Request,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// An encoded command.
    Propose(Bytes),
    /// A linearizable read.
    Read(Vec<ServiceName>),
    Renew {
        via: u64,
        key: LeaseKey,
    },
    Broken {
        via: u64,
        key: LeaseKey,
    },
    /// Who has confirmed this revision, over all replicas?
    Receipts {
        services: Vec<ServiceName>,
        revision: u64,
    },
    /// The same of one replica, asked by another.
    Observe(Vec<ServiceName>),
    /// Other members; whoever asked has given up at `until`.
    Change {
        change: Change,
        until: u64,
    },
    /// Another leader.
    Transfer(u64),
    /// Was the replica with this data directory removed?
    WasRemoved(u64),
}

#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) id: u64,
    pub(crate) path: Vec<Node>,
    pub(crate) reply: Reply,
}

#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// The command was applied there, with this encoded result.
    Decided {
        index: u64,
        result: Bytes,
    },
    /// Nothing was done.
    NotDone,
    /// It may have been done.
    Unknown,
    Read(Vec<RouteRead>),
    Renewed {
        lost: bool,
        retire: bool,
    },
    Receipts(Tally),
    Observed(Observed),
    /// The members were changed there, or `None`: they were so already.
    Changed(Option<u64>),
    /// The leader will not change them so; nothing was done.
    Refused,
    /// What it knows of the asker's removal, if there was one.
    Removed(Option<Word>),
}

/// What a linearizable read tells of one service.
#[derive(Debug, Clone)]
pub(crate) struct RouteRead {
    pub(crate) service: ServiceName,
    pub(crate) revision: u64,
    pub(crate) route: String,
    pub(crate) policy: RoutePolicy,
    pub(crate) groups: Vec<(GroupName, GroupState)>,
    pub(crate) instances: Vec<InstanceId>,
}

/// One caller's word on one service.
#[derive(Debug, Clone)]
pub(crate) struct Confirmed {
    pub(crate) service: ServiceName,
    pub(crate) watcher_id: String,
    pub(crate) revision: u64,
}

/// What one replica knows of its watchers.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) from: u64,
    pub(crate) confirmed: Vec<Confirmed>,
    /// So many milliseconds ago it was down, and forgot them.
    pub(crate) back_for: Option<u64>,
    /// The members that it knows.
    pub(crate) members: Vec<u64>,
}

/// Who has confirmed a revision.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// When its replica began to ask the others.
    pub(crate) since: u64,
    /// The members it knew, and their data directories.
    pub(crate) members: Vec<(u64, u64)>,
    /// Every watcher has, and every replica has answered.
    pub(crate) is_complete: bool,
}

/// What someone does when he is woken or told something.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    pub(crate) sends: Vec<(Node, Packet)>,
    /// Wake me after so many milliseconds.
    pub(crate) wakes: Vec<u64>,
}

impl Outbox {
    pub(crate) fn call(&mut self, me: Node, to: u64, id: u64, request: Request) {
        let path = vec![me];
        let call = Call { id, path, request };
        self.sends.push((Node::Replica(to), Packet::Call(call)));
    }

    pub(crate) fn answer(&mut self, id: u64, mut path: Vec<Node>, reply: Reply) {
        if let Some(to) = path.pop() {
            self.sends
                .push((to, Packet::Answer(Answer { id, path, reply })));
        }
    }
}
