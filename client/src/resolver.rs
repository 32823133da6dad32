//! Follows views on one stream to one replica, and stays with the last view when there is none.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::cluster::Cluster;
use crate::subscription::Subscriptions;
use crate::watch_stream::{Ended, WatchStream};
use crate::watcher::Watcher;

/// The first wait spreads the watchers of a replica that went away over a
/// moment; the last is how late they notice that the registry is back.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
const RECONNECT_MOST: Duration = Duration::from_secs(2);

/// Runs until `stop`. There is no stream while no service is followed.
pub(crate) async fn resolve(
    cluster: Cluster,
    watcher: Watcher,
    subscriptions: Arc<Subscriptions>,
    stop: CancellationToken,
) {
    let mut backoff = Backoff::new(RECONNECT_FIRST, RECONNECT_MOST);
    // Replicas in a row that were cut off from a leader. When all are, the
    // quorum is lost, and what they know is the newest there is.
    let mut stale = 0;
    let work = async {
        loop {
            while subscriptions.all().is_empty() {
                subscriptions.changed.notified().await;
            }
            let (position, channel) = cluster.channel();
            let replica = cluster.endpoint_at(position).to_owned();
            let takes_stale = stale + 1 >= cluster.len();
            let mut stream = WatchStream::new(&watcher, &subscriptions, takes_stale);
            let ended = stream.follow(channel).await;
            stale = match &ended {
                Ended::Stale => stale + 1,
                // A replica that cannot be reached knows nothing newer.
                Ended::Broken(_) if !stream.was_welcome() => stale + usize::from(stale > 0),
                _ => 0,
            };
            match &ended {
                Ended::Idle => continue,
                Ended::GoingAway => tracing::debug!(%replica, "replica says goodbye"),
                Ended::Stale => tracing::debug!(%replica, "replica is cut off from a leader"),
                Ended::Broken(reason) if stream.was_welcome() => {
                    tracing::info!(%replica, %reason, "watch broke, keeping the last views");
                }
                Ended::Broken(reason) => {
                    tracing::debug!(%replica, %reason, "replica does not take watches");
                }
            }
            cluster.move_on(position);
            if stream.was_welcome() {
                backoff.reset();
            }
            let wait = backoff.next(&mut rand::rng());
            sleep(wait).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}
