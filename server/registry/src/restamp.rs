//! A registry that was restored goes on at a later position, so that nobody takes it for older than what he holds.

use std::sync::Arc;

use thiserror::Error;

use crate::revision::Position;
use crate::state::Registry;

/// A position that the registry is past already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the registry has applied entry {} and cannot go on at entry {}", .applied.index, .asked.index)]
pub struct NotLater {
    /// Where it was to go on.
    pub asked: Position,
    /// The last entry it applied.
    pub applied: Position,
}

impl Registry {
    /// Moves the registry to `at`, as if nothing had happened in between, and
    /// dates every service's view anew.
    ///
    /// For a state from a backup. Whoever followed the registry it was saved
    /// from may hold views, leases and routes that are newer than the state:
    /// what happened after it was saved is lost, and all of it is dated
    /// between the old position and the new one.
    ///
    /// What moves: [`Registry::applied`], and with it everything that comes
    /// later; and the revision of each service, so that watchers, who never go
    /// back, take the restored view for newer than any they hold.
    ///
    /// What stays, because others hold on to it:
    /// - the revision of each route: a writer that expects the route it read
    ///   is right if that is the route which was restored, and is refused if it
    ///   read one that was lost, for no later change gets a lost one's number;
    /// - the history, routes byte for byte and revisions: a rollback restores
    ///   what it would have restored, `to` names what it named, and a repeated
    ///   request is known again;
    /// - the creation of each group, by which a rollback tells a group from a
    ///   later one of the same name;
    /// - the leases: who holds one renews it; a lease that was lost belongs to
    ///   nobody, and never will, so that its holder registers anew;
    /// - since when an instance is suspect, which is no more than a number
    ///   that its expiry must name.
    ///
    /// # Errors
    /// `at` does not come after the last entry applied. Nothing changed.
    pub fn restamp(&mut self, at: Position) -> Result<(), NotLater> {
        let applied = self.applied();
        if at.index <= applied.index {
            return Err(NotLater { asked: at, applied });
        }
        self.skip(at);
        for service in self.services_mut() {
            Arc::make_mut(service).revision = at.revision();
        }
        Ok(())
    }
}
