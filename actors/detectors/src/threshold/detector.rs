//! The detector itself: pure, fed with the log, asked for what it has to say.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy},
    fingerprint::Fingerprint,
    ids::Seq,
    signal::{LogEntry, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};

use super::{
    config::Config,
    series::{self, Compiled, Point, Series},
};
use crate::{counts::Counts, deadlines::Deadlines, detect::Detect, episodes::Moment, state::Change};

/// What a series is stored under.
const PREFIX: &str = "series/";

/// Bytes of names and labels that are kept: they come from whoever sends.
const SERIES_BYTES: usize = 64 << 20;

/// Watches the series that rules are about.
#[derive(Debug)]
pub struct Detector {
    rules: Vec<Compiled>,
    /// The rules about each metric.
    by_metric: HashMap<String, Vec<usize>>,
    series: HashMap<u64, Tracked>,
    max_series: usize,
    /// What the names and labels of `series` take, and may take.
    bytes: usize,
    pub(super) max_bytes: usize,
    /// When a wait is over or an alert ends for want of samples: these ask for a tick.
    timers: Deadlines,
    /// When a series is forgotten: this waits for whatever comes next.
    idle: Deadlines,
    /// Restored series whose rule is gone or means something else.
    orphans: BTreeMap<u64, Series>,
    dirty: HashSet<u64>,
    counts: Counts,
}

#[derive(Debug)]
struct Tracked {
    series: Series,
    rule: usize,
    timer: Option<Timestamp>,
    idle: Option<Timestamp>,
}

