//! Deltas as they are made and as they are applied, side by side with the views they stand for.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use proptest::prelude::*;
use trimtab_client::simulation::held::Held;
use trimtab_proto::v1::watch_request::Kind as Ask;
use trimtab_proto::v1::watch_response::Kind as Answer;
use trimtab_proto::v1::{Hello, Subscribe, ViewUpdate, WatchRequest};
use trimtab_registry::command::{Change, Command, Deregister, Register, SetStatus};
use trimtab_registry::command::{ServiceShift, Shift, Target};
use trimtab_registry::instance::{Capacity, DeclaredStatus, InstanceSpec, LeaseKey, Metadata, Ttl};
use trimtab_registry::name::{Address, GroupName, InstanceId, ServiceName, Zone};
use trimtab_registry::revision::{Position, Revision};
use trimtab_registry::route::Weights;
use trimtab_registry::state::Registry;
use trimtab_registry::text::{Actor, Reason, RequestId};
use trimtab_server::convert::{WIRE, encode_view};
use trimtab_server::grpc::watching::Watching;
use trimtab_server::views::Views;

/// What may happen to the service.
#[derive(Clone, Debug)]
enum Happening {
    Register {
        id: u8,
        group: u8,
        zone: u8,
    },
    Status {
        id: u8,
        status: u8,
    },
    Leave {
        id: u8,
    },
    Weights {
        first: u32,
    },
    /// The reader has its turn.
    Look,
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        (0..30u8, 0..3u8, 0..2u8).prop_map(|(id, group, zone)| Happening::Register {
            id,
            group,
            zone
        }),
        (0..30u8, 0..3u8).prop_map(|(id, status)| Happening::Status { id, status }),
        (0..30u8).prop_map(|id| Happening::Leave { id }),
        (1..10_000u32).prop_map(|first| Happening::Weights { first }),
        Just(Happening::Look),
    ]
}

fn service() -> ServiceName {
    ServiceName::parse("catalog").expect("valid")
}

fn group(number: u8) -> GroupName {
    GroupName::parse(&format!("v{number}")).expect("valid")
}

fn instance(number: u8) -> InstanceId {
    InstanceId::parse(&format!("i{number}")).expect("valid")
}

/// A registry, its views, and one reader who takes deltas.
struct Stage {
    registry: Registry,
    leases: BTreeMap<u8, u64>,
    views: Arc<Views>,
    watching: Watching,
    held: Option<Held>,
    deltas: usize,
}

impl Stage {
    fn new() -> Stage {
        let views = Views::new(WIRE);
        let mut watching = Watching::new(1, 1, Arc::clone(&views), Arc::default());
        let hello = Hello {
            watcher_id: "w1".to_owned(),
            ..Hello::default()
        };
        let subscribe = Subscribe {
            service: "catalog".to_owned(),
            takes_deltas: true,
            ..Subscribe::default()
        };
        for kind in [Ask::Hello(hello), Ask::Subscribe(subscribe)] {
            let request = WatchRequest { kind: Some(kind) };
            watching
                .take(std::time::Duration::ZERO, request)
                .expect("taken");
        }
        Stage {
            registry: Registry::new(),
            leases: BTreeMap::new(),
            views,
            watching,
            held: None,
            deltas: 0,
        }
    }

