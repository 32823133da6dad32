//! The leader still reaches the other replicas, but hears nothing from them; then it hears them, and reaches none.

use std::path::Path;
use std::time::Duration;

use crate::replicas::host;
use crate::scenarios::Ended;
use crate::stage::{Setting, Stage};

pub(super) fn play(directory: &Path) -> Ended {
    let stage = Stage::new(directory, Setting::default());
    let leader = stage.leader();
    let others = stage.replicas.others(&[leader]);
    for other in &others {
        stage.network.silence(&host(*other), &host(leader));
    }
    // Its heartbeats keep the others quiet until it steps down by itself.
    let deaf = stage.changes_go_on();
    stage.let_run(Duration::from_secs(3));
    for other in &others {
        stage.network.unsilence(&host(*other), &host(leader));
    }
    stage.changes_go_on();
    let leader = stage.leader();
    let others = stage.replicas.others(&[leader]);
    for other in &others {
        stage.network.silence(&host(leader), &host(*other));
    }
    let mute = stage.changes_go_on();
    stage.let_run(Duration::from_secs(3));
    for other in &others {
        stage.network.unsilence(&host(leader), &host(*other));
    }
    let counts = stage.finish();
    Ended::Well(format!(
        "changes went on after {deaf:.1?} deaf, {mute:.1?} mute; {counts}"
    ))
}
