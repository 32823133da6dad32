//! Why each instance of a service would be chosen for the next call, or would not.
//!
//! [`Balancer::explain`](crate::balancer::Balancer::explain) answers as of the
//! moment. Print it for a table; serialize it for programs.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

pub use crate::coverage::{Level, LinkState};
use crate::crew::Role;
use crate::endpoint::{Connection, Endpoint};
use crate::picker::Picker;
use crate::policy::Policy;
use crate::serial;
use crate::view::{Group, Instance, InstanceStatus};

/// All that a choice depends on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// Of the view that calls follow.
    pub revision: u64,
    /// Which groups carry calls.
    pub level: Level,
    /// What the route says beyond weights.
    pub policy: Policy,
    /// In the order of their names.
    pub groups: Vec<GroupExplanation>,
}

/// One group.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupExplanation {
    /// Its name.
    pub name: String,
    /// What the route gives it, in basis points.
    pub weight: u32,
    /// What it gets, in percent of the calls that begin now.
    pub share: f64,
    /// Why the two differ, or what else is unusual.
    pub note: Option<Note>,
    /// In the order of their ids.
    pub instances: Vec<InstanceExplanation>,
}

/// What is unusual about a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    /// It should carry calls, and none of its instances is connected.
    Unreachable,
    /// It is on its way up to its share.
    WarmingUp,
    /// So many are ejected or SUSPECT that these take calls as well.
    Panic,
    /// None of its instances is READY and connected, so the SUSPECT take
    /// calls.
    SuspectsOnly,
    /// It takes a part of what another group cannot.
    TakesOver,
}

/// One instance.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InstanceExplanation {
    /// Unique within the service.
    pub id: String,
    /// `host:port`.
    pub address: String,
    /// The failure domain it is in; may be empty.
    pub zone: String,
    /// What the registry says of it.
    pub status: &'static str,
    /// Relative to others.
    pub capacity: u32,
    /// `None`: this process does not connect to it.
    pub connection: Option<LinkState>,
    /// Left out by this process for failing calls.
    pub ejected: bool,
    /// Calls of this process that failed there since the last that did not. An
    /// instance that its group has no other for is not ejected for it.
    pub failed_in_a_row: u32,
    /// Calls it has from this process.
    pub in_flight: u32,
    /// What its next answer is expected to take.
    #[serde(rename = "latency_ms", serialize_with = "serial::milliseconds_or_null")]
    pub latency: Option<Duration>,
    /// Whether it takes calls.
    pub verdict: Verdict,
}

/// Whether an instance takes calls, and if not, the first reason that there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It takes calls of its group.
    Takes,
    /// It takes calls for which the caller's zone has no capacity.
    TakesFromOtherZones,
    /// Its group has no share now.
    GroupHasNoShare,
    /// It is not READY.
    NotReady,
    /// It is on its way out.
    Draining,
    /// This process does not connect to it.
    NotInSubset,
    /// The first attempt to connect has not ended.
    Connecting,
    /// The connection broke, or could not be made.
    NotConnected,
    /// It is SUSPECT, and others of its group are READY.
    Suspect,
    /// The newest view has it no more, and it is kept as a last resort.
    Held,
    /// It failed calls of this process.
    Ejected,
    /// The caller's zone and those with capacity to spare take the calls.
    OtherZone,
    /// It is about to be told: calls know by the next picker.
    Changing,
}

/// What is known as of a picker.
pub(crate) fn explain<L: Connection>(
    service: &str,
    picker: &Picker<Arc<Endpoint<L>>>,
    now: Instant,
) -> Explanation {
    let basis = picker.basis();
    let roster: BTreeMap<&str, &Arc<Endpoint<L>>> =
        basis.roster.iter().map(|it| (&*it.id, it)).collect();
    let moment = picker.moment(now);
    let groups = basis.view.groups.iter().map(|group| {
        let position = picker.position(&group.name);
        let roles: BTreeMap<&str, Role> = position
            .into_iter()
            .flat_map(|position| picker.roles(position))
            .map(|(endpoint, role)| (&*endpoint.id, role))
            .collect();
        let explained = group.instances.iter().map(|instance| {
            let endpoint = roster.get(&*instance.id).copied();
            let vitals = endpoint.map(|it| it.link.vitals());
            InstanceExplanation {
                id: instance.id.to_string(),
                address: instance.address.to_string(),
                zone: instance.zone.to_string(),
                status: instance.status.name(),
                capacity: instance.capacity,
                connection: endpoint.map(|it| it.link.state()),
                ejected: endpoint.is_some_and(|it| it.link.is_ejected()),
                failed_in_a_row: endpoint.map_or(0, |it| it.link.record().failures_in_a_row()),
                in_flight: vitals.map_or(0, |vitals| vitals.in_flight()),
                latency: vitals.and_then(|vitals| vitals.latency(moment)),
                verdict: verdict(instance, endpoint, position.is_some(), &roles),
            }
        });
        GroupExplanation {
            name: group.name.to_string(),
            weight: group.weight,
            share: picker.share(&group.name) * 100.0,
            note: note(picker, group, &roles),
            instances: explained.collect(),
        }
    });
    Explanation {
        service: service.to_owned(),
        revision: basis.view.revision,
        level: picker.coverage().level,
        policy: basis.view.policy,
        groups: groups.collect(),
    }
}

