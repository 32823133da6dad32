//! Who there is, and what they send each other.

use bytes::Bytes;
use trimtab_registry::group::GroupState;
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::{GroupName, ServiceName};

/// Someone on the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Node {
    Replica(u64),
    Instance(usize),
    Script(usize),
    Watcher(usize),
}

/// What travels.
#[derive(Debug, Clone)]
pub(crate) enum Packet {
    /// A Raft message, encoded as on the wire.
    Raft(Bytes),
    Call(Call),
    Answer(Answer),
}

/// A request to a replica.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Chosen by the caller.
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
    /// Follow a service, known up to a revision.
    Watch {
        service: ServiceName,
        known: u64,
    },
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
    View(View),
}

/// What a linearizable read tells of one service.
#[derive(Debug, Clone)]
pub(crate) struct RouteRead {
    pub(crate) service: ServiceName,
    pub(crate) revision: u64,
    pub(crate) route: String,
    pub(crate) groups: Vec<(GroupName, GroupState)>,
}

/// A view on its way to a watcher.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) service: ServiceName,
    pub(crate) revision: u64,
    /// `None`: there is no such service.
    pub(crate) bytes: Option<Bytes>,
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
