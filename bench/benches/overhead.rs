//! How much more a call through the balancer costs than one over a bare channel of tonic.
//!
//! The two are made by turns, five hundred calls at a time, and each turn is
//! compared with the one beside it: what else runs on the machine, and how
//! fast its clock runs, falls on both. Of all the comparisons the one in the
//! middle is told, for processor time of the caller's thread and for the time
//! that passed.

#![allow(clippy::print_stdout, reason = "that is what it is for")]

use std::time::{Duration, Instant};

use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::{Body as HttpBody, Bytes, StdError};
use trimtab_bench::calling::{Callers, spend};
use trimtab_proto::demo::v1::catalog_client::CatalogClient;

/// Calls in one turn.
const CALLS: u64 = 500;
/// Turns of each kind.
const TURNS: usize = 100;

/// One turn: time of the thread, and time that passed, for each call.
#[derive(Clone, Copy)]
struct Turn {
    thread: Duration,
    passed: Duration,
}

fn turn<C>(callers: &Callers, client: &CatalogClient<C>, at_once: u64) -> Turn
where
    C: GrpcService<Body> + Clone + Send + 'static,
    C::Error: Into<StdError>,
    C::Future: Send,
    C::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <C::ResponseBody as HttpBody>::Error: Into<StdError> + Send,
{
    let begun = Instant::now();
    let spent = callers.runtime.block_on(spend(client, CALLS, at_once));
    let calls = u32::try_from(CALLS).unwrap_or(u32::MAX);
    Turn {
        thread: spent / calls,
        passed: begun.elapsed() / calls,
    }
}

fn middle(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or_default()
}

fn tell(what: &str, pairs: &[(Turn, Turn)], time: impl Fn(Turn) -> Duration) {
    let micros = |turn: Turn| time(turn).as_secs_f64() * 1e6;
    let bare = middle(pairs.iter().map(|(bare, _)| micros(*bare)).collect());
    let balanced = middle(pairs.iter().map(|(_, ours)| micros(*ours)).collect());
    let ratios = pairs
        .iter()
        .map(|(bare, ours)| micros(*ours) / micros(*bare));
    let more = (middle(ratios.collect()) - 1.0) * 100.0;
    println!("{what}: channel {bare:.2} us, balancer {balanced:.2} us, {more:+.1} %");
}

fn main() {
    let callers = Callers::start();
    let bare = callers.bare();
    let (_one, plain) = callers.balanced(1, false);
    let (_same, repeatable) = callers.balanced(1, true);
    for (name, balanced) in [("plain", plain), ("repeatable", repeatable)] {
        for at_once in [1, 64] {
            let mut pairs = Vec::new();
            for number in 0..TURNS {
                // Neither is always the first.
                pairs.push(if number % 2 == 0 {
                    let first = turn(&callers, &bare, at_once);
                    (first, turn(&callers, &balanced, at_once))
                } else {
                    let first = turn(&callers, &balanced, at_once);
                    (turn(&callers, &bare, at_once), first)
                });
            }
            let what = format!("{name}, {at_once} at once");
            tell(&format!("{what}, processor time"), &pairs, |turn| {
                turn.thread
            });
            tell(&format!("{what}, time passed"), &pairs, |turn| turn.passed);
        }
    }
}
