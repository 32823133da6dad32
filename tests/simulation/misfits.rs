//! Deltas that do not fit what a caller holds, as if a replica were mistaken in that.

use trimtab_proto::v1::WatchResponse;
use trimtab_proto::v1::watch_response::Kind as Said;

use crate::planted::Planted;
use crate::world::World;

/// A stream loses nothing and changes nothing: one delta in 50 is altered so
/// that asking for the view is tried all the same.
const MISFITS_PER_MILLE: u64 = 20;

impl World {
    /// A caller is to notice, and to ask for the view.
    pub(crate) fn misfit(&mut self, number: usize, said: &mut WatchResponse) {
        let Some(Said::Delta(delta)) = &mut said.kind else {
            return;
        };
        let is_misfit = self.chance.per_mille(MISFITS_PER_MILLE);
        self.counts.misfits += u64::from(is_misfit);
        match (self.setup.planted, is_misfit) {
            // One is missing, and those after it are applied.
            (Some(Planted::DeltaOnWrongBase), true) => said.kind = None,
            (Some(Planted::DeltaOnWrongBase), false) => self.callers[number].core.make_fit(delta),
            (_, false) => {}
            (_, true) => match self.chance.index(4) {
                0 => delta.from_revision += 1,
                1 => delta.digest ^= 1,
                2 => delta.statuses.clear(),
                _ => delta.instances.clear(),
            },
        }
    }
}
