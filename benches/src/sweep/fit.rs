//! The cost model: time = records × a + bytes × b + trains × c + wake-ups × d, fitted to many runs. No state.
//!
//! Least squares of relative errors, so that a run of a millisecond says as much as one of a second. Always: no cost is
//! negative; one that would be is left out, and the rest is fitted again without it. Columns are scaled before they are
//! solved, because records and wake-ups differ by factors of millions.

use serde::Serialize;

/// Terms of the model.
pub const TERMS: usize = 4;
/// Their names.
pub const NAMES: [&str; TERMS] = ["record", "byte", "train", "wake-up"];

/// One run: how often each term happened, and how long it took in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Row {
    pub counts: [f64; TERMS],
    pub ns: f64,
}

/// What was fitted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Fit {
    /// Nanoseconds per record, byte, train and wake-up. Zero: the runs do not show it.
    pub costs: [f64; TERMS],
    /// Root of the mean squared relative error.
    pub residual: f64,
    /// The greatest relative error.
    pub worst: f64,
}

/// Fits them; `None` if there are fewer rows than terms, or the rows are all alike.
pub fn fit(rows: &[Row]) -> Option<Fit> {
    let usable: Vec<Row> = rows.iter().filter(|row| row.ns > 0.0).copied().collect();
    let mut used = [true; TERMS];
    for (term, used) in used.iter_mut().enumerate() {
        *used = usable.iter().any(|row| row.counts[term] > 0.0);
    }
    if usable.len() < TERMS {
        return None;
    }
    loop {
        let costs = solve(&usable, used)?;
        let least = (0..TERMS).min_by(|&a, &b| costs[a].total_cmp(&costs[b]))?;
        if costs[least] >= 0.0 {
            let errors: Vec<f64> = usable.iter().map(|row| (row.predict(&costs) - row.ns) / row.ns).collect();
            let squares: f64 = errors.iter().map(|error| error * error).sum();
            let worst = errors.iter().fold(0.0, |worst: f64, error| worst.max(error.abs()));
            return Some(Fit { costs, residual: (squares / errors.len() as f64).sqrt(), worst });
        }
        used[least] = false;
    }
}

impl Row {
    /// What the model says it takes.
    pub fn predict(&self, costs: &[f64; TERMS]) -> f64 {
        self.counts.iter().zip(costs).map(|(count, cost)| count * cost).sum()
    }
}

/// The normal equations of the used terms, by Gaussian elimination with pivots. Terms not used cost nothing.
fn solve(rows: &[Row], used: [bool; TERMS]) -> Option<[f64; TERMS]> {
    let terms: Vec<usize> = (0..TERMS).filter(|&term| used[term]).collect();
    let n = terms.len();
    // Each row divided by its time, each column by its length: all numbers are near one.
    let scale: Vec<f64> = terms
        .iter()
        .map(|&term| rows.iter().map(|row| (row.counts[term] / row.ns).powi(2)).sum::<f64>().sqrt())
        .collect();
    let mut matrix = vec![vec![0.0; n + 1]; n];
    for row in rows {
        let x: Vec<f64> =
            terms.iter().zip(&scale).map(|(&term, scale)| row.counts[term] / row.ns / scale).collect();
        for (line, &left) in matrix.iter_mut().zip(&x) {
            for (cell, right) in line.iter_mut().zip(x.iter().chain([&1.0])) {
                *cell += left * right;
            }
        }
    }
    for column in 0..n {
        let pivot =
            (column..n).max_by(|&a, &b| matrix[a][column].abs().total_cmp(&matrix[b][column].abs()))?;
        matrix.swap(column, pivot);
        if matrix[column][column].abs() < 1e-12 {
            return None; // two terms that cannot be told apart
        }
        let pivot = matrix[column].clone();
        for (_, line) in matrix.iter_mut().enumerate().filter(|(at, _)| *at != column) {
            let factor = line[column] / pivot[column];
            line.iter_mut().zip(&pivot).for_each(|(cell, pivot)| *cell -= factor * pivot);
        }
    }
    let mut costs = [0.0; TERMS];
    for (at, &term) in terms.iter().enumerate() {
        costs[term] = matrix[at][n] / matrix[at][at] / scale[at];
    }
    Some(costs)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs that obey the model exactly but for `noise`, alternately above and below.
    fn rows(costs: [f64; TERMS], noise: f64) -> Vec<Row> {
        let mut rows = Vec::new();
        for (at, bytes) in [16.0, 64.0, 100.0, 1_000.0, 16_000.0].into_iter().enumerate() {
            for (per_train, wakes) in [(20.0, 40.0), (200.0, 7.0), (2_000.0, 900.0)] {
                let records = 1e6 / bytes;
                let counts = [records, records * bytes, records / per_train, wakes];
                let row = Row { counts, ns: 1.0 };
                let sign = if (at + rows.len()) % 2 == 0 { 1.0 } else { -1.0 };
                rows.push(Row { ns: row.predict(&costs) * (1.0 + sign * noise), ..row });
            }
        }
        rows
    }

    #[test]
    fn costs_that_were_put_in_come_out() {
        let costs = [8.0, 0.25, 900.0, 12_000.0];
        let found = fit(&rows(costs, 0.0)).unwrap();
        for (found, cost) in found.costs.iter().zip(costs) {
            assert!((found / cost - 1.0).abs() < 1e-6, "{found} for {cost}");
        }
        assert!(found.worst < 1e-6);
    }

    #[test]
    fn noise_is_the_residual() {
        let costs = [8.0, 0.25, 900.0, 12_000.0];
        let found = fit(&rows(costs, 0.05)).unwrap();
        for (found, cost) in found.costs.iter().zip(costs) {
            assert!((found / cost - 1.0).abs() < 0.25, "{found} for {cost}");
        }
        assert!((0.005..0.08).contains(&found.residual), "{found:?}");
    }

    #[test]
    fn no_cost_is_negative() {
        let mut rows = rows([8.0, 0.25, 900.0, 0.0], 0.0);
        for row in &mut rows {
            row.ns -= row.counts[3].min(row.ns / 100.0); // more wake-ups, less time
        }
        let found = fit(&rows).unwrap();
        assert!(found.costs.iter().all(|&cost| cost >= 0.0), "{found:?}");
        assert!((found.costs[0] / 8.0 - 1.0).abs() < 0.1, "{found:?}");
    }

    #[test]
    fn what_never_happens_costs_nothing_and_too_little_says_nothing() {
        let mut without = rows([8.0, 0.25, 900.0, 0.0], 0.0);
        without.iter_mut().for_each(|row| row.counts[3] = 0.0);
        assert_eq!(fit(&without).unwrap().costs[3], 0.0);
        assert_eq!(fit(&without[..3]), None);
        let alike = Row { counts: [1.0, 2.0, 3.0, 4.0], ns: 5.0 };
        assert_eq!(fit(&[alike; 9]), None);
    }
}
