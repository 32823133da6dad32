//! When failed and passed checks change whether a program counts as ready (pure).

use std::num::NonZeroU32;

/// How many checks in a row it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Thresholds {
    pub(crate) unready_after: NonZeroU32,
    pub(crate) ready_after: NonZeroU32,
}

/// What the last checks said of a program that was ready once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standing {
    is_ready: bool,
    /// Results in a row that speak against `is_ready`.
    contrary: u32,
}

impl Standing {
    /// As it stands after its first passed check.
    pub(crate) fn ready() -> Self {
        Self {
            is_ready: true,
            contrary: 0,
        }
    }

    pub(crate) fn is_ready(self) -> bool {
        self.is_ready
    }

    /// Returns whether this result changed it.
    pub(crate) fn take(&mut self, passed: bool, thresholds: Thresholds) -> bool {
        if passed == self.is_ready {
            self.contrary = 0;
            return false;
        }
        self.contrary += 1;
        let enough = if self.is_ready {
            thresholds.unready_after
        } else {
            thresholds.ready_after
        };
        let changes = self.contrary >= enough.get();
        if changes {
            self.is_ready = passed;
            self.contrary = 0;
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn thresholds(unready_after: u32, ready_after: u32) -> Thresholds {
        Thresholds {
            unready_after: NonZeroU32::new(unready_after).unwrap(),
            ready_after: NonZeroU32::new(ready_after).unwrap(),
        }
    }

    fn after(results: &[bool], thresholds: Thresholds) -> Vec<bool> {
        let mut standing = Standing::ready();
        let take = |&result| {
            standing.take(result, thresholds);
            standing.is_ready()
        };
        results.iter().map(take).collect()
    }

    #[test]
    fn it_takes_failures_in_a_row() {
        let (up, down) = (true, false);
        assert_eq!(
            after(&[down, down, up, down, down, down, up], thresholds(3, 1)),
            [up, up, up, up, up, down, up]
        );
        assert_eq!(
            after(&[down, up, down, up, up, up], thresholds(1, 2)),
            [down, down, down, down, up, up]
        );
    }

    proptest! {
        #[test]
        fn it_changes_exactly_after_as_many_contrary_results_in_a_row(
            results in prop::collection::vec(any::<bool>(), 0..64),
            unready_after in 1_u32..5,
            ready_after in 1_u32..5,
        ) {
            let stands = after(&results, thresholds(unready_after, ready_after));
            let mut before = true;
            for (position, now) in stands.iter().copied().enumerate() {
                let enough = if before { unready_after } else { ready_after } as usize;
                let first = (position + 1).saturating_sub(enough);
                let row = results.get(first..=position).unwrap_or_default();
                let contrary = row.len() == enough
                    && row.iter().all(|result| *result != before)
                    && stands.get(first..position).unwrap_or_default().iter().all(|s| *s == before);
                prop_assert_eq!(now != before, contrary);
                before = now;
            }
        }
    }
}
