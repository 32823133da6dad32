//! Who is told what consensus did.

use trimtab_registry::event::Event;
use trimtab_registry::state::Registry;

use super::status::ConsensusStatus;

/// Acts on what is applied: publishes views, keeps leases.
///
/// Called within the round that applied it, before the waiting proposers are answered;
/// so it must not block, and whoever was answered finds its work done.
pub trait Observer {
    /// After each applied round, once, with the events of the round in order.
    /// Not called for a round that changed nothing.
    fn applied(&mut self, registry: &Registry, events: &[Event]);

    /// The whole state was replaced: at start, after the snapshot was read, or
    /// when a snapshot was installed by the leader.
    fn restored(&mut self, registry: &Registry);

    /// Role, term or leader changed. By now everything applied before the
    /// change was reported.
    fn role_changed(&mut self, status: &ConsensusStatus);
}
