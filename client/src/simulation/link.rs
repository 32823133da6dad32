//! A connection that the simulation keeps, and what a caller wishes for it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::coverage::LinkState;
use crate::endpoint::Connection;
use crate::record::Record;
use crate::vitals::Vitals;

/// What is to be done about a connection, by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Connect, and go on trying.
    Open(Arc<str>),
    /// Try now rather than later, if it is down.
    Retry(Arc<str>),
    /// Let it end.
    Close(Arc<str>),
}

/// What a caller asked for and the simulation has not seen to yet.
pub(super) type Wishes = Arc<Mutex<Vec<Wish>>>;

/// The connection as picking sees it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) address: Arc<str>,
    pub(super) vitals: Arc<Vitals>,
    pub(super) record: Record,
    wishes: Wishes,
}

impl Link {
    /// To be made.
    pub(super) fn open(address: &Arc<str>, wishes: &Wishes) -> Arc<Self> {
        wished(wishes).push(Wish::Open(Arc::clone(address)));
        Arc::new(Self {
            address: Arc::clone(address),
            vitals: Arc::new(Vitals::new()),
            record: Record::default(),
            wishes: Arc::clone(wishes),
        })
    }
}

impl Connection for Link {
    fn address(&self) -> &Arc<str> {
        &self.address
    }

    fn vitals(&self) -> &Arc<Vitals> {
        &self.vitals
    }

    fn record(&self) -> &Record {
        &self.record
    }

    fn retry_now(&self) {
        if self.state() == LinkState::Down {
            wished(&self.wishes).push(Wish::Retry(Arc::clone(&self.address)));
        }
    }

    fn close(&self) {
        self.vitals.went(LinkState::Down);
        wished(&self.wishes).push(Wish::Close(Arc::clone(&self.address)));
    }
}

pub(super) fn wished(wishes: &Mutex<Vec<Wish>>) -> MutexGuard<'_, Vec<Wish>> {
    wishes.lock().unwrap_or_else(PoisonError::into_inner)
}
