//! The table of keys, in memory: which incidents that are not resolved have what in common with what may still come.

use std::collections::{BTreeMap, BTreeSet};

use opspilot_kernel::{ids::IncidentId, time::Timestamp};
use opspilot_ledger::pipeline::{BoardRequest, HeldKey, KeyHolder, Merge};

/// Who has which key.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Keyring {
    holders: BTreeMap<String, Holders>,
    /// The keys of each incident, and whether enough incidents with it are a storm.
    of: BTreeMap<IncidentId, BTreeMap<String, bool>>,
}

/// The incidents that have one key. Of a name that very many share only the young ones and the storms are ever walked.
#[derive(Debug, Default, PartialEq)]
struct Holders {
    /// By when they were opened, then by name.
    list: Vec<KeyHolder>,
    storms: usize,
}

impl Keyring {
    pub(crate) fn hold(&mut self, incident: &IncidentId, opened_at: Timestamp, held: HeldKey) {
        let is_new = self.of.entry(incident.clone()).or_default().insert(held.key.clone(), held.counts).is_none();
        let holders = self.holders.entry(held.key).or_default();
        if is_new {
            let place = holders.list.partition_point(|other| (other.opened_at, &other.incident) < (opened_at, incident));
            holders.list.insert(place, KeyHolder { incident: incident.clone(), at: held.at, opened_at, storm: held.storm });
            holders.storms += usize::from(held.storm);
        } else if let Some(holder) = holders.list.iter_mut().find(|holder| holder.incident == *incident) {
            holder.at = holder.at.max(held.at);
            holders.storms += usize::from(held.storm && !holder.storm);
            holder.storm |= held.storm;
        }
    }

    /// The incident is over.
    pub(crate) fn release(&mut self, incident: &IncidentId) {
        for key in self.of.remove(incident).into_iter().flat_map(BTreeMap::into_keys) {
            if let Some(holders) = self.holders.get_mut(&key) {
                holders.list.retain(|holder| holder.incident != *incident);
                holders.storms = holders.list.iter().filter(|holder| holder.storm).count();
                if holders.list.is_empty() {
                    self.holders.remove(&key);
                }
            }
        }
    }

    pub(crate) fn merge(&mut self, merge: &Merge, opened_at: Timestamp) {
        let moved: Vec<HeldKey> = self
            .of
            .get(&merge.from)
            .into_iter()
            .flatten()
            .filter_map(|(key, counts)| {
                let holder = self.holders.get(key)?.list.iter().find(|holder| holder.incident == merge.from)?;
                Some(HeldKey { key: key.clone(), at: holder.at, counts: *counts, storm: holder.storm })
            })
            .collect();
        self.release(&merge.from);
        for held in moved {
            self.hold(&merge.into, opened_at, held);
        }
    }

    /// What the board shows of it; `looked_at` are the incidents whose time to be looked at has come.
    pub(crate) fn read(&self, request: &BoardRequest, looked_at: &BTreeSet<IncidentId>) -> BTreeMap<String, Vec<KeyHolder>> {
        let mut shown: BTreeMap<String, Vec<KeyHolder>> = BTreeMap::new();
        let mut show = |key: &String, of: &dyn Fn(&Holders) -> Vec<KeyHolder>| {
            let holders = self.holders.get(key).map(of).unwrap_or_default();
            if !holders.is_empty() {
                shown.entry(key.clone()).or_insert(holders);
            }
        };
        for key in &request.keys {
            show(key, &|holders| holders.list.clone());
        }
        for key in &request.storms {
            show(key, &|holders| holders.young_and_storms(None));
        }
        if let Some(since) = request.opened_since {
            let own = looked_at.iter().filter_map(|id| self.of.get(id)).flatten().filter(|(_, counts)| **counts);
            for (key, _) in own {
                show(key, &|holders| holders.young_and_storms(Some(since)));
            }
        }
        shown
    }
}

impl Holders {
    /// The storms, and what was opened since then.
    fn young_and_storms(&self, since: Option<Timestamp>) -> Vec<KeyHolder> {
        let young = since.map_or(self.list.len(), |since| self.list.partition_point(|holder| holder.opened_at < since));
        let (old, young) = self.list.split_at(young);
        let storms = old.iter().filter(|holder| holder.storm).take(if self.storms > 0 { old.len() } else { 0 });
        storms.chain(young).cloned().collect()
    }
}
