//! The rows that Trimtab is judged by: what must be reached, and whether this run did.

use std::fmt::Write;

use super::table::{CEILING, OURS, number};
use super::{Peer, Report};
use crate::figures::Row;

/// One row of the judgement.
struct Goal {
    workload: &'static str,
    /// How the case's name ends.
    case: &'static str,
    what: &'static str,
    musts: &'static [Must],
}

/// What must hold of Trimtab's median.
#[derive(Clone, Copy)]
enum Must {
    AboveEveryPeer,
    Above(f64),
    Below(f64),
    /// At least so much of another's.
    LeastOf(&'static str, f64),
    /// At most so much of another's.
    MostOf(&'static str, f64),
}

use Must::{Above, AboveEveryPeer, Below, LeastOf, MostOf};

const fn goal(
    workload: &'static str,
    case: &'static str,
    what: &'static str,
    musts: &'static [Must],
) -> Goal {
    Goal {
        workload,
        case,
        what,
        musts,
    }
}

/// The budgets of the design, in its order.
const GOALS: &[Goal] = &[
    goal(
        "register",
        " 64 in flight",
        "rate",
        &[AboveEveryPeer, LeastOf(CEILING, 0.5)],
    ),
    goal(
        "register",
        " 512 in flight",
        "rate",
        &[AboveEveryPeer, LeastOf(CEILING, 0.5)],
    ),
    goal("register-3", " 64 in flight", "rate", &[AboveEveryPeer]),
    goal("register-3", " 512 in flight", "rate", &[AboveEveryPeer]),
    goal("register-3", " in one call", "rate", &[Above(100_000.0)]),
    goal("renew", "100 per message", "rate", &[LeastOf("etcd", 5.0)]),
    goal(
        "renew-3",
        "100 per message",
        "rate",
        &[LeastOf("etcd", 5.0)],
    ),
    goal(
        "lookup",
        "100 instances, 64 in flight",
        "rate",
        &[AboveEveryPeer, LeastOf(CEILING, 0.85)],
    ),
    goal(
        "fanout",
        "10000 watchers on 50 connections",
        "last watcher p50",
        &[MostOf(CEILING, 1.1)],
    ),
    goal(
        "fanout",
        "10000 watchers on 50 connections",
        "last watcher p99",
        &[MostOf(CEILING, 1.1)],
    ),
    goal(
        "fanout",
        "10000 watchers on 50 connections",
        "server CPU a change",
        &[MostOf(CEILING, 1.0)],
    ),
    goal(
        "fanout",
        "10000 watchers on 50 connections",
        "bytes a watcher and change",
        &[MostOf(CEILING, 1.0)],
    ),
    goal("memory", " instances", "memory each", &[Below(400.0)]),
    goal("expiry", " lapse", "all gone after", &[Below(1.0)]),
    goal(
        "failover",
        "leader of 3 killed",
        "writes succeed after",
        &[Below(0.5)],
    ),
    goal(
        "overload",
        "twice what it takes",
        "living instances lost",
        &[Below(1.0)],
    ),
    goal(
        "memory",
        " instances",
        "first correct answer after a restart",
        &[Below(0.5)],
    ),
];

/// The table, of the rows that were measured; empty where none was.
pub(crate) fn markdown(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _written = write_goals(report, &mut text);
    text
}

fn write_goals(report: &Report, out: &mut String) -> std::fmt::Result {
    let rows: Vec<(&Goal, &Row)> = GOALS
        .iter()
        .filter_map(|goal| Some((goal, row_of(goal, &report.figures.rows)?)))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    write!(out, "| work |")?;
    for peer in &report.peers {
        write!(out, " {} |", peer.name)?;
    }
    writeln!(out, " must be | is it |")?;
    write!(out, "|---|")?;
    for _ in &report.peers {
        write!(out, "---:|")?;
    }
    writeln!(out, "---|---|")?;
    for (goal, row) in rows {
        let subject = &row.subject;
        write!(
            out,
            "| {}, {}: {}, {} |",
            subject.workload, subject.case, subject.what, subject.unit
        )?;
        for peer in &report.peers {
            let median = row.spread(peer.name).map(|own| number(own.median));
            write!(out, " {} |", median.unwrap_or_default())?;
        }
        let musts: Vec<String> = goal.musts.iter().map(|must| must.said()).collect();
        writeln!(
            out,
            " {} | {} |",
            musts.join(", "),
            judged(goal, row, &report.peers)
        )?;
    }
    writeln!(out)
}

fn row_of<'a>(goal: &Goal, rows: &'a [Row]) -> Option<&'a Row> {
    rows.iter().find(|row| {
        let subject = &row.subject;
        subject.workload == goal.workload
            && subject.what == goal.what
            && subject.case.ends_with(goal.case)
    })
}

