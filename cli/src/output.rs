//! Where results go: data to stdout as a table or JSON, everything else to
//! stderr.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::{Exit, Failure};
use crate::table::{BAD, FAINT, NOTICE};

/// The form of results and errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    // For people.
    Table,
    // For scripts: one document, or one a line where there are many. (Not doc
    // comments: they would become help, and double its length.)
    Json,
}

/// When to use colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Color {
    // On a terminal, unless NO_COLOR is set.
    Auto,
    // Even into a pipe.
    Always,
    Never,
}

/// The way to stdout and stderr.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
    /// Is a person looking at stderr?
    attended: bool,
}

impl Color {
    /// Makes it so for the whole process.
    pub(crate) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

impl Output {
    pub(crate) fn new(format: Format) -> Self {
        Self {
            format,
            attended: io::stderr().is_terminal(),
        }
    }

    pub(crate) fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// Is a person looking at stderr?
    pub(crate) fn is_attended(self) -> bool {
        self.attended
    }

    /// One result: `value` as JSON, or what `table` makes of it.
    pub(crate) fn result<T: Serialize>(
        self,
        value: &T,
        table: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => to_stdout(&table(value)),
            Format::Json => to_stdout(&(json(value, true)? + "\n")),
        }
    }

    /// One of many results: a line of JSON, or what `text` makes of it.
    pub(crate) fn line<T: Serialize>(
        self,
        value: &T,
        text: impl FnOnce(&T) -> String,
    ) -> Result<(), Failure> {
        match self.format {
            Format::Table => to_stdout(&text(value)),
            Format::Json => to_stdout(&(json(value, false)? + "\n")),
        }
    }

    /// Text to stdout whatever the format.
    pub(crate) fn text(self, text: &str) -> Result<(), Failure> {
        to_stdout(text)
    }

    /// What a person should know beside the result.
    pub(crate) fn note(self, text: &str) {
        to_stderr(&format!("{FAINT}{text}{FAINT:#}\n"));
    }

    /// A line for whoever follows what goes on.
    pub(crate) fn event(self, text: &str) {
        to_stderr(&format!("{text}\n"));
    }

    /// Each warning on a line.
    pub(crate) fn warnings(self, warnings: &[String]) {
        for warning in warnings {
            to_stderr(&format!("{NOTICE}warning:{NOTICE:#} {warning}\n"));
        }
    }

    /// Replaces the progress line; only a person sees one.
    pub(crate) fn progress(self, text: &str) {
        if self.attended {
            // Past the colour filter, which would take out the erasure.
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\r\u{1b}[2K{text}").and_then(|()| stderr.flush());
        }
    }

    pub(crate) fn clear_progress(self) {
        self.progress("");
    }

    /// Silent when it is only that the reader of stdout went away.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.exit() == Exit::ReaderGone {
            return;
        }
        if self.is_json() {
            to_stderr(&(failure.to_json() + "\n"));
        } else {
            let text = failure.to_text();
            let told = text.strip_prefix("error:").unwrap_or(&text);
            to_stderr(&format!("{BAD}error:{BAD:#}{told}\n"));
        }
    }
}

fn json<T: Serialize>(value: &T, pretty: bool) -> Result<String, Failure> {
    let written = if pretty {
        serde_json::to_string_pretty(value)
    } else {
        serde_json::to_string(value)
    };
    written.map_err(|error| Failure::new(Exit::Failed, format!("cannot write JSON: {error}")))
}

/// A reader that has seen enough (`trimtab ... | head`) is not a failure of
/// ours, but there is nobody left to go on for.
fn to_stdout(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::ReaderGone, "stdout was closed"))
        }
        written => Ok(written?),
    }
}

/// There is nowhere left to report that stderr cannot be written.
fn to_stderr(text: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}
