//! A report as one page that needs nothing else: figures, latency by quantile, throughput against latency, over time.

use super::plot::{Axis, Plot, Scale, Series, escaped, number};
use super::report::{Report, Run, spread};

/// Colours for light and dark, which the plots name by class.
const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1f2328;--soft:#59636e;--grid:#d8dee4;--page:#fff;\
--c0:#2563a8;--c1:#b4531f;--c2:#2f7d4f;--c3:#7a4fa3}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e8ea;--soft:#9aa4ae;--grid:#363c44;--page:#15181c;\
--c0:#6ea8e8;--c1:#e8925c;--c2:#69bf8a;--c3:#b794dd}}\
body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:780px;\
margin:2rem auto;padding:0 1rem}h1{font-size:1.4rem}h2{font-size:1.05rem;margin:2rem 0 .3rem}\
code{font-size:.9em;overflow-wrap:anywhere}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:.25rem .5rem;border-bottom:1px solid var(--grid)}th{color:var(--soft);font-weight:500}\
th:first-child,td:first-child{text-align:left}.wide{overflow-x:auto}svg{width:100%;height:auto}\
svg text{font-size:12px;fill:var(--soft)}.grid{stroke:var(--grid)}.mark{stroke:var(--soft);stroke-dasharray:4 4}\
.line{fill:none;stroke-width:2}.faint{opacity:0}.faint:hover{opacity:1}\
.c0{stroke:var(--c0)}.c1{stroke:var(--c1)}.c2{stroke:var(--c2)}.c3{stroke:var(--c3)}\
circle.c0,i.c0{fill:var(--c0);background:var(--c0)}circle.c1,i.c1{fill:var(--c1);background:var(--c1)}\
circle.c2,i.c2{fill:var(--c2);background:var(--c2)}circle.c3,i.c3{fill:var(--c3);background:var(--c3)}\
.key{color:var(--soft);margin:.2rem 0}.key i{display:inline-block;width:12px;height:12px;border-radius:3px;\
margin:0 .4em 0 1em}.soft{color:var(--soft)}";

const LATENCY: Axis = Axis { label: "milliseconds", scale: Scale::Log };

/// The page of a report.
#[must_use]
pub fn page(report: &Report) -> String {
    let mut body = format!(
        "<h1>Measured</h1><p><code>{}</code><br><span class=\"soft\">{}</span></p>{}",
        escaped(&report.command),
        escaped(&report.server),
        table(report)
    );
    for doubt in &report.doubts {
        body.push_str(&format!("<p>Mind: {}</p>", escaped(doubt)));
    }
    body.push_str(&section(
        "Latency by quantile",
        "The share of answers that took no longer; milliseconds upward.",
        &quantiles(report),
    ));
    if let Some(plot) = throughput(report) {
        let told = "Each dot is a run; milliseconds upward.";
        body.push_str(&section("Throughput against latency", told, &plot));
    }
    if let Some(run) = report.runs.first() {
        let told = "Of the first run, by when requests were to be sent; milliseconds upward.";
        body.push_str(&section("Latency over time", told, &over_time(report, run)));
        let told = "Of the first run; requests a second upward.";
        body.push_str(&section("Throughput over time", told, &rates(run)));
    }
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>graftd</title><style>{STYLE}</style></head>\
         <body>{body}</body></html>\n"
    )
}

fn section(title: &str, told: &str, plot: &Plot) -> String {
    let key = plot.series.iter().enumerate().map(|(number, series)| {
        format!("<i class=\"c{}\"></i>{}", number % 4, escaped(&series.name))
    });
    let key = if plot.series.len() > 1 { key.collect() } else { String::new() };
    format!("<h2>{title}</h2><p class=\"key\">{told}{key}</p>{}", plot.svg())
}

fn table(report: &Report) -> String {
    let heads =
        ["run", "offered/s", "answers/s", "on time", "mean", "p50", "p90", "p99", "p99.9", "max"];
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    let row = |(at, run): (usize, &Run)| {
        let name = format!("{} {}", at + 1, escaped(&run.name));
        let quantile = |share| run.within(share).map_or_else(String::new, number);
        let cells = [
            name,
            run.offered_rate.map_or_else(|| "as answered".to_owned(), number),
            number(run.rate),
            format!("{:.2} %", 100.0 * run.on_time),
            number(run.mean_ms),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            quantile(1.0),
        ];
        format!("<tr>{}</tr>", cells.map(|cell| format!("<td>{cell}</td>")).concat())
    };
    let rows: String = report.runs.iter().enumerate().map(row).collect();
    let target = number(report.target_ms.unwrap_or_default());
    let highest = report.highest_rates.iter().map(|(name, rate)| {
        let by = if name.is_empty() { String::new() } else { format!(", {}", escaped(name)) };
        format!(
            "<p>Highest rate with {} % of answers within {target} ms{by}: <b>{}/s</b></p>",
            number(100.0 * report.quantile),
            number(*rate)
        )
    });
    format!(
        "{}<div class=\"wide\"><table><tr>{heads}</tr>{rows}</table></div><p class=\"soft\">Times in \
         milliseconds, from when a request was to be sent.</p>",
        highest.collect::<String>()
    )
}

