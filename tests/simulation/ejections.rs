//! Instances that a caller leaves out because they fail it: whether it had reason to, and how many at a time.

use std::collections::BTreeMap;

use trimtab_client::simulation::{LinkState, Standing};
use trimtab_registry::instance::Status;
use trimtab_registry::name::ServiceName;
use trimtab_registry::policy::OutlierPolicy;

use crate::world::{SERVICES, World};

/// As `trimtab_client` says: success rates are compared every ten seconds,
/// and a good interval forgives an ejection; none is longer than five minutes,
/// but for a tenth that is drawn.
const INTERVAL: u64 = 10_000;
const LONGEST: u64 = 300_000;
/// Rates over fewer calls say nothing.
const RATE_CALLS_MIN: usize = 100;

/// What one caller knows of one service's instances, by id.
#[derive(Debug, Default)]
pub(crate) struct Ejections(BTreeMap<String, Story>);

#[derive(Debug)]
struct Story {
    standing: Standing,
    /// Calls that failed one after another.
    run: u32,
    /// When calls ended since the one before the last comparison, and whether
    /// they failed.
    ended: Vec<(u64, bool)>,
    /// Ejections of this instance, by any of its connections.
    ejections: u64,
    /// It is to be back not before the first, nor after the second.
    back: (u64, u64),
}

impl Default for Story {
    fn default() -> Self {
        Self {
            standing: Standing::Good,
            run: 0,
            ended: Vec::new(),
            ejections: 0,
            back: (0, 0),
        }
    }
}

/// An instance that may be judged.
struct Subject<'a> {
    id: &'a str,
    group: String,
    /// READY and connected.
    counts: bool,
    before: Standing,
    after: Standing,
}

impl Ejections {
    pub(crate) fn standing(&self, id: &str) -> Standing {
        self.0.get(id).map_or(Standing::Good, |it| it.standing)
    }

    /// There is a new connection to it, on which nothing is held against it.
    pub(crate) fn opened(&mut self, id: &str) {
        let story = self.0.entry(id.to_owned()).or_default();
        *story = Story {
            ejections: story.ejections,
            ..Story::default()
        };
    }

    /// It answered a call, or failed it.
    pub(crate) fn ended(&mut self, id: &str, now: u64, failed: bool) {
        let story = self.0.entry(id.to_owned()).or_default();
        story.run = if failed { story.run + 1 } else { 0 };
        story.ended.retain(|(at, _)| at + 2 * INTERVAL > now);
        story.ended.push((now, failed));
    }

    fn forget(&mut self, id: &str) {
        let story = self.0.entry(id.to_owned()).or_default();
        story.run = 0;
        story.ended.clear();
    }
}

impl World {
    /// Whom a caller left out, and took back, it had reason to.
    pub(crate) fn check_judged(&mut self, number: usize, service: usize) -> Result<(), String> {
        let name = ServiceName::parse(SERVICES[service]).expect("a name");
        let now = self.now;
        let caller = &mut self.callers[number];
        let view = (self.ledger).view_at(&name, caller.core.used(SERVICES[service]));
        let Some(view) = view else {
            return Ok(());
        };
        let policy = view.route.policy.outliers;
        let standings = caller.core.standings(SERVICES[service]);
        let mut subjects = Vec::new();
        for (id, after) in &standings {
            let found = view.instances.iter().find(|it| it.id().as_ref() == &**id);
            let counts = found.is_some_and(|it| {
                let state = caller.state_of(service, it.spec.address.as_ref());
                it.status() == Status::Ready && state == Some(LinkState::Up)
            });
            subjects.push(Subject {
                id,
                group: found.map(|it| it.group().to_string()).unwrap_or_default(),
                counts,
                before: caller.picks[service].ejections.standing(id),
                after: *after,
            });
        }
        let ejections = &mut caller.picks[service].ejections;
        let judged = ejections.judged(now, &policy, &subjects);
        let new = judged.map_err(|what| format!("caller {number} of {name}: {what}"))?;
        self.counts.ejections += new;
        Ok(())
    }
}

