//! Families drawn: as a tree for people, as a graph for Graphviz.
//!
//! Separate from where they come from, files or a daemon. Names come from either, so that none is printed as it is.

use crate::cli::table;
use crate::server::service::families::{Base, Families, Head, Total};
use crate::text;
use std::io::{self, Write};

/// Draws families for people.
pub(super) fn draw(families: &Families, out: &mut impl Write) -> io::Result<()> {
    for family in &families.families {
        writeln!(out, "family of {} models", family.shares.len())?;
        base(family, out, "", "")?;
        if let Some(Total { wholes, shared, saved }) = family.total {
            let [wholes, shared, saved] = [wholes, shared, saved].map(size);
            writeln!(
                out,
                "{wholes} as whole models, {shared} as base once and heads: {saved} saved"
            )?;
        }
        writeln!(out)?;
    }
    for left in &families.left {
        let members: Vec<String> = left.members.iter().map(text::plain).collect();
        writeln!(out, "left whole: {}: {}", members.join(", "), text::plain(&left.why))?;
    }
    Ok(())
}

fn base(base: &Base, out: &mut impl Write, first: &str, rest: &str) -> io::Result<()> {
    writeln!(out, "{first}base {}: {}", text::plain(&base.base), facts(base).join(", "))?;
    let all = base.bases.len() + base.heads.len();
    let branch = |at: usize| if at + 1 == all { ("└─ ", "   ") } else { ("├─ ", "│  ") };
    for (at, inner) in base.bases.iter().enumerate() {
        let (here, after) = branch(at);
        self::base(inner, out, &format!("{rest}{here}"), &format!("{rest}{after}"))?;
    }
    for (at, head) in base.heads.iter().enumerate() {
        let (here, _) = branch(base.bases.len() + at);
        let facts = about(head).join(", ");
        writeln!(out, "{rest}{here}{}: {facts}", text::plain(&head.model))?;
    }
    Ok(())
}

/// What there is to say of a base.
fn facts(base: &Base) -> Vec<String> {
    let mut facts =
        vec![format!("{} nodes", base.nodes), format!("{} parameters", count(base.parameters))];
    if base.bytes > 0 {
        facts.push(format!("{} of its own", size(base.bytes)));
    }
    let row = base.bytes_per_row.map_or_else(|| "? bytes".to_owned(), size);
    facts.push(format!("{row} a row across the cut"));
    let shares = || base.shares.values().map(|share| share * 100.0);
    let least = format!("{:.1}", shares().fold(100.0_f64, f64::min));
    let most = format!("{:.1}", shares().fold(0.0_f64, f64::max));
    facts.push(match least == most {
        true => format!("{most} % of the compute"),
        false => format!("{least} to {most} % of the compute"),
    });
    facts
}

/// What there is to say of a head.
fn about(head: &Head) -> Vec<String> {
    // Nothing is known of what runs in the daemon's own memory.
    let sizes = match (head.bytes, head.whole_bytes) {
        (0, 0) => None,
        (own, whole) => Some(format!("head of {} instead of {}", size(own), size(whole))),
    };
    let difference = head.difference.map(|most| match most > 0.0 {
        true => format!("differs from the whole by {most:.1e}"),
        false => "answers as the whole does".to_owned(),
    });
    let rests = head.rests.then(|| "the whole rests".to_owned());
    let rounded = |most| format!("by {most:.1e} with base outputs stored as float16");
    let rounded = head.rounded.map(rounded);
    [sizes, difference, rounded, rests].into_iter().flatten().collect()
}

/// Draws families for Graphviz.
pub(super) fn dot(families: &Families, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "digraph families {{\n  rankdir=BT;\n  node [shape=box];")?;
    families.families.iter().try_for_each(|family| node(family, None, out))?;
    for left in &families.left {
        for member in &left.members {
            let [label, why] = [member, &left.why].map(|text| lines(std::slice::from_ref(text)));
            let id = id("model", member);
            writeln!(out, "  {id} [style=dashed, label={label}, tooltip={why}];")?;
        }
    }
    writeln!(out, "}}")
}

fn node(base: &Base, below: Option<&str>, out: &mut impl Write) -> io::Result<()> {
    let own = id("base", &base.base);
    let label = lines(&[vec![format!("base {}", base.base)], facts(base)].concat());
    writeln!(out, "  {own} [style=filled, label={label}];")?;
    if let Some(below) = below {
        writeln!(out, "  {own} -> {below};")?;
    }
    for head in &base.heads {
        let (model, label) = (id("model", &head.model), [vec![head.model.clone()], about(head)]);
        writeln!(out, "  {model} [label={}];", lines(&label.concat()))?;
        writeln!(out, "  {model} -> {own};")?;
    }
    base.bases.iter().try_for_each(|inner| node(inner, Some(&own), out))
}

/// What a node is called in the graph, so that no model is taken for a base.
fn id(kind: &str, name: &str) -> String {
    lines(&[format!("{kind} {name}")])
}

/// Lines as Graphviz takes them, whatever they hold.
fn lines(lines: &[String]) -> String {
    let plain = |line: &String| text::plain(line).replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{}\"", lines.iter().map(plain).collect::<Vec<_>>().join("\\n"))
}

fn size(bytes: u64) -> String {
    let shown = table::bytes(bytes);
    if bytes < 1 << 10 { format!("{shown} bytes") } else { format!("{shown}B") }
}

fn count(number: u64) -> String {
    match number {
        0..10_000 => number.to_string(),
        10_000..10_000_000 => format!("{:.1}k", number as f64 / 1e3),
        _ => format!("{:.1}M", number as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::service::families::Left;
    use std::collections::BTreeMap;

    /// A family whose names try to draw something else.
    fn hostile() -> Families {
        let name = "a\"];x\\\n\u{1b}[31m".to_owned();
        let head = Head { model: name.clone(), difference: Some(2.5e-7), ..Head::default() };
        let head = Head { rests: true, bytes: 10, whole_bytes: 2048, ..head };
        let shares = BTreeMap::from([(name.clone(), 0.5), ("b".to_owned(), 0.5)]);
        let base = Base { base: "00ff".to_owned(), shares, heads: vec![head], ..Base::default() };
        let left = Left { members: vec![name], why: "its\n\"reason\"".to_owned() };
        Families { families: vec![base], left: vec![left] }
    }

    #[test]
    fn names_are_escaped_for_a_terminal() {
        let mut out = Vec::new();
        draw(&hostile(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let expected = "family of 2 models\n\
            base 00ff: 0 nodes, 0 parameters, ? bytes a row across the cut, 50.0 % of the compute\n\
            └─ a\"];x\\\\n\\u{1b}[31m: head of 10 bytes instead of 2KB, differs from the whole by 2.5e-7, \
            the whole rests\n\nleft whole: a\"];x\\\\n\\u{1b}[31m: its\\n\"reason\"\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn names_are_quoted_for_graphviz() {
        let mut out = Vec::new();
        dot(&hostile(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let name = r#""model a\"];x\\\\n\\u{1b}[31m""#;
        assert!(text.contains(&format!("  {name} -> \"base 00ff\";\n")), "{text}");
        assert!(text.contains(r#"tooltip="its\\n\"reason\"""#), "{text}");
        assert_eq!(text.lines().count(), 8, "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }
}
