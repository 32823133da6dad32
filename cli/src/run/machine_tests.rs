//! The supervisor's machine in every order of events, and in the few that matter most.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::time::Duration;

use proptest::prelude::*;

use crate::run::ending::{ChildExit, Ending, Rejection};
use crate::run::event::{Effect, Input, Moment, News, Rules, Wish};
use crate::run::line::{Line, Why};
use crate::run::machine::{LEAVE_WITHIN, Machine};
use crate::run::restarts::{FIRST, Restart};
use crate::run::thresholds::Thresholds;

const START: Duration = Duration::from_secs(60);
const DRAIN: Duration = Duration::from_secs(10);
const STOP: Duration = Duration::from_secs(8);

/// What the machine may take beyond those to wait for an answer.
const SLACK: Duration = Duration::from_secs(1);

fn rules(restart: Restart) -> Rules {
    Rules {
        start_within: START,
        check_interval: Duration::from_secs(2),
        thresholds: Thresholds {
            unready_after: NonZeroU32::new(3).unwrap(),
            ready_after: NonZeroU32::new(1).unwrap(),
        },
        drain_within: DRAIN,
        stop_within: STOP,
        restart,
        restart_limit: 3,
    }
}

/// A machine and the time, with what it did so far.
struct World {
    machine: Machine,
    now: Moment,
    run: u64,
    lives: bool,
    wish: Wish,
    /// The runs whose check passed.
    passed: Option<u64>,
    stopping_began: Option<Moment>,
    ended: Option<Ending>,
    said: Vec<Line>,
    done: Vec<Effect>,
}

impl World {
    fn new(restart: Restart) -> Self {
        let mut world = Self {
            machine: Machine::new(rules(restart)),
            now: Moment::ZERO,
            run: 0,
            lives: false,
            wish: Wish::Absent,
            passed: None,
            stopping_began: None,
            ended: None,
            said: Vec::new(),
            done: Vec::new(),
        };
        world.give(Input::Tick);
        world
    }

    /// As [`World::new`], with its check passed and registered.
    fn serving(restart: Restart) -> Self {
        let mut world = Self::new(restart);
        world.check(true);
        world.tell(News::Registered);
        world
    }

    fn give(&mut self, input: Input) {
        let effects = self.machine.step(self.now, input);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: VecDeque<Effect>) {
        for effect in effects {
            assert_eq!(self.ended, None, "{effect:?} after the end");
            match &effect {
                Effect::Start => {
                    assert!(!self.lives, "two at once");
                    assert_eq!(self.wish, Wish::Absent);
                    assert_eq!(self.stopping_began, None, "started after it was to stop");
                    self.run += 1;
                    self.lives = true;
                }
                Effect::Check { run } => assert_eq!(*run, self.run),
                Effect::Wish { run, wish } => {
                    assert_eq!(*run, self.run);
                    if *wish != Wish::Absent {
                        assert!(self.lives, "{wish:?} of one that is dead");
                        assert_eq!(self.passed, Some(self.run), "{wish:?} without a check");
                    }
                    self.wish = *wish;
                }
                Effect::Stop | Effect::Kill => assert!(self.lives),
                Effect::Say(line) => self.said.push(line.clone()),
                Effect::End(ending) => {
                    assert!(!self.lives, "ended before the program");
                    assert_eq!(self.wish, Wish::Absent);
                    self.ended = Some(ending.clone());
                }
            }
            self.done.push(effect.clone());
            if effect == Effect::Start {
                self.give(Input::Started(4711));
            }
        }
    }

    fn check(&mut self, passed: bool) {
        if passed && self.lives {
            self.passed = Some(self.run);
        }
        let result = if passed {
            Ok(())
        } else {
            Err("refused".into())
        };
        let run = self.run;
        self.give(Input::Checked { run, result });
    }

    fn tell(&mut self, news: News) {
        let run = self.run;
        self.give(Input::Told { run, news });
    }

    fn ask_to_stop(&mut self) {
        self.stopping_began.get_or_insert(self.now);
        self.give(Input::StopAsked);
    }

    fn exit(&mut self, exit: ChildExit) {
        if self.lives {
            self.lives = false;
            self.give(Input::Exited(exit));
            assert_eq!(self.wish, Wish::Absent, "known to be dead, and not told");
        }
    }

    fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        let mut at_once = 0;
        while let Some(wake) = self.machine.next_wake().filter(|wake| *wake <= until) {
            at_once = if wake <= self.now { at_once + 1 } else { 0 };
            assert!(at_once < 4, "it does not come to rest");
            self.now = self.now.max(wake);
            self.give(Input::Tick);
        }
        self.now = until;
    }

    fn take(&mut self) -> Vec<Effect> {
        let mut done = std::mem::take(&mut self.done);
        done.retain(|effect| !matches!(effect, Effect::Say(_)));
        done
    }
}

