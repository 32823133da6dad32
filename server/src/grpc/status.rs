//! The one table from what went wrong inside to what a caller is told.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use trimtab_registry::outcome::Outcome;
use trimtab_registry::rejection::{Invalid, Rejection};

use crate::consensus::change::{ChangeError, HandOverError};
use crate::consensus::error::{DeliverError, ProposeError};
use crate::consensus::transfer::TransferError;

/// When a request that was not taken for want of room may be made again: the
/// trailer that gRPC has for it, which stock clients with retries obey too.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What waits when a replica takes no more is done well within this.
const RETRY_AFTER_MS: &str = "200";

/// A value that breaks a rule.
pub(crate) fn of_invalid(invalid: Invalid) -> Status {
    Status::invalid_argument(invalid.to_string())
}

/// A command that changed nothing.
pub(crate) fn of_rejection(rejection: Rejection) -> Status {
    let code = match &rejection {
        Rejection::Invalid(_) => Code::InvalidArgument,
        Rejection::NotFound(_) => Code::NotFound,
        Rejection::Full { .. } => Code::ResourceExhausted,
        Rejection::RevisionMismatch { .. }
        | Rejection::TooFewReady(_)
        | Rejection::NothingToShareWith { .. }
        | Rejection::GroupRetiring { .. }
        | Rejection::GroupHasWeight { .. }
        | Rejection::NoEarlierRoute { .. }
        | Rejection::NotInHistory { .. }
        | Rejection::GroupGone { .. }
        | Rejection::RequestIdReused { .. } => Code::FailedPrecondition,
    };
    Status::new(code, rejection.to_string())
}

/// A command that could not be carried out, or whose fate is unknown.
pub(crate) fn of_propose_error(error: ProposeError) -> Status {
    let code = match &error {
        ProposeError::Rejected(rejection) => return of_rejection(rejection.clone()),
        ProposeError::NotLeader { .. }
        | ProposeError::Unavailable { .. }
        | ProposeError::Halted { .. }
        | ProposeError::Stopped { .. } => Code::Unavailable,
        // Not UNAVAILABLE: who repeats it must know that it may have happened.
        ProposeError::Unknown { .. } => Code::Unknown,
        ProposeError::Overloaded { .. } => Code::ResourceExhausted,
        ProposeError::TooLarge { .. } | ProposeError::TooMany { .. } => Code::InvalidArgument,
        ProposeError::Unreadable(_) => Code::Internal,
        ProposeError::Members(refused) => of_change_error(refused),
    };
    let mut status = Status::new(code, error.to_string());
    if matches!(error, ProposeError::Overloaded { .. }) {
        let after = MetadataValue::from_static(RETRY_AFTER_MS);
        status.metadata_mut().insert(PUSHBACK, after);
    }
    status
}

fn of_change_error(error: &ChangeError) -> Code {
    match error {
        ChangeError::NotLeader => Code::Unavailable,
        ChangeError::Full | ChangeError::TooMany { .. } => Code::ResourceExhausted,
        ChangeError::Invalid(_) => Code::InvalidArgument,
        ChangeError::NotAMember { .. } => Code::NotFound,
        ChangeError::InProgress
        | ChangeError::OtherDisk { .. }
        | ChangeError::DiskTaken { .. }
        | ChangeError::DiskRemoved { .. }
        | ChangeError::AddressTaken { .. }
        | ChangeError::VotesAlready { .. }
        | ChangeError::NotAVoter { .. }
        | ChangeError::Behind { .. }
        | ChangeError::NotHeard { .. }
        | ChangeError::LastVoter { .. }
        | ChangeError::Leads { .. }
        | ChangeError::LosesQuorum { .. } => Code::FailedPrecondition,
    }
}

/// Leadership that stays where it is.
pub(crate) fn of_hand_over_error(error: &HandOverError) -> Status {
    let code = match error {
        HandOverError::NotLeader => Code::Unavailable,
        HandOverError::NotAVoter { .. }
        | HandOverError::NoSuccessor
        | HandOverError::NotTaken { .. } => Code::FailedPrecondition,
    };
    Status::new(code, error.to_string())
}

/// A peer's messages that were not taken.
pub(crate) fn of_deliver_error(error: DeliverError) -> Status {
    let code = match &error {
        DeliverError::Refused(_) => Code::InvalidArgument,
        DeliverError::Full => Code::ResourceExhausted,
        DeliverError::Stopped { .. } => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

/// A peer's snapshot that was not whole.
pub(crate) fn of_transfer_error(error: TransferError) -> Status {
    Status::invalid_argument(error.to_string())
}

/// The log answered a command with the outcome of another: a defect of ours.
pub(crate) fn unexpected_outcome(outcome: &Outcome) -> Status {
    Status::internal(format!(
        "unexpected outcome {outcome:?}; please report this"
    ))
}
