//! A snapshot file streamed to an operator, while writes go on.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::Status;
use trimtab_proto::Checksum;
use trimtab_proto::v1::save_snapshot_response::Part;
use trimtab_proto::v1::{SaveSnapshotRequest, SaveSnapshotResponse, SnapshotEnd};
use trimtab_registry::state::Registry;

use super::context::Context;
use super::status::of_propose_error;
use crate::backup::format;
use crate::backup::header::{Header, Source};
use crate::consensus::entry::{EntryError, encode_state};
use crate::consensus::membership::Membership;

/// Snapshots sent at a time: each holds the whole state in memory once more.
pub(super) const SAVES_MAX: usize = 2;

/// How long to look for a quorum on behalf of someone who would do without.
/// He is cut off from one, most likely.
const QUORUM_PATIENCE: Duration = Duration::from_secs(1);

/// The stream of one file.
pub(super) type SnapshotStream =
    Pin<Box<dyn Stream<Item = Result<SaveSnapshotResponse, Status>> + Send>>;

/// Takes the state at a point that is no earlier than the request, and hands
/// it out. Only pointers are copied on the consensus thread; what is encoded
/// does not change any more.
pub(super) async fn save(
    context: &Context,
    saves: &Arc<Semaphore>,
    request: SaveSnapshotRequest,
) -> Result<SnapshotStream, Status> {
    let permit = Arc::clone(saves).try_acquire_owned().map_err(|_| {
        Status::resource_exhausted(format!(
            "replica {} is sending {SAVES_MAX} snapshots already; ask another replica, or again later",
            context.id
        ))
    })?;
    let source = confirm(context, request.allow_stale).await?;
    let registry = context.handle.query(Registry::clone).await;
    let registry = registry.map_err(of_propose_error)?;
    let members = Arc::clone(&context.handle.status().borrow().members);
    let header = Header {
        cluster_id: context.handle.cluster_id(),
        applied: registry.applied(),
        members: members.membership.addresses(),
        saved_at_ms: context.now_ms(),
        saved_by: context.id,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        source,
    };
    let encoded = async move {
        let parts = spawn_blocking(move || encode(&header, &members.membership, &registry)).await;
        let parts = parts.map_err(|error| Status::internal(error.to_string()))?;
        let parts = parts.map_err(|error| Status::internal(error.to_string()))?;
        Ok::<_, Status>(hand_out(parts, permit))
    };
    Ok(Box::pin(stream::once(encoded).try_flatten()))
}

/// Whether a quorum confirms that the state misses nothing.
async fn confirm(context: &Context, allow_stale: bool) -> Result<Source, Status> {
    if !allow_stale {
        let barrier = context.handle.read_barrier().await;
        return barrier.map(|_| Source::Quorum).map_err(of_propose_error);
    }
    if context.possibly_stale() {
        return Ok(Source::Replica);
    }
    match timeout(QUORUM_PATIENCE, context.handle.read_barrier()).await {
        Ok(Ok(_)) => Ok(Source::Quorum),
        Ok(Err(_)) | Err(_) => Ok(Source::Replica),
    }
}

fn encode(
    header: &Header,
    membership: &Membership,
    registry: &Registry,
) -> Result<Vec<Bytes>, EntryError> {
    let state = encode_state(membership, registry)?;
    Ok(format::encode(header, state))
}

/// The pieces in order, then what they must come to. The permit is held until
/// the last one is taken, or the asker is gone.
fn hand_out(
    parts: Vec<Bytes>,
    permit: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<SaveSnapshotResponse, Status>> + Send {
    let mut end = SnapshotEnd::default();
    let mut checksum = Checksum::default();
    for part in &parts {
        end.length += part.len() as u64;
        checksum.update(part);
    }
    end.checksum = checksum.finish();
    let chunks = parts.into_iter().map(Part::Chunk);
    stream::iter(chunks.chain([Part::End(end)])).map(move |part| {
        let _held = &permit;
        Ok(SaveSnapshotResponse { part: Some(part) })
    })
}
