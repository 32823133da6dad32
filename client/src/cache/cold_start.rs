//! A start while the registry is silent: calls follow the view on disk until it speaks.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::cache::codec::Entry;
use crate::cache::directory::Directory;
use crate::convert::taken_from_wire;
use crate::subscription::{Followed, Known, Source};

/// A replica that runs answers well within this; a caller should not wait
/// longer for one that does not.
const REGISTRY_PATIENCE: Duration = Duration::from_millis(500);

/// Waits for the registry's word on a service; when there is none, offers what
/// is on disk. Ends with `stop`.
pub(crate) async fn fall_back(
    directory: Arc<Directory>,
    followed: Arc<Followed>,
    stop: CancellationToken,
) {
    let work = async {
        let mut known = followed.known.subscribe();
        let heard = known.wait_for(|known| !matches!(known, Known::Nothing));
        let heard = timeout(REGISTRY_PATIENCE, heard).await.is_ok();
        if !heard {
            offer(&directory, &followed).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Offers what is on disk, unless something is known by now.
pub(crate) async fn offer(directory: &Arc<Directory>, followed: &Arc<Followed>) {
    let service = Arc::clone(&followed.service);
    let room = Arc::clone(directory);
    let loaded = spawn_blocking(move || room.load(&service)).await;
    let Ok((entry, ignored)) = loaded else {
        return;
    };
    for ignored in ignored {
        tracing::warn!(
            service = %followed.service, file = %ignored.path.display(), why = %ignored.why,
            "a view on disk is not used"
        );
    }
    if let Some(entry) = entry {
        take(followed, &entry);
    }
}

fn take(followed: &Followed, entry: &Entry) {
    let (view, base) = match taken_from_wire(&entry.update()) {
        Ok((view, base)) => (Arc::new(view), base),
        Err(error) => {
            tracing::warn!(service = %followed.service, %error, "a view on disk is not used");
            return;
        }
    };
    let offered = followed.known.send_if_modified(|known| {
        let is_first = matches!(known, Known::Nothing);
        if is_first {
            *known = Known::View {
                view,
                checksum: entry.checksum,
                base,
                source: Source::Disk {
                    cluster: entry.cluster,
                },
            };
        }
        is_first
    });
    if offered {
        tracing::warn!(
            service = %followed.service, revision = entry.revision, age = ?age(entry),
            "no replica answers, calls follow the last view on disk"
        );
    }
}

fn age(entry: &Entry) -> Duration {
    let saved_at = Duration::from_millis(entry.saved_at_ms);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.unwrap_or_default().saturating_sub(saved_at)
}
