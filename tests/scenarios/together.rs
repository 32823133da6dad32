//! Many instances registered with one call, each with an end of its own.

use trimtab_client::client::Client;
use trimtab_client::registration::RegistrationBuilder;
use trimtab_proto::v1::register_many_result::Result as Said;
use trimtab_proto::v1::{Instance, RegisterManyRequest, RegisterRequest};
use trimtab_tests::cluster::Cluster;

fn request(id: &str) -> RegisterRequest {
    RegisterRequest {
        service: "catalog".to_owned(),
        instance: Some(Instance {
            id: id.to_owned(),
            group: "v1".to_owned(),
            address: "127.0.0.1:4000".to_owned(),
            ..Instance::default()
        }),
        ttl: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_takes_many_at_once_and_refuses_only_what_is_wrong() {
    let cluster = Cluster::start(3).await;
    for replica in cluster.running() {
        let mut requests: Vec<_> = (0..40)
            .map(|number| request(&format!("i{replica}-{number}")))
            .collect();
        requests[7] = request("NOT-A-NAME");
        let asked = RegisterManyRequest { requests };
        let answer = cluster.registration(replica).register_many(asked).await;
        let results = answer.expect("taken").into_inner().results;
        assert_eq!(results.len(), 40);
        let mut last = 0;
        for (place, result) in results.into_iter().enumerate() {
            match result.result.expect("says what became of it") {
                Said::Registered(registered) => {
                    assert!(registered.lease > last, "in their order");
                    last = registered.lease;
                    assert!(registered.renew_interval.is_some());
                }
                Said::Refused(refusal) => {
                    assert_eq!(place, 7, "{refusal:?}");
                    assert_eq!(refusal.code, tonic::Code::InvalidArgument as u32);
                    assert!(refusal.message.contains("NOT-A-NAME"), "{refusal:?}");
                }
            }
        }
    }
    for count in [0, 1_001] {
        let requests = vec![request("i"); count];
        let asked = RegisterManyRequest { requests };
        let refused = cluster.registration(1).register_many(asked).await;
        let status = refused.expect_err("none, or too many");
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_registers_many_and_keeps_them() {
    let cluster = Cluster::start(1).await;
    let client = Client::connect(&cluster.endpoints()).expect("connects");
    let builder = |id: String| client.register("catalog", "v1", "127.0.0.1:4000").id(id);
    let mut builders: Vec<_> = (0..30).map(|it| builder(format!("i{it}"))).collect();
    builders.push(builder("i0".to_owned()));
    builders.push(builder("NOT-A-NAME".to_owned()));
    let mut started = RegistrationBuilder::start_all(builders).await;
    let wrong: Vec<_> = started.split_off(30);
    assert!(wrong.iter().all(Result::is_err), "{wrong:?}");
    let kept: Vec<_> = started.into_iter().map(|it| it.expect("starts")).collect();
    assert_eq!(kept[3].id(), "i3");
    let view = cluster.operator().resolve("catalog", false).await;
    assert_eq!(view.expect("is there").instances.len(), 30);
}
