//! Makes the registry say of the program what is wished: one request after another, the last wish counts.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use trimtab_client::error::Error;
use trimtab_client::registration::{Readiness, Registration, RegistrationBuilder};

use crate::run::ending::Rejection;
use crate::run::event::{News, Wish};

/// How long one attempt to register looks for a replica.
const ATTEMPT: Duration = Duration::from_secs(5);

/// Between attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// How long an attempt that nobody wants any more may go on: what it has begun
/// must be known to be undone.
const SETTLE: Duration = Duration::from_secs(1);

/// What is wished of which run of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) run: u64,
    pub(crate) wish: Wish,
}

/// One instance, registered or not.
pub(crate) struct Registrar {
    instance: RegistrationBuilder,
    drain_within: Duration,
    wanted: watch::Receiver<Wanted>,
    news: mpsc::Sender<(u64, News)>,
    held: Option<Held>,
}

/// A registration, and what it says.
struct Held {
    run: u64,
    registration: Registration,
    readiness: Readiness,
    /// Whether it has been told that it is to leave.
    retired: bool,
}

impl Registrar {
    pub(crate) fn new(
        instance: RegistrationBuilder,
        drain_within: Duration,
        wanted: watch::Receiver<Wanted>,
        news: mpsc::Sender<(u64, News)>,
    ) -> Self {
        Self {
            instance: instance.within(ATTEMPT),
            drain_within,
            wanted,
            news,
            held: None,
        }
    }

    /// Runs until nobody wishes any more.
    pub(crate) async fn run(mut self) {
        loop {
            let wanted = *self.wanted.borrow_and_update();
            let is_done = self.make_so(wanted).await;
            if !self.wait(is_done).await {
                return;
            }
        }
    }

    /// Returns whether it is as wished; if not, it is to be tried again.
    async fn make_so(&mut self, wanted: Wanted) -> bool {
        let is_outdated = |held: &Held| held.run != wanted.run || wanted.wish == Wish::Absent;
        let mut left = Ok(());
        if self.held.as_ref().is_some_and(is_outdated) {
            left = self.leave().await;
        }
        match wanted.wish {
            Wish::Absent => {
                self.tell(wanted.run, News::Left(left)).await;
                true
            }
            Wish::Draining => {
                self.drain(wanted.run).await;
                true
            }
            Wish::Ready if self.held.is_none() => self.register(wanted.run).await,
            Wish::Ready => self.set(Readiness::Ready).await,
            Wish::Unready => self.set(Readiness::Starting).await,
        }
    }

    /// Waits for another wish, for word from the registry, or for the time to
    /// try again. Returns whether anybody wishes.
    async fn wait(&mut self, is_done: bool) -> bool {
        let held = self.held.as_mut().filter(|held| !held.retired);
        let retired = async {
            match held {
                Some(held) => {
                    held.registration.retired().await;
                    held.retired = true;
                    held.run
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = self.wanted.changed() => return changed.is_ok(),
            run = retired => self.tell(run, News::Retired).await,
            () = sleep(PAUSE), if !is_done => {}
        }
        true
    }

    async fn register(&mut self, run: u64) -> bool {
        let start = self.instance.clone().start();
        tokio::pin!(start);
        let started = tokio::select! {
            started = &mut start => Some(started),
            _ = self.wanted.changed() => {
                // Looked at next.
                self.wanted.mark_changed();
                timeout(SETTLE, start).await.ok()
            }
        };
        match started {
            Some(Ok(registration)) => {
                self.held = Some(Held {
                    run,
                    registration,
                    readiness: Readiness::Ready,
                    retired: false,
                });
                self.tell(run, News::Registered).await;
            }
            Some(Err(error)) => return self.not_registered(run, error).await,
            None => {}
        }
        true
    }

    async fn not_registered(&self, run: u64, error: Error) -> bool {
        let rejection = match error {
            Error::Refused(reason) => Rejection::Refused(reason),
            Error::Invalid(reason) => Rejection::Invalid(reason),
            error => {
                self.tell(run, News::Unregistered(error.to_string())).await;
                return false;
            }
        };
        self.tell(run, News::Rejected(rejection)).await;
        true
    }

    async fn set(&mut self, readiness: Readiness) -> bool {
        let Some(held) = self.held.as_mut().filter(|it| it.readiness != readiness) else {
            return true;
        };
        match held.registration.set_readiness(readiness).await {
            Ok(()) => {
                held.readiness = readiness;
                true
            }
            Err(error) => {
                let run = held.run;
                self.tell(run, News::Untold(error.to_string())).await;
                false
            }
        }
    }

    async fn drain(&mut self, run: u64) {
        let Some(held) = &self.held else {
            return self.tell(run, News::Drained(Ok(Vec::new()))).await;
        };
        let drained = tokio::select! {
            drained = held.registration.stop_calls(self.drain_within) => drained,
            _ = self.wanted.changed() => {
                // Looked at next.
                self.wanted.mark_changed();
                return;
            }
        };
        let laggards = drained.map(|drained| drained.laggards);
        let laggards = laggards.map_err(|error| error.to_string());
        self.tell(run, News::Drained(laggards)).await;
    }

    async fn leave(&mut self) -> Result<(), String> {
        match self.held.take() {
            Some(held) => held.registration.deregister().await,
            None => Ok(()),
        }
        .map_err(|error| error.to_string())
    }

    async fn tell(&self, run: u64, news: News) {
        // Nobody listens any more only when it is all over.
        let _ = self.news.send((run, news)).await;
    }
}
