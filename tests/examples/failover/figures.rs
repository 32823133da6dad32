//! What was seen in one trial, and in all.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::Story;

/// One trial.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// From the kill to the first acknowledgement of a write begun after it.
    first_write: Option<Duration>,
    /// The same of the writer that waited longest.
    last_writer: Option<Duration>,
    /// The longest time for which a replica that lives answered no read.
    read_gap: Duration,
    reads_failed: u32,
    /// The longest time from an acknowledgement to the view, on a replica
    /// that lives.
    watch_lag: Duration,
    watches_broken: u32,
}

/// All trials.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    seen: Vec<Seen>,
}

impl Seen {
    pub(crate) fn of(story: &Story, killed: Instant) -> Self {
        let firsts: Vec<Option<Duration>> = (0..3)
            .map(|writer| first_write(story, writer, killed))
            .collect();
        let all: Option<Vec<Duration>> = firsts.iter().copied().collect();
        Self {
            first_write: firsts.into_iter().flatten().min(),
            last_writer: all.and_then(|all| all.into_iter().max()),
            read_gap: story
                .reads
                .values()
                .map(|reads| longest_gap(reads, killed))
                .max()
                .unwrap_or(Duration::MAX),
            reads_failed: story.reads_failed,
            watch_lag: watch_lag(story, killed),
            watches_broken: story.watches_broken,
        }
    }
}

fn first_write(story: &Story, writer: usize, killed: Instant) -> Option<Duration> {
    let own = story
        .writes
        .iter()
        .filter(|(who, begun, ..)| *who == writer && *begun >= killed);
    own.map(|(_, _, acknowledged, _)| *acknowledged - killed)
        .min()
}

fn longest_gap(reads: &[Instant], killed: Instant) -> Duration {
    let gaps = reads
        .windows(2)
        .filter(|two| two[1] >= killed)
        .map(|two| two[1] - two[0]);
    gaps.max().unwrap_or(Duration::MAX)
}

/// Of every write that was acknowledged half a second or more before the end:
/// a view may be under way then.
fn watch_lag(story: &Story, killed: Instant) -> Duration {
    let until = Instant::now() - Duration::from_millis(500);
    let writes = story
        .writes
        .iter()
        .filter(|(_, _, acknowledged, _)| *acknowledged >= killed && *acknowledged < until);
    let lags = writes.flat_map(|(_, _, acknowledged, revision)| {
        story.shown.values().map(move |shown| {
            let first = shown.iter().find(|(_, newest)| newest >= revision);
            first.map_or(Duration::MAX, |(at, _)| {
                at.saturating_duration_since(*acknowledged)
            })
        })
    });
    lags.max().unwrap_or(Duration::MAX)
}

// === impl Figures ===

impl Figures {
    pub(crate) fn add(&mut self, seen: Seen) {
        self.seen.push(seen);
    }

    fn line(
        &self,
        f: &mut fmt::Formatter<'_>,
        what: &str,
        of: impl Fn(&Seen) -> Option<Duration>,
    ) -> fmt::Result {
        let mut times: Vec<Duration> = self.seen.iter().filter_map(of).collect();
        times.sort_unstable();
        let never = self.seen.len() - times.len();
        let (Some(least), Some(worst)) = (times.first(), times.last()) else {
            return writeln!(f, "{what}: never");
        };
        let median = times.get(times.len() / 2).unwrap_or(worst);
        write!(
            f,
            "{what}: median {median:.0?}, best {least:.0?}, worst {worst:.0?}"
        )?;
        if never > 0 {
            write!(f, ", {never} times never")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.first_write {
            Some(first) => write!(f, "written again after {first:.0?}")?,
            None => write!(f, "not written again")?,
        }
        write!(f, ", reads silent for {:.0?} at most", self.read_gap)
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nleader killed {} times", self.seen.len())?;
        self.line(f, "first write acknowledged, from the kill", |seen| {
            seen.first_write
        })?;
        self.line(f, "all three writers write again, from the kill", |seen| {
            seen.last_writer
        })?;
        self.line(
            f,
            "longest silence of reads on a replica that lives",
            |seen| Some(seen.read_gap),
        )?;
        self.line(
            f,
            "longest from an acknowledgement to a view there",
            |seen| Some(seen.watch_lag),
        )?;
        let failed: u32 = self.seen.iter().map(|seen| seen.reads_failed).sum();
        let broken: u32 = self.seen.iter().map(|seen| seen.watches_broken).sum();
        writeln!(
            f,
            "reads failed there: {failed}; watches broken there: {broken}"
        )
    }
}
