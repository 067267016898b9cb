//! The detector itself: pure, fed with the log, asked for what it has to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use opspilot_kernel::{
    alert::{AlertRecord, Measure, Observation, ResolvedBy},
    fingerprint::Fingerprint,
    ids::Seq,
    matcher,
    signal::{LogEntry, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};

use super::{
    config::{BUILTIN, Config, Novelty, Rule},
    miner::{Fate, Miner, TemplateId},
    rate,
    say::{self, Kind, Subject},
    series::{self, Book, Series},
};
use crate::{
    counts::Counts,
    deadlines::Deadlines,
    detect::Detect,
    episodes::{self, Episodes, Moment, Seen, Terms},
    evidence::{LINE_BYTES, cut},
    regex::cap::{self, Cap},
    rules,
    state::Change,
};

/// What a rule's cap is stored under.
const CAP_PREFIX: &str = "cap/";
/// So many lines of a minute that may become a burst are kept for their values, so much of each.
const SAMPLE: usize = 20;
const SAMPLE_BYTES: usize = 256;
/// A line that is so much older than its receipt was held up somewhere, and says nothing about how often lines come now.
const HELD_UP: Duration = Duration::from_secs(300);
/// So long it is said that a silence goes on; then it is what is usual.
const SILENT_FOR: Duration = Duration::from_secs(86_400);
const HINT: &str =
    "More is unusual about the lines of this rule than max_alerts_per_minute allows. Make the rule narrower, or raise the cap.";

/// Tells what is unusual about the statements that write log lines.
#[derive(Debug)]
pub struct Detector {
    rules: Vec<Compiled>,
    miner: Miner,
    book: Book,
    /// When the silence of a series is to be looked at.
    silences: Deadlines,
    episodes: Episodes,
    caps: Vec<Cap>,
    /// Caps with something to say when their minute ends, and those to be stored.
    speaking: BTreeSet<usize>,
    dirty_caps: BTreeSet<usize>,
    /// Restored caps of rules that are gone.
    orphans: BTreeMap<String, Cap>,
    gone: Vec<String>,
    /// Whether something was restored and nothing was read since.
    restored: bool,
    counts: Counts,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    terms: Terms,
    bursts: rate::Terms,
}

impl Compiled {
    fn new(rule: Rule) -> Compiled {
        let terms = Terms {
            cooldown: rule.cooldown.0,
            resolve_after: rule.resolve_after.0.max(Duration::from_secs(1)),
            digest: rules::digest(&(&rule.sources, &rule.matchers, rule.new, rule.bursts, rule.stops)),
        };
        let bursts = rate::Terms { lines: rule.burst_lines, factor: rule.burst_factor, baseline: rule.burst_baseline.0 };
        Compiled { rule, terms, bursts }
    }

    fn concerns(&self, signal: &SignalRef<'_>) -> bool {
        let rule = &self.rule;
        (rule.sources.is_empty() || rule.sources.iter().any(|wanted| wanted == signal.source))
            && matcher::all_hold(&rule.matchers, |name| match name {
                "source" => Some(signal.source),
                _ => signal.labels.get(name),
            })
    }

    fn cap(&self) -> cap::Rule<'_> {
        cap::Rule { id: &self.rule.id, limit: self.rule.max_alerts_per_minute, detected_by: super::ID }
    }
}

/// A line and whose it is.
struct Line<'a> {
    signal: &'a SignalRef<'a>,
    rule: usize,
    series: u64,
    template: TemplateId,
    seq: Seq,
    now: Timestamp,
}

impl Detector {
    /// A detector for a configuration that has been checked.
    pub fn new(config: Config) -> Detector {
        let mut miner = Miner::new(&config.settings());
        miner.track();
        let builtin = config.builtin_rule.then(|| Rule { opens_incident: false, ..Rule::new(BUILTIN) });
        let rules: Vec<Compiled> = config.rules.into_iter().chain(builtin).map(Compiled::new).collect();
        Detector {
            caps: vec![Cap::default(); rules.len()],
            rules,
            miner,
            book: Book::new(config.max_series),
            silences: Deadlines::default(),
            episodes: Episodes::new(super::ID, config.max_fingerprints, true),
            speaking: BTreeSet::new(),
            dirty_caps: BTreeSet::new(),
            orphans: BTreeMap::new(),
            gone: Vec::new(),
            restored: false,
            counts: Counts::default(),
        }
    }

