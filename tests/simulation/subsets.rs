//! A caller that keeps to a subset of each group: it is as large as it is to be, and the dead are replaced.

use std::sync::Arc;

use trimtab_client::simulation::LinkState;
use trimtab_registry::instance::{Instance, Status};
use trimtab_registry::name::ServiceName;

use crate::world::{SERVICES, World};

impl World {
    /// Of each group as many living ones as the subset is to have, or all
    /// there are.
    pub(crate) fn check_subset(&mut self, number: usize, service: usize) -> Result<(), String> {
        let caller = &self.callers[number];
        let name = ServiceName::parse(SERVICES[service]).expect("a name");
        let view = (self.ledger).view_at(&name, caller.core.used(SERVICES[service]));
        let Some(view) = view else {
            return Ok(());
        };
        let size = view.route.policy.subset_size.get() as usize;
        let mut has_left_out = false;
        for (group, _) in &view.groups {
            let is_ready =
                |it: &&Arc<Instance>| it.group() == group && it.status() == Status::Ready;
            let ready = view.instances.iter().filter(is_ready);
            let states = ready.map(|it| caller.state_of(service, it.spec.address.as_ref()));
            let states: Vec<Option<LinkState>> = states.collect();
            let count = |wanted: fn(&Option<LinkState>) -> bool| {
                states.iter().filter(|state| wanted(state)).count()
            };
            let living = count(|it| matches!(it, Some(LinkState::Up | LinkState::Untried)));
            let left_out = count(Option::is_none);
            let is_right = match size {
                0 => left_out == 0,
                _ => living <= size && (living == size || left_out == 0),
            };
            if !is_right {
                return Err(format!(
                    "caller {number} keeps {living} living instances of {group} of {name}, \
                     leaves out {left_out}, and is to have {size}: {states:?}"
                ));
            }
            has_left_out |= left_out > 0;
        }
        self.counts.subsets += u64::from(has_left_out);
        Ok(())
    }
}
