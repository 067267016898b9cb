//! `opspilot replay`: detection over recorded signals; what would have fired.
//!
//! Exit codes: 0 replayed, whatever fired and however many lines could not be read; 1 nothing could be replayed (the
//! configuration, a file, or every line of the input is wrong); 2 replayed, but an input could not be read to its end.

use std::{
    fs::{self, File},
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use opspilot_connectors::syslog::Offset;
use opspilot_kernel::{
    clock::SystemClock,
    config::Span,
    ids::Seq,
    signal::{LogEntry, SignalBlock},
    time::Timestamp,
};
use opspilot_ledger::Recorded;

use super::{
    Failure, Outcome,
    output::{complain, say_json},
};
use crate::{
    config::{Config, Flags, Sources, load},
    replay::{
        Run,
        drive::{Drive, detectors},
        input::{self, Counted, Format, Origin, Reading},
        order::{Disorder, Merged},
        report::{self, Facts, Side},
        story::Story,
    },
    topology::catalogue,
};

/// An input could not be read to its end.
const CUT_OFF: u8 = 2;
/// Runs that are handed on at a time, and how many such parts may wait.
const PART: usize = 4096;
const PARTS: usize = 8;
/// What is read of a data directory at a time.
const CHUNK: usize = 4 << 20;
/// The service's ticker is behind its timers by less than this: a recorded log has its ticks there.
const RECORDED_GRACE: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 replayed; 1 nothing could be replayed; 2 replayed, but an input could not be read to its end.")]
pub(crate) struct Replay {
    /// Recordings: NDJSON as POST /api/events takes it, CSV, or syslog; .gz and .zst too; - is standard input
    #[arg(required_unless_present = "data", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Replay the signals of a data directory or of a backup instead; nothing is written there
    #[arg(long, value_name = "DIR", conflicts_with = "files")]
    data: Option<PathBuf>,
    /// The configuration; without one the defaults
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Say what another configuration would change
    #[arg(long, value_name = "OTHER")]
    diff: Option<PathBuf>,
    /// What the files are written in
    #[arg(long, value_enum, default_value_t = Format::Auto)]
    format: Format,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// CSV: the metric's name [default: the file's name without its ending]
    #[arg(long)]
    name: Option<String>,
    /// CSV and syslog: the source, where nothing else names one [default: the file's name without its ending]
    #[arg(long)]
    source: Option<String>,
    /// Syslog: the year of the first line, where lines have none [default: by the time the file was changed last]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1970..=9998))]
    year: Option<u16>,
    /// How far times that name no zone are ahead of UTC, such as +02:00 [default: they are UTC]
    #[arg(long, value_name = "OFFSET", allow_hyphen_values = true)]
    utc_offset: Option<Offset>,
    /// Put signals in the order of their times first, as far as N signals reach [default without N: 1000000]
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1000000",
        value_parser = clap::value_parser!(u32).range(1..=50_000_000))]
    sort: Option<u32>,
    /// Let so much time pass behind the last signal, such as 30m
    #[arg(long, value_name = "SPAN")]
    after: Option<Span>,
    /// Alerts and incidents that a table shows
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

/// What comes next, and when it was received.
type Next = (Timestamp, Run);

impl Replay {
    pub(crate) fn run(self) -> Outcome {
        let config = configuration(self.config.clone())?;
        let other = self.diff.clone().map(|file| configuration(Some(file))).transpose()?;
        let grace = if self.data.is_some() { RECORDED_GRACE } else { Duration::ZERO };
        let configs: Vec<Config> = std::iter::once(config).chain(other).collect();
        let mut drives = Vec::new();
        for config in &configs {
            drives.push(Drive::new(detectors(config)?, Story::new(config)?, grace));
        }
        let clock = SystemClock::shared();
        let begun = clock.elapsed();
        let facts = match &self.data {
            Some(data) => recorded(data, &mut drives)?,
            None => self.files(&mut drives)?,
        };
        if let (Some(after), Some(to)) = (self.after, facts.to) {
            drives.iter_mut().for_each(|drive| drive.pass(to.after(after.0)));
        }
        pace(&facts, clock.elapsed().saturating_sub(begun));
        self.show(&facts, drives)
    }

