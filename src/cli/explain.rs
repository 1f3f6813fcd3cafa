//! `graftd explain`: why requests took their routes, and what made their answers.

use super::client::{Client, explain_path};
use super::exit::Failure;
use super::table::{self, Table, micros};
use crate::server::service::explain::{Costs, Decided, Decisions, RowWhy, Step, Sums};
use crate::text;
use clap::Args;
use std::io::{self, Write};
use std::path::PathBuf;

/// What `graftd explain` takes.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Routes: hit (the answer is kept), join (an equal row is in flight), whole (the model ran), and of models
that share a base: recompute (base and head ran), follow (the base ran already), reuse (its output was
kept). Times of ways are until the end of their run, waiting included, as held when it was decided; a -
stands for what was not known or had not to be run. The newest 1,024 requests are remembered, and of
each its first 64 rows; a request's own answer tells the same with --param graftd_explain=true.

Examples:
  graftd explain
  graftd explain my-request-7
  graftd explain --json | jq '.decisions[0]'")]
pub struct ExplainArgs {
    /// The id that a caller gave its request, or the daemon's number of it [default: the last 20]
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// Unix socket of the daemon
    #[arg(long, value_name = "PATH", env = "GRAFTD_SOCKET", default_value = "graftd.sock")]
    pub socket: PathBuf,
    /// Print the JSON as it came
    #[arg(long)]
    pub json: bool,
}

/// Asks the daemon what it decided and writes that to `out`, in lines of `width` characters where it is a table.
///
/// # Errors
/// When no daemon answers, or it remembers no such request.
pub async fn explain(
    args: &ExplainArgs,
    width: Option<usize>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let mut client = Client::connect(&args.socket).await?;
    let answer = client.get(&explain_path(args.id.as_deref())).await?.success()?;
    if args.json {
        return Ok(table::print(out, |out| {
            out.write_all(&answer.body).and_then(|()| writeln!(out))
        })?);
    }
    let Decisions { decisions } = serde_json::from_slice(&answer.body)
        .map_err(|error| format!("the daemon's decisions cannot be read: {error}; try --json"))?;
    Ok(table::print(out, |out| match args.id {
        Some(_) => decisions.iter().try_for_each(|decided| in_full(out, decided)),
        None if decisions.is_empty() => writeln!(out, "no request was decided yet"),
        None => listed(&decisions).write(out, width),
    })?)
}

/// The newest decisions, one a line.
fn listed(decisions: &[Decided]) -> Table {
    let mut table =
        Table::new(&["ID", "MODEL", "ROWS", "AGE", "ROUTES", "REASON"]).with_text_last();
    for decided in decisions {
        table.row(vec![
            called(decided.request, &decided.id),
            text::name(&decided.model),
            decided.rows.to_string(),
            micros(decided.age_ms.saturating_mul(1000)),
            routes(decided),
            reason(decided),
        ]);
    }
    table
}

/// A request by the name that can be asked for again: its caller's id, or else its number.
fn called(request: u64, id: &str) -> String {
    if id.is_empty() { request.to_string() } else { text::name(id) }
}

fn routes(decided: &Decided) -> String {
    if decided.routes.is_empty() {
        return text::name(&decided.outcome);
    }
    let routes = decided.routes.iter();
    // One alone goes without a number where that stands beside it.
    match decided.routes.len() {
        1 => routes.map(|(route, _)| text::name(route)).collect(),
        _ => {
            let routes = routes.map(|(route, rows)| format!("{}={rows}", text::name(route)));
            routes.collect::<Vec<_>>().join(" ")
        }
    }
}

fn reason(decided: &Decided) -> String {
    if decided.error.is_empty() { text::name(&decided.reason) } else { text::name(&decided.error) }
}

/// One decision with each of its rows.
fn in_full(out: &mut impl Write, decided: &Decided) -> io::Result<()> {
    let Decided { request, id, model, outcome, error, rows, .. } = decided;
    let id = if id.is_empty() { String::new() } else { format!(" '{}'", text::name(id)) };
    let (age, took) = (micros(decided.age_ms.saturating_mul(1000)), micros(decided.took_us));
    let (model, outcome) = (text::name(model), text::name(outcome));
    writeln!(out, "request {request}{id} to {model}: {outcome} after {took}, {age} ago")?;
    if !error.is_empty() {
        writeln!(out, "  {}", text::name(error))?;
    }
    if outcome == "ok" {
        writeln!(out, "  rows {rows}: {}", routes(decided))?;
    }
    for (number, row) in decided.why.iter().enumerate() {
        writeln!(
            out,
            "  row {number}: {}, as {}",
            text::name(&row.route),
            text::name(&row.reason)
        )?;
        if let Some(weighed) = weighed(row) {
            writeln!(out, "    {weighed}")?;
        }
        for step in &row.lineage {
            writeln!(out, "    {}", made(step, *request))?;
        }
    }
    if decided.left_out > 0 {
        writeln!(out, "  and {} more rows", decided.left_out)?;
    }
    Ok(())
}

