//! Percentile curves as an SVG file. Stateless; what comes from a job is escaped.

use super::{Curve, Range, time};

/// Width and height of the picture, and the margins around the curves: left, top, right, bottom.
const SIZE: (f64, f64) = (860.0, 520.0);
const MARGIN: [f64; 4] = [80.0, 50.0, 20.0, 50.0];
/// Lines across, with a time each.
const LINES: u32 = 6;
const COLOURS: [&str; 8] =
    ["#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f"];

/// The picture.
pub(super) fn picture(title: &str, curves: &[Curve], range: &Range) -> String {
    let ((width, height), [left, top, right, bottom]) = (SIZE, MARGIN);
    let (inner, tall) = (width - left - right, height - top - bottom);
    let place = |(x, y): (f64, f64)| (left + x * inner, top + (1.0 - y) * tall);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"{left}\" y=\"20\" font-size=\"14\">{}</text>\n",
        escaped(title)
    );
    for line in 0..=LINES {
        let share = f64::from(line) / f64::from(LINES);
        let (x, y) = place((0.0, share));
        let (to, label) = (x + inner, time(range.at(share)));
        svg.push_str(&format!(
            "<line x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{to:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>\n",
            x - 6.0,
            y + 4.0
        ));
    }
    for (name, share) in range.ticks() {
        let (x, y) = place((share, 0.0));
        svg.push_str(&format!(
            "<line x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{y:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{name} %</text>\n",
            y + 20.0
        ));
    }
    for (at, curve) in curves.iter().enumerate() {
        let colour = COLOURS[at % COLOURS.len()];
        let places = curve.points.iter().map(|point| place(range.place(*point)));
        let points: Vec<String> = places.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        svg.push_str(&format!(
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" points=\"{}\"/>\n\
             <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\">{}</text>\n",
            points.join(" "),
            left + 10.0,
            top + 16.0 * (at + 1) as f64,
            escaped(&curve.name)
        ));
    }
    svg + "</svg>\n"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
