//! Figures: rounds of ratios, their median and spread, and the one table that is printed.

use std::fmt::Write;

/// One value a round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rounds(pub Vec<f64>);

impl Rounds {
    /// The middle value; the mean of the two middle ones where there are two.
    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// Round by round, this over that.
    pub(crate) fn over(&self, that: &Self) -> Self {
        Self(self.0.iter().zip(&that.0).map(|(a, b)| a / b).collect())
    }

    /// Round by round, the sum of this and that.
    pub(crate) fn plus(&self, that: &Self) -> Self {
        Self(self.0.iter().zip(&that.0).map(|(a, b)| a + b).collect())
    }

    fn least(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    fn most(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

/// Runs the sides one after the other, round by round; every other round the other way about, so that a
/// machine that grows slower favours nobody.
pub(crate) fn alternate(rounds: usize, sides: &mut [&mut dyn FnMut() -> f64]) -> Vec<Rounds> {
    let mut results = vec![Rounds(vec![f64::NAN; rounds]); sides.len()];
    for round in 0..rounds {
        let mut order: Vec<usize> = (0..sides.len()).collect();
        if round % 2 == 1 {
            order.reverse();
        }
        for side in order {
            results[side].0[round] = sides[side]();
        }
    }
    results
}

/// What a ratio is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// Shown for what it says; nothing was promised.
    None,
}

/// All figures so far.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: Vec<String>,
}

impl Table {
    /// Adds a figure: what was measured, against what, with their medians in words, and the ratio.
    pub(crate) fn add(
        &mut self,
        what: &str,
        measured: &str,
        against: &str,
        ratio: &Rounds,
        aim: Target,
    ) {
        let median = ratio.median();
        let (aim, verdict) = match aim {
            Target::AtMost(limit) => (format!("≤ {limit}"), judged(median <= limit)),
            Target::AtLeast(limit) => (format!("≥ {limit}"), judged(median >= limit)),
            Target::None => ("-".to_owned(), "-"),
        };
        let spread =
            format!("{} ({}..{})", digits(median), digits(ratio.least()), digits(ratio.most()));
        let line = format!("| {what} | {measured} | {against} | {spread} | {aim} | {verdict} |");
        super::note(&line);
        self.lines.push(line);
    }

    /// Says that a figure could not be taken.
    pub(crate) fn skip(&mut self, what: &str, why: &str) {
        super::note(&format!("{what}: skipped, {why}"));
        self.lines.push(format!("| {what} | skipped: {why} | - | - | - | - |"));
    }

    /// The table as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| what | measured | against | ratio: median (min..max) | target | |\n\
             |---|---|---|---|---|---|\n",
        );
        // Writing to a string cannot fail.
        self.lines.iter().for_each(|line| writeln!(text, "{line}").unwrap_or_default());
        text
    }
}

fn judged(met: bool) -> &'static str {
    if met { "met" } else { "**missed**" }
}

/// Three significant digits or so.
fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.4}"),
    }
}

/// Seconds as people say them.
pub(crate) fn time(seconds: f64) -> String {
    match seconds {
        s if s < 1e-6 => format!("{:.0} ns", s * 1e9),
        s if s < 1e-3 => format!("{:.1} µs", s * 1e6),
        s => format!("{:.2} ms", s * 1e3),
    }
}

/// A rate as people say it.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 10_000.0 {
        format!("{:.1}k/s", per_second / 1e3)
    } else {
        format!("{per_second:.0}/s")
    }
}
