//! trimtab-registry
