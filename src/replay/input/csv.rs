//! One series: `timestamp,value`, with a heading or without.

use std::borrow::Cow;

use opspilot_connectors::syslog::Offset;
use opspilot_kernel::{signal::SignalRef, time::Timestamp};

use super::{FileReport, lines::Chunk};
use crate::replay::Runs;

/// Headings of the column that is the time, and of the one that is the value.
const TIMES: [&str; 6] = ["timestamp", "time", "date", "datetime", "ts", "@timestamp"];
const VALUES: [&str; 3] = ["value", "val", "y"];

pub(super) struct Reader {
    name: String,
    source: String,
    offset: Offset,
    /// Which columns are time and value.
    columns: (usize, usize),
    begun: bool,
}

impl Reader {
    pub(super) fn new(name: String, source: String, offset: Offset) -> Reader {
        Reader { name, source, offset, columns: (0, 1), begun: false }
    }

    pub(super) fn read(&mut self, chunk: &Chunk, runs: &mut Runs, report: &mut FileReport) {
        for (number, line) in chunk.lines() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let Ok(line) = std::str::from_utf8(line) else {
                report.bad(number, "not UTF-8");
                continue;
            };
            let cells = fields(line);
            let begun = std::mem::replace(&mut self.begun, true);
            if !begun && self.heading(&cells) {
                continue;
            }
            match self.row(&cells) {
                Ok((at, value)) => runs.push(&SignalRef::metric(at, &self.source, &self.name, value)),
                Err(why) => report.bad(number, why),
            }
        }
    }

    /// Whether these are headings; then they say which columns count.
    fn heading(&mut self, cells: &[Cow<'_, str>]) -> bool {
        let place = |known: &[&str]| cells.iter().position(|cell| known.iter().any(|name| name.eq_ignore_ascii_case(cell.trim())));
        match (place(&TIMES), place(&VALUES)) {
            (Some(time), Some(value)) => {
                self.columns = (time, value);
                true
            }
            _ => self.row(cells).is_err() && cells.iter().all(|cell| number(cell).is_err()),
        }
    }

    fn row(&self, cells: &[Cow<'_, str>]) -> Result<(Timestamp, f64), String> {
        let cell = |column: usize| cells.get(column).map(|cell| cell.trim()).unwrap_or_default();
        let (time, value) = (cell(self.columns.0), cell(self.columns.1));
        if value.is_empty() {
            return Err("no value".to_owned());
        }
        let at = moment(time, self.offset).ok_or_else(|| format!("'{}' is no time", short(time)))?;
        Ok((at, number(value)?))
    }
}

fn number(text: &str) -> Result<f64, String> {
    match text.trim().parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err(format!("{} is not finite", short(text))),
        Err(_) => Err(format!("'{}' is no number", short(text))),
    }
}

fn short(text: &str) -> String {
    text.chars().take(40).filter(|char| !char.is_control()).collect()
}

/// Whether the line begins with a time and has a number behind it.
pub(super) fn is_row(line: &str) -> bool {
    let cells = fields(line);
    cells.len() >= 2 && matches!(cells.as_slice(), [time, value, ..] if moment(time.trim(), Offset::UTC).is_some() && number(value).is_ok())
}

/// A time as it is written in tables: RFC 3339, the same without a zone, with a space, without seconds; or a number since
/// 1970 in seconds, milliseconds, microseconds or nanoseconds, which its size tells.
pub(crate) fn moment(text: &str, offset: Offset) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let whole: i64 = whole.parse().ok()?;
        let millis = match whole {
            0..100_000_000_000 => {
                let padded: String = fraction.chars().chain("000".chars()).take(3).collect();
                whole * 1000 + padded.parse::<i64>().ok()?
            }
            100_000_000_000..100_000_000_000_000 => whole,
            100_000_000_000_000..100_000_000_000_000_000 => whole / 1000,
            _ => whole / 1_000_000,
        };
        return Some(Timestamp::from_millis(millis));
    }
    let bytes = text.as_bytes();
    if !matches!(bytes.get(10), Some(b' ' | b'T')) || !text.is_ascii() {
        return None;
    }
    let (day, time) = text.split_at_checked(10)?;
    let time = time.get(1..)?;
    let seconds = if time.len() == 5 { ":00" } else { "" };
    let shown: Timestamp = format!("{day}T{time}{seconds}Z").parse().ok()?;
    Some(offset.utc(shown))
}

