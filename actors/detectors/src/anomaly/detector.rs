//! The detector itself: pure, fed with the log, asked for what it has to say.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{
    alert::{self, AlertRecord, Observation},
    fingerprint::Fingerprint,
    ids::Seq,
    signal::{LogEntry, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};

use super::{
    config::{Config, Rule},
    extract::Extractor,
    method::{Judged, Side},
    say::{self, Alarmed},
    select::{Chosen, Compiled, Select, key_of},
    series::{Order, Series},
};
use crate::{
    counts::Counts,
    detect::Detect,
    episodes::{self, Episodes, Face, Moment, Seen, Terms},
    evidence::cut,
    keep::{Keep, Limits, Pace, Shelf, Touch},
    state::Change,
    template::{DESCRIPTION_BYTES, TITLE_BYTES, Template},
};

/// Watches the series that rules are about.
#[derive(Debug)]
pub struct Detector {
    rules: Vec<Compiled>,
    /// Which of them is about what no other is about.
    builtin: Option<usize>,
    /// Rules about log lines, ready to take numbers out of them.
    extractors: Vec<(usize, Extractor)>,
    select: Select,
    pub(super) keep: Keep<Series>,
    episodes: Episodes,
    counts: Counts,
}

/// A value as it comes in.
#[derive(Clone, Copy)]
struct Point<'a> {
    seq: Seq,
    at: Timestamp,
    logged_at: Timestamp,
    value: f64,
    metric: &'a str,
    unit: &'a str,
    source: &'a str,
}

/// What values are fed to; apart from what chooses the rules, so that both can be used at once.
struct Feed<'a> {
    keep: &'a mut Keep<Series>,
    episodes: &'a mut Episodes,
    counts: &'a mut Counts,
    /// Nobody is told, and nothing begins: the values are known already.
    again: bool,
    out: &'a mut Vec<AlertRecord>,
}

impl Detector {
    /// A detector for a configuration that has been checked.
    pub fn new(config: &Config) -> Detector {
        Detector::paced(config, Pace::default())
    }

    pub(super) fn paced(config: &Config, pace: Pace) -> Detector {
        let mut rules: Vec<Compiled> = config.rules.iter().cloned().map(Compiled::new).collect();
        let builtin = config.builtin_rules.then_some(rules.len());
        rules.extend(config.builtin_rules.then(|| Compiled::new(Rule::builtin())));
        let extractor = |(index, compiled): (usize, &Compiled)| Some((index, Extractor::new(compiled.rule.extract.as_ref()?)?));
        let extractors = rules.iter().enumerate().filter_map(extractor).collect();
        let limits = Limits {
            held: config.max_series.max(1),
            held_bytes: config.max_bytes.bytes(),
            known: config.max_series.saturating_add(config.max_shelved),
            forget_after: config.forget_after.0,
            pace,
        };
        Detector {
            rules,
            builtin,
            extractors,
            select: Select::default(),
            keep: Keep::new(limits),
            episodes: Episodes::new(super::ID, config.max_alerts, true),
            counts: Counts::default(),
        }
    }

    fn signals(&mut self, block: &SignalBlock, again: bool, out: &mut Vec<AlertRecord>) {
        let lines = !self.extractors.is_empty();
        for (seq, record) in block.iter() {
            match record.kind() {
                Ok(SignalKind::Metric) => {}
                Ok(SignalKind::Log) if lines => {}
                Ok(_) => continue,
                Err(_) => {
                    self.counts.damaged += u64::from(!again);
                    continue;
                }
            }
            let Ok(signal) = record.decode() else {
                self.counts.damaged += u64::from(!again);
                continue;
            };
            match signal.kind {
                SignalKind::Metric => self.metric(seq, &signal, block.received_at, again, out),
                _ => self.line(seq, &signal, block.received_at, again, out),
            }
        }
    }

