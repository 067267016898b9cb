//! What is known of each source, and of each of its templates.

use std::collections::{BTreeSet, HashMap};

use opspilot_kernel::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::{
    miner::TemplateId,
    rate::{Pauses, Rate},
};
use crate::state::Change;

const SOURCE: &str = "source/";
const SERIES: &str = "series/";

/// A source under a rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    pub(super) rule: String,
    pub(super) name: String,
    /// Since when it is followed, how many lines it wrote since then, and when the newest was received.
    pub(super) since: Timestamp,
    pub(super) lines: u64,
    pub(super) last: Timestamp,
    #[serde(skip)]
    dirty: bool,
}

/// A template in a source.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) source: u64,
    pub(super) template: TemplateId,
    pub(super) last: Timestamp,
    pub(super) rate: Rate,
    pub(super) pauses: Pauses,
    /// Whether it was told of as new, and as stopped.
    pub(super) told: bool,
    pub(super) stopped: bool,
    /// When its silence is looked at again: if that was put off, or to say that it goes on.
    pub(super) look_at: Option<Timestamp>,
    /// Lines of a minute that may become a burst.
    pub(super) sample: Vec<String>,
    #[serde(skip)]
    pub(super) entered: Option<Timestamp>,
    #[serde(skip)]
    dirty: bool,
}

impl Series {
    pub(super) fn new(source: u64, template: TemplateId, now: Timestamp) -> Series {
        Series {
            source,
            template,
            last: now,
            rate: Rate::new(now),
            pauses: Pauses::default(),
            told: false,
            stopped: false,
            look_at: None,
            sample: Vec::new(),
            entered: None,
            dirty: false,
        }
    }

    /// When its silence is to be looked at; never, unless it came regularly.
    pub(super) fn due(&self) -> Option<Timestamp> {
        if self.stopped {
            return self.look_at;
        }
        let silence = self.pauses.silence()?;
        Some(self.last.after(silence).max(self.look_at.unwrap_or(Timestamp::ZERO)))
    }
}

/// All of them, and what of them is to be stored.
#[derive(Debug)]
pub(super) struct Book {
    max: usize,
    pub(super) sources: HashMap<u64, Source>,
    pub(super) series: HashMap<u64, Series>,
    by_template: HashMap<TemplateId, Vec<u64>>,
    dirty_sources: Vec<u64>,
    dirty: Vec<u64>,
    gone: BTreeSet<String>,
    /// Templates of series that changed and were forgotten before that was stored.
    lost: BTreeSet<TemplateId>,
    evicted: u64,
}

/// Names a template in a source.
pub(super) fn key(source: u64, template: TemplateId) -> u64 {
    (source.rotate_left(29) ^ template.0).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}

impl Book {
    pub(super) fn new(max: usize) -> Book {
        Book {
            max: max.max(1),
            sources: HashMap::new(),
            series: HashMap::new(),
            by_template: HashMap::new(),
            dirty_sources: Vec::new(),
            dirty: Vec::new(),
            gone: BTreeSet::new(),
            lost: BTreeSet::new(),
            evicted: 0,
        }
    }

    pub(super) fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn is_full(&self) -> bool {
        self.series.len() >= self.max
    }

    /// Counts a line of the source: since when it is followed, and how many lines came.
    pub(super) fn heard(&mut self, key: u64, rule: &str, name: &str, now: Timestamp) -> (Timestamp, u64) {
        if !self.sources.contains_key(&key) {
            if self.sources.len() >= self.max {
                self.forget_sources();
            }
            let source = Source { rule: rule.to_owned(), name: name.to_owned(), since: now, lines: 0, last: now, dirty: false };
            self.gone.remove(&format!("{SOURCE}{key:016x}"));
            self.sources.insert(key, source);
        }
        let Some(source) = self.sources.get_mut(&key) else { return (now, 0) };
        source.lines = source.lines.saturating_add(1);
        source.last = now;
        // a clock that was set back must not make it young for ever
        source.since = source.since.min(now);
        if !std::mem::replace(&mut source.dirty, true) {
            self.dirty_sources.push(key);
        }
        (source.since, source.lines)
    }

    fn forget_sources(&mut self) {
        let mut order: Vec<(Timestamp, u64)> = self.sources.iter().map(|(key, source)| (source.last, *key)).collect();
        order.sort_unstable();
        for (_, key) in order.into_iter().take((self.max / 16).max(1)) {
            self.sources.remove(&key);
            self.gone.insert(format!("{SOURCE}{key:016x}"));
            self.evicted = self.evicted.saturating_add(1);
        }
    }

    /// Has it stored, after it was changed.
    pub(super) fn mark(&mut self, key: u64) {
        if let Some(series) = self.series.get_mut(&key)
            && !std::mem::replace(&mut series.dirty, true)
        {
            self.dirty.push(key);
        }
    }

