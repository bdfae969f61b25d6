//! A chart of a few lines as SVG: two logarithmic axes with units, points with their spread, a legend. No state.
//!
//! Always: values that a logarithmic axis cannot show are left out; text is escaped; what is written stands alone.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 440.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 24.0;
const TOP: f64 = 64.0;
const BOTTOM: f64 = 62.0;
/// Width of a letter, about.
const LETTER: f64 = 7.2;
/// Colours that people with any eyes tell apart.
const COLOURS: [&str; 4] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7"];

/// A point: its place, the median, the least and the greatest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f64,
    pub y: [f64; 3],
}

/// A line.
#[derive(Debug, Clone)]
pub struct Line {
    pub name: String,
    pub points: Vec<Point>,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    pub title: String,
    pub x: String,
    pub y: String,
    /// Places on the x axis that have a name, in order. Names that would overlap are left out.
    pub ticks: Vec<(f64, String)>,
    pub lines: Vec<Line>,
}

/// A logarithmic axis from `least` to `most`, drawn from `from` to `to`.
struct Axis {
    least: f64,
    most: f64,
    from: f64,
    to: f64,
}

impl Axis {
    /// Wide enough for `values` and a little more; at least from a number to its double.
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Option<Self> {
        let (least, most) =
            values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        (most > 0.0 && least.is_finite()).then(|| {
            let (least, most) = if most < 2.0 * least { (least / 1.5, most * 1.5) } else { (least, most) };
            let margin = (most / least).powf(0.06);
            Self { least: least / margin, most: most * margin, from, to }
        })
    }

    fn at(&self, value: f64) -> f64 {
        let part = (value / self.least).ln() / (self.most / self.least).ln();
        self.from + part * (self.to - self.from)
    }

    /// Round numbers: powers of ten, and between them as many as stay readable.
    fn ticks(&self) -> Vec<f64> {
        let decades = (self.most / self.least).log10();
        let steps: &[f64] = match decades {
            ..1.5 => &[1.0, 2.0, 3.0, 5.0, 7.0],
            ..3.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0],
        };
        let (first, last) = (self.least.log10().floor() as i32, self.most.log10().ceil() as i32);
        let all = (first..=last).flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
        all.filter(|tick| (self.least..=self.most).contains(tick)).collect()
    }
}

impl Chart {
    /// As SVG; `None` if there is nothing to show.
    pub fn svg(&self) -> Option<String> {
        let shown = |point: &&Point| point.x > 0.0 && point.y.iter().all(|&y| y > 0.0 && y.is_finite());
        let points = || self.lines.iter().flat_map(|line| &line.points).filter(shown);
        let x = Axis::over(points().map(|point| point.x), LEFT, WIDTH - RIGHT)?;
        let y = Axis::over(points().flat_map(|point| point.y), HEIGHT - BOTTOM, TOP)?;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
        );
        text(&mut svg, LEFT, 24.0, "start", "font-size=\"16\"", &self.title);
        let mut free = 0.0;
        for (value, label) in &self.ticks {
            let at = x.at(*value);
            rule(&mut svg, [at, TOP, at, HEIGHT - BOTTOM]);
            let half = LETTER / 2.0 * label.chars().count() as f64;
            if at - half > free {
                text(&mut svg, at, HEIGHT - BOTTOM + 18.0, "middle", "", label);
                free = at + half + LETTER;
            }
        }
        for tick in y.ticks() {
            let at = y.at(tick);
            rule(&mut svg, [LEFT, at, WIDTH - RIGHT, at]);
            text(&mut svg, LEFT - 8.0, at + 4.5, "end", "", &number(tick));
        }
        let (middle, bottom) = (f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - BOTTOM);
        text(&mut svg, middle, HEIGHT - 18.0, "middle", "", &self.x);
        let turned = format!("transform=\"rotate(-90 18 {0})\"", f64::midpoint(TOP, bottom));
        text(&mut svg, 18.0, f64::midpoint(TOP, bottom), "middle", &turned, &self.y);
        let _ = writeln!(
            svg,
            "<path d=\"M{LEFT} {TOP}V{bottom}H{}\" fill=\"none\" stroke=\"#222\"/>",
            WIDTH - RIGHT
        );
        let mut legend = LEFT;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let mut path = String::new();
            for point in line.points.iter().filter(shown) {
                let (px, [py, low, high]) = (x.at(point.x), point.y.map(|value| y.at(value)));
                let _ = write!(path, "{}{px:.1} {py:.1}", if path.is_empty() { 'M' } else { 'L' });
                let _ = writeln!(
                    svg,
                    "<path d=\"M{px:.1} {low:.1}V{high:.1}\" stroke=\"{colour}\"/><circle cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"3.5\" \
                     fill=\"{colour}\"/>"
                );
            }
            let _ =
                writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>");
            let _ =
                writeln!(svg, "<rect x=\"{legend}\" y=\"38\" width=\"14\" height=\"10\" fill=\"{colour}\"/>");
            text(&mut svg, legend + 20.0, 48.0, "start", "", &line.name);
            legend += 44.0 + LETTER * line.name.chars().count() as f64;
        }
        svg.push_str("</svg>\n");
        Some(svg)
    }
}

// Writing to a string cannot fail.
fn rule(svg: &mut String, [x1, y1, x2, y2]: [f64; 4]) {
    let _ = writeln!(svg, "<path d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\" stroke=\"#ddd\"/>");
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, more: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>");
}

/// A number as short as it can be read: 0.5, 20, 4 k, 1 M.
pub fn number(value: f64) -> String {
    let (scaled, unit) = match value {
        1e9.. => (value / 1e9, " G"),
        1e6.. => (value / 1e6, " M"),
        1e3.. => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[(f64, f64)]) -> Chart {
        let points = values.iter().map(|&(x, y)| Point { x, y: [y, y * 0.9, y * 1.1] }).collect();
        Chart {
            title: "A & B < C".to_owned(),
            x: "bytes".to_owned(),
            y: "records/s".to_owned(),
            ticks: values.iter().map(|&(x, _)| (x, number(x))).filter(|(x, _)| *x > 0.0).collect(),
            lines: vec![Line { name: "rate".to_owned(), points }],
        }
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let axis = Axis::over([10.0, 1_000.0].into_iter(), 0.0, 100.0).unwrap();
        assert!((axis.at(100.0) - 50.0).abs() < 1e-9, "half way on a logarithmic axis");
        assert_eq!(axis.ticks(), [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0]);
        let svg = chart(&[(16.0, 5e7), (100.0, 2e7), (0.0, 1.0)]).svg().unwrap();
        assert_eq!(svg.matches("<circle").count(), 2, "what a logarithm cannot show is left out");
        assert!(
            svg.contains("A &amp; B &lt; C") && svg.contains(">50 M<") && svg.ends_with("</svg>\n"),
            "{svg}"
        );
    }

    #[test]
    fn one_point_is_a_chart_and_none_is_not() {
        assert!(chart(&[(1.0, 7.0)]).svg().is_some());
        assert_eq!(chart(&[]).svg(), None);
        assert_eq!(chart(&[(1.0, f64::NAN)]).svg(), None);
    }

    #[test]
    fn numbers_are_short() {
        let texts = [0.5, 20.0, 4_000.0, 1e6, 2.5e9].map(number);
        assert_eq!(texts, ["0.5", "20", "4 k", "1 M", "2.5 G"]);
    }
}