    fn metric(&mut self, seq: Seq, signal: &SignalRef<'_>, logged_at: Timestamp, again: bool, out: &mut Vec<AlertRecord>) {
        let Some(value) = signal.value.filter(|value| value.is_finite()) else {
            self.counts.ignored += u64::from(!again);
            return;
        };
        let chosen = self.select.of(signal, &self.rules, self.builtin);
        if chosen.is_empty() {
            return;
        }
        let point = Point { seq, at: signal.at, logged_at, value, metric: signal.name, unit: signal.unit, source: signal.source };
        let (keep, episodes, counts) = (&mut self.keep, &mut self.episodes, &mut self.counts);
        let mut feed = Feed { keep, episodes, counts, again, out };
        for chosen in chosen {
            let Some(compiled) = self.rules.get(chosen.rule) else { continue };
            feed.point(compiled, chosen, point, || signal.labels.iter().map(owned).collect());
        }
    }

    fn line(&mut self, seq: Seq, signal: &SignalRef<'_>, logged_at: Timestamp, again: bool, out: &mut Vec<AlertRecord>) {
        for (rule, extractor) in &mut self.extractors {
            let Some(compiled) = self.rules.get(*rule).filter(|compiled| compiled.wants(None, signal)) else { continue };
            let Some(extract) = &compiled.rule.extract else { continue };
            let Some(value) = extractor.find(signal.message) else { continue };
            if !value.is_finite() {
                self.counts.ignored += u64::from(!again);
                continue;
            }
            let metric = extract.name.as_deref().unwrap_or(&compiled.rule.id);
            let key = key_of(&compiled.rule.id, metric, signal.source, extractor.labels(signal));
            let mut chosen = Chosen { rule: *rule, key, place: u32::MAX };
            let point = Point { seq, at: signal.at, logged_at, value, metric, unit: &extract.unit, source: signal.source };
            let (keep, episodes, counts) = (&mut self.keep, &mut self.episodes, &mut self.counts);
            let mut feed = Feed { keep, episodes, counts, again, out };
            feed.point(compiled, &mut chosen, point, || extractor.labels(signal).map(owned).collect());
        }
    }

    /// The rules that the first metric of an entry is under.
    #[cfg(test)]
    pub(super) fn rules_about(&mut self, entry: &LogEntry) -> Vec<String> {
        let LogEntry::Batch(block) = entry else { return Vec::new() };
        let (_, record) = block.iter().next().unwrap();
        let chosen = self.select.of(&record.decode().unwrap(), &self.rules, self.builtin);
        chosen.iter().map(|chosen| self.rules[chosen.rule].rule.id.clone()).collect()
    }

