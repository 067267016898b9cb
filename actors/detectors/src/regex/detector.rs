//! The detector itself: pure, fed with the log, asked for what it has to say.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use opspilot_kernel::{
    alert::{AlertRecord, Observation, ResolvedBy},
    fingerprint::Fingerprint,
    ids::Seq,
    matcher::all_hold,
    signal::{LogEntry, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};

use super::{
    cap::{self, Cap},
    config::{Config, Rule},
    engine::Engines,
    gate::Gate,
};
use crate::{
    counts::Counts,
    detect::Detect,
    episodes::{self, Episodes, Face, Moment, Seen, Terms},
    evidence::{LINE_BYTES, cut},
    rules,
    state::Change,
    template::{DESCRIPTION_BYTES, TITLE_BYTES, Template},
};

/// Of a line in a title, this much is enough.
const LINE_IN_TITLE: usize = 160;
/// What a rule's cap is stored under.
const CAP_PREFIX: &str = "cap/";

/// Finds the lines that rules look for and keeps account of the alerts they raise.
#[derive(Debug)]
pub struct Detector {
    rules: Vec<Compiled>,
    gate: Gate,
    /// What each pattern of the gate is for.
    roles: Vec<Role>,
    /// Patterns of lines that raise nothing: looked at only for lines that would.
    excluding: Engines,
    episodes: Episodes,
    caps: Vec<Cap>,
    /// Caps with something to say when their minute ends, and those to be stored.
    speaking: BTreeSet<usize>,
    dirty_caps: BTreeSet<usize>,
    /// Restored caps of rules that are gone.
    orphans: BTreeMap<String, Cap>,
    gone: Vec<String>,
    counts: Counts,
}

#[derive(Debug)]
struct Compiled {
    rule: Rule,
    terms: Terms,
    title: Option<Template>,
    description: Template,
    labels: BTreeMap<String, Template>,
    /// The numbers of its patterns among those that exclude.
    excluded_by: Range<usize>,
}

#[derive(Debug, Clone, Copy)]
enum Role {
    Raises(usize),
    Resolves(usize),
}

impl Compiled {
    /// `excluded_by` is filled by whoever knows the numbers.
    fn new(rule: Rule) -> Compiled {
        let terms = Terms {
            cooldown: rule.cooldown.0,
            resolve_after: rule.resolve_after.0.max(Duration::from_secs(1)),
            digest: match rule.matchers.is_empty() && rule.exclude.is_empty() {
                true => rules::digest(&(&rule.pattern, &rule.resolve_pattern, &rule.sources)),
                false => rules::digest(&(&rule.pattern, &rule.resolve_pattern, &rule.sources, &rule.matchers, &rule.exclude)),
            },
        };
        // checked with the configuration; a template that cannot be read is as good as none
        let title = rule.title.as_deref().and_then(|text| Template::parse(text).ok());
        let description = Template::parse(&rule.description).unwrap_or_default();
        let labels = rule.labels.iter().map(|(name, text)| (name.clone(), Template::parse(text).unwrap_or_default())).collect();
        Compiled { rule, terms, title, description, labels, excluded_by: 0..0 }
    }

    fn concerns(&self, signal: &SignalRef<'_>) -> bool {
        let value = |name: &str| if name == "source" { Some(signal.source) } else { signal.labels.get(name) };
        (self.rule.sources.is_empty() || self.rule.sources.iter().any(|wanted| wanted == signal.source))
            && all_hold(&self.rule.matchers, value)
    }

    fn fingerprint(&self, source: &str) -> Fingerprint {
        Fingerprint::of_pairs([("alertname", self.rule.id.as_str()), ("source", source)])
    }

    fn face(&self, gate: &Gate, pattern: usize, signal: &SignalRef<'_>) -> Face {
        let wanted =
            self.title.iter().chain([&self.description]).chain(self.labels.values()).any(|template| template.names().next().is_some());
        let captures = if wanted { gate.captures(pattern, signal.message) } else { None };
        let value = |name: &str, out: &mut String| {
            let captured = captures.as_ref().and_then(|captures| match name.parse::<usize>() {
                Ok(number) => captures.get_group(number),
                Err(_) => captures.get_group_by_name(name),
            });
            match captured.and_then(|span| signal.message.get(span.range())) {
                Some(text) => out.push_str(text),
                None if name == "source" => out.push_str(signal.source),
                None => {}
            }
        };
        let title = match &self.title {
            Some(template) => template.render(TITLE_BYTES, value),
            None => format!("{}: {}", self.rule.id, cut(signal.message.trim(), LINE_IN_TITLE)),
        };
        // a title of the rule's own may say nothing of the line
        let description = match (&self.title, self.rule.description.is_empty()) {
            (Some(_), true) => cut(signal.message.trim(), DESCRIPTION_BYTES).to_owned(),
            _ => self.description.render(DESCRIPTION_BYTES, value),
        };
        let rendered = self.labels.iter().map(|(name, template)| (name.clone(), template.render(TITLE_BYTES, value)));
        let mut labels: BTreeMap<String, String> = rendered.collect();
        labels.insert("alertname".to_owned(), self.rule.id.clone());
        labels.insert("source".to_owned(), signal.source.to_owned());
        Face {
            rule: self.rule.id.clone(),
            source: signal.source.to_owned(),
            title,
            description,
            severity: self.rule.severity,
            labels,
            supports: false,
        }
    }
}