    fn lines(&mut self, block: &SignalBlock, out: &mut Vec<AlertRecord>) {
        for (seq, record) in block.iter() {
            match record.kind() {
                Ok(SignalKind::Log) => {}
                Ok(_) => continue,
                Err(_) => {
                    self.counts.damaged += 1;
                    continue;
                }
            }
            match record.decode() {
                Ok(signal) => self.line(seq, &signal, block.received_at, out),
                Err(_) => self.counts.damaged += 1,
            }
        }
    }

    fn line(&mut self, seq: Seq, signal: &SignalRef<'_>, now: Timestamp, out: &mut Vec<AlertRecord>) {
        let Some(index) = self.rules.iter().position(|compiled| compiled.concerns(signal)) else { return };
        let Some(compiled) = self.rules.get(index) else { return };
        self.counts.matched += 1;
        let template = self.miner.learn(signal.message).template;
        for fate in self.miner.take_fates() {
            let taken = match fate {
                Fate::Merged { from, into } => self.book.drop_template(from, Some(into)),
                Fate::Evicted(template) => self.book.drop_template(template, None),
            };
            forget(&mut self.silences, taken);
        }
        let rule = &compiled.rule;
        let source = Fingerprint::of_pairs([("alertname", rule.id.as_str()), ("source", signal.source)]).as_u64();
        let (since, lines) = self.book.heard(source, &rule.id, signal.source, now);
        let is_learning = lines <= rule.learning_lines || now.since(since) < rule.learning.0;
        let line = Line { signal, rule: index, series: series::key(source, template), template, seq, now };

        let is_known = self.book.series.contains_key(&line.series);
        if !is_known {
            let forgotten = self.book.add(line.series, Series::new(source, template, now));
            forget(&mut self.silences, forgotten);
        }
        let held_up = now.since(signal.at) > HELD_UP;
        let Some(series) = self.book.series.get_mut(&line.series) else { return };
        if is_known && rule.stops {
            series.pauses.push(now.since(series.last));
        }
        let was_stopped = std::mem::take(&mut series.stopped);
        (series.last, series.look_at) = (now, None);
        let mut bursts = false;
        if held_up {
            self.counts.ignored += 1;
        } else if rule.bursts {
            if series.rate.turns(now) {
                series.sample.clear();
            }
            bursts = series.rate.count(now, compiled.bursts);
            if series.rate.nears() && series.sample.len() < SAMPLE {
                series.sample.push(cut(signal.message, SAMPLE_BYTES).to_owned());
            }
        }
        if rule.stops
            && let Some(due) = series.due()
        {
            self.silences.set(line.series, &mut series.entered, due);
        }
        let told = series.told;
        self.book.mark(line.series);
        if was_stopped {
            let fingerprint = Kind::Stopped.fingerprint(&rule.id, signal.source, template);
            self.episodes.resolve(fingerprint, ResolvedBy::Clear, signal.at, Moment { seq, at: now }, out);
        }
        let is_wanted = || match rule.new {
            Novelty::Off => false,
            Novelty::Errors => say::tells_of_an_error(self.miner.template(template).unwrap_or_default(), signal.severity),
            Novelty::All => true,
        };
        if told || (!is_known && !is_learning && is_wanted()) {
            self.tell(Kind::New, &line, out);
        }
        if bursts {
            self.tell(Kind::Burst, &line, out);
        }
    }

    /// Tells of a line that is unusual, unless the cap forbids it.
    fn tell(&mut self, kind: Kind, line: &Line<'_>, out: &mut Vec<AlertRecord>) {
        let &Line { signal, rule: index, template, seq, now, .. } = line;
        let Some(compiled) = self.rules.get(index) else { return };
        let fingerprint = kind.fingerprint(&compiled.rule.id, signal.source, template);
        let Some(series) = self.book.series.get_mut(&line.series) else { return };
        let mut values = String::new();
        if !self.episodes.is_open(fingerprint) {
            if kind == Kind::New && std::mem::take(&mut series.told) {
                // the alert is over: from now on it is a template like any other
                return self.book.mark(line.series);
            }
            if !admits(&mut self.caps, &mut self.speaking, &mut self.dirty_caps, compiled, index, seq, signal.at, now) {
                self.counts.held_back += 1;
                return;
            }
            series.told |= kind == Kind::New;
            if kind == Kind::Burst {
                values = say::values(&mut self.miner, template, &series.sample);
            }
        }
        let rate = series.rate.now();
        let text = self.miner.template(template).unwrap_or_default();
        let subject = Subject { rule: &compiled.rule, source: signal.source, id: template, text };
        let face = || match kind {
            Kind::Burst => subject.burst(rate, &values, signal.message),
            Kind::New | Kind::Stopped => subject.new_template(signal.message),
        };
        let observation = || {
            let text = cut(signal.message, LINE_BYTES).to_owned();
            Some(Observation::Log { at: signal.at, source: signal.source.to_owned(), text })
        };
        let severity = compiled.rule.severity;
        let seen = Seen { fingerprint, at: signal.at, logged_at: now, seq, severity };
        self.episodes.observe(seen, compiled.terms, observation, face, out);
    }

