//! The last view of each service on disk, so that a caller starts also while the registry is down.

pub(crate) mod codec;
pub(crate) mod cold_start;
pub(crate) mod directory;
pub(crate) mod unsaved;
pub(crate) mod writer;
