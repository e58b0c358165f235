//! Columns of text, aligned.

use std::borrow::Cow;
use std::io::Write;

use crate::printable;

/// Prints rows under a head, each column as wide as its widest cell; a row is one line, whatever its cells hold.
pub(super) fn print(out: &mut dyn Write, indent: &str, head: &[&str], rows: &[Vec<String>]) -> std::io::Result<()> {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| printable::line(cell)).collect()).collect();
    let width = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = head.iter().map(|cell| width(cell)).collect();
    for row in &rows {
        for (index, cell) in row.iter().enumerate() {
            match widths.get_mut(index) {
                Some(known) => *known = (*known).max(width(cell)),
                None => widths.push(width(cell)),
            }
        }
    }
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = indent.to_owned();
        for (cell, width) in cells.zip(&widths) {
            text.push_str(&format!("{cell:width$}  "));
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(&mut head.iter().copied())?;
    for row in &rows {
        line(&mut row.iter().map(|cell| &**cell))?;
    }
    Ok(())
}
