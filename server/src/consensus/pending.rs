//! Who waits for which proposal, read or applied index. Every table is bounded.

use std::collections::{BTreeMap, HashMap};
use std::mem;

use tokio::sync::oneshot;

use super::batch::Decided;
use super::entry::ProposalId;
use super::error::ProposeError;
use super::input::{Answer, Reply, Told};

/// Proposals accepted and not yet decided. More than a round takes several
/// times over; a cluster that is further behind is better told so.
const PROPOSALS_MAX: usize = 16_384;

/// Callers waiting for a read or an applied index.
const WAITERS_MAX: usize = 16_384;

/// Ticks after which an unanswered read is asked again: it may have been
/// dropped in silence. A round trip is far shorter.
const READ_RETRY_TICKS: u32 = 2;

/// Everyone who waits on this replica.
#[derive(Debug)]
pub(super) struct Pending {
    incarnation: u64,
    last_sequence: u64,
    proposals: HashMap<u64, Reply<Answer>>,
    /// Changes of members: one at a time is accepted, so these are few.
    changes: HashMap<u64, Reply<Option<u64>>>,
    last_read: u64,
    reads: BTreeMap<u64, Read>,
    applied: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    waiters: usize,
}

#[derive(Debug)]
struct Read {
    waiters: Vec<Reply<u64>>,
    /// Asked by the replica for itself, to learn whether it has caught up.
    is_own: bool,
    /// What must be applied, once it is known.
    index: Option<u64>,
    ticks_since_asked: u32,
}

