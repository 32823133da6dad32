//! The instances of one service, in the order of their ids, shared with its views.

use std::ops::Deref;
use std::sync::Arc;

use crate::instance::Instance;
use crate::name::InstanceId;

/// When it grows there is room for one more in so many.
const ROOM: usize = 8;

/// Sorted by id, each id once. A copy shares the whole list until one of the
/// two changes.
///
/// One piece of memory and no tree: a place takes 8 bytes, which are moved when
/// an instance comes or goes, and no service has more than
/// [`crate::bounds::INSTANCES_MAX`] of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Instances(Arc<Vec<Arc<Instance>>>);

impl Instances {
    /// One instance.
    pub fn get(&self, id: &InstanceId) -> Option<&Arc<Instance>> {
        self.0.get(self.place(id).ok()?)
    }

    /// The same, to be changed. Its id must stay as it is.
    pub(crate) fn get_mut(&mut self, id: &InstanceId) -> Option<&mut Arc<Instance>> {
        let place = self.place(id).ok()?;
        Arc::make_mut(&mut self.0).get_mut(place)
    }

    /// Adds an instance; the one that had its id before.
    pub(crate) fn insert(&mut self, instance: Arc<Instance>) -> Option<Arc<Instance>> {
        let place = self.place(instance.id());
        let all = Arc::make_mut(&mut self.0);
        match place {
            Ok(place) => Some(std::mem::replace(&mut all[place], instance)),
            Err(place) => {
                if all.len() == all.capacity() {
                    all.reserve_exact(all.len() / ROOM + 1);
                }
                all.insert(place, instance);
                None
            }
        }
    }

    /// Takes an instance out.
    pub(crate) fn remove(&mut self, id: &InstanceId) -> Option<Arc<Instance>> {
        let place = self.place(id).ok()?;
        Some(Arc::make_mut(&mut self.0).remove(place))
    }

    fn place(&self, id: &InstanceId) -> Result<usize, usize> {
        self.0.binary_search_by(|it| it.id().cmp(id))
    }
}

impl Deref for Instances {
    type Target = [Arc<Instance>];

    fn deref(&self) -> &[Arc<Instance>] {
        &self.0
    }
}
