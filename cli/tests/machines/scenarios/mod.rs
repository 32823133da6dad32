//! The scenarios, one file each.

mod bad_weather;
mod dark_zone;
mod deaf_leader;
mod full_disk;
mod half_unheard;
mod killed_in_a_loop;
mod leader_cut_off;
mod members_change;
mod paused_leader;
mod quorum_lost;

use std::path::Path;

/// A scenario by name.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Keeps its records in the directory; panics when a promise is broken.
    pub(crate) play: fn(&Path) -> Ended,
}

/// How a scenario ended when it did not panic.
#[derive(Debug)]
pub(crate) enum Ended {
    /// What was seen and checked, in words.
    Well(String),
    /// Why it cannot be tried on this machine.
    Skipped(String),
}

/// All of them, the long ones first.
pub(crate) const ALL: &[Scenario] = &[
    Scenario {
        name: "killed_in_a_loop",
        play: killed_in_a_loop::play,
    },
    Scenario {
        name: "dark_zone",
        play: dark_zone::play,
    },
    Scenario {
        name: "full_disk",
        play: full_disk::play,
    },
    Scenario {
        name: "members_change",
        play: members_change::play,
    },
    Scenario {
        name: "half_unheard",
        play: half_unheard::play,
    },
    Scenario {
        name: "quorum_lost",
        play: quorum_lost::play,
    },
    Scenario {
        name: "bad_weather",
        play: bad_weather::play,
    },
    Scenario {
        name: "paused_leader",
        play: paused_leader::play,
    },
    Scenario {
        name: "deaf_leader",
        play: deaf_leader::play,
    },
    Scenario {
        name: "leader_cut_off",
        play: leader_cut_off::play,
    },
];