impl Detector {
    /// A detector for a configuration that has been checked.
    pub fn new(config: Config) -> Detector {
        let max_series = config.max_series.max(1);
        let rules: Vec<Compiled> = config.effective_rules().into_iter().map(Compiled::new).collect();
        let mut by_metric: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, compiled) in rules.iter().enumerate() {
            by_metric.entry(compiled.rule.metric.clone()).or_default().push(index);
        }
        Detector {
            rules,
            by_metric,
            series: HashMap::new(),
            max_series,
            bytes: 0,
            max_bytes: SERIES_BYTES,
            timers: Deadlines::default(),
            idle: Deadlines::default(),
            orphans: BTreeMap::new(),
            dirty: HashSet::new(),
            counts: Counts::default(),
        }
    }

    fn samples(&mut self, block: &SignalBlock, out: &mut Vec<AlertRecord>) {
        for (seq, record) in block.iter() {
            match record.kind() {
                Ok(SignalKind::Metric) => {}
                Ok(_) => continue,
                Err(_) => {
                    self.counts.damaged += 1;
                    continue;
                }
            }
            let Ok(signal) = record.decode() else {
                self.counts.damaged += 1;
                continue;
            };
            let Some(concerned) = self.by_metric.get(signal.name) else { continue };
            let Some(value) = signal.value.filter(|value| value.is_finite()) else {
                self.counts.ignored += 1;
                continue;
            };
            let point = Point { seq, at: signal.at, logged_at: block.received_at, value };
            for index in concerned.clone() {
                self.sample(index, &signal, point, out);
            }
        }
    }

    fn sample(&mut self, index: usize, signal: &SignalRef<'_>, point: Point, out: &mut Vec<AlertRecord>) {
        let Some(compiled) = self.rules.get(index) else { return };
        let rule = &compiled.rule;
        if rule.source.as_deref().is_some_and(|source| source != signal.source)
            || rule.labels.iter().any(|(name, value)| signal.labels.get(name) != Some(value))
        {
            return;
        }
        self.counts.matched += 1;
        let fingerprint = fingerprint(&rule.id, signal);
        let key = fingerprint.as_u64();
        if !self.series.contains_key(&key) {
            let labels = signal.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let series = Series::new(compiled, signal.source, labels, point);
            while !self.series.is_empty() && !self.has_room(&series) {
                self.evict(Moment { seq: point.seq, at: point.logged_at }, out);
            }
            self.enter(key, series, index);
        }
        let Some(compiled) = self.rules.get(index) else { return };
        let Some(tracked) = self.series.get_mut(&key) else { return };
        if !tracked.series.observe(fingerprint, compiled, point, out) {
            self.counts.ignored += 1;
            return;
        }
        self.dirty.insert(key);
        self.schedule(key);
    }

    fn has_room(&self, series: &Series) -> bool {
        self.series.len() < self.max_series && self.bytes.saturating_add(series.bytes()) <= self.max_bytes
    }

    fn enter(&mut self, key: u64, series: Series, rule: usize) {
        self.bytes = self.bytes.saturating_add(series.bytes());
        let former = self.series.insert(key, Tracked { series, rule, timer: None, idle: None });
        self.bytes = self.bytes.saturating_sub(former.map_or(0, |former| former.series.bytes()));
    }

    /// Enters the series' deadlines.
    fn schedule(&mut self, key: u64) {
        let Some(tracked) = self.series.get_mut(&key) else { return };
        let Some(compiled) = self.rules.get(tracked.rule) else { return };
        self.idle.set(key, &mut tracked.idle, tracked.series.ends_at(compiled));
        match tracked.series.timer(compiled) {
            Some(due) => self.timers.set(key, &mut tracked.timer, due),
            None => self.timers.clear(key, &mut tracked.timer),
        }
    }

    fn advance(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        for (key, series) in std::mem::take(&mut self.orphans) {
            self.dirty.insert(key);
            if let Some((mut series, compiled)) = series::abandoned(series) {
                series.resolve(Fingerprint::from_u64(key), &compiled, ResolvedBy::RuleChanged, None, moment, out);
            }
        }
        while let Some((due, key)) = self.timers.first()
            && due <= moment.at
        {
            self.timer_is_due(key, due, moment, out);
        }
        while let Some((due, key)) = self.idle.first()
            && due <= moment.at
        {
            if !self.is_stale(key, due) {
                self.forget(key, None, moment, out);
            }
        }
    }

    fn timer_is_due(&mut self, key: u64, due: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) {
        let mut entered = Some(due);
        self.timers.clear(key, &mut entered);
        let Some(tracked) = self.series.get_mut(&key) else { return };
        tracked.timer = None;
        let Some(compiled) = self.rules.get(tracked.rule) else { return };
        match tracked.series.timer(compiled) {
            None => {}
            Some(later) if later > due => self.timers.set(key, &mut tracked.timer, later),
            Some(_) if tracked.series.is_firing() => self.forget(key, None, moment, out),
            Some(_) => {
                tracked.series.wait_is_over(Fingerprint::from_u64(key), compiled, moment, out);
                // one that is silent is not asked again until it speaks
                if tracked.series.is_firing() {
                    self.dirty.insert(key);
                    self.schedule(key);
                }
            }
        }
    }

    /// Whether the first entry of `idle` is not the truth; then it is put right.
    fn is_stale(&mut self, key: u64, due: Timestamp) -> bool {
        let mut entered = Some(due);
        let Some(tracked) = self.series.get_mut(&key) else {
            self.idle.clear(key, &mut entered);
            return true;
        };
        let truth = self.rules.get(tracked.rule).map_or(due, |compiled| tracked.series.ends_at(compiled));
        if truth > due {
            self.idle.clear(key, &mut tracked.idle);
            self.idle.set(key, &mut tracked.idle, truth);
            return true;
        }
        false
    }

    /// Lets go of a series; its alert, if one fires, is over.
    fn forget(&mut self, key: u64, why: Option<&str>, moment: Moment, out: &mut Vec<AlertRecord>) {
        let Some(mut tracked) = self.series.remove(&key) else { return };
        self.bytes = self.bytes.saturating_sub(tracked.series.bytes());
        self.dirty.insert(key);
        self.timers.clear(key, &mut tracked.timer);
        self.idle.clear(key, &mut tracked.idle);
        if let Some(compiled) = self.rules.get(tracked.rule) {
            tracked.series.resolve(Fingerprint::from_u64(key), compiled, ResolvedBy::Quiet, why, moment, out);
        }
    }

    fn evict(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        while let Some((due, key)) = self.idle.first() {
            if self.is_stale(key, due) {
                continue;
            }
            self.counts.evicted += 1;
            let why = match self.series.len() >= self.max_series {
                true => format!("ended early to make room: at most {} series are followed at a time", self.max_series),
                false => format!("ended early to make room: names and labels of series may take {} bytes", self.max_bytes),
            };
            self.forget(key, Some(&why), moment, out);
            return;
        }
        // unreachable while every series is entered; without it a lost entry would loop for ever
        self.series.clear();
        self.bytes = 0;
    }
}