    fn advance(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        self.episodes.advance(moment, out);
        let episodes = &self.episodes;
        self.keep.advance(moment.seq, moment.at, |key| is_open(episodes, key));
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

fn is_open(episodes: &Episodes, key: u64) -> bool {
    episodes.len() > 0 && episodes.is_open(Fingerprint::from_u64(key))
}

impl Feed<'_> {
    fn point(&mut self, compiled: &Compiled, chosen: &mut Chosen, point: Point<'_>, labels: impl Fn() -> BTreeMap<String, String>) {
        let method = &compiled.rule.method;
        let touch = Touch { key: chosen.key, digest: compiled.digest, seq: point.seq, at: point.logged_at };
        if self.again {
            if let Some(place) = self.keep.relearn(touch, || Series::new(method)) {
                chosen.place = place;
                if let Some(series) = self.keep.get(place) {
                    series.step(method, point.at, point.value);
                }
                self.keep.weigh(place);
            }
            return;
        }
        self.counts.matched += 1;
        if self.keep.again(chosen.place, touch).is_none() {
            let episodes = &*self.episodes;
            chosen.place = self.keep.touch(touch, || Series::new(method), |key| is_open(episodes, key));
        }
        let Some(series) = self.keep.get(chosen.place) else { return };
        let stepped = series.step(method, point.at, point.value);
        self.counts.late += u64::from(stepped.order == Order::Earlier);
        self.counts.repeated += u64::from(stepped.order == Order::Same);
        self.counts.unreadable += u64::from(stepped.unreadable);
        if stepped.to_weigh {
            self.keep.weigh(chosen.place);
        }
        if let Some(side) = self.is_of_interest(compiled, chosen.key, point.value, &stepped.judged) {
            let expected = say::possible(&stepped.judged, point.metric, point.unit);
            let judged = Judged { expected, ..stepped.judged };
            let alarmed = Alarmed::new(point.at, point.value, judged, side, point.metric, point.unit);
            self.observe(compiled, chosen.key, point, alarmed, labels);
        }
    }

    /// On which side the value is unusual: by an alarm, or while an alert is open by being outside of what is expected.
    fn is_of_interest(&self, compiled: &Compiled, key: u64, value: f64, judged: &Judged) -> Option<Side> {
        let beyond = judged.expected.map(|band| (value - band.high).max(band.low - value));
        let side = match (judged.alarm, judged.expected) {
            (Some(alarm), _) => alarm.side,
            (None, Some(band)) if beyond > Some(0.0) && is_open(self.episodes, key) => {
                if value > band.high {
                    Side::High
                } else {
                    Side::Low
                }
            }
            (None, _) => return None,
        };
        let is_large = compiled.rule.min_change <= 0.0 || beyond.is_none_or(|beyond| beyond >= compiled.rule.min_change);
        is_large.then_some(side)
    }

    fn observe(
        &mut self,
        compiled: &Compiled,
        key: u64,
        point: Point<'_>,
        alarmed: Alarmed<'_>,
        labels: impl Fn() -> BTreeMap<String, String>,
    ) {
        let rule = &compiled.rule;
        let fingerprint = Fingerprint::from_u64(key);
        let seen = Seen { fingerprint, at: point.at, logged_at: point.logged_at, seq: point.seq, severity: rule.severity };
        let observation = || {
            let expected = alarmed.expected.filter(|band| band.low.is_finite() && band.high.is_finite());
            let expected = expected.map(|band| alert::Band { low: plain(band.low), high: plain(band.high) });
            let (source, name) = (point.source.to_owned(), point.metric.to_owned());
            Some(Observation::Metric { at: point.at, source, name, value: plain(point.value), expected })
        };
        self.episodes.observe(seen, terms(compiled), observation, || face(compiled, point, &alarmed, labels()), self.out);
    }
}

fn terms(compiled: &Compiled) -> Terms {
    let rule = &compiled.rule;
    Terms { cooldown: rule.cooldown.0, resolve_after: rule.resolve_after.0, digest: compiled.digest }
}

/// A number with so many digits as are read back as they were written.
fn plain(value: f64) -> f64 {
    format!("{value:.14e}").parse().unwrap_or(value)
}

fn face(compiled: &Compiled, point: Point<'_>, alarmed: &Alarmed<'_>, sent: BTreeMap<String, String>) -> Face {
    let rule = &compiled.rule;
    let render = |template: &Template, limit| {
        template.render(limit, |name, out| match name {
            "value" => out.push_str(&alarmed.saw()),
            "expected" => out.push_str(&alarmed.expected().unwrap_or_else(|| "nothing in particular".to_owned())),
            "unusual" => out.push_str(&alarmed.unusual()),
            "metric" => out.push_str(point.metric),
            "source" => out.push_str(point.source),
            other => {
                let label = other.strip_prefix("labels.").and_then(|label| sent.get(label).or_else(|| rule.labels.get(label)));
                out.push_str(label.map_or("", String::as_str));
            }
        })
    };
    let title = compiled.title.as_ref().map_or_else(|| title(point, alarmed, &sent), |template| render(template, TITLE_BYTES));
    let description = compiled.description.as_ref().map_or_else(|| alarmed.unusual(), |template| render(template, DESCRIPTION_BYTES));
    let mut labels = sent;
    labels.extend(rule.labels.iter().map(|(name, value)| (name.clone(), value.clone())));
    for (name, value) in [("alertname", rule.id.as_str()), ("metric", point.metric), ("source", point.source)] {
        labels.insert(name.to_owned(), value.to_owned());
    }
    Face {
        rule: rule.id.clone(),
        source: point.source.to_owned(),
        title,
        description,
        severity: rule.severity,
        labels,
        supports: !rule.opens_incident,
    }
}

fn title(point: Point<'_>, alarmed: &Alarmed<'_>, labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", cut(&labels.join(","), TITLE_BYTES / 4)) };
    let metric = cut(point.metric, TITLE_BYTES / 2);
    let text = format!("{metric}{labels} {} on {}", alarmed.title(), point.source);
    cut(&text, TITLE_BYTES * 2).to_owned()
}

impl Detect for Detector {
    const ID: &'static str = super::ID;
    const SUMMARY: &'static str = "raises an alert when a value is unusual for its series";
    type Config = Config;

