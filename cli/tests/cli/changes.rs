//! Changes: what they print, what they guard, and how they wait.

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use trimtab_proto::v1::discovery_client::DiscoveryClient;
use trimtab_proto::v1::watch_request::Kind;
use trimtab_proto::v1::{Hello, Subscribe, WatchRequest};

use crate::golden;
use crate::process::{Held, Registry};

/// `catalog` with v41 carrying everything and v42 dark, an instance each.
fn registry() -> (Registry, Vec<Held>) {
    let registry = Registry::start();
    let held = vec![
        registry.register("catalog", "v41", "a1", "127.0.0.1:9001"),
        registry.register("catalog", "v42", "b1", "127.0.0.1:9002"),
    ];
    (registry, held)
}

#[test]
fn changes_have_a_stable_json_form() {
    let (registry, _held) = registry();
    let reason = ["--reason", "golden"];
    let change = |verb: &[&str]| registry.json(&[verb, &reason].concat());
    golden::check_json(
        "canary-dry-run.json",
        &change(&["canary", "catalog", "v42", "--dry-run"]),
    );
    golden::check_json("canary.json", &change(&["canary", "catalog", "v42"]));
    golden::check_json(
        "shift.json",
        &change(&["shift", "catalog", "v41=99.99", "v42=0.01%"]),
    );
    golden::check_json(
        "switch.json",
        &change(&["switch", "catalog", "v42", "--wait"]),
    );
    golden::check_json("switch-again.json", &change(&["switch", "catalog", "v42"]));
    golden::check_json("rollback.json", &change(&["rollback", "catalog"]));
    golden::check_json(
        "policy.json",
        &change(&["policy", "catalog", "--warm-up", "30s"]),
    );
    golden::check_json(
        "instance-capacity.json",
        &change(&["instance", "capacity", "catalog", "a1", "50"]),
    );
    golden::check_json(
        "instance-drain.json",
        &change(&["instance", "drain", "catalog", "b1"]),
    );
    golden::check_json(
        "instance-undrain.json",
        &change(&["instance", "undrain", "catalog", "b1"]),
    );
}

#[test]
fn a_change_shows_before_and_after() {
    let (registry, _held) = registry();
    let done = registry.run(&["switch", "catalog", "v42", "--wait"]);
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(
        done.stdout,
        "SERVICE  GROUP  BEFORE  AFTER\n\
         catalog  v41      100%     0%\n\
         catalog  v42        0%   100%\n"
    );
    assert!(done.stderr.contains(" in effect"), "{}", done.stderr);
}

#[test]
fn a_policy_is_shown_changed_and_told() {
    let (registry, _held) = registry();
    let shown = registry.run(&["policy", "catalog"]);
    assert_eq!(shown.code, Some(0), "{}", shown.stderr);
    assert!(
        shown
            .stdout
            .contains("balancing          least-loaded  least-loaded\n")
    );
    let revision = registry.json(&["policy", "catalog"])["route_revision"].clone();

    let asked = [
        "policy",
        "catalog",
        "--balancing",
        "round-robin",
        "--subset",
        "50",
    ];
    let dry = registry.run(&[&asked[..], &["--dry-run"]].concat());
    assert!(dry.stderr.contains("dry run"), "{}", dry.stderr);
    assert_eq!(
        registry.json(&["policy", "catalog"])["route_revision"],
        revision
    );

    let done = registry.run(&[&asked[..], &["--wait", "--reason", "try it"]].concat());
    assert_eq!(done.code, Some(0), "{}", done.stderr);
    assert_eq!(
        done.stdout,
        "SERVICE  SETTING    BEFORE        AFTER\n\
         catalog  balancing  least-loaded  round-robin\n\
         catalog  subset     all           50\n"
    );
    assert!(done.stderr.contains(" in effect"), "{}", done.stderr);

    let again = registry.run(&asked);
    assert!(
        again.stderr.contains("nothing to change"),
        "{}",
        again.stderr
    );
    let late = registry.run(&[&asked[..], &["--defaults", "--expect-revision", "1"]].concat());
    assert_eq!(late.code, Some(5), "{}", late.stderr);

    let history = registry.run(&["history", "catalog", "--limit", "1"]).stdout;
    let told = "balancing least-loaded, subset all  balancing round-robin, subset 50";
    assert!(history.contains("policy"), "{history}");
    assert!(history.contains(told), "{history}");
    let status = registry.run(&["status", "catalog"]).stdout;
    let told = "\npolicy: balancing round-robin, subset 50\n";
    assert!(status.contains(told), "{status}");

    let back = registry.run(&["rollback", "catalog"]);
    assert_eq!(back.code, Some(0), "{}", back.stderr);
    assert!(
        back.stdout.contains("subset     50           all"),
        "{}",
        back.stdout
    );
}

