//! One view as it is published: its bytes, its digest, and the way to it from the views before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use trimtab_registry::instance::Instance;
use trimtab_registry::name::InstanceId;
use trimtab_registry::view::ServiceView;

use super::step::Step;

/// Steps that are kept: a reader that is further behind gets the view.
const STEPS_MAX: usize = 64;

/// Instances that the kept steps may name, in parts of the view: beyond it a
/// delta over all of them would be as large as the view.
const STEPS_PART_OF_VIEW: usize = 2;

/// Few instances may be named by any view's steps.
const STEP_INSTANCES_MIN: usize = 16;

/// Readers that are behind by different steps at a time; what more of them get
/// is encoded for each.
const DELTAS_KEPT_MAX: usize = STEPS_MAX;

/// How views travel. Passed in, since wire types stop at the gRPC door.
#[derive(Clone, Copy, Debug)]
pub struct Wire {
    /// A view.
    pub view: fn(&ServiceView) -> Encoded,
    /// What a step changed, with the digest of the view it leads to; as an
    /// answer on a watch stream, in a gRPC frame.
    pub delta: fn(&Step, &ServiceView, u64) -> Bytes,
    /// What everything but the instances adds to a view's digest.
    pub head_digest: fn(&ServiceView) -> u64,
    /// What an instance adds to it.
    pub instance_digest: fn(&Instance) -> u64,
}

/// A view as it travels.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The view as the answer to a lookup, which is also the one on a watch
    /// stream, in a gRPC frame.
    pub frame: Bytes,
    /// The encoded view in it.
    pub bytes: Bytes,
    /// The checksum of `bytes`.
    pub checksum: u64,
}

/// What there is to say about one service at one revision.
#[derive(Debug)]
pub enum Published {
    /// The service is not registered, as of this revision.
    Absent(u64),
    /// The service's view.
    Present(Box<PublishedView>),
}

/// One view and, once somebody asked for them, its bytes.
#[derive(Debug)]
pub struct PublishedView {
    /// The view.
    pub view: ServiceView,
    wire: Wire,
    encoded: OnceLock<Encoded>,
    digest: OnceLock<u64>,
    /// Each begins where the one before it ends, the last ends here.
    steps: VecDeque<Arc<Step>>,
    /// By the revision they begin at.
    deltas: Mutex<BTreeMap<u64, Bytes>>,
}

impl PublishedView {
    /// A view, and what is new in it since the one before, if anybody had that.
    pub(super) fn after(
        before: Option<&PublishedView>,
        view: ServiceView,
        wire: Wire,
    ) -> PublishedView {
        let before = before.filter(|before| before.view.revision < view.revision);
        let mut published = PublishedView {
            view,
            wire,
            encoded: OnceLock::new(),
            digest: OnceLock::new(),
            steps: VecDeque::new(),
            deltas: Mutex::default(),
        };
        if let Some(before) = before {
            published.follow(before);
        }
        published
    }

    fn follow(&mut self, before: &PublishedView) {
        let step = Step::between(&before.view, &self.view);
        // Only if it was asked for, it will be again.
        if let Some(digest) = before.digest.get() {
            let digest = digest
                .wrapping_sub(before.part(&step))
                .wrapping_add(self.part(&step));
            self.digest = OnceLock::from(digest);
        }
        self.steps = before.steps.clone();
        self.steps.push_back(Arc::new(step));
        let named_max = (self.view.instances.len() / STEPS_PART_OF_VIEW).max(STEP_INSTANCES_MIN);
        let mut named: usize = self.steps.iter().map(|step| step.instances.len()).sum();
        while self.steps.len() > STEPS_MAX || named > named_max {
            let Some(oldest) = self.steps.pop_front() else {
                break;
            };
            named -= oldest.instances.len();
        }
    }

    /// The bytes that travel: made by the first who asks, shared by all.
    pub fn encoded(&self) -> &Encoded {
        self.encoded.get_or_init(|| (self.wire.view)(&self.view))
    }

    /// The digest, by which a reader of deltas knows that it has this view.
    pub fn digest(&self) -> u64 {
        *self.digest.get_or_init(|| {
            let instances = self.view.instances.iter();
            instances.fold((self.wire.head_digest)(&self.view), |sum, instance| {
                sum.wrapping_add((self.wire.instance_digest)(instance))
            })
        })
    }

    /// What is new since `revision`, as it travels: encoded once, shared by
    /// all who are there. `None` where the view itself is to be sent.
    pub fn delta_since(&self, revision: u64) -> Option<Bytes> {
        let first = self.steps.iter().position(|step| step.from == revision)?;
        let mut deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = deltas.get(&revision) {
            return Some(known.clone());
        }
        let mut steps = self.steps.iter().skip(first);
        let mut step = Step::clone(steps.next()?);
        steps.for_each(|next| step.extend(next));
        let bytes = (self.wire.delta)(&step, &self.view, self.digest());
        if deltas.len() < DELTAS_KEPT_MAX {
            deltas.insert(revision, bytes.clone());
        }
        Some(bytes)
    }

    /// What of this view's digest the step changed, or will.
    fn part(&self, step: &Step) -> u64 {
        let instances = step.instances.keys();
        let changed = instances.filter_map(|id| instance(&self.view, id));
        changed.fold((self.wire.head_digest)(&self.view), |sum, instance| {
            sum.wrapping_add((self.wire.instance_digest)(instance))
        })
    }
}

/// One instance of a view.
pub fn instance<'a>(view: &'a ServiceView, id: &InstanceId) -> Option<&'a Arc<Instance>> {
    view.instances.get(id)
}

impl Published {
    /// The revision this was true at.
    pub fn revision(&self) -> u64 {
        match self {
            Published::Absent(revision) => *revision,
            Published::Present(present) => present.view.revision.0,
        }
    }

    /// The view, when there is one.
    pub fn present(&self) -> Option<&PublishedView> {
        match self {
            Published::Absent(_) => None,
            Published::Present(present) => Some(present),
        }
    }
}