impl Ejections {
    /// How many were ejected just now.
    fn judged(
        &mut self,
        now: u64,
        policy: &OutlierPolicy,
        subjects: &[Subject<'_>],
    ) -> Result<u64, String> {
        let mut new = Vec::new();
        for subject in subjects {
            let what = (subject.before, subject.after);
            match what {
                (Standing::Good | Standing::Probation, Standing::Ejected) => {
                    self.check_reason(now, policy, subject, subjects)?;
                    new.push(subject);
                }
                (Standing::Ejected, Standing::Probation) => self.check_return(now, subject)?,
                (Standing::Ejected, Standing::Good) if !policy.disabled => {
                    return Err(format!("{} is back without probation", subject.id));
                }
                (Standing::Good, Standing::Probation) => {
                    return Err(format!("{} is on probation for nothing", subject.id));
                }
                _ => {}
            }
            if policy.disabled {
                self.forget(subject.id);
                if subject.after != Standing::Good {
                    return Err(format!("{} is {:?}, unwanted", subject.id, subject.after));
                }
            }
            let story = self.0.entry(subject.id.to_owned()).or_default();
            story.standing = subject.after;
            let is_late = subject.after == Standing::Ejected && story.back.1 < now;
            if is_late && !new.iter().any(|it| it.id == subject.id) {
                return Err(format!("{} is left out for too long", subject.id));
            }
        }
        for subject in &new {
            self.check_cap(policy, subject, subjects)?;
            self.eject(now, policy, subject.id);
        }
        self.check_missed(policy, subjects)?;
        Ok(new.len() as u64)
    }

    /// So many calls failed one after another, or far more than of others.
    fn check_reason(
        &self,
        now: u64,
        policy: &OutlierPolicy,
        subject: &Subject<'_>,
        all: &[Subject<'_>],
    ) -> Result<(), String> {
        let story = &self.0[subject.id];
        let limit = limit(policy, subject.before);
        let comparable = all
            .iter()
            .filter(|it| it.counts && it.group == subject.group);
        let comparable = comparable.filter(|it| {
            let story = self.0.get(it.id);
            story.is_some_and(|it| it.ended.len() >= RATE_CALLS_MIN)
        });
        let failed = |(at, failed): &&(u64, bool)| *failed && at + INTERVAL + 100 > now;
        let has_failed = story.ended.iter().filter(failed).count() * 20 > RATE_CALLS_MIN;
        let by_rate = comparable.count() >= 5 && has_failed;
        if policy.disabled || !subject.counts || (story.run < limit && !by_rate) {
            return Err(format!(
                "{} was ejected after {} failures, the limit is {limit} ({policy:?})",
                subject.id, story.run
            ));
        }
        Ok(())
    }

    fn check_return(&mut self, now: u64, subject: &Subject<'_>) -> Result<(), String> {
        let back = self.0[subject.id].back;
        self.forget(subject.id);
        if subject.counts && now < back.0 {
            return Err(format!("{} is back before {}", subject.id, back.0));
        }
        Ok(())
    }

    /// At most so many of a group at a time, but always one, and never all.
    fn check_cap(
        &self,
        policy: &OutlierPolicy,
        subject: &Subject<'_>,
        all: &[Subject<'_>],
    ) -> Result<(), String> {
        let (out, members) = out_of(&subject.group, all);
        if out > cap(policy, members) {
            return Err(format!(
                "{out} of {members} of {} are ejected ({policy:?})",
                subject.group
            ));
        }
        Ok(())
    }

    fn eject(&mut self, now: u64, policy: &OutlierPolicy, id: &str) {
        let story = self.0.entry(id.to_owned()).or_default();
        story.ejections += 1;
        let base = policy.base_ejection.as_millis();
        let longest = (base * story.ejections).min(LONGEST.max(base)) * 11 / 10;
        // A part of a millisecond is not waited for, and a step is late.
        story.back = (now + base.min(LONGEST), now + longest + 3);
    }

    /// Whoever failed so often is out, unless so many others are.
    fn check_missed(&self, policy: &OutlierPolicy, all: &[Subject<'_>]) -> Result<(), String> {
        for subject in all.iter().filter(|it| it.counts && !policy.disabled) {
            let run = self.0[subject.id].run;
            let is_due = subject.after != Standing::Ejected && run >= limit(policy, subject.after);
            let (out, members) = out_of(&subject.group, all);
            if is_due && out < cap(policy, members) {
                return Err(format!(
                    "{} failed {run} calls and is not ejected ({out} of {members} are, {policy:?})",
                    subject.id
                ));
            }
        }
        Ok(())
    }
}

/// How many failures in a row eject.
fn limit(policy: &OutlierPolicy, standing: Standing) -> u32 {
    match standing {
        Standing::Probation => 1,
        Standing::Good | Standing::Ejected => policy.consecutive_failures.get(),
    }
}

/// How many of a group's READY and connected are out, and how many there are.
fn out_of(group: &str, all: &[Subject<'_>]) -> (usize, usize) {
    let members = || all.iter().filter(|it| it.counts && it.group == group);
    let out = members().filter(|it| it.after == Standing::Ejected);
    (out.count(), members().count())
}

fn cap(policy: &OutlierPolicy, members: usize) -> usize {
    let part = members * policy.max_ejected_percent.get() as usize / 100;
    part.max(1).min(members.saturating_sub(1))
}