impl Must {
    fn said(self) -> String {
        match self {
            AboveEveryPeer => "above every peer".to_owned(),
            Above(least) => format!("above {}", number(least)),
            Below(most) => format!("below {}", number(most)),
            LeastOf(other, part) => format!("at least {part} x {other}"),
            MostOf(other, part) => format!("at most {part} x {other}"),
        }
    }

    /// `None` where whom it is held against was not measured.
    fn holds(self, ours: f64, row: &Row, peers: &[Peer]) -> Option<bool> {
        let of = |name: &str| row.spread(name).map(|own| own.median);
        match self {
            Above(least) => Some(ours > least),
            Below(most) => Some(ours < most),
            LeastOf(other, part) => Some(ours >= part * of(other)?),
            MostOf(other, part) => Some(ours <= part * of(other)?),
            AboveEveryPeer => {
                let others = peers
                    .iter()
                    .filter(|peer| peer.name != OURS && peer.name != CEILING)
                    .filter_map(|peer| of(peer.name));
                others.reduce(f64::max).map(|best| ours > best)
            }
        }
    }
}

/// In a word.
fn judged(goal: &Goal, row: &Row, peers: &[Peer]) -> &'static str {
    let Some(ours) = row.spread(OURS).map(|own| own.median) else {
        return "not measured";
    };
    let held: Vec<Option<bool>> = goal
        .musts
        .iter()
        .map(|must| must.holds(ours, row, peers))
        .collect();
    if held.contains(&Some(false)) {
        "no"
    } else if held.contains(&None) {
        "in part: a peer is missing"
    } else {
        "yes"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::{Better, Subject, Values};

    fn row(values: &[(&'static str, f64)]) -> Row {
        Row {
            subject: Subject {
                workload: "register",
                case: "1 replica, 64 in flight".to_owned(),
                what: "rate",
                unit: "/s",
                better: Better::Higher,
            },
            values: values
                .iter()
                .map(|&(backend, value)| Values {
                    backend,
                    by_round: vec![value],
                })
                .collect(),
        }
    }

    fn judged_by(values: &[(&'static str, f64)]) -> &'static str {
        let peers: Vec<Peer> = values
            .iter()
            .map(|&(name, _)| Peer {
                name,
                version: String::new(),
                syncs: "",
            })
            .collect();
        judged(&GOALS[0], &row(values), &peers)
    }

    #[test]
    fn a_goal_is_reached_when_all_that_must_hold_does() {
        let judged = judged_by(&[("null", 40.0), ("trimtab", 21.0), ("etcd", 5.0)]);
        assert_eq!(judged, "yes");
        let below_half = judged_by(&[("null", 40.0), ("trimtab", 19.0), ("etcd", 5.0)]);
        assert_eq!(below_half, "no");
        let beaten = judged_by(&[("null", 40.0), ("trimtab", 21.0), ("etcd", 22.0)]);
        assert_eq!(beaten, "no");
        assert_eq!(judged_by(&[("null", 40.0), ("etcd", 5.0)]), "not measured");
        let alone = judged_by(&[("null", 40.0), ("trimtab", 21.0)]);
        assert_eq!(alone, "in part: a peer is missing");
    }

    #[test]
    fn goals_are_about_what_is_measured() {
        let measured = row(&[("trimtab", 1.0)]);
        assert!(row_of(&GOALS[0], std::slice::from_ref(&measured)).is_some());
        assert!(row_of(&GOALS[1], std::slice::from_ref(&measured)).is_none());
    }
}
