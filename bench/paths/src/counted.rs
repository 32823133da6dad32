//! The one function whose instructions count.

use std::io::{self, Write};

use crate::Failure;

/// Runs paths one after another, and says which.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    count: u64,
}

impl Counter {
    /// Runs a path `times` times, after having run it once uncounted, so that what is made at the first use is there.
    /// It is told how often it ran before.
    pub(crate) fn path(
        &mut self,
        name: &str,
        times: u64,
        mut path: impl FnMut(u64) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        path(0)?;
        self.count += 1;
        let mut result = Ok(());
        counted(&mut || result = (1..=times).try_for_each(&mut path));
        result?;
        let said = writeln!(io::stdout(), "{}\t{times}\t{name}", self.count);
        said.map_err(|error| Failure(format!("printing: {error}")))
    }
}

/// What is run in here is counted. It stays a function of this name, which the tool is told.
#[inline(never)]
pub(crate) fn counted(run: &mut dyn FnMut()) {
    run();
    // What comes after the call keeps it a call: a jump would leave this function too early.
    std::hint::black_box(());
}
