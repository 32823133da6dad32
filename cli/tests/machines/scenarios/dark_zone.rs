//! The registry loses sight of a whole zone that callers still reach: its instances turn SUSPECT, are held, and come back.

use std::path::Path;

use crate::replicas::host;
use crate::scenarios::Ended;
use crate::stage::{Setting, Stage, ZONES};
use crate::wait::until;

const DARK: &str = ZONES[1];

pub(super) fn play(directory: &Path) -> Ended {
    let setting = Setting {
        // Enough of them for the brake of one zone.
        per_zone: 2,
        ..Setting::default()
    };
    let mut stage = Stage::new(directory, setting);
    stage.steady = stage.replicas.ids();
    for id in stage.replicas.ids() {
        stage.network.cut(&host(id), DARK);
    }
    until("the zone to be suspect, and nobody else", || {
        of_zone(&stage, "suspect")
    });
    stage.let_run(setting.ttl.mul_f64(1.5));
    for id in stage.replicas.ids() {
        stage.network.mend(&host(id), DARK);
    }
    until("the zone to be ready", || of_zone(&stage, "ready"));
    Ended::Well(stage.finish().to_string())
}

/// All instances of the zone are so, and all others ready.
fn of_zone(stage: &Stage, status: &str) -> Option<()> {
    let statuses = stage.statuses(1)?;
    let mut all = statuses.iter();
    let fits = all.all(|(id, is)| is == if id.contains(DARK) { status } else { "ready" });
    fits.then_some(())
}
