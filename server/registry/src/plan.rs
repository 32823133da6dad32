//! Dry runs: what a command would do, told by the code that would do it.

use std::sync::Arc;

use crate::command::Command;
use crate::name::ServiceName;
use crate::outcome::{Outcome, Routed};
use crate::rejection::Rejection;
use crate::revision::{Position, Revision};
use crate::service::Service;
use crate::state::Registry;

impl Registry {
    /// What `command` would do now. Revisions that do not exist yet are 0 in
    /// what it lists; the outcome's own is that of the newest change so far.
    ///
    /// # Errors
    /// The rejection it would meet.
    pub fn plan(&self, command: &Command) -> Result<Outcome, Rejection> {
        let next = Position {
            index: self.applied().index.saturating_add(1),
            term: self.applied().term,
        };
        let mut scratch = self.clone();
        let mut outcome = scratch.apply(next, command).outcome?;
        match &mut outcome {
            Outcome::Registered { revision, lease } => {
                *revision = self.latest(command);
                *lease = Revision::default();
            }
            Outcome::StatusSet { revision }
            | Outcome::Deregistered { revision, .. }
            | Outcome::TornDown { revision, .. }
            | Outcome::Adjusted { revision, .. } => *revision = self.latest(command),
            Outcome::Shifted(routed) | Outcome::RolledBack(routed) => {
                unmake(routed, next.revision(), self.latest(command));
            }
            Outcome::Judged(_) => {}
        }
        Ok(outcome)
    }

    /// The newest change, so far, of what a command is about.
    fn latest(&self, command: &Command) -> Revision {
        let revision = |name: &ServiceName| self.service(name).map(Service::revision);
        let of = |name| revision(name).unwrap_or_default();
        match command {
            Command::Register(asked) => of(&asked.service),
            Command::SetStatus(asked) => of(&asked.lease.service),
            Command::Deregister(asked) => of(&asked.lease.service),
            Command::Teardown(asked) => of(&asked.service),
            Command::AdjustInstance(asked) => of(&asked.service),
            Command::JudgeLeases(_) => self.applied().revision(),
            Command::Shift(asked) => {
                self.newest_route(asked.shifts.iter().map(|shift| &shift.service))
            }
            Command::Rollback(asked) => {
                self.newest_route(asked.targets.iter().map(|target| &target.service))
            }
        }
    }
}

/// Takes back from an answer the revision that was made up to find it, which
/// is also what a rollout that begins with it would have for a salt.
fn unmake(routed: &mut Routed, made_up: Revision, latest: Revision) {
    if routed.revision != made_up {
        return;
    }
    routed.revision = latest;
    for change in &mut routed.changes {
        let change = Arc::make_mut(change);
        change.revision = Revision::default();
        if change.after.salt == made_up {
            Arc::make_mut(&mut change.after).salt = Revision::default();
        }
    }
}
