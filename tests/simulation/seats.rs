//! The replicas' machines: processes that start, stand still, die and come back.

use std::collections::BTreeMap;
use std::time::Duration;

use trimtab_registry::name::ServiceName;
use trimtab_server::consensus::error::FatalError;

use crate::chance::Chance;
use crate::disk::Disk;
use crate::host::{Host, Kept, Machine};
use crate::packet::{Answer, Flow, Node, Packet, Reply};
use crate::planted::Planted;
use crate::world::{DRIFT_MAX, Event, World};

/// Between two judgements of leases, as in production.
const JUDGE_EVERY: u64 = 100;
/// A tick of Raft's time, as in production.
const TICK: u64 = 50;
/// Ticks that may pass at once after a pause, as in production.
const TICKS_AT_ONCE: u64 = 2;

/// A place for a replica: the machine, whether or not its process runs.
pub(crate) struct Seat {
    pub(crate) id: u64,
    pub(crate) disk: Disk,
    /// By which others know its disk.
    pub(crate) disk_id: u64,
    /// It is among the founders, on the disk it had then.
    founds: bool,
    pub(crate) life: u64,
    pub(crate) host: Option<Host>,
    pub(crate) paused_until: u64,
    pub(crate) inbox: Vec<Event>,
    /// In parts of a thousand; 1,000 is right.
    rate: u64,
    judged: u64,
    /// The disk is expected to fail until then.
    pub(crate) bad_until: u64,
    pub(crate) is_halted: bool,
    /// A write is to fail as if the process was killed in it.
    pub(crate) doomed: bool,
    pub(crate) slow_until: u64,
    syncs: u64,
    /// What it had after it last did all it was asked to: it was synced, and
    /// what it then said relied on it.
    synced: Kept,
    /// The newest views when its process began: what it serves is no older.
    pub(crate) newest_at_start: BTreeMap<ServiceName, u64>,
    /// It refused to go on, and waits for its operator.
    pub(crate) is_out: bool,
}

impl Seat {
    pub(crate) fn new(id: u64, chance: &mut Chance) -> Self {
        Self {
            id,
            disk: Disk::default(),
            disk_id: 10 + id,
            founds: true,
            life: 0,
            host: None,
            paused_until: 0,
            inbox: Vec::new(),
            rate: chance.between(1_000 - DRIFT_MAX, 1_000 + DRIFT_MAX),
            judged: 0,
            bad_until: 0,
            is_halted: false,
            doomed: false,
            slow_until: 0,
            syncs: 0,
            synced: Kept::default(),
            newest_at_start: BTreeMap::new(),
            is_out: false,
        }
    }

    /// Another disk, empty: what was on the one before is lost.
    pub(crate) fn change_disk(&mut self, disk_id: u64) {
        self.disk = Disk::default();
        self.disk_id = disk_id;
        self.founds = false;
        self.synced = Kept::default();
        self.syncs = 0;
        self.doomed = false;
        self.is_out = false;
    }
}

impl World {
    pub(crate) fn tick(&mut self, replica: u64, life: u64) -> Result<(), String> {
        let seat = &self.seats[replica as usize - 1];
        if seat.life != life {
            return Ok(());
        }
        let next = self.now + TICK * 1_000 / seat.rate;
        self.at(next, Event::Tick { replica, life });
        self.with_host(replica, Host::tick)?;
        self.end_if_stopped(replica);
        Ok(())
    }

    /// A process that was told to stop ends when it has nothing left to do.
    fn end_if_stopped(&mut self, replica: u64) {
        let seat = &mut self.seats[replica as usize - 1];
        let has_stopped =
            (seat.host.as_ref()).is_some_and(|host| host.stopping && host.has_stopped());
        if !has_stopped {
            return;
        }
        // Its storage is closed, not torn from it.
        seat.host = None;
        seat.life += 1;
        seat.inbox.clear();
        seat.disk.crash(&mut self.chance);
        self.counts.stops += 1;
        self.flip_a_bit(replica);
        self.end_streams_of(replica);
        let wait = if self.healed {
            10
        } else {
            self.chance.between(20, 3_000)
        };
        self.at(self.now + wait, Event::Restart { replica });
    }

    fn end_streams_of(&mut self, replica: u64) {
        for stream in self.streams_of(replica) {
            self.end_dies(stream, true);
        }
    }

    pub(crate) fn judge(&mut self, replica: u64, life: u64) -> Result<(), String> {
        let now = self.now;
        let seat = &mut self.seats[replica as usize - 1];
        if seat.life != life {
            return Ok(());
        }
        let elapsed = Duration::from_micros((now - seat.judged) * seat.rate);
        seat.judged = now;
        self.at(now + JUDGE_EVERY, Event::Judge { replica, life });
        self.with_host(replica, |host| host.judge(elapsed))
    }

