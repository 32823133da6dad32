//! What is measured at each size, and how fast it may grow.

use super::axis::Axis;

/// What things cost in a registry of one size: all servers together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Cost {
    /// Processor time for each second in which nobody asks for anything, in milliseconds.
    pub(super) rest: f64,
    /// Of a registration in a service that nobody follows, in microseconds.
    pub(super) elsewhere: f64,
    /// Of a registration in the service that is measured, views for all who follow it included.
    pub(super) registration: f64,
    /// Of a shift of weights, views and receipts of all who follow included.
    pub(super) shift: f64,
    /// Until the registry knows that the last of them goes by it, in milliseconds.
    pub(super) receipts: f64,
    /// Of looking the service up.
    pub(super) lookup: f64,
    /// What servers allocated, in MiB.
    pub(super) memory: f64,
}

/// One of them.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) unit: &'static str,
    pub(super) of: fn(&Cost) -> f64,
    /// The dimensions that it is in proportion to, at most; the others it must not know of.
    own: &'static [Axis],
}

use Axis::{Groups, Instances, Replicas, Services, Watchers};

pub(super) const METRICS: [Metric; 7] = [
    Metric {
        name: "at rest",
        unit: "ms/s",
        of: |cost| cost.rest,
        own: &[Replicas],
    },
    Metric {
        name: "registration elsewhere",
        unit: "us",
        of: |cost| cost.elsewhere,
        own: &[Replicas],
    },
    Metric {
        name: "registration",
        unit: "us",
        of: |cost| cost.registration,
        own: &[Instances, Watchers, Groups, Replicas],
    },
    Metric {
        name: "shift",
        unit: "us",
        of: |cost| cost.shift,
        own: &[Instances, Watchers, Groups, Replicas],
    },
    Metric {
        name: "to the last receipt",
        unit: "ms",
        of: |cost| cost.receipts,
        own: &[Instances, Watchers, Groups, Replicas],
    },
    Metric {
        name: "lookup",
        unit: "us",
        of: |cost| cost.lookup,
        own: &[Instances, Groups],
    },
    Metric {
        name: "memory",
        unit: "MiB",
        of: |cost| cost.memory,
        own: &[Services, Instances, Watchers, Groups, Replicas],
    },
];

impl Metric {
    /// The exponent with which it may grow along a dimension.
    pub(super) fn bound(&self, axis: Axis) -> f64 {
        match self.own.contains(&axis) {
            true => 1.0,
            false => 0.0,
        }
    }
}
