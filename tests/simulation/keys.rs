//! Calls that are tied to others: which group has them, and, where keys are hashed, which instance.

use std::collections::BTreeMap;
use std::sync::Arc;

use trimtab_client::simulation::Standing;
use trimtab_client::sticky::BUCKETS;
use trimtab_registry::policy::Balancing;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::calls::Tie;
use crate::expected::{Expected, Member};

/// What is remembered of one caller's calls to one service.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Of each bucket or key: by which salt and shares, and which group.
    groups: BTreeMap<u64, Met>,
    /// Of each group and key.
    instances: BTreeMap<(String, u64), Home>,
}

#[derive(Debug)]
struct Met {
    salt: u64,
    weights: Arc<[(String, u32)]>,
    group: String,
}

/// Where a key's calls go.
#[derive(Debug)]
struct Home {
    instance: String,
    /// Those that may take calls, connected or not.
    candidates: Arc<[Member]>,
    /// Those that might have been picked.
    members: Arc<[Member]>,
}

fn bucket(tie: Tie, salt: u64) -> Option<u64> {
    match tie {
        Tie::Nothing => None,
        Tie::Bucket(number) => Some(u64::from(number)),
        Tie::Key(number) => {
            let key = format!("user-{number}");
            Some(xxh3_64_with_seed(key.as_bytes(), salt) % u64::from(BUCKETS))
        }
    }
}

impl Keys {
    /// Holds the group of a call against its bucket. Whether it was foreseen.
    pub(crate) fn check_group(
        &mut self,
        expected: &Expected,
        tie: Tie,
        group: &str,
    ) -> Result<bool, String> {
        let Some(bucket) = bucket(tie, expected.salt) else {
            return Ok(false);
        };
        if !expected.weighted {
            return Ok(false);
        }
        let whole: u64 = expected.weights.iter().map(|it| u64::from(it.1)).sum();
        let mut end = 0;
        let mut home = None;
        for (name, weight) in expected.weights.iter() {
            end += u64::from(*weight);
            // An interval ends at the whole bucket below.
            if home.is_none() && bucket < end * u64::from(BUCKETS) / whole {
                home = Some(name);
            }
        }
        let Some(home) = home.filter(|home| expected.groups.contains_key(*home)) else {
            return Ok(false);
        };
        if home != group {
            return Err(format!(
                "{tie:?} is of bucket {bucket}, which is of {home}, and went to {group} \
                 ({expected:?})"
            ));
        }
        let Tie::Key(number) = tie else {
            return Ok(true);
        };
        let met = Met {
            salt: expected.salt,
            weights: Arc::clone(&expected.weights),
            group: group.to_owned(),
        };
        match self.groups.insert(number, met) {
            Some(before) => before.leads_to(expected, group).map(|()| true),
            None => Ok(true),
        }
    }

    /// A key stays where it is while nobody comes, and while the instance that
    /// has it does not go. Whether it was foreseen.
    pub(crate) fn check_instance(
        &mut self,
        expected: &Expected,
        tie: Tie,
        (group, instance): (&str, &str),
    ) -> Result<bool, String> {
        let (Tie::Key(number), Balancing::ConsistentHash) = (tie, expected.policy.balancing) else {
            return Ok(false);
        };
        let Some(carrying) = expected.groups.get(group) else {
            return Ok(false);
        };
        let now = Home {
            instance: instance.to_owned(),
            candidates: Arc::clone(&carrying.candidates),
            members: Arc::clone(&carrying.instances),
        };
        let place = (group.to_owned(), number);
        let before = self.instances.insert(place, now);
        let hashes_alike = |it: &Home| hash_alike(&it.candidates, &carrying.candidates);
        let Some(before) = before.filter(hashes_alike) else {
            return Ok(false);
        };
        let nobody_came = carrying
            .instances
            .iter()
            .all(|it| before.members.iter().any(|was| was.id == it.id));
        if nobody_came && carrying.has(&before.instance) && before.instance != instance {
            return Err(format!(
                "user {number} was at {} of {group} and is at {instance}, though nobody came \
                 ({before:?}, {carrying:?})",
                before.instance
            ));
        }
        Ok(nobody_came)
    }
}

impl Met {
    /// In one rollout a key stays while shares do, and goes forward while
    /// shares go to later groups only.
    fn leads_to(&self, expected: &Expected, group: &str) -> Result<(), String> {
        if self.salt != expected.salt || self.salt == 0 {
            return Ok(());
        }
        let stays = self.weights == expected.weights && self.group != group;
        let goes_back = is_raised(&self.weights, &expected.weights) && *self.group > *group;
        if stays || goes_back {
            return Err(format!(
                "a key went from {} to {group}, by {:?} and {:?}",
                self.group, self.weights, expected.weights
            ));
        }
        Ok(())
    }
}

/// Whether later groups gained at the cost of earlier ones: all that is up to
/// a group, in the order of names, has no more than before.
fn is_raised(before: &[(String, u32)], after: &[(String, u32)]) -> bool {
    let up_to = |weights: &[(String, u32)], name: &str| -> u32 {
        let earlier = weights.iter().filter(|(it, _)| **it <= *name);
        earlier.map(|(_, weight)| weight).sum()
    };
    let whole = |weights: &[(String, u32)]| -> u32 { weights.iter().map(|it| it.1).sum() };
    let mut names = before.iter().chain(after).map(|(name, _)| name);
    whole(before) == whole(after) && names.all(|it| up_to(after, it) <= up_to(before, it))
}

/// Whether keys are hashed over the same.
fn hash_alike(before: &Arc<[Member]>, after: &Arc<[Member]>) -> bool {
    let of = |member: &Member| (member.capacity, member.standing == Standing::Probation);
    let alike = |(a, b): (&Member, &Member)| a.id == b.id && of(a) == of(b);
    Arc::ptr_eq(before, after)
        || (before.len() == after.len() && before.iter().zip(after.iter()).all(alike))
}
