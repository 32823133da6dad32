//! `trimtab cluster`: the replicas of the registry.

use clap::{Args, Subcommand, value_parser};
use trimtab_client::error::Error;
use trimtab_client::operator::members::{AddedReplica, Leadership, MembersChange};

use crate::failure::{Exit, Failure};
use crate::session::Session;

mod screen;

pub(crate) const EXAMPLES: &str = "\
`cluster status` ends with exit code 6 while the replica that answers knows of no leader.

The others change the replicas, one at a time, and return when it is done; asked again for what is
so already they change nothing. A new replica is started with `trimtab serve --join` first. Without
a vote it serves reads and watches and no write waits for it; promoted, it counts for the quorum.

Examples:
  trimtab cluster status
  trimtab cluster status --output json | jq .leader_id
  trimtab cluster add 10.0.0.4:7070
  trimtab cluster promote 4
  trimtab cluster promote 4 --replacing 2
  trimtab cluster remove 2
  trimtab cluster transfer 3";

#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Every replica as it sees itself
    Status,
    /// Take in a replica that was started with --join, without a vote
    Add {
        /// Where it listens
        #[arg(value_name = "HOST:PORT")]
        address: String,
    },
    /// Give a replica that has caught up a vote
    Promote {
        /// The replica
        #[arg(value_name = "ID", value_parser = value_parser!(u64).range(1..))]
        id: u64,
        /// A voter that is removed by the same step: a dead one, mostly
        #[arg(long, value_name = "ID", value_parser = value_parser!(u64).range(1..))]
        replacing: Option<u64>,
    },
    /// Remove a replica for good; if it leads, it hands leadership over first
    Remove {
        /// The replica
        #[arg(value_name = "ID", value_parser = value_parser!(u64).range(1..))]
        id: u64,
        /// Even if too few of the others can be reached to go on without it
        #[arg(long)]
        force: bool,
    },
    /// Have another replica lead
    Transfer {
        /// The replica [default: the one that has most of the log]
        #[arg(value_name = "ID", value_parser = value_parser!(u64).range(1..))]
        id: Option<u64>,
    },
}

pub(crate) async fn run(args: &ClusterArgs, session: &Session) -> Result<(), Failure> {
    let operator = &session.operator;
    match &args.verb {
        Verb::Status => {
            let status = operator.cluster_status().await?;
            session.output.result(&status, screen::text)?;
            if status.has_quorum {
                return Ok(());
            }
            let asked = "the replica that answered hears of no leader: nothing can be changed";
            Err(Failure::new(Exit::Unavailable, asked))
        }
        Verb::Add { address } => {
            let added = operator.add_replica(address).await.map_err(of_replica)?;
            session.output.result(&added, added_text)
        }
        Verb::Promote { id, replacing } => {
            let change = operator
                .promote_replica(*id, *replacing)
                .await
                .map_err(of_replica)?;
            session
                .output
                .result(&change, |change| changed_text(change, "has a vote"))
        }
        Verb::Remove { id, force } => {
            let change = operator
                .remove_replica(*id, *force)
                .await
                .map_err(of_replica)?;
            session
                .output
                .result(&change, |change| changed_text(change, "is removed"))
        }
        Verb::Transfer { id } => {
            let leadership = operator
                .transfer_leadership(*id)
                .await
                .map_err(of_replica)?;
            let text = |now: &Leadership| format!("replica {} leads\n", now.leader_id);
            session.output.result(&leadership, text)
        }
    }
}

/// A replica that is not there is none of the services that the usual hint
/// names; the message says where to look.
fn of_replica(error: Error) -> Failure {
    match &error {
        Error::NotFound(_) => Failure::new(Exit::NotFound, error.to_string()),
        _ => error.into(),
    }
}

fn added_text(added: &AddedReplica) -> String {
    let id = added.change.id;
    let what = format!("at {} is taken in", added.address);
    let mut text = changed_text(&added.change, &what);
    if added.change.learners.contains(&id) {
        text.push_str(&format!(
            "it has no vote until `trimtab cluster promote {id}`\n"
        ));
    }
    text
}

fn changed_text(change: &MembersChange, what: &str) -> String {
    let already = match change.changed {
        true => "",
        false => " already",
    };
    let ids = |ids: &[u64]| {
        ids.iter()
            .map(u64::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let mut text = format!(
        "replica {} {what}{already}; {} vote",
        change.id,
        ids(&change.voters)
    );
    if !change.learners.is_empty() {
        text.push_str(&format!(", {} without a vote", ids(&change.learners)));
    }
    text.push('\n');
    text
}
