//! The story, phase by phase, told through the operator's calls.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use trimtab_client::cluster::Cluster;
use trimtab_client::error::Error;
use trimtab_client::operator::Operator;
use trimtab_client::operator::change::{
    CanaryShare, ChangeOptions, RollbackTarget, ServiceShift, ShiftOutcome, ShiftTarget, Teardown,
};
use trimtab_client::operator::service_status::ServiceStatus;

use crate::change::route_line;
use crate::demo::judge::worse;
use crate::demo::plan::{BROKEN, CALLERS, INSTANCES, NEW, OLD, Plan, SERVICE};
use crate::demo::report::{ChangeRecord, Promise};
use crate::demo::screen::Screen;
use crate::demo::stage::Stage;
use crate::demo::story::Story;
use crate::failure::{Exit, Failure};
use crate::percent::WHOLE;
use crate::table::{NOTHING, count};
use crate::wait::{self, span};

/// Longer than an election, and than the registry waits for the watchers of a
/// replica that is gone.
const REGISTRY_PATIENCE: Duration = Duration::from_secs(20);

/// How long callers may take to see what is wrong with the broken release.
const NOTICE_PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at the registry.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Who is in charge.
#[derive(Debug)]
struct Director<'a> {
    plan: Plan,
    stage: &'a mut Stage,
    screen: &'a Screen,
    operator: Operator,
    story: Story,
}

/// The whole story, on an empty stage.
pub(crate) async fn perform(
    plan: Plan,
    stage: &mut Stage,
    screen: &Screen,
) -> Result<Story, Failure> {
    screen.headline("three replicas of a registry");
    stage.start_replicas().await?;
    let cluster = Cluster::parse(&stage.endpoints())?;
    let mut director = Director {
        plan,
        stage,
        screen,
        operator: Operator::new(cluster).with_deadline(REGISTRY_PATIENCE),
        story: Story::default(),
    };
    director.open().await?;
    director.canary_and_spin_up().await?;
    director.switch_and_bake().await?;
    director.broken_release().await?;
    director.leader_dies().await?;
    director.teardown().await?;
    director.close().await
}

