//! The end of the demo: what was promised, and whether it held.

use serde::Serialize;

use crate::demo::count::CallerCount;
use crate::demo::ledger::{self, Phase, PhaseAccount, Totals};
use crate::demo::plan::{BROKEN, CALLERS};
use crate::percent::Percent;
use crate::table::{BAD, Cell, FAINT, GOOD, PLAIN, Table, count};

/// One change and how long it took to be everywhere.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ChangeRecord {
    pub(crate) change: String,
    pub(crate) revision: u64,
    /// Callers that confirmed it.
    pub(crate) confirmed: u32,
    /// From sending the change until the last of the callers had confirmed.
    pub(crate) last_receipt_ms: Option<f64>,
    /// Until the registry was certain that there is no other: when a replica
    /// is lost, it gives the callers of that replica time to come back.
    pub(crate) certain_ms: Option<f64>,
}

/// Something that the demo is there to show.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Promise {
    pub(crate) promise: String,
    pub(crate) held: bool,
    pub(crate) detail: String,
}

/// Everything the demo found.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    held: bool,
    seconds: f64,
    totals: Totals,
    phases: Vec<PhaseAccount>,
    changes: Vec<ChangeRecord>,
    promises: Vec<Promise>,
}

impl Report {
    /// Adds up what the callers counted; `promises` are those that were judged
    /// on the way.
    pub(crate) fn new(
        phases: &[Phase],
        callers: &[CallerCount],
        changes: Vec<ChangeRecord>,
        promises: Vec<Promise>,
        seconds: f64,
    ) -> Self {
        let (phases, totals) = ledger::account(phases, callers, BROKEN);
        let mut all = vec![
            no_failed_call(&totals),
            exact_shares(&phases),
            all_receipts(&changes),
        ];
        all.extend(promises);
        Self {
            held: all.iter().all(|promise| promise.held),
            seconds,
            totals,
            phases,
            changes,
            promises: all,
        }
    }

    pub(crate) fn held(&self) -> bool {
        self.held
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut text = format!("\n{}\n{}\n", self.phase_table(), self.change_table());
        text.push_str(&format!(
            "{} calls in {:.0} s; {} failed because of a shift or the registry, \
             {} by {BROKEN}'s own errors\n\n",
            count(self.totals.calls),
            self.seconds,
            count(self.totals.failed_by_shift_or_registry),
            count(self.totals.failed_by_broken_release),
        ));
        for promise in &self.promises {
            let (mark, style) = if promise.held {
                ("held  ", GOOD)
            } else {
                ("BROKEN", BAD)
            };
            text.push_str(&format!(
                "{style}{mark}{style:#}  {} {FAINT}({}){FAINT:#}\n",
                promise.promise, promise.detail
            ));
        }
        for reason in &self.totals.reasons {
            text.push_str(&format!("{BAD}failed:{BAD:#} {reason}\n"));
        }
        text
    }

    fn phase_table(&self) -> String {
        let mut table = Table::new(&[
            "PHASE",
            ">CALLS/S",
            "GROUP",
            ">CALLS",
            ">INTENDED",
            ">OBSERVED",
            ">OFF BY",
            ">LOST",
            ">OWN ERRORS",
            ">LATENCY",
        ]);
        for phase in &self.phases {
            for (position, group) in phase.groups.iter().enumerate() {
                let (name, rate) = match position {
                    0 => (phase.name.clone(), count(phase.calls_per_second as u64)),
                    _ => (String::new(), String::new()),
                };
                table.row([
                    name.into(),
                    rate.into(),
                    group.group.clone().into(),
                    count(group.calls).into(),
                    Percent::from_basis_points(group.intended_basis_points)
                        .to_string()
                        .into(),
                    format!("{:.3}%", group.observed_percent).into(),
                    format!("{:.2}", group.worst_deviation_calls).into(),
                    count_cell(group.lost),
                    count_cell(group.own_errors),
                    format!("{:.2} ms", group.latency_mean_ms).into(),
                ]);
            }
        }
        format!(
            "{}{FAINT}off by: the most that one caller's calls to the group differ from its share of \
             that caller's calls\nlost: failed calls other than the instance's own errors{FAINT:#}\n",
            table.render()
        )
    }

