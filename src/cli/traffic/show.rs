//! A report as a table for terminals.

use crate::cli::table::Table;
use crate::traffic::report::{Report, Run, spread};
use std::io::{self, Write};

/// Writes a report as a table, in lines of `width` characters.
///
/// # Errors
/// When `out` takes no more.
pub fn report(out: &mut impl Write, report: &Report, width: Option<usize>) -> io::Result<()> {
    let seconds = report.runs.first().map_or(0.0, |run| run.span_s);
    writeln!(out, "{}; {} runs of {seconds} s\n", report.server, report.runs.len())?;
    table(report).write(out, width)?;
    writeln!(out, "\ntimes in milliseconds, from when a request was to be sent")?;
    let (share, target) = (100.0 * report.quantile, report.target_ms.unwrap_or_default());
    for (name, rate) in &report.highest_rates {
        let by = if name.is_empty() { String::new() } else { format!(", {name}") };
        writeln!(
            out,
            "highest rate with {share} % of answers within {target} ms{by}: {rate:.0}/s"
        )?;
    }
    report.doubts.iter().try_for_each(|doubt| writeln!(out, "mind: {doubt}"))
}

fn table(report: &Report) -> Table {
    let mut heads = vec!["RUN", "OFFERED/S", "ANSWERS/S", "ROWS/S"];
    if report.target_ms.is_some() {
        heads.extend(["ON TIME", "GOODPUT/S"]);
    }
    let worked = report.runs.iter().any(|run| run.busy.is_some());
    if worked {
        heads.extend(["BUSY", "WASTED"]);
    }
    heads.extend(["MEAN", "P50", "P90", "P99", "P99.9", "MAX"]);
    let mut table = Table::new(&heads);
    let row = |name: String, figure: &dyn Fn(fn(&Run) -> f64) -> f64| {
        let offered = figure(|run| run.offered_rate.unwrap_or(f64::NAN));
        let offered = if offered.is_nan() { "-".to_owned() } else { format!("{offered:.0}") };
        let rate = |of: fn(&Run) -> f64| format!("{:.0}", figure(of));
        let mut cells = vec![name, offered, rate(|run| run.rate), rate(|run| run.row_rate)];
        if report.target_ms.is_some() {
            cells.push(format!("{:.2} %", 100.0 * figure(|run| run.on_time)));
            cells.push(rate(|run| run.goodput));
        }
        if worked {
            let percent = |share: f64| format!("{:.2} %", 100.0 * share);
            cells.push(percent(figure(|run| run.busy.unwrap_or(0.0))));
            cells.push(percent(figure(|run| run.wasted.unwrap_or(0.0))));
        }
        let times: [fn(&Run) -> f64; 6] = [
            |run| run.mean_ms,
            |run| run.within(0.5).unwrap_or(0.0),
            |run| run.within(0.9).unwrap_or(0.0),
            |run| run.within(0.99).unwrap_or(0.0),
            |run| run.within(0.999).unwrap_or(0.0),
            |run| run.within(1.0).unwrap_or(0.0),
        ];
        cells.extend(times.map(|time| format!("{:.3}", figure(time))));
        cells
    };
    for name in report.names() {
        let runs: Vec<&Run> = report.runs.iter().filter(|run| run.name == name).collect();
        for (at, run) in runs.iter().enumerate() {
            let number = format!("{name} {}", at + 1);
            table.row(row(number.trim_start().to_owned(), &|of| of(run)));
        }
        if runs.len() > 1 {
            let median = |of: fn(&Run) -> f64| {
                let runs = runs.iter().map(|run| of(run));
                spread(runs).map_or(f64::NAN, |(median, ..)| median)
            };
            table.row(row(format!("{name} median").trim_start().to_owned(), &median));
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_from_top_to_bottom() {
        let run = |rate: f64| Run {
            offered_rate: Some(100.0),
            rate,
            on_time: 0.995,
            latency_ms: vec![(0.5, 1.25), (0.99, 4.0)],
            ..Run::default()
        };
        let found = Report {
            server: "graftd 1 over HTTP".to_owned(),
            target_ms: Some(5.0),
            quantile: 0.99,
            highest_rates: std::iter::once((String::new(), 100.0)).collect(),
            runs: vec![run(99.0), run(101.0), run(100.0)],
            doubts: vec!["the client was behind".to_owned()],
            ..Report::default()
        };
        let mut text = Vec::new();
        report(&mut text, &found, Some(120)).unwrap();
        let text = String::from_utf8(text).unwrap();
        for told in [
            "graftd 1 over HTTP; 3 runs",
            "median        100        100",
            "99.50 %",
            "1.250",
            "100/s",
            "mind: the client",
        ] {
            assert!(text.contains(told), "{told} in\n{text}");
        }
    }
}
