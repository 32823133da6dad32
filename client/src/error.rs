//! What can go wrong between a process and the registry, or between a caller and its instances.

use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};

/// Why a request to the registry, or a call to a service, was not carried out.
///
/// Match on the variant, print the message: it says what was wrong, with which
/// value, and where there is one, what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name, number or address breaks a rule. Nothing changed; asking again
    /// will not help.
    #[error("{0}")]
    Invalid(String),

    /// The service, instance or revision asked for is not registered.
    #[error("{0}")]
    NotFound(String),

    /// A guard or an expected revision said no. Nothing changed. The message
    /// carries the numbers.
    #[error("{0}")]
    Refused(String),

    /// No replica could take the request. Nothing changed.
    #[error(
        "the registry is unavailable: {request} failed on every replica within {after:.1?}{tried}"
    )]
    Unavailable {
        /// What was asked.
        request: &'static str,
        /// How long replicas were tried.
        after: Duration,
        /// The last thing each replica said.
        tried: Tried,
    },

    /// The request was sent and no answer came: it may have been carried out.
    /// Look before asking again.
    #[error("the outcome of {request} is unknown, it may have been carried out: {reason}")]
    UnknownOutcome {
        /// What was asked.
        request: &'static str,
        /// Why there is no answer.
        reason: String,
    },

    /// No instance of the service can take a call.
    #[error(
        "no instance of {service} can be reached: {known} known, none connected{}",
        last_error.as_ref().map(|error| format!("; the last error was: {error}")).unwrap_or_default()
    )]
    NoInstance {
        /// The service called.
        service: String,
        /// How many instances the last view has that take new calls.
        known: usize,
        /// The newest reason a connection could not be made.
        last_error: Option<String>,
    },

    /// The connection to the instance broke after the call was sent.
    #[error("the call to {address} ({service}) broke off: {reason}")]
    Broken {
        /// The service called.
        service: String,
        /// Where the instance is.
        address: String,
        /// What the transport said.
        reason: String,
    },

    /// The time given was over first.
    #[error("{waiting_for} took longer than {after:.1?}")]
    Deadline {
        /// What was waited for.
        waiting_for: String,
        /// The time given.
        after: Duration,
    },

    /// The registry sent something that cannot be read.
    #[error("the registry sent a malformed {0}")]
    Malformed(String),

    /// The client was dropped while something waited for it.
    #[error("the client was closed")]
    Closed,

    /// Any other answer of the registry.
    #[error("{} ({:?})", .0.message(), .0.code())]
    Other(Box<Status>),
}

/// The last word of each replica that was tried, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tried(pub Vec<Attempt>);

/// What one replica said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The endpoint as it was configured.
    pub endpoint: String,
    /// Its answer, or why there was none.
    pub said: String,
}

// === impl Error ===

impl Error {
    /// Sorts a replica's answer to `request` into the variants a caller can
    /// act on.
    pub fn from_status(request: &'static str, status: Status) -> Self {
        let message = status.message().to_owned();
        match status.code() {
            Code::InvalidArgument | Code::OutOfRange => Self::Invalid(message),
            Code::NotFound => Self::NotFound(message),
            Code::FailedPrecondition => Self::Refused(message),
            Code::Aborted | Code::Unknown => Self::UnknownOutcome {
                request,
                reason: message,
            },
            _ => Self::Other(Box::new(status)),
        }
    }

    /// Whether the same request can succeed later without anyone's doing.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. }
            | Self::UnknownOutcome { .. }
            | Self::NoInstance { .. }
            | Self::Broken { .. }
            | Self::Deadline { .. } => true,
            Self::Other(status) => matches!(
                status.code(),
                Code::ResourceExhausted | Code::Cancelled | Code::DeadlineExceeded
            ),
            _ => false,
        }
    }
}

/// What a tonic client makes of it, so that code written for a channel sees
/// the codes it knows.
impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let code = match &error {
            Error::Invalid(_) => Code::InvalidArgument,
            Error::NotFound(_) => Code::NotFound,
            Error::Refused(_) => Code::FailedPrecondition,
            Error::Unavailable { .. } | Error::NoInstance { .. } | Error::Broken { .. } => {
                Code::Unavailable
            }
            Error::UnknownOutcome { .. } => Code::Unknown,
            Error::Deadline { .. } => Code::DeadlineExceeded,
            Error::Malformed(_) => Code::Internal,
            Error::Closed => Code::Cancelled,
            Error::Other(status) => status.code(),
        };
        let mut status = Status::new(code, error.to_string());
        status.set_source(std::sync::Arc::new(error));
        status
    }
}

// === impl Tried ===

impl fmt::Display for Tried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, attempt) in self.0.iter().enumerate() {
            let separator = if position == 0 { " (" } else { "; " };
            write!(f, "{separator}{}: {}", attempt.endpoint, attempt.said)?;
        }
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, ")")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unavailable_registry_names_each_replica_and_what_it_said() {
        let error = Error::Unavailable {
            request: "Shift",
            after: Duration::from_millis(5_000),
            tried: Tried(vec![
                Attempt {
                    endpoint: "127.0.0.1:7070".into(),
                    said: "connection refused".into(),
                },
                Attempt {
                    endpoint: "127.0.0.1:7071".into(),
                    said: "no quorum".into(),
                },
            ]),
        };
        assert_eq!(
            error.to_string(),
            "the registry is unavailable: Shift failed on every replica within 5.0s \
             (127.0.0.1:7070: connection refused; 127.0.0.1:7071: no quorum)"
        );
        assert!(error.is_transient());
        assert_eq!(Status::from(error).code(), Code::Unavailable);
    }

    #[test]
    fn statuses_sort_into_what_a_caller_can_act_on() {
        let sorted = |status| Error::from_status("Shift", status);
        assert!(matches!(
            sorted(Status::invalid_argument("x")),
            Error::Invalid(_)
        ));
        assert!(matches!(sorted(Status::not_found("x")), Error::NotFound(_)));
        assert!(matches!(
            sorted(Status::failed_precondition("x")),
            Error::Refused(_)
        ));
        assert!(matches!(
            sorted(Status::aborted("x")),
            Error::UnknownOutcome { .. }
        ));
        assert!(matches!(sorted(Status::data_loss("x")), Error::Other(_)));
    }
}
