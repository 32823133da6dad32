//! Why a peer did not do what it was asked, and whether it may have all the same.

use std::error::Error as _;
use std::future::Future;
use std::time::Duration;

use tonic::{Code, ConnectError, Response, Status};

use super::protocol::UnknownProtocol;

/// Why a peer could not be asked, or did not answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// There is no such peer.
    #[error("replica {id} is not another member of this cluster")]
    Unknown {
        /// The id asked for.
        id: u64,
    },
    /// An address cannot be one.
    #[error("the address {address:?} of {} is not host:port: {reason}", who(*.id))]
    Address {
        /// The member.
        id: u64,
        /// Its address as configured.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// It speaks another version of the protocol.
    #[error("{} at {address}: {source}", who(*.id))]
    Protocol {
        /// The peer.
        id: u64,
        /// Its address.
        address: String,
        /// Which one.
        source: UnknownProtocol,
    },
    /// There is no Tokio runtime to connect on.
    #[error("peers can only be reached from within a Tokio runtime")]
    NoRuntime,
    /// No connection: the peer never saw the request.
    #[error("{} at {address} cannot be reached: {reason}", who(*.id))]
    NotSent {
        /// The peer.
        id: u64,
        /// Its address.
        address: String,
        /// What the connection attempt met.
        reason: String,
    },
    /// The peer answered with an error.
    #[error("{} at {address} refused: {}", who(*.id), .status.message())]
    Refused {
        /// The peer.
        id: u64,
        /// Its address.
        address: String,
        /// Its answer.
        status: Box<Status>,
    },
    /// The answer was lost or late: the peer may have done it.
    #[error("{} at {address} did not answer: {reason}", who(*.id))]
    Lost {
        /// The peer.
        id: u64,
        /// Its address.
        address: String,
        /// What happened instead.
        reason: String,
    },
}

impl PeerError {
    /// Whether the peer's version does not know what it was asked.
    pub fn is_unimplemented(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if status.code() == Code::Unimplemented)
    }

    /// Whether the peer surely never saw the request.
    pub fn happened_not(&self) -> bool {
        !matches!(self, Self::Refused { .. } | Self::Lost { .. })
    }
}

/// Of one that is asked for its id, only the address is known.
fn who(id: u64) -> String {
    match id {
        0 => "the replica".to_owned(),
        id => format!("replica {id}"),
    }
}

/// Waits for a call's answer, at most `timeout`.
pub(super) async fn within<T>(
    timeout: Duration,
    id: u64,
    address: &str,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, PeerError> {
    match tokio::time::timeout(timeout, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(classify(id, address, status)),
        Err(_) => Err(PeerError::Lost {
            id,
            address: address.to_owned(),
            reason: format!("no answer within {} ms", timeout.as_millis()),
        }),
    }
}

/// What a failed call says about whether the peer saw the request.
pub(super) fn classify(id: u64, address: &str, status: Status) -> PeerError {
    let address = address.to_owned();
    // A status from the peer has no source; one made here names what broke.
    let Some(source) = status.source() else {
        return PeerError::Refused {
            id,
            address,
            status: Box::new(status),
        };
    };
    let mut cause = Some(source);
    let mut reason = source.to_string();
    let mut is_connect = false;
    while let Some(error) = cause {
        is_connect |= error.is::<ConnectError>();
        reason = error.to_string();
        cause = error.source();
    }
    if is_connect {
        PeerError::NotSent {
            id,
            address,
            reason,
        }
    } else {
        PeerError::Lost {
            id,
            address,
            reason,
        }
    }
}