fn mark(report: &Report) -> Option<(f64, String)> {
    report.target_ms.map(|target| (target, format!("target {} ms", number(target))))
}

fn quantiles(report: &Report) -> Plot {
    // More lines than colours say nothing, so of several names the first run of each.
    let names = report.names();
    let first = |at: usize, run: &Run| at == 0 || report.runs[at - 1].name != run.name;
    let shown = report.runs.iter().enumerate();
    let shown = shown.filter(|(at, run)| names.len() < 2 || first(*at, run)).take(4);
    let series = shown.map(|(at, run)| Series {
        name: if run.name.is_empty() { format!("run {}", at + 1) } else { run.name.clone() },
        points: run.latency_ms.clone(),
        dots: false,
    });
    let x = Axis { label: "share of answers", scale: Scale::Tail };
    Plot { x, y: LATENCY, series: series.collect(), mark: mark(report) }
}

/// What was tried at several rates; none where there was one.
fn throughput(report: &Report) -> Option<Plot> {
    let all = || report.tried.iter().chain(&report.runs);
    let (_, least, most) = spread(all().filter_map(|run| run.offered_rate))?;
    if most <= least {
        return None;
    }
    let dots = |name: &str, share: f64, of: &dyn Fn(&Run) -> bool| {
        let point = |run: &Run| Some((run.rate, run.within(share)?));
        let mut points: Vec<(f64, f64)> = all().filter(|run| of(run)).filter_map(point).collect();
        points.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        Series { name: name.to_owned(), points, dots: true }
    };
    let series = match report.names().as_slice() {
        [] | [_] => vec![dots("p50", 0.5, &|_| true), dots("p99", 0.99, &|_| true)],
        names => {
            let p99 = |name: &&str| dots(&format!("p99, {name}"), 0.99, &|run| run.name == *name);
            names.iter().map(p99).collect()
        }
    };
    let x = Axis { label: "answers a second", scale: Scale::Linear };
    Some(Plot { x, y: LATENCY, series, mark: mark(report) })
}

const SECONDS: Axis = Axis { label: "seconds", scale: Scale::Linear };

fn over_time(report: &Report, run: &Run) -> Plot {
    let of = |name: &str, ms: fn(&super::report::Moment) -> f64| Series {
        name: name.to_owned(),
        points: run.course.iter().map(|moment| (moment.at_s, ms(moment))).collect(),
        dots: false,
    };
    let series = vec![of("p50", |moment| moment.p50_ms), of("p99", |moment| moment.p99_ms)];
    Plot { x: SECONDS, y: LATENCY, series, mark: mark(report) }
}

fn rates(run: &Run) -> Plot {
    let of = |name: &str, rate: fn(&super::report::Moment) -> f64| Series {
        name: name.to_owned(),
        points: run.course.iter().map(|moment| (moment.at_s, rate(moment))).collect(),
        dots: false,
    };
    let series = vec![of("sent", |moment| moment.sent_rate), of("answered", |moment| moment.rate)];
    let y = Axis { label: "a second", scale: Scale::Linear };
    Plot { x: SECONDS, y, series, mark: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_needs_nothing_else_and_takes_no_markup_from_outside() {
        let run = Run { offered_rate: Some(10.0), latency_ms: vec![(0.5, 1.0)], ..Run::default() };
        let report = Report {
            command: "graftd bench <script>".to_owned(),
            server: "a & b".to_owned(),
            target_ms: Some(5.0),
            quantile: 0.99,
            highest_rates: std::iter::once((String::new(), 10.0)).collect(),
            tried: vec![Run { offered_rate: Some(20.0), ..run.clone() }],
            runs: vec![run],
            doubts: vec!["<none>".to_owned()],
        };
        let page = page(&report);
        assert!(!page.contains("<script>") && !page.contains("<none>"), "{page}");
        assert!(!page.contains("http"), "nothing is fetched");
        for told in ["Latency by quantile", "Throughput against latency", "over time", "10/s"] {
            assert!(page.contains(told), "{told}");
        }
        let empty = super::page(&Report::default());
        assert!(!empty.contains("NaN"), "{empty}");
    }
}
