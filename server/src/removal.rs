//! A replica that hears from no leader asks whether it was removed while it could not hear.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::consensus::handle::Handle;
use crate::peers::Peers;

/// Between two rounds of questions, while no leader is heard of.
const ASK_INTERVAL: Duration = Duration::from_secs(2);

/// Asks the others as long as `cut_off` holds; ends the replica when one of
/// them has it from the log that this data directory was removed. Nobody
/// tells a removed replica anything: it gets no more messages, and the last
/// one may have come too early.
pub(crate) async fn find_out(
    handle: Handle,
    peers: Peers,
    mut cut_off: watch::Receiver<bool>,
    closing: CancellationToken,
) {
    let asking = async {
        // Fails only when the replica ends.
        while cut_off.wait_for(|is_cut_off| *is_cut_off).await.is_ok() {
            let asked = peers.ids().into_iter().map(|id| peers.introduce(id));
            let cluster = handle.cluster_id();
            let is_removed = join_all(asked)
                .await
                .into_iter()
                .flatten()
                .any(|answer| answer.removed && answer.cluster_id == cluster);
            if is_removed {
                handle.removed();
            }
            sleep(ASK_INTERVAL).await;
        }
    };
    tokio::select! {
        () = closing.cancelled() => {}
        () = asking => {}
    }
}