impl Detect for Detector {
    const ID: &'static str = super::ID;
    const SUMMARY: &'static str = "raises an alert when a metric is beyond a limit";
    type Config = Config;

    fn build(config: &Config) -> Detector {
        Detector::new(config.clone())
    }

    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        match entry {
            LogEntry::Reload { .. } => {}
            LogEntry::Tick { seq, at } => self.advance(Moment { seq: *seq, at: *at }, out),
            LogEntry::Batch(block) => {
                self.advance(Moment { seq: block.first_seq, at: block.received_at }, out);
                if !self.rules.is_empty() && block.kinds.contains(SignalKind::Metric) {
                    self.samples(block, out);
                }
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        if !self.orphans.is_empty() {
            return Some(Timestamp::ZERO);
        }
        self.timers.first().map(|(due, _)| due)
    }

    fn changed(&mut self) -> Vec<Change> {
        let mut keys: Vec<u64> = self.dirty.drain().collect();
        keys.sort_unstable();
        let state = |key: &u64| self.series.get(key).map(|tracked| &tracked.series);
        keys.iter().map(|key| Change::of(format!("{PREFIX}{}", Fingerprint::from_u64(*key)), state(key))).collect()
    }

    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        let fingerprint: Option<Fingerprint> = key.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok());
        let key = fingerprint.ok_or("unknown kind of state")?.as_u64();
        let series: Series = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        match self.rules.iter().position(|compiled| compiled.rule.id == series.rule && compiled.digest == series.digest) {
            Some(rule) => {
                self.enter(key, series, rule);
                self.schedule(key);
            }
            None => {
                self.orphans.insert(key, series);
            }
        }
        Ok(())
    }

    fn touch(&mut self) {
        self.dirty.extend(self.series.keys());
    }

    fn changed_part(old: &Config, new: &Config) -> Option<(Config, Duration)> {
        let known: HashMap<String, u64> =
            old.clone().effective_rules().into_iter().map(Compiled::new).map(|compiled| (compiled.rule.id, compiled.digest)).collect();
        let is_new = |compiled: &Compiled| known.get(&compiled.rule.id) != Some(&compiled.digest);
        let rules: Vec<_> =
            new.clone().effective_rules().into_iter().map(Compiled::new).filter(is_new).map(|compiled| compiled.rule).collect();
        let back = rules.iter().map(|rule| rule.window.0.max(rule.hold.0)).max()?;
        Some((Config { rules, builtin_rules: false, ..new.clone() }, back))
    }

    fn adopt(&mut self, other: Detector, seq: Seq) {
        for (key, tracked) in other.series {
            let mut series = tracked.series;
            let rule = self.rules.iter().position(|compiled| compiled.rule.id == series.rule && compiled.digest == series.digest);
            let (Some(rule), true) = (rule, self.has_room(&series)) else { continue };
            if let Some(compiled) = self.rules.get(rule) {
                series.recalled(compiled, seq);
            }
            self.enter(key, series, rule);
            self.dirty.insert(key);
            self.schedule(key);
        }
    }

    fn counts(&self) -> Counts {
        Counts { open: self.series.len(), bytes: self.bytes, full: self.series.len() >= self.max_series, ..self.counts }
    }
}

/// Identifies a series under a rule. What the sender chose comes last, so that none of it can pass
/// for the rule, the metric or the source.
fn fingerprint(rule: &str, signal: &SignalRef<'_>) -> Fingerprint {
    let mut labels: Vec<(&str, &str)> = signal.labels.iter().collect();
    labels.sort_unstable();
    let scope: [(&str, &str); 3] = [("alertname", rule), ("metric", signal.name), ("source", signal.source)];
    Fingerprint::of_pairs(scope.into_iter().chain(labels))
}
