//! Our own events, read by what reads `POST /api/events`.

use opspilot_kernel::{signal::SignalRef, time::Timestamp};

use super::{FileReport, lines::Chunk};
use crate::{
    http::ingest::parse::{self, Rejections},
    replay::Runs,
};

/// What an event without a time is given by the parser: nothing happened then.
const UNTIMED: Timestamp = Timestamp::ZERO;

pub(super) fn lines(chunk: &Chunk, runs: &mut Runs, report: &mut FileReport) {
    let mut early = 0_u64;
    let read = parse::parse(&chunk.bytes, parse::Format::Lines, UNTIMED, &mut |signal| push(signal, runs, report, &mut early));
    // lines never make a whole body malformed
    if let Ok(parsed) = read {
        refused(&parsed.rejected, report, |index| line_of(chunk, index));
    }
    tell_early(early, line_of(chunk, 0), report);
}

/// A document that is one array of events, or one event.
pub(super) fn array(bytes: &[u8], runs: &mut Runs, report: &mut FileReport) {
    let mut early = 0_u64;
    match parse::parse(bytes, parse::Format::Json, UNTIMED, &mut |signal| push(signal, runs, report, &mut early)) {
        Ok(parsed) => refused(&parsed.rejected, report, |index| u64::from(index) + 1),
        // what stands before the mistake was read already, and is kept: a recording may be cut off
        Err(malformed) => report.bad(1, malformed.detail),
    }
    tell_early(early, 1, report);
}

fn push(signal: &SignalRef<'_>, runs: &mut Runs, report: &mut FileReport, early: &mut u64) {
    if signal.at != UNTIMED {
        return runs.push(signal);
    }
    match runs.last {
        Some(at) => {
            report.untimed += 1;
            runs.push(&SignalRef { at, ..signal.clone() });
        }
        None => *early += 1,
    }
}

fn tell_early(early: u64, line: u64, report: &mut FileReport) {
    for _ in 0..early {
        report.bad(line, "no timestamp, and nothing before it that has one");
    }
}

fn refused(rejected: &Rejections, report: &mut FileReport, line: impl Fn(u32) -> u64) {
    for event in &rejected.named {
        // where a line could not be read at all, its number within the part is told; it is another in the file
        let told = event.detail.strip_prefix("line ").and_then(|rest| rest.split_once(", ")).map(|(_, rest)| rest);
        if report.first_bad.len() < super::NAMED {
            report.bad(line(event.index), told.unwrap_or(&event.detail));
        } else {
            report.bad_lines += 1;
        }
    }
    let named = u64::try_from(rejected.named.len()).unwrap_or(0);
    report.bad_lines += u64::from(rejected.total).saturating_sub(named);
}

/// The line on which the event number `index` of a part stands.
fn line_of(chunk: &Chunk, index: u32) -> u64 {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    let events = chunk.lines().filter(|(_, line)| !line.trim_ascii().is_empty());
    events.map(|(number, _)| number).nth(index).unwrap_or(chunk.first)
}
