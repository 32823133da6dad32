//! What the supervisor says on stderr: each change of state once.

use std::fmt;
use std::time::Duration;

use crate::run::ending::ChildExit;
use crate::wait::span;

/// Callers named in one line; there can be thousands.
const NAMED_MAX: usize = 5;

/// Why a program is asked to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Why {
    /// SIGTERM or SIGINT.
    Asked,
    /// Its group is being torn down.
    Retired,
    /// Its check did not pass in time.
    NotReady,
    /// The registry will not have it.
    Rejected,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    Started {
        process: u32,
    },
    NotStarted {
        reason: String,
    },
    /// Still not, after a while.
    NotYet {
        reason: String,
    },
    Passed {
        after: Duration,
    },
    Registered,
    Unregistered {
        reason: String,
    },
    Untold {
        reason: String,
    },
    Unready {
        checks: u32,
        reason: String,
    },
    Ready,
    Draining {
        why: Why,
        within: Duration,
    },
    Drained,
    NotDrained {
        reason: String,
    },
    Laggards {
        callers: Vec<String>,
    },
    Hurried,
    Stopping {
        why: Why,
        within: Duration,
    },
    Killed,
    Exited {
        exit: ChildExit,
    },
    Restarting {
        wait: Duration,
        nth: u32,
    },
    GaveUp {
        restarts: u32,
    },
    Deregistered,
    NotDeregistered {
        reason: String,
    },
}

impl Line {
    /// How a drain went: the callers that have not let go, or why nobody knows.
    pub(crate) fn of_drain(result: Result<Vec<String>, String>) -> Self {
        match result {
            Ok(callers) if callers.is_empty() => Self::Drained,
            Ok(callers) => Self::Laggards { callers },
            Err(reason) => Self::NotDrained { reason },
        }
    }

    /// What scripts know it by; stays as it is.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::NotStarted { .. } => "not_started",
            Self::NotYet { .. } => "not_yet",
            Self::Passed { .. } => "passed",
            Self::Registered => "registered",
            Self::Unregistered { .. } => "unregistered",
            Self::Untold { .. } => "untold",
            Self::Unready { .. } => "unready",
            Self::Ready => "ready",
            Self::Draining { .. } => "draining",
            Self::Drained => "drained",
            Self::NotDrained { .. } => "not_drained",
            Self::Laggards { .. } => "laggards",
            Self::Hurried => "hurried",
            Self::Stopping { .. } => "stopping",
            Self::Killed => "killed",
            Self::Exited { .. } => "exited",
            Self::Restarting { .. } => "restarting",
            Self::GaveUp { .. } => "gave_up",
            Self::Deregistered => "deregistered",
            Self::NotDeregistered { .. } => "not_deregistered",
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { process } => write!(f, "started as process {process}"),
            Self::NotStarted { reason } => write!(f, "not started: {reason}"),
            Self::NotYet { reason } => write!(f, "its check has not passed yet: {reason}"),
            Self::Passed { after } => write!(f, "its check passed after {}", span(*after)),
            Self::Registered => write!(f, "registered"),
            Self::Unregistered { reason } => write!(f, "not registered, trying on: {reason}"),
            Self::Untold { reason } => {
                write!(f, "its status could not be told, trying on: {reason}")
            }
            Self::Unready { checks, reason } => write!(
                f,
                "unready, callers are told to leave it alone: {checks} checks failed, the last: {reason}"
            ),
            Self::Ready => write!(f, "ready again"),
            Self::Draining { why, within } => {
                write!(f, "{why}: draining, at most {}", span(*within))
            }
            Self::Drained => write!(f, "drained: every caller has let go of it"),
            Self::NotDrained { reason } => write!(f, "not drained: {reason}"),
            Self::Laggards { callers } => write!(
                f,
                "not drained, these callers had not let go of it: {}",
                named(callers)
            ),
            Self::Hurried => write!(f, "asked again: not waiting any more"),
            Self::Stopping { why, within } => {
                write!(f, "{why}: asking it to end, killed after {}", span(*within))
            }
            Self::Killed => write!(f, "it did not end when asked: killing it"),
            Self::Exited { exit } => write!(f, "it {exit}"),
            Self::Restarting { wait, nth } => {
                write!(f, "restart {nth} in {}", span(*wait))
            }
            Self::GaveUp { restarts } => {
                write!(f, "giving up after {restarts} restarts in a row")
            }
            Self::Deregistered => write!(f, "deregistered"),
            Self::NotDeregistered { reason } => {
                write!(f, "not deregistered, the lease ends by itself: {reason}")
            }
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Asked => "asked to stop",
            Self::Retired => "its group is being torn down",
            Self::NotReady => "its check did not pass in time",
            Self::Rejected => "the registry will not have it",
        })
    }
}

fn named(callers: &[String]) -> String {
    let shown: Vec<&str> = callers.iter().take(NAMED_MAX).map(String::as_str).collect();
    match callers.len().saturating_sub(NAMED_MAX) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_laggards_are_counted() {
        let callers: Vec<String> = (1..=7).map(|n| format!("c{n}")).collect();
        assert_eq!(named(&callers[..2]), "c1, c2");
        assert_eq!(named(&callers), "c1, c2, c3, c4, c5 and 2 more");
    }
}
