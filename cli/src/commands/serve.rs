//! `trimtab serve`: run a replica of the registry.

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;
use trimtab_server::config::ServeArgs;
use trimtab_server::node::Node;

use crate::failure::{Exit, Failure};
use crate::logging::{self, LogFormat};
use crate::output::Output;
use crate::signals::{asked_to_stop, stdin_lines};

pub(crate) const EXAMPLES: &str = "\
Without arguments: one replica on loopback. Those of --peers found a cluster when all are there.
With --join it waits for `trimtab cluster add`. It prints one line when it serves. Log lines go to
stderr; TRIMTAB_LOG says which, for example info or trimtab_server=debug.

Examples:
  trimtab serve
  trimtab serve --config /etc/trimtab.toml
  trimtab serve --id 1 --peers 1=127.0.0.1:7071,2=127.0.0.1:7072,3=127.0.0.1:7073
  trimtab serve --id 4 --listen 127.0.0.1:7074 --join 127.0.0.1:7071,127.0.0.1:7072";

/// What is logged unless TRIMTAB_LOG says otherwise.
const LOG_DEFAULT: &str = "warn,trimtab_server=info";

#[derive(Debug, Args)]
pub(crate) struct ServeCommand {
    #[command(flatten)]
    settings: ServeArgs,

    /// The form of log lines
    #[arg(
        long,
        env = "TRIMTAB_LOG_FORMAT",
        hide_env_values = true,
        value_enum,
        default_value_t = LogFormat::Text
    )]
    log_format: LogFormat,

    /// Stop when stdin ends: for a parent that should not leave a replica behind
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// What is printed when the replica serves.
#[derive(Debug, Serialize)]
struct Ready {
    replica: u64,
    address: String,
    data_dir: String,
}

pub(crate) async fn run(command: &ServeCommand, output: Output) -> Result<(), Failure> {
    logging::start(LOG_DEFAULT, command.log_format)?;
    let invalid = |error: &dyn std::error::Error| Failure::new(Exit::InvalidArgument, told(error));
    let failed = |error: &dyn std::error::Error| Failure::new(Exit::Failed, told(error));
    let config = command
        .settings
        .clone()
        .resolve()
        .map_err(|error| invalid(&error))?;
    let (replica, data_dir) = (config.id, config.data_dir.display().to_string());
    let mut stdin = command.until_stdin_closes.then(stdin_lines);
    // With an empty data directory it may wait for others.
    let node = tokio::select! {
        started = Node::start(config) => started.map_err(|error| failed(&error))?,
        asked = asked_to_stop() => return Ok(asked?),
        () = closed(&mut stdin) => return Ok(()),
    };
    let ready = Ready {
        replica,
        address: node.address().to_string(),
        data_dir,
    };
    let stopped = tokio::select! {
        stopped = serve(&node, &ready, output) => stopped,
        asked = asked_to_stop() => Ok(asked?),
        () = closed(&mut stdin) => Ok(()),
    };
    node.shutdown().await;
    stopped
}

/// Says when the replica serves; returns only when it fails.
async fn serve(node: &Node, ready: &Ready, output: Output) -> Result<(), Failure> {
    let fatal = |reason: String| Failure::new(Exit::Failed, reason);
    node.ready().await.map_err(fatal)?;
    output.line(ready, |ready| {
        format!(
            "trimtab replica {} ready on {}, data in {}\n",
            ready.replica, ready.address, ready.data_dir
        )
    })?;
    Err(fatal(node.failed().await))
}

/// Waits for the end of stdin, where that matters.
async fn closed(stdin: &mut Option<mpsc::Receiver<String>>) {
    match stdin {
        Some(lines) => while lines.recv().await.is_some() {},
        None => std::future::pending().await,
    }
}

/// An error and its causes on one line.
fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