    fn change_table(&self) -> String {
        let mut table = Table::new(&[
            "CHANGE",
            ">REVISION",
            ">CONFIRMED BY",
            ">LAST RECEIPT",
            ">CERTAIN AFTER",
        ]);
        for change in &self.changes {
            table.row([
                change.change.clone().into(),
                change.revision.to_string().into(),
                format!("{} of {CALLERS}", change.confirmed).into(),
                millis_cell(change.last_receipt_ms),
                millis_cell(change.certain_ms),
            ]);
        }
        table.render()
    }
}

impl Promise {
    pub(crate) fn new(promise: &str, held: bool, detail: impl Into<String>) -> Self {
        Self {
            promise: promise.to_owned(),
            held,
            detail: detail.into(),
        }
    }
}

fn count_cell(number: u64) -> Cell {
    Cell::styled(count(number), if number > 0 { BAD } else { PLAIN })
}

fn millis_cell(millis: Option<f64>) -> Cell {
    millis.map_or_else(
        || Cell::styled("never", BAD),
        |millis| format!("{millis:.1} ms").into(),
    )
}

fn no_failed_call(totals: &Totals) -> Promise {
    let failed = totals.failed_by_shift_or_registry;
    Promise::new(
        "no call fails because of a shift or the registry",
        failed == 0 && totals.calls > 0,
        format!("{} of {}", count(failed), count(totals.calls)),
    )
}

fn exact_shares(phases: &[PhaseAccount]) -> Promise {
    Promise::new(
        "every caller gives every group its share within one request, in every phase",
        ledger::shares_hold(phases) && phases.iter().all(|phase| phase.calls > 0),
        format!("at most {:.2} off", ledger::worst_deviation(phases)),
    )
}

fn all_receipts(changes: &[ChangeRecord]) -> Promise {
    let confirmed = |change: &ChangeRecord| {
        change.confirmed == CALLERS as u32
            && change.last_receipt_ms.is_some()
            && change.certain_ms.is_some()
    };
    let number = changes.iter().filter(|change| confirmed(change)).count();
    Promise::new(
        "every change is confirmed by every caller",
        number == changes.len() && !changes.is_empty(),
        format!("{number} of {} changes", changes.len()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::demo::count::{PickTally, Tally};

    fn report(lost: u64) -> Report {
        let phases = [Phase {
            name: "steady".into(),
            from_revision: 1,
            intended: [("v1".to_owned(), 10_000)].into(),
            seconds: 2.0,
        }];
        let callers = [CallerCount {
            picks: vec![PickTally {
                revision: 1,
                group: "v1".into(),
                tally: Tally {
                    calls: 2_000,
                    own_errors: 0,
                    lost,
                    latency_us: 3_000_000,
                },
            }],
            unplaced: 0,
            reasons: vec![],
        }];
        let changes = vec![ChangeRecord {
            change: "switch to v2".into(),
            revision: 9,
            confirmed: 4,
            last_receipt_ms: Some(12.34),
            certain_ms: Some(12.34),
        }];
        Report::new(&phases, &callers, changes, vec![], 2.0)
    }

    #[test]
    fn a_report_without_a_failed_call_holds() {
        assert!(report(0).held());
        let plain = anstream::adapter::strip_str(&report(0).table()).to_string();
        assert!(
            plain.contains(
                "steady    1,000  v1     2,000      100%  100.000%    0.00     0           0  1.50 ms"
            ),
            "{plain}"
        );
        assert!(
            plain.contains("switch to v2         9        4 of 4       12.3 ms        12.3 ms"),
            "{plain}"
        );
        assert!(plain.contains("held    no call fails"), "{plain}");
    }

    #[test]
    fn one_lost_call_breaks_the_promise() {
        let report = report(1);
        assert!(!report.held());
        assert!(report.table().contains("BROKEN"));
    }
}
