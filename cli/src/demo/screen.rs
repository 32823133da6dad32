//! What the audience sees: the story line by line, and below it, on a
//! terminal, who carries the calls at this moment.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::demo::count::Tally;
use crate::demo::plan::CALLERS;
use crate::table::{BAD, FAINT, count};

/// How often the live view is drawn: smooth to look at, no work to speak of.
const DRAW_INTERVAL: Duration = Duration::from_millis(200);

/// The live view tells of the last second.
const WINDOW: Duration = Duration::from_millis(1_000);

/// Columns of the bar that stands for all calls: a line of the live view must
/// fit a terminal of 80, for it is drawn over again by counting lines.
const BAR: usize = 24;

const HEADLINE: Style = AnsiColor::Cyan.on_default().bold();

/// What each caller counted so far.
#[derive(Debug, Clone)]
pub(crate) struct LiveCounts {
    by_caller: Arc<Mutex<Vec<Count>>>,
}

#[derive(Debug, Clone, Default)]
struct Count {
    groups: BTreeMap<String, Tally>,
    unplaced: u64,
}

/// Where the story is told.
#[derive(Debug)]
pub(crate) struct Screen {
    shared: Arc<Mutex<Shared>>,
    drawing: Option<JoinHandle<()>>,
}

/// What the story and the live view have in common.
#[derive(Debug)]
struct Shared {
    terminal: bool,
    counts: LiveCounts,
    /// Counts of the last second, oldest first.
    recent: VecDeque<(Instant, Count)>,
    /// Lines of the live view that are on the screen.
    drawn: usize,
    started: Instant,
}

// === impl LiveCounts ===

impl LiveCounts {
    pub(crate) fn new() -> Self {
        Self {
            by_caller: Arc::new(Mutex::new(vec![Count::default(); CALLERS])),
        }
    }

    /// The newest word of a caller.
    pub(crate) fn update(&self, caller: usize, groups: BTreeMap<String, Tally>, unplaced: u64) {
        let mut counts = self
            .by_caller
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(caller) {
            *count = Count { groups, unplaced };
        }
    }

    fn sum(&self) -> Count {
        let counts = self
            .by_caller
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut sum = Count::default();
        for count in counts.iter() {
            sum.unplaced += count.unplaced;
            for (group, tally) in &count.groups {
                sum.groups.entry(group.clone()).or_default().add(*tally);
            }
        }
        sum
    }
}

// === impl Screen ===

impl Screen {
    /// Draws the live view, where there is a terminal, until dropped.
    pub(crate) fn open(counts: LiveCounts) -> Self {
        let terminal = io::stderr().is_terminal();
        let shared = Arc::new(Mutex::new(Shared {
            terminal,
            counts,
            recent: VecDeque::new(),
            drawn: 0,
            started: Instant::now(),
        }));
        let drawing = terminal.then(|| tokio::spawn(draw_for_ever(Arc::clone(&shared))));
        Self { shared, drawing }
    }

    /// The next part of the story begins.
    pub(crate) fn headline(&self, text: &str) {
        self.with(|shared| shared.say(text, HEADLINE));
    }

    /// Something happened.
    pub(crate) fn say(&self, text: &str) {
        self.with(|shared| shared.say(&format!("  {text}"), Style::new()));
    }

    fn with(&self, act: impl FnOnce(&mut Shared)) {
        act(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(drawing) = self.drawing.take() {
            drawing.abort();
        }
        self.with(Shared::erase);
    }
}

async fn draw_for_ever(shared: Arc<Mutex<Shared>>) {
    let mut ticks = interval(DRAW_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut shared = shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.observe();
        shared.draw();
    }
}

// === impl Shared ===

impl Shared {
    fn say(&mut self, text: &str, style: Style) {
        self.erase();
        let seconds = self.started.elapsed().as_secs_f64();
        write_out(&format!(
            "{FAINT}{seconds:>5.1} s{FAINT:#}  {style}{text}{style:#}\n"
        ));
        self.draw();
    }

    fn observe(&mut self) {
        let now = Instant::now();
        self.recent.push_back((now, self.counts.sum()));
        while self
            .recent
            .front()
            .is_some_and(|(at, _)| now.duration_since(*at) > WINDOW)
        {
            self.recent.pop_front();
        }
    }

