//! `trimtab cluster`: the replicas of the registry.

use clap::{Args, Subcommand};
use trimtab_client::operator::cluster_status::{ClusterStatus, ReplicaRole, ReplicaStatus};

use crate::failure::{Exit, Failure};
use crate::session::Session;
use crate::table::{BAD, Cell, GOOD, NOTHING, NOTICE, PLAIN, Table, count};
use crate::wait::span;

pub(crate) const EXAMPLES: &str = "\
`cluster status` ends with exit code 6 while the replica that answers knows of no leader.

Examples:
  trimtab cluster status
  trimtab cluster status --output json | jq .leader_id";

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Every replica as it sees itself
    Status,
}

pub(crate) async fn run(args: &ClusterArgs, session: &Session) -> Result<(), Failure> {
    match args.verb {
        Verb::Status => {
            let status = session.operator.cluster_status().await?;
            session.output.result(&status, table)?;
            if status.has_quorum {
                return Ok(());
            }
            let asked = "the replica that answered hears of no leader: nothing can be changed";
            Err(Failure::new(Exit::Unavailable, asked))
        }
    }
}

fn table(status: &ClusterStatus) -> String {
    let mut table = Table::new(&[
        ">ID",
        "ADDRESS",
        "ROLE",
        ">TERM",
        ">COMMITTED",
        ">APPLIED",
        ">SERVICES",
        ">INSTANCES",
        ">WATCHERS",
        ">UP",
        "VERSION",
    ]);
    for replica in &status.replicas {
        if replica.reachable {
            table.row_of(reachable_row(replica));
        } else {
            table.row_of(vec![
                replica.id.to_string().into(),
                replica.address.clone().into(),
                // Why stands among the alarms.
                Cell::styled("unreachable", BAD),
            ]);
        }
    }
    let leader = status
        .leader_id
        .map_or("no leader".to_owned(), |id| format!("replica {id} leads"));
    let quorum = if status.has_quorum {
        "quorum"
    } else {
        "NO QUORUM"
    };
    let mut text = format!("{leader}, {quorum}\n{}", table.render());
    for alarm in &status.alarms {
        text.push_str(&format!("{BAD}alarm:{BAD:#} {alarm}\n"));
    }
    text
}

fn reachable_row(replica: &ReplicaStatus) -> Vec<Cell> {
    let role = match (replica.role, replica.caught_up) {
        (role, false) => Cell::styled(format!("{role}, catching up"), NOTICE),
        (ReplicaRole::Leader, true) => Cell::styled("leader", GOOD),
        (role, true) => Cell::styled(role.to_string(), PLAIN),
    };
    let version = match replica.version.as_str() {
        "" => NOTHING,
        version => version,
    };
    vec![
        replica.id.to_string().into(),
        replica.address.clone().into(),
        role,
        replica.term.to_string().into(),
        replica.commit_index.to_string().into(),
        replica.applied_index.to_string().into(),
        count(replica.services.into()).into(),
        count(replica.instances.into()).into(),
        count(replica.watchers.into()).into(),
        span(replica.uptime).into(),
        version.into(),
    ]
}
