//! trimtab-client
