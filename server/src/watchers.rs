//! Who watches through this replica, what they confirmed and what load they reported.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use trimtab_proto::latency::Latencies;
use trimtab_registry::name::{GroupName, ServiceName};

use self::lowest::Lowest;

mod lowest;

/// How far back observed shares and error rates look.
pub const LOAD_WINDOW: Duration = Duration::from_secs(10);

/// One slot of the window. Ten of them: old calls leave a tenth at a time.
const SLOT: Duration = Duration::from_secs(1);
const SLOTS: usize = (LOAD_WINDOW.as_secs() / SLOT.as_secs()) as usize;

/// How long a watcher whose stream broke, or was ended by it, is counted on:
/// its process may live, and call by what it was told last. The client notices
/// at once, as a rule, and is with a replica again within 2 seconds.
pub const BACK_WITHIN: Duration = Duration::from_secs(3);

/// Watchers whose streams broke that are kept, at most; beyond, the next ones
/// are forgotten at once. A replica that many leave together is itself in
/// trouble, which [`crate::observation`] takes into account.
const BROKEN_MAX: usize = 20_000;

/// One open watch stream.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ConnectionId(u64);

/// What a watcher confirmed for one service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Confirmation {
    /// The watcher's own id, kept over reconnects.
    pub watcher_id: String,
    /// What an operator would call it.
    pub name: String,
    /// The newest revision it has confirmed; 0 for none.
    pub revision: u64,
}

/// Calls to one group, as callers reported them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Load {
    /// Calls ended within the window.
    pub calls: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Sum of their durations.
    pub latency_total: Duration,
    /// The calls by their durations, as far as callers tell them.
    pub latencies: Latencies,
    /// How long ago the last call was; `None` when no caller ever called.
    pub last_call_age: Option<Duration>,
}

impl Load {
    /// Two replicas' reports of the same group, as one.
    pub fn merge(mut self, other: Load) -> Load {
        self.latencies.add(&other.latencies);
        Load {
            latencies: self.latencies,
            calls: self.calls.saturating_add(other.calls),
            errors: self.errors.saturating_add(other.errors),
            latency_total: self.latency_total.saturating_add(other.latency_total),
            last_call_age: match (self.last_call_age, other.last_call_age) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
        }
    }
}

/// The watchers of this replica.
#[derive(Debug)]
pub struct Watchers {
    table: Mutex<Table>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    next_connection: u64,
    watchers: HashMap<ConnectionId, Watcher>,
    /// By when their streams broke, the earliest first.
    broken: VecDeque<(Duration, Watcher)>,
    /// Of both.
    lowest: Lowest,
    loads: HashMap<ServiceName, HashMap<GroupName, Window>>,
}

impl Table {
    fn forget_broken(&mut self, now: Duration) {
        let is_over = |since: &Duration| now.saturating_sub(*since) >= BACK_WITHIN;
        while self.broken.front().is_some_and(|(since, _)| is_over(since)) {
            if let Some((_, watcher)) = self.broken.pop_front() {
                self.uncount(&watcher);
            }
        }
    }

    fn uncount(&mut self, gone: &Watcher) {
        for (service, revision) in &gone.confirmed {
            self.lowest.remove(service, *revision);
        }
    }
}

#[derive(Debug)]
struct Watcher {
    id: String,
    name: String,
    confirmed: HashMap<ServiceName, u64>,
}

impl Default for Watchers {
    fn default() -> Watchers {
        Watchers {
            table: Mutex::new(Table::default()),
            changed: watch::Sender::new(0),
        }
    }
}

impl Watchers {
    /// A receiver that is woken whenever a watcher comes or goes, or the last
    /// one of a service confirms a revision.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// A watch stream opened.
    pub fn connect(&self, watcher_id: String, name: String) -> ConnectionId {
        let mut table = self.lock();
        let connection = ConnectionId(table.next_connection);
        table.next_connection += 1;
        table.watchers.insert(
            connection,
            Watcher {
                id: watcher_id,
                name,
                confirmed: HashMap::new(),
            },
        );
        connection
    }

    /// A watcher ended its stream.
    pub fn disconnect(&self, connection: ConnectionId) {
        let mut table = self.lock();
        if let Some(gone) = table.watchers.remove(&connection) {
            table.uncount(&gone);
        }
        drop(table);
        self.notify();
    }

    /// A stream broke. Its watcher counts for [`BACK_WITHIN`] longer.
    pub fn broke(&self, now: Duration, connection: ConnectionId) {
        let mut table = self.lock();
        table.forget_broken(now);
        let watcher = table.watchers.remove(&connection);
        let watcher = watcher.filter(|watcher| !watcher.confirmed.is_empty());
        match watcher {
            Some(watcher) if table.broken.len() < BROKEN_MAX => {
                table.broken.push_back((now, watcher));
            }
            Some(forgotten) => table.uncount(&forgotten),
            None => {}
        }
        drop(table);
        self.notify();
    }

