//! What "every caller has confirmed" must mean, on the day an operator believes it.

use trimtab_registry::name::ServiceName;
use trimtab_server::watchers::BACK_WITHIN;

use crate::packet::{Answer, Reply, Tally};
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
        let following = (following.revision, following.services.clone());
        for caller in 0..self.callers.len() {
            let at = &self.callers[caller];
            let streams = [at.stream, at.stream_before];
            for stream in streams.into_iter().flatten() {
                if self.counts(stream, tally) {
                    self.check_follows(caller, stream, tally.since, &following)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a stream's caller must have been counted: its replica serves it,
    /// or has served it until a moment ago. Whoever gathers asks the members it
    /// knows: docs/simulation.md says whom it misses.
    fn counts(&self, stream: u64, tally: &Tally) -> bool {
        let at = &self.streams[stream as usize];
        let seat = &self.seats[at.replica as usize - 1];
        let lives = seat.life == at.replica_life;
        let was_served = |ended| lives && self.now < ended + BACK_WITHIN.as_millis() as u64;
        let is_served = (seat.host.as_ref())
            .is_some_and(|host| host.has_stream(stream) || at.ended.is_some_and(was_served));
        // One that was removed and has not found out cannot be known.
        let known = tally.members.contains(&(at.replica, seat.disk_id));
        is_served && (known || !self.is_removed(at.replica))
    }

    fn check_follows(
        &mut self,
        caller: usize,
        stream: u64,
        since: u64,
        (revision, services): &(u64, Vec<ServiceName>),
    ) -> Result<(), String> {
        let at = &self.streams[stream as usize];
        let caller = &mut self.callers[caller];
        // Another process has its number now.
        if caller.life != at.caller_life {
            return Ok(());
        }
        for (number, name) in SERVICES.iter().enumerate() {
            let is_served = at.served_since[number].is_some_and(|served| served < since);
            if !is_served || !services.iter().any(|it| it.as_ref() == *name) {
                continue;
            }
            let used = caller.core.used(name);
            if used < *revision {
                return Err(format!(
                    "all callers were said to use {revision} of {name}, caller {} uses {used}",
                    caller.number
                ));
            }
            let picks = &mut caller.picks[number];
            picks.floor = picks.floor.max(*revision);
        }
        Ok(())
    }
}
