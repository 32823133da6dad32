//! Memory for what is large and held for a short while.

/// More is not set aside before it is there.
const SET_ASIDE_MAX: u64 = 1 << 30;

/// Less than this is no matter.
const SMALL: u64 = 128 << 10;

/// glibc's malloc maps what is as large as this by itself, always, and gives it
/// back to the system at once. Of what is smaller, and was given back once, it
/// learns to keep as much for good (mallopt(3), M_MMAP_THRESHOLD).
const MAPPED_FROM: usize = (32 << 20) + 1;

/// How much to set aside for so many bytes. What of it is not used takes up
/// addresses, and no memory.
pub(crate) fn room_for(bytes: u64) -> usize {
    let needed = usize::try_from(bytes.min(SET_ASIDE_MAX)).unwrap_or_default();
    match bytes < SMALL {
        true => needed,
        false => needed.max(MAPPED_FROM),
    }
}
