//! What the benchmarks in `benches/` hold the client's own choice of an instance against.
//!
//! `cargo bench -p trimtab-bench` runs them all; docs/balancing.md has what
//! they said, and on which machine.

pub mod calling;
pub mod cpu_time;
pub mod naive;
pub mod others;
