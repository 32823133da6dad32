//! What is said of a value that breaks a rule.

use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// How much of a value that breaks a rule is kept to be shown.
const SHOWN_BYTES_MAX: usize = 80;

/// A value that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{field} {rule}, but is {value:?}")]
pub struct Invalid {
    /// Which field of the request.
    pub field: String,
    /// What it holds, shortened when long.
    pub value: String,
    /// What it must be.
    pub rule: String,
}

impl Invalid {
    /// A `field` whose `value` breaks a `rule` ("must be ...").
    pub fn new(
        field: impl Into<String>,
        value: impl fmt::Display,
        rule: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: shorten(&value.to_string()),
            rule: rule.into(),
        }
    }

    /// The same of another field: where in the request the value stood.
    #[must_use]
    pub fn at(self, field: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            ..self
        }
    }
}

/// The start of a value, short enough for an error message.
fn shorten(value: &str) -> String {
    if value.len() <= SHOWN_BYTES_MAX {
        return value.to_owned();
    }
    let mut end = SHOWN_BYTES_MAX;
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}... ({} bytes)", &value[..end], value.len())
}
