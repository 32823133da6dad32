//! What a command changed, for those who act on it: views, leases, renewals.

use crate::instance::{LeaseKey, Ttl};
use crate::name::{GroupName, ServiceName, Zone};
use crate::revision::Revision;

/// One consequence of an applied command. Events of one command come in the
/// order in which they took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The service has a new view. At most once per service and command.
    ServiceChanged(ServiceName),
    /// The service has no view any more, as of this revision.
    ServiceEnded(ServiceName, Revision),
    /// An instance registered.
    LeaseGranted {
        /// The new lease.
        key: LeaseKey,
        /// How long it lasts without renewal.
        ttl: Ttl,
        /// The instance's failure domain.
        zone: Zone,
        /// As of [`Event::LeaseLeaving`].
        leaving: bool,
    },
    /// It is expected of an instance that it goes, or no more: it drains, or
    /// its group is torn down.
    LeaseLeaving {
        /// The lease.
        key: LeaseKey,
        /// It is expected.
        leaving: bool,
    },
    /// A lease was judged to be suspect.
    LeaseSuspected {
        /// The lease.
        key: LeaseKey,
        /// What an expiry of it must name.
        since: Revision,
    },
    /// A suspect lease was renewed.
    LeaseRevived {
        /// The lease.
        key: LeaseKey,
    },
    /// A lease is over: left, expired, or replaced by a new registration.
    LeaseEnded {
        /// The lease.
        key: LeaseKey,
    },
    /// The instances of a group are to leave.
    GroupRetiring {
        /// The service.
        service: ServiceName,
        /// The group that is torn down.
        group: GroupName,
    },
}
