//! What went wrong, told in one line, and the exit code that says so.

use std::io;
use std::process::ExitCode;

use serde_json::json;
use trimtab_client::error::Error;

/// The exit codes, as `trimtab --help` documents them. Scripts depend on the
/// numbers and on the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Whoever read stdout has seen enough.
    ReaderGone = 0,
    Failed = 1,
    Usage = 2,
    InvalidArgument = 3,
    NotFound = 4,
    Refused = 5,
    Unavailable = 6,
    WaitedInVain = 7,
    PromiseBroken = 8,
    NotReadyInTime = 124,
    NotExecutable = 126,
    NoSuchProgram = 127,
}

/// Shown under `trimtab --help`.
pub(crate) const EXIT_CODES_HELP: &str = "\
Exit codes:
  0  done
  1  failed for another reason
  2  the command line cannot be read
  3  invalid argument: the error names field, value and rule
  4  no such service, group, instance or revision
  5  refused by a guard or by --expect-revision; nothing changed
  6  the registry is unavailable
  7  the change is made, but not everyone confirmed it in time
  8  demo: a promise did not hold
run exits with the program's own code, 128 and the signal's number if one ended it; or with
  124  its check did not pass in time
  126  it cannot be executed
  127  there is no such program";

/// One failure on its way to stderr.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hints: Vec<String>,
}

impl Exit {
    fn name(self) -> &'static str {
        match self {
            Self::ReaderGone => "reader_gone",
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::InvalidArgument => "invalid_argument",
            Self::NotFound => "not_found",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::WaitedInVain => "waited_in_vain",
            Self::PromiseBroken => "promise_broken",
            Self::NotReadyInTime => "not_ready_in_time",
            Self::NotExecutable => "not_executable",
            Self::NoSuchProgram => "no_such_program",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            hints: Vec::new(),
        }
    }

    /// Adds what to do about it.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// One line of cause, then one for each hint.
    pub(crate) fn to_text(&self) -> String {
        let mut text = format!("error: {}", self.message);
        for hint in &self.hints {
            text.push_str("\nhint: ");
            text.push_str(hint);
        }
        text
    }

    pub(crate) fn to_json(&self) -> String {
        json!({"error": {
            "code": self.exit.name(),
            "message": self.message,
            "hints": self.hints,
        }})
        .to_string()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (exit, hint) = match &error {
            Error::Invalid(_) => (Exit::InvalidArgument, None),
            Error::NotFound(_) => (
                Exit::NotFound,
                Some(
                    "`trimtab services` lists the services, `trimtab resolve SERVICE` its instances",
                ),
            ),
            Error::Refused(_) => (Exit::Refused, None),
            Error::Unavailable { .. } => (
                Exit::Unavailable,
                Some(
                    "are the replicas up? name them with --endpoints or TRIMTAB_ENDPOINTS; `trimtab cluster status` says how they are",
                ),
            ),
            Error::UnknownOutcome { .. } | Error::Deadline { .. } => (Exit::Unavailable, None),
            _ => (Exit::Failed, None),
        };
        let failure = Self::new(exit, error.to_string());
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_the_registry_have_their_own_exit_codes() {
        let refused = Failure::from(Error::Refused("v42 has 2 ready, 10 needed".into()));
        assert_eq!(refused.exit() as u8, 5);
        assert_eq!(refused.to_text(), "error: v42 has 2 ready, 10 needed");
        assert_eq!(
            refused.to_json(),
            r#"{"error":{"code":"refused","hints":[],"message":"v42 has 2 ready, 10 needed"}}"#
        );
        let lost = Failure::from(Error::UnknownOutcome {
            request: "Shift",
            reason: "broken pipe".into(),
        });
        assert_eq!(lost.exit() as u8, 6);
    }

    #[test]
    fn each_hint_has_its_line() {
        let failure = Failure::new(Exit::Failed, "x").hint("first").hint("second");
        assert_eq!(failure.to_text(), "error: x\nhint: first\nhint: second");
    }
}
