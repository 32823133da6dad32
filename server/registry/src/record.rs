//! A service as snapshots hold it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::group::Group;
use crate::history::RouteChange;
use crate::instance::Instance;
use crate::name::ServiceName;
use crate::revision::Revision;
use crate::route::Route;

/// A service as it is stored: names once, not again as keys of maps.
#[derive(Serialize, Deserialize)]
pub(crate) struct ServiceRecord {
    pub(crate) name: ServiceName,
    pub(crate) revision: Revision,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) route_revision: Revision,
    pub(crate) baseline: Option<u64>,
    pub(crate) groups: Vec<Group>,
    pub(crate) instances: Vec<Arc<Instance>>,
    pub(crate) history: Vec<Arc<RouteChange>>,
}