    /// Follows a template; forgets others if there is no room. Says which.
    pub(super) fn add(&mut self, key: u64, series: Series) -> Vec<(u64, Series)> {
        let mut forgotten = Vec::new();
        if self.is_full() {
            let mut order: Vec<(Timestamp, u64)> = self.series.iter().map(|(key, series)| (series.last, *key)).collect();
            order.sort_unstable();
            for (_, key) in order.into_iter().take((self.max / 16).max(1)) {
                forgotten.extend(self.remove(key).map(|series| (key, series)));
                self.evicted = self.evicted.saturating_add(1);
            }
        }
        self.put(key, series);
        self.mark(key);
        forgotten
    }

    fn put(&mut self, key: u64, series: Series) {
        self.gone.remove(&format!("{SERIES}{key:016x}"));
        self.by_template.entry(series.template).or_default().push(key);
        self.series.insert(key, series);
    }

    pub(super) fn remove(&mut self, key: u64) -> Option<Series> {
        let series = self.series.remove(&key)?;
        if series.dirty {
            self.lost.insert(series.template);
        }
        if let Some(keys) = self.by_template.get_mut(&series.template) {
            keys.retain(|other| *other != key);
            if keys.is_empty() {
                self.by_template.remove(&series.template);
            }
        }
        self.gone.insert(format!("{SERIES}{key:016x}"));
        Some(series)
    }

    /// The template is gone, or `into` is what it is now: what was known of it is forgotten, or passed on. Says what was
    /// taken out.
    pub(super) fn drop_template(&mut self, template: TemplateId, into: Option<TemplateId>) -> Vec<(u64, Series)> {
        let mut keys = self.by_template.get(&template).cloned().unwrap_or_default();
        keys.sort_unstable();
        let mut taken = Vec::new();
        for old in keys {
            let Some(series) = self.remove(old) else { continue };
            if let Some(into) = into {
                let new = key(series.source, into);
                match self.series.get_mut(&new) {
                    Some(known) => {
                        known.rate.join(series.rate.clone());
                        known.last = known.last.max(series.last);
                    }
                    None => {
                        let moved = Series { template: into, entered: None, told: false, stopped: false, look_at: None, ..series.clone() };
                        self.put(new, Series { dirty: false, ..moved });
                    }
                }
                self.mark(new);
            }
            taken.push((old, series));
        }
        taken
    }

    pub(super) fn touch(&mut self) {
        let (sources, series): (Vec<u64>, Vec<u64>) = (self.sources.keys().copied().collect(), self.series.keys().copied().collect());
        for key in sources {
            if let Some(source) = self.sources.get_mut(&key)
                && !std::mem::replace(&mut source.dirty, true)
            {
                self.dirty_sources.push(key);
            }
        }
        series.into_iter().for_each(|key| self.mark(key));
    }

    /// What changed since the last call; the templates of what did are added to `touched`.
    pub(super) fn changed(&mut self, changes: &mut Vec<Change>, touched: &mut BTreeSet<TemplateId>) {
        changes.extend(std::mem::take(&mut self.gone).into_iter().map(Change::gone));
        let (mut sources, mut series) = (std::mem::take(&mut self.dirty_sources), std::mem::take(&mut self.dirty));
        sources.sort_unstable();
        series.sort_unstable();
        sources.dedup();
        series.dedup();
        touched.append(&mut self.lost);
        for key in sources {
            if let Some(source) = self.sources.get_mut(&key) {
                source.dirty = false;
                changes.push(Change::of(format!("{SOURCE}{key:016x}"), Some(&*source)));
            }
        }
        for key in series {
            if let Some(series) = self.series.get_mut(&key) {
                series.dirty = false;
                touched.insert(series.template);
                changes.push(Change::of(format!("{SERIES}{key:016x}"), Some(&*series)));
            }
        }
    }

    /// Takes a piece back; nothing if it is none of these, and otherwise the series whose silence may fall due. What belongs
    /// to a rule that is gone is removed once everything is restored, by [`Book::settle`].
    pub(super) fn restore(&mut self, key: &str, body: &[u8]) -> Result<Option<Option<u64>>, String> {
        let number = |digits: &str| u64::from_str_radix(digits, 16).map_err(|error| error.to_string());
        let read = |error: serde_json::Error| error.to_string();
        if let Some(digits) = key.strip_prefix(SOURCE) {
            self.sources.insert(number(digits)?, serde_json::from_slice(body).map_err(read)?);
            return Ok(Some(None));
        }
        if let Some(digits) = key.strip_prefix(SERIES) {
            let key = number(digits)?;
            self.put(key, serde_json::from_slice(body).map_err(read)?);
            return Ok(Some(Some(key)));
        }
        Ok(None)
    }

    /// Forgets the sources of rules that are gone, and what is known of them.
    pub(super) fn settle(&mut self, is_rule: impl Fn(&str) -> bool) {
        let stray: Vec<u64> = self.sources.iter().filter(|(_, source)| !is_rule(&source.rule)).map(|(key, _)| *key).collect();
        if stray.is_empty() {
            return;
        }
        for key in &stray {
            self.sources.remove(key);
            self.gone.insert(format!("{SOURCE}{key:016x}"));
        }
        let lost: Vec<u64> = self.series.iter().filter(|(_, series)| stray.contains(&series.source)).map(|(key, _)| *key).collect();
        lost.into_iter().for_each(|key| drop(self.remove(key)));
    }
}
