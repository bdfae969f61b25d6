//! The answer of the demo: the routes with the highest mean arrival delay, read from the committed part files.
//!
//! Owner of the state: nobody; everything here is a function of the files.
//!
//! Always true: means are compared as hundredths in integers, ties go by airport code, so the table never depends on the
//! order of files, threads or runs.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

use crate::jobs::Hundredths;

/// One row of `routes/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    /// Airport code of the origin.
    pub origin: String,
    /// Airport code of the destination.
    pub dest: String,
    /// All flights.
    pub flights: u64,
    /// Flights that never left.
    pub cancelled: u64,
    /// Flights with a known arrival delay.
    pub arrivals: u64,
    /// Mean arrival delay in hundredths of a minute; `None` without a known arrival.
    pub mean_hundredths: Option<i64>,
    /// Highest arrival delay in minutes.
    pub max: Option<i64>,
}

impl Route {
    /// For programs.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "origin": self.origin,
            "dest": self.dest,
            "flights": self.flights,
            "cancelled": self.cancelled,
            "arrivals": self.arrivals,
            "mean_delay": self.mean_hundredths.map(|mean| Hundredths(mean).to_string()),
            "max_delay": self.max,
        })
    }
}

/// Reads every committed part file of `directory`. Hidden files and directories are not part of the output.
pub(crate) fn read_routes(directory: &Path) -> io::Result<Vec<Route>> {
    let mut routes = Vec::new();
    for path in part_files(directory)? {
        let text = std::fs::read_to_string(&path)?;
        for (number, line) in text.lines().enumerate().skip(1) {
            let route = parse_route(line).ok_or_else(|| {
                let message = format!("{}:{}: not a row of routes: {line:?}", path.display(), number + 1);
                io::Error::new(io::ErrorKind::InvalidData, message)
            })?;
            routes.push(route);
        }
    }
    Ok(routes)
}

/// The `part-*` files of a directory, in the order of their names.
pub(crate) fn part_files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("part-") {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

fn parse_route(line: &str) -> Option<Route> {
    let fields: [&str; 7] = line.split(',').collect::<Vec<_>>().try_into().ok()?;
    let [origin, dest, flights, cancelled, arrivals, mean, max] = fields;
    Some(Route {
        origin: origin.to_owned(),
        dest: dest.to_owned(),
        flights: flights.parse().ok()?,
        cancelled: cancelled.parse().ok()?,
        arrivals: arrivals.parse().ok()?,
        mean_hundredths: optional(mean, parse_hundredths)?,
        max: optional(max, |text| text.parse().ok())?,
    })
}

/// `Some(None)` for an empty field, `None` for one that does not parse.
fn optional<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() { Some(None) } else { parse(text).map(Some) }
}

/// `-12.34` as `-1234`.
fn parse_hundredths(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let (whole, fraction) = digits.split_once('.')?;
    if fraction.len() != 2 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(sign * (whole.parse::<i64>().ok()? * 100 + fraction.parse::<i64>().ok()?))
}

/// The `count` routes with the highest mean among those with at least `arrivals_min` known arrivals, worst first.
pub(crate) fn worst(mut routes: Vec<Route>, arrivals_min: u64, count: usize) -> Vec<Route> {
    routes.retain(|route| route.arrivals >= arrivals_min && route.mean_hundredths.is_some());
    routes.sort_by(|a, b| {
        let by_mean = b.mean_hundredths.cmp(&a.mean_hundredths);
        by_mean.then_with(|| (&a.origin, &a.dest).cmp(&(&b.origin, &b.dest)))
    });
    routes.truncate(count);
    routes
}

/// Names by airport code, from a CSV file whose first two columns are code and name.
pub(crate) fn airport_names(csv: &str) -> HashMap<String, String> {
    let rows = csv.lines().skip(1);
    rows.filter_map(|line| {
        let (code, rest) = line.split_once(',')?;
        let name = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next()?,
            None => rest.split(',').next()?,
        };
        Some((code.to_owned(), name.to_owned()))
    })
    .collect()
}

/// The table for people.
pub(crate) fn table(routes: &[Route], names: &HashMap<String, String>) -> String {
    let airport = |code: &str| match names.get(code) {
        Some(name) => format!("{code} {name}"),
        None => code.to_owned(),
    };
    let mut rows = vec![["from", "to", "flights", "cancelled", "arrivals", "mean", "max"].map(str::to_owned)];
    for route in routes {
        rows.push([
            airport(&route.origin),
            airport(&route.dest),
            route.flights.to_string(),
            route.cancelled.to_string(),
            route.arrivals.to_string(),
            route.mean_hundredths.map_or_else(String::new, |mean| Hundredths(mean).to_string()),
            route.max.map_or_else(String::new, |max| max.to_string()),
        ]);
    }
    let mut widths = [0; 7];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(widths).enumerate() {
            // Names to the left, figures to the right.
            let _ =
                if column < 2 { write!(line, "{cell:<width$}  ") } else { write!(line, "{cell:>width$}  ") };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(origin: &str, mean: &str, arrivals: u64) -> Route {
        parse_route(&format!("{origin},XXX,{arrivals},0,{arrivals},{mean},9")).expect("a row")
    }

    #[test]
    fn means_are_read_to_the_last_digit() {
        assert_eq!(parse_hundredths("12.34"), Some(1234));
        assert_eq!(parse_hundredths("-0.05"), Some(-5));
        assert_eq!(parse_hundredths("0.50"), Some(50));
        assert_eq!(parse_hundredths("1.5"), None);
        assert_eq!(parse_hundredths("1"), None);
        assert_eq!(parse_hundredths("1.+5"), None);
    }

    #[test]
    fn the_worst_come_first_and_ties_go_by_code() {
        let routes = vec![
            route("CCC", "2.00", 300),
            route("AAA", "2.00", 300),
            route("BBB", "3.00", 299),
            route("DDD", "2.01", 300),
        ];
        let codes: Vec<String> = worst(routes, 300, 2).into_iter().map(|route| route.origin).collect();
        assert_eq!(codes, ["DDD", "AAA"]);
    }

    #[test]
    fn a_route_without_arrivals_has_no_mean() {
        let route = parse_route("EWR,XXX,2,2,0,,").expect("a row");
        assert_eq!((route.mean_hundredths, route.max), (None, None));
        assert!(worst(vec![route], 0, 10).is_empty());
    }

    #[test]
    fn the_table_lines_up() {
        let names = airport_names("faa,name,lat\nAAA,Alpha Field,1.0\nBBB,\"Bravo, The\",2.0\n");
        let text = table(&[route("AAA", "12.34", 300), route("BBB", "2.00", 4000)], &names);
        let expected = "\
from            to   flights  cancelled  arrivals   mean  max
AAA Alpha Field XXX      300          0       300  12.34    9
";
        // Columns are two spaces apart; compare cell by cell, the layout by its line lengths.
        let cells = |text: &str| {
            text.lines()
                .map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
                .collect::<Vec<_>>()
        };
        assert_eq!(cells(&text)[..2], cells(expected)[..]);
        assert!(text.contains("BBB Bravo, The"));
        let ends: Vec<usize> = text.lines().map(str::len).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "{text}");
    }
}
