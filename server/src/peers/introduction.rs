//! Asking a replica who it is, before one can know.

use std::time::Duration;

use tonic::transport::Channel;
use trimtab_proto::internal::v1::peer_client::PeerClient;
use trimtab_proto::internal::v1::{IntroduceRequest, IntroduceResponse};

use super::error::{PeerError, within};
use super::protocol::{self, PROTOCOL};
use super::{client, endpoint};

/// How long a replica may take to say who it is. More than a connection may.
const INTRODUCE_TIMEOUT: Duration = Duration::from_millis(1_500);

/// Asks whoever is at an address who it is, as the replica `own` with data
/// directory `own_disk`. `id` is whom one expects there, for messages; 0 when
/// one does not know. Must be called within a Tokio runtime.
///
/// # Errors
///
/// When the address is not one, no replica answers there, or it speaks another
/// version.
pub async fn introduce_at(
    address: &str,
    id: u64,
    own: u64,
    own_disk: u64,
) -> Result<IntroduceResponse, PeerError> {
    let channel = endpoint(id, address)?.connect_lazy();
    introduce(client(channel), id, address, own, own_disk).await
}

pub(super) async fn introduce(
    mut client: PeerClient<Channel>,
    id: u64,
    address: &str,
    own: u64,
    own_disk: u64,
) -> Result<IntroduceResponse, PeerError> {
    let call = client.introduce(IntroduceRequest {
        protocol: PROTOCOL,
        replica_id: own,
        disk_id: own_disk,
    });
    let answer = within(INTRODUCE_TIMEOUT, id, address, call).await?;
    protocol::check(answer.protocol).map_err(|source| PeerError::Protocol {
        id,
        address: address.to_owned(),
        source,
    })?;
    Ok(answer)
}
