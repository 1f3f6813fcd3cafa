//! The share of answers that a latency target is for.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

const MILLION: f64 = 1e6;

/// The share of answers that are to be there within a latency target, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "f64", into = "f64")]
pub struct Quantile(u32);

impl Default for Quantile {
    /// 99 in 100.
    fn default() -> Self {
        Self(990_000)
    }
}

/// By what of a stage's costs it is judged whether a row is in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judge {
    /// What runs take on average.
    Expected,
    /// What nineteen in twenty stay under.
    Likely,
}

impl Quantile {
    /// By what it is judged whether a row is in time. Not by what is surer still, where that is asked for: it would refuse
    /// two in five rows at two thirds of the load for the sake of one in a thousand, which a margin gives up far fewer for.
    #[must_use]
    pub const fn judge(self) -> Judge {
        if self.0 < 750_000 { Judge::Expected } else { Judge::Likely }
    }

    /// The share, in parts per million.
    #[must_use]
    pub const fn parts(self) -> u32 {
        self.0
    }

    /// The share of answers that may be late.
    #[must_use]
    pub fn late(self) -> f64 {
        1.0 - f64::from(self)
    }
}

impl TryFrom<f64> for Quantile {
    type Error = String;

    fn try_from(share: f64) -> Result<Self, String> {
        let parts = (share * MILLION).round();
        if (500_000.0..MILLION).contains(&parts) {
            return Ok(Self(parts as u32));
        }
        Err(format!("is {share}; expected a share of 0.5 or more and less than 1, such as 0.99"))
    }
}

impl From<Quantile> for f64 {
    fn from(Quantile(parts): Quantile) -> Self {
        Self::from(parts) / MILLION
    }
}

impl FromStr for Quantile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse().unwrap_or(f64::NAN).try_into()
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", f64::from(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_and_others_are_refused() {
        let table = [
            ("0.5", Judge::Expected),
            ("0.75", Judge::Likely),
            ("0.99", Judge::Likely),
            ("0.999999", Judge::Likely),
        ];
        for (text, judge) in table {
            let quantile: Quantile = text.parse().unwrap();
            assert_eq!((quantile.judge(), quantile.to_string().as_str()), (judge, text));
        }
        assert_eq!(Quantile::default(), "0.99".parse().unwrap());
        for text in ["1", "0.9999999", "0.49", "99", "-0.9", "nan", "p99", ""] {
            let why = text.parse::<Quantile>().unwrap_err();
            assert!(why.contains("expected a share"), "{text}: {why}");
        }
    }
}
