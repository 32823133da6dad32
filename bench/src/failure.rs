//! Why a measurement could not be made.

use std::io;

use tonic::Status;

/// Why a step of a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// A server said no, or nothing.
    #[error("{doing}: {} ({:?})", .status.message(), .status.code())]
    Call {
        doing: &'static str,
        status: Box<Status>,
    },
    /// A file, socket or process failed.
    #[error("{doing}: {source}")]
    System { doing: String, source: io::Error },
    /// A server's answer is not what the workload is about.
    #[error("{0}")]
    Wrong(String),
    /// It did not come to pass within its time.
    #[error("{0} took longer than {1:?}")]
    Late(String, std::time::Duration),
}

impl Failure {
    /// For `map_err` on a call.
    pub(crate) fn call(doing: &'static str) -> impl FnOnce(Status) -> Self {
        move |status| Self::Call {
            doing,
            status: Box::new(status),
        }
    }

    /// For `map_err` on what the system refused.
    pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source }
    }
}
