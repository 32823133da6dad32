//! Waiting until a change is everywhere, with a progress line for a person.

use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep, timeout_at};
use trimtab_client::error::Error;
use trimtab_client::operator::Operator;
use trimtab_client::operator::receipts::{Laggard, ReceiptProgress};

use crate::failure::{Exit, Failure};
use crate::session::Session;
use crate::table::{Table, count};

/// Between two questions to a registry that did not answer the first.
const PAUSE: Duration = Duration::from_millis(200);

/// Who had confirmed when the wait ended.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ReceiptReport {
    /// The revision waited for.
    pub(crate) revision: u64,
    #[serde(flatten)]
    pub(crate) progress: ReceiptProgress,
    /// From sending the change to the end of the wait.
    pub(crate) elapsed_ms: f64,
    /// Why nothing more was heard, when the registry could not be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) unheard: Option<String>,
}

/// Waits until every live watcher of `services` uses `revision`, at most for
/// the time the session has. `sent` is when the change was sent.
pub(crate) async fn for_receipts(
    session: &Session,
    services: &[String],
    revision: u64,
    sent: Instant,
) -> Result<ReceiptReport, Failure> {
    let output = session.output;
    let report = collect(
        &session.operator,
        services,
        revision,
        sent,
        Instant::now() + session.wait_left(),
        |report| output.progress(&report.sentence()),
    )
    .await;
    output.clear_progress();
    report
}

/// As [`for_receipts`], until a given moment, and telling of each step.
pub(crate) async fn collect(
    operator: &Operator,
    services: &[String],
    revision: u64,
    sent: Instant,
    until: Instant,
    mut step: impl FnMut(&ReceiptReport),
) -> Result<ReceiptReport, Failure> {
    let mut receipts = operator.receipts(services, revision);
    let mut report = ReceiptReport {
        revision,
        progress: ReceiptProgress::default(),
        elapsed_ms: 0.0,
        unheard: None,
    };
    while let Ok(answer) = timeout_at(until, receipts.next()).await {
        match answer {
            Ok(Some(progress)) => {
                report.progress = progress;
                report.unheard = None;
            }
            Ok(None) => break,
            Err(error @ (Error::Unavailable { .. } | Error::Deadline { .. })) => {
                report.unheard = Some(error.to_string());
                sleep(PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
        report.elapsed_ms = sent.elapsed().as_micros() as f64 / 1_000.0;
        step(&report);
        if report.progress.complete || Instant::now() >= until {
            break;
        }
    }
    report.elapsed_ms = sent.elapsed().as_micros() as f64 / 1_000.0;
    Ok(report)
}

// === impl ReceiptReport ===

impl ReceiptReport {
    fn elapsed(&self) -> Duration {
        Duration::from_micros((self.elapsed_ms * 1_000.0) as u64)
    }

    /// Says how the wait ended: a note when all is well, else the laggards and
    /// the failure.
    pub(crate) fn conclude(&self, session: &Session) -> Result<(), Failure> {
        let sentence = self.sentence();
        if !session.output.is_json() {
            session.output.warnings(&self.progress.warnings);
        }
        if self.progress.complete {
            if !session.output.is_json() {
                session.output.note(&sentence);
            }
            return Ok(());
        }
        if !session.output.is_json() && !self.progress.laggards.is_empty() {
            session.output.note(&laggard_table(&self.progress.laggards));
        }
        let cause = match &self.unheard {
            Some(unheard) => format!("{sentence}; then {unheard}"),
            None => sentence,
        };
        Err(Failure::new(Exit::WaitedInVain, cause).hint(
            "the change is made and stays; wait longer with --timeout, \
             or look at who lags with `trimtab status`",
        ))
    }

    /// How far the revision has come: "in effect on 3 of 4 callers after 14 ms".
    pub(crate) fn sentence(&self) -> String {
        let ReceiptProgress {
            watchers,
            confirmed,
            ..
        } = self.progress;
        if watchers == 0 && self.progress.complete {
            return format!("revision {} in effect; no caller watches", self.revision);
        }
        format!(
            "revision {} in effect on {} of {} callers after {}",
            self.revision,
            count(confirmed.into()),
            count(watchers.into()),
            span(self.elapsed())
        )
    }
}

/// A time as people say it: "14 ms", "3.2 s", "4 min".
pub(crate) fn span(duration: Duration) -> String {
    match duration.as_millis() {
        0..10 => format!("{:.1} ms", duration.as_secs_f64() * 1_000.0),
        millis @ 10..1_000 => format!("{millis} ms"),
        1_000..120_000 => format!("{:.1} s", duration.as_secs_f64()),
        120_000..7_200_000 => format!("{} min", duration.as_secs() / 60),
        7_200_000..172_800_000 => format!("{} h", duration.as_secs() / 3_600),
        _ => format!("{} d", duration.as_secs() / 86_400),
    }
}

fn laggard_table(laggards: &[Laggard]) -> String {
    let mut table = Table::new(&[
        "NOT CONFIRMED BY",
        "NAME",
        "SERVICE",
        ">REPLICA",
        ">REVISION",
    ]);
    for laggard in laggards {
        table.row([
            laggard.watcher_id.clone().into(),
            laggard.name.clone().into(),
            laggard.service.clone().into(),
            laggard.replica_id.to_string().into(),
            laggard.revision.to_string().into(),
        ]);
    }
    table.render().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(confirmed: u32, watchers: u32, complete: bool) -> ReceiptReport {
        ReceiptReport {
            revision: 8_812,
            progress: ReceiptProgress {
                watchers,
                confirmed,
                complete,
                ..ReceiptProgress::default()
            },
            elapsed_ms: 14.2,
            unheard: None,
        }
    }

    #[test]
    fn the_end_of_a_wait_is_one_sentence() {
        let all = report(1_204, 1_204, true);
        assert_eq!(
            all.sentence(),
            "revision 8812 in effect on 1,204 of 1,204 callers after 14 ms"
        );
        let nobody = report(0, 0, true);
        assert_eq!(
            nobody.sentence(),
            "revision 8812 in effect; no caller watches"
        );
    }

    #[test]
    fn spans_are_said_as_people_say_them() {
        let said: Vec<_> = [2, 14, 999, 3_200, 240_000, 10_800_000, 259_200_000]
            .map(|millis| span(Duration::from_millis(millis)))
            .into();
        assert_eq!(
            said,
            ["2.0 ms", "14 ms", "999 ms", "3.2 s", "4 min", "3 h", "3 d"]
        );
    }

    #[test]
    fn laggards_are_named_with_where_and_how_far_they_are() {
        let table = laggard_table(&[Laggard {
            watcher_id: "w-7".into(),
            name: "web-12/4711".into(),
            replica_id: 2,
            service: "catalog".into(),
            revision: 8_799,
        }]);
        let plain = anstream::adapter::strip_str(&table).to_string();
        assert_eq!(
            plain,
            "NOT CONFIRMED BY  NAME         SERVICE  REPLICA  REVISION\n\
             w-7               web-12/4711  catalog        2      8799"
        );
    }
}