    pub(crate) fn resume(&mut self, replica: u64) -> Result<(), String> {
        let seat = &mut self.seats[replica as usize - 1];
        if seat.paused_until > self.now {
            return Ok(());
        }
        let mut waiting = std::mem::take(&mut seat.inbox);
        // What was due while it stood still happened once at most, and before
        // or after it looks into its sockets.
        let mut ticks = 0;
        let timers_first = self.chance.per_mille(500);
        waiting.sort_by_key(|event| {
            let is_timer = matches!(event, Event::Tick { .. } | Event::Judge { .. });
            is_timer != timers_first
        });
        for event in waiting {
            if matches!(event, Event::Tick { .. }) {
                ticks += 1;
                if ticks > TICKS_AT_ONCE {
                    continue;
                }
            }
            self.happen(event)?;
        }
        Ok(())
    }

    pub(crate) fn restart(&mut self, replica: u64) -> Result<(), String> {
        let now = self.now;
        let seat = &mut self.seats[replica as usize - 1];
        if seat.host.is_some() || seat.is_out {
            return Ok(());
        }
        let is_bad = seat.bad_until > now;
        if !is_bad {
            seat.disk.repair();
        }
        seat.life += 1;
        seat.paused_until = 0;
        seat.inbox.clear();
        let machine = Machine {
            id: replica,
            life: seat.life,
            disk: &seat.disk,
            disk_id: seat.disk_id,
            founds: seat.founds,
        };
        match Host::start(&self.setup, machine, now) {
            Ok(mut host) => {
                let life = seat.life;
                let found = host.kept();
                if seat.synced.is_missing_in(&found) && self.setup.planted.is_none() {
                    return self.came_back_short(replica, found);
                }
                seat.host = Some(host);
                seat.newest_at_start = self.ledger.newest_revisions();
                seat.judged = now;
                self.at(now + 1, Event::Tick { replica, life });
                self.at(now + JUDGE_EVERY, Event::Judge { replica, life });
                self.with_host(replica, Host::resume)
            }
            Err(_) if is_bad => {
                seat.disk.crash(&mut self.chance);
                self.at(now + 500, Event::Restart { replica });
                Ok(())
            }
            Err(_) if self.flipped == Some(replica) => {
                self.put_out(replica);
                Ok(())
            }
            Err(reason) if reason.contains("was removed") && self.is_removed(replica) => {
                self.put_away(replica);
                Ok(())
            }
            Err(reason) => Err(format!("replica {replica} cannot start: {reason}")),
        }
    }

    /// Has a replica do something, and carries away what comes of it.
    pub(crate) fn with_host(
        &mut self,
        replica: u64,
        work: impl FnOnce(&mut Host) -> Result<(), FatalError>,
    ) -> Result<(), String> {
        let at = replica as usize - 1;
        let Some(mut host) = self.seats[at].host.take() else {
            return Ok(());
        };
        let term = host.replica().term();
        host.now = self.now;
        let worked = work(&mut host);
        let took_term = host.replica().term() > term;
        let done = std::mem::take(&mut host.done);
        self.counts.terms = self.counts.terms.max(host.replica().term());
        let voted_for = done.voted_for;
        let leads = host.leads().then(|| host.replica().term());
        self.seats[at].host = Some(host);
        if let Some(term) = leads {
            self.ledger.leads(term, replica)?;
        }
        for (keys, command) in done.judged {
            self.heard.judged(self.now, &keys, command, &self.ledger);
        }
        self.ledger.now = self.now;
        for round in done.rounds {
            let applied = self.ledger.applied(round, &self.heard);
            applied.map_err(|reason| format!("replica {replica}: {reason}"))?;
        }
        for (_, packet) in &done.out.sends {
            if let Packet::Answer(Answer {
                reply: Reply::Decided { index, result },
                ..
            }) = packet
            {
                self.ledger.acknowledged(*index, result)?;
            }
        }
        let delay = self.slow_sync(at);
        self.dispatch(Node::Replica(replica), done.out, delay);
        for (stream, said) in done.flows {
            let flow = said.map_or(Flow::Ended, Flow::Answer);
            self.flow(stream, false, flow, delay);
        }
        let Err(error) = worked else {
            let seat = &mut self.seats[at];
            if let Some(host) = seat.host.as_mut() {
                let was_halted = std::mem::replace(&mut seat.is_halted, host.is_halted);
                self.counts.disk_errors += u64::from(host.is_halted && !was_halted);
                if !host.is_halted {
                    seat.synced = host.kept();
                }
            }
            if took_term {
                self.after_a_vote(replica, voted_for);
            }
            return Ok(());
        };
        let seat = &mut self.seats[at];
        let is_storage = matches!(error, FatalError::Storage(_));
        if is_storage && seat.doomed {
            self.crash(replica);
            return Ok(());
        }
        if self.flipped == Some(replica) {
            self.put_out(replica);
            return Ok(());
        }
        let is_removed = matches!(error, FatalError::Removed { .. });
        // What a planted bug did to it is to be found by what it does.
        let is_planted = self.setup.planted == Some(Planted::DisksUnchecked)
            && matches!(error, FatalError::LostEntries { .. });
        if (is_removed || is_planted) && self.is_removed(replica) {
            self.counts.members_gone += 1;
            self.put_away(replica);
            return Ok(());
        }
        Err(format!("replica {replica} stopped: {error}"))
    }