    fn show(&self, facts: &Facts, drives: Vec<Drive<Story>>) -> Outcome {
        for file in &facts.files {
            for bad in &file.first_bad {
                complain(&format!("{}: line {}: {}", file.name, bad.line, bad.why));
            }
        }
        if facts.signals == 0 && facts.files.iter().any(|file| file.bad_lines > 0) {
            return Err("no line of the input could be read; --format says what it is written in".into());
        }
        let mut sides = drives.into_iter().map(|drive| Side { counted: drive.counted(), hurried: drive.hurried, story: drive.hears });
        match (sides.next(), sides.next()) {
            (Some(before), Some(after)) => {
                let difference = report::compared(&before, &after);
                if self.json {
                    say_json(&difference.json(facts, &before, &after));
                } else {
                    report::show_difference(facts, &difference);
                }
            }
            (Some(side), None) if self.json => say_json(&report::json(facts, &side)),
            (Some(side), None) => report::show(facts, &side, self.limit),
            (None, _) => {}
        }
        match facts.files.iter().find_map(|file| file.cut_off.as_ref().map(|why| (file, why))) {
            Some((file, why)) => Err(Failure { text: format!("{} was not read to its end: {why}", file.name), code: CUT_OFF }),
            None => Ok(()),
        }
    }

    fn files(&self, drives: &mut [Drive<Story>]) -> Result<Facts, Failure> {
        let reading = Reading {
            format: self.format,
            name: self.name.clone(),
            source: self.source.clone(),
            year: self.year,
            offset: self.utc_offset.unwrap_or_default(),
            single: self.sort.is_some(),
        };
        let read = Arc::new(AtomicU64::new(0));
        let (mut recordings, mut size) = (Vec::new(), 0);
        for path in &self.files {
            let (origin, bytes) = origin(path, &read)?;
            size += bytes;
            recordings.push(input::open(origin, &reading)?);
        }
        let reports: Vec<_> = recordings.iter().map(input::Recording::report).collect();
        let window = usize::try_from(self.sort.unwrap_or(0)).unwrap_or(usize::MAX);
        // reading and detecting share nothing, so each has a thread
        let (parts, ready) = sync_channel::<Vec<Next>>(PARTS);
        let reader = std::thread::Builder::new().name("replay-read".to_owned()).spawn(move || {
            let mut merged = Merged::new(recordings, window);
            loop {
                let part: Vec<Next> = merged.by_ref().take(PART).collect();
                if part.is_empty() || parts.send(part).is_err() {
                    return merged.disorder();
                }
            }
        })?;
        let mut facts = Facts::default();
        replay(&ready, drives, &mut facts, &bar(size), &read);
        facts.disorder = reader.join().map_err(|_| Failure::from("the recording could not be read: a part of this program failed"))?;
        facts.files = reports.iter().map(input::Shared::get).collect();
        Ok(facts)
    }
}

/// Drives the detectors over what is read.
fn replay(ready: &Receiver<Vec<Next>>, drives: &mut [Drive<Story>], facts: &mut Facts, bar: &ProgressBar, read: &AtomicU64) {
    let mut next: Seq = 1;
    for part in ready {
        for (received_at, run) in part {
            let last_seq = next + Seq::from(run.count) - 1;
            let block = SignalBlock { first_seq: next, last_seq, received_at, kinds: run.kinds, pieces: vec![run.piece] };
            next = last_seq + 1;
            let entry = LogEntry::Batch(Arc::new(block));
            drives.iter_mut().for_each(|drive| drive.feed(&entry, received_at));
            facts.signals += u64::from(run.count);
            facts.from.get_or_insert(received_at);
            facts.to = Some(received_at);
        }
        bar.set_position(read.load(Ordering::Relaxed));
    }
    bar.finish_and_clear();
}

