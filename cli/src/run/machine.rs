//! Decides what becomes of a supervised program, from what happens to it (pure: no clock, no I/O).
//!
//! ```text
//! starting ──check passes──► serving ◄──► unready          (never deregistered for a check)
//!    │                          │ asked to stop, or retired
//!    │ too late, or asked       ▼
//!    │                       draining ──every caller let go, time over, or asked again──┐
//!    └──────────────────────────────────────────────────────────► stopping ◄────────────┘
//! any of these ──the program ends──► leaving, then the end; or waiting, then starting again
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use crate::run::ending::{ChildExit, Ending, Rejection};
use crate::run::event::{Effect, Input, Moment, News, Rules, Wish};
use crate::run::line::{Line, Why};
use crate::run::restarts::Restarts;
use crate::run::thresholds::Standing;

/// Between checks until the first one passes, unless they are to be made more
/// often anyway: a program is found soon after it can serve.
const STARTING_INTERVAL: Duration = Duration::from_millis(250);

/// A program that starts normally can serve by then; of one that cannot, the
/// reason is told.
const TOLD_AFTER: Duration = Duration::from_secs(5);

/// How long the registry may take to let the instance go. Its lease ends by
/// itself otherwise, and callers know from DRAINING or from their connection.
pub(crate) const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Beyond the time to drain: the answer that names those who held on comes when
/// that time is over.
const DRAIN_ANSWER_WITHIN: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// Not running.
    Waiting {
        until: Moment,
    },
    /// Runs, its check has not passed yet.
    Starting {
        until: Moment,
    },
    /// Its check has passed.
    Serving,
    /// Callers are told to let go of it.
    Draining {
        until: Moment,
    },
    /// It has been sent the stop signal; without a time, it has been killed.
    Stopping {
        until: Option<Moment>,
    },
    /// It has ended, and the registry is told.
    Leaving {
        until: Moment,
        ending: Ending,
    },
    Ended,
}

/// One supervised program.
#[derive(Debug)]
pub(crate) struct Machine {
    rules: Rules,
    state: State,
    /// Counts the runs of the program.
    run: u64,
    began: Moment,
    served_from: Option<Moment>,
    standing: Standing,
    /// When the next check is due; `None` while one is under way or none is.
    check_at: Option<Moment>,
    checked_at: Moment,
    last_failure: Option<String>,
    /// Whether it has been told that the check has not passed yet.
    delay_told: bool,
    /// Whether the trouble with what is wished now has been told.
    trouble_told: bool,
    wish: Wish,
    /// The run that the registry may still have an instance of.
    present: Option<u64>,
    why: Option<Why>,
    rejection: Option<Rejection>,
    last_ending: Option<Ending>,
    restarts: Restarts,
    effects: VecDeque<Effect>,
}

// === impl Machine ===

impl Machine {
    /// Wants to start the program with the first [`Input::Tick`].
    pub(crate) fn new(rules: Rules) -> Self {
        Self {
            restarts: Restarts::new(rules.restart_limit),
            rules,
            state: State::Waiting {
                until: Moment::ZERO,
            },
            run: 0,
            began: Moment::ZERO,
            served_from: None,
            standing: Standing::ready(),
            check_at: None,
            checked_at: Moment::ZERO,
            last_failure: None,
            delay_told: false,
            trouble_told: false,
            wish: Wish::Absent,
            present: None,
            why: None,
            rejection: None,
            last_ending: None,
            effects: VecDeque::new(),
        }
    }

    /// Takes what happened at `now`; the effects are to be carried out in
    /// their order.
    pub(crate) fn step(&mut self, now: Moment, input: Input) -> VecDeque<Effect> {
        if self.state == State::Ended {
            return VecDeque::new();
        }
        match input {
            Input::Started(process) => self.say(Line::Started { process }),
            Input::NotStarted(reason) => self.not_started(now, reason),
            Input::Checked { run, result } if run == self.run => self.checked(now, result),
            Input::StopAsked => self.stop_asked(now),
            Input::Exited(exit) => self.exited(now, exit),
            Input::Told {
                news: News::Retired,
                ..
            } => self.retired(now),
            Input::Told {
                run,
                news: News::Left(result),
            } => self.left(run, result),
            Input::Told { run, news } if run == self.run => self.told(now, news),
            // Of a run that is over.
            Input::Checked { .. } | Input::Told { .. } | Input::Tick => {}
        }
        self.pass_time(now);
        std::mem::take(&mut self.effects)
    }

