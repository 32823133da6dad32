//! One snapshot on its way to a peer, in pieces.

use std::time::Duration;

use bytes::Bytes;
use trimtab_proto::internal::v1::install_snapshot_request::Part;
use trimtab_proto::internal::v1::{InstallSnapshotRequest, Message, SnapshotHead};

use super::error::{PeerError, within};
use super::protocol::PROTOCOL;
use super::{Own, Peer};

/// The bytes of one piece.
const CHUNK_BYTES: usize = 1 << 20;

/// How long a snapshot may take, whatever its size, before it counts as lost.
/// Raft sends the peer nothing else meanwhile.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// Sends the snapshot in `message` whole; Ok when the peer has it.
pub(super) async fn send(own: &Own, peer: &Peer, mut message: Message) -> Result<(), PeerError> {
    let data = message
        .snapshot
        .as_mut()
        .map(|snapshot| std::mem::take(&mut snapshot.data))
        .unwrap_or_default();
    let head = SnapshotHead {
        to_replica: peer.id,
        cluster_id: own.cluster_id,
        message: Some(message),
        data_length: data.len() as u64,
        data_checksum: trimtab_proto::checksum(&data),
        protocol: PROTOCOL,
        to_disk: peer.contact.disk_id,
        from_disk: own.contact.disk_id,
    };
    let parts = std::iter::once(Part::Head(head)).chain(chunks(data).map(Part::Chunk));
    let requests = parts.map(|part| InstallSnapshotRequest { part: Some(part) });
    let mut client = peer.calls.clone();
    let call = client.install_snapshot(tokio_stream::iter(requests));
    within(SNAPSHOT_TIMEOUT, peer.id, &peer.contact.address, call).await?;
    Ok(())
}

/// The bytes in pieces that share them.
fn chunks(mut data: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || {
        let length = data.len().min(CHUNK_BYTES);
        (length > 0).then(|| data.split_to(length))
    })
}
