//! The detector itself: pure, fed with the log, asked for what it has to say.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
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
    compiled::Compiled,
    config::Config,
    say,
    series::{Point, Series},
    slo::{self, Slos},
    watch::{self, Watches},
    window::Pushed,
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
    slos: Slos,
    /// What is about each metric.
    by_metric: HashMap<String, Arc<Concern>>,
    series: HashMap<u64, Tracked>,
    max_series: usize,
    /// What the names and labels of `series` take, and may take.
    bytes: usize,
    pub(super) max_bytes: usize,
    /// When a wait is over or an alert ends for want of samples: these ask for a tick.
    timers: Deadlines,
    /// When a series is forgotten: this waits for whatever comes next.
    idle: Deadlines,
    /// Rules that miss every series.
    watches: Watches,
    /// Restored series whose rule is gone or means something else.
    orphans: BTreeMap<u64, Series>,
    dirty: Vec<u64>,
    counts: Counts,
}

/// The rules and the objectives about one metric.
#[derive(Debug, Default, Clone)]
struct Concern {
    rules: Vec<usize>,
    slos: Vec<usize>,
}

#[derive(Debug)]
struct Tracked {
    series: Series,
    rule: usize,
    timer: Option<Timestamp>,
    idle: Option<Timestamp>,
    /// Whether it is among those that changed.
    dirty: bool,
}

impl Detector {
    /// A detector for a configuration that has been checked.
    pub fn new(config: Config) -> Detector {
        let max_series = config.max_series.max(1);
        let rules = compiled(&config);
        let slos = Slos::new(config.slos, max_series);
        let mut by_metric: HashMap<String, Concern> = HashMap::new();
        for (index, compiled) in rules.iter().enumerate() {
            by_metric.entry(compiled.rule.metric.clone()).or_default().rules.push(index);
        }
        for (index, metric) in slos.metrics() {
            by_metric.entry(metric.to_owned()).or_default().slos.push(index);
        }
        Detector {
            watches: Watches::new(&rules),
            rules,
            slos,
            by_metric: by_metric.into_iter().map(|(metric, concern)| (metric, Arc::new(concern))).collect(),
            series: HashMap::new(),
            max_series,
            bytes: 0,
            max_bytes: SERIES_BYTES,
            timers: Deadlines::default(),
            idle: Deadlines::default(),
            orphans: BTreeMap::new(),
            dirty: Vec::new(),
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
            let Some(concerned) = self.by_metric.get(signal.name).cloned() else { continue };
            let Some(value) = signal.value.filter(|value| value.is_finite()) else {
                self.counts.ignored += 1;
                continue;
            };
            let point = Point { seq, at: signal.at, logged_at: block.received_at, value };
            for index in &concerned.rules {
                self.sample(*index, &signal, point, out);
            }
            for index in &concerned.slos {
                self.slos.sample(*index, &signal, point, &mut self.counts, out);
            }
        }
    }

    fn sample(&mut self, index: usize, signal: &SignalRef<'_>, point: Point, out: &mut Vec<AlertRecord>) {
        let Some(compiled) = self.rules.get(index) else { return };
        let fingerprint = fingerprint(&compiled.rule.id, signal);
        let key = fingerprint.as_u64();
        // one that is followed was selected when it came
        if !self.series.contains_key(&key) {
            if !compiled.selects(signal) {
                return;
            }
            let labels = signal.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            let series = Series::new(compiled, signal.source, labels, point);
            let moment = Moment { seq: point.seq, at: point.logged_at };
            while !self.series.is_empty() && !self.has_room(&series) {
                self.evict(moment, out);
            }
            self.enter(key, series, index);
            self.watches.spoke(index, point.at.min(point.logged_at), moment, out);
        }
        self.counts.matched += 1;
        self.counts.ahead += u64::from(point.at > point.logged_at);
        let Some(compiled) = self.rules.get(index) else { return };
        let Some(tracked) = self.series.get_mut(&key) else { return };
        match tracked.series.observe(fingerprint, compiled, point, out) {
            Pushed::Late => {
                self.counts.ignored += 1;
                return;
            }
            Pushed::Crowded => self.counts.crowded += 1,
            Pushed::Taken => {}
        }
        if !std::mem::replace(&mut tracked.dirty, true) {
            self.dirty.push(key);
        }
        self.idle.set(key, &mut tracked.idle, tracked.series.ends_at(compiled));
        match tracked.series.timer(compiled) {
            Some(due) => self.timers.set(key, &mut tracked.timer, due),
            None => self.timers.clear(key, &mut tracked.timer),
        }
    }

