//! Ejections: who, for how long, how many at a time, and how they end.

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::SmallRng;

use super::*;

/// A group, its records, and the time.
struct Scene {
    ids: Vec<Arc<str>>,
    group: Arc<str>,
    records: Vec<Record>,
    connected: Vec<bool>,
    outliers: Outliers,
    policy: OutlierPolicy,
    now: Instant,
    rng: SmallRng,
}

impl Scene {
    fn of(instances: usize) -> Self {
        let now = Instant::now();
        Self {
            ids: (0..instances).map(|n| format!("i{n}").into()).collect(),
            group: "v1".into(),
            records: (0..instances).map(|_| Record::default()).collect(),
            connected: vec![true; instances],
            outliers: Outliers::new(now),
            policy: OutlierPolicy::default(),
            now,
            rng: SmallRng::seed_from_u64(7),
        }
    }

    fn judge(&mut self) -> Vec<Verdict> {
        let subjects: Vec<Subject<'_>> = self
            .ids
            .iter()
            .zip(&self.records)
            .zip(&self.connected)
            .map(|((id, record), counts)| Subject {
                id,
                group: &self.group,
                record,
                counts: *counts,
            })
            .collect();
        let changes = self
            .outliers
            .judge(self.now, &self.policy, &subjects, &mut self.rng);
        changes.into_iter().map(|change| change.what).collect()
    }

    fn fail(&self, instance: usize, times: u32) -> u32 {
        (0..times)
            .map(|_| u32::from(self.records[instance].failed()))
            .sum()
    }

    fn answer(&self, instance: usize, times: u32) {
        (0..times).for_each(|_| self.records[instance].answered());
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    fn ejected(&self) -> usize {
        let standing = self.records.iter().map(Record::standing);
        standing.filter(|s| *s == Standing::Ejected).count()
    }
}

fn lasts(verdicts: &[Verdict]) -> Duration {
    match verdicts {
        [Verdict::Ejected { lasts, .. }] => *lasts,
        other => panic!("{other:?}"),
    }
}

fn about(time: Duration, expected: u64) -> bool {
    let expected = Duration::from_secs(expected);
    time >= expected && time <= expected.mul_f64(1.0 + EJECTION_SPREAD)
}

#[test]
fn five_failures_in_a_row_eject_and_are_told_once() {
    let mut scene = Scene::of(5);
    assert_eq!(scene.fail(2, 4), 0);
    scene.answer(2, 1);
    assert_eq!(scene.fail(2, 4), 0, "the answer ended the run");
    assert!(scene.judge().is_empty());
    assert_eq!(scene.fail(2, 3), 1);
    assert!(about(lasts(&scene.judge()), 30));
    assert_eq!(scene.records[2].standing(), Standing::Ejected);
    assert!(scene.judge().is_empty());
}

#[test]
fn ejections_grow_while_failures_follow_and_are_forgiven_one_by_one() {
    let mut scene = Scene::of(5);
    scene.fail(0, 5);
    let mut expected = 30;
    for _ in 0..14 {
        let lasted = lasts(&scene.judge());
        assert!(about(lasted, expected), "{lasted:?}, not {expected} s");
        expected = (expected + 30).min(300);
        assert!(scene.outliers.next_judgement() <= scene.now + lasted);
        scene.pass(lasted);
        assert!(scene.judge().contains(&Verdict::Returned));
        assert_eq!(
            scene.fail(0, 1),
            1,
            "on probation the first failure is told"
        );
    }
    let lasted = lasts(&scene.judge());
    scene.pass(lasted);
    scene.judge();
    scene.answer(0, 5);
    scene.pass(INTERVAL);
    assert_eq!(scene.judge(), [Verdict::Cleared]);
    for _ in 0..3 {
        scene.pass(INTERVAL);
        assert!(scene.judge().is_empty());
    }
    assert_eq!(scene.fail(0, 4), 0, "it may fail again as others may");
    scene.fail(0, 1);
    let lasted = lasts(&scene.judge());
    assert!(about(lasted, 300), "{lasted:?}: 15 ejections, 3 forgiven");
}

#[test]
fn a_bad_success_rate_ejects_at_the_end_of_the_interval() {
    let mut scene = Scene::of(6);
    for instance in 0..6 {
        for _ in 0..50 {
            scene.answer(instance, 3);
            scene.fail(instance, u32::from(instance == 4));
        }
    }
    assert!(scene.judge().is_empty());
    scene.pass(INTERVAL);
    let verdicts = scene.judge();
    assert!(about(lasts(&verdicts), 30));
    let rate = |verdict| match verdict {
        Verdict::Ejected {
            reason: Reason::Rate { own, mean },
            ..
        } => (own, mean),
        other => panic!("{other:?}"),
    };
    let (own, mean) = rate(verdicts[0]);
    assert!((own - 0.75).abs() < 1e-9 && mean > 0.95, "{own} of {mean}");
    assert_eq!(scene.records[4].standing(), Standing::Ejected);
}

#[test]
fn rates_of_few_calls_few_instances_or_small_gaps_eject_nobody() {
    for (instances, calls, failures) in [(4, 200, 100), (6, 90, 45), (6, 1_000, 40)] {
        let mut scene = Scene::of(instances);
        for instance in 0..instances {
            for call in 0..calls {
                let fails = instance == 0 && call % (calls / failures) == 0;
                if fails {
                    scene.fail(0, 1);
                } else {
                    scene.answer(instance, 1);
                }
            }
        }
        scene.pass(INTERVAL);
        assert!(scene.judge().is_empty(), "{instances} {calls} {failures}");
    }
}

#[test]
fn a_group_that_fails_as_a_whole_loses_one_in_ten_and_a_single_instance_never() {
    for (instances, most) in [(1, 0), (2, 1), (5, 1), (19, 1), (20, 2), (100, 10)] {
        let mut scene = Scene::of(instances);
        for _ in 0..3 {
            (0..instances).for_each(|instance| {
                scene.fail(instance, 50);
            });
            scene.judge();
            scene.pass(INTERVAL / 2);
        }
        assert_eq!(scene.ejected(), most, "of {instances}");
    }
}

#[test]
fn what_is_not_connected_is_not_ejected_and_comes_back_on_probation() {
    let mut scene = Scene::of(4);
    scene.connected[1] = false;
    scene.fail(1, 9);
    assert!(scene.judge().is_empty());
    scene.fail(2, 5);
    scene.judge();
    scene.connected[2] = false;
    assert_eq!(scene.judge(), [Verdict::Returned]);
    scene.connected[2] = true;
    assert!(scene.judge().is_empty());
    scene.fail(2, 1);
    assert!(about(lasts(&scene.judge()), 60));
}

#[test]
fn switched_off_it_lets_everyone_return() {
    let mut scene = Scene::of(4);
    scene.fail(1, 5);
    scene.judge();
    scene.policy.enabled = false;
    assert_eq!(scene.judge(), [Verdict::Cleared]);
    assert_eq!(scene.fail(1, 100), 0, "nothing is told");
    assert!(scene.judge().is_empty());
    scene.policy.enabled = true;
    assert!(scene.judge().is_empty(), "told again from now on");
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Answer(usize, u32),
    Fail(usize, u32),
    Connect(usize, bool),
    Pass(u64),
}

fn step(instances: usize) -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..instances, 1..200_u32).prop_map(|(i, n)| Step::Answer(i, n)),
        3 => (0..instances, 1..20_u32).prop_map(|(i, n)| Step::Fail(i, n)),
        1 => (0..instances, any::<bool>()).prop_map(|(i, up)| Step::Connect(i, up)),
        2 => (1..60_000_u64).prop_map(Step::Pass),
    ]
}