    fn erase(&mut self) {
        if self.drawn > 0 {
            // Past the colour filter, which would take out the movement.
            let mut stderr = io::stderr().lock();
            let _ = write!(stderr, "\u{1b}[{}A\u{1b}[J", self.drawn).and_then(|()| stderr.flush());
            self.drawn = 0;
        }
    }

    fn draw(&mut self) {
        if !self.terminal {
            return;
        }
        self.erase();
        let (Some((from, before)), Some((to, after))) = (self.recent.front(), self.recent.back())
        else {
            return;
        };
        let seconds = to.duration_since(*from).as_secs_f64();
        if seconds <= 0.0 {
            return;
        }
        let lines = live_lines(before, after, seconds);
        self.drawn = lines.len();
        write_out(&lines.concat());
    }
}

/// One line for each group: its part of the calls as a bar, how many, how
/// long they took, and how many failed.
fn live_lines(before: &Count, after: &Count, seconds: f64) -> Vec<String> {
    let changes: Vec<(&String, Tally)> = after
        .groups
        .iter()
        .map(|(group, tally)| (group, since(*tally, before.groups.get(group))))
        .collect();
    let all: u64 = changes.iter().map(|(_, tally)| tally.calls).sum();
    let mut lines = vec!["\n".to_owned()];
    for (group, tally) in changes {
        let share = tally.calls as f64 / (all.max(1)) as f64;
        let bar = "█".repeat((share * BAR as f64).round() as usize);
        let style = match tally.failed() {
            0 => AnsiColor::Green.on_default(),
            _ => BAD,
        };
        let latency = tally.latency_us as f64 / 1_000.0 / tally.calls.max(1) as f64;
        lines.push(format!(
            "    {group:<4} {style}{bar:<BAR$}{style:#} {:>6.2}%  {:>7}/s  {latency:>6.2} ms  {}\n",
            share * 100.0,
            count((tally.calls as f64 / seconds) as u64),
            failures(tally.failed()),
        ));
    }
    let unplaced = after.unplaced - before.unplaced.min(after.unplaced);
    if unplaced > 0 {
        lines.push(format!("    {}\n", failures(unplaced)));
    }
    lines
}

fn failures(failed: u64) -> String {
    match failed {
        0 => String::new(),
        failed => format!("{BAD}{} failed{BAD:#}", count(failed)),
    }
}

fn since(now: Tally, before: Option<&Tally>) -> Tally {
    let before = before.copied().unwrap_or_default();
    Tally {
        calls: now.calls.saturating_sub(before.calls),
        own_errors: now.own_errors.saturating_sub(before.own_errors),
        lost: now.lost.saturating_sub(before.lost),
        latency_us: now.latency_us.saturating_sub(before.latency_us),
    }
}

/// The show goes on when nobody looks.
fn write_out(text: &str) {
    let mut stderr = anstream::stderr().lock();
    let _ = stderr
        .write_all(text.as_bytes())
        .and_then(|()| stderr.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(calls: [u64; 2], failed: u64) -> Count {
        let tally = |calls, own_errors| Tally {
            calls,
            own_errors,
            lost: 0,
            latency_us: calls * 1_500,
        };
        Count {
            groups: [
                ("v1".to_owned(), tally(calls[0], 0)),
                ("v2".to_owned(), tally(calls[1], failed)),
            ]
            .into(),
            unplaced: 0,
        }
    }

    #[test]
    fn the_live_view_tells_of_the_window_alone() {
        let lines = live_lines(&counted([1_000, 0], 0), &counted([1_800, 200], 5), 2.0);
        let plain: Vec<String> = lines
            .iter()
            .map(|line| anstream::adapter::strip_str(line).to_string())
            .collect();
        assert_eq!(plain.len(), 3);
        assert!(
            plain[1].contains(" 80.00%") && plain[1].contains("400/s"),
            "{plain:?}"
        );
        assert!(
            plain[2].contains(" 20.00%") && plain[2].contains("5 failed"),
            "{plain:?}"
        );
        assert!(plain[1].contains("1.50 ms"), "{plain:?}");
    }
}
