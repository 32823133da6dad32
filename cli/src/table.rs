//! Columns of text that line up, with colour where a cell wants it.

use std::fmt::Write;

use anstyle::{AnsiColor, Style};

/// What a cell tells beyond its text.
pub(crate) const PLAIN: Style = Style::new();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const NOTICE: Style = AnsiColor::Yellow.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
pub(crate) const FAINT: Style = Style::new().dimmed();
const HEADER: Style = Style::new().bold();

/// The space between two columns.
const GAP: &str = "  ";

/// What stands where there is nothing to say.
pub(crate) const NOTHING: &str = "-";

/// A text and its style.
#[derive(Debug, Clone)]
pub(crate) struct Cell {
    text: String,
    style: Style,
}

/// Which edge a column lines up on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// Rows under headings.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Align)>,
    rows: Vec<Vec<Cell>>,
}

impl Cell {
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self {
            text: text.into(),
            style,
        }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self::styled(text, PLAIN)
    }
}

impl Table {
    /// A heading that starts with `>` lines its column up on the right.
    pub(crate) fn new(headings: &[&str]) -> Self {
        let columns = headings.iter().map(|heading| {
            heading
                .strip_prefix('>')
                .map_or(((*heading).to_owned(), Align::Left), |heading| {
                    (heading.to_owned(), Align::Right)
                })
        });
        Self {
            columns: columns.collect(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        self.rows.push(cells.into());
    }

    pub(crate) fn row_of(&mut self, cells: Vec<Cell>) {
        self.rows.push(cells);
    }

    /// The whole table, each line ended. Empty cells at the end of a line
    /// leave no trailing blanks.
    pub(crate) fn render(&self) -> String {
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| self.width(column))
            .collect();
        let mut out = String::new();
        let header: Vec<Cell> = self
            .columns
            .iter()
            .map(|(heading, _)| Cell::styled(heading.clone(), HEADER))
            .collect();
        for row in std::iter::once(&header).chain(&self.rows) {
            self.render_row(row, &widths, &mut out);
        }
        out
    }

    fn width(&self, column: usize) -> usize {
        let heading = self.columns.get(column).map(|(text, _)| text.as_str());
        let cells = self
            .rows
            .iter()
            .filter_map(|row| row.get(column).map(|cell| cell.text.as_str()));
        heading
            .into_iter()
            .chain(cells)
            .map(|text| text.chars().count())
            .max()
            .unwrap_or(0)
    }

    fn render_row(&self, row: &[Cell], widths: &[usize], out: &mut String) {
        let last = row.iter().rposition(|cell| !cell.text.is_empty());
        let used = last.map_or(0, |last| last + 1);
        for (position, cell) in row.iter().take(used).enumerate() {
            let (width, (_, align)) = match (widths.get(position), self.columns.get(position)) {
                (Some(width), Some(column)) => (*width, column),
                _ => break,
            };
            let padding = " ".repeat(width - cell.text.chars().count().min(width));
            let (before, after) = match align {
                Align::Right => (padding.as_str(), ""),
                Align::Left if position + 1 == used => ("", ""),
                Align::Left => ("", padding.as_str()),
            };
            let gap = if position == 0 { "" } else { GAP };
            let _ = write!(
                out,
                "{gap}{before}{}{}{:#}{after}",
                cell.style, cell.text, cell.style
            );
        }
        out.push('\n');
    }
}

/// A whole number with commas: 1,204.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_colour_takes_no_room() {
        let mut table = Table::new(&["GROUP", ">READY", "NOTE"]);
        table.row(["v41".into(), Cell::styled("100", GOOD), "".into()]);
        table.row(["v42-long".into(), "1".into(), "dark".into()]);
        let plain = anstream::adapter::strip_str(&table.render()).to_string();
        assert_eq!(
            plain,
            "GROUP     READY  NOTE\nv41         100\nv42-long      1  dark\n"
        );
        assert!(table.render().contains("\u{1b}[32m100\u{1b}[0m"));
    }

    #[test]
    fn counts_have_commas() {
        let shown: Vec<_> = [0, 999, 1_000, 1_204, 1_234_567].map(count).into();
        assert_eq!(shown, ["0", "999", "1,000", "1,204", "1,234,567"]);
    }
}
