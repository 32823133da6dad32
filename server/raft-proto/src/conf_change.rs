//! Changes of members: making, converting and judging them.

use std::borrow::Cow;

use crate::eraftpb::{
    ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
};

/// One change of one member.
#[must_use]
pub fn new_conf_change_single(node_id: u64, change: ConfChangeType) -> ConfChangeSingle {
    ConfChangeSingle {
        change_type: change.into(),
        node_id,
    }
}

/// Changes as raft's own tests write them down: `v1 l2 r3` makes 1 a voter, 2 a
/// learner, and removes 3.
///
/// # Errors
///
/// The first word that is none of these.
pub fn parse_conf_change(text: &str) -> Result<Vec<ConfChangeSingle>, String> {
    text.split_ascii_whitespace().map(parse_single).collect()
}

fn parse_single(word: &str) -> Result<ConfChangeSingle, String> {
    let kinds = [
        ('v', ConfChangeType::AddNode),
        ('l', ConfChangeType::AddLearnerNode),
        ('r', ConfChangeType::RemoveNode),
    ];
    kinds
        .into_iter()
        .find_map(|(letter, change)| {
            let node_id = word.strip_prefix(letter)?.parse().ok()?;
            Some(new_conf_change_single(node_id, change))
        })
        .ok_or_else(|| format!("{word:?} is not a change of members: v, l or r and a node's id"))
}

/// A change of members, in the older form or the newer.
pub trait ConfChangeI {
    /// It in the newer form.
    fn into_v2(self) -> ConfChangeV2;

    /// It in the newer form, borrowed if it has that already.
    fn as_v2(&self) -> Cow<'_, ConfChangeV2>;

    /// It in the older form, if it has that.
    fn as_v1(&self) -> Option<&ConfChange>;
}

impl ConfChangeI for ConfChange {
    fn into_v2(self) -> ConfChangeV2 {
        ConfChangeV2 {
            transition: ConfChangeTransition::Auto.into(),
            changes: vec![ConfChangeSingle {
                change_type: self.change_type,
                node_id: self.node_id,
            }],
            context: self.context,
        }
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Owned(self.clone().into_v2())
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        Some(self)
    }
}

impl ConfChangeI for ConfChangeV2 {
    fn into_v2(self) -> ConfChangeV2 {
        self
    }

    fn as_v2(&self) -> Cow<'_, ConfChangeV2> {
        Cow::Borrowed(self)
    }

    fn as_v1(&self) -> Option<&ConfChange> {
        None
    }
}

impl ConfChangeV2 {
    /// Whether it takes a joint configuration, and then whether Raft leaves
    /// that by itself.
    ///
    /// `None` when the simple way will do: one change at most, and nobody
    /// asked for more.
    #[must_use]
    pub fn enter_joint(&self) -> Option<bool> {
        match self.transition() {
            ConfChangeTransition::Auto if self.changes.len() <= 1 => None,
            ConfChangeTransition::Auto | ConfChangeTransition::Implicit => Some(true),
            ConfChangeTransition::Explicit => Some(false),
        }
    }

    /// Whether it leaves a joint configuration: it says nothing, but for its context.
    #[must_use]
    pub fn leave_joint(&self) -> bool {
        self.transition() == ConfChangeTransition::Auto && self.changes.is_empty()
    }
}
