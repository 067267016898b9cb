//! What the tests of all detectors share: a recorded log, ways to cut it, and kills.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use opspilot_kernel::{
    alert::{AlertRecord, Transition},
    codec::{Labels, PieceBuilder},
    ids::Seq,
    signal::{AlertState, LogEntry, Severity, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};
use opspilot_runtime::Entries as _;
use proptest::prelude::*;

use crate::{Change, Detect, Shelf};

/// A whole number as a value.
pub(crate) fn number(whole: i64) -> f64 {
    f64::from(i32::try_from(whole).unwrap())
}

/// A moment, in milliseconds from the start of the test's time.
pub(crate) fn ms(millis: i64) -> Timestamp {
    Timestamp::from_millis(1_795_348_800_000 + millis)
}

/// A signal that owns its texts.
#[derive(Debug, Clone)]
pub(crate) struct Owned {
    pub(crate) kind: SignalKind,
    pub(crate) at: Timestamp,
    pub(crate) source: String,
    pub(crate) message: String,
    pub(crate) name: String,
    pub(crate) value: Option<f64>,
    pub(crate) severity: Severity,
    pub(crate) state: AlertState,
    pub(crate) fingerprint: String,
    pub(crate) title: String,
    pub(crate) labels: Vec<(String, String)>,
}

impl Owned {
    fn bare(kind: SignalKind, at: Timestamp, source: &str) -> Owned {
        Owned {
            kind,
            at,
            source: source.to_owned(),
            message: String::new(),
            name: String::new(),
            value: None,
            severity: Severity::Info,
            state: AlertState::Firing,
            fingerprint: String::new(),
            title: String::new(),
            labels: Vec::new(),
        }
    }

    pub(crate) fn log(at: Timestamp, source: &str, message: &str) -> Owned {
        Owned { message: message.to_owned(), ..Owned::bare(SignalKind::Log, at, source) }
    }

    pub(crate) fn metric(at: Timestamp, source: &str, name: &str, value: f64) -> Owned {
        Owned { name: name.to_owned(), value: Some(value), ..Owned::bare(SignalKind::Metric, at, source) }
    }

    pub(crate) fn alert(at: Timestamp, source: &str, name: &str, state: AlertState) -> Owned {
        Owned { name: name.to_owned(), state, severity: Severity::Error, ..Owned::bare(SignalKind::Alert, at, source) }
    }

    pub(crate) fn label(mut self, name: &str, value: &str) -> Owned {
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    fn push_to(&self, piece: &mut PieceBuilder) {
        let labels: Vec<(&str, &str)> = self.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        piece.push(&SignalRef {
            message: &self.message,
            name: &self.name,
            value: self.value,
            severity: self.severity,
            state: self.state,
            fingerprint: &self.fingerprint,
            title: &self.title,
            labels: Labels::Pairs(&labels),
            ..SignalRef::bare(self.kind, self.at, &self.source)
        });
    }
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A signal is taken in at this time.
    Signal(Timestamp, Owned),
    /// A tick is committed at this time.
    Tick(Timestamp),
}

impl Step {
    /// A log line that happens and is taken in at once.
    pub(crate) fn log(millis: i64, source: &str, message: &str) -> Step {
        Step::Signal(ms(millis), Owned::log(ms(millis), source, message))
    }

    /// A metric point that is measured and taken in at once.
    pub(crate) fn metric(millis: i64, source: &str, name: &str, value: f64) -> Step {
        Step::Signal(ms(millis), Owned::metric(ms(millis), source, name, value))
    }

    /// An outside alert.
    pub(crate) fn alert(millis: i64, source: &str, name: &str, state: AlertState) -> Step {
        Step::Signal(ms(millis), Owned::alert(ms(millis), source, name, state))
    }

    pub(crate) fn tick(millis: i64) -> Step {
        Step::Tick(ms(millis))
    }
}

/// The log of these steps; `cut` says, before each signal, whether a new batch begins with it.
pub(crate) fn log_of(steps: &[Step], mut cut: impl FnMut(usize) -> bool) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    let mut open: Option<(Seq, Timestamp, PieceBuilder)> = None;
    let close = |open: &mut Option<(Seq, Timestamp, PieceBuilder)>, entries: &mut Vec<LogEntry>| {
        if let Some((first_seq, received_at, piece)) = open.take() {
            let last_seq = first_seq + Seq::from(piece.count()) - 1;
            let kinds = piece.kinds();
            let pieces = vec![piece.into_bytes()];
            entries.push(LogEntry::Batch(Arc::new(SignalBlock { first_seq, last_seq, received_at, kinds, pieces })));
        }
    };
    for (index, (seq, step)) in (1..).zip(steps).enumerate() {
        match step {
            Step::Tick(at) => {
                close(&mut open, &mut entries);
                entries.push(LogEntry::Tick { seq, at: *at });
            }
            Step::Signal(received_at, signal) => {
                if cut(index) || open.as_ref().is_some_and(|(_, at, _)| at != received_at) {
                    close(&mut open, &mut entries);
                }
                let (_, _, piece) = open.get_or_insert_with(|| (seq, *received_at, PieceBuilder::default()));
                signal.push_to(piece);
            }
        }
    }
    close(&mut open, &mut entries);
    entries
}

/// What the detector says to these steps.
pub(crate) fn say<D: Detect>(mut detector: D, steps: &[Step]) -> Vec<AlertRecord> {
    let mut out = Vec::new();
    log_of(steps, |_| false).iter().for_each(|entry| detector.consume(entry, &mut out));
    out
}

