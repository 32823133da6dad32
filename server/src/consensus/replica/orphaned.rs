//! When the leader's process has ended: asking for votes at once, in turns, and not after a timeout.
//!
//! A process that is killed leaves a kernel behind that says so: connections
//! to it are refused. Whoever is told of it ([`Replica::report_gone`]) forgets
//! the leader, and those who vote ask for votes one after the other, tick by
//! tick, so that two of them rarely ask in the same term.
//!
//! Nothing here is needed for safety, and nothing is believed: an election is
//! won with the votes of a quorum, and a voter that still hears of the leader
//! gives none before its timeout. So a word that is wrong, or late, costs some
//! messages; the leader's next heartbeat ends it.

use raft::INVALID_ID;

use super::*;

/// How often each voter asks before it leaves it to the usual timeout: on a
/// busy machine the others may hear late that the leader has gone, and until
/// then are deaf to the question.
const TURNS: u32 = 8;

/// Since the leader was said to be gone.
#[derive(Debug)]
pub(super) struct Orphaned {
    /// The term it led in.
    term: u64,
    /// How many voters are left, and which of them this one is.
    voters: u32,
    rank: u32,
    ticks: u32,
}

impl Replica {
    /// Nobody listens where this peer was any more: its process has ended.
    pub fn report_gone(&mut self, peer: u64) {
        self.hearing.lose(peer);
        let follows = self.role() == Role::Follower && self.node.raft.leader_id == peer;
        if !follows {
            return;
        }
        let term = self.term();
        // Keeps the vote it gave in this term, and what it promised with it.
        self.node.raft.become_follower(term, INVALID_ID);
        tracing::info!(leader = peer, term, "the leader's process has ended");
        let voters = self.roles().voters.iter().filter(|id| **id != peer);
        let rank = voters.clone().filter(|id| **id < self.id()).count() as u32;
        let voters = voters.count() as u32;
        if !self.node.raft.promotable() {
            return;
        }
        let ticks = 0;
        self.orphaned = Some(Orphaned {
            term,
            voters,
            rank,
            ticks,
        });
        self.ask_in_turn();
    }

    /// One tick passed since.
    pub(super) fn tick_orphaned(&mut self) {
        if let Some(orphaned) = &mut self.orphaned {
            orphaned.ticks += 1;
            self.ask_in_turn();
        }
    }

    fn ask_in_turn(&mut self) {
        let Some(orphaned) = &self.orphaned else {
            return;
        };
        let raft = &self.node.raft;
        let is_over = orphaned.ticks >= TURNS * orphaned.voters;
        let waits = matches!(raft.state, StateRole::Follower | StateRole::PreCandidate);
        if is_over || !waits || raft.term != orphaned.term || raft.leader_id != INVALID_ID {
            self.orphaned = None;
        } else if orphaned.ticks % orphaned.voters == orphaned.rank {
            self.campaign();
        }
    }
}
