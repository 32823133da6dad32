//! Strings that were checked when they were made, and are cheap to copy.

/// Defines a newtype over a shared string that only `parse` can make. One
/// pointer: of the millions of them that a registry holds, half are copies.
///
/// `$field` names the value in errors until the caller knows better, and
/// `$check` answers with the rule that a string breaks.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $field:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(arcstr::ArcStr);

        impl $name {
            /// Checks the rule of this type.
            ///
            /// # Errors
            /// The field, the value and the rule that it breaks.
            pub fn parse(value: &str) -> Result<Self, crate::invalid::Invalid> {
                match $check(value) {
                    Ok(()) => Ok(Self(value.into())),
                    Err(rule) => Err(crate::invalid::Invalid::new($field, value, rule)),
                }
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = crate::invalid::Invalid;
            fn from_str(value: &str) -> Result<Self, Self::Err> {
                Self::parse(value)
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        // Lets maps keyed by this type be asked with a plain `&str`.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($field)
                    }
                    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<$name, E> {
                        $name::parse(value).map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    };
}
pub(crate) use checked_text;

/// The longest actor, in bytes.
pub const ACTOR_BYTES_MAX: usize = 128;
/// The longest reason, in bytes.
pub const REASON_BYTES_MAX: usize = 512;
/// The longest request id, in bytes.
pub const REQUEST_ID_BYTES_MAX: usize = 64;

checked_text!(
    /// Who asks for a change; may be empty.
    Actor,
    "actor",
    |value| check_line(
        value,
        ACTOR_BYTES_MAX,
        "must be at most 128 bytes, without control characters"
    )
);
checked_text!(
    /// Why a change is asked for; may be empty.
    Reason,
    "reason",
    |value| check_line(
        value,
        REASON_BYTES_MAX,
        "must be at most 512 bytes, without control characters"
    )
);
checked_text!(
    /// Names one request for a change, so that its repetition is known as
    /// such; empty means that it has no name.
    RequestId,
    "request_id",
    |value| check_line(
        value,
        REQUEST_ID_BYTES_MAX,
        "must be at most 64 bytes, without control characters"
    )
);

impl Default for Actor {
    fn default() -> Self {
        Self("".into())
    }
}

impl Default for Reason {
    fn default() -> Self {
        Self("".into())
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self("".into())
    }
}

impl RequestId {
    /// The request has no name, and is never a repetition.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// Control characters are refused because these texts end up on terminals.
fn check_line(value: &str, bytes_max: usize, rule: &'static str) -> Result<(), &'static str> {
    if value.len() > bytes_max || value.chars().any(char::is_control) {
        return Err(rule);
    }
    Ok(())
}
