//! A reader: asks every replica on its own all the time, and watches through each.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::{interval, sleep, timeout};
use trimtab_client::cluster::Cluster;
use trimtab_client::operator::Operator;
use trimtab_client::operator::service_status::ServiceView;
use trimtab_client::operator::watch::WatchEvent;

use crate::clock;
use crate::parts::{SERVICE, told_to_finish};
use crate::record::{Event, Question, Recorder, Shown};

const INTERVAL: Duration = Duration::from_millis(100);

/// A replica that answers does so well within this.
const ANSWER_WITHIN: Duration = Duration::from_millis(1_000);

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Reader {
    /// The replicas' ids and addresses.
    pub(crate) replicas: Vec<(u64, String)>,
}

impl Reader {
    pub(super) async fn play(self) {
        for (id, address) in self.replicas {
            // Apart from each other, as two processes would be.
            let operator = || Operator::new(Cluster::parse(&address).expect("a valid address"));
            tokio::spawn(read(id, operator()));
            tokio::spawn(watch(id, operator()));
        }
        told_to_finish().await;
    }
}

async fn read(replica: u64, operator: Operator) {
    let operator = operator.with_deadline(ANSWER_WITHIN);
    let mut ticks = interval(INTERVAL);
    loop {
        ticks.tick().await;
        let begun = clock::now();
        let answer = timeout(ANSWER_WITHIN, operator.resolve(SERVICE, false)).await;
        let answer = match answer {
            Ok(Ok(view)) => Ok(view.revision),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer".to_owned()),
        };
        let ended = clock::now();
        Recorder.note(&Event::Question(Question {
            begun,
            ended,
            replica,
            answer,
        }));
    }
}

async fn watch(replica: u64, operator: Operator) {
    let mut watch = operator.watch(SERVICE, "reader");
    loop {
        match watch.next().await {
            Ok(WatchEvent::View(view)) => Recorder.note(&Event::Shown(shown(replica, view))),
            Ok(WatchEvent::Absent { .. }) => {}
            Err(_) => sleep(INTERVAL).await,
        }
    }
}

fn shown(replica: u64, view: ServiceView) -> Shown {
    let instances = view.instances.into_iter();
    Shown {
        at: clock::now(),
        replica,
        revision: view.revision,
        weights: view.route.weights,
        instances: instances
            .map(|instance| (instance.id, instance.status.to_string()))
            .collect(),
    }
}
