//! What detectors said over a recording, summed up: alerts, their rules, and the incidents they would have made.

use std::collections::{BTreeMap, HashMap};

use opspilot_enrichers::{CORRELATOR, DEDUP, INCIDENT_STORE, Rehearsal, Rehearsed, SILENCE, topology};
use opspilot_kernel::{
    alert::{AlertRecord, ResolvedBy, Transition},
    fingerprint::Fingerprint,
    ids::AlertId,
    incident::Incident,
    module::ModuleId,
    signal::Severity,
    time::Timestamp,
};
use opspilot_runtime::TopologyView;
use serde::de::DeserializeOwned;

use super::drive::Hears;
use crate::config::Config;

/// Alerts beyond so many are only counted, by rule.
const KEPT: usize = 1_000_000;

/// One alert: from its first firing to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Episode {
    pub(crate) fingerprint: Fingerprint,
    pub(crate) module: String,
    pub(crate) rule: String,
    pub(crate) source: String,
    pub(crate) title: String,
    pub(crate) severity: Severity,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) fired_at: Timestamp,
    /// When it was over; none if it still held at the end of the recording.
    pub(crate) over_at: Option<Timestamp>,
    pub(crate) resolved_by: Option<ResolvedBy>,
    /// Observations.
    pub(crate) count: u64,
}

/// What a rule said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RuleSum {
    pub(crate) alerts: u64,
    pub(crate) observations: u64,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) still_firing: u64,
}

/// Hears everything, keeps what is worth telling.
pub(crate) struct Story {
    pub(crate) episodes: Vec<Episode>,
    pub(crate) rules: BTreeMap<(String, String), RuleSum>,
    pub(crate) alerts: u64,
    open: HashMap<AlertId, Option<usize>>,
    pipeline: Rehearsal,
}

impl Story {
    /// With the stages of the pipeline as a configuration has them.
    pub(crate) fn new(config: &Config) -> Result<Story, String> {
        let topology = TopologyView::default();
        if let Some(configured) = section::<topology::Config>(config, topology::ID)? {
            topology.publish(configured.graph());
        }
        let stages = Rehearsed {
            dedup: section(config, DEDUP)?,
            silence: section(config, SILENCE)?,
            correlator: section(config, CORRELATOR)?,
            store: section(config, INCIDENT_STORE)?,
            topology,
            ..Rehearsed::default()
        };
        Ok(Story { episodes: Vec::new(), rules: BTreeMap::new(), alerts: 0, open: HashMap::new(), pipeline: Rehearsal::new(stages) })
    }

    /// Every incident, in the order in which they would have been opened.
    pub(crate) fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.pipeline.incidents()
    }

    fn fired(&mut self, record: &AlertRecord) -> Option<usize> {
        self.alerts += 1;
        let at = record.logged_at;
        let sum = self.rules.entry((record.detected_by.clone(), record.rule.clone()));
        let sum = sum.or_insert(RuleSum { alerts: 0, observations: 0, first: at, last: at, still_firing: 0 });
        sum.alerts += 1;
        sum.still_firing += 1;
        sum.last = sum.last.max(at);
        if self.episodes.len() >= KEPT {
            return None;
        }
        self.episodes.push(Episode {
            fingerprint: record.fingerprint,
            module: record.detected_by.clone(),
            rule: record.rule.clone(),
            source: record.source.clone(),
            title: record.title.clone(),
            severity: record.severity,
            labels: record.labels.clone(),
            fired_at: at,
            over_at: None,
            resolved_by: None,
            count: 0,
        });
        Some(self.episodes.len() - 1)
    }
}

/// The section of a module that is enabled.
fn section<C: DeserializeOwned>(config: &Config, id: ModuleId) -> Result<Option<C>, String> {
    let settings = config.modules.get(&id).filter(|settings| settings.enabled);
    settings.map(|settings| serde_json::from_value(settings.config.clone())).transpose().map_err(|error| format!("{id}: {error}"))
}

impl Hears for Story {
    fn record(&mut self, record: AlertRecord) {
        let known = self.open.get(&record.alert).copied();
        let place = match (known, record.transition) {
            (Some(place), _) => place,
            (None, Transition::Firing) => {
                let place = self.fired(&record);
                self.open.insert(record.alert.clone(), place);
                place
            }
            (None, Transition::Repeat | Transition::Resolved) => None,
        };
        let over = record.transition == Transition::Resolved && self.open.remove(&record.alert).is_some();
        if let Some(sum) = self.rules.get_mut(&(record.detected_by.clone(), record.rule.clone())) {
            sum.observations += record.count;
            sum.still_firing -= u64::from(over);
        }
        if let Some(episode) = place.and_then(|place| self.episodes.get_mut(place)) {
            episode.count += record.count;
            episode.severity = episode.severity.max(record.severity);
            if over {
                episode.over_at = Some(record.logged_at.max(episode.fired_at));
                episode.resolved_by = record.resolved_by;
            }
        }
        self.pipeline.record(record);
    }

    fn tick(&mut self, at: Timestamp) {
        self.pipeline.tick(at);
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.pipeline.next_due()
    }
}