impl Pending {
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            last_sequence: 0,
            proposals: HashMap::new(),
            changes: HashMap::new(),
            last_read: 0,
            reads: BTreeMap::new(),
            applied: BTreeMap::new(),
            waiters: 0,
        }
    }

    /// Whether so many proposals more may wait.
    pub(super) fn room_for(&self, proposals: usize) -> Result<(), ProposeError> {
        if self.proposals.len() + proposals <= PROPOSALS_MAX {
            return Ok(());
        }
        Err(ProposeError::Overloaded {
            reason: format!("{PROPOSALS_MAX} changes are waiting to be committed"),
        })
    }

    /// The mark that the next proposal will carry.
    pub(super) fn next_proposal(&mut self) -> ProposalId {
        self.last_sequence += 1;
        ProposalId {
            incarnation: self.incarnation,
            sequence: self.last_sequence,
        }
    }

    /// The proposal was accepted; `reply` waits for its end.
    pub(super) fn accepted(&mut self, id: ProposalId, reply: Reply<Answer>) {
        self.proposals.insert(id.sequence, reply);
    }

    /// A change of members was accepted; `reply` waits for its end.
    pub(super) fn change_accepted(&mut self, id: ProposalId, reply: Reply<Option<u64>>) {
        self.changes.insert(id.sequence, reply);
    }

    /// Some replica's change of members is over.
    pub(super) fn changed(&mut self, id: ProposalId, index: u64) {
        if id.incarnation != self.incarnation {
            return;
        }
        if let Some(reply) = self.changes.remove(&id.sequence) {
            // Whoever asked may have given up.
            let _ = reply.send(Ok(Some(index)));
        }
    }

    /// A proposal of some replica came to its end: what to tell whom, if it
    /// was made here.
    pub(super) fn decide(&mut self, decided: Decided) -> Option<Told> {
        if decided.id.incarnation != self.incarnation {
            return None;
        }
        let reply = self.proposals.remove(&decided.id.sequence)?;
        let answer = Answer {
            index: decided.index,
            result: decided.result,
        };
        Some(Told { reply, answer })
    }

    /// What becomes of accepted proposals cannot be known here any more.
    pub(super) fn lose_proposals(&mut self, reason: &str) {
        let unknown = || ProposeError::Unknown {
            reason: reason.to_owned(),
        };
        for (_, reply) in self.proposals.drain() {
            let _ = reply.send(Err(unknown()));
        }
        for (_, reply) in self.changes.drain() {
            let _ = reply.send(Err(unknown()));
        }
    }

    /// Nothing that is waited for can come: tells all who wait.
    pub(super) fn give_up(&mut self, reason: &str) {
        self.lose_proposals(reason);
        for (_, read) in mem::take(&mut self.reads) {
            for reply in read.waiters {
                let _ = reply.send(Err(ProposeError::Halted {
                    reason: reason.to_owned(),
                }));
            }
        }
        // Dropping them tells the callers to go on without.
        self.applied.clear();
        self.waiters = 0;
    }

    /// Callers that wait for one common read; its id. `None` when there are
    /// none left after the bound was kept.
    pub(super) fn add_read(&mut self, mut waiters: Vec<Reply<u64>>) -> Option<u64> {
        let room = WAITERS_MAX.saturating_sub(self.waiters);
        for refused in waiters.drain(room.min(waiters.len())..) {
            let _ = refused.send(Err(too_many_waiters()));
        }
        if waiters.is_empty() {
            return None;
        }
        self.waiters += waiters.len();
        Some(self.insert_read(waiters, false))
    }

    /// The replica's own read; its id. One at a time.
    pub(super) fn add_own_read(&mut self) -> Option<u64> {
        if self.reads.values().any(|read| read.is_own) {
            return None;
        }
        Some(self.insert_read(Vec::new(), true))
    }

    fn insert_read(&mut self, waiters: Vec<Reply<u64>>, is_own: bool) -> u64 {
        self.last_read += 1;
        self.reads.insert(
            self.last_read,
            Read {
                waiters,
                is_own,
                index: None,
                ticks_since_asked: 0,
            },
        );
        self.last_read
    }

    /// A read may be answered when `index` is applied.
    pub(super) fn read_at(&mut self, read: u64, index: u64) {
        if let Some(read) = self.reads.get_mut(&read) {
            // Of two answers the first one suffices.
            read.index.get_or_insert(index);
        }
    }

    /// One tick has passed: reads to ask again. Those that no one waits for
    /// any more are forgotten.
    pub(super) fn tick_reads(&mut self) -> Vec<u64> {
        let mut given_up = 0;
        self.reads.retain(|_, read| {
            let before = read.waiters.len();
            read.waiters.retain(|waiter| !waiter.is_closed());
            given_up += before - read.waiters.len();
            read.is_own || !read.waiters.is_empty()
        });
        self.waiters -= given_up;
        let mut again = Vec::new();
        for (id, read) in self
            .reads
            .iter_mut()
            .filter(|(_, read)| read.index.is_none())
        {
            read.ticks_since_asked += 1;
            if read.ticks_since_asked >= READ_RETRY_TICKS {
                read.ticks_since_asked = 0;
                again.push(*id);
            }
        }
        again
    }

    /// All reads without an answer, to be asked again now.
    pub(super) fn unanswered_reads(&self) -> Vec<u64> {
        self.reads
            .iter()
            .filter(|(_, read)| read.index.is_none())
            .map(|(id, _)| *id)
            .collect()
    }

    /// Tells `reply` when `index` is applied.
    pub(super) fn await_applied(&mut self, index: u64, reply: oneshot::Sender<()>) {
        // Dropping it tells the caller to go on without.
        if self.waiters < WAITERS_MAX {
            self.waiters += 1;
            self.applied.entry(index).or_default().push(reply);
        }
    }

    /// Everything up to `applied` is applied: answers who waited for it. True
    /// when the replica's own read was among them.
    pub(super) fn complete(&mut self, applied: u64) -> bool {
        let mut own_read_done = false;
        let ready: Vec<u64> = self
            .reads
            .iter()
            .filter(|(_, read)| read.index.is_some_and(|index| index <= applied))
            .map(|(id, _)| *id)
            .collect();
        for read in ready.iter().filter_map(|id| self.reads.remove(id)) {
            own_read_done |= read.is_own;
            self.waiters -= read.waiters.len();
            for reply in read.waiters {
                let _ = reply.send(Ok(applied));
            }
        }
        while let Some(first) = self.applied.first_entry() {
            if *first.key() > applied {
                break;
            }
            let replies = first.remove();
            self.waiters -= replies.len();
            for reply in replies {
                let _ = reply.send(());
            }
        }
        own_read_done
    }
}

impl Drop for Pending {
    /// Whatever ends the replica, no one is told that an accepted proposal
    /// was not.
    fn drop(&mut self) {
        self.lose_proposals("the replica stopped before the change was committed");
    }
}

fn too_many_waiters() -> ProposeError {
    ProposeError::Overloaded {
        reason: format!("{WAITERS_MAX} reads are waiting on this replica"),
    }
}
