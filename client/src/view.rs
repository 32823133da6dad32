//! What a caller knows of one service: its groups, their weights and their instances, at one revision.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::policy::Policy;

/// Immutable, replaced whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) revision: u64,
    /// Sorted by name. Every group that has an instance or weight is here.
    pub(crate) groups: Vec<Group>,
    /// What the caller does beyond the weights.
    pub(crate) policy: Policy,
    /// Mixed into the hash of a call's key; 0 while one group has all.
    pub(crate) salt: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) name: Arc<str>,
    pub(crate) state: GroupState,
    /// Basis points.
    pub(crate) weight: u32,
    /// Sorted by id.
    pub(crate) instances: Vec<Instance>,
}

/// What a group is for, beyond its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// Never carried traffic.
    Dark,
    /// Has weight.
    Active,
    /// Carried traffic before.
    Standby,
    /// Being torn down.
    Retiring,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instance {
    pub(crate) id: Arc<str>,
    /// `host:port`.
    pub(crate) address: Arc<str>,
    pub(crate) zone: Arc<str>,
    /// At least 1.
    pub(crate) capacity: u32,
    pub(crate) metadata: Arc<BTreeMap<String, String>>,
    pub(crate) status: InstanceStatus,
}

/// What may be sent to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstanceStatus {
    /// Nothing yet, but it may be connected to.
    Starting,
    /// Calls.
    Ready,
    /// Calls, when no instance of its group is READY and connected.
    Suspect,
    /// Nothing new.
    Draining,
    /// The registry took it away with too many others at once, and it is
    /// connected: calls, when no instance of its group is READY and connected.
    /// No registry says this; see [`crate::shrink`].
    Held,
}

impl View {
    /// Of all groups.
    pub(crate) fn instances(&self) -> impl Iterator<Item = &Instance> {
        self.groups.iter().flat_map(|group| &group.instances)
    }
}

impl InstanceStatus {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Suspect => "suspect",
            Self::Draining => "draining",
            Self::Held => "held",
        }
    }

    pub(crate) fn takes_calls(self) -> bool {
        matches!(self, Self::Ready | Self::Suspect | Self::Held)
    }
}
