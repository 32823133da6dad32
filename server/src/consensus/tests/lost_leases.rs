//! A leader that cannot show that it leads calls no lease lost.

use trimtab_registry::instance::LeaseKey;
use trimtab_registry::name::{InstanceId, ServiceName};
use trimtab_registry::revision::Revision;

use super::cluster::Cluster;
use super::recorder::until;
use crate::lease_keeper::LeaseKeeper;

#[tokio::test(flavor = "multi_thread")]
async fn what_a_leader_misses_is_lost_only_while_it_has_a_quorum() {
    let mut cluster = Cluster::start(&[]).await;
    let leader = cluster.leader().await;
    let handle = cluster.at(leader);
    let status = until(&handle, |status| status.leads_up_to_date).await;
    let keeper = LeaseKeeper::default();
    keeper.role_changed(&status);
    // It might have been granted by a successor that this one never heard of.
    let unknown = [LeaseKey {
        service: ServiceName::parse("catalog").expect("a name"),
        instance: InstanceId::parse("i1").expect("an id"),
        lease: Revision(7),
    }];
    let lost = keeper.renew(&handle, leader, &unknown).await;
    assert_eq!(lost.as_deref(), Some(unknown.as_slice()));

    for other in (1..=3).filter(|id| *id != leader) {
        cluster.kill(other);
    }
    // It still takes itself for the leader.
    assert_eq!(keeper.renew(&handle, leader, &unknown).await, None);
    assert_eq!(keeper.renew(&handle, leader, &[]).await, Some(Vec::new()));
}
