//! Calls that stay together: the same key, the same group while weights move one way.
//!
//! With a [`StickyKey`] (a user, a session, a cart) a call's group is not the
//! next in turn but that of the key's [`Bucket`]: one of 10,000, by a hash of
//! the key and of the rollout's salt. The groups of a route take intervals of
//! buckets in the order of their names, as many as their weights say, so that
//!
//! - the share of each group is exact over buckets;
//! - the same key stays on the same group for as long as weights stay;
//! - raising the share of a later group moves buckets to later groups only,
//!   and as few as that takes;
//! - another rollout has another salt, and so other first users.
//!
//! ```no_run
//! # use trimtab_proto::demo::v1::{GetItemRequest, catalog_client::CatalogClient};
//! # use trimtab_client::balancer::Balancer;
//! use trimtab_client::sticky::StickyKey;
//!
//! # async fn caller(mut catalog: CatalogClient<Balancer>) -> Result<(), tonic::Status> {
//! let mut request = tonic::Request::new(GetItemRequest { item_id: 7 });
//! request.extensions_mut().insert(StickyKey::new("user-4711"));
//! let item = catalog.get_item(request).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The request then says its bucket in the header [`BUCKET_HEADER`]. A service
//! that was called so, and calls others on behalf of it, carries the bucket on
//! with [`Bucket::from_headers`]: one user meets one version along the whole
//! chain, where the routes along it have the same shares.
//!
//! Do not take the header over from beyond what you trust: whoever writes it
//! chooses his own release.

use std::fmt;
use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Extensions, request};
use serde::Serialize;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Buckets there are: a bucket is one basis point of a route.
pub const BUCKETS: u16 = 10_000;

/// The header by which a bucket travels, as decimal digits.
pub const BUCKET_HEADER: HeaderName = HeaderName::from_static("trimtab-bucket");

/// Whom a call is for: in the extensions of a request, it keeps the calls with
/// the same bytes together.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct StickyKey {
    bytes: Arc<[u8]>,
}

/// Which part of all keys a call belongs to. In the extensions of a request it
/// decides the group, before a [`StickyKey`] there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Bucket(u16);

/// What ties a call to others: nothing, by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Affinity {
    pub(crate) bucket: Option<Bucket>,
    pub(crate) key: Option<StickyKey>,
}

// === impl StickyKey ===

impl StickyKey {
    /// Of any bytes: a name, a number's bytes.
    pub fn new(key: impl AsRef<[u8]>) -> Self {
        Self {
            bytes: key.as_ref().into(),
        }
    }

    /// Where it falls in a rollout with that salt: XXH3 (64 bits) of the bytes
    /// with the salt as its seed, modulo [`BUCKETS`].
    pub fn bucket(&self, salt: u64) -> Bucket {
        Bucket((self.hash(salt) % u64::from(BUCKETS)) as u16)
    }

    pub(crate) fn hash(&self, seed: u64) -> u64 {
        xxh3_64_with_seed(&self.bytes, seed)
    }
}

/// Keys are people's names, and do not belong in logs.
impl fmt::Debug for StickyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StickyKey").finish_non_exhaustive()
    }
}

// === impl Bucket ===

impl Bucket {
    /// `None` from [`BUCKETS`] on.
    pub fn new(number: u16) -> Option<Self> {
        (number < BUCKETS).then_some(Self(number))
    }

    /// Less than [`BUCKETS`].
    pub fn number(self) -> u16 {
        self.0
    }

    /// What a request says. `None` when it says nothing, or no bucket. Of a
    /// tonic request: `Bucket::from_headers(request.metadata().as_ref())`.
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let digits = headers.get(BUCKET_HEADER)?.to_str().ok()?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = digits.parse().ok().filter(|_| is_plain)?;
        Self::new(number)
    }

    /// Says it in a request.
    pub fn write_to(self, headers: &mut HeaderMap) {
        headers.insert(BUCKET_HEADER, HeaderValue::from(self.0));
    }
}

// === impl Affinity ===

impl Affinity {
    /// What a request's extensions say, or else the header it carries already.
    pub(crate) fn of(request: &request::Parts) -> Self {
        let extensions: &Extensions = &request.extensions;
        let carried = || Bucket::from_headers(&request.headers);
        Self {
            bucket: extensions.get().copied().or_else(carried),
            key: extensions.get().cloned(),
        }
    }

    /// The bucket that is given, or that of the key in a rollout.
    pub(crate) fn bucket(&self, salt: u64) -> Option<Bucket> {
        let of_key = || self.key.as_ref().map(|key| key.bucket(salt));
        self.bucket.or_else(of_key)
    }
}