/// What was known when a row's route was chosen; none where there was no choice.
fn weighed(row: &RowWhy) -> Option<String> {
    let (chance, busy) = (row.chance?, row.busy?);
    let time = |us: Option<u64>| us.map_or_else(|| "-".to_owned(), micros);
    let Costs { base, head, whole } = row.cost_us;
    let Sums { shared, whole: alone } = row.weighed_us;
    Some(format!(
        "base {}, head {}, whole {}; weighed: shared {}, whole {}; wanted again {:.0} %, busy {:.0} %",
        time(base),
        time(head),
        time(whole),
        time(shared),
        time(alone),
        chance * 100.0,
        busy * 100.0
    ))
}

/// What made a row, and for whom where that was another request.
fn made(step: &Step, own: u64) -> String {
    let Step { stage, model, digest, batch, request, id, age_ms } = step;
    let of = if model.is_empty() { String::new() } else { format!(" of {}", text::name(model)) };
    let by = match *request == own {
        true => String::new(),
        false if id.is_empty() => format!(" for request {request}"),
        false => format!(" for request {request} '{}'", text::name(id)),
    };
    let (stage, digest) = (text::name(stage), text::name(digest));
    let age = micros(age_ms.saturating_mul(1000));
    format!("{stage}{of} {digest}: batch {batch}{by}, {age} ago")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn decided() -> Decided {
        let step = |stage: &str, model: &str, request: u64, id: &str| Step {
            stage: stage.into(),
            model: model.into(),
            digest: "9a881b8120eaa672".into(),
            batch: 12,
            request,
            id: id.into(),
            age_ms: 3,
        };
        let row = RowWhy {
            route: "reuse".into(),
            reason: "the base output is there or on its way".into(),
            cost_us: Costs { base: None, head: Some(12), whole: Some(40) },
            weighed_us: Sums { shared: Some(11), whole: Some(39) },
            chance: Some(0.5),
            busy: Some(0.031),
            lineage: vec![step("head", "right:1", 8, "b\u{1b}"), step("base", "", 7, "a")],
        };
        Decided {
            request: 8,
            id: "b\u{1b}".into(),
            model: "right:1".into(),
            outcome: "ok".into(),
            rows: 66,
            routes: BTreeMap::from([("reuse".into(), 66)]),
            reason: row.reason.clone(),
            age_ms: 1500,
            took_us: 340,
            why: vec![row],
            left_out: 65,
            ..Decided::default()
        }
    }

    #[test]
    fn a_decision_is_told_row_by_row() {
        let mut out = Vec::new();
        in_full(&mut out, &decided()).unwrap();
        let expected = "\
request 8 'b\\u{1b}' to right:1: ok after 340us, 1.5s ago
  rows 66: reuse
  row 0: reuse, as the base output is there or on its way
    base -, head 12us, whole 40us; weighed: shared 11us, whole 39us; wanted again 50 %, busy 3 %
    head of right:1 9a881b8120eaa672: batch 12, 3.0ms ago
    base 9a881b8120eaa672: batch 12 for request 7 'a', 3.0ms ago
  and 65 more rows
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn the_list_has_a_line_a_request_and_no_control_characters() {
        let refused = Decided {
            outcome: "refused".into(),
            error: "the daemon is stopping".into(),
            routes: BTreeMap::new(),
            id: String::new(),
            ..decided()
        };
        let mut out = Vec::new();
        listed(&[decided(), refused]).write(&mut out, Some(100)).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].split_whitespace().last(), Some("REASON"));
        assert!(lines[1].starts_with("b\\u{1b}") && lines[1].ends_with("on its way"), "{text}");
        assert!(lines[2].starts_with("8 ") && lines[2].contains("refused  the daemon"), "{text}");
    }
}
