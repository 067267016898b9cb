//! Reads the bodies of `POST /api/events` in one pass: JSON, limits, duplicates and all.
//!
//! What is wrong with the body as a whole ([`Malformed`]) stores nothing and is answered 400; what is
//! wrong with one event (`rejected`) costs only that event. A line of NDJSON is a document of its own,
//! so there even broken JSON costs only its line.

mod event;
mod field;
mod labels;
mod problem;
#[cfg(test)]
mod reference;
mod scalar;
#[cfg(test)]
mod tests;

use opspilot_kernel::{signal::SignalRef, time::Timestamp};
use serde::de::DeserializeSeed;

use event::{Event, Reader};
pub(crate) use problem::{Malformed, Rejections};

/// How the events of a body are separated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One object, or an array of objects.
    Json,
    /// One object per line.
    Lines,
}

/// What became of a body's events.
#[derive(Debug, Default)]
pub(crate) struct Parsed {
    /// How many events the body holds.
    pub(crate) events: u32,
    /// How many of them went to the sink.
    pub(crate) accepted: u32,
    /// The others.
    pub(crate) rejected: Rejections,
}

/// Reads `body` and hands every acceptable event to `sink`, in order.
///
/// After an `Err` the sink has seen some of the events; whoever collected them throws them away.
pub(crate) fn parse(
    body: &[u8],
    format: Format,
    received_at: Timestamp,
    sink: &mut dyn FnMut(&SignalRef<'_>),
) -> Result<Parsed, Malformed> {
    let mut reader = Reader::new(received_at, sink);
    match format {
        Format::Json => json(body, &mut reader)?,
        Format::Lines => lines(body, &mut reader),
    }
    Ok(reader.finish())
}

fn json<'de>(body: &'de [u8], reader: &mut Reader<'_, 'de>) -> Result<(), Malformed> {
    let text = problem::text(body)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let read = event::Body(reader).deserialize(&mut json).and_then(|()| json.end());
    read.map_err(|error| Malformed::of_json(&error, text))
}

fn lines<'de>(body: &'de [u8], reader: &mut Reader<'_, 'de>) {
    // Almost every body is UTF-8 throughout, and one check of the whole is cheaper than one per line.
    let whole = std::str::from_utf8(body).ok();
    let mut start = 0;
    for (number, end) in (1..).zip(memchr::memchr_iter(b'\n', body).chain([body.len()])) {
        let line = match whole {
            Some(text) => text.get(start..end).map(Ok),
            None => body.get(start..end).map(problem::utf8),
        };
        start = end.saturating_add(1);
        match line {
            Some(Ok(text)) => line_of(text, number, reader),
            Some(Err(malformed)) => reader.reject_line(number, malformed),
            None => {}
        }
    }
}

fn line_of<'de>(line: &'de str, number: usize, reader: &mut Reader<'_, 'de>) {
    if line.trim_ascii().is_empty() {
        return;
    }
    if let Err(malformed) = problem::without_mark(line) {
        return reader.reject_line(number, malformed);
    }
    let mut json = serde_json::Deserializer::from_str(line);
    let mut fields = reader.fields();
    let read = Event { scratch: reader.scratch(), fields: &mut fields, depth: 1 }.deserialize(&mut json).and_then(|()| json.end());
    match read {
        Ok(()) => reader.settle(&mut fields),
        Err(error) => reader.reject_line(number, Malformed::of_json(&error, line)),
    }
}
