//! What people read: tables, lines, complaints.

use std::io::{self, IsTerminal, Write};

use serde_json::Value as Json;

use crate::plain;

/// Writes one line to stdout, for whoever goes on whatever became of it.
pub(crate) fn tell(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush())
}

/// Writes one line to stdout, for a command that does one thing: it ends if nobody can read what it says. A reader that
/// went away (`| head`) is no reason to complain; a full disk is.
pub(crate) fn say(line: &str) {
    match tell(line) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            complain(&format!("cannot write to standard output: {error}"));
            std::process::exit(1);
        }
    }
}

/// Writes JSON to stdout, indented on a terminal, on one line for a script.
pub(crate) fn say_json(json: &Json) {
    if io::stdout().is_terminal() {
        say(&format!("{json:#}"));
    } else {
        say(&json.to_string());
    }
}

/// Writes to stderr.
pub(crate) fn complain(text: &str) {
    let lines: Vec<_> = text.lines().map(plain::escaped).collect();
    // if stderr is gone there is nobody to tell
    drop(writeln!(io::stderr().lock(), "{}", lines.join("\n")));
}

/// Does work that may take a while; on a terminal a sign of life is shown meanwhile.
pub(crate) fn meanwhile<T>(what: &'static str, work: impl FnOnce() -> T) -> T {
    let spinner = indicatif::ProgressBar::new_spinner().with_message(what);
    spinner.enable_steady_tick(std::time::Duration::from_millis(500));
    let done = work();
    spinner.finish_and_clear();
    done
}

/// Rows under headings, as wide as they must be.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub(crate) fn new(headings: &[&str]) -> Table {
        Table { rows: vec![headings.iter().map(|heading| heading.to_uppercase()).collect()] }
    }

    /// Adds a row; what could drive a terminal is taken out.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().map(|cell| plain::stripped(&cell).into_owned()).collect());
    }

    /// The lines. On a terminal the last column is cut at its edge.
    pub(crate) fn lines(&self, width: Option<usize>) -> Vec<String> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns)
            .map(|column| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0))
            .collect();
        let line = |row: &Vec<String>| {
            let mut line = String::new();
            for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
                line.push_str(cell);
                if index + 1 < row.len() {
                    line.push_str(&" ".repeat(width.saturating_sub(cell.chars().count()) + 2));
                }
            }
            match width {
                Some(width) if line.chars().count() > width => line.chars().take(width.saturating_sub(1)).chain(['…']).collect(),
                _ => line,
            }
        };
        self.rows.iter().map(line).collect()
    }

    /// Prints it.
    pub(crate) fn print(&self) {
        let width = rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 20);
        for line in self.lines(width) {
            say(&line);
        }
    }
}

/// Text at a key, or nothing.
pub(crate) fn text<'a>(json: &'a Json, key: &str) -> &'a str {
    json.get(key).and_then(Json::as_str).unwrap_or("")
}

/// A time as a person at a terminal wants it: `2026-03-14 09:25:07Z`.
pub(crate) fn moment(text: &str) -> String {
    text.get(..19).map_or_else(|| text.to_owned(), |second| format!("{}Z", second.replace('T', " ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_names_its_zone() {
        assert_eq!(moment("2026-03-14T09:25:07.123Z"), "2026-03-14 09:25:07Z");
        assert_eq!(moment(""), "");
    }

    #[test]
    fn columns_line_up_and_nothing_drives_the_terminal() {
        let mut table = Table::new(&["id", "title"]);
        table.row(["inc_1".to_owned(), "a\u{1b}[31mred\nline".to_owned()]);
        assert_eq!(table.lines(None), ["ID     TITLE", "inc_1  a[31mred line"]);
        assert_eq!(table.lines(Some(12))[1], "inc_1  a[31…");
    }
}
