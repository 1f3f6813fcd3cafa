//! The text that Prometheus reads, version 0.0.4: families of samples, with their kinds and help.

use super::histogram::Snapshot;
use std::fmt::{Display, Write};

/// What a family's numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Labels of one sample: names that we choose, values that may be anything.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page of metrics that is being written.
#[derive(Debug, Default)]
pub(crate) struct Page {
    text: String,
    family: String,
}

impl Page {
    /// Begins a family; its samples follow.
    pub(crate) fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        name.clone_into(&mut self.family);
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    /// A sample of the family.
    pub(crate) fn sample(&mut self, labels: Labels<'_>, value: impl Display) {
        self.series("", labels, None, value);
    }

    /// The samples of a histogram whose bounds are two to these powers, counted in `1/units`.
    ///
    /// One that holds nothing is left out: a model that nobody asks costs no lines.
    pub(crate) fn histogram(
        &mut self,
        labels: Labels<'_>,
        found: &Snapshot,
        powers: std::ops::RangeInclusive<u32>,
        units: f64,
    ) {
        if found.count == 0 {
            return;
        }
        for power in powers {
            let bound = (1_u64 << power) as f64 / units;
            self.series("_bucket", labels, Some(&bound), found.up_to(power));
        }
        self.series("_bucket", labels, Some(&"+Inf"), found.count);
        self.series("_sum", labels, None, found.sum as f64 / units);
        self.series("_count", labels, None, found.count);
    }

    /// The page.
    pub(crate) fn finish(self) -> String {
        self.text
    }

    fn series(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        bound: Option<&dyn Display>,
        value: impl Display,
    ) {
        self.text.push_str(&self.family);
        self.text.push_str(suffix);
        let mut before = '{';
        for (name, value) in labels {
            self.text.push(before);
            self.text.push_str(name);
            self.text.push_str("=\"");
            value.chars().for_each(|c| escape(&mut self.text, c));
            self.text.push('"');
            before = ',';
        }
        if let Some(bound) = bound {
            // Writing to a string cannot fail.
            let _ = write!(self.text, "{before}le=\"{bound}\"");
            before = ',';
        }
        self.text.push_str(if before == ',' { "} " } else { " " });
        self.line(format_args!("{value}"));
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        let _ = self.text.write_fmt(line);
        self.text.push('\n');
    }
}

fn escape(text: &mut String, c: char) {
    match c {
        '\\' => text.push_str("\\\\"),
        '"' => text.push_str("\\\""),
        '\n' => text.push_str("\\n"),
        c => text.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::super::histogram::Histogram;
    use super::*;

    #[test]
    fn families_samples_and_histograms_have_the_form_of_version_0_0_4() {
        let mut page = Page::default();
        page.family("nv_count", Kind::Counter, "Things");
        page.sample(&[("model", "a\"b\\c\nd"), ("version", "1")], 3);
        page.family("graftd_up", Kind::Gauge, "Up");
        page.sample(&[], 0.5);
        let histogram = Histogram::default();
        [1, 2, 9].into_iter().for_each(|rows| histogram.observe(rows));
        page.family("rows", Kind::Histogram, "Rows");
        page.histogram(&[], &histogram.snapshot(), 0..=2, 1.0);
        page.histogram(&[("m", "idle")], &Histogram::default().snapshot(), 0..=2, 1.0);
        page.family("s", Kind::Histogram, "Seconds");
        page.histogram(&[("m", "x")], &histogram.snapshot(), 13..=13, 1e9);
        let expected = r#"# HELP nv_count Things
# TYPE nv_count counter
nv_count{model="a\"b\\c\nd",version="1"} 3
# HELP graftd_up Up
# TYPE graftd_up gauge
graftd_up 0.5
# HELP rows Rows
# TYPE rows histogram
rows_bucket{le="1"} 1
rows_bucket{le="2"} 2
rows_bucket{le="4"} 2
rows_bucket{le="+Inf"} 3
rows_sum 12
rows_count 3
# HELP s Seconds
# TYPE s histogram
s_bucket{m="x",le="0.000008192"} 3
s_bucket{m="x",le="+Inf"} 3
s_sum{m="x"} 0.000000012
s_count{m="x"} 3
"#;
        let text = page.finish();
        assert_eq!(text, expected);
    }
}
