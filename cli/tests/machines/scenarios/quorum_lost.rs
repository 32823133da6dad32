//! Two of three replicas are cut off: nothing is acknowledged, but reads, watches and traffic go on; then the quorum is back.

use std::path::Path;
use std::time::Duration;

use crate::clock;
use crate::replicas::host;
use crate::scenarios::Ended;
use crate::stage::{Setting, Stage};
use crate::wait::until;

pub(super) fn play(directory: &Path) -> Ended {
    let mut stage = Stage::new(directory, Setting::default());
    let kept = stage.leader();
    let others = stage.replicas.others(&[kept]);
    for other in &others {
        stage.network.unplug(&host(*other));
    }
    let lost = clock::now();
    // Long enough for leases to run out, if anyone could end them.
    stage.let_run(stage.setting.ttl.mul_f64(1.5));
    let knows = || {
        let status = stage.replicas.status(&stage.network, kept)?;
        (status["has_quorum"] == false).then_some(())
    };
    until(
        "the replica that is left to say that it hears of no leader",
        knows,
    );
    let view = stage.replicas.view(&stage.network, kept);
    assert!(
        view.is_some(),
        "replica {kept} does not answer without a quorum"
    );
    let back = clock::now();
    for other in &others {
        stage.network.plug(&host(*other));
    }
    stage.answering = vec![kept];
    let acknowledged = stage.changes_within(lost, back);
    assert_eq!(
        acknowledged, 0,
        "changes were acknowledged without a quorum"
    );
    let outage = stage.changes_go_on();
    let counts = stage.finish();
    let without = Duration::from_micros(back - lost);
    Ended::Well(format!(
        "{without:.1?} without quorum, changes went on {outage:.1?} after; {counts}"
    ))
}