/// The cells of a row; commas, semicolons or tabs between them, whichever comes first, quotes around them or not.
pub(crate) fn fields(line: &str) -> Vec<Cow<'_, str>> {
    let mut quoted = false;
    let mark = line.chars().find(|char| {
        quoted ^= *char == '"';
        !quoted && matches!(char, ',' | ';' | '\t')
    });
    split(line, mark.unwrap_or(','))
}

/// RFC 4180, section 2, for one row.
pub(crate) fn split(line: &str, mark: char) -> Vec<Cow<'_, str>> {
    let mut cells = Vec::new();
    let mut rest = Some(line);
    while let Some(text) = rest {
        let (cell, behind) = match text.strip_prefix('"') {
            Some(inner) => quoted(inner),
            None => match text.find(mark) {
                Some(end) => (Cow::Borrowed(text.get(..end).unwrap_or_default()), text.get(end..).unwrap_or_default()),
                None => (Cow::Borrowed(text), ""),
            },
        };
        cells.push(cell);
        rest = behind.find(mark).and_then(|at| behind.get(at + mark.len_utf8()..));
    }
    cells
}

/// A cell up to its closing quote, and what is behind it.
fn quoted(text: &str) -> (Cow<'_, str>, &str) {
    let mut plain = String::new();
    let mut rest = text;
    loop {
        let Some((part, behind)) = rest.split_once('"') else {
            plain.push_str(rest);
            return (Cow::Owned(plain), "");
        };
        plain.push_str(part);
        match behind.strip_prefix('"') {
            Some(more) => {
                plain.push('"');
                rest = more;
            }
            None => return (Cow::Owned(plain), behind),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_tables_have_them() {
        for (text, time) in [
            ("2014-04-10 07:15:00", Some("2014-04-10T07:15:00.000Z")),
            ("2014-04-10 07:15", Some("2014-04-10T07:15:00.000Z")),
            ("2014-04-10T07:15:00.25", Some("2014-04-10T07:15:00.250Z")),
            ("2014-04-10T07:15:00+02:00", Some("2014-04-10T05:15:00.000Z")),
            ("1795348800", Some("2026-11-22T12:00:00.000Z")),
            ("1795348800.5", Some("2026-11-22T12:00:00.500Z")),
            ("1795348800250", Some("2026-11-22T12:00:00.250Z")),
            ("1795348800250000", Some("2026-11-22T12:00:00.250Z")),
            ("1795348800250000000", Some("2026-11-22T12:00:00.250Z")),
            ("2014-04-10", None),
            ("yesterday", None),
            ("", None),
            ("é014-04-10 07:15:00", None),
        ] {
            assert_eq!(moment(text, Offset::UTC).map(|at| at.to_string()).as_deref(), time, "{text}");
        }
        let east = moment("2014-04-10 07:15:00", "+02:00".parse().unwrap()).map(|at| at.to_string());
        assert_eq!(east.as_deref(), Some("2014-04-10T05:15:00.000Z"));
    }

    #[test]
    fn cells_are_told_apart_with_quotes_and_without() {
        assert_eq!(fields("a,b,,d"), ["a", "b", "", "d"]);
        assert_eq!(fields("\"a;1\";\"b\"\"c\";d"), ["a;1", "b\"c", "d"]);
        assert_eq!(fields("a\tb,c"), ["a", "b,c"]);
        assert_eq!(fields("a,"), ["a", ""]);
        assert_eq!(fields(""), [""]);
        assert_eq!(fields("\"open"), ["open"]);
    }
}
