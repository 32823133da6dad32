//! How much there is in a state.

use trimtab_registry::state::Registry;

/// What a state holds, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// Services.
    pub services: u64,
    /// Groups of all services.
    pub groups: u64,
    /// Instances of all services.
    pub instances: u64,
}

/// Counts.
pub fn survey(registry: &Registry) -> Survey {
    let mut survey = Survey {
        services: registry.services().len() as u64,
        groups: 0,
        instances: 0,
    };
    for service in registry.services() {
        survey.groups += service.groups().len() as u64;
        survey.instances += service.instances().len() as u64;
    }
    survey
}
