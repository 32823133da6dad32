//! A forwarded proposal's failure, carried between replicas so that nothing is guessed.
//!
//! A status code alone does not say whether the leader took the proposal. So
//! its answer says in one metadata entry which of our errors it was; without
//! one, the proposal counts as taken unless the code rules it out.

use tonic::{Code, Status};

use super::error::ProposeError;
use crate::peers::error::PeerError;

/// The metadata entry that names the error.
const KEY: &str = "trimtab-propose-error";

const NOT_LEADER: &str = "not-leader";
const UNAVAILABLE: &str = "unavailable";
const UNKNOWN: &str = "unknown";
const OVERLOADED: &str = "overloaded";
const REFUSED: &str = "refused";

/// What to do after a forwarded proposal failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// Nothing was done, and another leader, or the same one later, may do it.
    Again(String),
    /// It is over.
    Over(ProposeError),
}

/// The answer of the internal `Propose` call to a proposal that has no result.
pub fn to_status(error: &ProposeError) -> Status {
    let (code, name) = match error {
        ProposeError::NotLeader { .. } => (Code::Unavailable, NOT_LEADER),
        ProposeError::Unavailable { .. }
        | ProposeError::Halted { .. }
        | ProposeError::Stopped { .. } => (Code::Unavailable, UNAVAILABLE),
        ProposeError::Unknown { .. } => (Code::Aborted, UNKNOWN),
        ProposeError::Overloaded { .. } => (Code::ResourceExhausted, OVERLOADED),
        ProposeError::TooLarge { .. }
        | ProposeError::TooMany { .. }
        | ProposeError::Unreadable(_) => (Code::InvalidArgument, REFUSED),
        // A rejection is a result, and changes of members do not come this way;
        // this keeps the match whole.
        ProposeError::Rejected(_) | ProposeError::Members(_) => (Code::FailedPrecondition, REFUSED),
    };
    let mut status = Status::new(code, error.to_string());
    status
        .metadata_mut()
        .insert(KEY, tonic::metadata::MetadataValue::from_static(name));
    status
}

/// Whether it says that a proposal was taken, and what became of it is not
/// known.
pub(super) fn is_not_known(error: &ProposeError) -> bool {
    matches!(error, ProposeError::Unknown { .. })
}

/// What a failed forward means for the one who asked.
pub(super) fn judge(error: PeerError) -> Failed {
    let reason = error.to_string();
    let PeerError::Refused { status, .. } = error else {
        return match error.happened_not() {
            true => Failed::Again(reason),
            false => Failed::Over(ProposeError::Unknown { reason }),
        };
    };
    let name = status
        .metadata()
        .get(KEY)
        .and_then(|value| value.to_str().ok());
    match name {
        Some(NOT_LEADER | UNAVAILABLE) => Failed::Again(reason),
        Some(OVERLOADED) => Failed::Over(ProposeError::Overloaded { reason }),
        Some(REFUSED) => Failed::Over(ProposeError::Unavailable { reason }),
        Some(_) => Failed::Over(ProposeError::Unknown { reason }),
        None if rules_it_out(status.code()) => Failed::Again(reason),
        None => Failed::Over(ProposeError::Unknown { reason }),
    }
}

/// Codes with which a call is refused before anything is done: another
/// cluster, another version.
fn rules_it_out(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::PermissionDenied
            | Code::Unauthenticated
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(status: Status) -> Failed {
        judge(PeerError::Refused {
            id: 2,
            address: "127.0.0.1:1".to_owned(),
            status: Box::new(status),
        })
    }

    #[test]
    fn only_what_surely_did_not_happen_is_tried_again() {
        let reason = || "because".to_owned();
        let again = [
            ProposeError::NotLeader { leader: None },
            ProposeError::Unavailable { reason: reason() },
            ProposeError::Halted { reason: reason() },
            ProposeError::Stopped { reason: reason() },
        ];
        for error in again {
            let failed = forwarded(to_status(&error));
            assert!(matches!(failed, Failed::Again(_)), "{error:?}: {failed:?}");
        }
        let unknown = to_status(&ProposeError::Unknown { reason: reason() });
        for status in [unknown, Status::internal("?"), Status::unavailable("?")] {
            let failed = forwarded(status);
            let Failed::Over(ProposeError::Unknown { .. }) = failed else {
                panic!("{failed:?}");
            };
        }
        let overloaded = to_status(&ProposeError::Overloaded { reason: reason() });
        assert!(matches!(
            forwarded(overloaded),
            Failed::Over(ProposeError::Overloaded { .. })
        ));
        let other_cluster = Status::failed_precondition("another cluster");
        assert!(matches!(forwarded(other_cluster), Failed::Again(_)));
    }

    #[test]
    fn a_lost_answer_is_unknown_and_a_failed_connection_is_not() {
        let lost = PeerError::Lost {
            id: 2,
            address: "a".to_owned(),
            reason: "reset".to_owned(),
        };
        assert!(matches!(
            judge(lost),
            Failed::Over(ProposeError::Unknown { .. })
        ));
        let not_sent = PeerError::NotSent {
            id: 2,
            address: "a".to_owned(),
            reason: "refused".to_owned(),
        };
        assert!(matches!(judge(not_sent), Failed::Again(_)));
    }
}
