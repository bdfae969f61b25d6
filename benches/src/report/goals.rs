//! What the data plane is to reach on the reference machine, and whether it did: the first section of the page.
//!
//! One table, [`GOALS`]; nothing is measured here. Always: a goal whose figure is missing is "not measured", never reached.

mod list;

use super::Report;
use crate::table::Table;
pub use list::GOALS;

/// Median, least, greatest.
pub type Spread = [f64; 3];
/// Places in it.
pub const MEDIAN: usize = 0;
pub const GREATEST: usize = 2;

/// Which figures are better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Better {
    More,
    Less,
}

/// A goal.
pub struct Goal {
    pub what: &'static str,
    pub unit: &'static str,
    /// What it is to reach at least, and what it aims at.
    pub least: f64,
    pub aim: f64,
    pub better: Better,
    pub figure: fn(&Report) -> Option<Spread>,
    /// What is to blame for a miss, from the figures of the same run.
    pub blame: fn(&Report) -> Option<String>,
    /// What stands beside the figure.
    pub beside: fn(&Report) -> Option<String>,
}

/// How a goal went.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    NotMeasured,
    /// The aim, too.
    Aim,
    Reached,
    /// By this part of the goal; of a goal of nothing, by so much.
    Missed(f64),
}

impl Goal {
    const fn beside(mut self, beside: fn(&Report) -> Option<String>) -> Self {
        self.beside = beside;
        self
    }

    /// What the report says of it. A goal of nothing is for every round, so its greatest figure is judged, not the median.
    pub fn verdict(&self, report: &Report) -> Verdict {
        let by = if self.least == 0.0 { GREATEST } else { MEDIAN };
        match (self.figure)(report).map(|figure| figure[by]) {
            Some(figure) if figure.is_finite() => self.judge(figure),
            _ => Verdict::NotMeasured,
        }
    }

    fn judge(&self, figure: f64) -> Verdict {
        let reaches = |bound: f64| match self.better {
            Better::More => figure >= bound,
            Better::Less => figure <= bound,
        };
        match () {
            () if reaches(self.aim) => Verdict::Aim,
            () if reaches(self.least) => Verdict::Reached,
            () if self.least == 0.0 => Verdict::Missed(figure),
            () => Verdict::Missed((figure / self.least - 1.0).abs()),
        }
    }
}

/// A number with as many digits as say something.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0 | 100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The table: a row for each goal.
pub fn table(report: &Report) -> Table {
    let mut table =
        Table::new(["goal", "at least", "aim", "measured", "spread", "verdict", "what a miss is due to"]);
    for goal in &GOALS {
        let bound = |value: f64| {
            let sign = if goal.better == Better::More { "≥" } else { "≤" };
            format!("{sign} {} {}", digits(value), goal.unit).trim_end().to_owned()
        };
        let verdict = goal.verdict(report);
        let measured = (goal.figure)(report).filter(|_| verdict != Verdict::NotMeasured);
        let [median, spread] = match measured {
            Some([median, least, most]) => [
                match (goal.beside)(report) {
                    Some(beside) => format!("{} {} ({beside})", digits(median), goal.unit),
                    None => format!("{} {}", digits(median), goal.unit),
                },
                format!("{} to {}", digits(least), digits(most)),
            ],
            None => [String::new(), String::new()],
        };
        let (says, why) = match verdict {
            Verdict::NotMeasured => ("not measured".to_owned(), String::new()),
            Verdict::Aim => ("reached, and the aim".to_owned(), String::new()),
            Verdict::Reached => ("reached".to_owned(), String::new()),
            Verdict::Missed(by) => {
                let by = if goal.least == 0.0 { digits(by) } else { format!("{:.0} %", by * 100.0) };
                (
                    format!("**missed by {by}**"),
                    (goal.blame)(report).unwrap_or_else(|| "not known".to_owned()),
                )
            }
        };
        table.row([
            goal.what.to_owned(),
            bound(goal.least),
            bound(goal.aim),
            median.trim_end().to_owned(),
            spread,
            says,
            why,
        ]);
    }
    table
}

/// How many were reached, missed and not measured.
pub fn counts(report: &Report) -> [usize; 3] {
    let mut counts = [0; 3];
    for goal in &GOALS {
        match goal.verdict(report) {
            Verdict::Aim | Verdict::Reached => counts[0] += 1,
            Verdict::Missed(_) => counts[1] += 1,
            Verdict::NotMeasured => counts[2] += 1,
        }
    }
    counts
}

#[cfg(test)]
mod tests;
