//! What the log is told: everything once, and a few lines however many it was.

use super::super::journal::{Changes, News};
use super::*;

const STEP: Duration = Duration::from_millis(100);

/// Steps of the leader's clock, with every judgement applied.
fn steps(judge: &mut Judge, registry: &mut Registry, count: u32) -> Vec<News> {
    let mut news = Vec::new();
    for _ in 0..count {
        if let Some(command) = judge.judge(STEP) {
            let at = Position {
                index: registry.applied().index + 1,
                term: TERM,
            };
            judge.applied(&registry.apply(at, &command).events);
        }
        news.extend(judge.news());
    }
    news
}

fn sum(news: &[News]) -> Changes {
    let mut all = Changes::default();
    for one in news {
        if let News::Changed { changes, .. } | News::ChangedElsewhere { changes, .. } = one {
            all.suspected += changes.suspected;
            all.revived += changes.revived;
            all.removed += changes.removed;
        }
    }
    all
}

#[test]
fn thousands_of_expiries_are_a_few_lines() {
    let mut leader = Leader::new();
    for service in 0..20 {
        leader.register_many(&format!("s{service:02}"), 500);
    }
    let mut registry = leader.registry.clone();
    let mut judge = Judge::default();
    judge.restored(&registry);
    judge.leads_in(Some(TERM));
    let news = steps(&mut judge, &mut registry, 140);
    assert_eq!((sum(&news).suspected, sum(&news).removed), (10_000, 0));
    assert!(news.len() <= 2 * 9, "{}", news.len());
    let News::Changed { service, named, .. } = &news[0] else {
        panic!("{:?}", news[0]);
    };
    assert_eq!((service.as_str(), named.as_str()), ("s00", "i0, i1, i2"));

    // Held in every service, for a minute; then all gone.
    let news = steps(&mut judge, &mut registry, 30);
    let began = news.iter().filter(|it| matches!(it, News::BrakeBegan(_)));
    assert_eq!(began.count(), 8);
    let more = News::BrakesElsewhere {
        began: 12,
        ended: 0,
    };
    assert!(news.contains(&more));
    assert_eq!(steps(&mut judge, &mut registry, 500), Vec::new());
    let news = steps(&mut judge, &mut registry, 100);
    assert_eq!(sum(&news).removed, 10_000);
    let ended = news.iter().filter(|it| matches!(it, News::BrakeEnded(_)));
    assert_eq!(ended.count(), 8);
    assert_eq!(steps(&mut judge, &mut registry, 100), Vec::new());
}

#[test]
fn a_follower_has_no_news() {
    let mut leader = Leader::new();
    let keys = leader.register_many("catalog", 3);
    let mut judge = Judge::default();
    judge.restored(&leader.registry);
    for key in keys {
        judge.applied(&[Event::LeaseEnded { key }]);
    }
    assert_eq!(steps(&mut judge, &mut leader.registry, 30), Vec::new());
}
