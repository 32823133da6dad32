//! Carries out what the machine decides: processes, signals, checks, time and the way to the registry.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::signal::unix::{Signal as Signals, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;
use trimtab_client::registration::RegistrationBuilder;

use crate::run::check::Check;
use crate::run::child::{Process, Program, reap};
use crate::run::ending::Ending;
use crate::run::event::{Effect, Input, Rules, Wish};
use crate::run::journal::Journal;
use crate::run::machine::Machine;
use crate::run::registrar::{Registrar, Wanted};

/// What the program gets as it comes. Those that stop it, or that tell of its
/// end, are the supervisor's own.
const PASSED_ON: [(SignalKind, Signal); 6] = [
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
    (SignalKind::window_change(), Signal::WINCH),
    (SignalKind::alarm(), Signal::ALARM),
];

/// Signals not yet passed on: more at once are one too many to matter, as for
/// the system itself.
const SIGNALS_QUEUED_MAX: usize = 64;

/// The registrar waits when there is more.
const NEWS_QUEUED_MAX: usize = 8;

/// What it takes to supervise a program.
pub(crate) struct Plan {
    pub(crate) program: Program,
    pub(crate) instance: RegistrationBuilder,
    pub(crate) check: Check,
    pub(crate) check_timeout: Duration,
    pub(crate) stop_signal: Signal,
    pub(crate) rules: Rules,
    pub(crate) journal: Journal,
}

/// A supervisor at work.
struct Shell {
    program: Program,
    check: Arc<Check>,
    check_timeout: Duration,
    stop_signal: Signal,
    journal: Journal,
    machine: Machine,
    began: Instant,
    process: Option<Process>,
    /// At most one is under way.
    checking: Option<AbortOnDropHandle<()>>,
    checked: mpsc::Sender<Input>,
    wanted: watch::Sender<Wanted>,
    ending: Option<Ending>,
}

/// Runs the program to its end, or to that of its group.
///
/// To be awaited by the thread that lives longest: the program dies with the
/// thread that started it.
///
/// # Errors
/// When the signals cannot be listened for.
pub(crate) async fn supervise(plan: Plan) -> io::Result<Ending> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut child = signal(SignalKind::child())?;
    let mut passed_on = listen()?;
    let (told, mut news) = mpsc::channel(NEWS_QUEUED_MAX);
    let (checked, mut results) = mpsc::channel(1);
    let wish = Wish::Absent;
    let (wanted, wishes) = watch::channel(Wanted { run: 0, wish });
    let registrar = Registrar::new(plan.instance, plan.rules.drain_within, wishes, told);
    let _registrar = AbortOnDropHandle::new(tokio::spawn(registrar.run()));
    let mut shell = Shell {
        program: plan.program,
        check: Arc::new(plan.check),
        check_timeout: plan.check_timeout,
        stop_signal: plan.stop_signal,
        journal: plan.journal,
        machine: Machine::new(plan.rules),
        began: Instant::now(),
        process: None,
        checking: None,
        checked,
        wanted,
        ending: None,
    };
    let mut input = Input::Tick;
    loop {
        if let Some(ending) = shell.take(input) {
            return Ok(ending);
        }
        input = tokio::select! {
            _ = terminate.recv() => Input::StopAsked,
            _ = interrupt.recv() => Input::StopAsked,
            _ = child.recv() => shell.reap(),
            Some(signal) = passed_on.recv() => {
                shell.pass_on(signal);
                Input::Tick
            }
            Some((run, news)) = news.recv() => Input::Told { run, news },
            Some(result) = results.recv() => result,
            () = shell.next_wake() => Input::Tick,
        };
    }
}

/// Every signal that is passed on, as it comes.
fn listen() -> io::Result<mpsc::Receiver<Signal>> {
    let (sender, receiver) = mpsc::channel(SIGNALS_QUEUED_MAX);
    for (kind, passed) in PASSED_ON {
        let mut signals: Signals = signal(kind)?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                if sender.send(passed).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

impl Shell {
    /// Gives the machine `input` and does what it says; the ending, when that
    /// is one.
    fn take(&mut self, input: Input) -> Option<Ending> {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            for effect in self.machine.step(self.began.elapsed(), input) {
                inputs.extend(self.carry_out(effect));
            }
        }
        self.ending.take()
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Start => return Some(self.start()),
            Effect::Check { run } => self.ask(run),
            Effect::Wish { run, wish } => {
                self.wanted.send_replace(Wanted { run, wish });
            }
            Effect::Stop => self.pass_on(self.stop_signal),
            Effect::Kill => {
                if let Some(process) = self.process {
                    process.kill();
                }
            }
            Effect::Say(line) => self.journal.say(&line),
            Effect::End(ending) => self.ending = Some(ending),
        }
        None
    }

    fn start(&mut self) -> Input {
        match self.program.start() {
            Ok(process) => {
                self.process = Some(process);
                Input::Started(process.id())
            }
            Err(error) => Input::NotStarted(error.to_string()),
        }
    }

    /// A check of an earlier run that is still under way is given up.
    fn ask(&mut self, run: u64) {
        let (check, within) = (Arc::clone(&self.check), self.check_timeout);
        let checked = self.checked.clone();
        let asking = tokio::spawn(async move {
            let result = check.ask(within).await;
            let _ = checked.send(Input::Checked { run, result }).await;
        });
        self.checking = Some(AbortOnDropHandle::new(asking));
    }

    fn pass_on(&self, signal: Signal) {
        if let Some(process) = self.process {
            process.signal(signal);
        }
    }

    fn reap(&mut self) -> Input {
        match reap(self.process) {
            Some(exit) => {
                self.process = None;
                Input::Exited(exit)
            }
            None => Input::Tick,
        }
    }

    async fn next_wake(&self) {
        match self.machine.next_wake() {
            Some(moment) => sleep_until(self.began + moment).await,
            None => std::future::pending().await,
        }
    }
}
