//! What makes incidents one: keys that alerts share, storms, and the merging itself.

use std::collections::BTreeSet;

use opspilot_kernel::{
    alert::AlertRecord,
    ids::IncidentId,
    incident::{IncidentStatus, TimelineKind},
    time::Timestamp,
};
use opspilot_ledger::pipeline::{HeldKey, KeyHolder, Lifecycle, Merge};
use serde_json::json;

use super::{decide::Decided, desk::Desk};
use crate::stage::{Bond, Grouping, Key, StormRule};

/// Keys that one incident comes to hold; what comes with further ones finds it by those that it has.
const KEYS: u64 = 10_000;
/// How stale the time may be at which a key was last brought to an incident: each refreshment is a write.
const STALE_SECS: u64 = 30;
/// What share of all incidents that began at once has to have the name, or a word, to be one storm, at least.
const HALF: usize = 50;
/// How many times as many have to be called the same as have to share a label.
const KIND_TIMES: usize = 3;
/// Incidents that one record may bring together; further ones come together with the next.
const TOGETHER: usize = 64;

/// An open incident that takes an alert in.
pub(super) struct Taker<'k> {
    pub(super) incident: IncidentId,
    /// The strongest key by which it was found.
    pub(super) key: &'k Key,
    /// How the alert's component stands to those in it, by all keys.
    bonds: Vec<Bond>,
}

