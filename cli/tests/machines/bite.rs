//! Shows that the checks bite: a small history in which all is well, and the same with one promise after the other broken.

use std::collections::BTreeMap;

use serde_json::json;
use trimtab_tests::history::{Answered, Ask, Operation, Routes, Told};

use crate::oracles::{History, broken_promises};
use crate::parts::{SERVICE, route_text};
use crate::record::{Answer, Call, Event, Question, Shown};

/// The promise, and what breaks it.
type Case = (&'static str, fn(&mut History));

/// Long after everything else.
const MUCH_LATER: u64 = 60_000_000;

const CASES: [Case; 13] = [
    ("the order of route changes", |history| {
        script(history).push(read(500, 3, "v1"))
    }),
    ("acknowledged changes are kept", |history| {
        history.routes[0]["after"] = after("v1")
    }),
    ("every call is answered", |history| {
        caller(history).push(call(500, 10, Err("nobody".to_owned())));
    }),
    ("traffic goes on", |history| {
        caller(history).push(call(MUCH_LATER, 10, answer("v2", 10)))
    }),
    ("calls follow the newest view", |history| {
        caller(history).push(call(260, 10, answer("v1", 3)))
    }),
    ("no caller goes back", |history| {
        caller(history).push(Event::Follows {
            at: 600,
            revision: 3,
        })
    }),
    ("no call by an older view after its receipt", |history| {
        caller(history).push(call(500, 3, answer("v1", 3)));
    }),
    ("a group at 0 gets nothing", |history| {
        caller(history).push(call(500, 10, answer("v1", 10)))
    }),
    ("no replica goes back", |history| {
        history.reader.push(shown(600, 10, "v2", &["a"]))
    }),
    ("no living instance is removed", |history| {
        history.reader.push(shown(600, 12, "v2", &[]))
    }),
    ("the dead go", |history| history.reader.truncate(3)),
    ("reads go on", |history| {
        history.reader.push(question(MUCH_LATER, 10))
    }),
    ("watches go on", |history| history.reader.truncate(2)),
];

/// # Panics
/// When a check does not bite, or bites without cause.
pub(crate) fn show() {
    assert_eq!(broken_promises(&well()), [""; 0]);
    for (promise, break_it) in CASES {
        let mut history = well();
        break_it(&mut history);
        let found = broken_promises(&history);
        assert!(
            found.contains(&promise),
            "{promise:?} was broken, and seen was {found:?}"
        );
    }
    println!("the checks bite: {} broken promises were seen", CASES.len());
}

/// One script shifts from v1 to v2, one caller follows, one instance dies.
fn well() -> History {
    let mut history = History {
        begun: 1,
        start: told(3, "v1"),
        end: operation(read(1_000, 10, "v2")),
        steady: vec![1],
        answering: Vec::new(),
        callers: BTreeMap::new(),
        scripts: BTreeMap::new(),
        reader: vec![
            question(20, 3),
            shown(20, 3, "v1", &["a", "b"]),
            shown(210, 10, "v2", &["a", "b"]),
            shown(500, 11, "v2", &["a"]),
            question(500, 11),
        ],
        routes: json!([
            { "revision": 10, "after": after("v2") },
            { "revision": 3, "after": after("v1") },
        ]),
        living: vec!["a".to_owned()],
        killed: BTreeMap::from([("b".to_owned(), 220)]),
        gone_within: 1_000,
    };
    *caller(&mut history) = vec![
        Event::Follows { at: 5, revision: 3 },
        call(50, 3, answer("v1", 3)),
        Event::Follows {
            at: 250,
            revision: 10,
        },
        call(400, 10, answer("v2", 10)),
    ];
    let weights = BTreeMap::from([("v2".to_owned(), 10_000)]);
    let changed = Answered::Changed(10, Routes::from([(SERVICE.to_owned(), told(10, "v2"))]));
    *script(&mut history) = vec![
        read(10, 3, "v1"),
        Event::Asked(Operation {
            called: 100,
            returned: Some(200),
            ask: Ask::Shift(vec![(SERVICE.to_owned(), Some(3), route_text(&weights))]),
            answer: Some(changed),
        }),
        Event::Confirmed {
            at: 300,
            revision: 10,
        },
    ];
    history
}

fn caller(history: &mut History) -> &mut Vec<Event> {
    history.callers.entry("caller".to_owned()).or_default()
}

fn script(history: &mut History) -> &mut Vec<Event> {
    history.scripts.entry("script".to_owned()).or_default()
}

fn after(group: &str) -> serde_json::Value {
    json!({ "weights": { group: 10_000 } })
}

fn told(revision: u64, group: &str) -> Told {
    let route = route_text(&BTreeMap::from([(group.to_owned(), 10_000)]));
    Told { revision, route }
}

fn read(called: u64, revision: u64, group: &str) -> Event {
    Event::Asked(Operation {
        called,
        returned: Some(called + 1),
        ask: Ask::Read(vec![SERVICE.to_owned()]),
        answer: Some(Answered::Read(Routes::from([(
            SERVICE.to_owned(),
            told(revision, group),
        )]))),
    })
}

fn operation(event: Event) -> Operation {
    match event {
        Event::Asked(operation) => operation,
        other => panic!("{other:?} was not asked"),
    }
}

fn call(begun: u64, followed: u64, answer: Result<Answer, String>) -> Event {
    Event::Call(Call {
        begun,
        ended: begun + 1,
        followed,
        answer,
    })
}

fn answer(group: &str, revision: u64) -> Result<Answer, String> {
    Ok(Answer {
        group: group.to_owned(),
        instance: "a".to_owned(),
        revision,
    })
}

fn shown(at: u64, revision: u64, group: &str, instances: &[&str]) -> Event {
    let instances = instances.iter();
    Event::Shown(Shown {
        at,
        replica: 1,
        revision,
        weights: BTreeMap::from([(group.to_owned(), 10_000)]),
        instances: instances
            .map(|id| ((*id).to_owned(), "ready".to_owned()))
            .collect(),
    })
}

fn question(begun: u64, revision: u64) -> Event {
    Event::Question(Question {
        begun,
        ended: begun + 1,
        replica: 1,
        answer: Ok(revision),
    })
}
