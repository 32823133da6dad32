//! trimtab-server
