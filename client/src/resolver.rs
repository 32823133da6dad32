//! Follows views on one stream to one replica, and stays with the last view when there is none.

use std::sync::Arc;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::cluster::Cluster;
use crate::conversation::{Conversation, Ended};
use crate::course::Course;
use crate::subscription::Subscriptions;
use crate::watch_stream::follow;
use crate::watcher::Watcher;

/// Runs until `stop`. There is no stream while no service is followed.
pub(crate) async fn resolve(
    cluster: Cluster,
    watcher: Watcher,
    subscriptions: Arc<Subscriptions>,
    stop: CancellationToken,
) {
    let mut course = Course::new(cluster.len());
    let work = async {
        loop {
            while subscriptions.all().is_empty() {
                subscriptions.changed.notified().await;
            }
            let (position, channel) = cluster.channel();
            let mut conversation =
                Conversation::new(&watcher, &subscriptions, course.takes_stale());
            let ended = follow(&mut conversation, &subscriptions, channel).await;
            let was_welcome = conversation.was_welcome();
            log(&ended, was_welcome, cluster.endpoint_at(position));
            let Some(wait) = course.ended(&ended, was_welcome, &mut rand::rng()) else {
                continue;
            };
            cluster.move_on(position);
            sleep(wait).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = work => {}
    }
}

fn log(ended: &Ended, was_welcome: bool, replica: &str) {
    match ended {
        Ended::Idle => {}
        Ended::GoingAway(_) => tracing::debug!(%replica, "replica says goodbye"),
        Ended::Stale => tracing::debug!(%replica, "replica is cut off from a leader"),
        Ended::Broken(reason) if was_welcome => {
            tracing::info!(%replica, %reason, "watch broke, keeping the last views");
        }
        Ended::Broken(reason) => {
            tracing::debug!(%replica, %reason, "replica does not take watches");
        }
    }
}
