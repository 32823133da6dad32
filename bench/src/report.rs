//! What a run says in the end: tables for people, JSON for programs, a picture.

pub(crate) mod goals;
pub(crate) mod json;
pub(crate) mod picture;
pub(crate) mod table;

use serde::Serialize;

use crate::figures::Figures;
use crate::machine::Machine;
use crate::scale::Scale;

/// Everything about a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    pub(crate) scale: Scale,
    pub(crate) peers: Vec<Peer>,
    /// What was left out, and why.
    pub(crate) notices: Vec<String>,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// A backend that took part.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) syncs: &'static str,
}
