//! Is there an order in which one registry could have done all this? (Wing and Gong's search, with
//! Lowe's memory of the states it has been in, as Porcupine does it.)

use std::collections::HashSet;

use crate::history::{Model, Operation};

/// Steps after which a history is given up as undecided.
const STEPS_MAX: u64 = 2_000_000;

/// What the search found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// There is such an order.
    Linearizable,
    /// There is none.
    Impossible,
    /// It would take too long to say.
    Undecided,
}

/// Searches for an order that the calls and returns allow and the model can
/// follow.
pub fn check(start: &Model, operations: &[Operation]) -> Verdict {
    let mut search = Search {
        operations,
        seen: HashSet::new(),
        steps: 0,
    };
    let words = operations.len().div_ceil(64);
    // Depth first, with a stack of our own: histories are long.
    let mut stack = vec![(vec![0_u64; words], start.clone())];
    while let Some((done, state)) = stack.pop() {
        if search.is_complete(&done) {
            return Verdict::Linearizable;
        }
        search.steps += 1;
        if search.steps > STEPS_MAX {
            return Verdict::Undecided;
        }
        for candidate in search.candidates(&done) {
            let Some(next) = state.step(&operations[candidate]) else {
                continue;
            };
            let mut done = done.clone();
            done[candidate / 64] |= 1 << (candidate % 64);
            let place = (done, next);
            if search.seen.insert(place.clone()) {
                stack.push(place);
            }
        }
    }
    Verdict::Impossible
}

struct Search<'a> {
    operations: &'a [Operation],
    seen: HashSet<(Vec<u64>, Model)>,
    steps: u64,
}

impl Search<'_> {
    fn is_complete(&self, done: &[u64]) -> bool {
        let answered = self.operations.iter().enumerate();
        answered
            .filter(|(_, operation)| operation.answer.is_some())
            .all(|(at, _)| is_done(done, at))
    }

    /// What may come next: whatever was called before the first return of
    /// what is not done. The likely ones last, to be tried first.
    fn candidates(&self, done: &[u64]) -> Vec<usize> {
        let open = |at: &usize| !is_done(done, *at);
        let first_return = (0..self.operations.len())
            .filter(open)
            .filter_map(|at| self.operations[at].returned)
            .min()
            .unwrap_or(u64::MAX);
        let mut found: Vec<usize> = (0..self.operations.len())
            .filter(open)
            .filter(|at| self.operations[*at].called <= first_return)
            .collect();
        found
            .sort_by_key(|at| std::cmp::Reverse(self.operations[*at].returned.unwrap_or(u64::MAX)));
        found
    }
}

fn is_done(done: &[u64], at: usize) -> bool {
    done[at / 64] & (1 << (at % 64)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{Answered, Ask, Routes, Told};

    fn routes(revision: u64, route: &str) -> Routes {
        let route = route.to_owned();
        Routes::from([("s".to_owned(), Told { revision, route })])
    }

    fn read(called: u64, returned: u64, revision: u64, route: &str) -> Operation {
        Operation {
            called,
            returned: Some(returned),
            ask: Ask::Read(vec!["s".to_owned()]),
            answer: Some(Answered::Read(routes(revision, route))),
        }
    }

    fn shift(called: u64, expected: u64, to: &str, answer: Option<(u64, u64)>) -> Operation {
        Operation {
            called,
            returned: answer.map(|(returned, _)| returned),
            ask: Ask::Shift(vec![("s".to_owned(), Some(expected), to.to_owned())]),
            answer: answer.map(|(_, revision)| Answered::Changed(revision, routes(revision, to))),
        }
    }

    fn verdict(operations: &[Operation]) -> Verdict {
        check(&Model::new(&routes(5, "a")), operations)
    }

    #[test]
    fn reads_after_a_write_must_see_it() {
        let wrote = shift(1, 5, "b", Some((2, 9)));
        assert_eq!(
            verdict(&[wrote.clone(), read(3, 4, 9, "b")]),
            Verdict::Linearizable
        );
        assert_eq!(
            verdict(&[wrote.clone(), read(3, 4, 5, "a")]),
            Verdict::Impossible
        );
        // While it is under way either may be seen, but not one after the other.
        let slow = shift(1, 5, "b", Some((9, 9)));
        assert_eq!(
            verdict(&[slow.clone(), read(2, 3, 5, "a")]),
            Verdict::Linearizable
        );
        let back = [slow, read(2, 3, 9, "b"), read(4, 5, 5, "a")];
        assert_eq!(verdict(&back), Verdict::Impossible);
    }

    #[test]
    fn a_write_without_an_answer_happened_late_or_never_but_once() {
        let lost = shift(1, 5, "b", None);
        assert_eq!(
            verdict(&[lost.clone(), read(2, 3, 5, "a")]),
            Verdict::Linearizable
        );
        assert_eq!(
            verdict(&[lost.clone(), read(2, 3, 7, "b")]),
            Verdict::Linearizable
        );
        let both = [lost.clone(), read(2, 3, 5, "a"), read(4, 5, 7, "b")];
        assert_eq!(verdict(&both), Verdict::Linearizable);
        let undone = [lost, read(2, 3, 7, "b"), read(4, 5, 5, "a")];
        assert_eq!(verdict(&undone), Verdict::Impossible);
    }

    #[test]
    fn of_two_writes_that_expect_the_same_one_succeeds() {
        let both = [
            shift(1, 5, "b", Some((3, 8))),
            shift(2, 5, "c", Some((4, 9))),
        ];
        assert_eq!(verdict(&both), Verdict::Impossible);
    }
}
