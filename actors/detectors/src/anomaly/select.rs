//! Which rules a series is under. Asked once for each series and remembered, so that a value costs one look-up and no
//! allocation.

use std::collections::HashMap;

use opspilot_kernel::{
    codec::{self, Labels},
    fingerprint::Fingerprint,
    matcher::all_hold,
    signal::SignalRef,
};

use super::config::Rule;
use crate::template::Template;

/// What is remembered at most; beyond it all is forgotten, and asked again.
const BYTES: usize = 32 << 20;
/// What an entry takes besides its bytes, about.
const ENTRY: usize = 96;
/// A longer name with its labels is not remembered.
const LONGEST: usize = 8 << 10;

/// A rule made ready.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) rule: Rule,
    /// Changes when its series must be learned anew.
    pub(super) digest: u64,
    pub(super) title: Option<Template>,
    pub(super) description: Option<Template>,
}

impl Compiled {
    pub(super) fn new(rule: Rule) -> Compiled {
        let pattern = rule.extract.as_ref().map(|extract| (&extract.pattern, &extract.name));
        let digest = crate::rules::digest(&(&rule.metric, pattern, &rule.method));
        // checked with the configuration; a template that cannot be read is as good as none
        let parse = |text: &str| Template::parse(text).ok();
        let title = rule.title.as_deref().and_then(parse);
        let description = Some(rule.description.as_str()).filter(|text| !text.is_empty()).and_then(parse);
        Compiled { rule, digest, title, description }
    }

    /// Whether it is about a signal of this name (none for a log line) and source and with these labels.
    pub(super) fn wants(&self, name: Option<&str>, signal: &SignalRef<'_>) -> bool {
        let rule = &self.rule;
        name.is_none() == rule.extract.is_some()
            && rule.metric.as_deref().is_none_or(|metric| name == Some(metric))
            && (rule.sources.is_empty() || rule.sources.iter().any(|source| source == signal.source))
            && all_hold(&rule.matchers, |label| match label {
                "source" => Some(signal.source),
                "__name__" => name,
                label => signal.labels.get(label),
            })
    }
}

/// A rule that a series is under, and where the series lay last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chosen {
    pub(super) rule: usize,
    pub(super) key: u64,
    pub(super) place: u32,
}

/// What is known of names and labels that were met.
#[derive(Debug, Default)]
pub(super) struct Select {
    /// Where in `chosen` it stands.
    known: HashMap<Box<[u8]>, usize>,
    chosen: Vec<Vec<Chosen>>,
    bytes: usize,
    /// The name of what is looked up, as bytes.
    name: Vec<u8>,
    /// What is not remembered.
    passing: Vec<Chosen>,
}

impl Select {
    /// What the metric is under: every rule of the user about it, or if there is none the built-in one.
    pub(super) fn of(&mut self, signal: &SignalRef<'_>, rules: &[Compiled], builtin: Option<usize>) -> &mut [Chosen] {
        self.name.clear();
        codec::push_label(&mut self.name, signal.source, signal.name);
        match signal.labels {
            Labels::Encoded(bytes) => self.name.extend_from_slice(bytes),
            labels @ Labels::Pairs(_) => labels.iter().for_each(|(name, value)| codec::push_label(&mut self.name, name, value)),
        }
        let at = match self.known.get(self.name.as_slice()) {
            Some(at) => *at,
            None => {
                let chosen = choose(signal, rules, builtin);
                if self.name.len() > LONGEST {
                    self.passing = chosen;
                    return &mut self.passing;
                }
                self.remember(chosen)
            }
        };
        self.chosen.get_mut(at).map_or(&mut [], Vec::as_mut_slice)
    }

    fn remember(&mut self, chosen: Vec<Chosen>) -> usize {
        let bytes = self.name.len().saturating_add(ENTRY).saturating_add(chosen.len().saturating_mul(size_of::<Chosen>()));
        if self.bytes.saturating_add(bytes) > BYTES {
            self.known.clear();
            self.chosen.clear();
            self.bytes = 0;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.chosen.push(chosen);
        let at = self.chosen.len().saturating_sub(1);
        self.known.insert(self.name.as_slice().into(), at);
        at
    }
}

fn choose(signal: &SignalRef<'_>, rules: &[Compiled], builtin: Option<usize>) -> Vec<Chosen> {
    let mut labels: Vec<(&str, &str)> = signal.labels.iter().collect();
    labels.sort_unstable();
    let mut chosen: Vec<usize> = rules
        .iter()
        .enumerate()
        .filter(|(index, compiled)| Some(*index) != builtin && compiled.wants(Some(signal.name), signal))
        .map(|(index, _)| index)
        .collect();
    if chosen.is_empty() {
        chosen.extend(builtin);
    }
    let key = |rule: &Compiled| key_of(&rule.rule.id, signal.name, signal.source, labels.iter().copied());
    chosen.into_iter().filter_map(|rule| Some(Chosen { rule, key: key(rules.get(rule)?), place: u32::MAX })).collect()
}

/// Identifies a series under a rule. What the sender chose comes last, so that none of it can pass
/// for the rule, the metric or the source.
pub(super) fn key_of<'a>(rule: &'a str, metric: &'a str, source: &'a str, sorted: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let scope: [(&str, &str); 3] = [("alertname", rule), ("metric", metric), ("source", source)];
    Fingerprint::of_pairs(scope.into_iter().chain(sorted)).as_u64()
}
