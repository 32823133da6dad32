//! Comparing and making configurations.

use crate::eraftpb::ConfState;

/// Whether both name the same members in the same roles, in whatever order.
#[must_use]
pub fn conf_state_eq(left: &ConfState, right: &ConfState) -> bool {
    left.auto_leave == right.auto_leave
        && same_ids(&left.voters, &right.voters)
        && same_ids(&left.learners, &right.learners)
        && same_ids(&left.voters_outgoing, &right.voters_outgoing)
        && same_ids(&left.learners_next, &right.learners_next)
}

fn same_ids(left: &[u64], right: &[u64]) -> bool {
    left == right || sorted(left) == sorted(right)
}

fn sorted(ids: &[u64]) -> Vec<u64> {
    let mut ids = ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// From the ids of the voters and of the learners.
impl<Voters, Learners> From<(Voters, Learners)> for ConfState
where
    Voters: IntoIterator<Item = u64>,
    Learners: IntoIterator<Item = u64>,
{
    fn from((voters, learners): (Voters, Learners)) -> Self {
        Self {
            voters: voters.into_iter().collect(),
            learners: learners.into_iter().collect(),
            ..Self::default()
        }
    }
}
