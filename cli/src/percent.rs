//! Shares as people write them: percent with up to two decimals, which are
//! exactly basis points.

use std::fmt;
use std::str::FromStr;

/// All of it, in basis points.
pub(crate) const WHOLE: u32 = 10_000;

/// A share of a service's calls, 0 % to 100 %.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Percent {
    basis_points: u32,
}

/// Why a text is not a share.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a share: write 0 to 100 with at most two decimals, for example 12.5 or 12.5%"
)]
pub(crate) struct ParsePercentError(String);

impl Percent {
    pub(crate) fn from_basis_points(basis_points: u32) -> Self {
        Self { basis_points }
    }

    pub(crate) fn basis_points(self) -> u32 {
        self.basis_points
    }
}

impl FromStr for Percent {
    type Err = ParsePercentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        basis_points(text)
            .filter(|basis_points| *basis_points <= WHOLE)
            .map(Self::from_basis_points)
            .ok_or_else(|| ParsePercentError(text.to_owned()))
    }
}

/// Reads digits, not floating point: 0.07 % is 7 and nothing near it.
fn basis_points(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%').unwrap_or(text).trim();
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !all_digits(whole) || !all_digits(decimals) || decimals.len() > 2 {
        return None;
    }
    let hundredths: u32 = format!("{decimals:0<2}").parse().ok()?;
    whole
        .parse::<u32>()
        .ok()?
        .checked_mul(100)?
        .checked_add(hundredths)
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, hundredths) = (self.basis_points / 100, self.basis_points % 100);
        let text = match (hundredths, hundredths % 10) {
            (0, _) => format!("{whole}%"),
            (_, 0) => format!("{whole}.{}%", hundredths / 10),
            _ => format!("{whole}.{hundredths:02}%"),
        };
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_reads_back_as_it_is_printed() {
        for basis_points in 0..=WHOLE {
            let percent = Percent::from_basis_points(basis_points);
            assert_eq!(percent.to_string().parse(), Ok(percent));
        }
    }

    #[test]
    fn shares_are_read_as_people_write_them() {
        for (text, basis_points) in [
            ("5", 500),
            ("5%", 500),
            ("5 %", 500),
            ("12.5%", 1_250),
            ("0.01", 1),
            ("0.07%", 7),
            ("100", 10_000),
            ("100.00%", 10_000),
            ("0", 0),
        ] {
            let percent: Percent = text.parse().unwrap();
            assert_eq!(percent.basis_points(), basis_points, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_share_is_refused_and_quoted() {
        for text in [
            "",
            "%",
            "-1",
            "+5",
            "101",
            "100.01",
            "0.001",
            "5.",
            ".5",
            "1e1",
            "five",
            "5%%",
            "99999999999",
        ] {
            let error = text.parse::<Percent>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{text}");
        }
    }
}
