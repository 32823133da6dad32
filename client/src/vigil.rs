//! Wakes calls that wait for long, to the second: what nearly no call needs is to cost all of them next to nothing.
//!
//! A timer of the runtime costs more than all else that a call does about its
//! time. Here a call that is waited for leaves its waker, and takes it back
//! when it ends; once in a while somebody looks who is still here.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rand::RngExt;
use tokio::time::Instant;

use crate::chance;

/// How often somebody looks.
pub(crate) const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// Threads that call at the same time rarely meet in one of so many parts.
const PARTS: usize = 16;

/// Everybody who waits.
#[derive(Debug, Default)]
pub(crate) struct Vigil {
    parts: [Part; PARTS],
}

/// On a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Part(Mutex<Seats>);

/// As many as have ever waited at once.
#[derive(Debug, Default)]
struct Seats {
    seats: Vec<Seat>,
    free: Vec<usize>,
}

#[derive(Debug)]
struct Seat {
    until: Instant,
    /// `None`: woken, or nobody sits here.
    waker: Option<Waker>,
}

/// One that waits, once it was polled. Leaves when dropped.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    vigil: &'a Vigil,
    until: Instant,
    /// Part and seat.
    place: Option<(usize, usize)>,
}

// === impl Vigil ===

impl Vigil {
    /// To be woken after `until`, within [`LOOKS_EVERY`].
    pub(crate) fn watch(&self, until: Instant) -> Watch<'_> {
        Watch {
            vigil: self,
            until,
            place: None,
        }
    }

    /// Wakes those whose time is over.
    pub(crate) fn look(&self, now: Instant) {
        let mut woken = Vec::new();
        for part in &self.parts {
            let mut part = part.seats();
            let late = part.seats.iter_mut().filter(|seat| seat.until <= now);
            woken.extend(late.filter_map(|seat| seat.waker.take()));
        }
        woken.into_iter().for_each(Waker::wake);
    }
}

impl Part {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Watch ===

impl Watch<'_> {
    /// Ready when the time is over.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.place {
            None => {
                self.sit_down(cx.waker().clone());
                Poll::Pending
            }
            Some(_) if self.until <= Instant::now() => Poll::Ready(()),
            Some((part, seat)) => {
                let mut part = self.vigil.parts[part].seats();
                if let Some(seat) = part.seats.get_mut(seat) {
                    seat.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }

    fn sit_down(&mut self, waker: Waker) {
        let number = chance::with(|rng| rng.random_range(0..PARTS));
        let mut part = self.vigil.parts[number].seats();
        let seat = Seat {
            until: self.until,
            waker: Some(waker),
        };
        let place = match part.free.pop() {
            Some(place) => {
                part.seats[place] = seat;
                place
            }
            None => {
                part.seats.push(seat);
                part.seats.len() - 1
            }
        };
        self.place = Some((number, place));
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if let Some((part, place)) = self.place {
            let mut part = self.vigil.parts[part].seats();
            let waker = part.seats.get_mut(place).and_then(|it| it.waker.take());
            part.free.push(place);
            drop(part);
            drop(waker);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::future::poll_fn;
    use std::sync::Arc;

    fn seats(vigil: &Vigil) -> (usize, usize) {
        let count = |part: &Part| {
            let part = part.seats();
            (part.seats.len(), part.free.len())
        };
        let parts = vigil.parts.iter().map(count);
        parts.fold((0, 0), |(all, free), part| (all + part.0, free + part.1))
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_is_woken_when_its_time_is_over_and_not_before() {
        let vigil = Arc::new(Vigil::default());
        let begun = Instant::now();
        let waiting: Vec<_> = (1..=100)
            .map(|number| {
                let vigil = Arc::clone(&vigil);
                let until = begun + Duration::from_millis(number * 100);
                tokio::spawn(async move {
                    let mut watch = vigil.watch(until);
                    poll_fn(|cx| watch.poll(cx)).await;
                    assert!(until <= Instant::now());
                    assert!(Instant::now() < until + LOOKS_EVERY * 2);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        for _ in 0..11 {
            tokio::time::sleep(LOOKS_EVERY).await;
            vigil.look(Instant::now());
        }
        for waited in waiting {
            waited.await.unwrap();
        }
        let (all, free) = seats(&vigil);
        assert_eq!((all, free), (100, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn seats_are_used_again() {
        let vigil = Vigil::default();
        let mut context = Context::from_waker(Waker::noop());
        for _ in 0..10_000 {
            let mut watch = vigil.watch(Instant::now() + LOOKS_EVERY);
            assert!(watch.poll(&mut context).is_pending());
            assert!(watch.poll(&mut context).is_pending());
        }
        let (all, free) = seats(&vigil);
        assert!(all <= PARTS && all == free, "{all} seats, {free} free");
    }
}
