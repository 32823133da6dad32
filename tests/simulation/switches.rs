//! What "every caller has confirmed" must mean, on the day an operator believes it.

use crate::packet::{Answer, Reply};
use crate::world::{SERVICES, World};

impl World {
    /// A script is told that its change is used by all. Then whoever was
    /// connected while the replicas were asked must use it, for ever.
    pub(crate) fn check_complete(&mut self, script: usize, answer: &Answer) -> Result<(), String> {
        let Reply::Receipts(tally) = &answer.reply else {
            return Ok(());
        };
        let following = self.scripts[script].following.as_ref();
        let Some(following) = following.filter(|it| tally.is_complete && it.call == answer.id)
        else {
            return Ok(());
        };
        self.counts.switches += 1;
        for caller in &mut self.callers {
            let Some(stream) = caller.stream else {
                continue;
            };
            let at = &self.streams[stream as usize];
            let host = self.seats[at.replica as usize - 1].host.as_ref();
            // Whoever gathers asks the members it knows: docs/simulation.md says
            // whom it misses.
            let known = (at.replica, self.seats[at.replica as usize - 1].disk_id);
            let is_served = host.is_some_and(|host| host.has_stream(stream));
            if !is_served || !tally.members.contains(&known) {
                continue;
            }
            for (number, name) in SERVICES.iter().enumerate() {
                let is_served = at.served_since[number].is_some_and(|since| since < tally.since);
                if !is_served || !following.services.iter().any(|it| it.as_ref() == *name) {
                    continue;
                }
                let used = caller.core.used(name);
                if used < following.revision {
                    return Err(format!(
                        "all callers were said to use {} of {name}, caller {} uses {used}",
                        following.revision, caller.number
                    ));
                }
                let picks = &mut caller.picks[number];
                picks.floor = picks.floor.max(following.revision);
            }
        }
        Ok(())
    }
}
