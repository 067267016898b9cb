//! Files of syslog lines.

use opspilot_connectors::syslog::{Form, Parser, Years, signal};
use opspilot_kernel::time::Timestamp;

use super::{FileReport, Reading, lines::Chunk};
use crate::replay::Runs;

pub(super) struct Reader {
    parser: Parser,
    source: String,
    labels: Vec<u8>,
}

impl Reader {
    /// `changed`: nothing was written into the file later.
    pub(super) fn new(source: String, reading: &Reading, changed: Timestamp) -> Reader {
        let years = reading.year.map_or_else(|| Years::until(changed), Years::first);
        Reader { parser: Parser::new(years, reading.offset), source, labels: Vec::new() }
    }

    pub(super) fn read(&mut self, chunk: &Chunk, runs: &mut Runs, report: &mut FileReport) {
        for (number, line) in chunk.lines() {
            if line.trim_ascii().is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(line);
            let message = self.parser.parse(&text);
            let Some(at) = message.at.or(runs.last) else {
                report.bad(number, "no time, and no line before it that has one");
                continue;
            };
            report.replaced += u64::from(matches!(text, std::borrow::Cow::Owned(_)));
            match (message.form, message.at) {
                (Form::Raw, _) => report.unparsed += 1,
                (_, None) => report.untimed += 1,
                _ => {}
            }
            runs.push(&signal(&message, at, &self.source, &mut self.labels));
        }
    }
}
