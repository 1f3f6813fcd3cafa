//! Plots as SVG text: lines or dots over two axes. Colours are classes that the page around them defines.

use std::fmt::Write;

/// The size of a plot.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 300.0;
/// What is left free around the lines.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;

/// How values lie along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// By their size, from zero.
    Linear,
    /// By their decimal logarithm.
    Log,
    /// Shares by how few are left of all: 0.9, 0.99 and 0.999 are as far apart.
    Tail,
}

/// The closest to all that a share is drawn.
const TAIL_MAX: f64 = 0.9999;

impl Scale {
    /// Where a value lies, in the scale's own measure.
    fn of(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.max(1e-6).log10(),
            Self::Tail => -(1.0 - value.min(TAIL_MAX)).log10(),
        }
    }

    /// From where to where the axis goes, and the values that are named on it.
    fn ticks(self, values: impl Iterator<Item = f64> + Clone) -> ((f64, f64), Vec<f64>) {
        let most = values.clone().fold(0.0, f64::max);
        match self {
            Self::Linear => {
                let most = if most > 0.0 { most } else { 1.0 };
                let power = 10_f64.powf((most / 4.0).log10().floor());
                let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * power);
                let step = steps.into_iter().find(|step| most / step <= 5.0).unwrap_or(most);
                let count = (most / step).ceil();
                let ticks = (0..=count as u32).map(|at| f64::from(at) * step).collect();
                ((0.0, count * step), ticks)
            }
            Self::Log => {
                let least = values.filter(|&value| value > 0.0).fold(f64::INFINITY, f64::min);
                let least = if least.is_finite() { least } else { 1.0 };
                let (low, high) = (least.log10().floor(), most.max(least).log10().ceil());
                let high = if high > low { high } else { low + 1.0 };
                let decades = (high - low) as i32;
                let ticks = (0..=decades).map(|at| 10_f64.powf(low + f64::from(at))).collect();
                ((low, high), ticks)
            }
            Self::Tail => {
                let ticks = vec![0.0, 0.5, 0.9, 0.99, 0.999, TAIL_MAX];
                ((0.0, self.of(TAIL_MAX)), ticks)
            }
        }
    }
}

/// An axis.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// What it measures, with its unit.
    pub label: &'static str,
    /// How values lie along it.
    pub scale: Scale,
}

/// Points that belong together.
#[derive(Clone, Debug)]
pub struct Series {
    /// What they are.
    pub name: String,
    /// The points, from left to right.
    pub points: Vec<(f64, f64)>,
    /// They are no course: dots without a line.
    pub dots: bool,
}

/// A plot.
#[derive(Clone, Debug)]
pub struct Plot {
    /// The axis to the right.
    pub x: Axis,
    /// The axis upward.
    pub y: Axis,
    /// What is drawn; the first four have colours of their own.
    pub series: Vec<Series>,
    /// A height that is to be seen, and what it is.
    pub mark: Option<(f64, String)>,
}

impl Plot {
    /// The plot as an element of a page.
    #[must_use]
    pub fn svg(&self) -> String {
        let points = self.series.iter().flat_map(|series| &series.points);
        let marked = self.mark.iter().map(|&(height, _)| height);
        let (across, x_ticks) = self.x.scale.ticks(points.clone().map(|point| point.0));
        let heights = points.map(|point| point.1).chain(marked);
        let (up, y_ticks) = self.y.scale.ticks(heights);
        let place = |scale: Scale, value: f64, (from, to): (f64, f64)| {
            ((scale.of(value) - from) / (to - from)).clamp(0.0, 1.0)
        };
        let x = |value| LEFT + place(self.x.scale, value, across) * (WIDTH - LEFT - RIGHT);
        let y = |value| HEIGHT - BOTTOM - place(self.y.scale, value, up) * (HEIGHT - TOP - BOTTOM);
        let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">");
        let mut add = |text: String| svg.push_str(&text);
        for tick in y_ticks {
            let (at, right) = (y(tick), WIDTH - RIGHT);
            add(format!(
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            ));
            add(text(LEFT - 8.0, at + 4.0, "end", &number(tick)));
        }
        for tick in x_ticks {
            add(text(x(tick), HEIGHT - BOTTOM + 18.0, "middle", &number(tick)));
        }
        add(text(f64::midpoint(LEFT, WIDTH - RIGHT), HEIGHT - 6.0, "middle", self.x.label));
        if let Some((height, what)) = &self.mark {
            let (at, right) = (y(*height), WIDTH - RIGHT);
            add(format!(
                "<line class=\"mark\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>"
            ));
            add(text(right, at - 5.0, "end", what));
        }
        for (number, series) in self.series.iter().enumerate() {
            add(series.svg(number % 4, &x, &y));
        }
        svg.push_str("</svg>");
        svg
    }
}

