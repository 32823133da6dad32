//! The leader is cut off from the instances of two of the three zones, and from nobody else: they renew through the others, and nothing is removed.

use std::path::Path;

use crate::replicas::host;
use crate::scenarios::Ended;
use crate::stage::{Setting, Stage, ZONES};

/// More than half of the instances.
const UNHEARD: [&str; 2] = [ZONES[0], ZONES[1]];

pub(super) fn play(directory: &Path) -> Ended {
    let mut stage = Stage::new(directory, Setting::default());
    stage.steady = stage.replicas.ids();
    let leader = stage.leader();
    for zone in UNHEARD {
        stage.network.cut(&host(leader), zone);
    }
    // Longer than any lease lasts unless it is renewed elsewhere.
    stage.let_run(stage.setting.ttl.mul_f64(1.5));
    for zone in UNHEARD {
        stage.network.mend(&host(leader), zone);
    }
    Ended::Well(stage.finish().to_string())
}
