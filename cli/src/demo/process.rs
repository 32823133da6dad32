//! A child process that does not outlive the demo.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::failure::{Exit, Failure};

/// Settings of the user's own replicas, which are not for those of the demo.
const ENVIRONMENT_PREFIX: &str = "TRIMTAB_";

/// What is quoted of the log of a process that went wrong.
const QUOTED_LINES: usize = 3;

/// What a process prints.
pub(crate) type OutputLines = Lines<BufReader<ChildStdout>>;

/// A running `trimtab`. Killed when dropped; told to go, should the demo
/// itself be killed, by the end of its stdin.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Option<OutputLines>,
    log: PathBuf,
}

impl Process {
    /// Starts this same program with `arguments`; what it says on stderr goes
    /// to a file in `directory`.
    pub(crate) fn start(
        name: &str,
        arguments: &[String],
        directory: &Path,
    ) -> Result<Self, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::new(Exit::Failed, format!("cannot start {name}: {error}"))
        };
        let log = directory.join(format!("{name}.log"));
        let mut command = Command::new(std::env::current_exe().map_err(cannot)?);
        command
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).map_err(cannot)?)
            .kill_on_drop(true);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with(ENVIRONMENT_PREFIX) {
                command.env_remove(variable);
            }
        }
        // Ctrl-C is for the demo, which then ends the others in order.
        #[cfg(unix)]
        command.process_group(0);
        let mut child = command.spawn().map_err(cannot)?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().ok_or_else(|| {
            Failure::new(
                Exit::Failed,
                format!("cannot start {name}: it has no stdout"),
            )
        })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            stdin,
            lines: Some(BufReader::new(stdout).lines()),
            log,
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Waits for its first line, which says that it is ready.
    pub(crate) async fn ready(&mut self, patience: Duration) -> Result<String, Failure> {
        let Some(lines) = &mut self.lines else {
            return Err(self.went_wrong("has no output to wait for"));
        };
        match timeout(patience, lines.next_line()).await {
            Ok(Ok(Some(line))) => Ok(line),
            Ok(_) => Err(self.went_wrong("ended before it was ready")),
            Err(_) => Err(self.went_wrong(&format!("was not ready within {patience:.0?}"))),
        }
    }

    /// What it prints from now on, for someone else to read.
    pub(crate) fn take_lines(&mut self) -> Option<OutputLines> {
        self.lines.take()
    }

    /// Writes to its stdin. That nobody reads any more is found out elsewhere.
    pub(crate) async fn tell(&mut self, text: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(text.as_bytes()).await;
            let _ = stdin.flush().await;
        }
    }

    /// Ends it at once and without a word, as `kill -9` does.
    pub(crate) async fn kill(&mut self) {
        // It can only have ended already.
        let _ = self.child.kill().await;
    }

    /// How it ended by itself; `None` when it has not within `patience`.
    pub(crate) async fn ended(&mut self, patience: Duration) -> Option<ExitStatus> {
        timeout(patience, self.child.wait()).await.ok()?.ok()
    }

    /// A failure that quotes the end of its log.
    pub(crate) fn went_wrong(&self, what: &str) -> Failure {
        let failure = Failure::new(Exit::Failed, format!("{} {what}", self.name));
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
        lines
            .iter()
            .skip(lines.len().saturating_sub(QUOTED_LINES))
            .fold(failure, |failure, line| {
                failure.hint(format!("its log says: {line}"))
            })
    }
}
