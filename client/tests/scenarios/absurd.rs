//! Whatever a registry says, a caller neither panics nor grows nor goes back: random bytes and absurd messages.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::select;
use prost::Message;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use trimtab_client::simulation::{Caller, LinkState, Outcome, Turn, Wish};
use trimtab_proto::v1 as wire;
use wire::watch_response::Kind;

const SERVICE: &str = "catalog";

/// More requests than this never wait, whatever the registry provokes: four
/// for each of 1,024 services, and a few more.
const WAITING_MAX: usize = 4_200;

fn number() -> impl Strategy<Value = u32> {
    prop_oneof![
        select(vec![0, 1, 100, 5_000, 9_999, 10_000, 10_001, u32::MAX]),
        any::<u32>()
    ]
}

fn revision() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..50_u64,
        select(vec![u64::MAX, u64::MAX - 1, 1 << 63]),
        any::<u64>()
    ]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => select(vec!["v1", "v2", "v3"]).prop_map(str::to_owned),
        1 => select(vec!["", "..", "\0", "v1\n", "ÄÖ", "a/b"]).prop_map(str::to_owned),
    ]
}

fn duration() -> impl Strategy<Value = Option<prost_types::Duration>> {
    let strange = (any::<i64>(), any::<i32>());
    let odd = select(vec![
        (0, 0),
        (1, -1),
        (-1, 1),
        (i64::MAX, i32::MAX),
        (i64::MIN, i32::MIN),
    ]);
    let either = prop_oneof![strange, odd, (0..100_i64, 0..1_000_000_000_i32)];
    let some = either.prop_map(|(seconds, nanos)| prost_types::Duration { seconds, nanos });
    prop::option::of(some)
}

prop_compose! {
    fn policy()(
        flags in any::<(bool, bool, bool)>(),
        balancing in -2..9_i32,
        numbers in (number(), number(), number()),
        times in (duration(), duration()),
    ) -> wire::RoutePolicy {
        wire::RoutePolicy {
            fall_back_to_dark: flags.0,
            balancing,
            prefer_zone: flags.1,
            subset_size: numbers.0,
            warm_up: times.0,
            outliers: Some(wire::OutlierPolicy {
                disabled: flags.2,
                consecutive_failures: numbers.1,
                max_ejected_percent: numbers.2,
                base_ejection: times.1,
            }),
        }
    }
}

prop_compose! {
    fn instance()(
        id in 0..12_u32,
        group in name(),
        address in prop_oneof![
            4 => (1..20_u32).prop_map(|port| format!("127.0.0.1:{port}")),
            1 => select(vec!["", ":", "no port", "127.0.0.1:99999", "[::1", "\u{0}"]).prop_map(str::to_owned),
        ],
        zone in name(),
        capacity in number(),
        status in -2..8_i32,
    ) -> wire::Instance {
        wire::Instance {
            id: format!("i{id}"),
            group,
            address,
            zone,
            capacity,
            metadata: Default::default(),
            status,
        }
    }
}

prop_compose! {
    fn view()(
        revision in revision(),
        weights in prop::collection::vec((name(), number()), 0..6),
        policy in prop::option::of(policy()),
        salt in any::<u64>(),
        groups in prop::collection::vec((name(), -2..8_i32), 0..6),
        instances in prop::collection::vec(instance(), 0..16),
    ) -> wire::View {
        let weights = weights.into_iter();
        let groups = groups.into_iter();
        wire::View {
            service: SERVICE.to_owned(),
            revision,
            route: Some(wire::Route {
                weights: weights
                    .map(|(group, basis_points)| wire::GroupWeight { group, basis_points })
                    .collect(),
                policy,
                salt,
            }),
            route_revision: revision,
            groups: groups.map(|(name, state)| wire::Group { name, state }).collect(),
            instances,
        }
    }
}

fn update() -> impl Strategy<Value = wire::ViewUpdate> {
    let whole = view().prop_map(|view| {
        let bytes = view.encode_to_vec();
        wire::ViewUpdate {
            service: SERVICE.to_owned(),
            revision: view.revision,
            checksum: trimtab_proto::checksum(&bytes),
            view: bytes.into(),
        }
    });
    let nonsense = (
        revision(),
        prop::collection::vec(any::<u8>(), 0..60),
        any::<bool>(),
    )
        .prop_map(|(revision, bytes, fits)| wire::ViewUpdate {
            service: SERVICE.to_owned(),
            revision,
            checksum: trimtab_proto::checksum(&bytes) ^ u64::from(!fits),
            view: bytes.into(),
        });
    prop_oneof![5 => whole, 1 => nonsense]
}

fn answer() -> impl Strategy<Value = wire::WatchResponse> {
    let service = || prop_oneof![4 => Just(SERVICE.to_owned()), 1 => name()];
    let kind = prop_oneof![
        6 => update().prop_map(Kind::View),
        1 => (service(), revision())
            .prop_map(|(service, revision)| Kind::Absent(wire::Absent { service, revision })),
        1 => (service(), revision())
            .prop_map(|(service, revision)| Kind::Unchanged(wire::Unchanged { service, revision })),
        1 => (any::<u64>(), duration(), any::<u64>()).prop_map(|(replica_id, report_interval, cluster_id)| {
            Kind::Welcome(wire::Welcome { replica_id, report_interval, cluster_id })
        }),
        1 => duration().prop_map(|reconnect_within| Kind::GoingAway(wire::GoingAway { reconnect_within })),
    ];
    let said =
        (prop::option::weighted(0.95, kind), any::<bool>()).prop_map(|(kind, possibly_stale)| {
            wire::WatchResponse {
                kind,
                possibly_stale,
            }
        });
    let bytes = prop::collection::vec(any::<u8>(), 0..40);
    let garbled = bytes.prop_filter_map("no message", |bytes| {
        wire::WatchResponse::decode(&*bytes).ok()
    });
    prop_oneof![20 => said, 1 => garbled]
}

