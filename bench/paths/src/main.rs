//! Runs each pure path some hundred times, for a tool that counts instructions: no sockets, no disk, no threads.
//!
//! `trimtab-bench instructions` runs it under callgrind, which collects inside
//! of [`counted::counted`] only and writes down what it has at each return
//! from there. The lines printed here say, in the same order, what that was.

mod calls;
mod counted;
mod registry;
mod views;
mod world;

use std::io::{self, Write};
use std::process::ExitCode;

use crate::counted::Counter;

/// Why a path could not be run.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(String);

fn main() -> ExitCode {
    let mut counter = Counter::default();
    let ran = registry::run(&mut counter)
        .and_then(|()| views::run(&mut counter))
        .and_then(|()| calls::run(&mut counter));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody may be there to read it.
            let _unread = writeln!(io::stderr(), "trimtab-paths: {failure}");
            ExitCode::FAILURE
        }
    }
}