impl Detector {
    /// A detector for a configuration that has been checked.
    pub fn new(config: Config) -> Detector {
        let mut rules: Vec<Compiled> = config.rules.into_iter().map(Compiled::new).collect();
        let mut excluding = Vec::new();
        for compiled in &mut rules {
            let first = excluding.len();
            excluding.extend_from_slice(&compiled.rule.exclude);
            compiled.excluded_by = first..excluding.len();
        }
        let mut texts = Vec::new();
        let mut roles = Vec::new();
        for (index, compiled) in rules.iter().enumerate() {
            texts.push(compiled.rule.pattern.clone());
            roles.push(Role::Raises(index));
            if let Some(text) = &compiled.rule.resolve_pattern {
                texts.push(text.clone());
                roles.push(Role::Resolves(index));
            }
        }
        Detector {
            caps: vec![Cap::default(); rules.len()],
            speaking: BTreeSet::new(),
            dirty_caps: BTreeSet::new(),
            gate: Gate::new(texts),
            roles,
            excluding: Engines::new(excluding),
            rules,
            episodes: Episodes::new(super::ID, config.max_fingerprints, true),
            orphans: BTreeMap::new(),
            gone: Vec::new(),
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
        #[cfg(feature = "failpoints")]
        if signal.message.contains("opspilot-poison") {
            fail::fail_point!("detector.regex::poison");
        }
        let matched = self.gate.matches(signal.message);
        if matched.is_empty() {
            return;
        }
        // a copy, because the gate is asked again for captures; few patterns match one line
        let matched = matched.to_vec();
        let is_over = |roles: &[Role], rule: usize| {
            matched.iter().filter_map(|pattern| roles.get(*pattern)).any(|role| matches!(role, Role::Resolves(other) if *other == rule))
        };
        for pattern in &matched {
            let Some(role) = self.roles.get(*pattern).copied() else { continue };
            let (Role::Raises(index) | Role::Resolves(index)) = role;
            let Some(compiled) = self.rules.get(index) else { continue };
            if !compiled.concerns(signal) {
                continue;
            }
            let fingerprint = compiled.fingerprint(signal.source);
            match role {
                Role::Resolves(_) => {
                    let moment = Moment { seq, at: now };
                    self.episodes.resolve(fingerprint, ResolvedBy::Clear, signal.at, moment, out);
                }
                Role::Raises(_) if is_over(&self.roles, index) => {}
                Role::Raises(_) if compiled.excluded_by.clone().any(|number| self.excluding.is_match(number, signal.message)) => {
                    self.counts.ignored += 1;
                }
                Role::Raises(_) => {
                    self.counts.matched += 1;
                    if !self.episodes.is_open(fingerprint) {
                        let Some(cap) = self.caps.get_mut(index) else { continue };
                        self.dirty_caps.insert(index);
                        if !cap.admits(compiled.rule.max_alerts_per_minute, seq, signal.at, now) {
                            self.speaking.insert(index);
                            self.counts.held_back += 1;
                            continue;
                        }
                    }
                    let seen = Seen { fingerprint, at: signal.at, logged_at: now, seq, severity: compiled.rule.severity };
                    let observation = || {
                        let text = cut(signal.message, LINE_BYTES).to_owned();
                        Some(Observation::Log { at: signal.at, source: signal.source.to_owned(), text })
                    };
                    let face = || compiled.face(&self.gate, *pattern, signal);
                    self.episodes.observe(seen, compiled.terms, observation, face, out);
                }
            }
        }
    }

    fn advance(&mut self, moment: Moment, out: &mut Vec<AlertRecord>) {
        self.episodes.advance(moment, out);
        for (id, cap) in std::mem::take(&mut self.orphans) {
            cap.abandon(cap::Rule { id: &id, limit: 0, detected_by: super::ID }, moment, out);
            self.gone.push(id);
        }
        if self.speaking.is_empty() {
            return;
        }
        let (caps, rules, dirty) = (&mut self.caps, &self.rules, &mut self.dirty_caps);
        self.speaking.retain(|index| {
            let (Some(cap), Some(compiled)) = (caps.get_mut(*index), rules.get(*index)) else { return false };
            let rule = cap::Rule { id: &compiled.rule.id, limit: compiled.rule.max_alerts_per_minute, detected_by: super::ID };
            if cap.advance(rule, moment, out) {
                dirty.insert(*index);
            }
            cap.due().is_some()
        });
    }
}

impl Detect for Detector {
    const ID: &'static str = super::ID;
    const SUMMARY: &'static str = "raises an alert when a log line matches a rule";
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
        self.speaking.iter().filter_map(|index| self.caps.get(*index)?.due()).chain(self.episodes.next_due()).min()
    }

    fn changed(&mut self) -> Vec<Change> {
        let mut changes: Vec<Change> = self.gone.drain(..).map(|id| Change::gone(format!("{CAP_PREFIX}{id}"))).collect();
        for index in std::mem::take(&mut self.dirty_caps) {
            if let (Some(cap), Some(compiled)) = (self.caps.get(index), self.rules.get(index)) {
                let state = Some(cap).filter(|cap| **cap != Cap::default());
                changes.push(Change::of(format!("{CAP_PREFIX}{}", compiled.rule.id), state));
            }
        }
        self.episodes.changed(&mut changes);
        changes
    }

    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
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
        self.episodes.touch();
    }

    fn counts(&self) -> Counts {
        Counts {
            open: self.episodes.len(),
            bytes: self.episodes.bytes(),
            full: self.episodes.is_full(),
            evicted: self.episodes.evicted(),
            compiled: self.gate.compiled().saturating_add(self.excluding.compiled()),
            pattern_bytes: self.gate.bytes().saturating_add(self.excluding.bytes()),
            ..self.counts
        }
    }
}
