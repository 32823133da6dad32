//! A fifth of all packets between all hosts is lost, and where the kernel can do that, the others are late.

use std::path::Path;
use std::time::Duration;

use crate::network::{self, Weather};
use crate::replicas::host;
use crate::scenarios::Ended;
use crate::stage::{Setting, Stage, ZONES};

const LOST_PERCENT: u32 = 20;
const DELAY_MS: u32 = 10;

pub(super) fn play(directory: &Path) -> Ended {
    let Some(weather) = network::weather() else {
        return Ended::Skipped("neither tc netem nor iptables can lose packets here".to_owned());
    };
    let setting = Setting {
        // Renewals are repeated by TCP, later each time.
        ttl: Duration::from_secs(12),
        ..Setting::default()
    };
    let stage = Stage::new(directory, setting);
    let replicas = stage.replicas.ids().into_iter().map(host);
    let hosts: Vec<String> = replicas.chain(ZONES.map(str::to_owned)).collect();
    for host in &hosts {
        stage.network.spoil(host, weather, LOST_PERCENT, DELAY_MS);
    }
    stage.let_run(Duration::from_secs(8));
    stage.changes_go_on();
    for host in &hosts {
        stage.network.clear(host, weather, LOST_PERCENT);
    }
    let counts = stage.finish();
    let how = match weather {
        Weather::Netem => format!("{LOST_PERCENT} % lost, {DELAY_MS} ms late (netem)"),
        Weather::Statistic => {
            format!("{LOST_PERCENT} % lost (iptables; no netem here, so none was late)")
        }
    };
    Ended::Well(format!("{how}; {counts}"))
}
