//! The end of every change of a route: before and after, then the wait.

use std::collections::BTreeSet;

use serde::Serialize;
use tokio::time::Instant;
use trimtab_client::error::Error;
use trimtab_client::operator::change::{ChangeOptions, Route, RouteChange, ShiftOutcome};

use crate::arguments::ChangeArgs;
use crate::failure::Failure;
use crate::percent::Percent;
use crate::session::Session;
use crate::settings;
use crate::table::{Cell, FAINT, GOOD, NOTHING, NOTICE, Table};
use crate::wait::{self, ReceiptReport};

/// An outcome and, when it was waited for, who confirmed it.
#[derive(Debug, Serialize)]
pub(crate) struct Report<'a, T: Serialize> {
    #[serde(flatten)]
    pub(crate) outcome: &'a T,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) receipts: Option<ReceiptReport>,
}

/// Prints what became of a shift or rollback of `services` and waits for it
/// where that is asked for.
pub(crate) async fn conclude(
    session: &Session,
    args: &ChangeArgs,
    services: &[String],
    outcome: &ShiftOutcome,
    sent: Instant,
) -> Result<(), Failure> {
    let output = session.output;
    if !output.is_json() {
        output.text(&outcome_table(outcome))?;
        output.warnings(&outcome.warnings);
        if outcome.changes.is_empty() {
            output.note("nothing to change: it already is so");
        }
        if outcome.dry_run {
            output.note("dry run: nothing was changed");
        }
    }
    let waits = args.waits(output.is_attended());
    if !output.is_json() && !waits && !outcome.dry_run && !outcome.changes.is_empty() {
        output.note(&format!("revision {}", outcome.revision));
    }
    let receipts = if waits {
        Some(wait::for_receipts(session, services, outcome.revision, sent).await?)
    } else {
        None
    };
    let report = Report { outcome, receipts };
    if output.is_json() {
        output.result(&report, |_| String::new())?;
    }
    match &report.receipts {
        Some(receipts) => receipts.conclude(session),
        None => Ok(()),
    }
}

/// A failed change: where it may have been made all the same, how to repeat it.
pub(crate) fn failure(error: Error, options: &ChangeOptions) -> Failure {
    let unsure = matches!(error, Error::UnknownOutcome { .. });
    let failure = Failure::from(error);
    match &options.request_id {
        Some(id) if unsure && !options.dry_run => failure.hint(format!(
            "repeat it with --request-id {id}: if it was made after all, it is not made twice"
        )),
        _ => failure,
    }
}

fn outcome_table(outcome: &ShiftOutcome) -> String {
    let tables: Vec<String> = outcome.changes.iter().map(change_table).collect();
    tables.join("\n")
}

fn change_table(change: &RouteChange) -> String {
    let nothing = Route::default();
    let before = change.before.as_ref().unwrap_or(&nothing);
    let differences = settings::differences(&before.policy, &change.after.policy);
    let mut text = String::new();
    if before.weights != change.after.weights || differences.is_empty() {
        text.push_str(&weight_table(change, before));
    }
    if !differences.is_empty() {
        let mut table = Table::new(&["SERVICE", "SETTING", "BEFORE", "AFTER"]);
        for (setting, old, new) in differences {
            table.row([
                change.service.clone().into(),
                setting.into(),
                old.into(),
                Cell::styled(new, NOTICE),
            ]);
        }
        text.push_str(&table.render());
    }
    text
}

fn weight_table(change: &RouteChange, before: &Route) -> String {
    let groups: BTreeSet<&String> = before
        .weights
        .keys()
        .chain(change.after.weights.keys())
        .collect();
    let mut table = Table::new(&["SERVICE", "GROUP", ">BEFORE", ">AFTER"]);
    for group in groups {
        let (old, new) = (before.weight(group), change.after.weight(group));
        let style = match new.cmp(&old) {
            std::cmp::Ordering::Greater => GOOD,
            std::cmp::Ordering::Less => NOTICE,
            std::cmp::Ordering::Equal => FAINT,
        };
        table.row([
            change.service.clone().into(),
            group.clone().into(),
            Percent::from_basis_points(old).to_string().into(),
            Cell::styled(Percent::from_basis_points(new).to_string(), style),
        ]);
    }
    table.render()
}

