//! What runs came to, in numbers.

/// What a run came to.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) events: u64,
    pub(crate) messages: u64,
    pub(crate) lost: u64,
    pub(crate) crashes: u64,
    pub(crate) disk_errors: u64,
    pub(crate) bit_flips: u64,
    /// Replicas that refused to go on after one.
    pub(crate) refusals: u64,
    /// Replicas that came back without what they had synced after one, and
    /// did not notice.
    pub(crate) shortened: u64,
    pub(crate) pauses: u64,
    pub(crate) cuts: u64,
    pub(crate) transfers: u64,
    pub(crate) snapshots_sent: u64,
    pub(crate) applied: u64,
    pub(crate) terms: u64,
    pub(crate) operations: u64,
    pub(crate) unanswered: u64,
    pub(crate) undecided: u64,
    pub(crate) expired: u64,
    pub(crate) dark_zones: u64,
    pub(crate) views: u64,
    pub(crate) deltas: u64,
    /// Of these, did not fit, as if the replica were mistaken.
    pub(crate) misfits: u64,
    pub(crate) rivals: u64,
    /// Replicas that were told of the end of one that lives.
    pub(crate) rumours: u64,
    pub(crate) stops: u64,
    pub(crate) flows: u64,
    pub(crate) receipts: u64,
    pub(crate) calls: u64,
    pub(crate) waits: u64,
    pub(crate) calls_lost: u64,
    /// Calls that an instance failed, and were not repeated.
    pub(crate) calls_failed: u64,
    pub(crate) repeats: u64,
    /// Instances or releases that failed calls or were slow.
    pub(crate) ailments: u64,
    /// Instances that a caller left out for failing.
    pub(crate) ejections: u64,
    /// Groups of which a caller's calls came up to their share in steps.
    pub(crate) ramps: u64,
    /// Calls tied to others whose group, or instance, was foreseen.
    pub(crate) keyed: u64,
    /// Calls counted for where they go by zone.
    pub(crate) zoned: u64,
    /// Views, or changes of connections, that left a caller with a subset.
    pub(crate) subsets: u64,
    pub(crate) switches: u64,
    /// Views that callers took to be too small to be true.
    pub(crate) shrinks: u64,
    pub(crate) members_added: u64,
    pub(crate) members_promoted: u64,
    /// Of these, by giving them another's vote.
    pub(crate) members_replaced: u64,
    pub(crate) members_removed: u64,
    /// Removed replicas that found out, and stopped.
    pub(crate) members_gone: u64,
    pub(crate) disks_lost: u64,
    /// Everything that happened, in one number.
    pub(crate) trace: u64,
}

impl Counts {
    /// Sums up over runs.
    pub(crate) fn add(&mut self, other: &Counts) {
        self.events += other.events;
        self.messages += other.messages;
        self.lost += other.lost;
        self.crashes += other.crashes;
        self.disk_errors += other.disk_errors;
        self.bit_flips += other.bit_flips;
        self.refusals += other.refusals;
        self.shortened += other.shortened;
        self.pauses += other.pauses;
        self.cuts += other.cuts;
        self.transfers += other.transfers;
        self.snapshots_sent += other.snapshots_sent;
        self.applied += other.applied;
        self.terms += other.terms;
        self.operations += other.operations;
        self.unanswered += other.unanswered;
        self.undecided += other.undecided;
        self.expired += other.expired;
        self.dark_zones += other.dark_zones;
        self.views += other.views;
        self.deltas += other.deltas;
        self.misfits += other.misfits;
        self.rivals += other.rivals;
        self.rumours += other.rumours;
        self.stops += other.stops;
        self.flows += other.flows;
        self.receipts += other.receipts;
        self.calls += other.calls;
        self.waits += other.waits;
        self.calls_lost += other.calls_lost;
        self.calls_failed += other.calls_failed;
        self.repeats += other.repeats;
        self.ailments += other.ailments;
        self.ejections += other.ejections;
        self.ramps += other.ramps;
        self.keyed += other.keyed;
        self.zoned += other.zoned;
        self.subsets += other.subsets;
        self.switches += other.switches;
        self.shrinks += other.shrinks;
        self.members_added += other.members_added;
        self.members_promoted += other.members_promoted;
        self.members_replaced += other.members_replaced;
        self.members_removed += other.members_removed;
        self.members_gone += other.members_gone;
        self.disks_lost += other.disks_lost;
        self.trace ^= other.trace;
    }
}
