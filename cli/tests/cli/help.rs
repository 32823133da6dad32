//! The help is what a person starts from: a change of it is meant, or a
//! mistake.

use crate::golden;
use crate::process::run;

const VERBS: &[&str] = &[
    "serve",
    "status",
    "services",
    "resolve",
    "watch",
    "register",
    "run",
    "canary",
    "shift",
    "switch",
    "policy",
    "rollback",
    "teardown",
    "history",
    "instance",
    "cluster",
    "snapshot",
    "demo",
    "completions",
];

#[test]
fn the_help_of_every_verb_is_as_agreed() {
    let mut text = run(&["--help"]).stdout;
    for verb in VERBS {
        let help = run(&[verb, "--help"]);
        assert_eq!(help.code, Some(0));
        assert!(text.contains(verb), "{verb} is not in the overview");
        text.push_str(&format!("\n=== trimtab {verb} --help\n\n{}", help.stdout));
    }
    for verb in ["save", "inspect", "restore"] {
        let help = run(&["snapshot", verb, "--help"]);
        text.push_str(&format!(
            "\n=== trimtab snapshot {verb} --help\n\n{}",
            help.stdout
        ));
    }
    golden::check("help.txt", &text);
}

#[test]
fn completions_are_scripts_for_each_shell() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = run(&["completions", shell]);
        assert_eq!(script.code, Some(0));
        assert!(script.stdout.contains("rollback"), "{shell}");
        assert!(!script.stdout.contains("demo-caller"), "{shell}");
    }
    assert_eq!(run(&["completions", "tcsh"]).code, Some(2));
}
