//! trimtab-tests
