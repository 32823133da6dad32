//! The leader's cable is pulled, and an instance dies meanwhile; the others go on without it, and it comes back as a follower.

use std::path::Path;
use std::time::Duration;

use crate::replicas::host;
use crate::scenarios::Ended;
use crate::stage::{Setting, Stage};

pub(super) fn play(directory: &Path) -> Ended {
    let mut stage = Stage::new(directory, Setting::default());
    let leader = stage.leader();
    let others = stage.replicas.others(&[leader]);
    stage.steady = others.clone();
    stage.network.unplug(&host(leader));
    let outage = stage.changes_go_on();
    stage.replicas.leader(&stage.network, &others);
    // What dies now is judged by a leader that never heard from it.
    stage.kill_instance("v2-zb-0");
    stage.let_run(Duration::from_secs(5));
    stage.network.plug(&host(leader));
    let counts = stage.finish();
    Ended::Well(format!("changes went on after {outage:.1?}; {counts}"))
}
