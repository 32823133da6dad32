//! `trimtab cluster`: the replicas of the registry.

use clap::{Args, Subcommand};

use crate::failure::{Exit, Failure};
use crate::session::Session;

mod screen;

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
            session.output.result(&status, screen::text)?;
            if status.has_quorum {
                return Ok(());
            }
            let asked = "the replica that answered hears of no leader: nothing can be changed";
            Err(Failure::new(Exit::Unavailable, asked))
        }
    }
}