/// A caller that does everything with what it hears that a real one does.
struct Victim {
    caller: Caller,
    rng: SmallRng,
    now: Duration,
    open_for: Duration,
    revision: u64,
    addresses: Vec<String>,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let mut caller = Caller::new("victim", "a", &[SERVICE], 3).unwrap();
        caller.open();
        Self {
            caller,
            rng: SmallRng::seed_from_u64(seed),
            now: Duration::ZERO,
            open_for: Duration::ZERO,
            revision: 0,
            addresses: Vec::new(),
        }
    }

    fn hear(&mut self, answer: wire::WatchResponse, step: Duration) {
        self.now += step;
        self.open_for += step;
        let heard = self.caller.hear(self.open_for, answer, &mut self.rng);
        if let Err(wait) = heard {
            assert!(wait <= Duration::from_secs(10), "waits {wait:?}");
            self.caller.open();
            self.open_for = Duration::ZERO;
        }
        let wishes = self.caller.follow(SERVICE, self.now, &mut self.rng);
        self.fulfil(wishes);
        let rng = &mut self.rng;
        let (wishes, _) = self.caller.look_after(SERVICE, self.now, true, rng);
        self.fulfil(wishes);
        let used = self.caller.used(SERVICE);
        assert!(used >= self.revision, "went back to {used}");
        self.revision = used;
        self.caller.confirm(SERVICE, used);
        self.call();
        self.caller.report(self.now);
    }

    fn fulfil(&mut self, wishes: Vec<Wish>) {
        for wish in wishes {
            match wish {
                Wish::Open(address) => self.addresses.push(address.to_string()),
                Wish::Close(address) => self.addresses.retain(|it| **it != *address),
                Wish::Retry(_) => {}
            }
        }
        for (at, address) in self.addresses.iter().enumerate() {
            let state = if at % 3 == 2 {
                LinkState::Down
            } else {
                LinkState::Up
            };
            self.caller.connected(SERVICE, address, state);
        }
    }

    fn call(&mut self) {
        let mut turn = Turn::default();
        for attempt in 0..4 {
            let rng = &mut self.rng;
            let Some(picked) = self.caller.pick(SERVICE, &mut turn, self.now, rng) else {
                return;
            };
            assert_eq!(picked.revision(), self.revision);
            let outcome = match attempt < 2 {
                true => Outcome::Failed,
                false => Outcome::Answered,
            };
            let (turn, now) = (&mut turn, self.now);
            self.caller.ended_call(picked, outcome, turn, now);
        }
    }

    fn requests(&mut self) -> usize {
        std::iter::from_fn(|| self.caller.next_request()).count()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_a_registry_says_breaks_a_caller(
        seed in any::<u64>(),
        answers in prop::collection::vec((answer(), 0..90_000_u64), 1..40),
        sends in any::<bool>(),
    ) {
        let mut victim = Victim::new(seed);
        for (answer, milliseconds) in answers {
            victim.hear(answer, Duration::from_millis(milliseconds));
            if sends {
                victim.requests();
            }
        }
        prop_assert!(victim.requests() <= WAITING_MAX);
    }
}

/// A replica that provokes requests and takes none.
#[test]
fn a_replica_that_only_talks_makes_no_queue_grow() {
    let unchanged = Kind::Unchanged(wire::Unchanged {
        service: SERVICE.to_owned(),
        revision: 1,
    });
    let damaged = Kind::View(wire::ViewUpdate {
        service: SERVICE.to_owned(),
        revision: 2,
        ..wire::ViewUpdate::default()
    });
    for provocation in [unchanged, damaged] {
        let mut victim = Victim::new(1);
        for _ in 0..50_000 {
            let answer = wire::WatchResponse {
                kind: Some(provocation.clone()),
                possibly_stale: false,
            };
            victim.hear(answer, Duration::ZERO);
        }
        assert!(victim.requests() <= WAITING_MAX);
    }
}

/// Of the same revision with another checksum the registry's word counts, as
/// often as it changes.
#[test]
fn a_view_that_differs_from_the_one_held_replaces_it() {
    let mut victim = Victim::new(1);
    for address in 1..5 {
        let view = wire::View {
            service: SERVICE.to_owned(),
            revision: 7,
            instances: vec![wire::Instance {
                id: "a".to_owned(),
                group: "v1".to_owned(),
                address: format!("127.0.0.1:{address}"),
                status: wire::InstanceStatus::Ready.into(),
                ..wire::Instance::default()
            }],
            ..wire::View::default()
        };
        let bytes = view.encode_to_vec();
        let digest = trimtab_proto::digest::view(&view);
        let update = wire::ViewUpdate {
            service: SERVICE.to_owned(),
            revision: 7,
            checksum: trimtab_proto::checksum(&bytes),
            view: bytes.into(),
        };
        let answer = wire::WatchResponse {
            kind: Some(Kind::View(update)),
            possibly_stale: false,
        };
        victim.hear(answer, Duration::ZERO);
        assert_eq!(victim.caller.known(SERVICE), (7, Some(digest)));
        assert_eq!(victim.addresses, [format!("127.0.0.1:{address}")]);
    }
}
