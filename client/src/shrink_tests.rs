//! Which shrinks are implausible, and how long what they took away is held.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// Groups with their weight, state and instances by number and status.
type Told<'a> = (
    &'a str,
    u32,
    GroupState,
    &'a [(std::ops::Range<u32>, InstanceStatus)],
);

const READY: InstanceStatus = InstanceStatus::Ready;

fn view(groups: &[Told<'_>]) -> Arc<View> {
    let groups = groups.iter().map(|(name, weight, state, instances)| Group {
        name: (*name).into(),
        state: *state,
        weight: *weight,
        instances: instances
            .iter()
            .flat_map(|(numbers, status)| numbers.clone().map(|it| instance(it, *status)))
            .collect(),
    });
    Arc::new(View {
        revision: 5,
        groups: groups.collect(),
        ..View::default()
    })
}

fn instance(number: u32, status: InstanceStatus) -> Instance {
    Instance {
        id: format!("i{number:04}").into(),
        address: format!("127.0.0.1:{number}").into(),
        zone: "".into(),
        capacity: 100,
        metadata: Arc::default(),
        status,
    }
}

fn all(weight: u32, ready: u32) -> Arc<View> {
    view(&[("v1", weight, GroupState::Active, &[(0..ready, READY)])])
}

/// Of nothing held, with all connected.
fn alarm(before: &Arc<View>, next: &Arc<View>) -> Option<Alarm> {
    let decision = decide(before, next, &Held::default(), |_| true, Instant::now());
    assert_eq!(decision.alarm.is_none(), decision.held.is_empty());
    if decision.alarm.is_none() {
        assert!(Arc::ptr_eq(&decision.view, next), "followed as it is");
    }
    decision.alarm
}

fn held(view: &View) -> Vec<&str> {
    let is_held = |it: &&Instance| it.status == InstanceStatus::Held;
    view.instances().filter(is_held).map(|it| &*it.id).collect()
}

#[test]
fn more_than_half_at_once_is_held_and_half_is_not() {
    let before = all(10_000, 10);
    assert_eq!(alarm(&before, &all(10_000, 5)), None);
    assert_eq!(
        alarm(&before, &all(10_000, 4)),
        Some(Alarm { lost: 6, of: 10 })
    );
    // Two may be gone by chance.
    assert_eq!(alarm(&all(10_000, 2), &all(10_000, 0)), None);
    assert_eq!(
        alarm(&all(10_000, 3), &all(10_000, 0)),
        Some(Alarm { lost: 3, of: 3 })
    );
}

#[test]
fn the_next_views_route_and_revision_are_followed() {
    let before = view(&[
        ("v1", 5_000, GroupState::Active, &[(0..5, READY)]),
        ("v2", 5_000, GroupState::Active, &[(10..15, READY)]),
    ]);
    let mut next = View::clone(&view(&[
        ("v1", 2_000, GroupState::Active, &[(0..1, READY)]),
        ("v2", 8_000, GroupState::Active, &[]),
    ]));
    next.revision = 9;
    let next = Arc::new(next);
    let decision = decide(&before, &next, &Held::default(), |_| true, Instant::now());
    let followed = &decision.view;
    assert_eq!(followed.revision, 9);
    assert_eq!(
        followed
            .groups
            .iter()
            .map(|it| it.weight)
            .collect::<Vec<_>>(),
        [2_000, 8_000]
    );
    assert_eq!(followed.groups[0].instances.len(), 5);
    assert_eq!(followed.groups[0].instances[0].status, READY);
    assert_eq!(held(followed).len(), 9);
}

#[test]
fn what_the_registry_explains_is_no_loss() {
    let before = all(10_000, 10);
    for status in [
        InstanceStatus::Draining,
        InstanceStatus::Suspect,
        InstanceStatus::Starting,
    ] {
        let next = view(&[("v1", 10_000, GroupState::Active, &[(0..10, status)])]);
        assert_eq!(alarm(&before, &next), None, "{status:?}");
        // And gone from there.
        assert_eq!(alarm(&next, &all(10_000, 0)), None, "{status:?}");
    }
}

#[test]
fn leaving_one_by_one_is_no_loss() {
    let mut before = all(10_000, 40);
    for left in (0..40).rev() {
        let next = all(10_000, left);
        assert_eq!(alarm(&before, &next), None, "{left} are left");
        before = next;
    }
}

#[test]
fn a_switch_and_a_teardown_are_no_loss() {
    let before = view(&[
        ("v1", 10_000, GroupState::Active, &[(0..10, READY)]),
        ("v2", 0, GroupState::Dark, &[(10..14, READY)]),
    ]);
    let switched = view(&[
        ("v1", 0, GroupState::Standby, &[]),
        ("v2", 10_000, GroupState::Active, &[(10..14, READY)]),
    ]);
    assert_eq!(alarm(&before, &switched), None);
    let torn_down = view(&[
        ("v1", 0, GroupState::Retiring, &[]),
        ("v2", 10_000, GroupState::Active, &[(10..14, READY)]),
    ]);
    assert_eq!(alarm(&before, &torn_down), None);
    let forgotten = view(&[("v2", 10_000, GroupState::Active, &[(10..14, READY)])]);
    assert_eq!(alarm(&before, &forgotten), None);
    // A group that gets all and has lost its own is another matter.
    let to_nobody = view(&[("v2", 10_000, GroupState::Active, &[])]);
    assert_eq!(alarm(&before, &to_nobody), Some(Alarm { lost: 4, of: 4 }));
}

#[test]
fn others_in_their_place_are_no_loss() {
    let next = view(&[("v1", 10_000, GroupState::Active, &[(100..105, READY)])]);
    assert_eq!(alarm(&all(10_000, 10), &next), None);
}

#[test]
fn who_is_not_connected_is_not_missed() {
    let (before, next) = (all(10_000, 10), all(10_000, 1));
    let reaches = |it: &Instance| &*it.id < "i0002";
    let decision = decide(&before, &next, &Held::default(), reaches, Instant::now());
    assert_eq!(decision.alarm, None);
}

/// A caller that keeps to a subset is connected to few of many.
#[test]
fn a_subset_counts_for_all() {
    let reaches = |it: &Instance| &*it.id < "i0010";
    let left = |left: u32| {
        view(&[(
            "v1",
            10_000,
            GroupState::Active,
            &[(500..500 + left, READY)],
        )])
    };
    let alarm = |next| {
        let now = Instant::now();
        decide(&all(10_000, 1_000), &next, &Held::default(), reaches, now).alarm
    };
    assert_eq!(alarm(left(400)), Some(Alarm { lost: 10, of: 10 }));
    assert_eq!(alarm(left(500)), None);
}

#[test]
fn a_service_that_vanishes_is_kept_as_a_standby() {
    let nothing = Arc::new(View {
        revision: 8,
        ..View::default()
    });
    let decision = decide(
        &all(10_000, 5),
        &nothing,
        &Held::default(),
        |_| true,
        Instant::now(),
    );
    assert_eq!(decision.alarm, Some(Alarm { lost: 5, of: 5 }));
    let group = &decision.view.groups[0];
    assert_eq!((group.weight, group.state), (0, GroupState::Standby));
    assert_eq!(decision.view.revision, 8);
    // But a dark group that nobody called is not missed.
    let dark = view(&[("v1", 0, GroupState::Dark, &[(0..5, READY)])]);
    assert_eq!(alarm(&dark, &nothing), None);
}

#[test]
fn nothing_is_held_for_longer_than_is_said() {
    let (before, next) = (all(10_000, 10), all(10_000, 1));
    let start = Instant::now();
    let at = |now, held: &Held| decide(&next, &next, held, |_| true, now);
    let first = decide(&before, &next, &Held::default(), |_| true, start);
    assert_eq!(held(&first.view).len(), 9);
    assert_eq!(first.held.until(), Some(start + HELD_FOR));
    let later = at(start + HELD_FOR / 2, &first.held);
    assert_eq!(later.held, first.held);
    let over = at(start + HELD_FOR, &later.held);
    assert!(over.held.is_empty() && held(&over.view).is_empty());
}

#[test]
fn a_broken_connection_a_word_of_the_registry_or_the_route_ends_it() {
    let (before, next) = (all(10_000, 10), all(10_000, 1));
    let start = Instant::now();
    let first = decide(&before, &next, &Held::default(), |_| true, start);
    let after = |next: &Arc<View>, reaches: fn(&Instance) -> bool| {
        let decision = decide(next, next, &first.held, reaches, start);
        held(&decision.view).len()
    };
    assert_eq!(after(&next, |_| true), 9);
    assert_eq!(after(&next, |it| &*it.id != "i0003"), 8);
    // One is back, and one drains.
    let back = view(&[(
        "v1",
        10_000,
        GroupState::Active,
        &[(0..3, READY), (3..4, InstanceStatus::Draining)],
    )]);
    assert_eq!(after(&back, |_| true), 6);
    let elsewhere = view(&[
        ("v1", 0, GroupState::Standby, &[]),
        ("v2", 10_000, GroupState::Active, &[]),
    ]);
    assert_eq!(after(&elsewhere, |_| true), 0);
    let torn_down = view(&[("v1", 0, GroupState::Retiring, &[])]);
    assert_eq!(after(&torn_down, |_| true), 0);
}

fn any_status() -> impl Strategy<Value = InstanceStatus> {
    prop::sample::select(vec![
        InstanceStatus::Starting,
        InstanceStatus::Ready,
        InstanceStatus::Ready,
        InstanceStatus::Ready,
        InstanceStatus::Suspect,
        InstanceStatus::Draining,
    ])
}

prop_compose! {
    fn any_view()(
        weight in 0..=10_000_u32,
        retiring in any::<bool>(),
        groups in prop::collection::vec(
            prop::collection::btree_map(0..12_u32, any_status(), 0..12), 0..3),
    ) -> Arc<View> {
        let groups = groups.into_iter().enumerate().map(|(at, members)| Group {
            name: format!("v{at}").into(),
            state: if at == 1 && retiring { GroupState::Retiring } else { GroupState::Active },
            weight: if at == 0 { weight } else { 10_000 - weight },
            instances: members.into_iter()
                .map(|(number, status)| instance(100 * at as u32 + number, status))
                .collect(),
        });
        Arc::new(View { revision: 3, groups: groups.collect(), ..View::default() })
    }
}

proptest! {
    /// Through any run of views: what the registry says is never contradicted,
    /// only added to, by instances that are connected and were READY; nothing
    /// is held longer than a minute after it was last in a view.
    #[test]
    fn only_what_was_ready_and_is_connected_is_added_and_not_for_long(
        views in prop::collection::vec((any_view(), 0..40_u64, any::<u64>()), 1..12),
    ) {
        let mut now = Instant::now();
        let mut before = Arc::new(View::default());
        let mut kept = Held::default();
        let mut last_ready: BTreeMap<Arc<str>, Instant> = BTreeMap::new();
        for (next, seconds, broken) in views {
            now += Duration::from_secs(seconds);
            let reaches = |it: &Instance| {
                let number: u32 = it.id[1..].parse().unwrap_or(0);
                broken >> (number % 64) & 1 == 0
            };
            for it in before.instances().filter(|it| is_ready(it)) {
                last_ready.insert(Arc::clone(&it.id), now);
            }
            let decision = decide(&before, &next, &kept, reaches, now);
            let mut without = View::clone(&decision.view);
            for group in &mut without.groups {
                group.instances.retain(|it| it.status != InstanceStatus::Held);
            }
            without.groups.retain(|it| next.groups.iter().any(|other| other.name == it.name));
            prop_assert_eq!(&without, &*next);
            prop_assert_eq!(held(&decision.view).len(), decision.held.by_id.len());
            for group in &decision.view.groups {
                prop_assert!(group.state != GroupState::Retiring
                    || group.instances.iter().all(|it| it.status != InstanceStatus::Held));
                for it in group.instances.iter().filter(|it| it.status == InstanceStatus::Held) {
                    prop_assert!(reaches(it));
                    let since = last_ready.get(&it.id).copied();
                    prop_assert!(since.is_some_and(|since| now < since + HELD_FOR));
                }
            }
            before = next;
            kept = decision.held;
        }
    }
}
