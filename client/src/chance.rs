//! Each thread's own generator, for choices that need to be quick rather than secret.

use std::cell::Cell;

use rand::SeedableRng;
use rand::rngs::SmallRng;

thread_local! {
    static GENERATOR: Cell<Option<SmallRng>> = const { Cell::new(None) };
}

/// Lends the thread's generator, seeded by the system at its first use. What
/// asks for it again meanwhile gets another.
pub(crate) fn with<T>(draw: impl FnOnce(&mut SmallRng) -> T) -> T {
    GENERATOR.with(|cell| {
        let kept = cell.take();
        let mut generator = kept.unwrap_or_else(|| SmallRng::from_rng(&mut rand::rng()));
        let drawn = draw(&mut generator);
        cell.set(Some(generator));
        drawn
    })
}