    fn happen(&mut self, happening: Happening) {
        let command = match happening {
            Happening::Look => return self.look(),
            Happening::Register {
                id,
                group: to,
                zone,
            } => Command::Register(Register {
                service: service(),
                instance: InstanceSpec {
                    id: instance(id),
                    group: group(to),
                    address: Address::parse("127.0.0.1:80").expect("valid"),
                    zone: Zone::parse(&format!("z{zone}")).expect("valid"),
                    capacity: Capacity::default(),
                    metadata: Metadata::default(),
                    status: DeclaredStatus::Ready,
                },
                ttl: Ttl::default(),
                at_ms: 0,
            }),
            Happening::Status { id, status } => Command::SetStatus(SetStatus {
                lease: self.lease(id),
                status: match status {
                    0 => DeclaredStatus::Starting,
                    1 => DeclaredStatus::Ready,
                    _ => DeclaredStatus::Draining,
                },
            }),
            Happening::Leave { id } => Command::Deregister(Deregister {
                lease: self.lease(id),
            }),
            Happening::Weights { first } => Command::Shift(Shift {
                shifts: vec![ServiceShift {
                    service: service(),
                    target: Target::Weights(
                        Weights::new([(group(0), first), (group(1), 10_000 - first)])
                            .expect("valid"),
                    ),
                    expected: None,
                    min_ready: Some(0),
                    policy: None,
                }],
                change: Change {
                    actor: Actor::parse("").expect("valid"),
                    reason: Reason::parse("").expect("valid"),
                    at_ms: 0,
                    request_id: RequestId::parse("").expect("valid"),
                    force: true,
                },
            }),
        };
        let index = self.registry.applied().index + 1;
        let applied = self.registry.apply(Position { index, term: 1 }, &command);
        if let Command::Register(register) = &command
            && applied.outcome.is_ok()
        {
            let id = register.instance.id.as_str()[1..]
                .parse()
                .expect("a number");
            self.leases.insert(id, index);
        }
        if !applied.events.is_empty() {
            self.views.publish(&self.registry, [&service()]);
        }
    }

    fn lease(&self, id: u8) -> LeaseKey {
        LeaseKey {
            service: service(),
            instance: instance(id),
            lease: Revision(self.leases.get(&id).copied().unwrap_or_default()),
        }
    }

    /// Takes all news, and holds the same as who is sent the whole view.
    fn look(&mut self) {
        let context = Context::from_waker(Waker::noop());
        while let Poll::Ready(news) = self.watching.poll_news(&context) {
            match news.arrived(false).expect("decodes").kind.expect("a kind") {
                Answer::View(update) => self.held = Some(Held::of(&update).expect("sound")),
                Answer::Delta(delta) => {
                    let held = self.held.as_ref().expect("a view came before");
                    self.held = Some(held.after(&delta).expect("fits"));
                    self.deltas += 1;
                }
                Answer::Absent(_) => self.held = None,
                other => panic!("unexpected {other:?}"),
            }
        }
        let view = self.registry.view(&service());
        let whole = view.map(|view| {
            let encoded = encode_view(&view);
            let update = ViewUpdate {
                service: "catalog".to_owned(),
                revision: view.revision.0,
                checksum: encoded.checksum,
                view: encoded.bytes,
            };
            Held::of(&update).expect("sound")
        });
        assert_eq!(self.held, whole);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whoever_takes_deltas_holds_what_others_are_sent(
        happenings in prop::collection::vec(happening(), 1..120),
    ) {
        let mut stage = Stage::new();
        for happening in happenings {
            stage.happen(happening);
        }
        stage.look();
    }
}

#[test]
fn a_change_of_weights_and_one_of_a_status_are_told_in_tens_of_bytes() {
    let mut stage = Stage::new();
    for id in 0..30 {
        stage.happen(Happening::Register {
            id,
            group: id % 2,
            zone: 0,
        });
    }
    stage.happen(Happening::Weights { first: 9_900 });
    stage.look();
    let context = Context::from_waker(Waker::noop());
    for (happening, bytes_max) in [
        (Happening::Weights { first: 9_800 }, 70),
        (Happening::Status { id: 7, status: 0 }, 50),
    ] {
        let told = format!("{happening:?}");
        stage.happen(happening);
        let Poll::Ready(news) = stage.watching.poll_news(&context) else {
            panic!("{told} is news");
        };
        let bytes = news.framed(false).len();
        assert!(bytes <= bytes_max, "{told} took {bytes} bytes");
    }
}