    fn has_room(&self, series: &Series) -> bool {
        self.series.len() < self.max_series && self.bytes.saturating_add(series.bytes()) <= self.max_bytes
    }

    fn enter(&mut self, key: u64, series: Series, rule: usize) {
        self.bytes = self.bytes.saturating_add(series.bytes());
        self.series.insert(key, Tracked { series, rule, timer: None, idle: None, dirty: false });
        self.watches.entered(rule);
    }

    /// Has a series given by the next `changed`.
    fn touched(&mut self, key: u64) {
        if !self.series.get_mut(&key).is_some_and(|tracked| std::mem::replace(&mut tracked.dirty, true)) {
            self.dirty.push(key);
        }
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
        for (key, mut series) in std::mem::take(&mut self.orphans) {
            self.touched(key);
            let compiled = say::abandoned(&mut series);
            series.end(Fingerprint::from_u64(key), &compiled, ResolvedBy::RuleChanged, Some(say::ABANDONED), moment, out);
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
        self.watches.advance(&self.rules, moment, out);
        self.slos.advance(moment, out);
    }

    fn timer_is_due(&mut self, key: u64, due: Timestamp, moment: Moment, out: &mut Vec<AlertRecord>) {
        let mut entered = Some(due);
        self.timers.clear(key, &mut entered);
        let Some(tracked) = self.series.get_mut(&key) else { return };
        tracked.timer = None;
        let Some(compiled) = self.rules.get(tracked.rule) else { return };
        if let Some(later) = tracked.series.timer(compiled).filter(|later| *later > due) {
            return self.timers.set(key, &mut tracked.timer, later);
        }
        let changed = tracked.series.wait(Fingerprint::from_u64(key), compiled, moment, out);
        // one that waits and is silent is not asked again until it speaks
        if let Some(later) = tracked.series.timer(compiled).filter(|later| *later > moment.at) {
            self.timers.set(key, &mut tracked.timer, later);
        }
        if changed {
            self.touched(key);
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
        if !tracked.dirty {
            self.dirty.push(key);
        }
        self.timers.clear(key, &mut tracked.timer);
        self.idle.clear(key, &mut tracked.idle);
        if let Some(compiled) = self.rules.get(tracked.rule) {
            tracked.series.end(Fingerprint::from_u64(key), compiled, ResolvedBy::Quiet, why, moment, out);
            self.watches.left(tracked.rule, compiled, tracked.series.last_logged, moment, out);
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

#[cfg(test)]
impl Detector {
    pub(super) fn objective(&self, index: usize) -> &slo::Objective {
        self.slos.objective(index)
    }
}

impl Detect for Detector {
    const ID: &'static str = super::ID;
    const SUMMARY: &'static str = "raises an alert when a metric is beyond a limit or silent, or an error budget is spent too fast";
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
                if !self.by_metric.is_empty() && block.kinds.contains(SignalKind::Metric) {
                    self.samples(block, out);
                }
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        if !self.orphans.is_empty() {
            return Some(Timestamp::ZERO);
        }
        let timer = self.timers.first().map(|(due, _)| due);
        [timer, self.watches.next_due(), self.slos.next_due()].into_iter().flatten().min()
    }

    fn changed(&mut self) -> Vec<Change> {
        let mut keys = std::mem::take(&mut self.dirty);
        keys.sort_unstable();
        keys.dedup();
        let mut changes = Vec::with_capacity(keys.len());
        for key in keys {
            let body = self.series.get_mut(&key).map(|tracked| {
                tracked.dirty = false;
                tracked.series.store()
            });
            changes.push(Change { key: format!("{PREFIX}{}", Fingerprint::from_u64(key)), body });
        }
        self.watches.changed(&mut changes);
        self.slos.changed(&mut changes);
        changes
    }

    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        if key.starts_with(watch::PREFIX) {
            return self.watches.restore(key, body, &self.rules);
        }
        if let Some(rest) = key.strip_prefix(slo::PREFIX) {
            return self.slos.restore(key, rest, body);
        }
        if let Some(rest) = key.strip_prefix(slo::COUNTER) {
            return self.slos.restore_counter(key, rest, body);
        }
        let fingerprint: Option<Fingerprint> = key.strip_prefix(PREFIX).and_then(|digits| digits.parse().ok());
        let key = fingerprint.ok_or("unknown kind of state")?.as_u64();
        match Series::load(body, &self.rules)? {
            (series, Some(rule)) => {
                self.enter(key, series, rule);
                self.schedule(key);
            }
            (series, None) => {
                self.orphans.insert(key, series);
            }
        }
        Ok(())
    }

    fn touch(&mut self) {
        for (key, tracked) in &mut self.series {
            if !std::mem::replace(&mut tracked.dirty, true) {
                self.dirty.push(*key);
            }
        }
        self.watches.touch();
        self.slos.touch();
    }

    fn changed_part(old: &Config, new: &Config) -> Option<(Config, Duration)> {
        let known: HashMap<String, u64> = compiled(old).into_iter().map(|compiled| (compiled.rule.id, compiled.digest)).collect();
        let is_new = |compiled: &Compiled| known.get(&compiled.rule.id) != Some(&compiled.digest);
        let rules: Vec<_> = compiled(new).into_iter().filter(is_new).map(|compiled| compiled.rule).collect();
        let back = |rule: &super::Rule| rule.window.0.max(rule.hold.0).max(rule.absent_after.map_or(Duration::ZERO, |after| after.0));
        let (slos, slos_back) = Slos::changed_part(&old.slos, &new.slos);
        let back = rules.iter().map(back).chain(slos_back).max()?;
        Some((Config { rules, slos, builtin_rules: false, ..new.clone() }, back))
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
            self.touched(key);
            self.schedule(key);
        }
        for (of, compiled) in other.rules.iter().enumerate() {
            let same = |own: &Compiled| own.rule.id == compiled.rule.id && own.digest == compiled.digest;
            if let Some(rule) = self.rules.iter().position(same) {
                self.watches.adopt(rule, &other.watches, of);
            }
        }
        self.slos.adopt(other.slos);
    }

    fn counts(&self) -> Counts {
        let (counters, counters_full, evicted) = self.slos.followed();
        Counts {
            open: self.series.len() + counters,
            bytes: self.bytes,
            full: counters_full || self.series.len() >= self.max_series,
            evicted: self.counts.evicted.saturating_add(evicted),
            ..self.counts
        }
    }
}

fn compiled(config: &Config) -> Vec<Compiled> {
    config.effective_rules().into_iter().map(|rule| Compiled::new(rule, config.max_samples)).collect()
}

/// Identifies a series under a rule. What the sender chose comes last, so that none of it can pass
/// for the rule, the metric or the source.
pub(super) fn fingerprint(rule: &str, signal: &SignalRef<'_>) -> Fingerprint {
    let scope: [(&str, &str); 3] = [("alertname", rule), ("metric", signal.name), ("source", signal.source)];
    if signal.labels.iter().is_sorted() {
        return Fingerprint::of_pairs(scope.into_iter().chain(signal.labels.iter()));
    }
    let mut labels: Vec<(&str, &str)> = signal.labels.iter().collect();
    labels.sort_unstable();
    Fingerprint::of_pairs(scope.into_iter().chain(labels))
}