impl Series {
    fn svg(&self, colour: usize, x: &impl Fn(f64) -> f64, y: &impl Fn(f64) -> f64) -> String {
        let mut svg = String::new();
        if !self.dots {
            let points = self.points.iter().map(|&(a, b)| format!("{:.1},{:.1}", x(a), y(b)));
            let points = points.collect::<Vec<_>>().join(" ");
            svg.push_str(&format!("<polyline class=\"line c{colour}\" points=\"{points}\"/>"));
        }
        let radius = if self.dots { 4 } else { 3 };
        let shown = if self.dots { "dot" } else { "dot faint" };
        for &(a, b) in &self.points {
            // What a point says when one points at it.
            let told = format!("{}: {} at {}", escaped(&self.name), number(b), number(a));
            let (left, top) = (x(a), y(b));
            // Writing to a string cannot fail.
            let _ = write!(
                svg,
                "<circle class=\"{shown} c{colour}\" cx=\"{left:.1}\" cy=\"{top:.1}\" r=\"{radius}\"><title>{told}</title></circle>"
            );
        }
        svg
    }
}

fn text(x: f64, y: f64, anchor: &str, what: &str) -> String {
    let what = escaped(what);
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{what}</text>")
}

/// A number as short as it can be read.
#[must_use]
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size >= 100_000.0 => format!("{:.0}k", value / 1e3),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 && value.fract().abs() < 1e-9 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.1}"),
        _ => format!("{value:.4}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

/// A text that means nothing to a page but itself.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(scale: Scale, points: Vec<(f64, f64)>) -> String {
        let name = "<b>".to_owned();
        let axis = |scale| Axis { label: "ms", scale };
        let series = vec![Series { name, points, dots: false }];
        let mark = Some((7.0, "target".to_owned()));
        Plot { x: axis(scale), y: axis(Scale::Log), series, mark }.svg()
    }

    #[test]
    fn any_points_make_a_plot_without_what_is_no_number() {
        let tables = [
            vec![],
            vec![(0.0, 0.0)],
            vec![(1.0, 5.0), (2.0, 0.0), (3.0, 1e9)],
            vec![(0.5, 0.1), (1.0, 0.1)],
        ];
        for points in tables {
            for scale in [Scale::Linear, Scale::Log, Scale::Tail] {
                let svg = plot(scale, points.clone());
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{points:?}: {svg}");
                assert!(!svg.contains("<b>"), "names are no markup");
            }
        }
    }

    #[test]
    fn ticks_are_round_and_hold_all_values() {
        let ((low, high), ticks) = Scale::Linear.ticks([870.0, 3.0].into_iter());
        assert_eq!((low, high), (0.0, 1_000.0));
        assert_eq!(ticks, [0.0, 200.0, 400.0, 600.0, 800.0, 1_000.0]);
        let ((low, high), ticks) = Scale::Log.ticks([0.3, 42.0].into_iter());
        assert_eq!((low, high, ticks.len()), (-1.0, 2.0, 4));
        let shown = [0.1, 1.0, 2.5, 1234.0, 250_000.0, 0.9999].map(number);
        assert_eq!(shown, ["0.1", "1", "2.5", "1234", "250k", "0.9999"]);
    }
}
