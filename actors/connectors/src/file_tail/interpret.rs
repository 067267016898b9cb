//! What a line says about itself: when it was written, and how bad it is.

use opspilot_kernel::{signal::Severity, time::Timestamp};

/// The RFC 3339 time at the start of the line, bare or in brackets, if there is one.
pub(crate) fn timestamp(line: &str) -> Option<Timestamp> {
    let line = line.strip_prefix('[').unwrap_or(line);
    // YYYY-MM-DDTHH:MM:SSZ is the shortest.
    let bytes = line.as_bytes();
    if bytes.len() < 20 || bytes.get(4) != Some(&b'-') || !bytes.first()?.is_ascii_digit() {
        return None;
    }
    let end = |from: usize| bytes.get(from..)?.iter().take(40).position(|byte| matches!(byte, b' ' | b']' | b'\t')).map(|at| from + at);
    // Between date and time RFC 3339 also allows a space.
    let stop = if matches!(bytes.get(10), Some(b'T' | b't' | b' ')) { end(11) } else { return None };
    line.get(..stop.unwrap_or(line.len()).min(46))?.parse().ok()
}

/// Words that name a level, in lower case.
const LEVELS: &[(&str, Severity)] = &[
    ("trace", Severity::Debug),
    ("debug", Severity::Debug),
    ("dbg", Severity::Debug),
    ("info", Severity::Info),
    ("information", Severity::Info),
    ("notice", Severity::Info),
    ("warn", Severity::Warning),
    ("warning", Severity::Warning),
    ("wrn", Severity::Warning),
    ("err", Severity::Error),
    ("error", Severity::Error),
    ("severe", Severity::Error),
    ("fatal", Severity::Critical),
    ("panic", Severity::Critical),
    ("crit", Severity::Critical),
    ("critical", Severity::Critical),
    ("emerg", Severity::Critical),
    ("emergency", Severity::Critical),
];

/// How far into the line a level is looked for.
const REACH: usize = 192;

/// The severity that the line's own level suggests: the first level word in capitals, or in any case where its place
/// shows that it is a level (`level=error`, `"level":"error"`, `[error]`, `error:`).
pub(crate) fn severity(line: &str) -> Option<Severity> {
    let bytes = line.as_bytes();
    let bytes = bytes.get(..REACH).unwrap_or(bytes);
    if let Some(severity) = glog(bytes) {
        return Some(severity);
    }
    let mut at = 0;
    while at < bytes.len() {
        let rest = bytes.get(at..).unwrap_or_default();
        let len = rest.iter().take_while(|byte| byte.is_ascii_alphabetic()).count();
        if len == 0 {
            at += 1;
            continue;
        }
        let word = rest.get(..len).unwrap_or_default();
        let before = at.checked_sub(1).and_then(|at| bytes.get(at)).copied();
        let behind = rest.get(len).copied();
        at += len;
        if !(3..=11).contains(&len) || before.is_some_and(part_of_name) || behind.is_some_and(part_of_name) {
            continue;
        }
        let Some((_, severity)) = LEVELS.iter().find(|(level, _)| level.as_bytes().eq_ignore_ascii_case(word)) else { continue };
        let shouted = word.iter().all(u8::is_ascii_uppercase);
        let enclosed = matches!((before, behind), (Some(b'['), Some(b']')) | (Some(b'<'), Some(b'>')));
        let announces = behind == Some(b':') && matches!(before, None | Some(b' ' | b'\t' | b']'));
        if shouted || enclosed || announces || follows_level_key(bytes.get(..at - len).unwrap_or_default()) {
            return Some(*severity);
        }
    }
    None
}

/// `error-rate`, `error_count`, `x.error` and `error/1` are names, not levels.
fn part_of_name(byte: u8) -> bool {
    byte.is_ascii_digit() || matches!(byte, b'_' | b'-' | b'/' | b'.')
}

/// `level=`, `lvl=`, `severity=`, with quotes, colons and blanks as JSON and logfmt write them.
fn follows_level_key(before: &[u8]) -> bool {
    let mut marks = before;
    while let Some((last, rest)) = marks.split_last()
        && matches!(last, b'"' | b'\'' | b':' | b'=' | b' ')
    {
        marks = rest;
    }
    marks.len() < before.len()
        && ["level", "lvl", "severity"].iter().any(|key| {
            marks.len().checked_sub(key.len()).and_then(|at| marks.get(at..)).is_some_and(|end| end.eq_ignore_ascii_case(key.as_bytes()))
        })
}

/// `E1122 12:00:00.000000 …`, as glog and klog write.
fn glog(bytes: &[u8]) -> Option<Severity> {
    let severity = match bytes.first()? {
        b'I' => Severity::Info,
        b'W' => Severity::Warning,
        b'E' => Severity::Error,
        b'F' => Severity::Critical,
        _ => return None,
    };
    let date = bytes.get(1..5)?.iter().all(u8::is_ascii_digit) && bytes.get(5) == Some(&b' ');
    (date && bytes.get(6..8)?.iter().all(u8::is_ascii_digit) && bytes.get(8) == Some(&b':')).then_some(severity)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_at_the_start_of_a_line_is_found() {
        for (line, time) in [
            ("2026-11-22T12:00:00Z hello", Some("2026-11-22T12:00:00.000Z")),
            ("2026-11-22T12:00:00.123456Z\thello", Some("2026-11-22T12:00:00.123Z")),
            ("[2026-11-22T13:00:00+01:00] hello", Some("2026-11-22T12:00:00.000Z")),
            ("2026-11-22 12:00:00.5Z hello", Some("2026-11-22T12:00:00.500Z")),
            ("2026-11-22T12:00:00Z", Some("2026-11-22T12:00:00.000Z")),
            ("2026-11-22 12:00:00,123 INFO local time without a zone", None),
            ("2026-11-22 is a day", None),
            ("at 2026-11-22T12:00:00Z", None),
            ("2026-99-22T12:00:00Z no such month", None),
            ("ü026-11-22T12:00:00Z", None),
            ("", None),
        ] {
            assert_eq!(timestamp(line).map(|time| time.to_string()).as_deref(), time, "{line}");
        }
    }

    #[test]
    fn the_level_of_a_line_is_guessed_only_where_it_is_one() {
        for (line, level) in [
            ("2026-11-22T12:00:00Z ERROR payment failed", Some(Severity::Error)),
            ("2026-11-22 12:00:00,123 [main] WARN  c.e.Shop - slow", Some(Severity::Warning)),
            ("INFO request done, 0 ERROR lines", Some(Severity::Info)),
            (r#"{"time":"x","level":"error","msg":"boom"}"#, Some(Severity::Error)),
            (r#"{"severity": "Critical", "msg":"boom"}"#, Some(Severity::Critical)),
            ("ts=1 level=debug msg=x", Some(Severity::Debug)),
            ("2026/11/22 12:00:00 [error] 7#7: *1 upstream timed out", Some(Severity::Error)),
            ("error: cannot open file", Some(Severity::Error)),
            ("E1122 12:00:00.000000 1 main.go:1] boom", Some(Severity::Error)),
            ("F1122 12:00:00.000000 1 main.go:1] boom", Some(Severity::Critical)),
            ("<warn> NetworkManager", Some(Severity::Warning)),
            ("there was no error in the payment", None),
            ("GET /error HTTP/1.1", None),
            ("ERROR_COUNT 5", None),
            ("error-rate: 5", None),
            ("Terror everywhere", None),
            ("", None),
        ] {
            assert_eq!(severity(line), level, "{line}");
        }
    }
}
