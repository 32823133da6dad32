//! Waits for a peer that do not take a fault of this process, or of the network, for many of its peers'.
//!
//! A process that was stopped, or got no processor, finds that its timers are
//! over before it has read what came meanwhile. Peers that answered in time
//! would be taken for dead, all at once: so only time counts that this process
//! had, too. And when most peers of a service are silent at once, what they
//! have in common is likelier to fail, for a moment, than each of them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

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

/// The connections to one service.
#[derive(Debug, Default)]
pub(crate) struct Census {
    connections: AtomicUsize,
    /// Those whose peer has owed an answer for a step at least.
    silent: AtomicUsize,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Member {
    census: Arc<Census>,
}

/// Ends after a time.
#[derive(Debug)]
pub(crate) struct FairSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    wait: Wait,
    /// Of a wait for an answer.
    member: Option<Arc<Member>>,
    is_silent: bool,
    /// It waited once more, as most others were silent too.
    was_prolonged: bool,
}

/// What is left of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wait {
    whole: Duration,
    step: Duration,
    /// When the step under way should end.
    ends: Instant,
    steps_left: u32,
    /// Whether they count or not.
    in_any_case: u32,
}

// === impl Wait ===

impl Wait {
    fn of(time: Duration, now: Instant) -> Self {
        let steps = time.div_duration_f64(STEP_MAX).ceil().max(1.0) as u32;
        let step = time / steps;
        Self {
            whole: time,
            step,
            ends: now + step,
            steps_left: steps,
            in_any_case: steps.saturating_mul(STEPS_MOST),
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

// === impl Census ===

impl Census {
    fn most_are_silent(&self) -> bool {
        let silent = self.silent.load(Ordering::Relaxed);
        silent * 2 > self.connections.load(Ordering::Relaxed)
    }
}

impl Member {
    pub(crate) fn of(census: &Arc<Census>) -> Arc<Self> {
        census.connections.fetch_add(1, Ordering::Relaxed);
        Arc::new(Self {
            census: Arc::clone(census),
        })
    }

    /// Waits so long for an answer; twice as long when most others wait too.
    pub(crate) fn wait(self: &Arc<Self>, time: Duration) -> FairSleep {
        FairSleep::of(time, Some(Arc::clone(self)))
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.census.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

// === impl FairSleep ===

impl FairSleep {
    /// So long from now.
    pub(crate) fn after(time: Duration) -> Self {
        Self::of(time, None)
    }

    fn of(time: Duration, member: Option<Arc<Member>>) -> Self {
        let wait = Wait::of(time, Instant::now());
        Self {
            sleep: Box::pin(tokio::time::sleep_until(wait.ends)),
            wait,
            member,
            is_silent: false,
            was_prolonged: false,
        }
    }

    fn is_heard(&mut self) {
        if let Some(member) = self.member.as_ref().filter(|_| self.is_silent) {
            member.census.silent.fetch_sub(1, Ordering::Relaxed);
        }
        self.is_silent = false;
    }

    /// A step has ended. When the next does; `None` when the wait is over.
    fn step(&mut self, now: Instant) -> Option<Instant> {
        let next = self.wait.step(now);
        let Some(member) = &self.member else {
            return next;
        };
        if !std::mem::replace(&mut self.is_silent, true) {
            member.census.silent.fetch_add(1, Ordering::Relaxed);
        }
        if next.is_some() || self.was_prolonged || !member.census.most_are_silent() {
            return next;
        }
        self.was_prolonged = true;
        self.wait = Wait::of(self.wait.whole, now);
        Some(self.wait.ends)
    }
}

impl Future for FairSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.sleep.as_mut().poll(cx));
            let Some(next) = self.step(Instant::now()) else {
                return Poll::Ready(());
            };
            self.sleep.as_mut().reset(next);
        }
    }
}

impl Drop for FairSleep {
    fn drop(&mut self) {
        self.is_heard();
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

    /// How long peers have that owe an answer, so many of so many connections.
    async fn wait_for(silent: usize, connections: usize) -> Duration {
        let census = Arc::new(Census::default());
        let members: Vec<_> = (0..connections).map(|_| Member::of(&census)).collect();
        let begun = Instant::now();
        let waits = members[..silent]
            .iter()
            .map(|member| member.wait(ms(2_000)));
        let waits: Vec<_> = waits.map(tokio::spawn).collect();
        for wait in waits {
            wait.await.unwrap();
        }
        let took = begun.elapsed();
        drop(members);
        assert_eq!(census.silent.load(Ordering::Relaxed), 0);
        assert_eq!(census.connections.load(Ordering::Relaxed), 0);
        took
    }

    #[tokio::test(start_paused = true)]
    async fn when_most_are_silent_at_once_they_have_twice_the_time() {
        let cases = [
            (1, 5, 2),
            (3, 6, 2),
            (1, 2, 2),
            (4, 6, 4),
            (5, 5, 4),
            (1, 1, 4),
        ];
        for (silent, connections, seconds) in cases {
            let took = wait_for(silent, connections).await;
            assert_eq!(took.as_secs(), seconds, "{silent} of {connections}");
        }
    }
}
