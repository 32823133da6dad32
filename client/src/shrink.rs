//! A view that takes away most of what a caller still reaches is not believed at once: what was taken stays as a last resort.
//!
//! The registry has a brake of its own against mass expiry. This one guards
//! against a registry, or whatever speaks for it, that is wrong about the
//! world: its word is that most instances are gone, while this process holds
//! connections to them that work.
//!
//! Pure: views and what is connected come in, and so does the time.
//!
//! **What counts as lost.** An instance that was READY in the view before, is
//! not in the next one at all, and is connected now. One that the next view
//! calls SUSPECT, STARTING or DRAINING is not lost, nor is one whose process
//! ended: its connection broke. Only groups count whose instances the next
//! view's route still asks for: one that lost its weight, or is torn down, may
//! lose its instances. If no group has weight any more, all count that had.
//!
//! **When.** More than half of the connected READY instances are lost at once,
//! at least three, and the next view has fewer than half as many READY ones as
//! the one before, connected or not. So neither draining, nor leaving one by one, nor a rolling
//! restart, nor as many new ones in place of the old ones raises it.
//!
//! **What is done.** The next view is followed: its revision, its route, its
//! instances. The lost ones are added to their groups with the status
//! [`InstanceStatus::Held`], which is called only where nothing READY of the
//! group is connected, as SUSPECT is.
//!
//! **Until when.** For a minute at most, as long as the registry's own brake
//! holds; sooner when its connection breaks, when a view has it again (then
//! the view's word counts), or when its group loses its weight or is torn
//! down. What is held is not counted again: a second loss prolongs nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::view::{Group, GroupState, Instance, InstanceStatus, View};

/// Of the instances that are reached, so much may go at once: as in the
/// registry's brake.
const LOST_PERCENT_MAX: usize = 50;

/// Fewer are lost by chance.
const LOST_MIN: usize = 3;

/// Long enough for a registry that is wrong to be set right by a person who is
/// awake or by the instances, which register anew within seconds.
pub(crate) const HELD_FOR: Duration = Duration::from_secs(60);

/// Instances that the registry took away and calls may still use. Bounded by
/// the instances of one view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Held {
    by_id: BTreeMap<Arc<str>, Withheld>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Withheld {
    group: Arc<str>,
    instance: Instance,
    until: Instant,
}

/// What is followed instead of what the registry said.
#[derive(Debug)]
pub(crate) struct Decision {
    /// The registry's view, with what is held.
    pub(crate) view: Arc<View>,
    pub(crate) held: Held,
    /// What was found implausible just now.
    pub(crate) alarm: Option<Alarm>,
}

/// How much a view took away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Alarm {
    pub(crate) lost: usize,
    /// Of so many that were READY and connected.
    pub(crate) of: usize,
}

impl Held {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }

    /// When the first of them is to be let go.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.by_id.values().map(|it| it.until).min()
    }
}

/// What to follow when the registry says `next` after `before`.
pub(crate) fn decide(
    before: &View,
    next: &Arc<View>,
    held: &Held,
    reaches: impl Fn(&Instance) -> bool,
    now: Instant,
) -> Decision {
    let ready_before = before.instances().filter(|it| is_ready(it)).count();
    let ready_now = ready(next);
    // What most views are: nobody has to be looked for.
    if held.is_empty() && ready_now * 100 >= ready_before * LOST_PERCENT_MAX {
        return Decision {
            view: Arc::clone(next),
            held: Held::default(),
            alarm: None,
        };
    }
    let present: BTreeSet<&str> = next.instances().map(|it| &*it.id).collect();
    let Losses {
        lost,
        reached,
        ready,
    } = losses(before, next, &present, &reaches);
    let is_implausible = lost.len() >= LOST_MIN
        && lost.len() * 100 > reached * LOST_PERCENT_MAX
        && ready_now * 100 < ready * LOST_PERCENT_MAX;
    let alarm = is_implausible.then_some(Alarm {
        lost: lost.len(),
        of: reached,
    });
    let mut stays = Held::default();
    for (id, it) in &held.by_id {
        let is_over = it.until <= now || !reaches(&it.instance) || present.contains(&**id);
        if !is_over && is_asked_for(next, &it.group) {
            stays.by_id.insert(Arc::clone(id), it.clone());
        }
    }
    if is_implausible {
        for (group, instance) in lost {
            let withheld = Withheld {
                group: Arc::clone(group),
                instance: Instance {
                    status: InstanceStatus::Held,
                    ..instance.clone()
                },
                until: now + HELD_FOR,
            };
            stays
                .by_id
                .entry(Arc::clone(&instance.id))
                .or_insert(withheld);
        }
    }
    Decision {
        view: with_held(next, &stays),
        held: stays,
        alarm,
    }
}

