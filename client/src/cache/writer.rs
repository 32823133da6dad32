//! Brings views to disk, off the way of calls, and not too often.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_blocking;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use trimtab_proto::v1 as wire;

use crate::cache::codec::Entry;
use crate::cache::directory::Directory;
use crate::cache::unsaved::{News, Unsaved};
use crate::delta::update_of;

/// The first views of a process arrive together.
const GATHER: Duration = Duration::from_millis(20);

/// A service whose view changes all the time is written this often. What a
/// process that starts from an older one misses, its connections tell it.
const ROUND_EVERY: Duration = Duration::from_secs(5);

/// Runs until `stop`. A round under way then ends by itself: each file is
/// whole at any moment.
pub(crate) async fn write(
    directory: Arc<Directory>,
    unsaved: Arc<Unsaved>,
    stop: CancellationToken,
) {
    let work = async {
        let mut trouble = None;
        loop {
            unsaved.changed.notified().await;
            sleep(GATHER).await;
            let news = unsaved.take();
            if news.is_empty() {
                continue;
            }
            let room = Arc::clone(&directory);
            let written = spawn_blocking(move || write_round(&room, &news)).await;
            let failed = match written {
                Ok(failed) => failed,
                Err(error) => Some(format!("the writer ended: {error}")),
            };
            report(&directory, &mut trouble, failed);
            sleep(ROUND_EVERY).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

/// Writes each; the first failure in words. The others are tried all the same.
fn write_round(directory: &Directory, news: &BTreeMap<Arc<str>, News>) -> Option<String> {
    let mut failed = None;
    for (service, news) in news {
        if let Err(error) = write_one(directory, service, news) {
            failed.get_or_insert_with(|| format!("{service}: {error}"));
        }
    }
    failed
}

fn write_one(directory: &Directory, service: &str, news: &News) -> io::Result<()> {
    match news {
        News::Absent(cluster) => directory.remove(service, *cluster),
        News::View(cluster, update) => write_view(directory, *cluster, update.clone()),
        News::Parts(cluster, view, base) => write_view(directory, *cluster, update_of(view, base)),
    }
}

fn write_view(directory: &Directory, cluster: u64, update: wire::ViewUpdate) -> io::Result<()> {
    directory.store(&Entry {
        cluster,
        endpoints: directory.endpoints().to_vec(),
        saved_at_ms: now_ms(),
        service: update.service,
        revision: update.revision,
        checksum: update.checksum,
        view: update.view,
    })
}

/// Once for each change of what is wrong.
fn report(directory: &Directory, trouble: &mut Option<String>, failed: Option<String>) {
    if *trouble == failed {
        return;
    }
    let path = directory.path().display();
    match &failed {
        Some(error) => tracing::warn!(
            %path, %error,
            "views cannot be kept on disk; calls go on, a start without the registry would fail"
        ),
        None => tracing::info!(%path, "views are kept on disk again"),
    }
    *trouble = failed;
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