/// The same in short: transition, count, rule and source of every record.
pub(crate) fn outline(records: &[AlertRecord]) -> Vec<String> {
    let line = |record: &AlertRecord| {
        let what = match record.transition {
            Transition::Firing => format!("firing {}", record.count),
            Transition::Repeat => format!("repeat {}", record.count),
            Transition::Resolved => format!("resolved {}", serde_json::to_value(record.resolved_by).unwrap().as_str().unwrap()),
        };
        format!("{:>6} {what} {} {}", record.logged_at.millis() - ms(0).millis(), record.rule, record.source)
    };
    records.iter().map(line).collect()
}

/// How a log is cut and where the process is killed.
#[derive(Debug, Clone)]
pub(crate) struct Fate {
    /// Before which signals a batch begins.
    cuts: Vec<bool>,
    /// After which entries output, cursor and state are committed, and whether it is killed then or
    /// in the middle of the next.
    commits: Vec<(bool, bool)>,
}

/// Any fate.
pub(crate) fn fate() -> impl Strategy<Value = Fate> {
    let cuts = proptest::collection::vec(any::<bool>(), 64);
    let commits = proptest::collection::vec((any::<bool>(), proptest::bool::weighted(0.3)), 64);
    (cuts, commits).prop_map(|(cuts, commits)| Fate { cuts, commits })
}

/// What a ledger would keep of a detector: pieces, and what lies on the shelf.
#[derive(Debug, Clone, Default)]
pub(crate) struct Store {
    pieces: BTreeMap<String, Vec<u8>>,
    shelf: TestShelf,
}

/// A shelf in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct TestShelf(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Shelf for TestShelf {
    fn keys(&self) -> Result<Vec<String>, String> {
        Ok(self.0.lock().unwrap().keys().cloned().collect())
    }

    fn read(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.0.lock().unwrap().get(key).cloned())
    }
}

fn put(into: &mut BTreeMap<String, Vec<u8>>, change: Change) {
    match change.body {
        Some(body) => into.insert(change.key, body),
        None => into.remove(&change.key),
    };
}

impl Store {
    /// Commits what the detector knows; of what goes on the shelf afterwards, only so many pieces.
    pub(crate) fn commit<D: Detect>(&mut self, detector: &mut D, most: usize) {
        loop {
            let changes = detector.changed();
            if changes.is_empty() {
                break;
            }
            changes.into_iter().for_each(|change| put(&mut self.pieces, change));
        }
        for change in detector.shelve().into_iter().take(most) {
            assert!(change.key.starts_with('~'), "{}", change.key);
            put(&mut self.shelf.0.lock().unwrap(), change);
        }
    }

    /// A detector as it is after a restart at `cursor` entries, and how many signals it was given again.
    pub(crate) fn restart<D: Detect>(&self, mut detector: D, entries: &[LogEntry]) -> (D, u64) {
        for (key, body) in &self.pieces {
            detector.restore(key, body).unwrap();
        }
        detector.begin(Box::new(self.shelf.clone())).unwrap();
        let mut again = 0;
        if let Some(behind) = detector.behind() {
            for entry in entries.iter().filter(|entry| entry.last_seq() > behind) {
                let last = entry.last_seq();
                if let Some(entry) = entry.clone().within(behind + 1, last) {
                    again += last + 1 - entry.first_seq();
                    detector.relearn(&entry);
                }
            }
            detector.relearned(entries.last().map_or(0, LogEntry::last_seq));
        }
        (detector, again)
    }

    /// Makes what lies there of a series unreadable.
    pub(crate) fn damage(&self, key: u64) {
        let mut shelf = self.shelf.0.lock().unwrap();
        shelf.iter_mut().filter(|(name, _)| name.ends_with(&format!("{key:016x}"))).for_each(|(_, body)| body.truncate(3));
    }

    /// The shelf.
    pub(crate) fn shelf(&self) -> TestShelf {
        self.shelf.clone()
    }

    /// How many pieces lie on the shelf.
    pub(crate) fn shelved(&self) -> usize {
        self.shelf.0.lock().unwrap().len()
    }
}

/// What comes out over all kills: committed output only, in order. A kill may come while the shelf is written.
pub(crate) fn survive<D: Detect>(make: impl Fn() -> D, steps: &[Step], fate: &Fate) -> Vec<AlertRecord> {
    let entries = log_of(steps, |index| fate.cuts[index % fate.cuts.len()]);
    let mut store = Store::default();
    let mut committed = Vec::new();
    let mut pending = Vec::new();
    let (mut cursor, mut at, mut turn) = (0, 0, 0);
    let (mut detector, _) = store.restart(make(), &[]);
    while cursor < entries.len() {
        if at < entries.len() {
            detector.consume(&entries[at], &mut pending);
            at += 1;
        }
        let (commit, kill) = fate.commits[turn % fate.commits.len()];
        let kill = kill && turn < 10 * entries.len();
        turn += 1;
        if commit || at == entries.len() {
            committed.append(&mut pending);
            store.commit(&mut detector, if kill { turn % 5 } else { usize::MAX });
            cursor = at;
        }
        if kill {
            pending.clear();
            at = cursor;
            detector = store.restart(make(), &entries[..cursor]).0;
        }
    }
    committed
}

/// Numbers that look random and are the same every time.
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