impl Desk<'_> {
    /// The incident that goes on where `id` was merged into another.
    pub(super) fn home(&self, id: &IncidentId) -> IncidentId {
        let mut at = id;
        // merging always goes into one that is not merged, so this ends; the bound is for stored rows gone wrong
        for _ in 0..1000 {
            match self.incident(at).and_then(|state| state.incident.merged_into.as_ref()) {
                Some(next) => at = next,
                None => break,
            }
        }
        at.clone()
    }

    /// How many incidents began lately, by the end of what is decided.
    fn opened(&self) -> usize {
        usize::try_from(self.board().opened).unwrap_or(usize::MAX).saturating_add(self.founded())
    }

    fn holders(&self, key: &str) -> &[KeyHolder] {
        self.keys.get(key).or_else(|| self.board().keys.get(key)).map_or(&[], Vec::as_slice)
    }

    /// Whether it is open and may be joined with others.
    fn is_sociable(&self, id: &IncidentId) -> bool {
        self.incident(id).is_some_and(|state| state.incident.status != IncidentStatus::Resolved && !state.pinned)
    }

    /// The open incidents that take in what has these keys at `at`, by the strongest key first.
    pub(super) fn takers<'k>(&self, grouping: &'k Grouping, at: Timestamp) -> Vec<Taker<'k>> {
        let mut takers: Vec<Taker<'k>> = Vec::new();
        for key in &grouping.keys {
            for holder in self.holders(&key.name) {
                let wanted = key.seeks || (key.counts && holder.storm);
                let incident = self.home(&holder.incident);
                if !wanted || at.since(holder.at) > grouping.within || !self.is_sociable(&incident) {
                    continue;
                }
                match takers.iter_mut().find(|taker| taker.incident == incident) {
                    Some(taker) => taker.bonds.push(key.bond),
                    None => takers.push(Taker { incident, key, bonds: vec![key.bond] }),
                }
            }
        }
        takers.truncate(TOGETHER);
        takers
    }

    /// An alert with these keys is part of the incident now. If others in it depend on what it is about, and it on none of
    /// them, the incident is named after it.
    pub(super) fn share(&mut self, incident: &IncidentId, record: &AlertRecord, grouping: &Grouping, takers: &[Taker<'_>]) {
        let at = record.logged_at;
        // a look asks for a tick, and most incidents are no part of many: those ask for none
        let counts = self.hold_keys(incident, grouping, at) && self.opened() >= grouping.storm;
        let stands = |bond| takers.iter().any(|taker| taker.bonds.contains(&bond));
        let (depended_on, depends) = (stands(Bond::DependsOnThis), stands(Bond::ThisDependsOn));
        let Some(mut change) = self.touch_incident(incident) else { return };
        if counts {
            // when its second is over: whatever else begins within it is there by then, in whatever order it came
            let next = Timestamp::from_millis(at.millis().div_euclid(1000).saturating_add(1).saturating_mul(1000));
            let state = change.state();
            state.look_at = Some(state.look_at.map_or(next, |look| look.min(next)));
        }
        if depended_on && !depends {
            let own = &mut change.state().incident;
            if own.title != record.title {
                own.title.clone_from(&record.title);
                own.description = format!("Others in it depend on it. {}", record.description).trim_end().to_owned();
                change.note(TimelineKind::Renamed, at, format!("named after {}: the others in it depend on it", record.title));
            }
        }
    }

    /// From `at` on the incident has the keys; says whether one that counts in storms is new to it.
    pub(super) fn hold_keys(&mut self, incident: &IncidentId, grouping: &Grouping, at: Timestamp) -> bool {
        if self.incident(incident).is_none_or(|state| state.pinned) {
            return false;
        }
        let mut counts = false;
        for key in grouping.keys.iter().filter(|key| key.holds) {
            let is_new = self.hold_key(incident, HeldKey { key: key.name.clone(), at, counts: key.counts, storm: false });
            counts |= is_new && key.counts;
        }
        counts
    }

    /// Says whether it is new to it.
    fn hold_key(&mut self, incident: &IncidentId, held: HeldKey) -> bool {
        let known = self.holders(&held.key).iter().find(|holder| holder.incident == *incident);
        let (is_new, storm) = (known.is_none(), held.storm);
        if known.is_some_and(|known| held.at.since(known.at).as_secs() < STALE_SECS && (known.storm || !storm)) {
            return false;
        }
        let Some(mut change) = self.touch_incident(incident) else { return false };
        let state = change.state();
        if is_new && state.key_count >= KEYS && !storm {
            return false;
        }
        state.key_count += u64::from(is_new);
        let opened_at = state.incident.opened_at;
        change.change.keys.push(held.clone());
        let mut list = self.holders(&held.key).to_vec();
        match list.iter_mut().find(|holder| holder.incident == *incident) {
            Some(holder) => {
                holder.at = holder.at.max(held.at);
                holder.storm |= storm;
            }
            None => list.push(KeyHolder { incident: incident.clone(), at: held.at, opened_at, storm }),
        }
        self.keys.insert(held.key, list);
        is_new
    }

    /// Makes one of `incidents`: the one that people work on, else the oldest. One in which something that was approved is not
    /// through yet is never merged into another.
    pub(super) fn unite(&mut self, incidents: &[IncidentId], at: Timestamp, why: &str) -> Option<IncidentId> {
        let mut order: Vec<(bool, bool, Timestamp, IncidentId)> = Vec::new();
        for id in incidents {
            let state = self.incident(id)?;
            let taken = state.incident.status == IncidentStatus::Acknowledged || state.incident.assignee.is_some();
            order.push((!self.is_under_way(id), !taken, state.incident.opened_at, id.clone()));
        }
        order.sort();
        order.dedup();
        let mut rest = order.into_iter();
        let (.., into) = rest.next()?;
        for (free, .., from) in rest {
            if free {
                self.merge(&from, &into, at, why);
            }
        }
        Some(into)
    }

    fn merge(&mut self, from: &IncidentId, into: &IncidentId, at: Timestamp, why: &str) {
        let Some(source) = self.incident(from).cloned() else { return };
        let limit = self.rules.evidence_limit;
        let Some(mut change) = self.touch_incident(into) else { return };
        change.raise(source.incident.severity, at);
        let room = limit.saturating_sub(change.state().incident.evidence_count);
        let evidence = source.incident.evidence_count.min(room);
        change.state().take_over(&source, evidence);
        change.change.evidence_taken_over += evidence;
        let by = source.incident.acknowledged_by.as_ref().map(|by| format!(", which {by} had acknowledged")).unwrap_or_default();
        change.note(TimelineKind::Merged, at, format!("{from} ({}){by} is part of this: {why}", source.incident.title));
        let title = change.state().incident.title.clone();
        if let Some(mut change) = self.touch_incident(from) {
            change.state().merge_into(into, at);
            change.change.lifecycle.push((Lifecycle::Merged, format!("merged into {into}: {why}")));
            change.note(TimelineKind::Merged, at, format!("merged into {into} ({title}): {why}"));
        }
        self.merges.push(Merge { from: from.clone(), into: into.clone(), evidence });
    }

    /// Looks whether incidents whose time for it has come are part of a storm.
    pub(super) fn storms(&mut self, looked_at: &[IncidentId], at: Timestamp, rule: Option<StormRule>) -> Vec<Decided> {
        for id in looked_at {
            if let Some(mut change) = self.touch_incident(id) {
                change.state().look_at = None;
            }
        }
        let Some(rule) = rule else { return Vec::new() };
        let since = at.before(rule.window);
        let mut decided = Vec::new();
        let mut opened = self.board().opened;
        // what most share comes first: it is what explains most
        let mut order: Vec<(usize, String)> = self.board().keys.iter().map(|(key, holders)| (holders.len(), key.clone())).collect();
        order.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for (_, key) in order {
            let mut members = BTreeSet::new();
            let mut storm = None;
            for holder in self.holders(&key) {
                let id = self.home(&holder.incident);
                if self.is_sociable(&id) && (holder.opened_at >= since || holder.storm) {
                    if holder.storm {
                        storm = Some(id.clone());
                    }
                    members.insert(id);
                }
            }
            let count = members.len();
            // troubles of one kind happen in many places at once by chance, and a word may be in many texts
            let (least, percent) = match key.split_once(':') {
                Some(("name", _)) => (rule.incidents.saturating_mul(KIND_TIMES), rule.percent.max(HALF)),
                Some(("entity", _)) => (rule.incidents, rule.percent.max(HALF)),
                _ => (rule.incidents, rule.percent),
            };
            let most = usize::try_from(opened).unwrap_or(usize::MAX);
            let enough = count >= least && count.saturating_mul(100) >= percent.saturating_mul(most);
            if count < 2 || !(enough || storm.is_some()) {
                continue;
            }
            let known = storm.is_some();
            let shared = in_words(&key);
            let why = format!("{count} incidents that began within {} s share {shared}", rule.window.as_secs());
            let members: Vec<IncidentId> = members.into_iter().collect();
            let Some(into) = self.unite(&members, at, &why) else { continue };
            opened = opened.saturating_sub(u64::try_from(count - 1).unwrap_or(0));
            self.hold_key(&into, HeldKey { key: key.clone(), at, counts: true, storm: true });
            if !known && let Some(mut change) = self.touch_incident(&into) {
                let incident = &mut change.state().incident;
                if !incident.title.starts_with(STORM) {
                    incident.description = format!("It began with: {}. {}", incident.title, incident.description).trim_end().to_owned();
                    incident.title = format!("{STORM}{}", shared_value(&key));
                }
                change.note(TimelineKind::Storm, at, format!("{why}: they are one from here on, and what shares it joins"));
            }
            let inputs = json!({ "key": key, "incidents": members, "opened_within_window": opened, "rule": {
                "window_secs": rule.window.as_secs(), "incidents": rule.incidents, "percent": rule.percent } });
            decided.push(Decided { incident: Some(into), outcome: "storm", text: format!("makes one incident of a storm: {why}"), inputs });
        }
        decided
    }
}

/// How the title of a storm begins.
const STORM: &str = "Alert storm around ";

/// A key as it stands in a sentence.
fn in_words(key: &str) -> String {
    match key.split_once(':') {
        Some(("name", name)) => format!("the name {name}"),
        Some(("label", label)) => format!("the label {label}"),
        Some(("entity", word)) => format!("the word {word}"),
        Some(("dep", component)) => format!("a dependency on {component}"),
        _ => key.to_owned(),
    }
}

/// What a key is about.
fn shared_value(key: &str) -> &str {
    match key.split_once(':') {
        Some(("label", label)) => label.split_once('=').map_or(label, |(_, value)| value),
        Some((_, value)) => value,
        None => key,
    }
}