    fn advance(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        if std::mem::take(&mut self.restored) {
            let rules = &self.rules;
            self.book.settle(|id| rules.iter().any(|compiled| compiled.rule.id == id));
        }
        self.episodes.advance(moment, out);
        self.silent(moment, out);
        for (id, cap) in std::mem::take(&mut self.orphans) {
            cap.abandon(cap::Rule { id: &id, limit: 0, detected_by: super::ID }, moment, out);
            self.gone.push(id);
        }
        let (caps, rules, dirty) = (&mut self.caps, &self.rules, &mut self.dirty_caps);
        self.speaking.retain(|index| {
            let (Some(cap), Some(compiled)) = (caps.get_mut(*index), rules.get(*index)) else { return false };
            let before = out.len();
            if cap.advance(compiled.cap(), moment, out) {
                dirty.insert(*index);
            }
            for record in out.iter_mut().skip(before) {
                HINT.clone_into(&mut record.description);
                record.supports = !compiled.rule.opens_incident;
            }
            cap.due().is_some()
        });
    }

    /// Looks at the series whose silence falls due.
    fn silent(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        let mut silent = BTreeSet::new();
        while let Some((due, key)) = self.silences.first()
            && due <= moment.at
        {
            let mut entered = Some(due);
            self.silences.clear(key, &mut entered);
            let Some(series) = self.book.series.get_mut(&key) else { continue };
            series.entered = None;
            match series.due() {
                Some(due) if due > moment.at => self.silences.set(key, &mut series.entered, due),
                Some(_) => drop(silent.insert(key)),
                None => {}
            }
        }
        // in an order that does not depend on when the deadlines were entered
        for key in silent {
            self.stopped(key, moment, out);
        }
    }

    fn stopped(&mut self, key: u64, moment: Moment, out: &mut Vec<AlertRecord>) {
        let Some(series) = self.book.series.get_mut(&key) else { return };
        let Some(source) = self.book.sources.get(&series.source) else { return };
        let Some(index) = self.rules.iter().position(|compiled| compiled.rule.id == source.rule) else { return };
        let Some(compiled) = self.rules.get(index).filter(|compiled| compiled.rule.stops) else { return };
        let needed = series.pauses.silence().unwrap_or_default();
        if !series.stopped && source.last < series.last.after(needed / 2) {
            // the whole source is silent: that is another matter; looked at again later
            let due = moment.at.after((needed / 2).max(Duration::from_secs(60)));
            series.look_at = Some(due);
            self.silences.set(key, &mut series.entered, due);
            return self.book.mark(key);
        }
        let (last, template, usual) = (series.last, series.template, series.pauses.mean());
        let silent = moment.at.since(last);
        let goes_on = std::mem::replace(&mut series.stopped, true);
        // said again before quiet would end it, for a while
        series.look_at = Some(moment.at.after(compiled.terms.resolve_after / 2)).filter(|_| silent < needed.saturating_add(SILENT_FOR));
        let name = source.name.clone();
        let fingerprint = Kind::Stopped.fingerprint(&compiled.rule.id, &name, template);
        if goes_on && !self.episodes.is_open(fingerprint) {
            series.look_at = None;
            return self.book.mark(key);
        }
        if !goes_on && !admits(&mut self.caps, &mut self.speaking, &mut self.dirty_caps, compiled, index, moment.seq, last, moment.at) {
            self.counts.held_back += 1;
            series.look_at = None;
            return self.book.mark(key);
        }
        if let Some(due) = series.look_at {
            self.silences.set(key, &mut series.entered, due);
        }
        self.book.mark(key);
        let text = self.miner.template(template).unwrap_or_default();
        let subject = Subject { rule: &compiled.rule, source: &name, id: template, text };
        let observation = || {
            let name = cut(text, LINE_BYTES).to_owned();
            let (source, measure, usual) = (subject.source.to_owned(), Measure::Lines, Some(60.0 / usual.max(1.0)));
            Some(Observation::Change { at: last, until: moment.at, source, name, measure, usual, spread: None, value: 0.0, count: 0 })
        };
        let seen = Seen { fingerprint, at: last, logged_at: moment.at, seq: moment.seq, severity: compiled.rule.severity };
        let terms = Terms { cooldown: SILENT_FOR, ..compiled.terms };
        self.episodes.observe(seen, terms, observation, || subject.stopped(silent, usual), out);
    }
}

