//! The supervised program as a process: found, started, signalled and reaped.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Access, access};
use rustix::process::{
    Pid, Signal, WaitOptions, WaitStatus, kill_process, kill_process_group, wait,
};

use crate::failure::{Exit, Failure};
use crate::run::ending::ChildExit;

/// How the program is started, each time.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(&'static str, String)>,
}

/// The process, until it is reaped: so long its id is nobody else's.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process {
    id: Pid,
}

// === impl Program ===

impl Program {
    /// Looks for the program as a shell does.
    ///
    /// # Errors
    /// When there is none, or it may not be executed; the exit code tells
    /// which, as a shell's does.
    pub(crate) fn find(
        command: &[OsString],
        environment: Vec<(&'static str, String)>,
    ) -> Result<Self, Failure> {
        let Some((name, arguments)) = command.split_first() else {
            return Err(Failure::new(Exit::Usage, "no program is named"));
        };
        Ok(Self {
            path: find(name)?,
            name: name.clone(),
            arguments: arguments.to_vec(),
            environment,
        })
    }

    /// Starts it in a process group of its own: Ctrl-C is for the supervisor,
    /// which lets callers go first.
    ///
    /// # Errors
    /// When the system does not let it.
    pub(crate) fn start(&self) -> io::Result<Process> {
        let child = self.command().process_group(0).spawn()?;
        // Reaped by `reap`, together with what nobody else reaps.
        let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let id = id.ok_or_else(|| io::Error::other("it has no process id"))?;
        Ok(Process { id })
    }

    fn command(&self) -> Command {
        let mut command = self.bare_command();
        command.args(&self.arguments);
        for (variable, value) in &self.environment {
            command.env(variable, value);
        }
        command
    }

    #[cfg(target_os = "linux")]
    fn bare_command(&self) -> Command {
        crate::run::guard::command(self.path.as_os_str(), &self.name)
    }

    /// Nothing ends the program when the supervisor is killed.
    #[cfg(not(target_os = "linux"))]
    fn bare_command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name);
        command
    }
}

fn find(name: &OsStr) -> Result<PathBuf, Failure> {
    let as_path = Path::new(name);
    let candidates: Vec<PathBuf> = if name.as_encoded_bytes().contains(&b'/') {
        vec![as_path.to_owned()]
    } else {
        let path = env::var_os("PATH").unwrap_or_default();
        env::split_paths(&path)
            .map(|directory| directory.join(as_path))
            .collect()
    };
    let mut found = candidates.into_iter().filter(|path| path.is_file());
    let first = found.next().ok_or_else(|| {
        let message = format!("there is no program {}", as_path.display());
        Failure::new(Exit::NoSuchProgram, message)
    })?;
    let refused = format!("{} may not be executed", first.display());
    std::iter::once(first)
        .chain(found)
        .find(|path| access(path, Access::EXEC_OK).is_ok())
        .ok_or_else(|| Failure::new(Exit::NotExecutable, refused))
}

// === impl Process ===

impl Process {
    pub(crate) fn id(self) -> u32 {
        self.id.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends the program itself a signal.
    pub(crate) fn signal(self, signal: Signal) {
        // It can only have ended already.
        let _ = kill_process(self.id, signal);
    }

    /// Kills it and whatever it started that is still in its process group.
    pub(crate) fn kill(self) {
        let _ = kill_process_group(self.id, Signal::KILL);
    }
}

/// Reaps every process that has ended: the program, and, for process 1 of a
/// container, the orphans that the system hands it. How the program ended, once
/// it has; what it started in its process group does not outlive it.
pub(crate) fn reap(program: Option<Process>) -> Option<ChildExit> {
    let mut ended = None;
    // Until nobody is left who has ended, or nobody at all.
    while let Ok(Some((id, status))) = wait(WaitOptions::NOHANG) {
        if let Some(program) = program.filter(|program| program.id == id) {
            // As long as anybody is in the group its id is nobody else's.
            program.kill();
            ended = exit(status);
        }
    }
    ended
}

fn exit(status: WaitStatus) -> Option<ChildExit> {
    let byte = |number: i32| u8::try_from(number).unwrap_or(u8::MAX);
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some(ChildExit::Code(byte(code))),
        (None, Some(signal)) => Some(ChildExit::Signal(byte(signal))),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_looked_for_as_a_shell_does() {
        let found = |name: &str| find(OsStr::new(name)).map_err(|failure| failure.exit());
        assert!(found("sh").unwrap().ends_with("sh"));
        assert_eq!(found("/bin/sh"), Ok(PathBuf::from("/bin/sh")));
        assert_eq!(found("no-such-program"), Err(Exit::NoSuchProgram));
        assert_eq!(found("/no/such/program"), Err(Exit::NoSuchProgram));
        assert_eq!(found("/"), Err(Exit::NoSuchProgram));
        let directory = tempfile::tempdir().unwrap();
        let text = directory.path().join("text");
        std::fs::write(&text, "not a program").unwrap();
        assert_eq!(found(text.to_str().unwrap()), Err(Exit::NotExecutable));
    }
}
