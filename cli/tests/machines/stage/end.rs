//! How a scenario ends: all must be well again, and what everybody told must hold together.

use std::collections::BTreeMap;
use std::time::Duration;

use trimtab_tests::history::{Answered, Ask, Operation, Routes};

use crate::clock::{self, micros};
use crate::oracles::{Counts, History, check, route};
use crate::parts::SERVICE;
use crate::process::Process;
use crate::record::Event;
use crate::stage::Stage;
use crate::wait::until;

/// What an expiry may take beyond the TTL: an election, the new leader's
/// grace, and a busy machine.
const GONE_SLACK: Duration = Duration::from_secs(10);

impl Stage {
    /// Waits until all is well again, ends everything, and checks what was
    /// told.
    ///
    /// # Panics
    /// With every promise that was broken.
    pub(crate) fn finish(mut self) -> Counts {
        self.changes_go_on();
        let scripts = all_told("script", std::mem::take(&mut self.scripts));
        until("exactly the living to be registered, all ready", || {
            self.is_well()
        });
        let end = self.last_read();
        let ids = self.replicas.ids();
        let routes = self
            .replicas
            .ask(&self.network, &ids, &["history", SERVICE]);
        let routes = routes.expect("the history can be read");
        self.replicas.assert_running();
        let callers = all_told("caller", std::mem::take(&mut self.callers));
        let reader = self.reader.take().map(Process::finish).unwrap_or_default();
        let living = self.instances.keys().cloned().collect();
        for (_, process) in std::mem::take(&mut self.instances) {
            process.finish();
        }
        self.replicas.finish();
        check(&History {
            begun: self.begun,
            start: self.start.expect("a route"),
            end,
            steady: self.steady,
            answering: self.answering,
            callers,
            scripts,
            reader,
            routes,
            living,
            killed: self.killed,
            gone_within: micros(self.setting.ttl) + micros(GONE_SLACK),
        })
    }

    fn is_well(&self) -> Option<()> {
        let any = *self.replicas.ids().first()?;
        let statuses = self.statuses(any)?;
        let are_ready = statuses.values().all(|status| status == "ready");
        (are_ready && statuses.keys().eq(self.instances.keys())).then_some(())
    }

    /// The route that all replicas agree on, as one more operation.
    fn last_read(&self) -> Operation {
        let called = clock::now();
        let route = route(&self.replicas.agree(&self.network)).expect("a route");
        Operation {
            called,
            returned: Some(clock::now()),
            ask: Ask::Read(vec![SERVICE.to_owned()]),
            answer: Some(Answered::Read(Routes::from([(SERVICE.to_owned(), route)]))),
        }
    }
}

/// Ends processes of one kind.
fn all_told(kind: &str, processes: Vec<Process>) -> BTreeMap<String, Vec<Event>> {
    let told = processes.into_iter().enumerate();
    told.map(|(number, process)| (format!("{kind}-{number}"), process.finish()))
        .collect()
}