fn wish(run: u64, wish: Wish) -> Effect {
    Effect::Wish { run, wish }
}

#[test]
fn it_is_registered_when_its_check_passes_and_not_before() {
    let mut world = World::new(Restart::Never);
    assert_eq!(world.take(), [Effect::Start, Effect::Check { run: 1 }]);
    world.check(false);
    assert_eq!(world.take(), []);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.take(), [Effect::Check { run: 1 }]);
    world.check(true);
    assert_eq!(world.take(), [wish(1, Wish::Ready)]);
}

#[test]
fn callers_let_go_before_the_program_is_told_and_the_registry_forgets_it_last() {
    let mut world = World::serving(Restart::Always);
    world.take();
    world.ask_to_stop();
    assert_eq!(world.take(), [wish(1, Wish::Draining)]);
    world.pass(DRAIN / 2);
    assert_eq!(world.take(), []);
    world.tell(News::Drained(Ok(Vec::new())));
    assert_eq!(world.take(), [Effect::Stop]);
    world.exit(ChildExit::Signal(15));
    assert_eq!(world.take(), [wish(1, Wish::Absent)]);
    world.tell(News::Left(Ok(())));
    let end = Effect::End(Ending::Child(ChildExit::Signal(15)));
    assert_eq!(world.take(), [end]);
}

#[test]
fn each_further_request_skips_one_wait() {
    let mut world = World::serving(Restart::Never);
    world.ask_to_stop();
    world.take();
    world.ask_to_stop();
    assert_eq!(world.take(), [Effect::Stop]);
    world.ask_to_stop();
    assert_eq!(world.take(), [Effect::Kill]);
    world.ask_to_stop();
    assert_eq!(world.take(), []);
    world.exit(ChildExit::Signal(9));
    world.take();
    world.ask_to_stop();
    let end = Effect::End(Ending::Child(ChildExit::Signal(9)));
    assert_eq!(world.take(), [end]);
}

#[test]
fn neither_callers_nor_the_program_nor_the_registry_hold_up_the_end() {
    let mut world = World::serving(Restart::Never);
    world.ask_to_stop();
    world.take();
    world.pass(DRAIN + SLACK);
    assert_eq!(world.take(), [Effect::Stop]);
    world.pass(STOP);
    assert_eq!(world.take(), [Effect::Kill]);
    world.exit(ChildExit::Signal(9));
    world.pass(LEAVE_WITHIN);
    assert!(world.ended.is_some());
}

#[test]
fn a_flapping_check_changes_its_status_and_never_takes_it_out() {
    let mut world = World::serving(Restart::Never);
    world.take();
    for _ in 0..2 {
        for _ in 0..5 {
            world.check(false);
        }
        assert_eq!(world.take(), [wish(1, Wish::Unready)]);
        world.check(true);
        assert_eq!(world.take(), [wish(1, Wish::Ready)]);
        world.check(false);
        world.check(false);
        world.check(true);
        assert_eq!(world.take(), []);
    }
}

#[test]
fn one_that_is_never_ready_is_ended_and_says_why() {
    let mut world = World::new(Restart::Never);
    while world.now < START {
        world.check(false);
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.take().last(), Some(&Effect::Stop));
    world.exit(ChildExit::Code(0));
    let Some(Ending::NotReady(reason)) = &world.ended else {
        panic!("{:?}", world.ended);
    };
    assert!(reason.contains("60.0 s: refused"), "{reason}");
    let told = |line: &&Line| matches!(line, Line::NotYet { .. });
    assert_eq!(world.said.iter().filter(told).count(), 1);
}

#[test]
fn a_restart_registers_anew_and_ends_with_the_limit() {
    let mut world = World::serving(Restart::OnFailure);
    world.take();
    for nth in 1..=3_u32 {
        world.exit(ChildExit::Code(3));
        assert_eq!(world.take().last(), Some(&wish(nth.into(), Wish::Absent)));
        world.tell(News::Left(Ok(())));
        world.pass(FIRST * 2_u32.pow(nth - 1));
        assert_eq!(world.take().first(), Some(&Effect::Start));
        world.check(true);
        world.take();
    }
    world.exit(ChildExit::Code(3));
    world.tell(News::Left(Ok(())));
    assert_eq!(world.ended, Some(Ending::Child(ChildExit::Code(3))));
    assert!(world.said.contains(&Line::GaveUp { restarts: 3 }));
}