/// A route on one line: "v41 90%, v42 10%".
pub(crate) fn route_line(route: &Route) -> String {
    if route.weights.is_empty() {
        return NOTHING.to_owned();
    }
    let shares: Vec<String> = route
        .weights
        .iter()
        .map(|(group, weight)| format!("{group} {}", Percent::from_basis_points(*weight)))
        .collect();
    shares.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    use trimtab_client::operator::change::ChangeKind;

    fn route(weights: &[(&str, u32)]) -> Route {
        Route {
            weights: weights.iter().map(|(g, w)| ((*g).to_owned(), *w)).collect(),
            ..Route::default()
        }
    }

    fn canary() -> RouteChange {
        RouteChange {
            service: "catalog".into(),
            revision: 8_812,
            at: Some(std::time::UNIX_EPOCH + std::time::Duration::from_millis(1_500)),
            actor: "ann@build-7".into(),
            reason: "release".into(),
            kind: ChangeKind::Canary,
            before: Some(route(&[("v41", 10_000)])),
            after: route(&[("v41", 9_901), ("v42", 99)]),
            restored_revision: None,
            request_id: "r".into(),
        }
    }

    #[test]
    fn a_change_shows_each_group_before_and_after() {
        let plain = anstream::adapter::strip_str(&change_table(&canary())).to_string();
        assert_eq!(
            plain,
            "SERVICE  GROUP  BEFORE   AFTER\n\
             catalog  v41      100%  99.01%\n\
             catalog  v42        0%   0.99%\n"
        );
    }

    #[test]
    fn a_change_of_policy_is_told() {
        let mut change = canary();
        change.after.policy.fall_back_to_dark = true;
        let plain = anstream::adapter::strip_str(&change_table(&change)).to_string();
        let told = "SERVICE  SETTING            BEFORE  AFTER\n\
                    catalog  fall-back-to-dark  off     on\n";
        assert!(plain.starts_with("SERVICE  GROUP  BEFORE"), "{plain}");
        assert!(plain.ends_with(told), "{plain}");

        change.before = Some(Route {
            policy: Default::default(),
            ..change.after.clone()
        });
        let plain = anstream::adapter::strip_str(&change_table(&change)).to_string();
        assert_eq!(plain, told);
    }

    #[test]
    fn the_json_form_is_stable() {
        let outcome = ShiftOutcome {
            revision: 8_812,
            dry_run: false,
            changes: vec![canary()],
            warnings: vec![],
        };
        let report = Report {
            outcome: &outcome,
            receipts: None,
        };
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"revision":8812,"dry_run":false,"changes":[{"service":"catalog","revision":8812,"at":"1970-01-01T00:00:01.500Z","actor":"ann@build-7","reason":"release","kind":"canary","before":{"weights":{"v41":10000},"policy":{"fall_back_to_dark":false,"balancing":"least-loaded","prefer_zone":false,"subset_size":null,"warm_up_ms":0.0,"outliers":{"enabled":true,"consecutive_failures":5,"max_ejected_percent":10,"base_ejection_ms":30000.0}},"salt":0},"after":{"weights":{"v41":9901,"v42":99},"policy":{"fall_back_to_dark":false,"balancing":"least-loaded","prefer_zone":false,"subset_size":null,"warm_up_ms":0.0,"outliers":{"enabled":true,"consecutive_failures":5,"max_ejected_percent":10,"base_ejection_ms":30000.0}},"salt":0},"restored_revision":null,"request_id":"r"}],"warnings":[]}"#
        );
    }

    #[test]
    fn only_a_change_with_an_unsure_outcome_is_worth_repeating() {
        let options = ChangeOptions {
            request_id: Some("abc".into()),
            ..ChangeOptions::default()
        };
        let lost = Error::UnknownOutcome {
            request: "Shift",
            reason: "connection reset".into(),
        };
        assert!(
            failure(lost, &options)
                .to_text()
                .contains("--request-id abc")
        );
        let refused = failure(Error::Refused("no".into()), &options);
        assert_eq!(refused.to_text(), "error: no");
    }
}