proptest! {
    /// Whatever happens: never more out than allowed, nobody for longer than
    /// the longest ejection, nobody who did not fail.
    #[test]
    fn ejections_stay_within_their_bounds(
        instances in 1..40_usize,
        percent in 1..=100_u32,
        steps in prop::collection::vec(step(40), 1..200),
    ) {
        let mut scene = Scene::of(instances);
        scene.policy.max_ejected_percent = percent;
        let mut failed = vec![false; instances];
        let mut out_since = vec![None; instances];
        for step in steps {
            match step {
                Step::Answer(i, n) => scene.answer(i % instances, n),
                Step::Fail(i, n) => {
                    scene.fail(i % instances, n);
                    failed[i % instances] = true;
                }
                Step::Connect(i, up) => scene.connected[i % instances] = up,
                Step::Pass(ms) => scene.pass(Duration::from_millis(ms)),
            }
            let due = scene.outliers.next_judgement() <= scene.now;
            let before = scene.ejected();
            let verdicts = scene.judge();
            prop_assert!(due || !verdicts.contains(&Verdict::Cleared));
            let connected = scene.connected.iter().filter(|up| **up).count();
            let most = ejected_max(connected, percent);
            prop_assert!(scene.ejected() <= most.max(before));
            for (instance, out_since) in out_since.iter_mut().enumerate() {
                if scene.records[instance].standing() != Standing::Ejected {
                    *out_since = None;
                    continue;
                }
                prop_assert!(failed[instance]);
                prop_assert!(scene.connected[instance]);
                let since = *out_since.get_or_insert(scene.now);
                let longest = EJECTION_MAX.mul_f64(1.0 + EJECTION_SPREAD);
                prop_assert!(scene.now - since < longest + Duration::from_secs(60));
            }
        }
    }
}
