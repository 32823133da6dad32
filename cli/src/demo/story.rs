//! What has happened so far, for the account at the end.

use std::time::Duration;

use tokio::time::Instant;
use trimtab_client::operator::change::Route;

use crate::demo::count::CallerCount;
use crate::demo::ledger::Phase;
use crate::demo::report::{ChangeRecord, Promise, Report};

/// What has happened.
#[derive(Debug, Default)]
pub(crate) struct Story {
    phases: Vec<Phase>,
    phase_started: Option<Instant>,
    pub(crate) changes: Vec<ChangeRecord>,
    pub(crate) promises: Vec<Promise>,
    pub(crate) callers: Vec<CallerCount>,
}

impl Story {
    /// The final account.
    pub(crate) fn report(self, elapsed: Duration) -> Report {
        Report::new(
            &self.phases,
            &self.callers,
            self.changes,
            self.promises,
            elapsed.as_secs_f64(),
        )
    }

    /// From this view on, the route is this one.
    pub(crate) fn begin_phase(&mut self, name: &str, from_revision: u64, route: &Route) {
        self.end_phase();
        self.phases.push(Phase {
            name: name.to_owned(),
            from_revision,
            intended: route.weights.clone(),
            seconds: 0.0,
        });
        self.phase_started = Some(Instant::now());
    }

    /// The last phase is over.
    pub(crate) fn end_phase(&mut self) {
        if let (Some(phase), Some(started)) = (self.phases.last_mut(), self.phase_started.take()) {
            phase.seconds = started.elapsed().as_secs_f64();
        }
    }
}
