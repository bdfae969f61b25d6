//! `latency`: where the time between the tasks of a job goes, as a table and as percentile curves.
//!
//! Owner of the state: nobody; the JobManager has the histograms, this draws them.
//!
//! Always: a curve is that of the whole way, from the birth of the oldest record to its consumer; the axis of percentiles is
//! drawn by how rare they are, so each step to the right is ten times rarer. `CURVES_MAX` curves are drawn, all are listed.

mod svg;

use serde_json::Value;

use super::args::LatencyArgs;
use super::client::Client;
use super::exit::{Exit, Failure};
use super::format::{columns, grouped};
use super::inspect::job_id;
use super::out;

/// Curves in one picture: letters name them.
const CURVES_MAX: usize = 26;
/// Columns and lines of the picture in a terminal.
const PLOT: (usize, usize) = (72, 16);
/// How rare a percentile is drawn at most: one in 10^6.
const RARE_MAX: f64 = 6.0;

/// One edge's way.
struct Curve {
    letter: char,
    name: String,
    /// How rare, as a power of ten; nanoseconds.
    points: Vec<(f64, f64)>,
}

/// What a picture shows.
struct Range {
    rare: f64,
    /// Powers of ten of nanoseconds.
    low: f64,
    high: f64,
}

/// `latency`.
pub(super) fn latency(args: &LatencyArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client.jobmanager)?;
    let id = job_id(&client, args.job.as_deref(), |_| true)?;
    let answer = client.get(&format!("/jobs/{id}/latency"))?;
    let curves = curves(&answer);
    if let Some(path) = &args.svg {
        std::fs::write(path, svg::picture(&title(&answer), &curves, &range(&curves))).map_err(|error| {
            Failure::new(Exit::Io, format!("--svg: cannot write {}: {error}", path.display()))
        })?;
    }
    if args.client.json {
        return out::answer(answer);
    }
    let edges = list(&answer["edges"]);
    if edges.is_empty() {
        return out::answer(format_args!(
            "{}\nno latencies yet: they come about a second after the first records",
            title(&answer)
        ));
    }
    let mut text = format!("{}\n\n", title(&answer));
    if !curves.is_empty() {
        text.push_str(&plot(&curves, &range(&curves)));
        text.push('\n');
    }
    text.push_str(&columns(&table(edges)));
    out::answer(text.trim_end())
}

fn title(answer: &Value) -> String {
    let text = |name: &str| answer[name].as_str().unwrap_or("?").to_owned();
    format!("{}  {}  attempt {}", text("jid"), text("name"), answer["attempt"])
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn letter(at: usize) -> Option<char> {
    (at < CURVES_MAX).then(|| char::from(b'a' + at as u8))
}

fn table(edges: &[Value]) -> Vec<[String; 9]> {
    let head = ["", "EDGE", "STAGE", "TRAINS", "P50", "P90", "P99", "P99.9", "MAX"];
    let mut rows = vec![head.map(str::to_owned)];
    for (at, edge) in edges.iter().enumerate() {
        for (place, stage) in ["total", "send", "credit", "wire", "queue"].iter().enumerate() {
            let found = &edge["stages"][*stage];
            if found.is_null() {
                continue;
            }
            let (letter, name) = match place {
                0 => (letter(at).map(String::from).unwrap_or_default(), edge["name"].as_str().unwrap_or("?")),
                _ => (String::new(), ""),
            };
            let ns = |name: &str| time(found[name].as_f64().unwrap_or(0.0));
            rows.push([
                letter,
                name.to_owned(),
                (*stage).to_owned(),
                grouped(found["count"].as_u64().unwrap_or(0)),
                ns("p50"),
                ns("p90"),
                ns("p99"),
                ns("p999"),
                ns("max"),
            ]);
        }
    }
    rows
}

/// Nanoseconds, with three digits.
fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ..1e3 => return format!("{ns:.0} ns"),
        ..1e6 => (ns / 1e3, "us"),
        ..1e9 => (ns / 1e6, "ms"),
        _ => (ns / 1e9, "s"),
    };
    let digits = if value < 10.0 { 2 } else { usize::from(value < 100.0) };
    format!("{value:.digits$} {unit}")
}

fn curves(answer: &Value) -> Vec<Curve> {
    let edges = list(&answer["edges"]).iter().enumerate();
    let curves = edges.filter_map(|(at, edge)| {
        let point = |point: &Value| {
            let (percentile, ns) = (point[0].as_f64()?, point[1].as_f64()?);
            let rare = -(1.0 - percentile / 100.0).max(10f64.powf(-RARE_MAX)).log10();
            Some((rare.max(0.0), ns.max(1.0)))
        };
        let points: Vec<_> = list(&edge["curve"]).iter().filter_map(point).collect();
        let name = edge["name"].as_str().unwrap_or("?").to_owned();
        (!points.is_empty()).then_some(Curve { letter: letter(at)?, name, points })
    });
    curves.collect()
}

/// What all curves need; the last point of each is its maximum, which is as rare as one in all.
fn range(curves: &[Curve]) -> Range {
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let rare = points().map(|(rare, _)| *rare).filter(|rare| *rare < RARE_MAX).fold(1.0, f64::max);
    let low = points().map(|(_, ns)| ns.log10()).fold(f64::INFINITY, f64::min);
    let high = points().map(|(_, ns)| ns.log10()).fold(0.0, f64::max);
    Range { rare: rare.ceil(), low: low.min(high - 0.1), high }
}

