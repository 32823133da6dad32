//! What `trimtab run` is made of: a pure machine that decides, and a shell that carries it out.

pub(crate) mod address;
pub(crate) mod check;
pub(crate) mod child;
pub(crate) mod ending;
pub(crate) mod event;
#[cfg(target_os = "linux")]
pub(crate) mod guard;
pub(crate) mod journal;
pub(crate) mod machine;
pub(crate) mod restarts;
pub(crate) mod shell;
pub(crate) mod thresholds;

mod line;
mod registrar;

#[cfg(test)]
mod machine_tests;
