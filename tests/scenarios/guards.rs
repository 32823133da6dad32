//! Bad input and guarded changes are refused with what was wrong, and nothing changes.

use std::collections::BTreeMap;

use tonic::Code;
use trimtab_client::error::Error;
use trimtab_client::operator::change::{
    CanaryShare, ChangeKind, ChangeOptions, RollbackTarget, ServiceShift, ShiftTarget, Teardown,
};
use trimtab_proto::v1::{
    ChangeOptions as WireOptions, GetRouteRequest, GroupWeight, Instance, RegisterRequest,
    ServiceShift as WireShift, ShiftRequest, Weights, service_shift,
};
use trimtab_tests::cluster::Cluster;

fn options() -> ChangeOptions {
    ChangeOptions::default()
}

fn to(service: &str, group: &str) -> ServiceShift {
    ServiceShift::new(service, ShiftTarget::SwitchTo(group.to_owned()))
}

fn rollback(service: &str) -> RollbackTarget {
    RollbackTarget {
        service: service.to_owned(),
        to_revision: None,
        expected_route_revision: None,
    }
}

async fn weights(cluster: &Cluster, service: &str) -> BTreeMap<String, u32> {
    let route = cluster.operator().route(service).await.expect("a route");
    route.route.weights
}

#[tokio::test(flavor = "multi_thread")]
async fn canary_switch_and_rollback_do_what_they_say() {
    let cluster = Cluster::start(1).await;
    for number in 1..=4 {
        cluster
            .register(1, "catalog", "v1", &format!("a{number}"))
            .await;
    }
    cluster.register(1, "catalog", "v2", "b1").await;
    let operator = cluster.operator();
    let found = operator.route("catalog").await.expect("a route");
    assert_eq!(found.route.weights, [("v1".to_owned(), 10_000)].into());

    let canary = ServiceShift::new(
        "catalog",
        ShiftTarget::Canary {
            group: "v2".to_owned(),
            share: CanaryShare::Even,
        },
    );
    operator.shift(&[canary], &options()).await.expect("canary");
    let even = BTreeMap::from([("v1".to_owned(), 8_000), ("v2".to_owned(), 2_000)]);
    assert_eq!(weights(&cluster, "catalog").await, even);

    // One machine cannot take what four carry.
    let refused = operator
        .shift(&[to("catalog", "v2")], &options())
        .await
        .expect_err("too few");
    assert!(matches!(&refused, Error::Refused(_)), "{refused:?}");
    let words = refused.to_string();
    assert!(
        words.contains("capacity 100") && words.contains("400"),
        "{words}"
    );
    assert_eq!(weights(&cluster, "catalog").await, even);

    for number in 2..=4 {
        cluster
            .register(1, "catalog", "v2", &format!("b{number}"))
            .await;
    }
    let dry = ChangeOptions {
        dry_run: true,
        ..options()
    };
    let planned = operator
        .shift(&[to("catalog", "v2")], &dry)
        .await
        .expect("planned");
    assert_eq!(planned.changes[0].after.weight("v2"), 10_000);
    assert_eq!(weights(&cluster, "catalog").await, even);

    let done = ChangeOptions {
        actor: "deploy".to_owned(),
        reason: "release v2".to_owned(),
        ..options()
    };
    operator
        .shift(&[to("catalog", "v2")], &done)
        .await
        .expect("switched");
    assert_eq!(
        weights(&cluster, "catalog").await,
        [("v2".to_owned(), 10_000)].into()
    );

    // Back by one, then by one more.
    operator
        .rollback(&[rollback("catalog")], &options())
        .await
        .expect("back");
    assert_eq!(weights(&cluster, "catalog").await, even);
    operator
        .rollback(&[rollback("catalog")], &options())
        .await
        .expect("further back");
    assert_eq!(weights(&cluster, "catalog").await, found.route.weights);
    let refused = operator
        .rollback(&[rollback("catalog")], &options())
        .await
        .expect_err("no earlier route");
    assert!(matches!(refused, Error::Refused(_)), "{refused:?}");

    let history = operator.history("catalog", None).await.expect("history");
    let kinds: Vec<ChangeKind> = history.iter().map(|change| change.kind).collect();
    assert_eq!(
        kinds,
        [
            ChangeKind::Rollback,
            ChangeKind::Rollback,
            ChangeKind::Switch,
            ChangeKind::Canary,
            ChangeKind::Found
        ]
    );
    assert_eq!(
        (history[2].actor.as_str(), history[2].reason.as_str()),
        ("deploy", "release v2")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_several_services_happens_whole_or_not_at_all() {
    let cluster = Cluster::start(1).await;
    for service in ["catalog", "cart"] {
        cluster.register(1, service, "v1", "a").await;
        cluster.register(1, service, "v2", "b").await;
    }
    let operator = cluster.operator();
    let refused = operator
        .shift(&[to("catalog", "v2"), to("cart", "v3")], &options())
        .await
        .expect_err("no such group");
    assert!(refused.to_string().contains("v3"), "{refused}");
    for service in ["catalog", "cart"] {
        assert_eq!(
            weights(&cluster, service).await,
            [("v1".to_owned(), 10_000)].into()
        );
    }
    let outcome = operator
        .shift(&[to("catalog", "v2"), to("cart", "v2")], &options())
        .await
        .expect("switched");
    assert_eq!(outcome.changes.len(), 2);
    for service in ["catalog", "cart"] {
        let route = operator.route(service).await.expect("a route");
        assert_eq!(route.route_revision, outcome.revision);
        assert_eq!(route.route.weight("v2"), 10_000);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expected_revision_that_is_not_the_current_one_is_refused_with_it() {
    let cluster = Cluster::start(1).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    let operator = cluster.operator();
    let current = operator
        .route("catalog")
        .await
        .expect("a route")
        .route_revision;
    let expecting = |revision| ServiceShift {
        expected_route_revision: Some(revision),
        ..to("catalog", "v2")
    };
    let refused = operator
        .shift(&[expecting(current + 1)], &options())
        .await
        .expect_err("mismatch");
    assert!(
        refused.to_string().contains(&format!("revision {current}")),
        "{refused}"
    );
    operator
        .shift(&[expecting(current)], &options())
        .await
        .expect("matches");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_repeated_under_its_request_id_happens_once() {
    let cluster = Cluster::start(1).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    let operator = cluster.operator();
    operator
        .shift(&[to("catalog", "v2")], &options())
        .await
        .expect("switched");
    let named = ChangeOptions {
        request_id: Some("undo-1".to_owned()),
        ..options()
    };
    let first = operator
        .rollback(&[rollback("catalog")], &named)
        .await
        .expect("back");
    let again = operator
        .rollback(&[rollback("catalog")], &named)
        .await
        .expect("same answer");
    assert_eq!(first.changes, again.changes);
    assert_eq!(
        operator
            .history("catalog", None)
            .await
            .expect("history")
            .len(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_with_weight_is_not_torn_down_and_a_dark_one_is() {
    let cluster = Cluster::start(1).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    let operator = cluster.operator();
    let teardown = |group: &str| Teardown {
        service: "catalog".to_owned(),
        group: group.to_owned(),
        quiet: None,
        expected_route_revision: None,
    };
    let refused = operator
        .teardown(&teardown("v1"), &options())
        .await
        .expect_err("it has weight");
    assert!(refused.to_string().contains("100%"), "{refused}");
    let gone = operator
        .teardown(&teardown("v2"), &options())
        .await
        .expect("torn down");
    assert_eq!(gone.instances, 1);
    // Its name takes no new instances until the last one is gone.
    let request = RegisterRequest {
        service: "catalog".to_owned(),
        instance: Some(instance("c", "v2")),
        ttl: None,
    };
    let refused = cluster
        .registration(1)
        .register(request)
        .await
        .expect_err("retiring");
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

fn instance(id: &str, group: &str) -> Instance {
    Instance {
        id: id.to_owned(),
        group: group.to_owned(),
        address: "127.0.0.1:1".to_owned(),
        ..Instance::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_registrations_name_the_field_and_change_nothing() {
    let cluster = Cluster::start(1).await;
    let good = RegisterRequest {
        service: "catalog".to_owned(),
        instance: Some(instance("a", "v1")),
        ttl: None,
    };
    let with = |change: &dyn Fn(&mut Instance)| {
        let mut request = good.clone();
        change(request.instance.as_mut().expect("set"));
        request
    };
    let seconds = |seconds| RegisterRequest {
        ttl: Some(prost_types::Duration { seconds, nanos: 0 }),
        ..good.clone()
    };
    let bad = [
        (
            "service",
            RegisterRequest {
                service: "No Name".to_owned(),
                ..good.clone()
            },
        ),
        (
            "service",
            RegisterRequest {
                service: "x".repeat(64),
                ..good.clone()
            },
        ),
        (
            "instance",
            RegisterRequest {
                instance: None,
                ..good.clone()
            },
        ),
        ("instance.id", with(&|i| i.id = String::new())),
        ("instance.group", with(&|i| i.group = "-v1".to_owned())),
        (
            "instance.address",
            with(&|i| i.address = "127.0.0.1".to_owned()),
        ),
        (
            "instance.address",
            with(&|i| i.address = "127.0.0.1:99999".to_owned()),
        ),
        ("instance.zone", with(&|i| i.zone = "a zone".to_owned())),
        ("instance.capacity", with(&|i| i.capacity = 10_001)),
        (
            "instance.metadata",
            with(&|i| {
                i.metadata.insert("key".to_owned(), "x".repeat(513));
            }),
        ),
        (
            "instance.metadata",
            with(&|i| {
                i.metadata = (0..33).map(|n| (n.to_string(), String::new())).collect();
            }),
        ),
        ("instance.status", with(&|i| i.status = 3)),
        ("ttl", seconds(0)),
        ("ttl", seconds(-5)),
        ("ttl", seconds(601)),
        ("ttl", seconds(i64::MAX)),
    ];
    for (field, request) in bad {
        let words = format!("{request:?}");
        let refused = cluster
            .registration(1)
            .register(request)
            .await
            .expect_err(&words);
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().starts_with(field), "{field}: {refused:?}");
    }
    let services = cluster.operator().list_services().await.expect("list");
    assert_eq!(services.services, vec![]);
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_shifts_name_the_field_and_change_nothing() {
    let cluster = Cluster::start(1).await;
    cluster.register(1, "catalog", "v1", "a").await;
    cluster.register(1, "catalog", "v2", "b").await;
    let before = weights(&cluster, "catalog").await;
    let weighted = |weights: &[(&str, u32)]| WireShift {
        service: "catalog".to_owned(),
        target: Some(service_shift::Target::Weights(Weights {
            weights: weights
                .iter()
                .map(|(group, basis_points)| GroupWeight {
                    group: (*group).to_owned(),
                    basis_points: *basis_points,
                })
                .collect(),
        })),
        ..WireShift::default()
    };
    let one = |shift| ShiftRequest {
        shifts: vec![shift],
        options: None,
    };
    let good = weighted(&[("v1", 5_000), ("v2", 5_000)]);
    let noted = |options| ShiftRequest {
        shifts: vec![good.clone()],
        options: Some(options),
    };
    let bad = [
        (
            Code::InvalidArgument,
            "sum",
            one(weighted(&[("v1", 5_000), ("v2", 4_999)])),
        ),
        (
            Code::InvalidArgument,
            "weights",
            one(weighted(&[("v1", 20_000)])),
        ),
        (
            Code::InvalidArgument,
            "weights",
            one(weighted(&[("v1", u32::MAX), ("v2", 10_001)])),
        ),
        (Code::InvalidArgument, "weights", one(weighted(&[]))),
        (
            Code::InvalidArgument,
            "once",
            one(weighted(&[("v1", 5_000), ("v1", 5_000)])),
        ),
        (
            Code::InvalidArgument,
            "weights.group",
            one(weighted(&[("V1", 10_000)])),
        ),
        (
            Code::NotFound,
            "v9",
            one(weighted(&[("v1", 5_000), ("v9", 5_000)])),
        ),
        (
            Code::InvalidArgument,
            "target",
            one(WireShift {
                target: None,
                ..good.clone()
            }),
        ),
        (
            Code::NotFound,
            "basket",
            one(WireShift {
                service: "basket".to_owned(),
                ..good.clone()
            }),
        ),
        (
            Code::InvalidArgument,
            "shifts",
            ShiftRequest {
                shifts: vec![],
                options: None,
            },
        ),
        (
            Code::InvalidArgument,
            "shifts",
            ShiftRequest {
                shifts: vec![good.clone(); 65],
                options: None,
            },
        ),
        (
            Code::InvalidArgument,
            "once",
            ShiftRequest {
                shifts: vec![good.clone(); 2],
                options: None,
            },
        ),
        (
            Code::InvalidArgument,
            "options.reason",
            noted(WireOptions {
                reason: "x".repeat(513),
                ..WireOptions::default()
            }),
        ),
        (
            Code::InvalidArgument,
            "options.actor",
            noted(WireOptions {
                actor: "x".repeat(129),
                ..WireOptions::default()
            }),
        ),
        (
            Code::InvalidArgument,
            "options.request_id",
            noted(WireOptions {
                request_id: "x".repeat(65),
                ..WireOptions::default()
            }),
        ),
    ];
    for (code, word, request) in bad {
        let words = format!("{request:?}");
        let refused = cluster.routing(1).shift(request).await.expect_err(&words);
        assert_eq!(refused.code(), code, "{refused:?}");
        assert!(refused.message().contains(word), "{word}: {refused:?}");
    }
    assert_eq!(weights(&cluster, "catalog").await, before);
    let unknown = GetRouteRequest {
        service: "basket".to_owned(),
    };
    let refused = cluster
        .routing(1)
        .get_route(unknown)
        .await
        .expect_err("unknown");
    assert_eq!(refused.code(), Code::NotFound);
}
