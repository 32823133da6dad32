//! Instances come and go, as many as in a day: what a server holds must not grow.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::register::{CONNECTIONS, TTL, filled, register_all};
use super::{Trial, Workload};
use crate::backends::{Backend, Clients, Cluster, Lease, Lines, Outcome, addresses};
use crate::figures::Better;
use crate::load::{Request, closed_loop};
use crate::sample::Sample;
use crate::scale::Scale;

/// Instances that are registered at any time.
const LIVING: usize = 5_000;
const IN_FLIGHT: usize = 64;
/// The time is divided into so many parts; memory is looked at after each.
const PARTS: u32 = 4;

/// The workload.
#[derive(Debug)]
pub(super) struct Churning;

impl Workload for Churning {
    fn name(&self) -> &'static str {
        "churn"
    }

    fn about(&self) -> &'static str {
        "of 5,000 instances one leaves and another comes, 64 at a time: a day's changes in less than a minute"
    }

    fn rounds(&self, _scale: &Scale) -> usize {
        1
    }

    fn fits(&self, backend: &dyn Backend) -> bool {
        !backend.keeps_nothing()
    }

    fn takes(&self, scale: &Scale) -> Duration {
        filled(LIVING) + scale.churn
    }

    fn run<'a>(&'a self, backend: &'a dyn Backend, mut trial: Trial<'a>) -> Outcome<'a, ()> {
        Box::pin(async move {
            let cluster = backend.start(1, trial.directory).await?;
            let servers = addresses(&*cluster);
            let clients = cluster.clients(&Lines::to(&servers, CONNECTIONS)).await?;
            let clients: Arc<dyn Clients> = clients.into();
            let living = register_all(&clients, "churn", LIVING, TTL).await?;
            let living = Arc::new(Mutex::new(VecDeque::from(living)));
            let request = one_for_another(clients, living);
            let mut held = Vec::new();
            let mut changes = 0;
            for _ in 0..PARTS {
                let time = trial.scale.churn / PARTS;
                let done = closed_loop(&*cluster, IN_FLIGHT, time, &request).await?;
                // One leaves, another comes.
                changes += done.answered * 2;
                held.push(resident(&*cluster));
            }
            let case = format!("{LIVING} instances, {} s", trial.scale.churn.as_secs());
            let notes = &mut trial.notes;
            notes.add(&case, "changes", "in all", Better::Higher, changes as f64);
            let (first, last) = (held.first().copied(), held.last().copied());
            let (first, last) = (first.unwrap_or(0.0), last.unwrap_or(0.0));
            notes.add(&case, "memory after a quarter", "MiB", Better::Lower, first);
            notes.add(&case, "memory at the end", "MiB", Better::Lower, last);
            Ok(())
        })
    }
}

/// MiB, all servers together.
fn resident(cluster: &dyn Cluster) -> f64 {
    let servers = cluster.servers().iter();
    let bytes: u64 = servers.map(|server| server.process.memory().resident).sum();
    bytes as f64 / f64::from(1 << 20)
}

fn one_for_another(clients: Arc<dyn Clients>, living: Arc<Mutex<VecDeque<Lease>>>) -> Request {
    Arc::new(move |worker, _number| {
        let (clients, living) = (clients.clone(), living.clone());
        Box::pin(async move {
            let oldest = {
                let mut living = living.lock().unwrap_or_else(PoisonError::into_inner);
                living.pop_front()
            };
            let Some(oldest) = oldest else {
                return Ok(());
            };
            clients.register().leave(worker, &oldest).await?;
            // A new process: the same place, another id.
            let mut instance: Sample = oldest.instance.clone();
            instance.id = next_id(&instance.id);
            let lease = clients.register().one(worker, &instance, TTL).await?;
            let mut living = living.lock().unwrap_or_else(PoisonError::into_inner);
            living.push_back(lease);
            Ok(())
        })
    })
}

/// The id with its generation counted up: `churn-00001-0000007`, `churn-00001-0000007.1`, `churn-00001-0000007.2`.
fn next_id(id: &str) -> String {
    match id.split_once('.') {
        None => format!("{id}.1"),
        Some((first, generation)) => {
            format!("{first}.{}", generation.parse::<u64>().unwrap_or(0) + 1)
        }
    }
}