    fn build(config: &Config) -> Detector {
        Detector::new(config)
    }

    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        match entry {
            LogEntry::Reload { seq, .. } => self.keep.read_to(*seq),
            LogEntry::Tick { seq, at } => self.advance(Moment { seq: *seq, at: *at }, out),
            LogEntry::Batch(block) => {
                self.advance(Moment { seq: block.first_seq, at: block.received_at }, out);
                if block.kinds.contains(SignalKind::Metric) || (block.kinds.contains(SignalKind::Log) && !self.extractors.is_empty()) {
                    self.signals(block, false, out);
                }
                self.keep.read_to(block.last_seq);
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.episodes.next_due()
    }

    fn changed(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.episodes.changed(&mut changes);
        self.keep.changed(&mut changes);
        changes
    }

    fn shelve(&mut self) -> Vec<Change> {
        self.keep.shelve()
    }

    fn is_urgent(&self) -> bool {
        self.keep.is_urgent()
    }

    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        if Keep::<Series>::is_own(key) {
            return self.keep.restore(key, body);
        }
        let fingerprint = key.strip_prefix(episodes::PREFIX).and_then(|digits| digits.parse().ok()).ok_or("unknown kind of state")?;
        let rules = &self.rules;
        self.episodes.restore(fingerprint, body, |id| rules.iter().find(|compiled| compiled.rule.id == id).map(terms))
    }

    fn begin(&mut self, shelf: Box<dyn Shelf>) -> Result<(), String> {
        self.keep.begin_with(shelf)
    }

    fn behind(&self) -> Option<Seq> {
        self.keep.behind()
    }

    fn relearn(&mut self, entry: &LogEntry) {
        if let LogEntry::Batch(block) = entry {
            self.signals(block, true, &mut Vec::new());
        }
    }

    fn relearned(&mut self, seq: Seq) {
        self.keep.relearned(seq);
    }

    fn take_over(&mut self, former: &mut Detector) {
        let limits = self.keep.limits();
        std::mem::swap(&mut self.keep, &mut former.keep);
        self.keep.limit(limits);
    }

    fn touch(&mut self) {
        self.episodes.touch();
    }

    fn changed_part(old: &Config, new: &Config) -> Option<(Config, Duration)> {
        let compiled = |config: &Config| config.rules.iter().cloned().map(Compiled::new).collect::<Vec<_>>();
        let known: BTreeMap<String, u64> = compiled(old).into_iter().map(|rule| (rule.rule.id, rule.digest)).collect();
        let rules: Vec<Rule> = compiled(new)
            .into_iter()
            .filter(|compiled| known.get(&compiled.rule.id) != Some(&compiled.digest))
            .map(|compiled| compiled.rule)
            .collect();
        // as far back as the shell goes
        (!rules.is_empty()).then(|| (Config { rules, builtin_rules: false, ..new.clone() }, Duration::MAX))
    }

    fn adopt(&mut self, other: Detector, _seq: Seq) {
        let episodes = &self.episodes;
        self.keep.adopt(other.keep, |key| is_open(episodes, key));
    }

    fn counts(&self) -> Counts {
        let kept = self.keep.counts();
        Counts {
            open: kept.held,
            bytes: kept.bytes,
            shelved: kept.shelved,
            put_away: kept.put_away,
            taken_back: kept.taken_back,
            forgotten: kept.forgotten,
            bases: kept.written,
            full: self.keep.is_full(),
            evicted: self.episodes.evicted(),
            unreadable: self.counts.unreadable.saturating_add(kept.unreadable),
            ..self.counts
        }
    }
}
