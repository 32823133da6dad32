//! What is asked of every backend, one file each.

mod churn;
mod expiry;
mod failover;
mod fanout;
mod lookup;
mod memory;
mod overload;
mod register;
mod renew;

use std::path::Path;
use std::time::Duration;

use crate::backends::{Backend, Outcome};
use crate::figures::{Better, Figures, Subject};
use crate::load::{Done, millis};
use crate::scale::Scale;

/// One workload, run once against one backend.
pub(crate) trait Workload: Send + Sync {
    fn name(&self) -> &'static str;
    /// What it does, in one line.
    fn about(&self) -> &'static str;
    /// How many rounds, where each is too long for all of them.
    fn rounds(&self, scale: &Scale) -> usize {
        scale.rounds
    }
    /// Is it about something that this backend does?
    fn fits(&self, _backend: &dyn Backend) -> bool {
        true
    }
    /// How long one run takes on a quiet machine with two cores, about.
    fn takes(&self, scale: &Scale) -> Duration;
    /// Starts the backend, asks it, and notes what came of it.
    fn run<'a>(&'a self, backend: &'a dyn Backend, trial: Trial<'a>) -> Outcome<'a, ()>;
}

/// All workloads, in the order in which they are run.
pub(crate) fn all() -> Vec<Box<dyn Workload>> {
    vec![
        Box::new(register::Registering { replicas: 1 }),
        Box::new(register::Registering { replicas: 3 }),
        Box::new(lookup::LookingUp),
        Box::new(renew::Renewing { replicas: 1 }),
        Box::new(renew::Renewing { replicas: 3 }),
        Box::new(fanout::FanningOut),
        Box::new(memory::Remembering),
        Box::new(expiry::Expiring),
        Box::new(failover::FailingOver),
        Box::new(overload::Overloading),
        Box::new(churn::Churning),
    ]
}

/// One run of one workload.
#[derive(Debug)]
pub(crate) struct Trial<'a> {
    pub(crate) scale: &'a Scale,
    /// An empty directory for the servers of this run.
    pub(crate) directory: &'a Path,
    pub(crate) notes: Notes<'a>,
}

/// Where a run writes down what it measured.
#[derive(Debug)]
pub(crate) struct Notes<'a> {
    pub(crate) workload: &'static str,
    pub(crate) backend: &'static str,
    pub(crate) figures: &'a mut Figures,
}

impl Notes<'_> {
    /// Writes one figure down.
    pub(crate) fn add(
        &mut self,
        case: &str,
        what: &'static str,
        unit: &'static str,
        better: Better,
        value: f64,
    ) {
        let subject = Subject {
            workload: self.workload,
            case: case.to_owned(),
            what,
            unit,
            better,
        };
        self.figures.add(self.backend, subject, value);
    }

    /// Writes down what a closed loop came to, of which each answer did `each` things.
    pub(crate) fn closed_loop(&mut self, case: &str, done: &Done, each: usize) {
        let each = each as f64;
        self.add(case, "rate", "/s", Better::Higher, done.rate() * each);
        let latency = |quantile| millis(done.latencies.value_at_quantile(quantile));
        self.add(case, "latency p50", "ms", Better::Lower, latency(0.5));
        self.add(case, "latency p99", "ms", Better::Lower, latency(0.99));
        let cpu = done.cpu_micros_each() / each;
        self.add(case, "server CPU each", "us", Better::Lower, cpu);
    }
}

/// "1 replica", "3 replicas".
fn replicas_named(replicas: usize) -> String {
    match replicas {
        1 => "1 replica".to_owned(),
        more => format!("{more} replicas"),
    }
}
