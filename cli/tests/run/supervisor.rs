//! A running `trimtab run`, and what it says.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

/// Killed when dropped.
pub(crate) struct Supervisor {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
    /// Names of the events it told so far.
    pub(crate) events: Vec<String>,
}

/// A command without the settings of whoever runs the tests.
pub(crate) fn trimtab() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trimtab"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("TRIMTAB_") {
            command.env_remove(variable);
        }
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Supervisor {
    /// Starts `command`, which tells events as JSON on stderr.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        Self {
            child,
            lines: BufReader::new(stderr).lines(),
            events: Vec::new(),
        }
    }

    /// Waits until it tells of `name`, and gives the message.
    pub(crate) async fn event(&mut self, name: &str) -> String {
        loop {
            let line = timeout(PATIENCE, self.lines.next_line()).await;
            let line = line.unwrap_or_else(|_| panic!("no {name} after {:?}", self.events));
            let line = line.unwrap();
            let line = line.unwrap_or_else(|| panic!("no {name}, {:?}, the end", self.events));
            if let Some((event, message)) = self.take(&line)
                && event == name
            {
                return message;
            }
        }
    }

    fn take(&mut self, line: &str) -> Option<(String, String)> {
        let told: Value = serde_json::from_str(line).ok()?;
        let event = told["event"].as_str()?.to_owned();
        self.events.push(event.clone());
        Some((event, told["message"].as_str()?.to_owned()))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id().expect("it runs")).unwrap();
        kill_process(Pid::from_raw(id).unwrap(), signal).unwrap();
    }

    /// Signals what the command started, where that is not the supervisor
    /// itself.
    pub(crate) fn signal_child(&self, signal: Signal) {
        let id = self.child.id().expect("it runs");
        let children = format!("/proc/{id}/task/{id}/children");
        let children = std::fs::read_to_string(children).unwrap();
        for child in children.split_whitespace() {
            kill_process(Pid::from_raw(child.parse().unwrap()).unwrap(), signal).unwrap();
        }
    }

    /// Its exit code, once it has ended by itself.
    pub(crate) async fn ended(&mut self) -> i32 {
        let wait = timeout(PATIENCE, async {
            while let Ok(Some(line)) = self.lines.next_line().await {
                self.take(&line);
            }
            self.child.wait().await
        });
        let status = wait.await.expect("it ends").unwrap();
        status.code().expect("by itself")
    }

    /// How often it told of `name` so far.
    pub(crate) fn count(&self, name: &str) -> usize {
        self.events.iter().filter(|event| *event == name).count()
    }
}
