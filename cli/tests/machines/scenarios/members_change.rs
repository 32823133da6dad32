//! A new replica joins and gets a vote while all go on, and then the one that leads is removed for good.

use std::path::Path;
use std::time::Duration;

use crate::replicas::host;
use crate::scenarios::Ended;
use crate::stage::{Setting, Stage};
use crate::wait::until;

/// No founder has this number.
const NEW: u64 = 4;

/// Some changes and some hundred calls.
const BETWEEN: Duration = Duration::from_secs(2);

pub(super) fn play(directory: &Path) -> Ended {
    let mut stage = Stage::new(directory, Setting::default());
    stage.network.add(&host(NEW)).expect("one more host");
    stage.replicas.join(&stage.network, NEW);
    let address = stage.replicas.address(NEW);
    change(&stage, &["add", &address]);
    stage.changes_go_on();
    // Refused until it has caught up.
    change(&stage, &["promote", &NEW.to_string()]);
    stage.let_run(BETWEEN);
    let removed = stage.leader();
    stage.steady = stage.replicas.others(&[removed, NEW]);
    change(&stage, &["remove", &removed.to_string()]);
    stage.replicas.await_end(removed);
    let outage = stage.changes_go_on();
    stage.let_run(BETWEEN);
    assert_ne!(stage.leader(), removed);
    let counts = stage.finish();
    Ended::Well(format!(
        "replica {NEW} for {removed}, changes went on after {outage:.1?}; {counts}"
    ))
}

/// Asks for a change of members until it is made.
fn change(stage: &Stage, words: &[&str]) {
    let question: Vec<&str> = ["cluster"].iter().chain(words).copied().collect();
    let ids = stage.replicas.ids();
    let mut said = String::new();
    let asked = || match stage.replicas.ask(&stage.network, &ids, &question) {
        Ok(done) => Some(done),
        Err(why) => {
            said = why;
            None
        }
    };
    until(&format!("trimtab {}", question.join(" ")), asked);
    if !said.is_empty() {
        println!(
            "  at first, trimtab {}: {}",
            question.join(" "),
            said.trim()
        );
    }
}
