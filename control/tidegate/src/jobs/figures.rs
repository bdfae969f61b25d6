//! Flights, cancellations and arrival delays, summed up: what `delays` keeps per route and per carrier.
//!
//! Always true: all arithmetic is in integers, so the figures do not depend on the order of the flights;
//! `cancelled ≤ flights`, `arrivals ≤ flights`, and `max` means something only where `arrivals > 0`.

use std::fmt;

use crate::connect::CsvRow;
use crate::record::Plain;

/// The sums of one group of flights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Plain)]
#[repr(C)]
pub struct Figures {
    /// All flights.
    pub flights: u64,
    /// Those that never left.
    pub cancelled: u64,
    /// Those with a known arrival delay.
    pub arrivals: u64,
    /// Sum of the known arrival delays in minutes.
    pub delay_sum: i64,
    /// Highest known arrival delay in minutes.
    pub delay_max: i64,
}

impl Figures {
    /// No flights.
    pub const NONE: Self = Self { flights: 0, cancelled: 0, arrivals: 0, delay_sum: 0, delay_max: i64::MIN };

    /// The columns of [`Figures::write`].
    pub const COLUMNS: [&'static str; 5] = ["flights", "cancelled", "arrivals", "mean_delay", "max_delay"];

    /// Takes one flight in. `delay` is its arrival delay in minutes, if known.
    #[inline]
    pub fn add(&mut self, cancelled: bool, delay: Option<i32>) {
        self.flights += 1;
        self.cancelled += u64::from(cancelled);
        if let Some(delay) = delay {
            self.arrivals += 1;
            self.delay_sum += i64::from(delay);
            self.delay_max = self.delay_max.max(i64::from(delay));
        }
    }

    /// The mean arrival delay in hundredths of a minute, halves rounded away from zero; `None` without an arrival.
    pub fn mean_hundredths(&self) -> Option<i64> {
        let count = i64::try_from(self.arrivals).ok().filter(|count| *count > 0)?;
        let doubled = 200 * i128::from(self.delay_sum.unsigned_abs()) + i128::from(count);
        let rounded = (doubled / (2 * i128::from(count))) as i64;
        Some(rounded * self.delay_sum.signum())
    }

    /// Puts the figures into a row; mean and maximum stay empty without an arrival.
    pub fn write(&self, row: &mut CsvRow<'_>) {
        row.value(self.flights).value(self.cancelled).value(self.arrivals);
        row.optional(self.mean_hundredths().map(Hundredths));
        row.optional((self.arrivals > 0).then_some(self.delay_max));
    }
}

/// Hundredths, shown with two decimals: `-5` as `-0.05`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hundredths(pub i64);

impl fmt::Display for Hundredths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let value = self.0.unsigned_abs();
        write!(f, "{sign}{}.{:02}", value / 100, value % 100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(delays: &[i32]) -> String {
        let mut figures = Figures::NONE;
        delays.iter().for_each(|delay| figures.add(false, Some(*delay)));
        figures.mean_hundredths().map_or_else(String::new, |mean| Hundredths(mean).to_string())
    }

    #[test]
    fn halves_are_rounded_away_from_zero() {
        assert_eq!(mean(&[1, 0, 0, 0, 0, 0, 0, 0]), "0.13"); // 0.125
        assert_eq!(mean(&[-1, 0, 0, 0, 0, 0, 0, 0]), "-0.13");
        assert_eq!(mean(&[1, 0, 0]), "0.33");
        assert_eq!(mean(&[2, 0, 0]), "0.67");
        assert_eq!(mean(&[-3]), "-3.00");
        assert_eq!(mean(&[0]), "0.00");
    }

    #[test]
    fn what_rounds_to_zero_has_no_sign() {
        let mut figures = Figures::NONE;
        figures.add(false, Some(-1));
        (0..999).for_each(|_| figures.add(false, Some(0)));
        assert_eq!(
            figures.mean_hundredths().map(Hundredths).map(|mean| mean.to_string()).as_deref(),
            Some("0.00")
        );
    }

    #[test]
    fn rows_leave_out_what_is_unknown() {
        let mut figures = Figures::NONE;
        figures.add(true, None);
        assert_eq!(written(&figures), "1,1,0,,\n");
        figures.add(false, Some(-7));
        figures.add(false, Some(-8));
        assert_eq!(written(&figures), "3,1,2,-7.50,-7\n");
    }

    fn written(figures: &Figures) -> String {
        let mut bytes = [0; 100];
        let mut row = CsvRow::new(&mut bytes, b',');
        figures.write(&mut row);
        let (len, fields) = row.end().expect("it fits");
        assert_eq!(fields, Figures::COLUMNS.len());
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    }
}