    /// The watcher follows a service; it has confirmed nothing of it yet, or
    /// `revision` when it resumed from there.
    pub fn subscribe(&self, connection: ConnectionId, service: ServiceName) {
        let table = &mut *self.lock();
        if let Some(watcher) = table.watchers.get_mut(&connection) {
            watcher
                .confirmed
                .entry(service)
                .or_insert_with_key(|service| {
                    table.lowest.add(service, 0);
                    0
                });
        }
        self.notify();
    }

    /// The watcher no longer follows a service.
    pub fn unsubscribe(&self, connection: ConnectionId, service: &ServiceName) {
        let table = &mut *self.lock();
        if let Some(watcher) = table.watchers.get_mut(&connection)
            && let Some(revision) = watcher.confirmed.remove(service)
        {
            table.lowest.remove(service, revision);
        }
        self.notify();
    }

    /// The watcher's picker uses `revision` of a service. Ignored for a
    /// service that it does not follow, and for a revision older than the one
    /// it confirmed before.
    pub fn confirm(&self, connection: ConnectionId, service: &ServiceName, revision: u64) {
        let table = &mut *self.lock();
        if let Some(watcher) = table.watchers.get_mut(&connection)
            && let Some(confirmed) = watcher.confirmed.get_mut(service)
            && *confirmed < revision
        {
            let before = std::mem::replace(confirmed, revision);
            // Of ten thousand receipts the last one is worth a word.
            if table.lowest.moved(service, before, revision) {
                self.notify();
            }
        }
    }

    /// Whether every watcher of these services that this replica knows has
    /// confirmed `revision` on every stream it had. One that has moved, and is
    /// waited for on the stream it left, is seen in
    /// [`Watchers::confirmations`] alone.
    pub fn all_confirmed(&self, services: &[ServiceName], revision: u64) -> bool {
        let table = self.lock();
        let mut lowest = services.iter().filter_map(|it| table.lowest.of(it));
        lowest.all(|lowest| lowest >= revision)
    }

    /// A watcher reported calls. The caller has checked that the group exists,
    /// which bounds what is kept.
    pub fn report(&self, now: Duration, service: &ServiceName, group: &GroupName, load: Load) {
        self.lock()
            .loads
            .entry(service.clone())
            .or_default()
            .entry(group.clone())
            .or_default()
            .add(now, load);
    }

    /// Forgets what was reported of groups that are gone.
    pub fn retain_groups(&self, service: &ServiceName, keep: impl Fn(&GroupName) -> bool) {
        let mut table = self.lock();
        if let Some(groups) = table.loads.get_mut(service) {
            groups.retain(|group, _| keep(group));
            if groups.is_empty() {
                table.loads.remove(service);
            }
        }
    }

    /// What each watcher of a service confirmed. A watcher that came back
    /// before its old stream was seen to end counts once.
    pub fn confirmations(&self, now: Duration, service: &ServiceName) -> Vec<Confirmation> {
        let mut table = self.lock();
        table.forget_broken(now);
        let mut by_id: HashMap<&str, Confirmation> = HashMap::new();
        let broken = table.broken.iter().map(|(_, watcher)| watcher);
        for watcher in table.watchers.values().chain(broken) {
            let Some(revision) = watcher.confirmed.get(service) else {
                continue;
            };
            let known = by_id.entry(&watcher.id).or_insert_with(|| Confirmation {
                watcher_id: watcher.id.clone(),
                name: watcher.name.clone(),
                revision: 0,
            });
            known.revision = known.revision.max(*revision);
        }
        by_id.into_values().collect()
    }

    /// What was reported of each group of a service within the window.
    pub fn loads(&self, now: Duration, service: &ServiceName) -> Vec<(GroupName, Load)> {
        let table = self.lock();
        let Some(groups) = table.loads.get(service) else {
            return Vec::new();
        };
        groups
            .iter()
            .map(|(group, window)| (group.clone(), window.sum(now)))
            .collect()
    }

    /// Open watch streams.
    pub fn count(&self) -> usize {
        self.lock().watchers.len()
    }

