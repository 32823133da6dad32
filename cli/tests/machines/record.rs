//! What the processes tell of what happened to them, one JSON line each.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use trimtab_tests::history::Operation;

/// All times are [`clock::now`](crate::clock::now).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Event {
    /// A caller's call is over.
    Call(Call),
    /// What a caller follows from now on.
    Follows { at: u64, revision: u64 },
    /// What a deploy script asked, and was told.
    Asked(Operation),
    /// What a deploy script asked and was not done, as it was told.
    NotDone {
        called: u64,
        returned: u64,
        reason: String,
    },
    /// A deploy script was told that every caller uses this revision.
    Confirmed { at: u64, revision: u64 },
    /// A watcher was shown the service.
    Shown(Shown),
    /// A question to one replica is over.
    Question(Question),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Call {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    /// What the caller followed just before.
    pub(crate) followed: u64,
    /// Where it went, or why it failed.
    pub(crate) answer: Result<Answer, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) group: String,
    pub(crate) instance: String,
    /// The view it was picked by.
    pub(crate) revision: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Shown {
    pub(crate) at: u64,
    pub(crate) replica: u64,
    pub(crate) revision: u64,
    pub(crate) weights: BTreeMap<String, u32>,
    /// Status by id.
    pub(crate) instances: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Question {
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) replica: u64,
    /// The revision, or why there is none.
    pub(crate) answer: Result<u64, String>,
}

/// Tells the test, over stdout. Not a file: a busy disk would hold up who
/// writes, and it would look as if the registry did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recorder;

impl Recorder {
    /// Each event is handed over at once, so that it outlives the process.
    ///
    /// # Panics
    /// When nobody reads: a history with a gap proves nothing.
    pub(crate) fn note(self, event: &Event) {
        let mut line = serde_json::to_vec(event).expect("plain data");
        line.push(b'\n');
        let mut stdout = io::stdout().lock();
        let written = stdout.write_all(&line).and_then(|()| stdout.flush());
        written.expect("the test listens");
    }
}

/// What a process has told so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    events: Arc<Mutex<Vec<Event>>>,
}

impl Record {
    /// Listens until the process ends. A last line that was cut off is not
    /// taken; the process was killed.
    pub(crate) fn listen(&self, from: impl Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if let Ok(event) = serde_json::from_str(&line) {
                self.locked().push(event);
            }
        }
    }

    pub(crate) fn events(&self) -> Vec<Event> {
        self.locked().clone()
    }

    /// For people, when something went wrong.
    pub(crate) fn keep(&self, path: &Path) -> io::Result<()> {
        let mut file = BufWriter::new(File::create(path)?);
        for event in self.locked().iter() {
            serde_json::to_writer(&mut file, event)?;
            writeln!(file)?;
        }
        file.flush()
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
