//! The policy of a route in the words of the command line: each setting as `trimtab policy` takes it.

use std::num::NonZeroU32;
use std::time::Duration;

use trimtab_client::operator::change::RouteChange;
use trimtab_client::policy::Policy;

use crate::change::route_line;
use crate::table::NOTHING;

/// Every setting with its value, in the order and the words of the flags.
pub(crate) fn of(policy: &Policy) -> [(&'static str, String); 8] {
    let outliers = &policy.outliers;
    let eject_after = match outliers.enabled {
        true => outliers.consecutive_failures.to_string(),
        false => "off".to_owned(),
    };
    [
        ("balancing", policy.balancing.to_string()),
        ("prefer-zone", on_off(policy.prefer_zone)),
        ("subset", subset(policy.subset_size)),
        ("warm-up", warm_up(policy.warm_up)),
        ("eject-after", eject_after),
        ("max-ejected", format!("{}%", outliers.max_ejected_percent)),
        ("ejection", span(outliers.base_ejection)),
        ("fall-back-to-dark", on_off(policy.fall_back_to_dark)),
    ]
}

/// Setting, before, after: of those that differ.
pub(crate) fn differences(before: &Policy, after: &Policy) -> Vec<(&'static str, String, String)> {
    let both = of(before).into_iter().zip(of(after));
    both.filter(|((_, old), (_, new))| old != new)
        .map(|((setting, old), (_, new))| (setting, old, new))
        .collect()
}

/// What is not as it is by default: "prefer-zone on, warm-up 30s". None when
/// everything is.
pub(crate) fn unusual(policy: &Policy) -> Option<String> {
    let differences = differences(&Policy::default(), policy).into_iter();
    let said: Vec<String> = differences
        .map(|(setting, _, value)| format!("{setting} {value}"))
        .collect();
    (!said.is_empty()).then(|| said.join(", "))
}

/// A change of a route on one line each for before and after: the weights,
/// but where the policy alone changed, and the settings that differ.
pub(crate) fn sides(change: &RouteChange) -> (String, String) {
    let after = &change.after;
    let Some(before) = &change.before else {
        return (NOTHING.to_owned(), route_line(after));
    };
    let differences = differences(&before.policy, &after.policy);
    let (mut old, mut new) = (Vec::new(), Vec::new());
    if before.weights != after.weights || differences.is_empty() {
        old.push(route_line(before));
        new.push(route_line(after));
    }
    for (setting, was, is) in differences {
        old.push(format!("{setting} {was}"));
        new.push(format!("{setting} {is}"));
    }
    (old.join(", "), new.join(", "))
}

fn on_off(on: bool) -> String {
    if on { "on" } else { "off" }.to_owned()
}

fn subset(size: Option<NonZeroU32>) -> String {
    size.map_or("all".to_owned(), |size| size.to_string())
}

fn warm_up(warm_up: Duration) -> String {
    match warm_up {
        Duration::ZERO => "off".to_owned(),
        some => span(some),
    }
}

/// Exactly, and so that the flags take it again.
fn span(duration: Duration) -> String {
    humantime::format_duration(duration)
        .to_string()
        .replace(' ', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    use trimtab_client::operator::change::{ChangeKind, Route};

    fn change(before: Route, after: Route) -> RouteChange {
        RouteChange {
            service: "catalog".into(),
            revision: 7,
            at: None,
            actor: String::new(),
            reason: String::new(),
            kind: ChangeKind::Policy,
            before: Some(before),
            after,
            restored_revision: None,
            request_id: String::new(),
        }
    }

    fn to(group: &str) -> Route {
        Route {
            weights: [(group.to_owned(), 10_000)].into(),
            ..Route::default()
        }
    }

    #[test]
    fn the_defaults_are_said_as_the_flags_take_them() {
        let said = of(&Policy::default()).map(|(name, value)| format!("{name} {value}"));
        assert_eq!(
            said,
            [
                "balancing least-loaded",
                "prefer-zone off",
                "subset all",
                "warm-up off",
                "eject-after 5",
                "max-ejected 10%",
                "ejection 30s",
                "fall-back-to-dark off",
            ]
        );
    }

    #[test]
    fn only_what_is_unusual_is_said() {
        assert_eq!(unusual(&Policy::default()), None);
        let policy = Policy {
            prefer_zone: true,
            subset_size: NonZeroU32::new(50),
            ..Policy::default()
        };
        let said = unusual(&policy);
        assert_eq!(said.as_deref(), Some("prefer-zone on, subset 50"));
    }

    #[test]
    fn a_change_of_the_policy_alone_leaves_the_weights_out() {
        let mut after = to("v41");
        after.policy.warm_up = Duration::from_millis(90_500);
        after.policy.outliers.enabled = false;
        let sides = sides(&change(to("v41"), after));
        assert_eq!(sides.0, "warm-up off, eject-after 5");
        assert_eq!(sides.1, "warm-up 1m30s500ms, eject-after off");
    }

    #[test]
    fn a_rollback_may_change_both() {
        let mut before = to("v42");
        before.policy.prefer_zone = true;
        let sides = sides(&change(before, to("v41")));
        assert_eq!(sides.0, "v42 100%, prefer-zone on");
        assert_eq!(sides.1, "v41 100%, prefer-zone off");
    }

    #[test]
    fn without_a_change_of_policy_there_are_only_weights() {
        let (old, new) = sides(&change(to("v41"), to("v42")));
        assert_eq!((old.as_str(), new.as_str()), ("v41 100%", "v42 100%"));
    }
}