fn verdict<L: Connection>(
    instance: &Instance,
    endpoint: Option<&Arc<Endpoint<L>>>,
    group_carries: bool,
    roles: &BTreeMap<&str, Role>,
) -> Verdict {
    let role = roles.get(&*instance.id);
    let Some(endpoint) = endpoint else {
        return match instance.status {
            InstanceStatus::Draining => Verdict::Draining,
            _ => Verdict::NotInSubset,
        };
    };
    match instance.status {
        InstanceStatus::Draining => return Verdict::Draining,
        InstanceStatus::Starting => return Verdict::NotReady,
        InstanceStatus::Ready | InstanceStatus::Suspect | InstanceStatus::Held => {}
    }
    match endpoint.link.state() {
        LinkState::Untried => return Verdict::Connecting,
        LinkState::Down => return Verdict::NotConnected,
        LinkState::Up => {}
    }
    match role {
        _ if !group_carries => Verdict::GroupHasNoShare,
        Some(Role::Here) => Verdict::Takes,
        Some(Role::Away) => Verdict::TakesFromOtherZones,
        Some(Role::Reserve) => Verdict::OtherZone,
        None if endpoint.link.is_ejected() => Verdict::Ejected,
        None if instance.status == InstanceStatus::Suspect => Verdict::Suspect,
        None if instance.status == InstanceStatus::Held => Verdict::Held,
        None => Verdict::Changing,
    }
}

fn note<L: Connection>(
    picker: &Picker<Arc<Endpoint<L>>>,
    group: &Group,
    roles: &BTreeMap<&str, Role>,
) -> Option<Note> {
    let coverage = picker.coverage();
    let is_named = |names: &[Arc<str>]| names.contains(&group.name);
    let mut statuses = BTreeSet::new();
    let takes = group
        .instances
        .iter()
        .filter(|it| roles.contains_key(&*it.id));
    statuses.extend(takes.map(|it| it.status.name()));
    if is_named(&coverage.uncovered) {
        Some(Note::Unreachable)
    } else if is_named(&picker.basis().warming) {
        Some(Note::WarmingUp)
    } else if is_named(&coverage.in_panic) {
        Some(Note::Panic)
    } else if statuses.iter().eq([InstanceStatus::Suspect.name()].iter()) {
        Some(Note::SuspectsOnly)
    } else if picker.share(&group.name) * 10_000.0 > f64::from(group.weight) + 1.0 {
        Some(Note::TakesOver)
    } else {
        None
    }
}

// === impl Explanation ===

/// One line for the service, one for each group, a table of its instances.
impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            service,
            revision,
            level,
            policy,
            ..
        } = self;
        write!(
            f,
            "{service} at revision {revision}: {level}, {}",
            policy.balancing
        )?;
        for group in &self.groups {
            let weight = f64::from(group.weight) / 100.0;
            write!(
                f,
                "\n{}  weight {weight}%  share {:.2}%",
                group.name, group.share
            )?;
            if let Some(note) = group.note {
                write!(f, "  ({note})")?;
            }
            write_table(f, &group.instances)?;
        }
        Ok(())
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, instances: &[InstanceExplanation]) -> fmt::Result {
    const HEAD: [&str; 10] = [
        "INSTANCE",
        "ADDRESS",
        "ZONE",
        "STATUS",
        "CAPACITY",
        "CONNECTION",
        "FAILURES",
        "IN FLIGHT",
        "LATENCY",
        "VERDICT",
    ];
    let rows: Vec<[String; 10]> = instances.iter().map(InstanceExplanation::row).collect();
    if rows.is_empty() {
        return write!(f, "\n  no instance");
    }
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in std::iter::once(HEAD.map(str::to_owned)).chain(rows) {
        let cells = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        write!(f, "\n  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

impl InstanceExplanation {
    fn row(&self) -> [String; 10] {
        let dash = || "-".to_owned();
        let shown = |text: &str| {
            if text.is_empty() {
                dash()
            } else {
                text.to_owned()
            }
        };
        [
            self.id.clone(),
            self.address.clone(),
            shown(&self.zone),
            self.status.to_owned(),
            self.capacity.to_string(),
            self.connection.map_or_else(dash, |state| state.to_string()),
            self.failed_in_a_row.to_string(),
            self.in_flight.to_string(),
            self.latency
                .map_or_else(dash, |latency| format!("{latency:.1?}")),
            self.verdict.to_string(),
        ]
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unreachable => "cannot be reached, others take its share",
            Self::WarmingUp => "warming up",
            Self::Panic => {
                "less than half is READY and not ejected, so all that are connected take calls"
            }
            Self::SuspectsOnly => "nobody is READY and connected, so the SUSPECT take calls",
            Self::TakesOver => "takes what another group cannot",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Takes => "takes calls",
            Self::TakesFromOtherZones => "takes calls that leave the caller's zone",
            Self::GroupHasNoShare => "no: its group has no share",
            Self::NotReady => "no: it is not READY",
            Self::Draining => "no: it is draining",
            Self::NotInSubset => "no: not in this caller's subset",
            Self::Connecting => "no: it is being connected",
            Self::NotConnected => "no: it is not connected",
            Self::Suspect => "no: it is SUSPECT and others are READY",
            Self::Held => "no: the view has it no more, and others are READY",
            Self::Ejected => "no: ejected, as it failed calls",
            Self::OtherZone => "no: other zones have the capacity",
            Self::Changing => "no: it is about to",
        })
    }
}

#[cfg(test)]
mod golden;
