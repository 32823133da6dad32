//! The Raft library's log, forwarded to `tracing`.

use std::fmt::{self, Write as _};

use slog::{Drain, KV as _, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

/// A logger for the Raft library. Its "info" is detail to us: who voted for
/// whom belongs in a debug log.
pub(super) fn forward_to_tracing() -> Logger {
    Logger::root(Forward, o!())
}

struct Forward;

impl Drain for Forward {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        match record.level() {
            Level::Critical | Level::Error => {
                tracing::error!(target: "raft", "{}", Line(record));
            }
            Level::Warning => tracing::warn!(target: "raft", "{}", Line(record)),
            Level::Info => tracing::debug!(target: "raft", "{}", Line(record)),
            Level::Debug | Level::Trace => tracing::trace!(target: "raft", "{}", Line(record)),
        }
        Ok(())
    }
}

/// The message and its fields; formatted only when someone listens.
struct Line<'a>(&'a Record<'a>);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.msg().fmt(f)?;
        let mut fields = Fields(f);
        self.0
            .kv()
            .serialize(self.0, &mut fields)
            .map_err(|_| fmt::Error)
    }
}

struct Fields<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl Serializer for Fields<'_, '_> {
    fn emit_arguments(&mut self, key: slog::Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.write_char(' ')?;
        write!(self.0, "{key}={value}")?;
        Ok(())
    }
}
