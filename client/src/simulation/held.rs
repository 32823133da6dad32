//! A view as a caller holds it, by itself: to try deltas on.

use trimtab_proto::v1 as wire;

use crate::convert::taken_from_wire;
use crate::delta::{Base, apply};
use crate::error::Error;
use crate::view::View;

/// Equal to another when callers would do the same by both.
#[derive(Debug, Clone, PartialEq)]
pub struct Held(View, Base);

impl Held {
    /// Takes a view as it travels.
    ///
    /// # Errors
    /// When it contradicts itself.
    pub fn of(update: &wire::ViewUpdate) -> Result<Self, Error> {
        taken_from_wire(update).map(|(view, base)| Self(view, base))
    }

    /// The view that a delta leads to.
    ///
    /// # Errors
    /// When the delta is for another view than this one.
    pub fn after(&self, delta: &wire::ViewDelta) -> Result<Self, Error> {
        apply(&self.0, &self.1, delta).map(|(view, base)| Self(view, base))
    }
}
