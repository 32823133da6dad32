//! A caller: calls all the time, and writes down where each call went.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::{interval, timeout};
use trimtab_client::balancer::Balancer;
use trimtab_client::call::PickInfo;
use trimtab_client::client::Client;
use trimtab_proto::demo::v1::GetItemRequest;
use trimtab_proto::demo::v1::catalog_client::CatalogClient;

use crate::clock;
use crate::parts::{SERVICE, told_to_finish};
use crate::record::{Answer, Call, Event, Recorder};

/// Fifty calls a second: several between any two changes.
const INTERVAL: Duration = Duration::from_millis(20);

/// Longer than any call that will be answered.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// All that a caller begins within [`CALL_TIMEOUT`], so that none has to wait.
const IN_FLIGHT_MAX: u32 = 1_000;

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) endpoints: String,
}

impl Caller {
    pub(super) async fn play(self) {
        let client = Client::builder().name(&self.name).watcher_id(&self.name);
        let client = client.connect(&self.endpoints).expect("valid endpoints");
        let balancer = client.service(SERVICE).idempotent(true);
        let balancer = balancer.await.expect("the service is known");
        let slots = Arc::new(Semaphore::new(IN_FLIGHT_MAX as usize));
        tokio::select! {
            () = call_steadily(&balancer, &slots) => {}
            () = told_to_finish() => {}
        }
        // All are free when the last call has ended.
        let _all = slots
            .acquire_many(IN_FLIGHT_MAX)
            .await
            .expect("never closed");
    }
}

async fn call_steadily(balancer: &Balancer, slots: &Arc<Semaphore>) {
    let mut ticks = interval(INTERVAL);
    let mut follows = 0;
    for item_id in 0.. {
        ticks.tick().await;
        let followed = balancer.revision();
        if followed != follows {
            follows = followed;
            let at = clock::now();
            Recorder.note(&Event::Follows {
                at,
                revision: followed,
            });
        }
        let slot = Arc::clone(slots).acquire_owned().await;
        let balancer = balancer.clone();
        tokio::spawn(async move {
            Recorder.note(&Event::Call(call(balancer, item_id, followed).await));
            drop(slot);
        });
    }
}

async fn call(balancer: Balancer, item_id: u64, followed: u64) -> Call {
    let begun = clock::now();
    let mut catalog = CatalogClient::new(balancer);
    let answered = timeout(CALL_TIMEOUT, catalog.get_item(GetItemRequest { item_id })).await;
    let answer = match answered {
        Ok(Ok(response)) => Ok(Answer {
            revision: response
                .extensions()
                .get::<PickInfo>()
                .map_or(0, |pick| pick.revision),
            group: response.get_ref().group.clone(),
            instance: response.get_ref().instance_id.clone(),
        }),
        Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
        Err(_) => Err(format!("no answer within {CALL_TIMEOUT:?}")),
    };
    Call {
        begun,
        ended: clock::now(),
        followed,
        answer,
    }
}
