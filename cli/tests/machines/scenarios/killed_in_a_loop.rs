//! One replica after the other is killed and started again, each as soon as the last one is back; then all at once.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::scenarios::Ended;
use crate::stage::{Setting, Stage};
use crate::wait::until;

const TIME: Duration = Duration::from_secs(15);

pub(super) fn play(directory: &Path) -> Ended {
    let mut stage = Stage::new(directory, Setting::default());
    let until_then = Instant::now() + TIME;
    let mut kills = 0;
    for id in stage.replicas.ids().into_iter().cycle() {
        if Instant::now() >= until_then {
            break;
        }
        stage.replicas.kill(id);
        kills += 1;
        stage.changes_go_on();
        stage.replicas.start(&stage.network, id);
        back(&stage, id);
    }
    for id in stage.replicas.ids() {
        stage.replicas.kill(id);
        kills += 1;
    }
    for id in stage.replicas.ids() {
        stage.replicas.start(&stage.network, id);
    }
    let counts = stage.finish();
    Ended::Well(format!("{kills} kills; {counts}"))
}

/// It serves only when it has caught up.
fn back(stage: &Stage, id: u64) {
    until(&format!("replica {id} to be back"), || {
        stage.replicas.view(&stage.network, id)
    });
}
