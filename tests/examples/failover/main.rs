//! How long nothing can be changed when the leader is killed, and whether reads and watches on the others notice.
//!
//! ```text
//! cargo build --release && cargo run --release -p trimtab-tests --example failover [TRIALS]
//! ```
//!
//! Three `trimtab serve` processes on loopback, with default settings. In each
//! trial the one that leads gets `kill -9`, and is started again afterwards.

#![allow(clippy::print_stdout, reason = "a benchmark talks to a person")]

mod figures;
mod load;
mod registry;

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::figures::Figures;
use crate::load::Load;
use crate::registry::Registry;

const TRIALS_DEFAULT: usize = 20;

/// Before a leader is killed all is quiet for so long, and after it is
/// watched for so long what the others do.
const QUIET: Duration = Duration::from_secs(1);
const WATCHED: Duration = Duration::from_secs(4);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let trials = match std::env::args().nth(1) {
        Some(number) => number.parse()?,
        None => TRIALS_DEFAULT,
    };
    let mut registry = Registry::start().await?;
    registry.fill().await?;
    let mut figures = Figures::default();
    for trial in 1..=trials {
        let leader = registry.settled().await?;
        let load = Load::start(&registry, leader)?;
        sleep(QUIET).await;
        let killed = Instant::now();
        registry.kill(leader)?;
        sleep(WATCHED).await;
        let seen = load.stop(killed).await;
        println!("trial {trial}: replica {leader} killed; {seen}");
        figures.add(seen);
        registry.start_again(leader)?;
    }
    print!("{figures}");
    Ok(())
}