/// The signals of a data directory, with the times at which the service received them.
fn recorded(path: &Path, drives: &mut [Drive<Story>]) -> Result<Facts, Failure> {
    let refused = |error: opspilot_ledger::LedgerError| {
        Failure::from(format!("the signals in {} cannot be read: {error}; --data names a data directory or a backup", path.display()))
    };
    let mut log = Recorded::open(path).map_err(refused)?;
    let bar = ProgressBar::new(log.head());
    let (mut facts, mut clock) = (Facts::default(), Timestamp::ZERO);
    let mut late = Disorder::default();
    loop {
        let entries = log.next(CHUNK).map_err(refused)?;
        if entries.is_empty() {
            break;
        }
        for entry in &entries {
            let at = match entry {
                LogEntry::Batch(block) => {
                    facts.signals += block.last_seq + 1 - block.first_seq;
                    facts.from.get_or_insert(block.received_at);
                    block.received_at
                }
                LogEntry::Tick { at, .. } => *at,
                // one configuration holds for the whole replay
                LogEntry::Reload { .. } => continue,
            };
            if at < clock {
                late.late += 1;
                let by = u64::try_from(clock.since(at).as_millis()).unwrap_or(u64::MAX);
                late.latest_ms = late.latest_ms.max(by);
            }
            clock = clock.max(at);
            facts.to = Some(clock);
            drives.iter_mut().for_each(|drive| drive.feed(entry, at));
            bar.set_position(entry.last_seq());
        }
    }
    bar.finish_and_clear();
    facts.disorder = late;
    Ok(facts)
}

/// Where a recording comes from, and how many bytes that is.
fn origin(path: &Path, read: &Arc<AtomicU64>) -> Result<(Origin, u64), Failure> {
    let now = SystemClock::shared().now();
    if path == Path::new("-") {
        let reader = Box::new(Counted { inner: io::stdin(), read: Arc::clone(read) });
        return Ok((Origin { name: "standard input".to_owned(), path: None, changed: now, reader }, 0));
    }
    let name = path.display().to_string();
    let cannot = |error: io::Error| Failure::from(format!("cannot read {name}: {error}"));
    let about = fs::metadata(path).map_err(cannot)?;
    if about.is_dir() {
        return Err(format!("{name} is a folder; --data replays a data directory").into());
    }
    let file = File::open(path).map_err(cannot)?;
    let changed = about.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    let changed = changed.map_or(now, |since| Timestamp::ZERO.after(since));
    let reader = Box::new(Counted { inner: file, read: Arc::clone(read) });
    Ok((Origin { name, path: Some(path.to_owned()), changed, reader }, about.len()))
}

/// The configuration in `file`, or the defaults.
pub(super) fn configuration(file: Option<PathBuf>) -> Result<Config, Failure> {
    let catalogue = catalogue();
    load(&Sources::of_process(file, Flags::default()), &catalogue).map_err(|report| Failure::from(report.to_string()))
}

fn bar(size: u64) -> ProgressBar {
    let template = "{bar:30} {percent}% {bytes}/{total_bytes} {bytes_per_sec}, {eta} left";
    match ProgressStyle::with_template(template) {
        Ok(style) if size > 0 => ProgressBar::new(size).with_style(style),
        _ => ProgressBar::new_spinner().with_message("replaying"),
    }
}

/// How fast it went, for whoever sits there: not part of the result, which is the same every time.
fn pace(facts: &Facts, took: Duration) {
    if !io::stderr().is_terminal() && took < Duration::from_secs(2) {
        return;
    }
    let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
    let rate = facts.signals.saturating_mul(1000) / millis;
    complain(&format!(
        "replayed {} signals in {} ({} a second)",
        report::grouped(facts.signals),
        report::span(took),
        report::grouped(rate)
    ));
}
