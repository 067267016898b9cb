//! The log: one root logger, to stderr and optionally to a file that is kept small.
//!
//! Lines wait in a bounded queue for the one thread that writes them. A full queue drops lines rather
//! than hold up the service; what was dropped is counted, shown as `opspilot_log_dropped_total`, and
//! said in the log as soon as there is room.

use std::{
    io::{self, IsTerminal, Write},
    panic::{RefUnwindSafe, UnwindSafe},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
};

use file_rotate::{ContentLimit, FileRotate, compression::Compression, suffix::AppendCount};
use opspilot_kernel::clock::{SharedClock, SystemClock};
use prometheus::IntCounter;
use slog::{BorrowedKV, Drain, FnValue, Level, Logger, Never, OwnedKVList, PushFnValue, Record, RecordStatic, b, o};
use slog_term::{Decorator, FullFormat, PlainSyncDecorator, RecordDecorator, TermDecorator};

use crate::{
    config::{Log, LogFormat, LogLevel},
    plain,
};

/// The log of this process. Dropping it writes what still waits.
pub struct Telemetry {
    /// The root logger; parts of the service derive theirs from it.
    pub log: Logger,
    level: Arc<AtomicU8>,
    _bridge: Option<slog_scope::GlobalLoggerGuard>,
    _writer: slog_async::AsyncGuard,
}

impl Telemetry {
    /// Changes the least level that is logged, at once.
    pub fn set_level(&self, level: LogLevel) {
        self.level.store(rank(level), Ordering::Relaxed);
    }

    /// A handle that changes the level from elsewhere.
    pub fn level(&self) -> LevelSwitch {
        LevelSwitch(Arc::clone(&self.level))
    }
}

/// Changes the least level that is logged.
#[derive(Debug, Clone)]
pub struct LevelSwitch(Arc<AtomicU8>);

impl LevelSwitch {
    /// From now on, this level and what is more important.
    pub fn set(&self, level: LogLevel) {
        self.0.store(rank(level), Ordering::Relaxed);
    }
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the log file {path}: {error}")]
pub struct LogFileError {
    path: String,
    error: io::Error,
}

/// Starts the log, and takes in what libraries log through the `log` crate.
pub fn start(settings: &Log, registry: &prometheus::Registry) -> Result<Telemetry, LogFileError> {
    let file = match &settings.file {
        None => None,
        Some(file) => {
            // opened once here, so that a file that cannot be written is known before anything starts
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&file.path)
                .map_err(|error| LogFileError { path: file.path.display().to_string(), error })?;
            let limit = ContentLimit::BytesSurpassed(file.max_size.bytes().max(1));
            let rotating = FileRotate::new(&file.path, AppendCount::new(file.keep), limit, Compression::None, None);
            Some(formatted(settings.format, Lines { to: rotating, line: Vec::new() }))
        }
    };
    let (core, writer) = slog_async::AsyncCore::custom(Sinks { stderr: to_stderr(settings.format), file })
        .chan_size(settings.queue)
        .thread_name("log".to_owned())
        .build_with_guard();
    let dropped = counter(registry);
    let level = Arc::new(AtomicU8::new(rank(settings.level)));
    let drain = Gate { level: Arc::clone(&level), inner: Counting { core, dropped, unreported: AtomicU64::new(0) } };
    let log = Logger::root(drain, o!());
    Ok(Telemetry { _bridge: bridged(&log), log, level, _writer: writer })
}

/// Libraries log through `log`; only what a person should know is taken over.
fn bridged(log: &Logger) -> Option<slog_scope::GlobalLoggerGuard> {
    let quieter = Logger::root(Quieter(log.clone()), o!("part" => "library"));
    let guard = slog_scope::set_global_logger(quieter);
    slog_stdlog::init_with_level(log::Level::Warn).is_ok().then_some(guard)
}