    fn notify(&self) {
        self.changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        // A panic elsewhere while counting must not take receipts down with it.
        self.table
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Calls within the last [`LOAD_WINDOW`], in slots of a second.
#[derive(Debug, Default)]
struct Window {
    slots: [Slot; SLOTS],
    last_call: Option<Duration>,
}

#[derive(Debug, Default)]
struct Slot {
    second: u64,
    calls: u64,
    errors: u64,
    latency_total: Duration,
    /// In a box, since most groups are not called in most seconds.
    latencies: Option<Box<Latencies>>,
}

impl Window {
    fn add(&mut self, now: Duration, load: Load) {
        if let Some(age) = load.last_call_age {
            let at = now.saturating_sub(age);
            self.last_call = Some(self.last_call.map_or(at, |known| known.max(at)));
        }
        let second = now.as_secs();
        let slot = &mut self.slots[second as usize % SLOTS];
        if slot.second != second {
            *slot = Slot {
                second,
                ..Slot::default()
            };
        }
        slot.calls = slot.calls.saturating_add(load.calls);
        slot.errors = slot.errors.saturating_add(load.errors.min(load.calls));
        slot.latency_total = slot.latency_total.saturating_add(load.latency_total);
        if load.latencies != Latencies::default() {
            slot.latencies.get_or_insert_default().add(&load.latencies);
        }
    }

    fn sum(&self, now: Duration) -> Load {
        let oldest = (now.as_secs() + 1).saturating_sub(SLOTS as u64);
        let current = self
            .slots
            .iter()
            .filter(|slot| slot.second >= oldest && slot.second <= now.as_secs());
        let nothing = Load {
            last_call_age: self.last_call.map(|at| now.saturating_sub(at)),
            ..Load::default()
        };
        current.fold(nothing, |sum, slot| {
            sum.merge(Load {
                calls: slot.calls,
                errors: slot.errors,
                latency_total: slot.latency_total,
                latencies: slot.latencies.as_deref().copied().unwrap_or_default(),
                last_call_age: None,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str) -> ServiceName {
        ServiceName::parse(name).expect("valid")
    }

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).expect("valid")
    }

    fn calls(calls: u64, errors: u64, age_ms: u64) -> Load {
        Load {
            calls,
            errors,
            latency_total: Duration::from_millis(calls),
            latencies: Latencies::from_counts(&[0, calls as u32]).expect("few"),
            last_call_age: Some(Duration::from_millis(age_ms)),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_watcher_counts_once_over_its_reconnects_and_never_goes_back() {
        let watchers = Watchers::default();
        let catalog = service("catalog");
        let old = watchers.connect("w1".to_owned(), "web".to_owned());
        watchers.subscribe(old, catalog.clone());
        watchers.confirm(old, &catalog, 7);
        watchers.confirm(old, &catalog, 5);
        let new = watchers.connect("w1".to_owned(), "web".to_owned());
        watchers.subscribe(new, catalog.clone());

        let seen = watchers.confirmations(at(0), &catalog);
        assert_eq!(seen.len(), 1);
        assert_eq!(seen[0].revision, 7);

        watchers.disconnect(old);
        assert_eq!(watchers.confirmations(at(0), &catalog)[0].revision, 0);
        watchers.unsubscribe(new, &catalog);
        assert!(watchers.confirmations(at(0), &catalog).is_empty());
    }

    #[test]
    fn a_watcher_whose_stream_broke_counts_until_it_must_be_back() {
        let watchers = Watchers::default();
        let catalog = service("catalog");
        let known = |now| {
            let all = watchers.confirmations(now, &catalog).into_iter();
            all.map(|it| (it.watcher_id, it.revision))
                .collect::<Vec<_>>()
        };
        for (id, confirmed) in [("w1", 7), ("w2", 8)] {
            let connection = watchers.connect(id.to_owned(), "web".to_owned());
            watchers.subscribe(connection, catalog.clone());
            watchers.confirm(connection, &catalog, confirmed);
            match id {
                "w1" => watchers.broke(at(10), connection),
                _ => watchers.disconnect(connection),
            }
        }
        assert_eq!(watchers.count(), 0);
        assert_eq!(known(at(10)), [("w1".to_owned(), 7)]);
        assert_eq!(
            known(at(10) + BACK_WITHIN - Duration::from_millis(1)).len(),
            1
        );
        assert_eq!(known(at(10) + BACK_WITHIN), []);
    }

    #[test]
    fn a_receipt_for_a_service_that_is_not_followed_is_ignored() {
        let watchers = Watchers::default();
        let connection = watchers.connect("w1".to_owned(), "web".to_owned());
        watchers.confirm(connection, &service("cart"), 7);
        assert!(watchers.confirmations(at(0), &service("cart")).is_empty());
    }

    #[test]
    fn a_load_is_counted_for_ten_seconds_and_its_last_call_remembered_for_longer() {
        let watchers = Watchers::default();
        let (catalog, v1) = (service("catalog"), group("v1"));
        watchers.report(at(100), &catalog, &v1, calls(10, 1, 500));
        watchers.report(at(105), &catalog, &v1, calls(5, 0, 100));

        let load = watchers.loads(at(106), &catalog)[0].1;
        assert_eq!((load.calls, load.errors), (15, 1));
        assert_eq!(load.latencies.to_counts(), [0, 15]);
        assert_eq!(load.last_call_age, Some(Duration::from_millis(1_100)));

        let load = watchers.loads(at(112), &catalog)[0].1;
        assert_eq!((load.calls, load.errors), (5, 0));
        assert_eq!(load.latencies.to_counts(), [0, 5]);

        let load = watchers.loads(at(300), &catalog)[0].1;
        assert_eq!(load.calls, 0);
        assert_eq!(load.last_call_age, Some(Duration::from_millis(195_100)));

        watchers.retain_groups(&catalog, |_| false);
        assert!(watchers.loads(at(300), &catalog).is_empty());
    }

    #[test]
    fn a_report_without_calls_does_not_look_like_a_call() {
        let watchers = Watchers::default();
        let (catalog, v1) = (service("catalog"), group("v1"));
        watchers.report(at(1), &catalog, &v1, Load::default());
        assert_eq!(watchers.loads(at(1), &catalog)[0].1.last_call_age, None);
    }
}