    /// When it wants [`Input::Tick`] if nothing happens before.
    pub(crate) fn next_wake(&self) -> Option<Moment> {
        let deadline = match &self.state {
            State::Waiting { until }
            | State::Starting { until }
            | State::Draining { until }
            | State::Leaving { until, .. } => Some(*until),
            State::Stopping { until } => *until,
            State::Serving | State::Ended => None,
        };
        deadline.into_iter().chain(self.check_at).min()
    }

    fn pass_time(&mut self, now: Moment) {
        if self.check_at.is_some_and(|due| due <= now) {
            self.check_at = None;
            self.checked_at = now;
            self.effects.push_back(Effect::Check { run: self.run });
        }
        match self.state.clone() {
            State::Waiting { until } if until <= now => self.start(now),
            State::Starting { until } if until <= now => self.stop(now, Why::NotReady),
            State::Draining { until } if until <= now => {
                let reason = "the registry did not answer in time".to_owned();
                self.drained(now, Err(reason));
            }
            State::Stopping { until: Some(until) } if until <= now => self.kill(),
            State::Leaving { until, ending } if until <= now => self.end(ending),
            _ => {}
        }
    }

    fn start(&mut self, now: Moment) {
        self.run += 1;
        self.began = now;
        self.served_from = None;
        self.standing = Standing::ready();
        self.last_failure = None;
        self.delay_told = false;
        self.check_at = Some(now);
        self.state = State::Starting {
            until: now + self.rules.start_within,
        };
        self.effects.push_back(Effect::Start);
    }

    fn not_started(&mut self, now: Moment, reason: String) {
        if matches!(self.state, State::Starting { .. }) {
            self.say(Line::NotStarted {
                reason: reason.clone(),
            });
            self.over(now, Ending::NotStarted(reason), true);
        }
    }

    fn checked(&mut self, now: Moment, result: Result<(), String>) {
        let passed = result.is_ok();
        if let Err(reason) = result {
            self.last_failure = Some(reason);
        }
        let interval = match self.state {
            State::Starting { .. } if passed => {
                self.serve(now);
                self.rules.check_interval
            }
            State::Starting { .. } => {
                self.tell_delay(now);
                self.rules.check_interval.min(STARTING_INTERVAL)
            }
            State::Serving => {
                self.judge(passed);
                self.rules.check_interval
            }
            _ => return,
        };
        self.check_at = Some(now.max(self.checked_at + interval));
    }

    fn tell_delay(&mut self, now: Moment) {
        if !self.delay_told && now.saturating_sub(self.began) >= TOLD_AFTER {
            self.delay_told = true;
            let reason = self.last_failure.clone().unwrap_or_default();
            self.say(Line::NotYet { reason });
        }
    }

    fn serve(&mut self, now: Moment) {
        self.state = State::Serving;
        self.served_from = Some(now);
        self.say(Line::Passed {
            after: now.saturating_sub(self.began),
        });
        self.present = Some(self.run);
        self.wish(Wish::Ready);
    }

    fn judge(&mut self, passed: bool) {
        if !self.standing.take(passed, self.rules.thresholds) {
            return;
        }
        if self.standing.is_ready() {
            self.say(Line::Ready);
            self.wish(Wish::Ready);
        } else {
            self.say(Line::Unready {
                checks: self.rules.thresholds.unready_after.get(),
                reason: self.last_failure.clone().unwrap_or_default(),
            });
            self.wish(Wish::Unready);
        }
    }

    fn stop_asked(&mut self, now: Moment) {
        let is_repeated = self.why == Some(Why::Asked);
        match self.state.clone() {
            State::Draining { .. } if is_repeated => {
                self.say(Line::Hurried);
                self.stop(now, Why::Asked);
            }
            State::Stopping { until: Some(_) } if is_repeated => self.kill(),
            State::Leaving { ending, .. } if is_repeated => self.end(ending),
            _ => self.wind_up(now, Why::Asked),
        }
    }

    fn retired(&mut self, now: Moment) {
        if self.why.is_none() {
            self.wind_up(now, Why::Retired);
        }
    }

    /// From here on the program is not started again.
    fn wind_up(&mut self, now: Moment, why: Why) {
        match self.state {
            State::Waiting { .. } => {
                self.why = Some(why);
                let nothing = Ending::Child(ChildExit::Code(0));
                let ending = self.last_ending.take().unwrap_or(nothing);
                self.leave(now, ending);
            }
            State::Starting { .. } => self.stop(now, why),
            State::Serving => {
                self.say(Line::Draining {
                    why: why.clone(),
                    within: self.rules.drain_within,
                });
                self.why = Some(why);
                self.check_at = None;
                self.wish(Wish::Draining);
                self.state = State::Draining {
                    until: now + self.rules.drain_within + DRAIN_ANSWER_WITHIN,
                };
            }
            State::Draining { .. } | State::Stopping { .. } | State::Leaving { .. } => {
                self.why = Some(why);
            }
            State::Ended => {}
        }
    }