/// Whoever was late reads anew: nobody undoes what another has set.
#[test]
fn settings_that_are_changed_at_once_all_hold() {
    let (registry, _held) = registry();
    let settings = [
        ["--balancing", "round-robin"],
        ["--prefer-zone", "on"],
        ["--subset", "50"],
        ["--warm-up", "30s"],
        ["--ejection", "10s"],
    ];
    let asked =
        settings.map(|[flag, value]| registry.start_command(&["policy", "catalog", flag, value]));
    for mut one in asked {
        assert_eq!(one.ended(), Some(0));
    }
    let policy = registry.json(&["policy", "catalog"])["policy"].clone();
    assert_eq!(policy["balancing"], "round-robin");
    assert_eq!(policy["prefer_zone"], true);
    assert_eq!(policy["subset_size"], 50);
    assert_eq!(policy["warm_up_ms"], 30_000.0);
    assert_eq!(policy["outliers"]["base_ejection_ms"], 10_000.0);
}

#[test]
fn a_policy_out_of_range_is_refused_with_field_value_and_rule() {
    let (registry, _held) = registry();
    let refused = registry.run(&["policy", "catalog", "--warm-up", "2h"]);
    assert_eq!(refused.code, Some(3));
    let said = "policy.warm_up must be 0 ms to 1 h, but is \"2 h\"";
    assert!(refused.stderr.contains(said), "{}", refused.stderr);
    let unknown = registry.run(&["policy", "nobody", "--warm-up", "2s"]);
    assert_eq!(unknown.code, Some(4), "{}", unknown.stderr);
}

#[test]
fn a_dry_run_changes_nothing() {
    let (registry, _held) = registry();
    let before = registry.json(&["history", "catalog"]);
    let done = registry.run(&["switch", "catalog", "v42", "--dry-run"]);
    assert_eq!(done.code, Some(0));
    assert!(done.stderr.contains("dry run"), "{}", done.stderr);
    assert_eq!(registry.json(&["history", "catalog"]), before);
}

#[test]
fn a_group_that_cannot_carry_the_calls_is_refused_with_the_numbers() {
    let (registry, _held) = registry();
    let _second = registry.register("catalog", "v41", "a2", "127.0.0.1:9003");
    let done = registry.run(&["switch", "catalog", "v42"]);
    assert_eq!(done.code, Some(5));
    assert!(done.stderr.contains("v42"), "{}", done.stderr);
    assert!(done.stderr.contains("200"), "{}", done.stderr);
    let forced = registry.run(&["switch", "catalog", "v42", "--force"]);
    assert_eq!(forced.code, Some(0), "{}", forced.stderr);
    // Never refused.
    assert_eq!(registry.run(&["rollback", "catalog"]).code, Some(0));
}

#[test]
fn an_old_expectation_is_refused_with_the_current_revision() {
    let (registry, _held) = registry();
    let revision = registry.json(&["history", "catalog"])[0]["revision"].to_string();
    let expect =
        |revision: &str| registry.run(&["canary", "catalog", "v42", "--expect-revision", revision]);
    assert_eq!(expect(&revision).code, Some(0));
    let late = expect(&revision);
    assert_eq!(late.code, Some(5));
    let current = registry.json(&["history", "catalog"])[0]["revision"].to_string();
    assert!(late.stderr.contains(&current), "{}", late.stderr);
}

#[test]
fn a_change_with_the_same_id_is_made_once() {
    let (registry, _held) = registry();
    let canary = ["canary", "catalog", "v42", "--request-id", "deploy-42"];
    let first = registry.json(&canary);
    registry.json(&["rollback", "catalog"]);
    let again = registry.json(&canary);
    assert_eq!(again["revision"], first["revision"]);
    let history = registry.json(&["history", "catalog"]);
    assert_eq!(history[0]["kind"], "rollback");
}

#[test]
fn a_caller_that_does_not_confirm_is_named() {
    let (registry, _held) = registry();
    let _laggard = Laggard::watch(&registry.endpoint, "catalog");
    let watched = |status: &Value| status["watchers"] == 1;
    registry.until(&["status", "catalog"], watched);
    let wait = ["--wait", "--timeout", "600ms"];
    let done = registry.run(&[&["canary", "catalog", "v42"], &wait[..]].concat());
    assert_eq!(done.code, Some(7), "{}", done.stderr);
    assert!(done.stderr.contains("web-12/4711"), "{}", done.stderr);
    assert!(done.stderr.contains("0 of 1 callers"), "{}", done.stderr);

    let json = ["--output", "json"];
    let rollback = ["rollback", "catalog"];
    let done = registry.run(&[&rollback[..], &wait, &json].concat());
    assert_eq!(done.code, Some(7));
    let report: Value = serde_json::from_str(&done.stdout).unwrap();
    assert_eq!(report["receipts"]["complete"], false);
    let laggard = &report["receipts"]["laggards"][0];
    assert_eq!(laggard["watcher_id"], "laggard");
    assert_eq!(laggard["replica_id"], 1);
    let error: Value = serde_json::from_str(&done.stderr).unwrap();
    assert_eq!(error["error"]["code"], "waited_in_vain");

    let guarded = registry.run(&["teardown", "catalog", "v42", "--quiet", "0s"]);
    assert_eq!(guarded.code, Some(5));
    assert!(guarded.stderr.contains("web-12/4711"), "{}", guarded.stderr);
}