/// What was READY in a view, of groups that the next one has use for.
struct Losses<'a> {
    /// Lost, with their group.
    lost: Vec<(&'a Arc<str>, &'a Instance)>,
    /// Connected, lost or not.
    reached: usize,
    /// Connected or not.
    ready: usize,
}

fn losses<'a>(
    before: &'a View,
    next: &View,
    present: &BTreeSet<&str>,
    reaches: &impl Fn(&Instance) -> bool,
) -> Losses<'a> {
    let nobody_has_weight = next.groups.iter().all(|group| group.weight == 0);
    let mut losses = Losses {
        lost: Vec::new(),
        reached: 0,
        ready: 0,
    };
    for group in &before.groups {
        let had_weight = !nobody_has_weight || group.weight > 0;
        if !had_weight || !is_asked_for(next, &group.name) {
            continue;
        }
        for instance in group.instances.iter().filter(|it| is_ready(it)) {
            losses.ready += 1;
            if reaches(instance) {
                losses.reached += 1;
                if !present.contains(&*instance.id) {
                    losses.lost.push((&group.name, instance));
                }
            }
        }
    }
    losses
}

/// Whether a view's route still has use for a group's instances.
fn is_asked_for(view: &View, group: &str) -> bool {
    let nobody_has_weight = view.groups.iter().all(|group| group.weight == 0);
    match find(view, group) {
        Some(group) if group.state == GroupState::Retiring => false,
        Some(group) => group.weight > 0 || nobody_has_weight,
        None => nobody_has_weight,
    }
}

/// READY instances of what the route asks for.
fn ready(view: &View) -> usize {
    let groups = view.groups.iter();
    groups
        .filter(|group| is_asked_for(view, &group.name))
        .flat_map(|group| &group.instances)
        .filter(|instance| is_ready(instance))
        .count()
}

fn is_ready(instance: &Instance) -> bool {
    instance.status == InstanceStatus::Ready
}

fn find<'a>(view: &'a View, group: &str) -> Option<&'a Group> {
    let at = view.groups.binary_search_by(|it| (*it.name).cmp(group));
    view.groups.get(at.ok()?)
}

/// The same view if nothing is held.
fn with_held(view: &Arc<View>, held: &Held) -> Arc<View> {
    if held.is_empty() {
        return Arc::clone(view);
    }
    let mut view = View::clone(view);
    for it in held.by_id.values() {
        let at = view
            .groups
            .binary_search_by(|group| group.name.cmp(&it.group));
        let at = at.unwrap_or_else(|at| {
            // The service is gone: it carried traffic, and has no share now.
            let group = Group {
                name: Arc::clone(&it.group),
                state: GroupState::Standby,
                weight: 0,
                instances: Vec::new(),
            };
            view.groups.insert(at, group);
            at
        });
        let Some(group) = view.groups.get_mut(at) else {
            continue;
        };
        group.instances.push(it.instance.clone());
    }
    for group in &mut view.groups {
        group.instances.sort_by(|a, b| a.id.cmp(&b.id));
    }
    Arc::new(view)
}

#[cfg(test)]
#[path = "shrink_tests.rs"]
mod tests;
