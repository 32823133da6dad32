//! One renewal stream of an instance's process: what it renews, and what it is told.

use std::collections::HashSet;

use tokio::sync::watch;
use tonic::{Status, Streaming};
use trimtab_proto::v1::{LeaseRef, RenewRequest, RenewResponse};
use trimtab_registry::instance::LeaseKey;
use trimtab_registry::rejection::Invalid;

use super::context::Context;
use super::roll::Roll;
use super::status::of_invalid;
use crate::convert;
use crate::renewals::StreamId;

/// Leases in one renewal: what one process can be expected to hold.
const LEASES_PER_RENEWAL_MAX: usize = 10_000;

/// One open renewal stream. Dropped when its process is gone; then the
/// leases it renewed are reported, unless it was this replica that left.
pub(super) struct Session {
    context: Context,
    requests: Streaming<RenewRequest>,
    id: StreamId,
    leases: Roll,
    told_to_retire: HashSet<LeaseKey>,
    retirements: watch::Receiver<u64>,
    ended: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        let leases = self.leases.keys().cloned().collect();
        let broken = !self.ended && !self.context.stop.is_cancelled();
        self.context.renewals.close_stream(self.id, leases, broken);
    }
}

impl Session {
    pub(super) fn new(context: Context, requests: Streaming<RenewRequest>) -> Session {
        Session {
            id: context.renewals.open_stream(),
            retirements: context.renewals.retirements(),
            context,
            requests,
            leases: Roll::default(),
            told_to_retire: HashSet::new(),
            ended: false,
        }
    }

    /// The next answer; `None` when the stream has ended.
    pub(super) async fn next(&mut self) -> Option<Result<RenewResponse, Status>> {
        if self.ended {
            return None;
        }
        let stop = self.context.stop.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => {
                    self.ended = true;
                    return Some(Ok(RenewResponse { going_away: true, ..RenewResponse::default() }));
                }
                request = self.requests.message() => {
                    let Ok(Some(request)) = request else { return None };
                    let answer = self.renew(request).await;
                    self.ended = answer.is_err();
                    return Some(answer);
                }
                Ok(()) = self.retirements.changed() => {
                    let retire = self.newly_retiring();
                    if !retire.is_empty() {
                        return Some(Ok(RenewResponse { retire, ..RenewResponse::default() }));
                    }
                }
            }
        }
    }

    async fn renew(&mut self, request: RenewRequest) -> Result<RenewResponse, Status> {
        if request.leases.len() > LEASES_PER_RENEWAL_MAX {
            return Err(of_invalid(Invalid::new(
                "leases",
                request.leases.len(),
                "must have at most 10,000 entries; split the renewal",
            )));
        }
        let renewals = &self.context.renewals;
        let moves = renewals.moves();
        let mut keys = Vec::with_capacity(request.leases.len());
        let mut are_held = true;
        for lease in &request.leases {
            let (key, held_as_of) = self.leases.key(lease).map_err(of_invalid)?;
            are_held &= *held_as_of == Some(moves);
            keys.push(key.clone());
        }
        if self.leases.len() > LEASES_PER_RENEWAL_MAX {
            return Err(Status::resource_exhausted(format!(
                "a renewal stream holds at most {LEASES_PER_RENEWAL_MAX} leases; open another one"
            )));
        }
        if !are_held {
            let moves = renewals.hold(self.id, keys.iter());
            for lease in &request.leases {
                let (_, held_as_of) = self.leases.key(lease).map_err(of_invalid)?;
                *held_as_of = Some(moves);
            }
        }
        let renewed = renewals.renew(&self.context.handle, keys).await;
        let lost = renewed.map_err(|error| Status::unavailable(error.to_string()))?;
        renewals.let_go(&lost);
        let lost = (lost.into_iter())
            .filter_map(|key| {
                self.told_to_retire.remove(&key);
                self.leases.remove(&key)
            })
            .collect();
        Ok(RenewResponse {
            lost,
            retire: self.newly_retiring(),
            going_away: false,
        })
    }

    /// Leases of groups that are torn down, each told once.
    fn newly_retiring(&mut self) -> Vec<LeaseRef> {
        let retiring = self.context.renewals.retiring(self.leases.keys());
        retiring
            .into_iter()
            .filter(|key| self.told_to_retire.insert(key.clone()))
            .map(|key| convert::lease_ref(&key))
            .collect()
    }
}
