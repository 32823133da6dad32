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
    /// A vote is not written.
    ForgottenVote,
    /// Nobody's lease ends.
    NobodyExpires,
    /// A replica serves watches before it has caught up.
    ServesBeforeCaughtUp,
    /// A replica that gathers receipts does not ask the others.
    ReceiptsOfOneReplica,
    /// A caller that changes replicas takes whatever view comes.
    CallerGoesBack,
    /// A caller does not notice that its stream is gone.
    CallerStaysDeaf,
    /// A caller takes a view's instances, and keeps the route it had.
    KeepsOldRoute,
    /// A caller applies what changed to whatever it holds.
    DeltaOnWrongBase,
    /// A caller confirms a view before its calls follow it.
    ReceiptBeforeSwap,
    /// A caller does not notice that connections are gone, so calls to a
    /// group without any are lost.
    LossOfConnectionUnnoticed,
    /// A caller begins the order of groups anew for each call.
    OrderForgotten,
    /// Replicas do not look at each other's data directories, so one that lost
    /// its own votes again.
    DisksUnchecked,
    /// A caller does nothing by time: ramps stand still, nobody whom it left
    /// out comes back.
    ForgetsTime,
    /// A caller leaves out as many of a group as fail it.
    EjectsBeyondCap,
    /// A caller goes on calling those whom it has left out.
    CallsTheEjected,
    /// A caller that keeps to a subset does not replace the dead.
    SubsetForgetsTheDead,
    /// A caller puts keys into buckets without the rollout's salt.
    SaltIgnored,
    /// A caller takes no notice of keys.
    KeyIgnored,
    /// A caller takes itself to be in no zone, where zones are preferred.
    ZoneForgotten,
    /// A caller keeps all calls in its zone, whatever that can carry.
    ZoneKeepsAll,
}

impl Planted {
    /// With the number of seeds within which each must be found: several
    /// times what it takes on average.
    pub(crate) const ALL: [(Planted, u64); 28] = [
        (Planted::AcknowledgeBeforeSync, 300),
        (Planted::LostTruncation, 300),
        (Planted::PublishBeforeCommit, 20),
        (Planted::ReadWithoutBarrier, 100),
        (Planted::UnknownIsFailed, 500),
        (Planted::NoGrace, 20),
        (Planted::PausesCount, 2_000),
        (Planted::UnfencedExpiry, 50),
        (Planted::ForgottenVote, 500),
        (Planted::NobodyExpires, 20),
        (Planted::ServesBeforeCaughtUp, 500),
        (Planted::ReceiptsOfOneReplica, 100),
        (Planted::CallerGoesBack, 100),
        (Planted::CallerStaysDeaf, 20),
        (Planted::KeepsOldRoute, 20),
        (Planted::DeltaOnWrongBase, 50),
        (Planted::ReceiptBeforeSwap, 20),
        (Planted::LossOfConnectionUnnoticed, 100),
        (Planted::OrderForgotten, 20),
        (Planted::DisksUnchecked, 500),
        (Planted::ForgetsTime, 50),
        (Planted::EjectsBeyondCap, 300),
        (Planted::CallsTheEjected, 100),
        (Planted::SubsetForgetsTheDead, 50),
        (Planted::SaltIgnored, 50),
        (Planted::KeyIgnored, 50),
        (Planted::ZoneForgotten, 100),
        (Planted::ZoneKeepsAll, 100),
    ];
}