impl Director<'_> {
    /// Release v1 carries everything.
    async fn open(&mut self) -> Result<(), Failure> {
        let status = self.operator.cluster_status().await?;
        let leader = status.leader_id.unwrap_or_default();
        self.screen
            .say(&format!("they agree that replica {leader} leads"));
        self.screen.headline(&format!(
            "steady: {SERVICE} {OLD} on {INSTANCES} instances, {CALLERS} callers, {} calls/s",
            count(self.plan.calls_per_second.into())
        ));
        self.start_instances(OLD, INSTANCES).await?;
        self.stage.start_callers(self.plan.calls_per_second).await?;
        let status = self
            .until("every caller watches", |status| {
                status.watchers == CALLERS as u32 && status.watchers_confirmed == status.watchers
            })
            .await?;
        self.story.begin_phase("steady", 0, &status.route);
        sleep(self.plan.steady).await;
        Ok(())
    }

    /// One instance of v2 gets an equal share, then the others come up dark
    /// beyond it.
    async fn canary_and_spin_up(&mut self) -> Result<(), Failure> {
        self.screen
            .headline(&format!("canary: one instance of {NEW}"));
        self.start_instances(NEW, 1).await?;
        self.screen
            .say("it joined dark: no calls until somebody says so");
        self.canary(NEW).await?;
        sleep(self.plan.canary).await;
        self.say_group(NEW).await?;

        self.screen.headline(&format!(
            "spin-up: all {INSTANCES} instances of {NEW}, dark beyond the canary's share"
        ));
        let before = self.operator.describe(SERVICE).await?;
        self.story.begin_phase(
            &format!("spin-up of {NEW}"),
            before.revision + 1,
            &before.route,
        );
        self.start_instances(NEW, INSTANCES - 1).await?;
        sleep(self.plan.spin_up).await;
        self.say_group(NEW).await
    }

    /// All calls go to v2; v1 stands by.
    async fn switch_and_bake(&mut self) -> Result<(), Failure> {
        self.screen.headline(&format!("switch to {NEW}"));
        let target = ShiftTarget::SwitchTo(NEW.into());
        self.shift(&format!("switch to {NEW}"), target).await?;
        self.screen.say(&format!(
            "bake: {OLD} stands by without weight, one call away"
        ));
        sleep(self.plan.bake).await;
        self.say_group(NEW).await
    }

    /// v3 fails and slows, which its canary's numbers show; back to v2.
    async fn broken_release(&mut self) -> Result<(), Failure> {
        self.screen.headline(&format!(
            "canary: one instance of {BROKEN}, which fails and slows"
        ));
        let route_before = self.operator.route(SERVICE).await?.route;
        self.start_instances(BROKEN, 1).await?;
        self.canary(BROKEN).await?;
        let since = Instant::now();
        sleep(self.plan.suspicion).await;
        let noticed = self.notice(BROKEN, NEW).await?;
        match &noticed {
            Some(finding) => self.screen.say(&format!(
                "noticed {} after it began: {finding}",
                span(since.elapsed())
            )),
            None => self.screen.say("nobody noticed"),
        }
        let outcome = self.rollback(&format!("rollback of {BROKEN}")).await?;
        let exact = outcome
            .changes
            .first()
            .is_some_and(|change| change.after == route_before);
        self.story.promises.push(Promise::new(
            "a broken release is noticed on its canary's numbers and rolled back exactly",
            noticed.is_some() && exact,
            noticed.unwrap_or_else(|| "not noticed".into()),
        ));
        sleep(self.plan.recovered).await;
        Ok(())
    }

    /// The leader is killed while a shift is on its way, and comes back later.
    async fn leader_dies(&mut self) -> Result<(), Failure> {
        self.screen
            .headline("the leader is killed with kill -9 while a shift goes on");
        let leader = self.operator.cluster_status().await?.leader_id;
        let leader = leader.ok_or_else(|| Failure::new(Exit::Failed, "no replica leads"))?;
        let weights = [
            (OLD.to_owned(), WHOLE / 10),
            (NEW.to_owned(), WHOLE / 10 * 9),
        ];
        let target = ShiftTarget::Weights(weights.into());
        let shift = [ServiceShift::new(SERVICE, target)];
        let what = "shift, leader killed";
        let options = options(what);
        let sent = Instant::now();
        // Polled first, the shift is on its way when the leader dies.
        let (shifted, killed) = tokio::join!(
            self.operator.shift(&shift, &options),
            self.stage.kill_replica(leader)
        );
        killed?;
        let answered = sent.elapsed();
        let held = shifted.is_ok();
        self.story.promises.push(Promise::new(
            "a shift goes through while the leader is killed",
            held,
            match &shifted {
                Ok(_) => format!("replica {leader} killed, answered after {}", span(answered)),
                Err(error) => error.to_string(),
            },
        ));
        let outcome = shifted?;
        self.screen.say(&format!(
            "replica {leader} is gone; the shift was answered after {}",
            span(answered)
        ));
        self.record(what, &outcome, sent).await?;
        sleep(self.plan.without_leader).await;
        self.stage.restart_replica(leader).await?;
        self.screen.say(&format!(
            "replica {leader} is back with what it had on its disk"
        ));
        self.rollback(&format!("rollback to {NEW}")).await?;
        Ok(())
    }

    /// v1 and v3 retire: their instances drain and end by themselves.
    async fn teardown(&mut self) -> Result<(), Failure> {
        self.screen
            .headline(&format!("teardown of {OLD} and {BROKEN}"));
        for (group, instances) in [(OLD, INSTANCES), (BROKEN, 1)] {
            let since = Instant::now();
            self.tear_down(group).await?;
            let left = self.stage.instances_left(group, REGISTRY_PATIENCE).await;
            self.until_gone(group).await?;
            let detail = match &left {
                Ok(left) => format!(
                    "{left} of {instances} instances ended by themselves, {} later",
                    span(since.elapsed())
                ),
                Err(reason) => reason.clone(),
            };
            self.screen.say(&format!("{group} is gone: {detail}"));
            self.story.promises.push(Promise::new(
                &format!("after its teardown {group} drains and ends by itself"),
                left == Ok(instances),
                detail,
            ));
        }
        sleep(self.plan.end).await;
        Ok(())
    }

    /// The callers end.
    async fn close(mut self) -> Result<Story, Failure> {
        self.story.end_phase();
        self.story.callers = self.stage.finish_callers().await?;
        self.screen.say("the callers have ended their last calls");
        Ok(self.story)
    }

    // === steps ===

    async fn start_instances(&mut self, group: &str, number: usize) -> Result<(), Failure> {
        for _ in 0..number {
            self.stage.start_instance(group).await?;
        }
        Ok(())
    }

    async fn canary(&mut self, group: &str) -> Result<(), Failure> {
        let target = ShiftTarget::Canary {
            group: group.to_owned(),
            share: CanaryShare::Even,
        };
        self.shift(&format!("canary of {group}"), target).await?;
        Ok(())
    }

    async fn shift(&mut self, what: &str, target: ShiftTarget) -> Result<ShiftOutcome, Failure> {
        let sent = Instant::now();
        let shift = [ServiceShift::new(SERVICE, target)];
        let outcome = self.operator.shift(&shift, &options(what)).await?;
        self.record(what, &outcome, sent).await?;
        Ok(outcome)
    }

    async fn rollback(&mut self, what: &str) -> Result<ShiftOutcome, Failure> {
        let sent = Instant::now();
        let target = [RollbackTarget {
            service: SERVICE.to_owned(),
            to_revision: None,
            expected_route_revision: None,
        }];
        let outcome = self.operator.rollback(&target, &options(what)).await?;
        self.record(what, &outcome, sent).await?;
        Ok(outcome)
    }

    /// Begins the phase of a change, and waits until every caller uses it.
    async fn record(
        &mut self,
        what: &str,
        outcome: &ShiftOutcome,
        sent: Instant,
    ) -> Result<(), Failure> {
        let change = outcome
            .changes
            .first()
            .ok_or_else(|| Failure::new(Exit::Failed, format!("{what}: nothing was changed")))?;
        self.story
            .begin_phase(what, outcome.revision, &change.after);
        let services = [SERVICE.to_owned()];
        let until = sent + REGISTRY_PATIENCE;
        let mut last_receipt_ms = None;
        let report = wait::collect(
            &self.operator,
            &services,
            outcome.revision,
            sent,
            until,
            |report| {
                if report.progress.confirmed == CALLERS as u32 {
                    last_receipt_ms.get_or_insert(report.elapsed_ms);
                }
            },
        )
        .await?;
        self.screen.say(&format!(
            "{}: {}",
            route_line(&change.after),
            report.sentence()
        ));
        self.story.changes.push(ChangeRecord {
            change: what.to_owned(),
            revision: outcome.revision,
            confirmed: report.progress.confirmed,
            last_receipt_ms,
            certain_ms: report.progress.complete.then_some(report.elapsed_ms),
        });
        Ok(())
    }

    /// Looks at what the registry says of a canary until it is worse than the
    /// release beside it. `None` when that does not happen.
    async fn notice(&mut self, canary: &str, beside: &str) -> Result<Option<String>, Failure> {
        let deadline = Instant::now() + NOTICE_PATIENCE;
        while Instant::now() < deadline {
            let status = self.operator.describe(SERVICE).await?;
            if let (Some(canary), Some(beside)) = (status.group(canary), status.group(beside))
                && let Some(finding) = worse(canary, beside)
            {
                return Ok(Some(finding));
            }
            sleep(LOOK_INTERVAL).await;
        }
        Ok(None)
    }

    /// Asks for a teardown until the guard lets it pass.
    async fn tear_down(&mut self, group: &str) -> Result<(), Failure> {
        let teardown = Teardown {
            service: SERVICE.to_owned(),
            group: group.to_owned(),
            quiet: Some(self.plan.quiet),
            expected_route_revision: None,
        };
        let what = format!("teardown of {group}");
        let deadline = Instant::now() + REGISTRY_PATIENCE;
        let mut refused = false;
        loop {
            match self.operator.teardown(&teardown, &options(&what)).await {
                Ok(_) => return Ok(()),
                Err(Error::Refused(reason)) if Instant::now() < deadline => {
                    if !refused {
                        self.screen.say(&format!("refused at first: {reason}"));
                    }
                    refused = true;
                    sleep(LOOK_INTERVAL).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn until_gone(&mut self, group: &str) -> Result<(), Failure> {
        let what = format!("{group} is gone");
        self.until(&what, |status| status.group(group).is_none())
            .await?;
        Ok(())
    }

    /// Looks at the service until it is as wanted.
    async fn until(
        &self,
        what: &str,
        wanted: impl Fn(&ServiceStatus) -> bool,
    ) -> Result<ServiceStatus, Failure> {
        let deadline = Instant::now() + REGISTRY_PATIENCE;
        loop {
            let status = self.operator.describe(SERVICE).await?;
            if wanted(&status) {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                return Err(Failure::new(
                    Exit::Failed,
                    format!("waited {REGISTRY_PATIENCE:.0?} in vain until {what}"),
                ));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// What callers report of a group, as the registry adds it up.
    async fn say_group(&self, group: &str) -> Result<(), Failure> {
        let status = self.operator.describe(SERVICE).await?;
        if let Some(group) = status.group(group) {
            self.screen.say(&format!(
                "{}, as callers report: {} calls, {} failed, {} on average",
                group.name,
                count(group.calls),
                count(group.errors),
                group.latency_mean.map_or(NOTHING.to_owned(), span)
            ));
        }
        Ok(())
    }
}

fn options(reason: &str) -> ChangeOptions {
    ChangeOptions {
        actor: "trimtab demo".into(),
        reason: reason.into(),
        ..ChangeOptions::default()
    }
}
