//! The leader's process is stopped for longer than any lease and any hold, and wakes up: it removes nobody.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::scenarios::Ended;
use crate::stage::{Setting, Stage};

pub(super) fn play(directory: &Path) -> Ended {
    let setting = Setting {
        ttl: Duration::from_secs(4),
        // It is not the brake that saves them.
        brake_hold: Duration::from_secs(1),
        ..Setting::default()
    };
    let mut stage = Stage::new(directory, setting);
    let leader = stage.leader();
    let others = stage.replicas.others(&[leader]);
    stage.steady = others.clone();
    stage.replicas.signal(leader, Signal::STOP);
    let outage = stage.changes_go_on();
    stage.replicas.leader(&stage.network, &others);
    stage.let_run(setting.ttl.mul_f64(2.0));
    stage.replicas.signal(leader, Signal::CONT);
    let counts = stage.finish();
    Ended::Well(format!("changes went on after {outage:.1?}; {counts}"))
}
