//! The version of what replicas say to each other.

/// The version this replica speaks. It goes up when a replica of the version
/// before could not take a message for what it is.
pub const PROTOCOL: u32 = 2;

/// The oldest version this replica understands: that of the release before,
/// so that replicas can be upgraded one by one.
pub const PROTOCOL_OLDEST: u32 = 2;

/// Another replica speaks a version that this one does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the other replica speaks version {found} of the protocol between replicas, this one understands {PROTOCOL_OLDEST} to {PROTOCOL}; upgrade the older one of the two, one release at a time"
)]
pub struct UnknownProtocol {
    /// The version it names; 0 is older than the first that had a number.
    pub found: u32,
}

/// Whether a message of this version can be taken.
///
/// # Errors
///
/// When it is older or newer than what this replica understands.
pub fn check(found: u32) -> Result<(), UnknownProtocol> {
    match (PROTOCOL_OLDEST..=PROTOCOL).contains(&found) {
        true => Ok(()),
        false => Err(UnknownProtocol { found }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_versions_are_refused_by_number() {
        assert_eq!(check(PROTOCOL), Ok(()));
        for found in [0, PROTOCOL_OLDEST - 1, PROTOCOL + 1] {
            let refused = check(found).expect_err("is not known");
            assert!(refused.to_string().contains(&format!("version {found} ")));
        }
    }
}
