//! Real replicas, instances, callers and deploy scripts in network namespaces of their own, while networks, processes and disks fail.
//!
//! docs/machines.md says what each scenario does and what is checked. This
//! program is also every process in them but the replicas: `parts`.
//!
//! `cargo test -p trimtab --test machines [NAME]` runs those whose name has
//! NAME in it.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking, and tells how it went"
)]

mod bite;
mod clock;
mod network;
mod oracles;
mod parts;
mod process;
mod record;
mod replicas;
mod runner;
mod scenarios;
mod stage;
mod stalls;
mod wait;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [play, part] if play == parts::PLAY => parts::play(part),
        _ => runner::run(&arguments),
    }
}
