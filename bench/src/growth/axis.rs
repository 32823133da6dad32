//! What is swept over, and from where to where.

use std::fmt;

use clap::ValueEnum;

/// A dimension in which a registry grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Axis {
    Services,
    Instances,
    Watchers,
    Groups,
    Replicas,
}

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    Whole,
    Quick,
}

/// A registry's size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Size {
    /// Services beside the one that is measured, each of [`INSTANCES`].
    pub(super) services: usize,
    /// Of the service that is measured, spread over its groups.
    pub(super) instances: usize,
    /// Of the service that is measured.
    pub(super) groups: usize,
    /// Who follow the service that is measured.
    pub(super) watchers: usize,
    pub(super) replicas: usize,
}

/// Instances of a service, where it is not their number that grows.
pub(super) const INSTANCES: usize = 10;
/// Where it is groups that grow, the instances are as many as ever: one for each of the most groups.
const INSTANCES_IN_GROUPS: usize = 100;

const BASE: Size = Size {
    services: 10,
    instances: INSTANCES,
    groups: 2,
    watchers: 10,
    replicas: 1,
};

impl Axis {
    pub(super) const ALL: [Self; 5] = [
        Self::Services,
        Self::Instances,
        Self::Watchers,
        Self::Groups,
        Self::Replicas,
    ];

    /// The sizes along it, growing.
    pub(super) fn sizes(self, pace: Pace) -> Vec<Size> {
        let values: &[usize] = match (self, pace) {
            (Self::Groups, Pace::Whole) => &[2, 10, 30, 100],
            (Self::Groups, Pace::Quick) => &[2, 10],
            (Self::Replicas, Pace::Whole) => &[1, 3, 5],
            (Self::Replicas, Pace::Quick) => &[1, 3],
            (_, Pace::Whole) => &[10, 100, 1_000, 10_000],
            (_, Pace::Quick) => &[10, 100],
        };
        values.iter().map(|&value| self.size(value)).collect()
    }

    fn size(self, value: usize) -> Size {
        match self {
            Self::Services => Size {
                services: value,
                ..BASE
            },
            Self::Instances => Size {
                instances: value,
                ..BASE
            },
            Self::Watchers => Size {
                watchers: value,
                ..BASE
            },
            Self::Groups => Size {
                groups: value,
                instances: INSTANCES_IN_GROUPS,
                ..BASE
            },
            Self::Replicas => Size {
                replicas: value,
                ..BASE
            },
        }
    }

    /// How far a size is along it.
    pub(super) fn value(self, size: &Size) -> usize {
        match self {
            Self::Services => size.services,
            Self::Instances => size.instances,
            Self::Watchers => size.watchers,
            Self::Groups => size.groups,
            Self::Replicas => size.replicas,
        }
    }

    /// What grows, in a table's head.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Services => "services of 10 instances",
            Self::Instances => "instances of the service",
            Self::Watchers => "watchers of the service",
            Self::Groups => "groups of the service, 100 instances",
            Self::Replicas => "replicas",
        }
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Services => "services",
            Self::Instances => "instances",
            Self::Watchers => "watchers",
            Self::Groups => "groups",
            Self::Replicas => "replicas",
        })
    }
}
