//! The moment between the supervisor and its program: makes sure that the program does not outlive it.
//!
//! Linux can send a process a signal when its parent dies, but each process
//! must ask for it itself, and Rust has no safe way to run code between fork
//! and exec. So the supervisor starts this binary again, which asks, and then
//! becomes the program: same process id, same files, nothing left of it.

use std::convert::Infallible;
use std::env::{self, ArgsOs};
use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use crate::failure::Exit;

/// Not a verb: neither help nor completions know it.
const NAME: &str = "run-guarded";

/// This binary, even when its file has been replaced since.
const MYSELF: &str = "/proc/self/exe";

/// A command that becomes `program` and dies with this process. It must be
/// started by a thread that lives as long as the process does: for Linux, the
/// thread is the parent.
pub(super) fn command(program: &OsStr, name: &OsStr) -> Command {
    let mut command = Command::new(MYSELF);
    let parent = getpid().as_raw_nonzero().to_string();
    command.args([OsStr::new(NAME), OsStr::new(&parent), program, name]);
    command
}

/// Has this process been started by [`command`]?
pub(crate) fn is_asked_for() -> bool {
    env::args_os().nth(1).is_some_and(|verb| verb == NAME)
}

/// Becomes the program; returns only when it cannot.
pub(crate) fn become_program() -> ExitCode {
    let mut arguments = env::args_os();
    let Err(error) = exec(&mut arguments);
    let reason = format!("error: cannot run the program: {error}\n");
    // There is nowhere left to report that stderr cannot be written.
    let _ = io::stderr().write_all(reason.as_bytes());
    Exit::NotExecutable.into()
}

fn exec(arguments: &mut ArgsOs) -> io::Result<Infallible> {
    let mut next = || arguments.next().ok_or(io::ErrorKind::InvalidInput);
    let (_, _, parent) = (next()?, next()?, next()?);
    let (program, name) = (next()?, next()?);
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have died before that was asked for.
    let parent = parent.to_str().and_then(|parent| parent.parse().ok());
    if getppid() != parent.and_then(Pid::from_raw) {
        return Err(io::Error::other("the supervisor has died"));
    }
    Err(Command::new(program).arg0(name).args(arguments).exec())
}
