//! What every command works with: the registry, the output, the time it has.

use std::time::Duration;

use tokio::time::Instant;
use trimtab_client::cluster::{Cluster, DEFAULT_DEADLINE};
use trimtab_client::operator::Operator;

use crate::arguments::{GlobalArgs, WAIT_DEFAULT};
use crate::failure::Failure;
use crate::output::Output;

/// One run of the command.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    pub(crate) operator: Operator,
    pub(crate) output: Output,
    started: Instant,
    timeout: Option<Duration>,
}

impl Session {
    /// Connects to nothing yet.
    pub(crate) fn new(global: &GlobalArgs, output: Output) -> Result<Self, Failure> {
        let cluster = Cluster::parse(&global.endpoints)?;
        let deadline = global.timeout.unwrap_or(DEFAULT_DEADLINE);
        Ok(Self {
            operator: Operator::new(cluster).with_deadline(deadline),
            output,
            started: Instant::now(),
            timeout: global.timeout,
        })
    }

    /// Tells a person that what was printed may be old.
    pub(crate) fn note_if_stale(&self, possibly_stale: bool) {
        if possibly_stale && !self.output.is_json() {
            self.output.warnings(&[
                "the replica asked is cut off from a leader: this may be old".to_owned(),
            ]);
        }
    }

    /// The time to try, if one was given.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// How much is left of the time to wait for a change to be everywhere.
    pub(crate) fn wait_left(&self) -> Duration {
        self.wait_total().saturating_sub(self.started.elapsed())
    }

    /// The time a change and the wait for it may take.
    pub(crate) fn wait_total(&self) -> Duration {
        self.timeout.unwrap_or(WAIT_DEFAULT)
    }
}