fn forget(silences: &mut Deadlines, taken: Vec<(u64, Series)>) {
    for (key, mut series) in taken {
        silences.clear(key, &mut series.entered);
    }
}

/// Whether the rule may raise one more alert; if not, it is counted.
#[allow(clippy::too_many_arguments, reason = "parts of the detector that are borrowed one by one")]
fn admits(
    caps: &mut [Cap],
    speaking: &mut BTreeSet<usize>,
    dirty: &mut BTreeSet<usize>,
    compiled: &Compiled,
    index: usize,
    seq: Seq,
    at: Timestamp,
    now: Timestamp,
) -> bool {
    let Some(cap) = caps.get_mut(index) else { return false };
    let admitted = cap.admits(compiled.rule.max_alerts_per_minute, seq, at, now);
    dirty.insert(index);
    if cap.due().is_some() {
        speaking.insert(index);
    }
    admitted
}

impl Detect for Detector {
    const ID: &'static str = super::ID;
    const SUMMARY: &'static str = "raises an alert when a kind of log line is new, bursts or stops";
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
                if !self.rules.is_empty() && block.kinds.contains(SignalKind::Log) {
                    self.lines(block, out);
                }
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        if !self.orphans.is_empty() {
            return Some(Timestamp::ZERO);
        }
        let caps = self.speaking.iter().filter_map(|index| self.caps.get(*index)?.due());
        caps.chain(self.episodes.next_due()).chain(self.silences.first().map(|(due, _)| due)).min()
    }

    fn changed(&mut self) -> Vec<Change> {
        let mut changes: Vec<Change> = self.gone.drain(..).map(|id| Change::gone(format!("{CAP_PREFIX}{id}"))).collect();
        for index in std::mem::take(&mut self.dirty_caps) {
            if let (Some(cap), Some(compiled)) = (self.caps.get(index), self.rules.get(index)) {
                let state = Some(cap).filter(|cap| **cap != Cap::default());
                changes.push(Change::of(format!("{CAP_PREFIX}{}", compiled.rule.id), state));
            }
        }
        let mut touched = BTreeSet::new();
        self.book.changed(&mut changes, &mut touched);
        changes.extend(self.miner.changed(&touched));
        self.episodes.changed(&mut changes);
        changes
    }

    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        self.restored = true;
        if self.miner.restore(key, body)? {
            return Ok(());
        }
        if let Some(restored) = self.book.restore(key, body)? {
            if let Some(key) = restored
                && let Some(series) = self.book.series.get_mut(&key)
                && let Some(due) = series.due()
            {
                self.silences.set(key, &mut series.entered, due);
            }
            return Ok(());
        }
        if let Some(id) = key.strip_prefix(CAP_PREFIX) {
            let cap: Cap = serde_json::from_slice(body).map_err(|error| error.to_string())?;
            let Some(index) = self.rules.iter().position(|compiled| compiled.rule.id == id) else {
                self.orphans.insert(id.to_owned(), cap);
                return Ok(());
            };
            if cap.due().is_some() {
                self.speaking.insert(index);
            }
            if let Some(place) = self.caps.get_mut(index) {
                *place = cap;
            }
            return Ok(());
        }
        let fingerprint = key.strip_prefix(episodes::PREFIX).and_then(|digits| digits.parse().ok()).ok_or("unknown kind of state")?;
        let rules = &self.rules;
        let terms = |id: &str| rules.iter().find(|compiled| compiled.rule.id == id).map(|compiled| compiled.terms);
        self.episodes.restore(fingerprint, body, terms)
    }

    fn touch(&mut self) {
        self.dirty_caps.extend(0..self.caps.len());
        self.miner.touch();
        self.book.touch();
        self.episodes.touch();
    }

    fn counts(&self) -> Counts {
        Counts {
            open: self.book.series.len(),
            bytes: self.miner.bytes().saturating_add(self.episodes.bytes()),
            full: self.episodes.is_full(),
            evicted: self.episodes.evicted().saturating_add(self.miner.evicted()).saturating_add(self.book.evicted()),
            ..self.counts
        }
    }
}
