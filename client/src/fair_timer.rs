//! Waits for a peer in which only time counts that this process had, too.
//!
//! A process that was stopped, or got no processor, finds that its timers are
//! over before it has read what came meanwhile. Peers that answered in time
//! would be taken for dead, all at once.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::time::Instant;

/// A wait is divided into steps of this at most. Each has a timer of its own,
/// and between any two of them what has come is read.
const STEP_MAX: Duration = Duration::from_millis(250);

/// A step that ends later than this after its time does not count: this process
/// was not there.
const LATE_MAX: Duration = Duration::from_millis(50);

/// In a process that is always late every wait ends after so many times the
/// steps that it should have.
const STEPS_MOST: u32 = 5;

/// Longer times are no waits for a peer, but for the next occasion to ask.
const FAIR_MAX: Duration = Duration::from_secs(2);

/// The timer of an HTTP/2 connection: short times are fair to the peer.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct FairTimer;

/// Ends after a time.
#[derive(Debug)]
pub(crate) struct FairSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    wait: Wait,
}

/// What is left of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    step: Duration,
    /// When the step under way should end.
    ends: Instant,
    steps_left: u32,
    /// Whether they count or not.
    in_any_case: u32,
}

// === impl Wait ===

impl Wait {
    fn until(deadline: Instant, now: Instant) -> Self {
        let time = deadline.saturating_duration_since(now);
        let steps = match time > FAIR_MAX {
            true => 1,
            false => time.div_duration_f64(STEP_MAX).ceil().max(1.0) as u32,
        };
        let step = time / steps;
        Self {
            step,
            ends: now + step,
            steps_left: steps,
            in_any_case: match time > FAIR_MAX {
                true => 1,
                false => steps * STEPS_MOST,
            },
        }
    }

    /// A step has ended. When the next does; `None` when the wait is over.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        self.in_any_case = self.in_any_case.saturating_sub(1);
        if now.saturating_duration_since(self.ends) <= LATE_MAX {
            self.steps_left = self.steps_left.saturating_sub(1);
        }
        if self.steps_left == 0 || self.in_any_case == 0 {
            return None;
        }
        self.ends = now + self.step;
        Some(self.ends)
    }
}

// === impl FairSleep ===

impl FairSleep {
    /// So long from now.
    pub(crate) fn after(time: Duration) -> Self {
        let now = Instant::now();
        Self::until(now + time)
    }

    fn until(deadline: Instant) -> Self {
        let wait = Wait::until(deadline, Instant::now());
        let sleep = Box::pin(tokio::time::sleep_until(wait.ends));
        Self { sleep, wait }
    }

    fn reset(&mut self, deadline: Instant) {
        self.wait = Wait::until(deadline, Instant::now());
        self.sleep.as_mut().reset(self.wait.ends);
    }
}

impl Future for FairSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let Some(next) = self.wait.step(Instant::now()) else {
                return Poll::Ready(());
            };
            self.sleep.as_mut().reset(next);
        }
    }
}

impl Sleep for FairSleep {}

// === impl FairTimer ===

impl Timer for FairTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(FairSleep::after(duration))
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(FairSleep::until(deadline.into()))
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: std::time::Instant) {
        match sleep.as_mut().downcast_mut_pin::<FairSleep>() {
            Some(mut sleep) => sleep.reset(new_deadline.into()),
            None => *sleep = self.sleep_until(new_deadline),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn is_over(wait: &mut FairSleep) -> bool {
        let mut context = Context::from_waker(std::task::Waker::noop());
        Pin::new(wait).poll(&mut context).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_process_that_is_there_a_wait_takes_its_time() {
        for time in [ms(0), ms(1), ms(100), ms(1_000), ms(2_000), ms(5_000)] {
            let begun = Instant::now();
            FairSleep::after(time).await;
            let took = begun.elapsed();
            assert!(
                took >= time && took <= time + ms(10),
                "{took:?} of {time:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_was_stopped_gives_its_peers_their_time() {
        let mut wait = FairSleep::after(ms(2_000));
        assert!(!is_over(&mut wait));
        tokio::time::advance(Duration::from_secs(3_600)).await;
        assert!(!is_over(&mut wait), "the peer had no time");
        let begun = Instant::now();
        wait.await;
        assert!(begun.elapsed() >= ms(1_900), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_process_that_is_always_late_waits_end_nevertheless() {
        let mut wait = FairSleep::after(ms(2_000));
        let mut steps = 0;
        while !is_over(&mut wait) {
            tokio::time::advance(ms(400)).await;
            steps += 1;
        }
        assert_eq!(steps, 8 * STEPS_MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_can_begin_anew_and_a_long_one_is_one_timer() {
        let mut wait = FairTimer.sleep(Duration::from_secs(5));
        let now = Instant::now();
        FairTimer.reset(&mut wait, (now + ms(500)).into());
        wait.await;
        assert_eq!(now.elapsed().as_millis() / 10, 50);
        let long = Wait::until(now + Duration::from_secs(5), now);
        assert_eq!(long.in_any_case, 1);
    }
}
