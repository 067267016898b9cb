//! The evidence pack: everything that happened around an incident, summed up in bounded memory as it is read.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use opspilot_kernel::{
    signal::{Severity, SignalKind, SignalRef},
    time::Timestamp,
};

use super::words;

/// Parts that the time looked at is cut into.
const PARTS: i64 = 960;
/// The most of everything that is kept apart; what comes on top is only counted.
const SOURCES: usize = 256;
const SHAPES: usize = 1500;
const SERIES: usize = 500;
/// The most of a line that is kept, and of a name.
pub(super) const SAMPLE: usize = 1024;
const NAME: usize = 256;

/// The time an explanation looks at, by the senders' clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Window {
    /// Where it begins.
    pub(super) from: Timestamp,
    /// When the incident's first sign was seen.
    pub(super) onset: Timestamp,
    /// Where it ends.
    pub(super) to: Timestamp,
}

impl Window {
    fn width(&self) -> i64 {
        (self.to.millis().saturating_sub(self.from.millis()) / PARTS).max(1)
    }

    /// The part of the window that holds `at`.
    pub(super) fn part(&self, at: Timestamp) -> u16 {
        u16::try_from((at.millis().saturating_sub(self.from.millis()) / self.width()).clamp(0, PARTS)).unwrap_or(0)
    }

    /// When a part begins.
    pub(super) fn at(&self, part: u16) -> Timestamp {
        Timestamp::from_millis(self.from.millis().saturating_add(i64::from(part).saturating_mul(self.width())))
    }
}

/// Lines that differ only in their data.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Whose; an index into the sources.
    pub(super) source: usize,
    /// How bad they say they are.
    pub(super) severity: Severity,
    /// Whether they tell of trouble.
    pub(super) bad: bool,
    /// The first of them, cut.
    pub(super) sample: String,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) count: u64,
    /// Until the incident began: how many, and the last of them.
    pub(super) before: u64,
    pub(super) last_before: Timestamp,
    /// How many in each part of the window.
    pub(super) parts: BTreeMap<u16, u32>,
}

/// What a metric came to in one part of the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct Points {
    pub(super) count: u32,
    pub(super) sum: f64,
    pub(super) least: (f64, Timestamp),
    pub(super) most: (f64, Timestamp),
}

impl Points {
    pub(super) fn mean(&self) -> f64 {
        self.sum / f64::from(self.count.max(1))
    }
}

/// One metric of one source with one set of labels.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) source: usize,
    pub(super) name: String,
    pub(super) parts: BTreeMap<u16, Points>,
    pub(super) count: u64,
    pub(super) last: Timestamp,
}

/// Somebody that observes something.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) name: String,
    /// All its lines, in each part of the window.
    pub(super) lines: BTreeMap<u16, u32>,
    pub(super) count: u64,
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
}

/// The pack.
#[derive(Debug, Clone)]
pub(super) struct Pack {
    pub(super) window: Window,
    pub(super) sources: Vec<Source>,
    pub(super) shapes: Vec<Shape>,
    pub(super) series: Vec<Series>,
    /// Signals in the window.
    pub(super) signals: u64,
    /// Signals in it that were only counted, since there were too many different ones.
    pub(super) beyond: u64,
    /// When the first signal of the window was seen.
    pub(super) since: Timestamp,
    /// When the last one was, or the onset.
    pub(super) until: Timestamp,
    /// Lines and lines that tell of trouble, before the onset and from then on.
    pub(super) lines: [u64; 2],
    pub(super) bad: [u64; 2],
    /// Shapes of lines that tell of nothing bad, and of those that do.
    kinds: (usize, usize),
    source_ids: HashMap<String, usize>,
    shape_ids: HashMap<(usize, Severity, u64), usize>,
    series_ids: HashMap<(usize, u64), usize>,
}

impl Pack {
    /// A pack of nothing yet.
    pub(super) fn new(window: Window) -> Pack {
        Pack {
            window,
            sources: Vec::new(),
            shapes: Vec::new(),
            series: Vec::new(),
            signals: 0,
            beyond: 0,
            since: window.onset,
            until: window.onset,
            lines: [0; 2],
            bad: [0; 2],
            kinds: (0, 0),
            source_ids: HashMap::new(),
            shape_ids: HashMap::new(),
            series_ids: HashMap::new(),
        }
    }

    /// Takes a signal in, in any order.
    pub(super) fn take(&mut self, signal: &SignalRef<'_>) {
        if signal.at < self.window.from || signal.at > self.window.to || signal.kind == SignalKind::Alert {
            return;
        }
        self.signals = self.signals.saturating_add(1);
        self.since = self.since.min(signal.at);
        self.until = self.until.max(signal.at);
        let kept = match (self.source(signal.source, signal.at), signal.kind, signal.value) {
            (Some(source), SignalKind::Log, _) => self.line(source, signal),
            (Some(source), SignalKind::Metric, Some(value)) => self.point(source, signal, value),
            _ => false,
        };
        self.beyond = self.beyond.saturating_add(u64::from(!kept));
    }

