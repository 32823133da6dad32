//! A process on a host, which does not outlive the test.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process};

use crate::record::{Event, Record};
use crate::wait::until;

/// Settings of whoever runs the tests, which are not for these processes.
const ENVIRONMENT_PREFIX: &str = "TRIMTAB_";

/// Killed when dropped; told to go, should the test itself be killed, by the
/// end of its stdin.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    record: Record,
    listener: Option<JoinHandle<()>>,
    directory: PathBuf,
}

impl Process {
    /// Starts `command`, and listens to it; what it says on stderr goes to the
    /// end of a file in `directory`.
    ///
    /// # Panics
    /// When it cannot be started.
    pub(crate) fn start(name: &str, mut command: Command, directory: &Path) -> Self {
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with(ENVIRONMENT_PREFIX) {
                command.env_remove(variable);
            }
        }
        let log = directory.join(format!("{name}.log"));
        let log = OpenOptions::new().create(true).append(true).open(log);
        command.stderr(log.expect("a log"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let record = Record::default();
        let listener = child.stdout.take().map(|stdout| {
            let record = record.clone();
            std::thread::spawn(move || record.listen(stdout))
        });
        Process {
            name: name.to_owned(),
            stdin: child.stdin.take(),
            child,
            record,
            listener,
            directory: directory.to_owned(),
        }
    }

    /// What it has told so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.record.events()
    }

    /// The file systems as the process has them.
    pub(crate) fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.child.id()))
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal).expect("it is there");
    }

    /// As when the power fails, but for what the kernel has not written yet.
    pub(crate) fn kill(&mut self) {
        // Nothing to kill when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Says that it is over, waits for the end, and returns all it has told.
    ///
    /// # Panics
    /// When it does not end, or not well.
    pub(crate) fn finish(mut self) -> Vec<Event> {
        self.stdin = None;
        let status = until(&format!("the end of {}", self.name), || self.ended());
        assert!(status.success(), "{} ended with {status}", self.name);
        if let Some(listener) = self.listener.take() {
            listener.join().expect("it listens to the end");
        }
        self.events()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be asked")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if !self.record.events().is_empty() {
            // For whoever looks for the reason; there may be worse than this.
            let _ = self
                .record
                .keep(&self.directory.join(format!("{}.jsonl", self.name)));
        }
    }
}