/// A caller that takes views and never says that it uses them.
struct Laggard {
    _runtime: Runtime,
    _requests: mpsc::Sender<WatchRequest>,
}

impl Laggard {
    fn watch(endpoint: &str, service: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let (requests, receiver) = mpsc::channel(2);
        let hello = Hello {
            watcher_id: "laggard".into(),
            name: "web-12/4711".into(),
            zone: String::new(),
        };
        let subscribe = Subscribe {
            service: service.into(),
            known_revision: 0,
            known_checksum: 0,
            ..Subscribe::default()
        };
        for kind in [Kind::Hello(hello), Kind::Subscribe(subscribe)] {
            requests
                .try_send(WatchRequest { kind: Some(kind) })
                .unwrap();
        }
        let url = format!("http://{endpoint}");
        runtime.spawn(async move {
            let mut client = DiscoveryClient::connect(url).await.unwrap();
            let views = client.watch(ReceiverStream::new(receiver)).await.unwrap();
            let mut views = views.into_inner();
            while let Ok(Some(_)) = views.message().await {}
        });
        Self {
            _runtime: runtime,
            _requests: requests,
        }
    }
}

#[test]
fn several_services_switch_at_one_revision() {
    let (registry, _held) = registry();
    let _cart = [
        registry.register("cart", "v16", "c1", "127.0.0.1:9011"),
        registry.register("cart", "v17", "d1", "127.0.0.1:9012"),
    ];
    let outcome = registry.json(&["switch", "catalog=v42", "cart=v17"]);
    let changes = outcome["changes"].as_array().unwrap();
    assert_eq!(changes.len(), 2);
    assert!(changes.iter().all(|c| c["revision"] == outcome["revision"]));
    let refused = registry.run(&["switch", "catalog=v41", "cart=v99"]);
    assert_ne!(refused.code, Some(0));
    let route = registry.json(&["resolve", "catalog"]);
    assert_eq!(route["route"]["weights"], json!({"v42": 10_000}));
    let back = registry.json(&["rollback", "catalog", "cart"]);
    assert_eq!(back["changes"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_rollback_goes_to_the_revision_it_is_told() {
    let (registry, _held) = registry();
    let found = registry.json(&["history", "catalog"])[0]["revision"].to_string();
    registry.json(&["canary", "catalog", "v42", "--share", "5"]);
    registry.json(&["canary", "catalog", "v42", "--share", "10"]);
    let outcome = registry.json(&["rollback", "catalog", "--to", &found]);
    assert_eq!(
        outcome["changes"][0]["after"]["weights"],
        json!({"v41": 10_000})
    );
    assert_eq!(
        outcome["changes"][0]["restored_revision"].to_string(),
        found
    );
    assert_eq!(
        registry.run(&["rollback", "catalog", "--to", "1"]).code,
        Some(5)
    );
}

#[test]
fn a_drained_instance_says_so_until_undrained() {
    let (registry, _held) = registry();
    registry.json(&["instance", "drain", "catalog", "a1"]);
    let status = |id: &str| {
        let view = registry.json(&["resolve", "catalog"]);
        let instances = view["instances"].as_array().unwrap();
        let found = instances.iter().find(|instance| instance["id"] == id);
        found.unwrap()["status"].clone()
    };
    assert_eq!(status("a1"), "draining");
    registry.json(&["instance", "undrain", "catalog", "a1"]);
    assert_eq!(status("a1"), "ready");
    let nobody = registry.run(&["instance", "drain", "catalog", "z9"]);
    assert_eq!(nobody.code, Some(4));
}

#[test]
fn a_torn_down_group_leaves_by_itself() {
    let (registry, mut held) = registry();
    let weighted = registry.run(&["teardown", "catalog", "v41", "--quiet", "0s"]);
    assert_eq!(weighted.code, Some(5));
    registry.json(&["switch", "catalog", "v42"]);
    let torn = registry.json(&["teardown", "catalog", "v41", "--quiet", "0s", "--wait"]);
    golden::check_json("teardown.json", &torn);
    // The one that held the registration was told to retire, and did.
    assert_eq!(held.remove(0).ended(), Some(0));
    let gone = registry.run(&["rollback", "catalog"]);
    assert_eq!(gone.code, Some(5));
    assert!(gone.stderr.contains("v41"), "{}", gone.stderr);
}