    fn source(&mut self, name: &str, at: Timestamp) -> Option<usize> {
        let name = words::cut(name, NAME);
        if let Some(known) = self.source_ids.get(name) {
            if let Some(source) = self.sources.get_mut(*known) {
                source.first = source.first.min(at);
                source.last = source.last.max(at);
                source.count = source.count.saturating_add(1);
            }
            return Some(*known);
        }
        if self.sources.len() >= SOURCES {
            return None;
        }
        self.source_ids.insert(name.to_owned(), self.sources.len());
        self.sources.push(Source { name: name.to_owned(), lines: BTreeMap::new(), count: 1, first: at, last: at });
        self.sources.len().checked_sub(1)
    }

    fn line(&mut self, source: usize, signal: &SignalRef<'_>) -> bool {
        let at = signal.at;
        let part = self.window.part(at);
        let since = usize::from(at >= self.window.onset);
        if let Some(own) = self.sources.get_mut(source) {
            let count = own.lines.entry(part).or_default();
            *count = count.saturating_add(1);
        }
        let key = (source, signal.severity, words::shape(signal.message));
        let known = self.shape_ids.get(&key).copied();
        let index = match known {
            Some(index) => index,
            None if self.kinds.0 >= SHAPES && self.kinds.1 >= SHAPES => return false,
            None => {
                let bad = signal.severity >= Severity::Warning || words::is_bad(signal.message);
                // lines that tell of trouble have room of their own, so that chatter cannot crowd them out
                let alike = if bad { &mut self.kinds.1 } else { &mut self.kinds.0 };
                if *alike >= SHAPES {
                    return false;
                }
                *alike += 1;
                self.shape_ids.insert(key, self.shapes.len());
                self.shapes.push(Shape {
                    source,
                    severity: signal.severity,
                    bad,
                    sample: words::cut(signal.message, SAMPLE).to_owned(),
                    first: at,
                    last: at,
                    count: 0,
                    before: 0,
                    last_before: Timestamp::ZERO,
                    parts: BTreeMap::new(),
                });
                self.shapes.len().saturating_sub(1)
            }
        };
        let Some(shape) = self.shapes.get_mut(index) else { return false };
        if at < shape.first {
            shape.first = at;
            shape.sample = words::cut(signal.message, SAMPLE).to_owned();
        }
        shape.last = shape.last.max(at);
        shape.count = shape.count.saturating_add(1);
        let count = shape.parts.entry(part).or_default();
        *count = count.saturating_add(1);
        if at <= self.window.onset {
            shape.before = shape.before.saturating_add(1);
            shape.last_before = shape.last_before.max(at);
        }
        let bad = u64::from(shape.bad);
        for (counts, more) in [(&mut self.lines, 1), (&mut self.bad, bad)] {
            if let Some(count) = counts.get_mut(since) {
                *count = count.saturating_add(more);
            }
        }
        true
    }

    fn point(&mut self, source: usize, signal: &SignalRef<'_>, value: f64) -> bool {
        let at = signal.at;
        let mut hash = DefaultHasher::new();
        words::cut(signal.name, NAME).hash(&mut hash);
        signal.labels.iter().for_each(|label| label.hash(&mut hash));
        let key = (source, hash.finish());
        let index = match self.series_ids.get(&key) {
            Some(index) => *index,
            None if self.series.len() >= SERIES => return false,
            None => {
                self.series_ids.insert(key, self.series.len());
                let name = words::cut(signal.name, NAME).to_owned();
                self.series.push(Series { source, name, parts: BTreeMap::new(), count: 0, last: at });
                self.series.len().saturating_sub(1)
            }
        };
        let part = self.window.part(at);
        let Some(series) = self.series.get_mut(index) else { return false };
        series.count = series.count.saturating_add(1);
        series.last = series.last.max(at);
        let fresh = Points { count: 0, sum: 0.0, least: (value, at), most: (value, at) };
        let points = series.parts.entry(part).or_insert(fresh);
        points.count = points.count.saturating_add(1);
        points.sum += value;
        // of equal values the earliest, so that the order they are read in does not matter
        if (value, at) < points.least {
            points.least = (value, at);
        }
        if value > points.most.0 || (value >= points.most.0 && at < points.most.1) {
            points.most = (value, at);
        }
        true
    }

    /// The name of a source.
    pub(super) fn name(&self, source: usize) -> &str {
        self.sources.get(source).map_or("", |source| source.name.as_str())
    }

    /// How many things are kept apart: bounded, whatever was read.
    #[cfg(test)]
    pub(super) fn kept(&self) -> (usize, usize, usize) {
        (self.sources.len(), self.shapes.len(), self.series.len())
    }
}