    /// A slow disk: whatever waited for the sync leaves late, and so long the
    /// replica does nothing else.
    fn slow_sync(&mut self, at: usize) -> u64 {
        let seat = &mut self.seats[at];
        let syncs = seat.disk.syncs();
        let has_synced = std::mem::replace(&mut seat.syncs, syncs) != syncs;
        if !has_synced || seat.slow_until <= self.now {
            return 0;
        }
        let delay = self.chance.between(5, 250);
        self.pause(at as u64 + 1, delay);
        delay
    }

    /// A process stands still, whatever arrives.
    pub(crate) fn pause(&mut self, replica: u64, length: u64) {
        let until = self.now + length;
        let seat = &mut self.seats[replica as usize - 1];
        seat.paused_until = seat.paused_until.max(until);
        self.at(until, Event::Resume { replica });
        if length > 3_000 {
            for stream in self.streams_of(replica) {
                self.ping_later(stream);
            }
        }
    }

    /// Everything was synced when it died, and now it is not there. After a
    /// flipped bit that is counted: docs/simulation.md says what is known of it.
    fn came_back_short(&mut self, replica: u64, found: Kept) -> Result<(), String> {
        if self.flipped == Some(replica) {
            self.counts.shortened += 1;
            self.put_out(replica);
            return Ok(());
        }
        let had = self.seats[replica as usize - 1].synced;
        Err(format!(
            "replica {replica} had {had:?}, came back with {found:?}"
        ))
    }

    /// A replica found its data damaged: it stays away until someone sees to it.
    fn put_out(&mut self, replica: u64) {
        self.counts.refusals += 1;
        self.put_away(replica);
    }

    /// A process has ended for good.
    pub(crate) fn put_away(&mut self, replica: u64) {
        let seat = &mut self.seats[replica as usize - 1];
        seat.host = None;
        seat.is_out = true;
        seat.life += 1;
        seat.inbox.clear();
        self.end_streams_of(replica);
    }

    /// A process dies, and with it whatever its disk had not synced.
    pub(crate) fn crash(&mut self, replica: u64) {
        let wait = match self.healed {
            true => 10,
            false => self.chance.between(20, 4_000),
        };
        self.crash_for(replica, wait);
    }

    /// A machine says that a process on it has ended to those who knock, but
    /// not to all of them, and perhaps when another one is there.
    fn tell_of_the_end(&mut self, replica: u64) {
        for other in (1..=self.replicas()).filter(|id| *id != replica) {
            let (here, there) = (Node::Replica(other), Node::Replica(replica));
            let is_cut = self.network.cut_until(self.now, there, here).is_some();
            if !is_cut && self.chance.per_mille(800) {
                let late = self.chance.per_mille(100);
                let wait = self.chance.between(1, if late { 200 } else { 20 });
                let (from, to) = (other, replica);
                self.at(self.now + wait, Event::Gone { from, to });
            }
        }
    }

    /// It is back after so long.
    pub(crate) fn crash_for(&mut self, replica: u64, wait: u64) {
        let seat = &mut self.seats[replica as usize - 1];
        seat.disk.crash(&mut self.chance);
        if seat.doomed {
            seat.doomed = false;
            seat.disk.repair();
        }
        seat.host = None;
        seat.life += 1;
        seat.inbox.clear();
        seat.paused_until = 0;
        self.counts.crashes += 1;
        self.flip_a_bit(replica);
        self.end_streams_of(replica);
        self.tell_of_the_end(replica);
        self.at(self.now + wait, Event::Restart { replica });
    }
}