#[test]
fn what_ended_well_is_started_again_only_when_always() {
    let mut world = World::serving(Restart::OnFailure);
    world.exit(ChildExit::Code(0));
    world.tell(News::Left(Ok(())));
    assert_eq!(world.ended, Some(Ending::Child(ChildExit::Code(0))));
    let mut world = World::serving(Restart::Always);
    world.exit(ChildExit::Code(0));
    world.pass(FIRST);
    assert!(world.lives);
}

#[test]
fn a_retired_one_drains_and_is_not_started_again() {
    let mut world = World::serving(Restart::Always);
    world.take();
    world.tell(News::Retired);
    world.tell(News::Retired);
    assert_eq!(world.take(), [wish(1, Wish::Draining)]);
    // Asked for the first time: that hurries nothing.
    world.ask_to_stop();
    assert_eq!(world.take(), []);
    world.tell(News::Drained(Ok(vec!["web-1/7".into()])));
    world.exit(ChildExit::Code(0));
    world.tell(News::Left(Ok(())));
    assert_eq!(world.ended, Some(Ending::Child(ChildExit::Code(0))));
}

#[test]
fn one_that_the_registry_refuses_is_ended() {
    let mut world = World::new(Restart::Always);
    world.check(true);
    let refused = Rejection::Refused("v42 is being torn down".into());
    world.tell(News::Rejected(refused.clone()));
    world.exit(ChildExit::Signal(15));
    assert_eq!(world.ended, Some(Ending::Rejected(refused)));
    assert!(world.said.contains(&Line::Stopping {
        why: Why::Rejected,
        within: STOP
    }));
}

#[test]
fn trouble_with_the_registry_is_told_once() {
    let mut world = World::new(Restart::Never);
    world.check(true);
    for _ in 0..3 {
        world.tell(News::Unregistered("nobody there".into()));
    }
    world.tell(News::Registered);
    let told = |line: &&Line| matches!(line, Line::Unregistered { .. });
    assert_eq!(world.said.iter().filter(told).count(), 1);
}

#[test]
fn asked_while_it_waits_to_start_again_it_ends_as_the_program_did() {
    let mut world = World::serving(Restart::Always);
    world.exit(ChildExit::Code(9));
    world.tell(News::Left(Ok(())));
    world.ask_to_stop();
    assert_eq!(world.ended, Some(Ending::Child(ChildExit::Code(9))));
}

#[derive(Debug, Clone)]
enum Happening {
    Checked(bool),
    OldCheck,
    StopAsked,
    Exited(ChildExit),
    Told(News),
    ToldOfBefore(News),
    Passed(u64),
}

fn news() -> impl Strategy<Value = News> {
    prop_oneof![
        Just(News::Registered),
        Just(News::Unregistered("away".into())),
        Just(News::Untold("away".into())),
        Just(News::Rejected(Rejection::Invalid("service".into()))),
        Just(News::Retired),
        Just(News::Drained(Ok(Vec::new()))),
        Just(News::Drained(Err("away".into()))),
        Just(News::Left(Ok(()))),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        6 => any::<bool>().prop_map(Happening::Checked),
        1 => Just(Happening::OldCheck),
        1 => Just(Happening::StopAsked),
        2 => (0_u8..3).prop_map(|code| Happening::Exited(ChildExit::Code(code))),
        3 => news().prop_map(Happening::Told),
        1 => news().prop_map(Happening::ToldOfBefore),
        6 => (0_u64..20_000).prop_map(Happening::Passed),
    ]
}

fn restart() -> impl Strategy<Value = Restart> {
    prop_oneof![
        Just(Restart::Never),
        Just(Restart::OnFailure),
        Just(Restart::Always)
    ]
}

proptest! {
    /// What must never happen is asserted where effects are carried out.
    #[test]
    fn whatever_happens_it_ends_in_time_once_asked(
        happenings in prop::collection::vec(happening(), 0..60),
        restart in restart(),
    ) {
        let mut world = World::new(restart);
        for happening in happenings {
            let before = world.run.saturating_sub(1);
            match happening {
                Happening::Checked(passed) => world.check(passed),
                Happening::OldCheck => {
                    world.give(Input::Checked { run: before, result: Ok(()) });
                }
                Happening::StopAsked => world.ask_to_stop(),
                Happening::Exited(exit) => world.exit(exit),
                Happening::Told(news) => world.tell(news),
                Happening::ToldOfBefore(News::Retired) => {}
                Happening::ToldOfBefore(news) => {
                    world.give(Input::Told { run: before, news });
                }
                Happening::Passed(millis) => world.pass(Duration::from_millis(millis)),
            }
        }
        world.ask_to_stop();
        world.pass(DRAIN + SLACK + STOP);
        world.exit(ChildExit::Signal(9));
        world.pass(LEAVE_WITHIN);
        prop_assert!(world.ended.is_some(), "{:?}", world.machine);
    }
}
