//! The brake: when most of a service, a zone or a replica's instances would go at once, the registry doubts itself first.

use std::fmt;
use std::time::Duration;

use trimtab_registry::name::{ServiceName, Zone};

use super::LeaseSettings;

/// Of a service's leases, at least one in so many must be unwell before those
/// of one replica are held: what a replica lost of a large service may be a
/// handful, and a handful may just have died.
const REPLICA_PART_OF_SERVICE: u64 = 4;

/// The instances among which a loss is looked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All of a service.
    Service,
    /// Those of one zone that has a name.
    Zone(Zone),
    /// Those that last renewed through one replica.
    Replica(u64),
    /// Those that did not renew since this leader took office.
    Unheard,
}

/// Leases counted within a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// All, but for those of which it is expected that they go.
    pub(crate) leases: u32,
    /// Of these, those that stopped renewing.
    pub(crate) unwell: u32,
}

impl Tally {
    /// Whether so many at once are taken for a fault of the network. A
    /// `service` is given for comparison.
    pub(crate) fn is_mass_loss(
        self,
        scope: &Scope,
        service: Tally,
        settings: &LeaseSettings,
    ) -> bool {
        let (unwell, leases) = (u64::from(self.unwell), u64::from(self.leases));
        let by_replica = matches!(scope, Scope::Replica(_) | Scope::Unheard);
        self.unwell >= settings.brake_min
            && unwell * 100 > leases * u64::from(settings.brake_share)
            && (!by_replica || unwell * REPLICA_PART_OF_SERVICE >= u64::from(service.leases))
    }
}

/// Removals that are held back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brake {
    /// The service.
    pub service: ServiceName,
    /// Where in it.
    pub scope: Scope,
    /// Leases whose removal waits.
    pub held: usize,
    /// Leases that stopped renewing, these included.
    pub unwell: u32,
    /// All leases there, but for those that leave anyway.
    pub leases: u32,
    /// What those that are held have in common besides: a zone, a replica.
    pub common: Vec<Scope>,
    /// How long ago it began.
    pub age: Duration,
    /// When it ends, at the latest.
    pub ends_in: Duration,
    /// Enough renew again: the others have their last chance.
    pub calm: bool,
}

impl Brake {
    /// The zone that all of it is in, if that is one with a name.
    pub fn zone(&self) -> Option<&Zone> {
        let scopes = std::iter::once(&self.scope).chain(&self.common);
        scopes.into_iter().find_map(|scope| match scope {
            Scope::Zone(zone) => Some(zone),
            _ => None,
        })
    }

    /// The replica that all of it renewed through last, if it is one.
    pub fn via_replica(&self) -> Option<u64> {
        let scopes = std::iter::once(&self.scope).chain(&self.common);
        scopes.into_iter().find_map(|scope| match scope {
            Scope::Replica(replica) => Some(*replica),
            _ => None,
        })
    }

    /// Why, and what comes next, in words.
    pub fn reason(&self) -> String {
        let mut reason = format!(
            "{} of {} instances{} stopped renewing together",
            self.unwell,
            self.leases,
            told(&self.scope)
        );
        for scope in &self.common {
            reason.push_str(match scope {
                Scope::Zone(_) => ", all",
                _ => ", all of them",
            });
            reason.push_str(&told(scope));
        }
        if self.calm {
            reason.push_str("; renewals came back, the rest is given time to follow");
        }
        let (held, seconds) = (self.held, self.ends_in.as_secs_f64().ceil());
        reason.push_str(&format!(
            "; the removal of {held} is held back for {seconds} s at most, or until they renew"
        ));
        reason
    }
}

impl fmt::Display for Brake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "service {}: {}", self.service, self.reason())
    }
}

fn told(scope: &Scope) -> String {
    match scope {
        Scope::Service => String::new(),
        Scope::Zone(zone) => format!(" in zone {zone}"),
        Scope::Replica(replica) => format!(" that last renewed through replica {replica}"),
        Scope::Unheard => " that were not heard of since this leader took office".to_owned(),
    }
}