fn counter(registry: &prometheus::Registry) -> Option<IntCounter> {
    let counter = IntCounter::new("opspilot_log_dropped_total", "Lines of the log that were dropped because its queue was full").ok()?;
    registry.register(Box::new(counter.clone())).ok()?;
    Some(counter)
}

const fn rank(level: LogLevel) -> u8 {
    match level {
        LogLevel::Error => 2,
        LogLevel::Warning => 3,
        LogLevel::Info => 4,
        LogLevel::Debug => 5,
    }
}

const fn rank_of(level: Level) -> u8 {
    match level {
        Level::Critical => 1,
        Level::Error => 2,
        Level::Warning => 3,
        Level::Info => 4,
        Level::Debug => 5,
        Level::Trace => 6,
    }
}

/// Lets through what is important enough just now.
struct Gate<D> {
    level: Arc<AtomicU8>,
    inner: D,
}

impl<D: Drain<Ok = (), Err = Never>> Drain for Gate<D> {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if self.is_enabled(record.level()) { self.inner.log(record, values) } else { Ok(()) }
    }

    fn is_enabled(&self, level: Level) -> bool {
        rank_of(level) <= self.level.load(Ordering::Relaxed)
    }
}

/// Takes for details what the HTTP library logs as errors: they are the faults of peers, and anybody could
/// fill the log with them.
struct Quieter(Logger);

impl Drain for Quieter {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        if !record.tag().starts_with("actix_http") {
            return Drain::log(&self.0, record, values);
        }
        let level = if record.level().is_at_least(Level::Debug) { Level::Debug } else { record.level() };
        let fixed = RecordStatic { location: record.location(), tag: record.tag(), level };
        let told = record.kv();
        Drain::log(&self.0, &Record::new(&fixed, record.msg(), BorrowedKV(&told)), values)
    }
}

/// Counts what the full queue refused, and says so once there is room again.
struct Counting {
    core: slog_async::AsyncCore,
    dropped: Option<IntCounter>,
    unreported: AtomicU64,
}

impl Drain for Counting {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let unreported = self.unreported.swap(0, Ordering::Relaxed);
        let mut lost = 0;
        if unreported > 0 {
            let said = self.core.log(
                &slog::record!(
                    Level::Warning,
                    "",
                    &format_args!("lines of the log were dropped, because its queue was full"),
                    b!("count" => unreported)
                ),
                &o!().into(),
            );
            lost += if said.is_err() { unreported } else { 0 };
        }
        if self.core.log(record, values).is_err() {
            lost += 1;
            if let Some(dropped) = &self.dropped {
                dropped.inc();
            }
        }
        if lost > 0 {
            self.unreported.fetch_add(lost, Ordering::Relaxed);
        }
        Ok(())
    }
}

/// A format on its way to a stream. An error there has nowhere to be reported.
type Sink = Box<dyn Drain<Ok = (), Err = io::Error> + Send>;

struct Sinks {
    stderr: Sink,
    file: Option<Sink>,
}

impl Drain for Sinks {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        for sink in std::iter::once(&self.stderr).chain(&self.file) {
            drop(sink.log(record, values));
        }
        Ok(())
    }
}

fn to_stderr(format: LogFormat) -> Sink {
    if format == LogFormat::Text && coloured(&io::stderr()) {
        text(TermDecorator::new().stderr().force_color().build())
    } else {
        formatted(format, io::stderr())
    }
}

/// Whether a stream wants colour: a terminal, and nobody asked for none.
pub fn coloured(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn formatted<W: Write + Send + 'static>(format: LogFormat, to: W) -> Sink {
    match format {
        LogFormat::Json => json(to),
        LogFormat::Text => text(PlainSyncDecorator::new(to)),
    }
}

fn text<D: Decorator + Send + 'static>(decorator: D) -> Sink {
    let clock = SystemClock::shared();
    let stamp = Stamp(clock);
    // in the order written: the other order keeps a stack that panics when a write fails
    Box::new(FullFormat::new(Escaping(decorator)).use_original_order().use_custom_timestamp(move |to| stamp.write(to)).build())
}

