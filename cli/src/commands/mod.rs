//! The verbs of `trimtab`, one file each.

pub(crate) mod canary;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod history;
pub(crate) mod instance;
pub(crate) mod policy;
pub(crate) mod register;
pub(crate) mod resolve;
pub(crate) mod rollback;
#[cfg(unix)]
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod services;
pub(crate) mod shift;
pub(crate) mod snapshot;
pub(crate) mod status;
pub(crate) mod switch;
pub(crate) mod teardown;
pub(crate) mod watch;
