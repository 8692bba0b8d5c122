//! The one table of a run: a ratio and a verdict for each line, and absolute figures as remarks.

use std::fmt;

/// What a line is to reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The ratio must be so large.
    AtLeast(f64),
    /// The ratio must not be larger.
    AtMost(f64),
    /// It is measured to be known: there is nothing to compare it with.
    Known,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::AtLeast(ratio) => write!(f, "≥ {ratio}"),
            Target::AtMost(ratio) => write!(f, "≤ {ratio}"),
            Target::Known => Ok(()),
        }
    }
}

/// A line of the table.
#[derive(Debug)]
pub struct Line {
    /// What was measured, and beside what.
    pub what: String,
    /// The subject's figure over the reference's.
    pub ratio: Option<f64>,
    /// What it is to reach.
    pub target: Target,
    /// What must hold beside the ratio, and whether it does.
    pub holds: bool,
    /// Absolute figures.
    pub remark: String,
}

impl Line {
    /// A line that its ratio decides.
    pub fn new(what: &str, ratio: f64, target: Target, remark: String) -> Line {
        Line { what: what.to_owned(), ratio: Some(ratio), target, holds: true, remark }
    }

    /// A line without a reference, which holds or does not.
    pub fn known(what: &str, holds: bool, remark: String) -> Line {
        Line { what: what.to_owned(), ratio: None, target: Target::Known, holds, remark }
    }

    /// A line that could not be measured.
    pub fn failed(what: &str, why: &str) -> Line {
        Line::known(what, false, why.to_owned())
    }

    /// Whether the line reaches what it is to reach. A ratio counts as it is printed.
    pub fn is_kept(&self) -> bool {
        let ratio = self.ratio.map(|ratio| (ratio * 1_000.0).round() / 1_000.0);
        self.holds
            && match (self.target, ratio) {
                (Target::AtLeast(least), Some(ratio)) => ratio >= least,
                (Target::AtMost(most), Some(ratio)) => ratio <= most,
                (Target::Known, _) => true,
                (_, None) => false,
            }
    }
}

/// The head of the table.
pub const HEAD: &str = "verdict   ratio  target  what, and beside what";

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.is_kept() { "kept" } else { "MISSED" };
        let ratio = match self.ratio {
            Some(ratio) if ratio >= 100.0 => format!("{ratio:.0}"),
            Some(ratio) => format!("{ratio:.3}"),
            None => "–".to_owned(),
        };
        write!(f, "{verdict:<7} {ratio:>7}  {:<6}  {}", self.target.to_string(), self.what)?;
        self.remark.lines().try_for_each(|line| write!(f, "\n{:25}{line}", ""))
    }
}
