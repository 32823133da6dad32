//! The replicas on a terminal: what each is and how far, what it holds, and what is wrong.

use std::time::SystemTime;

use trimtab_client::operator::cluster_status::{ClusterStatus, ReplicaRole, ReplicaStatus};

use crate::table::{BAD, Cell, GOOD, NOTHING, NOTICE, PLAIN, Table, count};
use crate::wait::span;

/// How far behind is worth a colour: more than what is on its way at any
/// moment.
const LAG_NOTICE: u64 = 100;

pub(super) fn text(status: &ClusterStatus) -> String {
    let leader = status
        .leader_id
        .map_or("no leader".to_owned(), |id| format!("replica {id} leads"));
    let quorum = if status.has_quorum {
        "quorum"
    } else {
        "NO QUORUM"
    };
    let mut text = format!(
        "{leader}, {quorum}\n{}\n{}",
        standing(&status.replicas),
        holdings(&status.replicas)
    );
    for alarm in &status.alarms {
        text.push_str(&format!("{BAD}alarm:{BAD:#} {alarm}\n"));
    }
    text
}

/// What each replica is, and how far it is.
fn standing(replicas: &[ReplicaStatus]) -> String {
    let mut table = Table::new(&[
        ">ID",
        "ADDRESS",
        "ROLE",
        ">TERM",
        ">COMMITTED",
        ">APPLIED",
        ">LAG",
        ">SNAPSHOT",
        ">TAKEN",
        ">DATA",
        ">DISK FREE",
        ">UP",
        "VERSION",
    ]);
    for replica in replicas {
        let mut row: Vec<Cell> = vec![
            replica.id.to_string().into(),
            replica.address.clone().into(),
            role(replica),
        ];
        // Why it did not answer stands among the alarms.
        if replica.reachable {
            row.extend(how_far(replica));
        }
        table.row_of(row);
    }
    table.render()
}

fn role(replica: &ReplicaStatus) -> Cell {
    let name = match replica.is_learner {
        true => "learner".to_owned(),
        false => replica.role.to_string(),
    };
    match replica.role {
        _ if !replica.reachable => Cell::styled("unreachable", BAD),
        _ if !replica.halted.is_empty() => Cell::styled("halted", BAD),
        _ if !replica.error.is_empty() => Cell::styled("stopped", BAD),
        _ if !replica.caught_up => Cell::styled(format!("{name}, catching up"), NOTICE),
        ReplicaRole::Leader => Cell::styled(name, GOOD),
        _ => Cell::styled(name, PLAIN),
    }
}

fn how_far(replica: &ReplicaStatus) -> [Cell; 10] {
    let lag = match replica.lag {
        lag if lag > LAG_NOTICE => Cell::styled(count(lag), NOTICE),
        lag => count(lag).into(),
    };
    let taken = replica.snapshot_time.map_or(NOTHING.to_owned(), |at| {
        // The two clocks may differ a little.
        let age = SystemTime::now().duration_since(at).unwrap_or_default();
        format!("{} ago", span(age))
    });
    let version = match replica.version.as_str() {
        "" => NOTHING,
        version => version,
    };
    [
        replica.term.to_string().into(),
        replica.commit_index.to_string().into(),
        replica.applied_index.to_string().into(),
        lag,
        replica.snapshot_index.to_string().into(),
        taken.into(),
        size(replica.data_bytes).into(),
        replica
            .disk_free_bytes
            .map_or(NOTHING.to_owned(), size)
            .into(),
        span(replica.uptime).into(),
        version.into(),
    ]
}

/// What each replica holds, and who is connected to it.
fn holdings(replicas: &[ReplicaStatus]) -> String {
    let mut table = Table::new(&[
        ">ID",
        ">SERVICES",
        ">INSTANCES",
        ">LEASES",
        ">SUSPECT",
        ">HELD",
        ">RENEWING",
        ">WATCHERS",
    ]);
    for replica in replicas.iter().filter(|replica| replica.reachable) {
        let held: u64 = replica
            .brakes
            .iter()
            .map(|brake| u64::from(brake.held))
            .sum();
        let unless_none = |number: u64| match number {
            0 => Cell::from("0"),
            number => Cell::styled(count(number), NOTICE),
        };
        table.row([
            replica.id.to_string().into(),
            count(replica.services.into()).into(),
            count(replica.instances.into()).into(),
            count(replica.leases).into(),
            unless_none(replica.suspect),
            unless_none(held),
            count(replica.renewal_streams.into()).into(),
            count(replica.watchers.into()).into(),
        ]);
    }
    table.render()
}

/// A size in the unit that leaves it a few digits.
fn size(bytes: u64) -> String {
    let mut rest = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if rest < 1024.0 {
            let digits = usize::from(rest < 10.0 && unit != "B");
            return format!("{rest:.digits$} {unit}");
        }
        rest /= 1024.0;
    }
    format!("{rest:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::size;

    #[test]
    fn a_size_has_the_unit_that_leaves_it_a_few_digits() {
        let shown = [
            0,
            1_023,
            1_024,
            5_000,
            20_000,
            1 << 20,
            50 << 30,
            1 << 41,
            u64::MAX,
        ]
        .map(size);
        let meant = [
            "0 B",
            "1023 B",
            "1.0 KiB",
            "4.9 KiB",
            "20 KiB",
            "1.0 MiB",
            "50 GiB",
            "2.0 TiB",
            "16777216.0 TiB",
        ];
        assert_eq!(shown, meant);
    }
}
