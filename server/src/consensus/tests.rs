//! Running replicas: one alone, and three that reach each other over loopback.

mod alone;
mod cluster;
mod crowd;
mod lost_leases;
mod recorder;
