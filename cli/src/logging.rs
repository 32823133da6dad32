//! Log lines on stderr: which, and in what form.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

use crate::failure::{Exit, Failure};

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Begins to write log lines: those that TRIMTAB_LOG asks for, or `default`.
///
/// # Errors
/// When TRIMTAB_LOG cannot be read.
pub(crate) fn start(default: &str, format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var("TRIMTAB_LOG") {
        Ok(directives) => EnvFilter::try_new(&directives).map_err(|error| {
            Failure::new(
                Exit::InvalidArgument,
                format!("TRIMTAB_LOG is {directives:?}: {error}"),
            )
        })?,
        Err(_) => EnvFilter::new(default),
    };
    let coloured = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let logging = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured);
    match format {
        LogFormat::Text => logging.init(),
        LogFormat::Json => logging.json().init(),
    }
    Ok(())
}
