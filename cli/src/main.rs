//! The `trimtab` command: reads the command line, runs one verb, and says by
//! its exit code what came of it.

mod actor;
mod arguments;
mod change;
mod commands;
mod demo;
mod failure;
mod instance_flags;
mod logging;
mod output;
mod percent;
#[cfg(unix)]
mod run;
mod session;
mod settings;
mod signals;
mod table;
mod wait;

use std::io;
use std::process::{ExitCode, Termination};

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::arguments::GlobalArgs;
#[cfg(unix)]
use crate::commands::run as run_command;
use crate::commands::{
    canary, cluster, completions, history, instance, policy, register, resolve, rollback, serve,
    services, shift, snapshot, status, switch, teardown, watch,
};
use crate::demo::role::{self, RoleCommand};
use crate::failure::{EXIT_CODES_HELP, Failure};
use crate::output::Output;
use crate::session::Session;

/// Service discovery that ships releases: shift weights between the groups of
/// a service, watch what comes of it, and roll back.
#[derive(Debug, Parser)]
#[command(name = "trimtab", version, after_help = EXIT_CODES_HELP, max_term_width = 100)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a replica of the registry
    #[command(after_help = serve::EXAMPLES)]
    Serve(serve::ServeCommand),
    /// Show who carries what: shares as intended and as observed
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// List what is registered
    #[command(after_help = services::EXAMPLES)]
    Services,
    /// Show what a caller is told about a service
    #[command(after_help = resolve::EXAMPLES)]
    Resolve(resolve::ResolveArgs),
    /// Follow what callers are told about a service
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::WatchArgs),
    /// Hold one instance's registration, for trying things
    #[command(after_help = register::EXAMPLES)]
    Register(register::RegisterArgs),
    /// Run a program as an instance: register it while it can serve, drain it before it ends
    #[cfg(unix)]
    #[command(after_help = run_command::EXAMPLES)]
    Run(run_command::RunArgs),
    /// Give one group a share of the calls to try it
    #[command(after_help = canary::EXAMPLES)]
    Canary(canary::CanaryArgs),
    /// Set the weights of a service's groups
    #[command(after_help = shift::EXAMPLES)]
    Shift(shift::ShiftArgs),
    /// Send all calls to one group, of one service or of several at once
    #[command(after_help = switch::EXAMPLES)]
    Switch(switch::SwitchArgs),
    /// Show or change what callers do beyond the weights
    #[command(after_help = policy::EXAMPLES)]
    Policy(policy::PolicyArgs),
    /// Restore an earlier route, exactly
    #[command(after_help = rollback::EXAMPLES)]
    Rollback(rollback::RollbackArgs),
    /// Retire a group that carries nothing any more
    #[command(after_help = teardown::EXAMPLES)]
    Teardown(teardown::TeardownArgs),
    /// Show who changed a route, when and why
    #[command(after_help = history::EXAMPLES)]
    History(history::HistoryArgs),
    /// Drain one instance or change its capacity
    #[command(after_help = instance::EXAMPLES)]
    Instance(instance::InstanceArgs),
    /// Look at the registry itself
    #[command(after_help = cluster::EXAMPLES)]
    Cluster(cluster::ClusterArgs),
    /// Save the registry's state, look at it, and begin anew from it
    #[command(after_help = snapshot::EXAMPLES)]
    Snapshot(snapshot::SnapshotArgs),
    /// Watch a release being shipped, and one being rolled back, on this machine
    #[command(after_help = demo::command::EXAMPLES)]
    Demo(demo::command::DemoArgs),
    /// Print a completion script for a shell
    #[command(after_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    if run::guard::is_asked_for() {
        return run::guard::become_program();
    }
    if role::is_asked_for() {
        let command = RoleCommand::parse();
        let output = Output::new(command.global.output);
        // Many of them share the machine with the rest of the demo.
        let runtime = Builder::new_current_thread().enable_all().build();
        return conclude(output, runtime, role::play(&command));
    }
    let cli = Cli::parse();
    cli.global.color.apply();
    let output = Output::new(cli.global.output);
    let runtime = Builder::new_multi_thread().enable_all().build();
    conclude(output, runtime, dispatch(&cli, output))
}

/// Runs to the end and says how it ended.
fn conclude(
    output: Output,
    runtime: io::Result<Runtime>,
    work: impl Future<Output = Result<impl Termination, Failure>>,
) -> ExitCode {
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => Err(error.into()),
    };
    match ended {
        Ok(ended) => ended.report(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit().into()
        }
    }
}

/// The exit code is 0, or that of the program that was run.
async fn dispatch(cli: &Cli, output: Output) -> Result<ExitCode, Failure> {
    let session = Session::new(&cli.global, output)?;
    match &cli.command {
        Command::Serve(command) => serve::run(command, output).await,
        Command::Status(args) => status::run(args, &session).await,
        Command::Services => services::run(&session).await,
        Command::Resolve(args) => resolve::run(args, &session).await,
        Command::Watch(args) => watch::run(args, &session).await,
        Command::Register(args) => register::run(args, &cli.global, output).await,
        #[cfg(unix)]
        Command::Run(args) => return run_command::run(args, &cli.global, output).await,
        Command::Canary(args) => canary::run(args, &session).await,
        Command::Shift(args) => shift::run(args, &session).await,
        Command::Switch(args) => switch::run(args, &session).await,
        Command::Policy(args) => policy::run(args, &session).await,
        Command::Rollback(args) => rollback::run(args, &session).await,
        Command::Teardown(args) => teardown::run(args, &session).await,
        Command::History(args) => history::run(args, &session).await,
        Command::Instance(args) => instance::run(args, &session).await,
        Command::Cluster(args) => cluster::run(args, &session).await,
        Command::Snapshot(args) => snapshot::run(args, &session).await,
        Command::Demo(args) => demo::command::run(args, output).await,
        Command::Completions(args) => completions::run(args, output),
    }?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        RoleCommand::command().debug_assert();
    }

    #[test]
    fn every_verb_teaches_by_example() {
        for verb in Cli::command().get_subcommands() {
            let help = verb.get_after_help().map(ToString::to_string);
            assert!(
                help.unwrap_or_default().contains("trimtab "),
                "{} has no example",
                verb.get_name()
            );
        }
    }
}
