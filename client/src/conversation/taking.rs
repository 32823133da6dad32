//! What a watch stream's answers about services do to what is known of them.

use std::sync::Arc;

use trimtab_proto::v1 as wire;
use wire::watch_request::Kind as Ask;
use wire::watch_response::Kind as Answer;

use super::{Asked, Conversation, Ended, OUTBOX_MAX};
use crate::convert::taken_from_wire;
use crate::delta::apply;
use crate::error::Error;
use crate::subscription::{Known, Source};

/// A view that arrives damaged this often in a row is not damaged by chance.
const DAMAGED_MAX: u32 = 3;

/// Deltas of one service that may fail to fit before this stream asks for none.
const REFUSED_MAX: u32 = 3;

impl Asked {
    /// Deltas of a registry that reckons otherwise never fit: views do.
    fn takes_deltas(&self) -> bool {
        self.refused < REFUSED_MAX
    }
}

impl Conversation {
    /// Takes one answer about one service. Revisions never go back; what is
    /// damaged is asked for again.
    pub(super) fn take(&mut self, news: Answer) -> Result<(), Ended> {
        match news {
            Answer::View(update) => {
                if let Some(asked) = self.asked.get_mut(update.service.as_str()) {
                    asked.awaits_view = false;
                }
                return self.take_view(&update);
            }
            Answer::Delta(delta) => return self.take_delta(&delta),
            Answer::Absent(absent) => {
                let Some(followed) = self.subscriptions.get(&absent.service) else {
                    return Ok(());
                };
                if let Some(asked) = self.asked.get_mut(&followed.service) {
                    asked.awaits_view = false;
                }
                let revision = absent.revision;
                let ended = followed.known.send_if_modified(|known| {
                    let first = matches!(known, Known::Nothing);
                    // Also of what is on disk: another cluster's word that it
                    // has not heard of the service is no reason to stop.
                    let newer = revision > known.revision();
                    if first || newer {
                        *known = Known::Absent { revision };
                    }
                    first || newer
                });
                if ended {
                    self.subscriptions.ended(&followed, self.cluster);
                }
            }
            Answer::Unchanged(unchanged) => {
                let Some(followed) = self.subscriptions.get(&unchanged.service) else {
                    return Ok(());
                };
                if !matches!(*followed.known.borrow(), Known::View { .. }) {
                    return self.ask_anew(&followed.service);
                }
            }
            Answer::Welcome(_) | Answer::GoingAway(_) => {}
        }
        Ok(())
    }

    fn take_view(&mut self, update: &wire::ViewUpdate) -> Result<(), Ended> {
        let Some(followed) = self.subscriptions.get(&update.service) else {
            return Ok(());
        };
        let held = followed.known.borrow().revision();
        if !is_news(&followed.known.borrow(), update, self.cluster) {
            if update.revision < held {
                tracing::info!(
                    service = %update.service, offered = update.revision, held,
                    "the replica offers an older view than the one held, keeping that"
                );
            }
            return Ok(());
        }
        match taken_from_wire(update) {
            Ok((view, base)) => {
                if let Some(asked) = self.asked.get_mut(&followed.service) {
                    asked.damaged = 0;
                }
                tracing::debug!(service = %update.service, revision = update.revision, "view taken");
                let before = followed.known.send_replace(Known::View {
                    view: Arc::new(view),
                    checksum: update.checksum,
                    base,
                    source: Source::Registry,
                });
                if let Source::Disk { cluster } = before.source() {
                    tracing::info!(
                        service = %update.service, revision = update.revision,
                        on_disk = before.revision(), other_cluster = cluster != self.cluster,
                        "the registry speaks, calls follow it and no more the view on disk"
                    );
                }
                self.subscriptions.took(&followed, self.cluster, update);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(service = %update.service, %error, "asking for the view again");
                let asked = self.asked.entry(Arc::clone(&followed.service)).or_default();
                asked.damaged += 1;
                if asked.damaged >= DAMAGED_MAX {
                    return Err(Ended::Broken(error.to_string()));
                }
                self.ask_anew(&followed.service)
            }
        }
    }

    /// Takes what changed in the view that is held. What does not fit it has
    /// the view asked for, and is not news until that is there.
    fn take_delta(&mut self, delta: &wire::ViewDelta) -> Result<(), Ended> {
        let Some(followed) = self.subscriptions.get(&delta.service) else {
            return Ok(());
        };
        let asked = self.asked.entry(Arc::clone(&followed.service)).or_default();
        let known = followed.known.borrow().clone();
        if asked.awaits_view || delta.revision <= known.revision() {
            return Ok(());
        }
        let applied = match &known {
            Known::View {
                view,
                base,
                source: Source::Registry,
                ..
            } => apply(view, base, delta),
            Known::View { .. } | Known::Absent { .. } | Known::Nothing => Err(Error::Malformed(
                format!("delta of {}: no view of it is held", delta.service),
            )),
        };
        match applied {
            Ok((view, base)) => {
                tracing::debug!(service = %delta.service, revision = delta.revision, "delta taken");
                let view = Arc::new(view);
                let cluster = self.cluster;
                (self.subscriptions).took_delta(&followed, cluster, &view, &base);
                followed.known.send_replace(Known::View {
                    view,
                    checksum: 0,
                    base,
                    source: Source::Registry,
                });
                Ok(())
            }
            Err(error) => {
                tracing::warn!(service = %delta.service, %error, "asking for the view");
                asked.refused += 1;
                asked.awaits_view = true;
                self.ask_anew(&followed.service)
            }
        }
    }

    /// Makes the subscription again, with nothing known. It is not dropped
    /// before: for that moment nobody would count this caller, whose calls go
    /// on as they did.
    ///
    /// # Errors
    /// When the replica makes this say more than it takes.
    fn ask_anew(&mut self, service: &Arc<str>) -> Result<(), Ended> {
        if self.outbox.len() >= OUTBOX_MAX {
            let reason = format!("{OUTBOX_MAX} requests wait, and the replica takes none");
            return Err(Ended::Broken(reason));
        }
        let takes_deltas = self.asked.get(service).is_none_or(Asked::takes_deltas);
        let service = service.to_string();
        self.outbox.push_back(Ask::Subscribe(wire::Subscribe {
            service,
            takes_deltas,
            ..wire::Subscribe::default()
        }));
        Ok(())
    }
}

/// A replica that lags may send what is older than what is held. The same
/// revision with another checksum means that one of the two is wrong: the
/// registry's counts.
///
/// A view from the disk gives way to the same one from the registry, and to
/// any view of another cluster: whoever starts without a file takes that, too.
/// The registries of one cluster's line never go back; a restored one jumps
/// ahead.
fn is_news(known: &Known, update: &wire::ViewUpdate, from: u64) -> bool {
    match known {
        Known::Nothing => true,
        Known::Absent { revision } => update.revision > *revision,
        Known::View {
            view,
            checksum,
            source,
            ..
        } => match source {
            Source::Registry => {
                update.revision > view.revision
                    || (update.revision == view.revision && update.checksum != *checksum)
            }
            Source::Disk { cluster } => *cluster != from || update.revision >= view.revision,
        },
    }
}
