//! What was measured, by workload, case and backend, over all rounds.

use serde::Serialize;

/// Is more of it better?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Better {
    Higher,
    Lower,
}

/// What one row of the table is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Subject {
    /// The workload's name.
    pub(crate) workload: &'static str,
    /// How it was run, for example "1 replica, 64 in flight".
    pub(crate) case: String,
    /// What was measured, for example "latency p99".
    pub(crate) what: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) better: Better,
}

/// One row: what each backend did in each round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) subject: Subject,
    pub(crate) values: Vec<Values>,
}

/// What one backend did.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Values {
    pub(crate) backend: &'static str,
    pub(crate) by_round: Vec<f64>,
}

/// Least, middle and most of some values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

/// All rows, in the order in which they were first measured.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Figures {
    pub(crate) rows: Vec<Row>,
}

impl Figures {
    /// Adds what a backend did in a round.
    pub(crate) fn add(&mut self, backend: &'static str, subject: Subject, value: f64) {
        let known = self.rows.iter().position(|row| row.subject == subject);
        let at = known.unwrap_or_else(|| {
            self.rows.push(Row {
                subject,
                values: Vec::new(),
            });
            self.rows.len() - 1
        });
        let Some(row) = self.rows.get_mut(at) else {
            return;
        };
        match row.values.iter_mut().find(|own| own.backend == backend) {
            Some(own) => own.by_round.push(value),
            None => row.values.push(Values {
                backend,
                by_round: vec![value],
            }),
        }
    }
}

impl Row {
    /// What a backend did over all rounds.
    pub(crate) fn spread(&self, backend: &str) -> Option<Spread> {
        let own = self.values.iter().find(|own| own.backend == backend)?;
        Spread::of(&own.by_round)
    }
}

impl Spread {
    /// `None` of nothing.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        let upper = *sorted.get(middle)?;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, upper),
            _ => upper,
        };
        Some(Self {
            min: *sorted.first()?,
            median,
            max: *sorted.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let odd = Spread::of(&[3.0, 1.0, 2.0]);
        let spread = |min, median, max| Some(Spread { min, median, max });
        assert_eq!(odd, spread(1.0, 2.0, 3.0));
        assert_eq!(Spread::of(&[4.0, 1.0]), spread(1.0, 2.5, 4.0));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn rounds_of_one_subject_are_one_row() {
        let subject = Subject {
            workload: "register",
            case: "1 replica".to_owned(),
            what: "rate",
            unit: "/s",
            better: Better::Higher,
        };
        let mut figures = Figures::default();
        figures.add("null", subject.clone(), 1.0);
        figures.add("etcd", subject.clone(), 5.0);
        figures.add("null", subject, 3.0);
        assert_eq!(figures.rows.len(), 1);
        let median = |name| figures.rows[0].spread(name).map(|own| own.median);
        assert_eq!(median("null"), Some(2.0));
        assert_eq!(median("etcd"), Some(5.0));
        assert_eq!(median("r-nacos"), None);
    }
}
