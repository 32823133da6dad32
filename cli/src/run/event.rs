//! What happens to a supervised program, and what is to be done about it: the words of the machine.

use std::time::Duration;

use crate::run::ending::{ChildExit, Ending, Rejection};
use crate::run::line::Line;
use crate::run::restarts::Restart;
use crate::run::thresholds::Thresholds;

/// Time since the supervisor began.
pub(crate) type Moment = Duration;

/// What the operator has set.
#[derive(Debug, Clone)]
pub(crate) struct Rules {
    pub(crate) start_within: Duration,
    pub(crate) check_interval: Duration,
    pub(crate) thresholds: Thresholds,
    pub(crate) drain_within: Duration,
    pub(crate) stop_within: Duration,
    pub(crate) restart: Restart,
    pub(crate) restart_limit: u32,
}

/// What happens.
#[derive(Debug, Clone)]
pub(crate) enum Input {
    /// The program runs, by this process id.
    Started(u32),
    NotStarted(String),
    /// A check of the program's run of this number ended.
    Checked {
        run: u64,
        result: Result<(), String>,
    },
    /// SIGTERM or SIGINT.
    StopAsked,
    /// The program ended.
    Exited(ChildExit),
    /// What became of the wish for the run of this number.
    Told {
        run: u64,
        news: News,
    },
    /// Time has passed.
    Tick,
}

/// What the registrar has to say.
#[derive(Debug, Clone)]
pub(crate) enum News {
    Registered,
    /// Not yet, and it goes on trying.
    Unregistered(String),
    /// It is there, its status could not be told, and it goes on trying.
    Untold(String),
    Rejected(Rejection),
    /// The group is being torn down.
    Retired,
    /// Callers by name that have not let go; or why nobody knows.
    Drained(Result<Vec<String>, String>),
    /// It is not in the registry, or why that could not be told.
    Left(Result<(), String>),
}

/// What the registry is to say of the instance. The last wish counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Absent,
    /// STARTING, if it is there at all.
    Unready,
    Ready,
    Draining,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Start the program; answer [`Input::Started`] or [`Input::NotStarted`].
    Start,
    /// Check it; answer [`Input::Checked`].
    Check {
        run: u64,
    },
    Wish {
        run: u64,
        wish: Wish,
    },
    /// Send the stop signal to the program.
    Stop,
    /// Kill it and what it started.
    Kill,
    Say(Line),
    End(Ending),
}
