//! Recordings: files of signals, in whatever form they lie around.

pub(crate) mod csv;
mod lines;
mod ndjson;
mod sniff;
mod syslog;

use std::{
    io::Read,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::ValueEnum;
use opspilot_connectors::syslog::Offset;
use opspilot_kernel::time::Timestamp;
use serde::Serialize;

use self::lines::Lines;
use super::{Run, Runs};

/// Lines that could not be read are named so many times a file; the others are only counted.
const NAMED: usize = 5;

/// What a recording is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    /// What the file looks like
    Auto,
    /// Events as POST /api/events takes them, one a line (or one array of them)
    Ndjson,
    /// timestamp,value
    Csv,
    /// RFC 5424 or 3164, or as /var/log/syslog
    Syslog,
}

/// How recordings are to be read.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    /// What they are written in.
    pub(crate) format: Format,
    /// CSV: what the metric is called; the file's stem without it.
    pub(crate) name: Option<String>,
    /// CSV and syslog: who the signals are from, where nothing else says so.
    pub(crate) source: Option<String>,
    /// The year of the first line, where lines have none.
    pub(crate) year: Option<u16>,
    /// How far times that name no zone are ahead of UTC.
    pub(crate) offset: Offset,
    /// Whether every signal is to be a run of its own.
    pub(crate) single: bool,
}

/// A line that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct BadLine {
    pub(crate) line: u64,
    pub(crate) why: String,
}

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct FileReport {
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) signals: u64,
    /// Lines that could not be read; nothing of them was replayed.
    pub(crate) bad_lines: u64,
    /// The first of them.
    pub(crate) first_bad: Vec<BadLine>,
    /// Signals without a time, which were given that of the signal before.
    pub(crate) untimed: u64,
    /// Lines of a log that are in no known form, taken as they are.
    pub(crate) unparsed: u64,
    /// Lines with bytes that are no UTF-8, which were replaced.
    pub(crate) replaced: u64,
    /// Why the file could not be read to its end.
    pub(crate) cut_off: Option<String>,
}

impl FileReport {
    fn bad(&mut self, line: u64, why: impl Into<String>) {
        self.bad_lines += 1;
        if self.first_bad.len() < NAMED {
            self.first_bad.push(BadLine { line, why: why.into() });
        }
    }
}

/// A report that is filled where the file is read and looked at where the results are shown.
#[derive(Debug, Clone)]
pub(crate) struct Shared(Arc<Mutex<FileReport>>);

impl Shared {
    /// The report as it stands.
    pub(crate) fn get(&self) -> FileReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn change(&self, change: impl FnOnce(&mut FileReport)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Reads runs, in the order of the file.
pub(crate) struct Recording {
    runs: Runs,
    lines: Lines,
    kind: Kind,
    report: Shared,
}

enum Kind {
    Ndjson,
    /// One array: the file is one document.
    Json,
    Csv(csv::Reader),
    Syslog(syslog::Reader),
}

/// What a recording is read from, besides what is in it.
pub(crate) struct Origin {
    /// As it is shown.
    pub(crate) name: String,
    /// Where it lies; none is standard input.
    pub(crate) path: Option<PathBuf>,
    /// When it was changed last, or now.
    pub(crate) changed: Timestamp,
    /// The bytes.
    pub(crate) reader: Box<dyn Read + Send>,
}

impl Origin {
    /// The file's name without its folder and its endings.
    fn stem(&self) -> String {
        let Some(name) = self.path.as_ref().and_then(|path| path.file_name()) else { return "stdin".to_owned() };
        let name = name.to_string_lossy();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        name.rsplit_once('.').map_or(name, |(stem, _)| if stem.is_empty() { name } else { stem }).to_owned()
    }
}

/// Counts the bytes of a file as they are read, before anything is decompressed.
pub(crate) struct Counted<R> {
    pub(crate) inner: R,
    pub(crate) read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.read.fetch_add(u64::try_from(count).unwrap_or(0), Ordering::Relaxed);
        Ok(count)
    }
}

/// Opens a recording; the error says what is wrong with it.
pub(crate) fn open(origin: Origin, reading: &Reading) -> Result<Recording, String> {
    let stem = origin.stem();
    let path = origin.path.clone();
    let mut lines = Lines::new(sniff::plain(origin.reader).map_err(|error| format!("cannot read {}: {error}", origin.name))?);
    let head = lines.peek();
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Err(format!("{} is UTF-16; save it as UTF-8", origin.name));
    }
    let format = match reading.format {
        Format::Auto => sniff::format(path.as_deref(), head),
        format => format,
    };
    let array = format == Format::Ndjson && head.trim_ascii_start().first() == Some(&b'[');
    let source = reading.source.clone();
    let kind = match format {
        Format::Csv => {
            let name = reading.name.clone().unwrap_or_else(|| stem.clone());
            Kind::Csv(csv::Reader::new(name, source.unwrap_or(stem), reading.offset))
        }
        Format::Syslog => Kind::Syslog(syslog::Reader::new(source.unwrap_or(stem), reading, origin.changed)),
        Format::Auto | Format::Ndjson if array => Kind::Json,
        Format::Auto | Format::Ndjson => Kind::Ndjson,
    };
    let report = FileReport {
        name: origin.name,
        format,
        signals: 0,
        bad_lines: 0,
        first_bad: Vec::new(),
        untimed: 0,
        unparsed: 0,
        replaced: 0,
        cut_off: None,
    };
    Ok(Recording { runs: Runs::new(reading.single), lines, kind, report: Shared(Arc::new(Mutex::new(report))) })
}

impl Recording {
    /// Where to look what became of it.
    pub(crate) fn report(&self) -> Shared {
        self.report.clone()
    }

    /// Reads the next part; false at the end.
    fn more(&mut self) -> bool {
        let mut found = self.report.get();
        let more = match &mut self.kind {
            Kind::Json => {
                let whole = self.lines.whole();
                ndjson::array(&whole, &mut self.runs, &mut found);
                false
            }
            kind => match self.lines.chunk(&mut |line, why| found.bad(line, why)) {
                None => false,
                Some(chunk) => {
                    match kind {
                        Kind::Csv(reader) => reader.read(&chunk, &mut self.runs, &mut found),
                        Kind::Syslog(reader) => reader.read(&chunk, &mut self.runs, &mut found),
                        Kind::Ndjson | Kind::Json => ndjson::lines(&chunk, &mut self.runs, &mut found),
                    }
                    true
                }
            },
        };
        if !more {
            found.cut_off = self.lines.cut_off().map(str::to_owned);
            self.runs.close();
        }
        found.signals = self.runs.signals;
        self.report.change(|report| *report = found);
        more
    }
}

impl Iterator for Recording {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        loop {
            if let Some(run) = self.runs.next() {
                return Some(run);
            }
            if !self.more() {
                return self.runs.next();
            }
        }
    }
}
