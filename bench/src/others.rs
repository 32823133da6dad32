//! tower's balancer over services that are always ready and do nothing.
//!
//! tonic's `Channel::balance_list` and `balance_channel` put this balancer, with
//! a load that is always the same, behind a buffer and a task of their own:
//! each call goes through a channel to that task, which makes the choice that
//! is measured here. What it costs beyond the choice is not held against it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{self, Iter};
use tower::Service;
use tower::balance::p2c::Balance;
use tower::discover::Change;
use tower::load::{CompleteOnResponse, Constant, PeakEwma};

/// Is ready, and answers at once.
#[derive(Debug, Clone, Copy)]
pub struct Nothing;

type Found<S> = Iter<std::vec::IntoIter<Result<Change<usize, S>, Infallible>>>;

/// As tonic has it: two at random, with the same load.
pub type Unweighed = Balance<Found<Constant<Nothing, u32>>, ()>;
/// With tower's peak-EWMA latency times calls in flight.
pub type Weighed = Balance<Found<PeakEwma<Nothing>>, ()>;

/// tower's balancer with tonic's idea of load.
pub fn unweighed(instances: usize) -> Unweighed {
    Balance::new(found(instances, || Constant::new(Nothing, 1)))
}

/// tower's balancer with peak-EWMA.
pub fn weighed(instances: usize) -> Weighed {
    /// What tower's documentation suggests.
    const DECAY_NANOSECONDS: f64 = 10e9;
    /// Taken for the latency of who has not answered yet.
    const FIRST: Duration = Duration::from_millis(1);
    let service = || {
        let completion = CompleteOnResponse::default();
        PeakEwma::new(Nothing, FIRST, DECAY_NANOSECONDS, completion)
    };
    Balance::new(found(instances, service))
}

fn found<S>(instances: usize, service: impl Fn() -> S) -> Found<S> {
    let found = (0..instances).map(|number| Ok(Change::Insert(number, service())));
    stream::iter(found.collect::<Vec<_>>())
}

impl Service<()> for Nothing {
    type Response = ();
    type Error = Infallible;
    type Future = Ready<Result<(), Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Ok(()))
    }
}
