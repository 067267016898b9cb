//! The detector itself: pure, fed with the log, asked for what it has to say.

use std::{collections::BTreeMap, time::Duration};

use opspilot_kernel::{
    alert::{AlertRecord, Observation, ResolvedBy},
    fingerprint::Fingerprint,
    ids::Seq,
    matcher::Matcher,
    signal::{AlertState, LogEntry, SignalBlock, SignalKind, SignalRef},
    time::Timestamp,
};

use super::config::Config;
use crate::{
    counts::Counts,
    detect::Detect,
    episodes::{self, Episodes, Face, Moment, Seen, Terms},
    evidence::{LINE_BYTES, cut},
    state::Change,
    template::{DESCRIPTION_BYTES, TITLE_BYTES},
};

/// Keeps account of the alerts that outside systems raise and resolve.
#[derive(Debug)]
pub struct Detector {
    terms: Terms,
    ignore: Vec<Matcher>,
    episodes: Episodes,
    counts: Counts,
}

impl Detector {
    /// A detector for a configuration that has been checked.
    pub fn new(config: &Config) -> Detector {
        let resolve_after = config.resolve_after.map_or(Duration::ZERO, |span| span.0.max(Duration::from_secs(1)));
        Detector {
            terms: Terms { cooldown: config.cooldown.0, resolve_after, digest: 0 },
            ignore: config.ignore.clone(),
            episodes: Episodes::new(super::ID, config.max_fingerprints, config.resolve_after.is_some()),
            counts: Counts::default(),
        }
    }

    fn alerts(&mut self, block: &SignalBlock, out: &mut Vec<AlertRecord>) {
        for (seq, record) in block.iter() {
            match record.kind() {
                Ok(SignalKind::Alert) => {}
                Ok(_) => continue,
                Err(_) => {
                    self.counts.damaged += 1;
                    continue;
                }
            }
            match record.decode() {
                Ok(signal) => self.alert(seq, &signal, block.received_at, out),
                Err(_) => self.counts.damaged += 1,
            }
        }
    }

    fn is_ignored(&self, signal: &SignalRef<'_>) -> bool {
        let value = |name: &str| match name {
            "source" => signal.source,
            "alertname" => signal.labels.get(name).unwrap_or(signal.name),
            _ => signal.labels.get(name).unwrap_or_default(),
        };
        self.ignore.iter().any(|matcher| matcher.holds(value(matcher.name())))
    }

    fn alert(&mut self, seq: Seq, signal: &SignalRef<'_>, now: Timestamp, out: &mut Vec<AlertRecord>) {
        // one that began to fire before it was ignored still ends
        if signal.state == AlertState::Firing && !self.ignore.is_empty() && self.is_ignored(signal) {
            self.counts.ignored += 1;
            return;
        }
        let fingerprint = fingerprint(signal);
        // the source is part of the fingerprint; this holds even should two fingerprints collide
        let known = self.episodes.source_of(fingerprint);
        let is_theirs = known.is_none_or(|source| source == signal.source);
        match signal.state {
            AlertState::Firing if is_theirs => {
                self.counts.matched += 1;
                let seen = Seen { fingerprint, at: signal.at, logged_at: now, seq, severity: signal.severity };
                self.episodes.observe(seen, self.terms, || observation(signal), || face(signal), out);
            }
            AlertState::Resolved if is_theirs && known.is_some() => {
                self.episodes.resolve(fingerprint, ResolvedBy::Source, signal.at, Moment { seq, at: now }, out);
            }
            AlertState::Firing | AlertState::Resolved => self.counts.ignored += 1,
        }
    }
}

impl Detect for Detector {
    const ID: &'static str = super::ID;
    const SUMMARY: &'static str = "takes over the alerts that outside systems raise and resolve";
    type Config = Config;

    fn build(config: &Config) -> Detector {
        Detector::new(config)
    }

    fn consume(&mut self, entry: &LogEntry, out: &mut Vec<AlertRecord>) {
        match entry {
            LogEntry::Reload { .. } => {}
            LogEntry::Tick { seq, at } => self.episodes.advance(Moment { seq: *seq, at: *at }, out),
            LogEntry::Batch(block) => {
                self.episodes.advance(Moment { seq: block.first_seq, at: block.received_at }, out);
                if block.kinds.contains(SignalKind::Alert) {
                    self.alerts(block, out);
                }
            }
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.episodes.next_due()
    }

    fn changed(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.episodes.changed(&mut changes);
        changes
    }

    fn restore(&mut self, key: &str, body: &[u8]) -> Result<(), String> {
        let fingerprint = key.strip_prefix(episodes::PREFIX).and_then(|digits| digits.parse().ok()).ok_or("unknown kind of state")?;
        self.episodes.restore(fingerprint, body, |_| Some(self.terms))
    }

    fn touch(&mut self) {
        self.episodes.touch();
    }

    fn counts(&self) -> Counts {
        Counts {
            open: self.episodes.len(),
            bytes: self.episodes.bytes(),
            full: self.episodes.is_full(),
            evicted: self.episodes.evicted(),
            ..self.counts
        }
    }
}

/// The sender's own fingerprint within its source, or one over source, name and labels. What names
/// the source comes first, so that nothing a sender puts into a label can pass for another source.
fn fingerprint(signal: &SignalRef<'_>) -> Fingerprint {
    if !signal.fingerprint.is_empty() {
        return Fingerprint::of_pairs([("@source", signal.source), ("@fingerprint", signal.fingerprint)]);
    }
    let name = if signal.name.is_empty() { signal.title } else { signal.name };
    let mut labels: Vec<(&str, &str)> = signal.labels.iter().collect();
    labels.sort_unstable();
    Fingerprint::of_pairs([("@source", signal.source), ("@name", name)].into_iter().chain(labels))
}

/// What the sender wrote, as evidence.
fn observation(signal: &SignalRef<'_>) -> Option<Observation> {
    let text = [signal.message, signal.description, signal.title, signal.name].into_iter().find(|text| !text.is_empty())?;
    Some(Observation::Log { at: signal.at, source: signal.source.to_owned(), text: cut(text, LINE_BYTES).to_owned() })
}

fn face(signal: &SignalRef<'_>) -> Face {
    let name = if signal.name.is_empty() { "alert" } else { signal.name };
    let title = [signal.title, signal.name, signal.message].into_iter().find(|text| !text.is_empty());
    let title = title.map_or_else(|| format!("Alert from {}", signal.source), |title| cut(title, TITLE_BYTES * 2).to_owned());
    let description = if signal.description.is_empty() { signal.message } else { signal.description };
    let mut labels: BTreeMap<String, String> = signal.labels.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    for (name, value) in [("alertname", name), ("source", signal.source)] {
        labels.entry(name.to_owned()).or_insert_with(|| value.to_owned());
    }
    Face {
        rule: name.to_owned(),
        source: signal.source.to_owned(),
        title,
        description: cut(description, DESCRIPTION_BYTES).to_owned(),
        severity: signal.severity,
        labels,
        supports: false,
    }
}