fn json<W: Write + Send + 'static>(to: W) -> Sink {
    let stamp = Stamp(SystemClock::shared());
    let keys = o!(
        "ts" => FnValue(move |_: &Record<'_>| stamp.text()),
        "level" => FnValue(|record: &Record<'_>| record.level().as_str().to_lowercase()),
        "msg" => PushFnValue(|record: &Record<'_>, value| value.emit(record.msg())),
    );
    Box::new(slog_json::Json::new(to).set_newlines(true).set_flush(true).add_key_value(keys).build())
}

/// The time at the head of a line.
struct Stamp(SharedClock);

impl UnwindSafe for Stamp {}
impl RefUnwindSafe for Stamp {}

impl Stamp {
    fn text(&self) -> String {
        self.0.now().to_string()
    }

    fn write(&self, to: &mut dyn Write) -> io::Result<()> {
        write!(to, "{}", self.0.now())
    }
}

/// Hands whole lines on, so that a file is only ever cut between two of them.
struct Lines<W> {
    to: W,
    line: Vec<u8>,
}

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        if self.line.ends_with(b"\n") {
            let written = self.to.write_all(&self.line);
            self.line.clear();
            written?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Writes out what could forge a line or drive a terminal, in messages and in values.
struct Escaping<D>(D);

impl<D: Decorator> Decorator for Escaping<D> {
    fn with_record<F>(&self, record: &Record<'_>, values: &OwnedKVList, f: F) -> io::Result<()>
    where
        F: FnOnce(&mut dyn RecordDecorator) -> io::Result<()>,
    {
        self.0.with_record(record, values, |inner| f(&mut EscapingRecord { inner, ours: false }))
    }
}

struct EscapingRecord<'a> {
    inner: &'a mut dyn RecordDecorator,
    /// Whether the format itself writes: spaces, and the line's end.
    ours: bool,
}

impl Write for EscapingRecord<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.ours {
            self.inner.write_all(bytes)?;
        } else {
            self.inner.write_all(plain::escaped(&String::from_utf8_lossy(bytes)).as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

macro_rules! handed_on {
    ($($name:ident: $ours:literal),*) => {
        $(fn $name(&mut self) -> io::Result<()> {
            self.ours = $ours;
            self.inner.$name()
        })*
    };
}

impl RecordDecorator for EscapingRecord<'_> {
    handed_on!(
        reset: false, start_whitespace: true, start_msg: false, start_timestamp: false, start_level: false, start_comma: true,
        start_key: false, start_value: false, start_location: false, start_separator: true
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use slog::{info, warn};

    use super::*;

    /// A stream that a test can look into, and that can be made to wait.
    #[derive(Clone, Default)]
    struct Seen(Arc<Mutex<Vec<u8>>>);

    impl Write for Seen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Seen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn logged(format: LogFormat, queue: usize, level: LogLevel, what: impl FnOnce(&Logger, &LevelSwitch)) -> (String, u64) {
        let seen = Seen::default();
        let sinks = Sinks { stderr: formatted(format, seen.clone()), file: None };
        let (core, guard) = slog_async::AsyncCore::custom(sinks).chan_size(queue).build_with_guard();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let level = Arc::new(AtomicU8::new(rank(level)));
        let counting = Counting { core, dropped: Some(dropped.clone()), unreported: AtomicU64::new(0) };
        let log = Logger::root(Gate { level: Arc::clone(&level), inner: counting }, o!());
        what(&log, &LevelSwitch(level));
        drop(log);
        drop(guard);
        (seen.text(), dropped.get())
    }

    #[test]
    fn e2_a_line_cannot_be_forged_in_either_format() {
        for format in [LogFormat::Text, LogFormat::Json] {
            let (text, _) = logged(format, 16, LogLevel::Info, |log, _| {
                info!(log, "title {}", "x\nERRO forged\u{1b}[31m"; "user.agent" => "a\r\n\u{1b}]52;c;x\u{7}");
            });
            assert_eq!(text.lines().count(), 1, "{text}");
            assert!(!text.trim_end().contains(|c: char| c.is_control()), "{text:?}");
            assert!(text.contains("forged") && text.ends_with('\n'));
        }
    }

    #[test]
    fn a_json_line_can_be_parsed_and_has_time_level_and_message() {
        let (text, _) = logged(LogFormat::Json, 16, LogLevel::Info, |log, _| warn!(log, "disk is full"; "free.bytes" => 12));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (line["level"].as_str(), line["msg"].as_str(), line["free.bytes"].as_i64()),
            (Some("warning"), Some("disk is full"), Some(12))
        );
        assert!(line["ts"].as_str().unwrap().ends_with('Z'));
    }

    #[test]
    fn the_level_can_be_changed_while_it_runs() {
        let (text, _) = logged(LogFormat::Text, 16, LogLevel::Warning, |log, level| {
            info!(log, "first");
            level.set(LogLevel::Info);
            info!(log, "second");
        });
        assert!(!text.contains("first") && text.contains("second"), "{text}");
    }

    #[test]
    fn what_a_peer_does_wrong_is_no_error_of_ours() {
        for (level, seen) in [(LogLevel::Info, false), (LogLevel::Debug, true)] {
            let (text, _) = logged(LogFormat::Json, 16, level, |log, _| {
                let library = Logger::root(Quieter(log.clone()), o!("part" => "library"));
                slog::error!(library, # "actix_http::h1::dispatcher", "stream error: request parse error"; "n" => 1);
                slog::error!(library, # "other", "a thread died");
            });
            let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let levels: Vec<&str> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
            assert_eq!(levels, if seen { vec!["debug", "error"] } else { vec!["error"] }, "{text}");
            assert!(lines.iter().all(|line| line["part"] == "library"), "{text}");
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts_and_says_so() {
        struct Held(Arc<Mutex<()>>, Seen);
        impl Write for Held {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let _held = self.0.lock().unwrap();
                self.1.write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (gate, seen) = (Arc::new(Mutex::new(())), Seen::default());
        let sinks = Sinks { stderr: formatted(LogFormat::Text, Held(Arc::clone(&gate), seen.clone())), file: None };
        let (core, guard) = slog_async::AsyncCore::custom(sinks).chan_size(4).build_with_guard();
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let counting = Counting { core, dropped: Some(dropped.clone()), unreported: AtomicU64::new(0) };
        let log = Logger::root(Gate { level: Arc::new(AtomicU8::new(4)), inner: counting }, o!());
        let held = gate.lock().unwrap();
        for number in 0..50 {
            info!(log, "line {}", number);
        }
        assert!(dropped.get() >= 40, "{}", dropped.get());
        drop(held);
        while !seen.text().contains("were dropped") {
            info!(log, "room again");
            std::thread::yield_now();
        }
        drop(log);
        drop(guard);
    }

    #[test]
    fn a_log_file_is_cut_between_lines_and_old_ones_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ops.log");
        let limit = ContentLimit::BytesSurpassed(2000);
        let rotating = FileRotate::new(&path, AppendCount::new(2), limit, Compression::None, None);
        let sink = Sinks {
            stderr: formatted(LogFormat::Json, io::sink()),
            file: Some(formatted(LogFormat::Json, Lines { to: rotating, line: Vec::new() })),
        };
        let (core, guard) = slog_async::AsyncCore::custom(sink).chan_size(4096).build_with_guard();
        let log = Logger::root(
            Gate { level: Arc::new(AtomicU8::new(4)), inner: Counting { core, dropped: None, unreported: AtomicU64::new(0) } },
            o!(),
        );
        for number in 0..200 {
            info!(log, "line"; "number" => number);
        }
        drop(log);
        drop(guard);
        let files: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        for file in files {
            for line in std::fs::read_to_string(file).unwrap().lines() {
                serde_json::from_str::<serde_json::Value>(line).unwrap();
            }
        }
    }
}
