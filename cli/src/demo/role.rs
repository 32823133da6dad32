//! The parts that this program plays in its own demo. They are not verbs:
//! neither help nor completions know them.

use clap::{Parser, Subcommand};

use crate::arguments::GlobalArgs;
use crate::demo::{caller, instance};
use crate::failure::Failure;

/// What tells a part from a verb.
const PREFIX: &str = "demo-";

#[derive(Debug, Parser)]
#[command(name = "trimtab")]
pub(crate) struct RoleCommand {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,

    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// An instance of a release
    DemoInstance(instance::InstanceArgs),
    /// A caller under steady load
    DemoCaller(caller::CallerArgs),
}

/// Does this command line ask for a part?
pub(crate) fn is_asked_for() -> bool {
    std::env::args()
        .nth(1)
        .is_some_and(|verb| verb.starts_with(PREFIX))
}

pub(crate) async fn play(command: &RoleCommand) -> Result<(), Failure> {
    match &command.role {
        Role::DemoInstance(args) => instance::run(args, &command.global).await,
        Role::DemoCaller(args) => caller::run(args, &command.global).await,
    }
}