impl Range {
    /// Where a point lies, from 0 to 1, left to right and bottom to top.
    fn place(&self, (rare, ns): (f64, f64)) -> (f64, f64) {
        ((rare / self.rare).min(1.0), (ns.log10() - self.low) / (self.high - self.low))
    }

    /// Nanoseconds at a height.
    fn at(&self, height: f64) -> f64 {
        10f64.powf(self.low + height * (self.high - self.low))
    }

    /// The percentiles that have a tick, and where.
    fn ticks(&self) -> Vec<(String, f64)> {
        let names = ["0", "90", "99", "99.9", "99.99", "99.999", "99.9999"];
        let whole = 0..=self.rare as usize;
        whole.filter_map(|at| Some(((*names.get(at)?).to_owned(), at as f64 / self.rare))).collect()
    }
}

/// The picture for a terminal.
fn plot(curves: &[Curve], range: &Range) -> String {
    let (width, height) = PLOT;
    let mut cells = vec![vec![' '; width + 1]; height];
    for curve in curves {
        let places: Vec<_> = curve.points.iter().map(|point| range.place(*point)).collect();
        for (column, x) in (0..=width).map(|column| (column, column as f64 / width as f64)) {
            // A percentile lasts until the next one.
            let Some((_, y)) = places.iter().find(|(at, _)| *at >= x) else { continue };
            let line = ((1.0 - y) * (height - 1) as f64).round() as usize;
            cells[line.min(height - 1)][column] = curve.letter;
        }
    }
    let mut text = String::new();
    for (line, cells) in cells.iter().enumerate() {
        let ns = range.at(1.0 - line as f64 / (height - 1) as f64);
        let cells: String = cells.iter().collect();
        text.push_str(&format!("{:>8} |{}\n", time(ns), cells.trim_end()));
    }
    let mut axis = vec![' '; width + 8];
    for (name, x) in range.ticks() {
        let from = ((x * width as f64) as usize).min(axis.len() - name.len());
        axis[from..from + name.len()].iter_mut().zip(name.chars()).for_each(|(cell, letter)| *cell = letter);
    }
    let axis: String = axis.into_iter().collect();
    text.push_str(&format!("{:>8} +{}\n{:>10}{} %\n", "", "-".repeat(width), "", axis.trim_end()));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer() -> Value {
        json!({
            "jid": "ab", "name": "sums", "attempt": 1,
            "edges": [{
                "name": "a -> b<c>",
                "curve": [[0.0, 1_000], [50.0, 10_000], [99.0, 100_000], [100.0, 1_000_000]],
                "stages": { "total": { "count": 4_000, "p50": 10_000, "max": 1_000_000 }, "queue": { "count": 4 } },
            }],
        })
    }

    #[test]
    fn a_curve_rises_to_the_right() {
        let curves = curves(&answer());
        let picture = plot(&curves, &range(&curves));
        let lines: Vec<&str> = picture.lines().collect();
        assert_eq!(lines.len(), PLOT.1 + 2, "{picture}");
        assert!(lines[0].starts_with(" 1.00 ms |") && lines[0].ends_with('a'), "{picture}");
        assert!(lines[PLOT.1 - 1].starts_with(" 1.00 us |a"), "{picture}");
        assert!(lines[PLOT.1 + 1].contains("0   ") && lines[PLOT.1 + 1].ends_with("99 %"), "{picture}");
        let rows = table(list(&answer()["edges"]));
        assert_eq!(rows[1][..5], ["a", "a -> b<c>", "total", "4,000", "10.0 us"].map(str::to_owned));
        assert_eq!(rows[2][..4], ["", "", "queue", "4"].map(str::to_owned));
    }

    #[test]
    fn the_picture_in_a_file_is_whole_and_names_are_escaped() {
        let curves = curves(&answer());
        let svg = svg::picture("a & b", &curves, &range(&curves));
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
        assert!(
            svg.contains("a -&gt; b&lt;c&gt;") && svg.contains("a &amp; b") && svg.contains("<polyline"),
            "{svg}"
        );
    }

    #[test]
    fn nothing_known_and_nonsense_are_no_panic() {
        for answer in [json!({}), json!({ "edges": [{ "curve": [[null], 3, [100, 0]] }] }), json!([1])] {
            let curves = curves(&answer);
            plot(&curves, &range(&curves));
            svg::picture("", &curves, &range(&curves));
            table(list(&answer["edges"]));
        }
        let one = |ns: u64| json!({ "edges": [{ "curve": [[100.0, ns]] }] });
        for ns in [0, 1, u64::MAX] {
            let curves = curves(&one(ns));
            plot(&curves, &range(&curves));
        }
    }

    #[test]
    fn times_have_three_digits() {
        let times = [0.0, 999.0, 1_000.0, 12_345.0, 123_456.0, 7.9e6, 2e9].map(time);
        assert_eq!(times, ["0 ns", "999 ns", "1.00 us", "12.3 us", "123 us", "7.90 ms", "2.00 s"]);
    }
}
