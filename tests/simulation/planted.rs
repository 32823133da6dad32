//! Bugs planted in the harness, to show that the checks find them.

/// A bug that a registry could have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Planted {
    /// Messages that promise durability leave before the write, which is made
    /// with the next one.
    AcknowledgeBeforeSync,
    /// Entries that replace others are not written over them.
    LostTruncation,
    /// Views are published from entries that are not committed.
    PublishBeforeCommit,
    /// A linearizable read is answered from what is applied, unasked.
    ReadWithoutBarrier,
    /// A leader that loses its office says that what it had accepted was not
    /// done.
    UnknownIsFailed,
    /// A new leader grants no grace: it counts silence from before its reign.
    NoGrace,
    /// Lease time goes on while the process stands still.
    PausesCount,
    /// An expiry that was judged in an earlier term, or before the instance
    /// renewed, is made to fit and applied.
    UnfencedExpiry,
    /// A watcher takes whatever view comes.
    WatcherGoesBack,
    /// A watcher never asks again after it subscribed, so a lost push stays
    /// lost.
    WatcherIgnoresGap,
}

impl Planted {
    /// With the number of seeds within which each must be found: several
    /// times what it takes on average.
    pub(crate) const ALL: [(Planted, u64); 10] = [
        (Planted::AcknowledgeBeforeSync, 300),
        (Planted::LostTruncation, 300),
        (Planted::PublishBeforeCommit, 20),
        (Planted::ReadWithoutBarrier, 100),
        (Planted::UnknownIsFailed, 500),
        (Planted::NoGrace, 20),
        (Planted::PausesCount, 500),
        (Planted::UnfencedExpiry, 50),
        (Planted::WatcherGoesBack, 20),
        (Planted::WatcherIgnoresGap, 20),
    ];
}
