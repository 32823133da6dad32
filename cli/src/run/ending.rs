//! How a program ended, and how the supervisor ends because of it.

use std::fmt;
use std::process::ExitCode;
use std::time::Duration;

use crate::failure::{Exit, Failure};
use crate::wait::span;

/// What a shell adds to the number of the signal that ended a program.
const SIGNALLED: u8 = 128;

/// The end of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChildExit {
    Code(u8),
    Signal(u8),
}

/// Why the registry will not have the instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejection {
    /// The group is being torn down.
    Refused(String),
    /// A name, number or address breaks a rule.
    Invalid(String),
}

/// How it all ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// With the program's own end.
    Child(ChildExit),
    /// Its check did not pass in time.
    NotReady(String),
    /// It could not be started.
    NotStarted(String),
    Rejected(Rejection),
}

// === impl ChildExit ===

impl ChildExit {
    pub(crate) fn is_success(self) -> bool {
        self == Self::Code(0)
    }

    /// As a shell gives it.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => SIGNALLED.saturating_add(signal),
        }
    }
}

impl fmt::Display for ChildExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
        }
    }
}

// === impl Ending ===

impl Ending {
    /// After no check had passed `within` the time to start.
    pub(crate) fn not_ready(within: Duration, last_failure: Option<&str>) -> Self {
        let last = last_failure.unwrap_or("none ended");
        let within = span(within);
        Self::NotReady(format!(
            "the check of the program did not pass within {within}: {last}"
        ))
    }

    /// # Errors
    /// Unless it ended as the program did.
    pub(crate) fn conclude(self) -> Result<ExitCode, Failure> {
        match self {
            Self::Child(exit) => Ok(ExitCode::from(exit.code())),
            Self::NotReady(reason) => Err(Failure::new(Exit::NotReadyInTime, reason)),
            Self::NotStarted(reason) => Err(Failure::new(Exit::NotExecutable, reason)),
            Self::Rejected(Rejection::Refused(reason)) => Err(Failure::new(Exit::Refused, reason)),
            Self::Rejected(Rejection::Invalid(reason)) => {
                Err(Failure::new(Exit::InvalidArgument, reason))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exits_are_passed_on_as_shells_do() {
        assert_eq!(ChildExit::Code(7).code(), 7);
        assert_eq!(ChildExit::Signal(15).code(), 143);
        assert_eq!(ChildExit::Signal(9).code(), 137);
        assert!(!ChildExit::Signal(15).is_success());
    }
}
