//! Tables for terminals: columns as wide as what they hold, the first one as narrow as it must.

use std::io::{self, ErrorKind, IsTerminal, Write};

/// Narrower than this a name says nothing.
const NAME_MIN: usize = 8;

/// A table; the first column is a name, the others are numbers or short words, to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
    text_last: bool,
}

impl Table {
    /// A table with these headings.
    #[must_use]
    pub fn new(headings: &[&str]) -> Self {
        let headings = headings.iter().map(|&heading| heading.to_owned()).collect();
        Self { rows: vec![headings], text_last: false }
    }

    /// The same with sentences in its last column, to the left.
    #[must_use]
    pub fn with_text_last(self) -> Self {
        Self { text_last: true, ..self }
    }

    /// One more row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Writes the table in lines of at most `width` characters, unless the numbers alone are wider.
    ///
    /// # Errors
    /// When `out` takes no more.
    pub fn write(&self, out: &mut impl Write, width: Option<usize>) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let size = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let mut sizes: Vec<usize> = (0..columns).map(size).collect();
        let others: usize = sizes.iter().skip(1).map(|size| size + 2).sum();
        if let (Some(width), Some(name)) = (width, sizes.first_mut()) {
            *name = (*name).min(width.saturating_sub(others).max(NAME_MIN));
        }
        for row in &self.rows {
            let mut line = String::new();
            for (column, (cell, &size)) in row.iter().zip(&sizes).enumerate() {
                let cell = shortened(cell, size);
                match column {
                    0 => line.push_str(&format!("{cell:<size$}")),
                    _ if self.text_last && column + 1 == columns => {
                        line.push_str(&format!("  {cell}"));
                    }
                    _ => line.push_str(&format!("  {cell:>size$}")),
                }
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

fn shortened(text: &str, size: usize) -> String {
    if text.chars().count() <= size {
        return text.to_owned();
    }
    text.chars().take(size.saturating_sub(1)).chain(['…']).collect()
}

/// The width of the terminal that standard output is; none where it is none.
#[must_use]
pub fn width() -> Option<usize> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(&out).ok()?;
    Some(usize::from(size.ws_col)).filter(|&columns| columns > 0)
}

/// Writes and flushes; a reader that has seen enough, as `head` has, is no failure.
///
/// # Errors
/// A sentence when it cannot be printed.
pub fn print<W: Write>(
    out: &mut W,
    write: impl FnOnce(&mut W) -> io::Result<()>,
) -> Result<(), String> {
    match write(out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| format!("cannot print the answer: {error}")),
    }
}

/// A number of bytes, to be read by people.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    let units = [("T", 40), ("G", 30), ("M", 20), ("K", 10)];
    match units.iter().find(|(_, power)| bytes >> power > 0) {
        Some((unit, power)) => {
            // Cut, not rounded, so nothing looks larger than it is.
            let tenths = (u128::from(bytes) * 10) >> power;
            match (tenths / 10, tenths % 10) {
                (whole @ 0..10, tenth @ 1..) => format!("{whole}.{tenth}{unit}"),
                (whole, _) => format!("{whole}{unit}"),
            }
        }
        None => bytes.to_string(),
    }
}

/// Microseconds, to be read by people.
#[must_use]
pub fn micros(us: u64) -> String {
    match us {
        0..1000 => format!("{us}us"),
        1000..10_000 => format!("{}.{}ms", us / 1000, us % 1000 / 100),
        10_000..1_000_000 => format!("{}ms", us / 1000),
        _ => format!("{}.{}s", us / 1_000_000, us % 1_000_000 / 100_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fit_and_names_give_way() {
        let mut table = Table::new(&["MODEL", "N"]);
        table.row(vec!["a_name_that_is_long".to_owned(), "12".to_owned()]);
        let lines = |width| {
            let mut out = Vec::new();
            table.write(&mut out, width).unwrap();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(lines(None), "MODEL                 N\na_name_that_is_long  12\n");
        assert_eq!(lines(Some(14)), "MODEL        N\na_name_th…  12\n");
    }

    #[test]
    fn quantities_are_short() {
        let sizes = [0, 1023, 1024, 1536, 256 << 20, 5 << 40].map(bytes);
        assert_eq!(sizes, ["0", "1023", "1K", "1.5K", "256M", "5T"]);
        let times = [5, 1234, 12_345, 2_500_000].map(micros);
        assert_eq!(times, ["5us", "1.2ms", "12ms", "2.5s"]);
    }
}
