//! Tables of plain text: the first column to the left, numbers to the right.

use std::io::{self, Write};

/// Rows under a heading.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn with_heads(heads: &[&str]) -> Self {
        Self {
            rows: vec![heads.iter().map(|h| (*h).to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(crate) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |n: usize| {
            self.rows
                .iter()
                .filter_map(|r| r.get(n))
                .map(|c| c.chars().count())
                .max()
        };
        let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or(0)).collect();
        for row in &self.rows {
            let cells = row.iter().zip(&widths).enumerate();
            let cells: Vec<String> = cells
                .map(|(n, (cell, width))| {
                    if n == 0 {
                        format!("{cell:<width$}")
                    } else {
                        format!("{cell:>width$}")
                    }
                })
                .collect();
            writeln!(out, "  {}", cells.join("   ").trim_end())?;
        }
        Ok(())
    }
}

/// A whole number with its thousands set apart.
pub(crate) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        let left = digits.len() - n;
        if n > 0 && left.is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_thousands_are_set_apart() {
        let mut table = Table::with_heads(&["policy", "rate"]);
        table.row(vec!["a".to_owned(), thousands(1_234_567.4)]);
        table.row(vec!["longer".to_owned(), thousands(999.0)]);
        let mut out = Vec::new();
        table.print(&mut out).expect("a vector takes everything");
        let text = String::from_utf8(out).expect("text");
        assert_eq!(
            text,
            "  policy        rate\n  a        1,234,567\n  longer         999\n"
        );
    }
}