    fn stop(&mut self, now: Moment, why: Why) {
        self.say(Line::Stopping {
            why: why.clone(),
            within: self.rules.stop_within,
        });
        self.why = Some(why);
        self.check_at = None;
        self.effects.push_back(Effect::Stop);
        self.state = State::Stopping {
            until: Some(now + self.rules.stop_within),
        };
    }

    fn kill(&mut self) {
        self.say(Line::Killed);
        self.effects.push_back(Effect::Kill);
        self.state = State::Stopping { until: None };
    }

    fn told(&mut self, now: Moment, news: News) {
        match news {
            News::Registered => self.say(Line::Registered),
            News::Unregistered(reason) => self.say_trouble(Line::Unregistered { reason }),
            News::Untold(reason) => self.say_trouble(Line::Untold { reason }),
            News::Rejected(rejection) => {
                self.present = None;
                if matches!(self.state, State::Serving) {
                    self.rejection = Some(rejection);
                    self.stop(now, Why::Rejected);
                }
            }
            News::Drained(result) => {
                if matches!(self.state, State::Draining { .. }) {
                    self.drained(now, result);
                }
            }
            // These count for whatever run.
            News::Retired | News::Left(_) => {}
        }
    }

    /// Once for each wish.
    fn say_trouble(&mut self, line: Line) {
        if !self.trouble_told {
            self.trouble_told = true;
            self.say(line);
        }
    }

    fn drained(&mut self, now: Moment, result: Result<Vec<String>, String>) {
        self.say(Line::of_drain(result));
        self.stop(now, self.why.clone().unwrap_or(Why::Asked));
    }

    fn left(&mut self, run: u64, result: Result<(), String>) {
        if self.present.is_none_or(|present| run < present) {
            return;
        }
        self.present = None;
        self.say(match result {
            Ok(()) => Line::Deregistered,
            Err(reason) => Line::NotDeregistered { reason },
        });
        if let State::Leaving { ending, .. } = self.state.clone() {
            self.end(ending);
        }
    }

    fn exited(&mut self, now: Moment, exit: ChildExit) {
        if !self.is_running() {
            return;
        }
        self.say(Line::Exited { exit });
        let ending = match (&self.why, &self.rejection) {
            (Some(Why::Rejected), Some(rejection)) => Ending::Rejected(rejection.clone()),
            (Some(Why::NotReady), _) => {
                Ending::not_ready(self.rules.start_within, self.last_failure.as_deref())
            }
            _ => Ending::Child(exit),
        };
        let failed = !exit.is_success() || self.why == Some(Why::NotReady);
        self.over(now, ending, failed);
    }

    /// The program does not run any more.
    fn over(&mut self, now: Moment, ending: Ending, failed: bool) {
        self.check_at = None;
        if self.wish != Wish::Absent {
            self.wish(Wish::Absent);
        }
        let may_restart = matches!(self.why, None | Some(Why::NotReady));
        if may_restart && self.rules.restart.calls_for(failed) {
            let served = self.served_from.map(|from| now.saturating_sub(from));
            if let Some(wait) = self.restarts.next(served.unwrap_or_default()) {
                let nth = self.restarts.in_a_row();
                self.say(Line::Restarting { wait, nth });
                self.why = None;
                self.last_ending = Some(ending);
                self.state = State::Waiting { until: now + wait };
                return;
            }
            let restarts = self.restarts.in_a_row();
            self.say(Line::GaveUp { restarts });
        }
        self.leave(now, ending);
    }

    fn leave(&mut self, now: Moment, ending: Ending) {
        if self.present.is_none() {
            self.end(ending);
        } else {
            self.state = State::Leaving {
                until: now + LEAVE_WITHIN,
                ending,
            };
        }
    }

    fn end(&mut self, ending: Ending) {
        self.state = State::Ended;
        self.effects.push_back(Effect::End(ending));
    }

    fn is_running(&self) -> bool {
        !matches!(
            self.state,
            State::Waiting { .. } | State::Leaving { .. } | State::Ended
        )
    }

    fn wish(&mut self, wish: Wish) {
        self.wish = wish;
        self.trouble_told = false;
        let run = self.run;
        self.effects.push_back(Effect::Wish { run, wish });
    }

    fn say(&mut self, line: Line) {
        self.effects.push_back(Effect::Say(line));
    }
}
